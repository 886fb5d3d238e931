//! How requests are named to the kernel: what they do and for whom, in the 64 bits of `user_data`.
//!
//! ```text
//! 63    60 59                     32 31                      0
//! ┌───────┬─────────────────────────┬────────────────────────┐
//! │ kind  │ slot, or listener       │ generation             │
//! └───────┴─────────────────────────┴────────────────────────┘
//! ```

use crate::driver::{ListenerId, MAX_SLOT, Token};

const SLOT_SHIFT: u32 = 32;
const KIND_SHIFT: u32 = 60;

/// What a completion is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Name {
    Receive(Token),
    Send(Token),
    Accept(ListenerId),
    /// The read of the eventfd.
    Wake,
    /// A cancellation; what it cancelled speaks for itself.
    Cancel,
}

impl Name {
    #[inline]
    pub(super) fn encode(self) -> u64 {
        let (kind, slot, generation) = match self {
            Self::Cancel => (0, 0, 0),
            Self::Receive(token) => (1, token.slot, token.generation),
            Self::Send(token) => (2, token.slot, token.generation),
            Self::Accept(listener) => (3, listener.0, 0),
            Self::Wake => (4, 0, 0),
        };
        (kind << KIND_SHIFT) | (u64::from(slot & MAX_SLOT) << SLOT_SHIFT) | u64::from(generation)
    }

    #[inline]
    pub(super) fn decode(user_data: u64) -> Self {
        #[expect(clippy::cast_possible_truncation, reason = "takes it apart")]
        let (slot, generation) = ((user_data >> SLOT_SHIFT) as u32 & MAX_SLOT, user_data as u32);
        let token = Token { slot, generation };
        match user_data >> KIND_SHIFT {
            1 => Self::Receive(token),
            2 => Self::Send(token),
            3 => Self::Accept(ListenerId(slot)),
            4 => Self::Wake,
            _ => Self::Cancel,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_back() {
        let tokens = [(0, 0), (1, u32::MAX), (MAX_SLOT, 0), (MAX_SLOT, u32::MAX)]
            .map(|(slot, generation)| Token { slot, generation });
        let mut names = vec![Name::Wake, Name::Cancel];
        for token in tokens {
            names.extend([Name::Receive(token), Name::Send(token)]);
            names.push(Name::Accept(ListenerId(token.slot)));
        }
        for name in names {
            assert_eq!(Name::decode(name.encode()), name);
        }
    }
}
