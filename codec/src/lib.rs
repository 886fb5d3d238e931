//! RFC 6455 and RFC 7692 without IO: bytes in, events and bytes out.
//!
//! [`Connection`] is the WebSocket state machine of one connection, for both roles. It takes the
//! bytes that arrived, gives [`Event`]s, and appends the bytes to be sent to a `Vec<u8>` of the
//! caller. [`handshake`] is what comes before: the HTTP upgrade; [`http`] is what else may come on the same
//! port. [`deflate`] has the machines that
//! compress and inflate messages, where both ends agree to that.
//!
//! There is no socket, clock, thread, log or random source here. The caller has them, and passes in what they
//! gave: bytes, "a new window has begun" ([`Connection::reset_control_window`]), masks
//! ([`MaskSource`]), memory ([`Buffers`]) and what to inflate with ([`deflate::Inflate`]).
//!
//! ```text
//!   bytes that arrived ──► Input ──► Connection::receive ──► Event::{Message, Part, Ping, Pong, Close}
//!                                        │ (what the protocol owes: a pong, a close)
//!   bytes to be sent ◄── Vec<u8> ◄── poll_transmit, send, send_ping, close
//! ```
//!
//! A message that arrived whole is a borrow of the input, unmasked where it lies. Only what the end
//! of a read has cut is copied, once, into a buffer from [`Buffers`]. A compressed message is inflated
//! into one.
//!
//! # Example
//!
//! A client and a server, joined in memory:
//!
//! ```
//! use ringwire_codec::{Config, Connection, Event, Heap, Input, Message, Role};
//!
//! let config = Config::default();
//! let mut client = Connection::new(Role::Client);
//! let mut server = Connection::new(Role::Server);
//! // A program takes its masks from a CSPRNG.
//! let mut masks = || [0x37, 0xfa, 0x21, 0x3d];
//!
//! let mut wire = Vec::new();
//! client.send(Message::Text("Hello"), &mut masks, &mut wire)?;
//!
//! let mut input = Input::new(&mut wire);
//! let event = server.receive(&config, &mut Heap, &mut input)?;
//! let Some(Event::Message(message)) = event else { panic!("a message was sent") };
//! assert_eq!(message.as_message(), Message::Text("Hello"));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! The same, compressed, with machines that serve any number of connections:
//!
//! ```
//! use ringwire_codec::deflate::{Compressor, Decompressor, Inflate, Level, WindowBits};
//! use ringwire_codec::{Config, Connection, Event, Heap, Input, Message, Role};
//!
//! let config = Config::default();
//! let mut compressor = Compressor::new(Level::default(), WindowBits::MAX);
//! let mut decompressor = Decompressor::new();
//! // Both ends have agreed to it in the handshake.
//! let mut client = Connection::new(Role::Client).with_deflate();
//! let mut server = Connection::new(Role::Server).with_deflate();
//! let mut masks = || [0x37, 0xfa, 0x21, 0x3d];
//!
//! let text = "Hello, hello, hello, hello!";
//! let mut wire = Vec::new();
//! client.send_compressed(Message::Text(text), &mut compressor, &mut masks, &mut wire)?;
//! assert!(wire.len() < text.len());
//!
//! let mut input = Input::new(&mut wire);
//! let inflate = Inflate::Shared(&mut decompressor);
//! let event = server.receive_with(&config, &mut Heap, inflate, &mut input)?;
//! let Some(Event::Message(message)) = event else { panic!("a message was sent") };
//! assert_eq!(message.as_message(), Message::Text(text));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#![cfg_attr(not(test), warn(clippy::indexing_slicing))]

mod buffers;
mod close;
mod config;
mod connection;
pub mod deflate;
mod error;
pub mod extension;
mod frame;
pub mod handshake;
mod head;
pub mod http;
mod input;
pub mod mask;
mod masks;
mod message;
pub mod proxy_protocol;
mod role;
mod utf8;

pub use buffers::{Buffers, Heap};
pub use close::{AbnormalClosure, CloseCode, CloseFrame, CloseState, cut_reason};
pub use config::Config;
pub use connection::Connection;
pub use error::{Error, Limit, SendError, Violation};
pub use frame::{FrameHeader, OpCode};
pub use input::Input;
#[cfg(feature = "masks")]
pub use masks::Masks;
pub use masks::{MaskSource, Unmasked};
pub use message::{
    ControlPayload, Event, InflatedPart, Message, MessagePart, OwnedMessage, ReceivedMessage,
};
pub use role::Role;

/// The code of the README runs as a test.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
mod readme {}
