//! Whether a client speaks HTTP where TLS is spoken.

/// No TLS record begins with a letter: its first byte is its content type, at most 24 (RFC 8446 §5.1).
const METHODS: [&[u8]; 10] = [
    b"GET ",
    b"HEAD ",
    b"POST ",
    b"PUT ",
    b"OPTIONS ",
    b"DELETE ",
    b"PATCH ",
    b"CONNECT ",
    b"TRACE ",
    b"PRI * ",
];

/// As many bytes as are needed for a verdict.
pub(crate) const ENOUGH: usize = 8;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Http,
    NotHttp,
    /// More bytes are needed.
    Open,
}

/// Judges the first bytes of a connection.
pub(crate) fn judge(start: &[u8]) -> Verdict {
    let is_http = METHODS.iter().any(|method| start.starts_with(method));
    let may_be_http = || METHODS.iter().any(|method| method.starts_with(start));
    match (is_http, may_be_http()) {
        (true, _) => Verdict::Http,
        (false, true) => Verdict::Open,
        (false, false) => Verdict::NotHttp,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn methods_are_recognised_as_they_trickle_in() {
        assert_eq!(judge(b""), Verdict::Open);
        for method in METHODS {
            for len in 1..method.len() {
                assert_eq!(judge(&method[..len]), Verdict::Open);
            }
            assert_eq!(judge(method), Verdict::Http);
            assert!(method.len() <= ENOUGH);
        }
        assert_eq!(judge(b"GET / HTTP/1.1\r\n"), Verdict::Http);
        assert_eq!(judge(b"GETS"), Verdict::NotHttp);
        assert_eq!(judge(&[0x16]), Verdict::NotHttp);
        assert_eq!(judge(&[0x16, 3, 1, 2, 0]), Verdict::NotHttp);
    }
}
