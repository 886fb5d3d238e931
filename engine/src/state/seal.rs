//! What a connection with layers sends next: encrypted, and as its extensions make of it.

use crate::base::output::Output;
use crate::conn::Wire;
use crate::conn::queue::SegmentKind;
use crate::layers::extensions::Failure;
use crate::state::Shared;

impl Shared {
    /// What a layered connection sends next: what TLS has to say, and behind it the first of what waits, or else the
    /// turn's output, as its extensions and TLS make of it. Empty: nothing. No send of it is in flight.
    pub(crate) fn next_sealed(&mut self, wire: &mut Wire, slot: u32) -> Result<Output, Failure> {
        let (plain, queued) = if self.sessions.is_handshaking(slot) {
            // A client's request waits until it can be encrypted.
            self.enqueue_out(wire, SegmentKind::Stream);
            (Output::default(), 0)
        } else {
            self.next_plaintext(wire)
        };
        let Self { sessions, layers, pool, counters, .. } = self;
        counters.queued_bytes.sub(queued);
        let plaintext = layers.send(slot, plain, pool)?;
        let sealed = sessions.seal(slot, plaintext, pool);
        counters.queued_bytes.add(sealed.len());
        Ok(sealed)
    }

    /// Drops all output that waits, and the turn's. What is in flight stays.
    pub(crate) fn drop_output(&mut self, wire: &mut Wire) {
        self.out.clear();
        if let Some(pending) = &mut wire.pending {
            pending.queue.drop_places();
        }
        while let Some(segment) = wire.pending.as_mut().and_then(|pending| pending.queue.pop()) {
            self.counters.queued_bytes.sub(segment.len());
            self.pool.reclaim(segment);
        }
    }

    /// What waits first, and what it counted for; or the turn's output, which was not counted yet.
    fn next_plaintext(&mut self, wire: &mut Wire) -> (Output, usize) {
        let queue = wire.pending.as_mut().map(|pending| &mut pending.queue);
        match queue.and_then(|queue| queue.pop_batch(&mut self.pool)) {
            Some(segment) => {
                let len = segment.len();
                (segment, len)
            }
            None => (Output::Own(std::mem::take(&mut self.out)), 0),
        }
    }
}
