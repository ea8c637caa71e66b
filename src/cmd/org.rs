//! `waypost org`: organisations.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::Context;
use serde_json::{Value, json};
use waypost_core::organization::Organization;
use waypost_ops::logos;
use waypost_ops::organizations::{self, OrganizationPatch};

use super::output;
use super::session::{Session, not_found_message};

/// Subcommands of `waypost org`.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Create an organisation.
    Create {
        /// Slug, unique across all organisations.
        slug: String,
        /// Display name [default: the slug].
        #[arg(long)]
        name: Option<String>,
    },
    /// List organisations.
    List,
    /// Show an organisation.
    Show {
        /// Slug or ID of the organisation.
        org: String,
    },
    /// Change the slug, name or logo of an organisation, or switch its toolboxes or its gateway on or off.
    Update {
        /// Slug or ID of the organisation.
        org: String,
        /// New slug.
        #[arg(long)]
        slug: Option<String>,
        /// New name.
        #[arg(long)]
        name: Option<String>,
        /// Logo for the sign-in pages and public pages of servers: a PNG, JPEG, GIF or WebP file; `none` removes it.
        #[arg(long, value_name = "FILE")]
        logo: Option<PathBuf>,
        /// Whether its toolboxes may connect and its instances can be changed and called. With `off`, containers keep
        /// running on the machines.
        #[arg(long, value_name = "on|off", value_parser = parse_switch, action = clap::ArgAction::Set)]
        toolboxes: Option<bool>,
        /// Whether its agents can use the gateway. With `off`, their requests are rejected and their streams end;
        /// running calls may finish.
        #[arg(long, value_name = "on|off", value_parser = parse_switch, action = clap::ArgAction::Set)]
        gateway: Option<bool>,
    },
    /// Delete an organisation and everything it owns, including progress.
    Delete {
        /// Slug or ID of the organisation.
        org: String,
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
    match command {
        Command::Create { slug, name } => {
            let created = organizations::create(cx, ops, &slug, name.as_deref()).await?;
            output::object(*json, &to_json(&created))
        }
        Command::List => print_list(*json, organizations::list(cx, ops).await?.iter().map(to_json).collect()),
        Command::Show { org } => output::object(*json, &to_json(&find(session, &org).await?)),
        Command::Update { org, slug, name, logo, toolboxes, gateway } => {
            let organization = find(session, &org).await?;
            if let Some(logo) = logo {
                match read_logo(&logo)? {
                    None => logos::delete(cx, ops, &organization.id).await?,
                    Some(bytes) => logos::set(cx, ops, &organization.id, bytes).await?,
                }
            }
            let changes = OrganizationPatch { slug, name, toolboxes_enabled: toolboxes, gateway_enabled: gateway };
            let updated = organizations::update(cx, ops, &organization.id, &changes).await?;
            output::object(*json, &to_json(&updated))
        }
        Command::Delete { org, yes } => {
            let organization = find(session, &org).await?;
            let slug = &organization.slug;
            confirm_deletion(yes, slug)?;
            organizations::delete(cx, ops, &organization.id).await?;
            print_deleted(*json, organization.id.as_str(), slug)
        }
    }
}

/// Reads a logo file. `None` if the argument is `none`, which removes the logo.
///
/// # Errors
/// If the file cannot be read.
pub(super) fn read_logo(logo: &Path) -> anyhow::Result<Option<Vec<u8>>> {
    if logo == Path::new("none") {
        return Ok(None);
    }
    let file = File::open(logo).with_context(|| format!("cannot read {}", logo.display()))?;
    let mut bytes = Vec::new();
    // One byte more than allowed is enough to detect a file that is too large.
    let limit = logos::MAX_BYTES as u64 + 1;
    file.take(limit).read_to_end(&mut bytes).with_context(|| format!("cannot read {}", logo.display()))?;
    Ok(Some(bytes))
}

pub(super) fn print_list(json: bool, items: Vec<Value>) -> anyhow::Result<()> {
    output::list(json, &["slug", "name", "id", "created_at"], items)
}

pub(super) fn confirm_deletion(yes: bool, slug: &str) -> anyhow::Result<()> {
    output::confirm(yes, &format!("Delete the organisation {slug} and everything it owns?"))
}

pub(super) fn print_deleted(json: bool, id: &str, slug: &str) -> anyhow::Result<()> {
    output::deleted(json, id, &format!("Deleted the organisation {slug}."))
}

async fn find(session: &Session, text: &str) -> anyhow::Result<Organization> {
    let found = organizations::resolve(&session.cx, &session.ops, text).await;
    found.map_err(|error| not_found_message(error, "organisation", text, "org"))
}

/// The members of the output, in the order of [`to_json`].
pub(super) const MEMBERS: &[&str] = &["id", "slug", "name", "toolboxes_enabled", "gateway_enabled", "created_at"];

fn parse_switch(text: &str) -> Result<bool, String> {
    crate::config::value::parse_switch(text)
}

fn to_json(organization: &Organization) -> Value {
    json!({
        "id": organization.id,
        "slug": organization.slug,
        "name": organization.name,
        "toolboxes_enabled": organization.toolboxes_enabled,
        "gateway_enabled": organization.gateway_enabled,
        "created_at": organization.created_at.rfc3339(),
    })
}
