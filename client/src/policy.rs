//! Whether a client comes back, and when.

use std::time::Duration;

use ringwire_codec::CloseCode;
use ringwire_codec::handshake::HandshakeError;

use crate::backoff::Backoff;
use crate::error::{Error, ErrorKind, UrlProblem};

/// Whether a client comes back after a connection that was lost or an attempt that failed, how often, and when.
///
/// What an error means is a [`Verdict`]. That of [`RetryPolicy::default`] is [`verdict_on`], by these tables. After a
/// close frame:
///
/// | code | meaning | verdict |
/// |---|---|---|
/// | 1000 | done | give up |
/// | 1001 | the server goes away | retry |
/// | 1002, 1003, 1007, 1009, 1010 | what this client sends is wrong, and would be again | give up |
/// | 1008 | against the server's policy | give up |
/// | 1005, 1006 | no code, no close frame | retry |
/// | 1011–1014 | the server's own trouble, restart, overload | retry |
/// | 3000, 3003, 4401, 4403, 4407 | unauthorized, forbidden (IANA, or as HTTP's) | renew |
/// | other 4400–4499 but 4408, 4425, 4429 | as HTTP's 4xx, which many applications mirror | give up |
/// | all other 3xxx and 4xxx | the application's own | retry |
///
/// After an attempt that failed:
///
/// | what failed | verdict |
/// |---|---|
/// | name, network, proxy, a deadline, a stream that ended | retry |
/// | credentials (401, 403, 407) | renew |
/// | 408, 425, 429 and 5xx | retry, not before Retry-After |
/// | any other status, redirects | give up |
/// | the server's certificate, TLS settings, URL, settings | give up |
/// | an answer that breaks HTTP or RFC 6455 | give up |
/// | the hook of [`Reconnecting::prepare`](crate::Reconnecting::prepare) | that of its [`Error`], or retry |
///
/// An application with codes and errors of its own gives verdicts on these, and leaves the rest to the tables:
///
/// ```
/// use ringwire_client::{CloseCode, Error, RetryPolicy, Verdict, verdict_on};
///
/// #[derive(Debug, thiserror::Error)]
/// #[error("the user has logged out")]
/// struct LoggedOut;
///
/// let policy = RetryPolicy::default().with_verdict_on(|error| match error {
///     Error::Closed { code, .. } if code.get() == 4000 => Verdict::GiveUp,
///     Error::Prepare(source) if source.is::<LoggedOut>() => Verdict::GiveUp,
///     other => verdict_on(other),
/// });
/// let kicked = Error::Closed { code: CloseCode::new(4000), reason: String::new() };
/// assert_eq!((policy.verdict_on)(&kicked), Verdict::GiveUp);
/// assert_eq!((policy.verdict_on)(&Error::Prepare(LoggedOut.into())), Verdict::GiveUp);
/// ```
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct RetryPolicy {
    /// The delays. They begin anew once a connection has lasted for [`stable_after`](Self::stable_after).
    pub backoff: Backoff,
    /// The most attempts in a row. Default: `None`, without end.
    pub max_attempts: Option<u32>,
    /// How many times in a row credentials are [renewed](Verdict::Renew), if
    /// [`Reconnecting::prepare`](crate::Reconnecting::prepare) can do that; another refusal is the end. Default: 1.
    ///
    /// The count begins anew once a connection has lasted for [`stable_after`](Self::stable_after), and after an error
    /// with another verdict: by the time that a server is back, credentials may have expired once more.
    pub max_renewals: u32,
    /// How long a connection lasts that is no failed attempt. Default: 10 s.
    pub stable_after: Duration,
    /// The longest Retry-After that is honoured. Default: 10 min.
    pub max_retry_after: Duration,
    /// What an error means. Default: [`verdict_on`], by the tables above.
    pub verdict_on: fn(&Error) -> Verdict,
}

/// What an error means for a client that could come back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Verdict {
    /// Another attempt may do better.
    Retry,
    /// It may with other credentials: a bounded number of times in a row ([`RetryPolicy::max_renewals`]), and not
    /// without a hook that can get them.
    Renew,
    /// No attempt will do better.
    GiveUp,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            backoff: Backoff::default(),
            max_attempts: None,
            max_renewals: 1,
            stable_after: Duration::from_secs(10),
            max_retry_after: Duration::from_secs(600),
            verdict_on,
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
    pub fn with_max_attempts(mut self, count: impl Into<Option<u32>>) -> Self {
        self.max_attempts = count.into();
        self
    }

    /// Sets [`max_renewals`](Self::max_renewals).
    #[must_use]
    pub const fn with_max_renewals(mut self, count: u32) -> Self {
        self.max_renewals = count;
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

    /// Sets [`verdict_on`](Self::verdict_on).
    #[must_use]
    pub const fn with_verdict_on(mut self, verdict_on: fn(&Error) -> Verdict) -> Self {
        self.verdict_on = verdict_on;
        self
    }

    /// How long to wait before the next of the attempts, of which so many are behind. `random` chooses the jitter.
    pub(super) fn delay_after(&self, error: &Error, attempts: u32, random: u64) -> Duration {
        let delay = self.backoff.delay(attempts.saturating_sub(1), random);
        let asked = error.refusal().and_then(crate::Refusal::retry_after).unwrap_or_default();
        // Clients that are told the same number still spread.
        delay.saturating_add(asked.min(self.max_retry_after))
    }
}

/// The tables of [`RetryPolicy`].
#[must_use]
pub fn verdict_on(error: &Error) -> Verdict {
    match error {
        Error::Closed { code, .. } => verdict_on_code(*code),
        Error::Prepare(source) if source.is::<UrlProblem>() => Verdict::GiveUp,
        Error::Prepare(source) => source.downcast_ref().map_or(Verdict::Retry, verdict_on),
        _ if error.kind() == ErrorKind::Authentication => Verdict::Renew,
        Error::Refused(refusal) if refusal.status.is_server_error() => Verdict::Retry,
        Error::Refused(refusal) => match refusal.status.as_u16() {
            408 | 425 | 429 => Verdict::Retry,
            _ => Verdict::GiveUp,
        },
        Error::Handshake(HandshakeError::Incomplete | HandshakeError::NoAnswer) => Verdict::Retry,
        Error::Tls(ringwire_tls::Error::PeerCertificate(_)) | Error::Handshake(_) => {
            Verdict::GiveUp
        }
        Error::Tls(_)
        | Error::Resolve { .. }
        | Error::Connect { .. }
        | Error::Proxy { .. }
        | Error::Timeout(_)
        | Error::Protocol(_)
        | Error::Extension(_)
        | Error::Unanswered { .. }
        | Error::Lost(_) => Verdict::Retry,
        Error::Url(_)
        | Error::Setting { .. }
        | Error::TlsSettings(_)
        | Error::Redirect(_)
        | Error::InvalidMessage(_)
        | Error::NoPlaceForId
        | Error::IdInUse
        | Error::OutboxFull
        | Error::TooManyPending => Verdict::GiveUp,
    }
}

fn verdict_on_code(code: CloseCode) -> Verdict {
    match code.get() {
        3000 | 3003 | 4401 | 4403 | 4407 => Verdict::Renew,
        4408 | 4425 | 4429 => Verdict::Retry,
        1000 | 1002 | 1003 | 1007..=1010 | 4400..=4499 => Verdict::GiveUp,
        _ => Verdict::Retry,
    }
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
    fn codes_and_statuses_have_the_same_meaning() {
        use Verdict::{GiveUp, Renew, Retry};
        let closed = |code| Error::Closed { code: CloseCode::new(code), reason: String::new() };
        for (codes, expected) in [
            (&[1000, 1002, 1003, 1007, 1008, 1009, 1010][..], GiveUp),
            (&[1001, 1005, 1006, 1011, 1012, 1013, 1014, 3008, 4000, 4500], Retry),
            (&[3000, 3003], Renew),
        ] {
            for code in codes {
                assert_eq!(verdict_on(&closed(*code)), expected, "{code}");
            }
        }
        for status in 400..500 {
            let expected = match status {
                401 | 403 | 407 => Renew,
                408 | 425 | 429 => Retry,
                _ => GiveUp,
            };
            assert_eq!(verdict_on(&refused(status, "")), expected, "{status}");
            assert_eq!(verdict_on(&closed(4000 + status)), expected, "4{status}");
        }
        assert_eq!(verdict_on(&refused(503, "")), Retry);
        assert_eq!(verdict_on(&refused(302, "")), GiveUp);
        assert_eq!(verdict_on(&Error::Timeout(Waiting::Peer)), Retry);
    }

    #[test]
    fn errors_of_a_hook_are_what_is_in_them() {
        let hook = |source: crate::BoxError| verdict_on(&Error::Prepare(source));
        assert_eq!(hook("the token service is away".into()), Verdict::Retry);
        assert_eq!(hook(refused(401, "").into()), Verdict::Renew);
        assert_eq!(hook(Error::Url(UrlProblem::NoHost).into()), Verdict::GiveUp);
    }

    #[test]
    fn retry_after_is_honoured_within_bounds() {
        let policy = RetryPolicy::default();
        let delay = |error: &Error| policy.delay_after(error, 0, 0);
        assert_eq!(delay(&Error::Timeout(Waiting::Peer)), Duration::ZERO);
        assert_eq!(delay(&refused(503, "7")), Duration::from_secs(7));
        assert_eq!(delay(&refused(429, "7")), Duration::from_secs(7));
        assert_eq!(delay(&refused(503, "99999999999")), policy.max_retry_after);
        assert_eq!(delay(&refused(503, "Fri, 31 Dec 1999 23:59:59 GMT")), Duration::ZERO);
    }

    #[test]
    fn delays_grow() {
        let error = Error::Timeout(Waiting::Connect);
        let top = |attempts| RetryPolicy::default().delay_after(&error, attempts, u64::MAX);
        assert_eq!(top(0), Duration::from_millis(500));
        assert_eq!(top(1), Duration::from_millis(500));
        assert_eq!(top(2), Duration::from_secs(1));
        assert_eq!(top(u32::MAX), Duration::from_secs(30));
    }
}
