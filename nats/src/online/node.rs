//! This node among the others: what it tells them of its users, and what it makes of what they say.

use std::collections::BTreeSet;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;
use std::time::{Duration, Instant};

use ringwire::{CloseCode, Handle};

use super::roster::{Letter, NodeKey, Outcome, PAGE_LEN, Roster, add};
use super::{News, Page, Profile, Shared, TOPIC, User, UserId};

/// How long what changes waits for more, to go in one letter.
const PERIOD: Duration = Duration::from_millis(50);
/// A node says so many times within a lease that it lives.
const BEATS: u32 = 5;

pub(super) struct Node<K, P> {
    key: NodeKey,
    name: String,
    beat: Duration,
    began: Instant,
    state: Mutex<State<K, P>>,
}

struct State<K, P> {
    roster: Roster<K, P>,
    /// Users of this node whose changes the other nodes have not heard yet.
    dirty: BTreeSet<K>,
    /// How many letters with changes this node has sent.
    version: u64,
    beat_due: Duration,
}

impl<K: UserId, P: Profile> Node<K, P> {
    pub(super) fn new(name: &str, lease: Duration) -> Self {
        // Another one each time, since the hasher has a key by chance.
        let key = RandomState::new().hash_one(name);
        let state = State {
            roster: Roster::new(key, lease),
            dirty: BTreeSet::new(),
            version: 0,
            beat_due: Duration::ZERO,
        };
        let (name, state) = (name.to_owned(), Mutex::new(state));
        Self { key, name, beat: lease / BEATS, began: Instant::now(), state }
    }

    fn lock(&self) -> MutexGuard<'_, State<K, P>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn elsewhere(&self, user: &K) -> Option<User<P>> {
        self.lock().roster.elsewhere(user)
    }

    /// The names of the other nodes that live.
    pub(super) fn others(&self) -> Vec<String> {
        self.lock().roster.nodes().map(str::to_owned).collect()
    }

    pub(super) fn user_count(&self) -> usize {
        self.lock().roster.user_count()
    }

    pub(super) fn sum(&self, of: impl Fn(usize, &P) -> usize) -> usize {
        self.lock().roster.sum(of)
    }

    /// A page of this node with what the others add to it.
    pub(super) fn merge(&self, own: Page<K, P>, after: Option<&K>, limit: usize) -> Page<K, P> {
        let mut all = self.lock().roster.online(after, limit + 1);
        let has_more_here = own.next.is_some();
        own.users.into_iter().for_each(|(user, seen)| add(&mut all, &user, seen));
        let has_more = has_more_here || all.len() > limit;
        let users: Vec<_> = all.into_iter().take(limit).collect();
        let next = users.last().map(|(user, _)| user.clone()).filter(|_| has_more);
        Page { users, next }
    }
}

/// Hears the other nodes and speaks to them from now on.
pub(super) fn start<K: UserId, P: Profile>(shared: &Arc<Shared<K, P>>, handle: &Handle) {
    let hearing = Arc::downgrade(shared);
    let heard = handle.hear_others(TOPIC, move |_, message| {
        let letter = serde_json::from_slice(message.as_bytes());
        if let (Some(shared), Ok(letter)) = (hearing.upgrade(), letter) {
            shared.receive(letter);
        }
    });
    heard.expect("it is a topic");
    let shared = Arc::downgrade(shared);
    let thread = thread::Builder::new().name("ringwire-online".to_owned());
    thread.spawn(move || run(&shared)).expect("a thread that speaks to the other nodes");
}

/// Speaks to the others for as long as there is a list.
fn run<K: UserId, P: Profile>(shared: &Weak<Shared<K, P>>) {
    loop {
        thread::sleep(PERIOD);
        let Some(shared) = shared.upgrade() else { return };
        let Some(node) = &shared.node else { return };
        let now = node.began.elapsed();
        let mut state = node.lock();
        shared.send_changes(&mut state, node.key);
        if now >= state.beat_due {
            state.beat_due = now + node.beat;
            let (key, name, version) = (node.key, node.name.clone(), state.version);
            shared.send(&Letter::Beat { node: key, name, version });
        }
        let outcome = state.roster.tick(now);
        shared.act(outcome);
    }
}

/// What is said under the lock of the state is said in its order.
impl<K: UserId, P: Profile> Shared<K, P> {
    fn receive(&self, letter: Letter<K, P>) {
        let Some(node) = &self.node else { return };
        let mut state = node.lock();
        match letter {
            Letter::Ask { of, by, after } if of == node.key => {
                let Page { users, next } = self.local.page(after.as_ref(), PAGE_LEN);
                let (version, has_more) = (state.version, next.is_some());
                self.send(&Letter::Page { node: of, to: by, version, after, users, has_more });
            }
            Letter::Close { user, code, reason } => {
                if let Err(error) = self.close_here(&user, CloseCode::new(code), &reason) {
                    tracing::warn!(%error, "cannot close a user's connections for another node");
                }
            }
            letter => {
                let outcome = state.roster.receive(letter, node.began.elapsed());
                if outcome.has_met {
                    state.beat_due = Duration::ZERO;
                }
                self.act(outcome);
            }
        }
    }

    /// A connection of a user of this node has come or gone.
    pub(super) fn note(&self, user: &K) {
        let Some(node) = &self.node else { return };
        let mut state = node.lock();
        state.dirty.insert(user.clone());
        // The last ones go when nobody is left to tell of them later.
        if self.outside().handle.is_draining() {
            self.send_changes(&mut state, node.key);
        }
    }

    fn send_changes(&self, state: &mut State<K, P>, node: NodeKey) {
        while !state.dirty.is_empty() {
            let mut users = Vec::new();
            while users.len() < PAGE_LEN
                && let Some(user) = state.dirty.pop_first()
            {
                let seen = self.local.of(&user);
                users.push((user, seen));
            }
            state.version += 1;
            self.send(&Letter::Changes { node, version: state.version, users });
        }
    }

    /// What the others miss they see by its number, and ask for.
    pub(super) fn send(&self, letter: &Letter<K, P>) {
        let sent = serde_json::to_string(letter).map_err(|error| error.to_string());
        let sent = sent.and_then(|json| {
            self.outside().handle.publish(TOPIC, &json).map_err(|error| error.to_string())
        });
        if let Err(error) = sent {
            tracing::debug!(%error, "the other nodes miss who is online here");
        }
    }

    fn act(&self, Outcome { news, letters, .. }: Outcome<K, P>) {
        letters.iter().for_each(|letter| self.send(letter));
        news.into_iter().for_each(|news| self.tell(news));
    }

    /// A user is online on this node, or no more; the users of this node hear of it unless another node has the user
    /// too.
    pub(super) fn tell_own(&self, node: &Node<K, P>, news: &News<K, P>) {
        let mut state = node.lock();
        let news = match news {
            News::Joined(user, profile) => state.roster.enter(user, profile),
            News::Left(user, profile) => state.roster.leave(user, profile),
        };
        news.into_iter().for_each(|news| self.tell(news));
    }
}
