//! A client and a server joined in memory: what one sends is what the other receives, in order,
//! whatever the wire does to the pieces.

use proptest::collection::vec;
use proptest::prelude::*;
use ringwire_codec::{CloseCode, CloseState, Config, Message, Role, SendError};

use crate::drive::{Driven, KEY, Mode, Seen};

#[derive(Debug, Clone)]
enum Act {
    Send(Payload),
    Fragment(Payload, bool),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(u16, String),
    Poll,
    /// So many bytes of what is on the wire arrive.
    Deliver(usize),
}

#[derive(Debug, Clone)]
enum Payload {
    Text(String),
    Binary(Vec<u8>),
}

impl Payload {
    fn as_message(&self) -> Message<'_> {
        match self {
            Self::Text(text) => Message::Text(text),
            Self::Binary(bytes) => Message::Binary(bytes),
        }
    }
}

fn any_payload() -> impl Strategy<Value = Payload> {
    prop_oneof![
        "[a-zäß€😀]{0,60}".prop_map(Payload::Text),
        vec(any::<u8>(), 0..200).prop_map(Payload::Binary),
        (0_usize..70_000).prop_map(|len| Payload::Binary(vec![0xa5; len])),
    ]
}

fn any_act() -> impl Strategy<Value = Act> {
    prop_oneof![
        6 => any_payload().prop_map(Act::Send),
        4 => (any_payload(), any::<bool>()).prop_map(|(payload, fin)| Act::Fragment(payload, fin)),
        2 => vec(any::<u8>(), 0..=126).prop_map(Act::Ping),
        1 => vec(any::<u8>(), 0..=126).prop_map(Act::Pong),
        1 => (prop_oneof![Just(1000), Just(1005), Just(4999)], "[a-zß]{0,70}")
            .prop_map(|(code, reason)| Act::Close(code, reason)),
        4 => Just(Act::Poll),
        8 => prop_oneof![1_usize..20, 1_usize..100_000].prop_map(Act::Deliver),
    ]
}

/// One end, and what the model says about it.
struct End {
    driven: Driven,
    wire: Vec<u8>,
    /// What the other end has to see, in order.
    sent: Vec<Seen>,
    /// The fragmented message that is being sent.
    fragments: Option<(bool, Vec<u8>)>,
    /// The newest ping that is not answered.
    unanswered: Option<Vec<u8>>,
    /// How much had been seen when this end sent its close frame first.
    seen_at_close: Option<usize>,
}

impl End {
    fn new(role: Role) -> Self {
        let config = Config::default().with_max_control_count(u16::MAX);
        Self {
            driven: Driven::new(role, config, Mode::Whole),
            wire: Vec::new(),
            sent: Vec::new(),
            fragments: None,
            unanswered: None,
            seen_at_close: None,
        }
    }

    fn state(&self) -> CloseState {
        self.driven.connection.close_state()
    }

    /// Does one thing, and checks that it was refused exactly if it had to be.
    fn act(&mut self, act: &Act) {
        let before = self.wire.len();
        let expected = self.expected(act);
        let connection = &mut self.driven.connection;
        let (masks, wire) = (&mut || KEY, &mut self.wire);
        let result = match act {
            Act::Send(payload) => connection.send(payload.as_message(), masks, wire),
            Act::Fragment(payload, fin) => {
                connection.send_fragment(payload.as_message(), *fin, masks, wire)
            }
            Act::Ping(payload) => connection.send_ping(payload, masks, wire),
            Act::Pong(payload) => connection.send_pong(payload, masks, wire),
            Act::Close(code, reason) => {
                connection.close(CloseCode::new(*code), reason, masks, wire)
            }
            Act::Poll => return self.poll(),
            Act::Deliver(_) => return,
        };
        assert_eq!(result, expected, "{act:?}");
        assert_eq!(result.is_ok(), self.wire.len() > before, "a refusal writes nothing");
        if result.is_ok() {
            self.note(act);
        }
    }

    fn expected(&self, act: &Act) -> Result<(), SendError> {
        let may = match act {
            Act::Close(..) => matches!(self.state(), CloseState::Open | CloseState::CloseReceived),
            _ => self.state() == CloseState::Open,
        };
        match (act, &self.fragments) {
            _ if !may => Err(SendError::Closing),
            (Act::Send(_), Some(_)) => Err(SendError::MessageUnderWay),
            (Act::Fragment(payload, _), Some((is_text, _)))
                if *is_text != payload.as_message().is_text() =>
            {
                Err(SendError::KindMismatch)
            }
            (Act::Ping(payload) | Act::Pong(payload), _) if payload.len() > 125 => {
                Err(SendError::ControlTooLong)
            }
            (Act::Close(1005, _), _) => Err(SendError::BadCloseCode),
            (Act::Close(_, reason), _) if reason.len() > 123 => Err(SendError::ReasonTooLong),
            _ => Ok(()),
        }
    }

    /// What the other end will see of it.
    fn note(&mut self, act: &Act) {
        match act {
            Act::Send(payload) => self.sent.push(Seen::message(payload.as_message())),
            Act::Fragment(payload, fin) => {
                let payload = payload.as_message();
                let (is_text, mut bytes) =
                    self.fragments.take().unwrap_or_else(|| (payload.is_text(), Vec::new()));
                bytes.extend_from_slice(payload.as_bytes());
                match (fin, is_text) {
                    (false, _) => self.fragments = Some((is_text, bytes)),
                    (true, true) => {
                        let text = String::from_utf8(bytes).expect("its parts are text");
                        self.sent.push(Seen::Text(text));
                    }
                    (true, false) => self.sent.push(Seen::Binary(bytes)),
                }
            }
            Act::Ping(payload) => self.sent.push(Seen::Ping(payload.clone())),
            Act::Pong(payload) => self.sent.push(Seen::Pong(payload.clone())),
            Act::Close(code, reason) => {
                self.sent.extend(self.unanswered.take().map(Seen::Pong));
                self.sent.push(Seen::Close(Some(CloseCode::new(*code)), reason.clone()));
                if self.state() == CloseState::CloseSent {
                    self.seen_at_close = Some(self.driven.seen.len());
                }
            }
            Act::Poll | Act::Deliver(_) => {}
        }
    }

    fn poll(&mut self) {
        let state = self.state();
        self.driven.connection.poll_transmit(&mut || KEY, &mut self.wire);
        self.sent.extend(self.unanswered.take().map(Seen::Pong));
        if let (CloseState::CloseReceived, Some(Seen::Close(code, _))) =
            (state, self.driven.seen.last())
        {
            self.sent.push(Seen::Close(*code, String::new()));
        }
    }

    fn receive_from(&mut self, other: &mut Self, len: usize) {
        let len = len.min(other.wire.len());
        let arrived: Vec<u8> = other.wire.drain(..len).collect();
        let (state, before) = (self.state(), self.driven.seen.len());
        self.driven.receive(&arrived);
        if state == CloseState::Open {
            let mut pings = self.driven.seen[before..].iter().rev().filter_map(|seen| match seen {
                Seen::Ping(payload) => Some(payload.clone()),
                _ => None,
            });
            self.unanswered = pings.next().or_else(|| self.unanswered.take());
        }
    }

    /// What it has seen is what the other has sent; messages that came after its own close frame
    /// were dropped.
    fn check(&self, other: &Self) {
        let (kept, rest) = other.sent.split_at(self.seen_at_close.unwrap_or(other.sent.len()));
        let rest = rest.iter().filter(|seen| !matches!(seen, Seen::Text(_) | Seen::Binary(_)));
        assert_eq!(self.driven.seen, kept.iter().chain(rest).cloned().collect::<Vec<_>>());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..<_>::default() })]

    #[test]
    fn what_one_sends_the_other_receives(acts in vec((any::<bool>(), any_act()), 0..60)) {
        let mut client = End::new(Role::Client);
        let mut server = End::new(Role::Server);
        for (of_client, act) in &acts {
            let (actor, other) =
                if *of_client { (&mut client, &mut server) } else { (&mut server, &mut client) };
            match act {
                Act::Deliver(len) => actor.receive_from(other, *len),
                act => actor.act(act),
            }
        }
        // The first polls answer what has arrived, the second ones what that brings about.
        for _ in 0..3 {
            server.receive_from(&mut client, usize::MAX);
            server.poll();
            client.receive_from(&mut server, usize::MAX);
            client.poll();
        }
        server.check(&client);
        client.check(&server);
        for end in [&mut client, &mut server] {
            let closed = end.sent.iter().any(|sent| matches!(sent, Seen::Close(..)));
            let state = if closed { CloseState::Closed } else { CloseState::Open };
            prop_assert_eq!(end.state(), state);
            prop_assert_eq!(end.driven.connection.receive_eof().is_ok(), closed);
        }
    }
}
