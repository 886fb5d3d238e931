//! What a handshake asks the server for, and takes from it.

use http::{HeaderName, HeaderValue};
use ringwire_codec::extension::SharedExtension;
use ringwire_codec::handshake::HeadLimits;

use crate::compression::DeflateConfig;

/// The settings of a handshake; [`Builder`](crate::Builder) says what each is.
#[derive(Clone)]
pub(crate) struct Handshake {
    pub(crate) headers: Vec<(HeaderName, HeaderValue)>,
    pub(crate) subprotocols: Vec<String>,
    pub(crate) origin: Option<HeaderValue>,
    pub(crate) head: HeadLimits,
    pub(crate) max_refusal_len: usize,
    pub(crate) max_redirects: u32,
    pub(crate) compression: Option<DeflateConfig>,
    pub(crate) extensions: Vec<SharedExtension>,
}

impl Default for Handshake {
    fn default() -> Self {
        Self {
            headers: Vec::new(),
            subprotocols: Vec::new(),
            origin: None,
            head: HeadLimits::default(),
            max_refusal_len: 16 << 10,
            max_redirects: 0,
            compression: None,
            extensions: Vec::new(),
        }
    }
}

impl Handshake {
    /// Sets a header in place of all of its name.
    pub(crate) fn set_header(&mut self, name: HeaderName, value: HeaderValue) {
        self.remove_header(&name);
        self.headers.push((name, value));
    }

    /// Takes out all headers of a name.
    pub(crate) fn remove_header(&mut self, name: &HeaderName) {
        self.headers.retain(|(each, _)| each != name);
    }
}
