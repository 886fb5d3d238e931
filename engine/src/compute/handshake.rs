//! The costly part of a TLS handshake, on a thread.

use ringwire_tls::{Error, Session};

use crate::conn::id::ConnId;

/// A session on its way to a compute thread and back.
#[derive(Debug)]
pub(crate) struct Shake {
    pub(crate) conn: ConnId,
    pub(crate) session: Session,
    pub(crate) received: Vec<u8>,
}

/// A session that comes back from a compute thread.
#[derive(Debug)]
pub(crate) struct Shaken {
    pub(crate) conn: ConnId,
    pub(crate) session: Session,
    pub(crate) plaintext: Vec<u8>,
    pub(crate) output: Vec<u8>,
    pub(crate) result: Result<(), Error>,
}

impl Shake {
    /// Takes the received bytes.
    pub(crate) fn run(self) -> Shaken {
        let Self { conn, mut session, mut received } = self;
        let (mut plaintext, mut output) = (Vec::new(), Vec::new());
        let result = session.receive(&mut received, &mut plaintext, &mut output);
        Shaken { conn, session, plaintext, output, result }
    }
}
