//! A gateway among others: who is online on which node, and what administrators order on all of them.
//!
//! Messages need nothing of this: rooms, users and broadcasts are topics, which the engine carries to the other nodes.
//! What nodes say to each other are topics too, which no client can subscribe to:
//!
//! | topic | |
//! |---|---|
//! | `nodes.presence` | who comes and goes, and that a node lives (`roster.rs`) |
//! | `nodes.orders` | what administrators order on another node |

mod roster;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, Weak};
use std::thread;
use std::time::{Duration, Instant};

use ringwire::topics::{PublishOptions, Reach};
use serde::{Deserialize, Serialize};
use serde_json::json;
use uuid::Uuid;

pub(crate) use self::roster::News;
use self::roster::{Letter, NodeKey, Outcome, PAGE_LEN, Roster, Seen, together};
use crate::app::App;
use crate::chat::{self, ChatMessage};
use crate::envelope::{MessageType, notice};
use crate::lock;
use crate::presence::{Counts, Online, Page};
use crate::session::{EVERYBODY, REVOKED, USER};

const PRESENCE: &str = "nodes.presence";
const ORDERS: &str = "nodes.orders";

/// How long what changes waits for more, to go in one letter.
const PERIOD: Duration = Duration::from_millis(50);
/// A node says so many times within a lease that it lives.
const BEATS: u32 = 5;

/// What an administrator orders on all nodes.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "order", rename_all = "snake_case")]
pub(crate) enum Order {
    /// Close all connections of a user.
    Disconnect { user: Uuid, reason: String },
    /// Close stale connections.
    CleanUp,
}

/// This node among the others.
#[derive(Debug)]
pub struct Cluster {
    key: NodeKey,
    name: String,
    beat: Duration,
    began: Instant,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    roster: Roster,
    /// Users of this node whose changes the other nodes have not heard yet.
    dirty: BTreeSet<Uuid>,
    /// How many letters with changes this node has sent.
    version: u64,
    beat_due: Duration,
}

impl Cluster {
    /// A node with this name, whose users have gone when it was silent for as long as the lease.
    #[must_use]
    pub fn new(name: &str, lease: Duration) -> Self {
        let (key, _) = Uuid::new_v4().as_u64_pair();
        let state = State {
            roster: Roster::new(key, lease),
            dirty: BTreeSet::new(),
            version: 0,
            beat_due: Duration::ZERO,
        };
        let (name, state) = (name.to_owned(), Mutex::new(state));
        Self { key, name, beat: lease / BEATS, began: Instant::now(), state }
    }

    /// Has the node of an application hear the others, and speak to them, once it has a server. Without a node nothing
    /// happens.
    ///
    /// # Panics
    /// The system has no thread left.
    pub(crate) fn start(app: &Arc<App>) {
        if app.cluster.is_none() {
            return;
        }
        let (hearing, obeying) = (Arc::downgrade(app), Arc::downgrade(app));
        let heard = app.handle().hear_others(PRESENCE, move |_, message| {
            let letter = serde_json::from_slice(message.as_bytes());
            if let (Some(app), Ok(letter)) = (hearing.upgrade(), letter) {
                app.receive(letter);
            }
        });
        let obeyed = app.handle().hear_others(ORDERS, move |_, message| {
            let order = serde_json::from_slice(message.as_bytes());
            if let (Some(app), Ok(order)) = (obeying.upgrade(), order) {
                app.obey(&order);
            }
        });
        heard.and(obeyed).expect("they are topics");
        let app = Arc::downgrade(app);
        let thread = thread::Builder::new().name("cluster".into()).spawn(move || run(&app));
        thread.expect("a thread for the cluster");
    }

    /// A connection of a user has come or gone.
    pub(crate) fn note(&self, user: Uuid) {
        lock(&self.state).dirty.insert(user);
    }

    /// The names of the other nodes that live.
    #[must_use]
    pub fn nodes(&self) -> Vec<String> {
        lock(&self.state).roster.nodes().map(str::to_owned).collect()
    }
}

/// Speaks to the others for as long as there is an application.
fn run(app: &Weak<App>) {
    loop {
        thread::sleep(PERIOD);
        let Some(app) = app.upgrade() else { return };
        let Some(cluster) = &app.cluster else { return };
        let now = cluster.began.elapsed();
        let mut state = lock(&cluster.state);
        app.send_changes(&mut state, cluster.key);
        if now >= state.beat_due {
            state.beat_due = now + cluster.beat;
            let (node, name, version) = (cluster.key, cluster.name.clone(), state.version);
            app.send(&Letter::Beat { node, name, version });
        }
        let outcome = state.roster.tick(now);
        app.act(outcome);
    }
}

/// What is said under the lock of the state is said in its order.
impl App {
    fn receive(&self, letter: Letter) {
        let Some(cluster) = &self.cluster else { return };
        let mut state = lock(&cluster.state);
        match letter {
            Letter::Ask { of, by, after } if of == cluster.key => {
                let page = self.presence.online(after, PAGE_LEN);
                let users = page.users.iter().map(|user| (user.user_id, seen(user))).collect();
                let (version, has_more) = (state.version, page.next.is_some());
                self.send(&Letter::Page { node: of, to: by, version, after, users, has_more });
            }
            letter => {
                let outcome = state.roster.receive(letter, cluster.began.elapsed());
                self.act(outcome);
            }
        }
    }

    fn send_changes(&self, state: &mut State, node: NodeKey) {
        while !state.dirty.is_empty() {
            let mut users = Vec::new();
            while users.len() < PAGE_LEN
                && let Some(user) = state.dirty.pop_first()
            {
                users.push((user, self.presence.of(user).as_ref().map(seen)));
            }
            state.version += 1;
            self.send(&Letter::Changes { node, version: state.version, users });
        }
    }

    /// What the others miss they see by its number, and ask for.
    fn send(&self, letter: &Letter) {
        let json = serde_json::to_string(letter).expect("names and numbers are JSON");
        if let Err(error) = self.handle().publish(PRESENCE, &json) {
            tracing::debug!(%error, "the other nodes miss a letter");
        }
    }

    fn act(&self, Outcome { news, letters }: Outcome) {
        letters.iter().for_each(|letter| self.send(letter));
        news.into_iter().for_each(|news| self.tell(news));
    }

    /// A user is online on this node, or no more; the users of this node hear of it unless another node has the user
    /// too.
    pub(crate) fn tell_own(&self, news: News) {
        let Some(cluster) = &self.cluster else { return self.tell(news) };
        let mut state = lock(&cluster.state);
        let news = match news {
            News::Joined(user, name) => state.roster.enter(user, &name),
            News::Left(user, name) => state.roster.leave(user, &name),
        };
        news.into_iter().for_each(|news| self.tell(news));
    }

    /// Each node tells its own users.
    fn tell(&self, news: News) {
        let (message_type, chat, user, username) = match news {
            News::Joined(user, name) => {
                (MessageType::UserJoined, ChatMessage::Join(name.clone()), user, name)
            }
            News::Left(user, name) => {
                (MessageType::UserLeft, ChatMessage::Leave(name.clone()), user, name)
            }
        };
        let envelope =
            notice(message_type, Some(user), &json!({ "user_id": user, "username": username }));
        let own = format!("{USER}{user}");
        let options = PublishOptions::default().with_except_name(&own).with_reach(Reach::Server);
        for (topic, text) in [(EVERYBODY, &envelope), (chat::TOPIC, &chat.to_json())] {
            if let Err(error) = self.handle().publish_with(topic, text, options) {
                tracing::warn!(%error, "not everybody hears who comes and goes");
            }
        }
    }

    /// Has the other nodes follow an order.
    pub(crate) fn order(&self, order: &Order) {
        let json = serde_json::to_string(order).expect("names are JSON");
        if self.cluster.is_some()
            && let Err(error) = self.handle().publish(ORDERS, &json)
        {
            tracing::warn!(%error, "the other nodes miss an order");
        }
    }

    fn obey(&self, order: &Order) {
        match order {
            Order::Disconnect { user, reason } => {
                for conn in self.presence.connections(*user) {
                    // One that has ended meanwhile is what was wanted.
                    let _ = self.handle().close(conn, REVOKED, reason);
                }
            }
            Order::CleanUp => {
                self.sweep_now.notify_one();
            }
        }
    }

    /// A connection of a user has come or gone.
    pub(crate) fn note_change(&self, user: Uuid) {
        if let Some(cluster) = &self.cluster {
            cluster.note(user);
        }
    }

    /// How many connections of a user take envelopes, and how many there are, on all nodes.
    #[must_use]
    pub fn connection_counts(&self, user: Uuid) -> (usize, usize) {
        let own = self.presence.of(user);
        let elsewhere = self.elsewhere(user);
        let all = [own.as_ref().map(seen), elsewhere];
        all.into_iter().flatten().fold((0, 0), |(envelopes, connections), seen| {
            (envelopes + seen.envelopes, connections + seen.connections)
        })
    }

    fn elsewhere(&self, user: Uuid) -> Option<Seen> {
        lock(&self.cluster.as_ref()?.state).roster.elsewhere(user)
    }

    /// How much is online: connections of this node, users of all.
    pub(crate) fn counts(&self) -> Counts {
        let counts = self.presence.counts();
        match &self.cluster {
            Some(cluster) => Counts { users: lock(&cluster.state).roster.user_count(), ..counts },
            None => counts,
        }
    }

    /// The first users behind `after`, by their id, on all nodes.
    pub(crate) fn online(&self, after: Option<Uuid>, limit: usize) -> Page {
        let own = self.presence.online(after, limit);
        let Some(cluster) = &self.cluster else { return own };
        let mut all = lock(&cluster.state).roster.online(after, limit + 1);
        for user in &own.users {
            let seen = seen(user);
            let merged = match all.remove(&user.user_id) {
                Some(before) => together(before, seen),
                None => seen,
            };
            all.insert(user.user_id, merged);
        }
        let has_more = own.next.is_some() || all.len() > limit;
        let users = all.into_iter().take(limit).map(|(user_id, seen)| Online {
            user_id,
            username: seen.username,
            connected_at: std::time::UNIX_EPOCH + Duration::from_millis(seen.since),
            connection_count: seen.connections,
            envelope_count: seen.envelopes,
        });
        let users: Vec<_> = users.collect();
        let next = users.last().map(|user| user.user_id).filter(|_| has_more);
        Page { users, next }
    }
}

fn seen(user: &Online) -> Seen {
    let since = user.connected_at.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Seen {
        username: user.username.clone(),
        since: u64::try_from(since.as_millis()).unwrap_or(u64::MAX),
        connections: user.connection_count,
        envelopes: user.envelope_count,
    }
}
