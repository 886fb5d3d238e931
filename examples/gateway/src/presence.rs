//! Who is online, and who hears of it.

use std::sync::Arc;

use ringwire::Handle;
use ringwire::topics::{PublishOptions, Reach};
use ringwire_nats::online::{News, Online, Page, Profile};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::app::App;
use crate::chat::{self, ChatMessage};
use crate::envelope::{MessageType, notice, timestamp};
use crate::session::{EVERYBODY, USER};

/// The topic by which an administrator has the other nodes close stale connections. No client can publish to it.
const CLEANUP: &str = "nodes.cleanup";

/// Who is online, on this node and all others.
pub type Presence = Online<Uuid, Known>;

/// What is known of a user by one connection or all of them.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Known {
    /// The name in the token of the first.
    pub username: String,
    /// How many take envelopes.
    pub envelopes: usize,
}

impl Profile for Known {
    fn merge(&mut self, later: &Self) {
        self.envelopes += later.envelopes;
    }
}

/// Has users hear who comes and goes, and other nodes be heard, once there is a server.
pub(crate) fn start(app: &Arc<App>, handle: &Handle) {
    let telling = handle.clone();
    app.presence.start(handle, move |news| tell(&telling, news));
    let obeying = Arc::downgrade(app);
    let heard = handle.hear_others(CLEANUP, move |_, _| {
        if let Some(app) = obeying.upgrade() {
            app.sweep_now.notify_one();
        }
    });
    heard.expect("it is a topic");
}

/// Has the other nodes close stale connections.
pub(crate) fn order_sweep(app: &App) {
    if app.presence.nodes().is_some()
        && let Err(error) = app.handle().publish(CLEANUP, "")
    {
        tracing::warn!(%error, "cannot ask the other nodes to close stale connections: the next sweep asks again");
    }
}

/// Each node tells its own users.
fn tell(handle: &Handle, news: News<Uuid, Known>) {
    let (message_type, in_chat, user, known): (_, fn(_) -> _, _, _) = match news {
        News::Joined(user, known) => (MessageType::UserJoined, ChatMessage::Join, user, known),
        News::Left(user, known) => (MessageType::UserLeft, ChatMessage::Leave, user, known),
    };
    let data = json!({ "user_id": user, "username": known.username });
    let envelope = notice(message_type, Some(user), &data);
    let chat = in_chat(known.username).to_json();
    let own = format!("{USER}{user}");
    let options = PublishOptions::default().with_except_name(&own).with_reach(Reach::Server);
    for (topic, text) in [(EVERYBODY, &envelope), (chat::TOPIC, &chat)] {
        if let Err(error) = handle.publish_with(topic, text, options) {
            tracing::warn!(%error, "some clients missed a notice of who joined or left");
        }
    }
}

/// A page as administrators get it.
pub(crate) fn listed(page: &Page<Uuid, Known>) -> Value {
    let users = page.users.iter().map(|(id, user)| {
        let (username, connected_at) = (&user.profile.username, timestamp(user.since));
        json!({ "user_id": id, "username": username, "connected_at": connected_at })
    });
    json!({ "users": users.collect::<Vec<_>>(), "next": page.next })
}
