//! Who waits for the transport.
//!
//! A transport wakes whoever polled a direction of it last. But the two halves of a connection may both wait for the
//! same one: the receiving half has a pong to write while the sending half waits for room, or the sending half waits
//! for the peer's close frame. Then the transport is given a waker that wakes both.

use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};

/// The two that may poll a connection at the same time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Receiver,
    Sender,
}

/// What is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Direction {
    Read = 1,
    Write = 2,
    Timer = 4,
}

#[derive(Debug, Default)]
struct Waiter {
    waker: Option<Waker>,
    directions: u8,
}

/// What each side waits for, as far as is known: a future that was dropped does not say so, and costs a needless wake.
#[derive(Debug, Default)]
pub(crate) struct Waiting {
    receiver: Waiter,
    sender: Waiter,
}

impl Waiting {
    const fn waiter(&mut self, side: Side) -> &mut Waiter {
        match side {
            Side::Receiver => &mut self.receiver,
            Side::Sender => &mut self.sender,
        }
    }

    const fn other(&mut self, side: Side) -> &mut Waiter {
        match side {
            Side::Receiver => &mut self.sender,
            Side::Sender => &mut self.receiver,
        }
    }

    /// This side begins to poll.
    pub(crate) const fn begin(&mut self, side: Side) {
        self.waiter(side).directions = 0;
    }

    /// The state of the connection has changed, so that the other side has to look again.
    pub(crate) fn wake_other(&mut self, side: Side) {
        let other = self.other(side);
        if std::mem::take(&mut other.directions) != 0
            && let Some(waker) = &other.waker
        {
            waker.wake_by_ref();
        }
    }

    /// Polls the transport for a side.
    pub(crate) fn poll<T>(
        &mut self,
        side: Side,
        direction: Direction,
        cx: &mut Context<'_>,
        mut poll: impl FnMut(&mut Context<'_>) -> Poll<T>,
    ) -> Poll<T> {
        if let Poll::Ready(ready) = poll(cx) {
            return Poll::Ready(ready);
        }
        let waiter = self.waiter(side);
        waiter.directions |= direction as u8;
        match &mut waiter.waker {
            Some(waker) if waker.will_wake(cx.waker()) => {}
            waker => *waker = Some(cx.waker().clone()),
        }
        let other = self.other(side);
        match &other.waker {
            Some(waker)
                if other.directions & direction as u8 != 0 && !waker.will_wake(cx.waker()) =>
            {
                let waker = waker.clone();
                let both = Waker::from(Arc::new(Both(cx.waker().clone(), waker.clone())));
                let polled = poll(&mut Context::from_waker(&both));
                if polled.is_ready() {
                    // What it waits for came between the two, when its waker was not known any more.
                    waker.wake();
                }
                polled
            }
            _ => Poll::Pending,
        }
    }
}

struct Both(Waker, Waker);

impl Wake for Both {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.0.wake_by_ref();
        self.1.wake_by_ref();
    }
}
