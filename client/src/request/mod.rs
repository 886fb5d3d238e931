//! Requests and their responses, and acknowledgements.

mod table;

use std::fmt;
use std::hash::Hash;
use std::sync::mpsc::{Receiver as Waiter, RecvTimeoutError, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ringwire_codec::{CloseCode, Message};

use self::table::Table;
use crate::blocking::{Client, Receiver, Sender};
use crate::error::{Error, Waiting};
use crate::message::OwnedMessage;
use crate::reconnect::{Delivery, Reconnecting, ReconnectingSender, Update};
use crate::wire::after;

/// Where the ids of requests stand in messages, and what they are: the application's choice.
/// [`JsonIds`](crate::JsonIds) is one.
///
/// ```
/// use ringwire_client::{Message, MessageIds, OwnedMessage, Sorted};
///
/// /// Requests such as `GET price #a7`, responses such as `#a7 1.20`. The id is the application's own.
/// struct Words;
///
/// impl MessageIds for Words {
///     type Id = String;
///
///     fn tag(&self, message: Message<'_>, number: u64) -> Option<(OwnedMessage, String)> {
///         let Message::Text(text) = message else { return None };
///         let id = format!("#{number:x}");
///         Some((OwnedMessage::Text(format!("{text} {id}")), id))
///     }
///
///     fn sort(&self, message: &OwnedMessage) -> Sorted<String> {
///         let word = message.as_text().and_then(|text| text.split(' ').next());
///         match word.filter(|word| word.starts_with('#')) {
///             Some(id) => Sorted::Response(id.to_owned()),
///             None => Sorted::Push { acknowledgement: None },
///         }
///     }
/// }
///
/// let (request, id) = Words.tag("GET price".into(), 10).unwrap();
/// assert_eq!(request, OwnedMessage::from("GET price #a"));
/// assert_eq!(Words.sort(&"#a 1.20".into()), Sorted::Response(id));
/// ```
pub trait MessageIds {
    /// What tells requests apart.
    type Id: Clone + Eq + Hash;

    /// The message with an id in it, as the request that a response will name, and that id. `number` is another for
    /// each request and counts from 1: ids may be made from it, or stand in the message already. `None`: it has no
    /// place for one.
    fn tag(&self, message: Message<'_>, number: u64) -> Option<(OwnedMessage, Self::Id)>;

    /// What a message of the server is.
    fn sort(&self, message: &OwnedMessage) -> Sorted<Self::Id>;
}

/// What a message of the server is.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Sorted<Id> {
    /// The response to the request with this id.
    Response(Id),
    /// Something of its own accord, and what it is to be acknowledged with, if it asks for that.
    Push {
        /// The acknowledgement.
        acknowledgement: Option<OwnedMessage>,
    },
}

/// Sends requests that wait for their responses. A clone shares the connection.
///
/// [`split`](Self::split) gives the other half, [`Pushes`], which one thread keeps receiving from: that is where
/// responses come in, too. With [`split_reconnecting`](Self::split_reconnecting) it is also where the client connects
/// again. Then
///
/// - a request that is begun while there is no connection waits for one;
/// - one that was sent when the connection is lost fails with [`Error::Unanswered`]: the server may have acted on it,
///   and only the application knows what it means to do that twice;
/// - unless it was declared to be idempotent ([`begin_idempotent`](Self::begin_idempotent)): then it is sent again,
///   with the same id, once there is a connection and [`Reconnecting::on_connect`] has run.
///
/// Nothing is sent twice otherwise. How long any of that may take is what its [`Pending::wait`] says.
pub struct Requests<I: MessageIds> {
    way: Way,
    shared: Arc<Shared<I>>,
}

/// The messages that are no responses.
pub struct Pushes<I: MessageIds> {
    source: Source,
    shared: Arc<Shared<I>>,
}

#[derive(Clone)]
enum Way {
    Once(Sender),
    Again(ReconnectingSender),
}

enum Source {
    Once(Receiver),
    Again(Box<Reconnecting>),
}

struct Shared<I: MessageIds> {
    ids: I,
    max_pending: usize,
    /// Whether there is another connection after one that is lost.
    comes_back: bool,
    table: Mutex<Table<I::Id>>,
}

impl<I: MessageIds> Requests<I> {
    /// Requests on a connection, with at most `max_pending` of them waiting at the same time.
    #[must_use]
    pub fn split(client: Client, ids: I, max_pending: usize) -> (Self, Pushes<I>) {
        let (sender, receiver) = client.split();
        let table = Mutex::new(Table::new(Some(sender.clone())));
        Self::halves(
            Way::Once(sender),
            Source::Once(receiver),
            Shared { ids, max_pending, comes_back: false, table },
        )
    }

    /// Requests on the connections of a client that comes back, with at most `max_pending` of them waiting at the same
    /// time. Worst case in memory: so many requests, those that were sent and are not idempotent aside.
    ///
    /// ```
    /// # #[cfg(feature = "json")] {
    /// use std::time::Duration;
    /// use ringwire_client::{Client, CloseCode, JsonIds, Reconnecting, Requests};
    ///
    /// # mod server { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/doc/server.rs")); }
    /// # let address = server::start(|_, number| number > 0);
    /// # let builder = Client::builder().without_proxy();
    /// # let policy = ringwire_client::RetryPolicy::default();
    /// # let policy = policy.with_verdict_on(|_| ringwire_client::Verdict::Retry);
    /// let client = Reconnecting::new(builder, format!("ws://{address}/")).with_policy(policy);
    /// // The server here echoes, so the id is its own acknowledgement.
    /// let (requests, mut pushes) = Requests::split_reconnecting(client, JsonIds::new("id", "id"), 100);
    /// let receiving = std::thread::spawn(move || pushes.receive());
    /// let price = requests.begin_idempotent(r#"{"get":"price"}"#)?;
    /// let response = price.wait(Duration::from_secs(10))?;
    /// assert!(response.as_text().unwrap().contains("price"));
    /// # requests.close(CloseCode::NORMAL, "")?;
    /// # receiving.join().unwrap()?;
    /// # }
    /// # Ok::<(), ringwire_client::Error>(())
    /// ```
    #[must_use]
    pub fn split_reconnecting(
        client: Reconnecting,
        ids: I,
        max_pending: usize,
    ) -> (Self, Pushes<I>) {
        let table = Mutex::new(Table::new(client.connection()));
        Self::halves(
            Way::Again(client.sender()),
            Source::Again(Box::new(client)),
            Shared { ids, max_pending, comes_back: true, table },
        )
    }

    fn halves(way: Way, source: Source, shared: Shared<I>) -> (Self, Pushes<I>) {
        let shared = Arc::new(shared);
        (Self { way, shared: Arc::clone(&shared) }, Pushes { source, shared })
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
    /// [`Error::TooManyPending`]; [`Error::NoPlaceForId`]; [`Error::IdInUse`]; [`Error::Unanswered`] if nobody receives
    /// any more; as [`Sender::send`].
    pub fn begin<'m>(&self, message: impl Into<Message<'m>>) -> Result<Pending<I>, Error> {
        self.request(message.into(), false)
    }

    /// The same for a request that the server may act on twice as well as once. With a client that comes back it is
    /// sent again if its connection is lost before the response; with another there is no difference.
    ///
    /// # Errors
    /// As [`begin`](Self::begin).
    pub fn begin_idempotent<'m>(
        &self,
        message: impl Into<Message<'m>>,
    ) -> Result<Pending<I>, Error> {
        self.request(message.into(), true)
    }

    fn request(&self, message: Message<'_>, is_idempotent: bool) -> Result<Pending<I>, Error> {
        let (respond, response) = sync_channel(1);
        let number = self.shared.table().next_number();
        let (message, id) = self.shared.ids.tag(message, number).ok_or(Error::NoPlaceForId)?;
        let pending = Pending { id, number, response, shared: Arc::clone(&self.shared) };
        {
            let mut table = self.shared.table();
            if table.has_ended() {
                drop(table);
                self.way.check()?;
                return Err(Error::Unanswered { was_sent: false });
            }
            if table.len() >= self.shared.max_pending {
                return Err(Error::TooManyPending);
            }
            table.insert(pending.id.clone(), number, message, is_idempotent, respond)?;
        }
        self.shared.deliver(&pending.id, pending.number)?;
        Ok(pending)
    }

    /// Sends a message that has no response.
    ///
    /// # Errors
    /// As [`Sender::send`] or [`ReconnectingSender::send`].
    pub fn send<'m>(&self, message: impl Into<Message<'m>>) -> Result<Delivery, Error> {
        match &self.way {
            Way::Once(sender) => sender.send(message).map(|()| Delivery::Sent),
            Way::Again(sender) => sender.send(message),
        }
    }

    /// As [`Sender::close`] or [`ReconnectingSender::close`].
    ///
    /// # Errors
    /// As there.
    pub fn close(&self, code: CloseCode, reason: &str) -> Result<(), Error> {
        match &self.way {
            Way::Once(sender) => sender.close(code, reason),
            Way::Again(sender) => sender.close(code, reason),
        }
    }

    /// The number of requests that wait.
    #[must_use]
    pub fn pending_count(&self) -> usize {
        self.shared.table().len()
    }

    /// The number of responses that came when nobody waited for them, and were dropped.
    #[must_use]
    pub fn late_count(&self) -> u64 {
        self.shared.table().late_count()
    }
}

impl Way {
    /// Why nothing can be sent any more, if that is so.
    fn check(&self) -> Result<(), Error> {
        match self {
            Self::Once(sender) => sender.check(),
            Self::Again(sender) => sender.check(),
        }
    }
}

impl<I: MessageIds> Pushes<I> {
    /// The next message that is no response; `None` once the connection is closed as it should be, or the application
    /// has closed the client that comes back. Responses go to whoever waits for them, and what asks for it is
    /// acknowledged before it is given.
    ///
    /// # Errors
    /// As [`Receiver::receive`] or [`Reconnecting::next_update`]. An acknowledgement that could not be sent is no
    /// error: the connection's end follows.
    pub fn receive(&mut self) -> Result<Option<OwnedMessage>, Error> {
        loop {
            match self.next_update()? {
                Some(Update::Message(message)) => return Ok(Some(message)),
                Some(_) => {}
                None => return Ok(None),
            }
        }
    }

    /// The same, with what else happens to a client that comes back.
    ///
    /// # Errors
    /// As [`receive`](Self::receive).
    pub fn next_update(&mut self) -> Result<Option<Update>, Error> {
        self.advance(None)
    }

    /// The same, waiting for at most `timeout`; an attempt to connect is not interrupted.
    ///
    /// # Errors
    /// [`Error::Timeout`] of [`Waiting::Receive`], after which all is as it was; as [`receive`](Self::receive).
    pub fn next_update_timeout(&mut self, timeout: Duration) -> Result<Option<Update>, Error> {
        self.advance(after(Some(timeout)))
    }

    fn advance(&mut self, deadline: Option<Instant>) -> Result<Option<Update>, Error> {
        loop {
            let next = match &mut self.source {
                Source::Once(receiver) => {
                    let deadline = deadline.or_else(|| receiver.read_deadline());
                    receiver.message(deadline).map(|message| message.map(Update::Message))
                }
                Source::Again(client) => client.advance(deadline),
            };
            match next {
                Ok(Some(Update::Message(message))) => {
                    if let Some(push) = self.shared.sort(message) {
                        return Ok(Some(Update::Message(push)));
                    }
                }
                Ok(Some(update)) => {
                    self.shared.on_change(self.source.connection());
                    return Ok(Some(update));
                }
                Err(Error::Timeout(Waiting::Receive)) => return next,
                Ok(None) | Err(_) => {
                    self.shared.table().end();
                    return next;
                }
            }
        }
    }
}

impl Source {
    /// The connection that there is, of a client that comes back.
    fn connection(&self) -> Option<Sender> {
        match self {
            Self::Once(_) => None,
            Self::Again(client) => client.connection(),
        }
    }
}

impl<I: MessageIds> Shared<I> {
    /// Hands on a response; acknowledges and gives what is none.
    fn sort(&self, message: OwnedMessage) -> Option<OwnedMessage> {
        match self.ids.sort(&message) {
            Sorted::Response(id) => {
                self.table().on_response(&id, message);
                None
            }
            Sorted::Push { acknowledgement } => {
                let sender = self.table().current();
                if let Some((sender, acknowledgement)) = sender.zip(acknowledgement) {
                    let _ = sender.send(acknowledgement.as_message());
                }
                Some(message)
            }
        }
    }

    /// A client that comes back has another connection, or has none any more.
    fn on_change(&self, connection: Option<Sender>) {
        if connection.is_none() {
            return self.table().on_lost();
        }
        let waiting = self.table().on_connected(connection);
        for (id, number) in waiting {
            if let Err(error) = self.deliver(&id, number) {
                self.table().on_failed(&id, number, error);
            }
        }
    }

    /// Sends a request, or leaves it for the next connection.
    fn deliver(&self, id: &I::Id, number: u64) -> Result<(), Error> {
        let mut failed = None;
        loop {
            let taken = self.table().take(id, number, failed.as_ref());
            // There is no connection that is good for it, or it needs none any more.
            let Some((sender, message)) = taken else { return Ok(()) };
            let result = sender.send(message.as_message());
            let was_sent = result.is_ok();
            match result {
                Err(error) if !self.comes_back || matches!(error, Error::InvalidMessage(_)) => {
                    return Err(error);
                }
                _ => self.table().on_sent((id, number), message, &sender, was_sent)?,
            }
            failed = Some(sender).filter(|_| !was_sent);
        }
    }

    fn table(&self) -> MutexGuard<'_, Table<I::Id>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<I: MessageIds> Drop for Pushes<I> {
    fn drop(&mut self) {
        self.shared.table().end();
    }
}

impl<I: MessageIds> Clone for Requests<I> {
    fn clone(&self) -> Self {
        Self { way: self.way.clone(), shared: Arc::clone(&self.shared) }
    }
}

impl<I: MessageIds> fmt::Debug for Requests<I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pending_count = self.shared.table().len();
        f.debug_struct("Requests").field("pending_count", &pending_count).finish_non_exhaustive()
    }
}

impl<I: MessageIds> fmt::Debug for Pushes<I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pushes").finish_non_exhaustive()
    }
}

/// A request that waits for its response. Dropped, it does not wait any more.
pub struct Pending<I: MessageIds> {
    id: I::Id,
    number: u64,
    response: Waiter<Result<OwnedMessage, Error>>,
    shared: Arc<Shared<I>>,
}

impl<I: MessageIds> Pending<I> {
    /// The id that the request was sent with.
    #[must_use]
    pub const fn id(&self) -> &I::Id {
        &self.id
    }

    /// Waits for the response, over any number of connections.
    ///
    /// # Errors
    /// [`Error::Timeout`] of [`Waiting::Response`]; [`Error::Unanswered`] if the connection is lost before or
    /// [`Pushes`] is dropped, which says whether the server may have acted on the request. A request that had to wait
    /// for a connection may have any error of [`Sender::send`].
    pub fn wait(self, timeout: Duration) -> Result<OwnedMessage, Error> {
        match self.response.recv_timeout(timeout) {
            Ok(response) => response,
            Err(RecvTimeoutError::Timeout) => Err(Error::Timeout(Waiting::Response)),
            // Who takes the entry out says why.
            Err(RecvTimeoutError::Disconnected) => Err(Error::Unanswered { was_sent: true }),
        }
    }
}

impl<I: MessageIds> Drop for Pending<I> {
    fn drop(&mut self) {
        self.shared.table().remove(&self.id, self.number);
    }
}

impl<I: MessageIds> fmt::Debug for Pending<I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pending").field("number", &self.number).finish_non_exhaustive()
    }
}
