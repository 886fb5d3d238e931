//! HTTP for administrators.

use ringwire::{CloseCode, Request, Response, StatusCode};

use crate::{Gateway, Problem, USER};

/// Of a connection that an administrator has ended: its client is not to come back.
const DISCONNECTED: CloseCode = CloseCode::new(4410);

impl Gateway {
    pub(crate) fn check_admin(&mut self, request: &Request<'_>) -> Result<(), Problem> {
        let is_admin = self.claims(request)?.admin;
        let refusal = || Problem(StatusCode::FORBIDDEN, "for administrators".to_owned());
        is_admin.then_some(()).ok_or_else(refusal)
    }

    /// `GET /admin/online?after=NAME&limit=N`: a page of users, by name, and how many connections each has.
    pub(crate) fn list_online(&mut self, request: &Request<'_>) -> Result<Response, Problem> {
        let after = request.query_param("after").unwrap_or_default();
        let limit = request.query_param("limit").map_or(Ok(50), |limit| limit.parse());
        let limit: usize = limit.map_err(|_| bad("limit"))?;
        let mut users: Vec<_> = (self.handle.names(USER))
            .map(|(name, connections)| (name[USER.len()..].to_owned(), connections.len()))
            .filter(|(user, _)| **user > *after)
            .collect();
        users.sort_unstable();
        let has_more = users.len() > limit;
        users.truncate(limit);
        let page = serde_json::json!({ "users": users, "has_more": has_more });
        Ok(Response::json(page.to_string()))
    }

    /// `POST /admin/send?user=NAME`, with the text as its body.
    pub(crate) fn send_to_user(&mut self, request: &Request<'_>) -> Result<StatusCode, Problem> {
        let user = request.query_param("user").ok_or_else(|| bad("user"))?;
        let text = str::from_utf8(request.body()).map_err(|_| bad("body"))?;
        self.tell(&user, "admin", text)?;
        Ok(StatusCode::NO_CONTENT)
    }

    /// `POST /admin/disconnect?user=NAME`: ends all connections of a user, and says how many they were.
    pub(crate) fn disconnect(&mut self, request: &Request<'_>) -> Result<Response, Problem> {
        let user = request.query_param("user").ok_or_else(|| bad("user"))?;
        let connections = self.handle.connections(&format!("{USER}{user}"));
        for conn in &connections {
            self.handle.close(*conn, DISCONNECTED, "disconnected by an administrator")?;
        }
        Ok(Response::json(serde_json::json!({ "closed": connections.len() }).to_string()))
    }
}

fn bad(what: &str) -> Problem {
    Problem(StatusCode::BAD_REQUEST, format!("`{what}` is missing or wrong"))
}
