//! Messages that are handed over in parts.

use ringwire_codec::{Config, Connection, Error, Event, Input, Limit, OpCode, Role};

use crate::frames::client;
use crate::memory::Counting;

/// The parts in `wire`: bytes, first, last.
fn parts(
    connection: &mut Connection,
    config: &Config,
    wire: &[u8],
) -> Result<Vec<(Vec<u8>, bool, bool)>, Error> {
    let mut wire = wire.to_vec();
    let mut input = Input::new(&mut wire);
    let mut parts = Vec::new();
    while let Some(event) = connection.receive(config, &mut Counting::default(), &mut input)? {
        let Event::Part(part) = event else { panic!("{event:?} is no part") };
        parts.push((part.bytes.to_vec(), part.is_first, part.is_last));
    }
    Ok(parts)
}

fn streaming() -> Connection {
    let mut connection = Connection::new(Role::Server);
    connection.set_streaming(true);
    connection
}

#[test]
fn a_part_is_what_a_read_brought_of_a_frame() {
    let config = Config::default();
    let mut connection = streaming();
    let wire = [
        client(OpCode::Text, false, b"abcd"),
        client(OpCode::Continuation, false, b""),
        client(OpCode::Continuation, true, b"ef"),
    ]
    .concat();
    let (left, right) = wire.split_at(8);
    assert_eq!(parts(&mut connection, &config, left), Ok(vec![(b"ab".to_vec(), true, false)]));
    assert_eq!(
        parts(&mut connection, &config, right),
        Ok(vec![(b"cd".to_vec(), false, false), (b"ef".to_vec(), false, true)])
    );
}

#[test]
fn an_empty_end_is_a_part() {
    let wire = [client(OpCode::Binary, false, b"ab"), client(OpCode::Continuation, true, b"")];
    let config = Config::default();
    assert_eq!(
        parts(&mut streaming(), &config, &wire.concat()),
        Ok(vec![(b"ab".to_vec(), true, false), (Vec::new(), false, true)])
    );
    let wire = client(OpCode::Text, true, b"");
    assert_eq!(parts(&mut streaming(), &config, &wire), Ok(vec![(Vec::new(), true, true)]));
}

#[test]
fn half_a_character_at_the_end_is_refused() {
    let wire = client(OpCode::Text, true, b"a\xe2\x82");
    assert_eq!(parts(&mut streaming(), &Config::default(), &wire), Err(Error::InvalidUtf8));
}

#[test]
fn streamed_messages_have_their_own_limit_and_take_no_buffer() {
    let config = Config::default().with_max_message_len(10).with_max_streamed_len(1000);
    let mut connection = streaming();
    let wire = client(OpCode::Binary, true, &[1; 1000]);
    let mut buffers = Counting::default();
    let mut streamed_len = 0;
    for piece in wire.chunks(7) {
        let mut piece = piece.to_vec();
        let mut input = Input::new(&mut piece);
        while let Ok(Some(event)) = connection.receive(&config, &mut buffers, &mut input) {
            let Event::Part(part) = event else { panic!("{event:?} is no part") };
            streamed_len += part.bytes.len();
        }
    }
    assert_eq!(streamed_len, 1000);
    assert_eq!(buffers.taken, [0_usize; 0]);

    let wire = client(OpCode::Binary, true, &[1; 1001]);
    assert_eq!(
        parts(&mut connection, &config, &wire),
        Err(Error::LimitExceeded(Limit::MessageLen))
    );
}

#[test]
fn a_message_ends_as_it_began() {
    let config = Config::default();
    let mut connection = Connection::new(Role::Server);
    let mut begun = client(OpCode::Text, false, b"whole ");
    let begun = connection.receive(&config, &mut Counting::default(), &mut Input::new(&mut begun));
    assert!(matches!(begun, Ok(None)));
    connection.set_streaming(true);
    let mut ended = client(OpCode::Continuation, true, b"message");
    let ended = connection.receive(&config, &mut Counting::default(), &mut Input::new(&mut ended));
    let Ok(Some(Event::Message(message))) = ended else { panic!("{ended:?} is no message") };
    assert_eq!(message.as_bytes(), b"whole message");
}
