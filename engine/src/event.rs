//! The engine's lines for the log. A line may be lost, and nothing else happens: what a subscriber throws ends here.
//!
//! An application's subscriber runs on the worker's thread, in the middle of a turn, and may panic: that of
//! `tracing-subscriber` does where neither the log nor standard error takes a line. A worker that unwound there would take the
//! server down (`AllTogether`). So the engine uses these macros, never those of `tracing`, which CI looks for.
//!
//! None of them stands on a message's path. Without a panic `catch_unwind` costs a call.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

use tracing::span::EnteredSpan;

/// Runs what calls the subscriber; `None` if that panicked.
#[inline]
pub(crate) fn guarded<T>(work: impl FnOnce() -> T) -> Option<T> {
    catch_unwind(AssertUnwindSafe(work)).map_err(discard).ok()
}

/// Drops what a panic threw, whose destructor may panic as well.
#[cold]
fn discard(panic: Box<dyn Any + Send>) {
    if let Err(another) = catch_unwind(AssertUnwindSafe(|| drop(panic))) {
        std::mem::forget(another);
    }
}

/// The span of a thread, until this is dropped.
#[derive(Debug)]
pub(crate) struct Within(Option<EnteredSpan>);

impl Within {
    /// Enters the span that `span` makes.
    pub(crate) fn enter(span: impl FnOnce() -> tracing::Span) -> Self {
        Self(guarded(|| span().entered()))
    }
}

impl Drop for Within {
    fn drop(&mut self) {
        let span = self.0.take();
        let _ = guarded(|| drop(span));
    }
}

/// Whether anybody reads lines of this level.
macro_rules! enabled {
    ($($argument:tt)*) => {
        $crate::event::guarded(|| tracing::enabled!($($argument)*)).unwrap_or(false)
    };
}

macro_rules! error {
    ($($argument:tt)*) => {{
        let _ = $crate::event::guarded(|| tracing::error!($($argument)*));
    }};
}

macro_rules! warning {
    ($($argument:tt)*) => {{
        let _ = $crate::event::guarded(|| tracing::warn!($($argument)*));
    }};
}

macro_rules! info {
    ($($argument:tt)*) => {{
        let _ = $crate::event::guarded(|| tracing::info!($($argument)*));
    }};
}

macro_rules! debug {
    ($($argument:tt)*) => {{
        let _ = $crate::event::guarded(|| tracing::debug!($($argument)*));
    }};
}

macro_rules! trace {
    ($($argument:tt)*) => {{
        let _ = $crate::event::guarded(|| tracing::trace!($($argument)*));
    }};
}

// `warn` is an attribute's name as well.
pub(crate) use {debug, enabled, error, info, trace, warning as warn};

#[cfg(test)]
mod tests {
    use super::*;

    /// Its destructor panics, as a panic's value may.
    struct Thrown;

    impl Drop for Thrown {
        fn drop(&mut self) {
            panic!("in a destructor");
        }
    }

    #[test]
    fn a_panic_is_a_line_that_is_lost() {
        assert_eq!(guarded(|| 7), Some(7));
        assert_eq!(guarded(|| -> u8 { panic!("no room") }), None);
        assert_eq!(guarded(|| -> u8 { std::panic::panic_any(Thrown) }), None);
    }
}
