//! A server as a whole: its handle, and its end.

mod drain;
mod handle;
mod restart;
mod shutdown;
