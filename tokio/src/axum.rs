//! The extractor for axum.

use std::fmt;
use std::sync::Arc;

use axum_core::body::Body;
use axum_core::extract::FromRequestParts;
use axum_core::response::{IntoResponse, Response};
use http::request::Parts;
use http::{HeaderName, HeaderValue, Request, StatusCode};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use ringwire_codec::Role;
use ringwire_codec::handshake::HandshakeError;
use ringwire_codec::handshake::server::{self, Accept, accept_upgrade, answer_upgrade};

use crate::stream::Handshake;
use crate::{Config, WebSocketStream};

/// A WebSocket on a connection that hyper has upgraded.
pub type WebSocket = WebSocketStream<TokioIo<Upgraded>>;

/// Extracts a request for an upgrade, for `axum` 0.8 and whatever else is built on `axum-core` 0.5, on HTTP/1.1.
///
/// A request that is no proper upgrade is rejected with the right status. The origin is for the handler to judge.
///
/// ```
/// use axum::{Router, response::Response, routing::any};
/// use ringwire_tokio::axum::{WebSocket, WebSocketUpgrade};
/// use ringwire_tokio::Error;
///
/// async fn upgrade(upgrade: WebSocketUpgrade) -> Response {
///     upgrade.with_subprotocols(["chat.v2", "chat"]).on_upgrade(|socket| async move {
///         if let Err(error) = serve(socket).await {
///             eprintln!("{error}");
///         }
///     })
/// }
///
/// async fn serve(mut socket: WebSocket) -> Result<(), Error> {
///     while let Some(message) = socket.receive().await? {
///         socket.send(message).await?;
///     }
///     Ok(())
/// }
///
/// let app: Router = Router::new().route("/ws", any(upgrade));
/// # drop(app);
/// ```
pub struct WebSocketUpgrade<F = fn(hyper::Error)> {
    request: Request<()>,
    on_upgrade: OnUpgrade,
    config: Arc<Config>,
    accept: Accept,
    on_failed: F,
}

impl<F> WebSocketUpgrade<F> {
    /// Sets how the connection behaves; compression is agreed on as it has it. Default: [`Config::default`].
    #[must_use]
    pub fn with_config(mut self, config: impl Into<Arc<Config>>) -> Self {
        self.config = config.into();
        self
    }

    /// Chooses the first of these subprotocols that the client offers, if it does.
    #[must_use]
    pub fn with_subprotocols<N>(mut self, names: impl IntoIterator<Item = N>) -> Self
    where
        N: Into<std::borrow::Cow<'static, str>>,
    {
        let chosen = {
            let offered: Vec<_> = self.offered_subprotocols().collect();
            let names = names.into_iter().map(Into::into);
            names.into_iter().find(|name| offered.contains(&&**name))
        };
        if let Some(chosen) = chosen {
            self.accept = self.accept.with_subprotocol(chosen);
        }
        self
    }

    /// The subprotocols that the client offers, in the order it prefers them.
    pub fn offered_subprotocols(&self) -> impl Iterator<Item = &str> {
        let headers = self.request.headers().get_all(http::header::SEC_WEBSOCKET_PROTOCOL);
        let values = headers.into_iter().filter_map(|value| value.to_str().ok());
        values.flat_map(|value| value.split(',')).map(str::trim).filter(|name| !name.is_empty())
    }

    /// The subprotocol that [`with_subprotocols`](Self::with_subprotocols) has chosen.
    #[must_use]
    pub fn subprotocol(&self) -> Option<&str> {
        self.accept.subprotocol()
    }

    /// Adds a header to the answer, such as Set-Cookie; those that the handshake writes cannot be given.
    #[must_use]
    pub fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.accept = self.accept.with_header(name, value);
        self
    }

    /// Is called if the client has gone before the connection was upgraded. Default: nothing is.
    #[must_use]
    pub fn on_failed_upgrade<G>(self, callback: G) -> WebSocketUpgrade<G>
    where
        G: FnOnce(hyper::Error) + Send + 'static,
    {
        let Self { request, on_upgrade, config, accept, .. } = self;
        WebSocketUpgrade { request, on_upgrade, config, accept, on_failed: callback }
    }

    /// Accepts the upgrade: `serve` runs as a task of its own once the answer is out.
    #[must_use = "the answer has to be returned from the handler"]
    pub fn on_upgrade<C, Fut>(self, serve: C) -> Response
    where
        C: FnOnce(WebSocket) -> Fut + Send + 'static,
        Fut: Future<Output = ()> + Send + 'static,
        F: FnOnce(hyper::Error) + Send + 'static,
    {
        let Self { request, on_upgrade, config, accept, on_failed } = self;
        let subprotocol = accept.subprotocol().map(Box::from);
        let policy = config.compression.map(|settings| settings.policy());
        let (answer, agreement) = match accept_upgrade(&request, accept, policy.as_ref()) {
            Ok(answer) => answer,
            Err(error) => return Rejection(Why::Handshake(error)).into_response(),
        };
        tokio::spawn(async move {
            match on_upgrade.await {
                Ok(upgraded) => {
                    // What hyper read ahead comes out of the stream first.
                    let handshake = Handshake { agreement, subprotocol, rest: Vec::new() };
                    let transport = TokioIo::new(upgraded);
                    serve(WebSocketStream::new(transport, Role::Server, config, handshake)).await;
                }
                Err(error) => on_failed(error),
            }
        });
        answer.map(|()| Body::empty())
    }
}

impl<F> fmt::Debug for WebSocketUpgrade<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WebSocketUpgrade").field("uri", self.request.uri()).finish_non_exhaustive()
    }
}

impl<S: Sync> FromRequestParts<S> for WebSocketUpgrade {
    type Rejection = Rejection;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Rejection> {
        let mut request = Request::new(());
        *request.method_mut() = parts.method.clone();
        *request.uri_mut() = parts.uri.clone();
        *request.version_mut() = parts.version;
        *request.headers_mut() = parts.headers.clone();
        answer_upgrade(&request).map_err(|error| Rejection(Why::Handshake(error)))?;
        let on_upgrade = parts.extensions.remove().ok_or(Rejection(Why::NotUpgradable))?;
        let (config, accept) = (Config::shared(), Accept::new());
        Ok(Self { request, on_upgrade, config, accept, on_failed: drop })
    }
}

/// Why a request was rejected. As an answer it has the right status.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("{0}")]
pub struct Rejection(Why);

#[derive(Clone, Copy, Debug, thiserror::Error)]
enum Why {
    #[error(transparent)]
    Handshake(HandshakeError),
    #[error("the server does not upgrade connections: hyper must serve them with upgrades")]
    NotUpgradable,
}

impl Rejection {
    /// The status of the answer.
    #[must_use]
    pub const fn status(&self) -> StatusCode {
        match self.0 {
            Why::Handshake(error) => error.status(),
            Why::NotUpgradable => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

impl IntoResponse for Rejection {
    fn into_response(self) -> Response {
        let Why::Handshake(error) = self.0 else {
            return (self.status(), format!("{self}\n")).into_response();
        };
        let refusal = server::Response::from(error);
        let mut response = (refusal.status(), refusal.body().to_vec()).into_response();
        for (name, value) in refusal.headers() {
            response.headers_mut().insert(name, value.clone());
        }
        response
    }
}
