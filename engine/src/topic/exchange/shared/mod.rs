//! Histories that the bus numbers, for all nodes.

use std::time::{Duration, Instant};

use ringwire_codec::Message;

use super::{Exchange, Numbering, PublishError, now, stamped};
use crate::conn::options::Compress;
use crate::topic::config::HistoryConfig;
use crate::topic::history::{Old, Place, Position, Shard, class_of};
use crate::topic::loads::Loading;
use crate::topic::name::TopicError;
use crate::topic::publication::{PublishOptions, SharedPublication};
use crate::topic::relay::Departure;

/// What the bus has kept of a topic.
#[derive(Debug)]
pub(crate) struct Loaded<'a> {
    pub(crate) epoch: u64,
    /// Nothing is missing behind this offset.
    pub(crate) floor: u64,
    /// There is nothing before it any more.
    pub(crate) is_whole: bool,
    /// In order.
    pub(crate) entries: Vec<Entry<'a>>,
}

/// A publication of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry<'a> {
    pub(crate) offset: u64,
    pub(crate) age: Duration,
    /// `None`: the number is taken by no message.
    pub(crate) message: Option<(Message<'a>, Compress)>,
}

impl Exchange {
    /// Whether the bus may know more of what came to a topic since a position than this node.
    ///
    /// # Errors
    /// Nothing is kept of this topic.
    pub(in crate::topic) fn lacks(
        &self,
        topic: &str,
        since: Option<Position>,
    ) -> Result<bool, TopicError> {
        self.settings().history(topic).ok_or(TopicError::NoHistory)?;
        let Some(relay) = self.relay() else { return Ok(false) };
        let is_shared = relay.numbering() == Numbering::Shared;
        Ok(is_shared
            && self.0.history.with(self.hash(topic), |shard, _| {
                shard.followed(topic).is_none_or(|followed| followed.lacks(since))
            }))
    }

    /// Asks the bus for a topic.
    pub(in crate::topic) fn ask(&self, topic: &str) -> Option<Loading> {
        self.relay().map(|relay| relay.ask(topic))
    }

    /// Up to where this node has heard a topic that it follows, and whether the bus has nothing more of before.
    pub(crate) fn heard(&self, topic: &str) -> Option<(Position, bool)> {
        let followed = self.0.history.with(self.hash(topic), |shard, _| shard.followed(topic));
        let followed = followed.filter(|followed| followed.follows)?;
        Some((followed.top, followed.is_whole))
    }

    /// The same of all that it follows.
    pub(crate) fn all_heard(&self) -> Vec<(String, Position)> {
        let mut all = Vec::new();
        self.0.history.with_each(|shard| {
            all.extend(shard.all_followed().map(|(topic, top)| (topic.to_owned(), top)));
        });
        all
    }

    /// The bus brings no more of a topic. If a connection has subscribed meanwhile, it was told where the topic is, and
    /// the bus goes on from there once it brings the topic again.
    pub(crate) fn unfollow(&self, topic: &str) {
        self.0.history.with(self.hash(topic), |shard, _| {
            if self.relay().is_none_or(|relay| !relay.is_wanted(topic)) {
                shard.set_followed(topic, false, false);
            }
        });
    }

    /// The same for all that `ends` says.
    pub(crate) fn unfollow_all(&self, mut ends: impl FnMut(&str) -> bool) {
        self.0.history.with_each(|shard| shard.unfollow(&mut ends));
    }

    /// Has the workers hear what the bus has numbered; whether it had yet to come. No message: the number is taken.
    ///
    /// # Errors
    /// As for [`publish`](Self::publish).
    pub(crate) fn follow(
        &self,
        topic: &str,
        place: (Position, Option<u64>),
        message: Option<(Message<'_>, Compress)>,
    ) -> Result<bool, PublishError> {
        crate::topic::name::check_topic(topic)?;
        let Some(history) = self.settings().history(topic) else {
            let Some((message, compress)) = message else { return Ok(false) };
            let options = PublishOptions { compress, ..PublishOptions::default() };
            return self.receive(topic, message, options).map(|()| true);
        };
        self.0.history.with(self.hash(topic), |shard, epochs| {
            let Some(place) = shard.admit(topic, place, history.bounds(), epochs) else {
                return Ok(false);
            };
            self.pass_on(shard, history, topic, place, message).map(|()| true)
        })
    }

    fn pass_on(
        &self,
        shard: &mut Shard,
        history: &HistoryConfig,
        topic: &str,
        place: Place,
        message: Option<(Message<'_>, Compress)>,
    ) -> Result<(), PublishError> {
        let Some((message, compress)) = message else { return Ok(()) };
        let options = PublishOptions { compress, ..PublishOptions::default() };
        self.post_numbered(shard, history, topic, message, place, options)
    }

    /// Takes in what the bus has kept of a topic that it brings. What subscribers of this node have yet to hear goes to
    /// them; the offsets of that.
    ///
    /// # Errors
    /// Some workers are too far behind. What went to the others is beside it.
    pub(crate) fn load(
        &self,
        topic: &str,
        loaded: &Loaded<'_>,
    ) -> (Vec<u64>, Result<(), PublishError>) {
        let mut passed_on = Vec::new();
        let Some(history) = self.settings().history(topic) else { return (passed_on, Ok(())) };
        let Loaded { epoch, floor, is_whole, ref entries } = *loaded;
        let (bounds, at) = (history.bounds(), now(history));
        let before = [floor].into_iter().chain(entries.iter().map(|entry| entry.offset));
        let position = |offset| Position { epoch, offset };
        let old = |(entry, previous): (&Entry<'_>, u64)| -> Option<Old> {
            let (message, _) = entry.message?;
            let position = position(entry.offset);
            let stamped = stamped(history, message, position, Some(previous));
            let at = at.and_then(|now: Instant| now.checked_sub(entry.age));
            Some((position, (stamped, message.is_text()), at))
        };
        self.0.history.with(self.hash(topic), |shard, epochs| {
            let known = shard.followed(topic).filter(|known| known.top.epoch == epoch);
            let mut outcome = Ok(());
            if let Some(known) = known {
                let joins =
                    floor == known.floor || entries.iter().any(|entry| entry.offset == known.floor);
                if floor < known.floor && joins {
                    let older = entries.iter().zip(before.clone());
                    let older = older.take_while(|(entry, _)| entry.offset <= known.floor);
                    shard.put_before(topic, older.filter_map(old).collect(), floor, bounds);
                }
                for (entry, previous) in entries.iter().zip(before) {
                    let place = (position(entry.offset), Some(previous));
                    if let Some(place) = shard.admit(topic, place, bounds, epochs) {
                        let passed = self.pass_on(shard, history, topic, place, entry.message);
                        outcome = outcome.and(passed);
                        passed_on.push(entry.offset);
                    }
                }
                if floor > known.top.offset && entries.is_empty() {
                    shard.begin_at(topic, position(floor), bounds, epochs);
                }
            } else {
                // Who hears it so far has numbers of another epoch, or none.
                shard.begin_at(topic, position(floor), bounds, epochs);
                for (entry, previous) in entries.iter().zip(before) {
                    let place = (position(entry.offset), Some(previous));
                    if let Some(place) = shard.admit(topic, place, bounds, epochs)
                        && let Some((_, kept, at)) = old((entry, previous))
                    {
                        shard.keep(place, kept, bounds, at);
                    }
                }
            }
            shard.set_followed(topic, true, is_whole);
            (passed_on, outcome)
        })
    }

    /// From now on the bus numbers what is published to topics with a history.
    pub(crate) fn share_numbers(&self) {
        if let Some(relay) = self.relay() {
            relay.set_numbering(Numbering::Shared);
        }
    }

    /// The bus can't. What it was given (`taken`) and what has yet to be taken, which `take` gives, is numbered here
    /// before anything else is; `take` gets the rest back.
    pub(crate) fn number_apart(
        &self,
        taken: Vec<SharedPublication>,
        mut next: impl FnMut() -> Option<Departure>,
        mut others: impl FnMut(Departure),
    ) {
        let Some(relay) = self.relay() else { return };
        self.0.history.with_all(|shards, epochs| {
            relay.set_numbering(Numbering::Apart);
            let mut number = |publication: &SharedPublication| {
                relay.note_dropped();
                let topic = &*publication.topic;
                let compress = publication.compress;
                let options = PublishOptions { compress, ..PublishOptions::default() };
                let shard = shards.get_mut(class_of(publication.hash));
                if let Some((shard, history)) = shard.zip(self.settings().history(topic)) {
                    let message = publication.message();
                    // Whoever published it has been told that it was on its way.
                    let _ = self.number(shard, epochs, history, topic, message, options);
                }
            };
            taken.iter().for_each(&mut number);
            while let Some(departure) = next() {
                if departure.to_number { number(&departure.publication) } else { others(departure) }
            }
        });
    }
}

#[cfg(test)]
mod tests;
