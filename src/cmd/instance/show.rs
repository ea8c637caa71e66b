//! The output of `waypost instance`.

use serde_json::{Map, Value, json};
use waypost_core::Timestamp;
use waypost_core::deployment::Deployment;
use waypost_core::instance::{Backend, ConnectionMode};
use waypost_core::tool_override::ToolOverride;
use waypost_ops::instances::InstanceView;
use waypost_ops::instances::connect::AgentConnection;

use crate::cmd::output;

/// The members of an instance, in the order of [`to_json`].
pub(in crate::cmd) const MEMBERS: &[&str] = &[
    "id",
    "slug",
    "name",
    "catalog_version_id",
    "toolbox_id",
    "remote",
    "desired",
    "state",
    "generation",
    "observed_generation",
    "health",
    "config",
    "secrets",
    "personal_secrets",
    "record_contents",
    "deployment",
];

/// Returns an instance with the same members as in the API.
pub(in crate::cmd) fn to_json(view: &InstanceView) -> Value {
    let InstanceView { instance, deployment } = view;
    let health = instance.health.as_ref().map(|health| {
        json!({
            "ok": health.ok,
            "checked_at": Timestamp(health.checked_at).rfc3339(),
            "latency_ms": health.latency_ms,
            "message": health.message,
        })
    });
    let remote = match &instance.backend {
        Backend::Remote(remote) => {
            json!({
                "origin": remote.origin,
                "transport": remote.transport.as_str(),
                "oauth": remote.is_oauth,
                "connection": remote.connection.as_str(),
                "client_id": remote.client.as_ref().map(|client| &client.client_id),
                "client_secret_id": remote.client.as_ref().and_then(|client| client.secret_id.as_ref()),
            })
        }
        Backend::Container(_) => Value::Null,
    };
    let secrets = instance.secrets.iter().map(|used| (used.name.clone(), json!(used.secret_id)));
    json!({
        "id": instance.id,
        "slug": instance.slug,
        "name": instance.name,
        "catalog_version_id": instance.catalog_version_id(),
        "toolbox_id": instance.toolbox_id(),
        "remote": remote,
        "desired": instance.desired.as_str(),
        "state": instance.state.as_str(),
        "generation": instance.generation,
        "observed_generation": instance.observed_generation,
        "health": health,
        "config": instance.config,
        "secrets": secrets.collect::<Map<_, _>>(),
        "personal_secrets": instance.personal_secrets.iter().map(|secret| &secret.name).collect::<Vec<_>>(),
        "record_contents": instance.record_contents,
        "deployment": deployment.as_ref().map(deployment_to_json),
    })
}

/// Returns a deployment with the same members as in the API.
pub(in crate::cmd) fn deployment_to_json(deployment: &Deployment) -> Value {
    json!({
        "id": deployment.id,
        "state": deployment.state.as_str(),
        "step": deployment.step.as_str(),
        "error": deployment.error,
        "started_at": deployment.started_at.rfc3339(),
        "ended_at": deployment.ended_at.map(Timestamp::rfc3339),
    })
}

/// Prints the address of the page on which an admin connects a remote server or, if each agent has its own connection,
/// that of the page on which people connect themselves. `origin` is the origin of the console.
///
/// # Errors
/// If the instance is not a remote server that requires OAuth.
pub(in crate::cmd) fn print_connect(
    json: bool,
    instance: &Value,
    origin: &str,
    organization: &str,
) -> anyhow::Result<()> {
    if instance["remote"]["oauth"] != true {
        anyhow::bail!("this instance does not use OAuth, so there is nothing to connect");
    }
    let id = instance["id"].as_str().unwrap_or_default();
    let url = output::clean(&format!("{origin}/o/{organization}/instances/{id}"));
    if instance["remote"]["connection"] == ConnectionMode::PerAgent.as_str() {
        let slug = instance["slug"].as_str().unwrap_or_default();
        let own = output::clean(&format!("{origin}/o/{organization}/connect/{slug}"));
        let url = format!("{url}/connections");
        return match json {
            true => output::json(&json!({ "url": url, "person_url": own })),
            false => {
                output::text(&format!("People connect their own account: {own}\nAdmins connect services: {url}\n"))
            }
        };
    }
    match json {
        true => output::json(&json!({ "url": url })),
        false => output::text(&format!("Sign in as an admin, and choose Connect: {url}\n")),
    }
}

/// Prints an instance. Text output shows health, secrets and deployment on one line each.
pub(in crate::cmd) fn print(json: bool, mut instance: Value) -> anyhow::Result<()> {
    if !json {
        instance["health"] = describe_health(&instance["health"]);
        instance["deployment"] = describe_deployment(&instance["deployment"]);
        if let Some(origin) = instance["remote"]["origin"].as_str() {
            let is_per_agent = instance["remote"]["connection"] == ConnectionMode::PerAgent.as_str();
            let oauth = match instance["remote"]["oauth"] == true {
                true if is_per_agent => ", OAuth per agent",
                true => ", OAuth",
                false => "",
            };
            let transport = instance["remote"]["transport"].as_str().unwrap_or_default();
            instance["remote"] = format!("{origin} ({transport}{oauth})").into();
        }
        let secrets = instance["secrets"].as_object().into_iter().flatten();
        let secrets: Vec<_> = secrets.map(|(name, id)| format!("{name}={}", id.as_str().unwrap_or_default())).collect();
        instance["secrets"] = secrets.into();
    }
    output::object(json, &instance)
}

fn describe_health(health: &Value) -> Value {
    let text = |name: &str| health[name].as_str().unwrap_or_default();
    match (health["ok"].as_bool(), health["latency_ms"].as_u64()) {
        (None, _) => Value::Null,
        (Some(true), Some(latency)) => format!("ok at {} ({latency} ms)", text("checked_at")).into(),
        (Some(true), None) if health["message"].is_null() => format!("ok at {}", text("checked_at")).into(),
        (Some(true), None) => format!("ok, but the probe at {} failed: {}", text("checked_at"), text("message")).into(),
        (Some(false), _) => format!("failing at {}: {}", text("checked_at"), text("message")).into(),
    }
}

fn describe_deployment(deployment: &Value) -> Value {
    let text = |name: &str| deployment[name].as_str().unwrap_or_default();
    match (text("state"), describe_error(&deployment["error"])) {
        ("", _) => Value::Null,
        ("running", _) => format!("running, {}", text("step")).into(),
        (state, Some(error)) => format!("{state}: {error}").into(),
        (state, None) => state.into(),
    }
}

/// Returns the error of a deployment on one line: step, code, cause and next action.
pub(super) fn describe_error(error: &Value) -> Option<String> {
    let text = |name: &str| error[name].as_str().unwrap_or_default();
    let line = || format!("{} while {}: {} {}", text("code"), text("step"), text("cause"), text("next_action"));
    error.is_object().then(line)
}

pub(in crate::cmd) fn print_list(json: bool, items: Vec<Value>) -> anyhow::Result<()> {
    output::list(json, &["slug", "name", "desired", "state", "toolbox_id", "id"], items)
}

/// Prints deployments. Text output shows the code of the error.
pub(in crate::cmd) fn print_deployments(json: bool, mut items: Vec<Value>) -> anyhow::Result<()> {
    if !json {
        items.iter_mut().for_each(|item| item["error"] = item["error"]["code"].take());
    }
    output::list(json, &["id", "state", "step", "error", "started_at", "ended_at"], items)
}

/// Prints the lines of a log.
pub(in crate::cmd) fn print_logs(json: bool, lines: Vec<Value>) -> anyhow::Result<()> {
    if json {
        return output::json(&json!({ "items": lines }));
    }
    output::text(&lines.iter().map(|line| log_line(false, line)).collect::<String>())
}

/// Formats a line of a log: as JSON on one line, or as the time, the stream and the text. The text comes from the
/// server and is shown without control characters.
pub(in crate::cmd) fn log_line(json: bool, line: &Value) -> String {
    if json {
        return format!("{line}\n");
    }
    let text = |name: &str| output::clean(line[name].as_str().unwrap_or_default());
    format!("{} {:<7} {}\n", time(&line["at"]), text("stream"), text("text").trim_end())
}

/// Returns a time in RFC 3339 format. The toolbox reports milliseconds.
fn time(value: &Value) -> String {
    match value.as_i64() {
        Some(milliseconds) => Timestamp(milliseconds).rfc3339(),
        None => output::clean(value.as_str().unwrap_or_default()),
    }
}

/// Prints tools. Text output shows the name and the description.
pub(in crate::cmd) fn print_tools(json: bool, items: Vec<Value>) -> anyhow::Result<()> {
    output::list(json, &["name", "description"], items)
}

/// The members of a connection, in the order of [`connection_to_json`].
pub(in crate::cmd) const CONNECTION_MEMBERS: &[&str] =
    &["agent_id", "agent_name", "agent_kind", "issuer", "state", "connected_at", "expires_at", "required_scope"];

/// Returns a connection with the same members as in the API.
pub(in crate::cmd) fn connection_to_json(found: &AgentConnection) -> Value {
    json!({
        "agent_id": found.agent_id,
        "agent_name": found.agent.as_ref().map(|(name, _)| name),
        "agent_kind": found.agent.as_ref().map(|(_, kind)| kind.as_str()),
        "issuer": found.issuer,
        "state": found.state.as_str(),
        "connected_at": found.connected_at.rfc3339(),
        "expires_at": found.expires_at.map(Timestamp::rfc3339),
        "required_scope": found.required_scope,
    })
}

/// Prints connections. Text output omits the issuer.
pub(in crate::cmd) fn print_connections(json: bool, items: Vec<Value>) -> anyhow::Result<()> {
    let columns = ["agent_name", "agent_kind", "state", "connected_at", "expires_at", "required_scope", "agent_id"];
    output::list(json, &columns, items)
}

/// Prints that a connection was ended. `id` is the ID of the agent, or `shared`.
pub(in crate::cmd) fn print_disconnected(json: bool, id: &str, slug: &str) -> anyhow::Result<()> {
    output::deleted(json, id, &format!("Disconnected {}.", output::clean(slug)))
}

/// The members of an override, in the order of [`override_to_json`].
pub(in crate::cmd) const OVERRIDE_MEMBERS: &[&str] = &["tool", "name", "description"];

/// Returns an override with the same members as in the API.
pub(in crate::cmd) fn override_to_json(found: &ToolOverride) -> Value {
    json!({ "tool": found.tool, "name": found.name, "description": found.description })
}

/// Prints overrides.
pub(in crate::cmd) fn print_overrides(json: bool, items: Vec<Value>) -> anyhow::Result<()> {
    output::list(json, OVERRIDE_MEMBERS, items)
}

/// Prints the resource usage. Text output shows times in RFC 3339 format.
pub(in crate::cmd) fn print_stats(json: bool, mut items: Vec<Value>) -> anyhow::Result<()> {
    if !json {
        items.iter_mut().for_each(|item| item["at"] = time(&item["at"]).into());
    }
    let columns = ["at", "cpu_percent", "memory_bytes", "network_received_bytes", "network_sent_bytes", "pids"];
    output::list(json, &columns, items)
}

pub(in crate::cmd) fn confirm_deletion(yes: bool, slug: &str) -> anyhow::Result<()> {
    let slug = output::clean(slug);
    output::confirm(yes, &format!("Delete the instance {slug} with its volumes and its log?"))
}

pub(in crate::cmd) fn print_deleted(json: bool, id: &str, slug: &str) -> anyhow::Result<()> {
    output::deleted(json, id, &format!("Deleted the instance {}.", output::clean(slug)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_lines_have_a_time_and_no_control_characters() {
        let line = json!({ "at": 1_795_000_000_000_i64, "stream": "stderr", "text": "a\u{1b}[2Jb\n" });
        assert_eq!(log_line(false, &line), "2026-11-18T11:06:40.000Z stderr  a\u{fffd}[2Jb\u{fffd}\n");
        let line = json!({ "at": "2026-01-31T00:00:00Z", "stream": "stdout", "text": "x" });
        assert_eq!(log_line(false, &line), "2026-01-31T00:00:00Z stdout  x\n");
        assert_eq!(log_line(true, &line), format!("{line}\n"));
    }

    #[test]
    fn health_and_deployment_are_described() {
        assert_eq!(describe_health(&Value::Null), Value::Null);
        let health =
            |ok, latency, message| json!({ "ok": ok, "checked_at": "T", "latency_ms": latency, "message": message });
        assert_eq!(describe_health(&health(true, Some(3), None::<&str>)), "ok at T (3 ms)");
        assert_eq!(describe_health(&health(true, None, None)), "ok at T");
        assert_eq!(describe_health(&health(true, None, Some("slow"))), "ok, but the probe at T failed: slow");
        assert_eq!(describe_health(&health(false, None, Some("no answer"))), "failing at T: no answer");
        let error = json!({ "step": "pulling", "code": "image_denied", "cause": "Denied.", "next_action": "Sign in." });
        let deployment = |state, error| json!({ "state": state, "step": "pulling", "error": error });
        assert_eq!(describe_deployment(&deployment("running", Value::Null)), "running, pulling");
        assert_eq!(describe_deployment(&deployment("complete", Value::Null)), "complete");
        assert_eq!(
            describe_deployment(&deployment("failed", error)),
            "failed: image_denied while pulling: Denied. Sign in."
        );
    }
}
