//! One kind of peer at work: so many of them at once, a bystander beside them, and the server's memory.

#![expect(
    clippy::disallowed_methods,
    reason = "peers have a time limit, and memory is looked at often"
)]

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::anyhow;

use super::bystander::{self, Answers, Question};
use super::ending::{Ending, Part};
use super::kinds::Kind;
use super::line::Goal;
use crate::scenario::Servers;

/// How often memory is looked at.
const LOOK_INTERVAL: Duration = Duration::from_millis(10);
/// How long memory is looked at after all peers have gone: what they sent may still be at work.
const AFTERMATH: Duration = Duration::from_millis(100);

/// What a server may hold, where that is known, and held before anybody came, in bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Budget {
    pub(super) max_memory: u64,
    pub(super) at_rest: u64,
}

/// What all rows share.
pub(super) struct Setup<'a> {
    pub(super) goal: Goal,
    pub(super) servers: &'a Servers,
    pub(super) question: Question,
    pub(super) peers: u16,
    /// Connections of a peer that is a crowd.
    pub(super) crowd: u16,
    pub(super) budget: Option<Budget>,
    pub(super) time_limit: Duration,
    pub(super) bystander_timeout: Duration,
}

/// What was seen of a kind.
#[derive(Debug)]
pub(super) struct Seen {
    pub(super) kind: Kind,
    pub(super) peers: u16,
    /// How many of them parted so.
    pub(super) endings: Vec<(Ending, u64)>,
    /// From the first step of a peer to its end: the shortest and the longest.
    pub(super) seconds: (f64, f64),
    pub(super) sent: u64,
    pub(super) received: u64,
    /// Resident memory of the server's processes before and at most, where they are known.
    pub(super) resident: Option<(u64, u64)>,
    pub(super) budget: Option<Budget>,
    pub(super) answers: Answers,
    /// Why a new connection was not answered afterwards.
    pub(super) refused: Option<String>,
    /// Whether a process of the server is gone.
    pub(super) is_dead: bool,
    /// What is said of one that was started for this kind, and told to end.
    pub(super) end: Option<End>,
}

/// How a server ended whose log went nowhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct End {
    /// Whether its log took nothing more by then.
    pub(super) was_full: bool,
    /// Whether it ended in time when it was told to.
    pub(super) is_in_time: bool,
}

/// One peer's part.
struct Played {
    ending: Ending,
    took: Duration,
    sent: u64,
    received: u64,
}

impl Seen {
    /// Nobody played.
    pub(super) fn nothing(kind: Kind, ending: Ending) -> Self {
        Self {
            kind,
            peers: 0,
            endings: vec![(ending, 1)],
            seconds: (0.0, 0.0),
            sent: 0,
            received: 0,
            resident: None,
            budget: None,
            answers: Answers::default(),
            refused: None,
            is_dead: false,
            end: None,
        }
    }
}

impl Setup<'_> {
    /// Has the peers of a kind play.
    ///
    /// # Errors
    /// When a thread panics.
    pub(super) fn play(&self, kind: Kind) -> anyhow::Result<Seen> {
        let mut memory = Memory::new(self.servers);
        let line = bystander::open(&self.goal, self.bystander_timeout);
        let stop = AtomicBool::new(false);
        let (played, answers) = thread::scope(|scope| {
            let watched = scope.spawn(|| match line {
                Ok(line) => {
                    let timeout = self.bystander_timeout;
                    bystander::watch(line, &self.goal, self.question, timeout, &stop)
                }
                Err(why) => Answers { failure: Some(why), ..Answers::default() },
            });
            let peers: Vec<_> =
                (0..self.peers).map(|_| scope.spawn(|| self.play_once(kind))).collect();
            let mut over = None;
            while over.is_none_or(|at: Instant| at.elapsed() < AFTERMATH) {
                memory.look();
                thread::sleep(LOOK_INTERVAL);
                if over.is_none() && peers.iter().all(thread::ScopedJoinHandle::is_finished) {
                    over = Some(Instant::now());
                }
            }
            stop.store(true, Ordering::Relaxed);
            let played: Vec<_> = peers.into_iter().filter_map(|peer| peer.join().ok()).collect();
            (played, watched.join())
        });
        let answers = answers.map_err(|_| anyhow!("a bystander panicked"))?;
        if played.len() < usize::from(self.peers) {
            return Err(anyhow!("a peer panicked"));
        }
        let refused = bystander::ask_once(&self.goal, self.question, self.bystander_timeout).err();
        memory.look();
        Ok(Seen { budget: self.budget, ..seen(kind, &played, answers, refused, memory) })
    }

    fn play_once(&self, kind: Kind) -> Played {
        let began = Instant::now();
        let until = began + self.time_limit;
        let Part { ending, sent, received } = kind.play(&self.goal, usize::from(self.crowd), until);
        Played { ending, took: began.elapsed(), sent, received }
    }
}

fn seen(
    kind: Kind,
    played: &[Played],
    answers: Answers,
    refused: Option<String>,
    memory: Memory<'_>,
) -> Seen {
    let mut counts = BTreeMap::new();
    for peer in played {
        counts.entry(peer.ending.to_string()).or_insert((&peer.ending, 0)).1 += 1;
    }
    let mut endings: Vec<_> =
        counts.into_values().map(|(ending, count)| (ending.clone(), count)).collect();
    endings.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    let took = || played.iter().map(|peer| peer.took.as_secs_f64());
    Seen {
        kind,
        peers: u16::try_from(played.len()).unwrap_or(u16::MAX),
        endings,
        seconds: (took().fold(f64::INFINITY, f64::min), took().fold(0.0, f64::max)),
        sent: played.iter().map(|peer| peer.sent).sum(),
        received: played.iter().map(|peer| peer.received).sum(),
        resident: memory.before.zip(memory.peak),
        budget: None,
        answers,
        refused,
        is_dead: memory.is_dead,
        end: None,
    }
}

/// The server's memory as it was looked at.
struct Memory<'a> {
    servers: &'a Servers,
    before: Option<u64>,
    peak: Option<u64>,
    is_dead: bool,
}

impl<'a> Memory<'a> {
    fn new(servers: &'a Servers) -> Self {
        let mut memory = Self { servers, before: None, peak: None, is_dead: false };
        memory.look();
        memory.before = memory.peak;
        memory
    }

    fn look(&mut self) {
        match self.servers.resident() {
            Ok(resident) => self.peak = self.peak.max(resident.map(|resident| resident.all)),
            Err(_) => self.is_dead = true,
        }
    }
}
