//! The C library's heap, which keeps what was freed.
#![expect(unsafe_code, reason = "calls of the C library")]

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

/// More than the thread needs.
const STACK_LEN: usize = 64 << 10;

/// Gives the pages of free memory back to the system, on a thread of its own: that takes some milliseconds for each 10
/// MiB (docs/decisions/memory.md), in which no thread whose memory it is allocates any. Only one call at a time does
/// something.
pub(super) fn return_free_pages() {
    static RUNS: AtomicBool = AtomicBool::new(false);
    if RUNS.swap(true, Ordering::Acquire) {
        return;
    }
    let work = || {
        trim();
        RUNS.store(false, Ordering::Release);
    };
    let thread = thread::Builder::new().name("trim".into()).stack_size(STACK_LEN).spawn(work);
    if let Err(error) = thread {
        RUNS.store(false, Ordering::Release);
        crate::base::event::debug!(%error, "free memory stays: no thread to give it back");
    }
}

/// Has threads share arenas so that no more address space than this is reserved for them, but for one.
#[cfg(target_env = "gnu")]
pub(crate) fn limit_arenas(len: usize) {
    /// What glibc reserves for one on machines of 64 bits (HEAP_MAX_SIZE).
    const ARENA_LEN: usize = 64 << 20;
    // More of them than threads change nothing.
    let count = i32::try_from(len / ARENA_LEN).unwrap_or(i32::MAX).max(1);
    // SAFETY: mallopt(3) may be called by any thread at any time, and takes any number of arenas.
    unsafe { libc::mallopt(libc::M_ARENA_MAX, count) };
}

/// Other C libraries have none.
#[cfg(not(target_env = "gnu"))]
pub(crate) fn limit_arenas(_len: usize) {}

#[cfg(target_env = "gnu")]
fn trim() {
    // SAFETY: malloc_trim(3) may be called by any thread at any time (MT-Safe), and touches free memory only.
    unsafe { libc::malloc_trim(0) };
}

/// Other C libraries give it back by themselves, or have no such call.
#[cfg(not(target_env = "gnu"))]
fn trim() {}
