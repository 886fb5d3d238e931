//! Who is online, over all workers of a server and all nodes of a cluster. Nothing here names NATS: what nodes say to
//! each other are publications, which whatever [`Bus`](ringwire::cluster::Bus) the server has carries. Without a bus it
//! is the list of one server.
//!
//! An application shares one [`Online`] among its workers and tells it of each connection; it says who is online
//! anywhere, page by page, and calls a function for each user who comes online or goes, once on each node, so that the
//! node tells its own clients.
//!
//! ```
//! use ringwire::{Answer, CloseCause, Ctx, Handler, Message, Request, topics};
//! use ringwire_nats::online::{Online, Profile};
//! use serde::{Deserialize, Serialize};
//!
//! /// What each connection says of its user.
//! #[derive(Clone, Debug, Serialize, Deserialize)]
//! struct Card {
//!     username: String,
//! }
//!
//! impl Profile for Card {
//!     fn merge(&mut self, _later: &Self) {}
//! }
//!
//! struct Session(Online<String, Card>);
//!
//! impl Handler for Session {
//!     type State = String;
//!
//!     fn on_request(&mut self, request: &Request<'_>) -> Answer<String> {
//!         Answer::accept(request.path().to_owned()) // Who it is: see the guide of authentication.
//!     }
//!
//!     fn on_open(&mut self, ctx: &mut Ctx<'_, String>) {
//!         let (user, conn) = (ctx.state().clone(), ctx.id());
//!         let card = Card { username: user.clone() };
//!         if !self.0.enter(&user, card, conn) || ctx.register(&user).is_err() {
//!             let _ = ctx.close(ringwire::CloseCode::new(4010), "too many connections");
//!         }
//!     }
//!
//!     fn on_message(&mut self, _ctx: &mut Ctx<'_, String>, _message: Message<'_>) {}
//!
//!     fn on_presence(&mut self, presence: &topics::Presence<'_>) {
//!         self.0.follow(&presence.name.to_owned(), presence);
//!     }
//!
//!     fn on_close(&mut self, ctx: &mut Ctx<'_, String>, _cause: &CloseCause) {
//!         self.0.leave(ctx.state(), ctx.id());
//!     }
//! }
//!
//! // At most 16 connections of a user; a node that is silent for 5 s has lost its users.
//! let online = Online::new(16).with_node("node-1", std::time::Duration::from_secs(5));
//! let session = Session(online.clone());
//! # let _ = session;
//! // Once there is a server: online.start(worker.handle(), |news| …)
//! ```
//!
//! # What is promised
//!
//! - On each node the news of a user alternate: joined, left, joined. Whoever is on several nodes joins with the first
//!   and leaves with the last.
//! - A change is sent within 50 ms, together with the others of that time, 500 users in one message.
//! - Nodes know each other as soon as one has heard the other. A node says five times within a lease that it lives. One
//!   that is silent for longer than the lease is taken for dead, and its users have left. Once it is heard again, they
//!   join again.
//! - Whatever is lost shows by the numbers of messages, and the whole list is asked for, 500 users at a time. So all
//!   nodes agree as soon as messages get through, whatever was lost before.
//!
//! # What it costs
//!
//! Each node keeps all users of all nodes: about 200 bytes for each and node, and the [`Profile`]. A change is one
//! message to every other node. The list of this node is under one lock of readers and writers, which is written when
//! connections come and go; [`of`](Online::of) and [`page`](Online::page) read it.
//!
//! The topic is [`TOPIC`]. A client that could publish to it could say who is online: let none do so.

#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "workers share who is online, and a thread beside them speaks to the other nodes"
)]

mod local;
mod node;
mod roster;
#[cfg(test)]
mod tests;

use std::fmt::{self, Debug};
use std::hash::Hash;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use ringwire::topics::{Presence, PresenceChange};
use ringwire::{CloseCode, ConnId, Handle, PostError};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use self::local::Local;
use self::node::Node;
use self::roster::Letter;

/// The topic of what nodes say to each other.
pub const TOPIC: &str = "nodes.presence";

/// What users are known by, such as a UUID or a name. Whatever can be one is one.
pub trait UserId:
    Clone + Ord + Hash + Debug + Serialize + DeserializeOwned + Send + Sync + 'static
{
}

impl<T> UserId for T where
    T: Clone + Ord + Hash + Debug + Serialize + DeserializeOwned + Send + Sync + 'static
{
}

/// What a connection says of its user: a name, say, or what it can do. Other nodes hear it, as JSON.
pub trait Profile: Clone + Debug + Serialize + DeserializeOwned + Send + Sync + 'static {
    /// Takes in what a later connection of the same user says.
    fn merge(&mut self, later: &Self);
}

/// A user who is online.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct User<P> {
    /// Since when, to the millisecond.
    #[serde(with = "millis")]
    pub since: SystemTime,
    /// How many connections there are.
    pub connection_count: usize,
    /// What they say, the first one's [merged](Profile::merge) with the others'.
    pub profile: P,
}

impl<P: Profile> User<P> {
    /// What two nodes say of a user.
    fn with(self, other: Self) -> Self {
        let (mut first, then) =
            if self.since <= other.since { (self, other) } else { (other, self) };
        first.connection_count += then.connection_count;
        first.profile.merge(&then.profile);
        first
    }
}

/// Some users who are online, by their id.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Page<K, P> {
    /// The users.
    pub users: Vec<(K, User<P>)>,
    /// Behind whom the next page begins, if there is one.
    pub next: Option<K>,
}

/// How much is online.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Connections to this node.
    pub connections: usize,
    /// Users with connections to this node.
    pub users_here: usize,
    /// Users on all nodes, as far as their news have come.
    pub users: usize,
}

/// What the clients of this node are to hear.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News<K, P> {
    /// A user is online somewhere, and was nowhere.
    Joined(K, P),
    /// A user is online nowhere any more.
    Left(K, P),
}

/// Who is online. See the [module's documentation](self). Clones are of the same list.
pub struct Online<K, P> {
    shared: Arc<Shared<K, P>>,
}

struct Shared<K, P> {
    local: Local<K, P>,
    node: Option<Node<K, P>>,
    outside: OnceLock<Outside<K, P>>,
}

/// What there is once a server runs.
struct Outside<K, P> {
    handle: Handle,
    tell: Box<dyn Fn(News<K, P>) + Send + Sync>,
}

impl<K: UserId, P: Profile> Online<K, P> {
    /// Nobody yet, on a server by itself. A user may have so many connections to it.
    #[must_use]
    pub fn new(max_connections_per_user: usize) -> Self {
        Self::of_parts(Local::new(max_connections_per_user), None)
    }

    /// Makes the server a node among others, with a name that they show. The users of a node are gone when it has been
    /// silent for as long as the lease, which should be the same on all nodes: a few seconds.
    #[must_use]
    pub fn with_node(self, name: &str, lease: Duration) -> Self {
        let limit = self.shared.local.max_connections_per_user();
        Self::of_parts(Local::new(limit), Some(Node::new(name, lease)))
    }

    fn of_parts(local: Local<K, P>, node: Option<Node<K, P>>) -> Self {
        Self { shared: Arc::new(Shared { local, node, outside: OnceLock::new() }) }
    }

    /// Begins, once there is a server: from now on `tell` is called for each user who comes online or goes, in order
    /// for each user. It is called by workers and by the thread that the bus or this list has, one call at a time where
    /// there are other nodes; it must not block, nor call this list. Only the first call of this function counts.
    ///
    /// # Panics
    /// The system has no thread left.
    pub fn start(&self, handle: &Handle, tell: impl Fn(News<K, P>) + Send + Sync + 'static) {
        let outside = Outside { handle: handle.clone(), tell: Box::new(tell) };
        if self.shared.outside.set(outside).is_ok() && self.shared.node.is_some() {
            node::start(&self.shared, handle);
        }
    }

    /// A connection of a user has come; `false` where the user has as many as may be, and it does not count. To be
    /// called before the connection is [registered](ringwire::Ctx::register) under the user's name, of which
    /// [`follow`](Self::follow) hears.
    #[must_use]
    pub fn enter(&self, user: &K, profile: P, conn: ConnId) -> bool {
        let has_entered = self.shared.local.enter(user, profile, conn);
        if has_entered {
            self.shared.note(user);
        }
        has_entered
    }

    /// A connection has ended. One that has not [entered](Self::enter) changes nothing.
    pub fn leave(&self, user: &K, conn: ConnId) {
        if self.shared.local.leave(user, conn) {
            self.shared.note(user);
        }
    }

    /// The engine says that connections registered under the name of a user have come or gone: what
    /// [`on_presence`](ringwire::Handler::on_presence) is called with, which is in order for each name.
    pub fn follow(&self, user: &K, presence: &Presence<'_>) {
        let news = match presence.change {
            PresenceChange::Joined => self.shared.local.tell_joined(user),
            PresenceChange::Left if presence.is_last => self.shared.local.tell_left(user),
            _ => None,
        };
        match (&self.shared.node, news) {
            (Some(node), Some(news)) => self.shared.tell_own(node, &news),
            (None, Some(news)) => self.shared.tell(news),
            (_, None) => {}
        }
    }

    /// A user, if online on any node.
    #[must_use]
    pub fn of(&self, user: &K) -> Option<User<P>> {
        let elsewhere = self.shared.node.as_ref().and_then(|node| node.elsewhere(user));
        self.shared.local.of(user).into_iter().chain(elsewhere).reduce(User::with)
    }

    /// The connections of a user to this node.
    #[must_use]
    pub fn connections(&self, user: &K) -> Vec<ConnId> {
        self.shared.local.connections(user)
    }

    /// The first users behind `after`, by their id, on all nodes.
    #[must_use]
    pub fn page(&self, after: Option<&K>, limit: usize) -> Page<K, P> {
        let own = self.page_here(after, limit);
        match &self.shared.node {
            Some(node) => node.merge(own, after, limit),
            None => own,
        }
    }

    /// The first users behind `after`, by their id, with connections to this node, and those alone.
    #[must_use]
    pub fn page_here(&self, after: Option<&K>, limit: usize) -> Page<K, P> {
        self.shared.local.page(after, limit)
    }

    /// How much is online.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let counts = self.shared.local.counts();
        match &self.shared.node {
            Some(node) => Counts { users: node.user_count(), ..counts },
            None => counts,
        }
    }

    /// Adds up what `of` says of each user's connections on each node: how many they are, and what they say. It looks
    /// at all users, while nobody can come or go: for administrators, who ask seldom.
    pub fn sum(&self, of: impl Fn(usize, &P) -> usize) -> usize {
        let elsewhere = self.shared.node.as_ref().map_or(0, |node| node.sum(&of));
        self.shared.local.sum(&of) + elsewhere
    }

    /// The names of the other nodes that live; `None` of a server by itself.
    #[must_use]
    pub fn nodes(&self) -> Option<Vec<String>> {
        self.shared.node.as_ref().map(Node::others)
    }

    /// Closes all connections of a user, on all nodes. One that comes meanwhile stays.
    ///
    /// # Errors
    /// A worker of this server has no room for the order, and its connections stay.
    ///
    /// # Panics
    /// There is no server: [`start`](Self::start) comes first.
    pub fn close(&self, user: &K, code: CloseCode, reason: &str) -> Result<(), PostError> {
        if self.shared.node.is_some() {
            let (user, reason) = (user.clone(), reason.to_owned());
            self.shared.send(&Letter::Close { user, code: code.get(), reason });
        }
        self.shared.close_here(user, code, reason)
    }
}

impl<K: UserId, P: Profile> Shared<K, P> {
    fn outside(&self) -> &Outside<K, P> {
        self.outside.get().expect("`Online::start` is called before anybody comes")
    }

    fn tell(&self, news: News<K, P>) {
        (self.outside().tell)(news);
    }

    fn close_here(&self, user: &K, code: CloseCode, reason: &str) -> Result<(), PostError> {
        let close = |conn| self.outside().handle.close(conn, code, reason);
        // All of them are tried.
        self.local.connections(user).into_iter().map(close).fold(Ok(()), Result::and)
    }
}

impl<K, P> Clone for Online<K, P> {
    fn clone(&self) -> Self {
        Self { shared: self.shared.clone() }
    }
}

impl<K: UserId, P: Profile> Debug for Online<K, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Online")
            .field("counts", &self.counts())
            .field("nodes", &self.nodes())
            .finish_non_exhaustive()
    }
}

/// Times as milliseconds since 1970.
mod millis {
    use std::time::{Duration, SystemTime};

    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(time: &SystemTime, to: S) -> Result<S::Ok, S::Error> {
        let since_1970 = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        to.serialize_u64(u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<SystemTime, D::Error> {
        let since_1970 = Duration::from_millis(u64::deserialize(from)?);
        let time = SystemTime::UNIX_EPOCH.checked_add(since_1970);
        time.ok_or_else(|| serde::de::Error::custom("a time that no clock shows"))
    }
}
