//! What two ends agree on about compression.

use ringwire_codec::Role;
use ringwire_codec::deflate::{Agreement, Offer, Policy, WindowBits};
use ringwire_codec::handshake::server::{Accept, Request};
use ringwire_codec::handshake::{HandshakeError, HeadLimits, client};

/// The same window of three bits; `None` for 0.
fn window(bits: u8) -> Option<WindowBits> {
    WindowBits::new((bits & 7) + 8)
}

fn policy(bits: u8, windows: u8) -> Policy {
    Policy::default()
        .with_server_context_takeover(bits & 1 > 0)
        .with_client_context_takeover(bits & 2 > 0)
        .with_server_max_window_bits(window(windows).unwrap_or_default())
        .with_client_max_window_bits(window(windows >> 3).unwrap_or_default())
}

fn offer(bits: u8, windows: u8) -> Offer {
    let mut offer = Offer::default()
        .with_server_no_context_takeover(bits & 1 > 0)
        .with_client_no_context_takeover(bits & 2 > 0);
    offer.server_max_window_bits = window(windows).filter(|_| bits & 4 > 0);
    offer.client_max_window_bits = window(windows >> 3).filter(|_| bits & 8 > 0);
    offer
}

/// The value of the header, in a head.
fn extensions_of(head: &[u8]) -> Option<Vec<u8>> {
    let name = b"\r\nSec-WebSocket-Extensions: ";
    let at = head.windows(name.len()).position(|window| window == name)? + name.len();
    let len = head[at..].windows(2).position(|window| window == b"\r\n")?;
    Some(head[at..at + len].to_vec())
}

/// What a server makes of offers, and what it answers.
fn choose(offers: &[u8], policy: &Policy) -> Option<(Agreement, Vec<u8>)> {
    let head = [
        b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
          Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
          Sec-WebSocket-Extensions: ",
        offers,
        b"\r\n\r\n",
    ]
    .concat();
    let request = Request::parse(&head, &HeadLimits::default()).ok()?;
    let upgrade = request.check_upgrade().ok()?;
    let agreement = upgrade.deflate(policy);
    let mut out = Vec::new();
    Accept::new().with_deflate(agreement).encode(&upgrade, &mut out).expect("it was offered");
    let answer = extensions_of(&out);
    assert_eq!(answer.is_some(), agreement.is_some(), "no header without an agreement");
    agreement.zip(answer)
}

fn request(offers: &[Offer]) -> client::Request {
    let request = client::Request::new("a", "/", *b"the sample nonce").expect("well-formed");
    offers.iter().fold(request, |request, offer| request.with_deflate(*offer))
}

/// What a client makes of a server's choice.
fn judge(offers: &[Offer], choice: &[u8]) -> Result<Option<Agreement>, HandshakeError> {
    let head = [
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
          Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nSec-WebSocket-Extensions: ",
        choice,
        b"\r\n\r\n",
    ]
    .concat();
    let response = client::Response::parse(&head, &HeadLimits::default())?;
    Ok(response.check_upgrade(&request(offers))?.deflate)
}

/// Our two ends agree on the same; whatever a stranger offers, the answer fits one of its offers; whatever a stranger
/// answers, it is taken only if it fits one of ours (RFC 7692 §7.1).
pub(crate) fn negotiation(input: &[u8]) {
    let [ours, our_windows, first, first_windows, second, second_windows, text @ ..] = input else {
        return;
    };
    let policy = policy(*ours, *our_windows);
    let offers = [offer(*first, *first_windows), offer(*second, *second_windows)];
    let mut written = Vec::new();
    request(&offers).encode(&mut written);
    let written = extensions_of(&written).expect("there are two offers");
    let (agreement, answer) = choose(&written, &policy).expect("each of them can be accepted");
    let judged = judge(&offers[..1], &answer).expect("it answers the first");
    assert_same(judged.expect("it chooses one"), agreement, &offers[0]);
    judge(&offers, &answer).expect("it answers one of them");
    // A value has no line ending in it.
    if text.iter().any(u8::is_ascii_control) {
        return;
    }
    if let Some((agreement, answer)) = choose(text, &policy) {
        check_choice(text, &answer, &policy, agreement);
    }
    if let Ok(Some(agreement)) = judge(&offers, text) {
        check_answer(text, &offers, agreement);
    }
}

/// Two ends of a connection. A client may keep to less than it has to, so its own window may be smaller than the server knows.
fn assert_same(client: Agreement, server: Agreement, offer: &Offer) {
    for role in [Role::Client, Role::Server] {
        assert_eq!(client.takeover(role), server.takeover(role), "{role:?}");
    }
    assert_eq!(client.window_bits(Role::Server), server.window_bits(Role::Server));
    let own = offer.client_max_window_bits.unwrap_or_default().get();
    assert_eq!(client.window_bits(Role::Client), server.window_bits(Role::Client).min(own));
}

/// One offer or answer, split at its punctuation. `None`: it is none of this extension, or malformed.
#[derive(Debug, Default)]
struct Plain {
    server_no_takeover: bool,
    client_no_takeover: bool,
    server_bits: Option<u8>,
    client_bits: Option<Option<u8>>,
}

impl Plain {
    fn of(element: &str) -> Option<Self> {
        let mut parts = element.split(';').map(|part| part.trim_matches([' ', '\t']));
        let mut plain = Self::default();
        if !parts.next()?.eq_ignore_ascii_case("permessage-deflate") {
            return None;
        }
        for part in parts {
            let (name, value) = match part.split_once('=') {
                Some((name, value)) => {
                    let value = value.trim_matches([' ', '\t']);
                    let quoted = value.strip_prefix('"').and_then(|it| it.strip_suffix('"'));
                    let bits: u8 = quoted.unwrap_or(value).parse().ok()?;
                    (name.trim_matches([' ', '\t']), Some(bits))
                }
                None => (part, None),
            };
            match (&*name.to_ascii_lowercase(), value) {
                ("server_no_context_takeover", None) => plain.server_no_takeover = true,
                ("client_no_context_takeover", None) => plain.client_no_takeover = true,
                ("server_max_window_bits", Some(8..=15)) => plain.server_bits = value,
                ("client_max_window_bits", None | Some(8..=15)) => plain.client_bits = Some(value),
                _ => return None,
            }
        }
        Some(plain)
    }

    fn all(list: &[u8]) -> Vec<Self> {
        let list = String::from_utf8_lossy(list);
        list.split(',').filter_map(Self::of).collect()
    }
}

/// A server's answer to a stranger fits one of the stranger's offers and the server's policy (RFC 7692 §7.1.1, §7.1.2).
fn check_choice(offers: &[u8], answer: &[u8], policy: &Policy, agreement: Agreement) {
    let [answer] = &Plain::all(answer)[..] else { panic!("an answer is one element") };
    let fits = |offer: &Plain| {
        (answer.server_no_takeover || !offer.server_no_takeover)
            && match (offer.server_bits, answer.server_bits) {
                (Some(offered), Some(chosen)) => chosen <= offered,
                (Some(_), None) => false,
                (None, _) => true,
            }
            && match (offer.client_bits, answer.client_bits) {
                (None, Some(_)) | (_, Some(None)) => false,
                // A hint is no limit for the server, but it would be odd to ask for more.
                (Some(Some(hint)), Some(Some(chosen))) => chosen <= hint,
                _ => true,
            }
    };
    let offers = Plain::all(offers);
    assert!(offers.iter().any(fits), "{answer:?} to {offers:?}");
    assert_eq!(agreement.takeover(Role::Server), !answer.server_no_takeover);
    assert!(policy.server_context_takeover || !agreement.takeover(Role::Server));
    assert!(policy.client_context_takeover || !agreement.takeover(Role::Client));
    let server_bits = agreement.window_bits(Role::Server);
    assert_eq!(answer.server_bits.unwrap_or(15), server_bits);
    assert!((9..=policy.server_max_window_bits.get()).contains(&server_bits));
}

/// A stranger's answer that a client takes is one that fits an offer of its own.
fn check_answer(answer: &[u8], offers: &[Offer], agreement: Agreement) {
    let [answer] = &Plain::all(answer)[..] else { panic!("an answer is one element") };
    let fits = |offer: &Offer| {
        (answer.server_no_takeover || !offer.server_no_context_takeover)
            && offer.server_max_window_bits.is_none_or(|offered| {
                answer.server_bits.is_some_and(|chosen| chosen <= offered.get())
            })
            && match (offer.client_max_window_bits, answer.client_bits) {
                (_, None) => true,
                // 8 is what the compressor does not have.
                (Some(own), Some(Some(chosen))) => (9..=own.get()).contains(&chosen),
                (None, Some(_)) | (Some(_), Some(None)) => false,
            }
    };
    assert!(offers.iter().any(fits), "{answer:?}");
    assert_eq!(agreement.takeover(Role::Server), !answer.server_no_takeover);
    assert!(!answer.client_no_takeover || !agreement.takeover(Role::Client));
    assert_eq!(agreement.window_bits(Role::Server), answer.server_bits.unwrap_or(15));
    let asked = answer.client_bits.flatten().unwrap_or(15);
    assert!(agreement.window_bits(Role::Client) <= asked);
}
