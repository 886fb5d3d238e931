//! A compressed message that arrives (RFC 7692 §6.2, §7.2.2), and what is inflated of it.

use crate::buffers::{self, Buffers, MIN_FRAGMENTED_LEN, give_back};
use crate::deflate::{Decompressor, Inflate, Inflated};
use crate::utf8::{TextBuffer, Utf8Validator};
use crate::{Config, Error, InflatedPart, Limit, ReceivedMessage, Violation};

/// The most that is kept of a compressed message as it has arrived, in bytes. A few bytes may inflate to a
/// thousand times as many, and those of a message that never ends would be held for as long as its peer likes;
/// and a shared decompressor needs it whole. Beyond it, the peer has paid for what it inflates to.
const MAX_HELD_LEN: usize = 64 << 10;

/// The length of a part, in bytes.
pub(super) const PART_LEN: usize = 16 << 10;

/// A compressed message that has begun and not ended.
#[derive(Debug)]
pub(super) struct Inflating {
    content: Content,
    compressed_len: u64,
    inflated_len: u64,
    /// What has arrived and waits for the end of the message.
    held: Vec<u8>,
    /// Made for this message, where there is only a shared one.
    own: Option<Box<Decompressor>>,
}

/// Where what is inflated goes.
#[derive(Debug)]
enum Content {
    Text(TextBuffer),
    Binary(Vec<u8>),
    /// To the caller, in parts; `Some`: it is text.
    Parts {
        text: Option<Utf8Validator>,
        is_first: bool,
    },
}

impl Default for Inflating {
    fn default() -> Self {
        Self::whole(false)
    }
}

impl Inflating {
    /// A message to be handed over whole.
    pub(super) const fn whole(is_text: bool) -> Self {
        Self::new(if is_text {
            Content::Text(TextBuffer::new())
        } else {
            Content::Binary(Vec::new())
        })
    }

    /// A message to be handed over in parts.
    pub(super) fn parts(is_text: bool) -> Self {
        let text = is_text.then(Utf8Validator::default);
        Self::new(Content::Parts { text, is_first: true })
    }

    const fn new(content: Content) -> Self {
        Self { content, compressed_len: 0, inflated_len: 0, held: Vec::new(), own: None }
    }

    /// The longest inflated form, in bytes.
    const fn max_len(&self, config: &Config) -> u64 {
        match self.content {
            Content::Text(_) | Content::Binary(_) => config.max_message_len as u64,
            Content::Parts { .. } => config.max_streamed_len,
        }
    }

    /// The longest compressed form, in bytes: what cannot be compressed gets a little longer.
    pub(super) const fn max_compressed_len(&self, config: &Config) -> u64 {
        let max_len = self.max_len(config);
        max_len.saturating_add(max_len / 8).saturating_add(64)
    }

    /// The bytes of memory that it holds.
    pub(super) fn memory_len(&self) -> usize {
        let content = match &self.content {
            Content::Text(text) => text.capacity(),
            Content::Binary(bytes) => bytes.capacity(),
            Content::Parts { .. } => 0,
        };
        let own = self.own.as_ref().map_or(0, |own| own.memory_len());
        size_of::<Self>() + content + self.held.capacity() + own
    }

    pub(super) fn give_back<B: Buffers>(self, buffers: &mut B) {
        give_back(self.held, buffers);
        match self.content {
            Content::Text(text) => give_back(text.into_validator().0, buffers),
            Content::Binary(bytes) => give_back(bytes, buffers),
            Content::Parts { .. } => {}
        }
    }

    /// Takes the next bytes of a message that is handed over whole.
    pub(super) fn take<B: Buffers>(
        &mut self,
        piece: &[u8],
        ends: bool,
        config: &Config,
        buffers: &mut B,
        inflate: &mut Inflate<'_>,
    ) -> Result<(), Error> {
        let may_hold = self.compressed_len == 0 && !matches!(inflate, Inflate::Off);
        if may_hold && !ends && self.held.len() + piece.len() <= MAX_HELD_LEN {
            return self.hold(piece, buffers);
        }
        let mut own = self.own.take();
        let decompressor: &mut Decompressor = match (&mut own, &mut *inflate) {
            (Some(own), _) => own,
            (None, Inflate::Off) => return Err(Error::PeerMisbehaved(Violation::ReservedBits)),
            (None, Inflate::Dedicated(dedicated)) => dedicated.get_or_insert_default(),
            (None, Inflate::Shared(shared)) if ends => {
                shared.reset();
                shared
            }
            (own @ None, Inflate::Shared(_)) => own.insert(Box::default()),
        };
        let held = std::mem::take(&mut self.held);
        let result = self
            .inflate(&held, config, buffers, decompressor)
            .and_then(|()| self.inflate(piece, config, buffers, decompressor));
        give_back(held, buffers);
        result?;
        if ends && self.compressed_len > 0 {
            decompressor.end_message()?;
        }
        self.keep(own, inflate);
        Ok(())
    }

    /// Keeps what has arrived as it is.
    fn hold<B: Buffers>(&mut self, piece: &[u8], buffers: &mut B) -> Result<(), Error> {
        let len = self.held.len() + piece.len();
        if len > self.held.capacity() {
            let doubled = self.held.capacity().saturating_mul(2).max(MIN_FRAGMENTED_LEN);
            buffers::grow(buffers, &mut self.held, len.max(doubled.min(MAX_HELD_LEN)))?;
        }
        buffers::append(&mut self.held, piece);
        Ok(())
    }

    /// Inflates all of `src` into the message.
    fn inflate<B: Buffers>(
        &mut self,
        mut src: &[u8],
        config: &Config,
        buffers: &mut B,
        decompressor: &mut Decompressor,
    ) -> Result<(), Error> {
        if src.is_empty() {
            return Ok(());
        }
        loop {
            let room = self.make_room(src.len(), config, buffers)?;
            let inflated = match &mut self.content {
                Content::Text(text) => text.inflate(decompressor, src, room)?,
                Content::Binary(bytes) => decompressor.inflate(src, room, bytes),
                Content::Parts { .. } => return Ok(()),
            };
            self.count(inflated, config)?;
            inflated.check()?;
            src = src.get(inflated.used..).unwrap_or_default();
            if inflated.produced < room {
                return Ok(());
            }
        }
    }

    /// Makes room for more of a message that is handed over whole, and gives how much: one byte at
    /// least, and never more than one byte beyond the limit.
    fn make_room<B: Buffers>(
        &mut self,
        src_len: usize,
        config: &Config,
        buffers: &mut B,
    ) -> Result<usize, Error> {
        let (len, capacity) = match &self.content {
            Content::Text(text) => (text.len(), text.capacity()),
            Content::Binary(bytes) => (bytes.len(), bytes.capacity()),
            Content::Parts { .. } => return Ok(0),
        };
        let max_capacity = config.max_message_len.saturating_add(1);
        let mut room = capacity - len;
        if room == 0 {
            // The first guess is that what has arrived inflates to four times its length; then twice
            // what there is.
            let guess = src_len.saturating_mul(4).max(MIN_FRAGMENTED_LEN);
            let wanted = guess.max(capacity.saturating_mul(2)).min(max_capacity);
            match &mut self.content {
                Content::Text(text) => text.grow(buffers, wanted)?,
                Content::Binary(bytes) => buffers::grow(buffers, bytes, wanted)?,
                Content::Parts { .. } => {}
            }
            room = wanted - len;
        }
        Ok(room.min(max_capacity - len))
    }

    /// Counts what was inflated against the limits.
    const fn count(&mut self, inflated: Inflated, config: &Config) -> Result<(), Error> {
        self.compressed_len = self.compressed_len.saturating_add(inflated.used as u64);
        self.inflated_len = self.inflated_len.saturating_add(inflated.produced as u64);
        if self.inflated_len > self.max_len(config) {
            return Err(Error::LimitExceeded(Limit::MessageLen));
        }
        let allowed = self.compressed_len.saturating_mul(config.max_inflate_ratio as u64);
        if self.inflated_len > config.inflate_ratio_floor && self.inflated_len > allowed {
            return Err(Error::LimitExceeded(Limit::InflateRatio));
        }
        Ok(())
    }

    /// The message, which has ended.
    pub(super) fn finish<B: Buffers>(
        self,
        buffers: &mut B,
    ) -> Result<ReceivedMessage<'static>, Error> {
        match self.content {
            Content::Text(text) => match text.into_text() {
                Ok(text) => Ok(ReceivedMessage::assembled_text(text)),
                Err(buffer) => {
                    give_back(buffer, buffers);
                    Err(Error::InvalidUtf8)
                }
            },
            Content::Binary(bytes) => Ok(ReceivedMessage::assembled_binary(bytes)),
            Content::Parts { .. } => Ok(ReceivedMessage::assembled_binary(Vec::new())),
        }
    }

    pub(super) const fn is_in_parts(&self) -> bool {
        matches!(self.content, Content::Parts { .. })
    }

    /// Takes the next bytes of a message that is handed over in parts: all, unless the part gets full
    /// before. Says how many.
    pub(super) fn take_part(
        &mut self,
        src: &[u8],
        ends: bool,
        config: &Config,
        inflate: &mut Inflate<'_>,
        buffer: &mut Vec<u8>,
    ) -> Result<usize, Error> {
        let mut own = self.own.take();
        let decompressor: &mut Decompressor = match (&mut own, &mut *inflate) {
            (Some(own), _) => own,
            (None, Inflate::Off) => return Err(Error::PeerMisbehaved(Violation::ReservedBits)),
            (None, Inflate::Dedicated(dedicated)) => dedicated.get_or_insert_default(),
            // Its calls are apart, and the shared one serves others in between.
            (own @ None, Inflate::Shared(_)) => own.insert(Box::default()),
        };
        let mut rest = src;
        while !src.is_empty() {
            if buffer.len() == buffer.capacity() {
                if !rest.is_empty() {
                    break;
                }
                // What the decompressor still holds has to come out now, as there may be no more input
                // to ask with: less than this.
                let result = buffer.try_reserve(PART_LEN);
                result.map_err(|_| Error::LimitExceeded(Limit::Memory))?;
            }
            let left = config.max_streamed_len.saturating_sub(self.inflated_len).saturating_add(1);
            let spare = buffer.capacity() - buffer.len();
            let room = usize::try_from(left).map_or(spare, |left| left.min(spare));
            let inflated = decompressor.inflate(rest, room, buffer);
            self.count(inflated, config)?;
            if inflated.check().is_err() {
                self.check_text(buffer)?;
                return Err(Error::InvalidDeflate);
            }
            rest = rest.get(inflated.used..).unwrap_or_default();
            if inflated.produced < room {
                break;
            }
        }
        let is_last = ends && rest.is_empty();
        let is_complete = self.check_text(buffer)?;
        if is_last && self.compressed_len > 0 {
            decompressor.end_message()?;
        }
        if is_last && !is_complete {
            return Err(Error::InvalidUtf8);
        }
        self.keep(own, inflate);
        Ok(src.len() - rest.len())
    }

    /// Keeps the decompressor that was made for this message; the shared one counts what it does.
    fn keep(&mut self, mut own: Option<Box<Decompressor>>, inflate: &mut Inflate<'_>) {
        if let (Some(own), Inflate::Shared(shared)) = (&mut own, inflate) {
            shared.add_totals(own.take_totals());
        }
        self.own = own;
    }

    /// Checks the text in a part, if it is text, and says whether it does not end inside a character.
    fn check_text(&mut self, part: &[u8]) -> Result<bool, Error> {
        let Content::Parts { text: Some(text), .. } = &mut self.content else { return Ok(true) };
        text.feed(part)?;
        Ok(text.is_complete())
    }

    /// Makes a part of what was inflated; `None`: there is nothing to hand over.
    pub(super) fn part(&mut self, buffer: Vec<u8>, is_last: bool) -> Result<InflatedPart, Vec<u8>> {
        match &mut self.content {
            Content::Parts { text, is_first } if is_last || !buffer.is_empty() => {
                let is_first = std::mem::replace(is_first, false);
                Ok(InflatedPart { buffer, is_text: text.is_some(), is_first, is_last })
            }
            _ => Err(buffer),
        }
    }
}
