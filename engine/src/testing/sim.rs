//! An application in a simulated network.

#![expect(clippy::disallowed_types, reason = "a handle shares the workers' counters")]

use std::cell::RefCell;
use std::fmt;
use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use ringwire_codec::Masks;

use super::get::Get;
use super::peer::{Attempt, Line, Peer};
use super::stage::{Core, Turning};
use super::talk::Reply;
use super::{Faults, Random, Stage};
use crate::app::handler::Handler;
use crate::base::budget::Budget;
use crate::base::hashing::with_secret;
use crate::compute::Pool;
use crate::config::{Assignment, Config};
use crate::driver::Driver as _;
use crate::driver::sim::Sim as Driver;
use crate::entry::listener::Terms;
use crate::hub::handover::Handover;
use crate::hub::mail::inbox;
use crate::hub::{Hub, Link};
use crate::metrics::Counters;
use crate::net::TcpOptions;
use crate::server::WorkerContext;
use crate::server::handle::Handle;
use crate::state::Shared;
use crate::worker::clock::TurnClock;
use crate::worker::{Worker, WorkerSetup};

/// An application in a simulated network with a virtual clock. See the [module's documentation](super).
///
/// Time passes in [`advance`](Stage::advance), and where a [`Peer`] waits for something. `io_workers` of the settings
/// says how many workers there are, one unless it is set; peers come to them in turn. Offloaded jobs run where
/// `compute_workers` is not 0, on the test's thread, in an order that the seed decides.
pub struct Sim {
    core: Rc<RefCell<Core>>,
    handle: Handle,
    seed: u64,
    plan: Plan,
}

/// How to make another.
#[derive(Clone)]
struct Plan(Arc<dyn Fn(u64, Faults) -> (Core, Handle) + Send + Sync>);

impl Sim {
    /// Starts `config.io_workers` workers with the handlers that `make` makes, in a network without faults.
    ///
    /// # Panics
    /// A setting is wrong.
    pub fn new<H: Handler + 'static>(
        config: Config,
        make: impl Fn(&WorkerContext) -> H + Send + Sync + 'static,
    ) -> Self {
        if let Err(error) = config.check() {
            panic!("{error}");
        }
        Plan(Arc::new(move |seed, faults| build(seed, &config, &faults, &make)))
            .start(0, Faults::none())
    }

    /// Runs a scene once for each seed, in a simulation of its own with faults drawn from the seed: short reads and
    /// writes, delays, completions that come late or out of order. Connections break only where the scene has them do
    /// so, by [`Peer::reset`] or by [`faults`](Self::faults). Several run at once.
    ///
    /// With `RINGWIRE_SIM_SEED=7` in the environment only that one runs, as it did then; with
    /// `RINGWIRE_SIM_SEEDS=0..100000` these run.
    ///
    /// ```
    /// use ringwire::testing::{Sim, Stage};
    /// use ringwire::{Config, on_message};
    ///
    /// let sim = Sim::new(Config::default(), |_worker| on_message(|ctx, message| ctx.send(message)));
    /// sim.seeds(0..20, |sim| {
    ///     let mut peer = sim.connect("/").expect_open();
    ///     peer.send("Hello");
    ///     assert_eq!(peer.text(), "Hello");
    /// });
    /// ```
    ///
    /// # Panics
    /// With a list of the seeds that failed and what each said, once all have run.
    pub fn seeds(&self, seeds: Range<u64>, scene: impl Fn(&mut Self) + Sync) {
        let plan = self.plan.clone();
        ringwire_seeds::run_all(seeds, |seed| {
            let mut random = Random::new(seed);
            let mut faults = Faults::mixed(&mut random);
            // What the application is to cope with is for the scene to say.
            (faults.reset, faults.fin) = (0.0, 0.0);
            scene(&mut plan.clone().start(seed, faults));
        });
    }

    /// What goes wrong in the network from now on.
    pub fn faults(&mut self, faults: &Faults) {
        self.core.borrow().set_faults(faults);
    }

    /// The seed that this runs with: 0, or that of [`seeds`](Self::seeds).
    #[must_use]
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// A source of randomness for the scene, which follows from the seed.
    #[must_use]
    pub fn random(&mut self) -> Random {
        Random::new(self.core.borrow_mut().random.seed())
    }

    /// Virtual time since the start.
    #[must_use]
    pub fn now(&self) -> Duration {
        self.core.borrow().clock()
    }

    /// Connects, and sends a request for a WebSocket.
    pub fn connect(&mut self, get: impl Into<Get>) -> Attempt {
        Attempt(self.begin(&get.into(), true))
    }

    /// Sends an ordinary HTTP request, and gives the answer.
    ///
    /// # Panics
    /// None comes within ten seconds.
    pub fn request(&mut self, get: impl Into<Get>) -> Reply {
        Attempt(self.begin(&get.into(), false)).reply()
    }

    /// Lets virtual time pass.
    pub fn advance(&mut self, time: Duration) {
        self.core.borrow_mut().advance(time);
    }

    /// The way to the server, which does what it is asked for as time passes.
    #[must_use]
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Shuts the server down: every connection is closed with 1001, within `limit`. Handlers hear of it. Lets `limit`
    /// and 6 s pass.
    pub fn shutdown(&mut self, limit: Duration) {
        self.handle.shutdown(limit);
        self.advance(limit + Duration::from_secs(6));
    }

    fn begin(&self, get: &Get, upgrades: bool) -> Peer {
        let index = self.core.borrow_mut().connect(get, upgrades);
        Peer(Line::Sim(Rc::clone(&self.core), index))
    }
}

impl Stage for Sim {
    fn connect(&mut self, get: impl Into<Get>) -> Attempt {
        Self::connect(self, get)
    }

    fn request(&mut self, get: impl Into<Get>) -> Reply {
        Self::request(self, get)
    }

    fn advance(&mut self, time: Duration) {
        Self::advance(self, time);
    }

    fn handle(&self) -> Handle {
        Self::handle(self)
    }
}

impl fmt::Debug for Sim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sim").field("seed", &self.seed).finish_non_exhaustive()
    }
}

impl Plan {
    fn start(self, seed: u64, faults: Faults) -> Sim {
        let (core, handle) = (self.0)(seed, faults);
        Sim { core: Rc::new(RefCell::new(core)), handle, seed, plan: self }
    }
}

fn build<H: Handler + 'static>(
    seed: u64,
    config: &Config,
    faults: &Faults,
    make: &impl Fn(&WorkerContext) -> H,
) -> (Core, Handle) {
    let mut random = Random::new(seed);
    let count = u16::try_from(config.io_workers.fixed().unwrap_or(1)).unwrap_or(u16::MAX);
    let (pool, hand) = Pool::without_threads(1, config.compute_queue_len);
    let has_jobs = config.compute_workers > 0;
    let (mut worlds, mut links, mut parts) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..count {
        let (driver, world) = Driver::new(random.seed(), faults.clone(), 1);
        let (ways, inbox) =
            inbox(config.mailbox_len, config.topics.max_in_transit_len, driver.waker());
        let compute = has_jobs.then(|| pool.for_worker(ways.results.clone()));
        let counters = Arc::new(Counters::default());
        links.push(Link::new(ways, Arc::clone(&counters)));
        parts.push((driver, TurnClock::simulated(&world), inbox, counters, compute));
        worlds.push(world);
    }
    let secret = random.seed();
    let hub = with_secret(secret, || Hub::new(links, config, Handover::default()));
    let handle = Handle::new(hub.clone(), TcpOptions::from(config), None)
        .with_compute(has_jobs.then(|| pool.meter()))
        .with_states_of::<H>();
    let budget = Budget::new(config.compression.max_dedicated_len);
    let workers =
        (0..count).zip(parts).map(|(index, (driver, clock, inbox, counters, compute))| {
            let mut masks = [0; 32];
            random.fill(&mut masks);
            let masks = Masks::new(masks);
            let shared = Shared::new(index, config, counters, masks, budget.clone(), hub.clone());
            let setup = WorkerSetup {
                shared,
                inbox,
                compute,
                listeners: vec![Terms::default()],
                assignment: Assignment::ReusePort,
                max_connections: config
                    .max_connections
                    .fixed()
                    .map_or(usize::MAX, |set| set.div_ceil(usize::from(count))),
            };
            let handler = make(&WorkerContext::new(index, handle.clone()));
            Box::new(Worker::new(driver, clock, handler, setup)) as Box<dyn Turning>
        });
    let workers = workers.collect();
    (Core::new(worlds, workers, has_jobs.then_some(hand), random, hub), handle)
}
