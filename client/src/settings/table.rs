//! The one table of a client's settings, which file, environment and documentation go by.

use super::values::{Count, Kind, Len, Names, Switch, Time, Word};
use crate::builder::Builder;

/// What the environment variables begin with.
pub(super) const PREFIX: &str = "RINGWIRE_CLIENT_";

/// What a setting is called, what it takes, and how it is read and written.
#[derive(Debug)]
pub struct Setting {
    name: &'static str,
    about: &'static str,
    accepts: &'static str,
    read: fn(&mut Builder, &str) -> bool,
    write: fn(&Builder) -> String,
}

impl Setting {
    /// Its name in a file and in errors; the dot stands for a TOML table.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// Its environment variable: `RINGWIRE_` and the name in capitals, with `_` for the dot.
    #[must_use]
    pub fn variable(&self) -> String {
        format!("RINGWIRE_{}", self.name.to_ascii_uppercase().replace('.', "_"))
    }

    /// What it is for, in a few words; [`Builder`] says the rest.
    #[must_use]
    pub const fn about(&self) -> &'static str {
        self.about
    }

    /// Which values it takes.
    #[must_use]
    pub const fn accepts(&self) -> &'static str {
        self.accepts
    }

    /// Its value, as it could stand in a file.
    #[must_use]
    pub fn value(&self, builder: &Builder) -> String {
        (self.write)(builder)
    }

    /// Sets it; whether the text is a value of it.
    pub(super) fn set(&self, builder: &mut Builder, text: &str) -> bool {
        (self.read)(builder, text.trim())
    }
}

/// All settings.
#[must_use]
pub const fn all() -> &'static [Setting] {
    SETTINGS
}

/// The setting of that name.
#[must_use]
pub fn find(name: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|setting| setting.name == name)
}

macro_rules! settings {
    ($($name:literal, $kind:ident, $($field:ident).+, $about:literal;)+) => {
        &[$(Setting {
            name: $name,
            about: $about,
            accepts: accepts::<$kind, _>(|builder| &builder.$($field).+),
            read: |builder, text| match $kind::read(text) {
                Some(value) => {
                    builder.$($field).+ = value;
                    true
                }
                None => false,
            },
            write: |builder| $kind::write(&builder.$($field).+),
        },)+]
    };
}

/// What the kind of a field accepts; the field is there for its type.
const fn accepts<K: Kind<T>, T>(_: fn(&Builder) -> &T) -> &'static str {
    K::ACCEPTS
}

static SETTINGS: &[Setting] = settings! {
    "client.subprotocols", Names, handshake.subprotocols, "Subprotocols to offer, preferred first";
    "client.origin", Word, handshake.origin, "The Origin header";
    "client.connect_timeout", Time, connect_timeout,
        "Time to resolve the host and connect, through the proxy if there is one";
    "client.handshake_timeout", Time, handshake_timeout,
        "Time for the TLS handshake, the request and its response together";
    "client.read_timeout", Time, read_timeout, "How long a receive waits for a message";
    "client.write_timeout", Time, write_timeout, "How long the socket may take to accept one message";
    "client.close_timeout", Time, close_timeout, "Time for the peer to answer a close";
    "client.ping_interval", Time, ping_interval, "Silence after which a ping is sent";
    "client.peer_timeout", Time, peer_timeout, "Silence after which the peer is considered dead";
    "client.heartbeat_thread", Switch, heartbeat_thread, "Run a thread that pings and times out while nobody receives";
    "client.max_message_len", Len, protocol.max_message_len, "Longest message to receive";
    "client.compression", Word, handshake.compression, "Offer compression (permessage-deflate)";
    "client.tcp_nodelay", Switch, nodelay, "Send small messages at once (TCP_NODELAY)";
    "client.max_redirects", Count, handshake.max_redirects, "Most redirects to follow";
    "client.max_refusal_len", Len, handshake.max_refusal_len, "Longest body of a refusal to keep";
    "client.proxy", Word, proxy, "Proxy to connect through";
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_sets_its_own_field() {
        let samples = ["7s", "9", "on", "off", "a,b", "http://u:p@proxy:3128", "https://o.example"];
        let default = Builder::default();
        for setting in all() {
            let mut builder = default.clone();
            let other = samples.iter().find(|sample| {
                setting.set(&mut builder, sample)
                    && setting.value(&builder) != setting.value(&default)
            });
            assert!(other.is_some(), "{} takes none of the samples", setting.name());
            for of in all() {
                let same = of.value(&builder) == of.value(&default);
                assert_eq!(same, of.name() != setting.name(), "{}", of.name());
            }
            assert!(!setting.set(&mut builder, "\u{7}"), "{}", setting.name());
            let mut again = default.clone();
            assert!(setting.set(&mut again, &setting.value(&default)), "{}", setting.name());
            assert_eq!(setting.value(&again), setting.value(&default), "{}", setting.name());
        }
    }
}
