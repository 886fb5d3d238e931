//! How a connection ends (RFC 6455 §7).
//!
//! ```text
//!        close()              peer's close frame, error, end of the stream
//!  Open ────────► Closing ──────────────┐
//!   └───────────────────────────────► Flushing ─► ShuttingDown ─► Lingering ─► Over
//!                                         └─ a client after close frames: ─┐
//!                                            Lingering ─► ShuttingDown ─► Over
//! ```
//!
//! Between FIN and the peer's end of the stream, what still comes is read and dropped: closing a socket with unread
//! input would reset the connection and lose the last words. A client leaves it to the server to end the transport
//! first (RFC 6455 §7.1.1).

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use ringwire_codec::{CloseCode, CloseState, Heap, Role, SendError};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep};

use super::WebSocketStream;
use crate::Error;
use crate::buffers::{self, ThreadMasks};
use crate::waiting::{Direction, Side};

/// How far a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Messages go both ways.
    Open,
    /// This side's close frame is sent or queued, and the peer's has not come.
    Closing,
    /// Nothing more is received. What is queued goes out.
    Flushing,
    /// FIN goes out, and before it close_notify where there is TLS.
    ShuttingDown,
    /// What still comes is dropped.
    Lingering,
    Over,
}

/// What a connection needs to end.
#[derive(Debug)]
pub(super) struct Ending {
    /// Until [`Phase::Over`].
    deadline: Option<Pin<Box<Sleep>>>,
    /// What had come by then was read.
    has_read_late: bool,
    /// What receiving has still to say.
    pub(super) outcome: Option<Error>,
    /// The peer's, with 1005 for none.
    pub(super) close_frame: Option<(CloseCode, Box<str>)>,
    /// The peer has ended its stream.
    eof: bool,
    /// This side has.
    shut: bool,
}

impl<S> WebSocketStream<S> {
    /// What a connection ends with, made when it begins to.
    fn ending(&mut self) -> &mut Ending {
        self.ending.get_or_insert_with(|| {
            let deadline = Some(Box::pin(sleep(self.config.close_timeout)));
            let (outcome, close_frame) = (None, None);
            let (has_read_late, eof, shut) = (false, false, false);
            Box::new(Ending { deadline, has_read_late, outcome, close_frame, eof, shut })
        })
    }

    /// Queues a close frame, unless the connection is ending already.
    pub(crate) fn begin_close(
        &mut self,
        side: Side,
        code: CloseCode,
        reason: &str,
    ) -> Result<(), SendError> {
        if self.phase == Phase::Open {
            self.codec.close(code, reason, &mut ThreadMasks, self.output.encoded())?;
            self.phase = Phase::Closing;
            self.keep_alive = None;
            self.ending();
            self.waiting.wake_other(side);
        }
        Ok(())
    }

    /// The peer's close frame has come.
    pub(super) fn on_close_frame(&mut self, side: Side, code: CloseCode, reason: Box<str>) {
        self.ending().close_frame = Some((code, reason));
        self.end(side, None);
    }

    /// Nothing more is received. What is queued and owed is still written, then the transport ends.
    pub(super) fn end(&mut self, side: Side, outcome: Option<Error>) {
        self.ending().outcome = outcome;
        self.phase = Phase::Flushing;
        self.input.clear();
        self.keep_alive = None;
        self.waiting.wake_other(side);
    }

    /// The peer has ended its stream.
    pub(super) fn on_eof(&mut self, side: Side) {
        let outcome = self.codec.receive_eof().err().map(Error::Ended);
        self.end(side, outcome);
        self.ending().eof = true;
    }

    /// Nothing can be done any more.
    pub(super) fn give_up(&mut self, side: Side, outcome: Error) {
        self.end(side, Some(outcome));
        self.finish(side);
    }

    fn finish(&mut self, side: Side) {
        self.phase = Phase::Over;
        self.ending().deadline = None;
        self.codec.clear(&mut Heap);
        self.deflate = None;
        self.output.clear();
        self.waiting.wake_other(side);
    }

    /// How the connection ended, once.
    pub(super) fn take_outcome(&mut self) -> Option<Error> {
        self.ending.as_mut().and_then(|ending| ending.outcome.take())
    }

    /// Whether the close timeout has passed and what had come by then is read: the task may not have run meanwhile.
    pub(super) fn is_past_close_deadline(&mut self) -> bool {
        let Some(Ending { deadline: Some(deadline), has_read_late, .. }) =
            self.ending.as_deref_mut()
        else {
            return false;
        };
        Instant::now() >= deadline.deadline() && std::mem::replace(has_read_late, true)
    }

    /// Whether the close timeout has passed.
    pub(super) fn poll_deadline(&mut self, side: Side, cx: &mut Context<'_>) -> Poll<()> {
        let Some(deadline) = self.ending.as_mut().and_then(|it| it.deadline.as_mut()) else {
            return Poll::Pending;
        };
        self.waiting.poll(side, Direction::Timer, cx, |cx| deadline.as_mut().poll(cx))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> WebSocketStream<S> {
    /// Drives the phases from [`Phase::Flushing`] on to the end.
    pub(super) fn poll_end(&mut self, side: Side, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            if self.poll_deadline(side, cx).is_ready() {
                if !self.ending().shut {
                    // What goes out without waiting: FIN, and close_notify.
                    let _ = Pin::new(&mut self.transport).poll_shutdown(cx);
                }
                self.finish(side);
                return Poll::Ready(());
            }
            match self.phase {
                Phase::Flushing => {
                    self.codec.poll_transmit(&mut ThreadMasks, self.output.encoded());
                    // A transport that takes nothing more is ended all the same.
                    let _ = ready!(self.poll_flush_as(side, cx));
                    let waits_for_server = self.codec.role() == Role::Client
                        && self.codec.close_state() == CloseState::Closed;
                    let ending = self.ending();
                    let waits = waits_for_server && ending.outcome.is_none() && !ending.eof;
                    self.phase = if waits { Phase::Lingering } else { Phase::ShuttingDown };
                }
                Phase::ShuttingDown => {
                    let Self { transport, waiting, .. } = self;
                    let mut transport = Pin::new(transport);
                    let poll = |cx: &mut Context<'_>| transport.as_mut().poll_shutdown(cx);
                    let _ = ready!(waiting.poll(side, Direction::Write, cx, poll));
                    self.ending().shut = true;
                    self.next_phase(side);
                }
                Phase::Lingering => {
                    ready!(self.poll_linger(side, cx));
                    self.ending().eof = true;
                    self.next_phase(side);
                }
                Phase::Open | Phase::Closing | Phase::Over => return Poll::Ready(()),
            }
        }
    }

    fn next_phase(&mut self, side: Side) {
        let Ending { eof, shut, .. } = *self.ending();
        match (shut, eof) {
            (false, _) => self.phase = Phase::ShuttingDown,
            (true, false) => self.phase = Phase::Lingering,
            (true, true) => self.finish(side),
        }
    }

    /// Reads once, and drops it. Ready at the end of the stream.
    fn poll_linger(&mut self, side: Side, cx: &mut Context<'_>) -> Poll<()> {
        let mut buffer = buffers::take_read_buffer();
        let mut target = ReadBuf::new(&mut buffer);
        let Self { transport, waiting, .. } = self;
        let mut transport = Pin::new(transport);
        let polled = waiting
            .poll(side, Direction::Read, cx, |cx| transport.as_mut().poll_read(cx, &mut target));
        let is_empty = target.filled().is_empty();
        buffers::give_read_buffer(buffer);
        match polled {
            Poll::Ready(Ok(())) if !is_empty => {
                // More may be at hand; others have their turn first, and so has the deadline.
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            Poll::Ready(_) => Poll::Ready(()),
            Poll::Pending => Poll::Pending,
        }
    }
}
