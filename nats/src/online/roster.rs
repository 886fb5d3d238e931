//! Who is online on which node, as one node knows it. No socket, thread or clock: letters in, news and letters out.
//!
//! Each node says what changes among its users, in letters with numbers, and once in a while that it lives. Who misses
//! a number asks for the whole list, page by page; since the letters of a node come in their order, a page stands
//! between the changes before and after it, and both are applied as they come. Who is silent for longer than the lease
//! is taken for dead, and his users have gone.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{News, Profile, User, UserId};

/// A node from its start to its end.
pub(super) type NodeKey = u64;

/// Users in one letter.
pub(super) const PAGE_LEN: usize = 500;

/// How long an answer may take before it is asked for again.
const PATIENCE: Duration = Duration::from_secs(1);

/// What has become of a user on a node; nobody any more, where there is no one.
type Change<K, P> = (K, Option<User<P>>);

/// What nodes say to each other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(super) enum Letter<K, P> {
    /// The node lives, and has sent so many letters with changes.
    Beat { node: NodeKey, name: String, version: u64 },
    /// What has become of some users; nobody, where one has gone. It is the letter of this number.
    Changes { node: NodeKey, version: u64, users: Vec<Change<K, P>> },
    /// A node wants to know the users of another one behind this one.
    Ask { of: NodeKey, by: NodeKey, after: Option<K> },
    /// They are these, after so many letters with changes.
    Page {
        node: NodeKey,
        to: NodeKey,
        version: u64,
        after: Option<K>,
        users: Vec<(K, User<P>)>,
        has_more: bool,
    },
    /// A user's connections are to be closed.
    Close { user: K, code: u16, reason: String },
}

/// What comes of a letter, or of time.
#[derive(Debug)]
pub(super) struct Outcome<K, P> {
    pub(super) news: Vec<News<K, P>>,
    pub(super) letters: Vec<Letter<K, P>>,
    /// A node has been heard for the first time, which has not heard of this one yet, perhaps: to be told at once that
    /// this one lives.
    pub(super) has_met: bool,
}

impl<K, P> Default for Outcome<K, P> {
    fn default() -> Self {
        Self { news: Vec::new(), letters: Vec::new(), has_met: false }
    }
}

/// See the [module's documentation](self).
#[derive(Debug)]
pub(super) struct Roster<K, P> {
    own: NodeKey,
    lease: Duration,
    nodes: BTreeMap<NodeKey, Remote<K, P>>,
    /// On how many nodes a user is, this one included.
    present: HashMap<K, u32>,
    ticked: Duration,
}

/// Another node.
#[derive(Debug)]
struct Remote<K, P> {
    name: String,
    /// The letter with changes that was the last to be applied.
    version: u64,
    users: BTreeMap<K, User<P>>,
    heard: Duration,
    /// A list that is to take the place of `users`.
    fresh: Option<Fresh<K, P>>,
}

#[derive(Debug)]
struct Fresh<K, P> {
    users: BTreeMap<K, User<P>>,
    /// Behind whom the next page begins.
    after: Option<K>,
    asked: Duration,
}

impl<K: UserId, P: Profile> Roster<K, P> {
    pub(super) fn new(own: NodeKey, lease: Duration) -> Self {
        Self { own, lease, nodes: BTreeMap::new(), present: HashMap::new(), ticked: Duration::ZERO }
    }

    /// The names of the other nodes that live.
    pub(super) fn nodes(&self) -> impl Iterator<Item = &str> {
        self.nodes.values().map(|node| &*node.name)
    }

    /// How many users are online anywhere.
    pub(super) fn user_count(&self) -> usize {
        self.present.len()
    }

    /// Adds up what `of` says of the users of the other nodes.
    pub(super) fn sum(&self, of: impl Fn(usize, &P) -> usize) -> usize {
        let seen = self.nodes.values().flat_map(|node| node.users.values());
        seen.map(|seen| of(seen.connection_count, &seen.profile)).sum()
    }

    /// What the other nodes say of a user.
    pub(super) fn elsewhere(&self, user: &K) -> Option<User<P>> {
        let seen = self.nodes.values().filter_map(|node| node.users.get(user));
        seen.cloned().reduce(User::with)
    }

    /// The first users of other nodes behind `after`, by their id.
    pub(super) fn online(&self, after: Option<&K>, limit: usize) -> BTreeMap<K, User<P>> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let mut all = BTreeMap::<K, User<P>>::new();
        for node in self.nodes.values() {
            for (user, seen) in node.users.range::<K, _>((from, Bound::Unbounded)).take(limit) {
                add(&mut all, user, seen.clone());
            }
        }
        all.into_iter().take(limit).collect()
    }

    /// A user is online on this node.
    pub(super) fn enter(&mut self, user: &K, profile: &P) -> Option<News<K, P>> {
        enter(&mut self.present, user, profile)
    }

    /// A user is online on this node no more.
    pub(super) fn leave(&mut self, user: &K, profile: &P) -> Option<News<K, P>> {
        leave(&mut self.present, user, profile)
    }

    /// Takes a letter of another node, which are in order for each node.
    pub(super) fn receive(&mut self, letter: Letter<K, P>, now: Duration) -> Outcome<K, P> {
        let mut outcome = Outcome::default();
        match letter {
            Letter::Beat { node, name, version } => {
                self.beat((node, name, version), now, &mut outcome)
            }
            Letter::Changes { node, version, users } => {
                self.change((node, version, users), now, &mut outcome);
            }
            Letter::Page { node, to, version, after, users, has_more } if to == self.own => {
                let page = Page { version, after, users, has_more };
                self.take_page(node, page, now, &mut outcome);
            }
            Letter::Page { .. } | Letter::Ask { .. } | Letter::Close { .. } => {}
        }
        outcome
    }

    fn beat(
        &mut self,
        (key, name, version): (NodeKey, String, u64),
        now: Duration,
        outcome: &mut Outcome<K, P>,
    ) {
        let own = self.own;
        if key == own {
            return;
        }
        let remote = meet(&mut self.nodes, key, now, outcome);
        remote.name = name;
        remote.heard = now;
        // While a list is on its way, what is missing shows in its pages.
        if remote.fresh.is_none() && remote.version != version {
            outcome.letters.push(remote.begin((own, key), version, now));
        }
    }

    fn change(
        &mut self,
        (key, version, users): (NodeKey, u64, Vec<Change<K, P>>),
        now: Duration,
        outcome: &mut Outcome<K, P>,
    ) {
        let Self { own, nodes, present, .. } = self;
        if key == *own {
            return;
        }
        let remote = meet(nodes, key, now, outcome);
        remote.heard = now;
        if version != remote.version + 1 {
            outcome.letters.push(remote.begin((*own, key), version, now));
            return;
        }
        remote.version = version;
        for (user, seen) in users {
            if let Some(fresh) = &mut remote.fresh {
                set(&mut fresh.users, user, seen);
                continue;
            }
            let profile = seen.as_ref().map(|seen| seen.profile.clone());
            let before = set(&mut remote.users, user.clone(), seen);
            outcome.news.extend(match (before, profile) {
                (None, Some(profile)) => enter(present, &user, &profile),
                (Some(before), None) => leave(present, &user, &before.profile),
                _ => None,
            });
        }
    }

    fn take_page(
        &mut self,
        key: NodeKey,
        page: Page<K, P>,
        now: Duration,
        outcome: &mut Outcome<K, P>,
    ) {
        let Self { own, nodes, present, .. } = self;
        let Some(remote) = nodes.get_mut(&key) else { return };
        remote.heard = now;
        let Some(fresh) = remote.fresh.as_mut().filter(|fresh| fresh.after == page.after) else {
            return;
        };
        if page.after.is_none() {
            // The list begins here, whatever was missed before.
            remote.version = page.version;
            fresh.users.clear();
        } else if remote.version != page.version {
            outcome.letters.push(remote.begin((*own, key), page.version, now));
            return;
        }
        fresh.after = page.users.last().map(|(user, _)| user.clone());
        fresh.users.extend(page.users);
        if page.has_more {
            fresh.asked = now;
            outcome.letters.push(Letter::Ask { of: key, by: *own, after: fresh.after.clone() });
            return;
        }
        let fresh = remote.fresh.take().map(|fresh| fresh.users).unwrap_or_default();
        let before = std::mem::replace(&mut remote.users, fresh);
        let gone = before.iter().filter(|(user, _)| !remote.users.contains_key(user));
        outcome.news.extend(gone.filter_map(|(user, seen)| leave(present, user, &seen.profile)));
        let come = remote.users.iter().filter(|(user, _)| !before.contains_key(user));
        outcome.news.extend(come.filter_map(|(user, seen)| enter(present, user, &seen.profile)));
    }

    /// Time has passed. To be called several times within a lease.
    pub(super) fn tick(&mut self, now: Duration) -> Outcome<K, P> {
        let Self { own, lease, nodes, present, ticked } = self;
        let mut outcome = Outcome::default();
        // Who was stopped has heard nobody, and can't tell who is dead.
        let was_away = now.saturating_sub(*ticked) > *lease / 2;
        *ticked = now;
        nodes.retain(|key, remote| {
            if was_away {
                remote.heard = now;
            }
            let is_alive = now.saturating_sub(remote.heard) <= *lease;
            if !is_alive {
                let users = remote.users.iter();
                let gone = users.filter_map(|(user, seen)| leave(present, user, &seen.profile));
                outcome.news.extend(gone);
            } else if let Some(fresh) = &mut remote.fresh
                && now.saturating_sub(fresh.asked) > PATIENCE
            {
                fresh.asked = now;
                outcome.letters.push(Letter::Ask {
                    of: *key,
                    by: *own,
                    after: fresh.after.clone(),
                });
            }
            is_alive
        });
        outcome
    }
}

/// A page that this node has asked for.
struct Page<K, P> {
    version: u64,
    after: Option<K>,
    users: Vec<(K, User<P>)>,
    has_more: bool,
}

impl<K: UserId, P> Remote<K, P> {
    /// One that has said nothing yet.
    fn new(now: Duration) -> Self {
        Self { name: String::new(), version: 0, users: BTreeMap::new(), heard: now, fresh: None }
    }

    /// Asks for all users; the letter with changes of this number is the last that is known of.
    fn begin(
        &mut self,
        (own, key): (NodeKey, NodeKey),
        version: u64,
        now: Duration,
    ) -> Letter<K, P> {
        self.version = version;
        self.fresh = Some(Fresh { users: BTreeMap::new(), after: None, asked: now });
        Letter::Ask { of: key, by: own, after: None }
    }
}

/// A node that has said something.
fn meet<'a, K: UserId, P>(
    nodes: &'a mut BTreeMap<NodeKey, Remote<K, P>>,
    key: NodeKey,
    now: Duration,
    outcome: &mut Outcome<K, P>,
) -> &'a mut Remote<K, P> {
    nodes.entry(key).or_insert_with(|| {
        outcome.has_met = true;
        Remote::new(now)
    })
}

fn set<K: UserId, P>(
    users: &mut BTreeMap<K, User<P>>,
    user: K,
    seen: Option<User<P>>,
) -> Option<User<P>> {
    match seen {
        Some(seen) => users.insert(user, seen),
        None => users.remove(&user),
    }
}

fn enter<K: UserId, P: Profile>(
    present: &mut HashMap<K, u32>,
    user: &K,
    profile: &P,
) -> Option<News<K, P>> {
    if let Some(count) = present.get_mut(user) {
        *count += 1;
        return None;
    }
    present.insert(user.clone(), 1);
    Some(News::Joined(user.clone(), profile.clone()))
}

fn leave<K: UserId, P: Profile>(
    present: &mut HashMap<K, u32>,
    user: &K,
    profile: &P,
) -> Option<News<K, P>> {
    let count = present.get_mut(user)?;
    *count -= 1;
    if *count > 0 {
        return None;
    }
    present.remove(user);
    Some(News::Left(user.clone(), profile.clone()))
}

/// Adds what a node says of a user to what others say.
pub(super) fn add<K: UserId, P: Profile>(all: &mut BTreeMap<K, User<P>>, user: &K, seen: User<P>) {
    let merged = match all.remove(user) {
        Some(before) => before.with(seen),
        None => seen,
    };
    all.insert(user.clone(), merged);
}
