//! What went wrong in a run, by kind.

use std::collections::BTreeMap;
use std::fmt;
use std::io;

use ringwire_tls::AlertDescription;

/// One kind of error. Its text is the key in reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Failure {
    /// Nobody listens.
    ConnectRefused,
    /// No connection, or no handshake, within the time given.
    ConnectTimeout,
    /// The server dropped the connection before it was open.
    ConnectReset,
    /// No free port, on any of the source addresses.
    NoFreePort,
    /// The process or the system is out of file descriptors.
    NoDescriptor,
    /// Another error of connect, by errno.
    Connect(i32),
    /// The server's certificate was refused.
    Certificate,
    /// The server ended TLS with an alert of this number.
    TlsAlert(u8),
    /// What the server sent is no TLS that both sides speak.
    Tls,
    /// The server answered the upgrade with this status.
    HandshakeStatus(u16),
    /// The server's answer to the upgrade is not valid.
    HandshakeInvalid,
    /// The server did not take the offer of compression.
    CompressionDeclined,
    /// The server took it on other terms than those asked for.
    CompressionTerms,
    /// The server sent a close frame with this code (1005: none in it).
    CloseFrame(u16),
    /// The server ended the TCP connection.
    UnexpectedEnd,
    /// The connection was reset while open.
    Reset,
    /// Another error of send or recv, by errno.
    Io(i32),
    /// A reply is no frame, or cannot be inflated.
    ReplyMalformed,
    /// A reply's header is not that of an unfragmented echo.
    HeaderMismatch,
    /// A reply's payload is not that of the message sent.
    PayloadMismatch,
    /// A message sent before the measured time had no echo at its end.
    Unanswered,
    /// A publication did not get to a subscriber.
    Lost,
    /// A publication came to a subscriber once more.
    Doubled,
    /// A publication came to a subscriber after later ones.
    Reordered,
    /// A publication was not with all subscribers in time.
    Overdue,
    /// The publisher, which subscribes to nothing, was sent a message.
    ToPublisher,
    /// The replies to the first messages did not come in time.
    FirstUnanswered,
    /// A reply came later than it may.
    ReplyLate,
    /// A message had no reply, though later ones on its connection had.
    ReplyMissing,
    /// This side closed the connection, for this reason of the engine.
    ClosedHere(&'static str),
    /// The time for all connects was up before this one was tried.
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

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let errno = |code: i32| io::Error::from_raw_os_error(code);
        match *self {
            Self::ConnectRefused => f.write_str("connect refused"),
            Self::ConnectTimeout => f.write_str("connect timeout"),
            Self::ConnectReset => f.write_str("connect reset"),
            Self::NoFreePort => f.write_str("no free local port"),
            Self::NoDescriptor => f.write_str("out of file descriptors"),
            Self::Connect(code) => write!(f, "connect: {}", errno(code)),
            Self::Certificate => f.write_str("certificate refused (--ca FILE or --insecure)"),
            Self::TlsAlert(alert) => write!(f, "TLS alert {:?}", AlertDescription::from(alert)),
            Self::Tls => f.write_str("TLS failed"),
            Self::HandshakeStatus(status) => write!(f, "handshake status {status}"),
            Self::HandshakeInvalid => f.write_str("handshake invalid"),
            Self::CompressionDeclined => f.write_str("compression declined"),
            Self::CompressionTerms => f.write_str("compression agreed on otherwise than asked for"),
            Self::CloseFrame(code) => write!(f, "close frame {code}"),
            Self::UnexpectedEnd => f.write_str("unexpected end"),
            Self::Reset => f.write_str("reset"),
            Self::Io(code) => write!(f, "io: {}", errno(code)),
            Self::ReplyMalformed => f.write_str("reply malformed"),
            Self::HeaderMismatch => f.write_str("reply header mismatch"),
            Self::PayloadMismatch => f.write_str("reply payload mismatch"),
            Self::Unanswered => f.write_str("unanswered"),
            Self::Lost => f.write_str("delivery lost"),
            Self::Doubled => f.write_str("delivery doubled"),
            Self::Reordered => f.write_str("delivery out of order"),
            Self::Overdue => f.write_str("publication overdue"),
            Self::ToPublisher => f.write_str("message to the publisher"),
            Self::FirstUnanswered => f.write_str("first messages unanswered (--first-replies)"),
            Self::ReplyLate => f.write_str("reply late"),
            Self::ReplyMissing => f.write_str("reply missing"),
            Self::ClosedHere(reason) => write!(f, "closed here: {reason}"),
            Self::NotTried => f.write_str("not tried in time"),
        }
    }
}

/// Counts by kind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Failures(BTreeMap<Failure, u64>);

impl Failures {
    /// Counts one.
    pub(crate) fn add(&mut self, failure: Failure) {
        self.add_many(failure, 1);
    }

    /// Counts so many.
    pub(crate) fn add_many(&mut self, failure: Failure, count: u64) {
        if count > 0 {
            *self.0.entry(failure).or_default() += count;
        }
    }

    /// Adds the counts of another thread.
    pub(crate) fn merge(&mut self, other: &Self) {
        for (&failure, count) in &other.0 {
            *self.0.entry(failure).or_default() += count;
        }
    }

    /// Texts and counts.
    pub(crate) fn by_text(&self) -> BTreeMap<String, u64> {
        self.0.iter().map(|(failure, &count)| (failure.to_string(), count)).collect()
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
        let mut one = Failures::default();
        one.add(Failure::of_connect(&reset));
        one.add(Failure::HandshakeStatus(503));
        let mut two = Failures::default();
        two.add(Failure::of_open(&reset));
        two.add(Failure::HandshakeStatus(503));
        two.add(Failure::HandshakeStatus(400));
        one.merge(&two);
        let expected = [
            ("connect reset", 1),
            ("handshake status 400", 1),
            ("handshake status 503", 2),
            ("reset", 1),
        ];
        assert_eq!(one.by_text(), expected.map(|(text, n)| (text.to_owned(), n)).into());
    }
}
