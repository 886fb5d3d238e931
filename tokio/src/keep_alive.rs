//! Pings for peers from which nothing comes.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep};

use crate::KeepAliveConfig;

/// Thirty years.
const FAR: Duration = Duration::from_secs(30 * 365 * 24 * 60 * 60);

#[derive(Debug)]
pub(crate) struct KeepAlive {
    settings: KeepAliveConfig,
    timer: Pin<Box<Sleep>>,
    /// Something has come since the timer was set.
    heard: bool,
    /// A ping is out.
    asked: bool,
}

/// What a peer's silence calls for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Due {
    Ping,
    End,
}

impl KeepAlive {
    pub(crate) fn new(settings: KeepAliveConfig) -> Self {
        Self { settings, timer: Box::pin(sleep(settings.interval)), heard: false, asked: false }
    }

    /// Something has come from the peer.
    pub(crate) const fn heard(&mut self) {
        self.heard = true;
    }

    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Due> {
        loop {
            ready!(self.timer.as_mut().poll(cx));
            let was_asked = std::mem::take(&mut self.asked);
            if std::mem::take(&mut self.heard) {
                self.set(self.settings.interval);
            } else if was_asked {
                return Poll::Ready(Due::End);
            } else {
                self.asked = true;
                self.set(self.settings.pong_timeout);
                return Poll::Ready(Due::Ping);
            }
        }
    }

    fn set(&mut self, after: Duration) {
        // A moment that there is, if it is far away.
        let now = Instant::now();
        self.timer.as_mut().reset(now.checked_add(after).unwrap_or_else(|| now + FAR));
    }
}
