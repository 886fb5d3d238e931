//! A queue that is cut: servers that read a part of it and die.

use std::collections::VecDeque;
use std::io::Read as _;
use std::os::unix::net::UnixStream;
use std::thread::{self, JoinHandle};

use ringwire_codec::{self as codec, Connection, Heap, Input, Role};

use super::super::*;

/// Longer than what a socket holds, so that a message is out only when the server reads it.
const LONG: usize = 64 << 10;

/// A message that was cut is kept, in front of those behind it; those before it are gone.
#[test]
fn a_server_that_dies_in_the_middle_of_the_queue() {
    const COUNT: usize = 9;
    for lives in [[3, 0, 1, 5], [1, 1, 1, 6], [8, 0, 0, 1], [0, 0, 4, 5]] {
        let servers = Arc::default();
        let world = Dying {
            now: Mutex::new(Instant::now()),
            lives: Mutex::new(lives.into()),
            servers: Arc::clone(&servers),
        };
        let limits = OutboxConfig::default().with_max_len(COUNT * 2 * LONG);
        let mut client =
            Reconnecting::within(Box::new(world), Client::builder(), "ws://stage/".parse())
                .with_outbox(limits);
        let sender = client.sender();
        let message = |number: usize| format!("{number} {}", "x".repeat(LONG));
        for number in 0..COUNT {
            assert_eq!(sender.send(message(number).as_str()).unwrap(), Delivery::Queued);
        }
        let mut next = 0;
        for (attempt, count) in lives.into_iter().enumerate() {
            let update = client.next_update().unwrap().unwrap();
            let is_last = attempt + 1 == lives.len();
            match update {
                Update::Connected { dropped: 0, .. } if is_last => {}
                Update::Disconnected { error, .. } if !is_last => {
                    assert!(matches!(*error, Error::Lost(_)), "{error} in attempt {attempt}");
                }
                other => panic!("{other:?} in attempt {attempt} of {lives:?}"),
            }
            let server = servers.lock().unwrap().pop().unwrap();
            let arrived: Vec<usize> =
                server.join().unwrap().iter().map(|number| number.parse().unwrap()).collect();
            assert_eq!(arrived, Vec::from_iter(next..next + count), "{lives:?}");
            next += count;
            let waiting: Vec<_> = client.shared.state().outbox.texts();
            assert_eq!(waiting, Vec::from_iter((next..COUNT).map(message)), "{lives:?}");
        }
        assert_eq!((next, sender.dropped_count()), (COUNT, 0));
    }
}

/// A network whose servers read so many messages each and die, in a time in which no attempt waits.
struct Dying {
    now: Mutex<Instant>,
    lives: Mutex<VecDeque<usize>>,
    servers: Arc<Mutex<Vec<JoinHandle<Vec<String>>>>>,
}

impl World for Dying {
    fn now(&self) -> Instant {
        *self.now.lock().unwrap()
    }

    fn random(&self) -> Result<u64, Error> {
        Ok(7)
    }

    fn connect(&self, builder: &Builder, _url: &Url) -> Result<Client, Error> {
        let (far, near) = UnixStream::pair().unwrap();
        socket2::SockRef::from(&near).set_send_buffer_size(4096).unwrap();
        let count = self.lives.lock().unwrap().pop_front().unwrap();
        self.servers.lock().unwrap().push(thread::spawn(move || read_messages(far, count)));
        builder.from_upgraded(near, Vec::new())
    }

    fn wait<'s>(
        &self,
        _closed: &Condvar,
        state: MutexGuard<'s, State>,
        until: Instant,
    ) -> MutexGuard<'s, State> {
        *self.now.lock().unwrap() = until;
        state
    }
}

/// Reads so many messages, and gives what each begins with.
fn read_messages(mut stream: UnixStream, count: usize) -> Vec<String> {
    let mut codec = Connection::new(Role::Server);
    let (mut found, mut bytes) = (Vec::new(), [0; 1000]);
    while found.len() < count {
        let len = stream.read(&mut bytes).unwrap();
        assert_ne!(len, 0, "the client has gone");
        let mut input = Input::new(&mut bytes[..len]);
        let config = codec::Config::default();
        while let Some(event) = codec.receive(&config, &mut Heap, &mut input).unwrap() {
            let codec::Event::Message(message) = event else { continue };
            let Message::Text(text) = message.as_message() else { panic!("it says no bytes") };
            found.push(text.split(' ').next().unwrap().to_owned());
        }
    }
    found
}
