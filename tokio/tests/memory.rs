//! What an idle connection holds, beside the transport and its task.

#![expect(unsafe_code, reason = "an allocator that counts")]
#![expect(clippy::disallowed_types, reason = "connections share their settings")]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

use ringwire_tokio::handshake::server::Accept;
use ringwire_tokio::{CompressionConfig, Config, Message, accept_with, client, request};

/// The bytes that are allocated.
static ALLOCATED: AtomicUsize = AtomicUsize::new(0);

struct Counting;

// SAFETY: the system's allocator does the work.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATED.fetch_add(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        ALLOCATED.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The bytes that a connection holds, with both ends of a pipe, less what the pipe holds.
async fn idle_len(config: Config, message: &Message) -> usize {
    const COUNT: usize = 100;
    let config = std::sync::Arc::new(config);
    let mut sockets = Vec::with_capacity(COUNT);
    let mut pipes = 0;
    let mut begin = 0;
    for round in 0..=COUNT {
        // The first one fills what the thread shares.
        if round == 1 {
            sockets.clear();
            begin = ALLOCATED.load(Ordering::Relaxed);
            pipes = 0;
        }
        let before = ALLOCATED.load(Ordering::Relaxed);
        let (near, far) = tokio::io::duplex(1 << 18);
        pipes += ALLOCATED.load(Ordering::Relaxed) - before;
        let shaking = client(near, request("a", "/").unwrap(), std::sync::Arc::clone(&config));
        let accepting = accept_with(far, std::sync::Arc::clone(&config), |_| Ok(Accept::new()));
        let (shaken, accepted) = tokio::join!(shaking, accepting);
        let (mut client, mut server) = (shaken.unwrap().0, accepted.unwrap());
        for _ in 0..3 {
            client.send(message.clone()).await.unwrap();
            client.ping(b"ping").await.unwrap();
            let received = server.receive().await.unwrap().unwrap();
            server.send(received).await.unwrap();
            client.receive().await.unwrap().unwrap();
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
        // A pipe of tokio's keeps its buffer.
        assert_eq!((client.buffered_len(), server.buffered_len()), (0, 0));
        sockets.push((client, server));
    }
    let held = ALLOCATED.load(Ordering::Relaxed) - begin - pipes;
    held / COUNT
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
        println!("allocated by two ends and their pipe, in bytes: {plain}; {long}; {shared}");
        // What a long message leaves in the pipe is the pipe's.
        assert!(shared <= plain + 100, "{shared}, and {plain} without compression");
    });
}
