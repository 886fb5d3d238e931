//! A connection's life: what it carries, how fast, and how it ends.

mod backpressure;
mod chaos;
mod closes;
mod endings;
mod flow;
mod messages;
mod slow_readers;
mod timeouts;
