//! The broadcast server's handler.

use ringwire::{
    Answer, Backpressure, Ctx, Error, Handler, Message, Request, Running, Server,
    topics::{PublishOptions, TopicConfig},
};

/// What all connections subscribe to.
const TOPIC: &str = "all";

/// Sends every message on to all connections but the one that it came from.
#[derive(Clone, Copy, Debug)]
pub struct Broadcast;

impl Broadcast {
    /// The settings that go with it: a connection that reads too slowly misses the oldest messages that wait for it,
    /// instead of being closed.
    #[must_use]
    pub fn topics() -> TopicConfig {
        TopicConfig::default().with_policy(TOPIC, Backpressure::DropOldest)
    }

    /// Starts the server with this handler: the workers' code is compiled in this crate, not in the caller's.
    ///
    /// # Errors
    /// See [`Server::start`].
    pub fn start(server: Server) -> Result<Running, Error> {
        server.start(|_worker| Self)
    }
}

impl Handler for Broadcast {
    type State = ();

    fn on_request(&mut self, _request: &Request<'_>) -> Answer<()> {
        Answer::accept(())
    }

    fn on_open(&mut self, ctx: &mut Ctx<'_, ()>) {
        if let Err(error) = ctx.subscribe(TOPIC) {
            tracing::error!(%error, "cannot subscribe");
        }
    }

    fn on_message(&mut self, ctx: &mut Ctx<'_, ()>, message: Message<'_>) {
        let options = PublishOptions::default().with_except(ctx.id());
        if let Err(error) = ctx.publish_with(TOPIC, message, options) {
            tracing::debug!(%error, "not everyone gets a message");
        }
    }

    fn on_missed(&mut self, ctx: &mut Ctx<'_, ()>, count: u32) {
        tracing::debug!(conn = ?ctx.id(), count, "has missed messages");
    }
}
