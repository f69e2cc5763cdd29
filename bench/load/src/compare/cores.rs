//! Who runs on which core.

use std::process::Command;

use rustix::thread::{CpuSet, sched_setaffinity};
use serde::Serialize;

use super::Failure;

/// The cores of the proxy, of the load and of the origin.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Cores {
    pub(super) proxy: Vec<usize>,
    pub(super) load: Vec<usize>,
    pub(super) origin: Vec<usize>,
}

impl Cores {
    /// A core for the proxy alone; another for load and origin, or one for each where there are three.
    pub(super) fn of_one_worker(all: usize) -> Self {
        Self { proxy: vec![0], load: vec![1], origin: vec![if all > 2 { 2 } else { 1 }] }
    }

    /// Two cores for the proxy, and the others for load and origin; where there are less than four, all share two.
    pub(super) fn of_two_workers(all: usize) -> Self {
        let others: Vec<_> = if all >= 4 { (2..all).collect() } else { vec![0, 1] };
        Self { proxy: vec![0, 1], load: others.clone(), origin: others }
    }

    /// Whether the proxy has its cores to itself.
    pub(super) fn are_apart(&self) -> bool {
        !self.proxy.iter().any(|core| self.load.contains(core) || self.origin.contains(core))
    }
}

/// A program on some cores.
pub(super) fn pinned(cores: &[usize], program: &str) -> Command {
    let list: Vec<_> = cores.iter().map(usize::to_string).collect();
    let mut command = Command::new("taskset");
    command.args(["-c", &list.join(","), program]);
    command
}

/// This thread, and those it starts from now on.
pub(super) fn pin_myself(cores: &[usize]) -> Result<(), Failure> {
    let mut set = CpuSet::new();
    for core in cores {
        set.set(*core);
    }
    sched_setaffinity(None, &set).map_err(|error| format!("cores {cores:?} cannot be had: {error}"))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_proxy_of_one_worker_has_a_core_to_itself() {
        for all in 2..8 {
            assert!(Cores::of_one_worker(all).are_apart());
        }
        assert_ne!(Cores::of_one_worker(3).load, Cores::of_one_worker(3).origin);
    }

    #[test]
    fn two_workers_share_their_cores_where_there_are_no_others() {
        assert!(!Cores::of_two_workers(2).are_apart());
        assert!(!Cores::of_two_workers(3).are_apart());
        assert!(Cores::of_two_workers(4).are_apart());
    }
}
