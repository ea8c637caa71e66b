//! Limits for rows that anybody can create without having signed in: at most so many per place (a server, or a provider of
//! the console's sign-in), and per network that asks.
//!
//! Who creates more replaces rows instead of being rejected, so nobody locks out others by creating rows. A network at its
//! limit replaces its own oldest row. A place at its limit replaces the oldest row of the same network if that has its
//! share already, else the oldest of all: a few networks that create many rows replace only their own.

use crate::db::{Conn, Dialect};
use crate::error::Result;
use crate::on;

/// How many rows are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Rows of one network at a place.
    pub per_network: i64,
    /// Rows of a place.
    pub per_place: i64,
    /// A network with so many rows replaces only its own when the place is at its limit.
    pub share: i64,
}

/// The table that a row is about to be inserted into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Table {
    /// Clients without an authorization.
    OauthClients,
    /// Authorization requests that are neither completed nor waiting for a code that was sent.
    AuthorizationRequests,
    /// Users of the console who are away at a provider.
    UserSignIns,
}

impl Table {
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
    of_place: &'static str,
    of_network: &'static str,
    delete_of_place: &'static str,
    delete_of_network: &'static str,
}

const CLIENTS: Statements = Statements {
    of_place: "SELECT count(*) FROM oauth_clients WHERE server_id = $1 AND used_at IS NULL",
    of_network: "SELECT count(*) FROM oauth_clients WHERE server_id = $1 AND network = $2 AND used_at IS NULL",
    delete_of_place: "DELETE FROM oauth_clients WHERE server_id = $1 AND client_id IN
        (SELECT client_id FROM oauth_clients WHERE server_id = $1 AND used_at IS NULL ORDER BY created_at LIMIT $2)",
    delete_of_network: "DELETE FROM oauth_clients WHERE server_id = $1 AND client_id IN
        (SELECT client_id FROM oauth_clients WHERE server_id = $1 AND network = $2 AND used_at IS NULL
        ORDER BY created_at LIMIT $3)",
};

const REQUESTS: Statements = Statements {
    of_place: "SELECT count(*) FROM authorization_requests WHERE server_id = $1 AND network IS NOT NULL",
    of_network: "SELECT count(*) FROM authorization_requests WHERE server_id = $1 AND network = $2",
    delete_of_place: "DELETE FROM authorization_requests WHERE id IN
        (SELECT id FROM authorization_requests WHERE server_id = $1 AND network IS NOT NULL ORDER BY created_at LIMIT $2)",
    delete_of_network: "DELETE FROM authorization_requests WHERE id IN
        (SELECT id FROM authorization_requests WHERE server_id = $1 AND network = $2 ORDER BY created_at LIMIT $3)",
};

const SIGN_INS: Statements = Statements {
    of_place: "SELECT count(*) FROM user_sign_ins WHERE provider = $1",
    of_network: "SELECT count(*) FROM user_sign_ins WHERE provider = $1 AND network = $2",
    delete_of_place: "DELETE FROM user_sign_ins WHERE state_hash IN
        (SELECT state_hash FROM user_sign_ins WHERE provider = $1 ORDER BY created_at LIMIT $2)",
    delete_of_network: "DELETE FROM user_sign_ins WHERE state_hash IN
        (SELECT state_hash FROM user_sign_ins WHERE provider = $1 AND network = $2 ORDER BY created_at LIMIT $3)",
};

/// Makes room for one row: afterwards the place and the network have fewer rows than `bounds` say. Returns how many rows
/// were deleted. Until the end of the transaction, no other one makes room in the table for the place.
///
/// # Errors
/// When the database fails.
pub async fn make_room(conn: &mut Conn, table: Table, (place, network): (&str, &str), bounds: Bounds) -> Result<u64> {
    let statements = match table {
        Table::OauthClients => CLIENTS,
        Table::AuthorizationRequests => REQUESTS,
        Table::UserSignIns => SIGN_INS,
    };
    // A transaction that writes to SQLite is alone anyway.
    if conn.dialect() == Dialect::Postgres {
        const LOCK: &str = "SELECT pg_advisory_xact_lock(hashtextextended($1, 5716093224))";
        let name = format!("{} {place}", table.as_str());
        on!(conn, c => sqlx::query(LOCK).bind(name).execute(c).await?.rows_affected());
    }
    let own: i64 = on!(conn, c => sqlx::query_scalar(statements.of_network)
        .bind(place).bind(network).fetch_one(c).await?);
    let mut deleted = 0;
    if own >= bounds.per_network {
        deleted += delete_of_network(conn, &statements, (place, network), own - bounds.per_network + 1).await?;
    }
    let all: i64 = on!(conn, c => sqlx::query_scalar(statements.of_place).bind(place).fetch_one(c).await?);
    let excess = all - bounds.per_place + 1;
    if excess > 0 && own >= bounds.share.max(excess) {
        deleted += delete_of_network(conn, &statements, (place, network), excess).await?;
    } else if excess > 0 {
        deleted += on!(conn, c => sqlx::query(statements.delete_of_place)
            .bind(place).bind(excess).execute(c).await?.rows_affected());
    }
    if deleted > 0 {
        metrics::counter!("waypost_open_rows_replaced_total", "table" => table.as_str()).increment(deleted);
    }
    Ok(deleted)
}

async fn delete_of_network(
    conn: &mut Conn,
    statements: &Statements,
    (place, network): (&str, &str),
    count: i64,
) -> Result<u64> {
    Ok(on!(conn, c => sqlx::query(statements.delete_of_network)
        .bind(place).bind(network).bind(count).execute(c).await?.rows_affected()))
}
