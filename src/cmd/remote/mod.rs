//! Commands through the REST API of a running installation (`--url`), one file per noun. Flags, output and exit codes are
//! the same as for commands on the database.

mod agent;
mod agent_secret;
pub(super) mod approval;
mod assignment;
mod call;
mod catalog;
mod client;
mod endpoint;
mod error;
mod grant;
pub(super) mod instance;
mod join;
mod key;
mod oauth_config;
mod org;
mod secret;
mod server;
mod tool_set;
mod toolbox;
mod user;
mod walkthrough;

use std::process::ExitCode;

use anyhow::{Context, bail};
use serde_json::{Map, Value, json};

use client::{Body, Client};
pub use endpoint::{ApiEndpoint, find};

use super::{App, Command, UsageError, output};

/// The session of a command that uses the API.
pub struct RemoteSession {
    client: Client,
    /// Whether data is printed as JSON.
    json: bool,
    /// The organisation of the key, as returned by the API.
    organization: Value,
}

/// Runs the command through the API at `endpoint`.
///
/// # Errors
/// If the API cannot be reached or the operation is rejected.
pub async fn run(app: &App, endpoint: ApiEndpoint, command: Command) -> anyhow::Result<ExitCode> {
    let remote = RemoteSession::connect(app, endpoint).await?;
    match command {
        Command::Org(command) => org::run(&remote, command).await?,
        Command::User(command) => user::run(&remote, command).await?,
        Command::Server(command) => server::run(&remote, command).await?,
        Command::Key(command) => key::run(&remote, command).await?,
        Command::Join(command) => join::run(&remote, command).await?,
        Command::Assignment(command) => assignment::run(&remote, command).await?,
        Command::Walkthrough(command) => walkthrough::run(&remote, command).await?,
        Command::Catalog(command) => catalog::run(&remote, command).await?,
        Command::Secret(command) => secret::run(&remote, command).await?,
        Command::Toolbox(super::toolbox::Command::Operator(command)) => toolbox::run(&remote, command).await?,
        Command::Instance(command) => instance::run(&remote, command).await?,
        Command::Approval(command) => approval::run(&remote, command).await?,
        Command::Agent(command) => agent::run(&remote, command).await?,
        Command::Grant(command) => grant::run(&remote, command).await?,
        Command::ToolSet(command) => tool_set::run(&remote, command).await?,
        Command::Call(command) => call::run(&remote, command).await?,
        Command::OauthConfig(command) => return oauth_config::run(&remote, command).await,
        _ => bail!("this command does not support --url"),
    }
    Ok(ExitCode::SUCCESS)
}

impl RemoteSession {
    /// Connects to the running `serve` as the operator, through its socket or its internal listener. `name` is the
    /// organisation given by `--org`; without it, the only organisation is used.
    ///
    /// # Errors
    /// If `serve` is not running, or there is no such organisation.
    pub async fn connect_as_operator(app: &App, name: Option<&str>) -> anyhow::Result<Self> {
        let client = Client::for_operator(&app.settings)?;
        let organizations = client.list(&["organizations"], &[]).await?;
        let organization = choose_organization(organizations, name)?;
        let client = client.for_organization(text(&organization, "id"));
        Ok(Self { client, json: app.json, organization })
    }

    /// Gets the organisation of the key, which also checks the connection, the API and the key.
    async fn connect(app: &App, endpoint: ApiEndpoint) -> anyhow::Result<Self> {
        let client = Client::new(endpoint, &app.settings)?;
        let mut organizations = client.list(&["organizations"], &[]).await?;
        if organizations.len() != 1 {
            return Err(error::not_an_api_response(client.origin()));
        }
        Ok(Self { client, json: app.json, organization: organizations.remove(0) })
    }

    fn organization_id(&self) -> &str {
        text(&self.organization, "id")
    }

    fn organization_slug(&self) -> String {
        output::clean(text(&self.organization, "slug"))
    }

    /// Checks that the organisation in `--org`, if given, is the organisation of the key.
    fn check_organization(&self, name: Option<&str>) -> anyhow::Result<()> {
        let is_own = |name: &str| [self.organization_id(), text(&self.organization, "slug")].contains(&name);
        match name {
            Some(name) if !is_own(name) => {
                let (slug, name) = (self.organization_slug(), output::clean(name));
                bail!("the API key belongs to organisation `{slug}`, not to `{name}`: use a key of `{name}`")
            }
            _ => Ok(()),
        }
    }

    /// Returns an object with the given members of `object`, in this order.
    fn select(&self, object: &Value, members: &[&str]) -> Value {
        let member = |name: &&str| {
            let value = object.get(*name).cloned();
            // The API omits the organisation, which is the same for all objects of a key.
            let value = value.or_else(|| (*name == "organization_id").then(|| json!(self.organization_id())));
            ((*name).to_owned(), value.unwrap_or_default())
        };
        Value::Object(members.iter().map(member).collect::<Map<_, _>>())
    }

    fn select_all(&self, items: &[Value], members: &[&str]) -> Vec<Value> {
        items.iter().map(|item| self.select(item, members)).collect()
    }
}

/// Returns the organisation with this slug or ID; without a name, the only one. The error messages are the same as
/// those of commands on the database.
fn choose_organization(mut all: Vec<Value>, name: Option<&str>) -> anyhow::Result<Value> {
    if let Some(name) = name {
        let is_named = |organization: &Value| organization["slug"] == name || organization["id"] == name;
        return find_item(all, is_named, "organisation", name, "org");
    }
    match all.len() {
        0 => bail!("there is no organisation yet: create one with `waypost org create SLUG`"),
        1 => Ok(all.remove(0)),
        _ => {
            let slugs: Vec<_> = all.iter().map(|organization| text(organization, "slug")).collect();
            let slugs = output::clean(&slugs.join(", "));
            let message = format!("there are several organisations, choose one with --org SLUG: {slugs}");
            Err(UsageError(message).into())
        }
    }
}

/// Returns a string member; empty if it is missing.
fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_default()
}

/// Returns the item for which `matches` is true. `noun`, `name` and `list` are used in the error message.
fn find_item(
    items: Vec<Value>,
    matches: impl Fn(&Value) -> bool,
    noun: &str,
    name: &str,
    list: &str,
) -> anyhow::Result<Value> {
    items.into_iter().find(|item| matches(item)).with_context(|| not_found_message(noun, name, list))
}

/// Returns the same message as commands on the database.
fn not_found_message(noun: &str, name: &str, list: &str) -> String {
    format!("there is no {noun} `{}`: run `waypost {list} list` to see all", output::clean(name))
}

/// Removes members that are `null`, so that they stay unchanged in an update.
fn without_nulls(mut body: Value) -> Value {
    if let Some(members) = body.as_object_mut() {
        members.retain(|_, value| !value.is_null());
    }
    body
}
