//! What a load asks of its server.

use std::time::Duration;

use ringwire_examples::{CompressionFlag, DriverFlag};

/// What a load asks of a server in its own process.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Demand {
    pub(crate) connections: u32,
    pub(crate) payload_len: usize,
    pub(crate) compression: CompressionFlag,
    pub(crate) service: Service,
    pub(crate) driver: DriverFlag,
    /// Time for a request to be there; `None`: 10 s.
    pub(crate) handshake_timeout: Option<Duration>,
    /// How long a peer may say nothing, pongs included, or take no output; `None`: for ever.
    pub(crate) silence_limit: Option<Duration>,
    /// What it may hold for its connections, in bytes; `None`: the default.
    pub(crate) max_memory: Option<usize>,
    /// Other processes listen on its port as well.
    pub(crate) shares_port: bool,
}

/// What a server does with a message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Service {
    /// It sends it back.
    #[default]
    Echo,
    /// It sends it to all other connections.
    Broadcast,
}

impl Service {
    /// What its programs have in their names.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Echo => "echo",
            Self::Broadcast => "broadcast",
        }
    }
}
