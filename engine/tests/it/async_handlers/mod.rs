//! Handlers that are async functions, and futures of ordinary handlers: order, bounds, wakes from anywhere, and
//! connections that end meanwhile.

#![expect(clippy::unwrap_used, reason = "what fails fails the test")]
#![expect(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "tests share gates and counters with futures, and clients read when they like"
)]

mod attacks;
mod spawned;

use std::collections::HashMap;
use std::future::poll_fn;
use std::io::{Read as _, Write as _};
use std::net::Shutdown;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Poll, Waker};
use std::thread;
use std::time::Duration;

use ringwire::jobs::JobRefusal;
use ringwire::serve::{Serve, Served, TrySocketError};
use ringwire::{
    CloseCause, CloseCode, CloseReason, Config, Handler, Message, OwnedRequest, Response, Router,
    Socket, SocketError, on_message,
};
use ringwire_codec::handshake::client as handshake;
use ringwire_peers::{Client, Got, connect, read_head};

use crate::support::{Server, config, ms, wait_until};

fn serve<F, R>(config: Config, serve: F) -> Server
where
    F: AsyncFn(Socket) -> R + Clone + Send + Sync + 'static,
    R: Served,
{
    Server::with_handler(config, &["127.0.0.1:0"], move |_, _| Serve::new(serve.clone()))
}

fn with<H: Handler>(config: Config, make: impl Fn() -> H + Send + Sync + 'static) -> Server {
    Server::with_handler(config, &["127.0.0.1:0"], move |_, _| make())
}

/// A server that waits for the answer to each question.
fn asking(answers: &Answers) -> Server {
    let known = answers.clone();
    serve(config(), async move |mut socket: Socket| {
        while let Some(question) = socket.receive().await? {
            let answer = known.of(question.as_text().unwrap_or_default().to_owned()).await;
            socket.send(answer).await?;
        }
        Ok::<_, SocketError>(())
    })
}

async fn echo(mut socket: Socket) -> Result<(), SocketError> {
    while let Some(message) = socket.receive().await? {
        socket.send(message).await?;
    }
    Ok(())
}

/// What futures wait for, until a thread has it.
#[derive(Clone, Default)]
struct Answers(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    known: HashMap<String, String>,
    waiting: Vec<Waker>,
}

impl Answers {
    async fn of(&self, question: String) -> String {
        poll_fn(|cx| {
            let mut state = self.0.lock().unwrap();
            if let Some(answer) = state.known.get(&question) {
                return Poll::Ready(answer.clone());
            }
            state.waiting.push(cx.waker().clone());
            Poll::Pending
        })
        .await
    }

    fn tell(&self, question: &str, answer: &str) {
        let waiting = {
            let mut state = self.0.lock().unwrap();
            state.known.insert(question.into(), answer.into());
            std::mem::take(&mut state.waiting)
        };
        waiting.into_iter().for_each(Waker::wake);
    }

    fn is_waited_for(&self) -> bool {
        self.count() > 0
    }

    /// How often somebody has begun to wait since the latest answer.
    fn count(&self) -> usize {
        self.0.lock().unwrap().waiting.len()
    }
}

/// Ends a connection by a reset (socket(7), SO_LINGER): there is nobody to hear an answer.
fn reset(client: Client) {
    socket2::SockRef::from(&client.stream).set_linger(Some(Duration::ZERO)).unwrap();
}

/// Counts what is alive.
#[derive(Clone, Default)]
struct Alive(Arc<AtomicUsize>);

struct Life(Alive);

impl Alive {
    fn one(&self) -> Life {
        self.0.fetch_add(1, Ordering::Relaxed);
        Life(self.clone())
    }

    fn count(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

impl Drop for Life {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[test]
fn everything_comes_back_in_order() {
    const COUNT: usize = 300;
    let server = serve(config(), echo);
    let mut client = server.client();
    let payload = |number: usize| format!("{number}:{}", "x".repeat(number * 7919 % 5000));
    for number in 0..COUNT {
        client.send(payload(number).as_str());
        client.send(payload(number).as_bytes());
    }
    for number in 0..COUNT {
        assert_eq!(client.text(), payload(number));
        assert_eq!(client.binary(), payload(number).into_bytes());
    }
    client.close(1000, "enough");
    assert_eq!(client.close_frame(), (1000, "enough".into()));
    assert_eq!(client.end(), Got::Eof);
}

#[test]
fn another_thread_wakes_and_pings_are_answered_meanwhile() {
    let answers = Answers::default();
    let server = asking(&answers);
    let mut client = server.client();
    client.send("six by nine");
    wait_until("it waits", || answers.is_waited_for());
    client.ping(b"still there?");
    assert_eq!(client.next(), Got::Pong(b"still there?".to_vec()));
    client.send("and now?");
    answers.tell("and now?", "nothing");
    answers.tell("six by nine", "42");
    assert_eq!(client.text(), "42");
    assert_eq!(client.text(), "nothing");
}

#[test]
fn a_peer_that_says_no_more_hears_the_answer() {
    let answers = Answers::default();
    let server = asking(&answers);
    let mut client = server.client();
    client.send("first");
    client.send("second");
    client.stream.shutdown(Shutdown::Write).unwrap();
    wait_until("it waits", || answers.is_waited_for());
    answers.tell("first", "1");
    assert_eq!(client.text(), "1");
    answers.tell("second", "2");
    assert_eq!(client.text(), "2");
    assert_eq!(client.end(), Got::Eof);
}

/// RFC 9293 §3.8.6: what is not read closes the window, so a client can write no more than the sockets hold and what
/// the server keeps.
#[test]
fn what_is_not_received_holds_the_peer_up() {
    fn numbered(number: usize) -> Vec<u8> {
        vec![number.to_le_bytes()[0]; 32 << 10]
    }

    let answers = Answers::default();
    let known = answers.clone();
    let config = config().with_tcp_receive_buffer_len(64 << 10);
    let server = serve(config, async move |mut socket: Socket| {
        known.of("go".into()).await;
        let mut count = 0_usize;
        while let Some(message) = socket.receive().await? {
            assert_eq!(message.as_bytes(), numbered(count));
            count += 1;
            if count == 1000 {
                socket.send(count.to_string()).await?;
            }
        }
        Ok::<_, SocketError>(())
    });
    let mut client = server.client();
    let writer = client.stream.try_clone().unwrap();
    let written = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&written);
    let mut sender = Client::speaking(writer);
    let sending = thread::spawn(move || {
        for number in 0..1000_usize {
            sender.send(&*numbered(number));
            count.fetch_add(1, Ordering::Relaxed);
        }
    });
    let mut before = 0;
    wait_until("the client is held up", || {
        thread::sleep(ms(200));
        let now = written.load(Ordering::Relaxed);
        std::mem::replace(&mut before, now) == now && now > 0
    });
    // 32 MB are to be sent. Sockets on both sides hold some megabytes.
    assert!(before < 500, "{before} of 1000 messages were taken");
    answers.tell("go", "");
    sending.join().unwrap();
    assert_eq!(client.text(), "1000");
}

#[test]
fn a_sender_waits_for_room() {
    const LEN: usize = 64 << 10;
    let sent = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&sent);
    let server = serve(config(), async move |mut socket: Socket| {
        for number in 0..400_u32 {
            let mut payload = vec![0; LEN];
            payload[..4].copy_from_slice(&number.to_be_bytes());
            socket.send(payload).await?;
            count.fetch_add(1, Ordering::Relaxed);
        }
        let payload = vec![0; LEN];
        let mut taken = 0;
        let refused = loop {
            match socket.try_send(payload.clone()) {
                Ok(()) => taken += 1,
                Err(refused) => break refused,
            }
        };
        assert_eq!(refused, TrySocketError::Full(payload.into()));
        socket.send(format!("{taken}")).await
    });
    let mut client = server.client();
    let mut before = 0;
    wait_until("it waits", || {
        thread::sleep(ms(200));
        let now = sent.load(Ordering::Relaxed);
        std::mem::replace(&mut before, now) == now && now > 0
    });
    assert!(before < 300, "{before} of 400 messages were taken");
    assert!(server.stats().queued_bytes <= 512 << 10, "{}", server.stats().queued_bytes);
    for number in 0..400_u32 {
        assert_eq!(client.binary()[..4], number.to_be_bytes());
    }
    let taken = loop {
        match client.next() {
            Got::Binary(_) => {}
            Got::Text(text) => break text,
            other => panic!("{other:?}"),
        }
    };
    assert!((0..=2).contains(&taken.parse::<u32>().unwrap()), "{taken}");
}

#[test]
fn how_the_function_ends_is_how_the_connection_closes() {
    let server = serve(config(), async |mut socket: Socket| {
        let message = socket.receive().await.unwrap();
        match message.as_ref().and_then(|message| message.as_text()) {
            Some("return") => Ok(()),
            Some("fail") => Err("no luck".to_owned()),
            Some("close") => {
                socket.close(CloseCode::new(4000), "as you wish").unwrap();
                assert!(!socket.is_open());
                assert_eq!(socket.send("late").await, Err(SocketError::Closing));
                let cause = socket.closed().await;
                assert_eq!(cause.reason, CloseReason::Local);
                Ok(())
            }
            _ => panic!("at the disco"),
        }
    });
    for (word, frame) in [
        ("return", (1000, "")),
        ("fail", (1011, "")),
        ("close", (4000, "as you wish")),
        ("panic", (1011, "")),
    ] {
        let mut client = server.client();
        client.send(word);
        assert_eq!(client.close_frame(), (frame.0, frame.1.to_owned()), "{word}");
        assert_eq!(client.end(), Got::Eof);
    }
}

#[test]
fn a_function_hears_of_the_end_and_is_dropped() {
    let alive = Alive::default();
    let causes: Arc<Mutex<Vec<CloseCause>>> = Arc::default();
    let (lives, noted) = (alive.clone(), Arc::clone(&causes));
    let server = serve(config(), async move |socket: Socket| {
        let _life = lives.one();
        let (sender, mut receiver) = socket.split();
        let last = loop {
            match receiver.receive().await {
                Ok(Some(_)) => {}
                other => break other.map(|message| message.is_none()),
            }
        };
        let cause = sender.closed().await;
        noted.lock().unwrap().push(cause.clone());
        match last {
            Ok(is_none) => assert!(is_none && cause.is_clean()),
            Err(error) => assert_eq!(error, SocketError::Ended(Box::new(cause))),
        }
        std::future::pending::<()>().await;
    });
    let mut polite = server.client();
    polite.close(1000, "");
    polite.end();
    drop(server.client());
    wait_until("both are dropped", || causes.lock().unwrap().len() == 2 && alive.count() == 0);
    let reasons: Vec<_> = causes.lock().unwrap().iter().map(|cause| cause.reason).collect();
    assert!(reasons.contains(&CloseReason::Peer), "{reasons:?}");
}

#[test]
fn what_a_connection_can_do_an_async_function_can() {
    let server = serve(config(), async |mut socket: Socket| {
        socket.with(|ctx| ctx.subscribe("room.7")).await?.unwrap();
        while let Some(message) = socket.receive().await? {
            let published = socket.with(move |ctx| ctx.publish("room.7", message.as_message()));
            published.await?.unwrap();
        }
        Ok::<_, SocketError>(())
    });
    let (mut one, mut other) = (server.client(), server.client());
    // A subscription is there once something comes back.
    one.send("first");
    assert_eq!(one.text(), "first");
    other.send("second");
    // Whether it heard of the first depends on who was there first.
    while other.text() != "second" {}
    assert_eq!(one.text(), "second");
}

#[test]
fn the_request_is_there() {
    let server = serve(config(), async |mut socket: Socket| {
        let request = socket.take_request().unwrap();
        let host = request.header_str("host").unwrap_or_default().to_owned();
        socket.send(format!("{} {} {host}", request.method(), request.target())).await
    });
    let mut client = server.client();
    assert_eq!(client.text(), "GET / localhost");
}

#[test]
fn requests_wait_for_an_async_decision() {
    let answers = Answers::default();
    let (known, alive) = (answers.clone(), Alive::default());
    let lives = alive.clone();
    let server = with(config().with_handshake_timeout(Duration::from_secs(3)), move || {
        let (known, lives) = (known.clone(), lives.clone());
        let authenticate = async move |request: OwnedRequest| {
            let _life = lives.one();
            let name = request.query().unwrap_or_default().to_owned();
            assert_ne!(name, "panic", "as asked for");
            match known.of(name.clone()).await.as_str() {
                "welcome" => Ok(name),
                _ => Err(Response::text("no\n").with_status(http::StatusCode::FORBIDDEN)),
            }
        };
        Router::new().websocket_async(
            "/ws",
            authenticate,
            async |name: String, mut socket: Socket| {
                while let Some(message) = socket.receive().await? {
                    socket
                        .send(format!("{name}: {}", message.as_text().unwrap_or_default()))
                        .await?;
                }
                Ok::<_, SocketError>(())
            },
        )
    });
    let ask = |name: &str| {
        let target = format!("/ws?{name}");
        let request = handshake::Request::new("localhost", &target, [7; 16]).unwrap();
        let mut stream = connect(server.addr());
        let mut out = Vec::new();
        request.encode(&mut out);
        // The first message does not wait for the answer.
        stream.write_all(&out).unwrap();
        (stream, request)
    };
    let (stream, request) = ask("ann");
    wait_until("it waits", || answers.is_waited_for());
    answers.tell("ann", "welcome");
    let mut ann = Client::await_upgrade(stream, &request);
    ann.send("hello");
    assert_eq!(ann.text(), "ann: hello");
    answers.tell("bob", "go away");
    for (name, status) in [("bob", "403"), ("panic", "500")] {
        let (mut stream, _) = ask(name);
        let head = read_head(&mut stream);
        assert!(head.starts_with(&format!("HTTP/1.1 {status}")), "{name}: {head}");
    }
    // No answer comes: the time for the handshake ends.
    let (mut stream, _) = ask("nobody");
    assert_eq!(stream.read(&mut [0]).unwrap(), 0);
    wait_until("what nobody waits for is dropped", || alive.count() == 0);
    let (stream, _) = ask("late");
    wait_until("it waits", || alive.count() == 1);
    socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
    drop(stream);
    wait_until("it is dropped with its connection", || alive.count() == 0);
}

#[test]
fn http_is_answered_later() {
    let answers = Answers::default();
    let (known, alive) = (answers.clone(), Alive::default());
    let lives = alive.clone();
    let server = with(config(), move || {
        let (known, lives) = (known.clone(), lives.clone());
        Router::new().get_async("/{name}", async move |request: OwnedRequest| {
            let _life = lives.one();
            let name = request.param("name").unwrap_or_default().to_owned();
            assert_ne!(name, "panic", "as asked for");
            match known.of(name).await.as_str() {
                "" => Err(http::StatusCode::NOT_FOUND),
                text => Ok(Response::text(text.to_owned())),
            }
        })
    });
    let mut stream = connect(server.addr());
    let ask = |stream: &mut std::net::TcpStream, name: &str| {
        stream.write_all(format!("GET /{name} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes()).unwrap();
    };
    // Pipelined: the second waits for the first.
    ask(&mut stream, "ann");
    ask(&mut stream, "nobody");
    ask(&mut stream, "panic");
    answers.tell("nobody", "");
    wait_until("it waits", || answers.is_waited_for());
    answers.tell("ann", "Ann");
    let mut all = String::new();
    while !all.contains("500") {
        // With the body before it.
        all.push_str(&read_head(&mut stream));
    }
    let order: Vec<_> = ["200 OK", "Ann", "404", "500"].map(|text| all.find(text)).into();
    assert!(order.iter().all(Option::is_some) && order.is_sorted(), "{all}");
    wait_until("they are dropped", || alive.count() == 0);
    let mut gone = connect(server.addr());
    ask(&mut gone, "late");
    wait_until("it waits", || alive.count() == 1);
    socket2::SockRef::from(&gone).set_linger(Some(Duration::ZERO)).unwrap();
    drop(gone);
    wait_until("it is dropped with its connection", || alive.count() == 0);
}

#[cfg(feature = "tokio")]
mod with_tokio {
    use std::time::Instant;

    use super::*;

    #[test]
    fn what_needs_a_runtime_works_as_it_is() {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_time()
            .build()
            .unwrap();
        let running = ringwire::Server::new(config())
            .listen("127.0.0.1:0")
            .with_runtime(runtime.handle().clone())
            .serve(async |mut socket: Socket| {
                while let Some(message) = socket.receive().await? {
                    let query = async {
                        tokio::time::sleep(Duration::from_millis(200)).await;
                        message
                    };
                    let task = tokio::spawn(async { 7 });
                    let answer = query.await;
                    assert_eq!(task.await.unwrap(), 7);
                    socket.send(answer).await?;
                }
                Ok::<_, SocketError>(())
            })
            .unwrap();
        let mut clients: Vec<_> =
            (0..50).map(|_| Client::connect(running.local_addrs()[0])).collect();
        let begin = Instant::now();
        for client in &mut clients {
            client.send("query");
        }
        for client in &mut clients {
            assert_eq!(client.text(), "query");
        }
        let took = begin.elapsed();
        assert!(took < Duration::from_secs(5), "{took:?}, where one after the other takes 10 s");
        running.handle().shutdown(Duration::ZERO);
        running.join().unwrap();
    }
}
