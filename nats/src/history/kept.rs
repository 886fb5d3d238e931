//! What the stream has kept, and what it brings.

#![expect(clippy::disallowed_methods, reason = "no worker is here, whose turn would have a time")]

use std::rc::Rc;
use std::time::{Duration, SystemTime};

use async_nats::jetstream::message::StreamMessage;
use async_nats::jetstream::stream::{RawMessageErrorKind, Stream};
use async_nats::{HeaderMap, Message, header};
use ringwire::cluster::{Kept, KeptHistory, Numbered};
use tokio::time::timeout;

use super::{Histories, Phase};

/// How often a topic is read anew of which the oldest go faster than they are read.
const ATTEMPTS: usize = 3;

/// Why nothing can be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReadError {
    #[error("JetStream is away")]
    Away,
    #[error("JetStream does not answer: {0}")]
    Failed(async_nats::Error),
    #[error("the stream drops messages faster than they are read")]
    TooFast,
}

/// A number that the stream gave, and the one before it of the same topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    offset: u64,
    previous: Option<u64>,
}

impl Place {
    /// Whether others of the same topic are between what was heard last and this one.
    fn has_others_before(self, heard: u64) -> bool {
        self.previous.is_some_and(|previous| previous > heard)
    }
}

/// The place of a message that the stream has republished. `None`: it is none.
pub(crate) fn place_of(message: &Message) -> Option<Place> {
    let headers = message.headers.as_ref()?;
    let number = |name| -> Option<u64> { headers.get(name)?.as_str().parse().ok() };
    let offset = number(header::NATS_SEQUENCE)?;
    // Zero: there is none that is kept.
    Some(Place { offset, previous: number(header::NATS_LAST_SEQUENCE).filter(|it| *it > 0) })
}

impl Histories {
    /// Gives the node what the stream has numbered, with what it has missed before.
    pub(crate) async fn take(&self, topic: &str, message: &Message, place: Place, epoch: u64) {
        let Place { offset, previous } = place;
        let heard = self.receiving.inlet.borrow().heard(topic);
        if let Some(heard) = heard.filter(|heard| heard.epoch == epoch) {
            if offset <= heard.offset {
                // It has come before; or the stream has begun anew.
                self.doubt();
            } else if place.has_others_before(heard.offset) {
                self.catch_up(topic, epoch).await;
            }
        }
        if self.epoch() != Some(epoch) {
            return;
        }
        let id =
            message.headers.as_ref().and_then(|it: &HeaderMap| it.get(header::NATS_MESSAGE_ID));
        let was_here = id.is_some_and(|id| self.was_given_up(id.as_str()));
        let bytes = if was_here { &[] } else { &message.payload[..] };
        let numbered = Numbered { epoch, offset, previous, bytes };
        self.receiving.inlet.borrow_mut().receive_numbered(topic, numbered);
    }

    /// Reads what a topic that is followed has missed, if anything.
    pub(crate) async fn catch_up(&self, topic: &str, epoch: u64) {
        let Some(heard) = self.receiving.inlet.borrow().heard(topic) else { return };
        let from = (heard.epoch == epoch).then_some(heard.offset);
        if let Err(error) = self.read_in(topic, epoch, from).await {
            tracing::debug!(topic, %error, "what was missed can't be read");
            self.has_missed.set(true);
            self.doubt();
        }
    }

    /// Reads what the stream has of a topic, for connections that wait for it; soon.
    pub(crate) async fn load(self: Rc<Self>, topic: String) {
        let mut phase = self.phase();
        let reading = async {
            loop {
                let ready = phase.wait_for(|phase| *phase != Phase::Away).await.map(|it| *it);
                let Ok(Phase::Ready { epoch }) = ready else { return };
                let (heard, has_all) = {
                    let inlet = self.receiving.inlet.borrow();
                    (inlet.heard(&topic), inlet.has_all(&topic))
                };
                let heard = heard.filter(|heard| has_all && heard.epoch == epoch);
                match self.read_in(&topic, epoch, heard.map(|heard| heard.offset)).await {
                    Ok(()) => return,
                    Err(error) => {
                        tracing::debug!(topic, %error, "a history can't be read");
                        self.doubt();
                        tokio::time::sleep(super::AGAIN).await;
                    }
                }
            }
        };
        // Past that, what the node knows by itself is the answer.
        let _ = timeout(self.config.patience, reading).await;
        self.receiving.inlet.borrow().end_load(&topic);
    }

    async fn read_in(&self, topic: &str, epoch: u64, from: Option<u64>) -> Result<(), ReadError> {
        let stream = self.stream.borrow().clone().ok_or(ReadError::Away)?;
        let history = self.read(&stream, topic, epoch, from).await?;
        if self.epoch() != Some(epoch) {
            return Err(ReadError::Away);
        }
        self.receiving.inlet.borrow_mut().load(topic, &history);
        Ok(())
    }

    /// What the stream has of a topic behind a number, all that it has if there is none.
    async fn read(
        &self,
        stream: &Stream,
        topic: &str,
        epoch: u64,
        from: Option<u64>,
    ) -> Result<KeptHistory, ReadError> {
        let subject = self.subjects.of_history().subject(topic);
        for _ in 0..ATTEMPTS {
            let mut entries = Vec::new();
            let mut next = from.unwrap_or(0) + 1;
            while let Some(message) = first_from(stream, &subject, next).await? {
                next = message.sequence + 1;
                entries.push(kept(message));
                // Those have gone from the stream while it was read.
                if entries.len() > 2 * self.config.max_count + 2 {
                    entries.drain(..self.config.max_count);
                }
            }
            // What was there in the end was there all the time.
            let oldest = match first_from(stream, &subject, 1).await? {
                Some(oldest) => oldest.sequence,
                None => {
                    let marked =
                        self.mark(&subject).await.map_err(|it| ReadError::Failed(it.into()));
                    let Some(floor) = marked? else { continue };
                    return Ok(KeptHistory { epoch, floor, is_whole: true, entries: Vec::new() });
                }
            };
            if let Some(history) = behind(from, oldest, entries, epoch) {
                return Ok(history);
            }
        }
        Err(ReadError::TooFast)
    }
}

/// What the stream has behind a number, all that it has if there is none, of what was read while `oldest` was there.
/// `None`: that was not read.
fn behind(
    from: Option<u64>,
    oldest: u64,
    mut entries: Vec<Kept>,
    epoch: u64,
) -> Option<KeptHistory> {
    if let Some(floor) = from.filter(|from| oldest <= *from) {
        return Some(KeptHistory { epoch, floor, is_whole: false, entries });
    }
    let index = entries.iter().position(|entry| entry.offset == oldest)?;
    entries.drain(..index);
    // Nothing is between it and the number before, whosever that is. A mark nobody has to hear.
    let floor = if entries.first().is_some_and(|it| it.bytes.is_empty()) {
        entries.remove(0).offset
    } else {
        oldest.saturating_sub(1)
    };
    Some(KeptHistory { epoch, floor, is_whole: true, entries })
}

/// The first message of a subject from a number on.
async fn first_from(
    stream: &Stream,
    subject: &str,
    number: u64,
) -> Result<Option<StreamMessage>, ReadError> {
    match stream.get_first_raw_message_by_subject(subject, number).await {
        Ok(message) => Ok(Some(message)),
        Err(error) if error.kind() == RawMessageErrorKind::NoMessageFound => Ok(None),
        Err(error) => Err(ReadError::Failed(error.into())),
    }
}

fn kept(message: StreamMessage) -> Kept {
    // The clock of NATS may be ahead.
    let age = SystemTime::now().duration_since(message.time.into()).unwrap_or(Duration::ZERO);
    Kept { offset: message.sequence, age, bytes: message.payload.to_vec() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_stream_has_between_is_missing() {
        let place = |previous| Place { offset: 9, previous };
        assert!(!place(Some(5)).has_others_before(5));
        assert!(place(Some(7)).has_others_before(5));
        // The stream has dropped all that was before.
        assert!(!place(None).has_others_before(5));
        assert!(!place(Some(3)).has_others_before(5));
    }

    /// The number of the floor, whether it is all, and the numbers behind it.
    fn read(from: Option<u64>, oldest: u64, all: &[(u64, &str)]) -> Option<(u64, bool, Vec<u64>)> {
        let kept = |(offset, text): &(u64, &str)| Kept {
            offset: *offset,
            age: Duration::ZERO,
            bytes: text.as_bytes().to_vec(),
        };
        let history = behind(from, oldest, all.iter().map(kept).collect(), 1)?;
        let numbers = history.entries.iter().map(|entry| entry.offset).collect();
        Some((history.floor, history.is_whole, numbers))
    }

    #[test]
    fn the_oldest_that_is_left_is_read_and_a_mark_is_none() {
        assert_eq!(read(Some(5), 3, &[(6, "b")]), Some((5, false, vec![6])));
        assert_eq!(read(Some(5), 8, &[(8, "a"), (9, "b")]), Some((7, true, vec![8, 9])));
        assert_eq!(read(Some(5), 8, &[(8, "a")]), Some((7, true, vec![8])));
        assert_eq!(read(None, 8, &[(7, "gone"), (8, "a")]), Some((7, true, vec![8])));
        assert_eq!(read(None, 8, &[(8, ""), (9, "a")]), Some((8, true, vec![9])));
        assert_eq!(read(Some(5), 9, &[(8, "a")]), None);
    }
}
