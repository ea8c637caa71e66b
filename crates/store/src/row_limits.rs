//! Limits for rows that can be created without signing in: a maximum number per scope (a server, the gateway, or a
//! provider of the console's sign-in) and per client network.
//!
//! At a limit, old rows are evicted instead of rejecting the new one, so no client can lock out others by creating
//! rows. A network at its limit evicts its own oldest row. A scope at its limit evicts the oldest row of the same
//! network if that network has reached its share, otherwise the oldest row of all: a few networks that create many rows
//! evict only their own rows.

use waypost_core::issuer::IssuerId;

use crate::db::{Conn, Dialect};
use crate::error::Result;
use crate::on;

/// The maximum numbers of rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RowLimits {
    /// The maximum number of rows per scope and network.
    pub per_network: i64,
    /// The maximum number of rows per scope.
    pub per_scope: i64,
    /// A network with this many rows evicts only its own rows when the scope is at its limit.
    pub share: i64,
}

/// A table with limited rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LimitedTable {
    /// Clients without an authorization.
    OauthClients,
    /// Authorization requests that are neither completed nor waiting for a code that was sent.
    AuthorizationRequests,
    /// Console sign-ins in progress at a provider.
    UserSignIns,
}

impl LimitedTable {
    fn as_str(self) -> &'static str {
        match self {
            Self::OauthClients => "oauth_clients",
            Self::AuthorizationRequests => "authorization_requests",
            Self::UserSignIns => "user_sign_ins",
        }
    }
}

/// The statements of a table.
struct Statements {
    count_in_scope: &'static str,
    count_in_network: &'static str,
    delete_in_scope: &'static str,
    delete_in_network: &'static str,
}

/// Returns the statements of the clients whose issuer matches the condition, in which `$1` is the scope.
macro_rules! client_statements {
    ($issuer:literal) => {
        Statements {
            count_in_scope: concat!("SELECT count(*) FROM oauth_clients WHERE ", $issuer, " AND used_at IS NULL"),
            count_in_network: concat!(
                "SELECT count(*) FROM oauth_clients WHERE ",
                $issuer,
                " AND network = $2 AND used_at IS NULL"
            ),
            delete_in_scope: concat!(
                "DELETE FROM oauth_clients WHERE client_id IN (SELECT client_id FROM oauth_clients WHERE ",
                $issuer,
                " AND used_at IS NULL ORDER BY created_at LIMIT $2)"
            ),
            delete_in_network: concat!(
                "DELETE FROM oauth_clients WHERE client_id IN (SELECT client_id FROM oauth_clients WHERE ",
                $issuer,
                " AND network = $2 AND used_at IS NULL ORDER BY created_at LIMIT $3)"
            ),
        }
    };
}

/// Returns the statements of the requests whose issuer matches the condition, in which `$1` is the scope.
macro_rules! request_statements {
    ($issuer:literal) => {
        Statements {
            count_in_scope: concat!(
                "SELECT count(*) FROM authorization_requests WHERE ",
                $issuer,
                " AND network IS NOT NULL"
            ),
            count_in_network: concat!(
                "SELECT count(*) FROM authorization_requests WHERE ",
                $issuer,
                " AND network = $2"
            ),
            delete_in_scope: concat!(
                "DELETE FROM authorization_requests WHERE id IN (SELECT id FROM authorization_requests WHERE ",
                $issuer,
                " AND network IS NOT NULL ORDER BY created_at LIMIT $2)"
            ),
            delete_in_network: concat!(
                "DELETE FROM authorization_requests WHERE id IN (SELECT id FROM authorization_requests WHERE ",
                $issuer,
                " AND network = $2 ORDER BY created_at LIMIT $3)"
            ),
        }
    };
}

const CLIENTS: Statements = client_statements!("server_id = $1");
// One condition for all issuers, such as `COALESCE(server_id, 'gateway') = $1`, would use no index.
const GATEWAY_CLIENTS: Statements = client_statements!("server_id IS NULL AND $1 = 'gateway'");
const REQUESTS: Statements = request_statements!("server_id = $1");
const GATEWAY_REQUESTS: Statements = request_statements!("server_id IS NULL AND $1 = 'gateway'");

const SIGN_INS: Statements = Statements {
    count_in_scope: "SELECT count(*) FROM user_sign_ins WHERE provider = $1",
    count_in_network: "SELECT count(*) FROM user_sign_ins WHERE provider = $1 AND network = $2",
    delete_in_scope: "DELETE FROM user_sign_ins WHERE state_hash IN
        (SELECT state_hash FROM user_sign_ins WHERE provider = $1 ORDER BY created_at LIMIT $2)",
    delete_in_network: "DELETE FROM user_sign_ins WHERE state_hash IN
        (SELECT state_hash FROM user_sign_ins WHERE provider = $1 AND network = $2 ORDER BY created_at LIMIT $3)",
};

/// Evicts rows until the scope and the network have room for one more row within `limits`. Returns the number of
/// deleted rows. Until the end of the transaction, concurrent calls for the same table and scope wait.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn evict_excess(
    conn: &mut Conn,
    table: LimitedTable,
    scope: &str,
    network: &str,
    limits: RowLimits,
) -> Result<u64> {
    let statements = match table {
        LimitedTable::OauthClients if scope == IssuerId::GATEWAY => GATEWAY_CLIENTS,
        LimitedTable::OauthClients => CLIENTS,
        LimitedTable::AuthorizationRequests if scope == IssuerId::GATEWAY => GATEWAY_REQUESTS,
        LimitedTable::AuthorizationRequests => REQUESTS,
        LimitedTable::UserSignIns => SIGN_INS,
    };
    // SQLite needs no lock, because it has a single writer.
    if conn.dialect() == Dialect::Postgres {
        const LOCK: &str = "SELECT pg_advisory_xact_lock(hashtextextended($1, 5716093224))";
        let name = format!("{} {scope}", table.as_str());
        on!(conn, c => sqlx::query(LOCK).bind(name).execute(c).await?.rows_affected());
    }
    let own: i64 = on!(conn, c => sqlx::query_scalar(statements.count_in_network)
        .bind(scope).bind(network).fetch_one(c).await?);
    let mut deleted = 0;
    if own >= limits.per_network {
        deleted += delete_in_network(conn, &statements, scope, network, own - limits.per_network + 1).await?;
    }
    let all: i64 = on!(conn, c => sqlx::query_scalar(statements.count_in_scope).bind(scope).fetch_one(c).await?);
    let excess = all - limits.per_scope + 1;
    if excess > 0 && own >= limits.share.max(excess) {
        deleted += delete_in_network(conn, &statements, scope, network, excess).await?;
    } else if excess > 0 {
        deleted += on!(conn, c => sqlx::query(statements.delete_in_scope)
            .bind(scope).bind(excess).execute(c).await?.rows_affected());
    }
    if deleted > 0 {
        metrics::counter!("waypost_open_rows_replaced_total", "table" => table.as_str()).increment(deleted);
    }
    Ok(deleted)
}

async fn delete_in_network(
    conn: &mut Conn,
    statements: &Statements,
    scope: &str,
    network: &str,
    count: i64,
) -> Result<u64> {
    Ok(on!(conn, c => sqlx::query(statements.delete_in_network)
        .bind(scope).bind(network).bind(count).execute(c).await?.rows_affected()))
}
