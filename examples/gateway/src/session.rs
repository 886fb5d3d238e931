//! `/ws`: a connection from its request to its end.

use std::sync::Arc;
use std::time::SystemTime;

use ringwire::{Accept, Answer, CloseCause, CloseCode, Ctx, Handler, Message, Request, Response};

use crate::app::App;
use crate::auth::{self, BEARER, Claims, Refused};

/// Of a connection whose token has expired: get another one, and come back.
pub const EXPIRED: CloseCode = CloseCode::new(4102);
/// Of a user who has as many connections as may be.
pub const TOO_MANY: CloseCode = CloseCode::new(4010);

/// The handler of `/ws`.
#[derive(Debug)]
pub struct Session {
    app: Arc<App>,
}

impl Session {
    /// One for a worker.
    #[must_use]
    pub fn new(app: Arc<App>) -> Self {
        Self { app }
    }

    fn claims(&self, request: &Request<'_>) -> Result<Claims, Refused> {
        let token = auth::token_of(request).ok_or(Refused::Missing)?;
        self.app.verifier.load().verify(&token, SystemTime::now())
    }
}

impl Handler for Session {
    type State = Claims;

    fn on_request(&mut self, request: &Request<'_>) -> Answer<Claims> {
        match self.claims(request) {
            Ok(claims) => {
                let accept = Accept::new(claims);
                match request.subprotocols().any(|name| name == BEARER) {
                    true => accept.with_subprotocol(BEARER).into(),
                    false => accept.into(),
                }
            }
            Err(refused) => {
                self.app.counters.refused(refused);
                Response::from(refused).into()
            }
        }
    }

    fn on_open(&mut self, ctx: &mut Ctx<'_, Claims>) {
        let id = ctx.id();
        let (claims, mut out) = ctx.split();
        if !self.app.presence.enter(claims.sub, &claims.username, id) {
            let _ = out.close(TOO_MANY, "this user has as many connections as may be");
            return;
        }
        let _ = out.set_deadline(claims.expiry(), EXPIRED);
    }

    fn on_message(&mut self, ctx: &mut Ctx<'_, Claims>, message: Message<'_>) {
        let _ = ctx.send(message);
    }

    fn on_close(&mut self, ctx: &mut Ctx<'_, Claims>, _cause: &CloseCause) {
        self.app.presence.leave(ctx.state().sub, ctx.id());
    }
}
