//! The subprotocol `rooms.text`: a command a message.
//!
//! ```text
//!  JOIN room          Joined room: room
//!  LEAVE room         Left room: room
//!  SEND room text     [room] ann: text        to all members, the sender too
//!  BROADCAST text     ann: text               to all who speak of rooms, the sender too
//!  ROOMS              Rooms: room (2), tea (1)
//!  WHO room           In room: ann, ben       on all nodes; the answer may come behind others
//!  REFRESH token      Refreshed
//!                     ERROR …                 where a command was not followed
//! ```
//!
//! What a client hears is one line: line breaks and other control characters in a text or a name become spaces, so that
//! nobody can write what looks like somebody else's line.

use std::fmt::Write as _;
use std::sync::Arc;

use ringwire::Ctx;
use serde_json::value::RawValue;

use super::{RoomError, Tally};
use crate::app::App;
use crate::envelope::MessageType;
use crate::session::{self, State};

/// Follows a command.
pub(crate) fn receive(app: &Arc<App>, ctx: &mut Ctx<'_, State>, text: &str) {
    let text = text.trim_end();
    let (verb, rest) = text.split_once(' ').unwrap_or((text, ""));
    let reply = match follow(app, ctx, verb, rest) {
        Ok(reply) => reply,
        Err(error) => {
            app.counters.message(MessageType::Error);
            Some(format!("ERROR {error}"))
        }
    };
    if let Some(reply) = reply {
        let _ = ctx.send(&reply);
    }
}

fn follow(
    app: &Arc<App>,
    ctx: &mut Ctx<'_, State>,
    verb: &str,
    rest: &str,
) -> Result<Option<String>, RoomError> {
    let reply = match verb {
        "JOIN" => {
            super::join(app, ctx, named(rest, "JOIN needs a room")?)?;
            format!("Joined room: {rest}")
        }
        "LEAVE" => {
            super::leave(app, ctx, named(rest, "LEAVE needs a room")?)?;
            format!("Left room: {rest}")
        }
        "SEND" => {
            let (room, text) =
                rest.split_once(' ').ok_or(RoomError::Usage("SEND needs a room and a text"))?;
            super::check_member(ctx, room)?;
            super::say(app, ctx, Some(room), &json_of(text))?;
            return Ok(None);
        }
        "BROADCAST" => {
            super::say(app, ctx, None, &json_of(named(rest, "BROADCAST needs a text")?))?;
            return Ok(None);
        }
        "ROOMS" => {
            return Ok(tell(app, ctx, None, |tally| {
                let rooms = tally.iter().map(|(room, count)| format!(" {room} ({count})"));
                format!("Rooms:{}", rooms.collect::<Vec<_>>().join(","))
            }));
        }
        "WHO" => {
            let room = named(rest, "WHO needs a room")?;
            super::check_member(ctx, room)?;
            let named = room.to_owned();
            return Ok(tell(app, ctx, Some(room), move |tally| {
                let names: Vec<_> = tally.keys().map(String::as_str).collect();
                format!("In {named}: {}", names.join(", "))
            }));
        }
        "REFRESH" => {
            let token = named(rest, "REFRESH needs a token")?;
            session::refresh(app, ctx, token, |ctx, outcome| {
                let refreshed = "Refreshed".to_owned();
                let reply = outcome
                    .map_or_else(|refused| format!("ERROR {}", refused.reason()), |_| refreshed);
                let _ = ctx.send(&reply);
            });
            return Ok(None);
        }
        _ => return Err(RoomError::Usage("unknown command")),
    };
    Ok(Some(reply))
}

/// Tells a client who is there, on all nodes. It is told in the same call where there is no other node.
fn tell(
    app: &Arc<App>,
    ctx: &Ctx<'_, State>,
    room: Option<&str>,
    say: impl FnOnce(&Tally) -> String + Send + 'static,
) -> Option<String> {
    let say = move |tally: &Tally| one_line(&say(tally));
    if app.presence.nodes().is_none_or(|nodes| nodes.is_empty()) {
        return Some(say(&app.rooms.tally(room)));
    }
    let (nodes, conn) = (app.presence.nodes().map_or(0, |nodes| nodes.len()), ctx.id());
    let answering = app.clone();
    app.rooms.tally_all(nodes, room, move |tally, silent| {
        let mut reply = say(tally);
        if silent > 0 {
            // A string takes everything.
            let _ = write!(reply, " (nodes that do not answer: {silent})");
        }
        // One that has gone needs no answer.
        let _ = answering.handle().send(conn, &reply);
    });
    None
}

/// A text as one line of a terminal.
pub(super) fn one_line(text: &str) -> String {
    text.replace(|c: char| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}'), " ")
}

fn named<'t>(rest: &'t str, problem: &'static str) -> Result<&'t str, RoomError> {
    if rest.is_empty() { Err(RoomError::Usage(problem)) } else { Ok(rest) }
}

fn json_of(text: &str) -> Box<RawValue> {
    serde_json::value::to_raw_value(text).unwrap_or_else(|_| RawValue::NULL.to_owned())
}
