//! Which requests are refused before the application hears of them.

use http::StatusCode;

use crate::handler::Response;
use crate::origin::OriginPolicy;
use crate::request::Request;
use crate::shared::Shared;

impl Shared {
    /// The refusal of a request for a WebSocket that the engine does not let in, whatever the application would say.
    pub(super) fn refusal(&self, request: &Request<'_>) -> Option<Response> {
        // Known here before the letter about it is read.
        if self.topics.hub.refuses_requests() {
            return Some(self.refuse_while_draining());
        }
        if self.is_short_of_memory() {
            return Some(self.refuse_for_memory());
        }
        if !self.admits_origin(request) {
            crate::event::debug!(origin = ?request.origin(), "request refused for its origin");
            self.counters.origin_refusals.add(1);
            return Some(Response::new(StatusCode::FORBIDDEN));
        }
        None
    }

    fn admits_origin(&self, request: &Request<'_>) -> bool {
        let policy = &self.limits.origin_policy;
        if *policy == OriginPolicy::Any {
            return true;
        }
        match request.header("origin") {
            None => !self.limits.requires_origin,
            Some(origin) => policy.admits(origin, request.host(), request.tls().is_some()),
        }
    }
}
