//! Tests of the store on both databases. Each module is named after what it tests.

#![expect(clippy::disallowed_methods, reason = "the tests start servers and clients")]

mod agent_secrets;
mod agents;
mod analytics;
mod backup;
mod calls;
mod catalog;
mod claims;
mod config_version;
mod connections;
mod console;
mod console_users;
mod counted_calls;
mod deletion;
mod emails;
mod end_user_sign_in;
mod fixture;
mod gateway_sign_in;
mod initial_approvals;
mod job_leases;
mod migrate;
mod organization_scope;
mod parity;
mod recorder;
mod remote_connections;
mod remote_servers;
mod retention;
mod row_limits;
mod row_locks;
mod schema;
mod sqlite;
mod support;
mod tenants;
mod tool_definitions;
mod tool_secrets;
mod toolbox_links;
mod toolboxes;
mod user_accounts;
mod walkthrough;
mod writer;
mod writer_races;

use waypost_store::{Db, migrate as migrations};

/// Opens the database at `url` with every migration applied.
async fn open(url: &str) -> Db {
    let db = Db::open(url).await.unwrap();
    migrations::migrate(&db).await.unwrap();
    db
}
