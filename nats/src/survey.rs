//! Questions to all other nodes of a cluster, whose answers are waited for a while. As with [`online`](crate::online),
//! nothing here names NATS: questions and answers are publications, which whatever [`Bus`](ringwire::cluster::Bus) the
//! server has carries.
//!
//! ```
//! use std::time::Duration;
//!
//! use ringwire::Handle;
//! use ringwire_nats::survey::Survey;
//!
//! fn count_rooms(handle: &Handle) {
//!     let survey = Survey::new(Duration::from_secs(1));
//!     survey.start(handle, |question| match question {
//!         "rooms" => "3".to_owned(),
//!         _ => String::new(),
//!     });
//!     // How many other nodes there are, `Online::nodes` knows.
//!     survey.ask(2, "rooms", |outcome| {
//!         let elsewhere: usize = outcome.answers.iter().flat_map(|it| it.parse::<usize>()).sum();
//!         println!("{} rooms, without those of {} nodes", 3 + elsewhere, outcome.silent);
//!     });
//! }
//! ```
//!
//! A question is one message to every other node, and each answer one to the node that has asked. Topics are
//! [`QUESTIONS`] and what begins with [`ANSWERS`]: let no client publish to them, nor subscribe.

#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "who waits for answers is shared with the bus's thread, and with one that gives them up"
)]

use std::collections::HashMap;
use std::fmt::{self, Debug};
use std::hash::{BuildHasher, RandomState};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::thread;
use std::time::{Duration, Instant};

use ringwire::Handle;
use serde::{Deserialize, Serialize};

/// The topic of questions.
pub const QUESTIONS: &str = "nodes.questions";
/// What the topics of answers begin with; behind it is the node that has asked.
pub const ANSWERS: &str = "nodes.answers";

/// Questions that may wait for answers at a time.
const MAX_WAITING: usize = 1024;

#[derive(Serialize, Deserialize)]
struct Question {
    by: u64,
    id: u64,
    question: String,
}

#[derive(Serialize, Deserialize)]
struct Answer {
    id: u64,
    answer: String,
}

/// What comes of a question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// What other nodes have answered, in the order in which that came.
    pub answers: Vec<String>,
    /// How many have not.
    pub silent: usize,
}

/// Asks the other nodes. See the [module's documentation](self). Clones are the same.
#[derive(Clone)]
pub struct Survey {
    shared: Arc<Shared>,
}

struct Shared {
    key: u64,
    patience: Duration,
    outside: OnceLock<(Handle, Sender<(u64, Instant)>)>,
    waiting: Mutex<Waiting>,
}

#[derive(Default)]
struct Waiting {
    asked: u64,
    by_id: HashMap<u64, Asked>,
}

struct Asked {
    outcome: Outcome,
    done: Box<dyn FnOnce(Outcome) + Send>,
}

impl Asked {
    fn end(self) {
        (self.done)(self.outcome);
    }
}

impl Survey {
    /// Nodes have so long to answer.
    #[must_use]
    pub fn new(patience: Duration) -> Self {
        // Another one each time, since the hasher has a key by chance.
        let key = RandomState::new().hash_one(0);
        let (outside, waiting) = (OnceLock::new(), Mutex::default());
        Self { shared: Arc::new(Shared { key, patience, outside, waiting }) }
    }

    /// Begins, once there is a server: `answer` answers the questions of other nodes, on the bus's thread, and must not
    /// block. Only the first call counts.
    ///
    /// # Panics
    /// The system has no thread left.
    pub fn start(&self, handle: &Handle, answer: impl Fn(&str) -> String + Send + Sync + 'static) {
        let (asked, given_up) = mpsc::channel();
        if self.shared.outside.set((handle.clone(), asked)).is_err() {
            return;
        }
        let answering = handle.clone();
        let questions = handle.hear_others(QUESTIONS, move |_, message| {
            let Ok(Question { by, id, question }) = serde_json::from_slice(message.as_bytes())
            else {
                return;
            };
            say(&answering, &topic_of(by), &Answer { id, answer: answer(&question) });
        });
        let hearing = Arc::downgrade(&self.shared);
        let answers = handle.hear_others(&topic_of(self.shared.key), move |_, message| {
            let answer = serde_json::from_slice(message.as_bytes());
            if let (Some(shared), Ok(Answer { id, answer })) = (hearing.upgrade(), answer) {
                shared.take(id, answer);
            }
        });
        questions.and(answers).expect("they are topics");
        let shared = Arc::downgrade(&self.shared);
        let thread = thread::Builder::new().name("ringwire-survey".to_owned());
        let spawned = thread.spawn(move || give_up(&shared, &given_up));
        spawned.expect("a thread that gives questions up");
    }

    /// Asks the other nodes, of which there are so many. `done` is called once: when all have answered, or when those
    /// that have not are given up; by the bus's thread, or one that this has. Where nobody is to be asked, before
    /// [`start`](Self::start), and where 1024 questions wait, it is called at once. It must not block.
    pub fn ask(&self, nodes: usize, question: &str, done: impl FnOnce(Outcome) + Send + 'static) {
        let outcome = Outcome { answers: Vec::new(), silent: nodes };
        let Some((handle, asked)) = self.shared.outside.get().filter(|_| nodes > 0) else {
            return done(outcome);
        };
        let mut waiting = self.shared.lock();
        if waiting.by_id.len() >= MAX_WAITING {
            drop(waiting);
            return done(outcome);
        }
        waiting.asked += 1;
        let id = waiting.asked;
        waiting.by_id.insert(id, Asked { outcome, done: Box::new(done) });
        // In the order of their times, since all have as long; the thread lives as long as this.
        let _ = asked.send((id, Instant::now() + self.shared.patience));
        drop(waiting);
        say(
            handle,
            QUESTIONS,
            &Question { by: self.shared.key, id, question: question.to_owned() },
        );
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self, id: u64, answer: String) {
        let mut waiting = self.lock();
        let Some(asked) = waiting.by_id.get_mut(&id) else { return };
        asked.outcome.answers.push(answer);
        asked.outcome.silent -= 1;
        let has_all = asked.outcome.silent == 0;
        let ended = if has_all { waiting.by_id.remove(&id) } else { None };
        drop(waiting);
        if let Some(asked) = ended {
            asked.end();
        }
    }

    fn give_up(&self, id: u64) {
        let asked = self.lock().by_id.remove(&id);
        if let Some(asked) = asked {
            asked.end();
        }
    }
}

/// Gives up questions whose time has come.
fn give_up(shared: &Weak<Shared>, asked: &Receiver<(u64, Instant)>) {
    for (id, due) in asked {
        thread::sleep(due.saturating_duration_since(Instant::now()));
        let Some(shared) = shared.upgrade() else { return };
        shared.give_up(id);
    }
}

fn topic_of(key: u64) -> String {
    format!("{ANSWERS}.{key:016x}")
}

/// Whom this does not reach is silent.
fn say(handle: &Handle, topic: &str, letter: &impl Serialize) {
    let json = serde_json::to_string(letter).expect("numbers and texts are JSON");
    if let Err(error) = handle.publish(topic, &json) {
        tracing::debug!(%error, topic, "other nodes are not reached");
    }
}

impl Debug for Survey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Survey").field("patience", &self.shared.patience).finish_non_exhaustive()
    }
}
