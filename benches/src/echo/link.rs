//! A socket, with or without TLS on it.
//!
//! All links of a load thread share the buffers that bytes pass through. A link has bytes of its own only
//! where its socket did not take what was encrypted already.

use std::io::{self, ErrorKind, Read as _, Write};

use mio::net::TcpStream;
use ringwire_tls::{Facts, Session};

const RECEIVE_BUFFER_LEN: usize = 256 << 10;

/// What bytes pass through on their way from and to sockets.
pub(crate) struct Buffers {
    received: Box<[u8]>,
    plaintext: Vec<u8>,
    output: Vec<u8>,
    /// Bytes that sockets took and gave.
    sent: u64,
    taken: u64,
}

impl Buffers {
    /// Empty ones.
    pub(crate) fn new() -> Self {
        let received = vec![0; RECEIVE_BUFFER_LEN].into_boxed_slice();
        Self { received, plaintext: Vec::new(), output: Vec::new(), sent: 0, taken: 0 }
    }

    /// Bytes that went out to sockets, and came from them.
    pub(crate) fn traffic(&self) -> (u64, u64) {
        (self.sent, self.taken)
    }

    /// Bytes as if they had been read; no more than one read takes.
    pub(crate) fn give(&mut self, bytes: &[u8]) -> &mut [u8] {
        let place = &mut self.received[..bytes.len()];
        place.copy_from_slice(bytes);
        place
    }

    /// How much one read takes at most.
    pub(crate) fn receive_len(&self) -> usize {
        self.received.len()
    }
}

/// A socket, with or without TLS on it.
pub(crate) struct Link {
    stream: TcpStream,
    secure: Option<Box<Secure>>,
}

struct Secure {
    session: Session,
    /// Records that the socket did not take, from `unsent_at` on.
    unsent: Vec<u8>,
    unsent_at: usize,
}

impl Link {
    /// With a session, TLS is spoken on the stream.
    pub(crate) fn new(stream: TcpStream, session: Option<Session>) -> Self {
        let secure =
            session.map(|session| Box::new(Secure { session, unsent: Vec::new(), unsent_at: 0 }));
        Self { stream, secure }
    }

    /// The socket, to be registered.
    pub(crate) fn stream_mut(&mut self) -> &mut TcpStream {
        &mut self.stream
    }

    /// Whether the TLS handshake is to be made or under way.
    pub(crate) fn is_handshaking(&self) -> bool {
        self.secure.as_ref().is_some_and(|secure| secure.session.is_handshaking())
    }

    /// What the TLS handshake agreed on.
    pub(crate) fn facts(&self) -> Option<Facts<'_>> {
        self.secure.as_ref()?.session.facts()
    }

    /// Begins the TLS handshake.
    pub(crate) fn begin(&mut self, buffers: &mut Buffers) -> io::Result<()> {
        let Some(secure) = &mut self.secure else { return Ok(()) };
        buffers.output.clear();
        secure.session.poll_transmit(&mut buffers.output).map_err(io::Error::other)?;
        buffers.sent += secure.transmit(&mut self.stream, &buffers.output)?;
        Ok(())
    }

    /// Reads once into the buffers; how much.
    pub(crate) fn read(&mut self, buffers: &mut Buffers) -> io::Result<usize> {
        let read = self.stream.read(&mut buffers.received)?;
        buffers.taken += read as u64;
        Ok(read)
    }

    /// The plaintext of what was read. What TLS itself has to say to it is sent.
    pub(crate) fn open<'b>(
        &mut self,
        read: usize,
        buffers: &'b mut Buffers,
    ) -> io::Result<&'b mut [u8]> {
        let Buffers { received, plaintext, output, sent, .. } = buffers;
        let Some(secure) = &mut self.secure else { return Ok(&mut received[..read]) };
        plaintext.clear();
        output.clear();
        let result = secure.session.receive(&mut received[..read], plaintext, output);
        // An alert goes out too, if it can.
        let told = secure.transmit(&mut self.stream, output);
        result.map_err(io::Error::other)?;
        *sent += told?;
        Ok(plaintext)
    }

    /// Takes bytes to be sent, as [`Write::write`] does. With TLS all or none are taken.
    #[inline]
    pub(crate) fn write(&mut self, bytes: &[u8], buffers: &mut Buffers) -> io::Result<usize> {
        let Some(secure) = &mut self.secure else {
            let sent = self.stream.write(bytes)?;
            buffers.sent += sent as u64;
            return Ok(sent);
        };
        if secure.has_unsent() {
            return Err(ErrorKind::WouldBlock.into());
        }
        buffers.output.clear();
        secure.session.send(bytes, &mut buffers.output).map_err(io::Error::other)?;
        buffers.sent += secure.transmit(&mut self.stream, &buffers.output)?;
        Ok(bytes.len())
    }

    /// The link as a writer.
    pub(crate) fn writer<'a>(&'a mut self, buffers: &'a mut Buffers) -> Writer<'a> {
        Writer { link: self, buffers }
    }

    /// Whether the socket still has to take what was written.
    pub(crate) fn has_unsent(&self) -> bool {
        self.secure.as_ref().is_some_and(|secure| secure.has_unsent())
    }

    /// Goes on sending what was written.
    pub(crate) fn flush(&mut self, buffers: &mut Buffers) -> io::Result<()> {
        if let Some(secure) = self.secure.as_mut().filter(|secure| secure.has_unsent()) {
            buffers.sent += secure.flush(&mut self.stream)?;
        }
        Ok(())
    }
}

impl Secure {
    fn has_unsent(&self) -> bool {
        self.unsent_at < self.unsent.len()
    }

    /// Sends records, after those that wait; how many bytes of them.
    fn transmit(&mut self, stream: &mut impl Write, records: &[u8]) -> io::Result<u64> {
        let mut sent = 0;
        if !self.has_unsent() {
            sent = write_some(stream, records)?;
        }
        self.unsent.extend_from_slice(&records[sent..]);
        Ok(sent as u64)
    }

    fn flush(&mut self, stream: &mut impl Write) -> io::Result<u64> {
        let sent = write_some(stream, &self.unsent[self.unsent_at..])?;
        self.unsent_at += sent;
        if !self.has_unsent() {
            self.unsent = Vec::new();
            self.unsent_at = 0;
        }
        Ok(sent as u64)
    }
}

/// Writes until the socket takes no more; how much.
fn write_some(stream: &mut impl Write, bytes: &[u8]) -> io::Result<usize> {
    let mut sent = 0;
    while sent < bytes.len() {
        match stream.write(&bytes[sent..]) {
            Ok(taken) => sent += taken,
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) => return Err(error),
        }
    }
    Ok(sent)
}

/// A link as a [`Write`].
pub(crate) struct Writer<'a> {
    link: &'a mut Link,
    buffers: &'a mut Buffers,
}

impl Write for Writer<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.link.write(bytes, self.buffers)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.link.flush(self.buffers)
    }
}

#[cfg(test)]
mod tests {
    use ringwire_tls::ClientSettings;
    use ringwire_tls::pki_types::{ServerName, UnixTime};

    use super::*;

    /// Takes so many bytes, then would block.
    struct Narrow {
        room: usize,
        taken: Vec<u8>,
    }

    impl Write for Narrow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if self.room == 0 {
                return Err(ErrorKind::WouldBlock.into());
            }
            let taken = bytes.len().min(self.room).min(7);
            self.room -= taken;
            self.taken.extend_from_slice(&bytes[..taken]);
            Ok(taken)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn records_keep_their_order_through_a_full_socket() {
        let config = ClientSettings::dangerous_without_certificate_verification()
            .build(UnixTime::now())
            .unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        let session = Session::client(&config, name).unwrap();
        let mut secure = Secure { session, unsent: Vec::new(), unsent_at: 0 };
        let bytes: Vec<u8> = (0..=99).collect();
        let mut socket = Narrow { room: 30, taken: Vec::new() };
        secure.transmit(&mut socket, &bytes[..50]).unwrap();
        assert!(secure.has_unsent());
        socket.room = 10;
        secure.transmit(&mut socket, &bytes[50..]).unwrap();
        assert_eq!(socket.taken, bytes[..30], "what waits goes first");
        secure.flush(&mut socket).unwrap();
        assert_eq!(socket.taken, bytes[..40]);
        socket.room = 1000;
        secure.flush(&mut socket).unwrap();
        assert_eq!(socket.taken, bytes);
        assert!(!secure.has_unsent());
    }
}
