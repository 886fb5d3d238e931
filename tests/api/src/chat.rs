//! The WebSocket: rooms, messages from user to user, and who is online.

use ringwire::router::Shared;
use ringwire::topics::{Presence, topic_token};
use ringwire::{Answer, CloseCode, Ctx, Handler, IntoResponse, Message, Request, StatusCode};
use serde::Deserialize;
use serde_json::json;

use crate::{Gateway, Problem, USER, token::Claims};

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
        if let Err(Problem(_, text)) = open(ctx) {
            let _ = ctx.close(CloseCode::POLICY_VIOLATION, &text);
        }
    }

    fn on_message(&mut self, ctx: &mut Ctx<'_, Claims>, message: Message<'_>) {
        let order = serde_json::from_slice(message.as_bytes()).map_err(Problem::from);
        if let Err(Problem(_, text)) = order.and_then(|it| self.0.borrow_mut().follow(ctx, it)) {
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

fn open(ctx: &mut Ctx<'_, Claims>) -> Result<(), Problem> {
    let (claims, mut out) = ctx.split();
    out.set_deadline(claims.expiry(), EXPIRED)?;
    out.subscribe(PRESENCE)?;
    out.register(&format!("{USER}{}", claims.sub))?;
    Ok(())
}

impl Gateway {
    fn follow(&self, ctx: &mut Ctx<'_, Claims>, order: Order) -> Result<(), Problem> {
        let (claims, mut out) = ctx.split();
        let from = &claims.sub;
        match order {
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
                return Err(Problem(StatusCode::NOT_FOUND, format!("not in room `{room}`")));
            }
            Order::Tell { user, text } => self.tell(&user, from, &text)?,
            Order::Refresh { token } => {
                let renewed = self.key.verify(&token)?;
                if renewed.sub != *from {
                    return Err(Problem(StatusCode::FORBIDDEN, "another user's token".to_owned()));
                }
                out.set_deadline(renewed.expiry(), EXPIRED)?;
                out.send(&json!({ "event": "refreshed", "exp": renewed.exp }).to_string())?;
                *claims = renewed;
            }
        }
        Ok(())
    }

    /// Sends a text to all connections of a user.
    pub(crate) fn tell(&self, user: &str, from: &str, text: &str) -> Result<(), Problem> {
        let news = json!({ "event": "told", "from": from, "text": text }).to_string();
        match self.handle.send_to(&format!("{USER}{user}"), &news)? {
            0 => Err(Problem(StatusCode::NOT_FOUND, format!("`{user}` is not online"))),
            _ => Ok(()),
        }
    }
}

/// The topic of a room, whatever its name is.
fn topic_of(room: &str) -> String {
    format!("room.{}", topic_token(room))
}
