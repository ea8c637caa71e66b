//! A pure function that determines the next acts that bring an instance to its desired state.
//!
//! [`reconcile`] compares the desired state with the existing containers and the state stored on disk ([`Memory`]), and
//! returns the next acts. Every act is small and idempotent, and its result is visible in the containers or in the
//! memory. Therefore, a daemon that is killed between two acts, or in the middle of one, continues where it stopped. A
//! deployment is not one act, but a sequence that follows from the rules: begin, start, check, complete, remove the old
//! container, finish.
//!
//! Invariants (reconcile/tests.rs):
//! 1. From every state, a finite number of acts leads to the desired state, in which there are no further acts.
//! 2. Acts concern only containers that were passed in.
//! 3. A container that serves calls is removed before its replacement is ready only if the instance is to be stopped,
//!    restarted or removed, if it has volumes, or if it is idle.
//! 4. The resources of all containers never exceed the budget.

mod attempts;
mod memory;
mod planner;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::Value;
use waypost_mcp_wire::canonical;
use waypost_toolbox_proto::desired::{DesiredInstance, InstanceSpec};
use waypost_toolbox_proto::{InstanceState, ResourceClass, Sharing};

pub use attempts::{Attempts, Observation};
pub use memory::{Deployment, Memory, Serving, Target, Verdict};

/// The agent or session that a container is for; `None` for a shared container.
pub type Key = Option<String>;

/// The key of the container with which the deployment of an instance with one container per key is checked.
pub const CHECK_KEY: &str = "deployment";

/// A container of the instance. All times are since the start of the daemon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Container {
    /// The ID that the engine assigned, or the ID of the start while it is in progress.
    pub id: String,
    /// The agent or session that the container is for.
    pub key: Key,
    /// The generation from its label.
    pub generation: u64,
    /// The digest from its label.
    pub digest: String,
    /// The phase.
    pub phase: Phase,
    /// Whether its removal is in progress.
    pub is_removing: bool,
    /// The time at which the daemon started or first observed it.
    pub started: Duration,
    /// The age of the container when the daemon first observed it.
    pub age: Duration,
    /// The time at which it was last used by a call.
    pub last_used: Duration,
    /// The number of running calls.
    pub calls: usize,
    /// The time since which its probes have succeeded; `None` if they fail.
    pub healthy_since: Option<Duration>,
}

/// The phase in the life of a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// The start is in progress.
    Starting,
    /// The container is running.
    Started,
    /// The container is running, and the check of its server is in progress.
    Checking,
    /// The server has completed the handshake and listed its tools.
    Ready,
    /// The container is not running.
    Exited,
}

/// Resources of containers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Resources {
    /// Memory in bytes.
    pub memory_bytes: u64,
    /// Thousandths of a CPU.
    pub millicpus: u64,
}

impl Resources {
    /// Returns the resources of a class.
    #[must_use]
    pub fn of(class: ResourceClass) -> Self {
        Self { memory_bytes: class.memory_bytes(), millicpus: class.millicpus() }
    }

    /// Subtracts `other`. Returns `None` if there are not enough resources.
    #[must_use]
    pub fn checked_sub(self, other: Self) -> Option<Self> {
        Some(Self {
            memory_bytes: self.memory_bytes.checked_sub(other.memory_bytes)?,
            millicpus: self.millicpus.checked_sub(other.millicpus)?,
        })
    }
}

/// The limits of instances with one container per key.
#[derive(Debug, Clone, Copy)]
pub struct KeyLimits {
    /// The maximum number of containers of an instance.
    pub containers: usize,
    /// The time without a call after which a container is removed, unless the entry sets one.
    pub idle: Duration,
}

/// Everything that [`reconcile`] considers.
#[derive(Debug, Clone, Copy)]
pub struct Situation<'a> {
    /// The desired state; `None` if the instance is to be removed.
    pub desired: Option<&'a DesiredInstance>,
    /// The containers of the instance.
    pub containers: &'a [Container],
    /// The state stored on disk.
    pub memory: &'a Memory,
    /// The failed attempts by key.
    pub attempts: &'a BTreeMap<Key, Attempts>,
    /// The keys for which calls wait for a container.
    pub demand: &'a BTreeSet<Key>,
    /// The free resources of the toolbox.
    pub free: Resources,
    /// The limits of instances with one container per key.
    pub limits: KeyLimits,
    /// The current time.
    pub now: Duration,
}

/// One step towards the desired state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Act {
    /// Records that the deployment begins.
    Begin(Deployment),
    /// Records that the running deployment is superseded.
    Interrupt,
    /// Starts a container of the running deployment, or of the specification that serves calls.
    Start {
        /// The agent or session that the container is for.
        key: Key,
        /// Whether it belongs to the running deployment.
        deploy: bool,
    },
    /// Connects to the server of a container and checks it.
    Check {
        /// The ID of the container.
        container: String,
        /// Whether it belongs to the running deployment.
        deploy: bool,
    },
    /// Records that the running deployment failed because the budget is used up.
    NoCapacity,
    /// Records that the desired specification serves calls.
    Complete(Deployment),
    /// Removes a container. If its start is in progress, it is cancelled.
    Remove {
        /// The ID of the container.
        container: String,
        /// The way in which it is removed.
        how: Removal,
    },
    /// Reports the outcome of the deployment. If it failed, first removes what it has left behind.
    Finish,
    /// Records that the containers have been stopped for a restart.
    Restarted,
    /// Removes the instance with all its resources.
    RemoveInstance,
}

/// The way in which a container is removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Removal {
    /// Waits for the calls of the container, then stops it with the grace period.
    Drain,
    /// Stops an idle container with the grace period. The instance then waits for its next call.
    Idle,
    /// Stops the container with the grace period.
    Stop,
    /// Kills the container.
    Discard,
}

/// Why a call cannot be served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// The instance is stopped, as desired.
    Stopped,
    /// The first deployment is running, or the containers are being replaced.
    Deploying,
    /// The deployment failed.
    Failed,
    /// The server crashed or could not be started, and will be started again later.
    Crashed {
        /// The time until the next start.
        retry_in: Duration,
        /// The cause.
        message: String,
    },
    /// The budget is used up.
    NoCapacity,
    /// The instance has the maximum number of containers.
    TooManyContainers,
}

/// The result of [`reconcile`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// The acts. They are independent of each other, so they can be performed in any order and at the same time.
    pub acts: Vec<Act>,
    /// The time at which [`reconcile`] must be called again, even if nothing has changed.
    pub wake: Option<Duration>,
    /// The keys whose calls must not wait any longer, and the reasons.
    pub refused: Vec<(Key, Refusal)>,
}

/// Returns the digest of everything that requires a new container if it changes. Members without a value are left out,
/// so a later version of the daemon with additional members computes the same digest.
#[must_use]
pub fn digest(spec: &InstanceSpec) -> String {
    let value = serde_json::to_value(spec).map(without_defaults).unwrap_or_default();
    let bytes = canonical::to_vec(&value).unwrap_or_else(|_| value.to_string().into_bytes());
    use sha2::Digest as _;
    data_encoding::HEXLOWER.encode(&sha2::Sha256::digest(bytes))
}

fn without_defaults(value: Value) -> Value {
    let is_default = |value: &Value| match value {
        Value::Null | Value::Bool(false) => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(members) => members.is_empty(),
        _ => false,
    };
    match value {
        // Only top-level members are removed. `args` is kept, because an empty list of arguments replaces those of the
        // image.
        Value::Object(members) => Value::Object(
            members
                .into_iter()
                .filter(|(name, value)| name == "args" && !value.is_null() || !is_default(value))
                .collect(),
        ),
        other => other,
    }
}

/// Returns the next acts.
#[must_use]
pub fn reconcile(situation: &Situation<'_>) -> Plan {
    planner::plan(situation)
}

/// Returns the state to report.
#[must_use]
pub fn state(situation: &Situation<'_>) -> InstanceState {
    let Situation { desired, memory, containers, .. } = situation;
    let Some(desired) = desired else { return InstanceState::Removing };
    let live = || containers.iter().filter(|container| container.phase != Phase::Exited);
    if !desired.run && live().count() == 0 {
        return InstanceState::Stopped;
    }
    let Some(serving) = &memory.serving else {
        let failed = memory.verdict.as_ref().is_some_and(|verdict| verdict.error.is_some() && verdict.finished);
        let settled = memory.target(desired, &digest(&desired.spec)) == Target::Settled;
        return if failed && settled { InstanceState::Failed } else { InstanceState::Deploying };
    };
    if situation.attempts.values().any(Attempts::is_crash_loop) {
        return InstanceState::CrashLoop;
    }
    let ready = || live().filter(|container| container.phase == Phase::Ready && serving.owns(container));
    if ready().any(|container| container.healthy_since.is_none()) {
        InstanceState::Unhealthy
    } else if ready().next().is_some() {
        InstanceState::Running
    } else if memory.deploying.is_some() {
        InstanceState::Deploying
    } else if situation.attempts.values().any(|attempts| !attempts.is_empty()) {
        InstanceState::Unhealthy
    } else if serving.is_on_demand() || memory.asleep {
        InstanceState::Idle
    } else {
        InstanceState::Deploying
    }
}

impl Serving {
    /// Whether a container has this specification.
    #[must_use]
    pub fn owns(&self, container: &Container) -> bool {
        container.generation == self.generation && container.digest == self.digest && has_key(container, &self.spec)
    }

    /// Whether containers are started only when they are called.
    #[must_use]
    pub fn is_on_demand(&self) -> bool {
        self.spec.lazy || self.spec.sharing != Sharing::Shared
    }
}

impl Deployment {
    /// Whether a container is the one that this deployment starts.
    #[must_use]
    pub fn owns(&self, container: &Container, spec: &InstanceSpec) -> bool {
        container.generation == self.container_generation
            && container.digest == self.digest
            && container.key == check_key(spec)
    }
}

/// Whether a container has a key if, and only if, the specification requires one.
fn has_key(container: &Container, spec: &InstanceSpec) -> bool {
    container.key.is_some() == (spec.sharing != Sharing::Shared)
}

/// Returns the key of the container with which a deployment is checked.
#[must_use]
pub fn check_key(spec: &InstanceSpec) -> Key {
    (spec.sharing != Sharing::Shared).then(|| CHECK_KEY.to_owned())
}

impl Target {
    fn deployment(&self) -> Option<&Deployment> {
        match self {
            Self::Settled => None,
            Self::Deploy(deployment) => Some(deployment),
        }
    }
}

impl Memory {
    /// Whether the outcome of the last deployment has been reported.
    fn is_finished(&self) -> bool {
        self.verdict.as_ref().is_none_or(|verdict| verdict.finished)
    }
}
