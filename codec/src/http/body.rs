//! Where a request's body ends, and what is in it (RFC 9112 §6, §7.1).

use http::StatusCode;

use crate::buffers::{append, believed_len};
use crate::head::is_token_byte;

/// The most digits that the size of a chunk may have.
const MAX_SIZE_DIGITS: u8 = 16;
/// What chunk extensions may come to in a body, beside as much as there is content.
const MAX_EXTENSIONS_LEN: u64 = 16 << 10;
/// What trailers may come to.
const MAX_TRAILERS_LEN: u64 = 16 << 10;

/// How the end of a request's body is found (RFC 9112 §6.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyFraming {
    /// By its length in bytes; no body is 0. A length beyond 64 bits is [`u64::MAX`].
    Length(u64),
    /// By its last chunk (RFC 9112 §7.1).
    Chunked,
}

/// Why a body can't be read. After it nobody knows where the next request begins, so the connection has to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum BodyError {
    /// The size of a chunk is missing, has more than 16 digits, or is followed by something other than CRLF or an
    /// extension (RFC 9112 §7.1).
    #[error("the size of a chunk is malformed (RFC 9112 §7.1)")]
    ChunkSize,
    /// A chunk extension has a control character in it (RFC 9112 §7.1.1).
    #[error("a chunk extension is malformed (RFC 9112 §7.1.1)")]
    ChunkExtension,
    /// The content of a chunk is not followed by CRLF (RFC 9112 §7.1).
    #[error("a chunk does not end with CRLF (RFC 9112 §7.1)")]
    ChunkEnd,
    /// A trailer is no header line, or does not end with CRLF (RFC 9112 §7.1.2).
    #[error("a trailer is malformed (RFC 9112 §7.1.2)")]
    Trailer,
    /// The body is longer than what is taken (RFC 9110 §15.5.14).
    #[error("the body is too long")]
    TooLong,
    /// Chunk extensions come to more than 16 KiB beside as much as there is content (RFC 9112 §7.1.1).
    #[error("the chunk extensions are too long (RFC 9112 §7.1.1)")]
    ExtensionsTooLong,
    /// The trailers come to more than 16 KiB (RFC 6585 §5).
    #[error("the trailers are too long")]
    TrailersTooLong,
}

impl BodyError {
    /// The HTTP status that this is answered with.
    #[must_use]
    pub const fn status(self) -> StatusCode {
        match self {
            Self::ChunkSize | Self::ChunkExtension | Self::ChunkEnd | Self::Trailer => {
                StatusCode::BAD_REQUEST
            }
            Self::TooLong | Self::ExtensionsTooLong => StatusCode::PAYLOAD_TOO_LARGE,
            Self::TrailersTooLong => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
        }
    }
}

/// Takes a body out of the bytes behind a head, as they trickle in, and looks at each once.
///
/// Chunk extensions are passed over and trailers are dropped, as a recipient may (RFC 9112 §7.1.1, RFC 9110 §6.5.1),
/// but a line that another recipient could read differently is an error. An error is found at the byte that causes it,
/// so it makes no difference how the bytes are cut.
#[derive(Debug, Clone)]
pub struct BodyDecoder {
    state: State,
    /// Bytes of content that may still come.
    room: u64,
    /// Bytes of chunk extensions that may still come.
    extensions_room: u64,
    /// Bytes of trailers that may still come.
    trailers_room: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// This much of a body of known length is to come.
    Content {
        left: u64,
    },
    /// The digits of a chunk's size.
    Size {
        value: u64,
        digits: u8,
    },
    /// Whitespace behind the size, which only an extension may follow.
    BeforeExtension {
        size: u64,
    },
    Extension {
        size: u64,
    },
    /// The size's line has its CR.
    SizeEnd {
        size: u64,
    },
    /// This much of a chunk is to come.
    Chunk {
        left: u64,
    },
    ChunkCr,
    ChunkLf,
    /// The beginning of a trailer, or of the blank line.
    Trailer,
    TrailerName,
    TrailerValue,
    TrailerEnd,
    /// The blank line has its CR.
    LastLf,
    Complete,
}

const _: () = assert!(size_of::<BodyDecoder>() <= 48);

impl BodyDecoder {
    /// A decoder for a body of at most `max_len` bytes.
    ///
    /// # Errors
    /// [`TooLong`](BodyError::TooLong) if that is known already.
    pub fn new(framing: BodyFraming, max_len: usize) -> Result<Self, BodyError> {
        let room = u64::try_from(max_len).unwrap_or(u64::MAX);
        let state = match framing {
            BodyFraming::Length(0) => State::Complete,
            BodyFraming::Length(len) if len > room => return Err(BodyError::TooLong),
            BodyFraming::Length(left) => State::Content { left },
            BodyFraming::Chunked => State::Size { value: 0, digits: 0 },
        };
        Ok(Self {
            state,
            room,
            extensions_room: MAX_EXTENSIONS_LEN,
            trailers_room: MAX_TRAILERS_LEN,
        })
    }

    /// Whether all of the body has come.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.state == State::Complete
    }

    /// Takes what belongs to the body from the beginning of `input`, and appends its content to `out`, which has to be
    /// the same each time. Gives how many bytes it took: all, unless the body is complete.
    ///
    /// Memory follows what has come: of a declared length no more than 16 KiB are believed before that much is there.
    ///
    /// # Errors
    /// The body is malformed or too long. The decoder is then used up.
    pub fn receive(&mut self, input: &[u8], out: &mut Vec<u8>) -> Result<usize, BodyError> {
        let mut rest = input;
        while let Some((&byte, behind)) = rest.split_first() {
            match self.state {
                State::Complete => break,
                State::Content { left } => {
                    let (taken, behind) = split(rest, left);
                    reserve_declared(out, taken.len(), left);
                    append(out, taken);
                    rest = behind;
                    let left = left.saturating_sub(taken.len() as u64);
                    self.state = if left == 0 { State::Complete } else { State::Content { left } };
                }
                State::Chunk { left } => {
                    let (taken, behind) = split(rest, left);
                    append(out, taken);
                    rest = behind;
                    self.extensions_room += taken.len() as u64;
                    let left = left.saturating_sub(taken.len() as u64);
                    self.state = if left == 0 { State::ChunkCr } else { State::Chunk { left } };
                }
                framing => {
                    self.state = self.step(framing, byte)?;
                    rest = behind;
                }
            }
        }
        Ok(input.len() - rest.len())
    }

    /// Takes a byte that frames content.
    fn step(&mut self, state: State, byte: u8) -> Result<State, BodyError> {
        match state {
            State::Size { .. }
            | State::BeforeExtension { .. }
            | State::Extension { .. }
            | State::SizeEnd { .. } => self.step_size(state, byte),
            State::ChunkCr if byte == b'\r' => Ok(State::ChunkLf),
            State::ChunkLf if byte == b'\n' => Ok(State::Size { value: 0, digits: 0 }),
            State::ChunkCr | State::ChunkLf => Err(BodyError::ChunkEnd),
            _ => self.step_trailer(state, byte),
        }
    }

    fn step_size(&mut self, state: State, byte: u8) -> Result<State, BodyError> {
        match (state, byte) {
            (State::Size { value, digits }, _) => self.step_digit(value, digits, byte),
            (State::BeforeExtension { .. }, b' ' | b'\t') => self.take_extension(state),
            (State::BeforeExtension { size }, b';') => {
                self.take_extension(State::Extension { size })
            }
            (State::BeforeExtension { .. }, _) => Err(BodyError::ChunkSize),
            (State::Extension { size }, b'\r') => Ok(State::SizeEnd { size }),
            (State::Extension { .. }, _) if is_text(byte) => self.take_extension(state),
            (State::Extension { .. }, _) => Err(BodyError::ChunkExtension),
            (State::SizeEnd { size: 0 }, b'\n') => Ok(State::Trailer),
            (State::SizeEnd { size }, b'\n') => {
                self.room = self.room.checked_sub(size).ok_or(BodyError::TooLong)?;
                Ok(State::Chunk { left: size })
            }
            _ => Err(BodyError::ChunkSize),
        }
    }

    fn step_digit(&mut self, value: u64, digits: u8, byte: u8) -> Result<State, BodyError> {
        if let Some(digit) = char::from(byte).to_digit(16) {
            if digits == MAX_SIZE_DIGITS {
                return Err(BodyError::ChunkSize);
            }
            let value = value << 4 | u64::from(digit);
            return Ok(State::Size { value, digits: digits + 1 });
        }
        match byte {
            _ if digits == 0 => Err(BodyError::ChunkSize),
            b'\r' => Ok(State::SizeEnd { size: value }),
            b';' => self.take_extension(State::Extension { size: value }),
            b' ' | b'\t' => self.take_extension(State::BeforeExtension { size: value }),
            _ => Err(BodyError::ChunkSize),
        }
    }

    fn take_extension(&mut self, next: State) -> Result<State, BodyError> {
        let room = self.extensions_room.checked_sub(1);
        self.extensions_room = room.ok_or(BodyError::ExtensionsTooLong)?;
        Ok(next)
    }

    fn step_trailer(&mut self, state: State, byte: u8) -> Result<State, BodyError> {
        let next = match (state, byte) {
            (State::Trailer, b'\r') => return Ok(State::LastLf),
            (State::LastLf, b'\n') => return Ok(State::Complete),
            (State::Trailer | State::TrailerName, _) if is_token_byte(byte) => State::TrailerName,
            (State::TrailerName, b':') => State::TrailerValue,
            (State::TrailerValue, b'\r') => State::TrailerEnd,
            (State::TrailerValue, _) if is_text(byte) => State::TrailerValue,
            (State::TrailerEnd, b'\n') => State::Trailer,
            _ => return Err(BodyError::Trailer),
        };
        self.trailers_room = self.trailers_room.checked_sub(1).ok_or(BodyError::TrailersTooLong)?;
        Ok(next)
    }
}

/// What may stand in an extension or a value: anything but control characters (RFC 9110 §5.5).
fn is_text(byte: u8) -> bool {
    byte == b'\t' || (byte >= b' ' && byte != 0x7f)
}

/// The first `len` bytes, or all if there are fewer, and the rest.
fn split(bytes: &[u8], len: u64) -> (&[u8], &[u8]) {
    let len = usize::try_from(len).unwrap_or(usize::MAX).min(bytes.len());
    bytes.split_at_checked(len).unwrap_or((bytes, &[]))
}

/// Makes room for `taken` bytes, and for as many of the `left` that were declared as there is reason to believe.
fn reserve_declared(out: &mut Vec<u8>, taken: usize, left: u64) {
    if out.capacity() - out.len() < taken {
        let left = usize::try_from(left).unwrap_or(usize::MAX);
        let len = out.len() + taken;
        let wanted = believed_len(len).min(out.len().saturating_add(left)).max(len);
        out.reserve_exact(wanted - out.len());
    }
}
