//! What knows nothing of connections: memory, time, numbers of settings, and how threads reach each other.

pub(crate) mod amount;
pub(crate) mod budget;
pub(crate) mod buffers;
pub(crate) mod chunked;
pub(crate) mod event;
pub(crate) mod hashing;
pub(crate) mod inquiry;
pub(crate) mod mailbox;
pub(crate) mod output;
pub(crate) mod panics;
pub(crate) mod roll;
pub(crate) mod runtime;
pub(crate) mod setters;
pub(crate) mod sharded;
pub(crate) mod tally;
pub(crate) mod timer;
pub(crate) mod wake;
