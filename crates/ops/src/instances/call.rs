//! Calls of the tools of an instance over the link to its toolbox.
//!
//! Every response is limited in size and time. Messages that precede the response to a call, such as progress
//! notifications, are dropped, because no client receives them.

use std::borrow::Cow;
use std::time::Duration;

use futures::FutureExt;
use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};
use tokio::time::Instant;
use waypost_core::access::Operation;
use waypost_core::caller::Ctx;
use waypost_core::id::{AgentId, InstanceId, OrganizationId, base32};
use waypost_core::instance::{DesiredRun, Instance};
use waypost_core::{Code, Error, Result};
use waypost_mcp_wire::INVALID_PARAMS;
use waypost_mcp_wire::definition::{DefinitionKind, split_list};
use waypost_mcp_wire::strict::{ErrorMembers, OwnedMessage, ResultMembers, text_of};
use waypost_store::instance_source;
use waypost_toolbox_proto::entry::Sharing;

use super::containers::{self, ContainerKey};
use super::exchange::{Exchange, ExchangeTarget};
use super::remote;
use super::requests::{find, within};
use crate::Ops;
use crate::audit::{Entry, record};
use crate::deployments::notify::clean;
use crate::remote_tokens::read_as_any;
use crate::slots::SlotLimits;

/// The time limit for a response of the server, including the start of its container.
pub const TIMEOUT: Duration = Duration::from_secs(30);
/// The maximum size of a response in bytes. The response that is stored for an `Idempotency-Key` has the same limit.
pub const MAX_RESPONSE_BYTES: usize = 8 * 1024 * 1024;
/// The maximum length of the name of a tool in bytes.
pub const MAX_TOOL_NAME: usize = 256;
/// The additional time that the daemon has to report that a call has timed out.
const REPORT_TIME: Duration = Duration::from_secs(5);
/// The maximum number of pages of a list of tools.
const MAX_PAGES: usize = 50;
/// The limits on the calls of this process. A call may need [`MAX_RESPONSE_BYTES`] of memory once it has a slot; until
/// then, it needs only the memory of its arguments.
pub(crate) const MAX_CALLS: SlotLimits =
    SlotLimits { total: 64, per_organization: 16, waiting: 2_048, waiting_per_organization: 1_008, max_wait: TIMEOUT };

/// The key of the container that lists tools, if the instance has several. A list has no state, so all callers can share
/// one container instead of starting one each.
pub(crate) const LIST_KEY: &str = "api";
const BUSY: &str = "Too many calls of tools are waiting. Try again later.";

/// Returns the tools of an instance, as its server describes them. Starts the server if it is idle.
///
/// # Errors
/// `not_found` if the instance does not exist or the caller cannot access it; `rate_limited` if too many calls are
/// waiting, or the call has waited for 30 seconds; `unavailable` if there is no link to the toolbox (`reason` is
/// `toolbox_offline`) or the server cannot be started; `conflict` if the instance is not running, no agent has supplied
/// the required personal secrets (`secret_missing`), or each agent has its own connection to the server and none is
/// connected (`not_connected`); `tool_server_error` if the server reports an error, or its answer is not a list of
/// tools, has more than 50 pages or is too large, or does not arrive within 30 seconds.
pub async fn list_tools(
    cx: &Ctx,
    ops: &Ops,
    organization: &OrganizationId,
    id: &InstanceId,
) -> Result<Vec<Box<RawValue>>> {
    ops.authorize_toolbox_use(cx, Operation::InstanceRead, organization).await?;
    let instance = find_running(ops, organization, id).await?;
    let _slot = ops.calls.acquire(organization, BUSY).await?;
    let container = containers::find_for_lists(ops, &instance, LIST_KEY).await?;
    let read = |agent| {
        let call = Call { ops, instance: &instance, container: container.clone(), agent };
        async move { call.list_tools().await }.boxed()
    };
    within(TIMEOUT + REPORT_TIME, read_as_any(ops, &instance, read)).await
}

/// Calls a tool of an instance, and returns the result of the server, which may report a tool execution error. If the
/// instance has one container per agent, uses the caller's own; if it has one per session, uses a new one. If it has
/// personal secrets, uses the container of the caller's own agent.
///
/// # Errors
/// Those of [`list_tools`]; `forbidden` for members below admin; `invalid_arguments` if the server rejects the tool's
/// name or its arguments; `conflict` if a required personal secret has no value (`reason` is `secret_missing`), or if
/// each agent has its own connection to the server and the caller is not a user whose agent is connected
/// (`not_connected`).
pub async fn call_tool(
    cx: &Ctx,
    ops: &Ops,
    organization: &OrganizationId,
    id: &InstanceId,
    (tool, arguments): (&str, &Map<String, Value>),
) -> Result<Box<RawValue>> {
    ops.authorize_toolbox_use(cx, Operation::InstanceCall, organization).await?;
    if tool.is_empty() || tool.len() > MAX_TOOL_NAME {
        return Err(Error::invalid("tool", format!("`tool` must have 1 to {MAX_TOOL_NAME} bytes.")));
    }
    let instance = find_running(ops, organization, id).await?;
    let key = match find_sharing(ops, &instance).await? {
        Sharing::PerSession => session_key(cx),
        Sharing::Shared | Sharing::PerAgent => caller_key(cx),
    };
    let agent = find_own_agent(cx, ops, &instance).await?;
    let container = containers::find_of_caller(cx, ops, &instance, key).await?;
    let _slot = ops.calls.acquire(organization, BUSY).await?;
    // Recorded before it is sent, so that every call that may have had an effect is in the audit log.
    let mut tx = ops.store.begin().await?;
    let detail = json!({ "slug": instance.slug, "tool": clean(tool) });
    record(cx, &mut tx, organization, Entry { action: "instance.call", target: id.as_str(), detail }).await?;
    tx.commit().await?;
    let params = json!({ "name": tool, "arguments": arguments });
    let call = Call { ops, instance: &instance, container, agent };
    let start = Instant::now();
    let result = within(TIMEOUT + REPORT_TIME, call.request("tools/call", &params, MAX_RESPONSE_BYTES)).await;
    count_call(&result, start);
    result
}

/// Returns an instance that is meant to run. Rejects a stopped instance without asking its toolbox.
async fn find_running(ops: &Ops, organization: &OrganizationId, id: &InstanceId) -> Result<Instance> {
    let instance = find(ops, organization, id).await?;
    remote::check_answered(&instance)?;
    match instance.desired {
        DesiredRun::Running => Ok(instance),
        DesiredRun::Stopped => {
            let message = "The instance is stopped, so it cannot be called. Start it first.";
            Err(Error::new(Code::Conflict, message).with("reason", "not_running"))
        }
    }
}

/// Counts a call that was sent. The outcome is `ok` or an error code, so the label has few values.
fn count_call(result: &Result<Box<RawValue>>, start: Instant) {
    let outcome = result.as_ref().map_or_else(|error| error.code.as_str(), |_| "ok");
    metrics::counter!("waypost_instance_calls_total", "outcome" => outcome).increment(1);
    metrics::histogram!("waypost_instance_call_seconds", "outcome" => outcome).record(start.elapsed());
}

async fn find_sharing(ops: &Ops, instance: &Instance) -> Result<Sharing> {
    let Some(version) = instance.catalog_version_id() else { return Ok(Sharing::Shared) };
    let source = instance_source::find(&mut ops.store.read().await?, &instance.organization_id, version).await?;
    let source = source.ok_or_else(|| Error::internal("the version of an instance does not exist"))?;
    Ok(source.version.definition.sharing)
}

/// Returns the caller's own agent if each agent has its own connection to the server, so that nobody calls the server
/// with the connection of another agent.
async fn find_own_agent(cx: &Ctx, ops: &Ops, instance: &Instance) -> Result<Option<AgentId>> {
    if !instance.is_connected_per_agent() {
        return Ok(None);
    }
    containers::find_agent(cx, ops, &instance.organization_id).await
}

/// Returns the key of the caller's own container. Shared instances ignore it. The prefix distinguishes it from the keys
/// of agents.
fn caller_key(cx: &Ctx) -> String {
    format!("api:{}", cx.caller.actor())
}

/// Returns the key of a container that no other call uses.
fn session_key(cx: &Ctx) -> String {
    let mut bytes = [0_u8; 15];
    cx.random.fill(&mut bytes);
    format!("api:{}:{}", cx.caller.actor(), base32(&bytes))
}

/// A caller of an instance.
pub(crate) struct Call<'a> {
    pub(crate) ops: &'a Ops,
    pub(crate) instance: &'a Instance,
    /// The caller's container.
    pub(crate) container: ContainerKey,
    /// The agent whose connection is used, if each agent has its own.
    pub(crate) agent: Option<AgentId>,
}

impl Call<'_> {
    async fn list_tools(&self) -> Result<Vec<Box<RawValue>>> {
        let (mut tools, mut left) = (Vec::new(), MAX_RESPONSE_BYTES);
        self.list(DefinitionKind::Tool, &mut left, |text| {
            tools.push(
                RawValue::from_string(text.to_owned()).ok().filter(|_| text.starts_with('{')).ok_or_else(not_mcp)?,
            );
            Ok(())
        })
        .await?;
        Ok(tools)
    }

    /// Passes the JSON text of each item of a list to `add`. `left` is the number of bytes that the server may still
    /// send. Returns the time for which the list may be cached: the shortest one that the server declares for a page,
    /// or `None` if it declares none.
    ///
    /// # Errors
    /// Those of [`Call::request`] and of `add`; `tool_server_error` if the answer is not a list, or has too many pages.
    pub(crate) async fn list(
        &self,
        kind: DefinitionKind,
        left: &mut usize,
        mut add: impl FnMut(&str) -> Result<()>,
    ) -> Result<Option<Duration>> {
        let method = match kind {
            DefinitionKind::Tool => "tools/list",
            DefinitionKind::Prompt => "prompts/list",
            DefinitionKind::Resource => "resources/list",
            DefinitionKind::ResourceTemplate => "resources/templates/list",
            DefinitionKind::Instructions => return Ok(None),
        };
        let mut cursor: Option<String> = None;
        let mut shortest = None;
        for _ in 0..MAX_PAGES {
            let params = cursor.map_or_else(|| json!({}), |cursor| json!({ "cursor": cursor }));
            let result = self.request(method, &params, *left).await?;
            *left = left.saturating_sub(result.get().len());
            let members = ResultMembers::parse(result.get()).ok_or_else(not_mcp)?;
            shortest = shorter(shortest, time_to_live(&members));
            let items = match kind {
                DefinitionKind::Tool => members.tools,
                DefinitionKind::Prompt => members.prompts,
                DefinitionKind::Resource => members.resources,
                DefinitionKind::ResourceTemplate => members.resource_templates,
                DefinitionKind::Instructions => None,
            };
            let items = split_list(items.ok_or_else(not_mcp)?).map_err(|_| not_mcp())?;
            items.into_iter().try_for_each(&mut add)?;
            cursor = text_of(members.next_cursor).map(Cow::into_owned);
            if cursor.is_none() {
                return Ok(shortest);
            }
        }
        Err(too_large(&format!("The server's answer to `{method}` has more than {MAX_PAGES} pages.")))
    }

    /// Sends a request to the server, and returns the result of its response, which has at most `limit` bytes.
    ///
    /// # Errors
    /// `unavailable` or `tool_server_error` with a `reason`; `server_code` is the code of a JSON-RPC error.
    pub(crate) async fn request(&self, method: &str, params: &impl Serialize, limit: usize) -> Result<Box<RawValue>> {
        let message = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params });
        let message = serde_json::to_vec(&message).map_err(Error::internal)?;
        let target =
            ExchangeTarget { agent: self.agent.as_ref(), ..ExchangeTarget::new(self.instance, &self.container) };
        let exchange = Exchange::open(self.ops, target, message.into(), (TIMEOUT, limit)).await?;
        parse_response(&read_response(exchange).await?)
    }
}

/// Returns the time for which a result may be cached (`ttlMs` of 2026-07-28, "Caching"); `None` if it is missing, or is
/// not a whole number of milliseconds.
pub(crate) fn time_to_live(result: &ResultMembers<'_>) -> Option<Duration> {
    result.ttl_ms?.parse().ok().map(Duration::from_millis)
}

/// Returns the shorter of the times that are present; `None` if neither is.
pub(crate) fn shorter(one: Option<Duration>, other: Option<Duration>) -> Option<Duration> {
    one.into_iter().chain(other).min()
}

/// Returns the first message that is a response, and drops those before it.
async fn read_response(mut exchange: Exchange) -> Result<OwnedMessage> {
    while let Some(received) = exchange.next().await? {
        if received.message().method.is_none() {
            return Ok(received);
        }
    }
    Err(not_mcp())
}

fn parse_response(response: &OwnedMessage) -> Result<Box<RawValue>> {
    let response = response.message();
    if let Some(result) = &response.result {
        return RawValue::from_string(result.raw.to_owned()).map_err(|_| not_mcp());
    }
    let ErrorMembers { code, message, .. } = response.error.as_ref().ok_or_else(not_mcp)?;
    let message = format!("The server reported an error: {}", clean(message));
    let kind = if *code == INVALID_PARAMS { Code::InvalidArguments } else { Code::ToolServerError };
    Err(Error::new(kind, message).with("reason", "server_error").with("server_code", *code))
}

pub(crate) fn not_mcp() -> Error {
    Error::new(Code::ToolServerError, "The server did not answer with MCP. Read the log of the instance.")
        .with("reason", "no_mcp")
}

pub(super) fn too_large(message: &str) -> Error {
    Error::new(Code::ToolServerError, message).with("reason", "too_large")
}
