//! The upgrade request and what a server may answer.

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use ringwire_codec::deflate::Agreement;
use ringwire_codec::extension::FrameLayer;
use ringwire_codec::handshake::client::{Request, Response};
use ringwire_codec::handshake::{HandshakeError, HeadLimits, HeadScanner};

use super::builder::Builder;
use super::channel::Channel;
use super::error::{Error, RedirectProblem, Refusal};
use super::random::random;
use super::url::Url;

/// The most interim answers (RFC 9110 §15.2) that are passed over.
const MAX_INTERIM_COUNT: usize = 8;

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

/// Asks for the upgrade. Credentials among the builder's headers are sent only `with_credentials`.
pub(super) fn upgrade(
    builder: &Builder,
    url: &Url,
    with_credentials: bool,
    channel: &mut Channel,
) -> Result<Outcome, Error> {
    let request = request(builder, url, with_credentials)?;
    let mut out = Vec::new();
    request.encode(&mut out);
    channel.write_all(&out)?;
    let mut bytes = Vec::new();
    let mut interim_count = 0;
    loop {
        let head_len = read_head(channel, &mut bytes, &builder.head)?;
        let (head, rest) = bytes.split_at(head_len);
        let response = Response::parse(head, &builder.head)?;
        let status = response.status();
        if status.is_informational() && status != StatusCode::SWITCHING_PROTOCOLS {
            interim_count += 1;
            if interim_count > MAX_INTERIM_COUNT {
                return Err(HandshakeError::Refused(status).into());
            }
            bytes = rest.to_vec();
            continue;
        }
        let headers = owned_headers(&response);
        let is_redirect = matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308);
        if is_redirect && builder.max_redirects > 0 {
            let location = headers.get(header::LOCATION).and_then(|value| value.to_str().ok());
            let location = location.ok_or(Error::Redirect(RedirectProblem::Location))?;
            return Ok(Outcome::Redirect(location.to_owned()));
        }
        return match response.check_upgrade(&request) {
            Ok(agreed) => Ok(Outcome::Upgraded(Box::new(Upgraded {
                subprotocol: agreed.subprotocol.map(str::to_owned),
                deflate: agreed.deflate,
                layer: agreed.layer,
                rest: rest.to_vec(),
                headers,
            }))),
            Err(HandshakeError::Refused(status)) => {
                let (body, is_complete) =
                    read_body(channel, rest.to_vec(), &headers, builder.max_refusal_len);
                let refusal = Refusal { status, headers, body, is_complete };
                Err(Error::Refused(Box::new(refusal)))
            }
            Err(error) => Err(error.into()),
        };
    }
}

fn request(builder: &Builder, url: &Url, with_credentials: bool) -> Result<Request, Error> {
    let mut request = Request::new(&url.host_header(), &url.target, random()?)?;
    if let Some(origin) = &builder.origin {
        request = request.with_origin(origin.clone());
    }
    for subprotocol in &builder.subprotocols {
        request = request.with_subprotocol(subprotocol)?;
    }
    if let Some(compression) = &builder.compression {
        request = request.with_deflate(compression.offer());
    }
    for extension in &builder.extensions {
        request = request.with_extension(extension.clone()).map_err(|error| Error::Setting {
            setting: "extension",
            problem: format!("{:?}: {error}", extension.name()),
        })?;
    }
    let mut is_authorized = false;
    for (name, value) in &builder.headers {
        let is_credential = [header::AUTHORIZATION, header::COOKIE].contains(name);
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

/// Reads until a head is whole, and gives its length.
pub(super) fn read_head(
    channel: &mut Channel,
    bytes: &mut Vec<u8>,
    limits: &HeadLimits,
) -> Result<usize, Error> {
    let mut scanner = HeadScanner::default();
    loop {
        if let Some(len) = scanner.scan(bytes, limits)? {
            return Ok(len);
        }
        if channel.read(bytes)? == 0 {
            return Err(HandshakeError::Incomplete.into());
        }
    }
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

/// Reads a body up to `max_len` bytes, as far as it comes before the deadline. Gives whether that is all of it.
fn read_body(
    channel: &mut Channel,
    mut bytes: Vec<u8>,
    headers: &HeaderMap,
    max_len: usize,
) -> (Vec<u8>, bool) {
    let length =
        headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    let kind = match length {
        _ if headers.contains_key(header::TRANSFER_ENCODING) => BodyLen::Chunked,
        Some(len) => BodyLen::Known(len),
        None => BodyLen::UntilEof,
    };
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
            BodyLen::Known(len) => (bytes.len(), bytes.len() >= len),
            BodyLen::UntilEof => (bytes.len(), false),
        };
        if is_complete && decoded_len <= max_len {
            return (bytes, true);
        }
        let is_full = decoded_len > max_len || bytes.len() > max_read_len;
        let at_end = is_full || !matches!(channel.read(&mut bytes), Ok(1..));
        if at_end {
            let is_complete = matches!(kind, BodyLen::UntilEof) && !is_full;
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
    fn chunks() {
        assert_eq!(unchunk(b"3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n"), (b"abcde".to_vec(), true));
        assert_eq!(unchunk(b"3\r\nabc\r\n5\r\nde"), (b"abcde".to_vec(), false));
        assert_eq!(unchunk(b"ffffffffffffffff\r\nab"), (b"ab".to_vec(), false));
        assert_eq!(unchunk(b"x\r\nab"), (Vec::new(), false));
        assert_eq!(unchunk(b""), (Vec::new(), false));
    }
}
