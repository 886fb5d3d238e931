//! What the service manager is told.

#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "tests own sockets, have a clock, and hold workers up"
)]

use std::ffi::OsStr;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::Instant;

use ringwire::{Answer, Ctx, Handler, Message, Notifier, PostError, Posted, Request, on_message};

use super::listeners::{Guard, open};
use crate::support::{Gate, PATIENCE, config, ms};

/// A manager that listens at `address`.
fn manager() -> (UnixDatagram, String) {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let name = format!("ringwire-notify-{}-{count}", std::process::id());
    let address = SocketAddr::from_abstract_name(&name).expect("it is short");
    let socket = UnixDatagram::bind_addr(&address).expect("nobody else has it");
    socket.set_read_timeout(Some(PATIENCE)).expect("it is a time");
    (socket, format!("@{name}"))
}

fn told(manager: &UnixDatagram) -> String {
    let mut buffer = [0; 256];
    let len = manager.recv(&mut buffer).expect("it is told");
    String::from_utf8_lossy(&buffer[..len]).into_owned()
}

#[test]
fn the_manager_is_told() {
    let (manager, address) = manager();
    let notifier = Notifier::new(OsStr::new(&address), None).unwrap();
    notifier.ready().unwrap();
    notifier.status("a line\nand no other").unwrap();
    notifier.stopping().unwrap();
    assert_eq!(told(&manager), "READY=1");
    assert_eq!(told(&manager), "STATUS=a line and no other");
    assert_eq!(told(&manager), "STOPPING=1");
}

/// A worker whose mailbox is full is busy, and not stuck.
#[test]
fn signs_of_life_come_from_a_worker_with_a_full_mailbox() {
    struct Slow;
    impl Handler for Slow {
        type State = ();

        fn on_request(&mut self, _: &Request<'_>) -> Answer<()> {
            Answer::accept(())
        }

        fn on_message(&mut self, _: &mut Ctx<'_, ()>, _: Message<'_>) {}

        // Enough for a turn of a thousand events to take five seconds.
        fn on_event(&mut self, _: Posted) -> Result<(), Posted> {
            thread::sleep(ms(5));
            Ok(())
        }
    }
    let (manager, address) = manager();
    let server = ringwire::Server::new(config().with_io_workers(1).with_mailbox_len(1));
    let running = server.listen("127.0.0.1:0").start(|_| Slow).unwrap();
    let handle = running.handle();
    let _guard = Guard(Some(running), handle.clone());
    let is_over = Arc::new(AtomicBool::new(false));
    let (over, posting) = (Arc::clone(&is_over), handle.clone());
    let poster = thread::spawn(move || {
        let is_stopped = || {
            let refused = posting.post_event(0, 7_u32).err();
            refused.is_some_and(|refused| refused.reason() == PostError::Stopped)
        };
        while !over.load(Ordering::Relaxed) && !is_stopped() {}
    });
    Notifier::new(OsStr::new(&address), Some(ms(200))).unwrap().watch(handle).unwrap();
    let began = Instant::now();
    for _ in 0..10 {
        assert_eq!(told(&manager), "WATCHDOG=1");
        // Half of the time for each, and a moment; a machine that is busy takes more.
        assert!(began.elapsed() < PATIENCE, "{:?}", began.elapsed());
    }
    is_over.store(true, Ordering::Relaxed);
    poster.join().unwrap();
}

#[test]
fn signs_of_life_come_while_every_worker_turns() {
    let (manager, address) = manager();
    let gate = Gate::new();
    let stuck = gate.clone();
    let server = ringwire::Server::new(config().with_io_workers(2)).listen("127.0.0.1:0");
    let running = server
        .start(move |_| {
            let stuck = stuck.clone();
            on_message(move |_, _| stuck.pass())
        })
        .unwrap();
    let (url, handle) = (running.urls().next().unwrap(), running.handle());
    let _guard = Guard(Some(running), handle.clone());
    let notifier = Notifier::new(OsStr::new(&address), Some(ms(200))).unwrap();
    notifier.watch(handle).unwrap();
    for _ in 0..3 {
        assert_eq!(told(&manager), "WATCHDOG=1", "idle workers turn as well");
    }
    let mut client = open(&url);
    client.send_text("get stuck").unwrap();
    manager.set_read_timeout(Some(ms(600))).unwrap();
    // Some may be on their way.
    let ended = (0..100).any(|_| manager.recv(&mut [0; 64]).is_err());
    assert!(ended, "one worker is stuck");
    gate.open();
    manager.set_read_timeout(Some(PATIENCE)).unwrap();
    assert_eq!(told(&manager), "WATCHDOG=1", "it turns again");
}
