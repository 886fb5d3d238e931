//! Tests of an application, without sockets and without sleeping.
//!
//! [`Sim`] runs a handler on the engine's own workers, in a simulated network with a virtual clock: a minute passes in
//! milliseconds, nothing depends on the machine, and what a seed decides can be had again. [`Live`] runs the same test
//! against real sockets. A test that is to run on both takes a [`Stage`].
//!
//! ```
//! use std::time::Duration;
//! use ringwire::testing::{Get, Sim};
//! use ringwire::{Config, on_message};
//!
//! let mut sim = Sim::new(Config::default(), |_worker| on_message(|ctx, message| ctx.send(message)));
//! let mut a = sim.connect(Get::new("/ws?token=x")).expect_open();
//! a.send("Hello");
//! assert_eq!(a.text(), "Hello");
//! sim.advance(Duration::from_secs(60));
//! a.close(1000, "");
//! assert_eq!(a.closed().code, 1000);
//! ```
//!
//! What is simulated is the network and the time. The handler, the engine above its driver, offloaded jobs and async
//! handlers are the real ones, all on the test's thread.

mod get;
mod line;
mod live;
mod peer;
mod request;
mod sim;
mod stage;
mod talk;

use std::time::Duration;

pub use get::Get;
pub use live::Live;
pub use peer::{Attempt, Peer};
pub use request::{BuiltRequest, RequestBuilder};
pub use ringwire_seeds::Random;
pub use sim::Sim;
pub use talk::{Closed, Received, Reply};

pub use crate::driver::sim::Faults;

/// Where a test takes place: a [`Sim`], or a server that is [`Live`].
pub trait Stage {
    /// Connects, and sends a request for a WebSocket.
    fn connect(&mut self, get: impl Into<Get>) -> Attempt;

    /// Sends an ordinary HTTP request, and gives the answer.
    ///
    /// # Panics
    /// None comes within ten seconds.
    fn request(&mut self, get: impl Into<Get>) -> Reply;

    /// Lets time pass: that of the simulation, or real time.
    fn advance(&mut self, time: Duration);

    /// The way to the server.
    fn handle(&self) -> crate::Handle;
}
