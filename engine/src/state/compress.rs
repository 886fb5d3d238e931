//! Compression on a connection: what it takes of its layer, its limits and its queue.

use ringwire_codec::{
    Buffers as _, Error, Event, Input, MaskSource as _, Message, Role, SendError,
};

use crate::compute::{Deflation, Job, Lane};
use crate::conn::queue::SegmentKind;
use crate::conn::{Flags, Wire};
use crate::driver::Token;
use crate::state::Shared;

/// Where a compressed message leaves a buffer of at least this capacity nearly empty, it moves to a smaller one.
const MIN_TRIMMED_LEN: usize = 16 << 10;

impl Shared {
    /// Takes the next event of a connection out of its input, on which there is an agreement on compression, or a
    /// limit of its own.
    pub(crate) fn receive_specially<'b>(
        &mut self,
        wire: &mut Wire,
        slot: u32,
        input: &mut Input<'b>,
    ) -> Result<Option<Event<'b>>, Error> {
        let Self { limits, pool, deflate, counters, work, .. } = self;
        let config = limits.protocol_of(wire);
        if !wire.flags.contains(Flags::DEFLATE) {
            return wire.codec.receive(config, pool, input);
        }
        let (event, totals) = deflate.receive(wire, slot, config, pool, input, counters);
        work.note_inflated(totals);
        event
    }

    /// Writes a message to the turn's output, compressed. `alone`: it refers to none before it, and none after it
    /// will refer to it.
    pub(crate) fn send_compressed(
        &mut self,
        wire: &mut Wire,
        slot: u32,
        message: Message<'_>,
        alone: bool,
    ) -> Result<(), SendError> {
        // As much as the compressor asks for, so that this comes from the pool.
        self.reserve_out(message.len() + message.len() / 8 + 64);
        let Self { deflate, masks, out, counters, pool, now, work, .. } = self;
        let before = out.len();
        let compressor = deflate.compressor((wire, slot), message.len(), alone, *now, counters);
        wire.codec.send_compressed(message, compressor, masks, out)?;
        work.note_compressed(message.len(), out.len() - before, deflate.level());
        counters.deflated_messages.add(1);
        counters.deflate_in_bytes.add(message.len());
        counters.deflate_out_bytes.add(out.len() - before);
        if out.capacity() >= MIN_TRIMMED_LEN && out.len() < out.capacity() / 4 {
            // It may wait for long, and must not take more than it counts for.
            let smaller = pool.copy_of(out);
            pool.give(std::mem::replace(out, smaller));
        }
        Ok(())
    }

    /// A message that is about to be queued may be dropped or replaced. What is compressed behind it must not refer to
    /// what lies before, as the client's window might not have what ours has in between.
    pub(crate) fn cut_context(&mut self, wire: &Wire, slot: u32) {
        if wire.deflate.has_own_compressor() {
            self.deflate.start_anew(slot);
        }
    }

    /// Has a thread compress a message, if it is long enough for that, there is room, and not too much of this
    /// connection is on its way already. The connection's last room for a job stays free: the application counts on
    /// one for each message ([`spawn_or_pause`](crate::Ctx::spawn_or_pause)). Output behind it waits. `droppable`:
    /// while it waits for the peer, it may be dropped.
    #[cold]
    pub(crate) fn deflate_elsewhere(
        &mut self,
        wire: &mut Wire,
        slot: u32,
        message: Message<'_>,
        droppable: bool,
    ) -> bool {
        let len = message.len();
        let awaited_len = wire.awaited_len();
        let too_much = awaited_len > 0 && awaited_len + len > self.limits.max_queued_len;
        if self.compute.is_none() || too_much || wire.job_count() + 1 >= self.limits.max_jobs {
            return false;
        }
        self.enqueue_out(wire, SegmentKind::Stream);
        let conn = self.id(Token { slot, generation: wire.generation });
        let Self { compute, deflate, masks, .. } = self;
        let Some(room) = compute.as_ref().and_then(|compute| compute.room(Lane::Engine)) else {
            return false;
        };
        if wire.deflate.has_own_compressor() {
            // The peer's window will hold this message, and that of the connection's compressor will not.
            deflate.start_anew(slot);
        }
        let is_client = wire.flags.contains(Flags::CLIENT);
        let (role, mask) =
            if is_client { (Role::Client, masks.next_mask()) } else { (Role::Server, [0; 4]) };
        let (_, alive) = wire.jobs_mut().begin(false);
        room.submit(Job::Deflate(Box::new(Deflation {
            conn,
            place: wire.pending_mut().queue.reserve(len, droppable),
            alive,
            role,
            mask,
            level: deflate.level(),
            window: wire.deflate.window(),
            text: message.is_text(),
            payload: message.as_bytes().to_vec(),
        })));
        true
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_types, reason = "counters are shared")]
mod tests {
    use std::sync::Arc;

    use ringwire_codec::Connection;
    use ringwire_codec::deflate::WindowBits;

    use crate::base::budget::Budget;

    use super::*;
    use crate::config::Config;
    use crate::conn::agreed::AgreedDeflate;
    use crate::hub::Hub;
    use crate::hub::handover::Handover;
    use crate::layers::compression::CompressionConfig;
    use ringwire_codec::Masks;

    fn shared(compression: CompressionConfig) -> Shared {
        let config = Config::default().with_compression(compression);
        let budget = Budget::new(compression.max_dedicated_len);
        let hub = Hub::new(Vec::new(), &config, Handover::default());
        Shared::new(0, &config, Arc::default(), Masks::new([7; 32]), budget, hub)
    }

    fn compressed() -> Wire {
        let codec = Connection::new(Role::Server).with_deflate();
        let (deflate, flags) = (AgreedDeflate::new(WindowBits::MAX), Flags::DEFLATE);
        Wire { codec, deflate, flags, ..Wire::default() }
    }

    #[test]
    fn what_waits_takes_no_more_than_it_counts_for() {
        let mut shared = shared(CompressionConfig::shared());
        let mut wire = compressed();
        for len in [100_000, 1 << 20] {
            let zeros = vec![0; len];
            shared.send_compressed(&mut wire, 0, Message::Binary(&zeros), false).unwrap();
        }
        assert!(shared.out.len() < 16_000, "{}", shared.out.len());
        assert!(shared.out.capacity() <= MIN_TRIMMED_LEN, "{}", shared.out.capacity());
    }

    #[test]
    fn a_worker_has_a_compressor_for_each_window_in_use() {
        let mut shared = shared(CompressionConfig::shared());
        let mut wire = compressed();
        for bits in [15, 9, 15, 12] {
            wire.deflate = AgreedDeflate::new(WindowBits::new(bits).unwrap());
            shared.send_compressed(&mut wire, 0, Message::Text("na na na na"), false).unwrap();
        }
        let windows = shared.deflate.shared_windows();
        assert!(windows.eq([9, 12, 15]));
        assert_eq!(shared.counters.deflate_memory.get(), 0);
    }
}
