//! Requests whose client comes back.

use std::collections::HashMap;
use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;

use ringwire_client::{
    Backoff, Client, CloseCode, Delivery, Error, ErrorKind, JsonIds, Message, MessageIds,
    OwnedMessage, Reconnecting, Requests, RetryPolicy, Sorted, Update,
};
use ringwire_peers::server::{frame, read_frame, serve, upgrade};
use ringwire_peers::{PATIENCE, ms, unheard};

use crate::peer::{builder, connect, url};

fn quick() -> RetryPolicy {
    let backoff = Backoff::default().with_first_delay(ms(5)).with_max_delay(ms(10));
    RetryPolicy::default().with_backoff(backoff)
}

fn client(address: SocketAddr) -> Reconnecting {
    Reconnecting::new(builder(), url(address)).with_policy(quick())
}

fn text_of(payload: Vec<u8>) -> String {
    String::from_utf8(payload).unwrap()
}

/// The response to a request of [`JsonIds`].
fn answer(stream: &mut TcpStream, request: &str) {
    let request: serde_json::Value = serde_json::from_str(request).unwrap();
    let text = format!(r#"{{"ack":{},"did":{}}}"#, request["id"], request["do"]);
    stream.write_all(&frame(0x81, text.as_bytes())).unwrap();
}

/// What was sent when the connection is lost fails and says so, unless it may be sent again; what was not waits.
#[test]
fn a_connection_that_is_lost_under_requests() {
    let (sender, seen) = mpsc::channel();
    let address = serve(move |mut stream, number| {
        upgrade(&mut stream);
        for _ in 0..3 {
            let text = text_of(read_frame(&mut stream).1);
            if number == 1 && text != "subscribe" {
                answer(&mut stream, &text);
            }
            sender.send((number, text)).unwrap();
        }
        if number == 1 {
            let _ = read_frame(&mut stream);
        }
    });
    let client = client(address).on_connect(|client| client.send_text("subscribe"));
    let (requests, mut pushes) = Requests::split_reconnecting(client, JsonIds::default(), 10);
    let early = requests.begin(r#"{"do":"early"}"#).unwrap();
    drop(early);
    let patient = |pushes: &mut ringwire_client::Pushes<JsonIds>| {
        pushes.next_update_timeout(PATIENCE).unwrap().unwrap()
    };
    assert!(matches!(patient(&mut pushes), Update::Connected { attempts: 1, .. }));
    let again = requests.begin_idempotent(r#"{"do":"again"}"#).unwrap();
    let once = requests.begin(r#"{"do":"once"}"#).unwrap();
    assert!(matches!(patient(&mut pushes), Update::Disconnected { .. }));
    let error = once.wait(PATIENCE).unwrap_err();
    assert!(matches!(error, Error::Unanswered { was_sent: true }), "{error}");
    let late = requests.begin(r#"{"do":"late"}"#).unwrap();
    assert_eq!(requests.pending_count(), 2);
    let receiving = thread::spawn(move || pushes.receive());
    assert!(again.wait(PATIENCE).unwrap().as_text().unwrap().contains("again"));
    assert!(late.wait(PATIENCE).unwrap().as_text().unwrap().contains("late"));
    requests.close(CloseCode::NORMAL, "").unwrap_err();
    assert!(receiving.join().unwrap().unwrap().is_none());
    let error = requests.begin(r#"{"do":"after"}"#).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Closed);

    let texts = |of: usize, all: &[(usize, String)]| {
        all.iter().filter(|(number, _)| *number == of).map(|(_, text)| text.clone()).collect()
    };
    let all: Vec<_> = seen.try_iter().collect();
    let (first, second): (Vec<_>, Vec<_>) = (texts(0, &all), texts(1, &all));
    let again = r#"{"do":"again","id":2}"#;
    assert_eq!(first, ["subscribe", again, r#"{"do":"once","id":3}"#]);
    assert_eq!(second, ["subscribe", again, r#"{"do":"late","id":4}"#]);
}

#[test]
fn requests_of_a_client_that_gives_up() {
    let (_kept, nobody) = unheard();
    let client = client(nobody).with_policy(quick().with_max_attempts(2));
    let (requests, mut pushes) = Requests::split_reconnecting(client, JsonIds::default(), 10);
    let pending = requests.begin("{}").unwrap();
    assert_eq!(requests.send("whatever").unwrap(), Delivery::Queued);
    assert_eq!(pushes.receive().unwrap_err().kind(), ErrorKind::ConnectFailed);
    let error = pending.wait(PATIENCE).unwrap_err();
    assert!(matches!(error, Error::Unanswered { was_sent: false }), "{error}");
    assert_eq!(requests.begin("{}").unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(requests.send("x").unwrap_err().kind(), ErrorKind::Closed);

    // Who is not received from any more does not come back.
    let client = self::client(nobody);
    let sender = client.sender();
    drop(client);
    assert_eq!(sender.send("x").unwrap_err().kind(), ErrorKind::Closed);
}

/// Many threads, and a server whose connections end all the time: what may be sent again is answered, and what may not
/// is seen once at most.
#[test]
fn connections_that_end_under_many_threads() {
    const THREADS: usize = 4;
    const ROUNDS: usize = 50;
    let counts = Arc::new(Mutex::new(HashMap::<String, usize>::new()));
    let counting = Arc::clone(&counts);
    let address = serve(move |mut stream, number| {
        upgrade(&mut stream);
        // The last of them has no answer, and what is behind it is not read.
        for left in (0..=number % 7).rev() {
            let (first, payload) = read_frame(&mut stream);
            if first == 0x88 {
                stream.write_all(&frame(0x88, &payload)).unwrap();
                return;
            }
            let text = text_of(payload);
            let request: serde_json::Value = serde_json::from_str(&text).unwrap();
            let name = request["do"].as_str().unwrap().to_owned();
            *counting.lock().unwrap().entry(name).or_default() += 1;
            if left > 0 {
                answer(&mut stream, &text);
            }
        }
    });
    let (requests, mut pushes) =
        Requests::split_reconnecting(client(address), JsonIds::default(), THREADS);
    let receiving = thread::spawn(move || while let Ok(Some(_)) = pushes.receive() {});
    let lost: usize = thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|thread| {
                let requests = &requests;
                scope.spawn(move || {
                    (0..ROUNDS).filter(|round| !ask(requests, thread, *round)).count()
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    let _ = requests.close(CloseCode::NORMAL, "");
    receiving.join().unwrap();
    assert_eq!(requests.pending_count(), 0);
    let counts = counts.lock().unwrap();
    assert!(lost > 0 && lost < THREADS * ROUNDS, "{lost} were lost");
    for (name, count) in &*counts {
        assert!(name.starts_with("again") || *count == 1, "{name} was seen {count} times");
    }
    assert!(counts.values().any(|count| *count > 1), "something was sent again");
}

/// One request, every other of which may be sent again. Gives whether there was a response.
fn ask(requests: &Requests<JsonIds>, thread: usize, round: usize) -> bool {
    let kind = if round.is_multiple_of(2) { "again" } else { "once" };
    let name = format!("{kind} {thread} {round}");
    let text = format!(r#"{{"do":"{name}"}}"#);
    let pending = match kind {
        "again" => requests.begin_idempotent(text.as_str()),
        _ => requests.begin(text.as_str()),
    };
    match pending.and_then(|pending| pending.wait(PATIENCE)) {
        Ok(response) => {
            assert!(response.as_text().unwrap().contains(&name));
            true
        }
        Err(Error::Unanswered { was_sent: true }) if kind == "once" => false,
        Err(error) => panic!("{name}: {error}"),
    }
}

/// `id:text`, where the id is the application's.
struct Prefix;

impl MessageIds for Prefix {
    type Id = String;

    fn tag(&self, message: Message<'_>, _: u64) -> Option<(OwnedMessage, String)> {
        let Message::Text(text) = message else { return None };
        let id = text.split_once(':')?.0.to_owned();
        Some((text.into(), id))
    }

    fn sort(&self, message: &OwnedMessage) -> Sorted<String> {
        match message.as_text().and_then(|text| text.split_once(':')) {
            Some((id, _)) => Sorted::Response(id.to_owned()),
            None => Sorted::Push { acknowledgement: None },
        }
    }
}

#[test]
fn ids_of_the_applications_own() {
    let address = serve(|mut stream, _| {
        upgrade(&mut stream);
        for _ in 0..2 {
            let text = text_of(read_frame(&mut stream).1);
            stream.write_all(&frame(0x81, text.to_uppercase().as_bytes())).unwrap();
        }
        let (first, payload) = read_frame(&mut stream);
        stream.write_all(&frame(first, &payload)).unwrap();
    });
    let client: Client = connect(address);
    let (requests, mut pushes) = Requests::split(client, Prefix, 10);
    let first = requests.begin("7F:hello").unwrap();
    assert_eq!(first.id(), "7F");
    assert!(matches!(requests.begin("7F:again"), Err(Error::IdInUse)));
    let second = requests.begin("A:world").unwrap();
    let receiving = thread::spawn(move || pushes.receive());
    assert_eq!(second.wait(PATIENCE).unwrap(), "A:WORLD".into());
    assert_eq!(first.wait(PATIENCE).unwrap(), "7F:HELLO".into());
    assert!(matches!(requests.begin("none"), Err(Error::NoPlaceForId)));
    requests.close(CloseCode::NORMAL, "").unwrap();
    assert!(receiving.join().unwrap().unwrap().is_none());
}
