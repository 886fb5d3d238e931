//! How the codec gets memory.

use crate::{Error, Limit, mask};

/// Where the codec takes memory for what the end of a read has cut, and where it gives it back.
///
/// A buffer that was taken comes back through [`give`](Self::give) or leaves as a
/// [`ReceivedMessage`](crate::ReceivedMessage), whose `into_buffer` is how the caller gives it back.
pub trait Buffers {
    /// A buffer with at least `min_capacity` bytes of capacity; what it holds is thrown away.
    ///
    /// The codec asks for at most 16 KiB here.
    fn take(&mut self, min_capacity: usize) -> Vec<u8>;

    /// Takes a buffer back. It may be one that came from elsewhere, and of any capacity.
    fn give(&mut self, buffer: Vec<u8>);

    /// A buffer for a long message: at least `capacity` bytes, all of which count as held, or `None` if there is no
    /// memory.
    ///
    /// It is asked for only after the peer has sent 16 KiB of the message.
    fn try_take(&mut self, capacity: usize) -> Option<Vec<u8>> {
        let mut buffer = Vec::new();
        buffer.try_reserve_exact(capacity).ok()?;
        Some(buffer)
    }
}

/// The plain allocator.
#[derive(Debug, Clone, Copy, Default)]
pub struct Heap;

impl Buffers for Heap {
    fn take(&mut self, min_capacity: usize) -> Vec<u8> {
        Vec::with_capacity(min_capacity)
    }

    fn give(&mut self, buffer: Vec<u8>) {
        drop(buffer);
    }
}

/// From this many bytes on, the C library's `memcpy` leaves vectors for `rep movsb`.
const STRING_COPY_LEN: usize = 2 << 10;

/// Appends bytes as they are.
///
/// `rep movsb` is at best as fast as vectors with aligned stores, and more than twenty times slower on Zen 3 and Zen 4
/// where source and destination lie badly to each other, as payloads behind headers of different lengths do. They
/// have the flags that announce it as fast (ERMS, FSRM), so that these are nothing to choose by. A mask of zeros is a
/// copy that stays with vectors.
#[inline]
pub(crate) fn append(out: &mut Vec<u8>, bytes: &[u8]) {
    if bytes.len() < STRING_COPY_LEN {
        out.extend_from_slice(bytes);
    } else {
        mask::mask_extend(out, bytes, [0; 4], 0);
    }
}

/// What is believed of a length that a peer has declared without anything that has arrived, in bytes.
pub(crate) const BELIEVED_LEN: usize = 16 << 10;

/// The same once `received_len` bytes have arrived: anything, from so many on. What is reserved then counts as held,
/// since memory that was used before is resident whether it is written to again or not.
pub(crate) const fn believed_len(received_len: usize) -> usize {
    if received_len < BELIEVED_LEN { BELIEVED_LEN } else { usize::MAX }
}

/// The smallest buffer that a fragmented message begins with, in bytes.
pub(crate) const MIN_FRAGMENTED_LEN: usize = 1 << 10;

/// Replaces `buffer` by one of at least `capacity` bytes that holds the same.
pub(crate) fn grow<B: Buffers>(
    pool: &mut B,
    buffer: &mut Vec<u8>,
    capacity: usize,
) -> Result<(), Error> {
    debug_assert!(capacity > buffer.len());
    if buffer.capacity() > BELIEVED_LEN {
        // So long a buffer is none of the pool's, and the allocator may have room behind it.
        let more = capacity.saturating_sub(buffer.len());
        return buffer.try_reserve_exact(more).map_err(|_| Error::LimitExceeded(Limit::Memory));
    }
    let mut larger = if capacity <= BELIEVED_LEN {
        pool.take(capacity)
    } else {
        pool.try_take(capacity).ok_or(Error::LimitExceeded(Limit::Memory))?
    };
    larger.clear();
    append(&mut larger, buffer);
    let old = std::mem::replace(buffer, larger);
    if old.capacity() > 0 {
        pool.give(old);
    }
    Ok(())
}

/// Gives a buffer back, if it is one.
pub(crate) fn give_back<B: Buffers>(buffer: Vec<u8>, buffers: &mut B) {
    if buffer.capacity() > 0 {
        buffers.give(buffer);
    }
}
