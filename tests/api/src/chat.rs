//! The WebSocket: rooms, messages from user to user, and who is online.

use ringwire::router::Shared;
use ringwire::topics::{Presence, topic_token};
use ringwire::{Answer, CloseCode, Ctx, Handler, IntoResponse, Message, Request, StatusCode};
use serde::Deserialize;
use serde_json::json;

use crate::{Gateway, Problem, USER, refuse, token::Claims};

/// Of a connection whose token has expired.
const EXPIRED: CloseCode = CloseCode::new(4401);
/// All connections hear here of who comes and goes.
const PRESENCE: &str = "presence";

pub(crate) struct Chat(pub(crate) Shared<Gateway>);

/// What a client asks for.
#[derive(Deserialize)]
#[serde(tag = "op", rename_all = "lowercase")]
enum Order {
    Join { room: String },
    Leave { room: String },
    Say { room: String, text: String },
    Tell { user: String, text: String },
    Refresh { token: String },
}

impl Handler for Chat {
    type State = Claims;

    fn on_request(&mut self, request: &Request<'_>) -> Answer<Claims> {
        match self.0.borrow_mut().claims(request) {
            Ok(claims) => Answer::accept(claims),
            Err(problem) => problem.into_response().into(),
        }
    }

    fn on_open(&mut self, ctx: &mut Ctx<'_, Claims>) {
        let (claims, mut out) = ctx.split();
        let is_known = out.set_deadline(claims.expiry(), EXPIRED).is_ok()
            && out.subscribe(PRESENCE).is_ok()
            && out.register(&format!("{USER}{}", claims.sub)).is_ok();
        if !is_known {
            let _ = out.close(CloseCode::POLICY_VIOLATION, "the user's name is too long");
        }
    }

    fn on_message(&mut self, ctx: &mut Ctx<'_, Claims>, message: Message<'_>) {
        if let Err(Problem(_, text)) = self.0.borrow_mut().follow(ctx, message) {
            let _ = ctx.send(&json!({ "event": "problem", "text": text }).to_string());
        }
    }

    fn on_presence(&mut self, presence: &Presence<'_>) {
        let Some(user) = presence.name.strip_prefix(USER) else { return };
        let event = match presence {
            Presence { is_first: true, .. } => "online",
            Presence { is_last: true, .. } => "offline",
            _ => return,
        };
        let news = json!({ "event": event, "user": user }).to_string();
        // Where a worker is too far behind, its clients go without this one.
        let _ = self.0.borrow_mut().handle.publish(PRESENCE, &news);
    }
}

impl Gateway {
    fn follow(&self, ctx: &mut Ctx<'_, Claims>, message: Message<'_>) -> Result<(), Problem> {
        let (Claims { sub: from, .. }, mut out) = ctx.split();
        let topic_of = |room: &str| format!("room.{}", topic_token(room));
        match serde_json::from_slice(message.as_bytes())? {
            Order::Join { room } => {
                out.subscribe(&topic_of(&room))?;
                out.send(&json!({ "event": "joined", "room": room }).to_string())?;
            }
            Order::Leave { room } if out.unsubscribe(&topic_of(&room)) => {
                out.send(&json!({ "event": "left", "room": room }).to_string())?;
            }
            Order::Say { room, text } if out.is_subscribed(&topic_of(&room)) => {
                let news = json!({ "event": "said", "room": room, "from": from, "text": text });
                out.publish(&topic_of(&room), &news.to_string())?;
            }
            Order::Leave { room } | Order::Say { room, .. } => {
                return refuse(StatusCode::NOT_FOUND, format!("not in room `{room}`"));
            }
            Order::Tell { user, text } => self.tell(&user, from, &text)?,
            Order::Refresh { token } => {
                let renewed = self.key.verify(&token)?;
                if renewed.sub != *from {
                    return refuse(StatusCode::FORBIDDEN, "another user's token");
                }
                out.set_deadline(renewed.expiry(), EXPIRED)?;
                out.send(&json!({ "event": "refreshed" }).to_string())?;
            }
        }
        Ok(())
    }

    /// Sends a text to all connections of a user.
    pub(crate) fn tell(&self, user: &str, from: &str, text: &str) -> Result<(), Problem> {
        let news = json!({ "event": "told", "from": from, "text": text }).to_string();
        match self.handle.send_to(&format!("{USER}{user}"), &news)? {
            0 => refuse(StatusCode::NOT_FOUND, format!("`{user}` is not online")),
            _ => Ok(()),
        }
    }
}
