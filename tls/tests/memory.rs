//! Memory: what an idle session takes, and what a message costs. Allocations are counted by thread, for the harness has
//! one of its own.
#![expect(unsafe_code, reason = "a global allocator that counts")]
#![expect(clippy::expect_used, reason = "a test fails by panicking")]
#![expect(clippy::disallowed_types, reason = "rustls takes shared settings as Arc")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::Arc;

use rcgen::{CertifiedKey, generate_simple_self_signed};
use ringwire_tls::pki_types::{ServerName, UnixTime};
use ringwire_tls::{CertificateSource, ClientSettings, ServerSettings, Session, Version};

struct Counting;

thread_local! {
    static ALLOCATED_LEN: Cell<usize> = const { Cell::new(0) };
    static ALLOCATION_COUNT: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: all is left to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATED_LEN.set(ALLOCATED_LEN.get().wrapping_add(layout.size()));
        ALLOCATION_COUNT.set(ALLOCATION_COUNT.get() + 1);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        ALLOCATED_LEN.set(ALLOCATED_LEN.get().wrapping_sub(layout.size()));
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Bytes allocated by the call and still held after it.
fn held_len(call: impl FnOnce()) -> usize {
    let before = ALLOCATED_LEN.get();
    call();
    ALLOCATED_LEN.get() - before
}

fn allocation_count(call: impl FnOnce()) -> usize {
    let before = ALLOCATION_COUNT.get();
    call();
    ALLOCATION_COUNT.get() - before
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

/// A server session that another program has begun, over rustls's own connection.
fn established(client: &mut Session, config: &Arc<rustls::ServerConfig>) -> Session {
    let mut server = rustls::ServerConnection::new(Arc::clone(config)).expect("a connection");
    let mut to_server = Vec::new();
    client.poll_transmit(&mut to_server).expect("transmits");
    while client.is_handshaking() || server.is_handshaking() || !to_server.is_empty() {
        let mut rest = &to_server[..];
        while !rest.is_empty() {
            server.read_tls(&mut rest).expect("reads");
            server.process_new_packets().expect("processes");
        }
        let mut to_client = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut to_client).expect("writes");
        }
        to_server.clear();
        client.receive(&mut to_client, &mut Vec::new(), &mut to_server).expect("receives");
    }
    Session::established(server).expect("its handshake is over")
}

/// The counters belong to the whole process: one test does all, one thing after the other.
#[test]
fn memory_of_idle_sessions_and_allocations_of_messages() {
    let CertifiedKey { cert, signing_key } =
        generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    let key = rustls::pki_types::PrivatePkcs8KeyDer::from(signing_key.serialize_der());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let foreign = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key.into())
        .expect("a server");
    let foreign = Arc::new(foreign);
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
        let before = ALLOCATED_LEN.get();
        servers.clear();
        let each = (before - ALLOCATED_LEN.get()) / count;
        println!("{version}: {each} bytes of heap for an idle server session");
        assert!(each <= 3_500, "{each}");

        let mut adopted = Vec::with_capacity(count);
        for _ in 0..=count {
            let mut client = Session::client(&client, name.clone()).expect("a session");
            adopted.push(established(&mut client, &foreign));
        }
        let _ = adopted.pop();
        let before = ALLOCATED_LEN.get();
        adopted.clear();
        let each = (before - ALLOCATED_LEN.get()) / count;
        println!("{version}: {each} bytes of heap for one that another program has begun");
        assert!(each <= 9_000, "{each}");

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
