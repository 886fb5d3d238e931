//! What came before the end of a peer's stream is answered, and a clean close is no reset: plain and over TLS, with and
//! without compression, for whoever speaks frames or HTTP, on either side.

#![expect(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "tests own sockets, share gates with jobs, and send when the server has answered"
)]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod caller;
mod closes;
mod half_closes;
mod lost;
mod peer;
mod under_way;
