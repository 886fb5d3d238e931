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
            } else if previous != Some(heard.offset) {
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
            match from {
                Some(from) if oldest <= from => {
                    return Ok(KeptHistory { epoch, floor: from, is_whole: false, entries });
                }
                _ => {}
            }
            if let Some(index) = entries.iter().position(|entry| entry.offset == oldest) {
                entries.drain(..=index);
                return Ok(KeptHistory { epoch, floor: oldest, is_whole: true, entries });
            }
        }
        Err(ReadError::TooFast)
    }
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
