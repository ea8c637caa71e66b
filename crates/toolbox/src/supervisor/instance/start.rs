//! The start of a container.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use waypost_toolbox_proto::message::{InstanceSecrets, RegistryCredentials};
use waypost_toolbox_proto::{DeploymentError, DeploymentStep, ErrorCode, InstanceSpec, Transport};

use super::super::output::ContainerLog;
use super::super::servers::Servers;
use super::super::{SECRETS_TIMEOUT, Shared};
use super::errors::error;
use super::work::{Failure, Steps};
use crate::engine::{ContainerRequest, Engine, EngineError, StartedContainer};

/// The start of a container.
pub(super) struct Start {
    pub(super) request: ContainerRequest,
    /// The generation for which secrets are requested.
    pub(super) generation: u64,
    pub(super) steps: Steps,
    pub(super) cancel: CancellationToken,
    pub(super) log: Arc<ContainerLog>,
    /// Set to `true` before anything is created.
    pub(super) touched: Arc<AtomicBool>,
}

impl Start {
    /// Starts the container. Operations that create something are not cancelled while they are in progress.
    pub(super) async fn run<E: Engine, S: Servers>(
        mut self,
        shared: &Shared<E, S>,
    ) -> Result<StartedContainer, Failure> {
        let engine = &shared.parts.engine;
        let mut step = DeploymentStep::Validating;
        let failed = |step| move |failure: EngineError| from_engine(step, failure);
        validate(&self.request.spec)?;
        let machine = self.or_cancel(engine.info()).await?.map_err(failed(step))?;
        let disk_free = machine.capacity.disk_free_bytes;
        shared.set_machine(Some(machine));

        step = DeploymentStep::Preparing;
        self.steps.report(shared, step);
        let secrets = self.or_cancel(self.secrets(shared)).await??;
        self.request.personal_version = secrets.personal_version;
        self.log.set_masks(secrets.values.values().chain(secrets.registry.iter().map(|registry| &registry.password)));
        self.touched.store(true, Ordering::Release);
        engine.prepare(&self.request).await.map_err(failed(step))?;

        step = DeploymentStep::Pulling;
        self.steps.report(shared, step);
        self.pull(shared, disk_free, secrets.registry.as_ref()).await?;

        step = DeploymentStep::Starting;
        self.steps.report(shared, step);
        if self.cancel.is_cancelled() {
            return Err(Failure::Cancelled);
        }
        engine.start(&self.request, &secrets.values).await.map_err(failed(step))
    }

    /// Pulls the image. Unused images are removed first if the disk runs low. The size of the image is not known in advance:
    /// if it does not fit, all unused images are removed, and it is pulled once more.
    async fn pull<E: Engine, S: Servers>(
        &self,
        shared: &Shared<E, S>,
        disk_free: u64,
        credentials: Option<&RegistryCredentials>,
    ) -> Result<(), Failure> {
        let engine = &shared.parts.engine;
        let image = &self.request.spec.image;
        let min_free = shared.parts.settings.min_disk_free_bytes;
        if disk_free < min_free {
            remove_unused_images(shared, min_free).await;
        }
        let result = match self.or_cancel(engine.pull(image, credentials)).await? {
            Err(failure) if failure.code == ErrorCode::DiskFull => {
                tracing::warn!(%image, "the disk is full: removing unused images to pull the image once more");
                remove_unused_images(shared, u64::MAX).await;
                self.or_cancel(engine.pull(image, credentials)).await?
            }
            result => result,
        };
        result.map_err(|failure| from_engine(DeploymentStep::Pulling, failure))
    }

    async fn or_cancel<T>(&self, work: impl Future<Output = T>) -> Result<T, Failure> {
        self.cancel.run_until_cancelled(work).await.ok_or(Failure::Cancelled)
    }

    async fn secrets<E, S>(&self, shared: &Shared<E, S>) -> Result<InstanceSecrets, Failure> {
        let spec = &self.request.spec;
        if spec.secrets.is_empty() && !spec.registry_credentials {
            return Ok(InstanceSecrets::default());
        }
        let step = DeploymentStep::Preparing;
        let missing = |cause: String| {
            let next_action = "Create the secret, assign it to the instance, and deploy again.";
            Failure::Error(error(step, ErrorCode::SecretMissing, cause, next_action))
        };
        let request =
            shared.parts.control.secrets(&self.request.instance_id, self.generation, self.request.key.as_deref());
        let secrets = timeout(SECRETS_TIMEOUT, request).await.map_err(|_| {
            let cause = "The control plane did not send the secrets within a minute.";
            let next_action = "Check that the toolbox is online, and deploy again.";
            Failure::Error(error(step, ErrorCode::ToolboxOffline, cause, next_action))
        })?;
        let secrets = secrets.ok_or_else(|| missing("A secret of the instance has no value.".to_owned()))?;
        let absent = |is_personal: bool| {
            let required = spec.secrets.iter().filter(|secret| !(secret.personal && secret.optional));
            let names = required.filter(|secret| secret.personal == is_personal).map(|secret| secret.name.as_str());
            names.filter(|name| !secrets.values.contains_key(*name)).collect::<Vec<_>>()
        };
        let personal = absent(true);
        if !personal.is_empty() {
            let cause = format!("The agent has not supplied its own values of these secrets: {}.", personal.join(", "));
            let next_action = "Supply them on the page *Personal secrets* of the console.";
            return Err(Failure::Error(error(step, ErrorCode::SecretMissing, cause, next_action)));
        }
        let absent = absent(false);
        if !absent.is_empty() {
            return Err(missing(format!("These secrets have no value: {}.", absent.join(", "))));
        }
        if spec.registry_credentials && secrets.registry.is_none() {
            return Err(missing("The credentials of the registry have no value.".to_owned()));
        }
        Ok(secrets)
    }
}

/// Removes unused images until `bytes` are free. A failure is only logged: the pull shows whether there is enough
/// space.
async fn remove_unused_images<E: Engine, S: Servers>(shared: &Shared<E, S>, bytes: u64) {
    if let Err(error) = shared.parts.engine.remove_unused_images(bytes).await {
        tracing::warn!(%error, "failed to remove unused images");
    }
}

fn from_engine(step: DeploymentStep, failure: EngineError) -> Failure {
    match failure.code {
        ErrorCode::EngineUnavailable => Failure::EngineLost,
        code => Failure::Error(DeploymentError { step, code, cause: failure.cause, next_action: failure.next_action }),
    }
}

fn validate(spec: &InstanceSpec) -> Result<(), Failure> {
    if spec.transport == Transport::Stdio || spec.port.is_some_and(|port| port != 0) {
        return Ok(());
    }
    let cause = "A server that is reached over HTTP needs a port.";
    let next_action = "Add `port` to the catalogue entry, and deploy again.";
    Err(Failure::Error(error(DeploymentStep::Validating, ErrorCode::ConfigInvalid, cause, next_action)))
}
