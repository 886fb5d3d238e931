//! What an ordinary answer has to know of a request.

use http::Version;

use super::Request;
use crate::http::Exchange;

impl Exchange {
    /// For the answer to this request.
    #[must_use]
    pub fn of(request: &Request<'_>) -> Self {
        let is_old = request.version() == Version::HTTP_10;
        // Behind a good answer to CONNECT the client would speak another protocol (RFC 9110 §9.3.6).
        let keep_alive = request.keep_alive() && request.method() != "CONNECT";
        Self::new(is_old, request.method() == "HEAD", keep_alive)
    }
}
