//! Broadcast on sockudo-ws and its own publish and subscribe, as its example does it; messages are fed while some are
//! at hand and flushed together.

use std::sync::LazyLock;

use futures_util::{SinkExt, StreamExt};
use ringwire_peers::{Compression, MAX_MESSAGE_LEN, Service, Stream};
use sockudo_ws::handshake::server_handshake;
use sockudo_ws::pubsub::{PubSub, SubscriberId};
use sockudo_ws::{Config, Message, Role, WebSocketStream};
use tokio::sync::mpsc;

/// What all connections subscribe to.
const TOPIC: &str = "all";

static TOPICS: LazyLock<PubSub> = LazyLock::new(PubSub::new);

fn main() -> anyhow::Result<()> {
    // Calibrates its clock, which its documentation asks for before the runtime exists.
    sockudo_ws::init_clock();
    ringwire_peers::serve::<SockudoWs>()
}

struct SockudoWs;

impl Service for SockudoWs {
    async fn serve<S: Stream>(mut stream: S, _: Option<Compression>) -> anyhow::Result<()> {
        let config = Config::builder()
            .max_message_size(MAX_MESSAGE_LEN)
            .max_frame_size(MAX_MESSAGE_LEN)
            .idle_timeout(0)
            .auto_ping(false)
            .build();
        let leftover = server_handshake(&mut stream).await?.leftover;
        let mut socket =
            WebSocketStream::from_raw_with_leftover(stream, Role::Server, config, leftover);
        let (sender, mut heard) = mpsc::unbounded_channel();
        let subscriber = Subscriber(TOPICS.create_subscriber(sender));
        TOPICS.subscribe(subscriber.0, TOPIC);
        loop {
            tokio::select! {
                biased;
                Some(mut said) = heard.recv() => {
                    loop {
                        socket.feed(said).await?;
                        let Ok(next) = heard.try_recv() else { break };
                        said = next;
                    }
                    socket.flush().await?;
                }
                message = socket.next() => {
                    let Some(message) = message else { return Ok(()) };
                    let message = message?;
                    if matches!(message, Message::Text(_) | Message::Binary(_)) {
                        TOPICS.publish_excluding(subscriber.0, TOPIC, message);
                    }
                }
            }
        }
    }
}

/// Ends its subscriptions with the connection.
struct Subscriber(SubscriberId);

impl Drop for Subscriber {
    fn drop(&mut self) {
        TOPICS.remove_subscriber(self.0);
    }
}
