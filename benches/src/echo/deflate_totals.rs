//! What compression came to in a run.

use ringwire_codec::Role;
use ringwire_codec::deflate::Agreement;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What was agreed on, and what went over the wire from the first message on. JSON has these names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, JsonSchema)]
pub(crate) struct DeflateTotals {
    /// `None` before the first connection is open.
    pub(crate) agreed: Option<Agreed>,
    /// A message as it is sent, header included: the mean, in bytes.
    pub(crate) request_bytes: f64,
    /// Its echo as it arrives, header included: the mean, in bytes.
    pub(crate) reply_bytes: f64,
    /// Echoes that came.
    pub(crate) replies: u64,
}

/// The terms of permessage-deflate (RFC 7692 §7.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub(crate) struct Agreed {
    pub(crate) client_takeover: bool,
    pub(crate) server_takeover: bool,
    pub(crate) client_window_bits: u8,
    pub(crate) server_window_bits: u8,
}

impl From<Agreement> for Agreed {
    fn from(agreement: Agreement) -> Self {
        Self {
            client_takeover: agreement.takeover(Role::Client),
            server_takeover: agreement.takeover(Role::Server),
            client_window_bits: agreement.window_bits(Role::Client),
            server_window_bits: agreement.window_bits(Role::Server),
        }
    }
}

impl std::fmt::Display for Agreed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match (self.client_takeover, self.server_takeover) {
            (false, false) => "no context takeover",
            (true, true) => "context takeover both ways",
            (true, false) => "context takeover of the client",
            (false, true) => "context takeover of the server",
        })?;
        let (client, server) = (self.client_window_bits, self.server_window_bits);
        write!(f, ", windows of {client} (client) and {server} bits")
    }
}

impl DeflateTotals {
    /// Adds those of another thread.
    pub(crate) fn merge(&mut self, other: &Self) {
        let (own, others) = (self.replies as f64, other.replies as f64);
        if own + others > 0.0 {
            let mean =
                |own_mean, other_mean| (own_mean * own + other_mean * others) / (own + others);
            self.request_bytes = mean(self.request_bytes, other.request_bytes);
            self.reply_bytes = mean(self.reply_bytes, other.reply_bytes);
        }
        self.agreed = other.agreed.or(self.agreed);
        self.replies += other.replies;
    }

    /// For people; `None` without any.
    pub(crate) fn text(&self) -> Option<String> {
        let Self { request_bytes, reply_bytes, .. } = self;
        let agreed = self.agreed?;
        Some(format!("{agreed}; on the wire {request_bytes:.0} B there, {reply_bytes:.0} B back"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_are_weighed_by_their_echoes() {
        let agreed = Agreed {
            client_takeover: true,
            server_takeover: false,
            client_window_bits: 15,
            server_window_bits: 12,
        };
        let one = DeflateTotals {
            agreed: Some(agreed),
            request_bytes: 100.0,
            reply_bytes: 80.0,
            replies: 3,
        };
        let mut all = DeflateTotals::default();
        assert_eq!(all.text(), None);
        all.merge(&DeflateTotals::default());
        all.merge(&one);
        all.merge(&DeflateTotals {
            agreed: None,
            request_bytes: 100.0,
            reply_bytes: 40.0,
            replies: 1,
        });
        let text = "context takeover of the client, windows of 15 (client) and 12 bits; \
                    on the wire 100 B there, 70 B back";
        assert_eq!(all.text().as_deref(), Some(text));
    }
}
