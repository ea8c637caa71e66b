//! Messages on the control stream ([`crate::http::CONTROL`]): one JSON object per line in each direction.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::deployment::{DeploymentError, DeploymentStep};
use crate::desired::DesiredState;
use crate::instance::{Health, InstanceState};

/// The maximum size of a line in bytes.
pub const MAX_LINE_BYTES: usize = 4 * 1024 * 1024;
/// The interval between heartbeats in seconds. The first one is sent at once.
pub const HEARTBEAT_SECONDS: u64 = 60;
/// The number of missed heartbeats after which a toolbox is unresponsive.
pub const MISSED_HEARTBEATS: u64 = 3;
/// The maximum number of events that wait for an acknowledgement.
pub const MAX_UNACKNOWLEDGED: usize = 1_000;

/// A message from the control plane.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ControlMessage {
    /// The complete desired state. Sent when the link opens and after every change.
    Desired {
        /// The state.
        state: DesiredState,
    },
    /// All events up to this number are stored. The daemon deletes them.
    Acknowledge {
        /// The number of an event.
        sequence: u64,
    },
    /// The answer to [`DaemonMessage::SecretRequest`].
    Secrets {
        /// The number of the request.
        request: u64,
        /// The secrets by name; `None` if the instance is unknown or a value is missing.
        secrets: Option<InstanceSecrets>,
    },
    /// The daemon creates a new key and presents it when it reconnects, which it does at once.
    RotateKey,
}

/// The secrets of an instance.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstanceSecrets {
    /// The values by the name of the file or of the environment variable.
    #[serde(default)]
    pub values: BTreeMap<String, String>,
    /// The credentials of the registry.
    #[serde(default)]
    pub registry: Option<RegistryCredentials>,
    /// A number that increases with every change of the personal secrets of the container's agent. 0 for other containers.
    #[serde(default)]
    pub personal_version: u64,
}

/// The credentials of a registry.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegistryCredentials {
    /// The user name.
    pub username: String,
    /// The password or token.
    pub password: String,
}

/// Shows names, never values.
impl std::fmt::Debug for InstanceSecrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("InstanceSecrets")
            .field("values", &self.values.keys())
            .field("registry", &self.registry.is_some())
            .field("personal_version", &self.personal_version)
            .finish()
    }
}

impl std::fmt::Debug for RegistryCredentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RegistryCredentials").field("username", &self.username).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for ControlMessage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Desired { state } => f.debug_struct("Desired").field("state", state).finish(),
            Self::Acknowledge { sequence } => f.debug_struct("Acknowledge").field("sequence", sequence).finish(),
            Self::Secrets { request, secrets } => {
                f.debug_struct("Secrets").field("request", request).field("secrets", secrets).finish()
            }
            Self::RotateKey => f.write_str("RotateKey"),
        }
    }
}

/// A message from the daemon.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum DaemonMessage {
    /// The state of the machine. Heartbeats are not stored on the daemon's disk.
    Heartbeat(Heartbeat),
    /// An event. Events have increasing numbers, are stored on the daemon's disk until they are acknowledged, and are sent
    /// in order. An event can arrive twice; the control plane ignores numbers that are not higher than the last one that
    /// it has stored, and acknowledges the last one. There can be gaps, after restarts of the daemon and where a full
    /// queue dropped superseded events.
    Event {
        /// The number, which starts at 1 when a machine joins.
        sequence: u64,
        /// The time of the event by the daemon's clock, in milliseconds since the Unix epoch.
        at: i64,
        /// What happened.
        event: ToolboxEvent,
    },
    /// Requests the secrets of an instance of this toolbox.
    SecretRequest {
        /// A number that the answer repeats.
        request: u64,
        /// The ID of the instance.
        instance_id: String,
        /// The generation that the secrets are for.
        generation: u64,
        /// The key of the container that starts, if the instance has one container per agent or session. Only the answer
        /// for the container of an agent (see [`crate::http::agent_key`]) contains personal secrets, those of this agent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        key: Option<String>,
    },
}

/// The state of the machine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Heartbeat {
    /// The version of the daemon.
    pub version: String,
    /// The container engine; `None` while it cannot be reached.
    pub engine: Option<Engine>,
    /// The resources of the machine.
    pub capacity: Capacity,
    /// The number of the last desired state that was received.
    pub desired_revision: u64,
    /// The observed state of every instance.
    pub instances: Vec<InstanceReport>,
}

/// The container engine of a machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Engine {
    /// The version of the engine.
    pub version: String,
    /// The version of the low-level runtime, such as runc.
    pub runtime: String,
    /// The operating system, such as `linux`.
    pub os: String,
    /// The processor architecture, such as `amd64`.
    pub architecture: String,
}

/// The resources of a machine.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Capacity {
    /// The number of CPUs.
    pub cpus: f64,
    /// The memory in bytes.
    pub memory_bytes: u64,
    /// The free disk space of the engine in bytes.
    pub disk_free_bytes: u64,
}

/// The observed state of an instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstanceReport {
    /// The ID of the instance.
    pub id: String,
    /// The generation to which the state belongs: that of the container that serves calls, or of a failed deployment.
    pub generation: u64,
    /// The state.
    pub state: InstanceState,
    /// The last probe.
    #[serde(default)]
    pub health: Option<Health>,
}

/// An event on a toolbox.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum ToolboxEvent {
    /// The state of an instance has changed.
    Instance(InstanceReport),
    /// A deployment has reached a step.
    DeploymentStep {
        /// The ID of the deployment.
        deployment_id: String,
        /// The ID of the instance.
        instance_id: String,
        /// The step.
        step: DeploymentStep,
    },
    /// A deployment has ended, and everything that it leaves behind is cleaned up.
    DeploymentEnded {
        /// The ID of the deployment.
        deployment_id: String,
        /// The ID of the instance.
        instance_id: String,
        /// The outcome.
        outcome: DeploymentOutcome,
    },
    /// A container has exited unexpectedly.
    Crashed {
        /// The ID of the instance.
        instance_id: String,
        /// The exit code.
        exit_code: i64,
        /// Whether the container exceeded its memory limit.
        out_of_memory: bool,
    },
    /// An instance has been removed with all its containers, networks, volumes and files.
    Removed {
        /// The ID of the instance.
        instance_id: String,
    },
    /// Connections that were rejected in learning mode since the last such event.
    EgressRejected {
        /// The ID of the instance.
        instance_id: String,
        /// The destinations, as `host:port`, at most 100.
        destinations: Vec<String>,
    },
}

impl ToolboxEvent {
    /// Returns the ID of the instance that the event concerns.
    #[must_use]
    pub fn instance_id(&self) -> &str {
        match self {
            Self::Instance(report) => &report.id,
            Self::DeploymentStep { instance_id, .. }
            | Self::DeploymentEnded { instance_id, .. }
            | Self::Crashed { instance_id, .. }
            | Self::Removed { instance_id }
            | Self::EgressRejected { instance_id, .. } => instance_id,
        }
    }
}

/// The outcome of a deployment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum DeploymentOutcome {
    /// The new container is healthy.
    Complete,
    /// The deployment failed, and nothing serves calls.
    Failed {
        /// The error.
        error: DeploymentError,
    },
    /// The deployment failed, and the previous container continues to serve calls.
    RolledBack {
        /// The error.
        error: DeploymentError,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Older control planes and daemons do not know the key and the personal secrets.
    #[test]
    fn earlier_forms_of_messages_are_read_and_written() {
        let request = |key: Option<&str>| DaemonMessage::SecretRequest {
            request: 1,
            instance_id: "ins_1".to_owned(),
            generation: 2,
            key: key.map(str::to_owned),
        };
        let earlier = r#"{"type":"secret_request","request":1,"instance_id":"ins_1","generation":2}"#;
        assert_eq!(serde_json::from_str::<DaemonMessage>(earlier).unwrap(), request(None));
        assert_eq!(serde_json::to_string(&request(None)).unwrap(), earlier);
        let text = serde_json::to_string(&request(Some("agent:agt_1"))).unwrap();
        assert_eq!(serde_json::from_str::<DaemonMessage>(&text).unwrap(), request(Some("agent:agt_1")));
        let secrets: InstanceSecrets = serde_json::from_str(r#"{"values":{}}"#).unwrap();
        assert_eq!(secrets, InstanceSecrets::default());
        let mount = r#"{"name":"TOKEN","as":"file","version":1}"#;
        let read: crate::desired::SecretMount = serde_json::from_str(mount).unwrap();
        assert_eq!(serde_json::to_string(&read).unwrap(), mount, "the digest of a specification does not change");
    }

    #[test]
    fn secrets_are_not_shown_by_debug() {
        let registry = Some(RegistryCredentials { username: "u".into(), password: "hunter2".into() });
        let secrets = InstanceSecrets {
            values: [("TOKEN".to_owned(), "hunter2".to_owned())].into(),
            registry,
            personal_version: 0,
        };
        let text = format!("{:?}", ControlMessage::Secrets { request: 1, secrets: Some(secrets) });
        assert!(text.contains("TOKEN") && !text.contains("hunter2"), "{text}");
    }
}
