//! The loops around rustls's buffered connections, for sessions that another program has begun: rustls has no way to
//! make an unbuffered connection of one.

use std::io::{self, BufRead as _, Write as _};

use rustls::ServerConnection;

use crate::drive::Driven;
use crate::error::Error;

/// How much plaintext is encrypted before it is written out, whatever the other program had set.
const BATCH_LEN: usize = 64 << 10;

/// Makes a connection ready for [`drive`] and [`seal`].
pub(crate) fn take_over(tls: &mut ServerConnection) {
    tls.set_buffer_limit(Some(BATCH_LEN));
}

/// Takes all of the input, after what the connection has received before.
pub(crate) fn drive(
    tls: &mut ServerConnection,
    input: &[u8],
    plaintext: &mut Vec<u8>,
    output: &mut Vec<u8>,
) -> Result<Driven, Error> {
    let mut rest = input;
    let mut peer_has_closed = process(tls, plaintext, output)?;
    while !rest.is_empty() && !peer_has_closed {
        // It refuses where a handshake message grows beyond its limit, since plaintext never waits here.
        if tls.read_tls(&mut rest).map_err(|_| Error::TooMuchRetained)? == 0 {
            return Err(Error::Internal);
        }
        peer_has_closed = process(tls, plaintext, output)?;
    }
    Ok(Driven { used: input.len(), peer_has_closed })
}

/// Encrypts `plaintext`, or says close_notify for `None`.
pub(crate) fn seal(
    tls: &mut ServerConnection,
    plaintext: Option<&[u8]>,
    output: &mut Vec<u8>,
) -> Result<(), Error> {
    let Some(mut rest) = plaintext else {
        tls.send_close_notify();
        return transmit(tls, output);
    };
    while !rest.is_empty() {
        let start = output.len();
        let taken = tls.writer().write(rest).map_err(|_| Error::Internal)?;
        transmit(tls, output)?;
        // rustls says so by leaving out what it would have to encrypt.
        if taken == 0 || output.len() - start < taken {
            return Err(Error::KeysExhausted);
        }
        rest = rest.get(taken..).unwrap_or_default();
    }
    Ok(())
}

/// Whether close_notify has come. What came before a fault is in `plaintext` all the same, and the alert in `output`.
fn process(
    tls: &mut ServerConnection,
    plaintext: &mut Vec<u8>,
    output: &mut Vec<u8>,
) -> Result<bool, Error> {
    let state = tls.process_new_packets();
    read(tls, plaintext)?;
    transmit(tls, output)?;
    Ok(state?.peer_has_closed())
}

fn read(tls: &mut ServerConnection, plaintext: &mut Vec<u8>) -> Result<(), Error> {
    let mut reader = tls.reader();
    loop {
        let len = match reader.fill_buf() {
            Ok([]) => return Ok(()),
            Ok(chunk) => {
                plaintext.extend_from_slice(chunk);
                chunk.len()
            }
            // The other program has seen the end of the stream, which the socket will report again.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(_) => return Err(Error::Internal),
        };
        reader.consume(len);
    }
}

fn transmit(tls: &mut ServerConnection, output: &mut Vec<u8>) -> Result<(), Error> {
    while tls.wants_write() {
        tls.write_tls(output).map_err(|_| Error::Internal)?;
    }
    Ok(())
}
