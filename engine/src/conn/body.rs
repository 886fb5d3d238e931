//! A request whose body is under way.

use ringwire_codec::http::BodyDecoder;

/// A request whose body is under way; its head is kept beside it.
#[derive(Debug)]
pub(crate) struct Incoming {
    pub(crate) decoder: BodyDecoder,
    pub(crate) content: Vec<u8>,
}

impl Incoming {
    pub(crate) fn memory_len(&self) -> usize {
        size_of::<Self>() + self.content.capacity()
    }
}
