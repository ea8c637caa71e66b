//! The running daemon: connects the link, the supervisor, the container engine, the bridge and the egress.

mod egress;
mod requests;
mod servers;
mod storage;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ipnet::{IpNet, Ipv4Net};
use ring::rand::{SecureRandom, SystemRandom};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use waypost_toolbox_proto::message::{Capacity, Heartbeat};

use self::egress::EgressTable;
use self::requests::InstanceRequests;
use self::storage::Storage;
use crate::bridge::Bridge;
use crate::clock;
use crate::diagnostics::{Diagnostics, Snapshot};
use crate::egress::EgressPolicy;
use crate::engine::counted::CountedEngine;
use crate::engine::docker::DockerEngine;
use crate::engine::{Engine, EngineOptions};
use crate::identity::{Identity, IdentityError};
use crate::link::connect::NetworkConnector;
use crate::link::{Link, Runtime, Status};
use crate::supervisor::{Parts, Settings, Supervisor};
use crate::tasks;

/// The time within which the engine must answer before a heartbeat is sent without it.
const ENGINE_TIMEOUT: Duration = Duration::from_secs(5);

/// The settings of the daemon.
#[derive(Debug, Clone)]
pub struct DaemonOptions {
    /// The data directory, which contains the identity of the machine.
    pub data_dir: PathBuf,
    /// The address of the container engine; `None` for the default.
    pub docker_host: Option<String>,
    /// The folder for secret files: a tmpfs that the engine sees at the same path.
    pub secrets_dir: PathBuf,
    /// The private networks that entries may reach.
    pub egress_allow: Vec<IpNet>,
    /// The network from which each instance gets a subnet.
    pub network_pool: Ipv4Net,
    /// Additional root certificates for the connection to the control plane, in PEM.
    pub ca_pem: Option<Vec<u8>>,
    /// Gives access to the state of the daemon.
    pub diagnostics: Diagnostics,
}

/// Why the daemon cannot run. The message is for the operator of the machine.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// The machine has not joined, or its identity cannot be read.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The container engine or the folder for secrets cannot be used.
    #[error("{0}")]
    Engine(String),
    /// A file cannot be read or written.
    #[error("The state of the daemon cannot be read or written: {0}")]
    Io(#[from] std::io::Error),
}

/// Runs the daemon until `stop` is cancelled. Containers keep running afterwards. Calls `on_status` with the ID of the
/// toolbox whenever the state of the link changes.
///
/// # Errors
/// Returns a [`DaemonError`] if the daemon cannot start.
pub async fn run(
    options: DaemonOptions,
    on_status: impl Fn(&str, &Status) + Send + 'static,
    stop: CancellationToken,
) -> Result<(), DaemonError> {
    let identity = Identity::load(&options.data_dir)?;
    let toolbox_id = identity.toolbox_id.clone();
    let engine_options = EngineOptions {
        toolbox_id: toolbox_id.clone(),
        docker_host: options.docker_host.clone(),
        data_dir: options.data_dir.clone(),
        secrets_dir: options.secrets_dir.clone(),
        network_pool: options.network_pool,
    };
    let connected = DockerEngine::connect_exclusively(engine_options).await;
    let (engine, _lock) =
        connected.map_err(|error| DaemonError::Engine(format!("{}. {}", error.cause, error.next_action)))?;
    let engine = CountedEngine(engine);
    let policy = EgressPolicy { allow: options.egress_allow.clone(), never: vec![options.network_pool.into()] };
    let link = Link::open(identity, &options.data_dir, clock::system)?;
    let storage = Arc::new(Storage::new(&options.data_dir, EgressTable::new(policy), clock::system));
    let supervisor = Supervisor::new(Parts {
        engine: Arc::new(engine.clone()),
        servers: Arc::new(Bridge::new(clock::system)),
        control: Arc::new(link.clone()),
        sink: Arc::clone(&storage) as Arc<dyn crate::supervisor::Sink>,
        data_dir: options.data_dir.clone(),
        clock: clock::system,
        jitter,
        settings: Settings::default(),
    });
    options.diagnostics.set_source({
        let (link, supervisor) = (link.clone(), supervisor.clone());
        move || Snapshot {
            link: link.status().borrow().clone(),
            is_engine_reachable: supervisor.machine().is_some(),
            instances: supervisor.reports(),
            queued_events: link.unacknowledged_events(),
        }
    });
    let heartbeats = supervisor.clone();
    let runtime = Runtime {
        connector: Arc::new(NetworkConnector::new(options.ca_pem)),
        requests: Arc::new(InstanceRequests::new(supervisor.clone(), Arc::clone(&storage))),
        heartbeat: Arc::new(move || {
            let (engine, supervisor) = (engine.clone(), heartbeats.clone());
            Box::pin(async move { heartbeat(&engine, &supervisor).await })
        }),
    };
    let reporting = tasks::spawn("link-status", report_status(link.status(), toolbox_id, on_status));
    let rejections = tasks::spawn("egress-reports", {
        let (storage, link) = (Arc::clone(&storage), link.clone());
        async move { storage.egress().report_rejections(&link).await }
    });
    let connect = async {
        supervisor.started().await;
        link.start(runtime);
    };
    tokio::join!(supervisor.run(link.desired(), stop.clone()), stop.run_until_cancelled(connect));
    link.stop().await;
    reporting.abort();
    rejections.abort();
    Ok(())
}

/// Returns the state of the machine for a heartbeat. The link adds the revision of the desired state.
async fn heartbeat<E: Engine, S: crate::supervisor::servers::Servers>(
    engine: &E,
    supervisor: &Supervisor<E, S>,
) -> Heartbeat {
    let machine = tokio::time::timeout(ENGINE_TIMEOUT, engine.info()).await.ok().and_then(Result::ok);
    let capacity = machine.as_ref().map(|machine| machine.capacity);
    // While the engine does not answer, the last known resources are reported.
    let capacity = capacity.or_else(|| supervisor.machine().map(|machine| machine.capacity));
    Heartbeat {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        engine: machine.map(|machine| machine.engine),
        capacity: capacity.unwrap_or(Capacity { cpus: 0.0, memory_bytes: 0, disk_free_bytes: 0 }),
        desired_revision: 0,
        instances: supervisor.reports(),
    }
}

async fn report_status(mut status: watch::Receiver<Status>, toolbox_id: String, on_status: impl Fn(&str, &Status)) {
    loop {
        let current = status.borrow_and_update().clone();
        on_status(&toolbox_id, &current);
        if status.changed().await.is_err() {
            return;
        }
    }
}

/// Returns a random number from 0 to 1.
fn jitter() -> f64 {
    let mut bytes = [0; 4];
    // If the random number generator fails, all pauses are of medium length.
    if SystemRandom::new().fill(&mut bytes).is_err() {
        return 0.5;
    }
    f64::from(u32::from_le_bytes(bytes)) / f64::from(u32::MAX)
}
