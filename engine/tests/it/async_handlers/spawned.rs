//! Futures that ordinary handlers wait for.

#[cfg(feature = "tokio")]
use std::time::Instant;

use super::*;

#[test]
fn spawned_futures_answer_in_order() {
    let answers = Answers::default();
    let known = answers.clone();
    let server = with(config(), move || {
        let known = known.clone();
        on_message(move |ctx, message| {
            let Message::Text(question) = message else { return };
            let (known, question) = (known.clone(), question.to_owned());
            let answer = async move { known.of(question).await };
            ctx.spawn(answer, |ctx, answer| {
                let _ = ctx.send(answer.as_str());
            })
            .unwrap();
        })
    });
    let mut client = server.client();
    for question in ["a", "b", "c"] {
        client.send(question);
    }
    answers.tell("c", "3");
    answers.tell("b", "2");
    wait_until("the first is waited for", || answers.is_waited_for());
    client.ping(b"");
    assert_eq!(client.next(), Got::Pong(Vec::new()), "nothing overtakes the first");
    answers.tell("a", "1");
    for answer in ["1", "2", "3"] {
        assert_eq!(client.text(), answer);
    }
    client.send("d");
    wait_until("it is waited for", || answers.is_waited_for());
    client.stream.shutdown(Shutdown::Write).unwrap();
    answers.tell("d", "4");
    assert_eq!(client.text(), "4");
    assert_eq!(client.end(), Got::Eof);
}

#[test]
fn spawned_futures_are_bounded_and_end_with_their_connection() {
    let (alive, refusals) = (Alive::default(), Arc::new(AtomicUsize::new(0)));
    let (lives, refused) = (alive.clone(), Arc::clone(&refusals));
    let server = with(config().with_max_jobs_per_connection(3), move || {
        let (lives, refused) = (lives.clone(), Arc::clone(&refused));
        on_message(move |ctx, _| {
            let life = lives.one();
            let endless = async move {
                std::future::pending::<()>().await;
                drop(life);
            };
            if let Err(refusal) = ctx.spawn(endless, |_, ()| {}) {
                assert_eq!(refusal, JobRefusal::TooManyJobs);
                refused.fetch_add(1, Ordering::Relaxed);
            }
        })
    });
    let mut client = server.client();
    for _ in 0..5 {
        client.send("one more");
    }
    wait_until("two are refused", || refusals.load(Ordering::Relaxed) == 2);
    assert_eq!(alive.count(), 3);
    reset(client);
    wait_until("all are dropped", || alive.count() == 0);
}

#[test]
fn without_room_reading_pauses_and_goes_on_by_itself() {
    const COUNT: usize = 200;
    let answers = Answers::default();
    let (known, open) = (answers.clone(), Arc::new(AtomicUsize::new(0)));
    let most = Arc::new(AtomicUsize::new(0));
    let (now, at_most) = (Arc::clone(&open), Arc::clone(&most));
    let server = with(config().with_max_jobs_per_connection(5), move || {
        let (known, now, at_most) = (known.clone(), Arc::clone(&now), Arc::clone(&at_most));
        on_message(move |ctx, message| {
            let Message::Text(question) = message else { return };
            let (known, question) = (known.clone(), question.to_owned());
            let count = now.fetch_add(1, Ordering::Relaxed) + 1;
            at_most.fetch_max(count, Ordering::Relaxed);
            let now = Arc::clone(&now);
            let spawned =
                ctx.spawn_or_pause(async move { known.of(question).await }, move |ctx, answer| {
                    now.fetch_sub(1, Ordering::Relaxed);
                    let _ = ctx.send(answer.as_str());
                });
            spawned.unwrap();
        })
    });
    let mut client = server.client();
    for number in 0..COUNT {
        client.send(number.to_string().as_str());
    }
    wait_until("five wait", || open.load(Ordering::Relaxed) == 5);
    for number in 0..COUNT {
        answers.tell(&number.to_string(), &format!("answer {number}"));
    }
    for number in 0..COUNT {
        assert_eq!(client.text(), format!("answer {number}"));
    }
    assert_eq!(most.load(Ordering::Relaxed), 5);
}

/// A function that is busy has as much room for jobs as one that is not.
#[test]
fn a_function_at_work_is_no_job() {
    let server = serve(config().with_max_jobs_per_connection(1), async |mut socket: Socket| {
        let mut count = 0_u32;
        // Not once does it wait for a message.
        loop {
            let spawned = socket.with(move |ctx| {
                ctx.spawn(async move { count }, |ctx, count| {
                    let _ = ctx.send(count.to_string().as_str());
                })
            });
            match spawned.await? {
                Ok(()) => count += 1,
                Err(refused) => assert_eq!(refused, JobRefusal::TooManyJobs),
            }
            if count == 100 {
                return Ok::<_, SocketError>(());
            }
        }
    });
    let mut client = server.client();
    for number in 0..99 {
        assert_eq!(client.text(), number.to_string());
    }
}

/// What a future costs does not grow with how many there are.
#[test]
fn very_many_futures_answer_in_order() {
    const COUNT: usize = 100_000;

    let server = with(config().with_max_jobs_per_connection(COUNT), || {
        on_message(|ctx, _| {
            for number in 0..COUNT {
                let mut is_next = number % 2 == 0;
                let work = poll_fn(move |cx| {
                    if std::mem::replace(&mut is_next, true) {
                        return Poll::Ready(number);
                    }
                    cx.waker().wake_by_ref();
                    Poll::Pending
                });
                ctx.spawn(work, |ctx, number| {
                    if number % 1000 == 0 {
                        let _ = ctx.send(number.to_string().as_str());
                    }
                })
                .unwrap();
            }
            let refused = ctx.spawn(async {}, |_, ()| {});
            assert_eq!(refused, Err(JobRefusal::TooManyJobs));
        })
    });
    let mut client = server.client();
    client.send("go");
    for number in 0..COUNT / 1000 {
        assert_eq!(client.text(), (number * 1000).to_string());
    }
}

#[test]
fn a_future_that_panics_closes_its_connection_only() {
    let server = with(config(), || {
        on_message(|ctx, message| {
            let Message::Text(text) = message else { return };
            let text = text.to_owned();
            let work = async move {
                assert_ne!(text, "panic", "as asked for");
                text
            };
            ctx.spawn(work, |ctx, text| {
                let _ = ctx.send(text.as_str());
            })
            .unwrap();
        })
    });
    let (mut bad, mut good) = (server.client(), server.client());
    bad.send("panic");
    assert_eq!(bad.close_frame().0, 1011);
    good.send("fine");
    assert_eq!(good.text(), "fine");
}

/// A destructor of the application that panics when its connection ends ends nothing else.
#[test]
fn a_future_whose_destructor_panics_ends_nothing_else() {
    struct Bomb;

    impl Drop for Bomb {
        fn drop(&mut self) {
            panic!("in a destructor");
        }
    }

    let count = Arc::new(AtomicUsize::new(0));
    let begun = Arc::clone(&count);
    let server = with(config(), move || {
        let begun = Arc::clone(&begun);
        on_message(move |ctx, message| {
            if message.as_bytes() == b"bomb" {
                let bomb = Bomb;
                let endless = async move {
                    let _bomb = bomb;
                    std::future::pending::<()>().await;
                };
                ctx.spawn(endless, |_, ()| {}).unwrap();
                begun.fetch_add(1, Ordering::Relaxed);
            }
            let _ = ctx.send(message);
        })
    });
    let (mut bad, mut good) = (server.client(), server.client());
    bad.send("bomb");
    assert_eq!(bad.text(), "bomb");
    reset(bad);
    wait_until("it is gone", || server.stats().connections == 1);
    good.send("fine");
    assert_eq!(good.text(), "fine");
    assert_eq!(count.load(Ordering::Relaxed), 1);
}

/// 201 queries of 200 ms from four clients take about as long as one, and no thread.
#[cfg(feature = "tokio")]
#[test]
fn queries_of_one_connection_wait_side_by_side() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_time()
        .build()
        .unwrap();
    let running = ringwire::Server::new(config())
        .listen("127.0.0.1:0")
        .with_runtime(runtime.handle().clone())
        .start(|_| {
            on_message(|ctx, message| {
                let text = String::from_utf8_lossy(message.as_bytes()).into_owned();
                let query = async move {
                    tokio::time::sleep(Duration::from_millis(200)).await;
                    text
                };
                ctx.spawn_or_pause(query, |ctx, row| {
                    let _ = ctx.send(row.as_str());
                })
                .unwrap();
            })
        })
        .unwrap();
    let mut clients: Vec<_> = (0..4).map(|_| Client::connect(running.local_addrs()[0])).collect();
    let begin = Instant::now();
    for number in 0..201 {
        clients[number % 4].send(number.to_string().as_str());
    }
    for number in 0..201 {
        assert_eq!(clients[number % 4].text(), number.to_string());
    }
    let took = begin.elapsed();
    assert!(took < Duration::from_secs(5), "{took:?}, where one by one takes 10 s each");
    running.handle().shutdown(Duration::ZERO);
    running.join().unwrap();
}
