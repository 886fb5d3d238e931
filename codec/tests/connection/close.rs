//! The close handshake, and connections that end without it.

use ringwire_codec::{
    AbnormalClosure, CloseCode, CloseState, Config, Connection, Event, Heap, Input, OpCode, Role,
    SendError,
};

use crate::drive::KEY;
use crate::frames::{client, frame};
use crate::memory::Counting;

fn no_masks() -> [u8; 4] {
    panic!("a server does not mask")
}

fn receive(connection: &mut Connection, mut wire: Vec<u8>) -> usize {
    let config = Config::default();
    let mut input = Input::new(&mut wire);
    let mut event_count = 0;
    while connection.receive(&config, &mut Heap, &mut input).is_ok_and(|event| event.is_some()) {
        event_count += 1;
    }
    event_count
}

#[test]
fn the_answer_has_the_code_it_answers() {
    for (body, answer) in [
        (&b""[..], &[0x88, 0][..]),
        (b"\x03\xe9", &[0x88, 2, 0x03, 0xe9]),
        (b"\x0f\xa0reason", &[0x88, 2, 0x0f, 0xa0]),
    ] {
        let mut server = Connection::new(Role::Server);
        assert_eq!(receive(&mut server, client(OpCode::Close, true, body)), 1);
        assert_eq!(server.close_state(), CloseState::CloseReceived);
        assert!(server.wants_transmit());
        let mut out = Vec::new();
        assert!(server.poll_transmit(&mut no_masks, &mut out));
        assert_eq!(out, answer);
        assert_eq!(server.close_state(), CloseState::Closed);
        assert_eq!(server.receive_eof(), Ok(()));
    }
}

#[test]
fn the_application_may_answer_itself() {
    let mut server = Connection::new(Role::Server);
    let wire = [client(OpCode::Ping, true, b"p"), client(OpCode::Close, true, b"\x03\xe8")];
    assert_eq!(receive(&mut server, wire.concat()), 2);
    let mut out = Vec::new();
    assert_eq!(server.close(CloseCode::GOING_AWAY, "bye", &mut no_masks, &mut out), Ok(()));
    assert_eq!(out, b"\x8a\x01p\x88\x05\x03\xe9bye", "the pong that was owed, then the answer");
    assert_eq!(server.close_state(), CloseState::Closed);
    assert!(!server.poll_transmit(&mut no_masks, &mut out));
}

#[test]
fn both_close_at_once() {
    let mut server = Connection::new(Role::Server);
    let mut out = Vec::new();
    server.close(CloseCode::NORMAL, "", &mut no_masks, &mut out).expect("it is open");
    assert_eq!(server.close_state(), CloseState::CloseSent);
    assert_eq!(receive(&mut server, client(OpCode::Close, true, b"\x03\xe8")), 1);
    assert_eq!(server.close_state(), CloseState::Closed);
    assert!(!server.wants_transmit(), "the own close frame is the answer");
}

#[test]
fn data_after_the_own_close_frame_is_checked_and_dropped() {
    let mut server = Connection::new(Role::Server);
    let mut buffers = Counting::default();
    let config = Config::default();
    // A message under way when the close frame goes out gives its buffer back.
    let mut begun = client(OpCode::Text, false, b"\xe2\x82");
    assert!(matches!(server.receive(&config, &mut buffers, &mut Input::new(&mut begun)), Ok(None)));
    assert_eq!(buffers.out_count(), 1);
    server.close(CloseCode::NORMAL, "", &mut no_masks, &mut Vec::new()).expect("it is open");
    let mut rest = [
        client(OpCode::Continuation, true, b"\xac"),
        client(OpCode::Binary, true, b"dropped"),
        client(OpCode::Pong, true, b"seen"),
    ]
    .concat();
    let mut input = Input::new(&mut rest);
    let event = server.receive(&config, &mut buffers, &mut input);
    assert!(matches!(event, Ok(Some(Event::Pong(_)))), "{event:?}");
    assert_eq!((buffers.out_count(), buffers.taken.len()), (0, 1));
    let mut wrong = client(OpCode::Text, true, b"\xff");
    server.receive(&config, &mut buffers, &mut Input::new(&mut wrong)).expect_err("it is no text");
    assert_eq!(server.close_state(), CloseState::Closed);
    assert!(!server.wants_transmit(), "there is no second close frame");
}

#[test]
fn a_message_that_a_close_frame_cuts_off_holds_no_memory() {
    let mut server = Connection::new(Role::Server);
    let wire = [client(OpCode::Binary, false, b"begun"), client(OpCode::Close, true, b"")];
    let mut buffers = Counting::default();
    let mut wire = wire.concat();
    let event = server.receive(&Config::default(), &mut buffers, &mut Input::new(&mut wire));
    assert!(matches!(event, Ok(Some(Event::Close(_)))), "{event:?}");
    assert_eq!((buffers.taken.len(), buffers.out_count(), server.buffered_len()), (1, 0, 0));
}

#[test]
fn nothing_is_read_after_the_peers_close_frame() {
    let mut server = Connection::new(Role::Server);
    let wire = [client(OpCode::Close, true, b""), client(OpCode::Text, true, b"late")].concat();
    assert_eq!(receive(&mut server, wire), 1);
    assert_eq!(receive(&mut server, client(OpCode::Text, true, b"later")), 0);
    server.poll_transmit(&mut no_masks, &mut Vec::new());
    assert_eq!(receive(&mut server, client(OpCode::Text, true, b"latest")), 0);
}

#[test]
fn closing_is_refused_twice_and_with_what_may_not_be_sent() {
    let mut client = Connection::new(Role::Client);
    let mut out = Vec::new();
    let mut masks = || KEY;
    for code in [0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, u16::MAX] {
        let refused = client.close(CloseCode::new(code), "", &mut masks, &mut out);
        assert_eq!(refused, Err(SendError::BadCloseCode), "{code}");
    }
    let long = "x".repeat(124);
    assert_eq!(
        client.close(CloseCode::NORMAL, &long, &mut masks, &mut out),
        Err(SendError::ReasonTooLong)
    );
    assert_eq!((client.close_state(), out.len()), (CloseState::Open, 0));
    assert_eq!(client.close(CloseCode::NORMAL, &long[1..], &mut masks, &mut out), Ok(()));
    assert_eq!(out.len(), 2 + 4 + 125);
    assert_eq!(client.close(CloseCode::NORMAL, "", &mut masks, &mut out), Err(SendError::Closing));
}

#[test]
fn an_end_without_a_close_frame_says_where() {
    let mut idle = Connection::new(Role::Client);
    assert_eq!(idle.receive_eof(), Err(AbnormalClosure::BetweenMessages));
    assert_eq!(idle.close_state(), CloseState::Closed);

    let wire = frame(Role::Server, OpCode::Text, false, b"abc");
    for len in 1..=wire.len() {
        let mut cut = Connection::new(Role::Client);
        receive(&mut cut, wire[..len].to_vec());
        assert_eq!(cut.receive_eof(), Err(AbnormalClosure::InsideMessage), "{len}");
    }

    let mut unanswered = Connection::new(Role::Server);
    unanswered.close(CloseCode::NORMAL, "", &mut no_masks, &mut Vec::new()).expect("it is open");
    assert_eq!(unanswered.receive_eof(), Err(AbnormalClosure::CloseUnanswered));

    let mut failed = Connection::new(Role::Server);
    receive(&mut failed, vec![0xff; 20]);
    assert_eq!(failed.close_state(), CloseState::Failed);
    failed.poll_transmit(&mut no_masks, &mut Vec::new());
    assert_eq!(failed.close_state(), CloseState::Closed);
    assert_eq!(failed.receive_eof(), Err(AbnormalClosure::AfterError));
    assert_eq!(AbnormalClosure::AfterError.close_code(), CloseCode::ABNORMAL);
}
