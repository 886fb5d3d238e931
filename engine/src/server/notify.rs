//! Telling a service manager how the server is: the protocol of sd_notify(3).

#![expect(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "the watchdog has a thread of its own, no part of a message's path"
)]

use std::ffi::OsStr;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::Arc;
use std::time::{Duration, Instant};
use std::{io, thread};

use crate::base::mailbox::PostError;
use crate::server::handle::Handle;

/// Where the manager listens.
pub(crate) const SOCKET_VARIABLE: &str = "NOTIFY_SOCKET";

/// The way to the service manager that started this process, if it wants to hear of it (`Type=notify`,
/// systemd.service(5)).
///
/// ```no_run
/// use ringwire::{Config, Notifier, Server, on_message};
///
/// let server = Server::new(Config::default())
///     .listen("127.0.0.1:9001")
///     .start(|_worker| on_message(|ctx, message| ctx.send(message)))?;
/// if let Some(notifier) = Notifier::from_environment()? {
///     notifier.ready()?;
///     notifier.watch(server.handle())?;
/// }
/// # server.handle().shutdown(std::time::Duration::ZERO);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct Notifier {
    socket: Arc<UnixDatagram>,
    address: SocketAddr,
    watchdog: Option<Duration>,
}

impl Notifier {
    /// The manager that NOTIFY_SOCKET names; `None` if it is not set. WATCHDOG_USEC and WATCHDOG_PID say whether it
    /// wants signs of life.
    ///
    /// # Errors
    /// A variable makes no sense, or there is no socket to be had.
    pub fn from_environment() -> io::Result<Option<Self>> {
        let Some(address) = std::env::var_os(SOCKET_VARIABLE) else { return Ok(None) };
        let watchdog = watchdog(std::process::id(), |name| std::env::var(name).ok())?;
        Self::new(&address, watchdog).map(Some)
    }

    /// The manager at a socket: a path, or a name behind `@` (the abstract namespace, unix(7)). `watchdog` is how long
    /// it waits for a sign of life.
    ///
    /// # Errors
    /// It is no such address, or there is no socket to be had.
    pub fn new(address: &OsStr, watchdog: Option<Duration>) -> io::Result<Self> {
        let address = match address.as_bytes() {
            [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
            [b'/', ..] => SocketAddr::from_pathname(address)?,
            _ => {
                let problem = format!("{SOCKET_VARIABLE}={} is no Unix socket", address.display());
                return Err(io::Error::new(io::ErrorKind::InvalidInput, problem));
            }
        };
        let socket = UnixDatagram::unbound()?;
        // A manager that reads nothing should not hold the server up.
        socket.set_nonblocking(true)?;
        Ok(Self { socket: Arc::new(socket), address, watchdog })
    }

    /// The server has started (READY=1).
    ///
    /// # Errors
    /// The manager is not there, or reads nothing.
    pub fn ready(&self) -> io::Result<()> {
        self.tell("READY=1")
    }

    /// The server takes no more connections and ends (STOPPING=1).
    ///
    /// # Errors
    /// As for [`ready`](Self::ready).
    pub fn stopping(&self) -> io::Result<()> {
        self.tell("STOPPING=1")
    }

    /// A line for people (STATUS=).
    ///
    /// # Errors
    /// As for [`ready`](Self::ready).
    pub fn status(&self, text: &str) -> io::Result<()> {
        self.tell(&format!("STATUS={}", text.replace('\n', " ")))
    }

    /// Gives a sign of life (WATCHDOG=1) at each half of the time that the manager waits for one, as long as every
    /// worker still turns: one that is stuck in a handler, say, gives the manager reason to start the server anew. Does
    /// nothing if the manager asks for none. Ends with the server.
    ///
    /// # Errors
    /// The thread can't be started.
    pub fn watch(&self, handle: Handle) -> io::Result<()> {
        let Some(limit) = self.watchdog else { return Ok(()) };
        let notifier = self.clone();
        let work = move || notifier.keep_watch(&handle, limit / 2);
        thread::Builder::new().name("watchdog".into()).spawn(work)?;
        Ok(())
    }

    fn keep_watch(&self, handle: &Handle, interval: Duration) {
        let mut was_stuck = false;
        loop {
            let began = Instant::now();
            let turns =
                || -> Vec<_> { handle.stats().workers.iter().map(|worker| worker.turns).collect() };
            let before = turns();
            // A letter, which an idle worker turns for. Where the mailbox is full it turns anyway, within a moment.
            if handle.subscriber_count("").wait(interval / 2) == Err(PostError::Stopped) {
                return;
            }
            let stuck = loop {
                let stuck = before.iter().zip(turns()).position(|(before, now)| now <= *before);
                if stuck.is_none() || began.elapsed() >= interval / 2 {
                    break stuck;
                }
                thread::sleep(interval / 64);
            };
            match stuck {
                // It is looked at again without a rest, so that its sign comes as soon as it turns.
                Some(worker) if !was_stuck => crate::base::event::error!(
                    worker,
                    "a worker is stuck in a handler: it serves no connection, and the watchdog gets no sign of life"
                ),
                Some(_) => {}
                None => {
                    if let Err(error) = self.tell("WATCHDOG=1") {
                        crate::base::event::warn!(%error, "cannot notify the service manager at NOTIFY_SOCKET");
                    }
                    thread::sleep(interval);
                }
            }
            was_stuck = stuck.is_some();
        }
    }

    fn tell(&self, state: &str) -> io::Result<()> {
        self.socket.send_to_addr(state.as_bytes(), &self.address).map(|_| ())
    }
}

/// How long the manager waits for a sign of life of process `own`.
fn watchdog(own: u32, variable: impl Fn(&str) -> Option<String>) -> io::Result<Option<Duration>> {
    let number = |name: &str| {
        let Some(text) = variable(name) else { return Ok(None) };
        text.parse::<u64>().map(Some).map_err(|_| {
            let problem = format!("{name}={text} is no number");
            io::Error::new(io::ErrorKind::InvalidInput, problem)
        })
    };
    if number("WATCHDOG_PID")?.is_some_and(|pid| pid != u64::from(own)) {
        return Ok(None);
    }
    Ok(number("WATCHDOG_USEC")?.filter(|micros| *micros > 0).map(Duration::from_micros))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signs_of_life_are_for_whom_they_are_asked_of() {
        let limit = |variables: &[(&str, &str)]| {
            watchdog(7, |name| {
                let found = variables.iter().find(|(known, _)| *known == name);
                found.map(|(_, value)| (*value).to_owned())
            })
        };
        assert_eq!(limit(&[]).unwrap(), None);
        let second = Some(Duration::from_secs(1));
        assert_eq!(limit(&[("WATCHDOG_USEC", "1000000")]).unwrap(), second);
        let own = [("WATCHDOG_USEC", "1000000"), ("WATCHDOG_PID", "7")];
        assert_eq!(limit(&own).unwrap(), second);
        let other = [("WATCHDOG_USEC", "1000000"), ("WATCHDOG_PID", "8")];
        assert_eq!(limit(&other).unwrap(), None);
        assert!(limit(&[("WATCHDOG_USEC", "soon")]).is_err());
    }

    #[test]
    fn addresses() {
        for wrong in ["", "vsock:2:1", "name"] {
            assert!(Notifier::new(OsStr::new(wrong), None).is_err(), "{wrong}");
        }
        let nobody = Notifier::new(OsStr::new("/nonexistent/notify"), None).unwrap();
        assert!(nobody.ready().is_err());
    }
}
