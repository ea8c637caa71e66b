//! Lists of an organisation's events, tool calls and sessions.

use waypost_core::access::{Operation, authorize};
use waypost_core::analytics::TimeRange;
use waypost_core::caller::Ctx;
use waypost_core::id::{EndUserId, OrganizationId, ServerId, WalkthroughId};
use waypost_core::{Error, Result, Timestamp};
use waypost_store::activity::{self as store, ActivityQuery};
pub use waypost_store::activity::{ClientSession, WalkthroughEvent};
pub use waypost_store::tool_call::ToolCall;

use crate::Ops;

/// The filter and the page of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ActivityFilter {
    /// Only this server.
    pub server_id: Option<ServerId>,
    /// Only this end user.
    pub end_user_id: Option<EndUserId>,
    /// Only this walkthrough. Used only for events.
    pub walkthrough_id: Option<WalkthroughId>,
    /// Only rows created in this range.
    pub range: TimeRange,
    /// Only rows after the row with this time and ID.
    pub after: Option<(Timestamp, String)>,
    /// Whether the oldest rows come first.
    pub oldest_first: bool,
    /// The maximum number of rows.
    pub limit: u32,
}

/// Returns the cursor of the page that follows the row with this time and ID.
#[must_use]
pub fn cursor(at: Timestamp, id: &str) -> String {
    format!("{}.{id}", at.0)
}

/// Parses a cursor into a time and an ID.
///
/// # Errors
/// `invalid_arguments` if the cursor is malformed.
pub fn parse_cursor(cursor: &str) -> Result<(Timestamp, String)> {
    let invalid = || Error::invalid("cursor", "`cursor` is invalid. Use the `next_cursor` of a page of this list.");
    let (at, id) = cursor.split_once('.').ok_or_else(invalid)?;
    let is_id = id.len() <= 64 && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    if !is_id {
        return Err(invalid());
    }
    Ok((Timestamp(at.parse().map_err(|_| invalid())?), id.to_owned()))
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

/// Returns a page of events.
///
/// # Errors
/// `not_found` if the caller is not a member.
pub async fn list_events(
    cx: &Ctx,
    ops: &Ops,
    organization: &OrganizationId,
    filter: &ActivityFilter,
) -> Result<Vec<WalkthroughEvent>> {
    authorize(&cx.caller, Operation::EndUserRead, organization)?;
    Ok(store::list_events(&mut ops.store.read().await?, &filter.query(organization)).await?)
}

/// Returns a page of tool calls.
///
/// # Errors
/// The same as for [`list_events`].
pub async fn list_calls(
    cx: &Ctx,
    ops: &Ops,
    organization: &OrganizationId,
    filter: &ActivityFilter,
) -> Result<Vec<ToolCall>> {
    authorize(&cx.caller, Operation::EndUserRead, organization)?;
    Ok(store::list_calls(&mut ops.store.read().await?, &filter.query(organization)).await?)
}

/// Returns a page of sessions, ordered by start time.
///
/// # Errors
/// The same as for [`list_events`].
pub async fn list_sessions(
    cx: &Ctx,
    ops: &Ops,
    organization: &OrganizationId,
    filter: &ActivityFilter,
) -> Result<Vec<ClientSession>> {
    authorize(&cx.caller, Operation::EndUserRead, organization)?;
    Ok(store::list_sessions(&mut ops.store.read().await?, &filter.query(organization)).await?)
}
