//! The gateway's call log.

use std::cmp::Reverse;

use serde_json::json;
use waypost_core::access::{Operation, authorize};
use waypost_core::call::{Call, CallContents, CallOutcome, MAX_TOOL};
use waypost_core::caller::Ctx;
use waypost_core::id::{AgentId, CallId, InstanceId, OrganizationId};
use waypost_core::{Error, Result, Timestamp};
pub use waypost_store::call::CallSummary;
use waypost_store::call::{self as store, CallFilter};
use waypost_store::call_contents as contents_store;
use waypost_store::recorder::{Recorder, RecorderEntry};

use crate::Ops;
use crate::audit::{Entry, record};
use crate::call_contents::{self, CapturedContents, ContentsQueue};
use crate::hosting::Hosting;

/// The maximum page size.
pub const MAX_PAGE: u32 = 200;

/// The period of [`summarize`] in milliseconds.
pub const SUMMARY_MS: i64 = 60 * 60 * 1_000;
/// The maximum number of calls that [`summarize`] counts.
pub const MAX_CALLS_COUNTED: u32 = 10_000;

/// Records calls in the background. Cheap to clone.
#[derive(Debug, Clone)]
pub struct CallLog {
    recorder: Recorder,
    contents: ContentsQueue,
}

impl CallLog {
    /// Returns the log of this process.
    #[must_use]
    pub fn new(hosting: &Hosting) -> Self {
        Self { recorder: hosting.recorder.clone(), contents: hosting.call_contents.clone() }
    }

    /// Enqueues the record of a call that has ended. Never waits: if too many records wait for the database, the record is
    /// dropped and counted as lost.
    pub fn record(&self, call: Call) {
        self.recorder.record_or_drop(RecorderEntry::GatewayCall(Box::new(call)));
    }

    /// Enqueues the record of a call with its contents, which are masked in the background. Never waits: if too many calls with
    /// contents wait, the call is recorded without them.
    pub fn record_with_contents(&self, call: Call, contents: CapturedContents) {
        self.contents.add(&self.recorder, call, contents);
    }
}

/// The filter and page of [`list`].
#[derive(Debug, Clone, Default)]
pub struct ListCalls {
    /// Only those of this agent.
    pub agent_id: Option<AgentId>,
    /// Only those of this instance.
    pub instance_id: Option<InstanceId>,
    /// Only those of the tool with this original name.
    pub tool: Option<String>,
    /// Only those with this outcome.
    pub outcome: Option<CallOutcome>,
    /// Only those that ended at this time or later.
    pub since: Option<Timestamp>,
    /// Only those that ended before this time.
    pub until: Option<Timestamp>,
    /// The maximum number, 1 to [`MAX_PAGE`].
    pub limit: u32,
    /// The cursor from the previous page.
    pub cursor: Option<String>,
}

/// A page of calls, newest first.
#[derive(Debug, Clone)]
pub struct CallPage {
    /// The calls.
    pub items: Vec<Call>,
    /// The cursor of the next page. `None` on the last page.
    pub next_cursor: Option<String>,
}

/// Returns a page of the calls of an organisation, newest first.
///
/// # Errors
/// `not_found` if the caller cannot access the organisation; `forbidden` for members below admin; `invalid_arguments` for a
/// limit out of range, an invalid cursor, or a name of a tool that is too long or has control characters.
pub async fn list(cx: &Ctx, ops: &Ops, organization: &OrganizationId, query: &ListCalls) -> Result<CallPage> {
    authorize(&cx.caller, Operation::CallRead, organization)?;
    if !(1..=MAX_PAGE).contains(&query.limit) {
        return Err(Error::invalid("limit", format!("`limit` must be a number from 1 to {MAX_PAGE}.")));
    }
    let is_name = |tool: &str| tool.chars().count() <= MAX_TOOL && !tool.chars().any(char::is_control);
    if !query.tool.as_deref().is_none_or(is_name) {
        let message = format!("`tool` can have at most {MAX_TOOL} characters, and no control characters.");
        return Err(Error::invalid("tool", message));
    }
    let invalid_cursor = |_| Error::invalid("cursor", "`cursor` is invalid. Start again without it.");
    let after = query.cursor.as_deref().map(str::parse::<CallId>).transpose().map_err(invalid_cursor)?;
    let filter = CallFilter {
        agent: query.agent_id.as_ref(),
        instance: query.instance_id.as_ref(),
        tool: query.tool.as_deref(),
        outcome: query.outcome,
        since: query.since.unwrap_or(Timestamp(0)),
        until: query.until.unwrap_or(Timestamp(i64::MAX)),
        after: after.as_ref(),
    };
    let mut conn = ops.store.read().await?;
    let mut items = store::list(&mut conn, organization, filter, i64::from(query.limit) + 1).await?;
    let has_more = items.len() > query.limit as usize;
    items.truncate(query.limit as usize);
    let next_cursor = items.last().filter(|_| has_more).map(|last| last.id.to_string());
    Ok(CallPage { items, next_cursor })
}

/// A call with its contents.
#[derive(Debug, Clone)]
pub struct CallDetail {
    /// The call.
    pub call: Call,
    /// The contents. `None` if they were not recorded, or have been deleted.
    pub contents: Option<CallContents>,
}

/// Returns a call with its contents. If it has contents, reading them is recorded in the audit log.
///
/// # Errors
/// `not_found` if the call does not exist or the caller cannot access the organisation; `forbidden` for members below admin;
/// `internal` if the contents cannot be opened.
pub async fn get(cx: &Ctx, ops: &Ops, organization: &OrganizationId, id: &CallId) -> Result<CallDetail> {
    authorize(&cx.caller, Operation::CallContentsRead, organization)?;
    let mut conn = ops.store.read().await?;
    let call = store::find(&mut conn, organization, id).await?.ok_or_else(|| Error::not_found("call"))?;
    let Some(sealed) = contents_store::find(&mut conn, organization, id).await? else {
        return Ok(CallDetail { call, contents: None });
    };
    drop(conn);
    let contents = call_contents::open(ops, id, &sealed)?;
    let detail = json!({ "agent_id": call.agent_id, "instance_id": call.instance_id, "tool": call.tool });
    let mut tx = ops.store.begin().await?;
    record(cx, &mut tx, organization, Entry { action: "call.read_contents", target: id.as_str(), detail }).await?;
    tx.commit().await?;
    Ok(CallDetail { call, contents: Some(contents) })
}

/// Returns the pairs of an agent and an instance that it has called in the last hour, most recently used first. Of more
/// than [`MAX_CALLS_COUNTED`] calls, only the last ones are counted.
///
/// # Errors
/// `not_found` if the caller cannot access the organisation; `forbidden` for members below admin.
pub async fn summarize(cx: &Ctx, ops: &Ops, organization: &OrganizationId) -> Result<Vec<CallSummary>> {
    authorize(&cx.caller, Operation::CallRead, organization)?;
    let since = cx.now().plus(-SUMMARY_MS);
    Ok(store::summarize(&mut ops.store.read().await?, organization, since, i64::from(MAX_CALLS_COUNTED)).await?)
}

/// A page of the connections of agents, most recently used first.
#[derive(Debug, Clone)]
pub struct ConnectionPage {
    /// The connections.
    pub items: Vec<CallSummary>,
    /// The cursor of the next page. `None` on the last page.
    pub next_cursor: Option<String>,
}

/// Returns a page of [`summarize`] with at most `limit` connections. A connection that is used while the pages are read moves to
/// the first page.
///
/// # Errors
/// Those of [`summarize`]; `invalid_arguments` for a limit out of range or an invalid cursor.
pub async fn list_connections(
    cx: &Ctx,
    ops: &Ops,
    organization: &OrganizationId,
    (cursor, limit): (Option<&str>, u32),
) -> Result<ConnectionPage> {
    authorize(&cx.caller, Operation::CallRead, organization)?;
    if !(1..=MAX_PAGE).contains(&limit) {
        return Err(Error::invalid("limit", format!("`limit` must be a number from 1 to {MAX_PAGE}.")));
    }
    let after = cursor.map(parse_connection_cursor).transpose()?;
    let mut items = summarize(cx, ops, organization).await?;
    items.retain(|one| after.as_ref().is_none_or(|after| connection_key(one) > *after));
    let has_more = items.len() > limit as usize;
    items.truncate(limit as usize);
    let cursor = |last: &CallSummary| format!("{}.{}.{}", last.last_at.0, last.agent_id, last.instance_id);
    let next_cursor = items.last().filter(|_| has_more).map(cursor);
    Ok(ConnectionPage { items, next_cursor })
}

/// The position of a connection in the list: the most recently used come first.
type ConnectionKey = (Reverse<i64>, String, String);

fn connection_key(connection: &CallSummary) -> ConnectionKey {
    (Reverse(connection.last_at.0), connection.agent_id.to_string(), connection.instance_id.to_string())
}

fn parse_connection_cursor(cursor: &str) -> Result<ConnectionKey> {
    let mut parts = cursor.splitn(3, '.');
    let mut next = || parts.next().unwrap_or_default();
    let (at, agent, instance) = (next().parse::<i64>(), next().parse::<AgentId>(), next().parse::<InstanceId>());
    match (at, agent, instance) {
        (Ok(at), Ok(agent), Ok(instance)) => Ok((Reverse(at), agent.to_string(), instance.to_string())),
        _ => Err(Error::invalid("cursor", "`cursor` is invalid. Start again without it.")),
    }
}
