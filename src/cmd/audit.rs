//! `waypost audit`: the audit log.

use serde_json::{Value, json};
use waypost_core::Timestamp;
use waypost_ops::audit_events::{self, AuditEventView, AuditFilter};

use super::output;
use super::session::Session;
use super::user::Org;

/// Subcommands of `waypost audit`.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// List the audit log of an organisation, newest first.
    List {
        #[command(flatten)]
        org: Org,
        /// Only actions with this prefix, such as `member.`.
        #[arg(long, value_name = "ACT")]
        act: Option<String>,
        /// Only actions of this actor: an ID, a member's email, the name of a key, or `operator`.
        #[arg(long, value_name = "WHO")]
        actor: Option<String>,
        /// Only actions on the object with this ID.
        #[arg(long, value_name = "ID")]
        target: Option<String>,
        /// Only actions at or after this time (RFC 3339).
        #[arg(long, value_name = "TIME", value_parser = parse_time)]
        from: Option<Timestamp>,
        /// Only actions before this time (RFC 3339).
        #[arg(long, value_name = "TIME", value_parser = parse_time)]
        to: Option<Timestamp>,
        /// Maximum number of entries.
        #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000))]
        limit: u32,
    },
}

/// Runs the command.
///
/// # Errors
/// If the operation is rejected.
pub async fn run(session: &Session, command: Command) -> anyhow::Result<()> {
    let Session { cx, ops, json, .. } = session;
    let Command::List { org, act, actor, target, from, to, limit } = command;
    let organization = session.organization(org.org.as_deref()).await?.id;
    let filter = AuditFilter { action: act, actor, target, from, to };
    let events = audit_events::list(cx, ops, &organization, &filter, None, limit).await?;
    output::list(*json, &["created_at", "who", "act", "target", "detail"], events.iter().map(to_json).collect())
}

fn to_json(listed: &AuditEventView) -> Value {
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

pub(super) fn parse_time(text: &str) -> Result<Timestamp, String> {
    Timestamp::from_rfc3339(text)
        .ok_or_else(|| "expected a time in RFC 3339 format, such as `2026-01-31T00:00:00Z`".to_owned())
}
