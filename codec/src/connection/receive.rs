//! Bytes in, events out.

use std::borrow::Cow;

use super::assembly::Assembly;
use super::cut::Frame;
use super::{Connection, Pong, Received};
use crate::deflate::Inflate;
use crate::{
    Buffers, CloseCode, CloseFrame, CloseState, Config, ControlPayload, Error, Event, FrameHeader,
    Input, Limit, Message, OpCode, ReceivedMessage, Role, Violation, mask, utf8,
};

impl Connection {
    /// Takes the next event out of `input`. `None`: all of it is used, and what was cut is kept.
    ///
    /// Once the peer's close frame has arrived, or there was an error, input is thrown away.
    ///
    /// This is [`receive_with`](Self::receive_with) for connections without compression.
    ///
    /// # Errors
    ///
    /// What the peer did wrong. The connection is over then: all memory has been given back, and
    /// [`poll_transmit`](Self::poll_transmit) gives the close frame.
    #[inline]
    pub fn receive<'b, B: Buffers>(
        &mut self,
        config: &Config,
        buffers: &mut B,
        input: &mut Input<'b>,
    ) -> Received<'b> {
        self.receive_with(config, buffers, Inflate::Off, input)
    }

    /// As [`receive`](Self::receive), and inflates messages that are compressed if that was agreed on
    /// ([`with_deflate`](Self::with_deflate)). Without a decompressor, one is a violation.
    ///
    /// While a compressed message is under way, the connection holds what has been inflated of it,
    /// up to [`max_message_len`](Config::max_message_len): a peer can bring that about with about a
    /// thousandth of it. See [`Inflate`] for what else it may hold.
    ///
    /// # Errors
    ///
    /// As [`receive`](Self::receive).
    #[inline]
    pub fn receive_with<'b, B: Buffers>(
        &mut self,
        config: &Config,
        buffers: &mut B,
        inflate: Inflate<'_>,
        input: &mut Input<'b>,
    ) -> Received<'b> {
        if input.is_empty() {
            return Ok(None);
        }
        // Nearly always: a whole message of one frame, and nothing else under way.
        if self.is_at_rest()
            && let Some((first, payload)) =
                take_short_message(self.role, config.max_message_len, input)
        {
            return match whole_message(first & 1 == 1, payload) {
                Ok(message) => Ok(Some(Event::Message(message))),
                Err(error) => self.failed_with(error, buffers),
            };
        }
        self.receive_any(config, buffers, inflate, input)
    }

    /// Whether a data frame would begin a message that is to be handed over whole.
    #[inline]
    fn is_at_rest(&self) -> bool {
        self.close_state == CloseState::Open && !self.streaming && self.progress.is_none()
    }

    #[cold]
    fn failed_with<'b, B: Buffers>(&mut self, error: Error, buffers: &mut B) -> Received<'b> {
        self.fail(error, buffers);
        Err(error)
    }

    #[inline(never)]
    fn receive_any<'b, B: Buffers>(
        &mut self,
        config: &Config,
        buffers: &mut B,
        mut inflate: Inflate<'_>,
        input: &mut Input<'b>,
    ) -> Received<'b> {
        loop {
            match self.close_state {
                CloseState::Open | CloseState::CloseSent => {}
                CloseState::CloseReceived | CloseState::Closed | CloseState::Failed => {
                    input.take_all();
                    return Ok(None);
                }
            }
            match self.receive_step(config, buffers, &mut inflate, input) {
                Ok(None) if !input.is_empty() => {}
                Err(error) => return self.failed_with(error, buffers),
                received => return received,
            }
        }
    }

    /// Goes on with the frame that is under way, or begins one.
    fn receive_step<'b, B: Buffers>(
        &mut self,
        config: &Config,
        buffers: &mut B,
        inflate: &mut Inflate<'_>,
        input: &mut Input<'b>,
    ) -> Received<'b> {
        let frame = self.progress.as_ref().and_then(|progress| progress.frame.as_ref());
        match frame.map(|frame| frame.opcode.is_control()) {
            Some(true) => self.receive_cut_control(config, buffers, input),
            Some(false) => self.receive_data(config, buffers, inflate, input),
            None => {
                let Some(header) = self.receive_header(input)? else { return Ok(None) };
                self.check_header(&header, inflate).map_err(Error::PeerMisbehaved)?;
                if header.opcode.is_control() {
                    self.begin_control(&header, config, buffers, input)
                } else if header.rsv1 && self.close_state == CloseState::Open {
                    self.begin_compressed(&header, config, buffers, inflate, input)
                } else {
                    self.begin_data(&header, config, buffers, inflate, input)
                }
            }
        }
    }

    fn receive_header(&mut self, input: &mut Input<'_>) -> Result<Option<FrameHeader>, Error> {
        let is_cut = self.progress.as_ref().is_some_and(|progress| !progress.header.is_empty());
        if !is_cut {
            if let Some((header, len)) = FrameHeader::parse(input.remaining())? {
                input.take(len);
                return Ok(Some(header));
            }
            if input.is_empty() {
                return Ok(None);
            }
        }
        let progress = self.progress.get_or_insert_default();
        let Some(header) = progress.header.complete(input)? else { return Ok(None) };
        if progress.is_empty() {
            self.progress = None;
        }
        Ok(Some(header))
    }

    /// The rules that a header is under because of who sends it, what was agreed, and what came
    /// before.
    const fn check_header(
        &self,
        header: &FrameHeader,
        inflate: &Inflate<'_>,
    ) -> Result<(), Violation> {
        if header.has_reserved_bits() {
            // RFC 7692 §6.1: the first frame of a message says with RSV1 that it is compressed.
            let is_compressed = header.rsv1
                && !header.rsv2
                && !header.rsv3
                && matches!(header.opcode, OpCode::Text | OpCode::Binary);
            let agreed = self.deflate && !matches!(inflate, Inflate::Off);
            if !is_compressed || !agreed {
                return Err(Violation::ReservedBits);
            }
        }
        match (self.role, header.masking_key) {
            (Role::Server, None) => return Err(Violation::UnmaskedClientFrame),
            (Role::Client, Some(_)) => return Err(Violation::MaskedServerFrame),
            (Role::Server, Some(_)) | (Role::Client, None) => {}
        }
        let in_message = match &self.progress {
            Some(progress) => progress.message.is_some(),
            None => false,
        };
        match header.opcode {
            OpCode::Continuation if !in_message => Err(Violation::ContinuationWithoutStart),
            OpCode::Text | OpCode::Binary if in_message => Err(Violation::MessageInsideMessage),
            _ => Ok(()),
        }
    }

    fn begin_data<'b, B: Buffers>(
        &mut self,
        header: &FrameHeader,
        config: &Config,
        buffers: &mut B,
        inflate: &mut Inflate<'_>,
        input: &mut Input<'b>,
    ) -> Received<'b> {
        // What is compressed comes here only to be dropped, and is not inflated for it.
        let is_text = header.opcode == OpCode::Text && !header.rsv1;
        if self.is_at_rest() {
            let mut message = Assembly::whole(is_text);
            message.charge(header, config)?;
            if header.fin
                && let Ok(len) = usize::try_from(header.payload_len)
                && len <= input.len()
            {
                let payload = Payload { bytes: input.take(len), key: header.masking_key };
                return Ok(Some(Event::Message(whole_message(is_text, payload)?)));
            }
            self.progress.get_or_insert_default().message = Some(message);
        } else {
            let dropped = self.close_state == CloseState::CloseSent;
            let streaming = self.streaming;
            let message = self.progress.get_or_insert_default().message.get_or_insert_with(|| {
                if streaming || dropped {
                    Assembly::passing(is_text, dropped)
                } else {
                    Assembly::whole(is_text)
                }
            });
            if dropped {
                message.drop_content(buffers);
            }
            message.charge(header, config)?;
        }
        self.progress.get_or_insert_default().frame = Some(Frame::new(header));
        self.receive_data(config, buffers, inflate, input)
    }

    /// Takes what the input holds of the data frame that is under way.
    fn receive_data<'b, B: Buffers>(
        &mut self,
        config: &Config,
        buffers: &mut B,
        inflate: &mut Inflate<'_>,
        input: &mut Input<'b>,
    ) -> Received<'b> {
        let Some(progress) = &mut self.progress else { return Ok(None) };
        let (Some(frame), Some(message)) = (&mut progress.frame, &mut progress.message) else {
            return Ok(None);
        };
        if self.close_state == CloseState::CloseSent {
            message.drop_content(buffers);
        }
        if message.inflating().is_some() {
            return self.receive_compressed(config, buffers, inflate, input);
        }
        let piece = input.take(frame.share_of(input.len()));
        let part = message.append(frame, piece, config, buffers)?;
        if !frame.is_complete() {
            return Ok(part.map(Event::Part));
        }
        let fin = frame.fin;
        progress.frame = None;
        if !fin {
            return Ok(part.map(Event::Part));
        }
        let Some(message) = self.progress.take().and_then(|progress| progress.message) else {
            return Ok(None);
        };
        // Empty fragments count when their message ends, so that one message of nothing else is a
        // matter of the fragment limit.
        let empty_count = message.empty_count();
        let whole = message.finish(buffers)?;
        if let Err(error) = self.count_control(empty_count, config) {
            if let Some(buffer) = whole.and_then(ReceivedMessage::into_buffer) {
                buffers.give(buffer);
            }
            return Err(error);
        }
        Ok(whole.map(Event::Message).or_else(|| part.map(Event::Part)))
    }

    fn begin_control<'b, B: Buffers>(
        &mut self,
        header: &FrameHeader,
        config: &Config,
        buffers: &mut B,
        input: &mut Input<'b>,
    ) -> Received<'b> {
        let mut frame = Frame::new(header);
        let len = usize::try_from(header.payload_len).unwrap_or(usize::MAX);
        if len <= input.len() {
            let payload = Payload { bytes: input.take(len), key: header.masking_key };
            return self.on_control(
                header.opcode,
                Cow::Borrowed(payload.unmask()),
                config,
                buffers,
            );
        }
        let piece = input.take_all();
        let mut control = Vec::with_capacity(len);
        utf8::append_unmasked(&mut control, piece, frame.advance(piece.len()));
        let progress = self.progress.get_or_insert_default();
        progress.control = control;
        progress.frame = Some(frame);
        Ok(None)
    }

    /// Takes what the input holds of the control frame that is under way.
    fn receive_cut_control<'b, B: Buffers>(
        &mut self,
        config: &Config,
        buffers: &mut B,
        input: &mut Input<'b>,
    ) -> Received<'b> {
        let Some(progress) = &mut self.progress else { return Ok(None) };
        let Some(frame) = &mut progress.frame else { return Ok(None) };
        let piece = input.take(frame.share_of(input.len()));
        utf8::append_unmasked(&mut progress.control, piece, frame.advance(piece.len()));
        if !frame.is_complete() {
            return Ok(None);
        }
        let opcode = frame.opcode;
        let payload = std::mem::take(&mut progress.control);
        progress.frame = None;
        if progress.is_empty() {
            self.progress = None;
        }
        self.on_control(opcode, Cow::Owned(payload), config, buffers)
    }

    fn on_control<'b, B: Buffers>(
        &mut self,
        opcode: OpCode,
        payload: Cow<'b, [u8]>,
        config: &Config,
        buffers: &mut B,
    ) -> Received<'b> {
        if opcode == OpCode::Close {
            return self.on_close(payload, buffers).map(|frame| Some(Event::Close(frame)));
        }
        self.count_control(1, config)?;
        if opcode == OpCode::Pong {
            return Ok(Some(Event::Pong(ControlPayload::new(payload))));
        }
        // RFC 6455 §5.5.3: only the newest ping needs an answer. After this side's close frame there
        // is none: nothing follows that frame.
        if self.close_state == CloseState::Open && config.answers_pings {
            self.pong = Pong::new(&payload);
        }
        Ok(Some(Event::Ping(ControlPayload::new(payload))))
    }

    fn on_close<'b, B: Buffers>(
        &mut self,
        body: Cow<'b, [u8]>,
        buffers: &mut B,
    ) -> Result<CloseFrame<'b>, Error> {
        let frame = parse_close(body)?;
        self.owed_code = frame.code.map_or(0, CloseCode::get);
        self.close_state = match self.close_state {
            CloseState::Open => CloseState::CloseReceived,
            _ => CloseState::Closed,
        };
        // RFC 6455 §5.5.1: no data follows, so a message under way never ends.
        self.drop_progress(buffers);
        Ok(frame)
    }

    pub(super) fn count_control(&mut self, count: u16, config: &Config) -> Result<(), Error> {
        self.control_count = self.control_count.saturating_add(count);
        if self.control_count > config.max_control_count {
            return Err(Error::LimitExceeded(Limit::ControlCount));
        }
        Ok(())
    }
}

/// The payload of a frame that arrived whole.
struct Payload<'b> {
    bytes: &'b mut [u8],
    key: Option<[u8; 4]>,
}

impl<'b> Payload<'b> {
    #[inline]
    fn unmask(self) -> &'b [u8] {
        if let Some(key) = self.key {
            mask::mask(self.bytes, key);
        }
        self.bytes
    }
}

/// Takes a whole, unfragmented message with a header of the usual kind: a 7-bit or 16-bit length in
/// its shortest form, no reserved bits, masked as it should be, within the limit. Gives the first
/// byte of the header too. `None`: the input begins with something else, and is as it was.
#[inline]
fn take_short_message<'b>(
    role: Role,
    max_len: usize,
    input: &mut Input<'b>,
) -> Option<(u8, Payload<'b>)> {
    let bytes = input.remaining();
    let (header_len, key, first, len) = match role {
        Role::Server => {
            let (&[first, second, a, b, c, d], rest) = bytes.split_first_chunk()?;
            match second {
                0x80..=0xfd => (6, Some([a, b, c, d]), first, usize::from(second & 0x7f)),
                0xfe => {
                    let (&[e, f], _) = rest.split_first_chunk()?;
                    (8, Some([c, d, e, f]), first, long_len([a, b])?)
                }
                _ => return None,
            }
        }
        Role::Client => {
            let (&[first, second], rest) = bytes.split_first_chunk()?;
            match second {
                0..=0x7d => (2, None, first, usize::from(second)),
                0x7e => (4, None, first, long_len(*rest.first_chunk()?)?),
                _ => return None,
            }
        }
    };
    // FIN with text or binary.
    if !matches!(first, 0x81 | 0x82) || len > max_len || len > bytes.len() - header_len {
        return None;
    }
    input.take(header_len);
    Some((first, Payload { bytes: input.take(len), key }))
}

/// A 16-bit length, unless it should have been a 7-bit one.
#[inline]
fn long_len(bytes: [u8; 2]) -> Option<usize> {
    let len = u16::from_be_bytes(bytes);
    (len > 125).then_some(usize::from(len))
}

#[inline]
fn whole_message<'b>(is_text: bool, payload: Payload<'b>) -> Result<ReceivedMessage<'b>, Error> {
    let bytes = payload.unmask();
    Ok(ReceivedMessage::borrowed(if is_text {
        Message::Text(utf8::from_utf8(bytes)?)
    } else {
        Message::Binary(bytes)
    }))
}

fn parse_close(body: Cow<'_, [u8]>) -> Result<CloseFrame<'_>, Error> {
    let code = match (body.first_chunk(), body.len()) {
        (Some(&code), _) => CloseCode::new(u16::from_be_bytes(code)),
        (None, 0) => return Ok(CloseFrame { code: None, reason: Cow::Borrowed("") }),
        (None, _) => return Err(Error::PeerMisbehaved(Violation::HalfCloseCode)),
    };
    if !code.is_valid_on_wire() {
        return Err(Error::PeerMisbehaved(Violation::BadCloseCode));
    }
    let reason = match body {
        Cow::Borrowed(body) => Cow::Borrowed(utf8::from_utf8(body.get(2..).unwrap_or_default())?),
        Cow::Owned(body) => {
            let reason = utf8::from_utf8(body.get(2..).unwrap_or_default())?;
            Cow::Owned(reason.to_owned())
        }
    };
    Ok(CloseFrame { code: Some(code), reason })
}
