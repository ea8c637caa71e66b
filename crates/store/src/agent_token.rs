//! Agent tokens. Only the SHA-256 of the secret is stored.

use waypost_core::Timestamp;
use waypost_core::agent::AgentToken;
use waypost_core::id::{AgentId, AgentTokenId, OrganizationId};

use crate::db::Conn;
use crate::error::Result;
use crate::on;
use crate::row::{in_list, to_json};

#[derive(sqlx_macros::FromRow)]
pub(crate) struct Row {
    id: String,
    agent_id: String,
    name: String,
    created_at: i64,
    expires_at: Option<i64>,
    last_used_at: Option<i64>,
    revoked_at: Option<i64>,
}

impl From<Row> for AgentToken {
    fn from(row: Row) -> Self {
        Self {
            id: AgentTokenId::from_store(row.id),
            agent_id: AgentId::from_store(row.agent_id),
            name: row.name,
            created_at: Timestamp(row.created_at),
            expires_at: row.expires_at.map(Timestamp),
            last_used_at: row.last_used_at.map(Timestamp),
            revoked_at: row.revoked_at.map(Timestamp),
        }
    }
}

/// Inserts a token that is not revoked. `secret_hash` is the hexadecimal SHA-256 of the secret.
///
/// # Errors
/// Returns a foreign key violation if the agent does not exist, or another error if the database fails.
pub async fn insert(
    conn: &mut Conn,
    organization: &OrganizationId,
    token: &AgentToken,
    secret_hash: &str,
) -> Result<()> {
    const SQL: &str = "INSERT INTO agent_tokens (id, organization_id, agent_id, name, secret_hash, created_at,
            expires_at, ends_at, last_used_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $7, $8)";
    conn.bump_config_version(organization).await?;
    on!(conn, c => sqlx::query(SQL)
        .bind(token.id.as_str()).bind(organization.as_str()).bind(token.agent_id.as_str()).bind(&token.name)
        .bind(secret_hash).bind(token.created_at.0).bind(token.expires_at.map(|at| at.0))
        .bind(token.last_used_at.map(|at| at.0)).execute(c).await?.rows_affected());
    Ok(())
}

/// Returns the token of an agent with this ID.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn find(
    conn: &mut Conn,
    organization: &OrganizationId,
    agent: &AgentId,
    id: &AgentTokenId,
) -> Result<Option<AgentToken>> {
    const SQL: &str = "SELECT id, agent_id, name, created_at, expires_at, last_used_at, revoked_at FROM agent_tokens
        WHERE id = $1 AND agent_id = $2 AND organization_id = $3";
    let row: Option<Row> = on!(conn, c => sqlx::query_as(SQL)
        .bind(id.as_str()).bind(agent.as_str()).bind(organization.as_str()).fetch_optional(c).await?);
    Ok(row.map(AgentToken::from))
}

/// Returns the tokens of several agents, oldest first.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn list(conn: &mut Conn, organization: &OrganizationId, agents: &[&AgentId]) -> Result<Vec<AgentToken>> {
    let agents: Vec<&str> = agents.iter().map(|agent| agent.as_str()).collect();
    let sql = sqlx::AssertSqlSafe(format!(
        "SELECT id, agent_id, name, created_at, expires_at, last_used_at, revoked_at FROM agent_tokens
         WHERE agent_id {} AND organization_id = $2 ORDER BY id",
        in_list(conn.dialect())
    ));
    let rows: Vec<Row> = on!(conn, c => sqlx::query_as(sql)
        .bind(to_json(agents)).bind(organization.as_str()).fetch_all(c).await?);
    Ok(rows.into_iter().map(AgentToken::from).collect())
}

/// Returns the number of tokens of an agent that are neither expired nor revoked at `now`.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn count_active(
    conn: &mut Conn,
    organization: &OrganizationId,
    agent: &AgentId,
    now: Timestamp,
) -> Result<i64> {
    const SQL: &str = "SELECT count(*) FROM agent_tokens
        WHERE agent_id = $1 AND organization_id = $2 AND (ends_at IS NULL OR ends_at > $3)";
    Ok(on!(conn, c => sqlx::query_scalar(SQL)
        .bind(agent.as_str()).bind(organization.as_str()).bind(now.0).fetch_one(c).await?))
}

/// Revokes a token of an agent. Returns `false` if it does not exist or is already revoked.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn revoke(
    conn: &mut Conn,
    organization: &OrganizationId,
    agent: &AgentId,
    id: &AgentTokenId,
    now: Timestamp,
) -> Result<bool> {
    const SQL: &str = "UPDATE agent_tokens
        SET revoked_at = $4, ends_at = CASE WHEN ends_at < $4 THEN ends_at ELSE $4 END
        WHERE id = $1 AND agent_id = $2 AND organization_id = $3 AND revoked_at IS NULL";
    conn.bump_config_version(organization).await?;
    let changed = on!(conn, c => sqlx::query(SQL)
        .bind(id.as_str()).bind(agent.as_str()).bind(organization.as_str()).bind(now.0)
        .execute(c).await?.rows_affected());
    Ok(changed > 0)
}

/// Deletes the expired and revoked tokens of an agent, except the `keep` newest ones.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn delete_surplus(
    conn: &mut Conn,
    organization: &OrganizationId,
    agent: &AgentId,
    now: Timestamp,
    keep: u32,
) -> Result<()> {
    // Only a few rows match, but SQLite does not allow OFFSET without LIMIT.
    const SQL: &str = "DELETE FROM agent_tokens WHERE id IN (SELECT id FROM agent_tokens
        WHERE agent_id = $1 AND organization_id = $2 AND ends_at <= $3 ORDER BY id DESC LIMIT 1000 OFFSET $4)";
    on!(conn, c => sqlx::query(SQL)
        .bind(agent.as_str()).bind(organization.as_str()).bind(now.0).bind(i64::from(keep))
        .execute(c).await?.rows_affected());
    Ok(())
}

/// Deletes at most `limit` tokens of all organisations that expired or were revoked before `before`. Returns the number
/// of deleted tokens.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn delete_ended(conn: &mut Conn, before: Timestamp, limit: u32) -> Result<u64> {
    const SQL: &str = "DELETE FROM agent_tokens WHERE id IN
        (SELECT id FROM agent_tokens WHERE ends_at < $1 ORDER BY ends_at LIMIT $2)";
    Ok(on!(conn, c => sqlx::query(SQL).bind(before.0).bind(i64::from(limit)).execute(c).await?.rows_affected()))
}

/// The use of a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenUse {
    /// The token. `None` for the access token of a person, whose use is recorded only for the agent.
    pub token_id: Option<AgentTokenId>,
    /// The agent of the token.
    pub agent_id: AgentId,
    /// The time of the use.
    pub at: Timestamp,
}

/// The minimum time between two recorded uses of a token or an agent, in milliseconds.
pub const USED_EVERY_MS: i64 = 60 * 1_000;

/// Records uses of tokens and of their agents. Does nothing for a token or an agent whose last recorded use is later,
/// or less than a minute earlier.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn record_uses(conn: &mut Conn, uses: &[TokenUse]) -> Result<()> {
    const TOKEN: &str = "UPDATE agent_tokens SET last_used_at = $2
        WHERE id = $1 AND (last_used_at IS NULL OR last_used_at <= $3)";
    const AGENT: &str = "UPDATE agents SET last_seen_at = $2
        WHERE id = $1 AND (last_seen_at IS NULL OR last_seen_at <= $3)";
    let mut tokens: Vec<_> =
        uses.iter().filter_map(|token_use| Some((token_use.token_id.as_ref()?.as_str(), token_use.at))).collect();
    let mut agents: Vec<_> = uses.iter().map(|token_use| (token_use.agent_id.as_str(), token_use.at)).collect();
    for (sql, rows) in [(TOKEN, &mut tokens), (AGENT, &mut agents)] {
        // In the same order in every process, so that two processes cannot deadlock.
        rows.sort_unstable();
        for (id, at) in rows {
            on!(conn, c => sqlx::query(sql)
                .bind(*id).bind(at.0).bind(at.plus(-USED_EVERY_MS).0).execute(c).await?.rows_affected());
        }
    }
    Ok(())
}
