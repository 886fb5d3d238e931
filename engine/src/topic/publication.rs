//! What is published: encoded once, and compressed once for each size of window.

#![expect(
    clippy::disallowed_types,
    reason = "a publication is referred to by every worker with subscribers"
)]

use std::sync::{Arc, OnceLock};

use ringwire_codec::deflate::WindowBits;
use ringwire_codec::{Connection, Message, Role, Unmasked};

use crate::base::budget::Budget;
use crate::base::output::SharedBytes;
use crate::conn::id::ConnId;
use crate::conn::options::{Backpressure, Compress};

/// Sizes of windows.
const WINDOWS: usize = (WindowBits::MAX.get() - WindowBits::MIN.get()) as usize + 1;

/// How a message is published. The default is how [`Ctx::publish`](crate::Ctx::publish) does it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PublishOptions<'a> {
    /// This connection does not get it: the sender, say. Default: none.
    pub except: Option<ConnId>,
    /// Connections with this name do not get it: all of a user. Default: none.
    pub except_name: Option<&'a str>,
    /// Where it has to wait, it replaces a publication to the same topic with the same key that still waits. Default:
    /// none.
    pub key: Option<u64>,
    /// Whether it is compressed for connections on which that was agreed on. Default: by its length.
    pub compress: Compress,
    /// Who hears it, where the server is a node of a cluster. Default: all nodes.
    pub reach: Reach,
}

/// How far a publication goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Reach {
    /// To the subscribers of all nodes of the [cluster](crate::cluster), if there is one.
    #[default]
    Cluster,
    /// To those of this server.
    Server,
}

impl<'a> PublishOptions<'a> {
    /// Sets [`except`](Self::except).
    #[must_use]
    pub const fn with_except(mut self, conn: ConnId) -> Self {
        self.except = Some(conn);
        self
    }

    /// Sets [`except_name`](Self::except_name), which is a name that [`Ctx::register`](crate::Ctx::register) gives. A
    /// connection that has it when its worker delivers the publication does not get that. So one that registers before
    /// it subscribes never gets a publication that excepts its name.
    ///
    /// ```
    /// # use ringwire::{Handle, topics::{PublishError, PublishOptions}};
    /// /// Everybody else hears that a user is online.
    /// fn announce(handle: &Handle, name: &str) -> Result<(), PublishError> {
    ///     let text = format!("{name} is online");
    ///     handle.publish_with("presence", &*text, PublishOptions::default().with_except_name(name))
    /// }
    /// ```
    #[must_use]
    pub const fn with_except_name(mut self, name: &'a str) -> Self {
        self.except_name = Some(name);
        self
    }

    /// Sets [`key`](Self::key).
    #[must_use]
    pub const fn with_key(mut self, key: u64) -> Self {
        self.key = Some(key);
        self
    }

    /// Sets [`compress`](Self::compress).
    #[must_use]
    pub const fn with_compress(mut self, compress: Compress) -> Self {
        self.compress = compress;
        self
    }

    /// Sets [`reach`](Self::reach).
    #[must_use]
    pub const fn with_reach(mut self, reach: Reach) -> Self {
        self.reach = reach;
        self
    }
}

/// A publication as workers share it.
pub(crate) type SharedPublication = Arc<Publication>;

/// See the [module's documentation](self).
#[derive(Debug)]
pub(crate) struct Publication {
    pub(crate) topic: Box<str>,
    /// Of the topic, the same for all workers.
    pub(crate) hash: u64,
    /// Its frame, as a server sends it.
    pub(crate) frame: SharedBytes,
    payload_start: usize,
    is_text: bool,
    deflated: [OnceLock<SharedBytes>; WINDOWS],
    pub(crate) except: Option<ConnId>,
    pub(crate) except_name: Option<Box<str>>,
    /// Of the topic and the key.
    pub(crate) key: Option<u64>,
    pub(crate) compress: Compress,
    /// For subscribers who do not keep up, if the topic has one of its own.
    pub(crate) policy: Option<Backpressure>,
    /// Its number among those of its class of topics, where the topic has a history.
    pub(crate) turn: Option<u64>,
}

/// What is known of a topic.
#[derive(Clone, Copy, Debug)]
pub(super) struct Terms<'a> {
    pub(super) hash: u64,
    /// The hash of the topic and the publication's key.
    pub(super) key: Option<u64>,
    pub(super) policy: Option<Backpressure>,
    pub(super) turn: Option<u64>,
    /// Memory for what waits.
    pub(super) budget: &'a Budget,
}

impl Publication {
    /// Encodes a message to a topic that is valid.
    pub(super) fn new(
        topic: &str,
        terms: Terms<'_>,
        message: Message<'_>,
        options: PublishOptions<'_>,
    ) -> SharedPublication {
        let mut frame = Vec::with_capacity(header_len(message.len()) + message.len());
        // An open connection in the server's role sends whatever it is given.
        let _ = Connection::new(Role::Server).send(message, &mut Unmasked, &mut frame);
        let PublishOptions { except, except_name, compress, .. } = options;
        Arc::new(Self {
            topic: topic.into(),
            hash: terms.hash,
            payload_start: frame.len() - message.len(),
            frame: SharedBytes::new(frame, terms.budget),
            is_text: message.is_text(),
            deflated: Default::default(),
            except,
            except_name: except_name.map(Into::into),
            key: terms.key,
            compress,
            policy: terms.policy,
            turn: terms.turn,
        })
    }

    /// The message.
    pub(crate) fn message(&self) -> Message<'_> {
        let payload = self.frame.get(self.payload_start..).unwrap_or_default();
        match std::str::from_utf8(payload) {
            Ok(text) if self.is_text => Message::Text(text),
            _ => Message::Binary(payload),
        }
    }

    /// The length of its payload.
    pub(crate) fn len(&self) -> usize {
        self.frame.len() - self.payload_start
    }

    /// Its frame for connections with this window. `encode` makes it, once for all workers.
    pub(crate) fn deflated(
        &self,
        window: WindowBits,
        encode: impl FnOnce() -> SharedBytes,
    ) -> &SharedBytes {
        let index = usize::from(window.get() - WindowBits::MIN.get());
        self.deflated[index].get_or_init(encode)
    }

    /// Whether it goes to the same connections as `other`, and nothing may be dropped of only one of them.
    pub(crate) fn goes_with(&self, other: &Self) -> bool {
        self.key.is_none()
            && other.key.is_none()
            && self.topic == other.topic
            && self.except == other.except
            && self.except_name == other.except_name
            && self.compress == other.compress
    }
}

/// RFC 6455 §5.2, without a mask.
fn header_len(payload_len: usize) -> usize {
    match payload_len {
        0..126 => 2,
        126..0x1_0000 => 4,
        _ => 10,
    }
}
