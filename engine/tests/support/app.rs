//! An application that reports every call, and does what a test wants it to.

use std::sync::mpsc;

use ringwire::{
    Answer, CloseCause, ConnId, Ctx, Handler, IntoResponse, Message, MessagePart, Request,
    Responder, Response,
};
use ringwire_codec::handshake::HandshakeError;

/// A call of the handler, as far as a test can look at it later.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    Open,
    Text(String),
    Binary(Vec<u8>),
    Part { bytes: Vec<u8>, is_text: bool, is_first: bool, is_last: bool },
    Drain,
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(CloseCause),
}

type OnRequest<A> = Box<dyn FnMut(&Request<'_>) -> A>;
type OnHttp = Box<dyn FnMut(&Request<'_>, Responder)>;
type OnCtx = Box<dyn FnMut(&mut Ctx<'_, u32>)>;
type OnMessage = Box<dyn FnMut(&mut Ctx<'_, u32>, Message<'_>)>;
type OnPart = Box<dyn FnMut(&mut Ctx<'_, u32>, MessagePart<'_>)>;

/// Accepts every request and echoes every message, unless told otherwise. The connection's state is a number.
pub(crate) struct App {
    seen: mpsc::Sender<(ConnId, Seen)>,
    request: OnRequest<Answer<u32>>,
    http: OnHttp,
    open: OnCtx,
    message: OnMessage,
    part: OnPart,
    drain: OnCtx,
    close: OnCtx,
    /// Whether the contents of messages are worth a report.
    reports_messages: bool,
}

impl App {
    pub(crate) fn new(seen: mpsc::Sender<(ConnId, Seen)>) -> Self {
        Self {
            seen,
            request: Box::new(|_| Answer::accept(0)),
            http: Box::new(|_, responder| responder.send(Response::from(HandshakeError::Upgrade))),
            open: Box::new(|_| {}),
            message: Box::new(|ctx, message| {
                let _ = ctx.send(message);
            }),
            part: Box::new(|_, _| {}),
            drain: Box::new(|_| {}),
            close: Box::new(|_| {}),
            reports_messages: true,
        }
    }

    pub(crate) fn on_request(
        mut self,
        f: impl FnMut(&Request<'_>) -> Answer<u32> + 'static,
    ) -> Self {
        self.request = Box::new(f);
        self
    }

    pub(crate) fn on_http<A: IntoResponse>(
        self,
        mut f: impl FnMut(&Request<'_>) -> A + 'static,
    ) -> Self {
        self.on_http_with(move |request, responder| responder.send(f(request)))
    }

    pub(crate) fn on_http_with(mut self, f: impl FnMut(&Request<'_>, Responder) + 'static) -> Self {
        self.http = Box::new(f);
        self
    }

    pub(crate) fn on_open(mut self, f: impl FnMut(&mut Ctx<'_, u32>) + 'static) -> Self {
        self.open = Box::new(f);
        self
    }

    pub(crate) fn on_message(
        mut self,
        f: impl FnMut(&mut Ctx<'_, u32>, Message<'_>) + 'static,
    ) -> Self {
        self.message = Box::new(f);
        self
    }

    pub(crate) fn on_part(
        mut self,
        f: impl FnMut(&mut Ctx<'_, u32>, MessagePart<'_>) + 'static,
    ) -> Self {
        self.part = Box::new(f);
        self
    }

    pub(crate) fn on_drain(mut self, f: impl FnMut(&mut Ctx<'_, u32>) + 'static) -> Self {
        self.drain = Box::new(f);
        self
    }

    pub(crate) fn on_close(mut self, f: impl FnMut(&mut Ctx<'_, u32>) + 'static) -> Self {
        self.close = Box::new(f);
        self
    }

    /// Reports no messages and parts of them: for tests with many.
    pub(crate) fn without_messages(mut self) -> Self {
        self.reports_messages = false;
        self
    }

    fn report(&self, id: ConnId, seen: Seen) {
        // The test may have ended meanwhile.
        let _ = self.seen.send((id, seen));
    }
}

impl Handler for App {
    type State = u32;

    fn on_request(&mut self, request: &Request<'_>) -> Answer<u32> {
        (self.request)(request)
    }

    fn on_http(&mut self, request: &Request<'_>, responder: Responder) {
        (self.http)(request, responder);
    }

    fn on_open(&mut self, ctx: &mut Ctx<'_, u32>) {
        self.report(ctx.id(), Seen::Open);
        (self.open)(ctx);
    }

    fn on_message(&mut self, ctx: &mut Ctx<'_, u32>, message: Message<'_>) {
        if self.reports_messages {
            let seen = match message {
                Message::Text(text) => Seen::Text(text.to_owned()),
                Message::Binary(bytes) => Seen::Binary(bytes.to_vec()),
            };
            self.report(ctx.id(), seen);
        }
        (self.message)(ctx, message);
    }

    fn on_message_part(&mut self, ctx: &mut Ctx<'_, u32>, part: MessagePart<'_>) {
        if self.reports_messages {
            let MessagePart { bytes, is_text, is_first, is_last } = part;
            self.report(ctx.id(), Seen::Part { bytes: bytes.to_vec(), is_text, is_first, is_last });
        }
        (self.part)(ctx, part);
    }

    fn on_drain(&mut self, ctx: &mut Ctx<'_, u32>) {
        self.report(ctx.id(), Seen::Drain);
        (self.drain)(ctx);
    }

    fn on_ping(&mut self, ctx: &mut Ctx<'_, u32>, payload: &[u8]) {
        self.report(ctx.id(), Seen::Ping(payload.to_vec()));
    }

    fn on_pong(&mut self, ctx: &mut Ctx<'_, u32>, payload: &[u8]) {
        self.report(ctx.id(), Seen::Pong(payload.to_vec()));
    }

    fn on_close(&mut self, ctx: &mut Ctx<'_, u32>, cause: &CloseCause) {
        self.report(ctx.id(), Seen::Close(cause.clone()));
        (self.close)(ctx);
    }
}
