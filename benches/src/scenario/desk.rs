//! What all connections of a load thread share: the plan, the message, and what is counted.

use std::collections::VecDeque;

use memchr::memmem::Finder;
use ringwire_codec::deflate::{Compressor, Decompressor, Level, WindowBits};
use ringwire_codec::{Config, Connection as Codec, Masks, Message};

use super::clock::{RunClock, nanos};
use super::message::Template;
use super::plan::{Plan, Pulse, Work, compression_of, second_of};
use super::tally::Tally;
use crate::echo::{Clock, Failure, Opener};
use crate::target::Target;

/// A reply that is this much longer than a message is still read.
const SPARE_LEN: usize = 1 << 20;
/// Output that may wait on a connection before it counts as failed, beside the messages in flight: a stalled server is
/// to be seen by its latencies.
const MAX_QUEUED_LEN: usize = 16 << 20;

/// It.
pub(super) struct Desk {
    pub(super) plan: Plan,
    pub(super) clock: RunClock,
    pub(super) opener: Opener,
    pub(super) codec: Config,
    pub(super) masks: Masks,
    /// For messages that refer to no earlier ones.
    pub(super) compressor: Compressor,
    pub(super) decompressor: Decompressor,
    /// What a connection has to say; empty between two connections.
    pub(super) out: Vec<u8>,
    pub(super) max_queued_len: usize,
    template: Template,
    message: Vec<u8>,
    /// What a message has to have in it, one of these, to be looked at at all; none: nothing.
    replies: Vec<Finder<'static>>,
    /// When what is handled now was read or is sent, in nanoseconds of the run.
    pub(super) now: u64,
    /// When work began; 0 before.
    pub(super) began: u64,
    /// Whether connections send further messages.
    pub(super) working: bool,
    pub(super) tally: Tally,
    second: u32,
    /// What was counted in seconds that are over.
    pub(super) untold: Vec<(u32, Tally)>,
    pub(super) totals: Pulse,
    /// Connections that have nothing more to do, or are gone.
    pub(super) finished: u64,
    /// With `Work::Pool`: messages that are to be sent now.
    pub(super) released: u64,
    /// Connections that were closed by this side: their numbers, when they were dialled, and when they were closed.
    pub(super) closing: VecDeque<(u32, u64, u64)>,
    /// With `Work::Rate`: messages without a reply, of connections that are gone.
    pub(super) unanswered: u64,
}

impl Desk {
    /// For a plan's connections to `target`.
    pub(super) fn new(plan: Plan, target: &Target) -> anyhow::Result<Self> {
        let mut seed = [0; 32];
        getrandom::fill(&mut seed)?;
        let opener = Opener::new(target, compression_of(plan.takeover), Clock::start());
        let window_len = match plan.work {
            Work::Loop { in_flight, .. } => plan.size.saturating_mul(in_flight as usize),
            _ => 0,
        };
        let finder = |text: &String| Finder::new(text).into_owned();
        Ok(Self {
            clock: RunClock::new(plan.epoch),
            opener: opener.without_greeting(),
            codec: Config::default().with_max_message_len(plan.size + SPARE_LEN),
            masks: Masks::new(seed),
            compressor: Compressor::new(Level::default(), WindowBits::MAX),
            decompressor: Decompressor::new(),
            out: Vec::new(),
            max_queued_len: window_len.saturating_add(MAX_QUEUED_LEN),
            template: match &plan.payload {
                Some(bytes) => Template::of(bytes),
                None => Template::noise(plan.size, plan.text),
            },
            message: Vec::new(),
            replies: plan.reply_contains.iter().map(finder).collect(),
            now: 0,
            began: 0,
            working: false,
            tally: Tally::default(),
            second: 0,
            untold: Vec::new(),
            totals: Pulse::default(),
            finished: 0,
            released: 0,
            closing: VecDeque::new(),
            unanswered: 0,
            plan,
        })
    }

    /// Begins work; when.
    pub(super) fn begin(&mut self) -> u64 {
        self.began = self.read_clock();
        self.working = true;
        self.began
    }

    /// Reads the clock, and puts away what was counted in a second that is over.
    pub(super) fn read_clock(&mut self) -> u64 {
        self.now = self.clock.nanos();
        let second = second_of(self.now);
        if second != self.second {
            self.put_away();
            self.second = second;
        }
        self.now
    }

    /// Has what was counted so far be told.
    pub(super) fn put_away(&mut self) {
        if !self.tally.is_empty() {
            self.untold.push((self.second, std::mem::take(&mut self.tally)));
        }
    }

    /// When a message is due, in nanoseconds after work began. The connections' messages are spread evenly.
    pub(super) fn due(&self, connection: u32, message: u32) -> u64 {
        let Work::Rate { interval, .. } = self.plan.work else { return 0 };
        if let Some(pace) = &self.plan.pace {
            let offset = f64::from(connection) / f64::from(self.plan.connections.max(1));
            return pace.time_of(f64::from(message) + offset).map_or(u64::MAX, nanos);
        }
        let interval = nanos(interval);
        let offset = u128::from(interval) * u128::from(connection)
            / u128::from(self.plan.connections.max(1));
        interval
            .saturating_mul(message.into())
            .saturating_add(u64::try_from(offset).unwrap_or(u64::MAX))
    }

    // Counting

    /// Something went wrong so often.
    pub(super) fn fail(&mut self, failure: Failure, count: u64) {
        self.tally.fail(failure, count);
        self.totals.failed += count;
    }

    /// A connection that was dialled at `dialled` is open, and has been greeted.
    pub(super) fn opened(&mut self, dialled: u64) {
        self.tally.opened += 1;
        self.tally.last_opened = self.now;
        self.tally.connect.record_nanos(self.now.saturating_sub(dialled));
        self.totals.opened += 1;
    }

    /// A right reply came to a message that was sent or due at `from`, and none to so many before it.
    pub(super) fn answered(&mut self, from: u64, missing: u32) {
        self.fail(Failure::ReplyMissing, missing.into());
        let took = self.now.saturating_sub(from);
        self.tally.latency.record_nanos(took);
        self.tally.answered += 1;
        self.tally.last_answered = self.now;
        self.totals.answered += 1;
        if took > nanos(self.plan.response_timeout) {
            self.fail(Failure::ReplyLate, 1);
        }
    }

    // Messages

    /// Has a connection send the message with a number. Messages refer to earlier ones where it has a compressor of its
    /// own.
    pub(super) fn encode(
        &mut self,
        codec: &mut Codec,
        takeover: Option<&mut Compressor>,
        connection: u32,
        number: u32,
    ) {
        let Self { message, masks, out, .. } = self;
        let message =
            self.template.write(self.plan.first.wrapping_add(connection), number, message);
        let sent = match takeover {
            Some(compressor) => codec.send_compressed(message, compressor, masks, out),
            None if codec.deflate() => {
                codec.send_compressed(message, &mut self.compressor, masks, out)
            }
            None => codec.send(message, masks, out),
        };
        // Refused only where a close has begun.
        let sent = u64::from(sent.is_ok());
        self.tally.sent += sent;
        self.totals.sent += sent;
    }

    /// Whether a message may be a reply.
    pub(super) fn may_be_reply(&self, message: Message<'_>) -> bool {
        let bytes = message.as_bytes();
        self.replies.is_empty() || self.replies.iter().any(|text| text.find(bytes).is_some())
    }

    /// The number of the message that this is the reply to; `None` where it is none.
    pub(super) fn number_of(
        &self,
        connection: u32,
        message: Message<'_>,
        expected: u32,
    ) -> Option<u32> {
        if self.plan.any_reply {
            return Some(expected);
        }
        self.template.number(self.plan.first.wrapping_add(connection), message, expected)
    }
}
