//! Whole sessions: connect, TLS if any, upgrade, some messages with one in flight, end.
//!
//! One thread keeps a fixed number of sessions going; the end of one begins the next. A session ends by
//! resetting its connection, so that no port is left in TIME_WAIT.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::Duration;

use super::{Generator, PACE_INTERVAL};
use crate::echo::{Summary, TlsTotals};
use crate::endpoint::Endpoint;
use crate::machine;
use crate::procstat;
use crate::scenario::plan::{News, Plan, Work};
use crate::scenario::tally::Tally;
use crate::spent::{Moment, Spent};

/// So many failures before any success: the server is not there.
const HOPELESS: u64 = 100;

/// Sessions to be run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SessionsPlan {
    /// Sessions at a time.
    pub(crate) concurrency: u32,
    /// Messages of each; 0: it ends as soon as it is open.
    pub(crate) messages: u64,
    /// Payload of a message, in bytes.
    pub(crate) payload_len: usize,
    pub(crate) end: End,
    /// The longest that a session may take.
    pub(crate) timeout: Duration,
}

/// When a run is over.
#[derive(Clone, Copy, Debug)]
pub(crate) enum End {
    /// After so many sessions, all of which count.
    Count(u64),
    /// After this time, of which the warm-up does not count.
    Time { warmup: Duration, measured: Duration },
}

/// What came of the sessions within the measured time.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sessions {
    pub(crate) opened: u64,
    /// Sessions with all of their messages echoed.
    pub(crate) completed: u64,
    pub(crate) messages: u64,
    pub(crate) spent: Spent,
    /// From the first connect until the last session was open.
    pub(crate) open_time: Duration,
    /// From connect to open.
    pub(crate) opening: Option<Summary>,
    pub(crate) tls: TlsTotals,
    /// What went wrong, in the warm-up too.
    pub(crate) errors: BTreeMap<String, u64>,
}

/// Runs sessions on the calling thread.
///
/// # Errors
/// When the run cannot be made at all. What goes wrong with sessions is in the result.
pub(crate) fn run(endpoint: &Endpoint, plan: SessionsPlan) -> anyhow::Result<Sessions> {
    machine::allow_descriptors(plan.concurrency, 1)?;
    let tally = RefCell::new(Tally::default());
    let tell = |news: News| {
        if let News::Second(_, second) = news {
            tally.borrow_mut().merge(&second);
        }
    };
    let load = Plan {
        connections: plan.concurrency,
        connect_timeout: plan.timeout,
        response_timeout: plan.timeout,
        size: plan.payload_len,
        work: Work::Sessions { messages: plan.messages },
        ..Plan::default()
    };
    let mut generator = Generator::on(load, &endpoint.target, endpoint.tls.clone(), &tell)?;
    generator.load.free = (0..plan.concurrency).collect();
    let zero = Duration::from_nanos(generator.load.desk.begin());
    let (warmup, measured, most) = match plan.end {
        End::Count(count) => (Duration::ZERO, Duration::MAX, count),
        End::Time { warmup, measured } => (warmup, measured, u64::MAX),
    };
    let mut warm = None;
    let mut begun = 0;
    let (first, first_tls, errors) = loop {
        let now = generator.load.desk.clock.elapsed() - zero;
        let totals = generator.load.desk.totals;
        if warm.is_none() && now >= warmup {
            generator.tell_all();
            let tls = generator.load.desk.opener.tls;
            warm = Some((generator.moment(endpoint)?, tls, tally.take().failures));
        }
        let is_hopeless = totals.opened == 0 && totals.failed >= HOPELESS;
        // All that are not going on: one that opened and failed is one, whatever it counts as.
        let free = generator.load.free.len() as u64;
        let ended = begun + free - u64::from(plan.concurrency);
        match warm.take_if(|(first, ..)| {
            is_hopeless || ended >= most || now >= (first.at - zero).saturating_add(measured)
        }) {
            Some(over) => break over,
            None => {
                begun += generator.dial_free(most - begun);
                generator.turn(PACE_INTERVAL)?;
            }
        }
    };
    let (last, tls) = (generator.moment(endpoint)?, generator.load.desk.opener.tls);
    generator.tell_all();
    drop(generator);
    // Of the warm-up, what went wrong counts.
    let mut all = Tally { failures: errors, ..Tally::default() };
    all.merge(&tally.into_inner());
    Ok(Sessions {
        opened: all.opened,
        completed: all.closed_cleanly,
        messages: all.answered,
        spent: first.until(&last, endpoint.account.as_ref())?,
        open_time: Duration::from_nanos(all.last_opened).saturating_sub(first.at),
        opening: all.connect.summary(),
        tls: tls.since(&first_tls),
        errors: all.failures,
    })
}

impl Generator<'_> {
    /// Dials on each place that is free, but no more than so many; how many.
    fn dial_free(&mut self, most: u64) -> u64 {
        // Each place once: a connect that fails at once must not keep this pass busy.
        let count = (self.load.free.len() as u64).min(most);
        for _ in 0..count {
            let Some(number) = self.load.free.pop_front() else { break };
            self.dial(number);
        }
        count
    }

    fn moment(&self, endpoint: &Endpoint) -> anyhow::Result<Moment> {
        let threads = vec![procstat::own_thread_id()];
        Moment::now(self.load.desk.clock.elapsed(), threads, endpoint.account.as_ref())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demand::Demand;
    use crate::own_server::OwnServer;
    use crate::target::Target;
    use crate::tls::TlsArgs;

    fn endpoint(secure: bool, resume: bool) -> Endpoint {
        let own = OwnServer::for_tests(Demand::default(), secure);
        let target = own.target();
        let tls = TlsArgs::resuming(resume).client(&target, own.certificate()).unwrap();
        Endpoint { target, tls, account: Some(own.account()), own: Some(own) }
    }

    fn plan(end: End) -> SessionsPlan {
        let timeout = Duration::from_secs(20);
        SessionsPlan { concurrency: 4, messages: 0, payload_len: 40, end, timeout }
    }

    fn check(sessions: &Sessions) {
        assert_eq!(sessions.errors, BTreeMap::new());
        let server = sessions.spent.server.as_ref().unwrap();
        assert!(server.cpu.iter().any(|cpu| !cpu.run.is_zero()));
        assert!(sessions.opening.unwrap().p50 > 0.0);
        assert!(sessions.open_time <= sessions.spent.time && !sessions.open_time.is_zero());
    }

    #[test]
    fn each_session_sends_all_its_messages_and_no_more() {
        for secure in [true, false] {
            let plan = SessionsPlan { messages: 3, ..plan(End::Count(10)) };
            let sessions = run(&endpoint(secure, true), plan).unwrap();
            check(&sessions);
            let Sessions { opened, completed, messages, .. } = sessions;
            assert_eq!((opened, completed, messages), (10, 10, 30));
            let handshakes = sessions.tls.full + sessions.tls.resumed;
            assert_eq!(handshakes, if secure { 10 } else { 0 });
        }
    }

    #[test]
    fn sessions_are_resumed_when_asked_for() {
        let end =
            End::Time { warmup: Duration::from_millis(300), measured: Duration::from_secs(2) };
        let full = run(&endpoint(true, false), plan(end)).unwrap();
        check(&full);
        assert!(full.tls.full > 0 && full.tls.resumed == 0, "{full:?}");
        assert!(full.spent.time >= Duration::from_secs(2));

        let resumed = run(&endpoint(true, true), plan(end)).unwrap();
        check(&resumed);
        assert!(resumed.tls.resumed > resumed.tls.full, "{resumed:?}");
    }

    #[test]
    #[expect(clippy::disallowed_types, reason = "a blocking server is the simplest other side")]
    fn sessions_that_open_and_fail_count_once() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("ws://{}/", listener.local_addr().unwrap());
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                drop(tungstenite::accept(stream.unwrap()));
            }
        });
        let target = Target::from_url(&url).unwrap();
        let endpoint = Endpoint { target, tls: None, account: None, own: None };
        let plan = SessionsPlan { messages: 1, ..plan(End::Count(10)) };
        let sessions = run(&endpoint, plan).unwrap();
        assert_eq!((sessions.opened, sessions.completed), (10, 0), "{sessions:?}");
        assert_eq!(sessions.errors.values().sum::<u64>(), 10, "{sessions:?}");
    }

    #[test]
    fn server_that_is_not_there_ends_the_run() {
        let address = endpoint(false, false).target.address();
        let target = Target::from_url(&format!("ws://{address}/")).unwrap();
        let gone = Endpoint { target, tls: None, account: None, own: None };
        let end = End::Time { warmup: Duration::ZERO, measured: Duration::from_secs(600) };
        let sessions = run(&gone, plan(end)).unwrap();
        assert_eq!(sessions.opened, 0);
        assert_eq!(sessions.errors.keys().collect::<Vec<_>>(), ["connect refused"]);
    }
}
