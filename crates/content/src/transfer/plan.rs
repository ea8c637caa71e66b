//! The import plan: how an import would change the existing draft.
//!
//! A step of the file matches an existing step by the first of these rules that applies:
//! 1. Its key or path equals the key of the existing step.
//! 2. Its key equals the ID of the existing step (an exported step without a key has its ID as key).
//! 3. It has neither key nor path, and its title and occurrence equal those of the existing step, among the steps not
//!    matched so far.
//! 4. It has a new key or path, and its title and occurrence equal those of an existing step without a key. If an
//!    author adds keys to a file later, the steps and the progress of end users are therefore kept, and the existing
//!    steps get the keys.
//!
//! An existing key is never removed if the file omits it.

use std::collections::{HashMap, HashSet};
use std::fmt;

use super::file::{FIELDS, ImportStep};
use super::identity::title_key;
use super::source::label;
use waypost_core::id::StepId;
use waypost_core::step::{Step, StepContent};
use waypost_core::walkthrough::WalkthroughFields;

/// The changes that an import would make.
#[derive(Debug, Clone, PartialEq)]
pub struct ImportPlan {
    /// The resulting steps in order.
    pub steps: Vec<PlannedStep>,
    /// The existing steps that are absent from the file: ID and title.
    pub removed: Vec<(StepId, String)>,
    /// The names of the walkthrough's fields that change.
    pub fields_changed: Vec<&'static str>,
    /// Number of existing steps.
    pub existing: usize,
    /// Number of existing steps that match a step of the file.
    pub matched: usize,
}

/// A step as it will be after the import.
#[derive(Debug, Clone, PartialEq)]
pub struct PlannedStep {
    /// The matching existing step; `None` for a new step.
    pub existing: Option<StepId>,
    /// The resulting key.
    pub key: Option<String>,
    /// The resulting content.
    pub content: StepContent,
    /// The change.
    pub change: StepChange,
}

/// The change that an import would make to a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StepChange {
    /// The step does not change.
    Unchanged,
    /// Only the position changes.
    Moved,
    /// Fields change.
    Updated {
        /// The names of the fields in the model.
        fields: Vec<&'static str>,
        /// Whether the position changes as well.
        moved: bool,
    },
    /// The step is new.
    Added,
}

/// Compares a file with the draft. `fields` and `steps` are those of the file, as they would be stored. `existing`
/// contains the draft's fields and its steps in chain order; `None` for a new walkthrough.
#[must_use]
pub fn plan(
    existing: Option<(&WalkthroughFields, &[Step])>,
    fields: &WalkthroughFields,
    steps: Vec<ImportStep>,
) -> ImportPlan {
    let existing_steps = existing.map_or(&[][..], |(_, steps)| steps);
    let matches = find(existing_steps, &steps);
    let moved = find_moved(&matches);
    let planned: Vec<_> = steps
        .into_iter()
        .zip(&matches)
        .zip(moved)
        .map(|((step, matches), moved)| planned_step(step, matches.map(|at| &existing_steps[at]), moved))
        .collect();
    let kept: HashSet<_> = matches.iter().flatten().copied().collect();
    let removed = existing_steps.iter().enumerate().filter(|(index, _)| !kept.contains(index));
    ImportPlan {
        steps: planned,
        removed: removed.map(|(_, step)| (step.id.clone(), step.content.title.clone())).collect(),
        fields_changed: existing.map_or_else(Vec::new, |(before, _)| changed_fields(before, fields)),
        existing: existing_steps.len(),
        matched: kept.len(),
    }
}

/// Returns, for each step of the file, the index of the matching existing step.
fn find(existing: &[Step], steps: &[ImportStep]) -> Vec<Option<usize>> {
    let mut matches = vec![None; steps.len()];
    let mut taken = vec![false; existing.len()];
    let take = |matches: &mut Option<usize>, at: Option<&usize>, taken: &mut [bool]| {
        if let Some(&at) = at.filter(|&&at| matches.is_none() && !taken[at]) {
            (*matches, taken[at]) = (Some(at), true);
        }
    };
    let by_key: HashMap<_, _> =
        existing.iter().enumerate().filter_map(|(index, step)| Some((step.key.as_deref()?, index))).collect();
    let by_id: HashMap<_, _> = existing.iter().enumerate().map(|(index, step)| (step.id.as_str(), index)).collect();
    for names in [by_key, by_id] {
        for (step, matches) in steps.iter().zip(&mut matches) {
            take(matches, step.identity.key().and_then(|key| names.get(key)), &mut taken);
        }
    }
    for keyed in [false, true] {
        let mut by_title: HashMap<String, Vec<usize>> = HashMap::new();
        for (index, step) in existing.iter().enumerate().rev() {
            let is_excluded = keyed && step.key.is_some();
            if !taken[index] && !is_excluded {
                by_title.entry(title_key(&step.content.title)).or_default().push(index);
            }
        }
        for (step, matches) in steps.iter().zip(&mut matches) {
            if matches.is_none()
                && step.identity.key().is_some() == keyed
                && let Some(places) = by_title.get_mut(&title_key(&step.content.title))
            {
                take(matches, places.pop().as_ref(), &mut taken);
            }
        }
    }
    matches
}

/// Returns whether each step was moved. The steps of the longest subsequence that keeps its order count as not moved,
/// so that moving one step to the front counts as one move.
pub(crate) fn find_moved(found: &[Option<usize>]) -> Vec<bool> {
    // Patience sorting: for each length, the subsequence of that length with the smallest last position.
    let mut ends: Vec<usize> = Vec::new();
    let mut before: Vec<Option<usize>> = vec![None; found.len()];
    for (index, place) in found.iter().enumerate() {
        let Some(place) = place else { continue };
        let length = ends.partition_point(|&end| found[end].is_some_and(|other| other < *place));
        before[index] = length.checked_sub(1).map(|shorter| ends[shorter]);
        if length == ends.len() { ends.push(index) } else { ends[length] = index }
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
    let new_key = step.identity.key().filter(|key| *key != before.id.as_str());
    let key = new_key.map(str::to_owned).or_else(|| before.key.clone());
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
    /// Whether the import would change nothing.
    #[must_use]
    pub fn is_unchanged(&self) -> bool {
        self.fields_changed.is_empty()
            && self.removed.is_empty()
            && self.steps.iter().all(|step| step.change == StepChange::Unchanged)
    }

    /// Whether fewer than half of the existing steps match a step of the file. The file is then probably a different
    /// walkthrough, and `--replace` is required.
    #[must_use]
    pub fn needs_replace(&self) -> bool {
        self.matched * 2 < self.existing
    }

    /// Returns a one-line summary with the number of added, updated, moved, removed and unchanged steps.
    #[must_use]
    pub fn summary(&self) -> String {
        if self.is_unchanged() {
            return format!("{} unchanged", steps(self.steps.len()));
        }
        let count = |matches: fn(&StepChange) -> bool| self.steps.iter().filter(|step| matches(&step.change)).count();
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

/// Writes one line for each step, then the removed steps, then the summary.
impl fmt::Display for ImportPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, step) in self.steps.iter().enumerate() {
            let name = label(index + 1, Some(&step.content.title));
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
