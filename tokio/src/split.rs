//! The two halves of a connection.

use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use futures_core::Stream;
use futures_sink::Sink;
use ringwire_codec::CloseCode;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::waiting::Side;
use crate::{Error, Message, WebSocketStream};

impl<S> WebSocketStream<S> {
    /// Splits it, so that one task receives while another sends.
    #[must_use]
    pub fn split(self) -> (Sender<S>, Receiver<S>) {
        let shared = Arc::new(Mutex::new(self));
        (Sender(Arc::clone(&shared)), Receiver(shared))
    }
}

type Shared<S> = Arc<Mutex<WebSocketStream<S>>>;

fn lock<S>(shared: &Shared<S>) -> MutexGuard<'_, WebSocketStream<S>> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The half of a [`WebSocketStream`] that sends. The transport is closed when both halves are dropped.
///
/// What the protocol does by itself, it does while the other half receives.
pub struct Sender<S>(Shared<S>);

/// The half of a [`WebSocketStream`] that receives.
pub struct Receiver<S>(Shared<S>);

impl<S: AsyncRead + AsyncWrite + Unpin> Sender<S> {
    /// As [`WebSocketStream::send`].
    ///
    /// # Errors
    /// As there.
    pub async fn send(&mut self, message: impl Into<Message>) -> Result<(), Error> {
        let mut message = Some(message.into());
        poll_fn(|cx| lock(&self.0).poll_send(cx, &mut message)).await
    }

    /// As [`WebSocketStream::feed`].
    ///
    /// # Errors
    /// As there.
    pub async fn feed(&mut self, message: impl Into<Message>) -> Result<(), Error> {
        let mut message = Some(message.into());
        poll_fn(|cx| lock(&self.0).poll_feed(cx, &mut message)).await
    }

    /// As [`WebSocketStream::flush`].
    ///
    /// # Errors
    /// As there.
    pub async fn flush(&mut self) -> Result<(), Error> {
        poll_fn(|cx| lock(&self.0).poll_flush_output(cx)).await
    }

    /// As [`WebSocketStream::ping`].
    ///
    /// # Errors
    /// As there.
    pub async fn ping(&mut self, payload: &[u8]) -> Result<(), Error> {
        let mut payload = Some(payload);
        poll_fn(|cx| lock(&self.0).poll_ping(cx, &mut payload)).await
    }

    /// As [`WebSocketStream::close`]. The other half gets `None` when the connection has ended.
    ///
    /// # Errors
    /// As there.
    pub async fn close(&mut self, code: CloseCode, reason: &str) -> Result<(), Error> {
        lock(&self.0).begin_close(Side::Sender, code, reason)?;
        poll_fn(|cx| lock(&self.0).poll_closed(cx)).await
    }

    /// The connection, if these are its halves.
    ///
    /// # Errors
    /// The halves, if they are of two connections.
    pub fn reunite(self, receiver: Receiver<S>) -> Result<WebSocketStream<S>, (Self, Receiver<S>)> {
        if !Arc::ptr_eq(&self.0, &receiver.0) {
            return Err((self, receiver));
        }
        drop(receiver);
        Arc::try_unwrap(self.0)
            .map(|socket| socket.into_inner().unwrap_or_else(PoisonError::into_inner))
            .map_err(|shared| (Self(Arc::clone(&shared)), Receiver(shared)))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Receiver<S> {
    /// As [`WebSocketStream::receive`].
    ///
    /// # Errors
    /// As there.
    pub async fn receive(&mut self) -> Result<Option<Message>, Error> {
        poll_fn(|cx| lock(&self.0).poll_receive(cx)).await.transpose()
    }

    /// As [`WebSocketStream::close_frame`].
    #[must_use]
    pub fn close_frame(&self) -> Option<(CloseCode, String)> {
        lock(&self.0).close_frame().map(|(code, reason)| (code, reason.to_owned()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Stream for Receiver<S> {
    type Item = Result<Message, Error>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        lock(&self.0).poll_receive(cx)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Sink<Message> for Sender<S> {
    type Error = Error;

    fn poll_ready(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        lock(&self.0).poll_room(cx)
    }

    fn start_send(self: Pin<&mut Self>, message: Message) -> Result<(), Error> {
        lock(&self.0).queue(message)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        lock(&self.0).poll_flush_output(cx)
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Pin::new(&mut *lock(&self.0)).poll_close(cx)
    }
}

impl<S> fmt::Debug for Sender<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Sender").field(&*lock(&self.0)).finish()
    }
}

impl<S> fmt::Debug for Receiver<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Receiver").field(&*lock(&self.0)).finish()
    }
}
