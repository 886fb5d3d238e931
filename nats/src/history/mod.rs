//! Histories that a stream of JetStream numbers and keeps, for all nodes.
//!
//! What is published to a topic with a history goes to the stream, under a subject of its own; the stream stores it,
//! and republishes it with its number, and that of the message before it of the same topic, to where all nodes
//! subscribe that have subscribers for the topic. So all hear the same numbers in the same order. What a node misses it
//! sees by these two numbers, and reads it from the stream.

#![expect(clippy::disallowed_methods, reason = "no worker is here, whose turn would have a time")]

mod kept;
mod recording;

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet, VecDeque};
use std::rc::Rc;
use std::time::{Duration, Instant};

use async_nats::Client;
use async_nats::jetstream::context::{ContextBuilder, CreateStreamError};
use async_nats::jetstream::stream::{self, Republish, StorageType, Stream};
use async_nats::jetstream::{Context, context::CreateStreamErrorKind};
use futures_util::StreamExt as _;
use ringwire::cluster::{Letter, Outlet};
use tokio::sync::{Notify, watch};
use tokio::task::spawn_local;
use tokio::time::{sleep, sleep_until, timeout};

pub(crate) use self::kept::place_of;
use crate::receiving::{Line, Receiving};
use crate::subject::Subjects;

/// How long one question to JetStream may take.
const ANSWER: Duration = Duration::from_secs(2);
/// How long until JetStream is asked again that does not answer, or against which something speaks.
const AGAIN: Duration = Duration::from_millis(250);
/// Topics that catch up together.
const TOGETHER: usize = 64;

/// How histories are kept by JetStream: see [`NatsBus::with_history`](crate::NatsBus::with_history).
///
/// All nodes have to say the same. The first of them makes the stream, whose name is the
/// [prefix](crate::NatsBus::with_prefix) and `_history`; where it is there already, and is not like this, a node logs
/// what is different, and is apart until that is mended.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct NatsHistory {
    /// Whether the stream is in files or in the memory of NATS. Default: in memory, with which all positions are gone
    /// when NATS restarts.
    pub storage: StorageType,
    /// On how many servers of NATS it is. Default: 1. An odd number; more than 1 need a cluster of them.
    pub replicas: usize,
    /// The most messages of a topic, as in [`HistoryConfig`](ringwire::topics::HistoryConfig). Default: 100.
    pub max_count: usize,
    /// The most bytes of all topics together. Default: 256 MiB. Past it the oldest messages go, of whatever topic.
    pub max_len: usize,
    /// How long a message is there. Default: a day. It should be longer than clients are away: of a topic that was
    /// silent for so long nobody knows whether anything is missing. What is older than its
    /// [`HistoryConfig`](ringwire::topics::HistoryConfig) says nobody gets.
    pub max_age: Duration,
    /// How long what is published waits for JetStream. Default: 3 s. Then this node numbers by itself until it is
    /// there, so that subscribers here go on; the others miss that, and who comes back with a position of before is
    /// told that it is gone.
    pub patience: Duration,
}

impl Default for NatsHistory {
    fn default() -> Self {
        Self {
            storage: StorageType::Memory,
            replicas: 1,
            max_count: 100,
            max_len: 256 << 20,
            max_age: Duration::from_secs(24 * 3600),
            patience: Duration::from_secs(3),
        }
    }
}

impl NatsHistory {
    /// Sets [`storage`](Self::storage).
    #[must_use]
    pub fn with_storage(mut self, storage: StorageType) -> Self {
        self.storage = storage;
        self
    }

    /// Sets [`replicas`](Self::replicas).
    #[must_use]
    pub fn with_replicas(mut self, count: usize) -> Self {
        self.replicas = count;
        self
    }

    /// Sets [`max_count`](Self::max_count).
    #[must_use]
    pub fn with_max_count(mut self, count: usize) -> Self {
        self.max_count = count;
        self
    }

    /// Sets [`max_len`](Self::max_len).
    #[must_use]
    pub fn with_max_len(mut self, len: usize) -> Self {
        self.max_len = len;
        self
    }

    /// Sets [`max_age`](Self::max_age).
    #[must_use]
    pub fn with_max_age(mut self, age: Duration) -> Self {
        self.max_age = age;
        self
    }

    /// Sets [`patience`](Self::patience).
    #[must_use]
    pub fn with_patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// The stream, for the subjects of a cluster.
    fn stream(&self, subjects: &Subjects) -> stream::Config {
        let own = subjects.of_history();
        // One more than are given, by which it is seen that none is missing.
        let max_count = self.max_count.saturating_add(1);
        stream::Config {
            name: own.name(),
            subjects: vec![own.subject(">")],
            republish: Some(Republish {
                source: own.subject(">"),
                destination: subjects.subject(">"),
                headers_only: false,
            }),
            storage: self.storage,
            num_replicas: self.replicas,
            max_messages_per_subject: i64::try_from(max_count).unwrap_or(i64::MAX),
            max_bytes: i64::try_from(self.max_len).unwrap_or(i64::MAX),
            max_age: self.max_age,
            ..stream::Config::default()
        }
    }
}

/// Why JetStream does not number.
#[derive(Debug, thiserror::Error)]
enum Unready {
    #[error("JetStream does not answer")]
    Silent,
    #[error("this NATS has no JetStream: start it with -js, or leave histories off")]
    NoJetStream,
    #[error("JetStream refuses the stream: {0}")]
    Refused(CreateStreamError),
    #[error(
        "the stream {stream} has {what} {found}, and this node wants {wanted}: give all nodes the same settings, or \
         edit or delete the stream (nats stream edit, nats stream rm)"
    )]
    Other { stream: String, what: &'static str, found: String, wanted: String },
}

/// What of a stream that is there is not as it should be.
fn difference(found: &stream::Config, wanted: &stream::Config) -> Result<(), Unready> {
    let all = [
        ("subjects", format!("{:?}", found.subjects), format!("{:?}", wanted.subjects)),
        ("republishing", format!("{:?}", found.republish), format!("{:?}", wanted.republish)),
        ("storage", format!("{:?}", found.storage), format!("{:?}", wanted.storage)),
        ("replicas", found.num_replicas.to_string(), wanted.num_replicas.to_string()),
        (
            "max_msgs_per_subject",
            found.max_messages_per_subject.to_string(),
            wanted.max_messages_per_subject.to_string(),
        ),
        ("max_bytes", found.max_bytes.to_string(), wanted.max_bytes.to_string()),
        ("max_age", format!("{:?}", found.max_age), format!("{:?}", wanted.max_age)),
    ];
    let name = found.name.clone();
    match all.into_iter().find(|(_, found, wanted)| found != wanted) {
        None => Ok(()),
        Some((what, found, wanted)) => Err(Unready::Other { stream: name, what, found, wanted }),
    }
}

/// Whether the stream is there, and which of its lives it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    Away,
    Ready { epoch: u64 },
}

/// The histories of a node, as its bus's tasks share them.
pub(crate) struct Histories {
    config: NatsHistory,
    subjects: Subjects,
    context: Context,
    receiving: Rc<Receiving>,
    phase: watch::Sender<Phase>,
    /// The stream, of the last time that it was there.
    stream: RefCell<Option<Rc<Stream>>>,
    /// Something speaks against the phase.
    doubts: Notify,
    /// What was missed could not be read.
    has_missed: Cell<bool>,
    /// By topic, what has yet to be stored, in order; the first is under way.
    queues: RefCell<HashMap<String, VecDeque<Letter>>>,
    waiting: Cell<usize>,
    has_room: Notify,
    /// What is too long, say.
    undeliverable: Cell<u64>,
    /// Numbered here since JetStream seemed to be away, and stored by it nevertheless, perhaps.
    given_up: RefCell<HashSet<String>>,
}

impl Histories {
    pub(crate) fn new(
        config: NatsHistory,
        subjects: Subjects,
        client: Client,
        receiving: Rc<Receiving>,
    ) -> Rc<Self> {
        let context = ContextBuilder::new().timeout(ANSWER).ack_timeout(ANSWER).build(client);
        Rc::new(Self {
            config,
            subjects,
            context,
            receiving,
            phase: watch::Sender::new(Phase::Away),
            stream: RefCell::new(None),
            doubts: Notify::new(),
            has_missed: Cell::new(false),
            queues: RefCell::default(),
            waiting: Cell::new(0),
            has_room: Notify::new(),
            undeliverable: Cell::new(0),
            given_up: RefCell::default(),
        })
    }

    pub(crate) fn phase(&self) -> watch::Receiver<Phase> {
        self.phase.subscribe()
    }

    fn epoch(&self) -> Option<u64> {
        match *self.phase.borrow() {
            Phase::Ready { epoch } => Some(epoch),
            Phase::Away => None,
        }
    }

    /// Looks whether the stream is there, for as long as the bus lives.
    pub(crate) async fn watch(self: Rc<Self>, mut line: watch::Receiver<Line>) {
        let mut complaint = String::new();
        loop {
            if *line.borrow_and_update() == Line::Down {
                self.phase.send_replace(Phase::Away);
                if line.changed().await.is_err() {
                    return;
                }
                continue;
            }
            match self.ensure().await {
                Ok(epoch) => {
                    if self.phase.send_replace(Phase::Ready { epoch }) == Phase::Away {
                        tracing::info!(epoch, "JetStream numbers histories");
                        complaint.clear();
                        // What came meanwhile was passed over.
                        self.has_missed.set(true);
                    }
                    if self.has_missed.take() {
                        spawn_local(Rc::clone(&self).catch_up_all(epoch));
                    }
                    tokio::select! {
                        changed = line.changed() => match changed {
                            Ok(()) => self.has_missed.set(true),
                            Err(_) => return,
                        },
                        () = self.doubts.notified() => sleep(AGAIN).await,
                    }
                }
                Err(error) => {
                    self.phase.send_replace(Phase::Away);
                    let error = error.to_string();
                    if error != complaint {
                        tracing::error!(
                            error,
                            "cannot use the history in JetStream: until it is mended, this node keeps its own, and a \
                             client that changes nodes misses messages"
                        );
                        complaint = error;
                    }
                    tokio::select! {
                        changed = line.changed() => if changed.is_err() {
                            return;
                        },
                        () = sleep(AGAIN) => {}
                    }
                }
            }
        }
    }

    /// Makes the stream unless it is there. Which of its lives it is.
    async fn ensure(&self) -> Result<u64, Unready> {
        let wanted = self.config.stream(&self.subjects);
        let made = timeout(ANSWER, self.context.get_or_create_stream(wanted.clone())).await;
        let stream = made.map_err(|_| Unready::Silent)?.map_err(|error| match error.kind() {
            CreateStreamErrorKind::TimedOut => Unready::Silent,
            CreateStreamErrorKind::JetStreamUnavailable => Unready::NoJetStream,
            _ => Unready::Refused(error),
        })?;
        let info = stream.cached_info();
        difference(&info.config, &wanted)?;
        // Its birth, in microseconds: below 2^53 until 2255.
        let epoch = u64::try_from(info.created.unix_timestamp_nanos() / 1000).unwrap_or_default();
        self.stream.replace(Some(Rc::new(stream)));
        Ok(epoch)
    }

    /// Something does not fit to what is known of the stream.
    fn doubt(&self) {
        self.doubts.notify_one();
    }
}

/// What the bus's loop knows of the histories.
pub(crate) struct Attendant {
    histories: Rc<Histories>,
    phase: watch::Receiver<Phase>,
    /// Since when JetStream has been away, and publications wait for it.
    waits_since: Option<Instant>,
    numbers: bool,
    /// The life of the stream whose numbers subscriptions bring.
    epoch: Option<u64>,
}

impl Attendant {
    pub(crate) fn new(histories: Rc<Histories>) -> Self {
        let phase = histories.phase();
        Self { histories, phase, waits_since: Some(Instant::now()), numbers: true, epoch: None }
    }

    pub(crate) fn is_ready(&self) -> bool {
        *self.phase.borrow() != Phase::Away
    }

    pub(crate) fn histories(&self) -> &Rc<Histories> {
        &self.histories
    }

    /// The histories, and the life of the stream whose numbers a subscription brings that begins now.
    pub(crate) fn of_life(&self) -> Option<(Rc<Histories>, u64)> {
        Some((Rc::clone(&self.histories), self.epoch?))
    }

    /// Waits until there is something to [settle](Self::settle).
    pub(crate) async fn due(&mut self) {
        let end =
            self.waits_since.filter(|_| self.numbers).map(|at| at + self.histories.config.patience);
        let ends = async {
            match end {
                Some(end) => sleep_until(end.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            // The sender lives as long as this.
            _ = self.phase.changed() => {}
            () = ends => {}
        }
    }

    /// Has the node number where JetStream can't, and not where it can. The epoch of the stream if it is another than
    /// before.
    pub(crate) fn settle(&mut self, outlet: &mut Outlet) -> Option<u64> {
        self.give_up_in_time(outlet);
        let Phase::Ready { epoch } = *self.phase.borrow_and_update() else { return None };
        self.waits_since = None;
        if !std::mem::replace(&mut self.numbers, true) {
            outlet.number_by_bus();
        }
        (self.epoch.replace(epoch) != Some(epoch)).then_some(epoch)
    }

    /// Has the node number where JetStream has been away for too long.
    pub(crate) fn give_up_in_time(&mut self, outlet: &mut Outlet) {
        outlet.note_undeliverable(self.histories.undeliverable.take());
        if self.is_ready() {
            return;
        }
        let since = *self.waits_since.get_or_insert_with(Instant::now);
        if self.numbers && since.elapsed() >= self.histories.config.patience {
            self.numbers = false;
            outlet.number_here(self.histories.give_up());
            tracing::warn!(
                "JetStream has been away too long: this node keeps its own history until JetStream is back"
            );
        }
    }
}

impl Histories {
    /// Has all topics catch up that are followed.
    pub(crate) async fn catch_up_all(self: Rc<Self>, epoch: u64) {
        let all = self.receiving.inlet.borrow().all_heard();
        let each = |(topic, _): (String, _)| {
            let histories = Rc::clone(&self);
            async move { histories.catch_up(&topic, epoch).await }
        };
        futures_util::stream::iter(all).for_each_concurrent(TOGETHER, each).await;
    }
}
