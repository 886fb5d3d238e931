//! A socket of a test.

#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a live test has sockets of its own, and waits"
)]

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use super::talk::Talk;

/// A socket, and what is said there.
pub(super) struct LiveLine {
    stream: TcpStream,
    pub(super) talk: Talk,
    pub(super) reads: bool,
    out: Vec<u8>,
}

impl LiveLine {
    pub(super) fn connect(address: SocketAddr, mut talk: Talk) -> Self {
        let stream = match TcpStream::connect(address) {
            Ok(stream) => stream,
            Err(error) => panic!("{address} cannot be reached: {error}"),
        };
        if let Err(error) = stream.set_nonblocking(true) {
            panic!("the socket blocks: {error}");
        }
        let out = talk.take_out();
        let mut line = Self { stream, talk, reads: true, out };
        line.flush();
        line
    }

    pub(super) fn write(&mut self, bytes: &[u8]) {
        self.out.extend_from_slice(bytes);
        self.flush();
    }

    /// Sends what the socket takes.
    fn flush(&mut self) {
        while !self.out.is_empty() {
            match self.stream.write(&self.out) {
                Ok(count) => drop(self.out.drain(..count)),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(_) => {
                    self.out.clear();
                    return self.talk.end();
                }
            }
        }
    }

    pub(super) fn finish(&self) {
        // It fails where the server has reset the connection, which reading tells.
        let _ = self.stream.shutdown(Shutdown::Write);
    }

    pub(super) fn reset(&mut self) {
        // socket(7), SO_LINGER: with no time to linger, closing resets.
        let _ = socket2::SockRef::from(&self.stream).set_linger(Some(Duration::ZERO));
        let unconnected = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
        match unconnected {
            Ok(socket) => self.stream = socket.into(),
            Err(error) => panic!("no socket can be had: {error}"),
        }
        self.reads = false;
        self.talk.end();
    }

    /// Looks for what came, and waits a moment where nothing has. Gives how much time passed.
    pub(super) fn step(&mut self, most: Duration) -> Duration {
        let begin = Instant::now();
        self.flush();
        if !self.hear() {
            std::thread::sleep(Duration::from_millis(1).min(most));
        }
        begin.elapsed()
    }

    pub(super) fn pass(&mut self, time: Duration) {
        let end = Instant::now() + time;
        while let left @ Duration { .. } = end.saturating_duration_since(Instant::now())
            && !left.is_zero()
        {
            self.step(left);
        }
    }

    /// Takes in what has come; whether anything has.
    fn hear(&mut self) -> bool {
        let mut buffer = [0; 16 << 10];
        if !self.reads {
            return false;
        }
        match self.stream.read(&mut buffer) {
            Ok(count @ 1..) => {
                self.talk.hear(&buffer[..count]);
                let out = self.talk.take_out();
                self.write(&out);
                true
            }
            Err(error)
                if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) =>
            {
                false
            }
            Ok(_) | Err(_) => {
                self.talk.end();
                self.reads = false;
                self.finish();
                true
            }
        }
    }
}
