//! The presentation of the state of an instance.

use waypost_toolbox_proto::instance::InstanceState;

/// Returns the badge class of a state.
pub fn badge(state: InstanceState) -> &'static str {
    match state {
        InstanceState::Running => "good",
        InstanceState::Deploying | InstanceState::Idle => "info",
        InstanceState::Unhealthy => "warn",
        InstanceState::CrashLoop | InstanceState::Failed => "bad",
        InstanceState::Stopped | InstanceState::Removing => "",
    }
}

/// Returns the label of a state.
pub fn label(state: InstanceState) -> &'static str {
    match state {
        InstanceState::CrashLoop => "crash loop",
        other => other.as_str(),
    }
}
