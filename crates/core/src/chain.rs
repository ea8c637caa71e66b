//! The linked list of a draft's steps. Each step points to the next, so an edit affects only the neighbouring steps.

use std::collections::HashMap;

use crate::error::{Code, Error, Result};
use crate::id::StepId;
use crate::step::Step;

/// The position at which a step is inserted, or to which it is moved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StepPosition {
    /// Before all others.
    First,
    /// After this step.
    After(StepId),
    /// After all others.
    Last,
}

/// A pointer to update: the `next_step_id` of a step, or the walkthrough's `first_step_id`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkUpdate {
    /// The step whose pointer changes; `None` is the start of the chain.
    pub from: Option<StepId>,
    /// The new target.
    pub to: Option<StepId>,
}

/// A step and the step after it: the only data that an edit of the chain needs about the other steps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// The step.
    pub id: StepId,
    /// The next step; `None` for the last one.
    pub next_step_id: Option<StepId>,
}

/// An element of the chain: a step, or only its [`Link`].
pub trait Node {
    /// Returns the ID of the step.
    fn id(&self) -> &StepId;

    /// Returns the next step; `None` for the last one.
    fn next(&self) -> Option<&StepId>;

    /// Describes the step for error messages.
    fn describe(&self) -> String {
        format!("step {}", self.id())
    }
}

impl Node for Link {
    fn id(&self) -> &StepId {
        &self.id
    }

    fn next(&self) -> Option<&StepId> {
        self.next_step_id.as_ref()
    }
}

impl Node for Step {
    fn id(&self) -> &StepId {
        &self.id
    }

    fn next(&self) -> Option<&StepId> {
        self.next_step_id.as_ref()
    }

    fn describe(&self) -> String {
        format!("step {} (\"{}\")", self.id, self.content.title)
    }
}

fn chain_error(node: &impl Node, problem: &str) -> Error {
    let message = format!("The chain of steps {problem} at {}.", node.describe());
    Error::new(Code::Conflict, message).with("step_id", node.id().as_str())
}

/// Returns the steps in chain order, each exactly once.
///
/// # Errors
/// `conflict` if the chain is broken (`first` or a step points to a missing step), cyclic, forked (two steps point to
/// the same step) or not connected to the start. The error names the step.
pub fn order<N: Node>(first: Option<&StepId>, steps: Vec<N>) -> Result<Vec<N>> {
    let by_id: HashMap<&StepId, usize> = steps.iter().enumerate().map(|(at, step)| (step.id(), at)).collect();
    let mut is_pointed_at = vec![false; steps.len()];
    for step in &steps {
        let Some(next) = step.next() else { continue };
        let Some(&at) = by_id.get(next) else { return Err(chain_error(step, "is broken")) };
        if Some(next) == first {
            return Err(chain_error(step, "is cyclic"));
        }
        if std::mem::replace(&mut is_pointed_at[at], true) {
            return Err(chain_error(step, "is forked"));
        }
    }
    let mut sequence = Vec::with_capacity(steps.len());
    let mut seen = vec![false; steps.len()];
    let mut next = first;
    while let Some(id) = next {
        let Some(&at) = by_id.get(id) else {
            return Err(Error::new(
                Code::Conflict,
                format!("The chain of steps begins at {id}, which does not exist."),
            ));
        };
        // No step points to the first step and no step has two predecessors, so the traversal cannot revisit a step.
        // The check is cheap and guarantees termination even if the checks above are wrong.
        if std::mem::replace(&mut seen[at], true) {
            return Err(chain_error(&steps[at], "is cyclic"));
        }
        sequence.push(at);
        next = steps[at].next();
    }
    if let Some(unreachable) = seen.iter().position(|seen| !seen) {
        return Err(chain_error(&steps[unreachable], "is not connected"));
    }
    let mut slots: Vec<Option<N>> = steps.into_iter().map(Some).collect();
    Ok(sequence.into_iter().filter_map(|at| slots[at].take()).collect())
}

/// Returns the index in the ordered chain `steps` at which a new step is inserted at `position`.
///
/// # Errors
/// `step_not_found` if `position` names a step that is not in the chain.
pub fn index_of_position(steps: &[StepId], position: &StepPosition) -> Result<usize> {
    match position {
        StepPosition::First => Ok(0),
        StepPosition::Last => Ok(steps.len()),
        StepPosition::After(id) => Ok(index_of(steps, id)? + 1),
    }
}

/// Returns the index of a step in the ordered chain `steps`.
///
/// # Errors
/// `step_not_found` if the step is not in the chain.
pub fn index_of(steps: &[StepId], id: &StepId) -> Result<usize> {
    steps.iter().position(|step| step == id).ok_or_else(|| {
        Error::new(Code::StepNotFound, format!("The walkthrough has no step {id}.")).with("step_id", id.as_str())
    })
}

/// Returns the updates that insert the new `step` at `position` in the ordered chain `steps`.
///
/// # Errors
/// `step_not_found` if `position` names a step that is not in the chain.
pub fn insert(steps: &[StepId], step: &StepId, position: &StepPosition) -> Result<Vec<LinkUpdate>> {
    let index = index_of_position(steps, position)?;
    let before = index.checked_sub(1).map(|before| steps[before].clone());
    let next = steps.get(index).cloned();
    Ok(vec![LinkUpdate { from: before, to: Some(step.clone()) }, LinkUpdate { from: Some(step.clone()), to: next }])
}

/// Returns the updates that remove `step` from the ordered chain `steps`.
///
/// # Errors
/// `step_not_found` if the step is not in the chain.
pub fn remove(steps: &[StepId], step: &StepId) -> Result<Vec<LinkUpdate>> {
    let index = index_of(steps, step)?;
    let before = index.checked_sub(1).map(|before| steps[before].clone());
    Ok(vec![LinkUpdate { from: before, to: steps.get(index + 1).cloned() }])
}

/// Returns the updates that move `step` to `position` within the ordered chain `steps`, and the index of the step
/// after the move. There are no updates if the step is already at that position.
///
/// # Errors
/// `step_not_found` if either step is not in the chain; `conflict` if the step would follow itself.
pub fn relocate(steps: &[StepId], step: &StepId, position: &StepPosition) -> Result<(Vec<LinkUpdate>, usize)> {
    if *position == StepPosition::After(step.clone()) {
        return Err(Error::new(Code::Conflict, "A step cannot follow itself."));
    }
    let old_index = index_of(steps, step)?;
    let mut rest = steps.to_vec();
    rest.remove(old_index);
    let index = index_of_position(&rest, position)?;
    if index == old_index {
        return Ok((Vec::new(), index));
    }
    let mut links = remove(steps, step)?;
    links.extend(insert(&rest, step, position)?);
    Ok((links, index))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::step::StepContent;

    fn id(n: usize) -> StepId {
        StepId::from_store(format!("ws_{n}"))
    }

    fn step(n: usize, next: Option<usize>) -> Step {
        let content = StepContent { title: format!("Step {n}"), ..StepContent::default() };
        Step { id: id(n), ordinal: u32::try_from(n).unwrap(), key: None, next_step_id: next.map(id), content }
    }

    fn names(steps: &[Step]) -> Vec<String> {
        steps.iter().map(|step| step.id.to_string()).collect()
    }

    fn ids(steps: &[Step]) -> Vec<StepId> {
        steps.iter().map(|step| step.id.clone()).collect()
    }

    /// Applies `links` to `steps`. Returns the new first step if it changes.
    fn apply(steps: &mut [Step], links: &[LinkUpdate]) -> Option<Option<StepId>> {
        let mut first_step = None;
        for link in links {
            match &link.from {
                None => first_step = Some(link.to.clone()),
                Some(from) => {
                    if let Some(step) = steps.iter_mut().find(|step| step.id == *from) {
                        step.next_step_id.clone_from(&link.to);
                    }
                }
            }
        }
        first_step
    }

    #[test]
    fn steps_are_ordered_and_errors_name_the_problem() {
        let ordered = order(Some(&id(2)), vec![step(1, None), step(2, Some(3)), step(3, Some(1))]).unwrap();
        assert_eq!(names(&ordered), ["ws_2", "ws_3", "ws_1"]);
        assert!(order::<Step>(None, vec![]).unwrap().is_empty());

        let cases = [
            ("is broken at step ws_1", Some(1), vec![step(1, Some(9))]),
            ("is cyclic at step ws_2", Some(1), vec![step(1, Some(2)), step(2, Some(1))]),
            ("is forked at step ws_2", Some(1), vec![step(1, Some(3)), step(2, Some(3)), step(3, None)]),
            ("is not connected at step ws_2", Some(1), vec![step(1, None), step(2, None)]),
            ("is not connected at step ws_2", Some(1), vec![step(1, None), step(2, Some(3)), step(3, Some(2))]),
            ("begins at ws_7", Some(7), vec![step(1, None)]),
            ("is not connected at step ws_1", None, vec![step(1, None)]),
        ];
        for (expected, first, steps) in cases {
            let error = order(first.map(id).as_ref(), steps).unwrap_err();
            assert!(error.message.contains(expected), "{} does not contain `{expected}`", error.message);
        }
    }

    #[test]
    fn links_are_ordered_like_steps() {
        let link = |n, next: Option<usize>| Link { id: id(n), next_step_id: next.map(id) };
        let ordered = order(Some(&id(2)), vec![link(1, None), link(2, Some(1))]).unwrap();
        assert_eq!(ordered, [link(2, Some(1)), link(1, None)]);
        let error = order(Some(&id(1)), vec![link(1, None), link(2, None)]).unwrap_err();
        assert_eq!(error.message, "The chain of steps is not connected at step ws_2.");
    }

    fn chain(length: usize) -> Vec<StepId> {
        (1..=length).map(id).collect()
    }

    fn link(from: Option<usize>, to: Option<usize>) -> LinkUpdate {
        LinkUpdate { from: from.map(id), to: to.map(id) }
    }

    #[test]
    fn edits_update_only_the_neighbours() {
        let steps = chain(3);
        let insert = |position| insert(&steps, &id(9), &position).unwrap();
        assert_eq!(insert(StepPosition::First), [link(None, Some(9)), link(Some(9), Some(1))]);
        assert_eq!(insert(StepPosition::After(id(1))), [link(Some(1), Some(9)), link(Some(9), Some(2))]);
        assert_eq!(insert(StepPosition::Last), [link(Some(3), Some(9)), link(Some(9), None)]);
        assert_eq!(remove(&steps, &id(1)).unwrap(), [link(None, Some(2))]);
        assert_eq!(remove(&steps, &id(2)).unwrap(), [link(Some(1), Some(3))]);
        assert_eq!(
            relocate(&steps, &id(3), &StepPosition::First).unwrap(),
            (vec![link(Some(2), None), link(None, Some(3)), link(Some(3), Some(1))], 0)
        );
        assert_eq!(
            relocate(&steps, &id(1), &StepPosition::After(id(2))).unwrap(),
            (vec![link(None, Some(2)), link(Some(2), Some(1)), link(Some(1), Some(3))], 1)
        );
    }

    #[test]
    fn a_step_that_is_already_there_is_not_moved() {
        let steps = chain(3);
        for (step, position) in [
            (1, StepPosition::First),
            (2, StepPosition::After(id(1))),
            (3, StepPosition::After(id(2))),
            (3, StepPosition::Last),
        ] {
            assert_eq!(relocate(&steps, &id(step), &position).unwrap(), (vec![], step - 1));
        }
    }

    #[test]
    fn edits_of_missing_steps_are_rejected() {
        let steps = chain(3);
        let missing = StepPosition::After(id(9));
        let results = [
            insert(&steps, &id(8), &missing),
            remove(&steps, &id(9)),
            relocate(&steps, &id(9), &StepPosition::First).map(|(links, _)| links),
            relocate(&steps, &id(1), &missing).map(|(links, _)| links),
        ];
        for result in results {
            let error = result.unwrap_err();
            assert_eq!((error.code, error.message.as_str()), (Code::StepNotFound, "The walkthrough has no step ws_9."));
        }
        let error = relocate(&steps, &id(2), &StepPosition::After(id(2))).unwrap_err();
        assert_eq!((error.code, error.message.as_str()), (Code::Conflict, "A step cannot follow itself."));
    }

    proptest! {
        /// Random insertions, moves and removals have the same effect on the chain as on a plain list and update at
        /// most three pointers.
        #[test]
        fn behaves_like_a_list(operations in prop::collection::vec((0_u8..3, 0_usize..30, 0_usize..30), 0..60)) {
            let mut list: Vec<StepId> = Vec::new();
            let mut first_step: Option<StepId> = None;
            let mut steps: Vec<Step> = Vec::new();
            for (number, (operation, a, b)) in operations.into_iter().enumerate() {
                let ordered = ids(&order(first_step.as_ref(), steps.clone()).unwrap());
                let position = match b {
                    0..5 => StepPosition::First,
                    5..10 => StepPosition::Last,
                    _ if list.is_empty() => StepPosition::Last,
                    _ => StepPosition::After(list[b % list.len()].clone()),
                };
                let links = match operation {
                    0 => {
                        let new = id(number);
                        steps.push(step(number, None));
                        put(&mut list, new.clone(), &position);
                        insert(&ordered, &new, &position).unwrap()
                    }
                    _ if list.is_empty() => continue,
                    1 => {
                        let moved = list[a % list.len()].clone();
                        if position == StepPosition::After(moved.clone()) { continue; }
                        list.retain(|other| *other != moved);
                        put(&mut list, moved.clone(), &position);
                        let (links, index) = relocate(&ordered, &moved, &position).unwrap();
                        prop_assert_eq!(&list[index], &moved);
                        links
                    }
                    _ => {
                        let removed = list.remove(a % list.len());
                        let links = remove(&ordered, &removed).unwrap();
                        steps.retain(|step| step.id != removed);
                        links
                    }
                };
                prop_assert!(links.len() <= 3);
                if let Some(new_first_step) = apply(&mut steps, &links) {
                    first_step = new_first_step;
                }
                let ordered = order(first_step.as_ref(), steps.clone()).unwrap();
                prop_assert_eq!(ordered.iter().map(|step| step.id.clone()).collect::<Vec<_>>(), list.clone());
            }
        }
    }

    fn put(list: &mut Vec<StepId>, new: StepId, position: &StepPosition) {
        let at = match position {
            StepPosition::First => 0,
            StepPosition::Last => list.len(),
            StepPosition::After(id) => list.iter().position(|other| other == id).unwrap() + 1,
        };
        list.insert(at, new);
    }
}
