//! The overview metrics, in total, by day, and by client.

use std::collections::HashMap;

use super::{CallCount, EventRecord, Filter, Log, NONE, TimeRange, percentile, share};
use crate::clock::Timestamp;
use crate::event::EventKind;

/// The overview metrics of a range.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Overview {
    /// Attempts that were started in the range.
    pub started: u64,
    /// End users with any event in the range.
    pub active: u64,
    /// Attempts that were completed in the range, regardless of when they were started.
    pub completed: u64,
    /// Attempts that were started in the range and completed before its end.
    pub started_and_completed: u64,
    /// Attempts that were started in the range and resumed before its end.
    pub started_and_resumed: u64,
    /// The median time from start to completion of the attempts that were completed in the range.
    pub median_ms: Option<i64>,
    /// The 90th percentile of that time.
    pub p90_ms: Option<i64>,
}

impl Overview {
    /// Returns the share of attempts started in the range that were completed before its end. Returns `None` if no
    /// attempt was started.
    #[must_use]
    pub fn completion_rate(&self) -> Option<f64> {
        share(self.started_and_completed, self.started)
    }

    /// Returns the share of attempts started in the range that were resumed before its end. Returns `None` if no
    /// attempt was started.
    #[must_use]
    pub fn resume_rate(&self) -> Option<f64> {
        share(self.started_and_resumed, self.started)
    }
}

/// Whether the event starts an attempt.
pub(super) fn is_start(event: &EventRecord) -> bool {
    matches!(event.kind, EventKind::Started | EventKind::Restarted)
}

const STARTED: u8 = 1;
const COMPLETED: u8 = 2;
const COMPLETED_HERE: u8 = 4;
const RESUMED: u8 = 8;

/// Computes the overview metrics of a range.
#[must_use]
pub fn overview(log: &Log, range: TimeRange, filter: Filter) -> Overview {
    let mut attempts = vec![0_u8; log.names.len()];
    let mut users = vec![false; log.names.len()];
    let mut times = Vec::new();
    for event in log.events.iter().filter(|event| range.contains(event.at)) {
        let counts = filter.matches(event);
        let attempt = &mut attempts[event.attempt as usize];
        if counts {
            users[event.user as usize] = true;
        }
        match event.kind {
            EventKind::Started | EventKind::Restarted if counts => *attempt |= STARTED,
            // All events of a matching attempt count, including those on a later version.
            EventKind::Resumed => *attempt |= RESUMED,
            EventKind::Completed => {
                if counts && *attempt & COMPLETED_HERE == 0 {
                    *attempt |= COMPLETED_HERE;
                    times.push(event.took_ms);
                }
                *attempt |= COMPLETED;
            }
            _ => {}
        }
    }
    let count = |bits: u8| attempts.iter().filter(|attempt| **attempt & bits == bits).count() as u64;
    times.retain(|time| *time >= 0);
    Overview {
        started: count(STARTED),
        active: users.iter().filter(|user| **user).count() as u64,
        completed: count(COMPLETED_HERE),
        started_and_completed: count(STARTED | COMPLETED),
        started_and_resumed: count(STARTED | RESUMED),
        median_ms: percentile(&mut times, 50),
        p90_ms: percentile(&mut times, 90),
    }
}

/// The totals of one period of a timeline: a day or an hour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeriodTotals {
    /// The start of the period.
    pub at: Timestamp,
    /// Attempts that were started.
    pub started: u64,
    /// Attempts that were completed.
    pub completed: u64,
    /// End users with any event.
    pub active: u64,
}

/// Returns the totals of each period of `period_ms` milliseconds that overlaps the range; only events in the range
/// count. Periods begin `offset_ms` before those of UTC.
#[must_use]
pub fn timeline(log: &Log, range: TimeRange, filter: Filter, period_ms: i64, offset_ms: i64) -> Vec<PeriodTotals> {
    let period_of = |at: Timestamp| at.plus(offset_ms).0.div_euclid(period_ms);
    let first = period_of(range.from);
    let last = period_of(range.to.plus(-1));
    let begin = |period: i64| Timestamp(period.saturating_mul(period_ms)).plus(-offset_ms);
    let mut periods: Vec<PeriodTotals> =
        (first..=last).map(|period| PeriodTotals { at: begin(period), started: 0, completed: 0, active: 0 }).collect();
    let mut seen = vec![i64::MIN; log.names.len()];
    let mut active = Vec::new();
    for event in log.events.iter().filter(|event| range.contains(event.at) && filter.matches(event)) {
        let period = period_of(event.at);
        let Some(row) = usize::try_from(period - first).ok().and_then(|at| periods.get_mut(at)) else { continue };
        if is_start(event) {
            row.started += 1;
        } else if event.kind == EventKind::Completed {
            row.completed += 1;
        }
        if seen[event.user as usize] != period {
            seen[event.user as usize] = period;
            active.push((period, event.user));
        }
    }
    active.sort_unstable();
    active.dedup();
    for (period, _) in active {
        if let Some(row) = usize::try_from(period - first).ok().and_then(|at| periods.get_mut(at)) {
            row.active += 1;
        }
    }
    periods
}

/// The activity of one client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientRow {
    /// The client's name; `None` for calls without one.
    pub name: Option<String>,
    /// Attempts that were started with it in the range.
    pub started: u64,
    /// Attempts that were completed with it in the range.
    pub completed: u64,
    /// End users with an event from it in the range.
    pub active: u64,
    /// Tool calls from it in the range.
    pub calls: u64,
}

/// Returns the clients of a range, those with the most end users first. `counted` are calls in the range from unknown
/// clients.
#[must_use]
pub fn clients(log: &Log, counted: &[CallCount], range: TimeRange, filter: Filter) -> Vec<ClientRow> {
    let mut rows: HashMap<u32, ClientRow> = HashMap::new();
    let new = |number: u32| ClientRow {
        name: log.names.text(number).map(str::to_owned),
        started: 0,
        completed: 0,
        active: 0,
        calls: 0,
    };
    let mut seen = vec![NONE - 2; log.names.len()];
    let mut active = Vec::new();
    for event in log.events.iter().filter(|event| range.contains(event.at) && filter.matches(event)) {
        let row = rows.entry(event.client).or_insert_with(|| new(event.client));
        row.started += u64::from(is_start(event));
        row.completed += u64::from(event.kind == EventKind::Completed);
        if seen[event.user as usize] != event.client {
            seen[event.user as usize] = event.client;
            active.push((event.client, event.user));
        }
    }
    for call in log.calls.iter().filter(|call| range.contains(call.at)) {
        if filter.client.is_none_or(|client| client == call.client) {
            rows.entry(call.client).or_insert_with(|| new(call.client)).calls += 1;
        }
    }
    let counted: u64 = counted.iter().map(|call| call.count).sum();
    if counted > 0 && filter.client.is_none() {
        rows.entry(NONE).or_insert_with(|| new(NONE)).calls += counted;
    }
    active.sort_unstable();
    active.dedup();
    for (client, _) in active {
        if let Some(row) = rows.get_mut(&client) {
            row.active += 1;
        }
    }
    let mut rows: Vec<ClientRow> = rows.into_values().collect();
    rows.sort_by(|a, b| (b.active, b.calls, &a.name).cmp(&(a.active, a.calls, &b.name)));
    rows
}

/// Returns the number of attempts started in the range, by the version's number in the name table.
#[must_use]
pub fn versions(log: &Log, range: TimeRange, client: Option<u32>) -> HashMap<u32, u64> {
    let filter = Filter { version: None, client };
    let mut rows = HashMap::new();
    for event in log.events.iter().filter(|event| range.contains(event.at) && is_start(event) && filter.matches(event))
    {
        *rows.entry(event.version).or_default() += 1;
    }
    rows
}
