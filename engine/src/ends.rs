//! One line in the log for each connection that ends other than it should, and no more than a log can take.
//!
//! A worker writes so many lines a second for each reason. What is more is counted, and a line says how many that were once
//! the second is over.

use std::net::SocketAddr;

use crate::conn::ConnId;
use crate::driver::Traffic;
use crate::error::{CloseCause, CloseReason};
use crate::timer::{TICKS_PER_SECOND, Tick};

/// Lines of one reason in a second.
const LINES_PER_SECOND: u32 = 10;

/// What there was of each reason in the second that runs.
#[derive(Debug, Default)]
pub(crate) struct Ends {
    windows: [Window; CloseReason::NAMES.len()],
    /// When the second ends in which lines were left out.
    due: Option<Tick>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Window {
    /// In seconds since the worker started.
    second: Tick,
    lines: u32,
    left_out: u32,
}

/// What is known of a connection at its end.
#[derive(Debug)]
pub(crate) struct End<'a> {
    pub(crate) conn: ConnId,
    pub(crate) peer: SocketAddr,
    pub(crate) route: Option<&'a str>,
    /// From the request to the end, in ticks.
    pub(crate) lasted: Tick,
    /// `None` where the kernel does not count: Unix sockets.
    pub(crate) traffic: Option<Traffic>,
}

impl Ends {
    /// Whether anybody reads such lines.
    #[inline]
    pub(crate) fn are_read() -> bool {
        crate::event::enabled!(tracing::Level::INFO)
    }

    /// Whether there is room for another line about this reason; if there is not, it is counted.
    pub(crate) fn admit(&mut self, reason: CloseReason, now: Tick) -> bool {
        let second = now / TICKS_PER_SECOND;
        let window = &mut self.windows[reason.index()];
        if window.second != second {
            window.sum_up(reason.name());
            *window = Window { second, ..Window::default() };
        }
        if window.lines < LINES_PER_SECOND {
            window.lines += 1;
            return true;
        }
        window.left_out += 1;
        self.due = Some((second + 1) * TICKS_PER_SECOND);
        false
    }

    /// When there is something to be summed up.
    #[inline]
    pub(crate) fn next_tick(&self) -> Option<Tick> {
        self.due
    }

    /// Says how many lines were left out, once the second is over.
    #[inline]
    pub(crate) fn sum_up_if_due(&mut self, now: Tick) {
        if self.due.is_some_and(|due| now >= due) {
            self.sum_up();
        }
    }

    /// The same now, at the end of a worker.
    #[cold]
    pub(crate) fn sum_up(&mut self) {
        self.due = None;
        for (window, name) in self.windows.iter_mut().zip(CloseReason::NAMES) {
            window.sum_up(name);
        }
    }
}

impl Window {
    fn sum_up(&mut self, reason: &'static str) {
        let left_out = std::mem::take(&mut self.left_out);
        if left_out > 0 {
            crate::event::info!(reason, left_out, "more connections ended like this");
        }
    }
}

impl End<'_> {
    /// The line.
    pub(crate) fn log(&self, cause: &CloseCause) {
        let Self { conn, peer, route, lasted, traffic } = self;
        let (seconds, tenths) = (lasted / TICKS_PER_SECOND, lasted % TICKS_PER_SECOND);
        crate::event::info!(
            %conn,
            %peer,
            route,
            reason = %cause.reason,
            code = cause.code.map(|code| code.get()),
            // A peer may have written it.
            text = (!cause.text.is_empty()).then(|| tracing::field::debug(&cause.text)),
            lasted = %format_args!("{seconds}.{tenths}s"),
            received = traffic.map(|traffic| traffic.received),
            sent = traffic.map(|traffic| traffic.sent),
            unsent = cause.unsent_len,
            "connection ended"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_has_so_many_lines_a_second() {
        let mut ends = Ends::default();
        let lines =
            |ends: &mut Ends, reason, now| (0..50).filter(|_| ends.admit(reason, now)).count();
        assert_eq!(lines(&mut ends, CloseReason::EndOfStream, 31), 10);
        assert_eq!(lines(&mut ends, CloseReason::WriteStall, 32), 10);
        assert_eq!(lines(&mut ends, CloseReason::EndOfStream, 39), 0);
        assert_eq!(ends.next_tick(), Some(40));
        let left_out = |ends: &Ends| ends.windows.map(|window| window.left_out).iter().sum::<u32>();
        assert_eq!(left_out(&ends), 130);
        ends.sum_up_if_due(39);
        assert_eq!(left_out(&ends), 130);
        ends.sum_up_if_due(40);
        assert_eq!((left_out(&ends), ends.next_tick()), (0, None));
        assert_eq!(lines(&mut ends, CloseReason::EndOfStream, 40), 10);
        // A second that nobody has summed up.
        assert_eq!(lines(&mut ends, CloseReason::EndOfStream, 75), 10);
        assert_eq!(left_out(&ends), 40);
    }
}
