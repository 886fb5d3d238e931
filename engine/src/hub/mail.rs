//! What comes to a worker from outside: letters, publications, and results of the compute threads.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use crossbeam_channel::Sender;
use ringwire_codec::CloseCode;
use ringwire_codec::http::Response;

use crate::base::mailbox::{self, Bell, Mailbox, Postbox};
use crate::base::wake::Wake;
use crate::compute::Outcome;
use crate::conn::answer::{Accept, AnyState};
use crate::conn::id::ConnId;
use crate::conn::options::SendOptions;
use crate::driver::ListenerId;
use crate::entry::adoption::Adoption;
use crate::entry::dial::Outbound;
use crate::limits::{Drain, DrainReport};
use crate::topic::{Feed, Feeder, SharedPublication, TopicQuery, feed};

/// What can be asked of a worker from outside.
#[derive(Debug)]
pub(crate) enum Mail {
    /// Send a message.
    Send { conn: ConnId, options: SendOptions, text: bool, payload: Vec<u8> },
    /// The peer may send longer messages from now on.
    Authenticated { conn: ConnId },
    /// Start the close handshake.
    Close { conn: ConnId, code: CloseCode, reason: String },
    /// Stop or go on reading.
    Pause { conn: ConnId, paused: bool },
    /// Serve a connection that someone else accepted.
    Adopt(Box<Adoption>),
    /// Serve a connection that another worker has accepted.
    Accepted { fd: OwnedFd, listener: ListenerId, peer: Option<SocketAddr> },
    /// Serve a connection that this side opens.
    Dial(Box<Outbound>),
    /// Accept a deferred request for an upgrade.
    Accept { conn: ConnId, accept: Box<Accept<AnyState>> },
    /// Answer a deferred request with an ordinary answer, which refuses an upgrade.
    Respond { conn: ConnId, response: Response },
    /// Say who subscribes to what.
    Topics(TopicQuery),
    /// Close every connection, and end when they are gone or the time is up; what came of it is the reply.
    Drain { drain: Drain, reply: Sender<DrainReport> },
    /// Go on as if there had been no drain.
    Undrain,
}

/// The ways to a worker.
#[derive(Clone, Debug)]
pub(crate) struct Ways {
    pub(crate) letters: Postbox<Mail>,
    pub(crate) publications: Feeder,
    /// There is always room for a result: their number is that of the jobs which the worker itself gave away.
    pub(crate) results: Postbox<Outcome>,
}

/// What has come to a worker.
#[derive(Debug)]
pub(crate) struct Inbox {
    bell: Bell,
    letters: Mailbox<Mail>,
    publications: Feed,
    results: Mailbox<Outcome>,
}

/// The ways to a worker that `waker` wakes: for `capacity` letters and so many bytes of publications.
pub(crate) fn inbox(capacity: usize, max_in_transit_len: usize, waker: impl Wake) -> (Ways, Inbox) {
    let bell = Bell::new(waker);
    let (letters, to_be_read) = mailbox::mailbox(Some(capacity), &bell);
    let (feeder, publications) = feed(max_in_transit_len, &bell);
    let (results, returned) = mailbox::mailbox(None, &bell);
    let ways = Ways { letters, publications: feeder, results };
    (ways, Inbox { bell, letters: to_be_read, publications, results: returned })
}

impl Inbox {
    /// Whether anything came since the last call; from now on the worker is woken again. Costs a relaxed load where
    /// nothing came.
    pub(crate) fn open(&self) -> bool {
        self.bell.look()
    }

    /// The next letter.
    pub(crate) fn take(&self) -> Option<Mail> {
        self.letters.take()
    }

    /// The next publication.
    pub(crate) fn take_publication(&self) -> Option<SharedPublication> {
        self.publications.take()
    }

    /// How many results wait.
    pub(crate) fn result_count(&self) -> usize {
        self.results.len()
    }

    /// The next result.
    pub(crate) fn take_result(&self) -> Option<Outcome> {
        self.results.take()
    }

    /// Whether nothing is left.
    pub(crate) fn is_empty(&self) -> bool {
        self.letters.is_empty() && self.publications.is_empty() && self.results.is_empty()
    }
}
