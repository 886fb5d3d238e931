//! An extension that refuses a frame: what came before is handed over.

#![expect(clippy::disallowed_types, reason = "extensions are shared")]

use std::sync::Arc;

use ringwire_codec::extension::{
    DataFrame, ExtensionError, ExtensionParams, FrameExtension, FrameTransform, SharedExtension,
};
use ringwire_codec::handshake::Params;

use super::app::{Entry, State};
use super::time::{play, secs, upgrade};
use crate::Accept;
use crate::config::Config;
use crate::conn::cause::CloseReason;

/// The extension of whoever offers it.
pub(super) fn extension() -> SharedExtension {
    Arc::new(Faulty)
}

/// Refuses the payload "bad".
#[derive(Debug)]
struct Faulty;

impl FrameExtension for Faulty {
    fn name(&self) -> &str {
        "x-faulty"
    }

    fn accept(&self, _: Params<'_>) -> Option<(ExtensionParams, Box<dyn FrameTransform>)> {
        Some((ExtensionParams::new(), Box::new(Self)))
    }

    fn confirm(&self, _: Params<'_>) -> Option<Box<dyn FrameTransform>> {
        unreachable!("no client has it")
    }
}

impl FrameTransform for Faulty {
    fn send(&mut self, _: &mut DataFrame<'_>) {}

    fn receive(&mut self, frame: &mut DataFrame<'_>) -> Result<(), ExtensionError> {
        if frame.payload.as_slice() == b"bad" { Err(ExtensionError::new("bad")) } else { Ok(()) }
    }
}

const FRAMES: &[u8] = b"\x81\x81\0\0\0\0a\x81\x81\0\0\0\0b\x81\x81\0\0\0\0c\x81\x83\0\0\0\0bad";

#[test]
fn what_came_before_a_frame_that_is_refused_is_handed_over() {
    let config = Config::default().with_messages_per_turn(1);
    for (target, behind) in [("/0", &b""[..]), ("/0", FRAMES), ("/0?defer", FRAMES)] {
        let mut play = play(&config, []);
        play.scene.log.borrow_mut().clients.push(Entry::default());
        let peer = play.scene.world.connect(0);
        let target = format!("{target} HTTP/1.1\r\nSec-WebSocket-Extensions: x-faulty\r\nX-Rest:");
        peer.write(&upgrade(&target, behind));
        play.run_until(secs(1));
        if behind.is_empty() {
            peer.write(FRAMES);
        }
        let id = play.scene.log.borrow().clients[0].id.expect("it has asked");
        let accept = Accept::new(State::new(0)).with_extension(extension());
        // Of no effect where the application has accepted by itself.
        play.scene.handle.accept(id, accept).expect("the worker lives");
        play.run_until(secs(2));
        let log = play.scene.log.borrow();
        let entry = &log.clients[0];
        let reason = entry.closed.as_ref().map(|cause| cause.reason);
        assert_eq!(reason, Some(CloseReason::Extension));
        let came: Vec<_> = entry.came.iter().map(|said| said.bytes.as_slice()).collect();
        assert_eq!(came, [b"a", b"b", b"c"], "{target}, {} behind", behind.len());
    }
}
