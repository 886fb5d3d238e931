//! RFC 7692 §7.1, in both roles.

use ringwire_codec::Role;
use ringwire_codec::deflate::{Agreement, Offer, Policy, WindowBits};
use ringwire_codec::handshake::server::{Accept, Request};
use ringwire_codec::handshake::{HandshakeError, HeadLimits, client};

use crate::ends::{Shaken, shake};

fn bits(bits: u8) -> WindowBits {
    WindowBits::new(bits).expect("the tests' sizes exist")
}

fn takeover() -> Policy {
    Policy::default().with_server_context_takeover(true).with_client_context_takeover(true)
}

/// What a server answers to a header, and what it comes to.
fn choose(offers: &str, policy: &Policy) -> Option<(String, Agreement)> {
    let head = format!(
        "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
         Sec-WebSocket-Extensions: {offers}\r\n\r\n"
    );
    let request = Request::parse(head.as_bytes(), &HeadLimits::default()).expect("a request");
    let upgrade = request.check_upgrade().expect("an upgrade");
    let agreement = upgrade.deflate(policy);
    let mut out = Vec::new();
    Accept::new().with_deflate(agreement).encode(&upgrade, &mut out).expect("it was offered");
    let answer = String::from_utf8(out).expect("it is ASCII");
    let (_, value) = answer.split_once("Sec-WebSocket-Extensions: ").unzip();
    assert_eq!(value.is_some(), agreement.is_some(), "no empty header");
    let value = value?.split_once("\r\n").map(|(value, _)| value.to_owned());
    value.zip(agreement)
}

fn answer(offers: &str, policy: &Policy) -> Option<String> {
    choose(offers, policy).map(|(value, _)| value)
}

/// What a client makes of the server's choice.
fn judge(offers: &[Offer], choice: &str) -> Result<Option<Agreement>, HandshakeError> {
    let request = client::Request::new("a", "/", *b"the sample nonce").expect("well-formed");
    let request = offers.iter().fold(request, |request, offer| request.with_deflate(*offer));
    let head = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\
         Sec-WebSocket-Extensions: {choice}\r\n\r\n"
    );
    let response = client::Response::parse(head.as_bytes(), &HeadLimits::default())?;
    Ok(response.check_upgrade(&request)?.deflate)
}

const BOTH_NO: &str = "permessage-deflate; server_no_context_takeover; client_no_context_takeover";

#[test]
fn what_is_written() {
    let Shaken { request, response, client, server } = shake(&[], Some(&Policy::default()));
    assert_eq!((request, response, client, server), (None, None, None, None));
    let Shaken { request, response, client, .. } = shake(&[Offer::default()], None);
    assert_eq!(request.as_deref(), Some("permessage-deflate"), "the plain offer");
    assert_eq!((response, client), (None, None), "the server's veto leaves no header");

    let Shaken { response, client, server, .. } =
        shake(&[Offer::default()], Some(&Policy::default()));
    assert_eq!(response.as_deref(), Some(BOTH_NO));
    assert_eq!(client, server);
    let agreement = client.expect("it was agreed on");
    assert!(!agreement.takeover(Role::Client) && !agreement.takeover(Role::Server));
    assert_eq!(
        (agreement.window_bits(Role::Client), agreement.window_bits(Role::Server)),
        (15, 15)
    );

    let Shaken { response, client, .. } = shake(&[Offer::default()], Some(&takeover()));
    assert_eq!(response.as_deref(), Some("permessage-deflate"));
    let agreement = client.expect("it was agreed on");
    assert!(agreement.takeover(Role::Client) && agreement.takeover(Role::Server));

    let small = Offer::shared()
        .with_server_max_window_bits(bits(10))
        .with_client_max_window_bits(WindowBits::MAX);
    let Shaken { request, response, .. } =
        shake(&[small, Offer::default()], Some(&takeover().with_client_max_window_bits(bits(9))));
    assert_eq!(
        request,
        Some(format!(
            "{BOTH_NO}; server_max_window_bits=10; client_max_window_bits, permessage-deflate"
        ))
    );
    assert_eq!(
        response,
        Some(format!("{BOTH_NO}; server_max_window_bits=10; client_max_window_bits=9"))
    );
}

#[test]
fn what_a_server_chooses() {
    let own = takeover();
    let d = |params: &str| Some(format!("permessage-deflate{params}"));
    for (offers, expected) in [
        ("permessage-deflate", d("")),
        ("PerMessage-Deflate", d("")),
        ("x-webkit-deflate-frame, permessage-deflate", d("")),
        ("permessage-deflate; server_no_context_takeover", d("; server_no_context_takeover")),
        ("permessage-deflate; client_no_context_takeover", d("; client_no_context_takeover")),
        ("permessage-deflate; client_max_window_bits", d("")),
        ("permessage-deflate; client_max_window_bits=8", d("")),
        ("permessage-deflate; client_max_window_bits=15", d("")),
        ("permessage-deflate; server_max_window_bits=15", d("; server_max_window_bits=15")),
        ("permessage-deflate; server_max_window_bits=\"9\"", d("; server_max_window_bits=9")),
        // The first one that can be had.
        ("permessage-deflate; server_max_window_bits=8, permessage-deflate", d("")),
        (
            "permessage-deflate; server_max_window_bits=12, permessage-deflate",
            d("; server_max_window_bits=12"),
        ),
        ("permessage-deflate; x, permessage-deflate; y=1", None),
        ("permessage-bzip2", None),
        ("", None),
    ] {
        assert_eq!(answer(offers, &own), expected, "{offers}");
    }

    let small = own.with_server_max_window_bits(bits(11)).with_client_max_window_bits(bits(10));
    for (offers, expected) in [
        ("permessage-deflate", d("; server_max_window_bits=11")),
        ("permessage-deflate; server_max_window_bits=10", d("; server_max_window_bits=10")),
        (
            "permessage-deflate; server_max_window_bits=12; client_max_window_bits",
            d("; server_max_window_bits=11; client_max_window_bits=10"),
        ),
        (
            "permessage-deflate; client_max_window_bits=12",
            d("; server_max_window_bits=11; client_max_window_bits=10"),
        ),
        ("permessage-deflate; client_max_window_bits=9", d("; server_max_window_bits=11")),
    ] {
        assert_eq!(answer(offers, &small), expected, "{offers}");
    }
    let hinted = choose("permessage-deflate; client_max_window_bits=8", &own);
    assert_eq!(hinted.map(|(_, agreement)| agreement.window_bits(Role::Client)), Some(8));
}

#[test]
fn window_bits() {
    let own = takeover();
    for value in ["0", "7", "16", "999", "abc", "", "08", "+9", "-9", "9.0", "0x9", "\"\""] {
        for name in ["server_max_window_bits", "client_max_window_bits"] {
            if value.is_empty() || value == "\"\"" {
                continue;
            }
            let offer = format!("permessage-deflate; {name}={value}");
            assert_eq!(answer(&offer, &own), None, "{offer}");
            let lenient = Offer::default().with_client_max_window_bits(WindowBits::MAX);
            assert_eq!(judge(&[lenient], &offer), Err(HandshakeError::DeflateParams), "{offer}");
        }
    }
    // Without a value, though one is needed.
    for params in [
        "server_max_window_bits",
        "server_no_context_takeover=1",
        "client_no_context_takeover=x",
        "unknown",
        "unknown=1",
    ] {
        let offer = format!("permessage-deflate; {params}");
        assert_eq!(answer(&offer, &own), None, "{offer}");
        assert_eq!(
            judge(&[Offer::default()], &offer),
            Err(HandshakeError::DeflateParams),
            "{offer}"
        );
    }
    // Twice the same.
    for params in [
        "server_max_window_bits=9; server_max_window_bits=9",
        "client_max_window_bits; client_max_window_bits=9",
        "server_no_context_takeover; server_no_context_takeover",
        "client_no_context_takeover; Client_No_Context_Takeover",
    ] {
        let offer = format!("permessage-deflate; {params}");
        assert_eq!(answer(&offer, &own), None, "{offer}");
        assert_eq!(
            judge(&[Offer::default()], &offer),
            Err(HandshakeError::InvalidExtensions),
            "{offer}"
        );
    }
    // An empty value is malformed as a header already.
    let empty = judge(&[Offer::default()], "permessage-deflate; server_max_window_bits=");
    assert_eq!(empty, Err(HandshakeError::InvalidExtensions));
    assert_eq!(WindowBits::new(8), None);
    assert_eq!(WindowBits::new(16), None);
}

#[test]
fn what_a_client_accepts() {
    let plain = Offer::default();
    let limited = Offer::default().with_server_max_window_bits(bits(10));
    let asked = Offer::default().with_client_max_window_bits(WindowBits::MAX);
    let hinted = Offer::default().with_client_max_window_bits(bits(12));
    let params = Err(HandshakeError::DeflateParams);
    let windows = |server: u8, client: u8| Ok(Some((server, client)));
    for (offers, choice, expected) in [
        (&[plain][..], "", Ok(None)),
        (&[plain], ", ,", Ok(None)),
        (&[plain], "permessage-deflate", windows(15, 15)),
        (&[plain], "permessage-deflate; server_max_window_bits=8", windows(8, 15)),
        (&[plain], "permessage-deflate; client_max_window_bits=12", params),
        (&[limited], "permessage-deflate", params),
        (&[limited], "permessage-deflate; server_max_window_bits=11", params),
        (&[limited], "permessage-deflate; server_max_window_bits=10", windows(10, 15)),
        (&[limited], "permessage-deflate; server_max_window_bits=9", windows(9, 15)),
        (&[limited, plain], "permessage-deflate", windows(15, 15)),
        (&[asked], "permessage-deflate; client_max_window_bits=9", windows(15, 9)),
        // What the compressor does not have.
        (&[asked], "permessage-deflate; client_max_window_bits=8", params),
        (&[asked], "permessage-deflate; client_max_window_bits", params),
        (&[hinted], "permessage-deflate", windows(15, 12)),
        (&[hinted], "permessage-deflate; client_max_window_bits=13", params),
        (&[hinted], "permessage-deflate; client_max_window_bits=11", windows(15, 11)),
        (&[Offer::shared()], "permessage-deflate", params),
        (&[plain], "permessage-bzip2", Err(HandshakeError::UnofferedExtension)),
        (&[], "permessage-deflate", Err(HandshakeError::UnofferedExtension)),
        (
            &[plain],
            "permessage-deflate, permessage-deflate",
            Err(HandshakeError::UnofferedExtension),
        ),
        (&[plain], "permessage-deflate;", Err(HandshakeError::InvalidExtensions)),
    ] {
        let judged = judge(offers, choice).map(|agreement| {
            agreement.map(|agreement| {
                (agreement.window_bits(Role::Server), agreement.window_bits(Role::Client))
            })
        });
        assert_eq!(judged, expected, "{choice} to {offers:?}");
    }

    let unasked = judge(&[plain], BOTH_NO).expect("a server may say so").expect("it is agreed");
    assert!(!unasked.takeover(Role::Client) && !unasked.takeover(Role::Server));
    let hint = Offer::default().with_client_no_context_takeover(true);
    let kept = judge(&[hint], "permessage-deflate").expect("a hint needs no answer");
    let kept = kept.expect("it is agreed");
    assert!(!kept.takeover(Role::Client) && kept.takeover(Role::Server));
}

#[test]
fn an_agreement_for_someone_else_is_not_written() {
    let agreement = shake(&[Offer::default()], Some(&Policy::default())).server;
    let head = "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    let request = Request::parse(head.as_bytes(), &HeadLimits::default()).expect("a request");
    let upgrade = request.check_upgrade().expect("an upgrade");
    let mut out = Vec::new();
    let refused = Accept::new().with_deflate(agreement).encode(&upgrade, &mut out);
    assert_eq!(refused, Err(HandshakeError::DeflateNotOffered));
    assert!(out.is_empty());
}
