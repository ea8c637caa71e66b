//! Placement: the choice of a toolbox for a new instance. All functions are pure.

use waypost_core::id::ToolboxId;
use waypost_core::toolbox::ToolboxState;
use waypost_toolbox_proto::entry::{CPU_OVERCOMMIT, ResourceClass};
use waypost_toolbox_proto::message::Capacity;

use crate::toolboxes::Allocation;

/// The share of a machine's memory, and of its CPUs times [`CPU_OVERCOMMIT`], that instances may use, in percent.
const BUDGET_PERCENT: u64 = 80;
/// The free disk space below which a toolbox is chosen only if no other fits. Its daemon then begins to remove unused
/// images.
const LOW_DISK_BYTES: u64 = 2 * 1024 * 1024 * 1024;

/// A toolbox on which an instance might be placed.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Candidate {
    pub id: ToolboxId,
    pub name: String,
    pub state: ToolboxState,
    /// Whether the container engine can be reached.
    pub has_engine: bool,
    pub capacity: Option<Capacity>,
    pub allocated: Allocation,
}

impl Candidate {
    /// Returns the free part of the budget: thousandths of a CPU, and bytes of memory. `None` if the capacity is unknown.
    fn free(&self) -> Option<(u64, u64)> {
        let capacity = self.capacity?;
        let millicpus = to_millicpus(&capacity).saturating_mul(CPU_OVERCOMMIT) / 100 * BUDGET_PERCENT;
        let memory = capacity.memory_bytes / 100 * BUDGET_PERCENT;
        let Allocation { millicpus: used_millicpus, memory_bytes: used_memory, .. } = self.allocated;
        Some((millicpus.saturating_sub(used_millicpus), memory.saturating_sub(used_memory)))
    }

    /// Whether an image might not fit on the disk. This is no reason to reject the toolbox: the image may already be
    /// present, or replace unused ones; otherwise, the deployment fails with `disk_full`.
    fn has_low_disk(&self) -> bool {
        self.capacity.is_none_or(|capacity| capacity.disk_free_bytes < LOW_DISK_BYTES)
    }

    /// Returns the reason why the budget is too small for an instance. `None` if it fits, or if the capacity is unknown
    /// because no machine has joined.
    pub(super) fn find_shortage(&self, class: ResourceClass) -> Option<String> {
        let (millicpus, memory) = self.free()?;
        if memory < class.memory_bytes() {
            let (required, free) = (mebibytes(class.memory_bytes()), mebibytes(memory));
            return Some(format!("{required} MiB of memory are required, {free} MiB are free"));
        }
        // The engine rejects a container with more CPUs than the machine has.
        let machine = self.capacity.as_ref().map_or(0, to_millicpus);
        if machine < class.millicpus() {
            let (required, machine) = (cpus(class.millicpus()), cpus(machine));
            return Some(format!("{required} CPUs are required, the machine has {machine}"));
        }
        if millicpus < class.millicpus() {
            let (required, free) = (cpus(class.millicpus()), cpus(millicpus));
            return Some(format!("{required} CPUs are required, {free} are free"));
        }
        None
    }

    /// Returns the reason why an instance cannot be placed here automatically. `None` if it can.
    fn find_problem(&self, class: ResourceClass) -> Option<String> {
        match self.state {
            ToolboxState::Pending => return Some("its daemon has not connected yet".to_owned()),
            ToolboxState::Unresponsive => return Some("its heartbeats are missing".to_owned()),
            ToolboxState::Revoked => return Some("it is revoked".to_owned()),
            ToolboxState::Online => {}
        }
        if self.capacity.is_none() {
            return Some("it has not reported its capacity yet".to_owned());
        }
        if !self.has_engine {
            return Some("its container engine cannot be reached".to_owned());
        }
        self.find_shortage(class)
    }
}

/// Returns the CPUs of a machine in thousandths.
fn to_millicpus(capacity: &Capacity) -> u64 {
    // `as` saturates, and converts NaN to 0.
    (capacity.cpus * 1_000.0) as u64
}

fn mebibytes(bytes: u64) -> u64 {
    bytes / (1024 * 1024)
}

fn cpus(millicpus: u64) -> String {
    format!("{}.{}", millicpus / 1_000, millicpus % 1_000 / 100)
}

/// Returns the candidate with the most free memory, and among equals, the one with the most free CPUs. A candidate
/// whose disk is nearly full is the last choice.
///
/// # Errors
/// Returns the reason for each candidate if the instance fits on none.
pub(super) fn choose(candidates: &[Candidate], class: ResourceClass) -> Result<&Candidate, Vec<(&Candidate, String)>> {
    let problems: Vec<_> = candidates.iter().map(|candidate| (candidate, candidate.find_problem(class))).collect();
    let fitting = problems.iter().filter(|(_, problem)| problem.is_none()).map(|(candidate, _)| *candidate);
    // The name decides between equals, so that the choice does not depend on the order of the candidates.
    let best = fitting.min_by_key(|candidate| {
        let (millicpus, memory) = candidate.free().unwrap_or_default();
        (candidate.has_low_disk(), std::cmp::Reverse(memory), std::cmp::Reverse(millicpus), &candidate.name)
    });
    best.ok_or_else(|| problems.into_iter().filter_map(|(candidate, problem)| Some((candidate, problem?))).collect())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MIB: u64 = 1024 * 1024;

    fn candidate(name: &str, cpus: f64, memory_mib: u64) -> Candidate {
        Candidate {
            id: ToolboxId::from_store(format!("tbx_{name}")),
            name: name.to_owned(),
            state: ToolboxState::Online,
            has_engine: true,
            capacity: Some(Capacity { cpus, memory_bytes: memory_mib * MIB, disk_free_bytes: LOW_DISK_BYTES }),
            allocated: Allocation::default(),
        }
    }

    #[test]
    fn the_toolbox_with_the_most_free_memory_is_chosen() {
        let mut large = candidate("large", 8.0, 8_192);
        let small = candidate("small", 2.0, 4_096);
        let all = [small.clone(), large.clone()];
        assert_eq!(choose(&all, ResourceClass::Light).unwrap().name, "large");
        large.allocated = Allocation { millicpus: 500, memory_bytes: 6_144 * MIB, instances: 1 };
        let all = [large, small];
        assert_eq!(choose(&all, ResourceClass::Light).unwrap().name, "small");
    }

    #[test]
    fn a_toolbox_whose_disk_is_nearly_full_is_the_last_choice() {
        let with_disk = |name: &str, memory_mib: u64, disk_free_bytes: u64| {
            let candidate = candidate(name, 8.0, memory_mib);
            let capacity = candidate.capacity.map(|capacity| Capacity { disk_free_bytes, ..capacity });
            Candidate { capacity, ..candidate }
        };
        let full = with_disk("full", 8_192, LOW_DISK_BYTES - 1);
        let all = [full.clone(), with_disk("fuller", 4_096, 0), with_disk("small", 2_048, LOW_DISK_BYTES)];
        assert_eq!(choose(&all, ResourceClass::Light).unwrap().name, "small");
        // The image may be present, or replace unused ones.
        assert_eq!(choose(&all, ResourceClass::Heavy).unwrap().name, "full");
        assert_eq!(choose(&[full], ResourceClass::Light).unwrap().name, "full");
    }

    #[test]
    fn every_toolbox_has_a_reason_if_none_fits() {
        let all = [
            Candidate { state: ToolboxState::Pending, ..candidate("a", 8.0, 8_192) },
            Candidate { state: ToolboxState::Unresponsive, ..candidate("b", 8.0, 8_192) },
            Candidate { state: ToolboxState::Revoked, ..candidate("c", 8.0, 8_192) },
            Candidate { capacity: None, ..candidate("d", 8.0, 8_192) },
            Candidate { has_engine: false, ..candidate("e", 8.0, 8_192) },
            candidate("f", 8.0, 1_024),
            candidate("g", 0.5, 8_192),
            candidate("h", f64::NAN, 8_192),
            Candidate {
                allocated: Allocation { millicpus: 6_000, ..Allocation::default() },
                ..candidate("i", 2.0, 8_192)
            },
        ];
        let reasons = choose(&all, ResourceClass::Medium).unwrap_err();
        let reasons: Vec<_> = reasons.iter().map(|(found, reason)| format!("{}: {reason}", found.name)).collect();
        let expected = [
            "a: its daemon has not connected yet",
            "b: its heartbeats are missing",
            "c: it is revoked",
            "d: it has not reported its capacity yet",
            "e: its container engine cannot be reached",
            "f: 1024 MiB of memory are required, 819 MiB are free",
            "g: 1.0 CPUs are required, the machine has 0.5",
            "h: 1.0 CPUs are required, the machine has 0.0",
            "i: 1.0 CPUs are required, 0.4 are free",
        ];
        assert_eq!(reasons, expected);
    }

    proptest! {
        /// However many instances are placed, no toolbox exceeds 80% of its memory and of its overcommitted CPUs.
        #[test]
        fn the_budget_is_never_exceeded(
            sizes in proptest::collection::vec((0.0_f64..16.0, 0_u64..20_000), 1..4),
            classes in proptest::collection::vec(0_usize..3, 0..40),
        ) {
            let mut all: Vec<_> = sizes.iter().enumerate()
                .map(|(at, (cpus, memory))| candidate(&format!("t{at}"), *cpus, *memory)).collect();
            for class in classes.into_iter().map(|at| ResourceClass::ALL[at]) {
                let Ok(chosen) = choose(&all, class).map(|found| found.id.clone()) else { continue };
                let found = all.iter_mut().find(|found| found.id == chosen).unwrap();
                found.allocated.millicpus += class.millicpus();
                found.allocated.memory_bytes += class.memory_bytes();
            }
            for found in all {
                let capacity = found.capacity.unwrap();
                prop_assert!(found.allocated.millicpus as f64 <= capacity.cpus * 3_200.0);
                prop_assert!(found.allocated.memory_bytes as f64 <= capacity.memory_bytes as f64 * 0.8);
            }
        }
    }
}
