//! Streams of completions.

use crate::driver::Token;

/// Completions keep their order inside a stream, and only there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Stream {
    Accept(usize),
    Receive(Token),
    Send(Token),
}
