//! A table that grows by chunks and never moves what is in it.

/// Entries of a chunk. A table of a million entries has about a thousand chunks.
const CHUNK_LEN: usize = 1 << CHUNK_BITS;
const CHUNK_BITS: u32 = 10;

/// A vector of `T` in chunks: an index stays valid, growing copies nothing but the list of chunks.
#[derive(Debug)]
pub(crate) struct Chunked<T> {
    chunks: Vec<Box<[T]>>,
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
        self.chunks.len() * CHUNK_LEN * size_of::<T>()
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
        while self.chunks.len() <= chunk {
            self.chunks.push((0..CHUNK_LEN).map(|_| T::default()).collect());
        }
        &mut self.chunks[chunk][offset]
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
        assert_eq!(table.get(200_000), None);
    }
}
