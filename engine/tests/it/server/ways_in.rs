//! What other threads have done on a worker: calls with a connection, events, connections with a state; and timers.

use std::sync::mpsc;
use std::time::{Duration, Instant};

use ringwire::{
    Answer, CloseCause, CloseCode, Config, Ctx, Handle, Handler, Message, PostError, Posted,
    Request, Router, Running, TimerError, WorkerContext, on_message,
};

use ringwire::transport::{Dial, DialError};

use crate::support::{PATIENCE, Server, config, join_in_time, ms};
use ringwire_peers::{Client, client_request, connect, frame};

/// What the handlers report, with the name of the route.
type Told = (&'static str, String);

/// A handler with a state of its own type, which reports what it is told.
struct Room<S> {
    name: &'static str,
    tell: mpsc::Sender<Told>,
    make: fn() -> S,
}

/// What a handler is told to do.
#[derive(Clone, Debug, PartialEq)]
struct Say(&'static str);

/// The same for the second route only.
struct SayThere(String);

impl<S> Room<S> {
    fn tell(&self, what: impl Into<String>) {
        // The test may have ended.
        let _ = self.tell.send((self.name, what.into()));
    }
}

/// The state of a connection.
trait Described: 'static {
    fn describe(&self) -> String;
}

#[derive(Debug, PartialEq)]
struct Number(u32);

#[derive(Debug, PartialEq)]
struct Name(String);

impl Described for Number {
    fn describe(&self) -> String {
        format!("number {}", self.0)
    }
}

impl Described for Name {
    fn describe(&self) -> String {
        format!("name {}", self.0)
    }
}

impl<S: Described> Handler for Room<S> {
    type State = S;

    fn on_request(&mut self, _request: &Request<'_>) -> Answer<S> {
        Answer::accept((self.make)())
    }

    fn on_open(&mut self, ctx: &mut Ctx<'_, S>) {
        ctx.register("client").expect("a name");
        let state = ctx.state().describe();
        self.tell(format!("open: {state}"));
    }

    fn on_message(&mut self, ctx: &mut Ctx<'_, S>, message: Message<'_>) {
        let Message::Text(text) = message else { return };
        let mut words = text.split(' ').map(|word| word.parse().unwrap_or(0));
        let verb = text.split(' ').next().unwrap_or_default();
        words.next();
        let (key, after) = (words.next().unwrap_or(0), words.next().unwrap_or(0));
        match verb {
            "set" => self.tell(format!("{:?}", ctx.set_timer(key, Duration::from_millis(after)))),
            "clear" => self.tell(format!("{}", ctx.clear_timer(key))),
            "pong" => ctx.pong(b"alive").expect("it is open"),
            "close" => {
                ctx.close(CloseCode::NORMAL, "").expect("it is open");
                let late = ctx.set_timer(key, Duration::ZERO);
                self.tell(format!("{late:?}"));
            }
            _ => panic!("{text}"),
        }
    }

    fn on_timer(&mut self, ctx: &mut Ctx<'_, S>, key: u64) {
        if key == 77 {
            // Again and again, which must not hold up the worker.
            let _ = ctx.set_timer(77, Duration::ZERO);
        }
        self.tell(format!("timer {key}"));
    }

    fn on_event(&mut self, event: Posted) -> Result<(), Posted> {
        if self.name == "second" && event.is::<SayThere>() {
            let SayThere(text) = event.downcast()?;
            self.tell(text);
            return Ok(());
        }
        let Say(text) = event.downcast()?;
        if text == "panic" {
            panic!("as the test wants");
        }
        self.tell(text);
        Ok(())
    }

    fn on_dial_failed(&mut self, state: S, error: &DialError) {
        self.tell(format!("{}: {error}", state.describe()));
    }

    fn on_close(&mut self, _ctx: &mut Ctx<'_, S>, _cause: &CloseCause) {
        self.tell("closed");
    }
}

/// A server with two routes, of connections with different states.
struct Routes {
    running: Option<Running>,
    handle: Handle,
    told: mpsc::Receiver<Told>,
}

impl Routes {
    fn start(config: Config) -> Self {
        let (tell, told) = mpsc::channel();
        let running = ringwire::Server::new(config)
            .listen("127.0.0.1:0")
            .start(move |_: &WorkerContext| {
                let tell = tell.clone();
                Router::new()
                    .websocket(
                        "/first",
                        Room { name: "first", tell: tell.clone(), make: || Number(1) },
                    )
                    .websocket(
                        "/second",
                        Room { name: "second", tell, make: || Name("second".to_owned()) },
                    )
                    .websocket(
                        "/echo",
                        on_message(|ctx, message| {
                            let _ = ctx.send(message);
                        }),
                    )
            })
            .expect("the server starts");
        let handle = running.handle();
        Self { running: Some(running), handle, told }
    }

    fn next(&self) -> Told {
        self.told.recv_timeout(PATIENCE).expect("a handler is told something")
    }

    fn expect(&self, name: &'static str, what: &str) {
        assert_eq!(self.next(), (name, what.to_owned()));
    }

    fn addr(&self) -> std::net::SocketAddr {
        self.running.as_ref().expect("it runs").local_addrs()[0]
    }

    fn client(&self, path: &str) -> Client {
        Client::upgrade(connect(self.addr()), &client_request(path))
    }
}

impl Drop for Routes {
    fn drop(&mut self) {
        self.handle.shutdown(Duration::ZERO);
        let running = self.running.take().expect("once");
        let result = join_in_time(running);
        if !std::thread::panicking() {
            result.expect("every worker ends well");
        }
    }
}

// Calls with a connection

#[test]
fn a_call_reaches_the_connection_and_its_state() {
    let server = Server::echo(config());
    let mut client = server.client();
    let id = server.opened();
    let handle = server.handle();
    for number in 1..=3 {
        handle
            .run(id, move |ctx: &mut Ctx<'_, u32>| {
                *ctx.state_mut() += number;
                assert_eq!(ctx.id(), id);
                let text = ctx.state().to_string();
                let _ = ctx.send(text.as_str());
            })
            .unwrap();
    }
    // Letters of a thread are read in their order.
    handle.send(id, "after").unwrap();
    for text in ["1", "3", "6", "after"] {
        assert_eq!(client.text(), text);
    }
    let wrong = handle.run(id, |_: &mut Ctx<'_, String>| unreachable!("there is no such state"));
    assert_eq!(wrong, Err(PostError::WrongState));
    // One that panics ends its connection and nothing else.
    handle.run(id, |_: &mut Ctx<'_, u32>| panic!("as the test wants")).unwrap();
    assert_eq!(client.close_frame().0, 1011);
    drop(client);
    let mut other = server.client();
    other.send("still there");
    assert_eq!(other.text(), "still there");
    // Nobody is called with a connection that has ended, and what was to be done is dropped.
    let (dropped, is_dropped) = mpsc::channel::<()>();
    handle.run(id, move |_: &mut Ctx<'_, u32>| dropped.send(()).unwrap()).unwrap();
    let disconnected = Err(mpsc::RecvTimeoutError::Disconnected);
    assert_eq!(is_dropped.recv_timeout(PATIENCE), disconnected);
}

#[test]
fn a_call_reaches_the_state_of_a_route() {
    let server = Routes::start(config());
    let mut first = server.client("/first");
    server.expect("first", "open: number 1");
    let handle = &server.handle;
    let id = handle.connections("client")[0];
    handle
        .run(id, |ctx: &mut Ctx<'_, Number>| {
            let Number(number) = ctx.state_mut();
            *number += 41;
            let text = number.to_string();
            let _ = ctx.send(text.as_str());
        })
        .unwrap();
    assert_eq!(first.text(), "42");
    // Another route has that state, and this connection has not.
    let (dropped, is_dropped) = mpsc::channel::<()>();
    handle.run(id, move |_: &mut Ctx<'_, Name>| dropped.send(()).unwrap()).unwrap();
    let disconnected = Err(mpsc::RecvTimeoutError::Disconnected);
    assert_eq!(is_dropped.recv_timeout(PATIENCE), disconnected);
    let wrong = handle.run(id, |_: &mut Ctx<'_, u64>| {});
    assert_eq!(wrong, Err(PostError::WrongState));
    first.leave();
}

// Events

#[test]
fn events_come_to_each_worker_and_to_the_route_that_takes_them() {
    let server = Routes::start(config().with_io_workers(2));
    let handle = &server.handle;
    handle.post_event_to_all(&Say("all")).unwrap();
    server.expect("first", "all");
    server.expect("first", "all");
    handle.post_event(1, SayThere("there".to_owned())).unwrap();
    server.expect("second", "there");
    // What nobody takes, and a handler that panics, change nothing.
    handle.post_event(0, 7_u32).unwrap();
    handle.post_event(0, Say("panic")).unwrap();
    handle.post_event(0, Say("still there")).unwrap();
    server.expect("first", "still there");
    let refused = handle.post_event(2, Say("nobody")).unwrap_err();
    assert_eq!(refused.reason(), PostError::NoSuchWorker);
    assert_eq!(refused.into_inner(), Say("nobody"));
    let mut client = server.client("/echo");
    client.send("a worker lives");
    assert_eq!(client.text(), "a worker lives");
}

// States

#[test]
fn a_connection_with_a_route_s_state_belongs_to_it() {
    let server = Routes::start(config());
    let handle = &server.handle;
    let dial = Dial::new(server.addr(), "localhost", "/echo").unwrap();
    handle.connect(&dial, Name("dialled".to_owned())).unwrap();
    server.expect("second", "open: name dialled");
    let error = handle.connect(&dial, "of no route").unwrap_err();
    assert!(matches!(error, DialError::Post(PostError::WrongState)), "{error}");
    // Where it fails the state goes back to its route.
    let (_socket, unheard) = ringwire_peers::unheard();
    let dial = Dial::new(unheard, "localhost", "/").unwrap();
    handle.connect(&dial, Number(5)).unwrap();
    let (route, what) = server.next();
    assert_eq!(route, "first");
    assert!(what.starts_with("number 5: the connection failed"), "{what}");
}

// Timers

/// How long the engine may be late: two ticks of 100 ms, and what a busy machine adds.
fn at_least(began: Instant, time: Duration) {
    assert!(began.elapsed() >= time, "{:?} for {time:?}", began.elapsed());
}

/// Texts, one behind the other.
fn frames(texts: &[&str]) -> Vec<u8> {
    texts.iter().flat_map(|text| frame(0x81, text.as_bytes())).collect()
}

#[test]
fn timers_run_down_by_key() {
    let server = Routes::start(config());
    let mut client = server.client("/second");
    server.expect("second", "open: name second");
    let began = now();
    // In one segment: none runs down before all are set.
    client.raw(&frames(&["set 1 900", "set 2 400", "set 3 60000", "set 4 0"]));
    for _ in 0..4 {
        server.expect("second", "Ok(())");
    }
    server.expect("second", "timer 4");
    server.expect("second", "timer 2");
    at_least(began, ms(400));
    server.expect("second", "timer 1");
    at_least(began, ms(900));
    // Set anew, it runs down once and at its new time; taken away, not at all.
    client.raw(&frames(&["set 3 300", "set 5 100", "clear 5", "clear 5"]));
    for answer in ["Ok(())", "Ok(())", "true", "false", "timer 3"] {
        server.expect("second", answer);
    }
    assert!(server.told.try_recv().is_err());
    client.leave();
    server.expect("second", "closed");
}

#[test]
fn timers_are_bounded_and_end_with_their_connection() {
    let server = Routes::start(config());
    let mut client = server.client("/first");
    server.expect("first", "open: number 1");
    for key in 0..64 {
        client.send(format!("set {key} 60000").as_str());
        server.expect("first", "Ok(())");
    }
    client.send("set 64 60000");
    server.expect("first", &format!("{:?}", Err::<(), _>(TimerError::TooMany)));
    client.send("set 63 1");
    server.expect("first", "Ok(())");
    server.expect("first", "timer 63");
    client.send("set 77 0");
    server.expect("first", "Ok(())");
    for _ in 0..3 {
        server.expect("first", "timer 77");
    }
    client.send("close 1");
    loop {
        let (_, what) = server.next();
        if what == format!("{:?}", Err::<(), _>(TimerError::Closing)) {
            break;
        }
        assert_eq!(what, "timer 77");
    }
    server.expect("first", "closed");
    drop(client);
    // The next connection in its slot has none of its timers.
    let mut next = server.client("/first");
    server.expect("first", "open: number 1");
    next.send("set 1 300");
    server.expect("first", "Ok(())");
    server.expect("first", "timer 1");
}

#[test]
fn a_pong_that_answers_no_ping() {
    let server = Routes::start(config());
    let mut client = server.client("/first");
    client.send("pong");
    assert_eq!(client.next(), ringwire_peers::Got::Pong(b"alive".into()));
}

#[expect(clippy::disallowed_methods, reason = "a test looks at how long something took")]
fn now() -> Instant {
    Instant::now()
}
