//! Clients in rooms over all nodes, who speak all the time. What each node's speaker says in a room is numbered, and
//! each listener checks what comes: nothing twice, nothing out of order, and nothing missing, where it may not be.

#![expect(
    unsafe_code,
    reason = "threads have files of their own, where a process may have too few"
)]

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use ringwire::client::{Client, Error};
use ringwire_peers::wait_within;
use rustix::process::{Resource, getrlimit};
use rustix::thread::{UnshareFlags, unshare_unsafe};
use serde::Deserialize;
use serde_json::json;

use crate::site::{NODES, PATIENCE, wait_until};
use crate::token::token;

/// Members of a room, as many on each node.
pub(crate) const MEMBERS: usize = 9;
const THREADS: usize = 8;
/// The shortest time of a round, unless another is told.
pub(crate) const PACE: Duration = Duration::from_millis(50);
/// Messages of a speaker that may be on their way when the next is said.
const WINDOW: u64 = 3;

/// What a member hears.
#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Heard {
    /// The node's speaker said this, the number of that.
    Message { message: (usize, u64), epoch: u64, offset: u64 },
    /// The other nodes will not hear what was said.
    Error { error: String },
    /// Where the room is.
    Recovery { epoch: u64, offset: u64, complete: bool },
}

/// A client in a room.
pub(crate) struct Member {
    client: Client,
    node: usize,
    /// Where the room was on this node with the last message.
    position: (u64, u64),
    /// By node, the last number of its speaker.
    heard: [Option<u64>; 3],
}

impl Member {
    /// Comes to a room, from where it was heard to; whether all that was missed follows.
    pub(crate) fn come(
        addr: SocketAddr,
        number: usize,
        before: Option<&Self>,
    ) -> Result<(Self, bool), Error> {
        let url = format!("ws://{addr}/ws?token={}", token(number));
        let builder = Client::builder().without_proxy().with_subprotocol("rooms.json");
        let builder = builder.with_read_timeout(PATIENCE).with_ping_interval(None);
        let mut client =
            builder.with_peer_timeout(None).with_handshake_timeout(PATIENCE).connect(url)?;
        let heard = before.map(|before| before.position);
        let recover = heard.map_or_else(
            || json!({}),
            |(epoch, offset)| json!({ "epoch": epoch, "offset": offset }),
        );
        let room = format!("room{}", number / MEMBERS);
        let subscribe = json!({ "type": "subscribe", "topic": room, "recover": recover, "id": 1 });
        client.send_text(&subscribe.to_string())?;
        let node = number % NODES.len();
        let mut member = Self { client, node, position: (0, 0), heard: [None; 3] };
        let Some(Heard::Recovery { epoch, offset, complete }) = member.receive()? else {
            panic!("the answer comes first");
        };
        member.position = heard.filter(|_| complete).unwrap_or((epoch, offset));
        if complete && let Some(before) = before {
            member.heard = before.heard;
        }
        Ok((member, complete))
    }

    /// What comes next. `None`: the gateway has closed the connection.
    fn receive(&mut self) -> Result<Option<Heard>, Error> {
        let Some(message) = self.client.receive()? else { return Ok(None) };
        let text = message.as_text().expect("a text");
        Ok(Some(serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))))
    }

    pub(crate) fn say(&mut self, room: usize, number: u64) -> Result<(), Error> {
        let message = json!([self.node, number]);
        let publish =
            json!({ "type": "publish", "topic": format!("room{room}"), "message": message });
        self.client.send_text(&publish.to_string())
    }

    /// Takes one message in, which has the next offset of the node: whose it is, and the numbers that are missing
    /// before it. `None`: the connection has been closed.
    fn hear(&mut self) -> Result<Option<Taken>, Error> {
        let (speaker, number) = match self.receive()? {
            None => return Ok(None),
            Some(Heard::Error { error }) => return Ok(Some(Taken::Refused(error))),
            Some(Heard::Recovery { .. }) => panic!("nobody asked"),
            Some(Heard::Message { message, epoch, offset }) => {
                let (before, last) = self.position;
                assert_eq!((epoch, offset), (before, last + 1), "{message:?} has the next number");
                self.position = (epoch, offset);
                message
            }
        };
        let last = self.heard[speaker].replace(number);
        let last = last.unwrap_or(number - 1);
        assert!(number > last, "{number} of {speaker} comes after {last}: twice, or out of order");
        Ok(Some(Taken::Message { speaker, missing: (last + 1, number) }))
    }

    /// Hears on until this was said by a speaker, and nothing is missing.
    pub(crate) fn expect(&mut self, speaker: usize, number: u64) {
        while self.heard[speaker].unwrap_or(0) < number {
            match self.hear().expect("it is open") {
                Some(Taken::Message { missing: (from, to), .. }) => assert_eq!(from, to),
                Some(Taken::Refused(error)) => panic!("{error}"),
                None => panic!("it is closed: {:?}", self.client.close_frame()),
            }
        }
    }
}

enum Taken {
    Message { speaker: usize, missing: (u64, u64) },
    Refused(String),
}

/// What is the matter with a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Node {
    /// Its speakers speak, and all hear them; its listeners hear all.
    Up,
    /// It ends at some moment, and what is on its way is lost.
    Dying,
    /// It ends at some moment, and what its own listeners have heard is heard by all.
    Draining,
    /// It does not run. Nobody speaks there.
    Stopped,
    /// It has no way to the others. Its own speakers and listeners go on.
    Apart,
    /// It runs again; its clients come back and speak, and nobody waits for that.
    Back,
}

/// What all clients are to know.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Phase {
    pub(crate) nodes: [Node; 3],
    /// The shortest time of a round.
    pub(crate) pace: Duration,
    ends: bool,
}

impl Phase {
    /// Whether a listener on one node waits for what is said on the other.
    fn waits(&self, listener: usize, speaker: usize) -> bool {
        let [hears, speaks] = [self.nodes[listener], self.nodes[speaker]];
        match listener == speaker {
            true => matches!(speaks, Node::Up | Node::Apart | Node::Draining),
            false => (hears, speaks) == (Node::Up, Node::Up),
        }
    }

    /// Whether something may be missing there.
    fn tolerates(&self, listener: usize, speaker: usize) -> bool {
        let [hears, speaks] = [self.nodes[listener], self.nodes[speaker]];
        let ends = |node| matches!(node, Node::Dying | Node::Draining | Node::Back);
        let is_cut = hears == Node::Stopped || hears == Node::Apart || speaks == Node::Apart;
        listener != speaker && is_cut || ends(hears) || ends(speaks)
    }
}

/// What came of it, in all rooms.
#[derive(Debug, Default)]
pub(crate) struct Report {
    pub(crate) said: u64,
    pub(crate) heard: u64,
    /// By listener's and speaker's node, what was missing where it might be.
    pub(crate) gaps: [[u64; 3]; 3],
    /// What speakers were told the other nodes will not hear.
    pub(crate) refused: u64,
}

struct Room {
    number: usize,
    addrs: [SocketAddr; 3],
    phase: Phase,
    members: Vec<Option<Member>>,
    /// By node, the last that its speaker said.
    said: [u64; 3],
    /// By listener's and speaker's node, from which number on nothing may be missing.
    whole_from: [[u64; 3]; 3],
    /// By node, up to which number nothing may be missing, since its own listeners have heard it.
    confirmed: [u64; 3],
    report: Report,
}

impl Room {
    fn new(number: usize, addrs: [SocketAddr; 3], phase: Phase) -> Self {
        let mut room = Self {
            number,
            addrs,
            phase,
            members: (0..MEMBERS).map(|_| None).collect(),
            said: [0; 3],
            whole_from: [[1; 3]; 3],
            confirmed: [0; 3],
            report: Report::default(),
        };
        (0..3).for_each(|node| room.come(node));
        for member in room.members.iter_mut().flatten() {
            // Nothing is missing from the first on.
            member.heard = [Some(0); 3];
        }
        room
    }

    fn end(self) -> Report {
        Report { said: self.said.iter().sum(), ..self.report }
    }

    fn places(node: usize) -> impl Iterator<Item = usize> {
        (0..MEMBERS).filter(move |place| place % NODES.len() == node)
    }

    fn come(&mut self, node: usize) {
        for place in Self::places(node) {
            let user = self.number * MEMBERS + place;
            let (member, _) = Member::come(self.addrs[node], user, None).expect("it is let in");
            self.members[place] = Some(member);
        }
    }

    fn enter(&mut self, phase: Phase) {
        let before = std::mem::replace(&mut self.phase, phase);
        for node in 0..3 {
            if phase.nodes[node] != Node::Back {
                continue;
            }
            if matches!(before.nodes[node], Node::Dying | Node::Draining) {
                self.see_off(node, before.nodes[node] == Node::Draining);
                self.come(node);
            }
        }
        for listener in 0..3 {
            for speaker in 0..3 {
                let was_open = before.tolerates(listener, speaker);
                if was_open && !phase.tolerates(listener, speaker) {
                    self.whole_from[listener][speaker] = self.said[speaker] + 1;
                }
            }
        }
    }

    /// Hears what the members of a node that has ended were still sent.
    fn see_off(&mut self, node: usize, is_drained: bool) {
        for place in Self::places(node) {
            let Some(mut member) = self.members[place].take() else { continue };
            while let Ok(Some(taken)) = member.hear() {
                self.note(node, &taken);
            }
            if is_drained {
                self.members[place] = Some(member);
                self.goes(place);
            }
        }
    }

    /// A member of a node that drains has been closed.
    fn goes(&mut self, place: usize) {
        let Some(member) = self.members[place].take() else { return };
        assert!(member.client.close_frame().is_some(), "it was told that the node ends");
        let confirmed = &mut self.confirmed[member.node];
        *confirmed = member.heard[member.node].unwrap_or(0).max(*confirmed);
    }

    fn speak(&mut self) {
        for node in 0..3 {
            if self.phase.nodes[node] == Node::Stopped {
                continue;
            }
            let Some(member) = &mut self.members[node] else { continue };
            let spoken = member.say(self.number, self.said[node] + 1);
            match spoken {
                Ok(()) => self.said[node] += 1,
                Err(error) => {
                    let state = self.phase.nodes[node];
                    assert!(matches!(state, Node::Dying | Node::Draining), "{state:?}: {error}");
                }
            }
        }
    }

    /// Hears on until nobody is further back than this.
    fn hear(&mut self, window: u64) {
        for place in 0..MEMBERS {
            let listener = place % NODES.len();
            while let Some(speaker) = self.is_waited_for(place, window) {
                let member = self.members[place].as_mut().expect("it is there");
                let taken = match member.hear() {
                    Ok(Some(taken)) => taken,
                    Ok(None) | Err(_) if self.phase.nodes[listener] == Node::Draining => {
                        self.goes(place);
                        break;
                    }
                    Ok(None) => panic!("closed: {:?}", member.client.close_frame()),
                    Err(error) => panic!(
                        "member {place} of room {} waits for {} of {speaker}, heard {:?}: {error}",
                        self.number, self.said[speaker], member.heard,
                    ),
                };
                self.note(listener, &taken);
            }
        }
    }

    fn is_waited_for(&self, place: usize, window: u64) -> Option<usize> {
        let listener = place % NODES.len();
        let member = self.members[place].as_ref()?;
        let is_behind = |speaker: &usize| {
            let due = self.said[*speaker].saturating_sub(window);
            due >= self.whole_from[listener][*speaker] && member.heard[*speaker].unwrap_or(0) < due
        };
        (0..3).filter(|speaker| self.phase.waits(listener, *speaker)).find(is_behind)
    }

    fn note(&mut self, listener: usize, taken: &Taken) {
        match taken {
            Taken::Message { speaker, missing: (from, to) } => {
                self.report.heard += 1;
                if from == to {
                    return;
                }
                let may_be = self.phase.tolerates(listener, *speaker)
                    || *to <= self.whole_from[listener][*speaker];
                assert!(may_be, "{from}..{to} of {speaker} are missing on {listener}");
                let confirmed = self.confirmed[*speaker];
                assert!(
                    listener == *speaker || *from > confirmed,
                    "{from} of {speaker} is missing on {listener}, and was heard there up to {confirmed}"
                );
                self.report.gaps[listener][*speaker] += to - from;
            }
            Taken::Refused(_) => self.report.refused += 1,
        }
    }
}

impl Report {
    fn add(mut self, other: Self) -> Self {
        self.said += other.said;
        self.heard += other.heard;
        self.refused += other.refused;
        let cells = self.gaps.iter_mut().flatten().zip(other.gaps.into_iter().flatten());
        cells.for_each(|(sum, one)| *sum += one);
        self
    }
}

#[derive(Debug)]
struct Shared {
    /// How many threads have all their clients in their rooms.
    come: usize,
    /// Whether they speak yet.
    talks: bool,
    /// How many phases there have been.
    life: u64,
    phase: Phase,
    /// By thread, in which phase it is, and how many rounds of that it has ended.
    rounds: Vec<(u64, u64)>,
}

/// All clients, in the rooms of a few threads.
pub(crate) struct Crowd {
    shared: Arc<Mutex<Shared>>,
    threads: Vec<JoinHandle<Report>>,
    pub(crate) users: usize,
}

fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Crowd {
    /// Has all clients come to their nodes.
    pub(crate) fn come(addrs: [SocketAddr; 3], count: usize) -> Self {
        let phase = Phase { nodes: [Node::Up; 3], pace: PACE, ends: false };
        let rounds = vec![(0, 0); THREADS];
        let shared = Shared { come: 0, talks: false, life: 0, phase, rounds };
        let shared = Arc::new(Mutex::new(shared));
        let rooms = count / MEMBERS;
        let spawn = |thread| {
            let shared = Arc::clone(&shared);
            thread::spawn(move || {
                if has_too_few_files(count) {
                    have_files_of_its_own();
                }
                let numbers = (thread..rooms).step_by(THREADS);
                let rooms = numbers.map(|number| Room::new(number, addrs, phase)).collect();
                talk(thread, rooms, &shared)
            })
        };
        let threads = (0..THREADS).map(spawn).collect();
        let crowd = Self { shared, threads, users: rooms * MEMBERS };
        wait_within(PATIENCE * 5, "all have come", || {
            crowd.is_well();
            lock(&crowd.shared).come == THREADS
        });
        crowd
    }

    pub(crate) fn room_count(&self) -> usize {
        self.users / MEMBERS
    }

    /// Has all speak, round after round.
    pub(crate) fn talk(&self) {
        lock(&self.shared).talks = true;
    }

    /// Tells all what is the matter from now on, and returns when they know.
    pub(crate) fn tell(&self, change: impl FnOnce(&mut Phase)) {
        let mut shared = lock(&self.shared);
        change(&mut shared.phase);
        shared.life += 1;
        drop(shared);
        self.rounds(0);
    }

    pub(crate) fn node(&self, node: usize, state: Node) {
        self.tell(|phase| phase.nodes[node] = state);
    }

    /// Waits for so many rounds since all were told something last.
    pub(crate) fn rounds(&self, count: u64) {
        wait_until(&format!("{count} rounds"), || {
            self.is_well();
            let shared = lock(&self.shared);
            shared.rounds.iter().all(|(life, rounds)| *life == shared.life && *rounds >= count)
        });
    }

    fn is_well(&self) {
        assert!(!self.threads.iter().any(JoinHandle::is_finished), "a thread has failed");
    }

    /// Has all hear the last of it, and ends.
    pub(crate) fn end(self) -> Report {
        let mut shared = lock(&self.shared);
        shared.phase.ends = true;
        shared.life += 1;
        drop(shared);
        let reports = self.threads.into_iter().map(|it| it.join().expect("all is well"));
        reports.fold(Report::default(), Report::add)
    }
}

fn talk(thread: usize, mut rooms: Vec<Room>, shared: &Mutex<Shared>) -> Report {
    lock(shared).come += 1;
    while !lock(shared).talks {
        thread::sleep(PACE);
    }
    let mut own = (0, 0);
    loop {
        let began = Instant::now();
        let (life, phase) = {
            let mut shared = lock(shared);
            shared.rounds[thread] = own;
            (shared.life, shared.phase)
        };
        if life != own.0 {
            rooms.iter_mut().for_each(|room| room.enter(phase));
            own = (life, 0);
            lock(shared).rounds[thread] = own;
        }
        rooms.iter_mut().for_each(Room::speak);
        if phase.ends {
            rooms.iter_mut().for_each(|room| room.hear(0));
            return rooms.into_iter().map(Room::end).fold(Report::default(), Report::add);
        }
        rooms.iter_mut().for_each(|room| room.hear(WINDOW));
        own.1 += 1;
        thread::sleep(phase.pace.saturating_sub(began.elapsed()));
    }
}

/// Whether one process may not have a file for each client.
fn has_too_few_files(clients: usize) -> bool {
    let most = getrlimit(Resource::Nofile).current;
    most.is_some_and(|most| most < clients as u64 + 1000)
}

/// Gives this thread a table of files of its own, with room for as many as a process may have.
fn have_files_of_its_own() {
    // SAFETY: what this thread opens from now on stays with it, and it uses nothing that others open later.
    let done = unsafe { unshare_unsafe(UnshareFlags::FILES) };
    done.expect("a thread may have its own files");
}
