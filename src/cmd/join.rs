//! `waypost join`: joins of anonymous progress with signed-in end users.

use serde_json::{Value, json};
use waypost_core::Error;
use waypost_core::SystemRandom;
use waypost_core::id::JoinId;
use waypost_core::join::Join;
use waypost_ops::{claim_links, joins, servers};

use super::session::{Session, not_found_message};
use super::user::Org;
use super::{App, output};
use crate::storage;

/// The members of the output, in the order of [`to_json`].
pub(super) const MEMBERS: &[&str] =
    &["id", "server_id", "kind", "from_end_user_id", "to_end_user_id", "created_at", "undone_at"];
/// The columns of a list.
pub(super) const COLUMNS: [&str; 6] = ["id", "kind", "from_end_user_id", "to_end_user_id", "created_at", "undone_at"];
const HOUR_MS: i64 = 3_600_000;

/// Subcommands of `waypost join`.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// List the joins of an organisation, newest first.
    List {
        #[command(flatten)]
        org: Org,
    },
    /// Show a join.
    Show {
        /// ID of the join.
        join: String,
        #[command(flatten)]
        org: Org,
    },
    /// Create a link with which one user can sign in and claim the progress recorded under a label.
    Link {
        /// The label: a tracking ID chosen by the organisation.
        label: String,
        /// Slug or ID of the server.
        #[arg(long)]
        server: String,
        /// Validity of the link.
        #[arg(long, value_name = "HOURS", default_value_t = 168, value_parser = clap::value_parser!(u32).range(1..=720))]
        expires_in_hours: u32,
        #[command(flatten)]
        org: Org,
    },
    /// Undo a join. Progress that the user made afterwards stays with the user.
    Undo {
        /// ID of the join.
        join: String,
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
pub async fn run(app: &App, session: &Session, command: Command) -> anyhow::Result<()> {
    let Session { cx, ops, json, .. } = session;
    let (Command::List { org } | Command::Show { org, .. } | Command::Link { org, .. } | Command::Undo { org, .. }) =
        &command;
    let organization = session.organization(org.org.as_deref()).await?.id;
    let unknown = |error, text: &str| not_found_message(error, "join", text, "join");
    let parse = |text: &str| text.parse::<JoinId>().map_err(|_| unknown(Error::not_found("join"), text));
    match command {
        Command::List { .. } => {
            let items = joins::list(cx, ops, &organization).await?.iter().map(to_json).collect();
            output::list(*json, &COLUMNS, items)
        }
        Command::Show { join, .. } => {
            let found = joins::get(cx, ops, &organization, &parse(&join)?).await;
            output::object(*json, &to_json(&found.map_err(|error| unknown(error, &join))?))
        }
        Command::Link { label, server, expires_in_hours, .. } => {
            let unknown = |error| not_found_message(error, "server", &server, "server");
            let found = servers::resolve(cx, ops, &server).await.map_err(unknown)?;
            let keys = storage::keys(&app.settings, &SystemRandom)?;
            let (key, lifetime_ms) = (&keys.current, i64::from(expires_in_hours) * HOUR_MS);
            let created = claim_links::create(cx, ops, key, &organization, &found.id, &label, lifetime_ms).await;
            let (found, link) = created.map_err(unknown)?;
            let origin = session.public_url.origin();
            let authority = origin.split_once("://").map_or("", |(_, authority)| authority);
            let address = session.public_url.path_urls(authority, &found.slug);
            let url = address.resource(Some(&link.segment()));
            output::object(*json, &json!({ "url": url, "expires_at": link.expires_at.rfc3339() }))
        }
        Command::Undo { join, yes, .. } => {
            let id = parse(&join)?;
            joins::get(cx, ops, &organization, &id).await.map_err(|error| unknown(error, &join))?;
            confirm_undo(yes, id.as_str())?;
            output::object(*json, &to_json(&joins::undo(cx, ops, &organization, &id).await?))
        }
    }
}

/// Asks for confirmation before a join is undone.
///
/// # Errors
/// If the user declines.
pub(super) fn confirm_undo(yes: bool, id: &str) -> anyhow::Result<()> {
    output::confirm(yes, &format!("Undo join {id}? The signed-in user loses the progress it added."))
}

fn to_json(join: &Join) -> Value {
    json!({
        "id": join.id,
        "server_id": join.server_id,
        "kind": join.kind.as_str(),
        "from_end_user_id": join.from_end_user_id,
        "to_end_user_id": join.to_end_user_id,
        "created_at": join.created_at.rfc3339(),
        "undone_at": join.undone_at.map(|at| at.rfc3339()),
    })
}
