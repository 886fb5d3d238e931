//! What waits to be written.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes};
use tokio::io::AsyncWrite;

use crate::buffers;

/// A payload from this many bytes on is not copied: it goes to the kernel from where it lies.
pub(crate) const SHARED_LEN: usize = 4 << 10;

/// Pieces that one vectored write takes.
const MAX_PIECES: usize = 16;

/// Bytes behind which those that were written are worth moving the rest.
const COMPACT_LEN: usize = 64 << 10;

/// Bytes that wait to be written, in order. Holds no memory when it is empty.
#[derive(Debug, Default)]
pub(crate) struct Output {
    /// Headers and short payloads.
    small: Vec<u8>,
    /// How many bytes of `small` are written.
    written: usize,
    /// Long payloads, each with the place in `small` before which it goes. Never an empty one; places never fall, and
    /// are not below `written`.
    large: VecDeque<(usize, Bytes)>,
    /// The bytes of `large`.
    large_len: usize,
}

impl Output {
    /// The number of bytes that wait.
    pub(crate) fn len(&self) -> usize {
        self.small.len() - self.written + self.large_len
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The bytes of memory that it holds; payloads are the application's.
    pub(crate) fn capacity(&self) -> usize {
        self.small.capacity() + self.large.capacity() * size_of::<(usize, Bytes)>()
    }

    /// Where headers and short payloads are appended.
    pub(crate) fn encoded(&mut self) -> &mut Vec<u8> {
        if self.small.capacity() == 0 {
            self.small = buffers::take_write_buffer();
        }
        &mut self.small
    }

    /// Appends a payload that is not empty, without a copy.
    pub(crate) fn push(&mut self, payload: Bytes) {
        debug_assert!(!payload.is_empty(), "an empty piece would never be written");
        self.large_len += payload.len();
        self.large.push_back((self.small.len(), payload));
    }

    /// Drops all of it, as nothing can be written any more.
    pub(crate) fn clear(&mut self) {
        let small = std::mem::take(&mut self.small);
        *self = Self::default();
        buffers::give_write_buffer(small);
    }

    /// Writes until nothing waits.
    pub(crate) fn poll_write<S: AsyncWrite + Unpin>(
        &mut self,
        stream: &mut S,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        while !self.is_empty() {
            let stream = Pin::new(&mut *stream);
            let len = if self.large.is_empty() {
                let waiting = self.small.get(self.written..).unwrap_or_default();
                ready!(stream.poll_write(cx, waiting))?
            } else {
                let mut pieces = [IoSlice::new(&[]); MAX_PIECES];
                let count = self.pieces(&mut pieces);
                let pieces = pieces.get(..count).unwrap_or_default();
                ready!(stream.poll_write_vectored(cx, pieces))?
            };
            if len == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.advance(len);
        }
        if self.small.capacity() > 0 {
            self.clear();
        }
        Poll::Ready(Ok(()))
    }

    /// The first pieces that wait; gives how many.
    fn pieces<'a>(&'a self, pieces: &mut [IoSlice<'a>; MAX_PIECES]) -> usize {
        let (mut begin, mut count) = (self.written, 0);
        let mut put = |piece: &'a [u8]| {
            if let Some(slot) = pieces.get_mut(count)
                && !piece.is_empty()
            {
                *slot = IoSlice::new(piece);
                count += 1;
            }
        };
        for (place, payload) in self.large.iter().take(MAX_PIECES) {
            put(self.small.get(begin..*place).unwrap_or_default());
            put(payload);
            begin = *place;
        }
        // Behind a payload that had no room this has none either.
        if self.large.len() <= MAX_PIECES {
            put(self.small.get(begin..).unwrap_or_default());
        }
        count
    }

    fn advance(&mut self, mut len: usize) {
        loop {
            let end = self.large.front().map_or(self.small.len(), |(place, _)| *place);
            let step = len.min(end - self.written);
            self.written += step;
            len -= step;
            if len == 0 {
                break;
            }
            let Some((_, payload)) = self.large.front_mut() else {
                debug_assert!(false, "a stream wrote more than it was given");
                break;
            };
            let step = len.min(payload.len());
            payload.advance(step);
            self.large_len -= step;
            len -= step;
            if payload.is_empty() {
                self.large.pop_front();
            }
        }
        if self.written >= COMPACT_LEN && self.written * 2 >= self.small.len() {
            self.small.drain(..self.written);
            for (place, _) in &mut self.large {
                *place -= self.written;
            }
            self.written = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use proptest::prelude::*;
    use tokio::io::AsyncReadExt as _;

    use super::*;

    #[derive(Clone, Debug)]
    enum Step {
        Small(Vec<u8>),
        Large(usize, u8),
        Write,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            prop::collection::vec(any::<u8>(), 0..300).prop_map(Step::Small),
            (1_usize..50_000, any::<u8>()).prop_map(|(len, byte)| Step::Large(len, byte)),
            Just(Step::Write),
        ];
        prop::collection::vec(step, 0..60)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// Whatever is put in, and however little the stream takes at a time, it comes out in order.
        #[test]
        fn bytes_keep_their_order(steps in steps(), room in 1_usize..5000) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let (expected, received) = runtime.block_on(async {
                let (mut near, mut far) = tokio::io::duplex(room);
                let reader = tokio::spawn(async move {
                    let mut all = Vec::new();
                    far.read_to_end(&mut all).await.unwrap();
                    all
                });
                let (mut output, mut expected) = (Output::default(), Vec::new());
                for step in steps {
                    match step {
                        Step::Small(bytes) => {
                            output.encoded().extend_from_slice(&bytes);
                            expected.extend_from_slice(&bytes);
                        }
                        Step::Large(len, byte) => {
                            output.push(vec![byte; len].into());
                            expected.extend(std::iter::repeat_n(byte, len));
                        }
                        Step::Write => poll_fn(|cx| {
                            let _ = output.poll_write(&mut near, cx)?;
                            Poll::Ready(io::Result::Ok(()))
                        }).await.unwrap(),
                    }
                }
                poll_fn(|cx| output.poll_write(&mut near, cx)).await.unwrap();
                assert_eq!((output.len(), output.small.capacity()), (0, 0));
                drop(near);
                (expected, reader.await.unwrap())
            });
            prop_assert!(expected == received);
        }
    }
}
