//! The Docker Engine.
//!
//! `config` implements the isolation list. The other modules create what a container needs, and find it again by
//! `labels`.
//!
//! The client library logs the bodies of requests and responses, which contain secrets, at the level `debug`. The log
//! filter of the program must limit the target `bollard` to `info`.

mod config;
mod containers;
mod errors;
mod images;
mod labels;
mod machine;
mod network;
mod secrets;
mod streams;
mod user;
mod volumes;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fs::File;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bollard::Docker;
use bollard::models::Volume;
use data_encoding::HEXLOWER;
use ring::rand::{SecureRandom, SystemRandom};
use waypost_toolbox_proto::message::RegistryCredentials;

use super::{
    Attached, ContainerRequest, Engine, EngineError, EngineOptions, Exits, MachineInfo, NetworkNamespace,
    ObservedContainer, Output, StartedContainer, Usage,
};
use images::PulledImages;
use secrets::SecretFiles;
use user::User;

/// A connection to a Docker Engine on this machine. Cheap to clone.
#[derive(Clone)]
pub struct DockerEngine {
    inner: Arc<Inner>,
}

struct Inner {
    docker: Docker,
    options: EngineOptions,
    /// The operating system and the processor architecture of the engine.
    platform: (String, String),
    /// The folder of the engine's files on the host.
    docker_root: String,
    secrets: SecretFiles,
    images: PulledImages,
    /// The users of images by the IDs of the images.
    users: Mutex<HashMap<String, User>>,
    network_creation: tokio::sync::Mutex<()>,
    /// The containers that this daemon has started, and whose log has not been read yet.
    unread_logs: Mutex<HashSet<String>>,
}

/// Checks whether the daemon can run on this machine. Returns a sentence that says what is missing, followed by one
/// that says what to do, or `None` if nothing is missing.
pub async fn diagnose(options: &EngineOptions) -> Option<String> {
    let check = async {
        machine::connect(options).await?;
        SecretFiles::open(&options.secrets_dir, &options.toolbox_id)
    };
    check.await.err().map(|error| format!("{}. {}", error.cause, error.next_action))
}

impl DockerEngine {
    /// Connects to the engine, checks that it can be used, and removes what an interrupted daemon has left behind. Only
    /// one daemon of a toolbox may run (see [`Self::connect_exclusively`]).
    ///
    /// # Errors
    /// Returns an error if the engine or the folder for secrets cannot be used. Its cause and next action say what is
    /// missing and what to do.
    pub async fn connect(options: EngineOptions) -> Result<Self, EngineError> {
        let engine = Self::open(options).await?;
        engine.remove_leftovers().await?;
        Ok(engine)
    }

    /// Like [`Self::connect`], but also ensures that no other daemon of the toolbox uses the same folder for secrets,
    /// even if it has a copy of the data directory: both would start containers for the same instances. The lock is
    /// released when the returned file is closed, or when the process ends.
    ///
    /// # Errors
    /// Returns the errors of [`Self::connect`], and an error if another daemon holds the lock. In the latter case,
    /// nothing has been removed.
    pub async fn connect_exclusively(options: EngineOptions) -> Result<(Self, File), EngineError> {
        let engine = Self::open(options).await?;
        let lock = engine.inner.secrets.lock()?;
        engine.remove_leftovers().await?;
        Ok((engine, lock))
    }

    async fn open(options: EngineOptions) -> Result<Self, EngineError> {
        let (docker, version, info) = machine::connect(&options).await?;
        let secrets = SecretFiles::open(&options.secrets_dir, &options.toolbox_id)?;
        let images = PulledImages::open(&options.data_dir);
        let inner = Inner {
            docker,
            options,
            platform: (version.os.unwrap_or_default(), version.arch.unwrap_or_default()),
            docker_root: info.docker_root_dir.unwrap_or_default(),
            secrets,
            images,
            users: Mutex::default(),
            network_creation: tokio::sync::Mutex::default(),
            unread_logs: Mutex::default(),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    fn docker(&self) -> &Docker {
        &self.inner.docker
    }

    fn unread_logs(&self) -> MutexGuard<'_, HashSet<String>> {
        self.inner.unread_logs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn toolbox_id(&self) -> &str {
        &self.inner.options.toolbox_id
    }

    /// Returns the error of a request, without paths of the host.
    fn error(&self, action: &str, error: &bollard::errors::Error) -> EngineError {
        let secrets = self.inner.options.secrets_dir.to_string_lossy().into_owned();
        errors::request(action, error, &[self.inner.docker_root.clone(), secrets])
    }
}

/// Returns a random suffix that makes a name unique.
fn random_suffix() -> Result<String, EngineError> {
    let mut bytes = [0; 8];
    SystemRandom::new()
        .fill(&mut bytes)
        .map_err(|_| errors::unavailable("The machine has no random numbers", "Check the machine's kernel."))?;
    Ok(HEXLOWER.encode(&bytes))
}

impl Engine for DockerEngine {
    async fn info(&self) -> Result<MachineInfo, EngineError> {
        self.machine().await
    }

    async fn containers(&self) -> Result<Vec<ObservedContainer>, EngineError> {
        Ok(self.own_containers(None).await?.into_iter().map(|own| own.observed).collect())
    }

    async fn instances(&self) -> Result<Vec<String>, EngineError> {
        let of = |labels: &labels::Labels| labels::instance(self.toolbox_id(), labels);
        let containers = self.own_summaries(None).await?;
        let mut ids: BTreeSet<String> = containers.iter().filter_map(|c| of(c.labels.as_ref()?)).collect();
        ids.extend(self.networks(None).await?.iter().filter_map(|network| of(network.labels.as_ref()?)));
        ids.extend(self.volumes(None).await?.iter().filter_map(|volume| of(&volume.labels)));
        ids.extend(self.inner.secrets.instances());
        Ok(ids.into_iter().collect())
    }

    async fn pull(&self, image: &str, credentials: Option<&RegistryCredentials>) -> Result<(), EngineError> {
        self.pull_image(image, credentials).await
    }

    async fn prepare(&self, request: &ContainerRequest) -> Result<(), EngineError> {
        containers::check_request(request)?;
        // The network of a container with a key is created together with the container.
        if request.key.is_none() {
            self.ensure_network(&request.instance_id, &config::network_name(&request.instance_id)).await?;
        }
        self.ensure_volumes(request).await?;
        Ok(())
    }

    async fn start(
        &self,
        request: &ContainerRequest,
        secrets: &BTreeMap<String, String>,
    ) -> Result<StartedContainer, EngineError> {
        self.start_container(request, secrets).await
    }

    async fn attach(&self, container: &str) -> Result<Attached, EngineError> {
        self.existing(container).await?;
        self.attach_to(container).await
    }

    async fn stop(&self, container: &str, grace: Duration) -> Result<(), EngineError> {
        self.stop_container(container, grace).await
    }

    async fn remove(&self, container: &str) -> Result<(), EngineError> {
        self.remove_container(container).await
    }

    async fn remove_instance(&self, instance_id: &str, volumes: bool) -> Result<(), EngineError> {
        containers::check_instance_id(instance_id)?;
        for container in self.own_containers(Some(instance_id)).await? {
            self.remove_container(&container.observed.id).await?;
        }
        self.inner.secrets.remove_instance(instance_id);
        self.remove_networks(instance_id).await?;
        if volumes {
            self.remove_volumes_of(instance_id, |_| true).await?;
        }
        Ok(())
    }

    async fn remove_volumes(&self, instance_id: &str, generation: u64, keep: &[String]) -> Result<(), EngineError> {
        containers::check_instance_id(instance_id)?;
        let kept: Vec<String> = keep.iter().map(|name| config::volume_name(instance_id, name)).collect();
        let is_left =
            |volume: &Volume| labels::generation(&volume.labels) == Some(generation) && !kept.contains(&volume.name);
        self.remove_volumes_of(instance_id, is_left).await
    }

    async fn network_namespace(&self, container: &str) -> Result<NetworkNamespace, EngineError> {
        self.open_namespace(container).await
    }

    async fn usage(&self, container: &str) -> Result<Usage, EngineError> {
        self.container_usage(container).await
    }

    async fn logs(&self, container: &str) -> Result<Output, EngineError> {
        self.existing(container).await?;
        Ok(self.follow_logs(container))
    }

    async fn exits(&self) -> Result<Exits, EngineError> {
        self.follow_exits().await
    }

    async fn remove_unused_images(&self, bytes: u64) -> Result<(), EngineError> {
        self.free_disk(bytes).await
    }
}
