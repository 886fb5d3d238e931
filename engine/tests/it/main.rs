//! What the engine does over real sockets: a folder a feature, and one program for all of them, so that only one is
//! linked.
//!
//! Programs of their own, beside this folder, are the tests that change their process for good (its limits, its
//! subscriber of the log), and those that want the machine for themselves. A test that measures its process stays with
//! its feature, and starts the program once more for that: see `support::process::ran_alone`.

#[cfg_attr(
    not(all(feature = "client", feature = "tls")),
    expect(dead_code, reason = "what needs these features uses the rest")
)]
#[path = "../support/mod.rs"]
mod support;

#[cfg(feature = "async")]
mod async_handlers;
#[cfg(all(feature = "client", feature = "tls"))]
mod client;
#[cfg(all(feature = "client", feature = "tls"))]
mod cluster;
mod compression;
mod compute;
#[cfg(feature = "config")]
mod config;
mod connection;
#[cfg(feature = "tls")]
mod dial;
mod entry;
#[cfg(all(feature = "client", feature = "tls"))]
mod extensions;
#[cfg(all(feature = "client", feature = "tls"))]
mod history;
mod http;
mod limits;
#[cfg(all(feature = "client", feature = "tls"))]
mod presence;
mod server;
#[cfg(feature = "testing")]
mod testing;
#[cfg(feature = "tls")]
mod tls;
#[cfg(all(feature = "client", feature = "tls"))]
mod topics;
