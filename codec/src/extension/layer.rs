//! What stands between a connection's codec and the wire.

use super::deframer::{Deframer, Piece, TooLong};
use super::{
    DataFrame, ExtensionError, ExtensionParams, FrameTransform, ReservedBits, SharedExtension,
};
use crate::deflate::is_deflate;
use crate::head::{Extension, HandshakeError};
use crate::{CloseCode, FrameHeader, mask};

/// What extensions may add to a frame, in bytes.
const FRAME_ROOM: usize = 4 << 10;

/// The transforms of one connection. Takes frames and gives frames, which are its peer's or the codec's.
///
/// It needs whole frames, and holds what has come of one.
#[derive(Debug)]
pub struct FrameLayer {
    /// In the order in which they change what is sent, with the bits that they claim.
    transforms: Vec<(ReservedBits, Box<dyn FrameTransform>)>,
    received: Deframer,
    sent: Deframer,
    /// Bytes that are yet to be sent before the first frame.
    preamble_len: usize,
}

/// What a server answers: extensions by name, with their parameters, in order.
pub type ExtensionAnswers = Vec<(String, ExtensionParams)>;

impl FrameLayer {
    /// As a server: what is answered to the client's offers, and what then transforms the frames, if anything does. The
    /// client's order holds; an extension is accepted once, and not where another has claimed one of its reserved bits.
    pub fn accept<'b>(
        extensions: &[SharedExtension],
        offers: impl Iterator<Item = Extension<'b>>,
    ) -> (ExtensionAnswers, Option<Self>) {
        let (mut answers, mut layer) = (ExtensionAnswers::new(), Self::new());
        for offer in offers {
            let answered = |(name, _): &(String, _)| offer.is_named(name);
            let Some(extension) = find(extensions, &offer) else { continue };
            let bits = extension.reserved_bits();
            if answers.iter().any(answered) || layer.claims(bits) {
                continue;
            }
            if let Some((params, transform)) = extension.accept(offer.params()) {
                answers.push((extension.name().to_owned(), params));
                layer.transforms.push((bits, transform));
            }
        }
        (answers, layer.if_any())
    }

    /// As a client: what transforms the frames, if the server has chosen any of the extensions that were offered.
    ///
    /// # Errors
    /// [`UnofferedExtension`](HandshakeError::UnofferedExtension) for one that was not, or was chosen twice;
    /// [`UnusableExtension`](HandshakeError::UnusableExtension) if its parameters are no answer to the offer, if two
    /// have claimed the same bit, or if permessage-deflate is not the first.
    pub(crate) fn confirm<'b>(
        extensions: &[SharedExtension],
        chosen: impl Iterator<Item = Result<Extension<'b>, HandshakeError>>,
    ) -> Result<Option<Self>, HandshakeError> {
        let mut layer = Self::new();
        let mut names: Vec<&str> = Vec::new();
        for choice in chosen {
            let choice = choice?;
            if is_deflate(&choice) {
                if !names.is_empty() {
                    return Err(HandshakeError::UnusableExtension);
                }
                continue;
            }
            let extension = find(extensions, &choice).ok_or(HandshakeError::UnofferedExtension)?;
            if names.iter().any(|name| choice.is_named(name)) {
                return Err(HandshakeError::UnofferedExtension);
            }
            names.push(choice.name());
            let bits = extension.reserved_bits();
            let transform = extension.confirm(choice.params());
            match transform {
                Some(transform) if !layer.claims(bits) => layer.transforms.push((bits, transform)),
                _ => return Err(HandshakeError::UnusableExtension),
            }
        }
        Ok(layer.if_any())
    }

    fn new() -> Self {
        Self {
            transforms: Vec::new(),
            received: Deframer::default(),
            sent: Deframer::default(),
            preamble_len: 0,
        }
    }

    fn if_any(self) -> Option<Self> {
        if self.transforms.is_empty() { None } else { Some(self) }
    }

    fn claims(&self, bits: ReservedBits) -> bool {
        self.transforms.iter().any(|(claimed, _)| claimed.intersection(bits) != ReservedBits::NONE)
    }

    /// The next so many bytes to be sent are no frames yet: the rest of the handshake.
    pub fn begin_after(&mut self, len: usize) {
        self.preamble_len = len;
    }

    /// Takes frames of the codec, and appends to `out` what goes to the peer. `payload` is memory to work in.
    pub fn send(&mut self, frames: &[u8], payload: &mut Vec<u8>, out: &mut Vec<u8>) {
        let (preamble, mut frames) = frames.split_at(self.preamble_len.min(frames.len()));
        self.preamble_len -= preamble.len();
        out.extend_from_slice(preamble);
        let Self { transforms, sent, .. } = self;
        while !frames.is_empty() {
            match sent.next(&mut frames, usize::MAX) {
                Ok(Some(Piece::Data(header, masked))) => {
                    unmask(masked, &header, payload);
                    let header = transform_sent(transforms, header, payload);
                    put(header, payload, out);
                }
                Ok(Some(Piece::Other(bytes))) => out.extend_from_slice(bytes),
                // No frame is that long.
                Ok(None) | Err(TooLong) => return,
            }
            sent.advance();
        }
    }

    /// Takes bytes of the peer, and appends to `out` what goes to the codec: the same frames as they were before the
    /// peer's extensions changed them, with a mask of zeros where there was one. What is wrong with a frame itself is
    /// left to the codec to judge. A frame may be longer than `max_message_len` by an eighth, as one that is
    /// compressed, and by 4 KiB for what extensions add to it. `payload` is memory to work in.
    ///
    /// # Errors
    /// A transform refuses a frame, or one is too long (1009). What follows cannot be understood any more.
    pub fn receive(
        &mut self,
        mut bytes: &[u8],
        max_message_len: usize,
        payload: &mut Vec<u8>,
        out: &mut Vec<u8>,
    ) -> Result<(), ExtensionError> {
        let Self { transforms, received, .. } = self;
        let max_len =
            max_message_len.saturating_add(max_message_len / 8).saturating_add(FRAME_ROOM);
        while !bytes.is_empty() {
            let piece = received.next(&mut bytes, max_len).map_err(|TooLong| {
                ExtensionError::new("a frame is too long").with_code(CloseCode::MESSAGE_TOO_BIG)
            })?;
            match piece {
                Some(Piece::Data(header, masked)) => {
                    unmask(masked, &header, payload);
                    let mut header = transform_received(transforms, header, payload)?;
                    header.masking_key = header.masking_key.map(|_| [0; 4]);
                    put(header, payload, out);
                }
                Some(Piece::Other(bytes)) => out.extend_from_slice(bytes),
                None => return Ok(()),
            }
            received.advance();
        }
        Ok(())
    }

    /// Memory that it holds of frames, in bytes.
    #[must_use]
    pub fn memory_len(&self) -> usize {
        self.received.memory_len() + self.sent.memory_len()
    }
}

/// Which of the extensions is meant.
pub(crate) fn find<'a>(
    extensions: &'a [SharedExtension],
    element: &Extension<'_>,
) -> Option<&'a SharedExtension> {
    extensions.iter().find(|extension| element.is_named(extension.name()))
}

type Transforms = [(ReservedBits, Box<dyn FrameTransform>)];

fn transform_sent(
    transforms: &mut Transforms,
    mut header: FrameHeader,
    payload: &mut Vec<u8>,
) -> FrameHeader {
    for &mut (claimed, ref mut transform) in transforms {
        let mut frame = DataFrame { header, claimed, payload };
        transform.send(&mut frame);
        header = frame.header;
    }
    header
}

fn transform_received(
    transforms: &mut Transforms,
    mut header: FrameHeader,
    payload: &mut Vec<u8>,
) -> Result<FrameHeader, ExtensionError> {
    for &mut (claimed, ref mut transform) in transforms.iter_mut().rev() {
        let mut frame = DataFrame { header, claimed, payload };
        transform.receive(&mut frame)?;
        frame.set_reserved_bits(ReservedBits::NONE);
        header = frame.header;
    }
    Ok(header)
}

/// The payload of a frame, in place of what `payload` held.
fn unmask(masked: &[u8], header: &FrameHeader, payload: &mut Vec<u8>) {
    payload.clear();
    mask::mask_extend(payload, masked, header.masking_key.unwrap_or_default(), 0);
}

/// Appends a frame.
fn put(mut header: FrameHeader, payload: &[u8], out: &mut Vec<u8>) {
    header.payload_len = payload.len() as u64;
    header.encode(out);
    mask::mask_extend(out, payload, header.masking_key.unwrap_or_default(), 0);
}
