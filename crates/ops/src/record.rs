//! The record of a tool call, from its arrival to its outcome.

use std::time::Instant;

use waypost_core::caller::Ctx;
use waypost_core::id::{EndUserId, ToolCallId};
use waypost_core::server::Server;
use waypost_core::{Error, Timestamp};
pub use waypost_store::recorder::Record;
use waypost_store::recorder::Recorder;
use waypost_store::tool_call::ToolCall;

use crate::identity::Client;

/// A call that is being answered.
#[derive(Debug, Clone)]
pub struct Arrival {
    /// The tool's name.
    pub tool: String,
    /// The schema's own arguments as a JSON object, handles and addresses masked.
    pub arguments: String,
    /// When the request arrived, on the monotonic clock.
    pub since: Instant,
    /// When the request arrived.
    pub at: Timestamp,
    /// What the client says of itself.
    pub client: Client,
}

impl Arrival {
    /// The row of this call.
    #[must_use]
    pub fn row(&self, cx: &Ctx, server: &Server, end_user_id: Option<&EndUserId>, outcome: &str) -> ToolCall {
        ToolCall {
            id: ToolCallId::new(self.at, &*cx.random),
            organization_id: server.organization_id.clone(),
            server_id: server.id.clone(),
            end_user_id: end_user_id.cloned(),
            tool: self.tool.clone(),
            arguments: self.arguments.clone(),
            outcome: outcome.to_owned(),
            duration_us: i64::try_from(self.since.elapsed().as_micros()).unwrap_or(i64::MAX),
            client_name: self.client.name.clone(),
            protocol_version: self.client.protocol_version.clone(),
            request_id: cx.request_id.clone(),
            created_at: self.at,
        }
    }

    /// Queues the record of a call that changed nothing.
    pub async fn record(&self, cx: &Ctx, recorder: &Recorder, server: &Server, outcome: CallOutcome<'_>) {
        let row = match outcome {
            CallOutcome::Read(end_user_id) => self.row(cx, server, end_user_id, "ok"),
            CallOutcome::Failed(error) => self.row(cx, server, None, error.code.as_str()),
        };
        recorder.record(Record::Call(Box::new(row))).await;
    }
}

/// How a call that changed nothing ended.
#[derive(Debug)]
pub enum CallOutcome<'a> {
    /// It read, for this end user if one is known.
    Read(Option<&'a EndUserId>),
    /// It failed.
    Failed(&'a Error),
}
