//! A connection as `Stream` and `Sink`.

use std::pin::Pin;
use std::task::{Context, Poll};

use futures_core::{FusedStream, Stream};
use futures_sink::Sink;
use ringwire_codec::CloseCode;
use tokio::io::{AsyncRead, AsyncWrite};

use super::WebSocketStream;
use super::ending::Phase;
use crate::waiting::Side;
use crate::{Error, Message};

/// As [`WebSocketStream::receive`].
impl<S: AsyncRead + AsyncWrite + Unpin> Stream for WebSocketStream<S> {
    type Item = Result<Message, Error>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.get_mut().poll_receive(cx)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> FusedStream for WebSocketStream<S> {
    fn is_terminated(&self) -> bool {
        self.phase == Phase::Over
            && self.ending.as_ref().is_none_or(|ending| ending.outcome.is_none())
    }
}

/// As [`WebSocketStream::feed`] and [`flush`](WebSocketStream::flush); closing is as
/// [`close`](WebSocketStream::close) with 1000.
impl<S: AsyncRead + AsyncWrite + Unpin> Sink<Message> for WebSocketStream<S> {
    type Error = Error;

    fn poll_ready(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.get_mut().poll_room(cx)
    }

    fn start_send(self: Pin<&mut Self>, message: Message) -> Result<(), Error> {
        self.get_mut().queue(message)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.get_mut().poll_flush_output(cx)
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        let this = self.get_mut();
        this.begin_close(Side::Sender, CloseCode::NORMAL, "")?;
        this.poll_closed(cx)
    }
}
