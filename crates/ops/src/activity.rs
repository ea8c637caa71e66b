//! The log as it is listed: events, tool calls and sessions of an organisation.

use waypost_core::access::{Operation, authorize};
use waypost_core::analytics::TimeRange;
use waypost_core::caller::Ctx;
use waypost_core::id::{EndUserId, OrganizationId, ServerId, WalkthroughId};
use waypost_core::{Result, Timestamp};
use waypost_store::activity::{self as store, ActivityQuery};
pub use waypost_store::activity::{ClientSession, WalkthroughEvent};
pub use waypost_store::tool_call::ToolCall;

use crate::Ops;

/// Which rows, and which page of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ActivityFilter {
    /// On this server only.
    pub server_id: Option<ServerId>,
    /// Of this end user only.
    pub end_user_id: Option<EndUserId>,
    /// Of this walkthrough only; for events.
    pub walkthrough_id: Option<WalkthroughId>,
    /// In this range only.
    pub range: TimeRange,
    /// Behind the row of this time and id.
    pub after: Option<(Timestamp, String)>,
    /// Whether the oldest come first.
    pub oldest_first: bool,
    /// At most so many.
    pub limit: u32,
}

impl ActivityFilter {
    fn query<'a>(&'a self, organization: &'a OrganizationId) -> ActivityQuery<'a> {
        ActivityQuery {
            organization,
            server: self.server_id.as_ref(),
            end_user: self.end_user_id.as_ref(),
            walkthrough: self.walkthrough_id.as_ref(),
            range: self.range,
            after: self.after.clone(),
            oldest_first: self.oldest_first,
            limit: i64::from(self.limit),
        }
    }
}

/// A page of events.
///
/// # Errors
/// `not_found` in an organisation that the caller may not know of.
pub async fn list_events(
    cx: &Ctx,
    ops: &Ops,
    organization: &OrganizationId,
    filter: &ActivityFilter,
) -> Result<Vec<WalkthroughEvent>> {
    authorize(&cx.caller, Operation::EndUserRead, organization)?;
    Ok(store::list_events(&mut ops.db.read().await?, &filter.query(organization)).await?)
}

/// A page of tool calls.
///
/// # Errors
/// As [`list_events`].
pub async fn list_calls(
    cx: &Ctx,
    ops: &Ops,
    organization: &OrganizationId,
    filter: &ActivityFilter,
) -> Result<Vec<ToolCall>> {
    authorize(&cx.caller, Operation::EndUserRead, organization)?;
    Ok(store::list_calls(&mut ops.db.read().await?, &filter.query(organization)).await?)
}

/// A page of sessions, by when they began.
///
/// # Errors
/// As [`list_events`].
pub async fn list_sessions(
    cx: &Ctx,
    ops: &Ops,
    organization: &OrganizationId,
    filter: &ActivityFilter,
) -> Result<Vec<ClientSession>> {
    authorize(&cx.caller, Operation::EndUserRead, organization)?;
    Ok(store::list_sessions(&mut ops.db.read().await?, &filter.query(organization)).await?)
}
