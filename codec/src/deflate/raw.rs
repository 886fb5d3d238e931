//! zlib-rs, writing to the room that a vector has left.

#![expect(unsafe_code, reason = "output goes to spare capacity, which is not initialized before")]

use std::mem::MaybeUninit;

use zlib_rs::{Deflate, DeflateFlush, Inflate, InflateFlush, Status};

/// What one call did.
#[derive(Debug, Clone, Copy)]
pub(super) struct Step {
    /// Bytes of the input that are used.
    pub(super) used: usize,
    /// Bytes that were appended to the output.
    pub(super) produced: usize,
    /// `None`: the input is no deflate stream.
    pub(super) status: Option<Status>,
}

/// Inflates into at most `room` bytes of what `out` has spare.
pub(super) fn inflate(
    stream: &mut Inflate,
    input: &[u8],
    flush: InflateFlush,
    room: usize,
    out: &mut Vec<u8>,
) -> Step {
    fill(out, room, |spare| {
        let (before_in, before_out) = (stream.total_in(), stream.total_out());
        let status = stream.decompress_uninit(input, spare, flush).ok();
        let used = stream.total_in() - before_in;
        (used, stream.total_out() - before_out, status)
    })
}

/// Deflates into what `out` has spare.
pub(super) fn deflate(
    stream: &mut Deflate,
    input: &[u8],
    flush: DeflateFlush,
    out: &mut Vec<u8>,
) -> Step {
    fill(out, usize::MAX, |spare| {
        let (before_in, before_out) = (stream.total_in(), stream.total_out());
        let status = stream.compress_uninit(input, spare, flush).ok();
        let used = stream.total_in() - before_in;
        (used, stream.total_out() - before_out, status)
    })
}

/// Private, as `write` has to tell the truth: how many bytes it used, and how many it wrote to the
/// beginning of the slice.
fn fill(
    out: &mut Vec<u8>,
    room: usize,
    write: impl FnOnce(&mut [MaybeUninit<u8>]) -> (u64, u64, Option<Status>),
) -> Step {
    let begin = out.len();
    let spare = out.spare_capacity_mut();
    let room = room.min(spare.len());
    let (spare, _) = spare.split_at_mut(room);
    let (used, written, status) = write(spare);
    let used = usize::try_from(used).unwrap_or(usize::MAX);
    let produced = usize::try_from(written).unwrap_or(usize::MAX).min(room);
    // SAFETY: `begin + produced` is within the capacity, as `produced` is at most the length of the
    // spare part. Both callers above pass what the stream counts as its output, which it has written
    // there from the beginning on.
    unsafe { out.set_len(begin + produced) };
    Step { used, produced, status }
}
