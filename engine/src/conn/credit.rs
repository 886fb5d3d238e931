//! What a [`Sender`](crate::Sender) has given for a connection and the worker has not taken yet: messages, up to so
//! many bytes.
//!
//! Messages wait here rather than in the worker's mailbox, so that the worker takes them as the peer takes its output.
//! Room comes back as they are taken, whoever takes them, and is their sum: it cannot leak.

#![expect(
    clippy::disallowed_types,
    reason = "threads of the application share it with a worker, which locks it for connections that have a sender"
)]

use std::collections::VecDeque;
use std::io::ErrorKind;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::Duration;

use ringwire_codec::Message;

use crate::conn::cause::{CloseCause, CloseReason};

/// What a message takes beside its payload, so that empty ones are bounded as well.
const MESSAGE_OVERHEAD: usize = 64;

/// A message that waits for its worker.
#[derive(Debug)]
pub(crate) struct Parcel {
    is_text: bool,
    payload: Vec<u8>,
}

/// Why a message was not taken.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// There is no room for it.
    Full,
    /// The connection has ended.
    Closed(CloseCause),
}

/// The messages of one sender, and the room for them. See the [module's documentation](self).
#[derive(Debug)]
pub(crate) struct Credit {
    capacity: usize,
    state: Mutex<State>,
    /// There is room again, or the connection has ended.
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    parcels: VecDeque<Parcel>,
    /// The cost of all parcels.
    used: usize,
    /// The worker knows that there are parcels, or will know.
    is_announced: bool,
    /// Nobody can give any more.
    is_abandoned: bool,
    /// The connection closes: what is here is on its way, and nothing more is taken.
    is_ending: bool,
    closed: Option<CloseCause>,
    /// Threads that wait.
    blocked: usize,
    /// Tasks that wait.
    wakers: Vec<Waker>,
}

/// What is left after a worker has taken some.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Left {
    /// Parcels, for which there was no room.
    Some,
    /// Nothing for now.
    Nothing,
    /// Nothing, and nothing will come.
    Gone,
}

/// The worker's end of a [`Credit`]. Without it whoever waits is told that the connection has ended.
#[derive(Debug)]
pub(crate) struct Lane(Arc<Credit>);

/// All lanes of a connection.
#[derive(Debug, Default)]
pub(crate) struct Lanes {
    lanes: Vec<Lane>,
    /// Which comes first the next time.
    first: usize,
    /// Parcels wait for room in the connection's queue.
    has_waiting: bool,
}

impl Parcel {
    pub(crate) fn len(&self) -> usize {
        self.payload.len()
    }

    pub(crate) fn message(&self) -> Message<'_> {
        match std::str::from_utf8(&self.payload) {
            Ok(text) if self.is_text => Message::Text(text),
            _ => Message::Binary(&self.payload),
        }
    }

    fn cost(&self) -> usize {
        cost(self.payload.len())
    }
}

fn cost(len: usize) -> usize {
    len.saturating_add(MESSAGE_OVERHEAD)
}

impl Credit {
    /// Room for `capacity` bytes, and the worker's end.
    pub(crate) fn new(capacity: usize) -> (Arc<Self>, Lane) {
        let state = Mutex::default();
        let credit = Arc::new(Self { capacity: capacity.max(1), state, changed: Condvar::new() });
        let lane = Lane(Arc::clone(&credit));
        (credit, lane)
    }

    pub(crate) fn capacity(&self) -> usize {
        self.capacity
    }

    /// How the connection ended, if it has.
    pub(crate) fn closed(&self) -> Option<CloseCause> {
        self.lock().closed.clone()
    }

    /// Gives a message; whether the worker has to be told.
    ///
    /// # Errors
    /// There is no room, or the connection has ended.
    pub(crate) fn give(&self, message: Message<'_>) -> Result<bool, Refusal> {
        self.give_to(&mut self.lock(), message)
    }

    /// Gives a message once there is room.
    ///
    /// # Errors
    /// The connection has ended, or there was no room in time.
    pub(crate) fn give_within(
        &self,
        message: Message<'_>,
        timeout: Option<Duration>,
    ) -> Result<bool, Refusal> {
        let len = message.len();
        let mut state = self.lock();
        state.blocked += 1;
        let waits = |state: &mut State| state.closed.is_none() && !self.has_room(state, len);
        let mut state = match timeout {
            None => self.changed.wait_while(state, waits).unwrap_or_else(PoisonError::into_inner),
            Some(timeout) => {
                let waited = self.changed.wait_timeout_while(state, timeout, waits);
                waited.unwrap_or_else(PoisonError::into_inner).0
            }
        };
        state.blocked -= 1;
        self.give_to(&mut state, message)
    }

    /// Gives a message, or has `waker` woken when that may be possible.
    ///
    /// # Errors
    /// As those of [`give`](Self::give).
    pub(crate) fn give_or_wake(
        &self,
        message: Message<'_>,
        waker: &Waker,
    ) -> Result<bool, Refusal> {
        let mut state = self.lock();
        let given = self.give_to(&mut state, message);
        if given == Err(Refusal::Full) && !state.wakers.iter().any(|each| each.will_wake(waker)) {
            state.wakers.push(waker.clone());
        }
        given
    }

    /// The last one that could give has gone; whether the worker has to be told.
    pub(crate) fn abandon(&self) -> bool {
        let mut state = self.lock();
        state.is_abandoned = true;
        !std::mem::replace(&mut state.is_announced, true) && state.closed.is_none()
    }

    fn has_room(&self, state: &State, len: usize) -> bool {
        // One that is longer than all of the room goes alone.
        !state.is_ending && (state.used == 0 || state.used + cost(len) <= self.capacity)
    }

    fn give_to(&self, state: &mut State, message: Message<'_>) -> Result<bool, Refusal> {
        if let Some(cause) = &state.closed {
            return Err(Refusal::Closed(cause.clone()));
        }
        if !self.has_room(state, message.len()) {
            return Err(Refusal::Full);
        }
        let parcel = Parcel { is_text: message.is_text(), payload: message.as_bytes().to_vec() };
        state.used += parcel.cost();
        state.parcels.push_back(parcel);
        Ok(!std::mem::replace(&mut state.is_announced, true))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes all who wait: some of them may go on. A task may be run by its wake-up, so nothing is locked then; what it
    /// does wrong is no business of the worker.
    fn wake(&self, mut state: MutexGuard<'_, State>) {
        if state.blocked > 0 {
            self.changed.notify_all();
        }
        let wakers = std::mem::take(&mut state.wakers);
        drop(state);
        for waker in wakers {
            let _ = catch_unwind(AssertUnwindSafe(|| waker.wake()));
        }
    }

    #[cfg(test)]
    pub(crate) fn used_len(&self) -> usize {
        let state = self.lock();
        assert_eq!(state.used, state.parcels.iter().map(Parcel::cost).sum::<usize>());
        state.used
    }
}

impl State {
    fn take(&mut self) -> Option<Parcel> {
        let parcel = self.parcels.pop_front()?;
        self.used -= parcel.cost();
        Some(parcel)
    }
}

impl Lane {
    /// Takes parcels as long as `fits` says so of their length.
    fn take(&self, mut fits: impl FnMut(usize) -> bool, into: &mut Vec<Parcel>) -> Left {
        let mut state = self.0.lock();
        let before = state.parcels.len();
        while state.parcels.front().is_some_and(|parcel| fits(parcel.len())) {
            into.extend(state.take());
        }
        let left = match (state.parcels.is_empty(), state.is_abandoned) {
            (false, _) => Left::Some,
            (true, true) => Left::Gone,
            (true, false) => Left::Nothing,
        };
        state.is_announced = left != Left::Nothing;
        if state.parcels.len() < before {
            self.0.wake(state);
        }
        left
    }

    /// Takes all that there is. From now on there is no room.
    fn take_last(&self) -> VecDeque<Parcel> {
        let mut state = self.0.lock();
        state.is_ending = true;
        state.used = 0;
        std::mem::take(&mut state.parcels)
    }

    fn close(&self, cause: &CloseCause) {
        let mut state = self.0.lock();
        if state.closed.is_none() {
            state.closed = Some(cause.clone());
            self.0.wake(state);
        }
    }

    /// For a connection that is not open.
    pub(crate) fn refuse(self) {
        let mut cause = CloseCause::new(CloseReason::Transport(ErrorKind::NotConnected));
        cause.text.push_str("the connection was not open");
        cause.lost_messages = self.take_last().len();
        self.close(&cause);
    }
}

impl Drop for Lane {
    /// The connection has ended without a word, as its worker has.
    fn drop(&mut self) {
        let mut cause = CloseCause::new(CloseReason::Shutdown);
        cause.lost_messages = self.take_last().len();
        self.close(&cause);
    }
}

impl Lanes {
    pub(crate) fn add(&mut self, lane: Lane) {
        self.lanes.push(lane);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.lanes.is_empty()
    }

    /// Whether parcels wait for room.
    pub(crate) fn has_waiting(&self) -> bool {
        self.has_waiting
    }

    /// Takes parcels of all lanes, another one first each time, as long as `fits` says so of their length.
    pub(crate) fn take(&mut self, mut fits: impl FnMut(usize) -> bool) -> Vec<Parcel> {
        let mut parcels = Vec::new();
        self.has_waiting = false;
        let count = self.lanes.len();
        self.first = (self.first + 1) % count.max(1);
        let first = self.first;
        let mut gone = Vec::new();
        for index in (first..count).chain(0..first) {
            match self.lanes[index].take(&mut fits, &mut parcels) {
                Left::Some => self.has_waiting = true,
                Left::Nothing => {}
                Left::Gone => gone.push(index),
            }
        }
        gone.sort_unstable();
        for index in gone.into_iter().rev() {
            self.lanes.swap_remove(index);
        }
        parcels
    }

    /// Takes all that there is. From now on there is no room.
    pub(crate) fn take_last(&mut self) -> impl Iterator<Item = Parcel> {
        self.has_waiting = false;
        self.lanes.iter().flat_map(Lane::take_last)
    }

    /// Tells everybody how the connection has ended.
    pub(crate) fn close(&self, cause: &CloseCause) {
        self.lanes.iter().for_each(|lane| lane.close(cause));
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    fn all(lane: &Lane) -> (Vec<usize>, Left) {
        let mut parcels = Vec::new();
        let left = lane.take(|_| true, &mut parcels);
        (parcels.iter().map(Parcel::len).collect(), left)
    }

    #[test]
    fn room_is_what_is_not_used() {
        let (credit, lane) = Credit::new(1000);
        assert_eq!(credit.give(Message::Binary(&[0; 400])), Ok(true));
        assert_eq!(credit.give(Message::Binary(&[0; 400])), Ok(false), "the worker knows");
        assert_eq!(credit.give(Message::Binary(&[0; 9])), Err(Refusal::Full));
        assert_eq!(credit.give(Message::Binary(&[0; 8])), Ok(false));
        assert_eq!(credit.used_len(), 1000);
        assert_eq!(all(&lane), (vec![400, 400, 8], Left::Nothing));
        assert_eq!(credit.used_len(), 0);
        assert_eq!(credit.give(Message::Binary(&[0; 5000])), Ok(true), "a long one goes alone");
        assert_eq!(credit.give(Message::Text("")), Err(Refusal::Full));
        assert_eq!(all(&lane), (vec![5000], Left::Nothing));
        assert!(credit.abandon());
        assert_eq!(all(&lane), (vec![], Left::Gone));
    }

    #[test]
    fn what_does_not_fit_stays_announced() {
        let (credit, lane) = Credit::new(1000);
        assert_eq!(credit.give(Message::Text("one")), Ok(true));
        let mut parcels = Vec::new();
        assert_eq!(lane.take(|_| false, &mut parcels), Left::Some);
        assert_eq!(credit.give(Message::Text("two")), Ok(false));
        assert!(!credit.abandon(), "the worker knows");
        assert_eq!(all(&lane), (vec![3, 3], Left::Gone));
    }

    #[test]
    fn lanes_take_turns() {
        let (one, first) = Credit::new(1000);
        let (two, second) = Credit::new(1000);
        let mut lanes = Lanes::default();
        lanes.add(first);
        lanes.add(second);
        for text in ["1a", "1b", "1c"] {
            one.give(Message::Text(text)).unwrap();
            two.give(Message::Text(&text.replace('1', "2"))).unwrap();
        }
        let mut taken = String::new();
        while taken.len() < 12 {
            let mut left = 2;
            let parcels = lanes.take(|len| {
                let fits = len <= left;
                left -= if fits { len } else { 0 };
                fits
            });
            for parcel in parcels {
                taken.push_str(std::str::from_utf8(parcel.message().as_bytes()).unwrap());
            }
            assert_eq!(lanes.has_waiting(), taken.len() < 12);
        }
        assert_eq!(taken, "2a1a2b1b2c1c");
        two.abandon();
        assert!(lanes.take(|_| true).is_empty());
        assert_eq!(lanes.lanes.len(), 1);
        one.abandon();
        lanes.take(|_| true);
        assert!(lanes.is_empty());
    }

    #[test]
    fn the_end_releases_who_waits() {
        let (credit, lane) = Credit::new(100);
        credit.give(Message::Binary(&[0; 90])).unwrap();
        let blocked = Arc::clone(&credit);
        let thread = thread::spawn(move || blocked.give_within(Message::Text("more"), None));
        let mut lanes = Lanes::default();
        lanes.add(lane);
        assert_eq!(lanes.take_last().count(), 1);
        assert_eq!(credit.give(Message::Text("late")), Err(Refusal::Full), "it is ending");
        let timeout = Some(Duration::from_millis(1));
        assert_eq!(credit.give_within(Message::Text(""), timeout), Err(Refusal::Full));
        let mut cause = CloseCause::new(CloseReason::Peer);
        cause.lost_messages = 1;
        lanes.close(&cause);
        assert_eq!(thread.join().unwrap(), Err(Refusal::Closed(cause.clone())));
        drop(lanes);
        assert_eq!(credit.closed(), Some(cause), "the first cause stands");
        let (credit, lane) = Credit::new(100);
        credit.give(Message::Text("lost")).unwrap();
        drop(lane);
        let cause = credit.closed().unwrap();
        assert_eq!((cause.reason, cause.lost_messages), (CloseReason::Shutdown, 1));
    }

    #[test]
    fn tasks_are_woken_as_there_is_room() {
        use std::sync::atomic::{AtomicUsize, Ordering};
        use std::task::Wake;

        #[derive(Default)]
        struct Count(AtomicUsize);
        impl Wake for Count {
            fn wake(self: Arc<Self>) {
                self.0.fetch_add(1, Ordering::Relaxed);
            }
        }

        let count = Arc::<Count>::default();
        let waker = Waker::from(Arc::clone(&count));
        let (credit, lane) = Credit::new(100);
        assert_eq!(credit.give_or_wake(Message::Binary(&[0; 30]), &waker), Ok(true));
        for _ in 0..3 {
            let refused = credit.give_or_wake(Message::Binary(&[0; 30]), &waker);
            assert_eq!(refused, Err(Refusal::Full));
        }
        assert_eq!(all(&lane).0, [30]);
        assert_eq!(count.0.load(Ordering::Relaxed), 1, "once, and not for what was taken at once");
    }
}
