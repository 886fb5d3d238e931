//! How a bus is set up, and its thread.

use std::fmt;
use std::io;
use std::thread;
use std::time::Duration;

use async_nats::{ConnectOptions, ServerAddr};
use percent_encoding::percent_decode_str;
use ringwire::cluster::{Bus, BusError, Node};

use crate::history::NatsHistory;
use crate::link;
use crate::subject::Subjects;

/// Commands that wait for the connection. Each may hold a message.
const COMMANDS: usize = 128;

/// The longest between two attempts to connect.
const MAX_DELAY: Duration = Duration::from_millis(250);

/// Why there is no bus.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NatsError {
    /// An address is none.
    #[error("cannot use the NATS address `{address}`: {source}; write it as nats://127.0.0.1:4222")]
    Address {
        /// The address, without a name and a password.
        address: String,
        /// What is wrong with it.
        source: io::Error,
    },
    /// Servers are named with different names and passwords.
    #[error(
        "servers of one NATS take the same name and password: write them for one, or for all alike"
    )]
    Credentials,
    /// A prefix is no subject.
    #[error(
        "cannot use the subject prefix `{0}`: it must be printable ASCII without spaces, `%`, `*` and `>`"
    )]
    Prefix(String),
}

/// A [`Bus`] over NATS. See the [crate's documentation](crate).
pub struct NatsBus {
    servers: Vec<ServerAddr>,
    credentials: Option<Credentials>,
    options: ConnectOptions,
    subjects: Subjects,
    name: Option<String>,
    ping_interval: Duration,
    subscription_capacity: usize,
    history: Option<NatsHistory>,
}

/// Who this is to NATS.
#[derive(Clone, PartialEq, Eq)]
enum Credentials {
    Token(String),
    User(String, String),
}

impl Credentials {
    /// Takes them out of an address, which the client logs, and does not read them from: `nats://USER:PASSWORD@HOST`,
    /// or `nats://TOKEN@HOST`.
    fn take(server: ServerAddr) -> io::Result<(ServerAddr, Option<Self>)> {
        let decoded = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
        let found = match (server.username().map(decoded), server.password().map(decoded)) {
            (None, None) => return Ok((server, None)),
            (Some(token), None) => Self::Token(token),
            (user, password) => Self::User(user.unwrap_or_default(), password.unwrap_or_default()),
        };
        let mut url = server.into_inner();
        if url.set_username("").is_err() || url.set_password(None).is_err() {
            return Err(io::Error::other("it has no host"));
        }
        Ok((ServerAddr::from_url(url)?, Some(found)))
    }

    fn apply(self, options: ConnectOptions) -> ConnectOptions {
        match self {
            Self::Token(token) => options.token(token),
            Self::User(user, password) => options.user_and_password(user, password),
        }
    }
}

impl NatsBus {
    /// A bus over these servers of one NATS: addresses with commas between them. A name and a password may stand in
    /// one of them, or the same in all, as in a URL: `nats://USER:PASSWORD@HOST`, percent-encoded; or a token,
    /// `nats://TOKEN@HOST`. For all else there are [options](Self::with_options).
    ///
    /// # Errors
    /// One of them is no address, or they have different credentials.
    pub fn new(servers: &str) -> Result<Self, NatsError> {
        let address = |text: &str| {
            let bare = text.rsplit_once('@').map_or(text, |(_, bare)| bare);
            let wrong = |source| NatsError::Address { address: bare.to_owned(), source };
            let server: ServerAddr = text.trim().parse().map_err(wrong)?;
            match server.host() {
                "" => Err(wrong(io::Error::other("it has no host"))),
                _ => Credentials::take(server).map_err(wrong),
            }
        };
        let found: Vec<_> = servers.split(',').map(address).collect::<Result<_, _>>()?;
        let (servers, credentials): (_, Vec<_>) = found.into_iter().unzip();
        let mut credentials = credentials.into_iter().flatten();
        let own = credentials.next();
        if credentials.any(|other| own.as_ref() != Some(&other)) {
            return Err(NatsError::Credentials);
        }
        Ok(Self {
            servers,
            credentials: own,
            options: ConnectOptions::new(),
            subjects: Subjects::new("ringwire").expect("it is printable"),
            name: None,
            ping_interval: Duration::from_secs(2),
            subscription_capacity: 4096,
            history: None,
        })
    }

    /// Sets what all subjects of the cluster begin with. Default: `ringwire`. Servers with different prefixes do not
    /// hear each other.
    ///
    /// # Errors
    /// It is no subject, or has a wildcard.
    pub fn with_prefix(mut self, prefix: &str) -> Result<Self, NatsError> {
        self.subjects =
            Subjects::new(prefix).ok_or_else(|| NatsError::Prefix(prefix.to_owned()))?;
        Ok(self)
    }

    /// Sets what NATS calls this connection, in its log and its monitoring. Default: the node's id.
    #[must_use]
    pub fn with_name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Sets how often NATS is asked whether it is there. Default: 2 s. After three questions without an answer, 6 to 8
    /// s then, the connection is given up and made anew.
    #[must_use]
    pub fn with_ping_interval(mut self, interval: Duration) -> Self {
        self.ping_interval = interval;
        self
    }

    /// Sets how many messages of one subscription may wait for the bus's thread. Default: 4096.
    #[must_use]
    pub fn with_subscription_capacity(mut self, count: usize) -> Self {
        self.subscription_capacity = count;
        self
    }

    /// Has a stream of JetStream number and keep what is published to topics with a
    /// [history](ringwire::topics::HistoryConfig), for all nodes: so a client that comes back to any of them, with a
    /// position that any has given it, gets what it missed. Default: none; each node numbers and keeps by itself.
    ///
    /// A message is heard once JetStream has stored it, on the node that publishes it as well.
    #[must_use]
    pub fn with_history(mut self, history: NatsHistory) -> Self {
        self.history = Some(history);
        self
    }

    /// Sets how to connect: credentials, tokens, keys, TLS. What the bus needs itself it sets over them: the name,
    /// pings, capacities, callbacks of events and delays, and that it hears no echo and never ceases to try.
    #[must_use]
    pub fn with_options(mut self, options: ConnectOptions) -> Self {
        self.options = options;
        self
    }
}

impl Bus for NatsBus {
    fn start(self: Box<Self>, node: Node) -> Result<(), BusError> {
        let Self { servers, options, subjects, name, ping_interval, .. } = *self;
        let Self { subscription_capacity, history, credentials, .. } = *self;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let options = match credentials {
            Some(credentials) => credentials.apply(options),
            None => options,
        };
        let options = options
            .name(name.unwrap_or_else(|| node.id.to_string()))
            .no_echo()
            .ping_interval(ping_interval)
            .client_capacity(COMMANDS)
            .subscription_capacity(subscription_capacity)
            .retry_on_initial_connect()
            .max_reconnects(None)
            .reconnect_delay_callback(delay);
        if history.is_some() {
            node.outlet.number_by_bus();
        }
        let run = move || {
            let tasks = tokio::task::LocalSet::new();
            tasks.block_on(&runtime, link::run(servers, options, (subjects, history), node));
        };
        thread::Builder::new().name("ringwire-nats".to_owned()).spawn(run)?;
        Ok(())
    }
}

/// How long to wait before an attempt to connect.
fn delay(attempts: usize) -> Duration {
    let exponent = u32::try_from(attempts.min(8)).unwrap_or(8);
    (Duration::from_millis(5) * 2_u32.pow(exponent)).min(MAX_DELAY)
}

/// Without what may be secret.
impl fmt::Debug for NatsBus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let servers: Vec<_> = self
            .servers
            .iter()
            .map(|server| format!("{}:{}", server.host(), server.port()))
            .collect();
        f.debug_struct("NatsBus")
            .field("servers", &servers)
            .field("subjects", &self.subjects)
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_prefixes() {
        let bus = NatsBus::new("nats://user:secret@127.0.0.1:4222, demo.example:4333").unwrap();
        let shown = format!("{:?}", bus.with_prefix("chat.eu").unwrap());
        assert!(shown.contains("127.0.0.1:4222") && shown.contains("demo.example:4333"), "{shown}");
        assert!(shown.contains("chat.eu") && !shown.contains("secret"), "{shown}");
        let error = NatsBus::new("nats://user:secret@[::1").unwrap_err();
        assert!(!format!("{error} {error:?}").contains("secret"), "{error}");
        let error = NatsBus::new("http://127.0.0.1").unwrap_err();
        assert!(matches!(error, NatsError::Address { .. }), "{error}");
        assert!(matches!(NatsBus::new(""), Err(NatsError::Address { .. })));
        let error = NatsBus::new("127.0.0.1").unwrap().with_prefix("a.*").unwrap_err();
        assert!(error.to_string().contains("`a.*`"), "{error}");
    }

    #[test]
    fn credentials_are_taken_out_of_addresses() {
        let user = |name: &str, password: &str| {
            Some(Credentials::User(name.to_owned(), password.to_owned()))
        };
        for (servers, expected) in [
            ("nats://127.0.0.1", None),
            ("nats://ann:p%40ss@127.0.0.1, nats://b.example", user("ann", "p@ss")),
            ("nats://b.example,ann:x@127.0.0.1", user("ann", "x")),
            ("nats://ann:x@a.example,nats://ann:x@b.example", user("ann", "x")),
            ("tls://t0ken@127.0.0.1", Some(Credentials::Token("t0ken".to_owned()))),
            ("nats://:x@127.0.0.1", user("", "x")),
        ] {
            let bus = NatsBus::new(servers).unwrap();
            assert!(bus.credentials == expected, "{servers}");
            let is_bare = |it: &ServerAddr| (it.username(), it.password()) == (None, None);
            assert!(bus.servers.iter().all(is_bare), "{servers}");
        }
        let error = NatsBus::new("nats://ann:x@a.example,nats://ann:y@b.example").unwrap_err();
        assert!(matches!(error, NatsError::Credentials), "{error}");
    }

    #[test]
    fn attempts_come_no_more_often_than_they_should() {
        let all: Vec<_> = (0..100).map(delay).collect();
        assert!(all.is_sorted());
        assert_eq!((all[1], all[99]), (Duration::from_millis(10), MAX_DELAY));
    }
}
