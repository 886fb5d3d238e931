//! A well-behaved connection beside hostile ones: whether it is answered, and how late.

#![expect(clippy::disallowed_methods, reason = "takes the time of answers, and rests between two")]

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::bail;
use ringwire_codec::OpCode;
use ringwire_examples::CompressionFlag;
use serde::Serialize;

use super::heard::Heard;
use super::kinds::frame;
use super::line::{Begin, Goal, Line};

const INTERVAL: Duration = Duration::from_millis(20);
/// An echo that takes longer than this at a server at rest is none.
const ECHO_TIMEOUT: Duration = Duration::from_secs(2);
const WORDS: &[u8] = b"are you there?";

/// What a bystander asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Question {
    /// A message, of which any is the answer.
    Message,
    /// A ping.
    Ping,
}

/// What a bystander had for answers.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Answers {
    pub(super) asked: u64,
    pub(super) answered: u64,
    /// From a question to its answer.
    pub(super) median_us: f64,
    pub(super) worst_us: f64,
    /// Why there are no more of them.
    pub(super) failure: Option<String>,
}

impl Question {
    /// What this server answers.
    ///
    /// # Errors
    /// When it answers nothing.
    pub(super) fn of(goal: &Goal, timeout: Duration) -> anyhow::Result<Self> {
        if ask_once(goal, Self::Message, ECHO_TIMEOUT.min(timeout)).is_ok() {
            return Ok(Self::Message);
        }
        match ask_once(goal, Self::Ping, timeout) {
            Ok(()) => Ok(Self::Ping),
            Err(why) => bail!("{} answers neither a message nor a ping: {why}", goal.target),
        }
    }

    fn bytes(self, goal: &Goal) -> Vec<u8> {
        match (self, goal.payload) {
            (Self::Message, Some(payload)) => {
                let opcode = if payload.is_text() { OpCode::Text } else { OpCode::Binary };
                frame(true, opcode, &payload.make(0, true, 1).concat())
            }
            (Self::Message, None) => frame(true, OpCode::Text, WORDS),
            (Self::Ping, _) => frame(true, OpCode::Ping, WORDS),
        }
    }

    fn answers(self, heard: &Heard) -> u64 {
        match self {
            Self::Message => heard.messages,
            Self::Ping => heard.pongs,
        }
    }
}

/// A new connection that asks once.
pub(super) fn ask_once(goal: &Goal, question: Question, timeout: Duration) -> Result<(), String> {
    ask(&mut open(goal, timeout)?, goal, question, timeout)
}

/// Connects.
pub(super) fn open(goal: &Goal, timeout: Duration) -> Result<Line, String> {
    let begin = Begin::Upgrade(CompressionFlag::Off);
    Line::open(goal, begin, Instant::now() + timeout).map_err(|failure| failure.to_string())
}

/// Asks until it is told to stop, or is not answered in time.
pub(super) fn watch(
    mut line: Line,
    goal: &Goal,
    question: Question,
    timeout: Duration,
    stop: &AtomicBool,
) -> Answers {
    let mut answers = Answers::default();
    let mut times = Vec::new();
    loop {
        let began = Instant::now();
        answers.asked += 1;
        let answer = ask(&mut line, goal, question, timeout);
        let took_us = began.elapsed().as_secs_f64() * 1e6;
        times.insert(times.partition_point(|time| *time < took_us), took_us);
        answers.median_us = times[times.len() / 2];
        answers.worst_us = answers.worst_us.max(took_us);
        if let Err(why) = answer {
            answers.failure = Some(why);
            return answers;
        }
        answers.answered += 1;
        if stop.load(Ordering::Relaxed) {
            return answers;
        }
        thread::sleep(INTERVAL);
    }
}

fn ask(line: &mut Line, goal: &Goal, question: Question, timeout: Duration) -> Result<(), String> {
    let until = Instant::now() + timeout;
    let before = question.answers(&line.heard);
    line.say(&question.bytes(goal), until);
    while question.answers(&line.heard) == before {
        line.listen(until, |heard| question.answers(heard) > before || heard.ping.is_some());
        if let Some(payload) = line.heard.ping.take() {
            line.say(&frame(true, OpCode::Pong, &payload), until);
            continue;
        }
        if question.answers(&line.heard) > before {
            break;
        }
        return Err(match (&line.heard.close, line.ended()) {
            (Some(close), _) => format!("closed with {:?} {:?}", close.code, close.reason),
            (None, Some(failure)) => failure.to_string(),
            (None, None) => format!("no answer in {} s", timeout.as_secs_f64()),
        });
    }
    Ok(())
}
