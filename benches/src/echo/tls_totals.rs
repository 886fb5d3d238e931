//! What the TLS handshakes of a run agreed on.

use ringwire_tls::{Facts, Handshake, Version};
use schemars::JsonSchema;
use serde::Serialize;

/// TLS handshakes by kind, and what the last one agreed on. JSON has these names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub(crate) struct TlsTotals {
    /// `None` before the first one.
    pub(crate) version: Option<&'static str>,
    pub(crate) cipher_suite: Option<&'static str>,
    /// With certificate and signature.
    pub(crate) full: u64,
    /// From a ticket.
    pub(crate) resumed: u64,
}

impl TlsTotals {
    /// Counts a handshake that is over.
    pub(crate) fn add(&mut self, facts: Option<Facts<'_>>) {
        let Some(facts) = facts else { return };
        self.version = Some(match facts.version {
            Version::Tls12 => "1.2",
            _ => "1.3",
        });
        self.cipher_suite = Some(facts.cipher_suite);
        match facts.handshake {
            Handshake::Resumed => self.resumed += 1,
            _ => self.full += 1,
        }
    }

    /// Adds those of another thread.
    pub(crate) fn merge(&mut self, other: &Self) {
        self.version = other.version.or(self.version);
        self.cipher_suite = other.cipher_suite.or(self.cipher_suite);
        self.full += other.full;
        self.resumed += other.resumed;
    }

    /// These, without those of an earlier moment.
    pub(crate) fn since(&self, earlier: &Self) -> Self {
        Self { full: self.full - earlier.full, resumed: self.resumed - earlier.resumed, ..*self }
    }

    /// For people; `None` without any.
    pub(crate) fn text(&self) -> Option<String> {
        let (version, suite) = self.version.zip(self.cipher_suite)?;
        let Self { full, resumed, .. } = self;
        Some(format!("{version}, {suite}, {full} full handshakes, {resumed} resumed"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_are_added_and_moments_subtracted() {
        let none = TlsTotals::default();
        assert_eq!(none.text(), None);
        let version = Some("1.3");
        let one = TlsTotals { version, cipher_suite: Some("S"), full: 3, resumed: 1 };
        let mut all = none;
        all.merge(&one);
        all.merge(&none);
        all.merge(&TlsTotals { full: 2, ..one });
        assert_eq!(all.text().as_deref(), Some("1.3, S, 5 full handshakes, 2 resumed"));
        let since = all.since(&one);
        assert_eq!((since.full, since.resumed), (2, 1));
    }
}
