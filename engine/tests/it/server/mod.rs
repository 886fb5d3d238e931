//! A server as a whole: its handle, and its end.

mod busy;
#[cfg(all(feature = "client", feature = "tls"))]
mod drain;
mod handle;
#[cfg(all(feature = "client", feature = "tls"))]
mod restart;
mod senders;
mod shutdown;
mod ways_in;
