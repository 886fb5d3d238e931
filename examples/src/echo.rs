//! The echo server's handler.

use http::StatusCode;
use ringwire::{
    Answer, Ctx, Error, Handler, Message, Request, Responder, Response, Running, Server,
};

/// The page that a browser gets on the same port.
const PAGE: &str = include_str!("echo.html");

/// Sends every message back. To a browser that asks for `/` it gives a page that talks to it.
#[derive(Clone, Copy, Debug)]
pub struct Echo;

impl Echo {
    /// Starts the server with this handler: the workers' code is compiled in this crate, not in the caller's.
    ///
    /// # Errors
    /// See [`Server::start`].
    pub fn start(server: Server) -> Result<Running, Error> {
        server.start(|_worker| Self)
    }
}

impl Handler for Echo {
    type State = ();

    fn on_request(&mut self, _request: &Request<'_>) -> Answer<()> {
        Answer::accept(())
    }

    fn on_http(&mut self, request: &Request<'_>, responder: Responder) {
        let response = match (request.method(), request.path()) {
            ("GET" | "HEAD", "/") => Response::html(PAGE),
            _ => Response::new(StatusCode::NOT_FOUND),
        };
        responder.send(response);
    }

    fn on_message(&mut self, ctx: &mut Ctx<'_, ()>, message: Message<'_>) {
        let _ = ctx.send(message);
    }
}
