//! Peers that a server on the internet has: they come and go, read slowly, or are gone without a word.

#![expect(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "speaks bytes on sockets of its own, and waits"
)]

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::Ordering;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use ringwire::CloseCode;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use socket2::SockRef;

use super::healthy::{Load, connect};
use super::server::SILENCE_LIMIT;

/// Peers that read too slowly, each on a thread of its own, and how slowly.
const SLOW: usize = 4;
const SLOW_READ_LEN: usize = 1 << 10;
const SLOW_PACE: Duration = Duration::from_millis(50);
/// After that many reads they come anew, so that ends with output that waits are among the ends.
const SLOW_READS: usize = 200;
/// Peers that fall silent at a time, half of them among the subscribers.
const SILENT: usize = 8;
const TIMEOUT: Duration = Duration::from_secs(20);
/// How often those who wait look whether it is over.
const LOOK: Duration = Duration::from_millis(100);

/// An upgrade; the key is that of RFC 6455 §1.3.
const KEY_AND_REST: &str = "HTTP/1.1\r\nHost: soak\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

/// Starts them all.
pub(super) fn start(load: &Load, churn: u16) -> anyhow::Result<Vec<JoinHandle<()>>> {
    let interval = Duration::from_secs(1) / u32::from(churn);
    let mut threads = vec![
        load.spawn("churn".to_owned(), move |load| churn_at(load, interval))?,
        load.spawn("silent".to_owned(), fall_silent)?,
    ];
    for number in 0..SLOW {
        threads.push(load.spawn(format!("slow {number}"), read_slowly)?);
    }
    Ok(threads)
}

// Those who come and go

/// How a connection ends.
#[derive(Clone, Copy, Debug)]
enum End {
    /// A close handshake after some messages.
    Close,
    /// A close frame and FIN, without waiting for the answer.
    CloseAndGo,
    /// FIN, and nothing before it.
    Fin,
    Reset,
    /// A frame without a mask, which the server answers with 1002.
    Violation,
    /// A request that ends in the middle.
    HalfRequest,
    /// A request that is none.
    BadRequest,
    /// Nothing is said at all.
    Nothing,
}

const ENDS: [End; 8] = [
    End::Close,
    End::CloseAndGo,
    End::Fin,
    End::Reset,
    End::Violation,
    End::HalfRequest,
    End::BadRequest,
    End::Nothing,
];

fn churn_at(load: &Load, interval: Duration) -> anyhow::Result<()> {
    for end in ENDS.into_iter().cycle() {
        if !load.goes_on() {
            break;
        }
        let began = Instant::now();
        come_and_go(load, end).with_context(|| format!("{end:?}"))?;
        load.counts().churned.fetch_add(1, Ordering::Relaxed);
        thread::sleep(interval.saturating_sub(began.elapsed()));
    }
    Ok(())
}

fn come_and_go(load: &Load, end: End) -> anyhow::Result<()> {
    match end {
        End::Close => {
            let mut client = connect(&load.url("/echo"))?;
            for number in 0..3_u64 {
                client.send_binary(&number.to_le_bytes())?;
                ensure!(client.receive()?.is_some(), "it was closed");
            }
            client.close(CloseCode::NORMAL, "")?;
        }
        // 1000, masked with zeros.
        End::CloseAndGo => {
            upgrade(load, "/topic")?.write_all(&[0x88, 0x82, 0, 0, 0, 0, 3, 0xE8])?
        }
        End::Fin => upgrade(load, "/topic")?.shutdown(Shutdown::Both)?,
        End::Reset => {
            SockRef::from(&upgrade(load, "/echo")?).set_linger(Some(Duration::ZERO))?;
        }
        End::Violation => {
            let mut stream = upgrade(load, "/echo")?;
            stream.write_all(&[0x81, 1, b'a'])?;
            let answer = read_to_end(&mut stream)?;
            ensure!(answer.starts_with(&[0x88]), "it was not closed but for {answer:?}");
        }
        End::HalfRequest => dial(load)?.write_all(b"GET /echo HTTP/1.1\r\nHost:")?,
        End::BadRequest => {
            let mut stream = dial(load)?;
            stream.write_all(b"\x16\x03\x01\r\n\r\n")?;
            read_to_end(&mut stream)?;
        }
        End::Nothing => drop(dial(load)?),
    }
    Ok(())
}

// Those who read too slowly

fn read_slowly(load: &Load) -> anyhow::Result<()> {
    let mut bytes = [0; SLOW_READ_LEN];
    while load.goes_on() {
        let mut stream = upgrade(load, "/flood")?;
        for _ in 0..SLOW_READS {
            if !load.goes_on() {
                break;
            }
            match stream.read(&mut bytes) {
                Ok(0) => break,
                Ok(len) => {
                    load.counts().slow_bytes.fetch_add(len as u64, Ordering::Relaxed);
                }
                // The server had enough of it.
                Err(error) if error.kind() == ErrorKind::ConnectionReset => break,
                Err(error) => return Err(error.into()),
            }
            thread::sleep(SLOW_PACE);
        }
    }
    Ok(())
}

// Those who are gone without a word

/// They read nothing and answer no ping, until the server must have given them up.
fn fall_silent(load: &Load) -> anyhow::Result<()> {
    while load.goes_on() {
        let path = |number: usize| if number.is_multiple_of(2) { "/echo" } else { "/topic" };
        let streams = (0..SILENT)
            .map(|number| upgrade(load, path(number)))
            .collect::<anyhow::Result<Vec<_>>>()?;
        let began = Instant::now();
        while load.goes_on() && began.elapsed() < SILENCE_LIMIT {
            thread::sleep(LOOK);
        }
        if began.elapsed() < SILENCE_LIMIT {
            break;
        }
        for mut stream in streams {
            // To read what waits would be a sign of life.
            ensure!(has_ended(&stream)?, "the server has not given up a silent peer");
            // What was sent to it before is still there to be read, and then the end.
            read_to_end(&mut stream)?;
            load.counts().given_up.fetch_add(1, Ordering::Relaxed);
        }
    }
    Ok(())
}

// Bytes

fn dial(load: &Load) -> anyhow::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&load.server(), TIMEOUT).context("cannot connect")?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    Ok(stream)
}

/// A connection that is upgraded, with perhaps something read behind the answer and dropped.
fn upgrade(load: &Load, path: &str) -> anyhow::Result<TcpStream> {
    let mut stream = dial(load)?;
    stream.write_all(format!("GET {path} {KEY_AND_REST}").as_bytes())?;
    let mut answer = Vec::new();
    let mut bytes = [0; 512];
    while !answer.windows(4).any(|end| end == b"\r\n\r\n") {
        match stream.read(&mut bytes)? {
            0 => bail!("the server ended a handshake"),
            len => answer.extend_from_slice(&bytes[..len]),
        }
    }
    ensure!(answer.starts_with(b"HTTP/1.1 101 "), "a handshake was refused");
    Ok(stream)
}

/// Whether the server ends the connection, whatever is there to be read.
fn has_ended(stream: &TcpStream) -> anyhow::Result<bool> {
    let mut fds = [PollFd::new(stream, PollFlags::RDHUP)];
    let patience = Timespec::try_from(TIMEOUT)?;
    Ok(poll(&mut fds, Some(&patience))? > 0)
}

/// All that comes until the server ends the connection, with a reset or without.
fn read_to_end(stream: &mut TcpStream) -> anyhow::Result<Vec<u8>> {
    let mut all = Vec::new();
    match stream.read_to_end(&mut all) {
        Ok(_) => Ok(all),
        Err(error) if error.kind() == ErrorKind::ConnectionReset => Ok(all),
        Err(error) => Err(error.into()),
    }
}
