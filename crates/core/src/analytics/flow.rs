//! Where people go: from which step to which.

use std::collections::HashMap;

use super::funnel::cohort;
use super::{Filter, Log, NONE, Range};
use crate::event::EventKind;

/// A place between which people go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Node {
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
pub struct Flow {
    /// From here.
    pub from: Node,
    /// To here.
    pub to: Node,
    /// So many.
    pub count: u64,
}

/// The ways of the attempts that began in the range, in the order of their places.
#[must_use]
pub fn flows(log: &Log, range: Range, filter: Filter) -> Vec<Flow> {
    let (numbers, count) = cohort(log, range, filter);
    let mut at = vec![Node::Start; count];
    let mut links: HashMap<(Node, Node), u64> = HashMap::new();
    for event in log.events.iter().filter(|event| range.contains(event.at)) {
        let attempt = numbers[event.attempt as usize];
        let to = match event.kind {
            EventKind::StepCompleted if event.step != NONE => Node::Step(event.step),
            EventKind::Completed => Node::End,
            _ => continue,
        };
        if attempt != NONE && at[attempt as usize] != Node::End {
            let from = std::mem::replace(&mut at[attempt as usize], to);
            *links.entry((from, to)).or_default() += 1;
        }
    }
    for from in at.into_iter().filter(|at| *at != Node::End) {
        *links.entry((from, Node::Left)).or_default() += 1;
    }
    let mut flows: Vec<Flow> = links.into_iter().map(|((from, to), count)| Flow { from, to, count }).collect();
    flows.sort_unstable();
    flows
}
