//! Messages into the transport.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use ringwire_codec::{FrameHeader, MaskSource as _, OpCode, Role, SendError, mask};
use tokio::io::{AsyncRead, AsyncWrite};

use super::WebSocketStream;
use super::ending::Phase;
use crate::buffers::ThreadMasks;
use crate::output::SHARED_LEN;
use crate::waiting::{Direction, Side};
use crate::{Error, Message};

impl<S: AsyncRead + AsyncWrite + Unpin> WebSocketStream<S> {
    /// Waits for room, takes the message, and sends it.
    pub(crate) fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        message: &mut Option<Message>,
    ) -> Poll<Result<(), Error>> {
        ready!(self.poll_feed(cx, message))?;
        self.poll_flush_output(cx)
    }

    /// Waits for room, and takes the message.
    pub(crate) fn poll_feed(
        &mut self,
        cx: &mut Context<'_>,
        message: &mut Option<Message>,
    ) -> Poll<Result<(), Error>> {
        if message.is_some() {
            ready!(self.poll_room(cx))?;
            if let Some(message) = message.take() {
                self.queue(message)?;
            }
        }
        Poll::Ready(Ok(()))
    }

    pub(crate) fn poll_ping(
        &mut self,
        cx: &mut Context<'_>,
        payload: &mut Option<&[u8]>,
    ) -> Poll<Result<(), Error>> {
        if payload.is_some() {
            ready!(self.poll_room(cx))?;
            if let Some(payload) = payload.take() {
                self.codec.send_ping(payload, &mut ThreadMasks, self.output.encoded())?;
            }
        }
        self.poll_flush_output(cx)
    }

    /// Waits until less waits than the high-water mark.
    pub(crate) fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.waiting.begin(Side::Sender);
        self.check_open()?;
        if self.output.len() >= self.config.high_water {
            let written = self.poll_write_as(Side::Sender, cx);
            if self.output.len() >= self.config.high_water {
                return written;
            }
        }
        Poll::Ready(Ok(()))
    }

    pub(crate) fn poll_flush_output(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.waiting.begin(Side::Sender);
        self.poll_flush_as(Side::Sender, cx)
    }

    /// Waits for the end of a connection that is closing.
    pub(crate) fn poll_closed(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        loop {
            match ready!(self.poll_next_as(Side::Sender, cx)) {
                // From before the close frame.
                Some(Ok(_)) => {}
                Some(Err(error)) => return Poll::Ready(Err(error)),
                None => return Poll::Ready(Ok(())),
            }
        }
    }

    fn check_open(&self) -> Result<(), Error> {
        if let Some(kind) = self.write_failed {
            return Err(Error::Io(kind.into()));
        }
        if self.phase == Phase::Open { Ok(()) } else { Err(SendError::Closing.into()) }
    }

    /// Takes a message, whatever waits already.
    pub(crate) fn queue(&mut self, message: Message) -> Result<(), Error> {
        self.check_open()?;
        let Self { codec, config, deflate, output, transport, .. } = self;
        let len = message.len();
        if let (Some(deflate), Some(settings)) = (deflate, config.compression)
            && len >= settings.threshold
        {
            deflate.send(
                settings.level,
                codec,
                message.as_codec(),
                &mut ThreadMasks,
                output.encoded(),
            )?;
        } else if len < SHARED_LEN || !transport.is_write_vectored() {
            codec.send(message.as_codec(), &mut ThreadMasks, output.encoded())?;
        } else {
            self.queue_shared(message)?;
        }
        Ok(())
    }

    /// Takes a message without a copy: a client's if nobody else has it, since it is masked where it lies.
    fn queue_shared(&mut self, message: Message) -> Result<(), SendError> {
        let Self { codec, output, .. } = self;
        let opcode = if message.is_text() { OpCode::Text } else { OpCode::Binary };
        let len = message.len() as u64;
        match codec.role() {
            Role::Server => {
                FrameHeader::new(opcode, true, None, len).encode(output.encoded());
                output.push(message.into_bytes());
            }
            Role::Client => match message.into_bytes().try_into_mut() {
                Ok(mut payload) => {
                    let key = ThreadMasks.next_mask();
                    mask::mask(&mut payload, key);
                    FrameHeader::new(opcode, true, Some(key), len).encode(output.encoded());
                    output.push(payload.freeze());
                }
                Err(payload) => {
                    let key = ThreadMasks.next_mask();
                    let encoded = output.encoded();
                    FrameHeader::new(opcode, true, Some(key), len).encode(encoded);
                    mask::mask_extend(encoded, &payload, key, 0);
                }
            },
        }
        Ok(())
    }

    /// Writes what waits.
    fn poll_write_as(&mut self, side: Side, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        if let Some(kind) = self.write_failed {
            return Poll::Ready(Err(Error::Io(kind.into())));
        }
        if self.output.is_empty() {
            return Poll::Ready(Ok(()));
        }
        self.needs_flush = true;
        let Self { output, transport, waiting, .. } = self;
        let poll = |cx: &mut Context<'_>| output.poll_write(transport, cx);
        let written = ready!(waiting.poll(side, Direction::Write, cx, poll));
        Poll::Ready(self.note_failure(written))
    }

    /// Writes what waits, and has the transport send it.
    pub(super) fn poll_flush_as(
        &mut self,
        side: Side,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Error>> {
        ready!(self.poll_write_as(side, cx))?;
        if self.needs_flush {
            let Self { transport, waiting, .. } = self;
            let mut transport = Pin::new(transport);
            let poll = |cx: &mut Context<'_>| transport.as_mut().poll_flush(cx);
            let flushed = ready!(waiting.poll(side, Direction::Write, cx, poll));
            self.note_failure(flushed)?;
            self.needs_flush = false;
        }
        Poll::Ready(Ok(()))
    }

    /// After a failure nothing more is written. What the peer has said before is still received.
    fn note_failure(&mut self, result: std::io::Result<()>) -> Result<(), Error> {
        result.map_err(|error| {
            self.write_failed = Some(error.kind());
            self.output.clear();
            Error::Io(error)
        })
    }
}
