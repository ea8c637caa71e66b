//! The report on calls that were rejected before they reached a tool.

use serde::Serialize;
use utoipa::ToSchema;

use super::report::ReportTable;
use super::{RejectedCalls, Report};

/// The number of rejected calls of one server for one reason.
#[derive(Debug, Serialize, ToSchema)]
struct RejectedCallCount {
    server_id: String,
    server_name: String,
    /// `unauthorized` (401: the token is missing or invalid), `insufficient_scope` (403), `origin_not_allowed` (403),
    /// `too_large` (413) or `rate_limited` (429).
    reason: String,
    /// The number of rejected calls.
    count: i64,
}

/// The rejected calls of a range.
#[derive(Debug, Serialize, ToSchema)]
pub struct RejectedCallList {
    items: Vec<RejectedCallCount>,
}

impl RejectedCallList {
    /// Creates the body from a report.
    #[must_use]
    pub fn new(report: &Report) -> Self {
        let row = |calls: &RejectedCalls| RejectedCallCount {
            server_id: calls.server_id.to_string(),
            server_name: calls.server_name.clone(),
            reason: calls.reason.clone(),
            count: calls.count,
        };
        Self { items: report.rejected().iter().map(row).collect() }
    }
}

impl ReportTable for RejectedCallList {
    const NAME: &'static str = "rejected-calls";

    fn header() -> Vec<&'static str> {
        vec!["server_id", "server_name", "reason", "count"]
    }

    fn rows(&self) -> Vec<Vec<String>> {
        let row = |count: &RejectedCallCount| {
            vec![count.server_id.clone(), count.server_name.clone(), count.reason.clone(), count.count.to_string()]
        };
        self.items.iter().map(row).collect()
    }
}
