//! Requests with responses, pools.

use std::io::Write;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;

use ringwire_client::CloseCode;
use ringwire_client::{Client, Error, ErrorKind, JsonIds, Pool, Requests, Waiting};
use ringwire_peers::server::{frame, read_frame, serve, upgrade, upgrading};
use ringwire_peers::{PATIENCE, ms, wait_until};

use crate::peer::{builder, connect, url};

/// A server that answers each request by its own rule.
fn answering(
    mut answer: impl FnMut(serde_json::Value) -> Vec<String> + Send + 'static,
) -> std::net::SocketAddr {
    upgrading(move |mut stream| {
        loop {
            let (first, payload) = read_frame(&mut stream);
            if first == 0x88 {
                let _ = stream.write_all(&frame(0x88, &payload));
                return;
            }
            for text in answer(serde_json::from_slice(&payload).unwrap()) {
                stream.write_all(&frame(0x81, text.as_bytes())).unwrap();
            }
        }
    })
}

fn split(client: Client) -> (Requests<JsonIds>, ringwire_client::Pushes<JsonIds>) {
    Requests::split(client, JsonIds::default(), 2)
}

#[test]
fn responses_find_their_requests_and_pushes_are_acknowledged() {
    let (sender, seen) = mpsc::channel();
    let (let_go, both_are_pending) = mpsc::channel();
    let mut held: Option<u64> = None;
    let address = answering(move |request| {
        sender.send(request.to_string()).unwrap();
        let Some(id) = request["id"].as_u64() else { return Vec::new() };
        match held.take() {
            // The first waits for the second, and is answered after it.
            None => {
                held = Some(id);
                vec![r#"{"id":"p1","news":1}"#.to_owned(), r#"{"news":2}"#.to_owned()]
            }
            Some(first) => {
                both_are_pending.recv_timeout(PATIENCE).unwrap();
                vec![format!(r#"{{"ack":{id},"n":2}}"#), format!(r#"{{"ack":{first},"n":1}}"#)]
            }
        }
    });
    let (requests, mut pushes) = split(connect(address));
    let receiving = thread::spawn(move || {
        let mut all = Vec::new();
        while let Some(push) = pushes.receive().unwrap() {
            all.push(push.as_text().unwrap().to_owned());
        }
        all
    });
    let first = requests.begin(r#"{"do":"a"}"#).unwrap();
    let second = requests.begin(r#"{"do":"b"}"#).unwrap();
    assert!(matches!(requests.begin("{}"), Err(Error::TooManyPending)));
    let_go.send(()).unwrap();
    assert_eq!(first.id() + 1, *second.id());
    assert!(second.wait(PATIENCE).unwrap().as_text().unwrap().contains("\"n\":2"));
    assert!(first.wait(PATIENCE).unwrap().as_text().unwrap().contains("\"n\":1"));
    assert_eq!(requests.pending_count(), 0);
    let error = requests.begin("no object").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidMessage);
    assert_eq!(requests.pending_count(), 0);
    requests.close(CloseCode::NORMAL, "").unwrap();
    assert_eq!(receiving.join().unwrap(), [r#"{"id":"p1","news":1}"#, r#"{"news":2}"#]);
    let acks: Vec<_> = seen.try_iter().filter(|text| text.contains("ack")).collect();
    assert_eq!(acks, [r#"{"ack":"p1"}"#]);
    assert_eq!(requests.begin("{}").unwrap_err().kind(), ErrorKind::Closed);
}

#[test]
fn responses_that_come_late_twice_or_never() {
    let mut earlier = 0;
    let address = answering(move |request| {
        let id = request["id"].as_u64().unwrap();
        let late = earlier;
        earlier = id;
        match request["do"].as_str() {
            Some("nothing") => Vec::new(),
            _ => vec![format!(r#"{{"ack":{late}}}"#), format!(r#"{{"ack":{id}}}"#)],
        }
    });
    let (requests, mut pushes) = split(connect(address));
    let receiving = thread::spawn(move || pushes.receive());
    let error = requests.send_with_ack(r#"{"do":"nothing"}"#, ms(50)).unwrap_err();
    assert!(matches!(error, Error::Timeout(Waiting::Response)), "{error}");
    assert_eq!(requests.pending_count(), 0);
    requests.send_with_ack("{}", PATIENCE).unwrap();
    assert_eq!(requests.late_count(), 1);
    // One waits while the connection ends.
    let pending = requests.begin(r#"{"do":"nothing"}"#).unwrap();
    requests.close(CloseCode::NORMAL, "").unwrap();
    assert!(receiving.join().unwrap().unwrap().is_none());
    assert_eq!(pending.wait(PATIENCE).unwrap_err().kind(), ErrorKind::Closed);
}

#[test]
fn clients_that_are_not_well_are_not_given_out() {
    let connections = Arc::new(AtomicUsize::new(0));
    let acted = Arc::new(AtomicUsize::new(0));
    let (counted, done) = (Arc::clone(&connections), Arc::clone(&acted));
    let address = serve(move |mut stream, number| {
        counted.fetch_add(1, Ordering::Relaxed);
        upgrade(&mut stream);
        match number {
            // Gone as soon as it is not needed.
            0 => assert_eq!(read_frame(&mut stream).1, b"used"),
            // Says something that nobody has asked for.
            1 => stream.write_all(&frame(0x81, b"surprise")).unwrap(),
            // Says nothing, not even to a ping.
            _ => {}
        }
        if number > 0 {
            thread::spawn(move || ringwire_peers::server::drain(stream));
        } else {
            drop(stream);
        }
        done.store(number + 1, Ordering::Relaxed);
    });
    let pool = Pool::new(builder(), url(address), 1).with_check(ms(0), ms(100));
    let mut client = pool.get(PATIENCE).unwrap();
    client.send("used").unwrap();
    drop(client);
    for expected in 2..=4 {
        wait_until("the server has acted", || acted.load(Ordering::Relaxed) == expected - 1);
        drop(pool.get(PATIENCE).unwrap());
        assert_eq!(connections.load(Ordering::Relaxed), expected);
    }
    assert_eq!(pool.count(), 1);
    let failing = Pool::new(builder(), "ws://127.0.0.1:1/", 1);
    for _ in 0..3 {
        let error = failing.get(ms(50)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectFailed, "its place is free again");
    }
    let wrong = Pool::new(builder(), "no URL", 1);
    assert_eq!(wrong.get(ms(50)).unwrap_err().kind(), ErrorKind::Setting);
}

#[test]
fn a_close_that_cannot_be_sent_leaves_a_pool_as_it_was() {
    let address = serve(|mut stream, _| {
        upgrade(&mut stream);
        let (first, code) = read_frame(&mut stream);
        assert_eq!((first, &*code), (0x88, &b"\x03\xe8"[..]));
        stream.write_all(&frame(0x88, &code)).unwrap();
    });
    let pool = Pool::new(builder().with_close_timeout(PATIENCE), url(address), 1);
    let client = pool.get(PATIENCE).unwrap();
    for (code, reason) in [(1000, "x".repeat(124)), (1005, String::new())] {
        let error = pool.close(CloseCode::new(code), &reason).unwrap_err();
        assert!(matches!(error, Error::InvalidMessage(_)), "{error}");
    }
    drop(client);
    assert_eq!((pool.count(), pool.idle_count()), (1, 1));
    let client = pool.get(PATIENCE).unwrap();
    assert!(client.is_open());
    pool.close(CloseCode::NORMAL, "").unwrap();
    assert!(!client.is_open(), "those in use as well");
    pool.close(CloseCode::NORMAL, &"x".repeat(124)).unwrap();
}
