//! The application under simulation: it echoes, obeys a few commands, and notes all that happens to it.

use std::cell::RefCell;
use std::fmt;
use std::rc::Rc;
use std::time::Duration;

use super::http::page;
use crate::{
    Accept, Answer, CloseCause, CloseCode, ConnId, Ctx, Handler, Message, MessagePart, Request,
    Responder, SendError, SendOptions, Sent, compression::Compress,
};

/// A message as it was sent or received.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Said {
    pub text: bool,
    pub bytes: Vec<u8>,
}

impl fmt::Debug for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let start = self.bytes[..self.bytes.len().min(16)].escape_ascii();
        let kind = if self.text { "text" } else { "bytes" };
        write!(f, "{} {kind}: {start}", self.bytes.len())
    }
}

impl Said {
    pub(super) fn as_message(&self) -> Message<'_> {
        match std::str::from_utf8(&self.bytes) {
            Ok(text) if self.text => Message::Text(text),
            _ => Message::Binary(&self.bytes),
        }
    }
}

impl From<Message<'_>> for Said {
    fn from(message: Message<'_>) -> Self {
        Self { text: message.is_text(), bytes: message.as_bytes().to_vec() }
    }
}

/// What happened to the connection of one client, as the application saw it.
#[derive(Debug, Default)]
pub(super) struct Entry {
    pub id: Option<ConnId>,
    /// Its request waits for an answer.
    pub deferred: bool,
    pub opened: usize,
    pub closed: Option<CloseCause>,
    /// What it received.
    pub came: Vec<Said>,
    /// What it sent, and was not told was dropped.
    pub accepted: Vec<Said>,
    pub drains: usize,
    /// Something was sent from outside, so it may be told of drains that are none of its own.
    pub pushed: bool,
    /// It paused reading.
    pub paused: bool,
    /// `Queued` was answered, and no `on_drain` came since.
    pub queued: bool,
    /// A message was dropped since the last `on_drain`.
    pub dropped: bool,
    /// The most bytes that ever waited.
    pub most_queued: usize,
}

/// What happened, by number of the client.
#[derive(Debug, Default)]
pub(super) struct Log {
    pub clients: Vec<Entry>,
    /// Ordinary requests whose answer was deferred, and how long their bodies were.
    pub later: Vec<(Responder, usize)>,
    /// What must not have happened. A panic in a handler would be caught, so it is noted here.
    pub violations: Vec<String>,
}

impl Log {
    fn check(&mut self, client: usize, holds: bool, what: &str) {
        if !holds {
            self.violations.push(format!("client {client}: {what}"));
        }
    }
}

/// The state of a connection.
#[derive(Debug)]
pub(super) struct State {
    pub client: usize,
    /// Parts of a streamed message.
    parts: Vec<u8>,
    /// What is left of a burst: how many messages, and how long.
    burst: (usize, usize),
    keys: usize,
}

impl State {
    pub(super) fn new(client: usize) -> Self {
        Self { client, parts: Vec::new(), burst: (0, 0), keys: 0 }
    }
}

pub(super) struct App {
    pub log: Rc<RefCell<Log>>,
    pub max_queued_len: usize,
}

/// Some of each kind.
fn options_for(number: usize) -> SendOptions {
    let compress = [Compress::ByLength, Compress::ByLength, Compress::Always, Compress::Never];
    SendOptions::default().with_compress(compress[number % 4])
}

/// The code and text with which the application closes.
pub(super) const APP_CLOSE: (u16, &str) = (4000, "as you wish");

/// The code of deadlines that the application sets.
pub(super) const DEADLINE_CODE: CloseCode = CloseCode::new(4401);

impl App {
    /// Sends, and notes what became of it.
    fn say(&self, ctx: &mut Ctx<'_, State>, message: Message<'_>) -> Result<Sent, SendError> {
        let (client, before, open) = (ctx.state().client, ctx.queued_len(), ctx.is_open());
        let status = ctx.send_with(message, options_for(message.len()));
        let queued_len = ctx.queued_len();
        let log = &mut *self.log.borrow_mut();
        let entry = &mut log.clients[client];
        entry.most_queued = entry.most_queued.max(queued_len);
        match status {
            Ok(Sent::OnItsWay) => entry.accepted.push(message.into()),
            Ok(Sent::Waits { .. }) => {
                entry.accepted.push(message.into());
                entry.queued = true;
            }
            Err(_) => {
                entry.dropped = true;
                // What waits is charged a little more than its bytes.
                let due = !open || before >= self.max_queued_len / 2;
                log.check(client, due, "a message was dropped while there was room");
            }
        }
        status
    }

    fn take(&self, ctx: &mut Ctx<'_, State>, message: Message<'_>) {
        let client = ctx.state().client;
        {
            let log = &mut *self.log.borrow_mut();
            let entry = &mut log.clients[client];
            entry.came.push(message.into());
            let (alive, paused, queued) =
                (entry.opened == 1 && entry.closed.is_none(), entry.paused, entry.queued);
            log.check(client, alive, "a message on a connection that is not open");
            log.check(client, !paused, "a message on a paused connection");
            log.check(client, !queued, "a message although output waits");
        }
        let _ = self.say(ctx, message);
        if let Message::Text(text) = message {
            self.obey(ctx, text);
        }
    }

    fn obey(&self, ctx: &mut Ctx<'_, State>, command: &str) {
        let client = ctx.state().client;
        let mut words = command.split(' ');
        let verb = words.next();
        let mut number = || words.next().and_then(|word| word.parse().ok()).unwrap_or(0);
        match verb {
            Some("!pause") => {
                ctx.pause();
                self.log.borrow_mut().clients[client].paused = true;
            }
            Some("!close") => {
                let (code, text) = APP_CLOSE;
                let _ = ctx.close(CloseCode::new(code), text);
                let dropped = ctx.send("after the close") == Err(SendError::Closing);
                self.log.borrow_mut().check(client, dropped, "a message after the close was taken");
            }
            Some("!deadline") => {
                let after = Duration::from_millis(u64::try_from(number()).unwrap_or(0));
                let set = ctx.set_deadline(after, DEADLINE_CODE);
                self.log.borrow_mut().check(client, set.is_ok(), "a deadline was refused");
            }
            Some("!hear") => drop(ctx.subscribe("hot").expect("a topic")),
            Some("!clear") => {
                let had = ctx.clear_deadline();
                self.log.borrow_mut().check(client, had, "there was no deadline");
            }
            Some("!burst") => {
                ctx.state_mut().burst = (number(), number());
                self.go_on_bursting(ctx);
            }
            Some("!flood") => {
                let (count, len): (usize, usize) = (number(), number());
                for _ in 0..count {
                    let _ = self.say(ctx, Message::Binary(&vec![b'f'; len]));
                }
            }
            Some("!keyed") => {
                for _ in 0..number() {
                    let key = ctx.state().keys;
                    ctx.state_mut().keys += 1;
                    let options = options_for(key).with_key(1);
                    // Something that what is sent behind it could refer to.
                    let text = format!("key:{key}:{}{}", "f".repeat(50), "p".repeat(50));
                    let status = ctx.send_with(text.as_str(), options);
                    let entry = &mut self.log.borrow_mut().clients[client];
                    entry.queued |= matches!(status, Ok(Sent::Waits { .. }));
                    entry.dropped |= status.is_err();
                }
            }
            _ => {}
        }
    }

    /// Sends until it is told to wait.
    fn go_on_bursting(&self, ctx: &mut Ctx<'_, State>) {
        while let (left @ 1.., len) = ctx.state().burst {
            ctx.state_mut().burst.0 = left - 1;
            if self.say(ctx, Message::Binary(&vec![b'b'; len + left])) != Ok(Sent::OnItsWay) {
                return;
            }
        }
    }
}

impl Handler for App {
    type State = State;

    fn on_request(&mut self, request: &Request<'_>) -> Answer<State> {
        let client: usize = request.path().trim_start_matches('/').parse().expect("a number");
        let query = request.query().unwrap_or_default();
        let log = &mut *self.log.borrow_mut();
        log.check(client, log.clients[client].id.is_none(), "it asked twice");
        log.clients[client].id = Some(request.id());
        if query.contains("defer") {
            log.clients[client].deferred = true;
            return Answer::Defer;
        }
        let accept = Accept::new(State::new(client)).with_extension(super::faulty::extension());
        if query.contains("stream") { accept.with_streaming().into() } else { accept.into() }
    }

    fn on_http(&mut self, request: &Request<'_>, responder: Responder) {
        let len = request.body().len();
        if request.path() == "/later" {
            return self.log.borrow_mut().later.push((responder, len));
        }
        responder.send(page(request.path(), len));
    }

    fn on_open(&mut self, ctx: &mut Ctx<'_, State>) {
        let (client, id) = (ctx.state().client, ctx.id());
        {
            let log = &mut *self.log.borrow_mut();
            let entry = &mut log.clients[client];
            entry.opened += 1;
            let known = *entry.id.get_or_insert(id);
            let fresh = entry.opened == 1 && entry.closed.is_none();
            log.check(client, known == id, "it opened under another name");
            log.check(client, fresh, "it opened again");
        }
        let _ = self.say(ctx, Message::Text("welcome"));
    }

    fn on_message(&mut self, ctx: &mut Ctx<'_, State>, message: Message<'_>) {
        self.take(ctx, message);
    }

    fn on_message_part(&mut self, ctx: &mut Ctx<'_, State>, part: MessagePart<'_>) {
        let state = ctx.state_mut();
        let fits = part.is_first == state.parts.is_empty();
        let client = state.client;
        state.parts.extend_from_slice(part.bytes);
        // A first part may be empty only if it is also the last.
        self.log.borrow_mut().check(client, fits, "a part does not follow from the one before");
        if part.is_last {
            let bytes = std::mem::take(&mut ctx.state_mut().parts);
            let whole = Said { text: part.is_text, bytes };
            self.take(ctx, whole.as_message());
        }
    }

    fn on_drain(&mut self, ctx: &mut Ctx<'_, State>) {
        let client = ctx.state().client;
        let waiting = ctx.queued_len();
        {
            let log = &mut *self.log.borrow_mut();
            let entry = &mut log.clients[client];
            let due = std::mem::take(&mut entry.queued) | std::mem::take(&mut entry.dropped);
            let due = due | entry.pushed;
            entry.drains += 1;
            log.check(client, due, "a drain of nothing");
            log.check(client, waiting == 0, "a drain although output waits");
        }
        self.go_on_bursting(ctx);
    }

    fn on_close(&mut self, ctx: &mut Ctx<'_, State>, cause: &CloseCause) {
        let client = ctx.state().client;
        let no_deadline = ctx.set_deadline(Duration::ZERO, DEADLINE_CODE).is_err();
        let refused = ctx.send("into the void") == Err(SendError::Closing);
        let log = &mut *self.log.borrow_mut();
        let entry = &mut log.clients[client];
        let first = entry.opened == 1 && entry.closed.is_none();
        entry.closed = Some(cause.clone());
        log.check(client, first, "it closed without being open");
        log.check(client, no_deadline, "a deadline was set after the end");
        log.check(client, refused, "a message was taken after the end");
    }
}
