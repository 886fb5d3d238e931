//! What is logged: one line for each connection that ends other than it should, and not too many of them.

#![expect(clippy::disallowed_types, reason = "tests own sockets, and share what was logged")]

#[expect(dead_code, reason = "the other programs use the rest")]
mod support;

use std::io::{self, Write};
use std::sync::{Mutex, MutexGuard};

use ringwire::{Router, on_message};
use ringwire_peers::{Client, stays_so_for};
use support::{Server, config, ms, wait_until};

/// Everything that was logged, and one test at a time that looks at it.
static LOGGED: Mutex<Vec<u8>> = Mutex::new(Vec::new());
static ALONE: Mutex<()> = Mutex::new(());

struct Log;

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        lock(&LOGGED).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A test that failed does not fail the others.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Logs from here on.
fn listen() -> MutexGuard<'static, ()> {
    let alone = lock(&ALONE);
    let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(|| Log).finish();
    // Another test may have been first.
    let _ = tracing::subscriber::set_global_default(subscriber);
    lock(&LOGGED).clear();
    alone
}

/// The lines with this text.
fn lines(text: &str) -> Vec<String> {
    let logged = String::from_utf8(lock(&LOGGED).clone()).expect("the log is text");
    logged.lines().filter(|line| line.contains(text)).map(str::to_owned).collect()
}

fn server() -> Server {
    Server::with_handler(config(), &["127.0.0.1:0"], |_, _| {
        let echo = on_message(|ctx, message| {
            assert!(message.as_bytes() != b"panic", "as asked for");
            let _ = ctx.send(message);
        });
        let other = on_message(|_, _| {});
        Router::new().websocket("/rooms/{room}", echo).websocket("/other", other)
    })
}

fn client(server: &Server, path: &str) -> Client {
    let stream = ringwire_peers::connect(server.addr());
    Client::upgrade(stream, &ringwire_peers::client_request(path))
}

#[test]
fn an_end_that_is_no_clean_one_has_a_line() {
    let _alone = listen();
    let server = server();
    let mut good = client(&server, "/rooms/secret-token");
    good.send("good");
    assert_eq!(good.text(), "good");
    good.leave();

    let stream = ringwire_peers::connect(server.addr());
    let from = stream.local_addr().expect("it is connected");
    let target = ringwire_peers::client_request("/rooms/secret-token");
    let mut wrong = Client::upgrade(stream, &target);
    wrong.send("hello");
    assert_eq!(wrong.text(), "hello");
    wrong.raw(&ringwire_peers::frame(0xc1, b"reserved"));
    wrong.close_frame();
    drop(wrong);
    wait_until("it has a line", || !lines("connection ended").is_empty());
    let gone = client(&server, "/other");
    gone.reset();
    wait_until("there are two", || lines("connection ended").len() == 2);
    let mut panics = client(&server, "/rooms/7");
    panics.send("panic");
    panics.close_frame();
    drop(panics);
    wait_until("there are three", || lines("connection ended").len() == 3);
    stays_so_for(ms(300), "there are three", || lines("connection ended").len() == 3);

    let ended = lines("connection ended");
    assert_eq!(ended.len(), 3, "{ended:#?}");
    let line = &ended[0];
    for part in [
        "worker{index=0}",
        " INFO ",
        // Some server of this process, its first worker, and the first slot of that.
        " conn=",
        "/0/0/",
        &format!("peer={from}"),
        "route=\"/rooms/{room}\"",
        "reason=protocol: ",
        "code=1002",
        "lasted=0.",
        "unsent=0",
    ] {
        assert!(line.contains(part), "{part}: {line}");
    }
    let number = |name: &str| -> u64 {
        let (_, rest) = line.split_once(name).expect("it is there");
        let end = rest.find(' ').unwrap_or(rest.len());
        rest[..end].parse().expect("it is a number")
    };
    // The request and its answer among them.
    assert!((100..1000).contains(&number("received=")), "{line}");
    assert!((100..1000).contains(&number(" sent=")), "{line}");
    assert!(ended[1].contains("route=\"/other\"") && ended[1].contains("reason=transport"));
    assert!(ended[2].contains("reason=handler_panic") && ended[2].contains("code=1011"));
    assert!(lines("secret").is_empty(), "a path may hold a token");
}

#[test]
fn what_peers_say_stays_on_its_line() {
    let _alone = listen();
    let server = server();
    let mut client = client(&server, "/other");
    client.close(4000, "bye\n2026 INFO all is well");
    // It does not wait for the answer.
    client.reset();
    wait_until("it is closed", || server.stats().open_connections == 0);
    stays_so_for(ms(100), "it has no line of its own", || {
        lines("all is well").iter().all(|line| line.contains("connection ended"))
    });
}

#[test]
fn a_flood_of_them_has_few_lines_and_a_sum() {
    let _alone = listen();
    let server = server();
    let mut written = 0;
    for _ in 0..100 {
        client(&server, "/other").reset();
    }
    wait_until("all are gone", || server.stats().closes.total() == 100);
    wait_until("all are accounted for", || {
        written = lines("connection ended").len();
        let sums = lines("more connections ended like this");
        let left_out: usize = sums
            .iter()
            .filter_map(|line| {
                line.split_once("left_out=")?.1.split(' ').next()?.parse::<usize>().ok()
            })
            .sum();
        written + left_out == 100
    });
    assert!(written < 60, "{written} lines");
    let sum = &lines("more connections ended like this")[0];
    assert!(
        sum.contains("reason=\"transport\"") || sum.contains("reason=\"end_of_stream\""),
        "{sum}"
    );
}
