//! The funnel of a version: how far attempts get, step by step.

use std::collections::{HashMap, HashSet};

use super::overview::is_start;
use super::{Filter, Log, NONE, TimeRange, percentile};
use crate::clock::Timestamp;
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
    /// Attempts that stopped at the step: they completed every step before it, but neither it nor any later step, nor
    /// the walkthrough, and are no longer active.
    pub dropped: u64,
    /// Attempts that are at the step in the same sense, but are still active.
    pub active: u64,
    /// The median time to complete the step; `None` if there is no such time.
    pub median_ms: Option<i64>,
    /// The 90th percentile of that time.
    pub p90_ms: Option<i64>,
}

/// Numbers the attempts that started in `range` and match `filter`. Returns the numbers, indexed by the attempt's
/// number in the name table ([`NONE`] for others), and their count.
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

/// The attempts of a cohort, with the steps that they completed.
struct Progress {
    attempts: Vec<CohortAttempt>,
    /// The number of 64-bit words per attempt in `done`.
    words: usize,
    /// For each attempt, a bit set of the positions of its completed steps.
    done: Vec<u64>,
    /// For each position, the times to complete the step, in milliseconds.
    times: Vec<Vec<i64>>,
}

#[derive(Clone, Copy)]
struct CohortAttempt {
    user: u32,
    is_completed: bool,
    is_reset: bool,
    last_at: Timestamp,
}

impl CohortAttempt {
    /// Whether the user may still continue: the attempt has had an event since `active_since`, and was not reset.
    fn is_active(&self, active_since: Timestamp) -> bool {
        self.last_at >= active_since && !self.is_reset
    }
}

impl Progress {
    fn read(log: &Log, range: TimeRange, filter: Filter, steps: &[u32]) -> Self {
        let (numbers, count) = cohort(log, range, filter);
        let positions: HashMap<u32, usize> = steps.iter().enumerate().map(|(index, step)| (*step, index)).collect();
        let words = steps.len().div_ceil(64);
        let new = CohortAttempt { user: NONE, is_completed: false, is_reset: false, last_at: range.from };
        let mut progress = Self {
            attempts: vec![new; count],
            words,
            done: vec![0; count * words],
            times: vec![Vec::new(); steps.len()],
        };
        for event in log.events.iter().filter(|event| range.contains(event.at)) {
            let number = numbers[event.attempt as usize];
            if number == NONE {
                continue;
            }
            let number = number as usize;
            let attempt = &mut progress.attempts[number];
            (attempt.user, attempt.last_at) = (event.user, attempt.last_at.max(event.at));
            match (event.kind, positions.get(&event.step)) {
                (EventKind::Completed, _) => attempt.is_completed = true,
                (EventKind::Reset, _) => attempt.is_reset = true,
                (EventKind::StepCompleted, Some(&at)) => {
                    let word = &mut progress.done[number * words + at / 64];
                    if *word & (1 << (at % 64)) == 0 {
                        *word |= 1 << (at % 64);
                        progress.times[at].extend((event.elapsed_ms >= 0).then_some(event.elapsed_ms));
                    }
                }
                _ => {}
            }
        }
        progress
    }

    fn is_done(&self, attempt: usize, index: usize) -> bool {
        self.done[attempt * self.words + index / 64] & (1 << (index % 64)) != 0
    }

    /// Returns the position of the step that an attempt is at: it has completed all steps before this one, but neither
    /// this step, nor any later one, nor the walkthrough. Returns `None` if there is no such step.
    fn current_position(&self, attempt: usize) -> Option<usize> {
        let steps = self.times.len();
        let first = (0..steps).find(|&at| !self.is_done(attempt, at))?;
        let moved_on = self.attempts[attempt].is_completed || (first..steps).any(|at| self.is_done(attempt, at));
        (!moved_on).then_some(first)
    }
}

/// Computes the funnel of the version in `filter`, whose steps are `steps`. Attempts with an event since `active_since`
/// that were not reset count as active, not as dropped.
#[must_use]
pub fn funnel(log: &Log, range: TimeRange, filter: Filter, steps: &[u32], active_since: Timestamp) -> Funnel {
    let mut progress = Progress::read(log, range, filter, steps);
    let mut rows = vec![FunnelStep::default(); steps.len()];
    for (number, attempt) in progress.attempts.iter().enumerate() {
        let mut all_before = true;
        for (index, row) in rows.iter_mut().enumerate() {
            let is_done = progress.is_done(number, index);
            row.completed += u64::from(is_done);
            row.reached += u64::from(is_done || all_before);
            all_before &= is_done;
        }
        if let Some(at) = progress.current_position(number) {
            let is_active = attempt.is_active(active_since);
            rows[at].active += u64::from(is_active);
            rows[at].dropped += u64::from(!is_active);
        }
    }
    for (row, times) in rows.iter_mut().zip(&mut progress.times) {
        row.median_ms = percentile(times, 50);
        row.p90_ms = percentile(times, 90);
    }
    Funnel {
        started: progress.attempts.len() as u64,
        completed: progress.attempts.iter().filter(|attempt| attempt.is_completed).count() as u64,
        steps: rows,
    }
}

/// Returns the end users of the attempts that [`funnel`] counts as stopped at a position, by their numbers in the name
/// table, most recently active first.
#[must_use]
pub fn list_stopped_users(
    log: &Log,
    range: TimeRange,
    filter: Filter,
    steps: &[u32],
    position: usize,
    active_since: Timestamp,
) -> Vec<u32> {
    let progress = Progress::read(log, range, filter, steps);
    let stopped = |(number, attempt): &(usize, &CohortAttempt)| {
        progress.current_position(*number) == Some(position) && !attempt.is_active(active_since)
    };
    let mut found: Vec<&CohortAttempt> =
        progress.attempts.iter().enumerate().filter(stopped).map(|(_, attempt)| attempt).collect();
    found.sort_by_key(|attempt| std::cmp::Reverse((attempt.last_at, attempt.user)));
    let mut seen = HashSet::new();
    found.into_iter().map(|attempt| attempt.user).filter(|user| seen.insert(*user)).collect()
}
