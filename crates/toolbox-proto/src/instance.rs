//! The observed state of an instance.

use serde::{Deserialize, Serialize};

use crate::names::names;

names! {
    /// The observed state of an instance.
    InstanceState {
        /// A deployment is running, and no earlier container serves calls.
        Deploying = "deploying",
        /// The server is healthy.
        Running = "running",
        /// The server runs, and its probes fail.
        Unhealthy = "unhealthy",
        /// The server crashed three times within five minutes and is restarted with increasing delays.
        CrashLoop = "crash_loop",
        /// The server is stopped, as desired.
        Stopped = "stopped",
        /// The deployment failed.
        Failed = "failed",
        /// The instance is being removed.
        Removing = "removing",
        /// The server is stopped until its next call.
        Idle = "idle",
    }
}

/// The result of the last probe of an instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// Whether the server counts as healthy: after three failed probes it does not, after two successful ones it does.
    pub ok: bool,
    /// The time of the last probe, in milliseconds since the Unix epoch.
    pub checked_at: i64,
    /// The duration of the last probe in milliseconds; `None` if it failed.
    #[serde(default)]
    pub latency_ms: Option<u64>,
    /// Why the last probe failed.
    #[serde(default)]
    pub message: Option<String>,
}
