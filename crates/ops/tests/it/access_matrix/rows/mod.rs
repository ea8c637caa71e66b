//! The rows of the access matrix: one call of each operation, with the callers that may perform it. `content.rs`
//! contains the rows of walkthroughs.

mod agents;
mod organizations;
mod progress;
mod servers;
mod sign_in;
mod tickets;
mod toolboxes;
mod users;
mod webhooks;

use std::net::{IpAddr, Ipv4Addr};

use waypost_core::caller::Ctx;
use waypost_core::{Error, Result};
use waypost_ops::Ops;
use waypost_ops::hosting::Hosting;

use super::Access;
use super::content::{drafts, versions, walkthroughs};
use crate::fixture::Tenant;

const ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 7));

/// The arguments of the rows.
#[derive(Clone, Copy)]
pub struct Call<'a> {
    /// The context of the caller.
    pub cx: &'a Ctx,
    /// The context of the operator, for reading arguments.
    pub operator: &'a Ctx,
    pub ops: &'a Ops,
    pub hosting: &'a Hosting,
    /// The organisation that is accessed.
    pub tenant: &'a Tenant,
    /// A prefix for new names.
    pub new: &'a str,
}

/// The result of one call.
pub struct Row {
    pub access: Access,
    /// The operation's path.
    pub name: String,
    pub error: Option<Error>,
}

/// Creates the row of the operation at `path`.
pub fn row<T>(access: Access, path: &[&str], result: Result<T>) -> Row {
    Row { access, name: path.join("::"), error: result.err() }
}

/// Calls every operation, destructive operations last.
pub async fn call_all(call: Call<'_>) -> Vec<Row> {
    let mut rows = progress::play(call).await;
    rows.extend(sign_in::sign_in(call).await);
    rows.extend(sign_in::sign_in_with_provider(call).await);
    rows.extend(users::own_account(call).await);
    rows.extend(organizations::operator(call).await);
    rows.extend(users::members(call).await);
    rows.extend(organizations::organization(call).await);
    rows.extend(organizations::reports(call).await);
    rows.extend(webhooks::webhooks(call).await);
    rows.extend(toolboxes::catalog_and_secrets(call).await);
    rows.extend(agents::agents(call).await);
    rows.extend(agents::approvals(call).await);
    rows.extend(tickets::support(call).await);
    rows.extend(toolboxes::tool_servers(call).await);
    rows.extend(drafts(call).await);
    rows.extend(walkthroughs(call).await);
    rows.extend(versions(call).await);
    rows.extend(servers::servers(call).await);
    rows.extend(organizations::removals(call).await);
    rows
}
