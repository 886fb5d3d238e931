//! What messages say.

use std::path::Path;

use anyhow::Context as _;
use clap::ValueEnum;
use fastrand::Rng;
use serde::Serialize;

use crate::texts::Text;

/// The value of `--payload`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(into = "&'static str")]
pub(crate) enum Payload {
    /// Random bytes; with --text, random small letters.
    #[default]
    Noise,
    /// Text: a feed of small objects in JSON.
    Json,
    /// Text: random letters and digits, which compress to three quarters at best.
    Letters,
    /// What is in a file, and all messages are the same.
    #[value(skip)]
    File(&'static [u8]),
}

impl Payload {
    /// So many payloads of `len` bytes; noise is letters where it has to be text.
    pub(crate) fn make(self, len: usize, is_text: bool, count: usize) -> Vec<Vec<u8>> {
        let text = match self {
            Self::Noise => return noise(len, is_text, count),
            Self::File(bytes) => return vec![bytes.to_vec(); count],
            Self::Json => Text::Json,
            Self::Letters => Text::Letters,
        };
        text.texts(len, count).into_iter().map(String::into_bytes).collect()
    }

    /// Whether it can only be text.
    pub(crate) fn is_text(self) -> bool {
        match self {
            Self::Noise => false,
            Self::Json | Self::Letters => true,
            Self::File(bytes) => std::str::from_utf8(bytes).is_ok(),
        }
    }

    /// What is in a file, for as long as the program runs.
    ///
    /// # Errors
    /// When it cannot be read.
    pub(crate) fn read(file: &Path) -> anyhow::Result<Self> {
        let bytes = std::fs::read(file);
        let bytes = bytes.with_context(|| format!("cannot read {}", file.display()))?;
        Ok(Self::File(Vec::leak(bytes)))
    }

    /// How long it is, where nobody else says.
    pub(crate) fn len(self) -> Option<usize> {
        if let Self::File(bytes) = self { Some(bytes.len()) } else { None }
    }
}

impl std::fmt::Display for Payload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str((*self).into())
    }
}

impl From<Payload> for &'static str {
    fn from(payload: Payload) -> Self {
        match payload {
            Payload::Noise => "noise",
            Payload::Json => "json",
            Payload::Letters => "letters",
            Payload::File(_) => "file",
        }
    }
}

/// Bytes without a period that the masking key or a compressor could exploit.
fn noise(len: usize, is_text: bool, count: usize) -> Vec<Vec<u8>> {
    let mut random = Rng::with_seed(1);
    let mut next = || if is_text { random.u8(b'a'..=b'z') } else { random.u8(..) };
    let message = |_| std::iter::repeat_with(&mut next).take(len).collect();
    (0..count).map(message).collect()
}
