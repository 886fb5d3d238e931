//! What the user wants to send, and what the protocol owes.

use super::{Connection, Sending};
use crate::close::MAX_REASON_LEN;
use crate::deflate::Compressor;
use crate::frame::{MAX_CONTROL_LEN, MAX_HEADER_LEN};
use crate::{
    CloseCode, CloseState, FrameHeader, MaskSource, Message, OpCode, Role, SendError, buffers, mask,
};

const _: () = assert!(MAX_REASON_LEN == MAX_CONTROL_LEN - size_of::<u16>());

impl Connection {
    /// Appends a message, as one frame, to `out`.
    ///
    /// # Errors
    ///
    /// [`SendError::Closing`] unless the connection is open, [`SendError::MessageUnderWay`] while a
    /// fragmented message is being sent.
    #[inline]
    pub fn send(
        &mut self,
        message: Message<'_>,
        masks: &mut impl MaskSource,
        out: &mut Vec<u8>,
    ) -> Result<(), SendError> {
        self.check_open()?;
        self.check_at_rest()?;
        self.write_frame(opcode_of(message), true, message.as_bytes(), masks, out);
        Ok(())
    }

    /// Appends the header of a message to `out` (RFC 6455 §5.2). The payload has to follow on the wire as it is, from
    /// wherever it lies: for long messages that are not to be copied.
    ///
    /// # Errors
    ///
    /// As [`send`](Self::send).
    ///
    /// # Panics
    ///
    /// In a client, whose payloads are masked (RFC 6455 §5.3).
    pub fn send_header(
        &mut self,
        message: Message<'_>,
        out: &mut Vec<u8>,
    ) -> Result<(), SendError> {
        assert_eq!(self.role, Role::Server, "a client masks its payloads");
        self.check_open()?;
        self.check_at_rest()?;
        let payload_len = message.as_bytes().len() as u64;
        FrameHeader::new(opcode_of(message), true, None, payload_len).encode(out);
        Ok(())
    }

    /// Appends one fragment of a message to `out` (RFC 6455 §5.4). The first one begins the message,
    /// one with `fin` ends it; control frames may be sent in between.
    ///
    /// # Errors
    ///
    /// [`SendError::Closing`] unless the connection is open, [`SendError::KindMismatch`] if the
    /// fragment is text and the message is not, or the other way round, or if the message is
    /// compressed.
    pub fn send_fragment(
        &mut self,
        fragment: Message<'_>,
        fin: bool,
        masks: &mut impl MaskSource,
        out: &mut Vec<u8>,
    ) -> Result<(), SendError> {
        self.check_open()?;
        let opcode = self.begin_fragment(fragment, fin, false)?;
        self.write_frame(opcode, fin, fragment.as_bytes(), masks, out);
        Ok(())
    }

    /// Appends a message to `out`, as one frame, compressed (RFC 7692 §6.1); as it is, if compression
    /// makes it no shorter.
    ///
    /// Compression begins where the payload is to be, so `out` grows for a moment to what the
    /// message has uncompressed. With a compressor that has [taken
    /// over](Compressor::with_takeover) a context, messages shorter than its window go out compressed
    /// in any case: the window has advanced by them on this side, and so it must on the other. Longer
    /// ones that get no shorter go out as they are, and the context ends with them.
    ///
    /// # Errors
    ///
    /// As [`send`](Self::send), and [`SendError::DeflateNotAgreed`].
    pub fn send_compressed(
        &mut self,
        message: Message<'_>,
        compressor: &mut Compressor,
        masks: &mut impl MaskSource,
        out: &mut Vec<u8>,
    ) -> Result<(), SendError> {
        self.check_open()?;
        self.check_deflate()?;
        self.check_at_rest()?;
        let (opcode, payload) = (opcode_of(message), message.as_bytes());
        let frame = self.begin_compressed_frame(payload.len(), out);
        compressor.compress(payload, out);
        let is_shorter = frame.payload_len(out) < payload.len();
        let needs_context =
            compressor.takeover() && payload.len() < compressor.window_bits().window_len();
        if is_shorter || needs_context {
            self.end_compressed_frame(frame, opcode, true, masks, out);
        } else {
            compressor.reset();
            out.truncate(frame.begin);
            self.write_frame(opcode, true, payload, masks, out);
        }
        Ok(())
    }

    /// Appends one fragment of a compressed message to `out`: as
    /// [`send_fragment`](Self::send_fragment). All fragments of a message go this way. Each can be
    /// inflated when it arrives.
    ///
    /// # Errors
    ///
    /// As [`send_fragment`](Self::send_fragment), and [`SendError::DeflateNotAgreed`].
    pub fn send_compressed_fragment(
        &mut self,
        fragment: Message<'_>,
        fin: bool,
        compressor: &mut Compressor,
        masks: &mut impl MaskSource,
        out: &mut Vec<u8>,
    ) -> Result<(), SendError> {
        self.check_open()?;
        self.check_deflate()?;
        let opcode = self.begin_fragment(fragment, fin, true)?;
        let payload = fragment.as_bytes();
        let frame = self.begin_compressed_frame(payload.len(), out);
        compressor.compress_fragment(payload, fin, out);
        self.end_compressed_frame(frame, opcode, fin, masks, out);
        Ok(())
    }

    /// Appends a ping to `out`.
    ///
    /// # Errors
    ///
    /// [`SendError::Closing`] unless the connection is open, [`SendError::ControlTooLong`] if the
    /// payload is longer than 125 bytes.
    pub fn send_ping(
        &mut self,
        payload: &[u8],
        masks: &mut impl MaskSource,
        out: &mut Vec<u8>,
    ) -> Result<(), SendError> {
        self.send_control(OpCode::Ping, payload, masks, out)
    }

    /// Appends a pong that answers no ping to `out` (RFC 6455 §5.5.3). Pings are answered by
    /// [`poll_transmit`](Self::poll_transmit).
    ///
    /// # Errors
    ///
    /// As [`send_ping`](Self::send_ping).
    pub fn send_pong(
        &mut self,
        payload: &[u8],
        masks: &mut impl MaskSource,
        out: &mut Vec<u8>,
    ) -> Result<(), SendError> {
        self.send_control(OpCode::Pong, payload, masks, out)
    }

    /// Appends a close frame to `out`: the beginning of the close handshake, or the answer to the
    /// peer's close frame if that has arrived and is not answered yet. A pong that is owed goes
    /// first.
    ///
    /// # Errors
    ///
    /// [`SendError::Closing`] if a close frame was sent or the connection failed,
    /// [`SendError::BadCloseCode`] and [`SendError::ReasonTooLong`] for what must not be sent.
    pub fn close(
        &mut self,
        code: CloseCode,
        reason: &str,
        masks: &mut impl MaskSource,
        out: &mut Vec<u8>,
    ) -> Result<(), SendError> {
        let next = match self.close_state {
            CloseState::Open => CloseState::CloseSent,
            CloseState::CloseReceived => CloseState::Closed,
            CloseState::CloseSent | CloseState::Closed | CloseState::Failed => {
                return Err(SendError::Closing);
            }
        };
        if !code.is_sendable() {
            return Err(SendError::BadCloseCode);
        }
        if reason.len() > MAX_REASON_LEN {
            return Err(SendError::ReasonTooLong);
        }
        self.write_pong(masks, out);
        let body = [&code.get().to_be_bytes(), reason.as_bytes()].concat();
        self.write_frame(OpCode::Close, true, &body, masks, out);
        self.close_state = next;
        Ok(())
    }

    /// Whether [`poll_transmit`](Self::poll_transmit) would write something.
    #[inline]
    #[must_use]
    pub const fn wants_transmit(&self) -> bool {
        self.pong.is_some()
            || matches!(self.close_state, CloseState::CloseReceived | CloseState::Failed)
    }

    /// Appends what the protocol owes to `out`: the pong for the newest ping, the answer to the
    /// peer's close frame, the close frame after an error. Gives whether there was anything.
    #[inline]
    pub fn poll_transmit(&mut self, masks: &mut impl MaskSource, out: &mut Vec<u8>) -> bool {
        let wants = self.wants_transmit();
        if wants {
            self.write_owed(masks, out);
        }
        wants
    }

    fn write_owed(&mut self, masks: &mut impl MaskSource, out: &mut Vec<u8>) {
        self.write_pong(masks, out);
        match self.close_state {
            CloseState::Open | CloseState::CloseSent | CloseState::Closed => {}
            CloseState::CloseReceived | CloseState::Failed => {
                // RFC 6455 §5.5.1: the answer has the code it answers, or none.
                let code = self.owed_code.to_be_bytes();
                let body = if self.owed_code == 0 { &[][..] } else { &code };
                self.write_frame(OpCode::Close, true, body, masks, out);
                self.close_state = CloseState::Closed;
            }
        }
    }

    fn write_pong(&mut self, masks: &mut impl MaskSource, out: &mut Vec<u8>) {
        if let Some(pong) = self.pong.take() {
            self.write_frame(OpCode::Pong, true, pong.payload(), masks, out);
        }
    }

    fn send_control(
        &self,
        opcode: OpCode,
        payload: &[u8],
        masks: &mut impl MaskSource,
        out: &mut Vec<u8>,
    ) -> Result<(), SendError> {
        self.check_open()?;
        if payload.len() > MAX_CONTROL_LEN {
            return Err(SendError::ControlTooLong);
        }
        self.write_frame(opcode, true, payload, masks, out);
        Ok(())
    }

    #[inline]
    const fn check_open(&self) -> Result<(), SendError> {
        match self.close_state {
            CloseState::Open => Ok(()),
            _ => Err(SendError::Closing),
        }
    }

    #[inline]
    const fn check_at_rest(&self) -> Result<(), SendError> {
        match self.sending {
            Sending::Nothing => Ok(()),
            _ => Err(SendError::MessageUnderWay),
        }
    }

    const fn check_deflate(&self) -> Result<(), SendError> {
        if self.deflate { Ok(()) } else { Err(SendError::DeflateNotAgreed) }
    }

    /// The opcode of a fragment, and takes note of the message it belongs to.
    fn begin_fragment(
        &mut self,
        fragment: Message<'_>,
        fin: bool,
        compressed: bool,
    ) -> Result<OpCode, SendError> {
        let kind = match (fragment.is_text(), compressed) {
            (true, false) => Sending::Text,
            (false, false) => Sending::Binary,
            (true, true) => Sending::CompressedText,
            (false, true) => Sending::CompressedBinary,
        };
        let opcode = match self.sending {
            Sending::Nothing => opcode_of(fragment),
            sending if sending == kind => OpCode::Continuation,
            _ => return Err(SendError::KindMismatch),
        };
        self.sending = if fin { Sending::Nothing } else { kind };
        Ok(opcode)
    }

    /// Leaves room for the header of a frame whose payload follows, compressed from `len` bytes.
    fn begin_compressed_frame(&self, len: usize, out: &mut Vec<u8>) -> Begun {
        let begin = out.len();
        let key = (self.role == Role::Client).then_some([0; 4]);
        let header_len = FrameHeader::new(OpCode::Binary, true, key, len as u64).encoded_len();
        out.resize(begin + header_len, 0);
        Begun { begin, header_len }
    }

    /// Writes the header, and masks the payload.
    fn end_compressed_frame(
        &self,
        frame: Begun,
        opcode: OpCode,
        fin: bool,
        masks: &mut impl MaskSource,
        out: &mut Vec<u8>,
    ) {
        let payload_len = frame.payload_len(out);
        let key = match self.role {
            Role::Server => None,
            Role::Client => Some(masks.next_mask()),
        };
        let mut header = FrameHeader::new(opcode, fin, key, payload_len as u64);
        // RFC 7692 §6.1: on the first frame of a message alone.
        header.rsv1 = opcode != OpCode::Continuation;
        if let (Some(key), Some(payload)) = (key, out.get_mut(frame.payload_begin()..)) {
            mask::mask(payload, key);
        }
        let mut bytes = [0; MAX_HEADER_LEN];
        let header_len = header.encoded_len();
        let payload_end = out.len();
        header.encode(out);
        for (slot, byte) in bytes.iter_mut().zip(out.drain(payload_end..)) {
            *slot = byte;
        }
        // Most payloads stay where they are. Those move whose length has a shorter form compressed: up
        // to 125 bytes, or 64 KiB out of more.
        let room = frame.begin..frame.payload_begin();
        out.splice(room, bytes.into_iter().take(header_len));
    }

    #[inline]
    fn write_frame(
        &self,
        opcode: OpCode,
        fin: bool,
        payload: &[u8],
        masks: &mut impl MaskSource,
        out: &mut Vec<u8>,
    ) {
        out.reserve(MAX_HEADER_LEN + payload.len());
        let payload_len = payload.len() as u64;
        match self.role {
            Role::Server => {
                FrameHeader::new(opcode, fin, None, payload_len).encode(out);
                buffers::append(out, payload);
            }
            Role::Client => {
                let key = masks.next_mask();
                FrameHeader::new(opcode, fin, Some(key), payload_len).encode(out);
                mask::mask_extend(out, payload, key, 0);
            }
        }
    }
}

/// A frame whose payload is being written before its header.
#[derive(Debug, Clone, Copy)]
struct Begun {
    begin: usize,
    header_len: usize,
}

impl Begun {
    const fn payload_begin(self) -> usize {
        self.begin + self.header_len
    }

    fn payload_len(self, out: &[u8]) -> usize {
        out.len() - self.payload_begin()
    }
}

#[inline]
const fn opcode_of(message: Message<'_>) -> OpCode {
    match message {
        Message::Text(_) => OpCode::Text,
        Message::Binary(_) => OpCode::Binary,
    }
}
