//! `waypost agent`: AI clients of an organisation and their tokens.

use serde_json::{Value, json};
use waypost_core::Timestamp;
use waypost_core::agent::{AgentState, AgentToken};
use waypost_core::id::OrganizationId;
use waypost_ops::agent_tokens::{self, CreateAgentToken};
use waypost_ops::agents::{self, AgentPatch, AgentView};
use waypost_ops::calls::{self, CallSummary};

use super::expiry::{Expiry, parse_expiry};
use super::session::{Session, not_found_message};
use super::user::Org;
use super::{App, output};

/// The number of agents that are read at a time.
const PAGE_SIZE: u32 = 200;
/// The name of a token that is created without `--name`.
pub(super) const TOKEN_NAME: &str = "token";

/// The JSON members of a summary of an agent's calls to an instance.
pub(super) const CONNECTION_MEMBERS: &[&str] =
    &["agent_id", "instance_id", "toolbox_id", "calls", "failures", "last_at"];

/// Subcommands of `waypost agent`.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Create an agent, without tokens and grants.
    Create {
        /// Name, unique in the organisation, at most 100 characters.
        name: String,
        #[command(flatten)]
        org: Org,
    },
    /// List the agents of an organisation.
    List {
        #[command(flatten)]
        org: Org,
    },
    /// Show an agent with its tokens, without their secrets.
    Show {
        #[command(flatten)]
        at: AtAgent,
    },
    /// Change the name of an agent.
    Update {
        #[command(flatten)]
        at: AtAgent,
        /// New name.
        #[arg(long)]
        name: String,
    },
    /// Accept the tokens of a disabled agent again.
    Enable {
        #[command(flatten)]
        at: AtAgent,
    },
    /// Reject all tokens of an agent within one second. Its tokens and grants are kept.
    Disable {
        #[command(flatten)]
        at: AtAgent,
    },
    /// Create a token of an agent. It is shown only once.
    Token {
        #[command(flatten)]
        at: AtAgent,
        /// Name of the token.
        #[arg(long, default_value = TOKEN_NAME)]
        name: String,
        /// Duration (30d, 12h, 90m) or time after which the token expires; by default, it never expires.
        #[arg(long, value_name = "WHEN", value_parser = parse_expiry)]
        expires: Option<Expiry>,
    },
    /// Revoke a token of an agent. It is rejected within one second.
    TokenRevoke {
        /// Name or ID of the agent, and name or ID of the token. The agent can be omitted before the ID of a token.
        #[arg(required = true, num_args = 1..=2, value_names = ["AGENT", "TOKEN"])]
        token: Vec<String>,
        #[command(flatten)]
        org: Org,
    },
    /// List which agent has called which instance in the last hour, and over which toolbox.
    Connections {
        #[command(flatten)]
        org: Org,
    },
    /// Delete an agent with its tokens and grants.
    Delete {
        #[command(flatten)]
        at: AtAgent,
        /// Do not ask for confirmation.
        #[arg(long)]
        yes: bool,
    },
}

/// An agent of an organisation.
#[derive(Debug, clap::Args)]
pub struct AtAgent {
    /// Name or ID of the agent.
    pub(super) agent: String,
    #[command(flatten)]
    pub(super) org: Org,
}

impl Command {
    /// Returns the organisation given by `--org`.
    pub(super) fn organization(&self) -> Option<&str> {
        let org = match self {
            Self::Create { org, .. }
            | Self::List { org }
            | Self::Connections { org }
            | Self::TokenRevoke { org, .. } => org,
            Self::Show { at }
            | Self::Update { at, .. }
            | Self::Enable { at }
            | Self::Disable { at }
            | Self::Token { at, .. }
            | Self::Delete { at, .. } => &at.org,
        };
        org.org.as_deref()
    }
}

/// Runs the command.
///
/// # Errors
/// If the operation is rejected.
pub async fn run(app: &App, session: &Session, command: Command) -> anyhow::Result<()> {
    let Session { cx, ops, json, .. } = session;
    let organization = session.organization(command.organization()).await?.id;
    match command {
        Command::Create { name, .. } => print(*json, to_json(&agents::create(cx, ops, &organization, &name).await?)),
        Command::List { .. } => print_list(*json, list(session, &organization).await?),
        Command::Connections { .. } => {
            let found = calls::summarize(cx, ops, &organization).await?;
            print_connections(*json, found.iter().map(connection_to_json).collect())
        }
        Command::Show { at } => print(*json, to_json(&find(session, &organization, &at.agent).await?)),
        Command::Update { at, name } => {
            let change = AgentPatch { name: Some(name), state: None };
            update(session, &organization, &at, &change).await
        }
        Command::Enable { at } => set_state(session, &organization, &at, AgentState::Active).await,
        Command::Disable { at } => set_state(session, &organization, &at, AgentState::Disabled).await,
        Command::Token { at, name, expires } => {
            let agent = find(session, &organization, &at.agent).await?.agent;
            let expires_at = expires.map(|expires| expires.time(cx.now()));
            let new = CreateAgentToken { name: &name, expires_at };
            let (token, secret) = agent_tokens::create(cx, ops, &organization, &agent.id, new).await?;
            let mut value = token_to_json(&token);
            value["token"] = secret.expose().into();
            print_secret(*json, &value)
        }
        Command::TokenRevoke { token, .. } => {
            let candidates = match token.as_slice() {
                [agent, _] => vec![to_json(&find(session, &organization, agent).await?)],
                _ => list(session, &organization).await?,
            };
            let found = find_token(&candidates, &token)?;
            let id = |text: &str| anyhow::Error::msg(format!("`{}` is not a valid ID", output::clean(text)));
            let agent_id = found.agent_id.parse().map_err(|_| id(found.agent_id))?;
            let token_id = found.id.parse().map_err(|_| id(found.id))?;
            agent_tokens::revoke(cx, ops, &organization, &agent_id, &token_id).await?;
            print_revoked(*json, &found)
        }
        Command::Delete { at, yes } => {
            let agent = find(session, &organization, &at.agent).await?.agent;
            confirm_deletion(yes, &agent.name)?;
            // Revokes the tokens of its connections.
            agents::delete(cx, &session.deleting_ops(app), &organization, &agent.id).await?;
            print_deleted(*json, agent.id.as_str(), &agent.name)
        }
    }
}

/// Returns the agent with this name or ID.
pub(super) async fn find(session: &Session, organization: &OrganizationId, text: &str) -> anyhow::Result<AgentView> {
    let found = agents::resolve(&session.cx, &session.ops, organization, text).await;
    found.map_err(|error| not_found_message(error, "agent", text, "agent"))
}

async fn list(session: &Session, organization: &OrganizationId) -> anyhow::Result<Vec<Value>> {
    let (mut items, mut after) = (Vec::new(), None::<String>);
    loop {
        let found = agents::list(&session.cx, &session.ops, organization, after.as_deref(), PAGE_SIZE).await?;
        after = found.last().map(|last| last.agent.name.clone());
        items.extend(found.iter().map(to_json));
        if after.is_none() {
            return Ok(items);
        }
    }
}

async fn set_state(
    session: &Session,
    organization: &OrganizationId,
    at: &AtAgent,
    state: AgentState,
) -> anyhow::Result<()> {
    update(session, organization, at, &AgentPatch { name: None, state: Some(state) }).await
}

async fn update(
    session: &Session,
    organization: &OrganizationId,
    at: &AtAgent,
    change: &AgentPatch,
) -> anyhow::Result<()> {
    let id = find(session, organization, &at.agent).await?.agent.id;
    print(session.json, to_json(&agents::update(&session.cx, &session.ops, organization, &id, change).await?))
}

/// A token in the output of [`to_json`].
#[derive(Debug, PartialEq, Eq)]
pub(super) struct FoundToken<'a> {
    pub(super) agent_id: &'a str,
    pub(super) agent_name: &'a str,
    pub(super) id: &'a str,
    pub(super) name: &'a str,
}

/// Returns the token of one of the `agents` that the last of the `arguments` names. A name is accepted only after the
/// name of the agent, and only if exactly one token that is not revoked has it.
///
/// # Errors
/// If there is no such token, or several have this name.
pub(super) fn find_token<'a>(agents: &'a [Value], arguments: &[String]) -> anyhow::Result<FoundToken<'a>> {
    let text = arguments.last().map(String::as_str).unwrap_or_default();
    let shown = output::clean(text);
    let member = |value: &'a Value, name: &str| value[name].as_str().unwrap_or_default();
    let tokens = agents
        .iter()
        .flat_map(|agent| agent["tokens"].as_array().into_iter().flatten().map(move |token| (token, agent)));
    let found = |(token, agent): (&'a Value, &'a Value)| FoundToken {
        agent_id: member(agent, "id"),
        agent_name: member(agent, "name"),
        id: member(token, "id"),
        name: member(token, "name"),
    };
    if let Some(token) = tokens.clone().find(|(token, _)| token["id"] == text) {
        return Ok(found(token));
    }
    let is_named = |(token, _): &(&Value, &Value)| token["name"] == text && token["revoked_at"].is_null();
    let mut named: Vec<_> = if arguments.len() == 2 { tokens.filter(is_named).collect() } else { Vec::new() };
    match (named.pop(), named.is_empty()) {
        (Some(token), true) => Ok(found(token)),
        (Some(_), false) => anyhow::bail!("several tokens of the agent are named `{shown}`: use the ID"),
        (None, _) if arguments.len() == 2 => {
            anyhow::bail!("the agent has no token `{shown}`: run `waypost agent show AGENT` to see all")
        }
        (None, _) => anyhow::bail!(
            "there is no token with the ID `{shown}`: run `waypost agent show AGENT` to see the tokens of an agent"
        ),
    }
}

/// Prints an agent. Text output shows one line per token.
pub(super) fn print(json: bool, mut agent: Value) -> anyhow::Result<()> {
    if !json && let Some(tokens) = agent["tokens"].as_array_mut() {
        for token in tokens {
            let state = match (&token["revoked_at"], &token["expires_at"]) {
                (Value::String(at), _) => format!(", revoked {at}"),
                (_, Value::String(at)) => format!(", expires {at}"),
                _ => String::new(),
            };
            let text = |name: &str| token[name].as_str().unwrap_or_default();
            *token = format!("{} ({}{state})", text("name"), text("id")).into();
        }
    }
    output::object(json, &agent)
}

pub(super) fn print_list(json: bool, items: Vec<Value>) -> anyhow::Result<()> {
    output::list(json, &["name", "kind", "state", "id", "last_seen_at"], items)
}

fn connection_to_json(connection: &CallSummary) -> Value {
    json!({
        "agent_id": connection.agent_id,
        "instance_id": connection.instance_id,
        "toolbox_id": connection.toolbox_id,
        "calls": connection.calls,
        "failures": connection.failures,
        "last_at": connection.last_at.rfc3339(),
    })
}

/// Prints which agent has called which instance.
pub(super) fn print_connections(json: bool, items: Vec<Value>) -> anyhow::Result<()> {
    output::list(json, CONNECTION_MEMBERS, items)
}

/// Prints a new token with its secret.
pub(super) fn print_secret(json: bool, value: &Value) -> anyhow::Result<()> {
    output::object(json, value)?;
    if json { Ok(()) } else { output::text("Store the token now. It cannot be shown again.\n") }
}

pub(super) fn print_revoked(json: bool, token: &FoundToken<'_>) -> anyhow::Result<()> {
    if json {
        return output::json(&json!({ "id": token.id, "revoked": true }));
    }
    let (name, agent) = (output::clean(token.name), output::clean(token.agent_name));
    output::text(&format!("Revoked the token {name} of the agent {agent}.\n"))
}

pub(super) fn confirm_deletion(yes: bool, name: &str) -> anyhow::Result<()> {
    let name = output::clean(name);
    output::confirm(yes, &format!("Delete the agent {name} with its tokens and grants?"))
}

pub(super) fn print_deleted(json: bool, id: &str, name: &str) -> anyhow::Result<()> {
    output::deleted(json, id, &format!("Deleted the agent {}.", output::clean(name)))
}

/// The members of an agent, in the order of [`to_json`].
pub(super) const MEMBERS: &[&str] =
    &["id", "name", "kind", "user_id", "state", "created_at", "created_by", "last_seen_at", "tokens"];

/// The members of a new token.
pub(super) const TOKEN_MEMBERS: &[&str] =
    &["id", "name", "created_at", "expires_at", "last_used_at", "revoked_at", "token"];

fn to_json(AgentView { agent, tokens }: &AgentView) -> Value {
    json!({
        "id": agent.id,
        "name": agent.name,
        "kind": agent.kind.as_str(),
        "user_id": agent.user_id,
        "state": agent.state.as_str(),
        "created_at": agent.created_at.rfc3339(),
        "created_by": agent.created_by,
        "last_seen_at": agent.last_seen_at.map(Timestamp::rfc3339),
        "tokens": tokens.iter().map(token_to_json).collect::<Vec<_>>(),
    })
}

fn token_to_json(token: &AgentToken) -> Value {
    json!({
        "id": token.id,
        "name": token.name,
        "created_at": token.created_at.rfc3339(),
        "expires_at": token.expires_at.map(Timestamp::rfc3339),
        "last_used_at": token.last_used_at.map(Timestamp::rfc3339),
        "revoked_at": token.revoked_at.map(Timestamp::rfc3339),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_found_by_id_or_by_agent_and_name() {
        let token = |id: &str, name: &str, revoked: bool| json!({ "id": id, "name": name, "revoked_at": revoked.then_some("2026-01-01T00:00:00.000Z") });
        let agents = [
            json!({ "id": "agt_1", "name": "A",
                "tokens": [token("agk_1", "x", true), token("agk_2", "x", false), token("agk_3", "y", false)] }),
            json!({ "id": "agt_2", "name": "B", "tokens": [token("agk_4", "z", false), token("agk_5", "z", false)] }),
        ];
        let find = |agents: &[Value], arguments: &[&str]| {
            let arguments: Vec<String> = arguments.iter().map(|text| (*text).to_owned()).collect();
            let found = find_token(agents, &arguments).map(|token| format!("{} {}", token.agent_id, token.id));
            found.unwrap_or_else(|error| error.to_string())
        };
        assert_eq!(find(&agents, &["agk_3"]), "agt_1 agk_3");
        assert!(find(&agents, &["y"]).starts_with("there is no token with the ID `y`"));
        assert_eq!(find(&agents[..1], &["A", "agk_1"]), "agt_1 agk_1");
        assert_eq!(find(&agents[..1], &["A", "x"]), "agt_1 agk_2", "without revoked tokens");
        assert_eq!(find(&agents[1..], &["B", "z"]), "several tokens of the agent are named `z`: use the ID");
        assert!(find(&agents[1..], &["B", "agk_1"]).starts_with("the agent has no token `agk_1`"));
    }
}
