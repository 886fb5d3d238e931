//! Who is there, asked from anywhere.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use ringwire::{Handle, Message, PostError};
use ringwire_peers::Client;

use super::{Hall, named};
use crate::support::{PATIENCE, wait_until};
use crate::topics::ask;

#[test]
fn open_connections_are_seen_from_anywhere() {
    let hall = Hall::open(3);
    let handle = hall.server.handle();
    assert_eq!(handle.connection_ids().count(), 0);
    let mut clients: Vec<_> = (0..40).map(|_| named(hall.server.addr(), &["all"])).collect();
    // What has made no request is no connection of the application.
    let silent = ringwire_peers::connect(hall.server.addr());
    let all = |handle: &Handle| {
        let ids: Vec<_> = handle.connection_ids().collect();
        let count = ids.len();
        let ids = BTreeSet::from_iter(ids);
        assert_eq!(ids.len(), count, "an id comes twice");
        ids
    };
    assert_eq!(all(&handle), BTreeSet::from_iter(handle.connections("all")));
    ask(&mut clients[7], "#", "40");
    clients.drain(10..).for_each(Client::leave);
    wait_until("they are gone", || handle.connection_ids().count() == 10);
    // In slots that were used before.
    clients.extend((0..5).map(|_| named(hall.server.addr(), &["all"])));
    wait_until("they are all there", || handle.connections("all").len() == 15);
    assert_eq!(all(&handle), BTreeSet::from_iter(handle.connections("all")));
    drop((clients, silent));
    wait_until("nobody is left", || handle.connection_ids().next().is_none());
}

#[test]
fn members_are_asked_for_without_waiting() {
    let hall = Hall::open(3);
    let handle = hall.server.handle();
    let mut clients: Vec<_> = (0..12).map(|_| hall.server.client()).collect();
    for client in &mut clients[..8] {
        ask(client, "*room.1", "true");
        ask(client, "*room.>", "true");
    }
    ask(&mut clients[9], "*room.>", "true");
    // By a handler, which waits for nobody.
    ask(&mut clients[10], "?room.1", "9");
    ask(&mut clients[10], "?room.2", "9");
    ask(&mut clients[10], "?hall", "0");
    // A pattern is no topic.
    ask(&mut clients[10], "?room.>", "0");
    let mut members = handle.subscribers("room.1").wait(PATIENCE).expect("all answer");
    members.sort();
    members.dedup();
    assert_eq!(members.len(), 9);
    assert_eq!(handle.subscriber_count("room.1").wait(PATIENCE), Ok(9));
    // One worker is stuck.
    clients[0].send(Message::Text("!"));
    hall.gates[0].wait();
    let mut inquiry = handle.topics();
    assert_eq!(handle.subscribers("room.1").wait(Duration::from_millis(20)), Err(PostError::Busy));
    assert_eq!(inquiry.poll(), None);
    hall.gates[1].wait();
    assert_eq!(clients[0].text(), "went on");
    let mut answer = None;
    wait_until("it answers", || {
        answer = inquiry.poll();
        answer.is_some()
    });
    let expected = [("room.1", 8), ("room.>", 9)].map(|(text, count)| (text.to_owned(), count));
    assert_eq!(answer, Some(Ok(BTreeMap::from(expected))));
    drop(hall);
    assert_eq!(handle.subscribers("room.1").wait(PATIENCE), Err(PostError::Stopped));
}
