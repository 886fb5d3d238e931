//! What a test asks a server for.

/// A request. It is a `GET` unless [`method`](Self::with_method) says otherwise.
///
/// ```
/// use ringwire::testing::Get;
///
/// let get = Get::new("/ws?token=x").with_header("origin", "https://example.com");
/// # let _ = get;
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Get {
    pub(super) method: String,
    pub(super) target: String,
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: Vec<u8>,
}

impl Get {
    /// A request for a target: a path, and a query where there is one, percent-encoded.
    ///
    /// # Panics
    /// The target does not begin with `/`, or holds what may not stand in one (RFC 9112 §3.2.1).
    #[must_use]
    pub fn new(target: &str) -> Self {
        let is_target = target.starts_with('/')
            && target.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#');
        assert!(is_target, "{target:?} is no target: begin it with / and percent-encode it");
        Self {
            method: "GET".to_owned(),
            target: target.to_owned(),
            headers: Vec::new(),
            body: Vec::new(),
        }
    }

    /// A `POST` with a body, for [`Stage::request`](super::Stage::request).
    ///
    /// # Panics
    /// As [`new`](Self::new).
    #[must_use]
    pub fn post(target: &str, body: impl Into<Vec<u8>>) -> Self {
        Self { body: body.into(), ..Self::new(target) }.with_method("POST")
    }

    /// Another method, for [`Stage::request`](super::Stage::request).
    #[must_use]
    pub fn with_method(mut self, method: &str) -> Self {
        method.clone_into(&mut self.method);
        self
    }

    /// Adds a header.
    ///
    /// # Panics
    /// Name or value may not be sent as they are (RFC 9110 §5.5).
    #[must_use]
    pub fn with_header(mut self, name: &str, value: &str) -> Self {
        let is_header =
            http::HeaderName::try_from(name).is_ok() && http::HeaderValue::try_from(value).is_ok();
        assert!(is_header, "{name}: {value:?} is no header");
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Offers a subprotocol, behind those before it (RFC 6455 §11.3.4).
    #[must_use]
    pub fn with_subprotocol(self, name: &str) -> Self {
        self.with_header("sec-websocket-protocol", name)
    }

    /// The head and body of the request. `key` is that of an upgrade, where it is one.
    pub(super) fn encode(&self, key: Option<&str>) -> Vec<u8> {
        let mut out = format!("{} {} HTTP/1.1\r\n", self.method, self.target);
        if !self.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
            out += "Host: localhost\r\n";
        }
        if let Some(key) = key {
            out += "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n";
            out += &format!("Sec-WebSocket-Key: {key}\r\n");
        } else if !self.body.is_empty() {
            out += &format!("Content-Length: {}\r\n", self.body.len());
        }
        for (name, value) in &self.headers {
            out += &format!("{name}: {value}\r\n");
        }
        out += "\r\n";
        let mut out = out.into_bytes();
        out.extend_from_slice(&self.body);
        out
    }
}

impl From<&str> for Get {
    fn from(target: &str) -> Self {
        Self::new(target)
    }
}
