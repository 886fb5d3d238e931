//! permessage-deflate: messages that are compressed (RFC 7692).
//!
//! Here are the agreement between the two ends ([`Offer`], [`Policy`], [`Agreement`]) and the two
//! machines that do the work ([`Compressor`], [`Decompressor`]). What RSV1 means for frames is in
//! the connection, which owns neither machine: the caller passes them in.
//!
//! ```text
//!  client: Offer ─► Request::with_deflate … Response::check_upgrade ───► Agreement ─┐
//!  server: Policy ─► Upgrade::deflate ─► Agreement ─► Accept::with_deflate          │
//!                                           └──────► Connection::with_deflate ◄─────┘
//! ```
//!
//! # Who owns the machines
//!
//! They are large, whatever was agreed (see [`Compressor::memory_len`] and
//! [`Decompressor::memory_len`]), and there are two ways to have them:
//!
//! - *Shared*: one of each serves all connections of a thread. Each message is compressed by itself,
//!   so both directions are agreed to be without context takeover, and a connection holds no memory
//!   for it. [`Policy::default`] asks for this.
//! - *Dedicated*: one of each for a connection, which go on with the window of the message before
//!   (context takeover) and compress short, similar messages several times better.
//!
//! The directions are independent. [`Agreement::takeover`] says which of them need a machine of
//! their own. A sender may always do without the context of earlier messages, so a dedicated
//! compressor can be thrown away at any time, or be replaced by the shared one. A dedicated
//! decompressor has to live as long as its connection: the peer may refer to all it has sent.

mod compress;
mod decompress;
mod negotiate;
mod raw;

pub use compress::{Compressor, Level};
pub use decompress::{Decompressor, Inflate, Totals};
pub use negotiate::{Agreement, Offer, Policy, WindowBits};
pub(crate) use negotiate::{NAME, is_deflate};

pub(crate) use decompress::Inflated;

/// What ends a sync flush, and is not sent: the length of an empty stored block (RFC 7692 §7.2.1).
const TAIL: [u8; 4] = [0, 0, 0xff, 0xff];
