//! Content that does not change while the server runs.

use std::borrow::Cow;

use http::{HeaderName, HeaderValue, StatusCode, header};
use ringwire_codec::http::{EntityTag, Response};

use crate::app::request::Request;

/// Bytes with a media type and a strong entity tag, made from the bytes once: a client that has them already is told so
/// with 304 (RFC 9110 §13.1.2). Static bytes are copied once for each answer, others twice.
#[derive(Clone, Debug)]
pub struct Asset {
    content: Cow<'static, [u8]>,
    media_type: HeaderValue,
    tag: EntityTag,
    headers: Vec<(HeaderName, HeaderValue)>,
}

impl Asset {
    /// A page.
    #[must_use]
    pub fn html(page: impl Into<Cow<'static, str>>) -> Self {
        let content = match page.into() {
            Cow::Borrowed(page) => Cow::Borrowed(page.as_bytes()),
            Cow::Owned(page) => Cow::Owned(page.into_bytes()),
        };
        Self::new("text/html; charset=utf-8", content)
    }

    /// Content of this media type, such as `text/css`.
    ///
    /// # Panics
    /// The media type has a character in it that no header may have.
    #[must_use]
    pub fn new(media_type: &'static str, content: impl Into<Cow<'static, [u8]>>) -> Self {
        let content = content.into();
        let tag = EntityTag::of(&content);
        Self { content, media_type: HeaderValue::from_static(media_type), tag, headers: Vec::new() }
    }

    /// Sets Cache-Control. Default: none, and clients ask each time or guess.
    #[must_use]
    pub fn with_cache_control(self, value: HeaderValue) -> Self {
        self.with_header(header::CACHE_CONTROL, value)
    }

    /// Adds a header, to 304 as well: Content-Security-Policy, say.
    #[must_use]
    pub fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    /// The answer to a GET or HEAD: 200, or 304 if the client has it.
    #[must_use]
    pub fn respond(&self, request: &Request<'_>) -> Response {
        let mut none_match =
            request.headers().filter(|(name, _)| name.eq_ignore_ascii_case("if-none-match"));
        let response = if none_match.any(|(_, value)| self.tag.is_in(value)) {
            Response::new(StatusCode::NOT_MODIFIED)
        } else {
            Response::new(StatusCode::OK).with_body(self.media_type.clone(), self.content.clone())
        };
        let response = response.with_header(header::ETAG, self.tag.into());
        self.headers
            .iter()
            .cloned()
            .fold(response, |response, (name, value)| response.with_header(name, value))
    }
}
