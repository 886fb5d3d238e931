//! A worker's compressors and decompressors (RFC 7692), and the connections that use them.
//!
//! All of it is lazy: without compression there is nothing here but an empty table. Shared machines stand in this
//! struct, those of connections in a table beside the connections.

use std::mem;

use ringwire_codec::deflate::{
    Agreement, Compressor, Decompressor, Inflate, Level, Offer, Policy, Totals, WindowBits,
};
use ringwire_codec::handshake::server::Upgrade;
use ringwire_codec::{Connection, Error, Event, Input, Message, Role, Unmasked};

use crate::base::budget::Budget;
use crate::base::buffers::BufferPool;
use crate::base::chunked::Chunked;
use crate::base::timer::{Tick, Wheel, ticks_of};
use crate::conn::agreed::AgreedDeflate;
use crate::conn::options::Compress;
use crate::conn::{Flags, Wire};
use crate::layers::compression::{CompressionConfig, CompressionMode};
use crate::metrics::Counters;

/// Sizes of windows that a compressor may have.
const WINDOWS: usize = (WindowBits::MAX.get() - WindowBits::MIN.get()) as usize + 1;

/// The window of a connection's own compressor, unless the settings say which: with its decompressor it holds less than
/// 200 KiB then. 15 bits make short messages a twentieth to a tenth shorter and take 137 KiB more.
pub(crate) const OWN_WINDOW: WindowBits = match WindowBits::new(12) {
    Some(bits) => bits,
    None => WindowBits::MAX,
};

/// See the [module's documentation](self).
#[derive(Debug)]
pub(crate) struct Deflate {
    settings: CompressionConfig,
    budget: Budget,
    decompressor: Option<Box<Decompressor>>,
    compressors: Compressors,
    own: Chunked<Own>,
    /// When compressors of connections are looked at, whether they were used meanwhile.
    wheel: Wheel,
    timeout: Option<Tick>,
    expired: Vec<u32>,
}

/// What a connection has of its own.
#[derive(Debug, Default)]
struct Own {
    decompressor: Option<Box<Decompressor>>,
    compressor: Option<Box<Compressor>>,
    /// When it was last used.
    used: Tick,
}

impl Deflate {
    pub(crate) fn new(settings: CompressionConfig, budget: Budget) -> Self {
        Self {
            settings,
            budget,
            decompressor: None,
            compressors: Default::default(),
            own: Chunked::new(),
            wheel: Wheel::new(),
            timeout: settings.compressor_timeout.map(ticks_of),
            expired: Vec::new(),
        }
    }

    /// The largest window that is agreed on.
    fn max_window(&self) -> WindowBits {
        self.settings.max_window.fixed().unwrap_or_default()
    }

    // A connection comes and goes

    /// What is agreed on with a client. If it may refer back, a decompressor is set aside for it.
    pub(crate) fn agree(&self, upgrade: &Upgrade<'_>) -> Option<Agreement> {
        let takeover = match self.settings.mode {
            CompressionMode::Off => return None,
            CompressionMode::Shared => false,
            CompressionMode::Dedicated => self.budget.take(Decompressor::MEMORY_LEN),
        };
        let policy = Policy::default()
            .with_client_context_takeover(takeover)
            .with_server_context_takeover(takeover && !self.settings.decompress_only)
            .with_server_max_window_bits(self.max_window());
        let agreement = upgrade.deflate(&policy);
        if takeover && !agreement.is_some_and(|agreement| agreement.takeover(Role::Client)) {
            self.budget.give(Decompressor::MEMORY_LEN);
        }
        agreement
    }

    /// The agreement came to nothing.
    pub(crate) fn take_back(&self, agreement: Option<Agreement>) {
        if agreement.is_some_and(|agreement| agreement.takeover(Role::Client)) {
            self.budget.give(Decompressor::MEMORY_LEN);
        }
    }

    /// What is offered to a server, within what `asked` allows. If the server may refer back, a decompressor is set
    /// aside for it.
    pub(crate) fn offer(&self, wire: &mut Wire, asked: Offer) -> Option<Offer> {
        let takeover = match self.settings.mode {
            CompressionMode::Off => return None,
            CompressionMode::Shared => false,
            CompressionMode::Dedicated => self.budget.take(Decompressor::MEMORY_LEN),
        };
        wire.deflate = wire.deflate.with_own_decompressor(takeover);
        let offer = asked
            .with_server_no_context_takeover(!takeover)
            .with_client_no_context_takeover(!takeover || self.settings.decompress_only);
        let max_window = self.max_window();
        match asked.client_max_window_bits {
            None if max_window == WindowBits::MAX => Some(offer),
            asked => {
                let window = asked.unwrap_or_default().min(max_window);
                Some(offer.with_client_max_window_bits(window))
            }
        }
    }

    /// A server has answered the offer, if there was one. What it does not make use of is given back.
    pub(crate) fn begin_as_client(&self, wire: &mut Wire, agreement: Option<Agreement>) {
        let takeover = agreement.is_some_and(|agreement| agreement.takeover(Role::Server));
        if wire.deflate.has_own_decompressor() && !takeover {
            wire.deflate = wire.deflate.with_own_decompressor(false);
            self.budget.give(Decompressor::MEMORY_LEN);
        }
        if let Some(agreement) = agreement {
            Self::begin(wire, &agreement);
        }
    }

    /// The connection speaks as was agreed, from its first frame on.
    pub(crate) fn begin(wire: &mut Wire, agreement: &Agreement) {
        let (ours, theirs) = if wire.flags.contains(Flags::CLIENT) {
            (Role::Client, Role::Server)
        } else {
            (Role::Server, Role::Client)
        };
        wire.codec = Connection::new(ours).with_deflate();
        wire.deflate = AgreedDeflate::new(agreement.compressor_window(ours))
            .with_own_decompressor(agreement.takeover(theirs))
            .with_own_compressor(agreement.takeover(ours));
        wire.flags.insert(Flags::DEFLATE);
    }

    /// The connection has ended.
    pub(crate) fn forget(&mut self, agreed: AgreedDeflate, slot: u32, counters: &Counters) {
        if agreed.has_own_decompressor() {
            self.budget.give(Decompressor::MEMORY_LEN);
        }
        self.drop_compressor(slot, counters);
        self.wheel.clear(slot);
        let own = self.own.get_mut(slot).and_then(|own| own.decompressor.take());
        if let Some(decompressor) = own {
            counters.deflate_memory.sub(decompressor.memory_len());
        }
    }

    // Compressors that nobody uses

    /// When there may be one to be freed.
    #[inline]
    pub(crate) fn next_tick(&self) -> Option<Tick> {
        self.wheel.next_tick()
    }

    /// Frees the compressors that were not used for long.
    #[inline]
    pub(crate) fn expire_if_due(&mut self, now: Tick, counters: &Counters) {
        if self.next_tick().is_some_and(|tick| tick <= now) {
            self.expire(now, counters);
        }
    }

    fn expire(&mut self, now: Tick, counters: &Counters) {
        let mut expired = mem::take(&mut self.expired);
        self.wheel.expire(now, &mut expired);
        for slot in expired.drain(..) {
            let used = self.own.get(slot).map_or(0, |own| own.used);
            let due = used + self.timeout.unwrap_or_default();
            if due > now {
                self.wheel.set(slot, due);
            } else {
                self.drop_compressor(slot, counters);
            }
        }
        self.expired = expired;
    }

    fn drop_compressor(&mut self, slot: u32, counters: &Counters) {
        let Some(own) = self.own.get_mut(slot) else { return };
        if let Some(compressor) = own.compressor.take() {
            counters.deflate_memory.sub(compressor.memory_len());
            self.budget.give(compressor.memory_len());
        }
    }

    // Messages

    /// Takes the next event of a connection out of its input. Says what was inflated for it.
    pub(crate) fn receive<'b>(
        &mut self,
        wire: &mut Wire,
        slot: u32,
        config: &ringwire_codec::Config,
        pool: &mut BufferPool,
        input: &mut Input<'b>,
        counters: &Counters,
    ) -> (Result<Option<Event<'b>>, Error>, Totals) {
        let (event, totals) = if wire.deflate.has_own_decompressor() {
            let own = &mut self.own.entry(slot).decompressor;
            let had = own.is_some();
            let event = wire.codec.receive_with(config, pool, Inflate::Dedicated(own), input);
            if let Some(made) = own.as_ref().filter(|_| !had) {
                counters.deflate_memory.add(made.memory_len());
            }
            (event, own.as_mut().map(|own| own.take_totals()).unwrap_or_default())
        } else {
            let shared = self.decompressor.get_or_insert_default();
            let event = wire.codec.receive_with(config, pool, Inflate::Shared(shared), input);
            (event, shared.take_totals())
        };
        counters.count_inflated(totals);
        (event, totals)
    }

    /// Whether a message of this length is to be compressed.
    #[inline]
    pub(crate) fn wants(&self, len: usize, compress: Compress) -> bool {
        let asked = match compress {
            Compress::ByLength => len >= self.settings.threshold,
            Compress::Always => true,
            Compress::Never => false,
        };
        asked && !self.settings.decompress_only
    }

    /// Whether a message of this length, which is to be compressed, is one for the compute threads.
    #[inline]
    pub(crate) fn is_long(&self, len: usize) -> bool {
        self.settings.offload_threshold.is_some_and(|threshold| len >= threshold)
    }

    /// The windows of the compressors that keep nothing.
    #[cfg(test)]
    pub(crate) fn shared_windows(&self) -> impl Iterator<Item = u8> {
        self.compressors.iter().flatten().map(|own| own.window_bits().get())
    }

    pub(crate) fn level(&self) -> Level {
        self.settings.level
    }

    /// The compressor for the next message of a connection, which has `len` bytes. `alone`: it may be dropped.
    ///
    /// One that does not fit into the window of the connection's own is compressed alone as well: it would push out all
    /// that it could refer to, and the worker's compressor has a larger window to find its own repetitions in.
    pub(crate) fn compressor(
        &mut self,
        (wire, slot): (&Wire, u32),
        len: usize,
        alone: bool,
        now: Tick,
        counters: &Counters,
    ) -> &mut Compressor {
        let window = wire.deflate.window();
        let level = self.settings.level;
        // A smaller one than was agreed on is a sender's choice, and needs no word.
        let own_window = window.min(self.settings.max_window.fixed().unwrap_or(OWN_WINDOW));
        if wire.deflate.has_own_compressor() && len > own_window.window_len() {
            self.start_anew(slot);
        } else if wire.deflate.has_own_compressor() && !alone {
            let own = self.own.entry(slot);
            own.used = now;
            let len = Compressor::memory_len_of(own_window);
            if own.compressor.is_some() || self.budget.take(len) {
                return own.compressor.get_or_insert_with(|| {
                    counters.deflate_memory.add(len);
                    if let Some(timeout) = self.timeout {
                        self.wheel.set(slot, now + timeout);
                    }
                    Box::new(Compressor::new(level, own_window).with_takeover())
                });
            }
        }
        shared_compressor(&mut self.compressors, level, window)
    }

    /// A message as the frame that any connection with this window can be sent: it refers to nothing.
    pub(crate) fn encode_alone(&mut self, window: WindowBits, message: Message<'_>) -> Vec<u8> {
        let mut frame = Vec::with_capacity(message.len() / 2 + 64);
        let mut codec = Connection::new(Role::Server).with_deflate();
        let level = self.settings.level;
        let compressor = shared_compressor(&mut self.compressors, level, window);
        // An open connection sends whatever it is given, and a server masks nothing.
        let _ = codec.send_compressed(message, compressor, &mut Unmasked, &mut frame);
        frame.shrink_to_fit();
        frame
    }

    /// Has the connection's own compressor refer to nothing so far.
    pub(crate) fn start_anew(&mut self, slot: u32) {
        if let Some(own) = self.own.get_mut(slot)
            && let Some(compressor) = &mut own.compressor
        {
            compressor.reset();
        }
    }
}

/// A worker's compressors, which keep nothing from message to message, by size of window.
type Compressors = [Option<Box<Compressor>>; WINDOWS];

fn shared_compressor(
    compressors: &mut Compressors,
    level: Level,
    window: WindowBits,
) -> &mut Compressor {
    let index = usize::from(window.get() - WindowBits::MIN.get());
    compressors[index].get_or_insert_with(|| Box::new(Compressor::new(level, window)))
}

impl Counters {
    pub(crate) fn count_inflated(&self, totals: Totals) {
        let len = |len: u64| usize::try_from(len).unwrap_or(usize::MAX);
        self.inflated_messages.add(len(totals.message_count));
        self.inflate_in_bytes.add(len(totals.compressed_len));
        self.inflate_out_bytes.add(len(totals.inflated_len));
    }
}
