//! Published versions: numbered, immutable, shared by reference.

use std::collections::HashMap;

use crate::clock::Timestamp;
use crate::id::{StepId, VersionId, WalkthroughId};
use crate::step::StepContent;
use crate::walkthrough::WalkthroughFields;

/// A published version without its steps.
#[derive(Debug, Clone, PartialEq)]
pub struct VersionInfo {
    /// The version's ID.
    pub id: VersionId,
    /// The walkthrough.
    pub walkthrough_id: WalkthroughId,
    /// The version number, counted from 1 and never reused.
    pub number: u32,
    /// The walkthrough's fields at the time of publishing.
    pub fields: WalkthroughFields,
    /// Number of steps.
    pub step_count: u32,
    /// When it was published.
    pub created_at: Timestamp,
    /// The withdrawal; `None` if the version was not withdrawn.
    pub withdrawal: Option<Withdrawal>,
}

/// The withdrawal of a version by its author.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Withdrawal {
    /// When the version was withdrawn.
    pub at: Timestamp,
    /// The reason, shown to users who were on the version.
    pub reason: String,
}

/// A published step.
#[derive(Debug, Clone, PartialEq)]
pub struct VersionStep {
    /// The step's ID, the same in the draft and in every version.
    pub id: StepId,
    /// The step's bit in a [`crate::progress::StepSet`], the same in every version.
    pub ordinal: u32,
    /// The content.
    pub content: StepContent,
}

/// A published version with its steps in order, as their author wrote them. They are cleaned before they are served.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredVersion {
    /// The version's ID.
    pub id: VersionId,
    /// The walkthrough.
    pub walkthrough_id: WalkthroughId,
    /// The version number, counted from 1.
    pub number: u32,
    /// The title at the time of publishing.
    pub title: String,
    /// The steps in order.
    pub steps: Vec<VersionStep>,
}

/// A published version as it is served, with an index of its steps. Its text is clean.
#[derive(Debug)]
pub struct Version {
    /// The version's ID.
    pub id: VersionId,
    /// The walkthrough.
    pub walkthrough_id: WalkthroughId,
    /// The version number, counted from 1.
    pub number: u32,
    /// The title at the time of publishing, cleaned.
    pub title: String,
    steps: Vec<VersionStep>,
    index: HashMap<StepId, usize>,
    ordinals: Vec<u32>,
}

impl Version {
    /// Creates a version whose text was cleaned by the caller.
    #[must_use]
    pub fn from_clean(version: StoredVersion) -> Self {
        let StoredVersion { id, walkthrough_id, number, title, steps } = version;
        let index = steps.iter().enumerate().map(|(index, step)| (step.id.clone(), index)).collect();
        let ordinals = steps.iter().map(|step| step.ordinal).collect();
        Self { id, walkthrough_id, number, title, steps, index, ordinals }
    }

    /// Returns the steps in order.
    #[must_use]
    pub fn steps(&self) -> &[VersionStep] {
        &self.steps
    }

    /// Returns the ordinals of the steps in order. Reading them is faster than reading [`Version::steps`], which are
    /// large.
    #[must_use]
    pub fn ordinals(&self) -> &[u32] {
        &self.ordinals
    }

    /// Returns the number of steps.
    #[must_use]
    pub fn step_count(&self) -> usize {
        self.steps.len()
    }

    /// Returns the index of the step, from 0. Returns `None` if this version does not contain it.
    #[must_use]
    pub fn position_of(&self, step: &StepId) -> Option<usize> {
        self.index.get(step).copied()
    }

    /// Returns the approximate size in memory in bytes, for caches with a size limit.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        let text = |field: &Option<String>| field.as_ref().map_or(0, String::len);
        let steps = self.steps.iter().map(|step| {
            let content = &step.content;
            256 + content.title.len()
                + content.content.len()
                + text(&content.section_title)
                + text(&content.introduction_for_agent)
                + text(&content.context_for_agent)
                + text(&content.operations_for_agent)
        });
        256 + self.title.len() + steps.sum::<usize>()
    }
}
