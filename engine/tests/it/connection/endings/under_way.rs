//! What was under way when a peer ended its stream still reaches it: results of jobs, publications, letters, answers
//! that were deferred.

use std::sync::{Arc, OnceLock, mpsc};

use ringwire::{Answer, Ctx, Handle, Responder, Response};
use ringwire_peers::{ENDS, Got, frame, get, request};

use super::peer::{assert_whole, connect, numbered, open, serve};
use crate::support::{Gate, PATIENCE, Server, config};

const JOBS: u32 = 5;

#[test]
fn results_of_jobs_reach_a_peer_that_has_ended_its_stream() {
    for (way, end) in ENDS {
        let (begun, go_on) = (Gate::new(), Gate::new());
        let gates = (begun.clone(), go_on.clone());
        let config = config().with_compute_workers(2).with_max_queued_len(16 << 20);
        let server = serve(config, move |app| {
            let (begun, go_on) = gates.clone();
            app.without_messages().on_message(move |ctx, message| {
                let (begun, go_on) = (begun.clone(), go_on.clone());
                let message = message.as_bytes().to_vec();
                let job = move || {
                    begun.open();
                    go_on.pass();
                    message
                };
                let then = |ctx: &mut Ctx<'_, u32>, result: Result<Vec<u8>, _>| {
                    let _ = ctx.send(result.unwrap().as_slice());
                };
                ctx.offload(job, then).unwrap();
            })
        });
        let mut peer = open(&server, way);
        let all: Vec<u8> = (0..JOBS).flat_map(|it| frame(0x82, &numbered(it, 300_000))).collect();
        peer.raw_and_end(&all, end).join().unwrap();
        begun.pass();
        server.looks();
        go_on.open();
        let got = peer.rest_as_frames();
        let expected: Vec<_> = (0..JOBS).map(|it| Got::Binary(numbered(it, 300_000))).collect();
        assert!(got == expected, "{way:?}, {end:?}: {} of {JOBS} results", got.len());
        assert_whole(&server.closed());
    }
}

/// A server whose application has a handle, two workers, and a topic.
fn publishing(
    publish: impl Fn(&mut Ctx<'_, u32>, &Handle, &str) + Clone + Send + Sync + 'static,
) -> Server {
    let handle = Arc::new(OnceLock::<Handle>::new());
    let of_app = Arc::clone(&handle);
    let server = serve(config().with_io_workers(2), move |app| {
        let (handle, publish) = (Arc::clone(&of_app), publish.clone());
        app.on_open(|ctx| {
            ctx.subscribe("news").unwrap();
        })
        .on_message(move |ctx, message| {
            let text = std::str::from_utf8(message.as_bytes()).unwrap();
            publish(ctx, handle.get().unwrap(), text);
        })
    });
    handle.set(server.handle()).expect("it is set once");
    server
}

fn check_publications(server: &Server) {
    for (way, end) in ENDS {
        for _ in 0..10 {
            let mut peer = open(server, way);
            let words = ["one", "two", "three"];
            let all: Vec<u8> = words.iter().flat_map(|it| frame(0x81, it.as_bytes())).collect();
            peer.raw_and_end(&all, end).join().unwrap();
            let expected = words.map(|it| Got::Text(it.into()));
            assert_eq!(peer.rest_as_frames(), expected, "{way:?}, {end:?}");
            assert_whole(&server.closed());
        }
    }
}

#[test]
fn publications_of_its_own_reach_a_peer_that_has_ended_its_stream() {
    check_publications(&publishing(|ctx, _, text| ctx.publish("news", text).unwrap()));
}

/// They take the way through the mailbox.
#[test]
fn publications_from_outside_reach_a_peer_that_has_ended_its_stream() {
    check_publications(&publishing(|_, handle, text| handle.publish("news", text).unwrap()));
}

#[test]
fn letters_reach_a_peer_that_has_ended_its_stream() {
    check_publications(&publishing(|ctx, handle, text| handle.send(ctx.id(), text).unwrap()));
}

#[test]
fn a_deferred_answer_reaches_a_peer_that_has_ended_its_stream() {
    let (upgrades, ids) = mpsc::channel();
    let (requests, responders) = mpsc::channel::<Responder>();
    let server = serve(config(), move |app| {
        let (upgrades, requests) = (upgrades.clone(), requests.clone());
        app.on_request(move |request| {
            upgrades.send(request.id()).unwrap();
            Answer::Defer
        })
        .on_http_with(move |_, responder| requests.send(responder).unwrap())
    });
    for (way, end) in ENDS {
        let mut peer = connect(&server, way);
        peer.raw_and_end(get("/later").as_bytes(), end).join().unwrap();
        let responder = responders.recv_timeout(PATIENCE).unwrap();
        server.looks();
        responder.send(Response::text("at last"));
        let answer = String::from_utf8(peer.rest()).unwrap();
        assert!(answer.ends_with("\r\n\r\nat last"), "{way:?}, {end:?}: {answer:?}");

        let mut peer = connect(&server, way);
        let all = [request().as_bytes(), &frame(0x81, b"hello")].concat();
        peer.raw_and_end(&all, end).join().unwrap();
        let id = ids.recv_timeout(PATIENCE).unwrap();
        server.looks();
        server.handle().accept(id, ringwire::Accept::new(0_u32)).unwrap();
        let answer = peer.rest();
        assert!(answer.ends_with(b"\r\n\r\n\x81\x05hello"), "{way:?}, {end:?}");
        assert_whole(&server.closed());
    }
}
