//! Memory: what an idle session takes, and what a message costs. Alone in its program, since it counts all
//! allocations of the process.
#![expect(unsafe_code, reason = "a global allocator that counts")]
#![expect(clippy::expect_used, reason = "a test fails by panicking")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use rcgen::{CertifiedKey, generate_simple_self_signed};
use ringwire_tls::pki_types::{ServerName, UnixTime};
use ringwire_tls::{CertificateSource, ClientSettings, ServerSettings, Session, Version};

struct Counting;

static ALLOCATED_LEN: AtomicUsize = AtomicUsize::new(0);
static ALLOCATION_COUNT: AtomicUsize = AtomicUsize::new(0);

// SAFETY: all is left to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATED_LEN.fetch_add(layout.size(), Relaxed);
        ALLOCATION_COUNT.fetch_add(1, Relaxed);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        ALLOCATED_LEN.fetch_sub(layout.size(), Relaxed);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Bytes allocated by the call and still held after it.
fn held_len(call: impl FnOnce()) -> usize {
    let before = ALLOCATED_LEN.load(Relaxed);
    call();
    ALLOCATED_LEN.load(Relaxed) - before
}

fn allocation_count(call: impl FnOnce()) -> usize {
    let before = ALLOCATION_COUNT.load(Relaxed);
    call();
    ALLOCATION_COUNT.load(Relaxed) - before
}

/// What each side gets in and gives out, with room for all of a handshake.
struct Wire {
    input: Vec<u8>,
    output: Vec<u8>,
    plaintext: Vec<u8>,
}

fn deliver(to: &mut Session, wire: &mut Wire) {
    std::mem::swap(&mut wire.input, &mut wire.output);
    wire.output.clear();
    to.receive(&mut wire.input, &mut wire.plaintext, &mut wire.output).expect("receives");
}

fn handshake(client: &mut Session, server: &mut Session, wire: &mut Wire) {
    wire.output.clear();
    client.poll_transmit(&mut wire.output).expect("transmits");
    while !wire.output.is_empty() {
        deliver(server, wire);
        deliver(client, wire);
    }
    assert!(!client.is_handshaking() && !server.is_handshaking());
}

/// The counters belong to the whole process: one test does all, one thing after the other.
#[test]
fn memory_of_idle_sessions_and_allocations_of_messages() {
    let CertifiedKey { cert, signing_key } =
        generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    let source = CertificateSource::pem(cert.pem(), signing_key.serialize_pem());
    let server = ServerSettings::new(source).build(UnixTime::now()).expect("a server");
    assert_eq!(size_of::<Session>(), size_of::<usize>());
    let room = || Vec::with_capacity(64 * 1024);
    let mut wire = Wire { input: room(), output: room(), plaintext: room() };
    for version in [Version::Tls12, Version::Tls13] {
        let client = ClientSettings::dangerous_without_certificate_verification()
            .with_max_version(version)
            .with_resumption(false)
            .build(UnixTime::now())
            .expect("a client");
        let name = ServerName::try_from("localhost").expect("a name");
        let mut clients: Vec<Session> =
            (0..16).map(|_| Session::client(&client, name.clone()).expect("a session")).collect();
        let mut servers = Vec::with_capacity(clients.len());
        // What is allocated once is allocated here.
        handshake(
            &mut Session::client(&client, name.clone()).expect("a session"),
            &mut Session::server(&server).expect("a session"),
            &mut wire,
        );
        for client in &mut clients {
            let mut session = Session::server(&server).expect("a session");
            handshake(client, &mut session, &mut wire);
            servers.push(session);
        }
        let mut server_side = servers.pop().expect("a session");
        let count = servers.len();
        // What they held is what dropping them gives back, but for the vector's own.
        let before = ALLOCATED_LEN.load(Relaxed);
        servers.clear();
        let each = (before - ALLOCATED_LEN.load(Relaxed)) / count;
        println!("{version}: {each} bytes of heap for an idle server session");
        assert!(each <= 3_500, "{each}");

        let mut client = clients.pop().expect("a session");
        for len in [1, 512, 16_384, 60_000] {
            let message = vec![b'm'; len];
            let mut echo = || {
                wire.output.clear();
                wire.plaintext.clear();
                client.send(&message, &mut wire.output).expect("sends");
                deliver(&mut server_side, &mut wire);
                assert!(wire.plaintext == message);
            };
            echo();
            let record_count = len.div_ceil(16_384);
            let mut allocated = 0;
            let held = held_len(|| allocated = allocation_count(echo));
            println!("{version}: {allocated} allocations to send and receive {len} bytes");
            assert!(allocated <= 2 * record_count, "rustls has one on each side, and no other");
            assert_eq!(held, 0);
        }
    }
}
