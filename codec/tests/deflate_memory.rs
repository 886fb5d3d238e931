//! What the machines of permessage-deflate take from the allocator, and when.

#![expect(unsafe_code, reason = "an allocator is an unsafe trait")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use ringwire_codec::deflate::{Compressor, Decompressor, Level, WindowBits};

/// Counts what this thread takes.
struct Counting;

thread_local! {
    static TAKEN_LEN: Cell<usize> = const { Cell::new(0) };
    static TAKEN_COUNT: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: all is left to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        TAKEN_LEN.set(TAKEN_LEN.get() + layout.size());
        TAKEN_COUNT.set(TAKEN_COUNT.get() + 1);
        // SAFETY: the caller keeps to the trait's contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: it came from the function above.
        unsafe { System.dealloc(ptr, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// The bytes and the number of blocks that `make` takes.
fn taken<T>(make: impl FnOnce() -> T) -> (T, usize, usize) {
    TAKEN_LEN.set(0);
    TAKEN_COUNT.set(0);
    let made = make();
    (made, TAKEN_LEN.get(), TAKEN_COUNT.get())
}

#[test]
fn memory_len_is_what_is_taken() {
    let near = |said: usize, len: usize| said >= len && said - len <= 2 << 10;
    for bits in 9..=15 {
        let window = WindowBits::new(bits).expect("it exists");
        let (compressor, len, _) = taken(|| Compressor::new(Level::BALANCED, window));
        println!("compressor of {bits} bits: {len}");
        assert!(near(compressor.memory_len(), len), "{} {len}", compressor.memory_len());
    }
    let (decompressor, len, _) = taken(Decompressor::new);
    println!("decompressor: {len}");
    assert!(near(decompressor.memory_len(), len), "{} {len}", decompressor.memory_len());
}

#[test]
fn messages_take_nothing_more() {
    let mut compressor = Compressor::new(Level::BALANCED, WindowBits::MAX);
    let mut decompressor = Decompressor::new();
    let text = "{\"id\":1,\"name\":\"ringwire\"}".repeat(300);
    let (mut wire, mut out) = (Vec::with_capacity(20_000), Vec::with_capacity(20_000));
    let ((), len, count) = taken(|| {
        for _ in 0..9 {
            wire.clear();
            out.clear();
            compressor.reset();
            decompressor.reset();
            compressor.compress(text.as_bytes(), &mut wire);
            let inflated = decompressor.decompress(&wire, text.len(), &mut out);
            assert_eq!(inflated, Ok(()));
        }
    });
    assert_eq!((len, count), (0, 0));
    assert_eq!(out, text.as_bytes());
}
