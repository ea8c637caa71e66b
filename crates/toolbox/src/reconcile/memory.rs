//! What the daemon remembers of an instance on disk.

use serde::{Deserialize, Serialize};
use waypost_toolbox_proto::desired::{DesiredInstance, InstanceSpec};
use waypost_toolbox_proto::message::DeploymentOutcome;
use waypost_toolbox_proto::{DeploymentError, DeploymentStep, ErrorCode};

/// What the daemon remembers of an instance on disk. If it is lost, the instance is deployed once more.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Memory {
    /// The specification that serves calls.
    pub serving: Option<Serving>,
    /// The deployment that is running.
    pub deploying: Option<Deployment>,
    /// The deployment that ended last.
    pub verdict: Option<Verdict>,
    /// The number of restarts that are done.
    pub restarts: u64,
    /// Whether the container is stopped until its next call because it was idle.
    pub asleep: bool,
    /// Whether nothing of the instance existed before its first deployment. If that deployment fails, the volumes are
    /// removed.
    pub fresh: bool,
}

/// The specification that serves calls.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Serving {
    /// The generation.
    pub generation: u64,
    /// The digest of the specification.
    pub digest: String,
    /// The specification.
    pub spec: InstanceSpec,
}

/// A deployment: the attempt to replace what serves calls.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deployment {
    /// The ID of the deployment (`dep_…`).
    pub id: String,
    /// The generation as desired.
    pub generation: u64,
    /// The generation of the new container. It differs from `generation` if that one was rolled back and only a secret
    /// has changed since.
    pub container_generation: u64,
    /// The digest of the specification.
    pub digest: String,
    /// Whether the deployment is not reported, because one with the same ID has already ended: a secret has changed.
    pub quiet: bool,
}

/// The outcome of a deployment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// The deployment.
    pub deployment: Deployment,
    /// The error; `None` if the deployment is complete.
    pub error: Option<DeploymentError>,
    /// Whether everything is cleaned up and the outcome is reported.
    pub finished: bool,
}

/// What is to be done about the desired specification.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// Nothing: it serves calls, or it was tried and failed.
    Settled,
    /// It is to be deployed.
    Deploy(Deployment),
}

impl Memory {
    /// Compares the desired specification, of which `digest` is the digest, with what is remembered.
    #[must_use]
    pub fn target(&self, desired: &DesiredInstance, digest: &str) -> Target {
        let deployment = |container_generation, quiet| {
            Target::Deploy(Deployment {
                id: desired.deployment_id.clone(),
                generation: desired.generation,
                container_generation,
                digest: digest.to_owned(),
                quiet,
            })
        };
        let ended = self.verdict.as_ref().filter(|verdict| {
            verdict.deployment.id == desired.deployment_id && verdict.deployment.generation == desired.generation
        });
        let Some(verdict) = ended else { return deployment(desired.generation, false) };
        let failed = verdict.error.is_some();
        let is_serving = self.serving.as_ref().is_some_and(|serving| serving.digest == digest);
        if is_serving || failed && verdict.deployment.digest == digest {
            return Target::Settled;
        }
        // A deployment with this ID has ended, and the specification has changed since, without a new generation.
        match &self.serving {
            Some(serving) => deployment(serving.generation, true),
            None => deployment(desired.generation, true),
        }
    }

    /// Records that a deployment begins. `fresh` tells whether nothing of the instance exists.
    pub fn begin(&mut self, deployment: Deployment, fresh: bool) {
        self.fresh = match (&self.serving, &self.verdict) {
            (None, None) => fresh,
            _ => self.fresh && self.serving.is_none(),
        };
        self.deploying = Some(deployment);
    }

    /// Records that the deployment succeeded: `desired` serves calls from now on.
    pub fn complete(&mut self, deployment: Deployment, desired: &DesiredInstance) {
        self.serving = Some(Serving {
            generation: deployment.container_generation,
            digest: deployment.digest.clone(),
            spec: desired.spec.clone(),
        });
        self.verdict = Some(Verdict { deployment, error: None, finished: false });
        self.deploying = None;
        self.restarts = desired.restarts;
        self.asleep = false;
        self.fresh = false;
    }

    /// Records that the running deployment failed. Without one, nothing changes.
    pub fn fail(&mut self, error: DeploymentError) {
        if let Some(deployment) = self.deploying.take() {
            self.verdict = Some(Verdict { deployment, error: Some(error), finished: false });
        }
    }

    /// Records that the running deployment is superseded.
    pub fn interrupt(&mut self) {
        self.fail(DeploymentError {
            step: DeploymentStep::Validating,
            code: ErrorCode::Interrupted,
            cause: "A newer deployment of the instance replaced this one.".to_owned(),
            next_action: "Wait for the newer deployment.".to_owned(),
        });
    }

    /// Records that the outcome is reported, and returns it with the ID of the deployment, unless it is quiet.
    pub fn finish(&mut self) -> Option<(String, DeploymentOutcome)> {
        let has_serving = self.serving.is_some();
        let verdict = self.verdict.as_mut().filter(|verdict| !verdict.finished)?;
        verdict.finished = true;
        let outcome = match verdict.error.clone() {
            None => DeploymentOutcome::Complete,
            Some(error) if has_serving => DeploymentOutcome::RolledBack { error },
            Some(error) => DeploymentOutcome::Failed { error },
        };
        (!verdict.deployment.quiet).then(|| (verdict.deployment.id.clone(), outcome))
    }

    /// Records whether the shared container is stopped until its next call. Returns whether this is a change.
    pub fn set_asleep(&mut self, asleep: bool) -> bool {
        std::mem::replace(&mut self.asleep, asleep) != asleep
    }

    /// Records that all containers are stopped for a restart, and may start again. An instance that failed is tried
    /// once more.
    pub fn restarted(&mut self, restarts: u64) {
        self.restarts = restarts;
        self.asleep = false;
        if let (None, Some(verdict)) = (&self.serving, &mut self.verdict) {
            verdict.deployment.digest.clear();
        }
    }
}
