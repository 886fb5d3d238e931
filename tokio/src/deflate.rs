//! What compresses and inflates the messages of one connection.

use ringwire_codec::deflate::{Agreement, Compressor, Decompressor, Inflate, Level};
use ringwire_codec::{
    Config, Connection, Error, Event, Heap, Input, MaskSource, Message, Role, SendError,
};

use crate::buffers;

/// What was agreed on, and the machines of the directions with context takeover, which are made when they are first
/// needed. The other directions use the thread's.
#[derive(Debug)]
pub(crate) struct Deflate {
    agreement: Agreement,
    compressor: Option<Box<Compressor>>,
    decompressor: Option<Box<Decompressor>>,
}

impl Deflate {
    pub(crate) const fn new(agreement: Agreement) -> Self {
        Self { agreement, compressor: None, decompressor: None }
    }

    /// Takes the next event out of `input`.
    pub(crate) fn receive<'b>(
        &mut self,
        codec: &mut Connection,
        limits: &Config,
        input: &mut Input<'b>,
    ) -> Result<Option<Event<'b>>, Error> {
        let sender = match codec.role() {
            Role::Client => Role::Server,
            Role::Server => Role::Client,
        };
        if self.agreement.takeover(sender) {
            let inflate = Inflate::Dedicated(&mut self.decompressor);
            codec.receive_with(limits, &mut Heap, inflate, input)
        } else {
            buffers::with_decompressor(|machine| {
                codec.receive_with(limits, &mut Heap, Inflate::Shared(machine), input)
            })
        }
    }

    /// Appends a message to `out`, compressed.
    pub(crate) fn send(
        &mut self,
        level: Level,
        codec: &mut Connection,
        message: Message<'_>,
        masks: &mut impl MaskSource,
        out: &mut Vec<u8>,
    ) -> Result<(), SendError> {
        let role = codec.role();
        let window = self.agreement.compressor_window(role);
        if self.agreement.takeover(role) {
            let compressor = self
                .compressor
                .get_or_insert_with(|| Box::new(Compressor::new(level, window).with_takeover()));
            codec.send_compressed(message, compressor, masks, out)
        } else {
            buffers::with_compressor(level, window, |machine| {
                codec.send_compressed(message, machine, masks, out)
            })
        }
    }
}
