//! A gateway for messages between users.
//!
//! | module | what |
//! |---|---|
//! | [`app`] | what all workers share, and the routes |
//! | [`settings`], [`cli`] | what may be set, and the commands beside the server |
//! | [`auth`], [`users`] | who a request comes from |
//! | [`session`] | `/ws`: a connection from its request to its end |
//! | [`envelope`], [`rooms`], [`chat`] | what is said there, by subprotocol |
//! | [`presence`] | who is online, on this node and the others |
//! | [`api`], [`live`], [`metrics`] | HTTP for administrators, the dashboard, and what is counted |
//! | [`clock`] | what happens every so often: samples, and the end of stale connections |

#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "an application: workers share who is online, and tokens expire by the time of day"
)]

pub mod api;
pub mod app;
pub mod auth;
pub mod chat;
pub mod cli;
pub mod clock;
pub mod envelope;
pub mod live;
pub mod metrics;
pub mod presence;
pub mod rooms;
pub mod session;
pub mod settings;
pub mod users;

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks what is in order between two calls, whatever has panicked.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
