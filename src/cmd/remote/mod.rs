//! Commands through the REST API of a running server (`--url`): the same flags, output and exit codes as on the database,
//! one file per noun.

mod assignment;
mod client;
mod endpoint;
mod error;
mod join;
mod key;
mod oauth_config;
mod org;
mod server;
mod user;
mod walkthrough;

use std::process::ExitCode;

use anyhow::{Context, bail};
use serde_json::{Map, Value, json};

use client::{Body, Client};
pub use endpoint::{ApiEndpoint, find};

use super::{App, Command, output};

/// A command at work through the API.
pub struct RemoteSession {
    client: Client,
    /// Whether data is printed as JSON.
    json: bool,
    /// The organisation of the key, as the API shows it.
    organization: Value,
}

/// Does the command through the API at `address`.
///
/// # Errors
/// When there is no way to it, or it is refused.
pub async fn run(app: &App, address: ApiEndpoint, command: Command) -> anyhow::Result<ExitCode> {
    let remote = RemoteSession::connect(app, address).await?;
    match command {
        Command::Org(command) => org::run(&remote, command).await?,
        Command::User(command) => user::run(&remote, command).await?,
        Command::Server(command) => server::run(&remote, command).await?,
        Command::Key(command) => key::run(&remote, command).await?,
        Command::Join(command) => join::run(&remote, command).await?,
        Command::Assignment(command) => assignment::run(&remote, command).await?,
        Command::Walkthrough(command) => walkthrough::run(&remote, command).await?,
        Command::OauthConfig(command) => return oauth_config::run(&remote, command).await,
        _ => bail!("this command does not work with --url"),
    }
    Ok(ExitCode::SUCCESS)
}

impl RemoteSession {
    /// Asks whose the key is, which also tells whether there is a way, an API behind it, and a key that it takes.
    async fn connect(app: &App, address: ApiEndpoint) -> anyhow::Result<Self> {
        let client = Client::new(address, &app.settings)?;
        let mut organizations = client.list(&["organizations"], &[]).await?;
        if organizations.len() != 1 {
            return Err(error::strange(client.origin()));
        }
        Ok(Self { client, json: app.json, organization: organizations.remove(0) })
    }

    fn organization_id(&self) -> &str {
        text(&self.organization, "id")
    }

    fn organization_slug(&self) -> String {
        output::clean(text(&self.organization, "slug"))
    }

    /// Sees to it that the organisation that is named, if any, is the key's.
    fn organization(&self, named: Option<&str>) -> anyhow::Result<()> {
        let own = |named: &str| [self.organization_id(), text(&self.organization, "slug")].contains(&named);
        match named {
            Some(named) if !own(named) => {
                let (slug, named) = (self.organization_slug(), output::clean(named));
                bail!("the API key is for the organisation `{slug}`, not for `{named}`: use a key of `{named}`")
            }
            _ => Ok(()),
        }
    }

    /// The members that the command shows, in its order.
    fn shape(&self, it: &Value, members: &[&str]) -> Value {
        let member = |name: &&str| {
            let own = it.get(*name).cloned();
            // The API does not repeat what every answer of a key has in common.
            let value = own.or_else(|| (*name == "organization_id").then(|| json!(self.organization_id())));
            ((*name).to_owned(), value.unwrap_or_default())
        };
        Value::Object(members.iter().map(member).collect::<Map<_, _>>())
    }

    fn shapes(&self, items: &[Value], members: &[&str]) -> Vec<Value> {
        items.iter().map(|item| self.shape(item, members)).collect()
    }
}

/// A member that is a text.
fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_default()
}

/// The only one that `is` true of; `noun` and `list` are for the refusal.
fn only(
    items: Vec<Value>,
    is: impl Fn(&Value) -> bool,
    (noun, name, list): (&str, &str, &str),
) -> anyhow::Result<Value> {
    items.into_iter().find(|item| is(item)).with_context(|| unknown(noun, name, list))
}

/// As a command on the database says it.
fn unknown(noun: &str, name: &str, list: &str) -> String {
    format!("there is no {noun} `{}`: `waypost {list} list` shows them", output::clean(name))
}

/// The members that are there: what is not named stays as it is.
fn given(mut body: Value) -> Value {
    if let Some(members) = body.as_object_mut() {
        members.retain(|_, value| !value.is_null());
    }
    body
}
