//! The bus at work: what leaves the node is given to NATS, and what NATS brings to the node. All of it on one thread.

#![expect(clippy::disallowed_methods, reason = "no worker is here, whose turn would have a time")]

use std::collections::HashMap;
use std::rc::Rc;
use std::time::{Duration, Instant};

use async_nats::{
    Client, ConnectOptions, Event, Message, RequestErrorKind, ServerAddr, Subscriber,
};
use futures_util::StreamExt as _;
use ringwire::cluster::{Letter, Node, Outgoing, Outlet};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::spawn_local;
use tokio::time::{sleep_until, timeout};

use crate::history::{Attendant, Histories, NatsHistory, place_of};
use crate::receiving::{Line, Receiving, expire};
use crate::subject::Subjects;

/// How long NATS has to take what is left at the end. The server waits a little longer.
const LAST_WORDS: Duration = Duration::from_secs(4);

/// How long what has waited for a connection waits for the other nodes, who try as often, to have theirs.
const RETURN: Duration = Duration::from_millis(500);

/// How long a subscription lives on at most, which is not wanted any more, for what is on its way.
const LINGERING: Duration = Duration::from_secs(2);

/// Subscriptions that end together.
const ENDS_TOGETHER: usize = 1024;

/// Nobody answers requests for this, which NATS says itself.
const NOBODY: &str = "_RINGWIRE.nobody";

/// Runs until the server has ended.
pub(crate) async fn run(
    servers: Vec<ServerAddr>,
    options: ConnectOptions,
    (subjects, history): (Subjects, Option<NatsHistory>),
    node: Node,
) {
    let Node { mut outlet, inlet, .. } = node;
    let (line, watched) = watch::channel(Line::Down);
    let options = options.event_callback(move |event| {
        note(&line, &event);
        std::future::ready(())
    });
    // With retries on the first attempt there is nothing to fail but the options.
    let client = match options.connect(servers).await {
        Ok(client) => client,
        Err(error) => {
            tracing::error!(
                %error,
                "cannot connect to NATS, and does not try again: mend the connection's options and restart this node"
            );
            if history.is_some() {
                outlet.number_here(Vec::new());
            }
            return outlet.ended().await;
        }
    };
    let receiving = Receiving::new(inlet, subjects.clone());
    spawn_local(expire(Rc::clone(&receiving)));
    let (ending, ends) = mpsc::unbounded_channel();
    spawn_local(end_in_time(client.clone(), ends));
    let histories = history.map(|history| {
        let histories = Histories::new(history, subjects, client.clone(), Rc::clone(&receiving));
        spawn_local(Rc::clone(&histories).watch(watched.clone()));
        Attendant::new(histories)
    });
    let mut link = Link {
        client,
        line: watched,
        receiving,
        histories,
        subscriptions: HashMap::new(),
        ending,
        lost: 0,
    };
    link.carry(&mut outlet).await;
    outlet.set_connected(false);
    if let Some(histories) = &link.histories {
        let stored = timeout(LAST_WORDS, histories.histories().all_stored()).await;
        if stored.is_err() {
            tracing::warn!("JetStream did not store all that was published before the end");
        }
    }
    let is_up = *link.line.borrow() == Line::Up;
    if is_up && !round_trip(&link.client, LAST_WORDS).await {
        tracing::warn!("NATS did not take all that was published before the end");
    }
}

/// Waits until NATS has taken all that it was given, and what it sent before has come: it answers a request, if only
/// with the word that nobody else does. Whether it did.
async fn round_trip(client: &Client, patience: Duration) -> bool {
    let answer = timeout(patience, client.request(NOBODY, "".into())).await;
    answer.is_ok_and(|answer| match answer {
        Ok(_) => true,
        Err(error) => error.kind() == RequestErrorKind::NoResponders,
    })
}

fn note(line: &watch::Sender<Line>, event: &Event) {
    let now = match event {
        Event::Connected => Line::Up,
        Event::Disconnected => Line::Down,
        Event::SlowConsumer(_) => {
            return tracing::warn!(
                "NATS sends faster than this node reads, and messages were dropped: raise \
                 NatsBus::with_subscription_capacity"
            );
        }
        // One for each attempt to connect, say.
        Event::ClientError(error) => return tracing::debug!(%error, "NATS"),
        event => return tracing::warn!(%event, "NATS"),
    };
    let changed = line.send_if_modified(|line| {
        let changed = *line != now;
        *line = now;
        changed
    });
    match now {
        _ if !changed => {}
        Line::Up => tracing::info!("connected to NATS"),
        Line::Down => {
            tracing::warn!(
                "lost the connection to NATS: until it is back, this node and the others do not hear each other"
            )
        }
    }
}

struct Link {
    client: Client,
    line: watch::Receiver<Line>,
    receiving: Rc<Receiving>,
    histories: Option<Attendant>,
    /// By topic or pattern, what ends it when it is dropped.
    subscriptions: HashMap<String, oneshot::Sender<()>>,
    /// Where those go that are not wanted any more.
    ending: mpsc::UnboundedSender<oneshot::Sender<()>>,
    /// Publications that could not be sent.
    lost: u64,
}

impl Link {
    /// Does what the node wants, while there is a connection. Without one that waits in the engine, where it is
    /// bounded.
    async fn carry(&mut self, outlet: &mut Outlet) {
        let mut speaks_at = None;
        loop {
            let is_up = *self.line.borrow_and_update() == Line::Up;
            self.settle(outlet).await;
            set_connected(outlet, is_up, self.histories.as_ref());
            if is_up {
                if let Some(at) = speaks_at.take()
                    && !self.stays_up_until(at, outlet).await
                {
                    continue;
                }
                tokio::select! {
                    changed = self.line.changed() => if changed.is_err() {
                        return self.stay_apart(outlet).await;
                    },
                    next = outlet.next() => match next {
                        Some(next) => self.do_next(next, outlet).await,
                        None => return,
                    },
                    () = due(self.histories.as_mut()) => {}
                }
            } else {
                tokio::select! {
                    changed = self.line.changed() => if changed.is_err() {
                        return self.stay_apart(outlet).await;
                    },
                    () = due(self.histories.as_mut()) => continue,
                    () = outlet.ended() => return,
                }
                speaks_at = Some(Instant::now() + RETURN);
            }
        }
    }

    /// Whether the connection stays until then, or the server ends, which has something to say yet.
    async fn stays_up_until(&mut self, at: Instant, outlet: &mut Outlet) -> bool {
        tokio::select! {
            _ = self.line.changed() => false,
            () = sleep_until(at.into()) => true,
            () = outlet.ended() => true,
        }
    }

    /// The client of NATS has ended, which it does not while it is in order.
    async fn stay_apart(&self, outlet: &mut Outlet) {
        tracing::error!(
            "the NATS client stopped: restart this node to connect it to the others again"
        );
        if let Some(histories) = &self.histories {
            outlet.number_here(histories.histories().give_up());
        }
        outlet.set_connected(false);
        outlet.ended().await;
    }

    /// Has the node number histories where JetStream can't, and not where it can. If the stream is another one than
    /// before, all subscriptions are anew: what they bring from now on is its.
    async fn settle(&mut self, outlet: &mut Outlet) {
        let Some(histories) = &mut self.histories else { return };
        let Some(epoch) = histories.settle(outlet) else { return };
        let all: Vec<_> = self.subscriptions.keys().cloned().collect();
        for text in all {
            self.listen(text, outlet).await;
        }
        if let Some(histories) = &self.histories {
            spawn_local(Rc::clone(histories.histories()).catch_up_all(epoch));
        }
    }

    async fn do_next(&mut self, next: Outgoing, outlet: &mut Outlet) {
        match next {
            Outgoing::Publish(letter) => self.publish(&letter, outlet).await,
            Outgoing::Subscribe(text) => {
                if self.listen(text.clone(), outlet).await
                    && let Some((histories, epoch)) = self.of_life()
                {
                    // Somebody may have been told where it is before the last subscription had ended.
                    spawn_local(async move { histories.catch_up(&text, epoch).await });
                }
            }
            Outgoing::Unsubscribe(text) => {
                if let Some(end) = self.subscriptions.remove(&text) {
                    // The receiver lives as long as this.
                    let _ = self.ending.send(end);
                }
            }
            Outgoing::Record(letter) => {
                let Some(histories) = &mut self.histories else { return };
                let recording = Rc::clone(histories.histories());
                recording.record(letter);
                let room = recording.has_room();
                unless_it_ends(&mut self.line, outlet, self.histories.as_mut(), room).await;
            }
            Outgoing::Load(topic) => {
                if let Some(histories) = &self.histories {
                    spawn_local(Rc::clone(histories.histories()).load(topic));
                }
            }
            other => tracing::debug!(?other, "the bus does not know how to do this"),
        }
    }

    /// The histories, and the life of the stream whose numbers a subscription brings that begins now.
    fn of_life(&self) -> Option<(Rc<Histories>, u64)> {
        self.histories.as_ref()?.of_life()
    }

    /// Has NATS bring a topic or pattern; whether it does.
    async fn listen(&mut self, text: String, outlet: &mut Outlet) -> bool {
        let subject = self.receiving.subjects.subject(&text);
        let subscribing = self.client.subscribe(subject);
        let histories = self.histories.as_mut();
        match unless_it_ends(&mut self.line, outlet, histories, subscribing).await {
            Some(Ok(subscriber)) => {
                let (end, ends) = oneshot::channel();
                let receiving = Rc::clone(&self.receiving);
                spawn_local(receive(receiving, self.of_life(), subscriber, ends));
                self.subscriptions.insert(text, end);
                return true;
            }
            Some(Err(error)) => {
                tracing::error!(
                    %error,
                    text,
                    "cannot subscribe to a topic at NATS, so this node misses it: check the permissions of its NATS \
                     user"
                );
            }
            None => {}
        }
        false
    }

    async fn publish(&mut self, letter: &Letter, outlet: &mut Outlet) {
        let subject = self.receiving.subjects.subject(letter.topic());
        let publishing = self.client.publish(subject, letter.to_bytes().into());
        let histories = self.histories.as_mut();
        let published = unless_it_ends(&mut self.line, outlet, histories, publishing).await;
        let error = match published {
            Some(Ok(())) => return,
            Some(Err(error)) => Some(error),
            None => None,
        };
        outlet.note_undeliverable(1);
        self.lost += 1;
        // Somebody may publish very many of them.
        if self.lost.is_power_of_two() {
            let (topic, lost) = (letter.topic(), self.lost);
            let error = error.map(|error| error.to_string());
            tracing::warn!(error, topic, lost, "a publication can't be sent to other nodes");
        }
    }
}

/// Waits until NATS's client takes something, for which there may be no room while the connection is lost, and tells
/// the node of the connection meanwhile. `None`: the server has ended, and there is no connection.
async fn unless_it_ends<T>(
    line: &mut watch::Receiver<Line>,
    outlet: &mut Outlet,
    mut histories: Option<&mut Attendant>,
    work: impl Future<Output = T>,
) -> Option<T> {
    let mut work = std::pin::pin!(work);
    loop {
        let is_up = *line.borrow_and_update() == Line::Up;
        if let Some(histories) = &mut histories {
            histories.give_up_in_time(outlet);
        }
        set_connected(outlet, is_up, histories.as_deref());
        tokio::select! {
            done = &mut work => return Some(done),
            () = due(histories.as_deref_mut()) => {}
            changed = line.changed() => if changed.is_err() {
                return None;
            },
            () = outlet.ended(), if !is_up => return None,
        }
    }
}

/// Waits until there is something to do for the histories.
async fn due(histories: Option<&mut Attendant>) {
    match histories {
        Some(histories) => histories.due().await,
        None => std::future::pending().await,
    }
}

/// Histories have to be those of all nodes, where they are to be.
fn set_connected(outlet: &Outlet, is_up: bool, histories: Option<&Attendant>) {
    outlet.set_connected(is_up && histories.is_none_or(Attendant::is_ready));
}

/// Gives the node what one subscription brings, until `ends` is dropped. Numbers are those of this life of the stream.
async fn receive(
    receiving: Rc<Receiving>,
    histories: Option<(Rc<Histories>, u64)>,
    mut subscriber: Subscriber,
    mut ends: oneshot::Receiver<()>,
) {
    loop {
        tokio::select! {
            // What has come is taken in before the end.
            biased;
            message = subscriber.next() => match message {
                Some(message) => take(&receiving, &message, histories.as_ref()).await,
                None => return,
            },
            _ = &mut ends => return,
        }
    }
}

/// Ends subscriptions once all that NATS has sent for them is here. Another may have taken the place of one, a
/// pattern's say, and brings only what was published after NATS knew of it.
async fn end_in_time(client: Client, mut ends: mpsc::UnboundedReceiver<oneshot::Sender<()>>) {
    let mut together = Vec::new();
    while ends.recv_many(&mut together, ENDS_TOGETHER).await > 0 {
        round_trip(&client, LINGERING).await;
        together.clear();
    }
}

/// Gives the node what has come.
async fn take(receiving: &Receiving, message: &Message, histories: Option<&(Rc<Histories>, u64)>) {
    let subject = &message.subject;
    let Some(topic) = receiving.subjects.topic(subject) else {
        return tracing::debug!(%subject, "NATS brings what is no topic");
    };
    match place_of(message) {
        None => receiving.take(&topic, &message.payload),
        // Before the stream is known, it is of none, and is read from it once it is.
        Some(place) => {
            if let Some((histories, epoch)) = histories {
                histories.take(&topic, message, place, *epoch).await;
            }
        }
    }
}
