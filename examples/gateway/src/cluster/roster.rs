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
use uuid::Uuid;

/// A node from its start to its end.
pub(crate) type NodeKey = u64;

/// Users in one letter.
pub(crate) const PAGE_LEN: usize = 500;

/// How long an answer may take before it is asked for again.
const PATIENCE: Duration = Duration::from_secs(1);

/// What a node says of a user.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Seen {
    pub(crate) username: String,
    /// Since when the user has been online there, in milliseconds since 1970.
    pub(crate) since: u64,
    pub(crate) connections: usize,
    /// How many of them take envelopes.
    pub(crate) envelopes: usize,
}

/// What nodes say to each other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(crate) enum Letter {
    /// The node lives, and has sent so many letters with changes.
    Beat { node: NodeKey, name: String, version: u64 },
    /// What has become of some users; nobody, where one has gone. It is the letter of this number.
    Changes { node: NodeKey, version: u64, users: Vec<(Uuid, Option<Seen>)> },
    /// A node wants to know the users of another one behind this one.
    Ask { of: NodeKey, by: NodeKey, after: Option<Uuid> },
    /// They are these, after so many letters with changes.
    Page {
        node: NodeKey,
        to: NodeKey,
        version: u64,
        after: Option<Uuid>,
        users: Vec<(Uuid, Seen)>,
        has_more: bool,
    },
}

/// What the users of this node are to hear.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum News {
    /// A user is online somewhere, and was nowhere.
    Joined(Uuid, String),
    /// A user is online nowhere any more.
    Left(Uuid, String),
}

/// What comes of a letter, or of time.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) news: Vec<News>,
    pub(crate) letters: Vec<Letter>,
}

/// See the [module's documentation](self).
#[derive(Debug)]
pub(crate) struct Roster {
    own: NodeKey,
    lease: Duration,
    nodes: BTreeMap<NodeKey, Remote>,
    /// On how many nodes a user is, this one included.
    present: HashMap<Uuid, u32>,
    ticked: Duration,
}

/// Another node.
#[derive(Debug)]
struct Remote {
    name: String,
    /// The letter with changes that was the last to be applied.
    version: u64,
    users: BTreeMap<Uuid, Seen>,
    heard: Duration,
    /// A list that is to take the place of `users`.
    fresh: Option<Fresh>,
}

#[derive(Debug)]
struct Fresh {
    users: BTreeMap<Uuid, Seen>,
    /// Behind whom the next page begins.
    after: Option<Uuid>,
    asked: Duration,
}

impl Roster {
    pub(crate) fn new(own: NodeKey, lease: Duration) -> Self {
        Self { own, lease, nodes: BTreeMap::new(), present: HashMap::new(), ticked: Duration::ZERO }
    }

    /// The names of the other nodes that live.
    pub(crate) fn nodes(&self) -> impl Iterator<Item = &str> {
        self.nodes.values().map(|node| &*node.name)
    }

    /// How many users are online anywhere.
    pub(crate) fn user_count(&self) -> usize {
        self.present.len()
    }

    /// What the other nodes say of a user.
    pub(crate) fn elsewhere(&self, user: Uuid) -> Option<Seen> {
        let seen = self.nodes.values().filter_map(|node| node.users.get(&user));
        seen.cloned().reduce(together)
    }

    /// The first users of other nodes behind `after`, by their id.
    pub(crate) fn online(&self, after: Option<Uuid>, limit: usize) -> BTreeMap<Uuid, Seen> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let mut all = BTreeMap::<Uuid, Seen>::new();
        for node in self.nodes.values() {
            for (user, seen) in node.users.range((from, Bound::Unbounded)).take(limit) {
                let merged = match all.remove(user) {
                    Some(before) => together(before, seen.clone()),
                    None => seen.clone(),
                };
                all.insert(*user, merged);
            }
        }
        all.into_iter().take(limit).collect()
    }

    /// A user is online on this node.
    pub(crate) fn enter(&mut self, user: Uuid, username: &str) -> Option<News> {
        enter(&mut self.present, user, username)
    }

    /// A user is online on this node no more.
    pub(crate) fn leave(&mut self, user: Uuid, username: &str) -> Option<News> {
        leave(&mut self.present, user, username)
    }

    /// Takes a letter of another node, which are in order for each node.
    pub(crate) fn receive(&mut self, letter: Letter, now: Duration) -> Outcome {
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
            Letter::Page { .. } | Letter::Ask { .. } => {}
        }
        outcome
    }

    fn beat(
        &mut self,
        (key, name, version): (NodeKey, String, u64),
        now: Duration,
        outcome: &mut Outcome,
    ) {
        let own = self.own;
        if key == own {
            return;
        }
        let remote = self.nodes.entry(key).or_insert_with(|| Remote::new(now));
        remote.name = name;
        remote.heard = now;
        // While a list is on its way, what is missing shows in its pages.
        if remote.fresh.is_none() && remote.version != version {
            outcome.letters.push(remote.begin((own, key), version, now));
        }
    }

    fn change(
        &mut self,
        (key, version, users): (NodeKey, u64, Vec<(Uuid, Option<Seen>)>),
        now: Duration,
        outcome: &mut Outcome,
    ) {
        let Self { own, nodes, present, .. } = self;
        if key == *own {
            return;
        }
        let remote = nodes.entry(key).or_insert_with(|| Remote::new(now));
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
            let name = seen.as_ref().map(|seen| seen.username.clone());
            let before = set(&mut remote.users, user, seen);
            outcome.news.extend(match (before, name) {
                (None, Some(name)) => enter(present, user, &name),
                (Some(before), None) => leave(present, user, &before.username),
                _ => None,
            });
        }
    }

    fn take_page(&mut self, key: NodeKey, page: Page, now: Duration, outcome: &mut Outcome) {
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
        fresh.after = page.users.last().map(|(user, _)| *user);
        fresh.users.extend(page.users);
        if page.has_more {
            fresh.asked = now;
            outcome.letters.push(Letter::Ask { of: key, by: *own, after: fresh.after });
            return;
        }
        let fresh = remote.fresh.take().map(|fresh| fresh.users).unwrap_or_default();
        let before = std::mem::replace(&mut remote.users, fresh);
        let gone = before.iter().filter(|(user, _)| !remote.users.contains_key(user));
        outcome.news.extend(gone.filter_map(|(user, seen)| leave(present, *user, &seen.username)));
        let come = remote.users.iter().filter(|(user, _)| !before.contains_key(user));
        outcome.news.extend(come.filter_map(|(user, seen)| enter(present, *user, &seen.username)));
    }

    /// Time has passed. To be called several times within a lease.
    pub(crate) fn tick(&mut self, now: Duration) -> Outcome {
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
                let gone = users.filter_map(|(user, seen)| leave(present, *user, &seen.username));
                outcome.news.extend(gone);
            } else if let Some(fresh) = &mut remote.fresh
                && now.saturating_sub(fresh.asked) > PATIENCE
            {
                fresh.asked = now;
                outcome.letters.push(Letter::Ask { of: *key, by: *own, after: fresh.after });
            }
            is_alive
        });
        outcome
    }
}

/// A page that this node has asked for.
struct Page {
    version: u64,
    after: Option<Uuid>,
    users: Vec<(Uuid, Seen)>,
    has_more: bool,
}

impl Remote {
    /// One that has said nothing yet.
    fn new(now: Duration) -> Self {
        Self { name: String::new(), version: 0, users: BTreeMap::new(), heard: now, fresh: None }
    }

    /// Asks for all users; the letter with changes of this number is the last that is known of.
    fn begin(&mut self, (own, key): (NodeKey, NodeKey), version: u64, now: Duration) -> Letter {
        self.version = version;
        self.fresh = Some(Fresh { users: BTreeMap::new(), after: None, asked: now });
        Letter::Ask { of: key, by: own, after: None }
    }
}

fn set(users: &mut BTreeMap<Uuid, Seen>, user: Uuid, seen: Option<Seen>) -> Option<Seen> {
    match seen {
        Some(seen) => users.insert(user, seen),
        None => users.remove(&user),
    }
}

fn enter(present: &mut HashMap<Uuid, u32>, user: Uuid, username: &str) -> Option<News> {
    let count = present.entry(user).or_default();
    *count += 1;
    (*count == 1).then(|| News::Joined(user, username.to_owned()))
}

fn leave(present: &mut HashMap<Uuid, u32>, user: Uuid, username: &str) -> Option<News> {
    let count = present.get_mut(&user)?;
    *count -= 1;
    if *count > 0 {
        return None;
    }
    present.remove(&user);
    Some(News::Left(user, username.to_owned()))
}

/// What two nodes say of a user.
pub(crate) fn together(one: Seen, other: Seen) -> Seen {
    let (first, then) = if one.since <= other.since { (one, other) } else { (other, one) };
    Seen {
        connections: first.connections + then.connections,
        envelopes: first.envelopes + then.envelopes,
        ..first
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeSet, VecDeque};

    use super::*;

    const LEASE: Duration = Duration::from_secs(5);
    const STEP: Duration = Duration::from_millis(50);
    const USERS: u64 = 12;

    struct Dice(u64);

    impl Dice {
        fn below(&mut self, bound: u64) -> u64 {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (self.0 >> 33) % bound
        }
    }

    /// A node: its users, what it knows of the others, and what its own users were told.
    struct Node {
        key: NodeKey,
        users: BTreeMap<Uuid, usize>,
        dirty: BTreeSet<Uuid>,
        version: u64,
        roster: Roster,
        told: BTreeSet<Uuid>,
        stopped_until: Duration,
        /// What comes from each node, in order.
        inbox: BTreeMap<NodeKey, VecDeque<(Duration, Letter)>>,
    }

    fn user(number: u64) -> Uuid {
        Uuid::from_u128(u128::from(number))
    }

    fn seen(connections: usize) -> Seen {
        Seen { username: "ann".to_owned(), since: 7, connections, envelopes: connections }
    }

    impl Node {
        fn new(key: NodeKey) -> Self {
            Self {
                key,
                users: BTreeMap::new(),
                dirty: BTreeSet::new(),
                version: 0,
                roster: Roster::new(key, LEASE),
                told: BTreeSet::new(),
                stopped_until: Duration::ZERO,
                inbox: BTreeMap::new(),
            }
        }

        fn tell(&mut self, news: impl IntoIterator<Item = News>) {
            for news in news {
                match news {
                    News::Joined(user, _) => assert!(self.told.insert(user), "told twice: {user}"),
                    News::Left(user, _) => assert!(self.told.remove(&user), "had left: {user}"),
                }
            }
        }

        fn enter(&mut self, user: Uuid) {
            *self.users.entry(user).or_default() += 1;
            self.dirty.insert(user);
            if self.users[&user] == 1 {
                let news = self.roster.enter(user, "ann");
                self.tell(news);
            }
        }

        fn leave(&mut self, user: Uuid) {
            let Some(count) = self.users.get_mut(&user) else { return };
            *count -= 1;
            self.dirty.insert(user);
            if *count == 0 {
                self.users.remove(&user);
                let news = self.roster.leave(user, "ann");
                self.tell(news);
            }
        }

        /// What it has to say now.
        fn speak(&mut self, now: Duration, beats: bool) -> Vec<Letter> {
            let mut letters = Vec::new();
            if !self.dirty.is_empty() {
                self.version += 1;
                let state = |user| (user, self.users.get(&user).map(|count| seen(*count)));
                let users = std::mem::take(&mut self.dirty).into_iter().map(state).collect();
                letters.push(Letter::Changes { node: self.key, version: self.version, users });
            }
            if beats {
                let (node, version) = (self.key, self.version);
                letters.push(Letter::Beat { node, name: node.to_string(), version });
            }
            let Outcome { news, letters: more } = self.roster.tick(now);
            self.tell(news);
            letters.extend(more);
            letters
        }

        fn hear(&mut self, letter: Letter, now: Duration) -> Vec<Letter> {
            if let Letter::Ask { of, by, after } = letter {
                if of != self.key {
                    return Vec::new();
                }
                let from = after.map_or(Bound::Unbounded, Bound::Excluded);
                let mut users: Vec<_> = self
                    .users
                    .range((from, Bound::Unbounded))
                    .take(4)
                    .map(|(user, count)| (*user, seen(*count)))
                    .collect();
                let has_more = users.len() > 3;
                users.truncate(3);
                let version = self.version;
                return vec![Letter::Page { node: of, to: by, version, after, users, has_more }];
            }
            let Outcome { news, letters } = self.roster.receive(letter, now);
            self.tell(news);
            letters
        }
    }

    /// Users come and go on three nodes; letters are late and lost; nodes are stopped, and are killed and come back
    /// with another key. When that is over, all agree on who is where, and what each told its users is the same.
    #[test]
    fn nodes_agree_whatever_was_lost_and_who_died() {
        for seed in 0..500 {
            play(seed);
        }
    }

    fn play(seed: u64) {
        let (mut dice, mut now, mut keys) = (Dice(seed), Duration::ZERO, 3);
        let mut nodes: Vec<_> = (0..3).map(Node::new).collect();
        for round in 0..1200_u64 {
            now += STEP;
            let is_wild = round < 800;
            if is_wild {
                let index = usize::try_from(dice.below(3)).unwrap();
                let user = user(dice.below(USERS));
                match dice.below(200) {
                    0 => {
                        nodes[index] = Node::new(keys);
                        keys += 1;
                    }
                    1 => {
                        nodes[index].stopped_until =
                            now + Duration::from_millis(dice.below(12_000));
                    }
                    2..100 => nodes[index].enter(user),
                    _ => nodes[index].leave(user),
                }
            }
            for index in 0..3 {
                let node = &mut nodes[index];
                if node.stopped_until > now && is_wild {
                    continue;
                }
                let mut letters = node.speak(now, round % 20 == 0);
                for inbox in node.inbox.clone().into_keys() {
                    while let Some(queue) = node.inbox.get_mut(&inbox)
                        && let Some((_, letter)) = queue.pop_front_if(|(due, _)| *due <= now)
                    {
                        letters.extend(node.hear(letter, now));
                    }
                }
                let from = node.key;
                for letter in letters {
                    for other in nodes.iter_mut().filter(|other| other.key != from) {
                        if !is_wild || dice.below(10) > 0 {
                            let due = now + Duration::from_millis(dice.below(100));
                            let queue = other.inbox.entry(from).or_default();
                            queue.push_back((due, letter.clone()));
                        }
                    }
                }
            }
        }
        let mut everybody = BTreeMap::<Uuid, usize>::new();
        for (user, count) in nodes.iter().flat_map(|node| &node.users) {
            *everybody.entry(*user).or_default() += count;
        }
        for node in &nodes {
            assert_eq!(node.roster.nodes().count(), 2, "seed {seed}");
            assert!(node.told.iter().eq(everybody.keys()), "seed {seed}: {:?}", node.told);
            assert_eq!(node.roster.user_count(), everybody.len());
            for (user, count) in &everybody {
                let own = node.users.get(user).copied().unwrap_or_default();
                let elsewhere = node.roster.elsewhere(*user).map_or(0, |seen| seen.connections);
                assert_eq!(own + elsewhere, *count, "seed {seed}: {user}");
            }
            let (mut after, mut listed) = (None, BTreeSet::new());
            loop {
                let page = node.roster.online(after, 2);
                after = page.keys().last().copied();
                listed.extend(page.into_keys());
                if after.is_none() {
                    break;
                }
            }
            let elsewhere = everybody.keys().filter(|user| node.roster.elsewhere(**user).is_some());
            assert!(listed.iter().eq(elsewhere), "seed {seed}");
        }
    }

    #[test]
    fn a_node_that_dies_takes_its_users_along_within_the_lease() {
        let mut roster = Roster::new(1, LEASE);
        let beat = |version| Letter::Beat { node: 2, name: "b".to_owned(), version };
        roster.receive(beat(0), Duration::ZERO);
        let users = vec![(user(1), Some(seen(1)))];
        let came = roster.receive(Letter::Changes { node: 2, version: 1, users }, STEP);
        assert_eq!(came.news, [News::Joined(user(1), "ann".to_owned())]);
        let mut now = STEP;
        while now + STEP <= LEASE + STEP {
            assert!(roster.tick(now).news.is_empty(), "{now:?}");
            now += STEP;
        }
        assert_eq!(roster.tick(now + STEP).news, [News::Left(user(1), "ann".to_owned())]);
        assert_eq!((roster.user_count(), roster.nodes().count()), (0, 0));
        // One that was stopped itself has missed the beats of the others.
        roster.receive(beat(0), now);
        assert_eq!(roster.nodes().count(), 1);
        roster.tick(now + LEASE * 3);
        assert_eq!(roster.nodes().count(), 1);
    }
}
