//! `waypost key`: API keys.

use serde_json::{Value, json};
use waypost_core::Timestamp;
use waypost_core::id::OrganizationId;
use waypost_core::organization::{ApiKey, Role};
use waypost_ops::api_keys::{self, ApiKeyPatch, CreateApiKey};

use super::output;
use super::session::{Session, named, one_of};
use super::user::Org;

const DAY_MS: i64 = 24 * 60 * 60 * 1_000;

/// What to do.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Makes a key and shows it, this once.
    Create {
        #[command(flatten)]
        org: Org,
        /// Name for people, unique in the organisation.
        #[arg(long)]
        name: String,
        /// The role that it acts as.
        #[arg(long, default_value = "admin", value_parser = one_of(Role::ALL, Role::as_str))]
        scope: Role,
        /// Stops working after so many days; without it, never.
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=3_652))]
        expires_in_days: Option<u32>,
    },
    /// Lists the keys of an organisation, without their secrets.
    List {
        #[command(flatten)]
        org: Org,
    },
    /// Shows a key, without its secret.
    Show {
        /// Name or id.
        key: String,
        #[command(flatten)]
        org: Org,
    },
    /// Changes name or scope.
    Update {
        /// Name or id.
        key: String,
        #[command(flatten)]
        org: Org,
        /// A new name.
        #[arg(long)]
        name: Option<String>,
        /// Another role to act as.
        #[arg(long, value_parser = one_of(Role::ALL, Role::as_str))]
        scope: Option<Role>,
    },
    /// Deletes a key: it stops working at once.
    Delete {
        /// Name or id.
        key: String,
        #[command(flatten)]
        org: Org,
        /// Does not ask.
        #[arg(long)]
        yes: bool,
    },
}

/// Does it.
///
/// # Errors
/// When the act is refused.
pub async fn run(session: &Session, command: Command) -> anyhow::Result<()> {
    let Session { cx, ops, json, .. } = session;
    let (Command::Create { org, .. }
    | Command::List { org }
    | Command::Show { org, .. }
    | Command::Update { org, .. }
    | Command::Delete { org, .. }) = &command;
    let organization = session.organization(org.org.as_deref()).await?.id;
    match command {
        Command::Create { name, scope, expires_in_days, .. } => {
            let expires_at = expires_in_days.map(|days| end(cx.now(), days));
            let new = CreateApiKey { name: &name, scope, expires_at };
            let (made, secret) = api_keys::create(cx, ops, &organization, new).await?;
            let mut shown = json!({"id": made.id, "name": made.name, "key": secret});
            if let Some(at) = made.expires_at {
                shown["expires_at"] = at.rfc3339().into();
            }
            print_secret(*json, &shown)
        }
        Command::List { .. } => {
            print_list(*json, api_keys::list(cx, ops, &organization).await?.iter().map(shape).collect())
        }
        Command::Show { key, .. } => output::object(*json, &shape(&find(session, &organization, &key).await?)),
        Command::Update { key, name, scope, .. } => {
            let found = find(session, &organization, &key).await?;
            let changes = ApiKeyPatch { name, scope, expires_at: None };
            let changed = api_keys::update(cx, ops, &organization, &found.id, &changes).await?;
            output::object(*json, &shape(&changed))
        }
        Command::Delete { key, yes, .. } => {
            let found = find(session, &organization, &key).await?;
            confirm_deletion(yes, &found.name)?;
            api_keys::delete(cx, ops, &organization, &found.id).await?;
            deleted(*json, found.id.as_str(), &found.name)
        }
    }
}

async fn find(session: &Session, organization: &OrganizationId, text: &str) -> anyhow::Result<ApiKey> {
    let found = api_keys::find(&session.cx, &session.ops, organization, text).await;
    found.map_err(|error| named(error, "key", text, "key"))
}

/// When a key ends that works for so many days.
pub(super) fn end(now: Timestamp, days: u32) -> Timestamp {
    now.plus(i64::from(days) * DAY_MS)
}

/// Shows a new key with its secret.
pub(super) fn print_secret(json: bool, shown: &Value) -> anyhow::Result<()> {
    output::object(json, shown)?;
    if json { Ok(()) } else { output::text("Keep the key now: it cannot be shown again.\n") }
}

pub(super) fn print_list(json: bool, items: Vec<Value>) -> anyhow::Result<()> {
    output::list(json, &["name", "scope", "id", "created_at", "expires_at", "last_used_at"], items)
}

pub(super) fn confirm_deletion(yes: bool, name: &str) -> anyhow::Result<()> {
    output::confirm(yes, &format!("Delete the key {}? It stops working at once.", output::clean(name)))
}

pub(super) fn deleted(json: bool, id: &str, name: &str) -> anyhow::Result<()> {
    output::deleted(json, id, &format!("Deleted the key {}.", output::clean(name)))
}

/// What is shown of one, as [`shape`] writes it.
pub(super) const MEMBERS: &[&str] = &["id", "name", "scope", "created_at", "expires_at", "last_used_at"];

fn shape(key: &ApiKey) -> Value {
    json!({
        "id": key.id,
        "name": key.name,
        "scope": key.scope.as_str(),
        "created_at": key.created_at.rfc3339(),
        "expires_at": key.expires_at.map(Timestamp::rfc3339),
        "last_used_at": key.last_used_at.map(Timestamp::rfc3339),
    })
}
