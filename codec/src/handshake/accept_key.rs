//! The proof that a server has understood the handshake (RFC 6455 §4.2.2).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha1::{Digest as _, Sha1};

/// What the key is joined with (RFC 6455 §1.3).
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// The value of Sec-WebSocket-Accept for a value of Sec-WebSocket-Key (RFC 6455 §4.2.2).
///
/// ```
/// let accept = ringwire_codec::handshake::accept_key(b"dGhlIHNhbXBsZSBub25jZQ==");
/// assert_eq!(&accept, b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
/// ```
#[must_use]
pub fn accept_key(key: &[u8]) -> [u8; 28] {
    let digest = Sha1::new().chain_update(key).chain_update(GUID).finalize();
    encode(digest.as_slice())
}

/// The value of Sec-WebSocket-Key for a nonce (RFC 6455 §4.1).
pub(super) fn key_of(nonce: [u8; 16]) -> [u8; 24] {
    encode(&nonce)
}

/// Whether this is a value that Sec-WebSocket-Key may have: 16 bytes in Base64 (RFC 6455 §4.2.1).
pub(super) fn is_key(value: &[u8]) -> bool {
    // 16 bytes are 21 digits and one whose lower four bits say nothing, so any digit will do there.
    let Some(digits) = value.strip_suffix(b"==") else { return false };
    digits.len() == 22
        && digits.iter().all(|&c| c.is_ascii_alphanumeric() || matches!(c, b'+' | b'/'))
}

/// Base64 of as many bytes as `LEN` digits stand for.
fn encode<const LEN: usize>(bytes: &[u8]) -> [u8; LEN] {
    let mut digits = [0; LEN];
    let written = STANDARD.encode_slice(bytes, &mut digits);
    debug_assert_eq!(written, Ok(LEN), "the callers' lengths are constants that fit");
    digits
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc_6455_sample() {
        // RFC 6455 §1.3
        assert_eq!(key_of(*b"the sample nonce"), *b"dGhlIHNhbXBsZSBub25jZQ==");
        assert_eq!(accept_key(b"dGhlIHNhbXBsZSBub25jZQ=="), *b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn keys() {
        assert!(is_key(b"dGhlIHNhbXBsZSBub25jZQ=="));
        assert!(is_key(b"++++////0000AAAAzzzz9Z=="));
        for wrong in [
            "",
            "==",
            "dGhlIHNhbXBsZSBub25jZQ",
            "dGhlIHNhbXBsZSBub25jZQ=",
            "dGhlIHNhbXBsZSBub25jZ===",
            "dGhlIHNhbXBsZSBub25jZQ== ",
            "dGhlIHNhbXBsZSBub25jZQA==",
            "dGhlIHNhbXBsZSBub25jZ==",
            "dGhlIHNhbXBsZSBub25j Q==",
            "dGhlIHNhbXBsZSBub25j-Q==",
        ] {
            assert!(!is_key(wrong.as_bytes()), "{wrong}");
        }
    }
}
