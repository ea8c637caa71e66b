//! What an import would do to the draft that is there: which step is which, and what changes.
//!
//! A step of the file is an existing step when, in this order,
//! 1. its key or path is the key of the existing step,
//! 2. its key is the id of the existing step (an export of a step without a key has its id as key),
//! 3. it has neither key nor path, and title and occurrence are the same among the steps not found so far,
//! 4. it has a key or path that is new, and title and occurrence are those of an existing step that has none: an author
//!    who begins to use keys keeps the steps (and what the end users have completed), and the step takes the key.
//!
//! An existing key is never taken away: a file that leaves it out has nothing to say about it.

use std::collections::{HashMap, HashSet};
use std::fmt;

use super::file::{FIELDS, ImportStep};
use super::identity::title_key;
use super::source::label;
use crate::id::StepId;
use crate::step::{Step, StepContent};
use crate::walkthrough::WalkthroughFields;

/// What an import would do.
#[derive(Debug, Clone, PartialEq)]
pub struct ImportPlan {
    /// The steps as they will be, in order.
    pub steps: Vec<PlannedStep>,
    /// Steps that the file does not have: id and title.
    pub removed: Vec<(StepId, String)>,
    /// Fields of the walkthrough that change, by name.
    pub fields_changed: Vec<&'static str>,
    /// How many steps there are now.
    pub existing: usize,
    /// How many of them the file has.
    pub matched: usize,
}

/// A step as it will be.
#[derive(Debug, Clone, PartialEq)]
pub struct PlannedStep {
    /// The step that this is; none for a new one.
    pub existing: Option<StepId>,
    /// The key that it will have.
    pub key: Option<String>,
    /// The author's part as it will be.
    pub content: StepContent,
    /// What changes.
    pub change: StepChange,
}

/// What an import would do to a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StepChange {
    /// Nothing.
    Unchanged,
    /// It stands elsewhere, and is otherwise as before.
    Moved,
    /// These fields change.
    Updated {
        /// By name, as in the model.
        fields: Vec<&'static str>,
        /// Whether it also stands elsewhere.
        moved: bool,
    },
    /// It is new.
    Added,
}

/// Compares `steps` of a file, as they would be stored, with the draft: its head and its steps in the order of
/// the chain. `existing` is none for a walkthrough that is new.
#[must_use]
pub fn plan(
    existing: Option<(&WalkthroughFields, &[Step])>,
    fields: &WalkthroughFields,
    steps: Vec<ImportStep>,
) -> ImportPlan {
    let existing_steps = existing.map_or(&[][..], |(_, steps)| steps);
    let found = find(existing_steps, &steps);
    let moved = find_moved(&found);
    let planned: Vec<_> = steps
        .into_iter()
        .zip(&found)
        .zip(moved)
        .map(|((step, found), moved)| planned_step(step, found.map(|at| &existing_steps[at]), moved))
        .collect();
    let kept: HashSet<_> = found.iter().flatten().copied().collect();
    let removed = existing_steps.iter().enumerate().filter(|(at, _)| !kept.contains(at));
    ImportPlan {
        steps: planned,
        removed: removed.map(|(_, step)| (step.id.clone(), step.content.title.clone())).collect(),
        fields_changed: existing.map_or_else(Vec::new, |(before, _)| changed_fields(before, fields)),
        existing: existing_steps.len(),
        matched: kept.len(),
    }
}

/// For each step of the file, the place of the existing step that it is.
fn find(existing: &[Step], steps: &[ImportStep]) -> Vec<Option<usize>> {
    let mut found = vec![None; steps.len()];
    let mut taken = vec![false; existing.len()];
    let take = |found: &mut Option<usize>, at: Option<&usize>, taken: &mut [bool]| {
        if let Some(&at) = at.filter(|&&at| found.is_none() && !taken[at]) {
            (*found, taken[at]) = (Some(at), true);
        }
    };
    let by_key: HashMap<_, _> =
        existing.iter().enumerate().filter_map(|(at, step)| Some((step.key.as_deref()?, at))).collect();
    let by_id: HashMap<_, _> = existing.iter().enumerate().map(|(at, step)| (step.id.as_str(), at)).collect();
    for names in [by_key, by_id] {
        for (step, found) in steps.iter().zip(&mut found) {
            take(found, step.identity.key().and_then(|key| names.get(key)), &mut taken);
        }
    }
    for keyed in [false, true] {
        let mut by_title: HashMap<String, Vec<usize>> = HashMap::new();
        for (at, step) in existing.iter().enumerate().rev() {
            let out_of_reach = keyed && step.key.is_some();
            if !taken[at] && !out_of_reach {
                by_title.entry(title_key(&step.content.title)).or_default().push(at);
            }
        }
        for (step, found) in steps.iter().zip(&mut found) {
            if found.is_none()
                && step.identity.key().is_some() == keyed
                && let Some(places) = by_title.get_mut(&title_key(&step.content.title))
            {
                take(found, places.pop().as_ref(), &mut taken);
            }
        }
    }
    found
}

/// Which steps stand elsewhere than before: all but the longest run of found steps that keep their order, so that one
/// step that is put in front is one move and not many.
pub(crate) fn find_moved(found: &[Option<usize>]) -> Vec<bool> {
    // For every length, the run of that length that ends with the smallest place: patience sorting.
    let mut ends: Vec<usize> = Vec::new();
    let mut before: Vec<Option<usize>> = vec![None; found.len()];
    for (at, place) in found.iter().enumerate() {
        let Some(place) = place else { continue };
        let length = ends.partition_point(|&end| found[end].is_some_and(|other| other < *place));
        before[at] = length.checked_sub(1).map(|shorter| ends[shorter]);
        if length == ends.len() { ends.push(at) } else { ends[length] = at }
    }
    let mut moved: Vec<_> = found.iter().map(Option::is_some).collect();
    for at in std::iter::successors(ends.last().copied(), |&at| before[at]) {
        moved[at] = false;
    }
    moved
}

fn planned_step(step: ImportStep, existing: Option<&Step>, moved: bool) -> PlannedStep {
    let Some(before) = existing else {
        let key = step.identity.key().map(str::to_owned);
        return PlannedStep { existing: None, key, content: step.content, change: StepChange::Added };
    };
    let said = step.identity.key().filter(|key| *key != before.id.as_str());
    let key = said.map(str::to_owned).or_else(|| before.key.clone());
    let mut fields = changed_content(&before.content, &step.content);
    if key != before.key {
        fields.push("key");
    }
    let change = match (fields.is_empty(), moved) {
        (true, false) => StepChange::Unchanged,
        (true, true) => StepChange::Moved,
        (false, moved) => StepChange::Updated { fields, moved },
    };
    PlannedStep { existing: Some(before.id.clone()), key, content: step.content, change }
}

pub(super) fn changed_content(before: &StepContent, after: &StepContent) -> Vec<&'static str> {
    let same = [
        before.title == after.title,
        before.section_title == after.section_title,
        before.content == after.content,
        before.introduction_for_agent == after.introduction_for_agent,
        before.context_for_agent == after.context_for_agent,
        before.operations_for_agent == after.operations_for_agent,
        before.metadata == after.metadata,
    ];
    FIELDS.into_iter().chain(["metadata"]).zip(same).filter(|(_, same)| !same).map(|(name, _)| name).collect()
}

fn changed_fields(before: &WalkthroughFields, after: &WalkthroughFields) -> Vec<&'static str> {
    let same = [
        ("title", before.title == after.title),
        ("description", before.description == after.description),
        ("type", before.kind == after.kind),
        ("estimated_duration_minutes", before.estimated_duration_minutes == after.estimated_duration_minutes),
        ("tags", before.tags == after.tags),
        ("metadata", before.metadata == after.metadata),
    ];
    same.into_iter().filter(|(_, same)| !same).map(|(name, _)| name).collect()
}

impl ImportPlan {
    /// Whether the draft is already what the file says.
    #[must_use]
    pub fn is_unchanged(&self) -> bool {
        self.fields_changed.is_empty()
            && self.removed.is_empty()
            && self.steps.iter().all(|step| step.change == StepChange::Unchanged)
    }

    /// Whether the file has under half of the existing steps, so that it is probably another walkthrough and needs
    /// `--replace`.
    #[must_use]
    pub fn needs_replace(&self) -> bool {
        self.matched * 2 < self.existing
    }

    /// How much of the existing steps the file has, 0 to 1; 1 when there are none.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "a walkthrough has 500 steps at most")]
    pub fn matched_fraction(&self) -> f64 {
        if self.existing == 0 { 1.0 } else { self.matched as f64 / self.existing as f64 }
    }

    /// One line: how many steps are added, updated and so on.
    #[must_use]
    pub fn summary(&self) -> String {
        if self.is_unchanged() {
            return format!("nothing changes ({})", steps(self.steps.len()));
        }
        let count = |wanted: fn(&StepChange) -> bool| self.steps.iter().filter(|step| wanted(&step.change)).count();
        let counts = [
            (count(|change| *change == StepChange::Added), "added"),
            (count(|change| matches!(change, StepChange::Updated { .. })), "updated"),
            (count(|change| *change == StepChange::Moved), "moved"),
            (self.removed.len(), "removed"),
            (count(|change| *change == StepChange::Unchanged), "unchanged"),
        ];
        let mut parts: Vec<_> = counts.iter().filter(|(n, _)| *n > 0).map(|(n, what)| format!("{n} {what}")).collect();
        if !self.fields_changed.is_empty() {
            parts.push(format!("walkthrough: {}", self.fields_changed.join(", ")));
        }
        format!("{}: {}", steps(self.steps.len()), parts.join(", "))
    }
}

fn steps(count: usize) -> String {
    if count == 1 { "1 step".to_owned() } else { format!("{count} steps") }
}

/// What would change, step by step: a line for each step, then those that go, then the summary.
impl fmt::Display for ImportPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, step) in self.steps.iter().enumerate() {
            let name = label(at + 1, Some(&step.content.title));
            match &step.change {
                StepChange::Unchanged => writeln!(f, "  {name}: unchanged")?,
                StepChange::Moved => writeln!(f, "> {name}: moved")?,
                StepChange::Added => writeln!(f, "+ {name}: added")?,
                StepChange::Updated { fields, moved } => {
                    let moved = if *moved { ", moved" } else { "" };
                    writeln!(f, "~ {name}: updated ({}){moved}", fields.join(", "))?;
                }
            }
        }
        for (id, title) in &self.removed {
            writeln!(f, "- {title:?} ({id}): removed")?;
        }
        if !self.fields_changed.is_empty() {
            writeln!(f, "~ walkthrough: updated ({})", self.fields_changed.join(", "))?;
        }
        f.write_str(&self.summary())
    }
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
