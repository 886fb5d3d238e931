//! What the heads of requests and answers are made of: their limits, lines, headers and tokens (RFC 9112), and what can
//! be wrong with them. What they say is for [`handshake`](crate::handshake) and [`http`](crate::http).

mod error;
mod headers;
mod scanner;
mod tokens;

pub use error::HandshakeError;
pub use headers::Headers;
pub(crate) use headers::{is_reserved, push_header, trim, without_empty_lines};
pub use scanner::{HeadLimits, HeadScanner, MAX_HEADER_COUNT};
pub use tokens::{Extension, Extensions, Params, Tokens};
pub(crate) use tokens::{is_host, is_token_byte, lists, token};
