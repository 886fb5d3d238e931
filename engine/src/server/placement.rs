//! How many workers there are, and which core each has.

use core_affinity::CoreId;

use crate::config::{Config, Pinning};
use crate::error::Error;

/// The core of each thread.
pub(super) struct Placement {
    pub(super) io: Vec<Option<CoreId>>,
    pub(super) compute: Vec<Option<CoreId>>,
    /// The cores that the process may run on.
    pub(super) available: usize,
}

/// Automatic IO workers: one for each core that the compute workers leave, but for half of the cores in any case.
fn automatic_workers(cores: usize, compute_workers: usize) -> usize {
    cores.saturating_sub(compute_workers).max(cores.div_ceil(2)).max(1)
}

pub(super) fn place(config: &Config) -> Result<Placement, Error> {
    let available = core_affinity::get_core_ids().unwrap_or_default();
    let workers = config.io_workers.fixed().unwrap_or_else(|| {
        let (cores, compute_workers) = (available.len(), config.compute_workers);
        let workers = automatic_workers(cores, compute_workers);
        if workers < cores {
            crate::base::event::info!(
                io_workers = workers,
                compute_workers,
                cores,
                "io_workers is automatic: the cores that compute_workers leave, and half of them at least"
            );
        }
        workers
    });
    let io = place_io(config, &available, workers)?;
    let pinned: Vec<_> = io.iter().flatten().collect();
    let mut left: Vec<_> =
        available.iter().copied().filter(|core| !pinned.contains(&core)).map(Some).collect();
    if pinned.is_empty() || left.len() < config.compute_workers {
        if config.compute_workers > 0 && config.pinning != Pinning::Off {
            crate::base::event::warn!(
                io_workers = workers,
                compute_workers = config.compute_workers,
                cores = available.len(),
                "more threads than cores: compute workers are not pinned"
            );
        }
        left = vec![None; config.compute_workers];
    }
    left.truncate(config.compute_workers);
    Ok(Placement { io, compute: left, available: available.len() })
}

fn place_io(
    config: &Config,
    available: &[CoreId],
    workers: usize,
) -> Result<Vec<Option<CoreId>>, Error> {
    match &config.pinning {
        Pinning::Off => Ok(vec![None; workers]),
        Pinning::Auto if workers > available.len() => {
            crate::base::event::info!(
                workers,
                cores = available.len(),
                "more workers than cores: none is pinned"
            );
            Ok(vec![None; workers])
        }
        Pinning::Auto => Ok(available.iter().copied().take(workers).map(Some).collect()),
        Pinning::Cores(cores) => {
            let core_of = |worker: usize| {
                let id = cores[worker % cores.len()];
                available.iter().find(|core| core.id == id).copied().map(Some).ok_or_else(|| {
                    let usable: Vec<_> = available.iter().map(|core| core.id).collect();
                    Error::Setting {
                        setting: "pinning",
                        problem: format!(
                            "core {id} is not among those of this process: {usable:?}"
                        ),
                    }
                })
            };
            if workers > cores.len() {
                crate::base::event::info!(
                    workers,
                    cores = cores.len(),
                    "more workers than cores: some share one"
                );
            }
            (0..workers).map(core_of).collect()
        }
    }
}

/// The number of each worker's core, where each has one of its own.
pub(super) fn own_cores(cores: &[Option<CoreId>]) -> Result<Vec<usize>, Error> {
    let wrong = |problem: String| Error::Setting { setting: "assignment", problem };
    let mut own = Vec::with_capacity(cores.len());
    for (worker, core) in cores.iter().enumerate() {
        let core = core.ok_or_else(|| {
            wrong(format!(
                "cpu needs a core for each worker, and worker {worker} has none: pinning is off, or io_workers are more \
                 than cores"
            ))
        })?;
        if own.contains(&core.id) {
            return Err(wrong(format!(
                "cpu needs a core for each worker, and worker {worker} shares core {}",
                core.id
            )));
        }
        own.push(core.id);
    }
    Ok(own)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_worker_has_a_core_of_its_own_or_it_is_said_which_has_not() {
        let cores =
            |ids: &[usize]| ids.iter().map(|id| Some(CoreId { id: *id })).collect::<Vec<_>>();
        assert_eq!(own_cores(&cores(&[3, 0, 7])).unwrap(), [3, 0, 7]);
        let shared = own_cores(&cores(&[3, 0, 3])).unwrap_err().to_string();
        assert!(shared.contains("worker 2 shares core 3"), "{shared}");
        let unpinned = own_cores(&[Some(CoreId { id: 1 }), None]).unwrap_err().to_string();
        assert!(unpinned.contains("worker 1 has none"), "{unpinned}");
    }

    #[test]
    fn automatic_workers_have_half_of_the_cores_at_least() {
        for (cores, compute_workers, expected) in [
            (8, 0, 8),
            (8, 2, 6),
            (8, 4, 4),
            (8, 6, 4),
            (8, 100, 4),
            (3, 2, 2),
            (2, 8, 1),
            (0, 1, 1),
        ] {
            let workers = automatic_workers(cores, compute_workers);
            assert_eq!(workers, expected, "{compute_workers} on {cores} cores");
        }
    }
}
