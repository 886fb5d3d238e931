//! What the engine does over real sockets: a folder a feature, and one program for all of them, so that only one is
//! linked.
//!
//! Programs of their own, beside this folder, are the tests that change their process for good (its limits, its
//! subscriber of the log) or start it again. One that measures its process stays with its feature, and runs in a process
//! of its own: see [`support::process::ran_alone`].

#[path = "../support/mod.rs"]
mod support;

#[cfg(feature = "client")]
mod client;
mod compression;
mod compute;
#[cfg(feature = "config")]
mod config;
mod connection;
mod dial;
mod entry;
mod extensions;
mod http;
mod limits;
mod server;
mod tls;
mod topics;
