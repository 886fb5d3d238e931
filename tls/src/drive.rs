//! The loops around rustls's unbuffered connections.

use rustls::client::ClientConnectionData;
use rustls::server::ServerConnectionData;
use rustls::unbuffered::{
    ConnectionState, EncodeError, EncodeTlsData, EncryptError, UnbufferedConnectionCommon,
    UnbufferedStatus, WriteTraffic,
};

use crate::error::Error;

/// Content of a record (RFC 8446 §5.1).
const MAX_FRAGMENT_LEN: usize = 16_384;
/// At least what a record adds to it: 22 bytes in TLS 1.3, 29 in TLS 1.2 with AES-GCM.
const MAX_OVERHEAD: usize = 32;
/// At least a close_notify, and the answer to a KeyUpdate before it.
const CLOSE_LEN: usize = 2 * (MAX_OVERHEAD + 5);

/// What rustls has in common on both sides.
pub(crate) trait Unbuffered {
    type Data;

    fn process<'c, 'i>(&'c mut self, input: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data>;

    fn holds_output(&self) -> bool;
}

impl Unbuffered for UnbufferedConnectionCommon<ServerConnectionData> {
    type Data = ServerConnectionData;

    fn process<'c, 'i>(&'c mut self, input: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(input)
    }

    fn holds_output(&self) -> bool {
        self.wants_write()
    }
}

impl Unbuffered for UnbufferedConnectionCommon<ClientConnectionData> {
    type Data = ClientConnectionData;

    fn process<'c, 'i>(&'c mut self, input: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(input)
    }

    fn holds_output(&self) -> bool {
        self.wants_write()
    }
}

/// What became of the input.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Driven {
    /// So many bytes of its front are done with.
    pub(crate) used: usize,
    /// close_notify came; what is behind it does not count.
    pub(crate) peer_has_closed: bool,
}

/// Processes all whole records of the input.
pub(crate) fn drive<C: Unbuffered>(
    tls: &mut C,
    input: &mut [u8],
    plaintext: &mut Vec<u8>,
    output: &mut Vec<u8>,
) -> Result<Driven, Error> {
    let mut used = 0;
    loop {
        let rest = input.get_mut(used..).unwrap_or_default();
        let UnbufferedStatus { mut discard, state } = tls.process(rest);
        match state {
            Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                while let Some(record) = traffic.next_record() {
                    let record = record?;
                    plaintext.extend_from_slice(record.payload);
                    discard += record.discard;
                }
            }
            Ok(ConnectionState::EncodeTlsData(data)) => encode(data, output)?,
            Ok(ConnectionState::TransmitTlsData(data)) => data.done(),
            Ok(ConnectionState::BlockedHandshake | ConnectionState::WriteTraffic(_)) => {
                return Ok(Driven { used: used + discard, peer_has_closed: false });
            }
            Ok(ConnectionState::PeerClosed | ConnectionState::Closed) => {
                return Ok(Driven { used: used + discard, peer_has_closed: true });
            }
            // Early data, which is never offered nor accepted.
            Ok(_) => return Err(Error::Internal),
            Err(error) => {
                take_alert(tls, output)?;
                return Err(error.into());
            }
        }
        used += discard;
    }
}

/// Encrypts `plaintext`, or says close_notify for `None`, and returns how much of `retained` is done with.
///
/// `retained` is all that rustls has not given up of the input: it may have offsets into it, and panics where
/// they point to nothing.
pub(crate) fn seal<C: Unbuffered>(
    tls: &mut C,
    retained: &mut [u8],
    plaintext: Option<&[u8]>,
    output: &mut Vec<u8>,
) -> Result<usize, Error> {
    let mut used = 0;
    loop {
        let rest = retained.get_mut(used..).unwrap_or_default();
        let UnbufferedStatus { discard, state } = tls.process(rest);
        used += discard;
        match state {
            Ok(ConnectionState::EncodeTlsData(data)) => encode(data, output)?,
            Ok(ConnectionState::TransmitTlsData(data)) => data.done(),
            Ok(ConnectionState::WriteTraffic(mut traffic)) => {
                let sealed = match plaintext {
                    Some(plaintext) => encrypt(&mut traffic, plaintext, output),
                    None => close(&mut traffic, output),
                };
                if sealed.is_err() {
                    take_alert(tls, output)?;
                }
                return sealed.map(|()| used);
            }
            // rustls says so once more when both sides have closed.
            Ok(ConnectionState::PeerClosed) => {}
            Ok(_) => return Err(Error::Internal),
            Err(error) => {
                take_alert(tls, output)?;
                return Err(error.into());
            }
        }
    }
}

fn encrypt<D>(
    traffic: &mut WriteTraffic<'_, D>,
    plaintext: &[u8],
    output: &mut Vec<u8>,
) -> Result<(), Error> {
    let record_count = plaintext.len().div_ceil(MAX_FRAGMENT_LEN);
    let len = plaintext.len() + record_count * MAX_OVERHEAD;
    append(output, len, |room| traffic.encrypt(plaintext, room))
}

fn close<D>(traffic: &mut WriteTraffic<'_, D>, output: &mut Vec<u8>) -> Result<(), Error> {
    append(output, CLOSE_LEN, |room| traffic.queue_close_notify(room))
}

/// Has `write` write into the output's spare capacity, `len` bytes of it or as many as it asks for.
fn append(
    output: &mut Vec<u8>,
    mut len: usize,
    mut write: impl FnMut(&mut [u8]) -> Result<usize, EncryptError>,
) -> Result<(), Error> {
    let start = output.len();
    loop {
        output.resize(start + len, 0);
        let written = write(output.get_mut(start..).unwrap_or_default());
        output.truncate(start + written.as_ref().map_or(0, |written| *written));
        match written {
            Ok(_) => return Ok(()),
            Err(EncryptError::InsufficientSize(needed)) if needed.required_size > len => {
                len = needed.required_size;
            }
            Err(EncryptError::InsufficientSize(_)) => return Err(Error::Internal),
            Err(EncryptError::EncryptExhausted) => return Err(Error::KeysExhausted),
        }
    }
}

/// After an error: what rustls wants to say about it.
fn take_alert<C: Unbuffered>(tls: &mut C, output: &mut Vec<u8>) -> Result<(), Error> {
    // While it holds output it looks at no input, and may be given none.
    while tls.holds_output() {
        let Ok(ConnectionState::EncodeTlsData(data)) = tls.process(&mut []).state else {
            return Err(Error::Internal);
        };
        encode(data, output)?;
    }
    Ok(())
}

fn encode<D>(mut data: EncodeTlsData<'_, D>, output: &mut Vec<u8>) -> Result<(), Error> {
    let start = output.len();
    // It tells its length only by refusing to write.
    let len = match data.encode(&mut []) {
        Ok(_) => return Ok(()),
        Err(EncodeError::InsufficientSize(needed)) => needed.required_size,
        Err(EncodeError::AlreadyEncoded) => return Err(Error::Internal),
    };
    output.resize(start + len, 0);
    match data.encode(output.get_mut(start..).unwrap_or_default()) {
        Ok(_) => Ok(()),
        Err(_) => Err(Error::Internal),
    }
}
