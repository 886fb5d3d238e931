//! What comes to a worker from outside: letters, publications, results of the compute threads, and answers to HTTP
//! requests.

#![expect(clippy::disallowed_types, reason = "a waker may be woken from any thread")]

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use crossbeam_channel::Sender;
use ringwire_codec::CloseCode;
use ringwire_codec::http::Response;

use crate::base::mailbox::{self, Bell, Mailbox, Postbox};
use crate::base::wake::Wake;
use crate::compute::task::Continuation;
use crate::compute::{Compute, Outcome};
use crate::conn::answer::{Accept, AnyState};
use crate::conn::credit::Lane;
use crate::conn::id::ConnId;
use crate::conn::options::SendOptions;
use crate::driver::ListenerId;
use crate::entry::adoption::Adoption;
use crate::entry::dial::Outbound;
use crate::hub::posted::Posted;
use crate::hub::wakes::{Alarm, Alarms};
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
    /// Refuse a deferred request for an upgrade.
    Reject { conn: ConnId, response: Response },
    /// Call this with an open connection.
    Run { conn: ConnId, then: Continuation },
    /// Tell the handler.
    Event(Posted),
    /// Say who subscribes to what.
    Topics(TopicQuery),
    /// Close every connection, and end when they are gone or the time is up; what came of it is the reply.
    Drain { drain: Drain, reply: Sender<DrainReport> },
    /// Go on as if there had been no drain.
    Undrain,
}

/// A [`Sender`](crate::Sender) has something for a connection, or has gone; the first time with the worker's end of it.
#[derive(Debug)]
pub(crate) struct Offer {
    pub(crate) conn: ConnId,
    pub(crate) lane: Option<Lane>,
}

/// The ways to a worker.
#[derive(Clone, Debug)]
pub(crate) struct Ways {
    pub(crate) letters: Postbox<Mail>,
    pub(crate) publications: Feeder,
    /// There is always room for an offer: each sender has one on its way at most.
    pub(crate) offers: Postbox<Offer>,
    /// There is always room for a result: their number is that of the jobs which the worker itself gave away.
    pub(crate) results: Postbox<Outcome>,
    pub(crate) alarms: Arc<Alarms>,
}

/// A request among all of a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RequestId {
    pub(crate) conn: ConnId,
    /// Its place among those of its connection, of which there are at most `max_http_requests`.
    pub(crate) number: u16,
}

/// The answer to an HTTP request that was not answered at once.
#[derive(Debug)]
pub(crate) struct Answered {
    pub(crate) request: RequestId,
    pub(crate) response: Response,
}

/// What a request needs to be answered from elsewhere. There is always room for an answer: each connection is at one
/// request at a time.
#[derive(Debug)]
pub(crate) struct WayBack {
    pub(crate) answers: Postbox<Answered>,
    pub(crate) compute: Option<Compute>,
}

/// What has come to a worker.
#[derive(Debug)]
pub(crate) struct Inbox {
    bell: Bell,
    letters: Mailbox<Mail>,
    publications: Feed,
    offers: Mailbox<Offer>,
    results: Mailbox<Outcome>,
    alarms: Mailbox<Arc<Alarm>>,
    answers: Mailbox<Answered>,
    /// The way there.
    answer_box: Postbox<Answered>,
}

/// The ways to a worker that `waker` wakes: for `capacity` letters and so many bytes of publications.
pub(crate) fn inbox(capacity: usize, max_in_transit_len: usize, waker: impl Wake) -> (Ways, Inbox) {
    let bell = Bell::new(waker);
    let (letters, to_be_read) = mailbox::mailbox(Some(capacity), &bell);
    let (feeder, publications) = feed(max_in_transit_len, &bell);
    let (offers, offered) = mailbox::mailbox(None, &bell);
    let (results, returned) = mailbox::mailbox(None, &bell);
    let (alarms, rung) = mailbox::mailbox(None, &bell);
    let alarms = Alarms::new(alarms);
    let ways = Ways { letters, publications: feeder, offers, results, alarms };
    let (answer_box, answers) = mailbox::mailbox(None, &bell);
    let inbox = Inbox {
        bell,
        letters: to_be_read,
        publications,
        offers: offered,
        results: returned,
        alarms: rung,
        answers,
        answer_box,
    };
    (ways, inbox)
}

impl Inbox {
    /// Whether anything came since the last call; from now on the worker is woken again. Costs a relaxed load where
    /// nothing came.
    pub(crate) fn open(&self) -> bool {
        self.bell.look()
    }

    /// How many letters wait.
    pub(crate) fn letter_count(&self) -> usize {
        self.letters.len()
    }

    /// The next letter.
    pub(crate) fn take(&self) -> Option<Mail> {
        self.letters.take()
    }

    /// The next publication.
    pub(crate) fn take_publication(&self) -> Option<SharedPublication> {
        self.publications.take()
    }

    /// How many offers wait.
    pub(crate) fn offer_count(&self) -> usize {
        self.offers.len()
    }

    /// The next offer.
    pub(crate) fn take_offer(&self) -> Option<Offer> {
        self.offers.take()
    }

    /// How many results wait.
    pub(crate) fn result_count(&self) -> usize {
        self.results.len()
    }

    /// The next result.
    pub(crate) fn take_result(&self) -> Option<Outcome> {
        self.results.take()
    }

    /// How many wakes from other threads wait.
    pub(crate) fn alarm_count(&self) -> usize {
        self.alarms.len()
    }

    /// The next of them.
    pub(crate) fn take_alarm(&self) -> Option<Arc<Alarm>> {
        self.alarms.take()
    }

    /// How many answers to HTTP requests wait.
    pub(crate) fn answer_count(&self) -> usize {
        self.answers.len()
    }

    /// The next answer to an HTTP request.
    pub(crate) fn take_answer(&self) -> Option<Answered> {
        self.answers.take()
    }

    /// For answers to HTTP requests that come later, and jobs that make them.
    pub(crate) fn way_back(&self, compute: Option<Compute>) -> WayBack {
        WayBack { answers: self.answer_box.clone(), compute }
    }

    /// Whether nothing is left.
    pub(crate) fn is_empty(&self) -> bool {
        self.letters.is_empty()
            && self.publications.is_empty()
            && self.offers.is_empty()
            && self.results.is_empty()
            && self.alarms.is_empty()
            && self.answers.is_empty()
    }
}
