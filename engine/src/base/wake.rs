//! Waking a thread that waits.

/// Ends a wait from another thread. Several wakes before the wait count as one.
pub(crate) trait Wake: Send + Sync + 'static {
    /// Wakes the driver.
    fn wake(&self);
}
