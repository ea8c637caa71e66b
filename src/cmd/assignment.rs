//! `waypost assignment`: walkthroughs on servers.

use serde_json::{Value, json};
use waypost_core::assignment::Assignment;
use waypost_ops::assignments::{self, AssignmentPatch};

use super::session::Session;
use super::{output, server, walkthrough};

/// What to do.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Places a walkthrough on a server, or changes how it is placed there.
    #[command(alias = "update")]
    Add {
        /// Slug or id of the server.
        #[arg(long, value_name = "SLUG")]
        server: String,
        /// Id or slug of the walkthrough.
        #[arg(long, value_name = "ID")]
        walkthrough: String,
        /// Smaller numbers stand first; by default behind what is there.
        #[arg(long, value_name = "N", allow_negative_numbers = true)]
        order: Option<i64>,
        /// Does not offer it for now.
        #[arg(long)]
        disabled: bool,
        /// Offers it, when it was disabled before.
        #[arg(long, conflicts_with = "disabled")]
        enabled: bool,
    },
    /// Takes a walkthrough off a server. Progress is kept.
    #[command(alias = "delete")]
    Remove {
        /// Slug or id of the server.
        #[arg(long, value_name = "SLUG")]
        server: String,
        /// Id or slug of the walkthrough.
        #[arg(long, value_name = "ID")]
        walkthrough: String,
    },
    /// Lists what is placed on a server, in order.
    List {
        /// Slug or id of the server.
        #[arg(long, value_name = "SLUG")]
        server: String,
        /// Only this walkthrough, by id or slug.
        #[arg(long, value_name = "ID")]
        walkthrough: Option<String>,
    },
}

/// Does it.
///
/// # Errors
/// When the act is refused.
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
            let made = assignments::assign(cx, ops, organization, (&server.id, &head.id), placement).await?;
            output::object(*json, &shape(&made))
        }
        Command::Remove { walkthrough, .. } => {
            let head = walkthrough::find_in(session, organization, &walkthrough).await?;
            assignments::unassign(cx, ops, organization, &server.id, &head.id).await?;
            removed(*json, head.id.as_str(), (&head.title, &server.slug))
        }
        Command::List { walkthrough, .. } => {
            let only = match &walkthrough {
                Some(text) => Some(walkthrough::find_in(session, organization, text).await?.id),
                None => None,
            };
            let found = assignments::list(cx, ops, organization, &server.id).await?;
            let wanted =
                found.iter().filter(|listed| only.as_ref().is_none_or(|id| *id == listed.assignment.walkthrough_id));
            let items = wanted.map(|listed| {
                let mut value = shape(&listed.assignment);
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

pub(super) fn removed(json: bool, walkthrough: &str, (title, slug): (&str, &str)) -> anyhow::Result<()> {
    output::deleted(json, walkthrough, &format!("Took {} off the server {slug}.", output::clean(title)))
}

/// What is shown of one, as [`shape`] writes it.
pub(super) const MEMBERS: &[&str] = &["id", "server_id", "walkthrough_id", "display_order", "enabled", "created_at"];

fn shape(assignment: &Assignment) -> Value {
    json!({
        "id": assignment.id,
        "server_id": assignment.server_id,
        "walkthrough_id": assignment.walkthrough_id,
        "display_order": assignment.display_order,
        "enabled": assignment.enabled,
        "created_at": assignment.created_at.rfc3339(),
    })
}
