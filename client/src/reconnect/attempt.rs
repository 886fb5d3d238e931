//! An attempt to connect, before it is made.

use http::{HeaderName, HeaderValue};

use crate::builder::Builder;
use crate::error::{Error, UrlProblem};
use crate::url::Url;

/// An attempt of a [`Reconnecting`](super::Reconnecting) client to connect, which its
/// [`prepare`](super::Reconnecting::prepare) changes. The next one begins anew with the client's URL and settings.
#[derive(Debug)]
pub struct Attempt {
    pub(super) builder: Builder,
    pub(super) url: Url,
    number: u32,
}

impl Attempt {
    pub(super) fn new(
        builder: &Builder,
        url: &Result<Url, UrlProblem>,
        number: u32,
    ) -> Result<Self, Error> {
        Ok(Self { builder: builder.clone(), url: url.clone()?, number })
    }

    /// Its number among those in a row, from 1. It begins anew once a connection was stable.
    #[must_use]
    pub const fn number(&self) -> u32 {
        self.number
    }

    /// Where it connects to.
    #[must_use]
    pub const fn url(&self) -> &Url {
        &self.url
    }

    /// Connects to another URL.
    ///
    /// # Errors
    /// The text is none that a client can connect to.
    pub fn set_url<U: TryInto<Url>>(&mut self, url: U) -> Result<(), UrlProblem>
    where
        UrlProblem: From<U::Error>,
    {
        self.url = url.try_into()?;
        Ok(())
    }

    /// Sets a parameter of the URL's query in place of all of this name. Name and value are percent-encoded.
    pub fn set_query(&mut self, name: &str, value: &str) {
        self.url.set_query(name, value);
    }

    /// Sets a header in place of all of its name, as [`Builder::with_header`] does.
    pub fn set_header(&mut self, name: HeaderName, value: HeaderValue) {
        self.builder.handshake.set_header(name, value);
    }

    /// Adds a header beside others of its name, as [`Builder::append_header`] does.
    pub fn append_header(&mut self, name: HeaderName, value: HeaderValue) {
        self.builder.handshake.headers.push((name, value));
    }

    /// Takes out all headers of a name.
    pub fn remove_header(&mut self, name: &HeaderName) {
        self.builder.handshake.remove_header(name);
    }

    /// Offers these subprotocols in place of the builder's, the preferred one first.
    pub fn set_subprotocols(&mut self, names: &[&str]) {
        self.builder.handshake.subprotocols = names.iter().map(|&name| name.to_owned()).collect();
    }
}
