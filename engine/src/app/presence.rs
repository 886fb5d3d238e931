//! What changes over all workers: who has which name, and what has subscribers.

use crate::base::roll;
use crate::conn::id::ConnId;
use crate::topic::Subscription;

/// A connection has got a name, or has it no more. See [`Handler::on_presence`](crate::Handler::on_presence).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Presence<'a> {
    /// The name that [`Ctx::register`](crate::Ctx::register) gave it.
    pub name: &'a str,
    /// The connection. One that has left may have ended.
    pub conn: ConnId,
    /// What has happened.
    pub change: PresenceChange,
    /// It has joined, and no other had the name.
    pub is_first: bool,
    /// It has left, and no other has the name.
    pub is_last: bool,
    /// Higher than in all calls for this name before, also those for connections of the past: who keeps what was last
    /// heard of a name, or passes it on, can tell an old one by it. Versions begin anew with the server, have gaps, and
    /// say nothing of different names.
    pub version: u64,
}

/// Whether a connection has come or gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum PresenceChange {
    /// It has the name now.
    Joined,
    /// It has ended, or gave the name up.
    Left,
}

impl<'a> Presence<'a> {
    pub(crate) fn new(name: &'a str, change: roll::Change<ConnId>) -> Self {
        let roll::Change { member: conn, has_joined, is_edge, version } = change;
        Self {
            name,
            conn,
            change: if has_joined { PresenceChange::Joined } else { PresenceChange::Left },
            is_first: has_joined && is_edge,
            is_last: !has_joined && is_edge,
            version,
        }
    }
}

/// The first subscription of its kind has come, or the last is gone. See
/// [`Handler::on_interest`](crate::Handler::on_interest).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Interest<'a> {
    /// The topic or pattern.
    pub subscription: Subscription<'a>,
    /// Whether a connection is subscribed to it, on any worker.
    pub has_subscribers: bool,
    /// Higher than in all calls for this subscription before. As [`Presence::version`].
    pub version: u64,
}

impl<'a> Interest<'a> {
    /// `None` for one that is neither the first nor the last.
    pub(crate) fn new(text: &'a str, change: roll::Change<u16>) -> Option<Self> {
        let subscription = Subscription::of(text);
        let roll::Change { member: _, has_joined, is_edge, version } = change;
        is_edge.then_some(Self { subscription, has_subscribers: has_joined, version })
    }
}
