//! The funnel of a version: how far attempts get, step by step.

use std::collections::HashMap;

use super::overview::is_start;
use super::{Filter, Log, NONE, TimeRange, percentile};
use crate::event::EventKind;

/// The funnel of the attempts that started on one version in a range.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Funnel {
    /// Number of attempts.
    pub started: u64,
    /// Number of attempts that were completed before the end of the range.
    pub completed: u64,
    /// The version's steps in order.
    pub steps: Vec<FunnelStep>,
}

/// A step of a funnel.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FunnelStep {
    /// Attempts that completed the step, or had completed every step before it.
    pub reached: u64,
    /// Attempts that completed the step.
    pub completed: u64,
    /// Attempts that reached the step but completed neither it nor any later step.
    pub dropped: u64,
    /// The median time to complete the step.
    pub median_ms: Option<i64>,
    /// The 90th percentile of that time.
    pub p90_ms: Option<i64>,
}

/// Numbers the attempts that started in `range` and match `filter`. Returns the numbers, indexed by the attempt's number in
/// the name table ([`NONE`] for others), and their count.
pub(super) fn cohort(log: &Log, range: TimeRange, filter: Filter) -> (Vec<u32>, usize) {
    let mut numbers = vec![NONE; log.names.len()];
    let mut count = 0;
    for event in log.events.iter().filter(|event| is_start(event) && range.contains(event.at) && filter.matches(event))
    {
        let number = &mut numbers[event.attempt as usize];
        if *number == NONE {
            *number = count;
            count += 1;
        }
    }
    (numbers, count as usize)
}

/// Computes the funnel of the version in `filter`, whose steps are `steps`.
#[must_use]
pub fn funnel(log: &Log, range: TimeRange, filter: Filter, steps: &[u32]) -> Funnel {
    let (numbers, count) = cohort(log, range, filter);
    let positions: HashMap<u32, usize> = steps.iter().enumerate().map(|(at, step)| (*step, at)).collect();
    let words = steps.len().div_ceil(64);
    // A bit set of positions for each attempt.
    let mut done = vec![0_u64; count * words];
    let mut times: Vec<Vec<i64>> = vec![Vec::new(); steps.len()];
    let mut completed = vec![false; count];
    for event in log.events.iter().filter(|event| range.contains(event.at)) {
        let attempt = numbers[event.attempt as usize];
        if attempt == NONE {
            continue;
        }
        match (event.kind, positions.get(&event.step)) {
            (EventKind::Completed, _) => completed[attempt as usize] = true,
            (EventKind::StepCompleted, Some(&at)) => {
                let word = &mut done[attempt as usize * words + at / 64];
                if *word & (1 << (at % 64)) == 0 {
                    *word |= 1 << (at % 64);
                    times[at].extend((event.elapsed_ms >= 0).then_some(event.elapsed_ms));
                }
            }
            _ => {}
        }
    }
    let mut rows = vec![FunnelStep::default(); steps.len()];
    if words > 0 {
        for (set, completed) in done.chunks_exact(words).zip(&completed) {
            count_attempt(set, *completed, &mut rows);
        }
    }
    for (row, times) in rows.iter_mut().zip(&mut times) {
        row.median_ms = percentile(times, 50);
        row.p90_ms = percentile(times, 90);
    }
    Funnel {
        started: count as u64,
        completed: completed.iter().filter(|completed| **completed).count() as u64,
        steps: rows,
    }
}

fn count_attempt(done: &[u64], completed: bool, rows: &mut [FunnelStep]) {
    let is_done = |at: usize| done[at / 64] & (1 << (at % 64)) != 0;
    let last = (0..rows.len()).rev().find(|&at| is_done(at));
    let mut all_before = true;
    for (at, row) in rows.iter_mut().enumerate() {
        if is_done(at) {
            row.completed += 1;
            row.reached += 1;
        } else {
            row.reached += u64::from(all_before);
            let moved_on = completed || last.is_some_and(|last| last > at);
            row.dropped += u64::from(all_before && !moved_on);
            all_before = false;
        }
    }
}
