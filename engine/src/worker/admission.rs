//! Which requests are refused before the application hears of them.

use crate::handler::Response;
use crate::request::Request;
use crate::shared::Shared;

impl Shared {
    /// The refusal of a request for a WebSocket that the engine does not let in, whatever the application would say.
    pub(super) fn refusal(&self, request: &Request<'_>) -> Option<Response> {
        let _ = request;
        self.draining.map(|_| self.refuse_while_draining())
    }
}
