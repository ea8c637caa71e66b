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
use super::session::{Session, named};

/// What to do.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Makes an organisation.
    Create {
        /// Short name, unique.
        slug: String,
        /// Name for people; the slug by default.
        #[arg(long)]
        name: Option<String>,
    },
    /// Lists organisations.
    List,
    /// Shows an organisation.
    Show {
        /// Slug or id.
        org: String,
    },
    /// Changes slug, name or logo.
    Update {
        /// Slug or id.
        org: String,
        /// A new slug.
        #[arg(long)]
        slug: Option<String>,
        /// A new name.
        #[arg(long)]
        name: Option<String>,
        /// A picture for the pages on which end users sign in: PNG, JPEG, GIF or WebP; `none` takes it away.
        #[arg(long, value_name = "FILE")]
        logo: Option<PathBuf>,
    },
    /// Deletes an organisation and everything it owns, progress included.
    Delete {
        /// Slug or id.
        org: String,
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
    match command {
        Command::Create { slug, name } => {
            let made = organizations::create(cx, ops, &slug, name.as_deref()).await?;
            output::object(*json, &shape(&made))
        }
        Command::List => print_list(*json, organizations::list(cx, ops).await?.iter().map(shape).collect()),
        Command::Show { org } => output::object(*json, &shape(&find(session, &org).await?)),
        Command::Update { org, slug, name, logo } => {
            let organization = find(session, &org).await?;
            if let Some(logo) = logo {
                match read_logo(&logo)? {
                    None => logos::remove(cx, ops, &organization.id).await?,
                    Some(bytes) => logos::set(cx, ops, &organization.id, bytes).await?,
                }
            }
            let changes = OrganizationPatch { slug, name };
            let changed = organizations::update(cx, ops, &organization.id, &changes).await?;
            output::object(*json, &shape(&changed))
        }
        Command::Delete { org, yes } => {
            let organization = find(session, &org).await?;
            let slug = &organization.slug;
            confirm_deletion(yes, slug)?;
            organizations::delete(cx, ops, &organization.id).await?;
            deleted(*json, organization.id.as_str(), slug)
        }
    }
}

/// The bytes of a file that is to be a logo; none for the word that takes it away.
///
/// # Errors
/// When the file cannot be read.
pub(super) fn read_logo(logo: &Path) -> anyhow::Result<Option<Vec<u8>>> {
    if logo == Path::new("none") {
        return Ok(None);
    }
    let file = File::open(logo).with_context(|| format!("{} cannot be read", logo.display()))?;
    let mut bytes = Vec::new();
    // One byte more than is allowed is enough to see that it is too much.
    let most = logos::MAX_BYTES as u64 + 1;
    file.take(most).read_to_end(&mut bytes).with_context(|| format!("{} cannot be read", logo.display()))?;
    Ok(Some(bytes))
}

pub(super) fn print_list(json: bool, items: Vec<Value>) -> anyhow::Result<()> {
    output::list(json, &["slug", "name", "id", "created_at"], items)
}

pub(super) fn confirm_deletion(yes: bool, slug: &str) -> anyhow::Result<()> {
    output::confirm(yes, &format!("Delete the organisation {slug} and everything it owns?"))
}

pub(super) fn deleted(json: bool, id: &str, slug: &str) -> anyhow::Result<()> {
    output::deleted(json, id, &format!("Deleted the organisation {slug}."))
}

async fn find(session: &Session, text: &str) -> anyhow::Result<Organization> {
    let found = organizations::find(&session.cx, &session.ops, text).await;
    found.map_err(|error| named(error, "organisation", text, "org"))
}

/// What is shown of one, as [`shape`] writes it.
pub(super) const MEMBERS: &[&str] = &["id", "slug", "name", "created_at"];

fn shape(organization: &Organization) -> Value {
    json!({
        "id": organization.id,
        "slug": organization.slug,
        "name": organization.name,
        "created_at": organization.created_at.rfc3339(),
    })
}
