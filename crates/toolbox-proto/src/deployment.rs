//! The steps and the errors of a deployment.

use serde::{Deserialize, Serialize};

use crate::names::names;

names! {
    /// A step of a deployment, in order.
    DeploymentStep {
        /// The specification and the toolbox are checked.
        Validating = "validating",
        /// Networks, volumes and secrets are prepared.
        Preparing = "preparing",
        /// The image is pulled.
        Pulling = "pulling",
        /// The container is created and started.
        Starting = "starting",
        /// The server must complete the MCP handshake and list its tools.
        Checking = "checking",
        /// The deployment has ended.
        Complete = "complete",
    }
}

names! {
    /// Why a deployment failed.
    ErrorCode {
        /// The container engine cannot be used.
        EngineUnavailable = "engine_unavailable",
        /// No toolbox has enough memory, CPU or disk space.
        NoCapacity = "no_capacity",
        /// The registry has no such image.
        ImageNotFound = "image_not_found",
        /// The registry refused access to the image.
        ImageDenied = "image_denied",
        /// The image is for another processor architecture or operating system.
        ArchitectureMismatch = "architecture_mismatch",
        /// The container could not be created or started.
        StartFailed = "start_failed",
        /// The container's process exited.
        Exited = "exited",
        /// The server does not speak MCP.
        NoMcp = "no_mcp",
        /// The server did not become healthy in time.
        HealthTimeout = "health_timeout",
        /// The configuration is invalid.
        ConfigInvalid = "config_invalid",
        /// A required secret is missing.
        SecretMissing = "secret_missing",
        /// The disk is full.
        DiskFull = "disk_full",
        /// The toolbox is not connected.
        ToolboxOffline = "toolbox_offline",
        /// The image could not be built.
        BuildFailed = "build_failed",
        /// The deployment was interrupted, for example by a restart of the daemon.
        Interrupted = "interrupted",
    }
}

/// The error of a deployment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct DeploymentError {
    /// The step that failed.
    pub step: DeploymentStep,
    /// The error code.
    pub code: ErrorCode,
    /// What happened, in one sentence.
    pub cause: String,
    /// What to do next, in one sentence.
    pub next_action: String,
}
