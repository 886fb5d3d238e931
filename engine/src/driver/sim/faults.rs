//! What goes wrong in a simulated network.

use std::time::Duration;

use ringwire_seeds::Random;

/// How often each kind of trouble comes: a probability each time that it could.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Faults {
    /// What a peer wrote arrives in pieces, and what arrived is reported in pieces.
    pub short_receive: f64,
    /// A send takes a part of what it was given.
    pub short_send: f64,
    /// A segment takes a while, either way.
    pub delay: f64,
    /// No longer than this.
    pub max_delay: Duration,
    /// A completion is reported at a later wait than it could.
    pub late_completion: f64,
    /// Completions of different sockets change places.
    pub reorder: f64,
    /// A send finds the socket full although the peer reads.
    pub stall_send: f64,
    /// An operation is carried out at the next wait only.
    pub deferred_submit: f64,
    /// What is received is still reported for a while after being told to stop.
    pub late_stop: f64,
    /// The receive that a close cancels is reported as failed.
    pub report_cancelled: f64,
    /// The network breaks the connection at a segment of the peer.
    pub reset: f64,
    /// The peer stops for good in the middle of what it writes.
    pub fin: f64,
    /// The process is out of descriptors for up to ten times `max_delay`.
    pub accept_error: f64,
    /// A wait ends for no reason.
    pub spurious_wake: f64,
    /// A receive finds no buffer although there are some, and is armed again a while later: what a storm of
    /// ENOBUFS looks like from outside of io_uring.
    pub no_buffer: f64,
    /// How many receive buffers there are.
    pub receive_buffers: usize,
    /// How much a receive buffer holds.
    pub receive_buffer_len: usize,
}

impl Faults {
    /// A network as one wishes it.
    #[must_use]
    pub fn none() -> Self {
        Self {
            short_receive: 0.0,
            short_send: 0.0,
            delay: 0.0,
            max_delay: Duration::from_millis(5),
            late_completion: 0.0,
            reorder: 0.0,
            stall_send: 0.0,
            deferred_submit: 0.0,
            late_stop: 0.0,
            report_cancelled: 0.0,
            reset: 0.0,
            fin: 0.0,
            accept_error: 0.0,
            spurious_wake: 0.0,
            no_buffer: 0.0,
            receive_buffers: 16,
            receive_buffer_len: 4096,
        }
    }

    /// Everything short of losing a connection, often.
    #[must_use]
    pub fn hostile() -> Self {
        Self {
            short_receive: 0.4,
            short_send: 0.4,
            delay: 0.4,
            max_delay: Duration::from_millis(50),
            late_completion: 0.3,
            reorder: 0.5,
            stall_send: 0.3,
            deferred_submit: 0.5,
            late_stop: 0.5,
            report_cancelled: 0.5,
            accept_error: 0.2,
            spurious_wake: 0.2,
            no_buffer: 0.3,
            receive_buffers: 3,
            receive_buffer_len: 512,
            ..Self::none()
        }
    }

    /// A mixture of its own for each seed: most kinds are absent, so that the others are not drowned.
    #[must_use]
    pub fn mixed(random: &mut Random) -> Self {
        let worst = Self::hostile();
        let mut some = |most: f64| match random.below(3) {
            0 => most,
            1 => most / 4.0,
            _ => 0.0,
        };
        Self {
            short_receive: some(worst.short_receive),
            short_send: some(worst.short_send),
            delay: some(worst.delay),
            late_completion: some(worst.late_completion),
            reorder: some(worst.reorder),
            stall_send: some(worst.stall_send),
            deferred_submit: some(worst.deferred_submit),
            late_stop: some(worst.late_stop),
            report_cancelled: some(worst.report_cancelled),
            reset: some(0.02),
            fin: some(0.02),
            accept_error: some(worst.accept_error),
            spurious_wake: some(worst.spurious_wake),
            no_buffer: some(worst.no_buffer),
            max_delay: [1, 20, 500].map(Duration::from_millis)[random.below(3)],
            receive_buffers: [1, 2, 16][random.below(3)],
            receive_buffer_len: [16, 512, 4096, 65536][random.below(4)],
        }
    }
}
