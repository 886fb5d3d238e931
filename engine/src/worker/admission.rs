//! Which requests are refused before the application hears of them.

use http::StatusCode;
use ringwire_codec::http::Response;

use crate::app::request::Request;
use crate::config::origin::OriginPolicy;
use crate::state::Shared;

const FOREIGN_ORIGIN: &str =
    "the Origin of the page is not allowed to open WebSockets here (setting: origin_policy)\n";

impl Shared {
    /// The refusal of a request for a WebSocket that the engine does not let in, whatever the application would say.
    pub(super) fn refusal(&self, request: &Request<'_>) -> Option<Response> {
        // Known here before the letter about it is read.
        if self.hub.refuses_requests() {
            return Some(self.refuse_while_draining());
        }
        if self.is_short_of_memory() {
            return Some(self.refuse_for_memory());
        }
        if !self.admits_origin(request) {
            crate::base::event::debug!(origin = ?request.origin(), "request refused for its origin");
            self.counters.origin_refusals.add(1);
            return Some(Response::text(FOREIGN_ORIGIN).with_status(StatusCode::FORBIDDEN));
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
