//! The flow of attempts between steps.

use std::collections::HashMap;

use super::funnel::cohort;
use super::{Filter, Log, NONE, TimeRange};
use crate::event::EventKind;

/// A node of the flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FlowPoint {
    /// Before the first step.
    Start,
    /// The completion of a step, by its number in the log's name table.
    Step(u32),
    /// The completion of the attempt.
    End,
    /// No further completion before the end of the range.
    DropOff,
}

/// The number of attempts that went from one node to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Transition {
    /// The source.
    pub from: FlowPoint,
    /// The target.
    pub to: FlowPoint,
    /// Number of attempts.
    pub count: u64,
}

/// Returns the transitions of the attempts that started in the range, sorted by source and target.
#[must_use]
pub fn transitions(log: &Log, range: TimeRange, filter: Filter) -> Vec<Transition> {
    let (numbers, count) = cohort(log, range, filter);
    let mut at = vec![FlowPoint::Start; count];
    let mut counts: HashMap<(FlowPoint, FlowPoint), u64> = HashMap::new();
    for event in log.events.iter().filter(|event| range.contains(event.at)) {
        let attempt = numbers[event.attempt as usize];
        let to = match event.kind {
            EventKind::StepCompleted if event.step != NONE => FlowPoint::Step(event.step),
            EventKind::Completed => FlowPoint::End,
            _ => continue,
        };
        if attempt != NONE && at[attempt as usize] != FlowPoint::End {
            let from = std::mem::replace(&mut at[attempt as usize], to);
            *counts.entry((from, to)).or_default() += 1;
        }
    }
    for from in at.into_iter().filter(|at| *at != FlowPoint::End) {
        *counts.entry((from, FlowPoint::DropOff)).or_default() += 1;
    }
    let mut transitions: Vec<Transition> =
        counts.into_iter().map(|((from, to), count)| Transition { from, to, count }).collect();
    transitions.sort_unstable();
    transitions
}
