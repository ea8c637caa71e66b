//! Where people go: from which step to which.

use std::collections::HashMap;

use super::funnel::cohort;
use super::{Filter, Log, NONE, TimeRange};
use crate::event::EventKind;

/// A place between which people go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FlowPoint {
    /// Before the first step.
    Start,
    /// The completion of a step, by its number in the log.
    Step(u32),
    /// The completion of the attempt.
    End,
    /// Nothing came after it before the end of the range.
    Left,
}

/// How many attempts went from one place to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Transition {
    /// From here.
    pub from: FlowPoint,
    /// To here.
    pub to: FlowPoint,
    /// So many.
    pub count: u64,
}

/// The ways of the attempts that began in the range, in the order of their places.
#[must_use]
pub fn transitions(log: &Log, range: TimeRange, filter: Filter) -> Vec<Transition> {
    let (numbers, count) = cohort(log, range, filter);
    let mut at = vec![FlowPoint::Start; count];
    let mut links: HashMap<(FlowPoint, FlowPoint), u64> = HashMap::new();
    for event in log.events.iter().filter(|event| range.contains(event.at)) {
        let attempt = numbers[event.attempt as usize];
        let to = match event.kind {
            EventKind::StepCompleted if event.step != NONE => FlowPoint::Step(event.step),
            EventKind::Completed => FlowPoint::End,
            _ => continue,
        };
        if attempt != NONE && at[attempt as usize] != FlowPoint::End {
            let from = std::mem::replace(&mut at[attempt as usize], to);
            *links.entry((from, to)).or_default() += 1;
        }
    }
    for from in at.into_iter().filter(|at| *at != FlowPoint::End) {
        *links.entry((from, FlowPoint::Left)).or_default() += 1;
    }
    let mut transitions: Vec<Transition> =
        links.into_iter().map(|((from, to), count)| Transition { from, to, count }).collect();
    transitions.sort_unstable();
    transitions
}
