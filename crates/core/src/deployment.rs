//! Deployments. Each deployment brings one generation of an instance into operation.

use serde_json::{Map, Value};
use waypost_toolbox_proto::deployment::{DeploymentError, DeploymentStep};

use crate::agent_secret::PersonalSecret;
use crate::clock::Timestamp;
use crate::id::{CatalogVersionId, DeploymentId, InstanceId, OrganizationId};
use crate::instance::SecretUse;
use crate::walkthrough::names;

names! {
    /// The state of a deployment.
    DeploymentState {
        /// In progress.
        Running = "running",
        /// The new container is healthy.
        Complete = "complete",
        /// Failed, and no earlier container serves calls.
        Failed = "failed",
        /// Failed, and the previous container serves calls.
        RolledBack = "rolled_back",
    }
}

/// A deployment.
#[derive(Debug, Clone, PartialEq)]
pub struct Deployment {
    /// The ID.
    pub id: DeploymentId,
    /// The organisation that owns the instance.
    pub organization_id: OrganizationId,
    /// The instance.
    pub instance_id: InstanceId,
    /// The generation of the instance.
    pub generation: u64,
    /// The version to deploy.
    pub catalog_version_id: CatalogVersionId,
    /// The configuration to deploy.
    pub config: Map<String, Value>,
    /// The secrets to deploy, ordered by name.
    pub secrets: Vec<SecretUse>,
    /// The secrets for which each agent supplies its own value, ordered by name.
    pub personal_secrets: Vec<PersonalSecret>,
    /// Whether rejected destinations are recorded.
    pub learn_egress: bool,
    /// The state.
    pub state: DeploymentState,
    /// The current step, or the last step that was reached if the deployment failed.
    pub step: DeploymentStep,
    /// Why the deployment failed.
    pub error: Option<DeploymentError>,
    /// When it started.
    pub started_at: Timestamp,
    /// When it ended, including the clean-up. `None` while it is running.
    pub ended_at: Option<Timestamp>,
}
