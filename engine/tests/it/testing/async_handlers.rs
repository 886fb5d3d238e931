//! Async handlers in the simulator: order, nothing lost, and every future dropped, whatever the network does and
//! however peers, functions and the server end.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::Duration;

use ringwire::testing::{Faults, Peer, Random, Sim};
use ringwire::{
    CloseCause, Config, Ctx, Handler, Message, OwnedRequest, Response, Router, Socket, SocketError,
    on_message,
};

// A simulation has a thread for itself while it runs.
thread_local! {
    static ALIVE: Cell<usize> = const { Cell::new(0) };
    static PASSES: Cell<usize> = const { Cell::new(0) };
    /// All who have waited at the gate, long gone ones too.
    static WAITING: RefCell<Vec<Waker>> = const { RefCell::new(Vec::new()) };
    static ENDS: RefCell<Vec<CloseCause>> = const { RefCell::new(Vec::new()) };
}

/// Counts what is not dropped.
struct Life;

impl Life {
    fn new() -> Self {
        ALIVE.set(ALIVE.get() + 1);
        Self
    }
}

impl Drop for Life {
    fn drop(&mut self) {
        ALIVE.set(ALIVE.get() - 1);
    }
}

/// Waits until the gate is opened, which the scene does between turns, as another thread would.
async fn pass_the_gate() {
    let _life = Life::new();
    let passed = PASSES.get();
    poll_fn(|cx| {
        if PASSES.get() > passed {
            return Poll::Ready(());
        }
        WAITING.with_borrow_mut(|waiting| waiting.push(cx.waker().clone()));
        Poll::Pending
    })
    .await;
}

/// Wakes everybody who was ever there, some twice.
fn open_the_gate() {
    PASSES.set(PASSES.get() + 1);
    WAITING.with_borrow(|waiting| {
        waiting.iter().for_each(Waker::wake_by_ref);
        waiting.iter().step_by(3).for_each(Waker::wake_by_ref);
    });
}

/// Waits for so many turns.
async fn turns(count: usize) {
    let _life = Life::new();
    for _ in 0..count {
        let mut was_here = false;
        poll_fn(|cx| {
            if std::mem::replace(&mut was_here, true) {
                return Poll::Ready(());
            }
            cx.waker().wake_by_ref();
            Poll::Pending
        })
        .await;
    }
}

fn part(text: &str, part: usize) -> String {
    format!("{text}.{part}")
}

async fn echo(_: (), mut socket: Socket) -> Result<(), SocketError> {
    let _life = Life::new();
    while let Some(message) = socket.receive().await? {
        let text = message.as_text().unwrap_or_default();
        for number in 0..3 {
            socket.send(part(text, number)).await?;
        }
    }
    Ok(())
}

/// What one part of a function has for another.
#[derive(Default)]
struct Channel {
    texts: RefCell<VecDeque<String>>,
    is_over: Cell<bool>,
    waiting: RefCell<Option<Waker>>,
}

impl Channel {
    fn put(&self, text: Option<String>) {
        match text {
            Some(text) => self.texts.borrow_mut().push_back(text),
            None => self.is_over.set(true),
        }
        self.waiting.take().into_iter().for_each(Waker::wake);
    }

    async fn next(&self) -> Option<String> {
        poll_fn(|cx| match self.texts.borrow_mut().pop_front() {
            None if !self.is_over.get() => {
                self.waiting.replace(Some(cx.waker().clone()));
                Poll::Pending
            }
            text => Poll::Ready(text),
        })
        .await
    }
}

/// Polls both until both are done.
async fn both<A, B>(one: impl Future<Output = A>, other: impl Future<Output = B>) -> (A, B) {
    let (mut one, mut other) = (pin!(one), pin!(other));
    let (mut first, mut second) = (None, None);
    poll_fn(|cx| {
        if first.is_none()
            && let Poll::Ready(output) = one.as_mut().poll(cx)
        {
            first = Some(output);
        }
        if second.is_none()
            && let Poll::Ready(output) = other.as_mut().poll(cx)
        {
            second = Some(output);
        }
        match (first.take(), second.take()) {
            (Some(first), Some(second)) => Poll::Ready((first, second)),
            outputs => {
                (first, second) = outputs;
                Poll::Pending
            }
        }
    })
    .await
}

/// One half hears, the other answers.
async fn halves(_: (), socket: Socket) -> Result<(), SocketError> {
    let _life = Life::new();
    let (sender, mut receiver) = socket.split();
    let channel = Channel::default();
    let hearing = async {
        let result = loop {
            match receiver.receive().await {
                Ok(Some(message)) => channel.put(message.as_text().map(str::to_owned)),
                other => break other.map(drop),
            }
        };
        channel.put(None);
        result
    };
    let answering = async {
        while let Some(text) = channel.next().await {
            for number in 0..3 {
                sender.send(part(&text, number)).await?;
            }
        }
        Ok(())
    };
    let (heard, answered) = both(hearing, answering).await;
    heard.and(answered)
}

/// Waits for something outside of the worker before each answer.
async fn gate(_: (), mut socket: Socket) -> Result<(), SocketError> {
    let _life = Life::new();
    while let Some(message) = socket.receive().await? {
        pass_the_gate().await;
        let text = message.as_text().unwrap_or_default();
        for number in 0..3 {
            socket.send(part(text, number)).await?;
        }
    }
    Ok(())
}

/// Has the answers made by a thread, and a future wait for them: results come in the order of the calls.
async fn by_the_connection(_: (), mut socket: Socket) -> Result<(), SocketError> {
    let _life = Life::new();
    let channel = Rc::new(Channel::default());
    while let Some(message) = socket.receive().await? {
        let text = message.as_text().unwrap_or_default().to_owned();
        let (len, answered) = (text.len(), Rc::clone(&channel));
        let begun = socket.with(move |ctx| {
            let offloaded = ctx.offload(
                move || text,
                |ctx, text| {
                    let text = text.unwrap();
                    for number in 0..3 {
                        let _ = ctx.send(part(&text, number).as_str());
                    }
                },
            );
            offloaded.unwrap();
            ctx.spawn(turns(len % 4), move |_, ()| answered.put(Some(String::new())))
        });
        begun.await?.unwrap();
        channel.next().await;
    }
    Ok(())
}

/// Panics at a word.
async fn panicking(_: (), mut socket: Socket) -> Result<(), SocketError> {
    let _life = Life::new();
    while let Some(message) = socket.receive().await? {
        let text = message.as_text().unwrap_or_default();
        assert_ne!(text, "panic", "as asked for");
        for number in 0..3 {
            socket.send(part(text, number)).await?;
        }
    }
    Ok(())
}

/// Asks how the connection has ended, and does not end itself.
async fn mourning(_: (), socket: Socket) {
    let _life = Life::new();
    let (sender, mut receiver) = socket.split();
    let answering = async {
        while let Ok(Some(message)) = receiver.receive().await {
            let text = message.as_text().unwrap_or_default();
            for number in 0..3 {
                let _ = sender.send(part(text, number)).await;
            }
        }
        // Where it is the future that ends the connection, `closed` is to be there as well.
        std::future::pending::<()>().await;
    };
    let closing = async {
        let cause = sender.closed().await;
        ENDS.with_borrow_mut(|ends| ends.push(cause));
    };
    both(answering, closing).await;
}

/// An ordinary handler with a future for each message, of which some take longer than those behind them.
fn spawning() -> impl Handler<State = ()> {
    on_message(|ctx: &mut Ctx<'_, ()>, message: Message<'_>| {
        let Message::Text(text) = message else { return };
        let (text, life) = (text.to_owned(), Life::new());
        let work = async move {
            let _life = life;
            turns(text.len() % 4).await;
            text
        };
        let begun = ctx.spawn_or_pause(work, |ctx, text| {
            for number in 0..3 {
                let _ = ctx.send(part(&text, number).as_str());
            }
        });
        begun.unwrap();
    })
}

/// Lets in who does not ask for "never", after a turn.
async fn authenticate(request: OwnedRequest) -> Result<(), Response> {
    let _life = Life::new();
    turns(1).await;
    match request.query() {
        Some("never") => std::future::pending().await,
        Some("no") => Err(Response::new(http::StatusCode::FORBIDDEN)),
        _ => Ok(()),
    }
}

fn app() -> impl Handler {
    Router::new()
        .websocket("/spawning", spawning())
        .websocket_async("/echo", authenticate, echo)
        .websocket_async("/halves", authenticate, halves)
        .websocket_async("/gate", authenticate, gate)
        .websocket_async("/connection", authenticate, by_the_connection)
        .websocket_async("/panicking", authenticate, panicking)
        .websocket_async("/mourning", authenticate, mourning)
        .get_async("/http", async |request: OwnedRequest| {
            let _life = Life::new();
            turns(request.query().map_or(0, str::len)).await;
            Response::text("here")
        })
}

/// The one that needs the scene comes first, so that it does not wait for what the others hear.
const PATHS: [&str; 7] =
    ["/gate", "/echo", "/halves", "/connection", "/panicking", "/mourning", "/spawning"];

/// How a peer's connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    /// By the server's shutdown.
    Stay,
    /// By the close handshake, once all is answered.
    Close,
    /// Says no more, and hears the rest.
    HalfClose,
    /// In the middle of it.
    Reset,
    HangUp,
}

struct Talker {
    path: &'static str,
    /// None once it has hung up.
    peer: Option<Peer>,
    ending: Ending,
    count: usize,
}

impl Talker {
    fn enter(sim: &mut Sim, path: &'static str, random: &mut Random) -> Self {
        use Ending::{Close, HalfClose, HangUp, Reset, Stay};

        let peer = Some(sim.connect(path).expect_open());
        let ending = [Stay, Close, HalfClose, Reset, HangUp][random.below(5)];
        Self { path, peer, ending, count: random.within(1..=30) }
    }

    fn text(number: usize) -> String {
        format!("{number}:{}", "x".repeat(number * 13 % 600))
    }

    fn speak(&mut self) {
        let Some(peer) = &mut self.peer else { return };
        (0..self.count).for_each(|number| peer.send(Self::text(number)));
        if self.path == "/panicking" {
            peer.send("panic");
        }
        match self.ending {
            Ending::HalfClose => peer.half_close(),
            Ending::Reset => peer.reset(),
            Ending::HangUp => self.peer = None,
            Ending::Stay | Ending::Close => {}
        }
    }

    /// Hears everything that is due to it, in its order.
    fn hear(&mut self, sim: &mut Sim) {
        let Some(peer) = self.peer.as_mut().filter(|_| self.ending != Ending::Reset) else {
            return;
        };
        for number in 0..self.count {
            for place in 0..3 {
                let due = part(&Self::text(number), place);
                let text =
                    if self.path == "/gate" { behind_the_gate(sim, peer) } else { peer.text() };
                assert_eq!(text, due, "{} {:?}", self.path, self.ending);
            }
        }
        match self.ending {
            _ if self.path == "/panicking" => assert_eq!(peer.closed().code, 1011),
            Ending::HalfClose => assert_eq!(peer.closed().code, 1006, "{}", self.path),
            Ending::Close => {
                peer.close(3001, "enough");
                assert_eq!(peer.closed().code, 3001, "{}", self.path);
            }
            _ => assert!(peer.is_open(), "{}", self.path),
        }
    }
}

/// What comes next where the gate is to be opened before.
fn behind_the_gate(sim: &mut Sim, peer: &mut Peer) -> String {
    for _ in 0..1000 {
        if let Some(message) = peer.try_message() {
            return message.as_text().unwrap().to_owned();
        }
        sim.advance(Duration::from_millis(20));
        open_the_gate();
    }
    panic!("nothing came through the gate: {peer:?}");
}

fn many_talk_and_leave(sim: &mut Sim) {
    ALIVE.set(0);
    ENDS.take();
    let mut random = sim.random();
    let mut faults = Faults::mixed(&mut random);
    (faults.reset, faults.fin) = (0.0, 0.0);
    // So that an answer comes in time over the slowest network.
    faults.max_delay = faults.max_delay.min(Duration::from_millis(20));
    sim.faults(&faults);
    let mut talkers: Vec<_> =
        PATHS.iter().map(|path| Talker::enter(sim, path, &mut random)).collect();
    let slow = random.below(talkers.len());
    talkers[slow].peer.as_mut().unwrap().stop_reading();
    // Who is never let in, and who goes while that is decided.
    let kept = sim.connect("/echo?never");
    drop(sim.connect("/halves?never"));
    sim.connect("/gate?no").expect_status(403);
    assert_eq!(sim.request("/http?abc").text(), "here");
    talkers.iter_mut().for_each(Talker::speak);
    sim.advance(Duration::from_millis(random.within(1..=3000) as u64));
    if let Some(peer) = &mut talkers[slow].peer {
        peer.go_on_reading();
    }
    talkers.iter_mut().for_each(|talker| talker.hear(sim));
    let mourned = talkers.iter().filter(|it| it.path == "/mourning").count();
    // Some futures wait for what never comes.
    sim.shutdown(Duration::from_secs(1));
    drop(kept);
    assert_eq!(ALIVE.get(), 0, "futures that were not dropped");
    assert_eq!(ENDS.take().len(), mourned);
    // Wakers that outlive all that they could wake.
    open_the_gate();
    sim.advance(Duration::from_millis(1));
    WAITING.take();
}

#[test]
fn async_handlers_run_in_it() {
    let config = Config::default()
        .with_io_workers(2)
        .with_compute_workers(1)
        .with_max_jobs_per_connection(3)
        .with_high_water(8 << 10);
    Sim::new(config, |_| app()).seeds(0..200, many_talk_and_leave);
}
