//! What the user wants to send, and what the protocol owes.

use super::{Connection, MaskSource, Role};
use crate::frame::{MAX_CONTROL_LEN, MAX_HEADER_LEN};
use crate::{CloseCode, CloseState, FrameHeader, Message, OpCode, SendError, buffers, mask};

/// The longest reason of a close frame, in bytes: the payload less the code (RFC 6455 §5.5.1).
const MAX_REASON_LEN: usize = MAX_CONTROL_LEN - 2;

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
        if self.sending_text.is_some() {
            return Err(SendError::MessageUnderWay);
        }
        self.write_frame(opcode_of(message), true, message.as_bytes(), masks, out);
        Ok(())
    }

    /// Appends one fragment of a message to `out` (RFC 6455 §5.4). The first one begins the message,
    /// one with `fin` ends it; control frames may be sent in between.
    ///
    /// # Errors
    ///
    /// [`SendError::Closing`] unless the connection is open, [`SendError::KindMismatch`] if the
    /// fragment is text and the message is not, or the other way round.
    pub fn send_fragment(
        &mut self,
        fragment: Message<'_>,
        fin: bool,
        masks: &mut impl MaskSource,
        out: &mut Vec<u8>,
    ) -> Result<(), SendError> {
        self.check_open()?;
        let opcode = match self.sending_text {
            None => opcode_of(fragment),
            Some(is_text) if is_text == fragment.is_text() => OpCode::Continuation,
            Some(_) => return Err(SendError::KindMismatch),
        };
        self.sending_text = if fin { None } else { Some(fragment.is_text()) };
        self.write_frame(opcode, fin, fragment.as_bytes(), masks, out);
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

#[inline]
const fn opcode_of(message: Message<'_>) -> OpCode {
    match message {
        Message::Text(_) => OpCode::Text,
        Message::Binary(_) => OpCode::Binary,
    }
}
