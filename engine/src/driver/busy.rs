//! Looking for what comes instead of sleeping until it does: by the worker itself, and by the kernel for a driver that
//! sleeps (NAPI, napi(7) of the kernel's documentation).

#![expect(unsafe_code, reason = "an ioctl of epoll has no safe wrapper")]
#![expect(
    clippy::disallowed_methods,
    reason = "a worker that looks for what comes sees how long it does"
)]

use std::os::fd::RawFd;
use std::time::{Duration, Instant};
use std::{hint, io};

use io_uring::IoUring;
use io_uring::types::Napi;

/// What the kernel polls at once for an epoll set: as much as it may without CAP_NET_ADMIN (NAPI_POLL_WEIGHT).
const BUDGET: u16 = 64;

/// How a driver waits. The default is to sleep.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct BusyPoll {
    /// How long the worker looks for completions before it sleeps.
    pub(crate) worker: Option<Duration>,
    /// How long the kernel polls the queues of the network card before it sleeps on the worker's behalf.
    pub(crate) napi: Option<Duration>,
    /// The card's interrupts stay off as long as it is polled.
    pub(crate) prefers_napi: bool,
}

impl BusyPoll {
    /// Has `look` wait for something, and says whether there was. It is given the time that it may sleep (`None`: any),
    /// and asked again and again not to, before that.
    #[inline]
    pub(super) fn wait(
        self,
        timeout: Option<Duration>,
        mut look: impl FnMut(Option<Duration>) -> io::Result<bool>,
    ) -> io::Result<()> {
        match self.worker {
            Some(time) if timeout != Some(Duration::ZERO) => look_for(time, timeout, look),
            _ => look(timeout).map(|_| ()),
        }
    }

    /// Has the kernel poll for an epoll set (EPIOCSPARAMS, ioctl_eventpoll(2)).
    pub(super) fn poll_for_epoll(self, epoll: RawFd) -> io::Result<()> {
        let Some(time) = self.napi else { return Ok(()) };
        let params = libc::epoll_params {
            busy_poll_usecs: micros(time),
            busy_poll_budget: BUDGET,
            prefer_busy_poll: self.prefers_napi.into(),
            __pad: 0,
        };
        // SAFETY: the kernel reads the one struct that it is given, which is on this stack.
        let result = unsafe { libc::ioctl(epoll, libc::EPIOCSPARAMS, &raw const params) };
        if result == 0 { Ok(()) } else { Err(explain(&io::Error::last_os_error())) }
    }

    /// Has the kernel poll for a ring (io_uring_register_napi(3)).
    pub(super) fn poll_for_ring(self, ring: &IoUring) -> io::Result<()> {
        let Some(time) = self.napi else { return Ok(()) };
        let mut napi =
            Napi::new().set_busy_poll_timeout(micros(time)).set_prefer_busy_poll(self.prefers_napi);
        ring.submitter().register_napi(&mut napi).map_err(|error| explain(&error))
    }
}

/// Looks for `time`, or for the timeout if that is shorter, and sleeps for what is left of that.
fn look_for(
    time: Duration,
    timeout: Option<Duration>,
    mut look: impl FnMut(Option<Duration>) -> io::Result<bool>,
) -> io::Result<()> {
    // The clock is not read where something is there already.
    if look(Some(Duration::ZERO))? {
        return Ok(());
    }
    let time = timeout.map_or(time, |timeout| timeout.min(time));
    let begin = Instant::now();
    loop {
        hint::spin_loop();
        if look(Some(Duration::ZERO))? {
            return Ok(());
        }
        let spent = begin.elapsed();
        if spent >= time {
            return match timeout.map(|timeout| timeout.saturating_sub(spent)) {
                Some(Duration::ZERO) => Ok(()),
                left => look(left).map(|_| ()),
            };
        }
    }
}

/// In microseconds, as the kernel takes it.
fn micros(time: Duration) -> u32 {
    u32::try_from(time.as_micros()).unwrap_or(u32::MAX).clamp(1, i32::MAX.unsigned_abs())
}

fn explain(error: &io::Error) -> io::Error {
    let text = format!(
        "{error}: napi_busy_poll needs Linux 6.9 with CONFIG_NET_RX_BUSY_POLL; busy_poll does without"
    );
    io::Error::new(error.kind(), text)
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd as _;

    use super::*;

    const TIME: Duration = Duration::from_micros(300);

    /// What `wait` asks for, where something comes with the look of that number.
    fn looks(
        busy: BusyPoll,
        timeout: Option<Duration>,
        comes: usize,
    ) -> (Vec<Option<Duration>>, Duration) {
        let (mut looks, begin) = (Vec::new(), Instant::now());
        busy.wait(timeout, |timeout| {
            looks.push(timeout);
            Ok(looks.len() == comes)
        })
        .unwrap();
        (looks, begin.elapsed())
    }

    #[test]
    fn it_looks_before_it_sleeps() {
        // Longer than a busy machine may take this thread away between two looks.
        let time = TIME * 100;
        let busy = BusyPoll { worker: Some(time), ..BusyPoll::default() };
        for timeout in [None, Some(Duration::from_secs(9))] {
            let (all, spent) = looks(busy, timeout, usize::MAX);
            let (last, first) = all.split_last().unwrap();
            assert!(first.len() >= 2 && first.iter().all(|look| *look == Some(Duration::ZERO)));
            assert!(spent >= time, "{spent:?}");
            assert_eq!(last.is_none(), timeout.is_none());
            // What it has looked for is no longer slept for.
            assert!(last.is_none_or(|left| Some(left + time) <= timeout), "{last:?}");
        }
    }

    #[test]
    fn it_stops_looking_once_there_is_something() {
        let busy = BusyPoll { worker: Some(Duration::MAX), ..BusyPoll::default() };
        for comes in [1, 2, 50] {
            let (all, _) = looks(busy, None, comes);
            assert_eq!(all, vec![Some(Duration::ZERO); comes]);
        }
    }

    #[test]
    fn it_looks_no_longer_than_it_may_wait() {
        let busy = BusyPoll { worker: Some(Duration::MAX), ..BusyPoll::default() };
        let (all, spent) = looks(busy, Some(TIME), usize::MAX);
        assert!(all.iter().all(|look| *look == Some(Duration::ZERO)), "it did not sleep");
        assert!(spent >= TIME);
        assert_eq!(looks(busy, Some(Duration::ZERO), usize::MAX).0.len(), 1);
    }

    #[test]
    fn unasked_it_sleeps_at_once() {
        let (all, _) = looks(BusyPoll::default(), None, usize::MAX);
        assert_eq!(all, [None]);
    }

    #[test]
    fn the_kernel_takes_what_is_set() {
        let busy = BusyPoll { napi: Some(TIME), prefers_napi: true, ..BusyPoll::default() };
        let poll = mio::Poll::new().unwrap();
        busy.poll_for_epoll(poll.as_raw_fd()).unwrap();
        let mut params = libc::epoll_params {
            busy_poll_usecs: 0,
            busy_poll_budget: 0,
            prefer_busy_poll: 0,
            __pad: 0,
        };
        // SAFETY: the kernel writes to the one struct that it is given, which is on this stack.
        let result = unsafe { libc::ioctl(poll.as_raw_fd(), libc::EPIOCGPARAMS, &raw mut params) };
        assert_eq!((result, params.busy_poll_usecs, params.prefer_busy_poll), (0, 300, 1));

        let ring = IoUring::new(8).unwrap();
        busy.poll_for_ring(&ring).unwrap();
        let mut napi = Napi::new();
        // Which says what was set.
        ring.submitter().unregister_napi(&mut napi).unwrap();
        assert_eq!((napi.busy_poll_timeout(), napi.prefer_busy_poll()), (300, true));

        BusyPoll::default().poll_for_ring(&ring).unwrap();
        ring.submitter().unregister_napi(&mut napi).unwrap();
        assert_eq!(napi.busy_poll_timeout(), 0, "unasked, nothing is set");
    }

    #[test]
    fn a_time_is_in_the_range_of_the_kernel() {
        for (time, expected) in [
            (Duration::from_nanos(1), 1),
            (Duration::from_micros(50), 50),
            (Duration::MAX, i32::MAX.unsigned_abs()),
        ] {
            assert_eq!(micros(time), expected);
        }
    }
}
