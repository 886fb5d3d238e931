//! What an idle connection holds, beside the transport and its task.

#![expect(unsafe_code, reason = "an allocator that counts")]
#![expect(clippy::disallowed_types, reason = "connections share their settings")]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use ringwire_tokio::handshake::server::Accept;
use ringwire_tokio::{CompressionConfig, Config, Message, accept_with, client, request};

thread_local! {
    /// The bytes that this thread has allocated, less those that it has freed. The harness has a thread of its own.
    static ALLOCATED: Cell<usize> = const { Cell::new(0) };
}

fn count(change: impl Fn(usize) -> usize) {
    ALLOCATED.with(|allocated| allocated.set(change(allocated.get())));
}

struct Counting;

// SAFETY: the system's allocator does the work.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(|allocated| allocated.wrapping_add(layout.size()));
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(|allocated| allocated.wrapping_sub(layout.size()));
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// What both ends of an idle connection have allocated, in bytes, beside their sockets.
async fn idle_len(config: Config, message: &Message) -> usize {
    const COUNT: usize = 100;
    let config = std::sync::Arc::new(config);
    let mut sockets = Vec::with_capacity(COUNT + 1);
    let mut transports = 0;
    let mut begin = 0;
    for round in 0..=COUNT {
        // The first one fills what the thread shares.
        if round == 1 {
            begin = ALLOCATED.get();
            transports = 0;
        }
        let before = ALLOCATED.get();
        let (near, far) = tokio::net::UnixStream::pair().unwrap();
        transports += ALLOCATED.get() - before;
        let shaking = client(near, request("a", "/").unwrap(), std::sync::Arc::clone(&config));
        let accepting = accept_with(far, std::sync::Arc::clone(&config), |_| Ok(Accept::new()));
        let (shaken, accepted) = tokio::join!(shaking, accepting);
        let (mut client, mut server) = (shaken.unwrap().0, accepted.unwrap());
        for _ in 0..3 {
            // Longer than what a socket takes at once, so that both have to work.
            let sending = async {
                client.send(message.clone()).await.unwrap();
                client.ping(b"ping").await.unwrap();
            };
            let ((), received) = tokio::join!(sending, server.receive());
            let received = received.unwrap().unwrap();
            let (sent, received) = tokio::join!(server.send(received), client.receive());
            sent.unwrap();
            assert_eq!(received.unwrap().map(|it| it.len()), Some(message.len()));
        }
        tokio::select! {
            biased;
            _ = server.receive() => unreachable!("nothing is sent"),
            () = tokio::task::yield_now() => {}
        }
        tokio::select! {
            biased;
            _ = client.receive() => unreachable!("nothing is sent"),
            () = tokio::task::yield_now() => {}
        }
        assert_eq!((client.buffered_len(), server.buffered_len()), (0, 0));
        sockets.push((client, server));
    }
    (ALLOCATED.get() - begin - transports) / COUNT
}

#[test]
fn an_idle_connection_holds_no_buffer() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let plain = idle_len(Config::default(), &Message::from("hi")).await;
        let long = idle_len(Config::default(), &Message::from(vec![1; 100_000])).await;
        let compression = CompressionConfig::default().with_threshold(0);
        let shared = Config::default().with_compression(compression);
        let shared = idle_len(shared, &Message::from("hi")).await;
        println!("allocated by two ends, in bytes: {plain}, {long} after long messages, {shared} with compression");
        assert_eq!((plain, long), (0, 0));
        // What was agreed on.
        assert!(shared <= 64, "{shared}");
    });
}
