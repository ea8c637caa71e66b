//! The plan of a leg, which the load generator reads, and its report.

use std::net::SocketAddr;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use crate::mcp::Era;
use crate::tokens::Tokens;

/// The operation whose latency is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Op {
    /// `next_walkthrough_step`
    Next,
    /// `list_walkthroughs`
    List,
    /// `select_walkthrough` by a new user
    Select,
    /// `get_walkthrough_status`
    Status,
}

impl Op {
    /// Returns the name used in tables and files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Next => "next",
            Self::List => "list",
            Self::Select => "select",
            Self::Status => "status",
        }
    }
}

/// The stop condition of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Limit {
    /// Stop after the given number of seconds.
    Seconds(f64),
    /// Stop after the given number of measured calls per connection.
    Calls(u64),
}

/// The load to generate.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Plan {
    /// Address of the server.
    pub addr: SocketAddr,
    /// MCP path, with `{user}` for the tracking ID.
    pub path: String,
    /// Protocol era of the clients.
    pub era: Era,
    /// Operation to measure.
    pub op: Op,
    /// Whether the server returns a constant, so that there are no users to prepare and no progress to check.
    pub constant: bool,
    /// Number of parallel connections.
    pub connections: usize,
    /// Stop condition.
    pub limit: Limit,
    /// Number of users to prepare per connection before the measurement.
    pub users: usize,
    /// Prefix that makes the tracking IDs of this leg unique.
    pub user_prefix: String,
    /// Tokens of the users, if they are signed in.
    pub tokens: Option<Tokens>,
    /// ID of the walkthrough to play.
    pub walkthrough: String,
    /// Number of users whose progress is verified afterwards.
    pub verify: usize,
}

/// The result of the load generator.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct LoadReport {
    /// Number of measured calls, all of which were successful and checked.
    pub calls: u64,
    /// Number of uncounted calls during the measurement: selections by new users.
    pub other_calls: u64,
    /// Seconds from `go` to the last response.
    pub seconds: f64,
    /// Latencies in microseconds, with counts.
    pub latencies: Vec<(u64, u64)>,
    /// Number of acknowledged advances.
    pub advances: u64,
    /// Number of users whose progress was verified.
    pub verified: usize,
}

/// Creates a histogram of microseconds.
pub fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 120_000_000, 3).expect("constant bounds are valid")
}
