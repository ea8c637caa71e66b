//! Instances: catalogue versions that are deployed on a toolbox.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use waypost_toolbox_proto::instance::{Health, InstanceState};

use crate::clock::Timestamp;
use crate::id::{CatalogVersionId, InstanceEventId, InstanceId, OrganizationId, ToolSecretId, ToolboxId};
use crate::walkthrough::names;

/// The maximum length of an instance's slug: the public names of its tools contain it.
pub const MAX_SLUG: usize = 24;

names! {
    /// Whether an instance should run.
    DesiredRun {
        /// The server should run.
        Running = "running",
        /// The server should not run.
        Stopped = "stopped",
    }
}

/// A secret of an instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretUse {
    /// The name that the version declares.
    pub name: String,
    /// The secret.
    pub secret_id: ToolSecretId,
    /// The number of the value that the instance uses, or is to use.
    pub version: u64,
}

/// An instance.
#[derive(Debug, Clone, PartialEq)]
pub struct Instance {
    /// The ID.
    pub id: InstanceId,
    /// The organisation that owns the instance.
    pub organization_id: OrganizationId,
    /// The slug, unique in the organisation, with no two that look alike.
    pub slug: String,
    /// The name.
    pub name: String,
    /// The deployed version.
    pub catalog_version_id: CatalogVersionId,
    /// The toolbox on which the instance runs.
    pub toolbox_id: ToolboxId,
    /// Whether the instance should run.
    pub desired: DesiredRun,
    /// The observed state.
    pub state: InstanceState,
    /// The number of the specification, which increases with every deployment.
    pub generation: u64,
    /// The generation of the container that serves calls; 0 before the first one.
    pub observed_generation: u64,
    /// The number of requested restarts.
    pub restarts: u64,
    /// Whether the instance is being removed. Its row is deleted when the toolbox has removed everything.
    pub is_removing: bool,
    /// The last probe.
    pub health: Option<Health>,
    /// The configuration, which satisfies the version's schema.
    pub config: Map<String, Value>,
    /// The secrets, ordered by name.
    pub secrets: Vec<SecretUse>,
    /// Whether rejected destinations are recorded.
    pub learn_egress: bool,
    /// The rejected destinations, as `host:port`, in the order in which they were first seen.
    pub rejected_egress: Vec<String>,
    /// When the instance was created.
    pub created_at: Timestamp,
    /// When it was last changed by a user.
    pub updated_at: Timestamp,
}

names! {
    /// The kind of an event of an instance.
    InstanceEventKind {
        /// The state has changed.
        State = "state",
        /// A container has exited unexpectedly.
        Crashed = "crashed",
    }
}

/// An event of an instance on its toolbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstanceEvent {
    /// The ID.
    pub id: InstanceEventId,
    /// The organisation that owns the instance.
    pub organization_id: OrganizationId,
    /// The instance.
    pub instance_id: InstanceId,
    /// The kind.
    pub kind: InstanceEventKind,
    /// The new state, or the cause of the crash, for people.
    pub message: String,
    /// The time by the toolbox's clock, but not later than the time at which the event was stored.
    pub created_at: Timestamp,
}
