//! The way in from other threads: messages, closes, connections that others accepted, and figures.

#![expect(
    clippy::disallowed_types,
    reason = "the tests are about threads and about sockets of others"
)]

use std::collections::HashMap;
use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use ringwire::{
    Answer, CloseCode, CloseReason, ConnId, Ctx, Handle, Handler, Message, PostError, Posted,
    Request,
};
use ringwire_peers::{Client, Got, connect, frame, plain_request, request, stays_so_for};

use crate::support::app::Seen;
use crate::support::{Gate, Server, config, ms, wait_until};

#[test]
fn many_threads_to_many_connections() {
    const THREADS: usize = 8;
    const CONNECTIONS: usize = 20;
    const MESSAGES: usize = 100;
    // A mailbox that is full now and then.
    let server = Server::echo(config().with_io_workers(2).with_mailbox_len(64));
    let mut clients: Vec<_> = (0..CONNECTIONS).map(|_| server.client()).collect();
    let ids: Vec<ConnId> = clients.iter().map(|_| server.opened()).collect();
    thread::scope(|scope| {
        for thread in 0..THREADS {
            let (ids, handle) = (&ids, server.handle());
            scope.spawn(move || {
                for message in 0..MESSAGES {
                    for id in ids {
                        let text = format!("{thread}:{message}");
                        wait_until("the mailbox has room", || {
                            match handle.send(*id, text.as_str()) {
                                Ok(()) => true,
                                Err(error) => {
                                    assert_eq!(error, PostError::Busy);
                                    false
                                }
                            }
                        });
                    }
                }
            });
        }
        for client in &mut clients {
            scope.spawn(move || {
                // Each thread's messages come in its order.
                let mut next = [0; THREADS];
                for _ in 0..THREADS * MESSAGES {
                    let text = client.text();
                    let (thread, message) = text.split_once(':').unwrap();
                    let expected = &mut next[thread.parse::<usize>().unwrap()];
                    assert_eq!(message.parse(), Ok(*expected));
                    *expected += 1;
                }
            });
        }
    });
    assert_eq!(server.stats().messages_sent, (THREADS * CONNECTIONS * MESSAGES) as u64);
    for client in clients {
        client.leave();
    }
}

#[test]
fn text_stays_text_and_bytes_stay_bytes() {
    let server = Server::echo(config());
    let mut client = server.client();
    let id = server.opened();
    server.handle().send(id, "text").unwrap();
    server.handle().send(id, b"bytes".as_slice()).unwrap();
    server.handle().send(id, "").unwrap();
    assert_eq!(client.next(), Got::Text("text".into()));
    assert_eq!(client.next(), Got::Binary(b"bytes".into()));
    assert_eq!(client.next(), Got::Text(String::new()));
}

#[test]
fn a_full_mailbox_says_busy() {
    let gate = Gate::new();
    let blocked = gate.clone();
    let server = Server::start(config().with_mailbox_len(4), move |app| {
        let blocked = blocked.clone();
        app.on_message(move |_, _| blocked.pass())
    });
    let mut client = server.client();
    let id = server.opened();
    let handle = server.handle();
    client.send("block");
    server.find("the message", |_, seen| matches!(seen, Seen::Text(_)).then_some(()));
    for text in ["1", "2", "3", "4"] {
        handle.send(id, text).unwrap();
    }
    assert_eq!(handle.send(id, "5"), Err(PostError::Busy));
    assert_eq!(handle.close(id, CloseCode::NORMAL, ""), Err(PostError::Busy));
    let refused = handle.adopt(connect(server.addr()), Vec::new()).unwrap_err();
    assert_eq!(refused.reason(), PostError::Busy);
    assert_eq!(
        refused.into_inner().peer_addr().unwrap(),
        server.addr(),
        "the connection comes back"
    );
    gate.open();
    for text in ["1", "2", "3", "4"] {
        assert_eq!(client.text(), text);
    }
    wait_until("the mailbox has room", || handle.send(id, "6").is_ok());
    assert_eq!(client.text(), "6");
}

/// However many events a turn brings about, the connections have theirs between them.
#[test]
fn what_comes_while_letters_are_read_is_for_the_next_turn() {
    const EVENTS: u32 = 2000;
    struct Again(Handle, Arc<AtomicBool>);
    impl Handler for Again {
        type State = ();

        fn on_request(&mut self, _: &Request<'_>) -> Answer<()> {
            Answer::accept(())
        }

        fn on_message(&mut self, _: &mut Ctx<'_, ()>, _: Message<'_>) {}

        fn on_event(&mut self, event: Posted) -> Result<(), Posted> {
            match event.downcast()? {
                0_u32 => self.1.store(true, Ordering::Relaxed),
                left => self.0.post_event(0, left - 1).expect("the mailbox has room"),
            }
            Ok(())
        }
    }
    let is_over = Arc::new(AtomicBool::new(false));
    let over = Arc::clone(&is_over);
    let running = ringwire::Server::new(config())
        .listen("127.0.0.1:0")
        .start(move |context| Again(context.handle().clone(), Arc::clone(&over)))
        .unwrap();
    let handle = running.handle();
    handle.post_event(0, EVENTS).unwrap();
    wait_until("all of them are read", || is_over.load(Ordering::Relaxed));
    let turns = handle.stats().workers[0].turns;
    assert!(turns >= u64::from(EVENTS), "{turns}");
    handle.shutdown(Duration::ZERO);
    running.join().unwrap();
}

#[test]
fn after_the_end_it_says_stopped() {
    let server = Server::echo(config());
    let mut client = server.client();
    let id = server.opened();
    let handle = server.handle();
    let stranger = TcpListener::bind("127.0.0.1:0").unwrap();
    handle.shutdown(Duration::from_secs(60));
    assert_eq!(client.close_frame().0, 1001);
    server.join().unwrap();
    assert_eq!(handle.send(id, "nobody"), Err(PostError::Stopped));
    assert_eq!(handle.close(id, CloseCode::NORMAL, ""), Err(PostError::Stopped));
    assert_eq!(handle.pause(id), Err(PostError::Stopped));
    let stream = TcpStream::connect(stranger.local_addr().unwrap()).unwrap();
    let refused = handle.adopt(stream, Vec::new()).unwrap_err();
    assert_eq!(refused.reason(), PostError::Stopped);
    handle.shutdown(Duration::ZERO);
    let total = handle.stats().total();
    assert_eq!((total.connections, total.closes[CloseReason::Shutdown]), (0, 1));
}

#[test]
fn a_connection_of_another_server_is_no_connection_here() {
    let one = Server::echo(config());
    let other = Server::echo(config());
    let (mut one_client, mut other_client) = (one.client(), other.client());
    let (at_one, at_other) = (one.opened(), other.opened());
    // Worker, slot and generation are the same.
    assert_eq!(at_one.worker(), at_other.worker());
    assert_ne!(at_one, at_other);
    let handle = one.handle();
    let stranger = Err(PostError::OtherServer);
    assert_eq!(handle.send(at_other, "lost"), stranger);
    assert_eq!(handle.close(at_other, CloseCode::NORMAL, ""), stranger);
    assert_eq!(handle.run(at_other, |_: &mut Ctx<'_, u32>| {}), stranger);
    assert_eq!(handle.sender(at_other).map(drop), stranger);
    handle.send(at_one, "mine").unwrap();
    other.handle().send(at_other, "theirs").unwrap();
    assert_eq!((one_client.text(), other_client.text()), ("mine".into(), "theirs".into()));
}

#[test]
fn a_handler_reaches_other_connections_by_its_handle() {
    let server = Server::with_handler(config(), &["127.0.0.1:0"], |seen, context| {
        let handle = context.handle().clone();
        assert_eq!(context.index(), 0);
        let mut members: Vec<ConnId> = Vec::new();
        crate::support::app::App::new(seen).on_message(move |ctx, message| {
            if !members.contains(&ctx.id()) {
                members.push(ctx.id());
            }
            for member in &members {
                handle.send(*member, message).unwrap();
            }
        })
    });
    let (mut a, mut b) = (server.client(), server.client());
    a.send("one");
    assert_eq!(a.text(), "one");
    b.send("two");
    assert_eq!((a.text(), b.text()), ("two".into(), "two".into()));
}

// Connections that someone else accepted

/// A connected pair: the client's end, and the end to be adopted.
fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let client = connect(listener.local_addr().expect("it is bound"));
    (client, listener.accept().expect("the client has connected").0)
}

#[test]
fn adopted_before_within_and_after_the_request() {
    let server = Server::start_at(config(), &[], |app| app);
    assert_eq!(server.addrs(), []);
    let mut wire = request().into_bytes();
    let head_len = wire.len();
    wire.extend(frame(0x81, b"behind"));
    // Of the request, and of the frame behind it, this much was read already.
    for received in [0, 1, 40, head_len - 1, head_len, head_len + 3, wire.len()] {
        let (mut client, accepted) = pair();
        let peer = client.local_addr().unwrap();
        server.handle().adopt(accepted, wire[..received].to_vec()).unwrap();
        client.write_all(&wire[received..]).unwrap();
        let mut client = Client::await_upgrade(client, &plain_request());
        assert_eq!(client.text(), "behind", "after {received} bytes");
        client.send("more");
        assert_eq!(client.text(), "more");
        client.leave();
        assert_eq!(peer.ip().to_string(), "127.0.0.1");
        server.closed();
    }
    let stats = server.stats();
    assert_eq!((stats.adopted, stats.accepts, stats.handshakes), (7, 0, 7));
}

#[test]
fn an_adopted_request_is_judged_like_any_other() {
    let server = Server::start_at(config(), &[], |app| app);
    let (mut client, accepted) = pair();
    server.handle().adopt(accepted, b"GET / HTTP/1.1\r\n\r\n".to_vec()).unwrap();
    let answer = ringwire_peers::read_answer(&mut client);
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    drop(client);
    assert_eq!(server.drained(), []);
}

#[test]
fn adopted_after_the_upgrade() {
    let server = Server::start_at(config(), &[], |app| {
        app.on_open(|ctx| {
            let peer = ctx.peer_addr();
            let text = format!("{} from {peer}", ctx.state());
            let _ = ctx.send(text.as_str());
        })
    });
    let (client, accepted) = pair();
    let local_addr = client.local_addr().unwrap();
    let mut received = frame(0x81, b"read already");
    let cut = received.split_off(4);
    server.handle().adopt_upgraded(accepted, received, 42_u32).unwrap();
    let mut client = Client::speaking(client);
    client.raw(&cut);
    assert_eq!(client.text(), format!("42 from {local_addr}"));
    assert_eq!(client.text(), "read already");
    client.leave();
    assert!(server.closed().is_clean());
    let stats = server.stats();
    assert_eq!((stats.adopted, stats.handshakes, stats.handshake_failures), (1, 0, 0));
}

#[test]
fn a_state_of_another_type_is_refused() {
    let server = Server::start_at(config(), &[], |app| app);
    let (client, accepted) = pair();
    let refused = server.handle().adopt_upgraded(accepted, Vec::new(), "no u32").unwrap_err();
    assert_eq!(refused.to_string(), "no handler of the server has a state of this type");
    let stream = refused.into_inner();
    assert_eq!(server.stats().adopted, 0);
    server.handle().adopt_upgraded(stream, Vec::new(), 0_u32).unwrap();
    let mut client = Client::speaking(client);
    client.send("served");
    assert_eq!(client.text(), "served");
}

#[test]
fn adopted_connections_go_where_there_are_fewest() {
    let server = Server::start_at(config().with_io_workers(2), &[], |app| app);
    let mut clients = Vec::new();
    let mut counts = HashMap::new();
    for _ in 0..10 {
        let (client, accepted) = pair();
        server.handle().adopt_upgraded(accepted, Vec::new(), 0_u32).unwrap();
        clients.push(client);
        *counts.entry(server.opened().worker()).or_insert(0) += 1;
    }
    assert_eq!(counts, HashMap::from([(0, 5), (1, 5)]));
    assert!((server.handle().stats().imbalance() - 1.0).abs() < 1e-9);
}

// Figures

#[test]
fn the_figures_add_up() {
    let server = Server::echo(config().with_io_workers(2));
    let mut clients: Vec<_> = (0..64).map(|_| server.client()).collect();
    for client in &mut clients {
        client.send("12345");
        assert_eq!(client.text(), "12345");
    }
    let stats = server.handle().stats();
    assert_eq!(stats.workers.len(), 2);
    let (first, second) = (&stats.workers[0], &stats.workers[1]);
    // The kernel spreads them by a hash of the addresses.
    assert!(first.connections > 0 && second.connections > 0, "connections land on each worker");
    let total = stats.total();
    assert_eq!(total.connections, 64);
    assert_eq!((total.open_connections, total.accepts, total.handshakes), (64, 64, 64));
    assert_eq!((total.messages_received, total.messages_sent), (64, 64));
    assert_eq!(total.messages_received, first.messages_received + second.messages_received);
    // A frame with a mask in, a frame without one out, and the handshake of both.
    let heads_in = 64 * request().len() as u64;
    let heads_out: usize = clients.iter().map(|client| client.head.len()).sum();
    assert_eq!(total.bytes_received, heads_in + 64 * (2 + 4 + 5));
    wait_until("the last send is counted", || {
        server.stats().bytes_sent == heads_out as u64 + 64 * (2 + 5)
    });
    let most = first.connections.max(second.connections) as f64;
    assert!((stats.imbalance() - most / 32.0).abs() < 1e-9);
    assert!(total.turns > 0 && total.longest_turn > Duration::ZERO);
    for (index, client) in clients.into_iter().enumerate() {
        if index % 2 == 0 { client.leave() } else { drop(client) }
    }
    server.drained();
    let total = server.stats();
    assert_eq!(total.closes[CloseReason::Peer], 32);
    assert_eq!(total.closes[CloseReason::EndOfStream], 32);
    assert_eq!((total.connections, total.open_connections, total.queued_bytes), (0, 0, 0));
}

#[test]
fn an_idle_server_sleeps() {
    let server = Server::echo(config());
    let _clients: Vec<_> = (0..10).map(|_| server.client()).collect();
    wait_until("all are open", || server.stats().open_connections == 10);
    server.looks();
    let before = server.stats().turns;
    stays_so_for(ms(300), "it has nothing to do", || server.stats().turns - before <= 5);
}
