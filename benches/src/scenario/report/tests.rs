//! The arithmetic of a run, whatever its figures are.

use super::*;
use crate::scenario::conductor::Memory;
use crate::scenario::tests::plan;
use crate::spent::Spent;

/// A run whose work took four seconds, with this much CPU time of the load and of the server in milliseconds.
fn report(work: Work, total: Tally, (load, server): (u64, u64)) -> Report {
    let plan = Plan { work, ..plan("ws://127.0.0.1:1/") };
    let asked = Asked {
        scenario: "test",
        plan: &plan,
        target: plan.url.clone(),
        driver: String::new(),
        generators: 1,
        server_processes: 0,
        hold: Duration::ZERO,
        notes: Vec::new(),
    };
    let found = Found {
        epoch: 0,
        total,
        seconds: BTreeMap::new(),
        samples: Vec::new(),
        connect_began: 0,
        work_began: 1_000_000_000,
        spent: Spent::for_tests(4, &[load], &[server]),
        is_elsewhere: false,
        before: Memory::default(),
        connected: Memory::default(),
        after: Memory::default(),
        held: Vec::new(),
    };
    Report::new(asked, found)
}

#[test]
fn wait_for_a_reply_that_never_comes_is_no_work() {
    // The last reply of 1000 came a second after work began, and the one that is missing had three more.
    let total = Tally {
        opened: 10,
        sent: 1001,
        answered: 1000,
        last_answered: 2_000_000_000,
        ..Tally::default()
    };
    for work in [
        Work::Pool { messages: 1001, in_flight: 1 },
        Work::Each { messages: 101 },
        Work::Loop { in_flight: 1, duration: Duration::from_secs(1) },
    ] {
        let report = report(work, total.clone(), (960, 800));
        let (done, server) = (report.work.unwrap(), report.server.unwrap());
        // Echoes a second for each percent of a CPU: 10 000 over the microseconds of one.
        let product = done.efficiency.unwrap() * server.cpu_us_per_message.unwrap();
        assert!((product - 10_000.0).abs() < 1.0, "{work:?}: {product}");
        assert!((server.cpus - 0.8).abs() < 1e-9, "{work:?}: {server:?}");
        assert!((report.generator.utilisation - 0.96).abs() < 1e-9, "{:?}", report.generator);
        assert_eq!(report.bottleneck, Bottleneck::Generator, "{work:?}");
    }
}

#[test]
fn work_without_replies_lasts_to_its_end() {
    for work in [Work::Idle, Work::Pool { messages: 1, in_flight: 1 }] {
        let report = report(work, Tally { opened: 10, ..Tally::default() }, (400, 800));
        assert!((report.server.unwrap().cpus - 0.2).abs() < 1e-9, "{work:?}");
        assert!((report.generator_cpus - 0.1).abs() < 1e-9, "{work:?}");
    }
}
