//! Which connections a worker has open, for all threads to read: what the connections themselves are is the worker's.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::driver::{MAX_SLOT, Token};

/// Slots of the first chunk. Each of the others has twice as many as the one before.
const FIRST_LEN: u32 = 1024;
const CHUNKS: usize = (MAX_SLOT / FIRST_LEN + 1).ilog2() as usize + 1;

/// For each slot the generation of its connection and one, or 0 if none is open. The chunks never move.
#[derive(Debug, Default)]
pub(crate) struct Directory([OnceLock<Box<[AtomicU32]>>; CHUNKS]);

impl Directory {
    pub(crate) fn add(&self, token: Token) {
        let (chunk, offset) = place(token.slot);
        let slots = self.0[chunk]
            .get_or_init(|| (0..FIRST_LEN << chunk).map(|_| AtomicU32::new(0)).collect());
        slots[offset].store(token.generation.wrapping_add(1), Ordering::Relaxed);
    }

    pub(crate) fn remove(&self, slot: u32) {
        let (chunk, offset) = place(slot);
        if let Some(slots) = self.0[chunk].get() {
            slots[offset].store(0, Ordering::Relaxed);
        }
    }

    /// The first open connection in a slot from `from` on.
    pub(crate) fn next(&self, from: u32) -> Option<Token> {
        let (first, mut offset) = place(from);
        for (chunk, slots) in (0_u32..).zip(&self.0).skip(first) {
            let start = FIRST_LEN * ((1 << chunk) - 1);
            let slots = slots.get().map(|slots| &slots[offset..]).unwrap_or_default();
            for (slot, own) in (start + u32::try_from(offset).unwrap_or(0)..).zip(slots) {
                let own = own.load(Ordering::Relaxed);
                if own != 0 {
                    return Some(Token { slot, generation: own - 1 });
                }
            }
            offset = 0;
        }
        None
    }
}

/// The chunk of a slot, and the place there.
fn place(slot: u32) -> (usize, usize) {
    let chunk = (slot / FIRST_LEN + 1).ilog2();
    let start = FIRST_LEN * ((1 << chunk) - 1);
    (chunk as usize, (slot - start) as usize)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn all(directory: &Directory) -> Vec<(u32, u32)> {
        let next = |before: &Option<Token>| directory.next(before.map_or(0, |own| own.slot + 1));
        let found = std::iter::successors(directory.next(0), |own| next(&Some(*own)));
        found.map(|own| (own.slot, own.generation)).collect()
    }

    #[test]
    fn slots_of_all_chunks() {
        let directory = Directory::default();
        assert_eq!(all(&directory), []);
        let mut model = BTreeMap::new();
        // Without any in the second chunk.
        for slot in [0, 1, 1023, 3072, 3073, 7167, 7168, 100_000] {
            directory.add(Token { slot, generation: slot });
            model.insert(slot, slot);
        }
        assert_eq!(all(&directory), model.clone().into_iter().collect::<Vec<_>>());
        for slot in [0, 3073, 2000, 1_000_000] {
            directory.remove(slot);
            model.remove(&slot);
        }
        directory.add(Token { slot: 1, generation: u32::MAX - 1 });
        model.insert(1, u32::MAX - 1);
        assert_eq!(all(&directory), model.into_iter().collect::<Vec<_>>());
        assert_eq!(place(MAX_SLOT).0, CHUNKS - 1);
    }
}
