//! A connection's life: what it carries, how fast, and how it ends.

mod backpressure;
mod chaos;
mod closes;
#[cfg(all(feature = "client", feature = "tls"))]
mod endings;
mod flow;
mod message_deadlines;
mod messages;
mod outcomes;
#[cfg(all(feature = "client", feature = "tls"))]
mod slow_readers;
mod timeouts;
