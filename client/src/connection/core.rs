//! The part of a connection that its sender and its receiver take turns with.

use std::io;
use std::time::Instant;

use ringwire_codec::extension::{ExtensionError, FrameLayer};
use ringwire_codec::{self as codec, CloseCode, Masks, Message, Role, SendError};
use ringwire_tls::Session;

use super::LINGER;
use crate::compression::Deflate;
use crate::error::{End, Error};
use crate::wire::{Wire, after, earlier};

/// Output buffers are kept up to this capacity.
const KEPT_LEN: usize = 64 << 10;

/// What was agreed on beside the protocol itself.
#[derive(Debug)]
pub(crate) struct Agreed {
    pub(crate) deflate: Option<Deflate>,
    pub(crate) layer: Option<FrameLayer>,
}

/// The protocol's state and the output. Locked for moments only, never while waiting.
#[derive(Debug)]
pub(super) struct Core {
    pub(super) codec: codec::Connection,
    pub(super) masks: Masks,
    /// What was agreed on, if anything.
    pub(super) deflate: Option<Deflate>,
    /// The extensions that were agreed on, if any.
    pub(super) layer: Option<FrameLayer>,
    pub(super) tls: Option<Session>,
    /// Frames on their way into `out`, with extensions or TLS.
    frames: Vec<u8>,
    /// The same behind the extensions, and a payload at work.
    wrapped: Vec<u8>,
    payload: Vec<u8>,
    /// Bytes for the socket; the first `sent_len` are with it already.
    pub(super) out: Vec<u8>,
    pub(super) sent_len: usize,
    /// Bytes that the socket has taken, ever.
    pub(super) sent_total: u64,
    /// The peer's close frame.
    pub(super) close: Option<(CloseCode, String)>,
    /// This side's close frame was the first.
    pub(super) closed_by_us: bool,
    /// When waiting for the peer's part of the end is over.
    pub(super) close_deadline: Option<Instant>,
    /// What went wrong, while the peer is still told about it.
    pub(super) failure: Option<End>,
    /// The socket takes no more output.
    pub(super) broken: Option<io::ErrorKind>,
    /// Invariant: once set, the socket is shut down.
    pub(super) end: Option<End>,
}

impl Core {
    /// What a connection begins with, whose handshake is done.
    pub(super) fn new(seed: [u8; 32], tls: Option<Session>, agreed: Agreed) -> Self {
        let codec = codec::Connection::new(Role::Client);
        let Agreed { deflate, layer } = agreed;
        Self {
            codec: if deflate.is_some() { codec.with_deflate() } else { codec },
            masks: Masks::new(seed),
            deflate,
            layer,
            tls,
            frames: Vec::new(),
            wrapped: Vec::new(),
            payload: Vec::new(),
            out: Vec::new(),
            sent_len: 0,
            sent_total: 0,
            close: None,
            closed_by_us: false,
            close_deadline: None,
            failure: None,
            broken: None,
            end: None,
        }
    }

    pub(super) fn pending_len(&self) -> usize {
        self.out.len() - self.sent_len
    }

    /// Whether anything more can be sent.
    pub(super) fn check(&self) -> Result<(), Error> {
        self.check_output()?;
        self.failure.as_ref().map_or(Ok(()), |failure| Err(failure.clone().into()))
    }

    /// Whether what waits already can still go out: it does so also after a failure of the peer, who is told about it.
    pub(super) fn check_output(&self) -> Result<(), Error> {
        match (&self.end, self.broken) {
            (Some(End::Closed { .. }), _) => Err(self.closing()),
            (Some(end), _) => Err(end.clone().into()),
            (None, Some(_)) if self.failure.is_some() || self.close.is_some() => {
                Err(self.closing())
            }
            (None, Some(kind)) => Err(Error::Lost(kind.into())),
            (None, None) => Ok(()),
        }
    }

    /// Why nothing more can be sent: the close frame that was the first.
    pub(super) fn closing(&self) -> Error {
        match (&self.failure, &self.close) {
            (Some(failure), _) => failure.clone().into(),
            (None, Some((code, reason))) => Error::Closed { code: *code, reason: reason.clone() },
            (None, None) => Error::Closed { code: CloseCode::NORMAL, reason: String::new() },
        }
    }

    pub(super) fn closed(&self) -> End {
        let (code, reason) =
            self.close.clone().unwrap_or_else(|| (CloseCode::NO_STATUS, String::new()));
        End::Closed { code, reason, by_us: self.closed_by_us }
    }

    /// Appends a message, compressed where that was agreed on.
    pub(super) fn encode_message(&mut self, message: Message<'_>) -> Result<(), SendError> {
        let is_layered = self.is_layered();
        let Self { codec, masks, deflate, frames, out, .. } = self;
        let out = if is_layered { frames } else { out };
        match deflate {
            Some(deflate) => deflate.send(codec, message, masks, out),
            None => codec.send(message, masks, out),
        }
    }

    /// Lets the codec append frames, which with extensions or TLS are then to be sealed.
    pub(super) fn encode<T>(
        &mut self,
        encode: impl FnOnce(&mut codec::Connection, &mut Masks, &mut Vec<u8>) -> T,
    ) -> T {
        let frames = if self.is_layered() { &mut self.frames } else { &mut self.out };
        encode(&mut self.codec, &mut self.masks, frames)
    }

    /// Whether what the codec makes is not yet what the socket gets.
    fn is_layered(&self) -> bool {
        self.tls.is_some() || self.layer.is_some()
    }

    /// Takes the frames through the extensions and TLS, if there are any.
    pub(super) fn seal(&mut self) {
        if !self.is_layered() {
            return;
        }
        let Self { frames, wrapped, payload, out, .. } = self;
        let plain = match (&mut self.layer, &self.tls) {
            (None, _) => frames,
            (Some(layer), None) => {
                layer.send(frames, payload, out);
                // All of it has gone out.
                wrapped
            }
            (Some(layer), Some(_)) => {
                layer.send(frames, payload, wrapped);
                wrapped
            }
        };
        if let Some(tls) = &mut self.tls
            && let Err(error) = tls.send(plain, out)
        {
            self.failure.get_or_insert(End::Tls(error));
            self.broken = Some(io::ErrorKind::BrokenPipe);
            self.close_deadline = earlier(self.close_deadline, after(Some(LINGER)));
        }
        for buffer in [&mut self.frames, &mut self.wrapped, &mut self.payload] {
            buffer.clear();
            buffer.shrink_to(KEPT_LEN);
        }
    }

    /// Takes received bytes, in plain text, through the extensions, if there are any.
    pub(super) fn unwrap(
        &mut self,
        bytes: &[u8],
        max_message_len: usize,
        out: &mut Vec<u8>,
    ) -> Result<(), ExtensionError> {
        match &mut self.layer {
            Some(layer) => layer.receive(bytes, max_message_len, &mut self.payload, out),
            None => {
                out.extend_from_slice(bytes);
                Ok(())
            }
        }
    }

    /// Close frames have gone both ways: close_notify, and a moment for the peer to end the stream.
    pub(super) fn say_goodbye(&mut self) {
        if let Some(tls) = &mut self.tls {
            tls.close(&mut self.out);
        }
        self.close_deadline = earlier(self.close_deadline, after(Some(LINGER)));
    }

    /// Gives the socket what it takes. If it fails, what was received may still say why.
    pub(super) fn flush(&mut self, wire: &Wire) {
        while let Some(rest) = self.out.get(self.sent_len..)
            && !rest.is_empty()
            && self.broken.is_none()
        {
            match wire.try_write(rest) {
                Ok(Some(len)) => {
                    self.sent_len += len;
                    self.sent_total += len as u64;
                }
                Ok(None) => return,
                Err(error) => self.broken = Some(error.kind()),
            }
        }
        self.out.clear();
        self.out.shrink_to(KEPT_LEN);
        self.sent_len = 0;
    }
}
