//! What a client receives.

pub use ringwire_codec::OwnedMessage;

/// What a client receives, pings and pongs included.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// A message.
    Message(OwnedMessage),
    /// A ping, which is answered already.
    Ping(Vec<u8>),
    /// A pong.
    Pong(Vec<u8>),
}
