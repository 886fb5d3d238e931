//! Ordinary HTTP/1.1 beside the upgrade (RFC 9112), without IO: the bodies of requests, and answers.
//!
//! ```text
//!  bytes ─► HeadScanner ─► server::Request::parse ─► body_framing ─► BodyDecoder ─► body
//!                                     └► Exchange ─► Response::encode_for ─► bytes
//! ```
//!
//! A head is found, parsed and judged by [`handshake`](crate::handshake), whether it asks for a WebSocket or not.
//! What is not here: routes, the order of pipelined requests, deadlines, and bodies that are handed over in parts.

mod body;
mod date;
mod etag;
mod response;

pub use body::{BodyDecoder, BodyError, BodyFraming};
pub use date::HttpDate;
pub use etag::EntityTag;
pub use response::{CONTINUE, Exchange, Response};
