//! Nodes in a simulation, and what a user is on several of them.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Bound;

use ringwire_seeds::Random;

use super::roster::{Letter, NodeKey, Outcome, Roster};
use super::*;

const LEASE: Duration = Duration::from_secs(5);
const STEP: Duration = Duration::from_millis(50);
const USERS: usize = 12;

type Said = Letter<u64, Person>;
type Queue = VecDeque<(Duration, Said)>;

/// A node: its users, what it knows of the others, and what its own users were told.
struct Node {
    key: NodeKey,
    users: BTreeMap<u64, usize>,
    dirty: BTreeSet<u64>,
    version: u64,
    roster: Roster<u64, Person>,
    told: BTreeSet<u64>,
    stopped_until: Duration,
    /// What comes from each node, in order.
    inbox: BTreeMap<NodeKey, Queue>,
}

fn user(number: u64) -> u64 {
    number
}

fn seen(connections: usize) -> User<Person> {
    let since = SystemTime::UNIX_EPOCH + Duration::from_millis(7);
    User { since, connection_count: connections, profile: Person::new("ann") }
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

    fn tell(&mut self, news: impl IntoIterator<Item = News<u64, Person>>) {
        for news in news {
            match news {
                News::Joined(user, _) => assert!(self.told.insert(user), "told twice: {user}"),
                News::Left(user, _) => assert!(self.told.remove(&user), "had left: {user}"),
            }
        }
    }

    fn enter(&mut self, user: u64) {
        *self.users.entry(user).or_default() += 1;
        self.dirty.insert(user);
        if self.users[&user] == 1 {
            let news = self.roster.enter(&user, &Person::new("ann"));
            self.tell(news);
        }
    }

    fn leave(&mut self, user: u64) {
        let Some(count) = self.users.get_mut(&user) else { return };
        *count -= 1;
        self.dirty.insert(user);
        if *count == 0 {
            self.users.remove(&user);
            let news = self.roster.leave(&user, &Person::new("ann"));
            self.tell(news);
        }
    }

    /// What it has to say now.
    fn speak(&mut self, now: Duration, beats: bool) -> Vec<Said> {
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
        let Outcome { news, letters: more, .. } = self.roster.tick(now);
        self.tell(news);
        letters.extend(more);
        letters
    }

    fn hear(&mut self, letter: Said, now: Duration) -> Vec<Said> {
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
        let Outcome { news, letters, .. } = self.roster.receive(letter, now);
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
    let (mut random, mut now, mut keys) = (Random::new(seed), Duration::ZERO, 3);
    let mut nodes: Vec<_> = (0..3).map(Node::new).collect();
    for round in 0..1200_u64 {
        now += STEP;
        let is_wild = round < 800;
        if is_wild {
            let index = random.below(3);
            let user = user(random.below(USERS) as u64);
            match random.below(200) {
                0 => {
                    nodes[index] = Node::new(keys);
                    keys += 1;
                }
                1 => {
                    nodes[index].stopped_until = now + random.up_to(Duration::from_secs(12));
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
                    if !is_wild || random.below(10) > 0 {
                        let due = now + random.up_to(Duration::from_millis(100));
                        let queue = other.inbox.entry(from).or_default();
                        queue.push_back((due, letter.clone()));
                    }
                }
            }
        }
    }
    let mut everybody = BTreeMap::<u64, usize>::new();
    for (user, count) in nodes.iter().flat_map(|node| &node.users) {
        *everybody.entry(*user).or_default() += count;
    }
    for node in &nodes {
        assert_eq!(node.roster.nodes().count(), 2, "seed {seed}");
        assert!(node.told.iter().eq(everybody.keys()), "seed {seed}: {:?}", node.told);
        assert_eq!(node.roster.user_count(), everybody.len());
        for (user, count) in &everybody {
            let own = node.users.get(user).copied().unwrap_or_default();
            let elsewhere = node.roster.elsewhere(user).map_or(0, |seen| seen.connection_count);
            assert_eq!(own + elsewhere, *count, "seed {seed}: {user}");
        }
        let (mut after, mut listed) = (None, BTreeSet::new());
        loop {
            let page = node.roster.online(after.as_ref(), 2);
            after = page.keys().last().copied();
            listed.extend(page.into_keys());
            if after.is_none() {
                break;
            }
        }
        let elsewhere = everybody.keys().filter(|user| node.roster.elsewhere(user).is_some());
        assert!(listed.iter().eq(elsewhere), "seed {seed}");
    }
}

#[test]
fn a_node_that_dies_takes_its_users_along_within_the_lease() {
    let mut roster = Roster::new(1, LEASE);
    let beat = |version| Letter::Beat { node: 2, name: "b".to_owned(), version };
    assert!(roster.receive(beat(0), Duration::ZERO).has_met);
    assert!(!roster.receive(beat(0), Duration::ZERO).has_met, "they know each other");
    let users = vec![(user(1), Some(seen(1)))];
    let came = roster.receive(Letter::Changes { node: 2, version: 1, users }, STEP);
    assert_eq!(came.news, [News::Joined(user(1), Person::new("ann"))]);
    let mut now = STEP;
    while now + STEP <= LEASE + STEP {
        assert!(roster.tick(now).news.is_empty(), "{now:?}");
        now += STEP;
    }
    assert_eq!(roster.tick(now + STEP).news, [News::Left(user(1), Person::new("ann"))]);
    assert_eq!((roster.user_count(), roster.nodes().count()), (0, 0));
    // One that was stopped itself has missed the beats of the others.
    roster.receive(beat(0), now);
    assert_eq!(roster.nodes().count(), 1);
    roster.tick(now + LEASE * 3);
    assert_eq!(roster.nodes().count(), 1);
}

/// Somebody with so many connections of a sort.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Person {
    pub(super) name: String,
    pub(super) count: usize,
}

impl Person {
    pub(super) fn new(name: &str) -> Self {
        Self { name: name.to_owned(), count: 1 }
    }
}

impl Profile for Person {
    fn merge(&mut self, later: &Self) {
        self.count += later.count;
    }
}

#[test]
fn the_oldest_goes_first_whatever_the_order_of_nodes() {
    let seen = |millis, name| User {
        since: SystemTime::UNIX_EPOCH + Duration::from_millis(millis),
        connection_count: 2,
        profile: Person::new(name),
    };
    let (older, newer) = (seen(1, "ann"), seen(2, "anna"));
    let both = older.clone().with(newer.clone());
    assert_eq!(both, newer.with(older.clone()));
    assert_eq!((both.since, both.connection_count), (older.since, 4));
    assert_eq!(both.profile, Person { name: "ann".to_owned(), count: 2 });
}

#[test]
fn times_cross_to_the_millisecond() {
    let since = SystemTime::UNIX_EPOCH + Duration::from_micros(1_700_000_000_123_456);
    let user = User { since, connection_count: 1, profile: Person::new("ann") };
    let json = serde_json::to_string(&user).unwrap();
    assert!(json.starts_with(r#"{"since":1700000000123,"#), "{json}");
    let back: User<Person> = serde_json::from_str(&json).unwrap();
    assert_eq!(since.duration_since(back.since).unwrap(), Duration::from_micros(456));
    assert!(serde_json::from_str::<User<Person>>(&json.replace("123", "x")).is_err());
}
