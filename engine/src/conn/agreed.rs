//! What a connection and its peer have agreed on for compression (RFC 7692 §7.1).

use ringwire_codec::deflate::WindowBits;

/// The window of the compressor for what goes out, and who refers back to earlier messages: one byte, as every
/// connection has it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct AgreedDeflate(u8);

/// A size of window takes the lower bits; 0 for none.
const WINDOW: u8 = 0x0f;
const OWN_COMPRESSOR: u8 = 0x40;
const OWN_DECOMPRESSOR: u8 = 0x80;

impl AgreedDeflate {
    pub(crate) fn new(window: WindowBits) -> Self {
        Self(window.get())
    }

    /// With a decompressor set aside, since the peer may refer back.
    pub(crate) fn with_own_decompressor(self, own: bool) -> Self {
        Self(if own { self.0 | OWN_DECOMPRESSOR } else { self.0 & !OWN_DECOMPRESSOR })
    }

    /// With a compressor of its own, since what goes out may refer back.
    pub(crate) fn with_own_compressor(self, own: bool) -> Self {
        Self(if own { self.0 | OWN_COMPRESSOR } else { self.0 & !OWN_COMPRESSOR })
    }

    /// The smallest, where nothing was agreed on.
    #[inline]
    pub(crate) fn window(self) -> WindowBits {
        WindowBits::new(self.0 & WINDOW).unwrap_or(WindowBits::MIN)
    }

    #[inline]
    pub(crate) fn has_own_compressor(self) -> bool {
        self.0 & OWN_COMPRESSOR != 0
    }

    #[inline]
    pub(crate) fn has_own_decompressor(self) -> bool {
        self.0 & OWN_DECOMPRESSOR != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_byte_holds_window_and_both_takeovers() {
        for bits in 9..=15 {
            let window = WindowBits::new(bits).unwrap();
            for (compressor, decompressor) in
                [(false, false), (false, true), (true, false), (true, true)]
            {
                let agreed = AgreedDeflate::new(window)
                    .with_own_compressor(compressor)
                    .with_own_decompressor(decompressor);
                assert_eq!(agreed.window(), window);
                assert_eq!(agreed.has_own_compressor(), compressor);
                assert_eq!(agreed.has_own_decompressor(), decompressor);
                let without = agreed.with_own_compressor(false).with_own_decompressor(false);
                assert_eq!(without, AgreedDeflate::new(window));
            }
        }
        assert_eq!(size_of::<AgreedDeflate>(), 1);
    }
}
