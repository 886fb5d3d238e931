//! What messages say.

use clap::ValueEnum;
use serde::Serialize;

use super::wire::Shape;
use crate::texts::Text;

/// The value of `--payload`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Payload {
    /// Random bytes; with --text, random small letters.
    #[default]
    Noise,
    /// Text: a feed of small objects in JSON.
    Json,
    /// Text: random letters and digits, which compress to three quarters at best.
    Letters,
}

impl Payload {
    /// Whether it can only be text.
    pub(crate) fn is_text(self) -> bool {
        self != Self::Noise
    }
}

impl std::fmt::Display for Payload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Noise => "noise",
            Self::Json => "json",
            Self::Letters => "letters",
        })
    }
}

/// The payloads of so many messages of `shape`.
pub(crate) fn payloads(shape: Shape, count: usize) -> Vec<Vec<u8>> {
    let text = match shape.payload {
        Payload::Noise => return noise(shape, count),
        Payload::Json => Text::Json,
        Payload::Letters => Text::Letters,
    };
    text.texts(shape.payload_len, count).into_iter().map(String::into_bytes).collect()
}

/// Bytes without a period that the masking key or a compressor could exploit.
fn noise(shape: Shape, count: usize) -> Vec<Vec<u8>> {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let [byte, ..] = state.to_be_bytes();
        if shape.text { b'a' + byte % 26 } else { byte }
    };
    let message = |_| std::iter::repeat_with(&mut next).take(shape.payload_len).collect();
    (0..count).map(message).collect()
}
