//! One node against a stream that drops its oldest, over a line that loses: whoever comes back gets what was missed
//! exactly or hears that it is gone, and in the end nobody has missed anything without being told.

use std::collections::VecDeque;
use std::iter;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use ringwire_codec::Message;

use super::{Entry, Exchange, Loaded};
use crate::base::mailbox::Bell;
use crate::base::wake::Wake;
use crate::conn::options::Compress;
use crate::driver::Token;
use crate::topic::config::{HistoryConfig, TopicConfig};
use crate::topic::delivery::Delivery;
use crate::topic::exchange::{Feed, feed};
use crate::topic::history::Position;
use crate::topic::relay::{Departures, Relay};
use crate::topic::{PublishOptions, Topics};

const TOPICS: [&str; 2] = ["room.a", "room.b"];
const CLIENTS: u32 = 5;
/// How many messages of a topic the node keeps; the stream keeps one more.
const KEPT: usize = 4;
const EPOCH: u64 = 1 << 51;

#[derive(Clone, Debug)]
enum Step {
    Publish(usize),
    /// So much of what the stream has numbered comes to the node.
    Carry(usize),
    /// What is on the way is lost, and the node catches up at once or with the next that comes.
    Cut(bool),
    /// So much of what was posted comes to the worker.
    Deliver(usize),
    /// A client comes, from where it was.
    Come(u32),
    Leave(u32),
    /// The bus answers what it was asked, or can't.
    Answer(bool),
    /// The bus notices what nobody subscribes to.
    Tidy,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        8 => (0..2_usize).prop_map(Step::Publish),
        6 => (1..4_usize).prop_map(Step::Carry),
        1 => any::<bool>().prop_map(Step::Cut),
        6 => (1..6_usize).prop_map(Step::Deliver),
        4 => (0..CLIENTS).prop_map(Step::Come),
        2 => (0..CLIENTS).prop_map(Step::Leave),
        4 => prop::bool::weighted(0.9).prop_map(Step::Answer),
        1 => Just(Step::Tidy),
    ];
    prop::collection::vec(step, 1..250)
}

struct Ring;

impl Wake for Ring {
    fn wake(&self) {}
}

/// What the stream has, and what it ever had.
#[derive(Default)]
struct Stream {
    last: u64,
    kept: [VecDeque<u64>; 2],
    truth: [Vec<u64>; 2],
}

impl Stream {
    fn number(&mut self, topic: usize) -> (u64, Option<u64>) {
        self.last += 1;
        let previous = self.kept[topic].back().copied();
        self.kept[topic].push_back(self.last);
        self.truth[topic].push(self.last);
        if self.kept[topic].len() > KEPT + 1 {
            self.kept[topic].pop_front();
        }
        (self.last, previous)
    }

    fn between(&self, topic: usize, after: u64, upto: u64) -> Vec<u64> {
        let all = self.truth[topic].iter().copied();
        all.filter(|number| *number > after && *number <= upto).collect()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Away,
    Waiting,
    There,
}

#[derive(Clone, Debug)]
struct Client {
    phase: Phase,
    heard: Option<Position>,
    /// It has seen that something is missing, and asks again.
    asks: bool,
}

struct Site {
    stream: Stream,
    /// On the way to the node.
    line: VecDeque<(usize, u64, Option<u64>)>,
    exchange: Exchange,
    topics: Topics,
    feed: Feed,
    delivery: Delivery,
    clients: Vec<Client>,
    /// The bus had no answer, so that gone may be what is not.
    is_unsure: bool,
    departures: Departures,
}

fn stamp(message: Message<'_>, position: Position, previous: Option<u64>) -> Vec<u8> {
    let previous = previous.map_or(0, |previous| previous);
    let text = message.as_text().unwrap_or_default();
    format!("{} {} {previous} {text}", position.epoch, position.offset).into_bytes()
}

/// The number that the text says has to be that of its position.
fn parse(message: Message<'_>) -> (Position, u64) {
    let text = message.as_text().unwrap();
    let words: Vec<u64> = text.split(' ').map(|word| word.parse().unwrap()).collect();
    let [epoch, offset, previous, number] = words[..] else { panic!("{text}") };
    assert_eq!(offset, number, "{text}");
    (Position { epoch, offset }, previous)
}

impl Site {
    fn new() -> Self {
        let history =
            HistoryConfig::default().with_max_count(KEPT).with_max_age(None).with_stamp(stamp);
        let settings = TopicConfig::default().with_history("room.*", history);
        let (feeder, feed) = feed(1 << 20, &Bell::new(Ring));
        let exchange = Exchange::new(settings, iter::once(feeder));
        let (relay, departures) = Relay::new(1, 1 << 20, Arc::default());
        exchange.connect(relay);
        exchange.share_numbers();
        let mut stream = Stream::default();
        // Whoever asks for a topic first takes a number of it.
        stream.number(0);
        stream.number(1);
        Self {
            stream,
            line: VecDeque::new(),
            topics: Topics::new(0, exchange.clone()),
            exchange,
            feed,
            delivery: Delivery::default(),
            clients: vec![
                Client { phase: Phase::Away, heard: None, asks: false };
                CLIENTS as usize
            ],
            is_unsure: false,
            departures,
        }
    }

    fn topic(slot: u32) -> usize {
        slot as usize % 2
    }

    fn read(&self, topic: usize, from: Option<u64>) -> (u64, bool, Vec<u64>) {
        let kept = &self.stream.kept[topic];
        let oldest = *kept.front().unwrap();
        let floor = from.filter(|from| oldest <= *from);
        let behind = floor.unwrap_or(oldest);
        (behind, floor.is_none(), kept.iter().copied().filter(|it| *it > behind).collect())
    }

    fn load(&self, topic: usize, from: Option<u64>) {
        let (floor, is_whole, numbers) = self.read(topic, from);
        let texts: Vec<_> = numbers.iter().map(u64::to_string).collect();
        let entries = numbers.iter().zip(&texts).map(|(offset, text)| Entry {
            offset: *offset,
            age: Duration::ZERO,
            message: Some((Message::Text(text), Compress::Never)),
        });
        let loaded = Loaded { epoch: EPOCH, floor, is_whole, entries: entries.collect() };
        self.exchange.load(TOPICS[topic], &loaded).1.unwrap();
    }

    fn catch_up(&self) {
        for (topic, heard) in self.exchange.all_heard() {
            let topic = TOPICS.iter().position(|it| *it == topic).unwrap();
            self.load(topic, Some(heard.offset));
        }
    }

    /// What the line brings next, as the bus takes it.
    fn carry(&mut self) {
        let Some((topic, offset, previous)) = self.line.pop_front() else { return };
        if !self.exchange.relay().unwrap().is_wanted(TOPICS[topic]) {
            return;
        }
        if let Some((heard, _)) = self.exchange.heard(TOPICS[topic])
            && offset > heard.offset
            && previous != Some(heard.offset)
        {
            self.load(topic, Some(heard.offset));
        }
        let text = offset.to_string();
        let place = (Position { epoch: EPOCH, offset }, previous);
        let message = Some((Message::Text(&text), Compress::Never));
        self.exchange.follow(TOPICS[topic], place, message).unwrap();
    }

    fn deliver(&mut self) -> bool {
        let Some(publication) = self.feed.take() else { return false };
        self.topics.take_in(publication);
        let mut delivery = std::mem::take(&mut self.delivery);
        while self.topics.begin(&mut delivery, |slot| Some(Token { slot, generation: 0 })) {
            while let Some(Token { slot, .. }) = delivery.next_target() {
                if self.topics.has_had(slot, &delivery) {
                    continue;
                }
                for publication in delivery.publications() {
                    self.hear(slot, parse(publication.message()));
                }
            }
        }
        self.delivery = delivery;
        true
    }

    fn hear(&mut self, slot: u32, (position, previous): (Position, u64)) {
        let client = &mut self.clients[slot as usize];
        assert_eq!(client.phase, Phase::There, "nothing comes before the answer");
        let heard = client.heard.unwrap();
        if heard.epoch == position.epoch && heard.offset == previous {
            let topic = Self::topic(slot);
            let missed = self.stream.between(topic, previous, position.offset);
            assert_eq!(missed, [position.offset], "it is next");
            client.heard = Some(position);
        } else if heard.epoch != position.epoch || heard.offset < position.offset {
            client.asks = true;
        }
    }

    fn come(&mut self, slot: u32) {
        let since = self.clients[slot as usize].heard;
        let topic = TOPICS[Self::topic(slot)];
        self.clients[slot as usize].phase = Phase::Waiting;
        if self.topics.load_since(slot, topic, since).unwrap().is_none() {
            self.recover(slot);
        }
    }

    fn recover(&mut self, slot: u32) {
        let topic = Self::topic(slot);
        let client = &mut self.clients[slot as usize];
        let (recovery, _) = self.topics.subscribe_since(slot, TOPICS[topic], client.heard).unwrap();
        (client.phase, client.asks) = (Phase::There, false);
        let at = recovery.position;
        match (client.heard, recovery.missed) {
            (None, missed) => assert_eq!(missed.map(|it| it.len()), Some(0)),
            (Some(heard), Some(missed)) => {
                assert_eq!(heard.epoch, at.epoch);
                let mut previous = heard.offset;
                for recorded in &missed {
                    let (position, before) = parse(recorded.message());
                    assert_eq!((position, before), (recorded.position(), previous));
                    previous = position.offset;
                }
                let got: Vec<_> = missed.iter().map(|it| it.position().offset).collect();
                assert_eq!(got, self.stream.between(topic, heard.offset, at.offset));
            }
            (Some(heard), None) => {
                let missed = self.stream.between(topic, heard.offset, at.offset).len();
                let is_known = heard.epoch == EPOCH && at.epoch == EPOCH && !self.is_unsure;
                assert!(!is_known || missed > KEPT, "{missed} of {heard:?} to {at:?} are gone");
            }
        }
        client.heard = Some(at);
    }

    fn answer(&mut self, is_there: bool) {
        let exchange = self.exchange.clone();
        let loads = &exchange.relay().unwrap().loads;
        while let Some(name) = loads.take() {
            let topic = TOPICS.iter().position(|it| *it == &*name).unwrap();
            if is_there && exchange.relay().unwrap().is_wanted(&name) {
                let whole = exchange.heard(&name).filter(|(_, is_whole)| *is_whole);
                self.load(topic, whole.map(|(heard, _)| heard.offset));
            }
            loads.end(&name);
            for slot in 0..CLIENTS {
                let is_asked = self.clients[slot as usize].phase == Phase::Waiting;
                if is_asked && Self::topic(slot) == topic {
                    self.is_unsure |= !is_there;
                    self.recover(slot);
                }
            }
        }
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Publish(topic) => {
                let (number, previous) = self.stream.number(topic);
                self.line.push_back((topic, number, previous));
            }
            Step::Carry(count) => (0..count).for_each(|_| self.carry()),
            Step::Cut(at_once) => {
                self.line.clear();
                if at_once {
                    self.catch_up();
                }
            }
            Step::Deliver(count) => (0..count).for_each(|_| _ = self.deliver()),
            Step::Come(slot) => {
                let Client { phase, asks, .. } = self.clients[slot as usize];
                if phase == Phase::Away || (phase == Phase::There && asks) {
                    self.come(slot);
                }
            }
            Step::Leave(slot) => {
                if self.clients[slot as usize].phase == Phase::There {
                    self.topics.forget(slot);
                    self.clients[slot as usize].phase = Phase::Away;
                }
            }
            Step::Answer(is_there) => self.answer(is_there),
            Step::Tidy => TOPICS.iter().for_each(|topic| self.exchange.unfollow(topic)),
        }
    }

    /// The line is whole again, and everybody hears on until nothing comes any more.
    fn settle(&mut self) {
        self.is_unsure = true;
        for _ in 0..10 {
            while !self.line.is_empty() {
                self.carry();
            }
            self.catch_up();
            self.answer(true);
            while self.deliver() {}
            for slot in 0..CLIENTS {
                self.step(&Step::Come(slot));
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn nobody_misses_anything_without_being_told(steps in steps()) {
        let mut site = Site::new();
        for step in &steps {
            site.step(step);
        }
        site.step(&Step::Publish(0));
        site.step(&Step::Publish(1));
        site.settle();
        for slot in 0..CLIENTS {
            let client = &site.clients[slot as usize];
            let end = site.stream.truth[Site::topic(slot)].last().copied().unwrap();
            prop_assert_eq!(client.phase, Phase::There);
            prop_assert_eq!(client.heard, Some(Position { epoch: EPOCH, offset: end }));
        }
    }
}

#[test]
fn a_node_that_is_apart_numbers_what_waits_before_what_comes_then() {
    let mut site = Site::new();
    site.come(0);
    site.answer(true);
    let say = |site: &Site, text: &str| {
        let options = PublishOptions::default();
        site.exchange.publish(TOPICS[0], Message::Text(text), options, None).1
    };
    assert_eq!(say(&site, "1"), Ok(()));
    assert_eq!(say(&site, "2"), Ok(()));
    assert!(!site.deliver(), "the bus is to number them");
    let exchange = site.exchange.clone();
    exchange.number_apart(Vec::new(), || site.departures.take_unpaid(), |_| unreachable!());
    let said = say(&site, "3").unwrap_err();
    assert_eq!(
        said.to_string(),
        "the bus is disconnected: subscribers of this node got the publication, those of other nodes missed it"
    );
    let mut texts = Vec::new();
    while let Some(publication) = site.feed.take() {
        texts.push(publication.message().as_text().unwrap().to_owned());
    }
    let words: Vec<Vec<_>> = texts.iter().map(|text| text.split(' ').collect()).collect();
    let epoch: u64 = words[0][0].parse().unwrap();
    assert_ne!(epoch, EPOCH);
    for (words, number) in words.iter().zip(1_u64..) {
        let number = number.to_string();
        let previous = (number.parse::<u64>().unwrap() - 1).to_string();
        assert_eq!(words[1..], [&*number, &*previous, &*number]);
    }
    assert_eq!(words.len(), 3);
    // The stream numbers again, and its epoch goes on.
    exchange.share_numbers();
    let (offset, previous) = site.stream.number(0);
    let place = (Position { epoch: EPOCH, offset }, previous);
    let text = offset.to_string();
    let message = Some((Message::Text(&text), Compress::Never));
    assert_eq!(exchange.follow(TOPICS[0], place, message), Ok(true));
    assert_eq!(exchange.follow(TOPICS[0], place, message), Ok(false), "it has come");
    assert_eq!(exchange.heard(TOPICS[0]).map(|(heard, _)| heard), Some(place.0));
}
