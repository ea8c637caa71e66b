//! `waypost audit`: who did what.

use serde_json::{Value, json};
use waypost_core::Timestamp;
use waypost_ops::audit_events::{self, AuditEventView, Filter};

use super::output;
use super::session::Session;
use super::user::Org;

/// What to do.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Lists what was done in an organisation, newest first.
    List {
        #[command(flatten)]
        org: Org,
        /// Only acts that begin so, such as `member.`.
        #[arg(long, value_name = "ACT")]
        act: Option<String>,
        /// Only what this one did: an id, the address of a member, the name of a key, or `operator`.
        #[arg(long, value_name = "WHO")]
        actor: Option<String>,
        /// Only what was done to the thing with this id.
        #[arg(long, value_name = "ID")]
        target: Option<String>,
        /// Not before this time, by RFC 3339.
        #[arg(long, value_name = "TIME", value_parser = time)]
        from: Option<Timestamp>,
        /// Before this time, by RFC 3339.
        #[arg(long, value_name = "TIME", value_parser = time)]
        to: Option<Timestamp>,
        /// Entries at most.
        #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000))]
        limit: u32,
    },
}

/// Does it.
///
/// # Errors
/// When the act is refused.
pub async fn run(session: &Session, command: Command) -> anyhow::Result<()> {
    let Session { cx, ops, json, .. } = session;
    let Command::List { org, act, actor, target, from, to, limit } = command;
    let organization = session.organization(org.org.as_deref()).await?.id;
    let filter = Filter { act, actor, target, from, to };
    let found = audit_events::list(cx, ops, &organization, &filter, (None, limit)).await?;
    output::list(*json, &["created_at", "who", "act", "target", "detail"], found.iter().map(shape).collect())
}

fn shape(listed: &AuditEventView) -> Value {
    let event = &listed.event;
    json!({
        "id": event.id,
        "created_at": event.created_at.rfc3339(),
        "who": listed.actor_name.as_deref().unwrap_or(&event.actor),
        "actor": event.actor,
        "actor_name": listed.actor_name,
        "act": event.act,
        "target": event.target,
        "detail": event.detail,
    })
}

fn time(text: &str) -> Result<Timestamp, String> {
    Timestamp::from_rfc3339(text)
        .ok_or_else(|| "expected a time by RFC 3339, such as `2026-01-31T00:00:00Z`".to_owned())
}
