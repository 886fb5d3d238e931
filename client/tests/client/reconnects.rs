//! Connections that are lost and made again, for real.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use http::{HeaderName, HeaderValue, header};
use ringwire_client::CloseCode;
use ringwire_client::{
    Backoff, Delivery, Error, ErrorKind, OutboxConfig, Overflow, Reconnecting, RetryPolicy, Update,
    Verdict, Waiting,
};
use ringwire_peers::server::{close_frame, frame, header, read_frame, read_head, serve, upgrade};
use ringwire_peers::{PATIENCE, ms, unheard};

use crate::peer::{builder, url};

fn quick() -> RetryPolicy {
    let backoff = Backoff::default().with_first_delay(ms(20)).with_max_delay(ms(50));
    RetryPolicy::default().with_backoff(backoff)
}

fn client(address: SocketAddr) -> Reconnecting {
    Reconnecting::new(builder(), url(address)).with_policy(quick())
}

/// What happens next, which must be something.
fn next(client: &mut Reconnecting) -> Update {
    client.next_update_timeout(PATIENCE).unwrap().unwrap()
}

#[test]
fn codes_that_say_do_not_come_back() {
    for (code, comes_back) in
        [(1000, false), (1008, false), (1012, true), (4401, false), (4404, false), (4000, true)]
    {
        let address = serve(move |mut stream, _| {
            upgrade(&mut stream);
            stream.write_all(&close_frame(code, "why")).unwrap();
            read_frame(&mut stream);
        });
        let mut client = client(address);
        assert!(matches!(next(&mut client), Update::Connected { .. }));
        match client.next_update_timeout(PATIENCE) {
            Ok(Some(Update::Disconnected { .. })) => assert!(comes_back, "{code}"),
            Err(Error::Closed { code: found, reason }) => {
                assert!(!comes_back && found.get() == code && reason == "why", "{code}");
                assert!(client.next_update().unwrap().is_none());
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn attempts_end_and_delays_grow() {
    let (_kept, nobody) = unheard();
    let mut client = client(nobody).with_policy(quick().with_max_attempts(4));
    let sender = client.sender();
    assert_eq!(sender.send("never").unwrap(), Delivery::Queued);
    for _ in 0..3 {
        let Update::Disconnected { delay, .. } = next(&mut client) else { panic!("connected") };
        assert!(delay <= ms(50));
    }
    let error = client.next_update().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectFailed);
    assert!(client.next_update().unwrap().is_none());
    assert_eq!(client.take_unsent(), ["never".into()]);
    assert_eq!(sender.send("x").unwrap_err().kind(), ErrorKind::Closed);
}

#[test]
fn retry_after_and_renewed_tokens() {
    let address = serve(|mut stream, number| {
        let head = read_head(&mut stream);
        let answer = match (number, header(&head, "authorization").as_deref()) {
            (0, _) => "503 Busy\r\nRetry-After: 1",
            (_, Some("Bearer new")) => {
                stream.write_all(ringwire_peers::server::agreement(&head, "").as_bytes()).unwrap();
                return;
            }
            _ => "401 Unauthorized",
        };
        write!(stream, "HTTP/1.1 {answer}\r\nContent-Length: 0\r\n\r\n").unwrap();
    });
    let mut client = client(address).prepare(|attempt, why| {
        if why.is_some_and(|error| error.kind() == ErrorKind::Authentication) {
            attempt.set_header(header::AUTHORIZATION, HeaderValue::from_static("Bearer new"));
        }
        Ok(())
    });
    let begin = Instant::now();
    let Update::Disconnected { delay, .. } = next(&mut client) else { panic!("connected") };
    assert!(delay >= Duration::from_secs(1));
    let Update::Disconnected { error, .. } = next(&mut client) else { panic!("connected") };
    assert_eq!(error.kind(), ErrorKind::Authentication);
    assert!(begin.elapsed() >= Duration::from_secs(1));
    assert!(matches!(next(&mut client), Update::Connected { attempts: 3, .. }));

    // Without the hook there is nothing else to try.
    let mut helpless = Reconnecting::new(builder(), url(address)).with_policy(quick());
    assert_eq!(helpless.next_update().unwrap_err().kind(), ErrorKind::Authentication);
}

/// What each request says: its target, and all values of these headers.
fn requests_of(
    mut answer: impl FnMut(usize, &mut TcpStream, &str) + Send + 'static,
) -> (SocketAddr, mpsc::Receiver<(String, Vec<String>)>) {
    let (sender, seen) = mpsc::channel();
    let address = serve(move |mut stream, number| {
        let head = read_head(&mut stream);
        let target = head.split(' ').nth(1).unwrap().to_owned();
        let headers = head.lines().filter(|line| {
            let name = line.split(':').next().unwrap_or_default().to_ascii_lowercase();
            matches!(&*name, "authorization" | "x-tag" | "cookie")
        });
        sender.send((target, headers.map(str::to_owned).collect())).unwrap();
        answer(number, &mut stream, &head);
    });
    (address, seen)
}

fn refuse_401(stream: &mut TcpStream) {
    stream.write_all(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n").unwrap();
}

/// Nothing of an attempt lasts: each has one token, its own, in the header and in the URL.
#[test]
fn each_attempt_has_one_token_and_the_newest() {
    let (address, seen) = requests_of(|_, stream, _| refuse_401(stream));
    let builder = builder()
        .with_header(header::AUTHORIZATION, HeaderValue::from_static("Bearer old"))
        .with_header(header::AUTHORIZATION, HeaderValue::from_static("Bearer older"))
        .append_header(header::COOKIE, HeaderValue::from_static("a=1"))
        .append_header(header::COOKIE, HeaderValue::from_static("b=2"));
    let mut client = Reconnecting::new(builder, format!("ws://{address}/chat?token=old&x=1"))
        .with_policy(quick().with_max_renewals(3))
        .prepare(|attempt, why| {
            assert_eq!(why.is_none(), attempt.number() == 1);
            let number = attempt.number();
            let value = HeaderValue::try_from(format!("Bearer {number}"))?;
            attempt.set_header(header::AUTHORIZATION, value);
            attempt.set_query("token", &format!("{number}/&"));
            attempt.append_header(HeaderName::from_static("x-tag"), number.into());
            if number == 2 {
                attempt.remove_header(&header::COOKIE);
            }
            Ok(())
        });
    for _ in 0..3 {
        assert!(matches!(next(&mut client), Update::Disconnected { .. }));
    }
    assert_eq!(client.next_update().unwrap_err().kind(), ErrorKind::Authentication);
    assert!(client.next_update().unwrap().is_none());
    for number in 1..=4 {
        let (target, headers) = seen.recv_timeout(PATIENCE).unwrap();
        assert_eq!(target, format!("/chat?x=1&token={number}%2F%26"));
        let mut expected = vec!["cookie: a=1".to_owned(), "cookie: b=2".to_owned()];
        if number == 2 {
            expected.clear();
        }
        expected.push(format!("authorization: Bearer {number}"));
        expected.push(format!("x-tag: {number}"));
        assert_eq!(headers, expected, "attempt {number}");
    }
    assert!(seen.try_recv().is_err(), "no fifth attempt");
}

/// Refused by a status or by a close code after the handshake: so many renewals in a row, and no more.
#[test]
fn credentials_that_stay_wrong_end_the_client() {
    for is_late in [false, true] {
        for max_renewals in [0, 1, 2] {
            let (address, seen) = requests_of(move |_, stream, head| {
                if !is_late {
                    return refuse_401(stream);
                }
                stream.write_all(ringwire_peers::server::agreement(head, "").as_bytes()).unwrap();
                stream.write_all(&close_frame(4401, "expired")).unwrap();
                read_frame(stream);
            });
            let mut client = client(address)
                .with_policy(quick().with_max_renewals(max_renewals))
                .prepare(|_, _| Ok(()));
            let error = loop {
                match client.next_update_timeout(PATIENCE) {
                    Ok(Some(_)) => {}
                    Ok(None) => panic!("it ended without an error"),
                    Err(error) => break error,
                }
            };
            match error {
                Error::Closed { code, .. } if is_late => assert_eq!(code.get(), 4401),
                error => assert_eq!(error.kind(), ErrorKind::Authentication),
            }
            assert_eq!(seen.try_iter().count(), max_renewals as usize + 1);
        }
    }
}

#[test]
fn another_url_for_an_attempt() {
    let address = serve(|mut stream, _| {
        upgrade(&mut stream);
        let _ = read_frame(&mut stream);
    });
    let (_kept, nobody) = unheard();
    let mut client = client(nobody).prepare(move |attempt, _| {
        if attempt.number() == 2 {
            attempt.set_url(url(address))?;
        }
        Ok(())
    });
    assert!(matches!(next(&mut client), Update::Disconnected { .. }));
    assert!(matches!(next(&mut client), Update::Connected { attempts: 2, .. }));

    let mut wrong = Reconnecting::new(builder(), "no URL");
    assert_eq!(wrong.next_update().unwrap_err().kind(), ErrorKind::Setting);
}

#[derive(Debug, thiserror::Error)]
#[error("the user has logged out")]
struct LoggedOut;

/// A hook that fails is an attempt that failed, after which the policy says what comes.
#[test]
fn a_hook_that_fails() {
    let address = serve(|mut stream, _| {
        upgrade(&mut stream);
        let _ = read_frame(&mut stream);
    });
    let mut flaky = client(address).prepare(|attempt, _| match attempt.number() {
        1 => Err("the token service is away".into()),
        _ => Ok(()),
    });
    let Update::Disconnected { error, .. } = next(&mut flaky) else { panic!("connected") };
    assert_eq!(error.kind(), ErrorKind::Prepare);
    assert!(error.to_string().ends_with("the token service is away"), "{error}");
    assert!(matches!(next(&mut flaky), Update::Connected { attempts: 2, .. }));

    let mut hopeless = client(address).prepare(|attempt, _| Ok(attempt.set_url("ws://")?));
    let error = hopeless.next_update().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Prepare, "a text that is no URL stays one");

    let verdict_on = |error: &Error| match error {
        Error::Prepare(source) if source.is::<LoggedOut>() => Verdict::GiveUp,
        other => ringwire_client::verdict_on(other),
    };
    let mut logged_out = client(address)
        .with_policy(quick().with_verdict_on(verdict_on))
        .prepare(|_, _| Err(LoggedOut.into()));
    assert_eq!(logged_out.next_update().unwrap_err().kind(), ErrorKind::Prepare);
    assert!(logged_out.next_update().unwrap().is_none());
}

#[test]
fn a_full_queue_reports_its_loss() {
    let (sender, received) = mpsc::channel();
    let address = serve(move |mut stream, number| {
        if number == 0 {
            return;
        }
        upgrade(&mut stream);
        for _ in 0..2 {
            sender.send(read_frame(&mut stream).1).unwrap();
        }
        stream.write_all(&frame(0x81, b"done")).unwrap();
        let _ = read_frame(&mut stream);
    });
    let limits = OutboxConfig::default().with_max_count(2).with_overflow(Overflow::DropOldest);
    let mut client = client(address).with_outbox(limits);
    let outbox = client.sender();
    for text in ["a", "b", "c", "d"] {
        assert_eq!(outbox.send(text).unwrap(), Delivery::Queued);
    }
    assert_eq!(outbox.dropped_count(), 2);
    assert!(matches!(next(&mut client), Update::Disconnected { .. }));
    assert!(matches!(next(&mut client), Update::Connected { attempts: 2, dropped: 2 }));
    assert_eq!(client.receive().unwrap(), Some("done".into()));
    assert_eq!(received.iter().take(2).collect::<Vec<_>>(), [b"c", b"d"]);
}

/// A client's message of 256 KiB, and the number that it begins with.
fn read_long(stream: &mut TcpStream) -> Option<u64> {
    let mut head = [0; 14];
    stream.read_exact(&mut head).ok()?;
    assert_eq!((head[0], head[1]), (0x82, 0xff), "binary, masked, with 64 bits of length");
    let len = u64::from_be_bytes(head[2..10].try_into().unwrap());
    let mut payload = vec![0; usize::try_from(len).unwrap()];
    stream.read_exact(&mut payload).ok()?;
    let number: Vec<u8> = (0..8).map(|index| payload[index] ^ head[10 + index % 4]).collect();
    Some(u64::from_le_bytes(number.try_into().unwrap()))
}

/// What the kernel had taken is lost with the connection, as documented; what follows arrives in order, each once.
#[test]
fn a_server_that_resets_in_the_middle_of_the_queue() {
    const COUNT: u64 = 100;
    const READ: u64 = 3;
    let (sender, received) = mpsc::channel();
    let address = serve(move |mut stream, number| {
        upgrade(&mut stream);
        let most = if number == 0 { READ } else { COUNT };
        for _ in 0..most {
            let Some(message) = read_long(&mut stream) else { panic!("{number} was cut") };
            sender.send((number, message)).unwrap();
            if message == COUNT - 1 {
                break;
            }
        }
        if number == 0 {
            // Closing with this, or with unread bytes, is a reset.
            socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
        } else {
            stream.write_all(&frame(0x81, b"done")).unwrap();
            let _ = read_frame(&mut stream);
        }
    });
    let limits = OutboxConfig::default().with_max_len(64 << 20);
    let mut client = client(address).with_outbox(limits);
    let outbox = client.sender();
    let mut message = vec![0; 256 << 10];
    for number in 0..COUNT {
        message[..8].copy_from_slice(&number.to_le_bytes());
        assert_eq!(outbox.send(&message[..]).unwrap(), Delivery::Queued);
    }
    let Update::Disconnected { error, .. } = next(&mut client) else { panic!("all was taken") };
    assert!(matches!(*error, Error::Lost(_)), "{error}");
    assert!(matches!(next(&mut client), Update::Connected { attempts: 2, dropped: 0 }));
    assert_eq!(client.receive().unwrap(), Some("done".into()));
    let (first, second): (Vec<_>, Vec<_>) =
        received.try_iter().partition(|(number, _)| *number == 0);
    let numbers = |of: Vec<(usize, u64)>| of.into_iter().map(|(_, message)| message);
    assert_eq!(Vec::from_iter(numbers(first)), Vec::from_iter(0..READ));
    let second = Vec::from_iter(numbers(second));
    assert!(second[0] >= READ, "nothing comes twice: {second:?}");
    assert_eq!(second, Vec::from_iter(second[0]..COUNT), "without a gap");
}

#[test]
fn waiting_ends_when_it_should() {
    let (_kept, nobody) = unheard();
    let slow = Backoff::default()
        .with_first_delay(Duration::from_secs(100_000))
        .with_max_delay(Duration::from_secs(100_000));
    let mut client = Reconnecting::new(builder(), url(nobody))
        .with_policy(RetryPolicy::default().with_backoff(slow));
    assert!(matches!(next(&mut client), Update::Disconnected { .. }));
    let error = client.next_update_timeout(ms(50)).unwrap_err();
    assert!(matches!(error, Error::Timeout(Waiting::Receive)));
    let sender = client.sender();
    let closing = thread::spawn(move || {
        thread::sleep(ms(50));
        sender.close(CloseCode::NORMAL, "")
    });
    assert!(client.next_update().unwrap().is_none());
    closing.join().unwrap().unwrap();
}

/// Also before there is a connection. What a second close says does not matter any more.
#[test]
fn a_close_that_cannot_be_sent_changes_nothing() {
    let address = serve(|mut stream, _| {
        upgrade(&mut stream);
        for expected in [b"queued", b"direct"] {
            assert_eq!(read_frame(&mut stream).1, expected);
        }
        let (first, code) = read_frame(&mut stream);
        assert_eq!((first, &*code), (0x88, &b"\x03\xe8"[..]));
        stream.write_all(&frame(0x88, &code)).unwrap();
    });
    let patient = builder().with_close_timeout(PATIENCE);
    let mut client = Reconnecting::new(patient, url(address)).with_policy(quick());
    let sender = client.sender();
    let close_badly = || {
        for (code, reason) in [(1000, "x".repeat(124)), (1005, String::new())] {
            let error = sender.close(CloseCode::new(code), &reason).unwrap_err();
            assert!(matches!(error, Error::InvalidMessage(_)), "{error}");
        }
    };
    close_badly();
    assert_eq!(sender.send("queued").unwrap(), Delivery::Queued);
    assert!(matches!(next(&mut client), Update::Connected { attempts: 1, dropped: 0 }));
    close_badly();
    assert!(sender.is_connected());
    assert_eq!(sender.send("direct").unwrap(), Delivery::Sent);
    sender.close(CloseCode::NORMAL, "").unwrap();
    assert!(client.next_update_timeout(PATIENCE).unwrap().is_none());
    sender.close(CloseCode::NORMAL, &"x".repeat(124)).unwrap();
}
