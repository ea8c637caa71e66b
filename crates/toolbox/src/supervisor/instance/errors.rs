//! The errors of deployments that the supervisor itself detects.

use waypost_toolbox_proto::{DeploymentError, DeploymentStep, ErrorCode, InstanceSpec};

use super::super::output::ContainerLog;

/// The maximum length of a quoted log in bytes.
const MAX_QUOTE: usize = 1_500;

/// Creates an error.
pub(super) fn error(
    step: DeploymentStep,
    code: ErrorCode,
    cause: impl Into<String>,
    next_action: &str,
) -> DeploymentError {
    DeploymentError { step, code, cause: cause.into(), next_action: next_action.to_owned() }
}

/// Creates the error of a deployment for which the budget is too small.
pub(super) fn no_capacity(spec: &InstanceSpec) -> DeploymentError {
    let memory = spec.resources.memory_bytes() / (1024 * 1024);
    error(
        DeploymentStep::Validating,
        ErrorCode::NoCapacity,
        format!(
            "The toolbox does not have {memory} MiB of memory and {} thousandths of a CPU left.",
            spec.resources.millicpus()
        ),
        "Stop another instance, choose another toolbox, or use a smaller resource class. An upgrade needs room for the old and the new container.",
    )
}

/// Creates the error of a deployment during which the engine could not be reached.
pub(super) fn engine_unavailable(step: DeploymentStep) -> DeploymentError {
    error(
        step,
        ErrorCode::EngineUnavailable,
        "The container engine could not be reached for a minute.",
        "Start the container engine on the machine of the toolbox, and deploy again.",
    )
}

/// Creates the error of a deployment whose container exited.
pub(super) fn exited(exit_code: i64, out_of_memory: bool, log: &ContainerLog) -> DeploymentError {
    let (cause, next_action) = if out_of_memory {
        (
            format!(
                "The server exceeded the memory limit of its resource class and was killed (exit code {exit_code})."
            ),
            "Choose a larger resource class in the catalogue entry, and deploy again.",
        )
    } else {
        (
            format!("The server exited with code {exit_code} before it was ready."),
            "Read the log of the instance, correct the configuration, and deploy again.",
        )
    };
    error(DeploymentStep::Checking, ErrorCode::Exited, with_tail(&cause, log), next_action)
}

/// Creates the error of a deployment whose server does not speak MCP.
pub(super) fn no_mcp(cause: &str, log: &ContainerLog) -> DeploymentError {
    error(
        DeploymentStep::Checking,
        ErrorCode::NoMcp,
        with_tail(&format!("The server does not speak MCP: {}", log.mask(cause)), log),
        "Check the transport, command, port and path of the catalogue entry, and deploy again.",
    )
}

/// Creates the error of a deployment whose server did not become ready in time.
pub(super) fn health_timeout(cause: Option<&str>, log: &ContainerLog) -> DeploymentError {
    let mut text = "The server did not list its tools within 60 seconds.".to_owned();
    if let Some(cause) = cause {
        text = format!("{text} Last error: {}.", log.mask(cause).trim_end_matches('.'));
    }
    error(
        DeploymentStep::Checking,
        ErrorCode::HealthTimeout,
        with_tail(&text, log),
        "Read the log of the instance. Check its configuration, and whether it needs a destination that its egress list lacks.",
    )
}

/// Appends the last lines of standard error, with secrets masked.
fn with_tail(cause: &str, log: &ContainerLog) -> String {
    let tail = log.tail().join("\n");
    let start = tail.len().saturating_sub(MAX_QUOTE);
    let start = (start..=tail.len()).find(|start| tail.is_char_boundary(*start)).unwrap_or(tail.len());
    match &tail[start..] {
        "" => cause.to_owned(),
        quote => format!("{cause} Its last output: \"{}\".", quote.trim_end()),
    }
}
