//! The order of what comes from other nodes. A *stream* is what one node publishes to one topic.

use std::collections::{BTreeMap, BTreeSet};
use std::mem;
use std::time::Duration;

use super::config::ClusterConfig;
use super::envelope::Stamp;
use super::recent::Recent;

/// See the [module's documentation](self).
#[derive(Debug)]
pub(super) struct Streams {
    recent: Recent<Stream>,
    window: Option<Duration>,
    max_held_len: usize,
    held_len: usize,
    /// When streams with something missing go on without it: until when, which.
    due: BTreeSet<(Duration, u64, Box<str>)>,
}

#[derive(Debug)]
struct Stream {
    epoch: u64,
    /// The number that was passed on last.
    last: u64,
    /// What came before its time.
    early: Option<Box<Early>>,
}

#[derive(Debug)]
struct Early {
    /// By number, with the time at which it is passed on whatever is missing.
    held: BTreeMap<u64, (Duration, Vec<u8>)>,
    /// The first of these times.
    until: Duration,
}

/// What is to be done with what came.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Taken {
    /// Held until now, and passed on before it.
    pub(super) before: Vec<Vec<u8>>,
    /// It is passed on now.
    pub(super) is_next: bool,
    /// Held until now, and passed on behind it.
    pub(super) after: Vec<Vec<u8>>,
    /// How many were given up.
    pub(super) missed: u64,
    /// It has come before, or comes too late.
    pub(super) is_stale: bool,
}

/// What is passed on since its time has come.
#[derive(Debug, Default)]
pub(super) struct Expired {
    pub(super) letters: Vec<(Box<str>, Vec<u8>)>,
    pub(super) missed: u64,
}

fn waits(stream: &Stream) -> bool {
    stream.early.is_some()
}

impl Streams {
    pub(super) fn new(config: &ClusterConfig) -> Self {
        Self {
            recent: Recent::new(config.max_streams),
            window: config.reorder_window,
            max_held_len: config.max_held_len,
            held_len: 0,
            due: BTreeSet::new(),
        }
    }

    /// Bytes that wait.
    pub(super) fn held_len(&self) -> usize {
        self.held_len
    }

    /// A publication has come, as `bytes`.
    pub(super) fn take(&mut self, stamp: Stamp, topic: &str, bytes: &[u8], now: Duration) -> Taken {
        let Self { recent, window, max_held_len, held_len, due } = self;
        let Stamp { origin, epoch, number } = stamp;
        let Some(stream) = recent.get_mut(origin.0, topic, waits) else {
            recent.insert(origin.0, topic, Stream { epoch, last: number, early: None }, waits);
            return Taken { is_next: true, ..Taken::default() };
        };
        let mut taken = Taken::default();
        let was_due = stream.early.as_ref().map(|early| early.until);
        if epoch > stream.epoch {
            stream.pass_on(u64::MAX, held_len, &mut taken.before, &mut taken.missed);
            (stream.epoch, stream.last) = (epoch, 0);
        }
        if epoch < stream.epoch || number <= stream.last || stream.holds(number) {
            taken.is_stale = true;
        } else if number == stream.last + 1 {
            taken.is_next = true;
        } else if let Some(window) = window
            && *held_len + bytes.len() <= *max_held_len
        {
            *held_len += bytes.len();
            stream.hold(number, now + *window, bytes.to_vec());
        } else {
            stream.pass_on(number - 1, held_len, &mut taken.before, &mut taken.missed);
            taken.missed += number - 1 - stream.last;
            taken.is_next = true;
        }
        if taken.is_next {
            stream.last = number;
            stream.go_on(held_len, &mut taken.after);
        }
        let is_due = stream.early.as_ref().map(|early| early.until);
        if was_due != is_due {
            let key = |at| (at, origin.0, topic.into());
            was_due.map(|at| due.remove(&key(at)));
            is_due.map(|at| due.insert(key(at)));
        }
        taken
    }

    /// What has waited long enough, and when to look again.
    pub(super) fn expire(&mut self, now: Duration) -> (Expired, Option<Duration>) {
        let mut expired = Expired::default();
        while let Some((at, origin, topic)) = self.due.pop_first() {
            if at > now {
                self.due.insert((at, origin, topic));
                return (expired, Some(at));
            }
            let Some(stream) = self.recent.get_mut(origin, &topic, waits) else { continue };
            let Some(early) = &stream.early else { continue };
            let waited = early.held.iter().filter(|(_, (until, _))| *until <= now);
            let Some(upto) = waited.map(|(number, _)| *number).max() else { continue };
            let mut letters = Vec::new();
            stream.pass_on(upto, &mut self.held_len, &mut letters, &mut expired.missed);
            stream.go_on(&mut self.held_len, &mut letters);
            if let Some(early) = &stream.early {
                self.due.insert((early.until, origin, topic.clone()));
            }
            expired.letters.extend(letters.into_iter().map(|bytes| (topic.clone(), bytes)));
        }
        (expired, None)
    }

    /// A topic has no subscribers here any more.
    pub(super) fn forget_topic(&mut self, topic: &str) {
        let gone = self.recent.forget_topic(topic);
        self.let_go(gone);
    }

    /// The same for all topics of which `is_over` says so.
    pub(super) fn forget(&mut self, is_over: impl FnMut(&str) -> bool) {
        let gone = self.recent.forget(is_over);
        self.let_go(gone);
    }

    /// Their times are passed over as they come.
    fn let_go(&mut self, gone: Vec<Stream>) {
        for early in gone.into_iter().filter_map(|stream| stream.early) {
            let len: usize = early.held.values().map(|(_, bytes)| bytes.len()).sum();
            self.held_len -= len;
        }
    }
}

impl Stream {
    fn holds(&self, number: u64) -> bool {
        self.early.as_ref().is_some_and(|early| early.held.contains_key(&number))
    }

    fn hold(&mut self, number: u64, until: Duration, bytes: Vec<u8>) {
        let early =
            self.early.get_or_insert_with(|| Box::new(Early { held: BTreeMap::new(), until }));
        early.until = early.until.min(until);
        early.held.insert(number, (until, bytes));
    }

    /// Passes on what is held with numbers up to `upto`, without those that are missing.
    fn pass_on(
        &mut self,
        upto: u64,
        held_len: &mut usize,
        letters: &mut Vec<Vec<u8>>,
        missed: &mut u64,
    ) {
        let Some(early) = &mut self.early else { return };
        let later = upto.checked_add(1).map(|next| early.held.split_off(&next));
        let due = mem::replace(&mut early.held, later.unwrap_or_default());
        for (number, (_, bytes)) in due {
            *missed += number - self.last - 1;
            self.last = number;
            *held_len -= bytes.len();
            letters.push(bytes);
        }
        self.settle();
    }

    /// Passes on what comes next without a gap.
    fn go_on(&mut self, held_len: &mut usize, letters: &mut Vec<Vec<u8>>) {
        let Some(early) = &mut self.early else { return };
        while let Some((_, bytes)) = early.held.remove(&(self.last + 1)) {
            self.last += 1;
            *held_len -= bytes.len();
            letters.push(bytes);
        }
        self.settle();
    }

    fn settle(&mut self) {
        let Some(early) = &mut self.early else { return };
        match early.held.values().map(|(until, _)| *until).min() {
            Some(until) => early.until = until,
            None => self.early = None,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::NodeId;
    use super::*;

    const WINDOW: Duration = Duration::from_millis(100);

    fn streams(config: ClusterConfig) -> Streams {
        Streams::new(&config)
    }

    fn ms(count: u64) -> Duration {
        Duration::from_millis(count)
    }

    fn stamp(epoch: u64, number: u64) -> Stamp {
        Stamp { origin: NodeId(1), epoch, number }
    }

    /// What is passed on when this comes, and how many are given up.
    fn take(streams: &mut Streams, epoch: u64, number: u64, at: u64) -> (Vec<u64>, u64, bool) {
        let bytes = (epoch * 1000 + number).to_be_bytes();
        let taken = streams.take(stamp(epoch, number), "t", &bytes, ms(at));
        let this = taken.is_next.then(|| bytes.to_vec());
        let all = taken.before.into_iter().chain(this).chain(taken.after);
        (all.map(numbered).collect(), taken.missed, taken.is_stale)
    }

    fn numbered(bytes: Vec<u8>) -> u64 {
        u64::from_be_bytes(bytes.try_into().unwrap())
    }

    fn expire(streams: &mut Streams, at: u64) -> (Vec<u64>, u64, Option<Duration>) {
        let (expired, next) = streams.expire(ms(at));
        let letters = expired.letters.into_iter().map(|(_, bytes)| numbered(bytes));
        (letters.collect(), expired.missed, next)
    }

    #[test]
    fn what_is_early_waits_for_what_is_missing() {
        let mut streams = streams(ClusterConfig::default().with_reorder_window(WINDOW));
        assert_eq!(take(&mut streams, 1, 5, 0), (vec![1005], 0, false));
        assert_eq!(take(&mut streams, 1, 8, 10), (vec![], 0, false));
        assert_eq!(take(&mut streams, 1, 7, 30), (vec![], 0, false));
        assert_eq!(take(&mut streams, 1, 8, 30), (vec![], 0, true), "a second time");
        assert_eq!(take(&mut streams, 1, 6, 40), (vec![1006, 1007, 1008], 0, false));
        assert_eq!(take(&mut streams, 1, 6, 40), (vec![], 0, true));
        assert_eq!((expire(&mut streams, 1000), streams.held_len()), ((vec![], 0, None), 0));
    }

    #[test]
    fn what_is_missing_for_too_long_is_given_up() {
        let mut streams = streams(ClusterConfig::default().with_reorder_window(WINDOW));
        take(&mut streams, 1, 1, 0);
        take(&mut streams, 1, 5, 10);
        take(&mut streams, 1, 3, 50);
        take(&mut streams, 1, 9, 60);
        assert_eq!(expire(&mut streams, 109), (vec![], 0, Some(ms(110))));
        // With 5, whose time it is, goes 3, which came later.
        assert_eq!(expire(&mut streams, 110), (vec![1003, 1005], 2, Some(ms(160))));
        assert_eq!(take(&mut streams, 1, 4, 120), (vec![], 0, true), "too late");
        assert_eq!(take(&mut streams, 1, 6, 120), (vec![1006], 0, false));
        assert_eq!(expire(&mut streams, 160), (vec![1009], 2, None));
        assert_eq!(streams.held_len(), 0);
    }

    #[test]
    fn without_a_window_or_room_nothing_waits() {
        for config in [
            ClusterConfig::default().with_reorder_window(None),
            ClusterConfig::default().with_max_held_len(7),
        ] {
            let mut streams = streams(config);
            assert_eq!(take(&mut streams, 1, 1, 0), (vec![1001], 0, false));
            assert_eq!(take(&mut streams, 1, 4, 0), (vec![1004], 2, false));
            assert_eq!(take(&mut streams, 1, 3, 0), (vec![], 0, true));
        }
        let mut streams = streams(ClusterConfig::default().with_max_held_len(16));
        take(&mut streams, 1, 1, 0);
        take(&mut streams, 1, 3, 0);
        take(&mut streams, 1, 6, 0);
        assert_eq!(take(&mut streams, 1, 5, 0), (vec![1003, 1005, 1006], 2, false));
        assert_eq!(streams.held_len(), 0);
    }

    #[test]
    fn a_new_epoch_begins_anew() {
        let mut streams = streams(ClusterConfig::default().with_reorder_window(WINDOW));
        take(&mut streams, 1, 1, 0);
        take(&mut streams, 1, 3, 0);
        assert_eq!(take(&mut streams, 2, 1, 5), (vec![1003, 2001], 1, false));
        assert_eq!(take(&mut streams, 1, 4, 5), (vec![], 0, true), "of the old one");
        assert_eq!(take(&mut streams, 4, 2, 5), (vec![], 0, false), "it began with another");
        assert_eq!(take(&mut streams, 4, 1, 6), (vec![4001, 4002], 0, false));
        assert_eq!(expire(&mut streams, 1000), (vec![], 0, None));
    }

    #[test]
    fn what_nobody_wants_any_more_is_forgotten() {
        let mut streams = streams(ClusterConfig::default());
        take(&mut streams, 1, 1, 0);
        take(&mut streams, 1, 3, 0);
        streams.forget_topic("other");
        assert_eq!(streams.held_len(), 8);
        streams.forget(|topic| topic == "t");
        assert_eq!((expire(&mut streams, 1000), streams.held_len()), ((vec![], 0, None), 0));
        assert_eq!(take(&mut streams, 1, 9, 0), (vec![1009], 0, false));
    }

    proptest! {
        /// From the first that comes on: all of it once and in order, or counted as missed.
        #[test]
        fn once_in_order_or_missed(
            arrivals in prop::collection::vec((1..40_u64, 0..60_u64), 1..120),
            max_held_len in prop::sample::select(vec![0, 40, 10_000]),
        ) {
            let config = ClusterConfig::default()
                .with_reorder_window(WINDOW)
                .with_max_held_len(max_held_len);
            let mut streams = streams(config);
            let (mut heard, mut missed, mut stale, mut now) = (Vec::new(), 0, 0, 0);
            for (number, pause) in &arrivals {
                now += pause;
                let (letters, lost, next) = expire(&mut streams, now);
                heard.extend(letters);
                missed += lost;
                prop_assert!(next.is_none_or(|next| next > ms(now) && next <= ms(now) + WINDOW));
                let (letters, lost, is_stale) = take(&mut streams, 0, *number, now);
                heard.extend(letters);
                missed += lost;
                stale += usize::from(is_stale);
                prop_assert!(streams.held_len() <= max_held_len);
            }
            let (letters, lost, next) = expire(&mut streams, now + 1000);
            heard.extend(letters);
            missed += lost;
            prop_assert_eq!((next, streams.held_len()), (None, 0));
            prop_assert!(heard.is_sorted_by(|a, b| a < b), "{:?}", heard);
            let span = heard.last().unwrap() - heard[0] + 1;
            prop_assert_eq!(heard.len() as u64 + missed, span);
            prop_assert_eq!(heard.len() + stale, arrivals.len());
        }
    }
}
