//! What the connections of a thread share: buffers that are in use for a moment, masks, and machines for compression
//! without context takeover.

use std::cell::RefCell;

use ringwire_codec::deflate::{Compressor, Decompressor, Level, WindowBits};
use ringwire_codec::{MaskSource, Masks};

/// What one read takes at most, in bytes.
pub(crate) const READ_LEN: usize = 32 << 10;

/// Buffers of each kind that wait for their next use on a thread.
const MAX_SPARE_COUNT: usize = 4;

/// The largest buffer for writing that is kept, in bytes.
const MAX_SPARE_LEN: usize = 64 << 10;

#[derive(Default)]
struct Shared {
    read: Vec<Vec<u8>>,
    write: Vec<Vec<u8>>,
    masks: Option<Masks>,
    decompressor: Option<Box<Decompressor>>,
    compressors: Vec<(Level, WindowBits, Box<Compressor>)>,
}

thread_local! {
    static SHARED: RefCell<Shared> = RefCell::default();
}

/// Gives `None` where the thread is about to end: then nothing is shared.
fn with<R>(act: impl FnOnce(&mut Shared) -> R) -> Option<R> {
    SHARED.try_with(|shared| act(&mut shared.borrow_mut())).ok()
}

/// A buffer of [`READ_LEN`] bytes.
pub(crate) fn take_read_buffer() -> Vec<u8> {
    with(|shared| shared.read.pop()).flatten().unwrap_or_else(|| vec![0; READ_LEN])
}

pub(crate) fn give_read_buffer(buffer: Vec<u8>) {
    if buffer.len() == READ_LEN {
        with(|shared| keep(&mut shared.read, buffer));
    }
}

/// An empty buffer.
pub(crate) fn take_write_buffer() -> Vec<u8> {
    with(|shared| shared.write.pop()).flatten().unwrap_or_default()
}

pub(crate) fn give_write_buffer(mut buffer: Vec<u8>) {
    if (1..=MAX_SPARE_LEN).contains(&buffer.capacity()) {
        buffer.clear();
        with(|shared| keep(&mut shared.write, buffer));
    }
}

fn keep(spare: &mut Vec<Vec<u8>>, buffer: Vec<u8>) {
    if spare.len() < MAX_SPARE_COUNT {
        spare.push(buffer);
    }
}

/// Masking keys from a CSPRNG of the thread's own, which the system has seeded (RFC 6455 §5.3).
pub(crate) struct ThreadMasks;

impl MaskSource for ThreadMasks {
    fn next_mask(&mut self) -> [u8; 4] {
        let next = |shared: &mut Shared| shared.masks.get_or_insert_with(masks).next_mask();
        with(next).unwrap_or_else(|| masks().next_mask())
    }
}

fn masks() -> Masks {
    Masks::new(random())
}

/// Fresh random bytes (getrandom(2)).
///
/// # Panics
/// If the system has no random source. Nothing can be masked then, and a key that can be foretold must not be sent.
pub(crate) fn random<const LEN: usize>() -> [u8; LEN] {
    let mut bytes = [0; LEN];
    match getrandom::fill(&mut bytes) {
        Ok(()) => bytes,
        Err(error) => panic!("the system's random source does not answer: {error}"),
    }
}

/// Runs with the thread's decompressor for messages without context takeover.
pub(crate) fn with_decompressor<R>(act: impl FnOnce(&mut Decompressor) -> R) -> R {
    // Taken out while it is in use: what runs may come here again.
    let mut machine = with(|shared| shared.decompressor.take()).flatten().unwrap_or_default();
    let result = act(&mut machine);
    with(|shared| shared.decompressor = Some(machine));
    result
}

/// Runs with a compressor of the thread for messages without context takeover.
pub(crate) fn with_compressor<R>(
    level: Level,
    window: WindowBits,
    act: impl FnOnce(&mut Compressor) -> R,
) -> R {
    let taken = with(|shared| {
        let place = shared.compressors.iter().position(|it| (it.0, it.1) == (level, window))?;
        Some(shared.compressors.swap_remove(place))
    });
    let (_, _, mut machine) = taken
        .flatten()
        .unwrap_or_else(|| (level, window, Box::new(Compressor::new(level, window))));
    let result = act(&mut machine);
    with(|shared| {
        if shared.compressors.len() < MAX_SPARE_COUNT {
            shared.compressors.push((level, window, machine));
        }
    });
    result
}
