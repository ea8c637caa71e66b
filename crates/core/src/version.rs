//! Published versions: numbered, immutable, shared by reference.

use std::collections::HashMap;

use crate::clock::Timestamp;
use crate::id::{StepId, VersionId, WalkthroughId};
use crate::served;
use crate::step::StepContent;
use crate::walkthrough::WalkthroughFields;

/// A published version without its steps.
#[derive(Debug, Clone, PartialEq)]
pub struct VersionHead {
    /// The version.
    pub id: VersionId,
    /// What it is a version of.
    pub walkthrough_id: WalkthroughId,
    /// Counts from 1; never given twice.
    pub number: u32,
    /// The head of the walkthrough at the time of publishing.
    pub fields: WalkthroughFields,
    /// How many steps.
    pub step_count: u32,
    /// When it was published.
    pub created_at: Timestamp,
    /// Set when the author took it back.
    pub withdrawal: Option<Withdrawal>,
}

/// That an author took a version back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Withdrawal {
    /// When.
    pub at: Timestamp,
    /// Why, for the users who were on it.
    pub reason: String,
}

/// A step as it was published; in a [`Version`] as it is served.
#[derive(Debug, Clone, PartialEq)]
pub struct FrozenStep {
    /// The step, the same in the draft and in every version.
    pub id: StepId,
    /// The step's bit in a [`crate::progress::StepSet`], the same in every version.
    pub ordinal: u32,
    /// The author's part.
    pub content: StepContent,
}

/// A published version as it is served, with its steps in order: clean, whatever was typed (see [`served`]).
#[derive(Debug)]
pub struct Version {
    /// The version.
    pub id: VersionId,
    /// What it is a version of.
    pub walkthrough_id: WalkthroughId,
    /// Counts from 1.
    pub number: u32,
    /// The title at the time of publishing, as it is served.
    pub title: String,
    steps: Vec<FrozenStep>,
    index: HashMap<StepId, usize>,
}

impl Version {
    /// A version of `steps` in their order, as their author typed them. Takes time in proportion to their texts, so that
    /// versions are made once and shared.
    #[must_use]
    pub fn new(
        id: VersionId,
        walkthrough_id: WalkthroughId,
        number: u32,
        title: String,
        steps: Vec<FrozenStep>,
    ) -> Self {
        let clean = |step: FrozenStep| FrozenStep { content: served::step(&step.content), ..step };
        let (title, steps): (_, Vec<_>) = (served::title(&title), steps.into_iter().map(clean).collect());
        let index = steps.iter().enumerate().map(|(at, step)| (step.id.clone(), at)).collect();
        Self { id, walkthrough_id, number, title, steps, index }
    }

    /// The steps in order.
    #[must_use]
    pub fn steps(&self) -> &[FrozenStep] {
        &self.steps
    }

    /// How many steps.
    #[must_use]
    pub fn total(&self) -> usize {
        self.steps.len()
    }

    /// Where the step stands, from 0; none when this version does not have it.
    #[must_use]
    pub fn find(&self, step: &StepId) -> Option<usize> {
        self.index.get(step).copied()
    }

    /// About how many bytes this takes in memory: what a cache that is bounded in bytes counts.
    #[must_use]
    pub fn weight(&self) -> usize {
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
