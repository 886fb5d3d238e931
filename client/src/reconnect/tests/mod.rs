//! Against a server that is killed and started again, in a time that only the test moves.
//!
//! A connection is a pair of sockets. Its other end acts when the test says so, and always before the client looks, so
//! that nothing here waits. Seeds that fail are listed; `RINGWIRE_SIM_SEED=n` replays one.

mod cut;

use std::collections::VecDeque;
use std::io::{ErrorKind as IoErrorKind, Read as _, Write as _};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;

use http::{HeaderMap, HeaderValue, StatusCode, header};
use ringwire_codec::{self as codec, Connection, Heap, Input, Role};

use super::*;
use crate::{ErrorKind, Refusal};
use ringwire_seeds::{self as seeds, Random};

const SEEDS: u64 = 100;
/// Attempts of a seed, connections that open and those that do not.
const CYCLES: usize = 100;
const MAX_WAITING: usize = 8;
/// How long an attempt takes that nobody answers.
const SILENCE: Duration = Duration::from_secs(10);

#[test]
fn a_server_that_is_killed_and_started_again() {
    seeds::run_all(0..SEEDS, run);
}

fn run(seed: u64) {
    let mut play = Play::new(seed);
    for _ in 0..CYCLES {
        play.cycle();
    }
    play.end();
}

/// What an attempt meets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fortune {
    /// Nobody listens.
    Down,
    Silent,
    /// 503, with a Retry-After of so many seconds.
    Busy(u64),
    Unauthorized,
    /// 404: it will not be found another time either.
    Unknown,
    /// A server that dies before the application has subscribed.
    DiesAtOnce,
    /// A server that dies before the queue is sent.
    DiesSubscribed,
    Up,
}

/// How a connection ends.
#[derive(Clone, Copy, Debug)]
enum Death {
    Crash,
    /// A close frame; without a code if that is 1005.
    Close(u16),
}

/// All that is outside of the client.
struct Stage {
    now: Instant,
    random: Random,
    /// The last that the client drew.
    jitter: u64,
    fortune: Fortune,
    /// When the next attempt must come.
    due: Option<Instant>,
    peer: Option<Peer>,
    /// How many attempts are behind, connections that were not stable included, and why the last came to nothing.
    attempts: u32,
    last_error: Option<ErrorKind>,
    /// How many attempts and connections there were, and how often the client's hooks were called.
    attempt_count: u32,
    peer_count: u32,
    subscribed_count: u32,
    prepared_count: u32,
}

/// The server's end of a connection.
struct Peer {
    stream: UnixStream,
    codec: Connection,
    has_subscriber: bool,
    /// The numbers that came, in order.
    arrived: Vec<u64>,
}

impl Peer {
    fn pair() -> (Self, UnixStream) {
        let (stream, other) = UnixStream::pair().unwrap();
        stream.set_nonblocking(true).unwrap();
        let codec = Connection::new(Role::Server);
        (Self { stream, codec, has_subscriber: false, arrived: Vec::new() }, other)
    }

    /// Takes what came.
    fn hear(&mut self) {
        let mut bytes = Vec::new();
        match self.stream.read_to_end(&mut bytes) {
            Ok(_) => {}
            Err(error) => assert_eq!(error.kind(), IoErrorKind::WouldBlock),
        }
        let mut input = Input::new(&mut bytes);
        let config = codec::Config::default();
        let mut confirms = false;
        while let Some(event) = self.codec.receive(&config, &mut Heap, &mut input).unwrap() {
            let codec::Event::Message(message) = event else { continue };
            let Message::Text(text) = message.as_message() else { panic!("it says no bytes") };
            if text == "subscribe" {
                assert!(!self.has_subscriber && self.arrived.is_empty(), "once, before all else");
                self.has_subscriber = true;
                confirms = true;
            } else {
                assert!(self.has_subscriber, "{text} comes before the subscription");
                self.arrived.push(text.parse().unwrap());
            }
        }
        if confirms {
            self.say("subscribed");
        }
    }

    fn say(&mut self, text: &str) {
        let mut out = Vec::new();
        self.codec.send(text.into(), &mut || [0; 4], &mut out).unwrap();
        self.stream.write_all(&out).unwrap();
    }

    /// A close frame and FIN. It is written by hand, since the codec would ignore what still comes.
    fn close(&mut self, code: u16) {
        let frame = match code {
            1005 => vec![0x88, 0],
            _ => [&[0x88, 2][..], &code.to_be_bytes()].concat(),
        };
        self.stream.write_all(&frame).unwrap();
        self.stream.shutdown(Shutdown::Write).unwrap();
    }
}

/// The client's way to the stage.
struct Link(Arc<Mutex<Stage>>);

impl World for Link {
    fn now(&self) -> Instant {
        self.0.lock().unwrap().now
    }

    fn random(&self) -> Result<u64, Error> {
        let mut stage = self.0.lock().unwrap();
        stage.jitter = stage.random.seed();
        Ok(stage.jitter)
    }

    fn connect(&self, builder: &Builder, _url: &Url) -> Result<Client, Error> {
        let mut stage = self.0.lock().unwrap();
        stage.attempt_count += 1;
        assert!(
            stage.due.is_none_or(|due| stage.now == due),
            "attempts are made when they are due"
        );
        match stage.fortune {
            Fortune::Down => return Err(Error::Lost(IoErrorKind::ConnectionRefused.into())),
            Fortune::Silent => {
                stage.now += SILENCE;
                return Err(Error::Timeout(Waiting::Connect));
            }
            Fortune::Busy(seconds) => return Err(refused(503, Some(seconds))),
            Fortune::Unauthorized => return Err(refused(401, None)),
            Fortune::Unknown => return Err(refused(404, None)),
            Fortune::DiesAtOnce | Fortune::DiesSubscribed | Fortune::Up => {}
        }
        let (peer, stream) = Peer::pair();
        stage.peer_count += 1;
        stage.peer = (stage.fortune != Fortune::DiesAtOnce).then_some(peer);
        builder.from_upgraded(stream, Vec::new())
    }

    fn wait<'s>(
        &self,
        _closed: &Condvar,
        state: MutexGuard<'s, State>,
        until: Instant,
    ) -> MutexGuard<'s, State> {
        let mut stage = self.0.lock().unwrap();
        assert!(until > stage.now, "it waits for what is to come");
        stage.now = until;
        state
    }
}

fn refused(status: u16, retry_after: Option<u64>) -> Error {
    let mut headers = HeaderMap::new();
    if let Some(seconds) = retry_after {
        headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    let status = StatusCode::from_u16(status).unwrap();
    Error::Refused(Box::new(Refusal { status, headers, body: Vec::new(), is_complete: true }))
}

/// A client, and what must become of it.
struct Play {
    stage: Arc<Mutex<Stage>>,
    client: Reconnecting,
    sender: ReconnectingSender,
    policy: RetryPolicy,
    /// The application numbers its messages.
    sent_count: u64,
    /// Sent to the server's socket.
    under_way: Vec<u64>,
    /// What the queue must hold.
    waiting: VecDeque<u64>,
    dropped_count: u64,
    reported_dropped_count: u64,
    arrived_count: u64,
    /// How many times in a row the server has asked for other credentials.
    renewals: u32,
    pushed_count: u32,
}

impl Play {
    fn new(seed: u64) -> Self {
        let stage = Arc::new(Mutex::new(Stage {
            now: Instant::now(),
            random: Random::new(seed),
            jitter: 0,
            fortune: Fortune::Up,
            due: None,
            peer: None,
            attempts: 0,
            last_error: None,
            attempt_count: 0,
            peer_count: 0,
            subscribed_count: 0,
            prepared_count: 0,
        }));
        let policy = RetryPolicy::default();
        let limits = OutboxConfig::default().with_max_count(MAX_WAITING);
        let (on_stage, at_attempt) = (Arc::clone(&stage), Arc::clone(&stage));
        let link = Box::new(Link(Arc::clone(&stage)));
        let client = Reconnecting::within(link, Client::builder(), "ws://stage/".parse())
            .with_policy(policy)
            .with_outbox(limits)
            .on_connect(move |client| subscribe(&on_stage, client))
            .prepare(move |attempt, why| {
                let mut stage = at_attempt.lock().unwrap();
                stage.prepared_count += 1;
                assert_eq!(attempt.number(), stage.attempts + 1);
                assert_eq!(why.map(Error::kind), stage.last_error);
                Ok(())
            });
        Self {
            sender: client.sender(),
            stage,
            client,
            policy,
            sent_count: 0,
            under_way: Vec::new(),
            waiting: VecDeque::new(),
            dropped_count: 0,
            reported_dropped_count: 0,
            arrived_count: 0,
            renewals: 0,
            pushed_count: 0,
        }
    }

    fn stage(&self) -> MutexGuard<'_, Stage> {
        self.stage.lock().unwrap()
    }

    fn draw<T>(&self, draw: impl FnOnce(&mut Random) -> T) -> T {
        draw(&mut self.stage().random)
    }

    fn pick<T: Copy>(&self, choices: &[T]) -> T {
        choices[self.draw(|random| random.below(choices.len()))]
    }

    /// One attempt, and the life of the connection if there is one.
    fn cycle(&mut self) {
        let seconds = self.pick(&[0, 1, 30, 100_000]);
        let fortune = self.pick(&[
            Fortune::Down,
            Fortune::Silent,
            Fortune::Busy(seconds),
            Fortune::Unauthorized,
            Fortune::DiesAtOnce,
            Fortune::DiesSubscribed,
            Fortune::Up,
            Fortune::Up,
            Fortune::Up,
            Fortune::Up,
        ]);
        // Once more in a row would be the end.
        let fortune = match fortune {
            Fortune::Unauthorized if self.renewals == self.policy.max_renewals => Fortune::Down,
            other => other,
        };
        if self.attempt(fortune) {
            self.live();
            let death = match self.draw(|random| random.chance(0.5)) {
                true => Death::Crash,
                false => Death::Close(self.pick(&[1001, 1005, 1011, 1012, 1013, 3008, 4000, 4429])),
            };
            self.die(death);
        }
        self.check();
    }

    /// Sends while there is no connection, then lets the client try. Gives whether there is one now.
    fn attempt(&mut self, fortune: Fortune) -> bool {
        self.send_some(Delivery::Queued);
        if fortune == Fortune::DiesSubscribed {
            // With nothing to send, the client would not notice yet.
            self.send(Delivery::Queued);
        }
        self.stage().fortune = fortune;
        let update = match self.impatient() {
            Some(update) => update,
            None => self.client.next_update().unwrap().unwrap(),
        };
        self.stage().attempts += 1;
        match update {
            Update::Connected { attempts, dropped } => {
                assert_eq!((fortune, attempts), (Fortune::Up, self.stage().attempts));
                self.reported_dropped_count += dropped;
                assert_eq!(self.reported_dropped_count, self.dropped_count);
                self.under_way.extend(self.waiting.drain(..));
                assert!(self.sender.is_connected());
                true
            }
            Update::Disconnected { error, delay } => {
                let expected = match fortune {
                    Fortune::Silent => ErrorKind::Timeout,
                    Fortune::Busy(_) => ErrorKind::Refused,
                    Fortune::Unauthorized => ErrorKind::Authentication,
                    _ => ErrorKind::Closed,
                };
                assert_eq!(error.kind(), expected, "{fortune:?}");
                let seconds = if let Fortune::Busy(seconds) = fortune { seconds } else { 0 };
                self.renewals =
                    if fortune == Fortune::Unauthorized { self.renewals + 1 } else { 0 };
                self.on_disconnected(&error, delay, Duration::from_secs(seconds));
                false
            }
            Update::Message(message) => panic!("{message:?} from nowhere"),
        }
    }

    /// Waits for a while only. Gives the update if there was one.
    fn impatient(&mut self) -> Option<Update> {
        let patience = self.draw(|random| random.up_to(Duration::from_secs(3)));
        let until = self.stage().now + patience;
        if self.draw(|random| random.chance(0.5)) {
            return None;
        }
        match self.client.next_update_timeout(patience) {
            Ok(update) => update,
            Err(error) => {
                assert!(matches!(error, Error::Timeout(Waiting::Receive)), "{error}");
                assert_eq!(self.stage().now, until);
                None
            }
        }
    }

    /// A conversation, which takes a while.
    fn live(&mut self) {
        for _ in 0..self.draw(|random| random.below(4)) {
            self.send_some(Delivery::Sent);
            self.hear();
            let text = format!("push {}", self.pushed_count);
            self.pushed_count += 1;
            self.stage().peer.as_mut().unwrap().say(&text);
            match self.client.next_update().unwrap().unwrap() {
                Update::Message(message) => assert_eq!(message.as_text(), Some(&*text)),
                other => panic!("{other:?}"),
            }
        }
        let time = self.draw(|random| random.up_to(2 * RetryPolicy::default().stable_after));
        self.stage().now += time;
        if time >= self.policy.stable_after {
            self.stage().attempts = 0;
        }
    }

    /// The connection ends, which the application does not know at once.
    fn die(&mut self, death: Death) {
        self.send_some(Delivery::Sent);
        match death {
            Death::Crash => {
                // Whatever its socket has, it takes along.
                self.hear();
                self.stage().peer = None;
                self.send_some(Delivery::Queued);
            }
            Death::Close(code) => {
                self.stage().peer.as_mut().unwrap().close(code);
                self.send_some(Delivery::Sent);
            }
        }
        match self.client.next_update() {
            Ok(Some(Update::Disconnected { error, delay })) => {
                match (death, &*error) {
                    (Death::Crash, Error::Lost(_)) => {}
                    (Death::Close(code), Error::Closed { code: found, .. })
                        if found.get() == code => {}
                    (_, error) => panic!("{error} after {death:?}"),
                }
                self.renewals = 0;
                self.on_disconnected(&error, delay, Duration::ZERO);
            }
            other => panic!("{other:?} after {death:?}"),
        }
        self.bury();
    }

    /// What the peer's socket has after its end is what was under way.
    fn bury(&mut self) {
        if self.stage().peer.is_some() {
            self.hear();
            self.stage().peer = None;
        }
    }

    /// The server takes all that came: what was sent, in order, each once.
    fn hear(&mut self) {
        let arrived = {
            let mut stage = self.stage();
            let peer = stage.peer.as_mut().unwrap();
            peer.hear();
            std::mem::take(&mut peer.arrived)
        };
        assert_eq!(arrived, std::mem::take(&mut self.under_way));
        self.arrived_count += arrived.len() as u64;
    }

    fn send_some(&mut self, expected: Delivery) {
        for _ in 0..self.draw(|random| random.below(6)) {
            self.send(expected);
        }
    }

    /// The application sends a message, of which this becomes.
    fn send(&mut self, expected: Delivery) {
        let number = self.sent_count;
        self.sent_count += 1;
        assert_eq!(self.sender.send(number.to_string().as_str()).unwrap(), expected);
        if expected == Delivery::Sent {
            return self.under_way.push(number);
        }
        self.waiting.push_back(number);
        if self.waiting.len() > MAX_WAITING {
            self.waiting.pop_front();
            self.dropped_count += 1;
        }
    }

    /// The delay is the policy's, and the next attempt is due after it.
    fn on_disconnected(&self, error: &Error, delay: Duration, retry_after: Duration) {
        let jitter = self.stage().jitter;
        let retry_after = retry_after.min(self.policy.max_retry_after);
        let number = self.stage().attempts.saturating_sub(1);
        assert_eq!(delay, retry_after + self.policy.backoff.delay(number, jitter));
        let mut stage = self.stage();
        stage.due = Some(stage.now + delay);
        stage.last_error = Some(error.kind());
        drop(stage);
        assert!(!self.sender.is_connected());
    }

    fn check(&self) {
        let stage = self.stage();
        // Who dies at once is not subscribed to, though the hook was called.
        assert_eq!(stage.subscribed_count, stage.peer_count);
        assert_eq!(stage.prepared_count, stage.attempt_count);
        assert!(self.under_way.is_empty() && stage.peer.is_none());
        assert_eq!(self.sender.dropped_count(), self.dropped_count);
        let known = self.arrived_count + self.waiting.len() as u64 + self.dropped_count;
        assert_eq!(known, self.sent_count, "each arrives, waits, or was dropped");
    }

    /// What is not worth another attempt, or the application closes the client.
    fn end(&mut self) {
        let fatal_code = self.pick(&[1000, 1002, 1008, 4404]);
        match self.draw(|random| random.below(4)) {
            0 => {
                assert!(self.attempt(Fortune::Up));
                self.stage().peer.as_mut().unwrap().close(fatal_code);
                let error = self.client.next_update().unwrap_err();
                assert!(matches!(error, Error::Closed { code, .. } if code.get() == fatal_code));
                self.bury();
            }
            1 => {
                while self.renewals < self.policy.max_renewals {
                    assert!(!self.attempt(Fortune::Unauthorized));
                }
                self.stage().fortune = Fortune::Unauthorized;
                let error = self.client.next_update().unwrap_err();
                assert_eq!(error.kind(), ErrorKind::Authentication);
            }
            2 => {
                self.stage().fortune = Fortune::Unknown;
                let error = self.client.next_update().unwrap_err();
                assert_eq!(error.kind(), ErrorKind::Refused);
            }
            _ => {
                self.sender.close(CloseCode::NORMAL, "").unwrap();
            }
        }
        assert!(self.client.next_update().unwrap().is_none());
        self.sender.send("too late").unwrap_err();
        self.check();
        let unsent = self.client.take_unsent();
        let expected: Vec<OwnedMessage> =
            self.waiting.iter().map(|number| number.to_string().into()).collect();
        assert_eq!(unsent, expected);
    }
}

/// The application's hook.
fn subscribe(stage: &Mutex<Stage>, client: &mut Client) -> Result<(), Error> {
    stage.lock().unwrap().subscribed_count += 1;
    client.send("subscribe")?;
    stage.lock().unwrap().peer.as_mut().unwrap().hear();
    assert_eq!(client.receive()?, Some("subscribed".into()));
    let mut stage = stage.lock().unwrap();
    if stage.fortune == Fortune::DiesSubscribed {
        stage.peer = None;
    }
    Ok(())
}
