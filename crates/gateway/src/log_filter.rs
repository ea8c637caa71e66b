//! The log messages of a server that are relayed to the agent.

use waypost_mcp_wire::log_level::LogLevel;
use waypost_mcp_wire::strict::Message;

use crate::agent_call::AgentCall;

/// The minimum level of log messages that are relayed; `None` to relay no log messages.
#[derive(Clone, Copy)]
pub(crate) struct LogFilter(Option<LogLevel>);

impl LogFilter {
    /// Returns the filter of a call.
    pub(crate) fn new(call: AgentCall<'_>) -> Self {
        // 2026-07-28: without a level, no log messages. Earlier revisions: all, until the agent sets a level.
        Self(call.log_level.or((!call.request.is_modern()).then_some(LogLevel::Debug)))
    }

    /// Whether a notification of a server is relayed. Log messages depend on their level; all other notifications are
    /// relayed.
    pub(crate) fn accepts(self, notification: &Message<'_>) -> bool {
        let is_log = notification.method.as_deref() == Some("notifications/message");
        let level = LogLevel::parse(notification.params.level);
        !is_log || self.0.is_some_and(|lowest| level.is_none_or(|level| level >= lowest))
    }
}
