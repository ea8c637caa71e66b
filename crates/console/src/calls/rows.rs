//! The table of calls, on the page of the call log and on the pages of agents and instances.

use std::collections::BTreeMap;

use askama::Template;
use serde_json::{Map, Value};
use waypost_core::Result;
use waypost_core::agent::MAX_AGENTS;
use waypost_core::call::{Call, CallMethod, CallOutcome};
use waypost_core::caller::Ctx;
use waypost_core::id::{AgentId, InstanceId, OrganizationId};
use waypost_ops::agents;
use waypost_ops::calls::{self, ListCalls};

use crate::Console;
use crate::instance_list::list_all;
use crate::layout::CurrentOrganization;
use crate::live;
use crate::view;

/// The number of calls on the page of an agent or an instance.
const RECENT: u32 = 5;

/// Returns the label of an outcome.
pub(super) fn label(outcome: CallOutcome) -> &'static str {
    match outcome {
        CallOutcome::Ok => "OK",
        CallOutcome::ToolError => "Tool error",
        CallOutcome::Denied => "Denied",
        CallOutcome::Failed => "Failed",
        CallOutcome::TimedOut => "Timed out",
        CallOutcome::Cancelled => "Cancelled",
    }
}

/// Returns the badge class of an outcome.
fn badge(outcome: CallOutcome) -> &'static str {
    match outcome {
        CallOutcome::Ok => "good",
        CallOutcome::ToolError | CallOutcome::Denied => "warn",
        CallOutcome::Failed | CallOutcome::TimedOut => "bad",
        CallOutcome::Cancelled => "",
    }
}

/// Returns the label of what was called, or `None` for a tool.
fn kind(method: CallMethod) -> Option<&'static str> {
    match method {
        CallMethod::ToolsCall => None,
        CallMethod::PromptsGet => Some("Prompt"),
        CallMethod::ResourcesRead => Some("Resource"),
        CallMethod::CompletionComplete => Some("Completion"),
    }
}

/// Formats the shape of arguments, such as `limit: number, query: string`.
fn arguments(shape: &str) -> String {
    let shape: Map<String, Value> = serde_json::from_str(shape).unwrap_or_default();
    let pair = |(name, kind): (&String, &Value)| format!("{name}: {}", kind.as_str().unwrap_or_default());
    shape.iter().map(pair).collect::<Vec<_>>().join(", ")
}

/// The names of the agents and the slugs of the instances of an organisation.
pub(super) struct Names {
    pub(super) agents: BTreeMap<AgentId, String>,
    pub(super) instances: BTreeMap<InstanceId, String>,
}

/// Returns the names of the agents of an organisation.
pub(super) async fn agent_names(
    cx: &Ctx,
    console: &Console,
    organization: &OrganizationId,
) -> Result<BTreeMap<AgentId, String>> {
    let limit = u32::try_from(MAX_AGENTS).unwrap_or(u32::MAX);
    let agents = agents::list(cx, console.ops(), organization, None, limit).await?;
    Ok(agents.into_iter().map(|view| (view.agent.id, view.agent.name)).collect())
}

impl Names {
    pub(super) async fn load(cx: &Ctx, console: &Console, organization: &OrganizationId) -> Result<Self> {
        let instances = list_all(cx, console, organization).await?;
        Ok(Self {
            agents: agent_names(cx, console, organization).await?,
            instances: instances.into_iter().map(|instance| (instance.id, instance.slug)).collect(),
        })
    }
}

/// A link, or only its text if the target was deleted.
pub(super) struct Target {
    pub(super) href: Option<String>,
    pub(super) text: String,
}

impl Target {
    /// Returns a link to `path` with the text `name`. If `name` is `None`, the target was deleted, and only a text with
    /// `id` is returned.
    pub(super) fn new(org: &CurrentOrganization, name: Option<&String>, path: &str, id: &str) -> Self {
        match name {
            Some(name) => Self { href: Some(org.path(path)), text: name.clone() },
            None => Self { href: None, text: format!("deleted ({id})") },
        }
    }
}

/// A call, formatted for the table.
struct CallRow {
    /// The page of the call.
    href: String,
    at: String,
    agent: Target,
    /// `None` if the gateway rejected the call before it found an instance.
    instance: Option<Target>,
    kind: Option<&'static str>,
    tool: String,
    class: &'static str,
    outcome: &'static str,
    duration: String,
    /// The time that the server took. `None` if it was not called.
    upstream: Option<String>,
    sizes: String,
    arguments: String,
}

impl CallRow {
    fn new(org: &CurrentOrganization, names: &Names, call: Call) -> Self {
        let target = |name, path: String, id: &str| Target::new(org, name, &path, id);
        let size = |bytes: i64| live::bytes(u64::try_from(bytes).unwrap_or(0));
        let agent =
            target(names.agents.get(&call.agent_id), format!("agents/{}", call.agent_id), call.agent_id.as_str());
        let instance = call.instance_id.as_ref();
        Self {
            href: org.path(&format!("calls/{}", call.id)),
            at: call.at.rfc3339(),
            agent,
            instance: instance.map(|id| target(names.instances.get(id), format!("instances/{id}"), id.as_str())),
            kind: kind(call.method),
            class: badge(call.outcome),
            outcome: label(call.outcome),
            duration: view::duration(Some(call.duration_ms)),
            upstream: call.upstream_ms.map(|ms| view::duration(Some(ms))),
            sizes: format!("{} / {}", size(call.request_bytes), size(call.response_bytes)),
            arguments: arguments(&call.argument_shape),
            tool: call.tool,
        }
    }
}

/// The table of calls, which is polled on the page of the call log.
#[derive(Template)]
#[template(path = "calls/rows.html")]
pub(crate) struct CallRows {
    rows: Vec<CallRow>,
}

impl CallRows {
    pub(super) fn new(org: &CurrentOrganization, names: &Names, calls: Vec<Call>) -> Self {
        Self { rows: calls.into_iter().map(|call| CallRow::new(org, names, call)).collect() }
    }

    /// Whether there are no calls.
    pub(crate) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }
}

/// Returns the most recent calls that match `query`. Its limit is ignored.
///
/// # Errors
/// Those of [`calls::list`].
pub(crate) async fn recent_rows(
    cx: &Ctx,
    console: &Console,
    organization: &OrganizationId,
    org: &CurrentOrganization,
    query: ListCalls,
) -> Result<CallRows> {
    let page = calls::list(cx, console.ops(), organization, &ListCalls { limit: RECENT, ..query }).await?;
    Ok(CallRows::new(org, &Names::load(cx, console, organization).await?, page.items))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_are_lists_of_names_and_types() {
        let cases =
            [("{}", ""), (r#"{"q":"string"}"#, "q: string"), (r#"{"a":"null","b":"array"}"#, "a: null, b: array")];
        for (shape, text) in cases {
            assert_eq!(arguments(shape), text);
        }
    }
}
