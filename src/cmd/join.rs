//! `waypost join`: what end users did before they had signed in, and whose it became.

use serde_json::{Value, json};
use waypost_core::Error;
use waypost_core::id::JoinId;
use waypost_core::join::Join;
use waypost_ops::joins;

use super::output;
use super::session::{Session, named};
use super::user::Org;

/// What to do.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Lists the joins of an organisation, newest first.
    List {
        #[command(flatten)]
        org: Org,
    },
    /// Shows a join.
    Show {
        /// Id.
        join: String,
        #[command(flatten)]
        org: Org,
    },
    /// Gives back what was taken over; what the user did since stays theirs.
    Undo {
        /// Id.
        join: String,
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
    let (Command::List { org } | Command::Show { org, .. } | Command::Undo { org, .. }) = &command;
    let organization = session.organization(org.org.as_deref()).await?.id;
    let unknown = |error, text: &str| named(error, "join", text, "join");
    let parse = |text: &str| text.parse::<JoinId>().map_err(|_| unknown(Error::not_found("join"), text));
    match command {
        Command::List { .. } => {
            let items = joins::list(cx, ops, &organization).await?.iter().map(shape).collect();
            let columns = ["id", "kind", "from_end_user_id", "to_end_user_id", "created_at", "undone_at"];
            output::list(*json, &columns, items)
        }
        Command::Show { join, .. } => {
            let found = joins::show(cx, ops, &organization, &parse(&join)?).await;
            output::object(*json, &shape(&found.map_err(|error| unknown(error, &join))?))
        }
        Command::Undo { join, yes, .. } => {
            let id = parse(&join)?;
            joins::show(cx, ops, &organization, &id).await.map_err(|error| unknown(error, &join))?;
            output::confirm(yes, &format!("Undo the join {id}? The signed-in user loses what it brought."))?;
            output::object(*json, &shape(&joins::undo(cx, ops, &organization, &id).await?))
        }
    }
}

fn shape(join: &Join) -> Value {
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
