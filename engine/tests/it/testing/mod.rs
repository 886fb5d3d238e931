//! The simulator for applications: what it shows is what real sockets show, and a seed decides all of it.

#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::unwrap_used,
    reason = "scenes count what happens side by side, and what fails fails the test"
)]

#[cfg(feature = "async")]
mod async_handlers;
#[cfg(feature = "json")]
mod dispatch;

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use ringwire::testing::{Faults, Get, Live, Sim, Stage};
use ringwire::topics::{HistoryConfig, Position, TopicConfig};
use ringwire::{
    Accept, Answer, CloseCause, CloseCode, Config, ConnId, Ctx, Handler, Message, PostError,
    Request, Responder, Response, on_message,
};

use crate::support::driver;

/// A room: who joins hears what is said there; a token lasts a minute.
struct Room;

impl Handler for Room {
    type State = String;

    fn on_request(&mut self, request: &Request<'_>) -> Answer<String> {
        match request.query().and_then(|query| query.strip_prefix("token=")) {
            Some(name) => Answer::accept(name.to_owned()),
            None => Response::text("no token\n").with_status(http::StatusCode::UNAUTHORIZED).into(),
        }
    }

    fn on_http(&mut self, request: &Request<'_>, responder: Responder) {
        let body = String::from_utf8_lossy(request.body()).into_owned();
        responder.send(Response::text(format!("{} {} {body}", request.method(), request.path())));
    }

    fn on_open(&mut self, ctx: &mut Ctx<'_, String>) {
        ctx.set_deadline(Duration::from_secs(60), CloseCode::new(4401)).unwrap();
        let (name, mut out) = ctx.split();
        // Some worker hears of it, the same with each seed.
        out.register(name).unwrap();
    }

    fn on_message(&mut self, ctx: &mut Ctx<'_, String>, message: Message<'_>) {
        let Message::Text(text) = message else { return };
        if let Some(room) = text.strip_prefix("JOIN ") {
            ctx.subscribe(room).unwrap();
            let _ = ctx.send(format!("JOINED {room}").as_str());
        } else if let Some((room, text)) =
            text.strip_prefix("SEND ").and_then(|rest| rest.split_once(' '))
        {
            let said = format!("{}: {text}", ctx.state());
            ctx.publish(room, said.as_str()).unwrap();
        }
    }
}

fn people_meet(stage: &mut impl Stage) {
    let refusal = stage.connect("/ws").expect_status(401);
    assert_eq!(refusal.text(), "no token\n");
    let mut a = stage.connect(Get::new("/ws?token=ann")).expect_open();
    let mut b = stage.connect("/ws?token=bob").expect_open();
    for peer in [&mut a, &mut b] {
        peer.send("JOIN x");
        assert_eq!(peer.text(), "JOINED x");
    }
    a.send("SEND x hello");
    assert_eq!(b.text(), "ann: hello");
    assert_eq!(a.text(), "ann: hello");
    b.expect_nothing();
    b.close(1000, "bye");
    let closed = b.closed();
    assert_eq!((closed.code, closed.reason.as_str()), (1000, "bye"));
    let reply = stage.request(Get::post("/echo", "body"));
    assert_eq!((reply.status.as_u16(), reply.text().as_str()), (200, "POST /echo body"));
    assert_eq!(reply.header("content-length"), Some("15"));
}

#[test]
fn a_scene_is_the_same_in_the_simulation_and_on_sockets() {
    people_meet(&mut Sim::new(Config::default().with_io_workers(2), |_| Room));
    people_meet(&mut Live::start(driver(), |_| Room));
}

#[test]
fn a_minute_passes_at_once() {
    let begin = Instant::now();
    let mut sim = Sim::new(Config::default(), |_| Room);
    let mut a = sim.connect("/?token=ann").expect_open();
    sim.advance(Duration::from_secs(59));
    assert!(a.is_open(), "pings are answered, and the token is good");
    sim.advance(Duration::from_secs(2));
    assert_eq!(a.closed().code, 4401);
    assert!(sim.now() >= Duration::from_secs(61));
    assert!(begin.elapsed() < Duration::from_secs(20), "{:?}", begin.elapsed());
}

#[test]
fn every_seed_has_faults_of_its_own_and_the_same_every_time() {
    let sim = Sim::new(Config::default().with_io_workers(3), |_| Room);
    let run = |seeds: std::ops::Range<u64>| {
        let times = Mutex::new(Vec::new());
        sim.seeds(seeds, |sim| {
            let mut random = sim.random();
            people_meet(sim);
            let mut a = sim.connect("/?token=ann").expect_open();
            a.send("JOIN x");
            for _ in 0..=random.below(20) {
                a.send(format!("SEND x {}", "x".repeat(random.below(5000))));
            }
            assert_eq!(a.text(), "JOINED x");
            times.lock().unwrap().push((sim.seed(), sim.now()));
        });
        let mut times = times.into_inner().unwrap();
        times.sort_unstable();
        times
    };
    let first = run(0..30);
    assert_eq!(first, run(0..30));
    assert!(first.iter().any(|(_, time)| *time != first[0].1), "they differ: {first:?}");
}

#[test]
#[should_panic(expected = "2 of the seeds 0..4 fail")]
fn seeds_that_fail_are_named() {
    let sim = Sim::new(Config::default(), |_| Room);
    sim.seeds(0..4, |sim| assert!(sim.seed() % 2 == 0, "an odd seed"));
}

#[test]
fn ends_are_told_apart() {
    let causes: Arc<Mutex<Vec<CloseCause>>> = Arc::default();
    struct Noting(Arc<Mutex<Vec<CloseCause>>>);

    impl Handler for Noting {
        type State = ();

        fn on_request(&mut self, _: &Request<'_>) -> Answer<()> {
            Answer::accept(())
        }

        fn on_message(&mut self, ctx: &mut Ctx<'_, ()>, message: Message<'_>) {
            let _ = ctx.send(message);
        }

        fn on_close(&mut self, _: &mut Ctx<'_, ()>, cause: &CloseCause) {
            self.0.lock().unwrap().push(cause.clone());
        }
    }

    let noted = Arc::clone(&causes);
    let mut sim = Sim::new(Config::default(), move |_| Noting(Arc::clone(&noted)));
    let latest = || causes.lock().unwrap().last().map(|cause| cause.reason.name());
    let mut a = sim.connect("/").expect_open();
    a.send("before the end");
    a.half_close();
    assert_eq!(a.text(), "before the end");
    assert_eq!(a.closed().code, 1006);
    assert_eq!(latest(), Some("end_of_stream"));
    let mut b = sim.connect("/").expect_open();
    b.reset();
    sim.advance(Duration::from_secs(1));
    assert_eq!(latest(), Some("transport"));
    let mut c = sim.connect("/").expect_open();
    c.write(&[0xff, 0x80, 0, 0, 0, 0]);
    assert_eq!(c.closed().code, 1002);
    assert_eq!(latest(), Some("protocol"));
    drop(sim.connect("/").expect_open());
    let mut d = sim.connect("/").expect_open();
    sim.shutdown(Duration::from_secs(1));
    assert_eq!(d.closed().code, 1001);
    assert_eq!(latest(), Some("shutdown"));
    assert_eq!(causes.lock().unwrap().len(), 5);
}

#[test]
fn a_peer_that_stops_reading_is_a_slow_reader() {
    let config = Config::default().with_high_water(4096).with_max_queued_len(8192);
    let mut sim = Sim::new(config, |_| {
        on_message(|ctx: &mut Ctx<'_, ()>, _| {
            for _ in 0..100 {
                let _ = ctx.send(&[0_u8; 4096]);
            }
        })
    });
    let mut a = sim.connect("/").expect_open();
    a.stop_reading();
    a.send("all of it");
    sim.advance(Duration::from_secs(1));
    a.go_on_reading();
    assert_eq!(a.closed().code, 1013, "the queue went past its limit");
}

#[test]
fn jobs_run_in_it() {
    let config = Config::default().with_compute_workers(1);
    let sim = Sim::new(config, |_| {
        on_message(|ctx: &mut Ctx<'_, ()>, message| {
            let text = String::from_utf8_lossy(message.as_bytes()).to_uppercase();
            ctx.offload(
                move || text,
                |ctx, text| {
                    let _ = ctx.send(text.unwrap().as_str());
                },
            )
            .unwrap();
        })
    });
    sim.seeds(0..10, |sim| {
        let mut a = sim.connect("/").expect_open();
        for word in ["one", "two", "three"] {
            a.send(word);
        }
        for word in ["ONE", "TWO", "THREE"] {
            assert_eq!(a.text(), word);
        }
        assert_eq!(sim.handle().stats().compute.done, 3);
    });
}

/// Who asks is let in later.
struct Doorman(Arc<Mutex<Option<ConnId>>>);

impl Handler for Doorman {
    type State = String;

    fn on_request(&mut self, request: &Request<'_>) -> Answer<String> {
        *self.0.lock().unwrap() = Some(request.id());
        Answer::Defer
    }
}

fn who_waits_is_let_in(stage: &mut impl Stage, waiting: &Mutex<Option<ConnId>>) {
    let attempt = stage.connect("/");
    let asked = (0..2000).find_map(|_| {
        stage.advance(Duration::from_millis(10));
        waiting.lock().unwrap().take()
    });
    let id = asked.expect("somebody asks");
    let handle = stage.handle();
    assert_eq!(handle.accept(id, Accept::new(7_u32)), Err(PostError::WrongState));
    assert_eq!(handle.accept(id, Accept::new("ann".to_owned())), Ok(()));
    let mut peer = attempt.expect_open();
    let greet = |ctx: &mut Ctx<'_, String>| {
        let text = format!("hello {}", ctx.state());
        let _ = ctx.send(text.as_str());
    };
    assert_eq!(handle.run(id, greet), Ok(()));
    assert_eq!(peer.text(), "hello ann");
}

#[test]
fn handles_give_and_reach_states() {
    let (waiting, asked) = (Arc::default(), Arc::default());
    let (for_sim, for_live) = (Arc::clone(&waiting), Arc::clone(&asked));
    let config = Config::default().with_io_workers(2);
    let mut sim = Sim::new(config, move |_| Doorman(Arc::clone(&for_sim)));
    who_waits_is_let_in(&mut sim, &waiting);
    let mut live = Live::start(driver(), move |_| Doorman(Arc::clone(&for_live)));
    who_waits_is_let_in(&mut live, &asked);
}

/// Tells of a topic how many messages a peer has missed since its first word.
struct Archive(Option<Position>);

impl Handler for Archive {
    type State = ();

    fn on_request(&mut self, _: &Request<'_>) -> Answer<()> {
        Answer::accept(())
    }

    fn on_message(&mut self, ctx: &mut Ctx<'_, ()>, _: Message<'_>) {
        let recovery = ctx.subscribe_since("news", self.0).unwrap();
        self.0.get_or_insert(recovery.position);
        let text = format!("{:?}", recovery.missed.map(|missed| missed.len()));
        let _ = ctx.send(text.as_str());
    }
}

#[test]
fn what_topics_keep_ages_by_the_virtual_clock() {
    let missed = |sim: &mut Sim| {
        let mut peer = sim.connect("/").expect_open();
        peer.send("what is new?");
        peer.text()
    };
    let history = HistoryConfig::default().with_max_age(Duration::from_secs(1));
    let topics = TopicConfig::default().with_history("news", history);
    let mut sim = Sim::new(Config::default().with_topics(topics), |_| Archive(None));
    assert_eq!(missed(&mut sim), "Some(0)");
    sim.handle().publish("news", "it rains").unwrap();
    // Real time is none of a simulation's business.
    std::thread::sleep(Duration::from_millis(1100));
    sim.advance(Duration::from_millis(800));
    assert_eq!(missed(&mut sim), "Some(1)");
    sim.advance(Duration::from_millis(200));
    assert_eq!(missed(&mut sim), "None");
}

#[test]
fn faults_can_be_chosen() {
    let mut sim = Sim::new(Config::default(), |_| Room);
    let mut faults = Faults::none();
    faults.reset = 1.0;
    let mut a = sim.connect("/?token=ann").expect_open();
    sim.faults(&faults);
    a.send("JOIN x");
    assert_eq!(a.closed().code, 1006);
}

#[test]
#[should_panic(expected = "a message was due, and nothing came")]
fn what_does_not_come_is_missed_in_time() {
    let mut sim = Sim::new(Config::default(), |_| Room);
    let _ = sim.connect("/?token=ann").expect_open().text();
}

#[test]
#[should_panic(expected = "answers 403 Forbidden, where it should have opened: members only")]
fn who_is_refused_hears_why() {
    struct Club;

    impl Handler for Club {
        type State = ();

        fn on_request(&mut self, _: &Request<'_>) -> Answer<()> {
            Response::text("members only").with_status(http::StatusCode::FORBIDDEN).into()
        }
    }

    let mut sim = Sim::new(Config::default(), |_| Club);
    let _ = sim.connect("/").expect_open();
}

#[test]
fn one_function_needs_no_server() {
    let post = Request::builder("/a/b?c=d%20e").method("POST").body("x").header("x-y", "z").build();
    post.with(|request| {
        assert_eq!((request.method(), request.path()), ("POST", "/a/b"));
        assert_eq!(request.query_param("c").as_deref(), Some("d e"));
        assert_eq!((request.header_str("X-Y"), request.body()), (Some("z"), &b"x"[..]));
    });
    let upgrade = Request::builder("/").header("sec-websocket-protocol", "a, b").build();
    assert_eq!(upgrade.with(|request| request.subprotocols().count()), 2);
}

#[test]
#[should_panic(expected = "no server takes this request")]
fn what_no_server_takes_is_said() {
    Request::builder("/").header("host", "a").header("host", "b").build().with(|_| ());
}
