//! What happens to a connection, as a value.

use std::fmt;

use ringwire_codec::handshake::client;
use ringwire_codec::{Message, MessagePart};

use crate::app::ctx::Ctx;
use crate::app::offload::Then;
use crate::app::spawn::LocalThen;
use crate::conn::cause::CloseCause;
use crate::conn::jobs::Continuation;

/// What happens to a connection that is open, or opens: the argument of [`Handler::handle`](crate::Handler::handle),
/// which calls the method that each variant names.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// [`on_answer`](crate::Handler::on_answer).
    Answer(&'a client::Response<'a>),
    /// [`on_open`](crate::Handler::on_open).
    Open,
    /// [`on_message`](crate::Handler::on_message).
    Message(Message<'a>),
    /// [`on_message_part`](crate::Handler::on_message_part).
    Part(MessagePart<'a>),
    /// [`on_drain`](crate::Handler::on_drain).
    Drain,
    /// [`on_missed`](crate::Handler::on_missed).
    Missed(u32),
    /// [`on_ping`](crate::Handler::on_ping).
    Ping(&'a [u8]),
    /// [`on_pong`](crate::Handler::on_pong).
    Pong(&'a [u8]),
    /// What follows a job of [`Ctx::offload`], or a future of [`Ctx::spawn`], or what
    /// [`Handle::run`](crate::Handle::run) was given.
    Call(Call),
    /// [`on_wake`](crate::Handler::on_wake).
    Wake,
    /// [`on_timer`](crate::Handler::on_timer).
    Timer(u64),
    /// [`on_close`](crate::Handler::on_close).
    Close(&'a CloseCause),
}

/// A closure that a handler gave away, to be called with the connection later. It is for the state of that handler,
/// which may be inside another.
pub struct Call(Continuation);

impl Call {
    pub(crate) fn new(then: Continuation) -> Self {
        Self(then)
    }

    /// Calls it, if it is for a connection with this state, or for one without its state ([`Out`](crate::Out)).
    ///
    /// # Errors
    /// It is for another state, and comes back.
    pub fn run<S: 'static>(self, ctx: &mut Ctx<'_, S>) -> Result<(), Self> {
        self.run_with(ctx).or_else(|other| other.run_with(&mut ctx.split().1))
    }

    /// The same, for this very state.
    fn run_with<S: 'static>(self, ctx: &mut Ctx<'_, S>) -> Result<(), Self> {
        match self.0.downcast::<Then<S>>() {
            Ok(then) => then(ctx),
            Err(other) => match other.downcast::<LocalThen<S>>() {
                Ok(then) => then(ctx),
                Err(other) => return Err(Self(other)),
            },
        }
        Ok(())
    }
}

impl fmt::Debug for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Call").finish_non_exhaustive()
    }
}
