//! `/ws`: a connection from its request to its end.
//!
//! Which protocol it speaks goes by the subprotocol (RFC 6455 §1.9): `rooms.text`, `rooms.json`, `chat.json`, and
//! `envelope.json`, which is also that of clients that ask for none.

use std::sync::Arc;
use std::time::SystemTime;

use ringwire::handshake::BEARER;
use ringwire::json::object_of;
use ringwire::{
    Accept, Answer, CloseCause, CloseCode, Ctx, Handler, Message, Request, Response, topics,
};
use serde::Deserialize;
use serde_json::json;
use uuid::Uuid;

use crate::app::App;
use crate::auth::{Claims, Refused};
use crate::chat;
use crate::envelope;
use crate::presence::Known;
use crate::rooms::{self, json::Commands};

/// Of a user who has as many connections as may be.
pub const TOO_MANY: CloseCode = CloseCode::new(4010);
/// Of a user who is no longer welcome.
pub const REVOKED: CloseCode = Refused::Revoked.close_code();
/// Of a connection whose token has expired: get another one, and come back.
pub const EXPIRED: CloseCode = Refused::Expired.close_code();

/// What all connections hear that speak envelopes.
pub const EVERYBODY: &str = "everybody";
/// What the connections of a user are called begins with this; the user's id follows.
pub const USER: &str = "user.";

/// What a connection is told whose token has expired.
const EXPIRED_TEXT: &str = "expired: refresh first";

/// The topic of what is for one user.
#[must_use]
pub fn topic_of(user: Uuid) -> String {
    format!("to.{user}")
}

/// What a connection speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// [`envelope`]
    Envelope,
    /// [`rooms::text`]
    RoomsText,
    /// [`rooms::json`]
    RoomsJson,
    /// [`chat`]
    Chat,
}

impl Protocol {
    fn of(name: &str) -> Option<Self> {
        match name {
            "envelope.json" => Some(Self::Envelope),
            "rooms.text" => Some(Self::RoomsText),
            "rooms.json" => Some(Self::RoomsJson),
            "chat.json" => Some(Self::Chat),
            _ => None,
        }
    }
}

/// What a connection is.
#[derive(Debug)]
pub struct State {
    protocol: Protocol,
    /// Who it belongs to: nobody until a login.
    claims: Option<Box<Claims>>,
}

impl State {
    pub(crate) fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// Who it belongs to; nobody until a login.
    #[must_use]
    pub fn claims(&self) -> Option<&Claims> {
        self.claims.as_deref()
    }
}

/// The handler of `/ws`.
#[derive(Debug)]
pub struct Session {
    app: Arc<App>,
    commands: Commands,
}

impl Session {
    /// One for a worker.
    #[must_use]
    pub fn new(app: Arc<App>) -> Self {
        Self { commands: rooms::json::commands(&app), app }
    }

    /// Who a request comes from. Nobody, where a login may follow.
    fn claims(&self, request: &Request<'_>) -> Result<Option<Claims>, Refused> {
        match request.token("token") {
            None if self.app.can_login() => Ok(None),
            None => Err(Refused::Missing),
            Some(token) => self.app.verifier.load().verify(&token, SystemTime::now()).map(Some),
        }
    }

    fn log_in(&self, ctx: &mut Ctx<'_, State>, text: &str) {
        #[derive(Deserialize)]
        struct Login {
            username: String,
            password: String,
        }

        let Some(Login { username, password }) = object_of(text) else {
            return refuse_login(&self.app, ctx, Refused::Credentials);
        };
        let (app, asking) = (self.app.clone(), self.app.clone());
        let login = async move { asking.login(&username, &password).await };
        // The message was in time, and so must its check be.
        let (time, code) = (self.app.settings.login_timeout, Refused::Unavailable.close_code());
        let _ = ctx.set_deadline_with(time, code, "the login could not be checked in time");
        ctx.pause();
        let begun = ctx.spawn(login, move |ctx, outcome| {
            ctx.resume();
            match outcome {
                // It has been closed meanwhile.
                _ if !ctx.is_open() => {}
                Ok(claims) => {
                    ctx.state_mut().claims = Some(Box::new(claims));
                    let _ = ctx.send(&json!({ "status": "ok" }).to_string());
                    enter(&app, ctx);
                }
                Err(refused) => refuse_login(&app, ctx, refused),
            }
        });
        if begun.is_err() {
            refuse_login(&self.app, ctx, Refused::Unavailable);
        }
    }
}

fn refuse_login(app: &App, ctx: &mut Ctx<'_, State>, refused: Refused) {
    app.counters.refused(refused);
    let status = json!({ "status": "refused", "reason": refused.reason() });
    let _ = ctx.send(&status.to_string());
    let _ = ctx.close(refused.close_code(), refused.reason());
}

/// A connection's user is known: it hears, is heard, and stays until its token expires.
fn enter(app: &App, ctx: &mut Ctx<'_, State>) {
    let id = ctx.id();
    let (state, mut out) = ctx.split();
    let (protocol, Some(claims)) = (state.protocol, state.claims()) else { return };
    let envelopes = usize::from(protocol == Protocol::Envelope);
    let known = Known { username: claims.username.clone(), envelopes };
    if !app.presence.enter(&claims.sub, known, id) {
        state.claims = None;
        let _ = out.close(TOO_MANY, "the user has as many connections as may be");
        return;
    }
    out.set_authenticated();
    let topics = match protocol {
        Protocol::Envelope => vec![EVERYBODY.to_owned(), topic_of(claims.sub)],
        Protocol::RoomsText => vec![rooms::TEXT.to_owned()],
        Protocol::RoomsJson => vec![rooms::JSON.to_owned()],
        Protocol::Chat => vec![chat::TOPIC.to_owned()],
    };
    // The name first: what is said of the user is not for who has it.
    let end = app.verifier.load().end_of(claims);
    let is_known = out.set_deadline_with(end, EXPIRED, EXPIRED_TEXT).is_ok()
        && out.register(&format!("{USER}{}", claims.sub)).is_ok()
        && topics.iter().all(|topic| out.subscribe(topic).is_ok());
    if !is_known {
        let _ = out.close(CloseCode::INTERNAL_ERROR, "the connection can't be listed");
    }
}

/// Has a connection go on with a new token of the same user, and calls `then` with its end.
pub(crate) fn refresh(
    app: &Arc<App>,
    ctx: &mut Ctx<'_, State>,
    token: &str,
    then: impl FnOnce(&mut Ctx<'_, State>, Result<SystemTime, Refused>) + 'static,
) {
    let (renewing, asking, token) = (app.clone(), app.clone(), token.to_owned());
    let identity = async move { asking.identify(&token).await };
    // One that is closing keeps its token.
    let _ = ctx.spawn_or_pause(identity, move |ctx, outcome| {
        // Another user's is as good as none.
        let own = outcome.and_then(|it| match ctx.state().claims() {
            Some(claims) if claims.sub == it.sub => Ok(it),
            _ => Err(Refused::Claims),
        });
        let renewed = own.map(|claims| {
            let end = renewing.verifier.load().end_of(&claims);
            let _ = ctx.set_deadline_with(end, EXPIRED, EXPIRED_TEXT);
            ctx.state_mut().claims = Some(Box::new(claims));
            end
        });
        then(ctx, renewed);
        if let Err(refused) = renewed {
            renewing.counters.refused(refused);
            if refused.close_code() == REVOKED {
                let _ = ctx.close(REVOKED, refused.reason());
            }
        }
    });
}

/// Closes a connection whose user is refused by now, whose token has been revoked, or has expired unnoticed; whether it
/// is one.
pub fn close_if_stale(app: &App, ctx: &mut Ctx<'_, State>, refused: Option<Refused>) -> bool {
    let Some(claims) = ctx.state().claims() else { return false };
    let verifier = app.verifier.load();
    let refused = match refused {
        None if verifier.is_revoked(claims) => Some(Refused::Revoked),
        None if verifier.end_of(claims) <= SystemTime::now() => Some(Refused::Expired),
        refused => refused,
    };
    refused.is_some_and(|refused| ctx.close(refused.close_code(), refused.reason()).is_ok())
}

impl Handler for Session {
    type State = State;

    fn on_request(&mut self, request: &Request<'_>) -> Answer<State> {
        let offered = || request.subprotocols();
        let known = offered().find_map(|name| Some((name, Protocol::of(name)?)));
        let protocol = known.map_or(Protocol::Envelope, |(_, protocol)| protocol);
        let agreed = known.map(|(name, _)| name).or_else(|| offered().find(|name| *name == BEARER));
        let agreed = agreed.map(str::to_owned);
        let accept = move |claims: Option<Claims>| {
            let accept = Accept::new(State { protocol, claims: claims.map(Box::new) });
            agreed.into_iter().fold(accept, Accept::with_subprotocol)
        };
        match (self.claims(request), &self.app.database) {
            (Ok(Some(claims)), Some((users, runtime))) => {
                let (app, users, id) = (self.app.clone(), users.clone(), request.id());
                runtime.spawn(async move {
                    let answered = match users.confirm(claims).await {
                        Ok(claims) => app.handle().accept(id, accept(Some(claims))),
                        Err(refused) => {
                            app.counters.refused(refused);
                            app.handle().reject(id, refused.into())
                        }
                    };
                    if let Err(error) = answered {
                        tracing::warn!(%error, "cannot answer a handshake, which ends at its timeout");
                    }
                });
                Answer::Defer
            }
            (Ok(claims), _) => accept(claims).into(),
            (Err(refused), _) => {
                self.app.counters.refused(refused);
                Response::from(refused).into()
            }
        }
    }

    fn on_open(&mut self, ctx: &mut Ctx<'_, State>) {
        if ctx.state().claims.is_some() {
            enter(&self.app, ctx);
        } else {
            let (time, code) = (self.app.settings.login_timeout, Refused::Missing.close_code());
            let _ = ctx.set_deadline_with(time, code, "no login came in time");
        }
    }

    fn on_message(&mut self, ctx: &mut Ctx<'_, State>, message: Message<'_>) {
        let Message::Text(text) = message else {
            let _ = ctx.close(CloseCode::UNSUPPORTED_DATA, "messages are text");
            return;
        };
        let State { protocol, claims } = ctx.state();
        match protocol {
            _ if claims.is_none() => self.log_in(ctx, text),
            Protocol::Envelope => envelope::receive(&self.app, ctx, text),
            Protocol::RoomsText => rooms::text::receive(&self.app, ctx, text),
            Protocol::RoomsJson => rooms::json::receive(&self.app, &self.commands, ctx, text),
            Protocol::Chat => chat::receive(&self.app, ctx, text),
        }
    }

    fn on_presence(&mut self, presence: &topics::Presence<'_>) {
        let id = presence.name.strip_prefix(USER).and_then(|id| Uuid::parse_str(id).ok());
        if let Some(user) = id {
            self.app.presence.follow(&user, presence);
        }
    }

    fn on_close(&mut self, ctx: &mut Ctx<'_, State>, _cause: &CloseCause) {
        if let Some(claims) = ctx.state().claims() {
            self.app.rooms.leave_all(&claims.sub, ctx.id());
            self.app.presence.leave(&claims.sub, ctx.id());
        }
    }
}
