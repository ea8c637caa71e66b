//! One scenario: an organisation whose remote server is the server of the suite, an admin who connects it, and an agent that
//! uses it through the gateway.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::OnceCell;
use url::Url;
use waypost_core::caller::{Caller, Ctx};
use waypost_core::id::{InstanceId, OrganizationId};
use waypost_core::instance::{ConnectionMode, RegisteredClient};
use waypost_core::organization::Role;
use waypost_core::seal::SecretText;
use waypost_core::tool_definition::{ApprovalState, Class};
use waypost_core::tool_set::ToolSetMember;
use waypost_ops::instances::connect::{self, AuthorizationResponse};
use waypost_ops::instances::remote::NewRemoteServer;
use waypost_ops::instances::{NewInstance, NewServer};
use waypost_ops::tool_approvals::ListToolApprovals;
use waypost_ops::tool_definitions::{fetch, observe};
use waypost_ops::tool_sets::NewToolSet;
use waypost_ops::{Ops, instances, organizations, tool_approvals, tool_secrets, tool_sets, users};
use waypost_outbound::unguarded_client;
use waypost_toolbox_proto::entry::Transport;

use super::agent::Agent;
use crate::gateway::grant_all;

/// The number of times that the admin connects a server that rejects its tokens.
const MAX_CONNECTIONS: usize = 3;
/// The origin of an installation with https, whose metadata document identifies it as a client.
const HTTPS_ORIGIN: &str = "https://waypost.example";

/// A scenario, as the suite passes it to the client.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// The name, such as `auth/basic-cimd`.
    pub name: String,
    /// The URL of its server.
    pub url: String,
    /// Additional information for the client.
    pub context: Value,
}

/// The installation that runs scenarios.
pub struct Installation {
    /// Its operations.
    pub ops: Ops,
    /// Its origin.
    pub origin: String,
}

/// The organisation of one scenario.
struct Stage<'a> {
    installation: &'a Installation,
    scenario: &'a Scenario,
    admin: Ctx,
    organization: OrganizationId,
    slug: String,
    instance: InstanceId,
    /// The token of the agent, once it has been created.
    token: OnceCell<String>,
}

impl Installation {
    /// Runs a scenario in a new organisation.
    ///
    /// # Errors
    /// Why the server cannot be used, which some scenarios expect.
    pub async fn run(&self, number: usize, scenario: &Scenario) -> Result<(), String> {
        let stage = Stage::new(self, number, scenario).await;
        if !scenario.name.starts_with("auth/") {
            let outcome = stage.use_connected().await;
            stage.end().await;
            return outcome;
        }
        let mut outcome = Err("the server was not connected".to_owned());
        for _ in 0..MAX_CONNECTIONS {
            stage.connect().await?;
            outcome = stage.use_connected().await;
            if outcome.is_ok() {
                break;
            }
        }
        outcome
    }
}

impl<'a> Stage<'a> {
    async fn new(installation: &'a Installation, number: usize, scenario: &'a Scenario) -> Self {
        let (cx, ops, slug) = (Ctx::operator(), &installation.ops, format!("scenario-{number}"));
        let organization = organizations::create(&cx, ops, &slug, None).await.unwrap().id;
        let email = format!("ada@{slug}.example");
        let user = users::create(&cx, ops, &organization, &email, Role::Admin).await.unwrap().user_id;
        let admin =
            Caller::Member { organization_id: organization.clone(), role: Role::Admin, actor: user.to_string() };
        let admin = cx.with_caller(admin);
        let is_oauth = scenario.name.starts_with("auth/");
        let remote = NewRemoteServer {
            url: scenario.url.clone(),
            transport: Transport::StreamableHttp,
            is_oauth,
            connection: ConnectionMode::Shared,
            client: registered_client(&admin, ops, &organization, scenario).await,
        };
        let new = NewInstance {
            slug: "far".to_owned(),
            name: None,
            server: NewServer::Remote(remote),
            secrets: BTreeMap::new(),
            access: Default::default(),
        };
        let instance = instances::create(&admin, ops, &organization, &new).await.unwrap().instance.id;
        let members = vec![ToolSetMember { instance_id: instance.clone(), tools: None }];
        let new = NewToolSet { slug: "far".to_owned(), name: None, prefix: false, members };
        tool_sets::create(&admin, ops, &organization, &new).await.unwrap();
        Self { installation, scenario, admin, organization, slug, instance, token: OnceCell::new() }
    }

    /// Connects the server: the admin's browser follows the authorization URL to the callback.
    async fn connect(&self) -> Result<(), String> {
        let ops = &self.installation.ops;
        let origin = match self.scenario.name.as_str() {
            "auth/basic-cimd" => HTTPS_ORIGIN,
            _ => &self.installation.origin,
        };
        let started = connect::begin(&self.admin, ops, &self.organization, &self.instance, (None, origin)).await;
        let started = started.map_err(|error| error.to_string())?;
        let browser = unguarded_client().no_proxy().redirect(reqwest::redirect::Policy::none()).build().unwrap();
        let response = browser.get(started.url).send().await.map_err(|error| format!("{error:?}"))?;
        let location = response.headers().get("location").and_then(|location| location.to_str().ok());
        let callback = Url::parse(location.unwrap_or_default()).map_err(|error| format!("no redirect: {error}"))?;
        assert_eq!(callback.origin().ascii_serialization(), origin, "{callback}");
        let parameter = |name: &str| callback.query_pairs().find(|(key, _)| key == name).map(|(_, value)| value.into());
        let response = AuthorizationResponse {
            state: parameter("state").unwrap_or_default(),
            code: parameter("code"),
            iss: parameter("iss"),
            error: parameter("error"),
        };
        let finished = connect::finish(&self.admin, ops, &self.organization, &response).await;
        finished.map(drop).map_err(|error| error.to_string())
    }

    /// Tests the server, and approves what it lists.
    async fn check(&self) -> waypost_core::Result<()> {
        let (admin, ops, organization) = (&self.admin, &self.installation.ops, &self.organization);
        let instance = instances::get(admin, ops, organization, &self.instance).await?.instance;
        let listed = fetch(ops, &instance, None).await?;
        observe(admin, ops, &instance, &listed.definitions).await?;
        let pending = ListToolApprovals { state: Some(ApprovalState::Pending), limit: 100, ..Default::default() };
        for approval in tool_approvals::list(admin, ops, organization, &pending).await?.items {
            let decision = (approval.definition.digest.as_str(), Class::Write);
            // What is invalid cannot be approved, so agents do not see it.
            let approved = tool_approvals::approve(admin, ops, organization, &approval.definition.id, decision).await;
            if let Err(error) = approved {
                println!("{}: {}: {error}", self.scenario.name, approval.definition.name);
            }
        }
        Ok(())
    }

    /// Returns a new agent with access to everything.
    async fn agent(&self) -> Result<Agent, String> {
        let (cx, ops) = (Ctx::operator(), &self.installation.ops);
        // A server that is connected again keeps the agent.
        let granted = self.token.get_or_init(|| grant_all(&cx, ops, &self.organization, self.instance.clone()));
        let url = format!("{}/gateway/{}/far/mcp", self.installation.origin, self.slug);
        Agent::begin(&url, granted.await).await
    }

    /// Ends what the gateway keeps open after the last call, because the suite waits for it.
    async fn end(&self) {
        instances::delete(&self.admin, &self.installation.ops, &self.organization, &self.instance).await.unwrap();
    }

    /// Uses a server that needs no connection, or was connected.
    async fn use_connected(&self) -> Result<(), String> {
        self.check().await.map_err(|error| error.to_string())?;
        self.play(&self.agent().await?).await
    }

    /// Does what the scenario wants.
    async fn play(&self, agent: &Agent) -> Result<(), String> {
        let tools = agent.list("tools/list", "tools", "name").await?;
        match self.scenario.name.as_str() {
            "tools_call" => agent.call("add_numbers", &json!({ "a": 5, "b": 3 })).await.map(drop),
            "http-custom-headers" => self.call_given(agent).await,
            "http-invalid-tool-headers" => {
                for tool in &tools {
                    agent.call(tool, &json!({ "region": "us-west1" })).await?;
                }
                Ok(())
            }
            "json-schema-2020-12-preservation" => {
                let listed = agent.request("tools/list", json!({})).await?;
                let listed = listed["tools"].as_array().into_iter().flatten();
                let mut schemas = listed.filter(|tool| tool["name"] == "json_schema_2020_12_tool");
                let schema = schemas.next().ok_or("the tool is not listed")?["inputSchema"].clone();
                agent.call("json_schema_echo", &json!({ "schema": schema })).await.map(drop)
            }
            "sep-2322-client-request-state" => {
                for tool in &tools {
                    agent.call_modern(tool).await?;
                }
                Ok(())
            }
            _ => self.use_everything(agent, &tools).await,
        }
    }

    /// Makes the calls that the scenario states.
    async fn call_given(&self, agent: &Agent) -> Result<(), String> {
        for call in self.scenario.context["toolCalls"].as_array().ok_or("the scenario states no calls")? {
            agent.call(call["name"].as_str().unwrap_or_default(), &call["arguments"]).await?;
        }
        Ok(())
    }

    /// Calls every tool without arguments, and reads every resource and prompt.
    async fn use_everything(&self, agent: &Agent, tools: &[String]) -> Result<(), String> {
        for tool in tools {
            agent.call(tool, &json!({})).await?;
        }
        for uri in agent.list("resources/list", "resources", "uri").await? {
            agent.request("resources/read", json!({ "uri": uri })).await?;
        }
        for name in agent.list("prompts/list", "prompts", "name").await? {
            agent.request("prompts/get", json!({ "name": name })).await?;
        }
        Ok(())
    }
}

/// Returns the client that the scenario has registered beforehand.
async fn registered_client(
    admin: &Ctx,
    ops: &Ops,
    organization: &OrganizationId,
    scenario: &Scenario,
) -> Option<RegisteredClient> {
    if scenario.name != "auth/pre-registration" {
        return None;
    }
    let text = |member: &str| scenario.context[member].as_str().unwrap().to_owned();
    let secret = SecretText::new(text("client_secret"));
    let secret = tool_secrets::create(admin, ops, organization, "CLIENT_SECRET", &secret).await.unwrap();
    Some(RegisteredClient { client_id: text("client_id"), secret_id: Some(secret.id) })
}
