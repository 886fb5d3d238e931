//! Topics of whose history the bus is asked, since this node has too little of it.

#![expect(
    clippy::disallowed_types,
    reason = "connections of all workers wait for what the bus's thread brings"
)]

use std::collections::{HashMap, VecDeque};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

/// See the [module's documentation](self).
#[derive(Debug, Default)]
pub(crate) struct Loads(Mutex<Asked>);

#[derive(Debug, Default)]
struct Asked {
    by_topic: HashMap<Arc<str>, Gate>,
    /// What the bus has yet to be told.
    queue: VecDeque<Arc<str>>,
}

/// Where those wait who asked for one topic.
type Gate = Arc<Mutex<Waiting>>;

#[derive(Debug, Default)]
struct Waiting {
    is_over: bool,
    wakers: Vec<Waker>,
}

/// Waits until the bus has brought what it has, or given up.
#[derive(Debug)]
pub(crate) struct Loading {
    gate: Gate,
    /// Which of the wakers is this one's.
    place: Option<usize>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Loads {
    /// Asks for a topic, once for all who ask before it has come.
    pub(super) fn ask(&self, topic: &str) -> Loading {
        let mut asked = lock(&self.0);
        let gate = asked.by_topic.get(topic).map(Arc::clone).unwrap_or_else(|| {
            let topic = Arc::<str>::from(topic);
            let gate = Gate::default();
            asked.by_topic.insert(Arc::clone(&topic), Arc::clone(&gate));
            asked.queue.push_back(topic);
            gate
        });
        Loading { gate, place: None }
    }

    /// What the bus is to bring next.
    pub(crate) fn take(&self) -> Option<Arc<str>> {
        lock(&self.0).queue.pop_front()
    }

    /// The bus has brought a topic, or can't.
    pub(crate) fn end(&self, topic: &str) {
        let gate = lock(&self.0).by_topic.remove(topic);
        gate.iter().for_each(open);
    }

    /// The bus brings nothing more.
    pub(crate) fn end_all(&self) {
        let asked = std::mem::take(&mut *lock(&self.0));
        asked.by_topic.values().for_each(open);
    }
}

fn open(gate: &Gate) {
    let mut waiting = lock(gate);
    waiting.is_over = true;
    let wakers = std::mem::take(&mut waiting.wakers);
    drop(waiting);
    wakers.into_iter().for_each(Waker::wake);
}

impl Future for Loading {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let mut place = self.place;
        let mut waiting = lock(&self.gate);
        if waiting.is_over {
            return Poll::Ready(());
        }
        match place.and_then(|place| waiting.wakers.get_mut(place)) {
            Some(before) => before.clone_from(cx.waker()),
            None => {
                place = Some(waiting.wakers.len());
                waiting.wakers.push(cx.waker().clone());
            }
        }
        drop(waiting);
        self.place = place;
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use std::task::Wake;

    use super::*;

    struct Nothing;

    impl Wake for Nothing {
        fn wake(self: Arc<Self>) {}
    }

    #[test]
    fn a_topic_is_asked_for_once_until_it_has_come() {
        let loads = Loads::default();
        let waker = Arc::new(Nothing).into();
        let mut cx = Context::from_waker(&waker);
        let mut poll = |loading: &mut Loading| Pin::new(loading).poll(&mut cx).is_ready();
        let (mut one, mut two) = (loads.ask("a"), loads.ask("a"));
        let mut other = loads.ask("b");
        assert_eq!(loads.take().as_deref(), Some("a"));
        assert_eq!(loads.take().as_deref(), Some("b"));
        assert_eq!(loads.take(), None);
        assert!(!poll(&mut one) && !poll(&mut one) && !poll(&mut two) && !poll(&mut other));
        assert_eq!(lock(&one.gate).wakers.len(), 2);
        loads.end("a");
        assert!(poll(&mut one) && poll(&mut two) && !poll(&mut other));
        let mut again = loads.ask("a");
        assert_eq!(loads.take().as_deref(), Some("a"));
        loads.end_all();
        assert!(poll(&mut again) && poll(&mut other));
    }
}
