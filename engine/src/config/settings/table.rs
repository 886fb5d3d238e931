//! The one table of settings, which file, environment, flags and documentation go by.

use super::values::{Count, Kind, Len, Switch, Time, Word};
use crate::config::Config;

/// What a setting is called, what it takes, and how it is read and written.
#[derive(Debug)]
pub struct Setting {
    name: &'static str,
    about: &'static str,
    accepts: &'static str,
    read: fn(&mut Config, &str) -> bool,
    write: fn(&Config) -> String,
}

impl Setting {
    /// Its name in a file and in errors; a dot stands for a TOML table.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Its environment variable: `RINGWIRE_` and the name in capitals, with `_` for the dot.
    pub fn variable(&self) -> String {
        variable_of(self.name)
    }

    /// What it is for, in a few words; [`Config`] says the rest.
    pub fn about(&self) -> &'static str {
        self.about
    }

    /// Which values it takes.
    pub fn accepts(&self) -> &'static str {
        self.accepts
    }

    /// Its value, as it could stand in a file.
    pub fn value(&self, config: &Config) -> String {
        (self.write)(config)
    }

    /// Sets it; whether the text is a value of it.
    pub(super) fn set(&self, config: &mut Config, text: &str) -> bool {
        (self.read)(config, text)
    }
}

/// The variable of a setting, or of something of the application's own.
pub(crate) fn variable_of(name: &str) -> String {
    format!("{PREFIX}{}", name.to_ascii_uppercase().replace('.', "_"))
}

/// What the environment variables begin with.
pub(super) const PREFIX: &str = "RINGWIRE_";

/// Whether a name, or a variable that stands for none, is one of `ringwire_client::settings`.
pub(super) fn is_of_client(name: &str) -> bool {
    name.starts_with("client.") || name.starts_with("RINGWIRE_CLIENT_")
}

/// All settings, in the order of [`Config`]'s fields.
pub fn all() -> &'static [Setting] {
    SETTINGS
}

/// The setting of that name.
pub fn find(name: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|setting| setting.name == name)
}

macro_rules! settings {
    ($($name:literal, $kind:ident, $($field:ident).+, $about:literal;)+) => {
        &[$(Setting {
            name: $name,
            about: $about,
            accepts: accepts::<$kind, _>(|config| &config.$($field).+),
            read: |config, text| match $kind::read(text) {
                Some(value) => {
                    config.$($field).+ = value;
                    true
                }
                None => false,
            },
            write: |config| $kind::write(&config.$($field).+),
        },)+]
    };
}

/// What the kind of a field accepts; the field is there for its type.
const fn accepts<K: Kind<T>, T>(_: fn(&Config) -> &T) -> &'static str {
    K::ACCEPTS
}

static SETTINGS: &[Setting] = settings! {
    "driver", Word, driver, "The kernel back end";
    "io_workers", Count, io_workers, "Threads that do IO; auto: one for each core that compute_workers leave, half of them at least";
    "compute_workers", Count, compute_workers, "Threads for what would hold a worker up";
    "compute_queue_len", Count, compute_queue_len, "Jobs that may wait for them";
    "max_jobs_per_connection", Count, max_jobs_per_connection, "Jobs of one connection";
    "pinning", Word, pinning, "On which cores the IO workers run";
    "busy_poll", Time, busy_poll, "How long a worker looks for what comes before it sleeps, such as 50us";
    "napi_busy_poll", Time, napi_busy_poll, "How long the kernel polls the network card before a worker sleeps";
    "napi_prefer_busy_poll", Switch, napi_prefer_busy_poll, "Keep the card's interrupts off meanwhile";
    "protocol.max_message_len", Len, protocol.max_message_len, "The longest message taken whole";
    "protocol.max_streamed_len", Len, protocol.max_streamed_len, "The longest message taken in parts";
    "protocol.max_fragment_count", Count, protocol.max_fragment_count, "Frames of one message";
    "protocol.max_control_count", Count, protocol.max_control_count, "Control frames and empty fragments a second";
    "protocol.max_inflate_ratio", Count, protocol.max_inflate_ratio, "How many times longer inflating may make a message";
    "protocol.inflate_ratio_floor", Len, protocol.inflate_ratio_floor, "The inflated length from which that holds";
    "protocol.answers_pings", Switch, protocol.answers_pings, "Answer pings, as RFC 6455 says; off: handlers do";
    "max_unauthenticated_len", Len, max_unauthenticated_len, "The longest message before the peer is authenticated; off: as for anyone";
    "compression.mode", Word, compression.mode, "Compression of messages";
    "compression.threshold", Len, compression.threshold, "The shortest message that is compressed";
    "compression.offload_threshold", Len, compression.offload_threshold, "The shortest that a compute worker compresses";
    "compression.level", Word, compression.level, "How much work is done for a smaller output";
    "compression.max_window", Word, compression.max_window, "The window of compressors; auto: 15, or 12 for a connection's own";
    "compression.decompress_only", Switch, compression.decompress_only, "Only clients compress";
    "compression.compressor_timeout", Time, compression.compressor_timeout, "How long an unused compressor is kept; off: for ever";
    "compression.max_dedicated_len", Len, compression.max_dedicated_len, "Memory of all dedicated (de)compressors";
    "compression.work_per_turn", Len, compression.work_per_turn, "What is inflated in a turn before all else has its time";
    "head.max_head_len", Len, head.max_head_len, "The longest request head";
    "head.max_line_len", Len, head.max_line_len, "The longest line of it";
    "head.max_header_count", Count, head.max_header_count, "The most headers of it";
    "max_body_len", Len, max_body_len, "The longest body of an HTTP request";
    "max_http_requests", Count, max_http_requests, "HTTP requests of one connection";
    "http_keep_alive_timeout", Time, http_keep_alive_timeout, "Silence between two of them";
    "origin_policy", Word, origin_policy, "From whose pages scripts may connect";
    "requires_origin", Switch, requires_origin, "Refuse requests without an Origin header as well";
    "subprotocols", Word, subprotocols, "Subprotocols, where neither handler nor route chooses one";
    "handshake_timeout", Time, handshake_timeout, "From accept to the end of the handshake";
    "idle_timeout", Time, idle_timeout, "How long nothing at all may come";
    "ping_interval", Time, ping_interval, "Silence after which a ping is sent";
    "pong_timeout", Time, pong_timeout, "How long a ping may stay unanswered";
    "reports_pongs", Switch, reports_pongs, "Tell handlers of pongs";
    "close_timeout", Time, close_timeout, "How long the close handshake may take";
    "write_stall_timeout", Time, write_stall_timeout, "How long a peer may take no output";
    "min_drain_rate", Len, min_drain_rate, "Bytes a second that a peer takes of an answer or before a close; off: any";
    "max_lifetime", Time, max_lifetime, "How long a connection may be open";
    "high_water", Len, high_water, "Waiting output from which reading pauses";
    "max_queued_len", Len, max_queued_len, "Waiting output at which no message is taken";
    "backpressure", Word, backpressure, "What happens to a message then";
    "rate_limit.messages_per_second", Count, rate_limit.messages_per_second, "Messages of one connection in a second";
    "rate_limit.message_burst", Count, rate_limit.message_burst, "Messages at once after silence; auto: as many as in a second";
    "rate_limit.bytes_per_second", Count, rate_limit.bytes_per_second, "Bytes of one connection in a second";
    "rate_limit.byte_burst", Count, rate_limit.byte_burst, "Bytes at once after silence; auto: as many as in a second";
    "rate_limit.excess", Word, rate_limit.excess, "What happens to a peer that goes past a rate";
    "topics.max_subscriptions", Count, topics.max_subscriptions, "Subscriptions of one connection";
    "topics.max_retained_len", Len, topics.max_retained_len, "Memory of publications that wait for subscribers";
    "topics.max_in_transit_len", Len, topics.max_in_transit_len, "Publications on their way to one worker";
    "topics.policies", Word, topics.policies, "Back-pressure by topic";
    "topics.max_history_len", Len, topics.max_history_len, "Memory of what topics with a history keep";
    "cluster.max_outgoing_len", Len, cluster.max_outgoing_len, "Publications that wait for the bus";
    "cluster.reorder_window", Time, cluster.reorder_window, "How long one from another node waits for those before it; off: not at all";
    "cluster.max_held_len", Len, cluster.max_held_len, "Publications that wait so";
    "cluster.max_streams", Count, cluster.max_streams, "Topics of nodes whose order is known, by age";
    "cluster.unready_apart", Switch, cluster.unready_apart, "Not ready while the bus has no connection";
    "max_memory", Len, max_memory, "Memory for connections; auto: half of what the process may have beyond 32 MiB";
    "memory_return_delay", Time, memory_return_delay, "How long memory that is not needed any more is kept; off: for good";
    "assignment", Word, assignment, "Which worker gets a connection";
    "max_connections", Count, max_connections, "The most connections; auto: what RLIMIT_NOFILE leaves";
    "max_connections_per_address", Count, max_connections_per_address, "Connections of one address";
    "max_accepts_per_second", Count, max_accepts_per_second, "Connections accepted in a second";
    "listen_backlog", Count, listen_backlog, "Connections that wait to be accepted";
    "exclusive", Switch, exclusive, "Fail to start where another process listens; false: share ports";
    "listen_timeout", Time, listen_timeout, "How long to try again where another process listens";
    "tcp_nodelay", Switch, tcp_nodelay, "Send small messages at once";
    "tcp_user_timeout", Time, tcp_user_timeout, "How long sent data may stay unacknowledged";
    "tcp_keepalive_time", Time, tcp_keepalive_time, "Silence after which the kernel asks whether the peer is there";
    "tcp_keepalive_interval", Time, tcp_keepalive_interval, "The time between two questions";
    "tcp_keepalive_probes", Count, tcp_keepalive_probes, "Questions without an answer that end it";
    "tcp_notsent_lowat", Len, tcp_notsent_lowat, "Output that the kernel takes and has not sent; auto: as the kernel is set";
    "tcp_send_buffer_len", Len, tcp_send_buffer_len, "Output that the kernel keeps (SO_SNDBUF); auto: it adapts that";
    "tcp_receive_buffer_len", Len, tcp_receive_buffer_len, "Input that the kernel keeps (SO_RCVBUF); auto: it adapts that";
    "receive_buffer_len", Len, receive_buffer_len, "Bytes that one receive takes at most";
    "messages_per_turn", Count, messages_per_turn, "Messages of one connection in a turn";
    "pool_len", Len, pool_len, "Free buffers that a worker keeps";
    "mailbox_len", Count, mailbox_len, "Letters that a worker's mailbox holds";
};

#[cfg(test)]
mod tests {
    use super::*;

    /// The paths of all fields, out of what `Debug` makes of the settings.
    fn fields() -> Vec<String> {
        let text = format!("{:#?}", Config::default());
        let (mut path, mut opaque, mut found) = (Vec::new(), 0, Vec::new());
        for line in text.lines().skip(1) {
            let line = line.trim();
            if opaque == 0 {
                if let Some((name, value)) = line.split_once(": ") {
                    path.push(name);
                    if value.ends_with(" {") {
                        continue;
                    }
                    found.push(path.join("."));
                    path.pop();
                } else {
                    path.pop();
                    continue;
                }
            }
            opaque += i32::from(line.ends_with(['(', '[', '{']));
            opaque -= i32::from(line.starts_with([')', ']', '}']));
        }
        found
    }

    #[test]
    fn no_field_is_forgotten() {
        let names: Vec<_> = all().iter().map(|setting| setting.name().to_owned()).collect();
        // A runtime is a handle that the program has, and a history may have a function of the application's.
        let is_setting = |field: &String| field != "runtime" && field != "topics.histories";
        let fields: Vec<_> = fields().into_iter().filter(is_setting).collect();
        assert_eq!(fields, names, "the table follows the fields of Config");
    }

    #[test]
    fn each_sets_its_own_field() {
        let samples = [
            "auto",
            "epoll",
            "7",
            "9",
            "3",
            "off",
            "on",
            "shared",
            "least-loaded",
            "same",
            "close",
            "drop-oldest",
            "a.b=drop-newest",
        ];
        let default = Config::default();
        for setting in all() {
            let mut config = default.clone();
            let other = samples.iter().find(|sample| {
                setting.set(&mut config, sample)
                    && setting.value(&config) != setting.value(&default)
            });
            assert!(other.is_some(), "{} takes none of the samples", setting.name());
            for of in all() {
                let same = of.value(&config) == of.value(&default);
                assert_eq!(
                    same,
                    of.name() != setting.name(),
                    "{} by {}",
                    of.name(),
                    setting.name()
                );
            }
            let mut again = default.clone();
            assert!(setting.set(&mut again, &setting.value(&config)));
            assert_eq!(setting.value(&again), setting.value(&config), "{}", setting.name());
            assert!(!setting.set(&mut again, "?"), "{}", setting.name());
            assert_eq!(setting.value(&again), setting.value(&config), "{}", setting.name());
        }
    }
}
