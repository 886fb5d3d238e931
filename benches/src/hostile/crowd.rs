//! Peers that are crowds: hundreds of connections each, and none says all that it begins.

#![expect(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "plain sockets are all that it takes, and they are looked at now and then"
)]

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use super::ending::{Ending, Part};
use crate::echo::Failure;

/// Time for a connection to be made. Those that are not are left out.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// Between two looks at all of them.
const PACE: Duration = Duration::from_millis(5);

/// One of them.
struct Member {
    stream: TcpStream,
    sent: usize,
    is_open: bool,
}

/// Has `count` connections say `bytes` and then nothing more, until all have ended or time is up.
pub(super) fn play(address: SocketAddr, bytes: &[u8], count: usize, until: Instant) -> Part {
    let mut members: Vec<Member> = Vec::with_capacity(count);
    let mut received = 0;
    while members.len() < count && Instant::now() < until {
        match TcpStream::connect_timeout(&address, CONNECT_TIMEOUT) {
            Ok(stream) if stream.set_nonblocking(true).is_ok() => {
                let mut member = Member { stream, sent: 0, is_open: true };
                received += member.go_on(bytes);
                members.push(member);
            }
            // The server takes no more, and has made its choice.
            _ => break,
        }
    }
    if members.is_empty() {
        return Part { ending: Ending::NotOpened(Failure::ConnectRefused), sent: 0, received };
    }
    while Instant::now() < until && members.iter().any(|member| member.is_open) {
        received += members.iter_mut().map(|member| member.go_on(bytes)).sum::<u64>();
        thread::sleep(PACE);
    }
    let is_open = members.iter().any(|member| member.is_open);
    Part {
        ending: if is_open { Ending::KeptOpen } else { Ending::EndOfStream },
        sent: members.iter().map(|member| member.sent as u64).sum(),
        received,
    }
}

impl Member {
    /// Says what it can and drops what it hears; how many bytes that was.
    fn go_on(&mut self, bytes: &[u8]) -> u64 {
        let mut heard = 0;
        let mut buffer = [0; 4096];
        while self.is_open {
            match self.stream.read(&mut buffer) {
                Ok(len @ 1..) => heard += len as u64,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                _ => self.is_open = false,
            }
        }
        while self.is_open && self.sent < bytes.len() {
            match self.stream.write(&bytes[self.sent..]) {
                Ok(len) => self.sent += len,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(_) => self.is_open = false,
            }
        }
        heard
    }
}
