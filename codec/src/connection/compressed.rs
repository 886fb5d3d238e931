//! Compressed frames in, events out (RFC 7692 §6.2).

use super::assembly::Assembly;
use super::cut::Frame;
use super::inflating::{Inflating, PART_LEN};
use super::{Connection, Received};
use crate::deflate::Inflate;
use crate::utf8::Mask;
use crate::{Buffers, Config, Error, Event, FrameHeader, InflatedPart, Input, Limit, OpCode, mask};

impl Connection {
    pub(super) fn begin_compressed<'b, B: Buffers>(
        &mut self,
        header: &FrameHeader,
        config: &Config,
        buffers: &mut B,
        inflate: &mut Inflate<'_>,
        input: &mut Input<'b>,
    ) -> Received<'b> {
        let is_text = header.opcode == OpCode::Text;
        let mut inflating =
            if self.streaming { Inflating::parts(is_text) } else { Inflating::whole(is_text) };
        if !self.streaming
            && header.fin
            && let Ok(len) = usize::try_from(header.payload_len)
            && len <= input.len()
        {
            if header.payload_len > inflating.max_compressed_len(config) {
                return Err(Error::LimitExceeded(Limit::MessageLen));
            }
            let payload = input.take(len);
            if let Some(key) = header.masking_key {
                mask::mask(payload, key);
            }
            return match inflating.take(payload, true, config, buffers, inflate) {
                Ok(()) => Ok(Some(Event::Message(inflating.finish(buffers)?))),
                Err(error) => {
                    inflating.give_back(buffers);
                    Err(error)
                }
            };
        }
        let mut message = Assembly::compressed(inflating);
        message.charge(header, config)?;
        let progress = self.progress.get_or_insert_default();
        progress.message = Some(message);
        progress.frame = Some(Frame::new(header));
        self.receive_compressed(config, buffers, inflate, input)
    }

    /// Takes what the input holds of the frame of a compressed message that is under way; in parts,
    /// as much as makes one.
    pub(super) fn receive_compressed<'b, B: Buffers>(
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
        let Some(inflating) = message.inflating() else { return Ok(None) };
        let len = frame.share_of(input.len());
        let ends = frame.fin && len as u64 == frame.missing_len();
        let piece = input.peek_mut(len);
        let masked = frame.mask();
        unmask(piece, masked, 0);

        let (used, part) = if inflating.is_in_parts() {
            let mut buffer = buffers.take(PART_LEN);
            buffer.clear();
            let used = match inflating.take_part(piece, ends, config, inflate, &mut buffer) {
                Ok(used) => used,
                Err(error) => {
                    buffers.give(buffer);
                    return Err(error);
                }
            };
            // What is left comes again, as it has arrived.
            unmask(piece, masked, used);
            match inflating.part(buffer, ends && used == len) {
                Ok(part) => (used, Some(part)),
                Err(buffer) => {
                    buffers.give(buffer);
                    (used, None)
                }
            }
        } else {
            inflating.take(piece, ends, config, buffers, inflate)?;
            (len, None)
        };
        frame.advance(used);
        input.take(used);
        if !frame.is_complete() {
            return Ok(part.map(Event::InflatedPart));
        }
        progress.frame = None;
        if !ends {
            return Ok(part.map(Event::InflatedPart));
        }
        self.end_compressed(part, config, buffers)
    }

    fn end_compressed<'b, B: Buffers>(
        &mut self,
        part: Option<InflatedPart>,
        config: &Config,
        buffers: &mut B,
    ) -> Received<'b> {
        let Some(message) = self.progress.take().and_then(|progress| progress.message) else {
            return Ok(None);
        };
        let empty_count = message.empty_count();
        let Some(inflating) = message.into_inflating() else { return Ok(None) };
        let event = match part {
            Some(part) => Event::InflatedPart(part),
            None => Event::Message(inflating.finish(buffers)?),
        };
        self.count_control(empty_count, config).map(|()| Some(event))
    }
}

/// Unmasks a piece from `from` on; a second time, it masks it.
fn unmask(piece: &mut [u8], masked: Option<Mask>, from: usize) {
    if let (Some(Mask { key, offset }), Some(rest)) = (masked, piece.get_mut(from..)) {
        mask::mask_from(rest, key, offset + from);
    }
}
