//! `waypost key`: API keys.

use serde_json::{Value, json};
use waypost_core::Timestamp;
use waypost_core::id::OrganizationId;
use waypost_core::organization::{ApiKey, Role};
use waypost_ops::api_keys::{self, ApiKeyPatch, CreateApiKey};

use super::output;
use super::session::{Session, not_found_message, one_of};
use super::user::Org;

const DAY_MS: i64 = 24 * 60 * 60 * 1_000;

/// Subcommands of `waypost key`.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Create an API key. It is shown only once.
    Create {
        #[command(flatten)]
        org: Org,
        /// Display name, unique in the organisation.
        #[arg(long)]
        name: String,
        /// Role of the key.
        #[arg(long, default_value = "admin", value_parser = one_of(Role::ALL, Role::as_str))]
        scope: Role,
        /// Number of days until the key expires; by default, it never expires.
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=3_652))]
        expires_in_days: Option<u32>,
    },
    /// List the API keys of an organisation, without their secrets.
    List {
        #[command(flatten)]
        org: Org,
    },
    /// Show an API key, without its secret.
    Show {
        /// Name or ID of the key.
        key: String,
        #[command(flatten)]
        org: Org,
    },
    /// Change the name or scope of an API key.
    Update {
        /// Name or ID of the key.
        key: String,
        #[command(flatten)]
        org: Org,
        /// New name.
        #[arg(long)]
        name: Option<String>,
        /// New role.
        #[arg(long, value_parser = one_of(Role::ALL, Role::as_str))]
        scope: Option<Role>,
    },
    /// Delete an API key. It stops working immediately.
    Delete {
        /// Name or ID of the key.
        key: String,
        #[command(flatten)]
        org: Org,
        /// Do not ask for confirmation.
        #[arg(long)]
        yes: bool,
    },
}

/// Runs the command.
///
/// # Errors
/// If the operation is rejected.
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
            let expires_at = expires_in_days.map(|days| expiry(cx.now(), days));
            let new = CreateApiKey { name: &name, scope, expires_at };
            let (created, secret) = api_keys::create(cx, ops, &organization, new).await?;
            let mut value = json!({"id": created.id, "name": created.name, "key": secret});
            if let Some(at) = created.expires_at {
                value["expires_at"] = at.rfc3339().into();
            }
            print_secret(*json, &value)
        }
        Command::List { .. } => {
            print_list(*json, api_keys::list(cx, ops, &organization).await?.iter().map(to_json).collect())
        }
        Command::Show { key, .. } => output::object(*json, &to_json(&find(session, &organization, &key).await?)),
        Command::Update { key, name, scope, .. } => {
            let api_key = find(session, &organization, &key).await?;
            let changes = ApiKeyPatch { name, scope, expires_at: None };
            let updated = api_keys::update(cx, ops, &organization, &api_key.id, &changes).await?;
            output::object(*json, &to_json(&updated))
        }
        Command::Delete { key, yes, .. } => {
            let api_key = find(session, &organization, &key).await?;
            confirm_deletion(yes, &api_key.name)?;
            api_keys::delete(cx, ops, &organization, &api_key.id).await?;
            print_deleted(*json, api_key.id.as_str(), &api_key.name)
        }
    }
}

async fn find(session: &Session, organization: &OrganizationId, text: &str) -> anyhow::Result<ApiKey> {
    let api_key = api_keys::resolve(&session.cx, &session.ops, organization, text).await;
    api_key.map_err(|error| not_found_message(error, "key", text, "key"))
}

/// Returns the expiry time of a key that is valid for `days` days.
pub(super) fn expiry(now: Timestamp, days: u32) -> Timestamp {
    now.plus(i64::from(days) * DAY_MS)
}

/// Prints a new key with its secret.
pub(super) fn print_secret(json: bool, value: &Value) -> anyhow::Result<()> {
    output::object(json, value)?;
    if json { Ok(()) } else { output::text("Store the key now. It cannot be shown again.\n") }
}

pub(super) fn print_list(json: bool, items: Vec<Value>) -> anyhow::Result<()> {
    output::list(json, &["name", "scope", "id", "created_at", "expires_at", "last_used_at"], items)
}

pub(super) fn confirm_deletion(yes: bool, name: &str) -> anyhow::Result<()> {
    output::confirm(yes, &format!("Delete the key {}? It stops working immediately.", output::clean(name)))
}

pub(super) fn print_deleted(json: bool, id: &str, name: &str) -> anyhow::Result<()> {
    output::deleted(json, id, &format!("Deleted the key {}.", output::clean(name)))
}

/// The members of the output, in the order of [`to_json`].
pub(super) const MEMBERS: &[&str] = &["id", "name", "scope", "created_at", "expires_at", "last_used_at"];

fn to_json(key: &ApiKey) -> Value {
    json!({
        "id": key.id,
        "name": key.name,
        "scope": key.scope.as_str(),
        "created_at": key.created_at.rfc3339(),
        "expires_at": key.expires_at.map(Timestamp::rfc3339),
        "last_used_at": key.last_used_at.map(Timestamp::rfc3339),
    })
}
