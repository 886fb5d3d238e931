//! HTTP for administrators.

use ringwire::{CloseCode, Request, Response, StatusCode};
use serde_json::json;

use crate::{Gateway, Problem, USER, refuse};

/// Of a connection that an administrator has ended: its client is not to come back.
const DISCONNECTED: CloseCode = CloseCode::new(4410);

impl Gateway {
    pub(crate) fn check_admin(&mut self, request: &Request<'_>) -> Result<(), Problem> {
        match self.claims(request)?.admin {
            true => Ok(()),
            false => refuse(StatusCode::FORBIDDEN, "for administrators"),
        }
    }

    /// `GET ?after=NAME&limit=N`: a page of users, by name, and how many connections each has.
    pub(crate) fn list_online(&mut self, request: &Request<'_>) -> Result<Response, Problem> {
        let after = request.query_param("after").unwrap_or_default();
        let Ok(limit) = request.query_param("limit").map_or(Ok(50), |it| it.parse::<usize>())
        else {
            return refuse(StatusCode::BAD_REQUEST, "`limit` is a number");
        };
        let mut users: Vec<_> = (self.handle.names(USER))
            .map(|(name, connections)| (name[USER.len()..].to_owned(), connections.len()))
            .filter(|(user, _)| **user > *after)
            .collect();
        users.sort_unstable();
        let page = &users[..limit.min(users.len())];
        let page = json!({ "users": page, "has_more": page.len() < users.len() });
        Ok(Response::json(page.to_string()))
    }

    /// `POST ?user=NAME`, with the text as its body.
    pub(crate) fn send_to_user(&mut self, request: &Request<'_>) -> Result<StatusCode, Problem> {
        let text = String::from_utf8_lossy(request.body());
        self.tell(&request.query_param("user").unwrap_or_default(), "admin", &text)?;
        Ok(StatusCode::NO_CONTENT)
    }

    /// `POST ?user=NAME`: ends all connections of a user, and says how many they were.
    pub(crate) fn disconnect(&mut self, request: &Request<'_>) -> Result<Response, Problem> {
        let user = request.query_param("user").unwrap_or_default();
        let connections = self.handle.connections(&format!("{USER}{user}"));
        for conn in &connections {
            self.handle.close(*conn, DISCONNECTED, "disconnected by an administrator")?;
        }
        Ok(Response::json(json!({ "closed": connections.len() }).to_string()))
    }
}
