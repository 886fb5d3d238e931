//! What goes to the stream: of each topic one publication at a time, so that what a node publishes is stored in its
//! order whatever is lost on the way and sent again.

use std::rc::Rc;

use async_nats::jetstream::context::{PublishError, PublishErrorKind};
use async_nats::jetstream::message::PublishMessage;
use ringwire::cluster::Letter;
use tokio::task::spawn_local;
use tokio::time::sleep;

use super::{AGAIN, Histories, Phase};

/// Publications that wait at most, of all topics.
const MAX_WAITING: usize = 1024;

impl Histories {
    /// Has a publication stored, behind those before it.
    pub(crate) fn record(self: &Rc<Self>, letter: Letter) {
        let topic = letter.topic().to_owned();
        self.waiting.set(self.waiting.get() + 1);
        let mut queues = self.queues.borrow_mut();
        let queue = queues.entry(topic.clone()).or_default();
        queue.push_back(letter);
        if queue.len() == 1 {
            spawn_local(Rc::clone(self).store_all(topic));
        }
    }

    /// Waits until another may be given to [`record`](Self::record).
    pub(crate) async fn has_room(&self) {
        while self.waiting.get() >= MAX_WAITING {
            self.has_room.notified().await;
        }
    }

    /// Waits until nothing waits any more.
    pub(crate) async fn all_stored(&self) {
        while self.waiting.get() > 0 {
            self.has_room.notified().await;
        }
    }

    /// All that waits to be stored, in the order of each topic. What was under way is stored or not.
    pub(crate) fn give_up(&self) -> Vec<Letter> {
        let queues = std::mem::take(&mut *self.queues.borrow_mut());
        let mut given_up = self.given_up.borrow_mut();
        // What was given up before has come by now, or never will.
        given_up.clear();
        given_up.extend(queues.values().filter_map(|queue| Some(queue.front()?.id())));
        self.waiting.set(0);
        self.has_room.notify_one();
        queues.into_values().flatten().collect()
    }

    /// Whether this node has numbered a publication by itself that the stream has stored.
    pub(super) fn was_given_up(&self, id: &str) -> bool {
        self.given_up.borrow().contains(id)
    }

    async fn store_all(self: Rc<Self>, topic: String) {
        let subject = self.subjects.of_history().subject(&topic);
        let mut phase = self.phase();
        while let Some((id, bytes)) = self.first(&topic) {
            // The sender lives as long as this.
            let _ = phase.wait_for(|phase| *phase != Phase::Away).await;
            if !self.is_first(&topic, &id) {
                return;
            }
            let message = PublishMessage::build().payload(bytes.into()).message_id(&id);
            let stored = self.store(&subject, message).await;
            // If it was given up meanwhile, another task stores what has come since then.
            if !self.is_first(&topic, &id) {
                return;
            }
            match stored {
                Ok(_) => self.remove_first(&topic),
                Err(error) if error.kind() == PublishErrorKind::MaxPayloadExceeded => {
                    self.undeliverable.set(self.undeliverable.get() + 1);
                    tracing::warn!(
                        topic,
                        "a publication is longer than NATS takes and is not kept: raise max_payload of the NATS server"
                    );
                    self.remove_first(&topic);
                }
                Err(error) => {
                    tracing::debug!(topic, %error, "a publication is stored later, or not");
                    self.doubt();
                    sleep(AGAIN).await;
                }
            }
        }
    }

    async fn store(&self, subject: &str, message: PublishMessage) -> Result<u64, PublishError> {
        let acknowledged = self.context.send_publish(subject.to_owned(), message).await?.await?;
        Ok(acknowledged.sequence)
    }

    /// Takes a number of a topic of which nothing is kept, so that it has one. `None`: it has one by now.
    pub(super) async fn mark(&self, subject: &str) -> Result<Option<u64>, PublishError> {
        let marker = PublishMessage::build().expected_last_subject_sequence(0);
        match self.store(subject, marker).await {
            Ok(number) => Ok(Some(number)),
            Err(error) if error.kind() == PublishErrorKind::WrongLastSequence => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn first(&self, topic: &str) -> Option<(String, Vec<u8>)> {
        let queues = self.queues.borrow();
        queues.get(topic)?.front().map(|letter| (letter.id(), letter.to_bytes()))
    }

    fn is_first(&self, topic: &str, id: &str) -> bool {
        let queues = self.queues.borrow();
        let first = queues.get(topic).and_then(|queue| queue.front());
        first.is_some_and(|letter| letter.id() == id)
    }

    fn remove_first(&self, topic: &str) {
        let mut queues = self.queues.borrow_mut();
        let Some(queue) = queues.get_mut(topic) else { return };
        queue.pop_front();
        if queue.is_empty() {
            queues.remove(topic);
        }
        self.waiting.set(self.waiting.get().saturating_sub(1));
        self.has_room.notify_one();
    }
}
