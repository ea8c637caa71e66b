//! `waypost assignment`: assigns walkthroughs to servers.

use serde_json::{Value, json};
use waypost_core::assignment::Assignment;
use waypost_ops::assignments::{self, AssignmentPatch};

use super::session::Session;
use super::{output, server, walkthrough};

/// Subcommands of `waypost assignment`.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Assign a walkthrough to a server, or change an assignment.
    #[command(alias = "update")]
    Add {
        /// Slug or ID of the server.
        #[arg(long, value_name = "SLUG")]
        server: String,
        /// ID or slug of the walkthrough.
        #[arg(long, value_name = "ID")]
        walkthrough: String,
        /// Display order, lowest first; default: after the existing assignments.
        #[arg(long, value_name = "N", allow_negative_numbers = true)]
        order: Option<i64>,
        /// Do not offer the walkthrough for now.
        #[arg(long)]
        disabled: bool,
        /// Offer a disabled walkthrough again.
        #[arg(long, conflicts_with = "disabled")]
        enabled: bool,
    },
    /// Remove a walkthrough from a server. Progress is kept.
    #[command(alias = "delete")]
    Remove {
        /// Slug or ID of the server.
        #[arg(long, value_name = "SLUG")]
        server: String,
        /// ID or slug of the walkthrough.
        #[arg(long, value_name = "ID")]
        walkthrough: String,
    },
    /// List the assignments of a server in display order.
    List {
        /// Slug or ID of the server.
        #[arg(long, value_name = "SLUG")]
        server: String,
        /// Show only this walkthrough (ID or slug).
        #[arg(long, value_name = "ID")]
        walkthrough: Option<String>,
    },
}

/// Runs the command.
///
/// # Errors
/// If the operation is rejected.
pub async fn run(session: &Session, command: Command) -> anyhow::Result<()> {
    let Session { cx, ops, json, .. } = session;
    let (Command::Add { server: slug, .. } | Command::Remove { server: slug, .. } | Command::List { server: slug, .. }) =
        &command;
    let server = server::find(session, slug).await?;
    let organization = &server.organization_id;
    match command {
        Command::Add { walkthrough, order, disabled, enabled, .. } => {
            let head = walkthrough::find_in(session, organization, &walkthrough).await?;
            let enabled = (disabled || enabled).then_some(enabled);
            let placement = AssignmentPatch { display_order: order, enabled };
            let assignment = assignments::assign(cx, ops, organization, &server.id, &head.id, placement).await?;
            output::object(*json, &to_json(&assignment))
        }
        Command::Remove { walkthrough, .. } => {
            let head = walkthrough::find_in(session, organization, &walkthrough).await?;
            assignments::unassign(cx, ops, organization, &server.id, &head.id).await?;
            print_removed(*json, head.id.as_str(), &head.title, &server.slug)
        }
        Command::List { walkthrough, .. } => {
            let only = match &walkthrough {
                Some(text) => Some(walkthrough::find_in(session, organization, text).await?.id),
                None => None,
            };
            let assignments = assignments::list(cx, ops, organization, &server.id).await?;
            let selected = assignments
                .iter()
                .filter(|listed| only.as_ref().is_none_or(|id| *id == listed.assignment.walkthrough_id));
            let items = selected.map(|listed| {
                let mut value = to_json(&listed.assignment);
                value["title"] = json!(listed.title);
                value["state"] = json!(listed.state.as_str());
                value
            });
            print_list(*json, items.collect())
        }
    }
}

pub(super) fn print_list(json: bool, items: Vec<Value>) -> anyhow::Result<()> {
    output::list(json, &["display_order", "walkthrough_id", "title", "state", "enabled"], items)
}

pub(super) fn print_removed(json: bool, walkthrough: &str, title: &str, slug: &str) -> anyhow::Result<()> {
    output::deleted(json, walkthrough, &format!("Removed {} from server {slug}.", output::clean(title)))
}

/// The members of the output, in the order of [`to_json`].
pub(super) const MEMBERS: &[&str] = &["id", "server_id", "walkthrough_id", "display_order", "enabled", "created_at"];

fn to_json(assignment: &Assignment) -> Value {
    json!({
        "id": assignment.id,
        "server_id": assignment.server_id,
        "walkthrough_id": assignment.walkthrough_id,
        "display_order": assignment.display_order,
        "enabled": assignment.enabled,
        "created_at": assignment.created_at.rfc3339(),
    })
}
