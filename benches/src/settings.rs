//! The sizes and durations of the measurements.

/// The size of the list benchmark.
#[derive(Debug, Clone, Copy, serde::Serialize)]
pub struct Size {
    /// Number of walkthroughs on the server.
    pub walkthroughs: usize,
    /// Number of steps per walkthrough.
    pub steps: usize,
    /// Approximate size of the content of each step in bytes.
    pub step_bytes: usize,
    /// Number of measured `list_walkthroughs` calls, and of reference calls.
    pub calls: usize,
}

/// The size of the benchmark of edits.
#[derive(Debug, Clone, Copy, serde::Serialize)]
pub struct EditSize {
    /// Number of steps of the walkthrough in which a field of a step is changed.
    pub steps: usize,
    /// Approximate size of the content of each of these steps in bytes.
    pub step_bytes: usize,
    /// Number of steps of the walkthrough in which steps are inserted and moved.
    pub chain: usize,
    /// Number of measured edits of each kind.
    pub calls: usize,
}

/// The sizes and durations of the measurements.
#[derive(Debug, Clone, Copy, serde::Serialize)]
pub struct Settings {
    /// Whether this is a smoke run.
    pub smoke: bool,
    /// Number of alternating rounds.
    pub rounds: u32,
    /// Duration in seconds of the uncounted warm-up, which the peer's JIT compiler needs.
    pub warm_up_seconds: f64,
    /// Duration of a leg with 64 connections in seconds.
    pub seconds: f64,
    /// Duration of a leg with one connection in seconds.
    pub seconds_alone: f64,
    /// Number of calls per other operation on one connection.
    pub single_calls: u64,
    /// Number of calls on each of 64 connections when short and long walkthroughs are compared.
    pub growth_calls: u64,
    /// Number of rounds for comparisons of data size.
    pub growth_rounds: u32,
    /// The two numbers of progress rows to compare.
    pub growth_rows: [u32; 2],
    /// Number of signed-in users of a leg. More than its connections, because a user who finishes is replaced by
    /// another one.
    pub token_users: u32,
    /// Number of calls before the resident memory is read.
    pub memory_calls: u64,
    /// Number of starts, whose median duration is reported.
    pub starts: u32,
    /// Approximate number of events of the organisation.
    pub analytics_events: u64,
    /// Number of page loads, whose median duration is reported.
    pub analytics_pages: u32,
    /// Size of the list benchmark.
    pub listing: Size,
    /// Size of the benchmark of edits.
    pub editing: EditSize,
}

impl Settings {
    /// The settings of a full run.
    pub const FULL: Self = Self {
        smoke: false,
        rounds: 5,
        warm_up_seconds: 8.0,
        seconds: 3.0,
        seconds_alone: 2.0,
        single_calls: 3_000,
        growth_calls: 500,
        growth_rounds: 3,
        growth_rows: [1_000, 1_000_000],
        token_users: 2_000,
        memory_calls: 100_000,
        starts: 7,
        analytics_events: 1_000_000,
        analytics_pages: 7,
        listing: Size { walkthroughs: 200, steps: 100, step_bytes: 6_000, calls: 200 },
        editing: EditSize { steps: 400, step_bytes: 20_000, chain: 500, calls: 200 },
    };
    /// The settings of a smoke run.
    pub const SMOKE: Self = Self {
        smoke: true,
        rounds: 1,
        warm_up_seconds: 0.4,
        seconds: 0.4,
        seconds_alone: 0.3,
        single_calls: 40,
        growth_calls: 12,
        growth_rounds: 1,
        growth_rows: [100, 1_000],
        token_users: 256,
        memory_calls: 2_000,
        starts: 2,
        analytics_events: 20_000,
        analytics_pages: 2,
        listing: Size { walkthroughs: 10, steps: 5, step_bytes: 6_000, calls: 5 },
        editing: EditSize { steps: 20, step_bytes: 2_000, chain: 30, calls: 5 },
    };
}
