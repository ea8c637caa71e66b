//! The desired state of a toolbox: what should run.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::entry::{Destination, ResourceClass, SecretDelivery, Sharing, Transport, Volume};

/// Everything that should run on a toolbox. It is always complete: an instance that is missing is to be removed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DesiredState {
    /// A number that increases with every change. The daemon ignores a state with a lower number than it has seen.
    pub revision: u64,
    /// The instances, in any order.
    pub instances: Vec<DesiredInstance>,
}

/// An instance that should exist.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DesiredInstance {
    /// The ID (`ins_…`).
    pub id: String,
    /// The slug, for human-readable names.
    pub slug: String,
    /// A number that increases with every change of the specification. Each generation has its own deployment.
    pub generation: u64,
    /// The deployment (`dep_…`) of this generation.
    pub deployment_id: String,
    /// Whether the server should run.
    pub run: bool,
    /// A number that increases with every requested restart. The daemon restarts the containers once for each increase.
    #[serde(default)]
    pub restarts: u64,
    /// What to run.
    pub spec: InstanceSpec,
}

/// The specification of an instance to run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstanceSpec {
    /// The image, always by digest: `host/name@sha256:…`.
    pub image: String,
    /// The transport of the server.
    pub transport: Transport,
    /// The command, which replaces the entry point of the image.
    #[serde(default)]
    pub command: Option<Vec<String>>,
    /// The arguments of the entry point, after substitution of `${config.NAME}`; `None` keeps those of the image.
    #[serde(default)]
    pub args: Option<Vec<String>>,
    /// The port of a server that is reached over HTTP.
    #[serde(default)]
    pub port: Option<u16>,
    /// The path of a server that is reached over HTTP, such as `/mcp`.
    #[serde(default)]
    pub path: Option<String>,
    /// The environment variables that the configuration sets. They contain no secrets.
    #[serde(default)]
    pub environment: BTreeMap<String, String>,
    /// The secrets. Their values are requested when a container starts.
    #[serde(default)]
    pub secrets: Vec<SecretMount>,
    /// Whether the registry requires credentials, which are requested when the image is pulled.
    #[serde(default)]
    pub registry_credentials: bool,
    /// The resource class.
    pub resources: ResourceClass,
    /// The destinations that the server may connect to.
    #[serde(default)]
    pub egress: Vec<Destination>,
    /// Whether rejected destinations are recorded, so that an allowlist can be proposed. They are still rejected.
    #[serde(default)]
    pub learn_egress: bool,
    /// The volumes.
    #[serde(default)]
    pub volumes: Vec<Volume>,
    /// The callers that share a container.
    pub sharing: Sharing,
    /// Whether the container starts only when it is first called.
    #[serde(default)]
    pub lazy: bool,
    /// The time without a call after which a container is stopped, in seconds.
    #[serde(default)]
    pub idle_seconds: Option<u64>,
    /// The age at which a container is replaced, in seconds.
    #[serde(default)]
    pub max_lifetime_seconds: Option<u64>,
    /// Members that later versions of the protocol define.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// A secret of an instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretMount {
    /// The name of the file or of the environment variable.
    pub name: String,
    /// How the server receives it.
    #[serde(rename = "as")]
    pub delivery: SecretDelivery,
    /// A number that increases when the secret's value changes. A change restarts the container. 0 for a personal secret.
    pub version: u64,
    /// Whether each agent has its own value, so that only containers of agents (see [`crate::http::agent_key`]) have one. A
    /// daemon that does not know this member requests the secret without the key of the container, gets no value, and so does
    /// not start a container.
    #[serde(default, skip_serializing_if = "is_false")]
    pub personal: bool,
    /// Whether the container starts without a value. Only personal secrets can be optional here.
    #[serde(default, skip_serializing_if = "is_false")]
    pub optional: bool,
}

fn is_false(value: &bool) -> bool {
    !value
}

impl InstanceSpec {
    /// Returns the names of the personal secrets without which no container starts.
    pub fn required_personal_secrets(&self) -> impl Iterator<Item = &str> {
        self.secrets.iter().filter(|secret| secret.personal && !secret.optional).map(|secret| secret.name.as_str())
    }
}
