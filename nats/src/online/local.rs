//! Who is online on this node, over all workers.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::SystemTime;

use ringwire::ConnId;

use super::{Counts, News, Page, Profile, User, UserId};

/// A connection is here from its opening to its end, so that pages and counts are of now. What others are told of a
/// user goes by the engine's [`on_presence`](ringwire::Handler::on_presence), one call after the other for each user;
/// this is where it is noted what they have been told.
pub(super) struct Local<K, P> {
    list: RwLock<List<K, P>>,
    max_connections_per_user: usize,
}

struct List<K, P> {
    members: BTreeMap<K, Member<P>>,
    connection_count: usize,
    /// Members with connections.
    user_count: usize,
}

/// A user who has connections, or whose leaving has not been told.
struct Member<P> {
    since: SystemTime,
    /// What the connections say; what the last one said, where there is none left.
    profile: P,
    /// The oldest first.
    connections: Vec<(ConnId, P)>,
    /// Others have been told that the user has joined.
    is_known: bool,
}

impl<P: Profile> Member<P> {
    fn user(&self) -> Option<User<P>> {
        (!self.connections.is_empty()).then(|| User {
            since: self.since,
            connection_count: self.connections.len(),
            profile: self.profile.clone(),
        })
    }
}

impl<K: UserId, P: Profile> Local<K, P> {
    pub(super) fn new(max_connections_per_user: usize) -> Self {
        let list = List { members: BTreeMap::new(), connection_count: 0, user_count: 0 };
        Self { list: RwLock::new(list), max_connections_per_user }
    }

    pub(super) fn max_connections_per_user(&self) -> usize {
        self.max_connections_per_user
    }

    /// The list is in order between two calls, whatever has panicked.
    fn read(&self) -> RwLockReadGuard<'_, List<K, P>> {
        self.list.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, List<K, P>> {
        self.list.write().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn page(&self, after: Option<&K>, limit: usize) -> Page<K, P> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let list = self.read();
        let members = list.members.range::<K, _>((from, Bound::Unbounded));
        let mut users = members.filter_map(|(id, it)| Some((id.clone(), it.user()?)));
        let page: Vec<_> = users.by_ref().take(limit).collect();
        let next = users.next().and_then(|_| Some(page.last()?.0.clone()));
        Page { users: page, next }
    }

    pub(super) fn counts(&self) -> Counts {
        let list = self.read();
        let users = list.user_count;
        Counts { connections: list.connection_count, users_here: users, users }
    }

    pub(super) fn sum(&self, of: impl Fn(usize, &P) -> usize) -> usize {
        let list = self.read();
        let there = list.members.values().filter(|member| !member.connections.is_empty());
        there.map(|member| of(member.connections.len(), &member.profile)).sum()
    }

    pub(super) fn connections(&self, user: &K) -> Vec<ConnId> {
        let list = self.read();
        let connections = list.members.get(user).map(|it| &*it.connections).unwrap_or_default();
        connections.iter().map(|(conn, _)| *conn).collect()
    }

    pub(super) fn of(&self, user: &K) -> Option<User<P>> {
        self.read().members.get(user)?.user()
    }

    /// A user has one connection more, unless that would be too many: whether it is fine.
    pub(super) fn enter(&self, user: &K, profile: P, conn: ConnId) -> bool {
        let mut list = self.write();
        let List { members, connection_count, user_count } = &mut *list;
        let connections = match members.get_mut(user) {
            Some(member) if member.connections.len() >= self.max_connections_per_user => {
                return false;
            }
            Some(member) if !member.connections.is_empty() => {
                member.profile.merge(&profile);
                &mut member.connections
            }
            Some(member) => {
                *user_count += 1;
                member.since = SystemTime::now();
                member.profile = profile.clone();
                &mut member.connections
            }
            None => {
                *user_count += 1;
                let (since, profile) = (SystemTime::now(), profile.clone());
                let member = Member { since, profile, connections: Vec::new(), is_known: false };
                &mut members.entry(user.clone()).or_insert(member).connections
            }
        };
        connections.push((conn, profile));
        *connection_count += 1;
        true
    }

    /// A connection has ended: whether it was here.
    pub(super) fn leave(&self, user: &K, conn: ConnId) -> bool {
        let mut list = self.write();
        let List { members, connection_count, user_count } = &mut *list;
        let Some(member) = members.get_mut(user) else { return false };
        let Some(index) = member.connections.iter().position(|(it, _)| *it == conn) else {
            return false;
        };
        member.connections.remove(index);
        *connection_count -= 1;
        if let [(_, first), others @ ..] = &*member.connections {
            member.profile = first.clone();
            others.iter().for_each(|(_, later)| member.profile.merge(later));
            return true;
        }
        *user_count -= 1;
        if !member.is_known {
            members.remove(user);
        }
        true
    }

    /// The engine says that a connection of a user has come: the news, if it is.
    pub(super) fn tell_joined(&self, user: &K) -> Option<News<K, P>> {
        let mut list = self.write();
        // Who has gone again meanwhile is passed over.
        let is_news = |it: &&mut Member<P>| !it.is_known && !it.connections.is_empty();
        let member = list.members.get_mut(user).filter(is_news)?;
        member.is_known = true;
        Some(News::Joined(user.clone(), member.profile.clone()))
    }

    /// The engine says that the last connection of a user has gone: the news, if it is. One that has come since will be
    /// told of.
    pub(super) fn tell_left(&self, user: &K) -> Option<News<K, P>> {
        let mut list = self.write();
        let member = list.members.get_mut(user).filter(|it| it.is_known)?;
        member.is_known = false;
        let profile = member.profile.clone();
        if member.connections.is_empty() {
            list.members.remove(user);
        }
        Some(News::Left(user.clone(), profile))
    }
}

#[cfg(test)]
mod tests {
    use ringwire::Request;

    use super::super::tests::Person;
    use super::*;

    /// An id, which only the engine makes.
    fn conn() -> ConnId {
        Request::builder("/").build().with(|request| request.id())
    }

    fn ann() -> Person {
        Person::new("ann")
    }

    #[test]
    fn pages_are_one_list() {
        let local = Local::new(2);
        let numbers = [0_u64, 3, 4, 5, 64, 65, 127, 128, 200, 255];
        for number in numbers.iter().rev() {
            assert!(local.enter(number, ann(), conn()));
        }
        for limit in [1, 2, 3, 9, 10, 100] {
            let (mut after, mut found) = (None, Vec::new());
            loop {
                let page = local.page(after.as_ref(), limit);
                assert!(page.users.len() <= limit);
                found.extend(page.users.iter().map(|(user, _)| *user));
                assert!(page.next.is_none_or(|next| Some(&next) == found.last()));
                after = page.next;
                if after.is_none() {
                    break;
                }
            }
            assert_eq!(found, numbers, "{limit} a page");
        }
        assert_eq!(local.counts(), Counts { connections: 10, users_here: 10, users: 10 });
    }

    #[test]
    fn joining_and_leaving_is_told_in_turn() {
        let (local, user) = (Local::new(2), "ann".to_owned());
        let joined = Some(News::Joined(user.clone(), ann()));
        let left = Some(News::Left(user.clone(), ann()));
        assert_eq!(local.tell_joined(&user), None);
        assert!(local.enter(&user, ann(), conn()));
        assert!(local.enter(&user, Person::new("anna"), conn()));
        assert!(!local.enter(&user, ann(), conn()), "two are enough");
        let online = local.of(&user).unwrap();
        assert_eq!(online.connection_count, 2);
        assert_eq!(online.profile, Person { name: "ann".to_owned(), count: 2 });
        assert!(local.leave(&user, conn()));
        assert_eq!(local.of(&user).unwrap().profile, Person::new("anna"));
        assert!(local.enter(&user, ann(), conn()));
        assert!(local.leave(&user, conn()));
        assert_eq!(local.tell_joined(&user), joined);
        assert_eq!(local.tell_joined(&user), None);
        assert!(local.leave(&user, conn()));
        assert!(!local.leave(&user, conn()));
        assert_eq!((local.page(None, 9).users, local.of(&user)), (Vec::new(), None));
        assert_eq!(local.counts(), Counts::default());
        // Back before anybody has been told.
        assert!(local.enter(&user, ann(), conn()));
        assert_eq!(local.tell_left(&user), left);
        assert_eq!(local.tell_left(&user), None);
        assert_eq!(local.tell_joined(&user), joined);
        assert!(local.leave(&user, conn()));
        assert_eq!(local.tell_left(&user), left);
        assert_eq!(local.tell_joined(&user), None);
        assert!(local.read().members.is_empty(), "nothing is left of the user");
    }
}
