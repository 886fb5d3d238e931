//! What went wrong in a run, by kind.

use std::collections::BTreeMap;
use std::io;

use ringwire_tls::AlertDescription;

/// One kind of error. Its text is the key in reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Failure {
    #[error("connect refused")]
    ConnectRefused,
    /// No connection, or no handshake, within the time given.
    #[error("connect timeout")]
    ConnectTimeout,
    /// The server dropped the connection before it was open.
    #[error("connect reset")]
    ConnectReset,
    #[error("no free local port")]
    NoFreePort,
    #[error("out of file descriptors")]
    NoDescriptor,
    /// Another error of connect, by errno.
    #[error("connect: {}", io::Error::from_raw_os_error(*.0))]
    Connect(i32),
    /// The server's certificate was refused.
    #[error("certificate refused (--ca FILE or --insecure)")]
    Certificate,
    /// The server ended TLS with an alert of this number.
    #[error("TLS alert {:?}", AlertDescription::from(*.0))]
    TlsAlert(u8),
    /// What the server sent is no TLS that both sides speak.
    #[error("TLS failed")]
    Tls,
    #[error("handshake status {0}")]
    HandshakeStatus(u16),
    #[error("handshake invalid")]
    HandshakeInvalid,
    #[error("compression declined")]
    CompressionDeclined,
    /// The server took it on other terms than those asked for.
    #[error("compression agreed on otherwise than asked for")]
    CompressionTerms,
    /// The server sent a close frame with this code (1005: none in it).
    #[error("close frame {0}")]
    CloseFrame(u16),
    /// The server ended the TCP connection.
    #[error("unexpected end")]
    UnexpectedEnd,
    #[error("reset")]
    Reset,
    /// Another error of send or recv, by errno.
    #[error("io: {}", io::Error::from_raw_os_error(*.0))]
    Io(i32),
    /// A reply is no frame, or cannot be inflated.
    #[error("reply malformed")]
    ReplyMalformed,
    /// A reply's header is not that of an unfragmented echo.
    #[error("reply header mismatch")]
    HeaderMismatch,
    /// A reply's payload is not that of the message sent.
    #[error("reply payload mismatch")]
    PayloadMismatch,
    /// A message sent before the measured time had no echo at its end.
    #[error("unanswered")]
    Unanswered,
    /// A publication did not get to a subscriber.
    #[error("delivery lost")]
    Lost,
    /// A publication came to a subscriber once more.
    #[error("delivery doubled")]
    Doubled,
    /// A publication came to a subscriber after later ones.
    #[error("delivery out of order")]
    Reordered,
    #[error("publication overdue")]
    Overdue,
    /// The publisher, which subscribes to nothing, was sent a message.
    #[error("message to the publisher")]
    ToPublisher,
    /// The replies to the first messages did not come in time.
    #[error("first messages unanswered (--first-replies)")]
    FirstUnanswered,
    #[error("reply late")]
    ReplyLate,
    /// A message had no reply, though later ones on its connection had.
    #[error("reply missing")]
    ReplyMissing,
    /// This side closed the connection, for this reason of the engine.
    #[error("closed here: {0}")]
    ClosedHere(&'static str),
    /// The time for all connects was up before this one was tried.
    #[error("not tried in time")]
    NotTried,
}

impl Failure {
    /// The kind of an error while the connection is being made.
    pub(crate) fn of_connect(error: &io::Error) -> Self {
        if let Some(failure) = of_tls(error) {
            return failure;
        }
        match error.raw_os_error() {
            Some(libc::ECONNREFUSED) => Self::ConnectRefused,
            Some(libc::ETIMEDOUT) => Self::ConnectTimeout,
            Some(libc::ECONNRESET | libc::EPIPE) => Self::ConnectReset,
            Some(libc::EADDRNOTAVAIL) => Self::NoFreePort,
            Some(libc::EMFILE | libc::ENFILE) => Self::NoDescriptor,
            other => Self::Connect(other.unwrap_or_default()),
        }
    }

    /// The kind of an error on an open connection.
    pub(crate) fn of_open(error: &io::Error) -> Self {
        if let Some(failure) = of_tls(error) {
            return failure;
        }
        match error.raw_os_error() {
            Some(libc::ECONNRESET | libc::EPIPE) => Self::Reset,
            other => Self::Io(other.unwrap_or_default()),
        }
    }
}

/// The kind of an error of TLS, if it is one.
fn of_tls(error: &io::Error) -> Option<Failure> {
    Some(match error.get_ref()?.downcast_ref::<ringwire_tls::Error>()? {
        ringwire_tls::Error::PeerCertificate(_) => Failure::Certificate,
        ringwire_tls::Error::PeerAlert(alert) => Failure::TlsAlert((*alert).into()),
        _ => Failure::Tls,
    })
}

/// Counts of kinds, by their texts.
pub(crate) type Failures = BTreeMap<String, u64>;

/// Counts failures of a kind.
pub(crate) fn count(failures: &mut Failures, failure: Failure, count: u64) {
    if count > 0 {
        *failures.entry(failure.to_string()).or_default() += count;
    }
}

/// Adds what others counted.
pub(crate) fn add(failures: &mut Failures, others: &Failures) {
    for (kind, count) in others {
        *failures.entry(kind.clone()).or_default() += count;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_of_tls_are_told_apart() {
        let failure = |error: ringwire_tls::Error| Failure::of_open(&io::Error::other(error));
        let unknown = ringwire_tls::CertificateError::UnknownIssuer;
        let refused = failure(ringwire_tls::Error::PeerCertificate(unknown));
        assert_eq!(refused, Failure::Certificate);
        let alert = failure(ringwire_tls::Error::PeerAlert(AlertDescription::ProtocolVersion));
        assert_eq!(alert.to_string(), "TLS alert ProtocolVersion");
        assert_eq!(failure(ringwire_tls::Error::PlainHttp), Failure::Tls);
    }

    #[test]
    fn kinds_are_counted_apart_and_merged() {
        let reset = io::Error::from_raw_os_error(libc::ECONNRESET);
        let mut one = Failures::new();
        count(&mut one, Failure::of_connect(&reset), 1);
        count(&mut one, Failure::HandshakeStatus(503), 1);
        count(&mut one, Failure::Lost, 0);
        let mut two = Failures::new();
        count(&mut two, Failure::of_open(&reset), 1);
        count(&mut two, Failure::HandshakeStatus(503), 1);
        count(&mut two, Failure::HandshakeStatus(400), 1);
        add(&mut one, &two);
        let expected = [
            ("connect reset", 1),
            ("handshake status 400", 1),
            ("handshake status 503", 2),
            ("reset", 1),
        ];
        assert_eq!(one, expected.map(|(text, n)| (text.to_owned(), n)).into());
    }
}
