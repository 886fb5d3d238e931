//! A table that grows by chunks and never moves what is in it.

/// Entries of a chunk. Its memory is taken at once and touched as it fills, so that a large one costs a small table
/// nothing; and with 12 or 96 bytes an entry it is a multiple of the 64 KiB by which allocators (mimalloc, say) give
/// out large blocks. What they leave free behind smaller ones is lost where the kernel backs memory with huge pages.
const CHUNK_LEN: usize = 1 << CHUNK_BITS;
const CHUNK_BITS: u32 = 14;

/// A vector of `T` in chunks: growing copies nothing but the list of chunks.
#[derive(Debug)]
pub(crate) struct Chunked<T> {
    /// All but the last are full.
    chunks: Vec<Vec<T>>,
}

impl<T> Default for Chunked<T> {
    fn default() -> Self {
        Self { chunks: Vec::new() }
    }
}

impl<T: Default> Chunked<T> {
    /// An empty table, which holds no memory.
    pub(crate) const fn new() -> Self {
        Self { chunks: Vec::new() }
    }

    /// The memory of its entries, in bytes.
    pub(crate) fn memory_len(&self) -> usize {
        let full = self.chunks.len().saturating_sub(1) * CHUNK_LEN;
        (full + self.chunks.last().map_or(0, Vec::len)) * size_of::<T>()
    }

    /// The entry at `index`, if the table has grown that far.
    #[inline]
    pub(crate) fn get(&self, index: u32) -> Option<&T> {
        let (chunk, offset) = split(index);
        self.chunks.get(chunk)?.get(offset)
    }

    /// The entry at `index`, if the table has grown that far.
    #[inline]
    pub(crate) fn get_mut(&mut self, index: u32) -> Option<&mut T> {
        let (chunk, offset) = split(index);
        self.chunks.get_mut(chunk)?.get_mut(offset)
    }

    /// The entry at `index`; the table grows up to it where it has to.
    pub(crate) fn entry(&mut self, index: u32) -> &mut T {
        let (chunk, offset) = split(index);
        if self.chunks.get(chunk).is_none_or(|chunk| chunk.len() <= offset) {
            self.grow(chunk, offset);
        }
        &mut self.chunks[chunk][offset]
    }

    #[cold]
    fn grow(&mut self, chunk: usize, offset: usize) {
        while self.chunks.len() <= chunk {
            if let Some(last) = self.chunks.last_mut() {
                last.resize_with(CHUNK_LEN, T::default);
            }
            self.chunks.push(Vec::with_capacity(CHUNK_LEN));
        }
        self.chunks[chunk].resize_with(offset + 1, T::default);
    }
}

#[inline]
fn split(index: u32) -> (usize, usize) {
    ((index >> CHUNK_BITS) as usize, index as usize & (CHUNK_LEN - 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grows_without_moving() {
        let mut table = Chunked::<u64>::new();
        assert_eq!(table.get(0), None);
        *table.entry(0) = 7;
        let first = std::ptr::from_ref(table.get(0).unwrap());
        for index in (0..100_000).step_by(999) {
            *table.entry(index) += u64::from(index);
        }
        assert_eq!(std::ptr::from_ref(table.get(0).unwrap()), first);
        assert_eq!(table.get(0), Some(&7));
        assert_eq!(table.get(99_900), Some(&99_900));
        assert_eq!(table.get(99_901), None);
        assert_eq!(table.memory_len(), 99_901 * 8);
        // What lies below has not changed, and none of it is dropped.
        *table.entry(50_000) += 1;
        assert_eq!(table.get(99_900), Some(&99_900));
    }
}
