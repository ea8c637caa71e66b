//! The budget of the toolbox.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use waypost_toolbox_proto::ResourceClass;
use waypost_toolbox_proto::entry::CPU_OVERCOMMIT;
use waypost_toolbox_proto::message::Capacity;

use crate::reconcile::Resources;

/// The resources that containers may use, and those that are in use. Every container holds a [`Reservation`] from
/// before it starts until after it has ended. Memory is a hard limit; CPUs are overcommitted by [`CPU_OVERCOMMIT`].
#[derive(Debug, Default)]
pub struct Budget(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    total: Resources,
    /// The CPUs of the machine in thousandths. The engine rejects a container with a higher limit.
    machine_millicpus: u64,
    used: Resources,
}

impl Budget {
    /// Sets the resources from the capacity of the machine. `reserve` is kept for the machine itself.
    pub fn set_capacity(&self, capacity: &Capacity, reserve: Resources) {
        // The number of CPUs is small, so the conversion is exact.
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "limited to 0 to 1,000,000")]
        let millicpus = (capacity.cpus * 1_000.0).clamp(0.0, 1e9) as u64;
        let mut state = self.state();
        state.machine_millicpus = millicpus;
        state.total = Resources {
            memory_bytes: capacity.memory_bytes.saturating_sub(reserve.memory_bytes),
            millicpus: millicpus.saturating_sub(reserve.millicpus).saturating_mul(CPU_OVERCOMMIT),
        };
    }

    /// Returns the free resources.
    #[must_use]
    pub fn free(&self) -> Resources {
        let state = self.state();
        Resources {
            memory_bytes: state.total.memory_bytes.saturating_sub(state.used.memory_bytes),
            millicpus: state.total.millicpus.saturating_sub(state.used.millicpus),
        }
    }

    /// Returns the resources in use.
    #[must_use]
    pub fn used(&self) -> Resources {
        self.state().used
    }

    /// Reserves the resources of a container that is about to start. Returns `None` if there are not enough, or the
    /// machine has fewer CPUs than this container needs.
    #[must_use]
    pub fn reserve(self: &Arc<Self>, class: ResourceClass) -> Option<Reservation> {
        let resources = Resources::of(class);
        let mut state = self.state();
        state.machine_millicpus.checked_sub(resources.millicpus)?;
        let free = state.total.checked_sub(state.used)?;
        free.checked_sub(resources)?;
        state.add(resources);
        Some(Reservation { budget: Arc::clone(self), resources })
    }

    /// Reserves the resources of a container that is already running, even if the budget is exceeded.
    #[must_use]
    pub fn adopt(self: &Arc<Self>, class: ResourceClass) -> Reservation {
        let resources = Resources::of(class);
        self.state().add(resources);
        Reservation { budget: Arc::clone(self), resources }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn add(&mut self, resources: Resources) {
        self.used.memory_bytes += resources.memory_bytes;
        self.used.millicpus += resources.millicpus;
    }
}

/// The reserved resources of a container. They are released when this is dropped.
#[derive(Debug)]
pub struct Reservation {
    budget: Arc<Budget>,
    resources: Resources,
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let mut state = self.budget.state();
        state.used.memory_bytes = state.used.memory_bytes.saturating_sub(self.resources.memory_bytes);
        state.used.millicpus = state.used.millicpus.saturating_sub(self.resources.millicpus);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reservations_from_many_threads_never_exceed_the_budget() {
        let budget = Arc::<Budget>::default();
        assert!(budget.reserve(ResourceClass::Light).is_none(), "nothing before the capacity is known");
        let capacity = Capacity { cpus: 2.0, memory_bytes: 10 << 30, disk_free_bytes: 0 };
        budget.set_capacity(&capacity, Resources { memory_bytes: 1 << 30, millicpus: 250 });
        let count = || {
            let reserve = || (0..1_000).filter_map(|_| budget.reserve(ResourceClass::Light)).collect::<Vec<_>>();
            std::thread::scope(|scope| {
                let threads: Vec<_> = (0..8).map(|_| scope.spawn(reserve)).collect();
                threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect::<Vec<_>>().len()
            })
        };
        // Four times 1.75 CPUs, at half a CPU each. All reservations are then released.
        assert_eq!((count(), count()), (14, 14));
        assert_eq!(budget.used(), Resources::default());
        // Containers that are already running count, even if the machine has become smaller.
        let heavy: Vec<_> = (0..4).map(|_| budget.adopt(ResourceClass::Heavy)).collect();
        assert_eq!(budget.free().millicpus, 0);
        assert!(budget.reserve(ResourceClass::Light).is_none());
        drop(heavy);
        assert!(budget.reserve(ResourceClass::Heavy).is_some());
    }

    #[test]
    fn cpus_are_overcommitted_and_memory_is_not() {
        let count = |cpus, memory_bytes, class| {
            let budget = Arc::<Budget>::default();
            budget.set_capacity(&Capacity { cpus, memory_bytes, disk_free_bytes: 0 }, Resources::default());
            (0..100).map_while(|_| budget.reserve(class)).collect::<Vec<_>>().len()
        };
        assert_eq!(count(2.0, 64 << 30, ResourceClass::Light), 16);
        assert_eq!(count(2.0, 5 << 30, ResourceClass::Light), 10, "ten light containers on two CPUs and 5 GiB");
        assert_eq!(count(2.0, 64 << 30, ResourceClass::Heavy), 4);
        assert_eq!(count(1.0, 64 << 30, ResourceClass::Heavy), 0, "the engine rejects more CPUs than there are");
        assert_eq!(count(1.0, 64 << 30, ResourceClass::Medium), 4);
    }
}
