//! The echo server's handler.

use http::{HeaderValue, StatusCode};
use ringwire::{Answer, Ctx, Handler, Message, Request, Response};

/// The page that a browser gets on the same port.
const PAGE: &str = include_str!("echo.html");

/// Sends every message back. To a browser that asks for `/` it gives a page that talks to it.
#[derive(Clone, Copy, Debug)]
pub struct Echo;

impl Handler for Echo {
    type State = ();

    fn on_request(&mut self, _request: &Request<'_>) -> Answer<()> {
        Answer::accept(())
    }

    fn on_http(&mut self, request: &Request<'_>) -> Response {
        match (request.method(), request.path()) {
            ("GET" | "HEAD", "/") => Response::new(StatusCode::OK)
                .with_body(HeaderValue::from_static("text/html; charset=utf-8"), PAGE.as_bytes()),
            _ => Response::new(StatusCode::NOT_FOUND),
        }
    }

    fn on_message(&mut self, ctx: &mut Ctx<'_, ()>, message: Message<'_>) {
        ctx.send(message);
    }
}
