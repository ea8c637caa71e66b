//! The results of the asynchronous works that the task of an instance waits for.

use std::sync::Arc;
use std::time::Duration;

use waypost_toolbox_proto::message::ToolboxEvent;
use waypost_toolbox_proto::{DeploymentError, DeploymentStep};

use super::super::Shared;
use super::super::servers::ServerSession;
use crate::engine::{EngineError, ObservedContainer, StartedContainer};

/// The result of a work.
pub(super) enum Done {
    /// The start with this ID has ended.
    Started { id: String, deploy: bool, result: Result<StartedContainer, Failure> },
    /// The check of a container has ended.
    Checked { id: String, deploy: bool, result: Result<Arc<dyn ServerSession>, Failure> },
    /// A container has been removed.
    Removed { id: String, result: Result<(), EngineError> },
    /// The connection to a running container is open again.
    Connected { id: String, session: Arc<dyn ServerSession> },
    /// The server has closed the session.
    Closed { id: String, session: Arc<dyn ServerSession> },
    /// A probe has ended.
    Probed { id: String, result: Result<Duration, String> },
    /// The resource usage has been sampled.
    Sampled { id: String },
    /// A container has exited.
    Ended { id: String, exit_code: i64, out_of_memory: bool },
    /// The remains of a failed deployment have been removed, or could not be removed.
    Cleaned(Result<(), EngineError>),
    /// The instance has been removed.
    InstanceRemoved,
    /// The containers of the instance have been listed. `exists` tells whether it has any resources.
    Observed { containers: Vec<ObservedContainer>, exists: bool },
    /// A work without a result has ended.
    Nothing,
}

/// The reason for which a start or a check failed.
pub(super) enum Failure {
    /// It was cancelled.
    Cancelled,
    /// The engine cannot be reached, or the container ended with it.
    EngineLost,
    /// The container must be started once more, with another handshake.
    Restart(DeploymentError),
    /// The container exited during the check.
    Exited { exit_code: i64, out_of_memory: bool, error: DeploymentError },
    /// Anything else.
    Error(DeploymentError),
}

/// Reports the steps of a deployment, unless it is quiet.
#[derive(Clone)]
pub(super) struct Steps {
    pub(super) deployment_id: Option<String>,
    pub(super) instance_id: String,
}

impl Steps {
    pub(super) fn report<E, S>(&self, shared: &Shared<E, S>, step: DeploymentStep) {
        if let Some(deployment_id) = self.deployment_id.clone() {
            let instance_id = self.instance_id.clone();
            shared.parts.control.report(ToolboxEvent::DeploymentStep { deployment_id, instance_id, step });
        }
    }
}
