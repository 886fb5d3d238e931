#![expect(clippy::disallowed_types, reason = "one extension serves the connections of all workers")]

use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::handshake::{client, server};
use crate::head::{Extensions, HeadLimits};
use crate::{Config, Connection, Error, Event, Heap, Input, Message, Role, Violation};

/// Numbers the frames with a byte at the end, and marks them with RSV2.
#[derive(Debug)]
struct Numbered;

#[derive(Debug, Default)]
struct Numbers {
    sent: u8,
    received: u8,
}

impl FrameExtension for Numbered {
    fn name(&self) -> &str {
        "x-numbered"
    }

    fn reserved_bits(&self) -> ReservedBits {
        ReservedBits::RSV2
    }

    fn accept(&self, _: Params<'_>) -> Option<(ExtensionParams, Box<dyn FrameTransform>)> {
        Some((ExtensionParams::new(), Box::<Numbers>::default()))
    }

    fn confirm(&self, mut answer: Params<'_>) -> Option<Box<dyn FrameTransform>> {
        if answer.next().is_some() {
            return None;
        }
        Some(Box::<Numbers>::default())
    }
}

impl FrameTransform for Numbers {
    fn send(&mut self, frame: &mut DataFrame<'_>) {
        frame.payload.push(self.sent);
        // It has no claim to the other one.
        frame.set_reserved_bits(ReservedBits::BOTH);
        self.sent = self.sent.wrapping_add(1);
    }

    fn receive(&mut self, frame: &mut DataFrame<'_>) -> Result<(), ExtensionError> {
        assert_eq!(frame.reserved_bits(), ReservedBits::RSV2);
        if frame.payload.pop() != Some(self.received) {
            let error = ExtensionError::new("a frame is missing");
            return Err(error.with_code(CloseCode::POLICY_VIOLATION));
        }
        self.received = self.received.wrapping_add(1);
        Ok(())
    }
}

/// Adds a key to each byte; the client chooses it, and the server may only say that it has understood.
#[derive(Debug)]
struct Shifted(u8);

#[derive(Debug)]
struct Shift(u8);

impl FrameExtension for Shifted {
    fn name(&self) -> &str {
        "x-shifted"
    }

    fn accept(&self, offer: Params<'_>) -> Option<(ExtensionParams, Box<dyn FrameTransform>)> {
        let mut keys = offer.filter(|&(name, _)| name == "key");
        let key = keys.find_map(|(_, value)| value?.parse().ok())?;
        Some((ExtensionParams::new().with_flag("ok"), Box::new(Shift(key))))
    }

    fn offer(&self) -> ExtensionParams {
        ExtensionParams::new().with_value("key", self.0.to_string())
    }

    fn confirm(&self, answer: Params<'_>) -> Option<Box<dyn FrameTransform>> {
        answer.eq([("ok", None)]).then(|| Box::new(Shift(self.0)) as _)
    }
}

impl FrameTransform for Shift {
    fn send(&mut self, frame: &mut DataFrame<'_>) {
        frame.payload.iter_mut().for_each(|byte| *byte = byte.wrapping_add(self.0));
    }

    fn receive(&mut self, frame: &mut DataFrame<'_>) -> Result<(), ExtensionError> {
        frame.payload.iter_mut().for_each(|byte| *byte = byte.wrapping_sub(self.0));
        Ok(())
    }
}

fn both() -> [Arc<dyn FrameExtension>; 2] {
    [Arc::new(Numbered), Arc::new(Shifted(7))]
}

fn offers(value: &str) -> impl Iterator<Item = crate::handshake::Extension<'_>> {
    Extensions::of(value.as_bytes()).flatten()
}

/// What a server answers, and whether there is anything to transform.
fn accepted(value: &str) -> (String, bool) {
    let (answers, layer) = FrameLayer::accept(&both(), offers(value));
    let mut text = String::new();
    for (name, params) in &answers {
        params.encode(name, &mut text).unwrap();
    }
    (text, layer.is_some())
}

/// A server's layer and a client's, as they come from a handshake.
fn layers() -> (FrameLayer, FrameLayer) {
    let offer = "x-numbered, x-shifted; key=7";
    let (_, server) = FrameLayer::accept(&both(), offers(offer));
    let chosen = Extensions::of(b"x-numbered, x-shifted; ok");
    let client = FrameLayer::confirm(&both(), chosen).unwrap();
    (server.unwrap(), client.unwrap())
}

#[test]
fn a_server_takes_what_it_can() {
    assert_eq!(accepted("x-numbered"), ("x-numbered".into(), true));
    assert_eq!(accepted("X-Shifted; key=9"), ("x-shifted; ok".into(), true));
    let order = "x-shifted; key=1, unknown, permessage-deflate, x-numbered, x-numbered; again";
    assert_eq!(accepted(order), ("x-shifted; ok, x-numbered".into(), true));
    // The first offer of one that is good enough.
    assert_eq!(accepted("x-shifted, x-shifted; key=300, x-shifted; key=3").0, "x-shifted; ok");
    assert_eq!(accepted("x-shifted; key=none"), (String::new(), false));
    assert_eq!(accepted(""), (String::new(), false));
}

#[test]
fn reserved_bits_are_claimed_once() {
    #[derive(Debug)]
    struct Rival;
    impl FrameExtension for Rival {
        fn name(&self) -> &str {
            "x-rival"
        }
        fn reserved_bits(&self) -> ReservedBits {
            ReservedBits::BOTH
        }
        fn accept(&self, _: Params<'_>) -> Option<(ExtensionParams, Box<dyn FrameTransform>)> {
            Some((ExtensionParams::new(), Box::new(Shift(1))))
        }
        fn confirm(&self, _: Params<'_>) -> Option<Box<dyn FrameTransform>> {
            Some(Box::new(Shift(1)))
        }
    }
    let extensions: [Arc<dyn FrameExtension>; 2] = [Arc::new(Numbered), Arc::new(Rival)];
    let (answers, _) = FrameLayer::accept(&extensions, offers("x-rival, x-numbered"));
    assert_eq!(answers, [("x-rival".into(), ExtensionParams::new())]);
    let chosen = Extensions::of(b"x-rival, x-numbered");
    let error = FrameLayer::confirm(&extensions, chosen).unwrap_err();
    assert_eq!(error, HandshakeError::UnusableExtension);
}

#[test]
fn a_client_takes_answers_to_its_offer_only() {
    let check = |value: &str| {
        let chosen = Extensions::of(value.as_bytes());
        FrameLayer::confirm(&both(), chosen).map(|layer| layer.is_some())
    };
    assert_eq!(check(""), Ok(false));
    assert_eq!(check("permessage-deflate"), Ok(false));
    assert_eq!(check("permessage-deflate, x-shifted; ok, x-numbered"), Ok(true));
    assert_eq!(check("x-other"), Err(HandshakeError::UnofferedExtension));
    assert_eq!(check("x-numbered, X-Numbered"), Err(HandshakeError::UnofferedExtension));
    assert_eq!(check("x-numbered; param"), Err(HandshakeError::UnusableExtension));
    assert_eq!(check("x-shifted"), Err(HandshakeError::UnusableExtension));
    assert_eq!(check("x-numbered, permessage-deflate"), Err(HandshakeError::UnusableExtension));
    assert_eq!(check("x-numbered, \""), Err(HandshakeError::InvalidExtensions));
}

#[test]
fn handshakes_of_both_roles_fit() {
    let request = client::Request::new("example.org", "/", [7; 16])
        .and_then(|request| request.with_extension(Arc::new(Numbered)))
        .and_then(|request| request.with_extension(Arc::new(Shifted(9))))
        .unwrap()
        .with_deflate(crate::deflate::Offer::default());
    let mut head = Vec::new();
    request.encode(&mut head);
    let text = String::from_utf8(head.clone()).unwrap();
    let offer = "Sec-WebSocket-Extensions: permessage-deflate, x-numbered, x-shifted; key=9\r\n";
    assert!(text.contains(offer), "{text}");

    let parsed = server::Request::parse(&head, &HeadLimits::default()).unwrap();
    let upgrade = parsed.check_upgrade().unwrap();
    let (answers, layer) = FrameLayer::accept(&both(), parsed.extensions().flatten());
    assert!(layer.is_some());
    let agreement = upgrade.deflate(&crate::deflate::Policy::default());
    let accept = server::Accept::new().with_deflate(agreement).with_extensions(answers);
    let mut answer = Vec::new();
    accept.encode(&upgrade, &mut answer).unwrap();
    let parsed = client::Response::parse(&answer, &HeadLimits::default()).unwrap();
    let agreed = parsed.check_upgrade(&request).unwrap();
    assert!(agreed.layer.is_some() && agreed.deflate.is_some());

    // A server that chooses what was not offered to it.
    let plain = client::Request::new("example.org", "/", [7; 16]).unwrap();
    let error = parsed.check_upgrade(&plain).unwrap_err();
    assert_eq!(error, HandshakeError::UnofferedExtension);
    let mut out = Vec::new();
    let unoffered = vec![("x-other".to_owned(), ExtensionParams::new())];
    let error = server::Accept::new().with_extensions(unoffered).encode(&upgrade, &mut out);
    assert_eq!(error, Err(HandshakeError::ExtensionNotOffered));
    let malformed = vec![("x-shifted".to_owned(), ExtensionParams::new().with_value("a", "b c"))];
    let error = server::Accept::new().with_extensions(malformed).encode(&upgrade, &mut out);
    assert_eq!(error, Err(HandshakeError::InvalidExtensions));
    assert!(out.is_empty());
}

#[test]
fn offers_are_checked() {
    #[derive(Debug)]
    struct Named(&'static str);
    impl FrameExtension for Named {
        fn name(&self) -> &str {
            self.0
        }
        fn accept(&self, _: Params<'_>) -> Option<(ExtensionParams, Box<dyn FrameTransform>)> {
            None
        }
        fn confirm(&self, _: Params<'_>) -> Option<Box<dyn FrameTransform>> {
            None
        }
    }
    let request = || client::Request::new("example.org", "/", [7; 16]).unwrap();
    for name in ["", "a b", "x\r\nHost: other", "Permessage-Deflate", "x-\u{e9}"] {
        let error = request().with_extension(Arc::new(Named(name))).unwrap_err();
        assert_eq!(error, HandshakeError::InvalidExtensions, "{name:?}");
    }
    let twice = request().with_extension(Arc::new(Named("x")));
    assert!(twice.unwrap().with_extension(Arc::new(Named("X"))).is_err());
}

#[test]
fn control_frames_and_the_preamble_pass_by() {
    let (mut server, mut client) = layers();
    let frames = [b"\x89\x03abc".as_slice(), b"\x82\x01\x10", b"\x8a\x00", b"\x88\x02\x03\xe8"];
    server.begin_after(6);
    let (mut payload, mut wire) = (Vec::new(), Vec::new());
    server.send(b"HTTP", &mut payload, &mut wire);
    server.send(&[b"/1".as_slice(), &frames.concat()].concat(), &mut payload, &mut wire);
    assert_eq!(wire, b"HTTP/1\x89\x03abc\xa2\x02\x17\x07\x8a\x00\x88\x02\x03\xe8");
    let mut received = Vec::new();
    client.receive(&wire[6..], 100, &mut payload, &mut received).unwrap();
    assert_eq!(received, frames.concat());
    assert_eq!(client.memory_len(), 0);
}

#[test]
fn a_transform_refuses_a_frame() {
    let (mut server, mut client) = layers();
    let (mut payload, mut wire, mut out) = (Vec::new(), Vec::new(), Vec::new());
    server.send(b"\x82\x01a", &mut payload, &mut wire);
    wire.clear();
    server.send(b"\x82\x01b", &mut payload, &mut wire);
    let error = client.receive(&wire, 100, &mut payload, &mut out).unwrap_err();
    assert_eq!((error.code(), error.reason()), (CloseCode::POLICY_VIOLATION, "a frame is missing"));
    assert!(out.is_empty());
    // A code that cannot be sent is none.
    let error = ExtensionError::new("").with_code(CloseCode::new(1006));
    assert!(error.code().is_sendable());
}

#[test]
fn what_is_wrong_with_a_frame_is_for_the_codec_to_say() {
    let cases: [(&[u8], Violation); 4] = [
        // RSV3, which nobody has claimed, behind RSV2, which is Numbered's: the number is 0, shifted by 7.
        (&[0xb2, 0x81, 0, 0, 0, 0, 7], Violation::ReservedBits),
        (&[0x83, 0x80, 0, 0, 0, 0], Violation::ReservedOpCode),
        (&[0x09, 0x80, 0, 0, 0, 0], Violation::FragmentedControl),
        (&[0x82, 0xfe, 0, 1, 0, 0, 0, 0, 7], Violation::LengthNotMinimal),
    ];
    for (wire, violation) in cases {
        for split in 0..wire.len() {
            let (mut layer, _) = layers();
            let (mut payload, mut frames) = (Vec::new(), Vec::new());
            let (first, second) = wire.split_at(split);
            layer.receive(first, 100, &mut payload, &mut frames).unwrap();
            layer.receive(second, 100, &mut payload, &mut frames).unwrap();
            let mut codec = Connection::new(Role::Server);
            let mut input = Input::new(&mut frames);
            let error = codec.receive(&Config::default(), &mut Heap, &mut input).unwrap_err();
            assert_eq!(error, Error::PeerMisbehaved(violation), "{split}");
        }
    }
}

#[test]
fn a_declared_length_takes_no_memory() {
    let (mut layer, _) = layers();
    let (mut payload, mut out) = (Vec::new(), Vec::new());
    let declared = b"\xa2\xff\x00\x00\x00\x00\x00\xff\xff\xff\x00\x00\x00\x00";
    layer.receive(declared, 1 << 24, &mut payload, &mut out).unwrap();
    layer.receive(&[0; 100], 1 << 24, &mut payload, &mut out).unwrap();
    assert!(layer.memory_len() < 1024, "{}", layer.memory_len());
    let (mut layer, _) = layers();
    let error = layer.receive(declared, 1 << 23, &mut payload, &mut out).unwrap_err();
    assert_eq!(error.code(), CloseCode::MESSAGE_TOO_BIG);
    assert_eq!((out.len(), layer.memory_len()), (0, 0));
}

/// What the other side makes of messages that this one sends, cut into pieces on the way.
fn transported(role: Role, messages: &[Vec<u8>], cuts: &[usize]) -> Vec<Vec<u8>> {
    let (server, client) = layers();
    let (mut from, mut to, peer) = match role {
        Role::Server => (server, client, Role::Client),
        Role::Client => (client, server, Role::Server),
    };
    let mut key = 1u32;
    let mut masks = || {
        key = key.wrapping_mul(0x9e37_79b9);
        key.to_be_bytes()
    };
    let (mut sender, mut receiver) = (Connection::new(role), Connection::new(peer));
    let (mut payload, mut wire) = (Vec::new(), Vec::new());
    for message in messages {
        let mut frames = Vec::new();
        sender.send(Message::Binary(message), &mut masks, &mut frames).unwrap();
        from.send(&frames, &mut payload, &mut wire);
    }
    let (mut rest, mut received) = (wire.as_slice(), Vec::new());
    for len in cuts.iter().copied().chain([usize::MAX]) {
        let (piece, behind) = rest.split_at(len.min(rest.len()));
        rest = behind;
        let mut frames = Vec::new();
        to.receive(piece, 1 << 20, &mut payload, &mut frames).unwrap();
        let mut input = Input::new(&mut frames);
        while let Some(event) = receiver.receive(&Config::default(), &mut Heap, &mut input).unwrap()
        {
            let Event::Message(message) = event else { panic!("only messages were sent") };
            let Message::Binary(bytes) = message.as_message() else { panic!("binary ones") };
            received.push(bytes.to_vec());
        }
    }
    received
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn messages_arrive_as_they_were_sent(
        role in prop_oneof![Just(Role::Server), Just(Role::Client)],
        messages in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..40),
        long in prop::collection::vec(any::<u8>(), 65_530..65_545),
        cuts in prop::collection::vec(0usize..200, 0..100),
    ) {
        let mut messages = messages;
        messages.push(long);
        prop_assert_eq!(transported(role, &messages, &cuts), messages);
    }
}
