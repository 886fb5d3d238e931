//! Messages out of the transport.

use std::borrow::Cow;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use ringwire_codec::{self as codec, CloseCode, Event, Heap, Input};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::task::coop;
use tokio::time::Instant;

use super::WebSocketStream;
use super::ending::Phase;
use crate::buffers::{self, READ_LEN, ThreadMasks};
use crate::error::Timeout;
use crate::input::Held;
use crate::keep_alive::Due;
use crate::waiting::{Direction, Side};
use crate::{Error, Message};

/// The window of the limit on control frames.
const CONTROL_WINDOW: Duration = Duration::from_secs(1);

/// A binary message from this many bytes on is handed over in the read buffer, if that holds nothing behind it: half of
/// the buffer, so that no more than that is held in vain.
const LENT_LEN: usize = READ_LEN / 2;

/// What comes of the bytes at hand.
enum Step {
    Message(Message),
    /// A ping or a pong.
    Control,
    Close(CloseCode, Box<str>),
    /// All of them are used.
    Used,
}

impl<S: AsyncRead + AsyncWrite + Unpin> WebSocketStream<S> {
    /// The next message for that side: the one that receives, or the one that waits for the end.
    pub(crate) fn poll_next_as(
        &mut self,
        side: Side,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Message, Error>>> {
        self.waiting.begin(side);
        // A read has taken of the task's budget already.
        let mut has_read = false;
        loop {
            match self.phase {
                Phase::Open | Phase::Closing => {}
                Phase::Over => return Poll::Ready(self.take_outcome().map(Err)),
                Phase::Flushing | Phase::ShuttingDown | Phase::Lingering => {
                    ready!(self.poll_end(side, cx));
                    continue;
                }
            }
            if !self.input.is_empty() {
                let budget = if has_read { None } else { Some(ready!(coop::poll_proceed(cx))) };
                match self.step() {
                    Ok(Step::Message(message)) => {
                        if let Some(budget) = budget {
                            budget.made_progress();
                        }
                        return Poll::Ready(Some(Ok(message)));
                    }
                    Ok(Step::Control) => {
                        self.answer();
                    }
                    Ok(Step::Close(code, reason)) => self.on_close_frame(side, code, reason),
                    Ok(Step::Used) => {}
                    Err(error) => self.end(side, Some(Error::Protocol(error))),
                }
                continue;
            }
            self.pay(side, cx);
            // A peer that sends without end would never let it come to rest, where the timer is looked at.
            if self.is_past_close_deadline() {
                self.give_up(side, Error::Timeout(Timeout::Close));
                continue;
            }
            match self.poll_read(side, cx) {
                Poll::Ready(Ok(0)) => self.on_eof(side),
                Poll::Ready(Ok(_)) => {
                    has_read = true;
                    self.on_read();
                }
                // TLS that ends without close_notify has ended without a close frame too.
                Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => {
                    self.on_eof(side);
                }
                Poll::Ready(Err(error)) => self.give_up(side, error.into()),
                Poll::Pending => {
                    if self.rest(side, cx) {
                        return Poll::Pending;
                    }
                }
            }
        }
    }

    /// Takes the next event out of the input.
    fn step(&mut self) -> Result<Step, codec::Error> {
        let Self { codec, config, input, deflate, .. } = self;
        let mut rest = Input::new(input.unused());
        let event = match deflate {
            None => codec.receive(&config.limits, &mut Heap, &mut rest),
            Some(deflate) => deflate.receive(codec, &config.limits, &mut rest),
        };
        let is_last = rest.is_empty();
        let mut lies_here = 0;
        let step = event.map(|event| match event {
            Some(Event::Message(message)) => match message.into_text() {
                // The last bytes of the input, and most of it.
                Err(Cow::Borrowed(bytes)) if is_last && bytes.len() >= LENT_LEN => {
                    lies_here = bytes.len();
                    Step::Used
                }
                payload => Step::Message(Message::from_received(payload)),
            },
            Some(Event::Close(frame)) => {
                Step::Close(frame.code_or_no_status(), frame.reason.into_owned().into())
            }
            Some(Event::Ping(_) | Event::Pong(_)) => Step::Control,
            // Parts come only where they were asked for.
            Some(Event::Part(_) | Event::InflatedPart(_)) | None => Step::Used,
        });
        let len = rest.len();
        if lies_here > 0 {
            return Ok(Step::Message(Message::Binary(input.lend(lies_here))));
        }
        input.keep(len);
        step
    }

    /// Queues the pong that is owed, ahead of what the application will send, as far as there is room: a peer that
    /// pings and does not read gets the newest one later. Gives whether there was one.
    fn answer(&mut self) -> bool {
        let can_answer = self.codec.wants_transmit() && self.has_room();
        if can_answer {
            self.codec.poll_transmit(&mut ThreadMasks, self.output.encoded());
            self.owes_flush = true;
        }
        can_answer
    }

    /// Whether the protocol may add to the output: below the high-water mark, and if nothing waits, whatever the mark.
    fn has_room(&self) -> bool {
        self.output.is_empty() || self.output.len() < self.config.high_water
    }

    /// Writes pongs before the next read, also if that does not wait.
    fn pay(&mut self, side: Side, cx: &mut Context<'_>) {
        self.answer();
        if std::mem::take(&mut self.owes_flush) {
            // A failure is kept for who sends, and for `rest`.
            let _ = self.poll_flush_as(side, cx);
        }
    }

    /// Reads into the thread's buffer, which becomes the input if something comes.
    fn poll_read(&mut self, side: Side, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let mut buffer = buffers::take_read_buffer();
        let mut target = ReadBuf::new(&mut buffer);
        let Self { transport, waiting, .. } = self;
        let mut transport = Pin::new(transport);
        let polled = waiting
            .poll(side, Direction::Read, cx, |cx| transport.as_mut().poll_read(cx, &mut target));
        let len = target.filled().len();
        if matches!(polled, Poll::Ready(Ok(()))) && len > 0 {
            self.input = Held::new(buffer, len);
        } else {
            buffers::give_read_buffer(buffer);
        }
        polled.map_ok(|()| len)
    }

    fn on_read(&mut self) {
        if let Some(keep_alive) = &mut self.keep_alive {
            keep_alive.heard();
        }
        // The clock is looked at only where something counts.
        if self.codec.has_counted_control() {
            let now = Instant::now();
            if self.window_began.is_none_or(|began| now - began >= CONTROL_WINDOW) {
                self.window_began = Some(now);
                self.codec.reset_control_window();
            }
        }
    }

    /// Gives up waiting for the peer's close frame once the close timeout has passed. Gives whether it has.
    fn check_close_deadline(&mut self, side: Side, cx: &mut Context<'_>) -> bool {
        let is_late = self.phase == Phase::Closing && self.poll_deadline(side, cx).is_ready();
        if is_late {
            self.give_up(side, Error::Timeout(Timeout::Close));
        }
        is_late
    }

    /// Nothing is at hand: what was fed goes out, and the timers are asked. Gives whether there is nothing more to do.
    fn rest(&mut self, side: Side, cx: &mut Context<'_>) -> bool {
        // A failure is kept.
        let _ = self.poll_flush_as(side, cx);
        if let Some(kind) = self.write_failed {
            self.give_up(side, Error::Io(kind.into()));
            return false;
        }
        // Nothing else may ever wake this task for a pong that had no room before.
        if self.check_close_deadline(side, cx) || self.answer() {
            return false;
        }
        let Self { keep_alive: Some(keep_alive), waiting, .. } = self else { return true };
        match waiting.poll(side, Direction::Timer, cx, |cx| keep_alive.poll(cx)) {
            Poll::Pending => true,
            Poll::Ready(Due::End) => {
                self.give_up(side, Error::Timeout(Timeout::Pong));
                false
            }
            Poll::Ready(Due::Ping) => {
                // A peer that does not read is asked by what waits for it.
                if self.has_room() {
                    let sent = self.codec.send_ping(&[], &mut ThreadMasks, self.output.encoded());
                    debug_assert!(sent.is_ok(), "an open connection takes a ping");
                }
                false
            }
        }
    }
}
