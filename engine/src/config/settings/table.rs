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
    "driver", Word, driver, "Kernel interface; auto: io_uring from Linux 6.17 on where it is allowed, epoll otherwise";
    "io_workers", Count, io_workers,
        "Event-loop threads; auto: one per core, less compute_workers, and at least half of the cores";
    "compute_workers", Count, compute_workers,
        "Threads for work that would block an event loop: jobs, long compressions, TLS handshakes";
    "compute_queue_len", Count, compute_queue_len, "Jobs that may wait for a compute worker";
    "max_jobs_per_connection", Count, max_jobs_per_connection, "Most jobs in flight per connection";
    "pinning", Word, pinning, "Cores that the IO workers are pinned to";
    "busy_poll", Time, busy_poll, "How long a worker polls for events before it sleeps, such as 50us";
    "napi_busy_poll", Time, napi_busy_poll, "How long the kernel polls the network card before a worker sleeps";
    "napi_prefer_busy_poll", Switch, napi_prefer_busy_poll, "Keep the card's interrupts off while it is polled";
    "protocol.max_message_len", Len, protocol.max_message_len, "Longest message delivered whole";
    "protocol.max_streamed_len", Len, protocol.max_streamed_len, "Longest message delivered in parts (streamed)";
    "protocol.max_fragment_count", Count, protocol.max_fragment_count, "Most frames per message";
    "protocol.max_control_count", Count, protocol.max_control_count,
        "Most control frames and empty fragments per second and connection";
    "protocol.max_inflate_ratio", Count, protocol.max_inflate_ratio, "Most bytes of a message per compressed byte";
    "protocol.inflate_ratio_floor", Len, protocol.inflate_ratio_floor,
        "Inflated length from which max_inflate_ratio applies";
    "protocol.answers_pings", Switch, protocol.answers_pings,
        "Answer pings automatically (RFC 6455 section 5.5.3); false: handlers must";
    "max_unauthenticated_len", Len, max_unauthenticated_len,
        "Longest message from a peer that is not authenticated yet; off: protocol.max_message_len";
    "compression.mode", Word, compression.mode, "Compression of messages";
    "compression.threshold", Len, compression.threshold, "Shortest message that is compressed";
    "compression.offload_threshold", Len, compression.offload_threshold,
        "Shortest message that is compressed on a compute worker; off: none";
    "compression.level", Word, compression.level, "Compression level: 1 is fastest, 9 is smallest";
    "compression.max_window", Word, compression.max_window,
        "LZ77 window of compressors; auto: 15 if shared, 12 if dedicated";
    "compression.decompress_only", Switch, compression.decompress_only,
        "Inflate what clients compress, send nothing compressed";
    "compression.compressor_timeout", Time, compression.compressor_timeout,
        "How long an idle dedicated compressor is kept; off: as long as its connection";
    "compression.max_dedicated_len", Len, compression.max_dedicated_len,
        "Memory for all dedicated compressors and decompressors";
    "compression.work_per_turn", Len, compression.work_per_turn,
        "Bytes that a worker inflates per turn before it serves other connections";
    "head.max_head_len", Len, head.max_head_len, "Longest request head";
    "head.max_line_len", Len, head.max_line_len, "Longest line of a request head";
    "head.max_header_count", Count, head.max_header_count, "Most headers per request";
    "max_body_len", Len, max_body_len, "Longest body of an HTTP request";
    "max_http_requests", Count, max_http_requests, "Most HTTP requests per connection";
    "http_keep_alive_timeout", Time, http_keep_alive_timeout,
        "How long an HTTP connection may be idle between requests";
    "origin_policy", Word, origin_policy, "Origins (of web pages) that may connect";
    "requires_origin", Switch, requires_origin, "Refuse requests without an Origin header";
    "subprotocols", Word, subprotocols, "Subprotocols to accept where neither the handler nor the route chooses one";
    "handshake_timeout", Time, handshake_timeout, "Time from accept to the end of the opening handshake, TLS included";
    "idle_timeout", Time, idle_timeout, "Silence after which a connection is closed";
    "ping_interval", Time, ping_interval, "Silence after which a ping is sent";
    "pong_timeout", Time, pong_timeout, "How long a ping may go unanswered";
    "reports_pongs", Switch, reports_pongs, "Call handlers for pongs";
    "close_timeout", Time, close_timeout, "How long the close handshake may take";
    "write_stall_timeout", Time, write_stall_timeout, "How long a peer may read nothing while output waits";
    "min_drain_rate", Len, min_drain_rate,
        "Bytes per second at which a peer must read an HTTP response, or the output left at a close; off: any rate";
    "max_lifetime", Time, max_lifetime, "Longest life of a connection";
    "high_water", Len, high_water, "Queued output per connection above which reading from it pauses";
    "max_queued_len", Len, max_queued_len, "Most queued output per connection";
    "backpressure", Word, backpressure, "What happens to a message that would exceed max_queued_len";
    "rate_limit.messages_per_second", Count, rate_limit.messages_per_second,
        "Sustained rate of messages per connection";
    "rate_limit.message_burst", Count, rate_limit.message_burst,
        "Largest burst of messages after silence; auto: one second's worth";
    "rate_limit.bytes_per_second", Count, rate_limit.bytes_per_second, "Sustained rate of bytes per connection";
    "rate_limit.byte_burst", Count, rate_limit.byte_burst,
        "Largest burst of bytes after silence; auto: one second's worth";
    "rate_limit.excess", Word, rate_limit.excess, "What happens to a peer that exceeds a rate";
    "topics.max_subscriptions", Count, topics.max_subscriptions, "Most subscriptions per connection";
    "topics.max_retained_len", Len, topics.max_retained_len, "Memory for publications queued to subscribers";
    "topics.max_in_transit_len", Len, topics.max_in_transit_len, "Memory for publications in transit to one worker";
    "topics.policies", Word, topics.policies, "Back-pressure policy by topic pattern";
    "topics.max_history_len", Len, topics.max_history_len, "Memory for the histories of topics";
    "cluster.max_outgoing_len", Len, cluster.max_outgoing_len, "Memory for publications queued to the bus";
    "cluster.reorder_window", Time, cluster.reorder_window,
        "How long a publication from another node waits for a missing predecessor; off: not at all";
    "cluster.max_held_len", Len, cluster.max_held_len, "Memory for publications that wait for a predecessor";
    "cluster.max_streams", Count, cluster.max_streams,
        "Most streams (node and topic) whose order is tracked; the oldest go first";
    "cluster.unready_apart", Switch, cluster.unready_apart, "Report not ready while the bus is disconnected";
    "max_memory", Len, max_memory, "Memory for connections; auto: half of what the process may use beyond 32 MiB";
    "memory_return_delay", Time, memory_return_delay,
        "How long unused memory is kept before the kernel gets it back; off: for good";
    "assignment", Word, assignment, "How a new connection is assigned to a worker";
    "max_connections", Count, max_connections, "Most connections; auto: what RLIMIT_NOFILE allows";
    "max_connections_per_address", Count, max_connections_per_address, "Most connections per IP address";
    "max_accepts_per_second", Count, max_accepts_per_second, "Most connections accepted per second";
    "listen_backlog", Count, listen_backlog, "Connections that the kernel queues before they are accepted";
    "exclusive", Switch, exclusive, "Fail to start if another process listens on the port; false: share it";
    "listen_timeout", Time, listen_timeout, "How long to retry while another process listens on the port";
    "tcp_nodelay", Switch, tcp_nodelay, "Send small messages at once (TCP_NODELAY)";
    "tcp_user_timeout", Time, tcp_user_timeout, "How long sent data may go unacknowledged (TCP_USER_TIMEOUT)";
    "tcp_keepalive_time", Time, tcp_keepalive_time, "Silence after which the kernel sends keepalive probes";
    "tcp_keepalive_interval", Time, tcp_keepalive_interval, "Time between two keepalive probes";
    "tcp_keepalive_probes", Count, tcp_keepalive_probes, "Unanswered keepalive probes that end a connection";
    "tcp_notsent_lowat", Len, tcp_notsent_lowat,
        "Unsent output that the kernel accepts per socket (TCP_NOTSENT_LOWAT); auto: the kernel's setting";
    "tcp_send_buffer_len", Len, tcp_send_buffer_len, "Kernel send buffer (SO_SNDBUF); auto: the kernel adapts it";
    "tcp_receive_buffer_len", Len, tcp_receive_buffer_len,
        "Kernel receive buffer (SO_RCVBUF); auto: the kernel adapts it";
    "receive_buffer_len", Len, receive_buffer_len, "Most bytes per receive";
    "messages_per_turn", Count, messages_per_turn, "Most messages per connection and turn of the event loop";
    "pool_len", Len, pool_len, "Memory of free buffers that a worker keeps";
    "mailbox_len", Count, mailbox_len, "Messages from other threads that a worker's mailbox holds";
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
