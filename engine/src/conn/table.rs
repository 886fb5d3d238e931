//! The worker's connections, by slot and generation.

use crate::base::chunked::Chunked;
use crate::conn::{Conn, Phase};
use crate::driver::{MAX_SLOT, Token};

/// A table of connections. Slots are used again, with another generation.
///
/// It is chunked, and no slab, which would be copied as it grows: with a million connections that holds a worker up.
#[derive(Debug)]
pub(crate) struct ConnTable<S> {
    slots: Chunked<Conn<S>>,
    free: Vec<u32>,
    /// Slots from here on were never used.
    end: u32,
}

impl<S> ConnTable<S> {
    pub(crate) fn new() -> Self {
        Self { slots: Chunked::new(), free: Vec::new(), end: 0 }
    }

    /// The memory of all slots that it has grown to, in bytes.
    pub(crate) fn memory_len(&self) -> usize {
        self.slots.memory_len()
    }

    /// Slots in use.
    pub(crate) fn len(&self) -> usize {
        self.end as usize - self.free.len()
    }

    /// Every slot that was ever used lies below this.
    pub(crate) fn end(&self) -> u32 {
        self.end
    }

    /// The connection that `token` names, unless it is gone.
    #[inline]
    pub(crate) fn get_mut(&mut self, token: Token) -> Option<&mut Conn<S>> {
        self.slots.get_mut(token.slot).filter(|conn| {
            conn.wire.generation == token.generation && conn.wire.phase != Phase::Vacant
        })
    }

    /// The token of the connection in a slot, if there is one.
    pub(crate) fn token(&self, slot: u32) -> Option<Token> {
        let conn = self.slots.get(slot).filter(|conn| conn.wire.phase != Phase::Vacant)?;
        Some(Token { slot, generation: conn.wire.generation })
    }

    /// Takes a slot. `None`: there are 2^28 connections.
    pub(crate) fn insert(&mut self) -> Option<(Token, &mut Conn<S>)> {
        let slot = match self.free.pop() {
            Some(slot) => slot,
            None => {
                if self.end > MAX_SLOT {
                    return None;
                }
                self.end += 1;
                self.end - 1
            }
        };
        let conn = self.slots.entry(slot);
        conn.wire.phase = Phase::Handshake;
        Some((Token { slot, generation: conn.wire.generation }, conn))
    }

    /// Frees a slot. The token names nothing from now on.
    pub(crate) fn remove(&mut self, token: Token) {
        if let Some(conn) = self.get_mut(token) {
            *conn = Conn::default();
            // The last number is none, so that one more than it is not 0.
            conn.wire.generation = (token.generation + 1) % u32::MAX;
            self.free.push(token.slot);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generations_begin_anew_before_the_last_number() {
        let mut table = ConnTable::<()>::new();
        let (mut token, conn) = table.insert().unwrap();
        token.generation = u32::MAX - 1;
        conn.wire.generation = token.generation;
        table.remove(token);
        assert_eq!(table.insert().unwrap().0, Token { slot: token.slot, generation: 0 });
    }

    #[test]
    fn a_slot_comes_back_with_another_generation() {
        let mut table = ConnTable::<()>::new();
        let first = table.insert().unwrap().0;
        let second = table.insert().unwrap().0;
        assert_ne!(first.slot, second.slot);
        assert_eq!(table.len(), 2);
        table.remove(first);
        table.remove(first);
        assert_eq!(table.len(), 1);
        assert!(table.get_mut(first).is_none());
        assert_eq!(table.token(first.slot), None);
        let third = table.insert().unwrap().0;
        assert_eq!(third.slot, first.slot);
        assert_ne!(third.generation, first.generation);
        assert_eq!(table.token(third.slot), Some(third));
        assert_eq!(table.end(), 2);
    }
}
