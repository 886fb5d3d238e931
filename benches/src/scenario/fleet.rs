//! All generators of a run: one in this process, or several in processes of their own.

use std::io::{self, BufReader};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use procfs::ProcResult;
use ringwire_examples::DriverFlag;

use super::child::{self, ChildArgs, Process};
use super::generator;
use super::plan::{News, Order, Plan, Work};
use crate::procstat::{Account, CpuTimes};

/// Connections from one source address, at most: less than a port range has, since a search for one of the last free
/// ports takes long.
const CONNECTIONS_PER_SOURCE: u32 = 16_000;

/// How long a process waits for news before it waits again.
const PATIENCE: Duration = Duration::from_secs(1);

/// The generators. Dropping them ends them.
pub(crate) struct Fleet {
    members: Vec<Member>,
    /// Load threads of each member that is a process.
    threads: usize,
    news: Receiver<(usize, News)>,
}

enum Member {
    Thread {
        orders: Option<Sender<Order>>,
        thread: Option<JoinHandle<()>>,
        ids: Vec<u32>,
    },
    Process {
        process: Process,
    },
    /// A process on another machine, and the CPU time that it told of.
    Elsewhere {
        process: Process,
        cpu: CpuTimes,
    },
}

impl Fleet {
    /// Starts the generators of each plan, which are threads: of this process, of one of its own where the plan says
    /// so, or of one that one of `commands` starts on another machine.
    ///
    /// # Errors
    /// When a process cannot be started.
    pub(crate) fn start(
        plans: Vec<Plan>,
        driver: DriverFlag,
        commands: &[String],
    ) -> anyhow::Result<Self> {
        let (sender, news) = mpsc::channel();
        // As many in each process: where shares differ by a connection, as many as the smallest has.
        let threads = plans.iter().map(Plan::parts).min().unwrap_or(1);
        let mut members = Vec::with_capacity(plans.len());
        for (index, plan) in plans.into_iter().enumerate() {
            let plan = Plan { threads, ..plan };
            if plan.is_process {
                let command = commands.iter().cycle().nth(index);
                let first = index * threads;
                members.push(Member::process(first, &plan, driver, command, sender.clone())?);
            } else {
                let parts = share_out(&plan, u32::try_from(plan.parts())?, &plan.sources, false);
                for plan in parts {
                    members.push(Member::thread(members.len(), plan, sender.clone()));
                }
            }
        }
        Ok(Self { members, threads, news })
    }

    /// How many generators there are.
    pub(crate) fn len(&self) -> usize {
        self.members.iter().map(|member| member.parts(self.threads)).sum()
    }

    /// Where orders to generators in this process go.
    pub(crate) fn order_senders(&self) -> Vec<Sender<Order>> {
        let orders = |member: &Member| match member {
            Member::Thread { orders, .. } => orders.clone(),
            Member::Process { .. } | Member::Elsewhere { .. } => None,
        };
        self.members.iter().filter_map(orders).collect()
    }

    /// Tells all of them.
    ///
    /// # Errors
    /// When one is gone.
    pub(crate) fn order(&mut self, order: Order) -> anyhow::Result<()> {
        for member in &mut self.members {
            match member {
                Member::Thread { orders, .. } => {
                    if let Some(orders) = orders {
                        // One that failed has said so.
                        let _ = orders.send(order);
                    }
                }
                Member::Process { process } | Member::Elsewhere { process, .. } => {
                    process.write(&order)?;
                }
            }
        }
        Ok(())
    }

    /// What one of them says next, and which; `None` after so long.
    ///
    /// # Errors
    /// When all are gone.
    pub(crate) fn next(&self, timeout: Duration) -> anyhow::Result<Option<(usize, News)>> {
        match self.news.recv_timeout(timeout) {
            Ok(news) => Ok(Some(news)),
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => anyhow::bail!("all generators have ended"),
        }
    }

    /// Ends those that are processes, without waiting until they have ended.
    pub(crate) fn kill(&mut self) {
        for member in &mut self.members {
            if let Member::Process { process } | Member::Elsewhere { process, .. } = member {
                process.kill();
            }
        }
    }

    /// A generator is ready and has these threads.
    pub(crate) fn set_threads(&mut self, generator: usize, threads: Vec<u32>) {
        if let Some(Member::Thread { ids, .. }) = self.members.get_mut(generator) {
            *ids = threads;
        }
    }

    /// A process on another machine, which has that generator, has had so much CPU time.
    pub(crate) fn set_cpu(&mut self, generator: usize, times: CpuTimes) {
        if let Some(Member::Elsewhere { cpu, .. }) = self.members.get_mut(generator / self.threads)
        {
            *cpu = times;
        }
    }

    /// CPU time of each thread or process so far; of those elsewhere as they last told.
    ///
    /// # Errors
    /// When one is gone.
    pub(crate) fn cpu(&self) -> ProcResult<Vec<CpuTimes>> {
        let cpu = |member: &Member| match member {
            Member::Thread { ids, .. } => Account::Threads(ids.clone()).cpu(),
            Member::Process { process } => Account::Process(process.pid()).cpu(),
            Member::Elsewhere { cpu, .. } => Ok(cpu.clone()),
        };
        self.members.iter().map(cpu).collect()
    }
}

impl Member {
    /// Generators in it, where a process has so many.
    fn parts(&self, threads: usize) -> usize {
        if let Self::Thread { .. } = self { 1 } else { threads }
    }

    fn thread(index: usize, plan: Plan, sender: Sender<(usize, News)>) -> Self {
        let (orders, receiver) = mpsc::channel();
        let thread = thread::spawn(move || {
            let tell = |news: News| {
                // Fails only if the run is over.
                let _ = sender.send((index, news));
            };
            if let Err(error) = generator::run(plan, &receiver, &tell) {
                tell(News::Failed(format!("{error:#}")));
            }
        });
        Self::Thread { orders: Some(orders), thread: Some(thread), ids: Vec::new() }
    }

    /// One whose generators are counted from `first` on.
    fn process(
        first: usize,
        plan: &Plan,
        driver: DriverFlag,
        command: Option<&String>,
        sender: Sender<(usize, News)>,
    ) -> anyhow::Result<Self> {
        let command = command.map(String::as_str);
        let (mut process, mut output) = Process::start("load-worker", driver, command, None)?;
        process.write(plan)?;
        thread::spawn(move || {
            let mut has_ended = false;
            while let Ok((part, news)) = child::read::<(usize, News)>(&mut output) {
                has_ended |= matches!(news, News::Done(Order::End) | News::Failed(_));
                if sender.send((first + part, news)).is_err() {
                    return;
                }
            }
            if !has_ended {
                let _ = sender.send((first, News::Failed("a process of the load died".into())));
            }
        });
        Ok(match command {
            Some(_) => Self::Elsewhere { process, cpu: CpuTimes::default() },
            None => Self::Process { process },
        })
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        if let Self::Thread { orders, thread, .. } = self {
            *orders = None;
            // One that panicked has said so on the standard error.
            let _ = thread.take().map(JoinHandle::join);
        }
    }
}

/// Runs the hidden subcommand `load-worker`: a generator.
pub(crate) fn load_worker(args: &ChildArgs) -> anyhow::Result<()> {
    let mut input = BufReader::new(io::stdin());
    let plan: Plan = child::read(&mut input)?;
    let own = plan.is_elsewhere.then(|| Account::Process(std::process::id()));
    let fleet = Fleet::start(vec![Plan { is_process: false, ..plan }], args.driver, &[])?;
    let generators = fleet.order_senders();
    thread::spawn(move || {
        loop {
            // Who gives orders is gone when there are none.
            let order = child::read(&mut input).unwrap_or(Order::End);
            for generator in &generators {
                // Fails only if it has ended.
                let _ = generator.send(order);
            }
            if order == Order::End {
                return;
            }
        }
    });
    let mut ended = 0;
    while ended < fleet.len() {
        let Some((part, news)) = fleet.next(PATIENCE)? else { continue };
        let is_told = matches!(news, News::Second(..) | News::Done(_));
        if let Some(Ok(times)) = own.as_ref().filter(|_| is_told).map(Account::cpu) {
            let _ = child::write_line(&(part, News::Cpu(times)));
        }
        ended += usize::from(matches!(news, News::Done(Order::End) | News::Failed(_)));
        // Fails only if the parent is gone, and this process with it.
        let _ = child::write_line(&(part, news));
    }
    Ok(())
}

/// Cuts a plan into `count` equal ones, each with sources of its own: the given ones, or loopback addresses where these
/// can be and are needed.
pub(crate) fn share_out(
    whole: &Plan,
    count: u32,
    sources: &[IpAddr],
    is_loopback: bool,
) -> Vec<Plan> {
    let share = |total: u64, at: u32| {
        let cut = |at: u32| total * u64::from(at) / u64::from(count);
        cut(at + 1) - cut(at)
    };
    let small = |value: u64| u32::try_from(value).unwrap_or(u32::MAX);
    let mut loopback = Loopback(0);
    let part = |at: u32| {
        let connections = small(share(whole.connections.into(), at));
        let own = if !sources.is_empty() {
            // Each begins with another one.
            let turn = at as usize % sources.len();
            [&sources[turn..], &sources[..turn]].concat()
        } else if is_loopback && whole.connections > CONNECTIONS_PER_SOURCE {
            let needed = connections.div_ceil(CONNECTIONS_PER_SOURCE).max(1);
            loopback.by_ref().take(needed as usize + 1).collect()
        } else {
            Vec::new()
        };
        let work = match whole.work {
            Work::Pool { messages, in_flight } => Work::Pool {
                messages: share(messages, at),
                in_flight: small(share(in_flight.into(), at)).max(1),
            },
            // Together as many a second as one would.
            Work::Churn { messages, interval, duration } => {
                Work::Churn { messages, interval: interval * count, duration }
            }
            other => other,
        };
        let max_concurrent = small(share(whole.max_concurrent.into(), at)).max(1);
        let before = small(u64::from(whole.connections) * u64::from(at) / u64::from(count));
        let first = whole.first.saturating_add(before);
        Plan { connections, first, sources: own, work, max_concurrent, ..whole.clone() }
    };
    (0..count).map(part).collect()
}

/// Addresses of 127.0.0.0/8 from 127.1.0.1 on, which hardly anybody else uses.
struct Loopback(u32);

impl Iterator for Loopback {
    type Item = IpAddr;

    fn next(&mut self) -> Option<IpAddr> {
        let [_, _, high, low] = (self.0 / 250).to_be_bytes();
        let [.., last] = (self.0 % 250 + 1).to_be_bytes();
        self.0 += 1;
        Some(Ipv4Addr::new(127, high.saturating_add(1), low, last).into())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::scenario::tests::plan;

    #[test]
    fn shares_add_up_and_have_sources_of_their_own() {
        let whole = Plan {
            connections: 1_000_003,
            work: Work::Pool { messages: 2_000_001, in_flight: 10_000 },
            max_concurrent: 5000,
            ..plan("ws://127.0.0.1:1/")
        };
        let plans = share_out(&whole, 53, &[], true);
        assert_eq!(plans.iter().map(|plan| plan.connections).sum::<u32>(), 1_000_003);
        for pair in plans.windows(2) {
            assert_eq!(pair[0].first + pair[0].connections, pair[1].first);
        }
        let pool = |plan: &Plan| match plan.work {
            Work::Pool { messages, in_flight } => (messages, in_flight),
            _ => (0, 0),
        };
        assert_eq!(plans.iter().map(|plan| pool(plan).0).sum::<u64>(), 2_000_001);
        assert_eq!(plans.iter().map(|plan| pool(plan).1).sum::<u32>(), 10_000);
        let sources: Vec<_> = plans.iter().flat_map(|plan| &plan.sources).collect();
        assert_eq!(sources.iter().collect::<BTreeSet<_>>().len(), sources.len());
        for plan in &plans {
            assert!(plan.sources.iter().all(IpAddr::is_loopback), "{:?}", plan.sources);
            let room = plan.sources.len() * CONNECTIONS_PER_SOURCE as usize;
            assert!(room >= plan.connections as usize);
        }
    }

    #[test]
    fn given_sources_are_taken() {
        let given: Vec<IpAddr> = vec![[10, 0, 0, 1].into(), [10, 0, 0, 2].into()];
        let plans = share_out(&plan("ws://127.0.0.1:1/"), 2, &given, true);
        assert_eq!(plans[0].sources, given);
        assert_eq!(plans[1].sources, [given[1], given[0]]);
        assert!(share_out(&plan("ws://127.0.0.1:1/"), 1, &[], true)[0].sources.is_empty());
    }
}
