//! The other ends: a client that comes back, and a producer that is faster than its reader.

use std::thread::{self, JoinHandle};

use ringwire::{Sender, senders::SendClosed};
use ringwire_client::http::{HeaderValue, header};
use ringwire_client::{BoxError, Builder, Error, Reconnecting};

/// A client with a new token from `issue` for each attempt, which is given the error before it, in a room.
pub fn client(
    builder: Builder,
    url: &str,
    mut issue: impl FnMut(Option<&Error>) -> Result<String, BoxError> + Send + 'static,
    room: &str,
) -> Reconnecting {
    let join = serde_json::json!({ "op": "join", "room": room }).to_string();
    Reconnecting::new(builder, url)
        .prepare(move |attempt, why| {
            let token = HeaderValue::try_from(format!("Bearer {}", issue(why)?))?;
            attempt.set_header(header::AUTHORIZATION, token);
            Ok(())
        })
        .on_connect(move |client| client.send_text(&join))
}

/// Sends so many lines from a thread, as fast as the peer takes them. Each begins with its number.
pub fn flood(sender: Sender, count: usize, len: usize) -> JoinHandle<Result<(), SendClosed>> {
    thread::spawn(move || (0..count).try_for_each(|number| sender.send(&format!("{number:<len$}"))))
}
