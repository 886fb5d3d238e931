//! Which settings can't be.

use std::time::Duration;

use crate::base::amount::{Limit, Sizing};
use crate::config::{Assignment, Config, Pinning};
use crate::conn::options::Backpressure;
use crate::error::Error;
use crate::limits::Excess;

impl Config {
    /// Says which setting can't be.
    pub(crate) fn check(&self) -> Result<(), Error> {
        let at_least = |setting, value: usize, least: usize| {
            if value >= least {
                return Ok(());
            }
            Err(Error::Setting {
                setting,
                problem: format!("{value} is too small: the least is {least}"),
            })
        };
        at_least("receive_buffer_len", self.receive_buffer_len, 512)?;
        at_least("messages_per_turn", self.messages_per_turn, 1)?;
        at_least("mailbox_len", self.mailbox_len, 1)?;
        at_least("max_http_requests", self.max_http_requests.into(), 1)?;
        at_least("max_jobs_per_connection", self.max_jobs_per_connection, 1)?;
        self.check_zeros()?;
        if let Sizing::Fixed(len) = self.max_memory {
            at_least("max_memory", len, 1 << 20)?;
        }
        at_least("high_water", self.high_water, 1)?;
        at_least("max_queued_len (not below high_water)", self.max_queued_len, self.high_water)?;
        self.compression.check()?;
        self.topics.check()?;
        at_least("cluster.max_streams", self.cluster.max_streams, 1)?;
        let full = match self.backpressure {
            Backpressure::Close(code) => Some(("backpressure", code)),
            _ => None,
        };
        let fast = match self.rate_limit.excess {
            Excess::Close(code) => Some(("rate_limit.excess", code)),
            Excess::Pause => None,
        };
        for (setting, code) in full.into_iter().chain(fast) {
            if !code.is_sendable() {
                let problem = format!("close code {} can't be sent (RFC 6455 §7.4)", code.get());
                return Err(Error::Setting { setting, problem });
            }
        }
        let io_workers = self.io_workers.fixed().unwrap_or(0);
        for (setting, count) in
            [("io_workers", io_workers), ("compute_workers", self.compute_workers)]
        {
            if count > usize::from(u16::MAX) {
                let problem = format!("{count} is too large: the most is {}", u16::MAX);
                return Err(Error::Setting { setting, problem });
            }
        }
        if let Some(name) = self.subprotocols.iter().find(|name| !is_token(name)) {
            let problem = format!(
                "{name:?} is not a token (RFC 9110 §5.6.2): use letters, digits, `.`, `-` and `_`"
            );
            return Err(Error::Setting { setting: "subprotocols", problem });
        }
        self.check_tcp_times()?;
        self.check_cores()
    }

    fn check_cores(&self) -> Result<(), Error> {
        let wrong =
            |setting, problem: &str| Err(Error::Setting { setting, problem: problem.into() });
        if matches!(&self.pinning, Pinning::Cores(cores) if cores.is_empty()) {
            return wrong("pinning", "the list of cores is empty");
        }
        if self.napi_prefer_busy_poll && self.napi_busy_poll.is_none() {
            return wrong(
                "napi_prefer_busy_poll",
                "it says how napi_busy_poll is done, which is off",
            );
        }
        if self.assignment == Assignment::Cpu && !self.exclusive {
            // The kernel is told which socket at the port it is, by number.
            return wrong(
                "assignment",
                "cpu needs ports that no other process has: exclusive = true",
            );
        }
        Ok(())
    }

    /// A 0 never means something else.
    fn check_zeros(&self) -> Result<(), Error> {
        let (rates, compression) = (&self.rate_limit, &self.compression);
        for (setting, zero) in [
            ("io_workers", self.io_workers.zero()),
            ("busy_poll", self.busy_poll.zero()),
            ("napi_busy_poll", self.napi_busy_poll.zero()),
            ("max_unauthenticated_len", self.max_unauthenticated_len.zero()),
            ("compression.offload_threshold", compression.offload_threshold.zero()),
            ("compression.compressor_timeout", compression.compressor_timeout.zero()),
            ("http_keep_alive_timeout", self.http_keep_alive_timeout.zero()),
            ("handshake_timeout", self.handshake_timeout.zero()),
            ("idle_timeout", self.idle_timeout.zero()),
            ("ping_interval", self.ping_interval.zero()),
            ("pong_timeout", self.pong_timeout.zero()),
            ("close_timeout", self.close_timeout.zero()),
            ("write_stall_timeout", self.write_stall_timeout.zero()),
            ("min_drain_rate", self.min_drain_rate.zero()),
            ("max_lifetime", self.max_lifetime.zero()),
            ("rate_limit.messages_per_second", rates.messages_per_second.zero()),
            ("rate_limit.message_burst", rates.message_burst.zero()),
            ("rate_limit.bytes_per_second", rates.bytes_per_second.zero()),
            ("rate_limit.byte_burst", rates.byte_burst.zero()),
            ("max_memory", self.max_memory.zero()),
            ("memory_return_delay", self.memory_return_delay.zero()),
            ("max_connections", self.max_connections.zero()),
            ("max_connections_per_address", self.max_connections_per_address.zero()),
            ("max_accepts_per_second", self.max_accepts_per_second.zero()),
            ("tcp_user_timeout", self.tcp_user_timeout.zero()),
            ("tcp_keepalive_time", self.tcp_keepalive_time.zero()),
            ("tcp_notsent_lowat", self.tcp_notsent_lowat.zero()),
            ("tcp_send_buffer_len", self.tcp_send_buffer_len.zero()),
            ("tcp_receive_buffer_len", self.tcp_receive_buffer_len.zero()),
        ] {
            if let Some(instead) = zero {
                let problem = format!("it can't be 0; {instead}");
                return Err(Error::Setting { setting, problem });
            }
        }
        Ok(())
    }

    /// What tcp(7) allows.
    fn check_tcp_times(&self) -> Result<(), Error> {
        // The kernel takes an int of milliseconds.
        let most = Duration::from_millis(i32::MAX as u64);
        if let Some(time) = self.tcp_user_timeout
            && !(Duration::from_millis(1)..=most).contains(&time)
        {
            let problem = format!("{time:?} is not from 1 ms to {} ms, which is 24 days", i32::MAX);
            return Err(Error::Setting { setting: "tcp_user_timeout", problem });
        }
        let Some(time) = self.tcp_keepalive_time else { return Ok(()) };
        for (setting, time) in
            [("tcp_keepalive_time", time), ("tcp_keepalive_interval", self.tcp_keepalive_interval)]
        {
            if time.subsec_nanos() != 0 || !(1..=32767).contains(&time.as_secs()) {
                let problem = format!("{time:?} is not a whole number of seconds from 1 to 32767");
                return Err(Error::Setting { setting, problem });
            }
        }
        if !(1..=127).contains(&self.tcp_keepalive_probes) {
            let problem = format!("{} is not from 1 to 127", self.tcp_keepalive_probes);
            return Err(Error::Setting { setting: "tcp_keepalive_probes", problem });
        }
        Ok(())
    }
}

/// Whether it may be the name of a subprotocol (RFC 9110 §5.6.2).
pub(crate) fn is_token(text: &str) -> bool {
    let is_mark = |byte: u8| b"!#$%&'*+-.^_`|~".contains(&byte);
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || is_mark(byte))
}

/// What can be absent, and so has no use for a 0.
trait MayBeAbsent {
    /// If it is 0: what is meant, perhaps.
    fn zero(self) -> Option<&'static str>;
}

impl<T: Default + PartialEq> MayBeAbsent for Sizing<T> {
    fn zero(self) -> Option<&'static str> {
        (self == Self::Fixed(T::default())).then_some("Sizing::Auto leaves it open")
    }
}

impl<T: Default + PartialEq> MayBeAbsent for Limit<T> {
    fn zero(self) -> Option<&'static str> {
        (self == Self::At(T::default())).then_some("Limit::Unlimited lifts it")
    }
}

impl<T: Default + PartialEq> MayBeAbsent for Option<T> {
    fn zero(self) -> Option<&'static str> {
        (self == Some(T::default())).then_some("None turns it off")
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use ringwire_codec::CloseCode;

    use super::*;
    use crate::layers::compression::CompressionConfig;
    use crate::limits::RateLimit;

    #[test]
    fn the_default_passes_its_own_check() {
        Config::default().check().unwrap();
    }

    #[test]
    fn what_cannot_be_is_named() {
        let config = Config::default;
        let kept_alive = config().with_tcp_keepalive_time(Duration::from_secs(60));
        let dedicated = CompressionConfig::dedicated();
        let wrong = [
            (config().with_receive_buffer_len(1), "receive_buffer_len"),
            (config().with_messages_per_turn(0), "messages_per_turn"),
            (config().with_mailbox_len(0), "mailbox_len"),
            (config().with_max_http_requests(0), "max_http_requests"),
            (config().with_max_jobs_per_connection(0), "max_jobs_per_connection"),
            (config().with_max_queued_len(1), "max_queued_len"),
            (config().with_high_water(0), "high_water: 0 is too small"),
            (config().with_max_memory(1000), "max_memory"),
            (config().with_tcp_keepalive_time(Duration::from_millis(1500)), "tcp_keepalive_time"),
            (config().with_tcp_user_timeout(Duration::from_micros(500)), "tcp_user_timeout"),
            (config().with_tcp_user_timeout(Duration::from_secs(30 * 86_400)), "tcp_user_timeout"),
            (
                kept_alive.clone().with_tcp_keepalive_interval(Duration::ZERO),
                "tcp_keepalive_interval",
            ),
            (kept_alive.with_tcp_keepalive_probes(0), "tcp_keepalive_probes"),
            (config().with_subprotocols(["chat", "chat v2"]), "subprotocols"),
            (config().with_io_workers(70_000), "io_workers"),
            (config().with_compute_workers(70_000), "compute_workers"),
            (config().with_pinning(Pinning::Cores(Vec::new())), "pinning"),
            (config().with_backpressure(Backpressure::Close(CloseCode::ABNORMAL)), "backpressure"),
            (config().with_compression(dedicated.with_max_dedicated_len(1)), "max_dedicated_len"),
        ];
        for (config, name) in wrong {
            let error = config.check().unwrap_err();
            assert!(error.to_string().contains(name), "{error}");
        }
    }

    #[test]
    fn a_zero_never_means_something_else() {
        let config = Config::default;
        let rates = RateLimit::default;
        for (config, expected) in [
            (config().with_io_workers(0), "io_workers: it can't be 0; Sizing::Auto"),
            (config().with_max_memory(0), "max_memory: it can't be 0; Sizing::Auto"),
            (config().with_max_connections(0), "max_connections: it can't be 0; Sizing::Auto"),
            (
                config().with_rate_limit(rates().with_bytes_per_second(0)),
                "rate_limit.bytes_per_second: it can't be 0; Limit::Unlimited",
            ),
            (
                config().with_max_accepts_per_second(0),
                "max_accepts_per_second: it can't be 0; Limit::Unlimited",
            ),
            (config().with_idle_timeout(Duration::ZERO), "idle_timeout: it can't be 0; None"),
            (config().with_min_drain_rate(0), "min_drain_rate: it can't be 0; None"),
            (config().with_max_unauthenticated_len(0), "max_unauthenticated_len: it can't be 0"),
        ] {
            let error = config.check().unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
