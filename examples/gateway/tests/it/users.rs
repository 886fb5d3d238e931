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

use crate::common::{SECRET, config};

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

/// Runs a play on each driver: with a gateway where one user may log in at a time, within a second, and with a database
/// that somebody else has locked.
fn while_the_database_is_locked(play: impl Fn(&mut Live, &App, &User, &dyn Fn())) {
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
        let database = Some((users, runtime.handle().clone()));
        let app = App::new(settings, Verifier::hs256(SECRET), database);
        let shared = app.clone();
        let config = config(1).with_driver(driver).with_pinning(Pinning::Off);
        let server = Server::new(config).with_runtime(runtime.handle().clone());
        let mut live = Live::start_on(server, move |worker| router(&shared, worker));

        let other = runtime.block_on(SqliteConnection::connect(&url)).expect("the database");
        let other = RefCell::new(other);
        let run = |text| runtime.block_on(other.borrow_mut().execute(text)).map(drop);
        run("BEGIN EXCLUSIVE").expect("nobody has it locked");
        play(&mut live, &app, &ann, &|| run("ROLLBACK").expect("it is locked"));
    }
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
