//! The state machine of one connection, for both roles.
//!
//! Here are its state and what it says about itself; `receive.rs` takes bytes in, `send.rs` puts
//! frames out. A message that the end of a read has cut is in `assembly.rs`, its header or frame in `cut.rs`.
//! Frames that are compressed come in through `compressed.rs`, and `inflating.rs` has their message. How memory is
//! taken for that is in `buffers.rs`.

mod assembly;
mod compressed;
mod cut;
mod inflating;
mod receive;
mod send;

use crate::frame::MAX_CONTROL_LEN;
use crate::{AbnormalClosure, Buffers, CloseState, Error, Event, Role};
use assembly::Progress;

/// What comes of bytes that arrived.
type Received<'b> = Result<Option<Event<'b>>, Error>;

/// The state machine of one connection whose handshake is done.
///
/// It holds memory only while a frame, a message or an unsent pong is under way. What it still holds
/// when the connection ends is given back by [`clear`](Self::clear).
#[derive(Debug)]
pub struct Connection {
    /// A header, frame or message that has begun and not ended.
    progress: Option<Box<Progress>>,
    /// The payload of the newest ping that is not answered. Only in `Open` and `CloseReceived`.
    pong: Option<Box<Pong>>,
    /// Control frames and empty fragments in this window.
    control_count: u16,
    /// The code of the close frame that is owed in `CloseReceived` and `Failed`; 0: none.
    owed_code: u16,
    role: Role,
    close_state: CloseState,
    /// Whether messages that begin now are handed over in parts.
    streaming: bool,
    /// Whether there was an error. The state forgets it when the close frame is out.
    failed: bool,
    /// Whether permessage-deflate was agreed on.
    deflate: bool,
    sending: Sending,
}

/// The fragmented message that is being sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sending {
    Nothing,
    Text,
    Binary,
    CompressedText,
    CompressedBinary,
}

impl Connection {
    /// A connection whose handshake is done.
    #[must_use]
    pub const fn new(role: Role) -> Self {
        Self {
            progress: None,
            pong: None,
            control_count: 0,
            owed_code: 0,
            role,
            close_state: CloseState::Open,
            streaming: false,
            failed: false,
            deflate: false,
            sending: Sending::Nothing,
        }
    }

    /// Lets messages be compressed, as both ends have agreed
    /// ([`Agreement`](crate::deflate::Agreement), RFC 7692). Default: a compressed message is a
    /// violation.
    #[must_use]
    pub const fn with_deflate(mut self) -> Self {
        self.deflate = true;
        self
    }

    /// Whether messages may be compressed.
    #[inline]
    #[must_use]
    pub const fn deflate(&self) -> bool {
        self.deflate
    }

    /// Which end this is.
    #[inline]
    #[must_use]
    pub const fn role(&self) -> Role {
        self.role
    }

    /// How far the close handshake is.
    #[inline]
    #[must_use]
    pub const fn close_state(&self) -> CloseState {
        self.close_state
    }

    /// Whether a frame or a message has begun and not ended.
    #[inline]
    #[must_use]
    pub const fn is_receiving_message(&self) -> bool {
        self.progress.is_some()
    }

    /// What is still to come of the frame that is under way, in bytes, as its header has declared it. 0 between frames.
    #[must_use]
    pub fn missing_len(&self) -> u64 {
        let frame = self.progress.as_ref().and_then(|progress| progress.frame.as_ref());
        frame.map_or(0, cut::Frame::missing_len)
    }

    /// The bytes of memory that the connection holds beside itself.
    #[must_use]
    pub fn buffered_len(&self) -> usize {
        self.unfinished_len() + self.pong.as_ref().map_or(0, |_| size_of::<Pong>())
    }

    /// What of that is for a frame or message that has begun and not ended. Only [`receive`](Self::receive) and
    /// [`clear`](Self::clear) change it, so that a caller can keep a sum over many connections.
    #[inline]
    #[must_use]
    pub fn unfinished_len(&self) -> usize {
        self.progress.as_ref().map_or(0, |progress| progress.memory_len())
    }

    /// Whether messages are handed over in parts, as they arrive, instead of whole.
    ///
    /// Takes effect with the next message; one that is under way ends as it began.
    #[inline]
    pub const fn set_streaming(&mut self, streaming: bool) {
        self.streaming = streaming;
    }

    /// Whether anything has counted for the limit on control frames in this window: control frames, and the empty
    /// fragments of messages that have ended. Where nothing has, a caller need not look at its clock.
    #[inline]
    #[must_use]
    pub const fn has_counted_control(&self) -> bool {
        self.control_count > 0
    }

    /// Starts a new window for the limit on control frames
    /// ([`max_control_count`](crate::Config::max_control_count)). The caller has the clock.
    #[inline]
    pub const fn reset_control_window(&mut self) {
        self.control_count = 0;
    }

    /// Takes note that the transport has ended; the connection is closed then.
    ///
    /// # Errors
    ///
    /// If the peer had not sent its close frame, or there had been an [`Error`]: how it ended instead
    /// (RFC 6455 §7.1.5, code 1006). A peer that closes the transport without waiting for the answer
    /// to its close frame has said all there is to say, so that is no error.
    pub fn receive_eof(&mut self) -> Result<(), AbnormalClosure> {
        let state = std::mem::replace(&mut self.close_state, CloseState::Closed);
        self.pong = None;
        match state {
            _ if self.failed => Err(AbnormalClosure::AfterError),
            CloseState::Closed | CloseState::CloseReceived => Ok(()),
            CloseState::CloseSent => Err(AbnormalClosure::CloseUnanswered),
            CloseState::Open | CloseState::Failed if self.is_receiving_message() => {
                Err(AbnormalClosure::InsideMessage)
            }
            CloseState::Open | CloseState::Failed => Err(AbnormalClosure::BetweenMessages),
        }
    }

    /// Gives back all memory that the connection holds, because it ends.
    pub fn clear<B: Buffers>(&mut self, buffers: &mut B) {
        self.pong = None;
        self.drop_progress(buffers);
    }

    fn fail<B: Buffers>(&mut self, error: Error, buffers: &mut B) {
        self.failed = true;
        self.owed_code = error.close_code().get();
        // There is no second close frame.
        self.close_state = match self.close_state {
            CloseState::CloseSent | CloseState::Closed => CloseState::Closed,
            CloseState::Open | CloseState::CloseReceived | CloseState::Failed => CloseState::Failed,
        };
        self.clear(buffers);
    }

    fn drop_progress<B: Buffers>(&mut self, buffers: &mut B) {
        if let Some(progress) = self.progress.take() {
            progress.give_back(buffers);
        }
    }
}

/// The payload of a ping that is to be answered. A fixed length keeps the pointer to it thin.
#[derive(Debug)]
struct Pong {
    len: u8,
    bytes: [u8; MAX_CONTROL_LEN],
}

impl Pong {
    /// `None`: longer than a control frame may be.
    fn new(payload: &[u8]) -> Option<Box<Self>> {
        let mut bytes = [0; MAX_CONTROL_LEN];
        bytes.get_mut(..payload.len())?.copy_from_slice(payload);
        Some(Box::new(Self { len: u8::try_from(payload.len()).ok()?, bytes }))
    }

    fn payload(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.len)).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_is_small() {
        assert!(size_of::<Connection>() <= 32, "{}", size_of::<Connection>());
    }

    #[test]
    fn what_is_missing_is_what_the_header_declared_less_what_came() {
        use crate::{Config, Heap, Input};

        let mut connection = Connection::new(Role::Client);
        let mut receive = |bytes: &[u8]| {
            let mut bytes = bytes.to_vec();
            let mut input = Input::new(&mut bytes);
            while connection
                .receive(&Config::default(), &mut Heap, &mut input)
                .expect("valid frames")
                .is_some()
            {}
            connection.missing_len()
        };
        assert_eq!(receive(&[0x02, 127, 0, 0, 0]), 0, "the header is cut");
        assert_eq!(receive(&[0, 0, 1, 0, 0]), 65_536);
        assert_eq!(receive(&[7; 65_000]), 536);
        assert_eq!(receive(&[7; 536]), 0, "between two frames of a message");
        assert_eq!(receive(&[0x80, 2, 1]), 1);
        assert_eq!(receive(&[2]), 0);
    }
}
