//! Functions that never rest, peers that never read, and whatever else one connection could do to the others of its
//! worker.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::atomic::AtomicBool;

use ringwire_peers::frame;

use super::*;

/// Comes back once the others of the turn were polled.
async fn yields() {
    let mut was_here = false;
    poll_fn(|cx| {
        if std::mem::replace(&mut was_here, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// Whatever a function does without end, the other connections of its worker are served.
fn others_are_served_beside(word: &str) {
    let alive = Alive::default();
    let lives = alive.clone();
    let server = serve(config(), async move |mut socket: Socket| {
        let _life = lives.one();
        while let Some(message) = socket.receive().await? {
            match message.as_text().unwrap_or_default() {
                "yield" => loop {
                    yields().await;
                },
                "with" => loop {
                    socket.with(|_| ()).await?;
                },
                "stream" => loop {
                    socket.send(vec![7; 16 << 10]).await?;
                },
                "little" => loop {
                    socket.send("").await?;
                },
                _ => socket.send(message).await?,
            }
        }
        Ok::<_, SocketError>(())
    });
    let mut restless = server.client();
    restless.send(word);
    // As fast as it comes.
    let mut line = restless.stream.try_clone().unwrap();
    let reading = thread::spawn(move || {
        let mut buffer = vec![0; 256 << 10];
        while line.read(&mut buffer).is_ok_and(|count| count > 0) {}
    });
    let mut other = server.client();
    for number in 0..200 {
        other.send(number.to_string().as_str());
        assert_eq!(other.text(), number.to_string(), "beside {word:?}");
    }
    restless.stream.shutdown(Shutdown::Both).unwrap();
    reading.join().unwrap();
    reset(restless);
    drop(other);
    drop(server);
    assert_eq!(alive.count(), 0);
}

#[test]
fn a_future_that_wakes_itself_for_ever_holds_nobody_up() {
    others_are_served_beside("yield");
}

#[test]
fn a_function_that_asks_the_engine_without_end_holds_nobody_up() {
    others_are_served_beside("with");
}

#[test]
fn a_function_that_sends_to_who_takes_all_at_once_holds_nobody_up() {
    others_are_served_beside("stream");
}

#[test]
fn messages_without_a_payload_take_room_as_well() {
    others_are_served_beside("little");
}

#[test]
fn wakers_are_woken_by_threads_all_the_time_and_for_ever() {
    let wakers: Arc<Mutex<Vec<Waker>>> = Arc::default();
    let is_over = Arc::new(AtomicBool::new(false));
    let (known, alive) = (Arc::clone(&wakers), Alive::default());
    let lives = alive.clone();
    let server = serve(config(), async move |mut socket: Socket| {
        let _life = lives.one();
        let mut waking = 0;
        while let Some(message) = socket.receive().await? {
            // Ten wakes by other threads, whomever they are for.
            poll_fn(|cx| {
                let mut known = known.lock().unwrap();
                if waking == 0 {
                    known.push(cx.waker().clone());
                }
                waking += 1;
                if waking > 10 { Poll::Ready(()) } else { Poll::Pending }
            })
            .await;
            waking = 0;
            socket.send(message).await?;
        }
        Ok::<_, SocketError>(())
    });
    let storm: Vec<_> = (0..3)
        .map(|_| {
            let (wakers, is_over) = (Arc::clone(&wakers), Arc::clone(&is_over));
            thread::spawn(move || {
                while !is_over.load(Ordering::Relaxed) {
                    let wakers = wakers.lock().unwrap().clone();
                    wakers.iter().for_each(Waker::wake_by_ref);
                    wakers.into_iter().for_each(Waker::wake);
                    thread::yield_now();
                }
            })
        })
        .collect();
    for _ in 0..5 {
        let mut clients: Vec<_> = (0..10).map(|_| server.client()).collect();
        for round in 0..4 {
            clients.iter_mut().for_each(|client| client.send(round.to_string().as_str()));
            for client in &mut clients {
                assert_eq!(client.text(), round.to_string());
            }
        }
        clients.into_iter().for_each(reset);
    }
    wait_until("all are dropped", || alive.count() == 0);
    drop(server);
    // Nobody is left to be woken.
    wakers.lock().unwrap().iter().for_each(Waker::wake_by_ref);
    is_over.store(true, Ordering::Relaxed);
    storm.into_iter().for_each(|thread| thread.join().unwrap());
}

#[test]
fn a_peer_that_never_reads_is_given_up_and_send_says_so() {
    let ends: Arc<Mutex<Vec<SocketError>>> = Arc::default();
    let noted = Arc::clone(&ends);
    let config = config().with_write_stall_timeout(Duration::from_millis(500));
    let server = serve(config, async move |mut socket: Socket| {
        loop {
            if let Err(error) = socket.send(vec![0; 64 << 10]).await {
                noted.lock().unwrap().push(error);
                return;
            }
        }
    });
    let client = server.client();
    wait_until("it is given up", || !ends.lock().unwrap().is_empty());
    let ended = ends.lock().unwrap().pop();
    let Some(SocketError::Ended(cause)) = ended else { panic!("{ended:?}") };
    assert_eq!(cause.reason, CloseReason::WriteStall);
    assert!(cause.unsent_len > 0, "{cause:?}");
    drop(client);
}

#[test]
fn who_is_not_received_from_cannot_be_resumed_past_the_bound() {
    let high_water = 64 << 10;
    let config = config().with_high_water(high_water);
    let server = serve(config, async move |mut socket: Socket| {
        // Pauses of the application's own have nothing to do with it.
        socket.with(|ctx| ctx.resume()).await.unwrap();
        std::future::pending::<()>().await;
    });
    let client = server.client();
    let mut line = client.stream.try_clone().unwrap();
    let messages = frame(0x82, &[1; 1000]).repeat(100);
    // Until the socket is gone.
    let sending = thread::spawn(move || while line.write_all(&messages).is_ok() {});
    wait_until("as much waits as may", || server.stats().memory_input >= 64 << 10);
    let id = server.handle().connection_ids().next().unwrap();
    for _ in 0..50 {
        server.handle().resume(id).unwrap();
        server.looks();
        let waits = server.stats().memory_input;
        // Beside the messages the rest of a read waits, 64 KiB, and with io_uring what a request brought that was to
        // end, 64 KiB in memory that has grown by doubling.
        assert!(waits < 320 << 10, "{waits} bytes wait");
    }
    client.stream.shutdown(Shutdown::Both).unwrap();
    sending.join().unwrap();
}

/// A function that only sends says so, and its peer is not held up.
#[test]
fn what_nobody_wants_is_dropped_and_reading_goes_on() {
    let answers = Answers::default();
    let known = answers.clone();
    let config = config().with_high_water(16 << 10);
    let server = serve(config, async move |socket: Socket| {
        let (sender, receiver) = socket.split();
        // There is too much already.
        known.of("there is too much".into()).await;
        drop(receiver);
        sender.send("go on").await?;
        known.of("that is all".into()).await;
        sender.send("the end").await
    });
    let mut client = server.client();
    (0..1000).for_each(|_| client.send(&[1; 100][..]));
    wait_until("it is held up", || server.stats().memory_input >= 16 << 10);
    answers.tell("there is too much", "");
    assert_eq!(client.text(), "go on");
    (0..10_000).for_each(|_| client.send(&[1; 100][..]));
    client.ping(b"heard?");
    assert_eq!(client.next(), Got::Pong(b"heard?".to_vec()));
    wait_until("nothing is kept", || server.stats().memory_input < 4096);
    answers.tell("that is all", "");
    assert_eq!(client.text(), "the end");
    assert_eq!(client.close_frame().0, 1000);
}

/// Functions of one worker that send to each other's connections.
#[test]
fn a_half_works_for_other_connections_of_the_worker() {
    let causes: Arc<Mutex<Vec<CloseReason>>> = Arc::default();
    let noted = Arc::clone(&causes);
    let config = config().with_high_water(32 << 10);
    let server = with(config, move || {
        let (all, noted) = (Rc::new(RefCell::new(Vec::new())), Arc::clone(&noted));
        Serve::new(async move |socket: Socket| {
            let (sender, mut receiver) = socket.split();
            all.borrow_mut().push(sender);
            while let Some(message) = receiver.receive().await? {
                let first = all.borrow()[0].clone();
                match message.as_text() {
                    Some("fill") => {
                        for number in 0..300_u32 {
                            first.send(number.to_be_bytes().repeat(16 << 10)).await?;
                        }
                        first.send("full").await?;
                    }
                    Some("ask") => {
                        let id = first.with(|ctx| ctx.id()).await?;
                        assert_eq!(id, first.with(|ctx| ctx.id()).await?);
                        first.ping(b"asked")?;
                    }
                    Some("outlive") => {
                        let reason = first.closed().await.reason;
                        noted.lock().unwrap().push(reason);
                        assert!(matches!(first.send("late").await, Err(SocketError::Ended(_))));
                        assert!(first.with(|_| ()).await.is_err());
                    }
                    Some("return") => return Ok(()),
                    _ => first.send(message).await?,
                }
            }
            Ok::<_, SocketError>(())
        })
    });
    let mut first = server.client();
    first.send("first");
    assert_eq!(first.text(), "first");
    let mut other = server.client();
    other.send("hello");
    assert_eq!(first.text(), "hello", "though nothing else happens there");
    other.send("ask");
    assert_eq!(first.next(), Got::Ping(b"asked".to_vec()));
    other.send("fill");
    for number in 0..300_u32 {
        assert_eq!(first.binary(), number.to_be_bytes().repeat(16 << 10));
    }
    assert_eq!(first.text(), "full");
    other.send("outlive");
    first.send("return");
    assert_eq!(first.close_frame().0, 1000);
    wait_until("it is told", || causes.lock().unwrap().len() == 1);
    assert_eq!(causes.lock().unwrap()[0], CloseReason::Local);
    drop(first);
    wait_until("one is left", || server.stats().connections == 1);
    other.ping(b"here?");
    assert_eq!(other.next(), Got::Pong(b"here?".to_vec()), "nothing has failed");
}

/// What gives up waiting, time and again, takes no message with it, and no memory.
#[test]
fn waiting_can_be_given_up() {
    let answers = Answers::default();
    let known = answers.clone();
    let server = serve(config(), async move |socket: Socket| {
        let (sender, mut receiver) = socket.split();
        let mut rounds = 0;
        loop {
            // A receive, the end and something else: whichever is first. The others are dropped.
            let mut receiving = Box::pin(receiver.receive());
            let mut ending = Box::pin(sender.closed());
            let mut asking = Box::pin(known.of(rounds.to_string()));
            let message = poll_fn(|cx| {
                if let Poll::Ready(received) = receiving.as_mut().poll(cx) {
                    return Poll::Ready(received);
                }
                assert!(ending.as_mut().poll(cx).is_pending());
                asking.as_mut().poll(cx).map(|_| Ok(None))
            })
            .await?;
            drop((receiving, ending, asking));
            rounds += 1;
            match message {
                Some(message) => sender.send(message).await?,
                None => sender.send("asked").await?,
            }
        }
        #[expect(unreachable_code, reason = "it says which error there is")]
        Ok::<_, SocketError>(())
    });
    let mut client = server.client();
    for round in 0..500 {
        if round % 3 == 0 {
            client.send("a message");
            assert_eq!(client.text(), "a message");
        } else {
            answers.tell(&round.to_string(), "");
            assert_eq!(client.text(), "asked");
        }
    }
}

#[test]
fn destructors_that_panic_end_nothing_else() {
    struct Bomb;

    impl Drop for Bomb {
        fn drop(&mut self) {
            panic!("in a destructor");
        }
    }

    /// Is not dropped by its own panic.
    struct Panics {
        _bomb: Bomb,
    }

    impl Future for Panics {
        type Output = ();

        fn poll(self: std::pin::Pin<&mut Self>, _: &mut std::task::Context<'_>) -> Poll<()> {
            panic!("in a poll");
        }
    }

    let server = with(config(), || {
        Router::new().websocket_async(
            "/",
            async |request: OwnedRequest| Ok(request.query().unwrap_or_default().to_owned()),
            async |word: String, mut socket: Socket| {
                socket.send(word.as_str()).await?;
                let Some(message) = socket.receive().await? else { return Ok(()) };
                match word.as_str() {
                    "echo" => socket.send(message).await?,
                    "return" => drop(
                        Box::pin(async {
                            let _bomb = Bomb;
                        })
                        .as_mut()
                        .poll(&mut std::task::Context::from_waker(Waker::noop())),
                    ),
                    "end" => {
                        let _bomb = Bomb;
                        std::future::pending::<()>().await;
                    }
                    _ => {
                        let call = socket.with(|ctx| {
                            let _ = ctx.spawn(Panics { _bomb: Bomb }, |_, ()| {});
                        });
                        call.await?;
                        std::future::pending::<()>().await;
                    }
                }
                Ok::<_, SocketError>(())
            },
        )
    });
    let open = |word: &str| {
        let target = format!("/?{word}");
        let request = handshake::Request::new("localhost", &target, [7; 16]).unwrap();
        let mut client = Client::upgrade(connect(server.addr()), &request);
        assert_eq!(client.text(), word);
        client.send("go");
        client
    };
    for (word, code) in [("return", 1011), ("spawn", 1011)] {
        assert_eq!(open(word).close_frame().0, code, "{word}");
    }
    let ends = open("end");
    ends.reset();
    wait_until("all are gone", || server.stats().connections == 0);
    let mut echo = open("echo");
    assert_eq!(echo.text(), "go");
}

#[test]
fn a_server_ends_in_time_whatever_functions_wait_for() {
    let (alive, answers) = (Alive::default(), Answers::default());
    let (lives, known) = (alive.clone(), answers.clone());
    let server = with(config().with_compute_workers(1), move || {
        let (lives, known) = (lives.clone(), known.clone());
        let (asked, later) = (known.clone(), lives.clone());
        Router::new()
            .get_async("/http", async move |_: OwnedRequest| {
                let _life = later.one();
                Response::text(asked.of("never".into()).await)
            })
            .websocket(
                "/",
                Serve::new(async move |mut socket: Socket| {
                    let _life = lives.one();
                    let more = [lives.one(), lives.one()];
                    let spawned = socket.with(|ctx| {
                        let [life, other] = more;
                        let forever = async move {
                            let _life = life;
                            std::future::pending::<()>().await;
                        };
                        ctx.spawn(forever, move |_, ()| drop(other))
                    });
                    spawned.await?.unwrap();
                    socket.send("ready").await?;
                    while let Some(message) = socket.receive().await? {
                        match message.as_text() {
                            Some("wait") => drop(known.of("never".into()).await),
                            Some("fill") => loop {
                                socket.send(vec![0; 64 << 10]).await?;
                            },
                            _ => drop(socket.closed().await),
                        }
                    }
                    Ok::<_, SocketError>(())
                }),
            )
    });
    let mut clients: Vec<_> = ["wait", "fill", "closed", ""]
        .map(|word| {
            let mut client = server.client();
            assert_eq!(client.text(), "ready");
            client.send(word);
            client
        })
        .into();
    let mut asking = connect(server.addr());
    asking.write_all(b"GET /http HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    wait_until("all wait", || answers.count() >= 2 && alive.count() == 13);
    server.handle().drain(Duration::from_millis(100), CloseCode::GOING_AWAY);
    server.handle().shutdown(Duration::from_millis(300));
    assert_eq!(clients[0].close_frame().0, 1001);
    server.join().unwrap();
    assert_eq!(alive.count(), 0);
    // There is nobody to hear of it.
    answers.tell("never", "");
    clients.clear();
}
