//! Jobs on the compute threads: order, limits, panics, and connections that end meanwhile.

#![expect(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "tests share gates and counters with jobs, which take their time"
)]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use ringwire::{
    CloseCode, CloseReason, Config, Ctx, Handle, Message, SendError, Sent,
    jobs::{JobError, JobRefusal},
    stats::ComputeStats,
};
use ringwire_peers::{Client, Got};

use crate::support::{Gate, PATIENCE, Server, config, ms, wait_until};

fn with_threads(count: usize) -> Config {
    config().with_compute_workers(count)
}

fn compute(server: &Server) -> ComputeStats {
    server.handle().stats().compute
}

fn text(message: Message<'_>) -> &str {
    match message {
        Message::Text(text) => text,
        Message::Binary(_) => panic!("text was expected"),
    }
}

fn assert_sent(ctx: &mut Ctx<'_, u32>, text: &str) {
    assert_eq!(ctx.send(text), Ok(Sent::OnItsWay));
}

/// Sends what came of a job.
fn say(ctx: &mut Ctx<'_, u32>, result: Result<String, JobError>) {
    let _ = ctx.send(result.unwrap_or_else(|error| error.to_string()).as_str());
}

/// A server that offloads what `job` makes of each text, and answers with its result.
fn server_with(
    config: Config,
    job: impl Fn(&str) -> String + Clone + Send + Sync + 'static,
) -> Server {
    Server::start(config, move |app| {
        let job = job.clone();
        app.on_message(move |ctx, message| {
            let (job, text) = (job.clone(), text(message).to_owned());
            if let Err(refused) = ctx.offload(move || job(&text), say) {
                let _ = ctx.send(refused.to_string().as_str());
            }
        })
    })
}

#[test]
fn results_come_in_the_order_of_the_calls() {
    const COUNT: usize = 60;
    let server = server_with(with_threads(3).with_io_workers(2), |text| {
        let number: u64 = text.parse().unwrap();
        thread::sleep(Duration::from_micros(number * 7919 % 3001));
        text.to_owned()
    });
    let mut clients: Vec<_> = (0..4).map(|_| server.client()).collect();
    for number in 0..COUNT {
        for client in &mut clients {
            client.send(number.to_string().as_str());
        }
    }
    for client in &mut clients {
        for number in 0..COUNT {
            assert_eq!(client.text(), number.to_string());
        }
    }
    let stats = compute(&server);
    assert_eq!(usize::try_from(stats.done), Ok(clients.len() * COUNT));
    assert_eq!((stats.threads, stats.waiting, stats.running), (3, 0, 0));
    assert_eq!(stats.run.count(), stats.done);
    assert_eq!(stats.wait.count(), stats.done);
    assert!(stats.run.max >= ms(1) && stats.run.sum > stats.run.max);
}

#[test]
fn a_result_waits_for_those_before_it() {
    let gate = Gate::new();
    // The first job ends only when the second has.
    let server = server_with(with_threads(2), move |text| {
        match text {
            "first" => gate.pass(),
            _ => gate.open(),
        }
        text.to_owned()
    });
    let mut client = server.client();
    client.send("first");
    client.send("second");
    assert_eq!((client.text(), client.text()), ("first".into(), "second".into()));
}

#[test]
fn unordered_results_wait_for_none() {
    let gate = Gate::new();
    let job_gate = gate.clone();
    let server = Server::start(with_threads(2), move |app| {
        let gate = job_gate.clone();
        app.on_message(move |ctx, message| {
            let (gate, text) = (gate.clone(), text(message).to_owned());
            let job = move || {
                if text == "slow" {
                    gate.pass();
                }
                text
            };
            ctx.offload_unordered(job, say).unwrap();
        })
    });
    let mut client = server.client();
    client.send("slow");
    client.send("quick");
    assert_eq!(client.text(), "quick");
    gate.open();
    assert_eq!(client.text(), "slow");
}

#[test]
fn the_worker_goes_on_during_a_job() {
    let gate = Gate::new();
    let job_gate = gate.clone();
    let server = Server::start(with_threads(1), move |app| {
        let gate = job_gate.clone();
        app.on_message(move |ctx, message| match text(message) {
            "hash" => {
                let gate = gate.clone();
                ctx.offload(move || gate.pass(), |ctx, _| assert_sent(ctx, "hashed")).unwrap();
            }
            other => assert_sent(ctx, other),
        })
    });
    let (mut busy, mut other) = (server.client(), server.client());
    busy.send("hash");
    busy.send("echo");
    assert_eq!(busy.text(), "echo");
    other.send("echo");
    assert_eq!(other.text(), "echo");
    busy.ping(b"still there?");
    assert_eq!(busy.next(), Got::Pong(b"still there?".to_vec()));
    gate.open();
    assert_eq!(busy.text(), "hashed");
}

#[test]
fn the_state_is_there_and_a_result_may_lead_to_another_job() {
    let server = Server::start(with_threads(1).with_max_jobs_per_connection(1), |app| {
        app.on_message(|ctx, _| count_on(ctx, 0))
    });
    fn count_on(ctx: &mut Ctx<'_, u32>, number: u32) {
        *ctx.state_mut() += number;
        if number == 5 {
            let sum = ctx.state().to_string();
            let _ = ctx.send(sum.as_str());
            return;
        }
        ctx.offload(move || number + 1, |ctx, next| count_on(ctx, next.unwrap())).unwrap();
    }
    let mut client = server.client();
    client.send("go");
    assert_eq!(client.text(), "15");
}

#[test]
fn a_panic_is_reported() {
    let server = server_with(with_threads(1), |text| {
        assert_ne!(text, "bad", "no {text} jobs");
        if text == "literal" {
            panic!("as a literal");
        }
        text.to_owned()
    });
    let mut client = server.client();
    for text in ["good", "bad", "literal", "good"] {
        client.send(text);
    }
    assert_eq!(client.text(), "good");
    assert!(
        client.text().starts_with("the job panicked: assertion `left != right` failed: no bad")
    );
    assert_eq!(client.text(), "the job panicked: as a literal");
    assert_eq!(client.text(), "good");
    let stats = compute(&server);
    assert_eq!((stats.done, stats.panicked, stats.running), (2, 2, 0));
}

#[test]
fn a_continuation_that_panics_closes_its_connection() {
    let server = Server::start(with_threads(1), |app| {
        app.on_message(|ctx, message| {
            let text = text(message).to_owned();
            let then = |_: &mut Ctx<'_, u32>, text: Result<String, JobError>| {
                assert_ne!(text.unwrap(), "bad");
            };
            ctx.offload(move || text, then).unwrap();
        })
    });
    let mut client = server.client();
    client.send("bad");
    assert_eq!(client.close_frame().0, 1011);
    assert_eq!(server.closed().reason, CloseReason::HandlerPanic);
    server.client().leave();
}

/// Panics when it is dropped, and says so before.
struct Trap(Gate);

impl Drop for Trap {
    fn drop(&mut self) {
        self.0.open();
        panic!("it was dropped");
    }
}

#[test]
fn destructors_may_panic() {
    let (begun, go_on, dropped) = (Gate::new(), Gate::new(), Gate::new());
    let gates = (begun.clone(), go_on.clone(), dropped.clone());
    let server = Server::start(with_threads(1), move |app| {
        let (begun, go_on, dropped) = gates.clone();
        app.on_message(move |ctx, message| {
            if text(message) == "echo" {
                return assert_sent(ctx, "echo");
            }
            let (begun, go_on, dropped) = (begun.clone(), go_on.clone(), dropped.clone());
            let job = move || {
                begun.open();
                go_on.pass();
                Trap(dropped)
            };
            ctx.offload(job, |_, _| panic!("the connection has ended")).unwrap();
        })
    });
    let mut client = server.client();
    client.send("trap");
    begun.pass();
    // A FIN would leave the job to be waited for.
    client.reset();
    server.closed();
    go_on.open();
    dropped.pass();
    let mut client = server.client();
    client.send("echo");
    assert_eq!(client.text(), "echo");
}

#[test]
fn jobs_end_with_their_connection() {
    let (begun, go_on) = (Gate::new(), Gate::new());
    // Jobs and continuations that ran.
    let ran = Arc::new(AtomicUsize::new(0));
    let parts = (begun.clone(), go_on.clone(), Arc::clone(&ran));
    let server = Server::start(with_threads(1), move |app| {
        let (begun, go_on, ran) = parts.clone();
        app.on_message(move |ctx, _| {
            let (begun, go_on, ran) = (begun.clone(), go_on.clone(), Arc::clone(&ran));
            let then_ran = Arc::clone(&ran);
            let job = move || {
                begun.open();
                go_on.pass();
                ran.fetch_add(1, Ordering::Relaxed);
            };
            let then = move |_: &mut Ctx<'_, u32>, _| {
                then_ran.fetch_add(1, Ordering::Relaxed);
            };
            ctx.offload(job, then).unwrap();
        })
    });
    let mut client = server.client();
    server.opened();
    let held = Arc::strong_count(&ran);
    for _ in 0..6 {
        client.send("job");
    }
    begun.pass();
    wait_until("five jobs wait", || compute(&server).waiting == 5);
    client.reset();
    server.closed();
    go_on.open();
    wait_until("they are cancelled", || compute(&server).cancelled == 5);
    wait_until("all is dropped", || Arc::strong_count(&ran) == held);
    assert_eq!(ran.load(Ordering::Relaxed), 1, "the one that had begun, and no continuation");
    let stats = compute(&server);
    assert_eq!((stats.done, stats.waiting, stats.running), (1, 0, 0));
}

/// What a refused job was refused for, after a look at whether it came back whole.
fn refusal(ctx: &mut Ctx<'_, u32>, gate: &Gate) -> Option<JobRefusal> {
    let gate = gate.clone();
    let job = move || {
        gate.pass();
        7
    };
    let refused =
        ctx.offload(job, |ctx, result| *ctx.state_mut() = result.expect("no panic")).err()?;
    *ctx.state_mut() = 0;
    (refused.then)(ctx, Ok(8));
    assert_eq!(*ctx.state(), 8, "the continuation comes back");
    Some(refused.reason)
}

#[test]
fn a_full_queue_gives_the_job_back() {
    let gate = Gate::new();
    let job_gate = gate.clone();
    let server = Server::start(with_threads(1).with_compute_queue_len(2), move |app| {
        let gate = job_gate.clone();
        app.on_message(move |ctx, _| {
            let answer = format!("{:?}", refusal(ctx, &gate));
            let _ = ctx.send(answer.as_str());
        })
    });
    let mut client = server.client();
    client.send("runs");
    assert_eq!(client.text(), "None");
    wait_until("it runs", || compute(&server).running == 1);
    for _ in 0..2 {
        client.send("waits");
        assert_eq!(client.text(), "None");
    }
    client.send("finds no room");
    assert_eq!(client.text(), "Some(QueueFull)");
    assert_eq!(compute(&server).refused, 1);
    gate.open();
    wait_until("all are done", || compute(&server).done == 3);
    client.send("finds room");
    assert_eq!(client.text(), "None");
}

#[test]
fn no_connection_takes_all() {
    let gate = Gate::new();
    let job_gate = gate.clone();
    let config = with_threads(1).with_compute_queue_len(10).with_max_jobs_per_connection(3);
    let server = Server::start(config, move |app| {
        let gate = job_gate.clone();
        app.on_message(move |ctx, _| {
            let answer = format!("{:?}", refusal(ctx, &gate));
            let _ = ctx.send(answer.as_str());
        })
    });
    let (mut greedy, mut modest) = (server.client(), server.client());
    for expected in ["None", "None", "None", "Some(TooManyJobs)", "Some(TooManyJobs)"] {
        greedy.send("job");
        assert_eq!(greedy.text(), expected);
    }
    modest.send("job");
    assert_eq!(modest.text(), "None");
    assert_eq!(compute(&server).refused, 2);
    gate.open();
    wait_until("all are done", || compute(&server).done == 4);
    // Results may still be on their way.
    wait_until("there is room again", || {
        greedy.send("job");
        greedy.text() == "None"
    });
}

#[test]
fn without_threads_there_are_no_jobs() {
    let server = Server::start(config(), |app| {
        app.on_message(|ctx, _| {
            let answer = format!("{:?}", refusal(ctx, &Gate::new()));
            let _ = ctx.send(answer.as_str());
        })
    });
    let mut client = server.client();
    client.send("job");
    assert_eq!(client.text(), "Some(NoComputeWorkers)");
    assert_eq!(compute(&server), ComputeStats::default());
}

#[test]
fn closing_does_not_wait_for_jobs() {
    let (begun, go_on) = (Gate::new(), Gate::new());
    let gates = (begun.clone(), go_on.clone());
    let server = Server::start(with_threads(1), move |app| {
        let (begun, go_on) = gates.clone();
        app.on_message(move |ctx, _| {
            let (begun, go_on) = (begun.clone(), go_on.clone());
            let job = move || {
                begun.open();
                go_on.pass();
            };
            ctx.offload(job, |_, _| unreachable!("the connection has ended")).unwrap();
            ctx.close(CloseCode::NORMAL, "enough").unwrap();
            assert_eq!(refusal(ctx, &Gate::new()), Some(JobRefusal::Closing));
        })
        .on_close(|ctx| assert_eq!(refusal(ctx, &Gate::new()), Some(JobRefusal::Closing)))
    });
    let mut client = server.client();
    client.send("close");
    begun.pass();
    assert_eq!(client.close_frame(), (1000, "enough".into()));
    assert_eq!(client.end(), Got::Eof);
    let cause = server.closed();
    assert!(cause.is_clean() && cause.reason == CloseReason::Local, "{cause:?}");
    go_on.open();
    wait_until("the job is over", || compute(&server).done == 1);
    server.client().leave();
}

#[test]
fn a_result_during_the_close_handshake_is_handed_over() {
    let (go_on, handed_over) = (Gate::new(), Gate::new());
    let gates = (go_on.clone(), handed_over.clone());
    let server = Server::start(with_threads(1), move |app| {
        let (go_on, handed_over) = gates.clone();
        app.on_message(move |ctx, _| {
            let (go_on, handed_over) = (go_on.clone(), handed_over.clone());
            let then = move |ctx: &mut Ctx<'_, u32>, _| {
                assert!(!ctx.is_open());
                assert_eq!(ctx.send("too late"), Err(SendError::Closing));
                handed_over.open();
            };
            ctx.offload(move || go_on.pass(), then).unwrap();
            ctx.close(CloseCode::NORMAL, "").unwrap();
        })
    });
    let mut client = server.client();
    client.answers = false;
    client.send("close");
    assert_eq!(client.close_frame().0, 1000);
    go_on.open();
    handed_over.pass();
    client.close(1000, "");
    assert_eq!(client.end(), Got::Eof);
    assert_eq!(server.closed().reason, CloseReason::Local);
}

#[test]
fn results_come_while_paused() {
    let server = Server::start(with_threads(1), |app| {
        app.on_message(|ctx, message| {
            ctx.pause();
            let text = text(message).to_owned();
            let then = |ctx: &mut Ctx<'_, u32>, text| {
                say(ctx, text);
                ctx.resume();
            };
            ctx.offload(move || text, then).unwrap();
        })
    });
    let mut client = server.client();
    for number in 0..50 {
        client.send(number.to_string().as_str());
    }
    for number in 0..50 {
        assert_eq!(client.text(), number.to_string());
    }
}

#[test]
fn a_shutdown_does_not_wait_for_jobs() {
    let (begun, go_on) = (Gate::new(), Gate::new());
    let gates = (begun.clone(), go_on.clone());
    let server = server_with(with_threads(1), move |text| {
        gates.0.open();
        gates.1.pass();
        text.to_owned()
    });
    let handle = server.handle();
    let mut client = server.client();
    for _ in 0..3 {
        client.send("job");
    }
    begun.pass();
    wait_until("two jobs wait", || handle.stats().compute.waiting == 2);
    handle.shutdown(PATIENCE);
    assert_eq!(client.close_frame().0, 1001);
    assert_eq!(client.end(), Got::Eof);
    server.join().unwrap();
    go_on.open();
    wait_until("the job that had begun is over", || handle.stats().compute.done == 1);
    wait_until("the others are not begun", || handle.stats().compute.cancelled == 2);
}

#[test]
fn no_result_is_lost_on_a_worker_that_reads_no_mail() {
    const COUNT: usize = 40;
    let go_on = Gate::new();
    let stuck = go_on.clone();
    let config = with_threads(2).with_mailbox_len(1);
    let server = Server::start(config, move |app| {
        let stuck = stuck.clone();
        app.on_message(move |ctx, _| {
            for number in 0..COUNT {
                ctx.offload(move || number.to_string(), say).unwrap();
            }
            stuck.pass();
        })
    });
    let handle: Handle = server.handle();
    let mut client: Client = server.client();
    let id = server.opened();
    client.send("go");
    wait_until("all jobs are done", || handle.stats().compute.done == COUNT as u64);
    wait_until("the mailbox is full", || handle.send(id, "mail").is_err());
    go_on.open();
    let texts = std::iter::from_fn(|| Some(client.text())).filter(|text| text != "mail");
    let expected = (0..COUNT).map(|number| number.to_string());
    assert!(texts.take(COUNT).eq(expected));
}
