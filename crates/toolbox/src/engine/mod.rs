//! The container engine: the operations on containers that the supervisor uses.

pub mod counted;
pub mod docker;
pub mod netns;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::pin::Pin;
use std::time::Duration;

use futures::Stream;
use tokio::io::AsyncWrite;
use waypost_toolbox_proto::desired::InstanceSpec;
use waypost_toolbox_proto::message::{Capacity, Engine as EngineInfo, RegistryCredentials};
use waypost_toolbox_proto::{ErrorCode, ResourceClass};

pub use netns::NetworkNamespace;

/// A container engine. The daemon uses Docker; the property tests of the supervisor use an in-memory engine.
///
/// All methods are idempotent: creating something that exists and removing something that does not exist succeed. Only
/// containers, networks, volumes and secret files of this toolbox are listed or touched.
pub trait Engine: Send + Sync + 'static {
    /// Returns the version of the engine and the resources of the machine.
    fn info(&self) -> impl Future<Output = Result<MachineInfo, EngineError>> + Send;

    /// Returns all containers of this toolbox, from their labels.
    fn containers(&self) -> impl Future<Output = Result<Vec<ObservedContainer>, EngineError>> + Send;

    /// Returns the IDs of the instances that have a container, network, volume or secret file.
    fn instances(&self) -> impl Future<Output = Result<Vec<String>, EngineError>> + Send;

    /// Checks that an image can run on this machine, and pulls it if it is not present.
    fn pull(
        &self,
        image: &str,
        credentials: Option<&RegistryCredentials>,
    ) -> impl Future<Output = Result<(), EngineError>> + Send;

    /// Creates the resources of a container that outlive it: the volumes of the instance, and the network of a shared
    /// container.
    fn prepare(&self, request: &ContainerRequest) -> impl Future<Output = Result<(), EngineError>> + Send;

    /// Writes the secret files of a container, creates it and starts it. Standard input and output of a stdio server
    /// are attached before the start, so no output is lost. If this fails, nothing of the container is left behind. A
    /// process that exits at once is not a failure of this method: the container is returned with `running` set to
    /// `false`.
    ///
    /// The future must not be dropped before it completes: the container could be left running, without its output
    /// attached.
    fn start(
        &self,
        request: &ContainerRequest,
        secrets: &BTreeMap<String, String>,
    ) -> impl Future<Output = Result<StartedContainer, EngineError>> + Send;

    /// Attaches to standard input and output of a running container. Dropping them does not close the container's
    /// standard input.
    fn attach(&self, container: &str) -> impl Future<Output = Result<Attached, EngineError>> + Send;

    /// Stops a container with SIGTERM, followed by SIGKILL after `grace`.
    fn stop(&self, container: &str, grace: Duration) -> impl Future<Output = Result<(), EngineError>> + Send;

    /// Removes a container and its secret files. A running container is killed.
    fn remove(&self, container: &str) -> impl Future<Output = Result<(), EngineError>> + Send;

    /// Removes all containers, networks and secret files of an instance, and its volumes if `volumes` is set.
    fn remove_instance(&self, instance_id: &str, volumes: bool)
    -> impl Future<Output = Result<(), EngineError>> + Send;

    /// Removes the volumes of an instance that a generation created, except those with the names in `keep`. Volumes of
    /// other generations are kept, because they contain a server's files.
    fn remove_volumes(
        &self,
        instance_id: &str,
        generation: u64,
        keep: &[String],
    ) -> impl Future<Output = Result<(), EngineError>> + Send;

    /// Returns the network namespace of a running container. It stays valid for as long as it is held, even if the
    /// container exits.
    fn network_namespace(&self, container: &str) -> impl Future<Output = Result<NetworkNamespace, EngineError>> + Send {
        let cause = format!("Container {container} has no network namespace");
        std::future::ready(Err(EngineError::new(ErrorCode::EngineUnavailable, cause, "Restart the instance.")))
    }

    /// Returns the resource usage of a container. This takes up to a second with Docker 20.10.
    fn usage(&self, container: &str) -> impl Future<Output = Result<Usage, EngineError>> + Send;

    /// Returns the output of a container that is not attached (HTTP servers). The first time after [`Engine::start`],
    /// it begins with the start of the container; later, it begins when the stream is first polled.
    fn logs(&self, container: &str) -> impl Future<Output = Result<Output, EngineError>> + Send;

    /// Returns the exits of containers from now on. The stream ends when the engine stops; the caller then waits for
    /// the engine and compares states.
    fn exits(&self) -> impl Future<Output = Result<Exits, EngineError>> + Send;

    /// Removes images that the daemon has pulled and no container uses, least recently used first, until at least
    /// `bytes` of disk space are free.
    fn remove_unused_images(&self, bytes: u64) -> impl Future<Output = Result<(), EngineError>> + Send;
}

/// The engine and the resources of the machine.
#[derive(Debug, Clone, PartialEq)]
pub struct MachineInfo {
    /// The engine.
    pub engine: EngineInfo,
    /// The resources.
    pub capacity: Capacity,
}

/// A request for a container. Its name, labels and everything else follow from this.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerRequest {
    /// The ID of the instance.
    pub instance_id: String,
    /// The slug of the instance, which is part of human-readable names.
    pub slug: String,
    /// The generation of the instance.
    pub generation: u64,
    /// The agent or session that the container is for; `None` for the shared container. It is stored in a label
    /// unchanged, so it must not be secret: a session ID must be hashed.
    pub key: Option<String>,
    /// The digest of everything that requires a new container if it changes, including the versions of secrets. It is
    /// stored in a label, so that the state can be rebuilt from labels.
    pub digest: String,
    /// The version of the personal secrets of the container's agent (see
    /// [`waypost_toolbox_proto::message::InstanceSecrets::personal_version`]). It is stored in a label for the same
    /// reason.
    pub personal_version: u64,
    /// What to run.
    pub spec: InstanceSpec,
}

/// A container of this toolbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObservedContainer {
    /// The ID of the container.
    pub id: String,
    /// The ID of the instance.
    pub instance_id: String,
    /// The generation of the instance.
    pub generation: u64,
    /// The agent or session that the container is for.
    pub key: Option<String>,
    /// The digest from its request.
    pub digest: String,
    /// The version of the personal secrets from its request.
    pub personal_version: u64,
    /// The resource class.
    pub resources: ResourceClass,
    /// Whether the container runs.
    pub running: bool,
    /// When it was started, in milliseconds since the Unix epoch; `None` if it never was.
    pub started_at: Option<i64>,
    /// The exit code, if it has exited.
    pub exit_code: Option<i64>,
    /// Whether it exceeded its memory limit.
    pub out_of_memory: bool,
    /// The ID of its first process in the PID namespace of the host, while it runs. Its network namespace is
    /// `/proc/PID/ns/net`.
    pub pid: Option<u32>,
}

/// A container that was started.
pub struct StartedContainer {
    /// The container.
    pub container: ObservedContainer,
    /// Standard input and output of a stdio server; `None` for HTTP servers.
    pub attached: Option<Attached>,
}

/// Standard input and output of a container.
pub struct Attached {
    /// Standard input.
    pub stdin: Pin<Box<dyn AsyncWrite + Send>>,
    /// Standard output and standard error.
    pub output: Output,
}

/// Output of a container. The stream ends when the container exits.
pub type Output = Pin<Box<dyn Stream<Item = Result<OutputChunk, EngineError>> + Send>>;

/// A piece of output, not necessarily a whole line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OutputChunk {
    /// Standard output.
    Stdout(bytes::Bytes),
    /// Standard error.
    Stderr(bytes::Bytes),
}

/// Exits of containers.
pub type Exits = Pin<Box<dyn Stream<Item = ContainerExit> + Send>>;

/// The exit of a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerExit {
    /// The ID of the container.
    pub container: String,
    /// The ID of the instance.
    pub instance_id: String,
    /// The exit code.
    pub exit_code: i64,
}

/// The resource usage of a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// The CPU time since the start in nanoseconds.
    pub cpu_nanoseconds: u64,
    /// The memory in bytes, without the page cache.
    pub memory_bytes: u64,
    /// The bytes received from the network since the start.
    pub network_received_bytes: u64,
    /// The bytes sent to the network since the start.
    pub network_sent_bytes: u64,
    /// The number of processes.
    pub pids: u64,
}

/// Why an operation of the engine failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{cause}")]
pub struct EngineError {
    /// The code that a deployment reports.
    pub code: ErrorCode,
    /// What happened, in one sentence, without secrets.
    pub cause: String,
    /// What to do, in one sentence.
    pub next_action: String,
}

impl EngineError {
    /// Creates an error.
    pub fn new(code: ErrorCode, cause: impl Into<String>, next_action: impl Into<String>) -> Self {
        Self { code, cause: cause.into(), next_action: next_action.into() }
    }
}

/// The folders and networks of the engine.
#[derive(Debug, Clone)]
pub struct EngineOptions {
    /// The ID of this toolbox.
    pub toolbox_id: String,
    /// The address of the engine, such as `unix:///var/run/docker.sock`.
    pub docker_host: Option<String>,
    /// The folder for files that must survive a restart.
    pub data_dir: PathBuf,
    /// The folder for secret files: a tmpfs that the engine sees at the same path.
    pub secrets_dir: PathBuf,
    /// The network from which each instance, and each container of one agent or session, gets a subnet (/28).
    pub network_pool: ipnet::Ipv4Net,
}
