//! Whether a client comes back, and when.

use std::time::Duration;

use ringwire_codec::CloseCode;
use ringwire_codec::handshake::HandshakeError;

use crate::backoff::Backoff;
use crate::error::{Error, ErrorKind};

/// Whether a client comes back after a close code of the server, and what it waits for.
///
/// What [`RetryPolicy::default`] does after a close frame:
///
/// | code | meaning | comes back |
/// |---|---|---|
/// | 1000 | done | no |
/// | 1001 | the server goes away | yes |
/// | 1002, 1003, 1007, 1009, 1010 | what this client sends is wrong, and would be again | no |
/// | 1008 | against the server's policy | no |
/// | 1005, 1006 | no code, no close frame | yes |
/// | 1011–1014 | the server's own trouble, restart, overload | yes |
/// | 3000, 3003 | unauthorized, forbidden (IANA) | no |
/// | 4400–4499 but 4408 and 4429 | as HTTP's 4xx, which many applications mirror | no |
/// | all other 3xxx and 4xxx | the application's own | yes |
///
/// And after an attempt that failed:
///
/// | what failed | comes back |
/// |---|---|
/// | name, network, proxy, a deadline, a stream that ended | yes |
/// | credentials (401, 403, 407) | if [`Reconnecting::prepare`](crate::Reconnecting::prepare) can get others |
/// | 408, 425, 429 and 5xx | yes, not before Retry-After |
/// | any other status, redirects | no |
/// | the server's certificate, TLS settings, URL, settings | no |
/// | an answer that breaks HTTP or RFC 6455 | no |
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct RetryPolicy {
    /// The delays. They begin anew once a connection has lasted for [`stable_after`](Self::stable_after).
    pub backoff: Backoff,
    /// The most attempts in a row. Default: 0, without end.
    pub max_attempts: u32,
    /// How long a connection lasts that is no failed attempt. Default: 10 s.
    pub stable_after: Duration,
    /// The longest Retry-After that is honoured. Default: 10 min.
    pub max_retry_after: Duration,
    /// Whether to come back after a close code; the table above is [`comes_back_after`].
    pub comes_back: fn(CloseCode) -> bool,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            backoff: Backoff::default(),
            max_attempts: 0,
            stable_after: Duration::from_secs(10),
            max_retry_after: Duration::from_secs(600),
            comes_back: comes_back_after,
        }
    }
}

impl RetryPolicy {
    /// Sets [`backoff`](Self::backoff).
    #[must_use]
    pub const fn with_backoff(mut self, backoff: Backoff) -> Self {
        self.backoff = backoff;
        self
    }

    /// Sets [`max_attempts`](Self::max_attempts).
    #[must_use]
    pub const fn with_max_attempts(mut self, count: u32) -> Self {
        self.max_attempts = count;
        self
    }

    /// Sets [`stable_after`](Self::stable_after).
    #[must_use]
    pub const fn with_stable_after(mut self, time: Duration) -> Self {
        self.stable_after = time;
        self
    }

    /// Sets [`max_retry_after`](Self::max_retry_after).
    #[must_use]
    pub const fn with_max_retry_after(mut self, time: Duration) -> Self {
        self.max_retry_after = time;
        self
    }

    /// Sets [`comes_back`](Self::comes_back).
    #[must_use]
    pub const fn with_comes_back(mut self, comes_back: fn(CloseCode) -> bool) -> Self {
        self.comes_back = comes_back;
        self
    }

    /// How long to wait after this error, with so many attempts behind; `None`: for ever.
    ///
    /// `random` chooses the jitter; `may_renew` says that the next attempt can have other credentials.
    #[must_use]
    pub fn delay_after(
        &self,
        error: &Error,
        attempts: u32,
        random: u64,
        may_renew: bool,
    ) -> Option<Duration> {
        let is_last = self.max_attempts > 0 && attempts >= self.max_attempts;
        if is_last || !self.is_worth_it(error, may_renew) {
            return None;
        }
        let delay = self.backoff.delay(attempts.saturating_sub(1), random);
        let asked = error.refusal().and_then(crate::Refusal::retry_after).unwrap_or_default();
        // Clients that are told the same number still spread.
        Some(delay.saturating_add(asked.min(self.max_retry_after)))
    }

    fn is_worth_it(&self, error: &Error, may_renew: bool) -> bool {
        match error {
            Error::Closed { code, .. } => (self.comes_back)(*code),
            _ if error.kind() == ErrorKind::Authentication => may_renew,
            Error::Refused(refusal) => {
                refusal.status.is_server_error()
                    || matches!(refusal.status.as_u16(), 408 | 425 | 429)
            }
            Error::Handshake(error) => {
                matches!(error, HandshakeError::Incomplete | HandshakeError::NoAnswer)
            }
            Error::Tls(error) => !matches!(error, ringwire_tls::Error::PeerCertificate(_)),
            Error::Resolve { .. }
            | Error::Connect { .. }
            | Error::Proxy { .. }
            | Error::Timeout(_)
            | Error::Protocol(_)
            | Error::Extension(_)
            | Error::Lost(_) => true,
            Error::Url(_)
            | Error::Setting { .. }
            | Error::TlsSettings(_)
            | Error::Redirect(_)
            | Error::InvalidMessage(_)
            | Error::NoPlaceForId
            | Error::TooManyPending => false,
        }
    }
}

/// The table of [`RetryPolicy`].
#[must_use]
pub fn comes_back_after(code: CloseCode) -> bool {
    !matches!(
        code.get(),
        1000 | 1002 | 1003 | 1007..=1010 | 3000 | 3003 | 4400..=4407 | 4409..=4428 | 4430..=4499
    )
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderValue, StatusCode, header};

    use super::*;
    use crate::{Refusal, Waiting};

    fn refused(status: u16, retry_after: &str) -> Error {
        let mut headers = HeaderMap::new();
        headers.insert(header::RETRY_AFTER, HeaderValue::from_str(retry_after).unwrap());
        let status = StatusCode::from_u16(status).unwrap();
        Error::Refused(Box::new(Refusal { status, headers, body: Vec::new(), is_complete: true }))
    }

    #[test]
    fn codes() {
        for (code, expected) in [
            (1000, false),
            (1001, true),
            (1002, false),
            (1003, false),
            (1005, true),
            (1006, true),
            (1007, false),
            (1008, false),
            (1009, false),
            (1010, false),
            (1011, true),
            (1012, true),
            (1013, true),
            (1014, true),
            (3000, false),
            (3003, false),
            (3008, true),
            (4000, true),
            (4401, false),
            (4408, true),
            (4429, true),
            (4500, true),
        ] {
            assert_eq!(comes_back_after(CloseCode::new(code)), expected, "{code}");
        }
    }

    #[test]
    fn errors() {
        let policy = RetryPolicy::default();
        let closed = |code| Error::Closed { code: CloseCode::new(code), reason: String::new() };
        let delay = |error: &Error| policy.delay_after(error, 0, 0, false);
        assert_eq!(delay(&closed(1000)), None);
        assert_eq!(delay(&closed(1012)), Some(Duration::ZERO));
        assert_eq!(delay(&Error::Timeout(Waiting::Peer)), Some(Duration::ZERO));
        assert_eq!(delay(&refused(404, "")), None);
        assert_eq!(delay(&refused(401, "")), None);
        assert!(policy.delay_after(&refused(401, ""), 0, 0, true).is_some());
        let seven = Some(Duration::from_secs(7));
        assert_eq!(delay(&refused(503, "7")), seven);
        assert_eq!(delay(&refused(429, "7")), seven);
        assert_eq!(delay(&refused(503, "99999999999")), Some(policy.max_retry_after));
        assert_eq!(delay(&refused(503, "Fri, 31 Dec 1999 23:59:59 GMT")), Some(Duration::ZERO));
    }

    #[test]
    fn attempts_are_counted() {
        let policy = RetryPolicy::default().with_max_attempts(2);
        let error = Error::Timeout(Waiting::Connect);
        let top = |attempts| policy.delay_after(&error, attempts, u64::MAX, false);
        assert_eq!(top(0), Some(Duration::from_millis(500)));
        assert_eq!(top(1), Some(Duration::from_millis(500)));
        assert_eq!(top(2), None);
        let endless = RetryPolicy::default();
        let top = |attempts| endless.delay_after(&error, attempts, u64::MAX, false);
        assert_eq!(top(2), Some(Duration::from_secs(1)));
        assert_eq!(top(u32::MAX), Some(Duration::from_secs(30)));
    }
}
