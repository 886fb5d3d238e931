//! The example with a real database: SQLite in a file, and PostgreSQL where `DATABASE_URL` names one.

#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a test measures how long others wait, and they take turns at a database"
)]

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use ringwire::testing::{Get, Live, Peer, Stage};
use ringwire::{Config, DriverKind};
use ringwire_database::{Accounts, router};
use sqlx::Executor as _;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions as _, SqliteConnection};
use tempfile::TempDir;
use tokio::runtime::Runtime;

fn runtime() -> Runtime {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.worker_threads(1).enable_all().build().expect("a runtime")
}

fn start(driver: DriverKind, runtime: &Runtime, accounts: &Accounts) -> Live {
    let accounts = accounts.clone();
    let config = Config::default().with_io_workers(1).with_driver(driver);
    Live::start_within(config, runtime.handle().clone(), move |_| router(accounts.clone()))
}

fn scene(stage: &mut impl Stage) {
    stage.connect("/ws?name=nobody").expect_status(401);
    let mut ann = stage.connect(Get::new("/ws?name=ann")).expect_open();
    for (said, heard) in [("add 3", "3"), ("add 4", "7"), ("get", "7"), ("hello", "hello")] {
        ann.send(said);
        assert_eq!(ann.text(), heard);
    }
    assert_eq!(stage.request("/accounts/ann").text(), "7");
    assert_eq!(stage.request("/accounts/nobody").status, 404);
}

/// In memory where that can be: what is looked at waits for queries, and not for a disk.
fn folder() -> TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).expect("a folder")
}

/// PostgreSQL makes no table twice at once.
static DATABASE: Mutex<()> = Mutex::new(());

#[test]
fn accounts_are_kept_in_a_database() {
    let _one = DATABASE.lock().unwrap_or_else(PoisonError::into_inner);
    let runtime = runtime();
    for driver in [DriverKind::Epoll, DriverKind::Uring] {
        let folder = folder();
        let mut urls =
            vec![format!("sqlite:{}?mode=rwc", folder.path().join("accounts.db").display())];
        urls.extend(std::env::var("DATABASE_URL"));
        for url in urls {
            let accounts = runtime.block_on(async {
                let accounts = Accounts::open(&url).await.expect("the database opens");
                let now = accounts.add("ann", 0).await.expect("an account");
                accounts.add("ann", -now).await.expect("an account");
                accounts
            });
            scene(&mut start(driver, &runtime, &accounts));
        }
    }
}

#[test]
fn sums_that_are_too_large_leave_the_account_as_it_was() {
    let _one = DATABASE.lock().unwrap_or_else(PoisonError::into_inner);
    let runtime = runtime();
    let folder = folder();
    let mut urls = vec![format!("sqlite:{}?mode=rwc", folder.path().join("accounts.db").display())];
    urls.extend(std::env::var("DATABASE_URL"));
    for url in urls {
        let accounts = runtime.block_on(async {
            let accounts = Accounts::open(&url).await.expect("the database opens");
            for name in ["most", "least"] {
                let now = accounts.add(name, 0).await.expect("an account");
                accounts.add(name, -now).await.expect("an account");
            }
            accounts
        });
        let mut live = start(DriverKind::Epoll, &runtime, &accounts);
        for (name, number, one) in [("most", i64::MAX, 1), ("least", -i64::MAX, -2)] {
            let mut peer = live.connect(Get::new(&format!("/ws?name={name}"))).expect_open();
            let too_large = || "the sum is too large".to_owned();
            for (said, heard) in [
                (format!("add {number}"), number.to_string()),
                (format!("add {one}"), too_large()),
                ("get".to_owned(), number.to_string()),
                (format!("add {number}"), too_large()),
                (format!("add {}", -one), (number - one).to_string()),
            ] {
                peer.send(&*said);
                assert_eq!(peer.text(), heard, "{name}: {said}");
            }
        }
    }
}

/// Another program has the database for itself, and a thousand queries wait. Who needs none is served as ever.
#[test]
fn a_thousand_wait_for_slow_queries_and_others_do_not() {
    const WAITING: usize = 1000;
    let runtime = runtime();
    for driver in [DriverKind::Epoll, DriverKind::Uring] {
        let folder = folder();
        let path = folder.path().join("accounts.db");
        let url = format!("sqlite:{}?mode=rwc", path.display());
        let accounts = runtime.block_on(async {
            let accounts = Accounts::open(&url).await.expect("the database opens");
            accounts.add("ann", 0).await.expect("an account");
            accounts
        });
        let mut live = start(driver, &runtime, &accounts);
        let mut open = || live.connect("/ws?name=ann").expect_open();
        let mut waiting: Vec<Peer> = (0..WAITING).map(|_| open()).collect();
        let mut others: Vec<Peer> = (0..10).map(|_| open()).collect();
        let mut holder: SqliteConnection = runtime
            .block_on(SqliteConnectOptions::new().filename(&path).connect())
            .expect("another connection");
        runtime.block_on(holder.execute("BEGIN EXCLUSIVE")).expect("the lock");
        for peer in &mut waiting {
            peer.send("add 1");
        }
        let mut times = Vec::new();
        for _ in 0..20 {
            for peer in &mut others {
                let begin = Instant::now();
                peer.send("hello");
                assert_eq!(peer.text(), "hello");
                times.push(begin.elapsed());
            }
        }
        times.sort_unstable();
        let median = times[times.len() / 2];
        assert!(median < Duration::from_millis(500), "{median:?} in the median");
        assert!(waiting[0].try_message().is_none(), "the database is held");
        runtime.block_on(holder.execute("COMMIT")).expect("the lock goes back");
        let mut sums: Vec<usize> =
            waiting.iter_mut().map(|peer| peer.text().parse().expect("a number")).collect();
        sums.sort_unstable();
        assert!(sums.into_iter().eq(1..=WAITING), "each query was carried out once");
    }
}
