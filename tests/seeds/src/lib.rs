//! Which seeds a simulation runs, what is told of those that fail, and the randomness that follows from a seed.
//! For the tests of the engine and of the client.
//!
//! Every simulation runs its usual seeds, unless the environment names others:
//!
//! - `RINGWIRE_SIM_SEEDS=A..B`: from A to B, which is not among them.
//! - `RINGWIRE_SIM_SEED=n`: that one alone, whose panic is the test's own, with its backtrace.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::io::Write as _;
use std::num::NonZero;
use std::ops::Range;
use std::panic::{self, AssertUnwindSafe, PanicHookInfo};
use std::sync::Once;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

mod random;

pub use random::Random;

const ONE: &str = "RINGWIRE_SIM_SEED";
const RANGE: &str = "RINGWIRE_SIM_SEEDS";

/// Makes tests of scenes that are written out. A seed decides little of them, such as masks and jitter, and they must
/// hold with any.
#[macro_export]
macro_rules! scenes {
    ($($scene:ident),* $(,)?) => {
        mod any_seed {
            $(
                #[test]
                fn $scene() {
                    $crate::run_scene(super::$scene);
                }
            )*
        }
    };
}

thread_local! {
    static OF_SCENE: Cell<u64> = const { Cell::new(0) };
}

/// Runs a scene with seed 0, or those that the environment names.
pub fn run_scene(scene: fn()) {
    run_all(0..1, |seed| {
        OF_SCENE.set(seed);
        scene();
    });
}

/// The seed of the scene that runs.
#[must_use]
pub fn of_scene() -> u64 {
    OF_SCENE.get()
}

/// Runs a simulation with each of its seeds, on all cores, and gives the results in any order. `None` unless these were
/// the usual seeds, since others may show less of what a simulation must meet.
///
/// # Panics
///
/// With a list of the seeds that fail, once all have run.
pub fn run_all<T: Send>(usual: Range<u64>, run: impl Fn(u64) -> T + Sync) -> Option<Vec<T>> {
    let [one, range] = [ONE, RANGE].map(|name| std::env::var(name).ok());
    let chosen = Chosen::among(one.as_deref(), range.as_deref());
    let (seeds, are_usual) = match chosen.unwrap_or_else(|fault| panic!("{fault}")) {
        Chosen::Usual => (usual, true),
        Chosen::Range(seeds) => (seeds, false),
        Chosen::One(seed) => {
            run(seed);
            return None;
        }
    };
    let (results, failures) = try_all(&seeds, &run);
    assert!(failures.is_empty(), "{}", Report { seeds, failures });
    are_usual.then_some(results)
}

#[derive(Debug, PartialEq, Eq)]
enum Chosen {
    Usual,
    Range(Range<u64>),
    One(u64),
}

impl Chosen {
    fn among(one: Option<&str>, range: Option<&str>) -> Result<Self, String> {
        match (one, range) {
            (None, None) => Ok(Self::Usual),
            (Some(_), Some(_)) => Err(format!("set {ONE} or {RANGE}, not both")),
            (Some(one), None) => match one.parse() {
                Ok(seed) => Ok(Self::One(seed)),
                Err(_) => Err(format!("{ONE} must be a number, and is \"{one}\"")),
            },
            (None, Some(range)) => {
                let ends = range.split_once("..").map(|(start, end)| (start.parse(), end.parse()));
                match ends {
                    Some((Ok(start), Ok(end))) if start < end => Ok(Self::Range(start..end)),
                    _ => Err(format!("{RANGE} must be like 0..100000, and is \"{range}\"")),
                }
            }
        }
    }
}

/// A seed that failed, and the panics that led to it.
#[derive(Debug)]
struct Failure {
    seed: u64,
    panics: Vec<String>,
}

struct Report {
    seeds: Range<u64>,
    failures: Vec<Failure>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (seeds, failures) = (&self.seeds, &self.failures);
        write!(f, "{} of the seeds {seeds:?} fail; {ONE}=n runs one again:", failures.len())?;
        for Failure { seed, panics } in failures {
            write!(f, "\n{seed}: {}", panics.join("; then "))?;
        }
        Ok(())
    }
}

/// Runs all seeds, whichever of them fail.
fn try_all<T: Send>(
    seeds: &Range<u64>,
    run: &(impl Fn(u64) -> T + Sync),
) -> (Vec<T>, Vec<Failure>) {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let usual = panic::take_hook();
        panic::set_hook(Box::new(move |panic| {
            if !note(panic) {
                usual(panic);
            }
        }));
    });
    let done = AtomicU64::new(0);
    let (mut results, mut failures) = (Vec::new(), Vec::new());
    thread::scope(|scope| {
        let cores = thread::available_parallelism().map_or(1, NonZero::get);
        let threads: Vec<_> =
            (0..cores).map(|_| scope.spawn(|| work_off(seeds, &done, run))).collect();
        for thread in threads {
            let (some, failed) = thread.join().expect("a seed's panic is caught");
            results.extend(some);
            failures.extend(failed);
        }
    });
    failures.sort_by_key(|failure| failure.seed);
    (results, failures)
}

/// Takes seeds until none is left.
fn work_off<T>(
    seeds: &Range<u64>,
    done: &AtomicU64,
    run: &impl Fn(u64) -> T,
) -> (Vec<T>, Vec<Failure>) {
    let (mut results, mut failures) = (Vec::new(), Vec::new());
    loop {
        let offset = done.fetch_add(1, Ordering::Relaxed);
        if offset >= seeds.end - seeds.start {
            return (results, failures);
        }
        let seed = seeds.start + offset;
        RUNNING.set(Some(Failure { seed, panics: Vec::new() }));
        let outcome = panic::catch_unwind(AssertUnwindSafe(|| run(seed)));
        let running = RUNNING.take();
        match outcome {
            Ok(result) => results.push(result),
            Err(_) => failures.extend(running),
        }
    }
}

thread_local! {
    /// The seed that runs on this thread, and its panics so far.
    static RUNNING: RefCell<Option<Failure>> = const { RefCell::new(None) };
}

/// Notes a panic of a seed. `false`: none runs here.
fn note(panic: &PanicHookInfo<'_>) -> bool {
    RUNNING.with_borrow_mut(|running| {
        let Some(Failure { seed, panics }) = running else { return false };
        let message = panic.payload_as_str().unwrap_or("a panic without a message");
        let line = message.lines().next().unwrap_or_default();
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        panics.push(format!("{place}: {line}"));
        if panics.len() > 1 {
            // It may be in the course of another, which ends the process before a report is made.
            let _ = writeln!(std::io::stderr(), "seed {seed}: {}", panics.join("; then "));
        }
        true
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_that_fail_are_listed_once_all_have_run() {
        let (results, failures) = try_all(&(10..110), &|seed| {
            assert!(seed % 40 != 0, "it is {seed}\nand more of it");
            seed
        });
        assert_eq!(results.len(), 98);
        let told = Report { seeds: 10..110, failures }.to_string();
        let lines: Vec<_> = told.lines().collect();
        let [head, forty, eighty] = lines[..] else { panic!("{told}") };
        assert_eq!(head, "2 of the seeds 10..110 fail; RINGWIRE_SIM_SEED=n runs one again:");
        assert!(forty.starts_with("40: ") && forty.ends_with(": it is 40"), "{forty}");
        assert!(eighty.starts_with("80: ") && eighty.ends_with(": it is 80"), "{eighty}");
        assert!(forty.contains(file!()), "{forty}");
    }

    #[test]
    fn the_environment_chooses_seeds() {
        assert_eq!(Chosen::among(None, None), Ok(Chosen::Usual));
        assert_eq!(Chosen::among(Some("7"), None), Ok(Chosen::One(7)));
        assert_eq!(Chosen::among(None, Some("3..80000")), Ok(Chosen::Range(3..80_000)));
        for range in ["", "..", "5", "5..", "..5", "5..5", "6..5", "1..=5", "a..b", "-1..5"] {
            let fault = Chosen::among(None, Some(range)).expect_err("no range");
            assert!(fault.contains("RINGWIRE_SIM_SEEDS must be like 0..100000"), "{fault}");
        }
        assert!(Chosen::among(Some("x"), None).is_err());
        assert!(Chosen::among(Some("1"), Some("0..5")).is_err());
    }
}
