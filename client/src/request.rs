//! Requests and their responses, and acknowledgements.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::sync::mpsc::{Receiver as Waiter, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ringwire_codec::{CloseCode, Message};

use crate::blocking::{Client, Receiver, Sender};
use crate::error::{Error, Waiting};
use crate::message::OwnedMessage;

/// Where the ids of requests stand in messages: the application's choice. [`JsonIds`](crate::JsonIds) is one.
pub trait MessageIds {
    /// The message with this id in it, as the request that a response will name. `None`: it has no place for one.
    fn tag(&self, message: Message<'_>, id: u64) -> Option<OwnedMessage>;

    /// What a message of the server is.
    fn sort(&self, message: &OwnedMessage) -> Sorted;
}

/// What a message of the server is.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Sorted {
    /// The response to the request with this id.
    Response(u64),
    /// Something of its own accord, and what it is to be acknowledged with, if it asks for that.
    Push {
        /// The acknowledgement.
        acknowledgement: Option<OwnedMessage>,
    },
}

/// Sends requests that wait for their responses. A clone shares the connection.
///
/// [`split`](Self::split) gives the other half, [`Pushes`], which one thread keeps receiving from: that is where
/// responses come in, too.
pub struct Requests<I> {
    sender: Sender,
    shared: Arc<Shared<I>>,
}

/// The messages that are no responses.
pub struct Pushes<I> {
    receiver: Receiver,
    sender: Sender,
    shared: Arc<Shared<I>>,
}

struct Shared<I> {
    ids: I,
    max_pending: usize,
    table: Mutex<Table>,
}

struct Table {
    /// Requests without a response. Invariant: at most `max_pending`.
    pending: HashMap<u64, SyncSender<OwnedMessage>>,
    next_id: u64,
    late_count: u64,
    has_ended: bool,
}

impl<I: MessageIds> Requests<I> {
    /// Requests on a connection, with at most `max_pending` of them waiting at the same time.
    #[must_use]
    pub fn split(client: Client, ids: I, max_pending: usize) -> (Self, Pushes<I>) {
        let table = Table { pending: HashMap::new(), next_id: 1, late_count: 0, has_ended: false };
        let shared = Arc::new(Shared { ids, max_pending, table: Mutex::new(table) });
        let (sender, receiver) = client.split();
        let requests = Self { sender: sender.clone(), shared: Arc::clone(&shared) };
        (requests, Pushes { receiver, sender, shared })
    }

    /// Sends a request and waits for its response.
    ///
    /// # Errors
    /// As [`begin`](Self::begin) and [`Pending::wait`].
    pub fn send_with_ack<'m>(
        &self,
        message: impl Into<Message<'m>>,
        timeout: Duration,
    ) -> Result<OwnedMessage, Error> {
        self.begin(message)?.wait(timeout)
    }

    /// Sends a request whose response is waited for later.
    ///
    /// # Errors
    /// [`Error::TooManyPending`]; [`Error::NoPlaceForId`]; as [`Sender::send`].
    pub fn begin<'m>(&self, message: impl Into<Message<'m>>) -> Result<Pending<I>, Error> {
        let (respond, response) = sync_channel(1);
        let id = {
            let mut table = self.shared.table();
            if table.pending.len() >= self.shared.max_pending {
                return Err(Error::TooManyPending);
            }
            let id = table.next_id;
            table.next_id += 1;
            // After the end nothing is sent, and nobody would take the entry out.
            if !table.has_ended {
                table.pending.insert(id, respond);
            }
            id
        };
        let pending = Pending { id, response, shared: Arc::clone(&self.shared) };
        let message = self.shared.ids.tag(message.into(), id).ok_or(Error::NoPlaceForId)?;
        self.sender.send(message.as_message())?;
        Ok(pending)
    }

    /// Sends a message that has no response.
    ///
    /// # Errors
    /// As [`Sender::send`].
    pub fn send<'m>(&self, message: impl Into<Message<'m>>) -> Result<(), Error> {
        self.sender.send(message)
    }

    /// As [`Sender::close`].
    ///
    /// # Errors
    /// As there.
    pub fn close(&self, code: CloseCode, reason: &str) -> Result<(), Error> {
        self.sender.close(code, reason)
    }

    /// The number of requests that wait.
    #[must_use]
    pub fn pending_count(&self) -> usize {
        self.shared.table().pending.len()
    }

    /// The number of responses that came when nobody waited for them, and were dropped.
    #[must_use]
    pub fn late_count(&self) -> u64 {
        self.shared.table().late_count
    }
}

impl<I: MessageIds> Pushes<I> {
    /// The next message that is no response; `None` once the connection is closed as it should be. Responses go to
    /// whoever waits for them, and what asks for it is acknowledged before it is given.
    ///
    /// # Errors
    /// As [`Receiver::receive`]. An acknowledgement that could not be sent is no error: the connection's end follows.
    pub fn receive(&mut self) -> Result<Option<OwnedMessage>, Error> {
        loop {
            let received = self.receiver.receive();
            if !matches!(received, Ok(Some(_)) | Err(Error::Timeout(Waiting::Receive))) {
                self.shared.end();
            }
            let Some(message) = received? else { return Ok(None) };
            match self.shared.ids.sort(&message) {
                Sorted::Response(id) => self.shared.respond(id, message),
                Sorted::Push { acknowledgement } => {
                    if let Some(acknowledgement) = acknowledgement {
                        let _ = self.sender.send(acknowledgement.as_message());
                    }
                    return Ok(Some(message));
                }
            }
        }
    }
}

impl<I> Shared<I> {
    fn respond(&self, id: u64, message: OwnedMessage) {
        let mut table = self.table();
        // A second response to the same request finds nobody.
        let was_taken =
            table.pending.remove(&id).is_some_and(|respond| respond.try_send(message).is_ok());
        table.late_count += u64::from(!was_taken);
    }

    /// No response comes any more, which wakes all who wait.
    fn end(&self) {
        let mut table = self.table();
        table.has_ended = true;
        table.pending.clear();
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<I> Drop for Pushes<I> {
    fn drop(&mut self) {
        self.shared.end();
    }
}

impl<I> Clone for Requests<I> {
    fn clone(&self) -> Self {
        Self { sender: self.sender.clone(), shared: Arc::clone(&self.shared) }
    }
}

impl<I> fmt::Debug for Requests<I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pending_count = self.shared.table().pending.len();
        f.debug_struct("Requests").field("pending_count", &pending_count).finish_non_exhaustive()
    }
}

impl<I> fmt::Debug for Pushes<I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pushes").finish_non_exhaustive()
    }
}

/// A request that waits for its response. Dropped, it does not wait any more.
pub struct Pending<I> {
    id: u64,
    response: Waiter<OwnedMessage>,
    shared: Arc<Shared<I>>,
}

impl<I> Pending<I> {
    /// The id that the request was sent with.
    #[must_use]
    pub const fn id(&self) -> u64 {
        self.id
    }

    /// Waits for the response.
    ///
    /// # Errors
    /// [`Error::Timeout`] of [`Waiting::Response`]; [`Error::Lost`] if the connection ends before, or [`Pushes`] is
    /// dropped.
    pub fn wait(self, timeout: Duration) -> Result<OwnedMessage, Error> {
        self.response.recv_timeout(timeout).map_err(|error| match error {
            RecvTimeoutError::Timeout => Error::Timeout(Waiting::Response),
            RecvTimeoutError::Disconnected => Error::Lost(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "the connection ended before the response",
            )),
        })
    }
}

impl<I> Drop for Pending<I> {
    fn drop(&mut self) {
        self.shared.table().pending.remove(&self.id);
    }
}

impl<I> fmt::Debug for Pending<I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pending").field("id", &self.id).finish_non_exhaustive()
    }
}
