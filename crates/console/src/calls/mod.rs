//! `/o/{org}/calls`: the gateway's call log, and `/o/{org}/connections`: which agent calls which instance.

mod connections;
mod detail;
mod list;
mod rows;

pub(crate) use self::rows::{CallRows, recent_rows};

use waypost_core::access::Operation;

use crate::routes::{Access, Routes};

/// Returns the routes of these pages.
pub(super) fn routes() -> Routes {
    const READ: Access = Access::Member(Operation::CallRead);
    Routes::new()
        .get("/o/{org}/calls", READ, list::show)
        .get("/o/{org}/calls/rows", READ, list::rows)
        .get("/o/{org}/calls/{call}", Access::Member(Operation::CallContentsRead), detail::show)
        .get("/o/{org}/connections", READ, connections::show)
        .get("/o/{org}/connections/rows", READ, connections::rows)
}
