//! Requests with responses, pools.

use std::thread;

use ringwire::CloseCode;
use ringwire::client::{Error, ErrorKind, Pool, Waiting};

use super::peer::{builder, url};
use crate::support::{PATIENCE, Server, config, ms};

#[test]
fn a_pool_gives_each_client_to_one_at_a_time() {
    let server = Server::echo(config());
    let pool = Pool::new(builder(), url(server.addr()), 2);
    let mut first = pool.get(PATIENCE).unwrap();
    let second = pool.get(PATIENCE).unwrap();
    let error = pool.get(ms(50)).unwrap_err();
    assert!(matches!(error, Error::Timeout(Waiting::Pool)), "{error}");
    first.send("hello").unwrap();
    assert_eq!(first.receive().unwrap(), Some("hello".into()));
    let waiting = thread::spawn({
        let pool = pool.clone();
        move || pool.get(PATIENCE)
    });
    thread::sleep(ms(20));
    drop(first);
    let mut third = waiting.join().unwrap().unwrap();
    third.send("again").unwrap();
    assert_eq!(third.receive().unwrap(), Some("again".into()));
    third.discard();
    assert_eq!((pool.count(), pool.idle_count()), (1, 0));
    drop(second);
    assert_eq!((pool.count(), pool.idle_count()), (1, 1));
    let used = pool.get(PATIENCE).unwrap();
    pool.close(CloseCode::NORMAL, "").unwrap();
    assert!(!used.is_open(), "those in use are closed, too");
    drop(used);
    assert_eq!((pool.count(), pool.idle_count()), (0, 0));
    assert_eq!(pool.get(PATIENCE).unwrap_err().kind(), ErrorKind::Closed);
    let stats = server.drained();
    assert!(!stats.is_empty());
}

#[test]
fn many_threads_share_a_pool() {
    let server = Server::echo(config());
    let pool = Pool::new(builder(), url(server.addr()), 3);
    thread::scope(|scope| {
        for thread in 0..8 {
            let pool = &pool;
            scope.spawn(move || {
                for round in 0..20 {
                    let mut client = pool.get(PATIENCE).unwrap();
                    let text = format!("{thread} {round}");
                    client.send(text.as_str()).unwrap();
                    assert_eq!(client.receive().unwrap(), Some(text.as_str().into()));
                }
            });
        }
    });
    assert!(pool.count() <= 3 && pool.count() == pool.idle_count());
    pool.close(CloseCode::NORMAL, "").unwrap();
}
