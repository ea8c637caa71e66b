//! The state of an instance that the daemon stores on disk.

use serde::{Deserialize, Serialize};
use waypost_toolbox_proto::desired::{DesiredInstance, InstanceSpec};
use waypost_toolbox_proto::message::DeploymentOutcome;
use waypost_toolbox_proto::{DeploymentError, DeploymentStep, ErrorCode};

/// The state of an instance that the daemon stores on disk. If it is lost, the instance is deployed once more.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Memory {
    /// The specification that serves calls.
    pub serving: Option<Serving>,
    /// The deployment that is running.
    pub deploying: Option<Deployment>,
    /// The deployment that ended last.
    pub verdict: Option<Verdict>,
    /// The number of completed restarts, as in the desired state.
    pub restarts: u64,
    /// Whether the container is stopped until its next call because it was idle.
    pub asleep: bool,
    /// Whether the instance had no containers, volumes or other resources before its first deployment. If that
    /// deployment fails, the volumes are removed.
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

/// A deployment: an attempt to replace the specification that serves calls.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deployment {
    /// The ID of the deployment (`dep_…`).
    pub id: String,
    /// The generation as desired.
    pub generation: u64,
    /// The generation of the new container. It differs from `generation` if that generation was rolled back and only a
    /// secret has changed since.
    pub container_generation: u64,
    /// The digest of the specification.
    pub digest: String,
    /// Whether the deployment is not reported. This is the case if a deployment with the same ID has already ended, and
    /// only a secret has changed since.
    pub quiet: bool,
}

/// The outcome of a deployment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// The deployment.
    pub deployment: Deployment,
    /// The error; `None` if the deployment is complete.
    pub error: Option<DeploymentError>,
    /// Whether the clean-up is complete and the outcome has been reported.
    pub finished: bool,
}

/// The action that the desired specification requires.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// None: the specification serves calls, or its deployment failed.
    Settled,
    /// The specification must be deployed.
    Deploy(Deployment),
}

impl Memory {
    /// Compares the desired specification, whose digest is `digest`, with the stored state.
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

    /// Records that a deployment begins. `fresh` tells whether the instance has no resources yet.
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

    /// Records that the running deployment failed. Does nothing if there is none.
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

    /// Records that the outcome has been reported, and returns it with the ID of the deployment. Returns `None` if
    /// there is nothing to report.
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

    /// Records whether the shared container is stopped until its next call. Returns whether the value has changed.
    pub fn set_asleep(&mut self, asleep: bool) -> bool {
        std::mem::replace(&mut self.asleep, asleep) != asleep
    }

    /// Records that all containers have been stopped for a restart, and may start again. A failed instance is deployed
    /// once more.
    pub fn restarted(&mut self, restarts: u64) {
        self.restarts = restarts;
        self.asleep = false;
        if let (None, Some(verdict)) = (&self.serving, &mut self.verdict) {
            verdict.deployment.digest.clear();
        }
    }
}
