//! The upgrade request and what a server may answer.

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use ringwire_codec::deflate::Agreement;
use ringwire_codec::extension::FrameLayer;
use ringwire_codec::handshake::HandshakeError;
use ringwire_codec::handshake::client::{Request, Response};

use crate::channel::Channel;
use crate::error::{Error, RedirectProblem, Refusal};
use crate::head::read_final_head;
use crate::offer::Handshake;
use crate::random::random;
use crate::url::Url;

/// What a server answered.
#[derive(Debug)]
pub(super) enum Outcome {
    Upgraded(Box<Upgraded>),
    /// The value of Location.
    Redirect(String),
}

/// What an upgrade has agreed on.
#[derive(Debug, Default)]
pub(super) struct Upgraded {
    pub(super) subprotocol: Option<String>,
    pub(super) deflate: Option<Agreement>,
    pub(super) layer: Option<FrameLayer>,
    pub(super) headers: HeaderMap,
    /// What came behind the head: the first frames.
    pub(super) rest: Vec<u8>,
}

/// Asks for the upgrade. Credentials among the headers and subprotocols are sent only `with_credentials`.
pub(super) fn upgrade(
    settings: &Handshake,
    url: &Url,
    with_credentials: bool,
    channel: &mut Channel,
) -> Result<Outcome, Error> {
    let request = request(settings, url, with_credentials)?;
    let mut out = Vec::new();
    request.encode(&mut out);
    channel.write_all(&out)?;
    let (bytes, head_len) = read_final_head(channel, &settings.head)?;
    let (head, rest) = bytes.split_at(head_len);
    let response = Response::parse(head, &settings.head)?;
    let headers = owned_headers(&response);
    let is_redirect = matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308);
    if is_redirect && settings.max_redirects > 0 {
        let location = headers.get(header::LOCATION).and_then(|value| value.to_str().ok());
        let location = location.ok_or(Error::Redirect(RedirectProblem::Location))?;
        return Ok(Outcome::Redirect(location.to_owned()));
    }
    match response.check_upgrade(&request) {
        Ok(agreed) => Ok(Outcome::Upgraded(Box::new(Upgraded {
            subprotocol: agreed.subprotocol.map(str::to_owned),
            deflate: agreed.deflate,
            layer: agreed.layer,
            rest: rest.to_vec(),
            headers,
        }))),
        Err(HandshakeError::Refused(status)) => {
            let (body, is_complete) =
                read_body(channel, rest.to_vec(), status, &headers, settings.max_refusal_len);
            let refusal = Refusal { status, headers, body, is_complete };
            Err(Error::Refused(Box::new(refusal)))
        }
        Err(error) => Err(error.into()),
    }
}

fn request(settings: &Handshake, url: &Url, with_credentials: bool) -> Result<Request, Error> {
    let mut request = Request::new(&url.host_header(), &url.target, random()?)?;
    if let Some(origin) = &settings.origin {
        request = request.with_origin(origin.clone());
    }
    // A token among them may stand beside a name that says so, so all of them stay here.
    let offers = with_credentials || !settings.subprotocols.iter().any(|it| may_be_secret(it));
    for subprotocol in settings.subprotocols.iter().filter(|_| offers) {
        request = request.with_subprotocol(subprotocol)?;
    }
    if let Some(compression) = &settings.compression {
        request = request.with_deflate(compression.offer());
    }
    for extension in &settings.extensions {
        request = request.with_extension(extension.clone()).map_err(|error| Error::Setting {
            setting: "extension",
            problem: format!("{:?}: {error}", extension.name()),
        })?;
    }
    let mut is_authorized = false;
    for (name, value) in &settings.headers {
        let is_credential = value.is_sensitive() || names_secret(name.as_str());
        if with_credentials || !is_credential {
            is_authorized |= name == header::AUTHORIZATION;
            request = request.with_header(name.clone(), value.clone())?;
        }
    }
    match &url.authorization {
        Some(value) if !is_authorized => {
            Ok(request.with_header(header::AUTHORIZATION, value.clone())?)
        }
        _ => Ok(request),
    }
}

/// Whether a header or subprotocol of this name is likely to carry what only one host may know. By parts of names, as
/// there is no list: `X-Api-Key`, `X-Auth-Token`, `X-Amz-Security-Token`, `Ocp-Apim-Subscription-Key`,
/// `CF-Access-Client-Secret`.
fn names_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    ["auth", "cookie", "token", "secret", "session", "credential", "passw", "bearer", "jwt", "csrf"]
        .iter()
        .any(|part| name.contains(part))
        || name.split(['-', '_', '.']).any(|part| part == "key" || part == "apikey")
}

/// Whether a subprotocol is or names a secret. Names of protocols are short; a key of 128 bits in hexadecimal has 32
/// digits.
fn may_be_secret(subprotocol: &str) -> bool {
    subprotocol.len() >= 32 || names_secret(subprotocol)
}

fn owned_headers(response: &Response<'_>) -> HeaderMap {
    response
        .headers()
        .filter_map(|(name, value)| {
            let name = HeaderName::from_bytes(name.as_bytes()).ok()?;
            Some((name, HeaderValue::from_bytes(value).ok()?))
        })
        .fold(HeaderMap::new(), |mut headers, (name, value)| {
            headers.append(name, value);
            headers
        })
}

/// How long a body is (RFC 9112 §6.3).
enum BodyLen {
    Chunked,
    Known(usize),
    UntilEof,
}

impl BodyLen {
    /// As RFC 9112 §6.3 has it. `None`: the headers contradict each other.
    fn of(headers: &HeaderMap) -> Option<Self> {
        let elements = |name| {
            let values = headers.get_all(name).iter();
            values
                .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
                .map(<[u8]>::trim_ascii)
        };
        if let Some(coding) = elements(header::TRANSFER_ENCODING).next_back() {
            let is_chunked = coding.eq_ignore_ascii_case(b"chunked");
            return Some(if is_chunked { Self::Chunked } else { Self::UntilEof });
        }
        let mut lengths = elements(header::CONTENT_LENGTH).map(|digits| {
            let is_number = digits.iter().all(u8::is_ascii_digit);
            str::from_utf8(digits).ok().filter(|_| is_number)?.parse().ok()
        });
        let Some(first) = lengths.next() else { return Some(Self::UntilEof) };
        first.filter(|_| lengths.all(|length| length == first)).map(Self::Known)
    }
}

/// Reads a body up to `max_len` bytes, as far as it comes before the deadline. Gives whether that is all of it.
fn read_body(
    channel: &mut Channel,
    mut bytes: Vec<u8>,
    status: StatusCode,
    headers: &HeaderMap,
    max_len: usize,
) -> (Vec<u8>, bool) {
    if matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED) {
        return (Vec::new(), true);
    }
    let Some(kind) = BodyLen::of(headers) else { return (Vec::new(), false) };
    // What chunks may add around their data: a peer that sends more of it than data gets no more read.
    let max_read_len = max_len.saturating_mul(2).saturating_add(64);
    loop {
        let (decoded_len, is_complete) = match kind {
            BodyLen::Chunked => match unchunk(&bytes) {
                (body, true) => {
                    let fits = body.len() <= max_len;
                    bytes = body;
                    bytes.truncate(max_len);
                    return (bytes, fits);
                }
                (body, false) => (body.len(), false),
            },
            BodyLen::Known(len) => {
                // What follows is no part of it.
                bytes.truncate(len);
                (bytes.len(), bytes.len() == len)
            }
            BodyLen::UntilEof => (bytes.len(), false),
        };
        if is_complete && decoded_len <= max_len {
            return (bytes, true);
        }
        let is_full = decoded_len > max_len || bytes.len() > max_read_len;
        let read = if is_full { None } else { Some(channel.read(&mut bytes)) };
        if !matches!(read, Some(Ok(1..))) {
            let has_ended = matches!(read, Some(Ok(0))) && channel.is_end_certain();
            let is_complete = matches!(kind, BodyLen::UntilEof) && has_ended;
            if matches!(kind, BodyLen::Chunked) {
                bytes = unchunk(&bytes).0;
            }
            bytes.truncate(max_len);
            return (bytes, is_complete);
        }
    }
}

/// The data of a chunked body so far, and whether its last chunk is there (RFC 9112 §7.1).
fn unchunk(mut bytes: &[u8]) -> (Vec<u8>, bool) {
    let mut body = Vec::new();
    while let Some(end) = find_crlf(bytes) {
        let (line, rest) = bytes.split_at(end);
        let digits: &[u8] = line.split(|byte| *byte == b';').next().unwrap_or_default();
        let len = str::from_utf8(digits)
            .ok()
            .and_then(|digits| usize::from_str_radix(digits.trim(), 16).ok());
        let (Some(len), Some(data)) = (len, rest.get(2..)) else { return (body, false) };
        if len == 0 {
            return (body, true);
        }
        body.extend_from_slice(data.get(..len).unwrap_or(data));
        let Some(next) = len.checked_add(2).and_then(|len| data.get(len..)) else { break };
        bytes = next;
    }
    (body, false)
}

fn find_crlf(bytes: &[u8]) -> Option<usize> {
    bytes.windows(2).position(|pair| pair == b"\r\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_secrets() {
        for name in [
            "Authorization",
            "Cookie",
            "Proxy-Authorization",
            "X-Api-Key",
            "x-apikey",
            "X-Auth-Token",
            "X-Amz-Security-Token",
            "Ocp-Apim-Subscription-Key",
            "CF-Access-Client-Secret",
            "X-CSRFToken",
            "access_token",
            "base64url.bearer.authorization.k8s.io.c2VjcmV0",
        ] {
            assert!(names_secret(name), "{name}");
        }
        for name in ["User-Agent", "Accept-Language", "X-Keyboard", "X-Request-Id", "graphql-ws"] {
            assert!(!names_secret(name), "{name}");
        }
        assert!(may_be_secret("0123456789abcdef0123456789abcdef"));
        assert!(!may_be_secret("graphql-transport-ws"));
    }

    #[test]
    fn chunks() {
        assert_eq!(unchunk(b"3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n"), (b"abcde".to_vec(), true));
        assert_eq!(unchunk(b"3\r\nabc\r\n5\r\nde"), (b"abcde".to_vec(), false));
        assert_eq!(unchunk(b"ffffffffffffffff\r\nab"), (b"ab".to_vec(), false));
        assert_eq!(unchunk(b"x\r\nab"), (Vec::new(), false));
        assert_eq!(unchunk(b""), (Vec::new(), false));
    }
}
