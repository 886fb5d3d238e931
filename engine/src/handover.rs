//! The listening sockets of a server that may outlive it: kept for a successor, and against its death.
//!
//! A drain that counts on a successor is *guarded*: the server keeps its sockets until it ends, all workers end together, and
//! should the successor die before, they accept again. Any other drain gives the sockets up at once.

#![expect(
    clippy::disallowed_types,
    reason = "handles of all threads ask for the sockets, on no message's path"
)]

use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::takeover::Line;

/// See the [module's documentation](self).
#[derive(Debug, Default)]
pub(crate) struct Handover {
    state: Mutex<State>,
    /// All of the sockets were made by somebody else, who goes on with them.
    borrowed: bool,
    /// A successor has them.
    passed_on: AtomicBool,
}

#[derive(Debug, Default)]
struct State {
    /// One descriptor of each socket. None once they are given up: held any longer, they would keep the kernel from refusing
    /// connections that nobody accepts.
    sockets: Option<Vec<OwnedFd>>,
    stage: Stage,
    /// A predecessor comes back if this process dies.
    line: Option<Line>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stage {
    #[default]
    Serving,
    /// A guarded drain, and how many workers still have something to do.
    Guarded { left: usize },
    /// The successor came to nothing: workers that drain will be told to go on.
    Resumed,
    /// The sockets are given up.
    Over,
}

impl Handover {
    pub(crate) fn new(sockets: Vec<OwnedFd>, borrowed: bool) -> Self {
        let state = State { sockets: Some(sockets), ..State::default() };
        Self { state: Mutex::new(state), borrowed, passed_on: AtomicBool::new(false) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Duplicates for a successor, who has them from now on.
    pub(crate) fn pass_on(&self) -> io::Result<Vec<OwnedFd>> {
        let state = self.state();
        let (Stage::Serving | Stage::Resumed, Some(sockets)) = (state.stage, &state.sockets) else {
            return Err(io::Error::other("the server drains: its listening sockets are given up"));
        };
        let duplicates = sockets.iter().map(OwnedFd::try_clone).collect::<io::Result<_>>()?;
        self.passed_on.store(true, Ordering::SeqCst);
        Ok(duplicates)
    }

    /// The successor came to nothing, and its descriptors are closed.
    pub(crate) fn take_back(&self) {
        self.passed_on.store(false, Ordering::SeqCst);
    }

    /// Notes who comes back if this process dies before it drains, unless it does already.
    pub(crate) fn set_line(&self, line: Line) {
        let mut state = self.state();
        if matches!(state.stage, Stage::Serving | Stage::Resumed) {
            state.line = Some(line);
        } else {
            drop(state);
            drop(line);
        }
    }

    /// This server fails: a predecessor that can is to come back.
    pub(crate) fn hang_up(&self) {
        if let Some(line) = self.state().line.take() {
            line.hang_up();
        }
    }

    /// The server drains, which `workers` do; guarded by this process if a successor has the sockets, unless it is to end in
    /// any case.
    pub(crate) fn begin_drain(&self, workers: usize, in_any_case: bool) {
        let mut state = self.state();
        state.stage = match state.stage {
            Stage::Over => Stage::Over,
            _ if in_any_case || !self.is_passed_on() => Stage::Over,
            Stage::Guarded { left } => Stage::Guarded { left },
            Stage::Serving | Stage::Resumed => Stage::Guarded { left: workers },
        };
        let given_up = (state.stage == Stage::Over).then(|| state.sockets.take());
        let line = state.line.take();
        drop(state);
        drop((given_up, line));
    }

    /// The successor is sure to go on, or to end in good order: nobody comes back.
    pub(crate) fn give_up(&self) {
        let mut state = self.state();
        if matches!(state.stage, Stage::Guarded { .. }) {
            state.stage = Stage::Over;
            let sockets = state.sockets.take();
            drop(state);
            drop(sockets);
        }
    }

    /// The successor is gone: whether this server can go on, which its workers are to be told then.
    pub(crate) fn undrain(&self) -> bool {
        let mut state = self.state();
        let is_guarded = matches!(state.stage, Stage::Guarded { .. });
        if is_guarded {
            state.stage = Stage::Resumed;
        }
        is_guarded
    }

    /// A worker that drains has nothing left to do: whether it may end, and whether it is the one that the others wait for.
    pub(crate) fn may_end(&self, is_counted: &mut bool) -> (bool, bool) {
        let mut state = self.state();
        let Stage::Guarded { left } = &mut state.stage else {
            return (state.stage != Stage::Resumed, false);
        };
        if !std::mem::replace(is_counted, true) {
            *left -= 1;
        }
        if *left > 0 {
            return (false, false);
        }
        state.stage = Stage::Over;
        state.sockets = None;
        (true, true)
    }

    /// Whether a server that drains may yet go on with its sockets, or is about to.
    pub(crate) fn may_go_on(&self) -> bool {
        matches!(self.state().stage, Stage::Guarded { .. } | Stage::Resumed)
    }

    /// Whether the sockets are given up for good.
    pub(crate) fn is_over(&self) -> bool {
        self.state().stage == Stage::Over
    }

    /// Whether a successor has the sockets.
    pub(crate) fn is_passed_on(&self) -> bool {
        self.passed_on.load(Ordering::SeqCst)
    }

    /// Whether somebody goes on with the sockets: who was accepted here has not come to a server that closes, but to
    /// one that is replaced.
    pub(crate) fn is_outlived(&self) -> bool {
        self.borrowed || self.is_passed_on()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drained(workers: usize) -> Handover {
        let handover = Handover::new(Vec::new(), false);
        handover.pass_on().unwrap();
        handover.begin_drain(workers, false);
        handover
    }

    #[test]
    fn workers_of_a_guarded_drain_end_together() {
        let handover = drained(2);
        let (mut first, mut second) = (false, false);
        assert_eq!(handover.may_end(&mut first), (false, false));
        assert_eq!(handover.may_end(&mut first), (false, false), "it is counted once");
        assert!(handover.may_go_on() && handover.pass_on().is_err());
        assert_eq!(handover.may_end(&mut second), (true, true));
        assert_eq!(handover.may_end(&mut first), (true, false));
        assert!(!handover.undrain(), "too late");
    }

    #[test]
    fn no_worker_ends_once_the_server_goes_on() {
        let handover = drained(2);
        let mut counted = false;
        handover.may_end(&mut counted);
        assert!(handover.undrain());
        assert_eq!(handover.may_end(&mut counted), (false, false));
        handover.take_back();
        // Until the next drain, which another successor may stand behind.
        handover.pass_on().unwrap();
        handover.begin_drain(2, false);
        assert!(handover.may_go_on());
    }

    #[test]
    fn without_a_successor_or_in_any_case_there_is_no_way_back() {
        let alone = Handover::new(Vec::new(), false);
        alone.begin_drain(2, false);
        assert!(!alone.undrain());
        assert_eq!(alone.may_end(&mut false), (true, false));
        let told = drained(2);
        told.begin_drain(2, true);
        assert!(!told.undrain());
        let left = drained(2);
        left.give_up();
        assert!(!left.undrain());
    }
}
