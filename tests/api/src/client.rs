//! The other ends: a client that comes back, and a producer that is faster than readers.

use std::thread::{self, JoinHandle};

use ringwire::senders::SendClosed;
use ringwire::{ConnId, Handle, PostError};
use ringwire_client::http::{HeaderValue, header};
use ringwire_client::{BoxError, Builder, Client, Error, Reconnecting};

/// A client with a new token from `issue` for each attempt, which is given the error before it.
pub fn client(
    builder: Builder,
    url: &str,
    mut issue: impl FnMut(Option<&Error>) -> Result<String, BoxError> + Send + 'static,
    on_connect: impl FnMut(&mut Client) -> Result<(), Error> + Send + 'static,
) -> Reconnecting {
    Reconnecting::new(builder, url)
        .prepare(move |attempt, why| {
            let token = HeaderValue::try_from(format!("Bearer {}", issue(why)?))?;
            attempt.set_header(header::AUTHORIZATION, token);
            Ok(())
        })
        .on_connect(on_connect)
}

/// Sends so many lines to a connection, from a thread, as fast as its peer takes them. Each begins with its number.
///
/// # Errors
/// The connection's worker has ended.
pub fn flood(
    handle: &Handle,
    conn: ConnId,
    line_count: usize,
    line_len: usize,
) -> Result<JoinHandle<Result<(), SendClosed>>, PostError> {
    let sender = handle.sender(conn)?;
    Ok(thread::spawn(move || {
        (0..line_count).try_for_each(|number| sender.send(&format!("{number:<line_len$}")))
    }))
}
