//! Users in SQLite, and in PostgreSQL where `DATABASE_URL` names one.

use std::cell::RefCell;
use std::time::{Duration, Instant, UNIX_EPOCH};

use ringwire::settings::Secret;
use ringwire::testing::{Get, Live, Peer, Stage};
use ringwire::tuning::Pinning;
use ringwire::{DriverKind, Server};
use ringwire_gateway::app::{App, router};
use ringwire_gateway::auth::{Refused, Verifier};
use ringwire_gateway::settings::Settings;
use ringwire_gateway::users::{User, Users};
use serde_json::json;
use sqlx::{Connection as _, Executor as _, SqliteConnection};
use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};
use uuid::Uuid;

use crate::common::{SECRET, config, enter, id_of};

const KEY: &str = "the key of administrators";
const PASSWORD: &str = "correct horse battery staple";

fn runtime() -> Runtime {
    Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime")
}

fn url_in(folder: &TempDir) -> String {
    format!("sqlite:{}?mode=rwc", folder.path().join("users.db").display())
}

async fn open(url: &str) -> Users {
    Users::open(&Secret::new(url), 2, 16).await.expect("the database opens")
}

/// One whom no run before has left in the database.
fn user(name: &str) -> User {
    let id = Uuid::new_v4();
    let username = format!("{name}-{id}");
    User { id, email: format!("{name}@example.org"), username, role: None, active: true }
}

#[test]
fn the_database_has_the_last_word_about_users() {
    let folder = tempfile::tempdir().expect("a folder");
    let urls = [url_in(&folder)].into_iter().chain(std::env::var("DATABASE_URL"));
    for url in urls {
        runtime().block_on(async {
            let users = open(&url).await;
            let ann = User { role: Some("admin".to_owned()), ..user("ann") };
            users.add(&ann, None).await.expect("a user");
            let token = User { username: "Ann".to_owned(), role: None, ..ann.clone() };
            let token = token.claims(UNIX_EPOCH, Duration::from_secs(60));
            let claims = users.confirm(token.clone()).await.expect("she is there");
            assert_eq!((&claims.username, claims.is_admin()), (&ann.username, true));
            assert_eq!((&claims.jti, claims.iat, claims.exp), (&token.jti, 0, 60));

            let nobody = user("nobody").claims(UNIX_EPOCH, Duration::ZERO);
            assert_eq!(users.confirm(nobody).await, Err(Refused::UnknownUser));
            users.add(&User { active: false, ..ann }, None).await.expect("a change");
            // The tables are there, and stay as they are.
            assert_eq!(open(&url).await.confirm(token).await, Err(Refused::Inactive));
        });
    }
}

#[test]
fn users_log_in_with_a_password_that_is_right() {
    let folder = tempfile::tempdir().expect("a folder");
    let urls = [url_in(&folder)].into_iter().chain(std::env::var("DATABASE_URL"));
    for url in urls {
        runtime().block_on(async {
            let users = open(&url).await;
            let (ann, bob) = (user("ann"), user("bob"));
            let eve = User { active: false, ..user("eve") };
            users.add(&ann, Some(PASSWORD)).await.expect("a user");
            users.add(&bob, None).await.expect("a user");
            users.add(&eve, Some(PASSWORD)).await.expect("a user");
            assert_eq!(users.login(&ann.username, PASSWORD).await, Ok(ann.clone()));
            let long = "a".repeat(2000);
            for (name, password, expected) in [
                (&ann, "guessed", Refused::Credentials),
                (&ann, "", Refused::Credentials),
                (&ann, &long, Refused::Credentials),
                (&bob, "", Refused::Credentials),
                (&bob, PASSWORD, Refused::Credentials),
                (&user("nobody"), PASSWORD, Refused::Credentials),
                (&eve, "guessed", Refused::Credentials),
                (&eve, PASSWORD, Refused::Inactive),
            ] {
                let refused = users.login(&name.username, password).await;
                assert_eq!(refused, Err(expected), "{}", name.username);
            }
            users.add(&ann, Some("another one")).await.expect("a change");
            assert_eq!(users.login(&ann.username, PASSWORD).await, Err(Refused::Credentials));
            assert_eq!(users.login(&ann.username, "another one").await, Ok(ann));
        });
    }
}

/// An application that has its users already shows them to the gateway.
#[test]
fn a_view_does_as_well_as_a_table() {
    let folder = tempfile::tempdir().expect("a folder");
    let url = url_in(&folder);
    let id = Uuid::new_v4();
    runtime().block_on(async {
        let mut own = SqliteConnection::connect(&url).await.expect("the database");
        for text in [
            "CREATE TABLE people (id TEXT, name TEXT)",
            "CREATE VIEW gateway_users AS SELECT id, name AS username, '' AS email, NULL AS role, \
             TRUE AS active, NULL AS password_hash FROM people",
        ] {
            own.execute(text).await.expect("a table");
        }
        let add = sqlx::query("INSERT INTO people VALUES ($1, 'ann')").bind(id.to_string());
        own.execute(add).await.expect("a row");
        let users = open(&url).await;
        let claims = User { id, ..user("somebody") }.claims(UNIX_EPOCH, Duration::ZERO);
        assert_eq!(users.confirm(claims).await.expect("a user").username, "ann");
    });
}

#[test]
fn a_database_that_is_none_is_an_error_without_its_password() {
    for url in ["mysql://root:s3cret@localhost/x", "s3cret", "postgres://u:s3cret@127.0.0.1:1/x"] {
        let secret = Secret::new(url);
        let error = runtime().block_on(Users::open(&secret, 1, 1)).expect_err("there is none");
        assert!(!format!("{error} {error:?}").contains("s3cret"), "{error}");
    }
}

/// Runs a play on each driver: with a gateway where one user may log in at a time, within a second, and with whoever
/// works on its database as well, in SQL.
fn with_a_database(play: impl Fn(&mut Live, &App, &User, &dyn Fn(&str))) {
    let runtime = runtime();
    for driver in [DriverKind::Epoll, DriverKind::Uring] {
        let folder = tempfile::tempdir().expect("a folder");
        let url = url_in(&folder);
        let users = runtime.block_on(Users::open(&Secret::new(&*url), 2, 1)).expect("a database");
        let ann = user("ann");
        runtime.block_on(users.add(&ann, Some(PASSWORD))).expect("a user");
        let mut settings = Settings::default();
        settings.login = true;
        settings.login_timeout = Duration::from_secs(1);
        settings.api_key = Some(Secret::new(KEY));
        let database = Some((users, runtime.handle().clone()));
        let app = App::new(settings, Verifier::hs256(SECRET), database);
        let shared = app.clone();
        let config = config(1).with_driver(driver).with_pinning(Pinning::Off);
        let server = Server::new(config).with_runtime(runtime.handle().clone());
        let mut live = Live::start_on(server, move |worker| router(&shared, worker));

        let other = runtime.block_on(SqliteConnection::connect(&url)).expect("the database");
        let other = RefCell::new(other);
        play(&mut live, &app, &ann, &|text| {
            let text = sqlx::AssertSqlSafe(text.to_owned());
            runtime.block_on(other.borrow_mut().execute(text)).expect("the database obeys");
        });
    }
}

/// The same where somebody else has the database locked.
fn while_the_database_is_locked(play: impl Fn(&mut Live, &App, &User, &dyn Fn())) {
    with_a_database(|live, app, ann, sql| {
        sql("BEGIN EXCLUSIVE");
        play(live, app, ann, &|| sql("ROLLBACK"));
    });
}

fn log_in(live: &mut Live, user: &User) -> Peer {
    let mut peer = live.connect(Get::new("/ws")).expect_open();
    peer.send(json!({ "username": user.username, "password": PASSWORD }).to_string());
    peer
}

/// What a connection is closed with whose login could not be checked in time.
fn too_late() -> (u16, String) {
    let text = "the login could not be checked in time";
    (Refused::Unavailable.close_code().get(), text.to_owned())
}

#[test]
fn a_login_whose_check_takes_too_long_is_closed_in_time() {
    while_the_database_is_locked(|live, app, ann, unlock| {
        let began = Instant::now();
        let end = log_in(live, ann).closed();
        assert_eq!((end.code, end.reason), too_late());
        assert!(began.elapsed() >= Duration::from_secs(1), "{:?}", began.elapsed());
        assert_eq!(app.presence.counts().connections, 0);
        unlock();
        // What was given up gives back its place, once its connection is gone.
        let is_let_in = || log_in(live, ann).text() == r#"{"status":"ok"}"#;
        assert!(std::iter::repeat_with(is_let_in).take(100).any(|is_let_in| is_let_in));
    });
}

#[test]
fn more_logins_than_may_be_are_refused_and_say_so() {
    while_the_database_is_locked(|live, app, ann, _| {
        // Whichever comes first has the one place.
        let peers = [log_in(live, ann), log_in(live, ann)];
        let mut ends = peers.map(|mut peer| {
            let end = peer.closed();
            (end.code, end.reason)
        });
        ends.sort();
        let busy = (Refused::Busy.close_code().get(), "busy".to_owned());
        assert_eq!(ends, [busy, too_late()]);
        assert_eq!(app.counters.refusals()["busy"], 1);
    });
}

/// It refuses all who come with a token.
#[test]
fn a_gateway_whose_database_does_not_answer_is_not_ready() {
    let readiness = |live: &mut Live| live.request(Get::new("/readyz")).status.as_u16();
    with_a_database(|live, app, ann, sql| {
        let users = app.users().expect("they are in a database");
        // Queries have the time of a SQLite that is locked.
        let ask = || runtime().block_on(users.active(ann.id)).is_ok();
        assert_eq!((ask(), readiness(live)), (true, 200));
        sql("BEGIN EXCLUSIVE");
        assert_eq!((ask(), readiness(live)), (false, 503));
        sql("ROLLBACK");
        assert_eq!((ask(), readiness(live)), (true, 200));
    });
}

/// One that asked for each user would take hours.
#[test]
fn cleaning_up_asks_a_database_that_does_not_answer_once() {
    with_a_database(|live, _, _, sql| {
        let names = ["ben", "cem", "dan"];
        for name in names {
            let values = format!("('{}', '{name}', '', TRUE)", id_of(name));
            sql(&format!(
                "INSERT INTO gateway_users (id, username, email, active) VALUES {values}"
            ));
        }
        let mut peers = names.map(|name| enter(live, name, "rooms.text"));
        let clean_up = |live: &mut Live| {
            let post = Get::post("/ws/cleanup", "").with_header("x-api-key", KEY);
            let reply = live.request(post);
            (reply.status.as_u16(), reply.text())
        };
        sql("BEGIN EXCLUSIVE");
        // A query waits for five seconds, and an answer may take ten.
        assert_eq!(clean_up(live), (202, r#"{"connections":0}"#.to_owned()));
        sql("ROLLBACK");
        peers.iter_mut().for_each(Peer::expect_nothing);
        sql("UPDATE gateway_users SET active = FALSE WHERE username <> 'dan'");
        assert_eq!(clean_up(live), (202, r#"{"connections":2}"#.to_owned()));
        assert_eq!(peers[0].closed().reason, "inactive");
        peers[2].expect_nothing();
    });
}
