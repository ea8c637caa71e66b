//! All data about an end user: export, counts, and deletion of rows that no foreign key covers.

use waypost_core::id::{EndUserId, OrganizationId};

use crate::db::{Conn, Dialect};
use crate::error::Result;
use crate::on;

/// The parts of the export: name, source of the rows, and columns. `$1` is the end user, `$2` the organisation. Hashes
/// and sealed values are omitted. New tables with data about end users must be added here.
const PARTS: &[(&str, &str, &[&str])] = &[
    (
        "profile",
        "end_users WHERE id = $1 AND organization_id = $2",
        &["id", "tracking_id", "name", "picture_url", "email", "claimed_email", "created_at"],
    ),
    (
        "identities",
        "identities WHERE end_user_id = $1 AND organization_id = $2 ORDER BY id",
        &["id", "issuer", "subject", "email", "email_verified", "created_at", "last_sign_in_at"],
    ),
    (
        "accounts",
        "accounts WHERE organization_id = $2 AND id IN (SELECT subject FROM identities
            WHERE end_user_id = $1 AND issuer = 'waypost') ORDER BY id",
        &["id", "email", "created_at", "updated_at"],
    ),
    (
        "sessions",
        "client_sessions WHERE end_user_id = $1 AND organization_id = $2 ORDER BY id",
        &[
            "id",
            "server_id",
            "client_name",
            "client_version",
            "protocol_version",
            "created_at",
            "last_used_at",
            "joined_at",
        ],
    ),
    (
        "browser_sessions",
        "browser_sessions WHERE end_user_id = $1 AND organization_id = $2 ORDER BY created_at",
        &["identity_id", "created_at", "expires_at"],
    ),
    (
        "progress",
        "progress WHERE end_user_id = $1 AND organization_id = $2 ORDER BY id",
        &[
            "id",
            "server_id",
            "walkthrough_id",
            "version_id",
            "status",
            "started_at",
            "completed_at",
            "last_activity_at",
            "closed_at",
            "metadata",
        ],
    ),
    (
        "completions",
        "step_completions WHERE progress_id IN (SELECT id FROM progress
            WHERE end_user_id = $1 AND organization_id = $2) ORDER BY progress_id, step_id",
        &["progress_id", "step_id", "version_id", "completed_at"],
    ),
    (
        "events",
        "walkthrough_events WHERE end_user_id = $1 AND organization_id = $2 ORDER BY created_at, id",
        &[
            "id",
            "server_id",
            "walkthrough_id",
            "progress_id",
            "version_id",
            "step_id",
            "kind",
            "created_at",
            "client_name",
            "elapsed_ms",
            "took_ms",
        ],
    ),
    (
        "tool_calls",
        "tool_calls WHERE end_user_id = $1 AND organization_id = $2 ORDER BY created_at, id",
        &[
            "id",
            "server_id",
            "tool",
            "arguments",
            "outcome",
            "duration_us",
            "client_name",
            "protocol_version",
            "request_id",
            "created_at",
            "session_id",
        ],
    ),
    (
        "grants",
        "oauth_grants WHERE end_user_id = $1 AND organization_id = $2 ORDER BY id",
        &[
            "id",
            "server_id",
            "client_id",
            "client_name",
            "scope",
            "resource",
            "created_at",
            "expires_at",
            "revoked_at",
            "revoked_reason",
        ],
    ),
    (
        "consents",
        "oauth_consents WHERE end_user_id = $1 AND organization_id = $2 ORDER BY server_id, client_id, redirect",
        &["server_id", "client_id", "redirect", "scope", "updated_at"],
    ),
    (
        "provider_tokens",
        "identity_provider_tokens WHERE organization_id = $2 AND identity_id IN (SELECT id FROM identities
            WHERE end_user_id = $1) ORDER BY identity_id",
        &["identity_id", "oauth_config_id", "scope", "expires_at", "updated_at"],
    ),
    (
        "joins",
        "joins WHERE organization_id = $2 AND (from_end_user_id = $1 OR to_end_user_id = $1) ORDER BY id",
        &["id", "server_id", "from_end_user_id", "to_end_user_id", "kind", "created_at", "undone_at"],
    ),
    (
        "tickets",
        "tickets WHERE end_user_id = $1 AND organization_id = $2 ORDER BY id",
        &[
            "id",
            "number",
            "server_id",
            "walkthrough_id",
            "walkthrough_title",
            "version",
            "step_id",
            "step_title",
            "title",
            "problem",
            "context",
            "email",
            "email_verified",
            "status",
            "priority",
            "created_at",
            "updated_at",
            "resolved_at",
        ],
    ),
    (
        "ticket_comments",
        "ticket_comments WHERE organization_id = $2 AND ticket_id IN (SELECT id FROM tickets WHERE end_user_id = $1)
            ORDER BY id",
        &["id", "ticket_id", "author", "body", "internal", "mailed_to", "created_at", "updated_at"],
    ),
    (
        "webhook_deliveries",
        "webhook_deliveries WHERE end_user_id = $1 AND organization_id = $2 ORDER BY id",
        &["id", "webhook_id", "event", "payload", "status", "created_at", "delivered_at"],
    ),
];

/// Returns all data about an end user: the parts by name, with each row as a JSON object.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn export(
    conn: &mut Conn,
    organization: &OrganizationId,
    id: &EndUserId,
) -> Result<Vec<(&'static str, Vec<String>)>> {
    let object = if conn.dialect() == Dialect::Sqlite { "json_object" } else { "json_build_object" };
    let mut parts = Vec::with_capacity(PARTS.len());
    for (name, from, columns) in PARTS {
        let members: Vec<_> = columns.iter().map(|column| format!("'{column}', {column}")).collect();
        let sql = format!("SELECT CAST({object}({}) AS TEXT) FROM {from}", members.join(", "));
        let sql = sqlx::AssertSqlSafe(sql);
        let rows: Vec<String> = on!(conn, c => sqlx::query_scalar(sql)
            .bind(id.as_str()).bind(organization.as_str()).fetch_all(c).await?);
        parts.push((*name, rows));
    }
    Ok(parts)
}

/// The numbers of objects that are deleted with an end user.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct EndUserDataCounts {
    /// The number of attempts.
    pub attempts: i64,
    /// The number of events.
    pub events: i64,
    /// The number of recorded calls.
    pub calls: i64,
    /// The number of client sessions.
    pub sessions: i64,
    /// The number of OAuth grants.
    pub oauth_grants: i64,
    /// The number of support tickets.
    pub tickets: i64,
}

/// Counts the objects that are deleted with an end user.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn count_data(conn: &mut Conn, organization: &OrganizationId, id: &EndUserId) -> Result<EndUserDataCounts> {
    const SQL: &str = "SELECT
        (SELECT count(*) FROM progress WHERE end_user_id = $1 AND organization_id = $2),
        (SELECT count(*) FROM walkthrough_events WHERE end_user_id = $1 AND organization_id = $2),
        (SELECT count(*) FROM tool_calls WHERE end_user_id = $1 AND organization_id = $2),
        (SELECT count(*) FROM client_sessions WHERE end_user_id = $1 AND organization_id = $2),
        (SELECT count(*) FROM oauth_grants WHERE end_user_id = $1 AND organization_id = $2),
        (SELECT count(*) FROM tickets WHERE end_user_id = $1 AND organization_id = $2)";
    let (attempts, events, calls, sessions, oauth_grants, tickets) = on!(conn, c => sqlx::query_as(SQL)
        .bind(id.as_str()).bind(organization.as_str()).fetch_one(c).await?);
    Ok(EndUserDataCounts { attempts, events, calls, sessions, oauth_grants, tickets })
}

/// Deletes rows about an end user that do not reference them: their account, codes that were sent to them, and sign-ins
/// in progress with their email address or tracking ID.
///
/// # Errors
/// Returns an error if the database fails.
pub(super) async fn delete_unreferenced(conn: &mut Conn, organization: &OrganizationId, id: &EndUserId) -> Result<()> {
    const STATEMENTS: [&str; 4] = [
        "DELETE FROM email_codes WHERE organization_id = $2 AND email_key IN (SELECT email_key FROM identities
            WHERE end_user_id = $1 AND organization_id = $2 AND email_key IS NOT NULL)",
        "DELETE FROM authorization_requests WHERE organization_id = $2 AND tracking_id IN (SELECT tracking_id
            FROM end_users WHERE id = $1 AND organization_id = $2)",
        "DELETE FROM authorization_requests WHERE organization_id = $2 AND LOWER(login_hint) IN (SELECT email_key
            FROM identities WHERE end_user_id = $1 AND organization_id = $2)",
        "DELETE FROM accounts WHERE organization_id = $2 AND id IN (SELECT subject FROM identities
            WHERE end_user_id = $1 AND organization_id = $2 AND issuer = 'waypost')",
    ];
    for sql in STATEMENTS {
        on!(conn, c => sqlx::query(sql)
            .bind(id.as_str()).bind(organization.as_str()).execute(c).await?.rows_affected());
    }
    Ok(())
}
