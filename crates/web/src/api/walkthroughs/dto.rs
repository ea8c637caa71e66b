//! What the API says of walkthroughs and steps.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;
use waypost_core::step;
use waypost_core::walkthrough::{self, WalkthroughFields};
use waypost_ops::walkthroughs::draft::{self, StepPatch};
use waypost_ops::walkthroughs::{Draft, ListedWalkthrough};

use crate::api::extract::nullable;

/// What a walkthrough is for; decides which fields publishing requires.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum WalkthroughType {
    /// Lessons in order.
    Course,
    /// Sets something up: every step needs `operations_for_agent`.
    Installer,
    /// Finds and mends a fault: every step needs `context_for_agent`.
    Troubleshooting,
    /// Connects two things: every step needs `context_for_agent` and `operations_for_agent`.
    Integration,
    /// The shortest way to a first success.
    Quickstart,
}

impl From<WalkthroughType> for walkthrough::WalkthroughType {
    fn from(it: WalkthroughType) -> Self {
        match it {
            WalkthroughType::Course => Self::Course,
            WalkthroughType::Installer => Self::Installer,
            WalkthroughType::Troubleshooting => Self::Troubleshooting,
            WalkthroughType::Integration => Self::Integration,
            WalkthroughType::Quickstart => Self::Quickstart,
        }
    }
}

impl From<walkthrough::WalkthroughType> for WalkthroughType {
    fn from(it: walkthrough::WalkthroughType) -> Self {
        match it {
            walkthrough::WalkthroughType::Course => Self::Course,
            walkthrough::WalkthroughType::Installer => Self::Installer,
            walkthrough::WalkthroughType::Troubleshooting => Self::Troubleshooting,
            walkthrough::WalkthroughType::Integration => Self::Integration,
            walkthrough::WalkthroughType::Quickstart => Self::Quickstart,
        }
    }
}

/// Where a walkthrough is in its life.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum WalkthroughState {
    /// Never published, or taken back: not served.
    Draft,
    /// Its newest version is served where it is assigned.
    Published,
    /// Out of use: not served, kept.
    Archived,
}

impl From<WalkthroughState> for walkthrough::WalkthroughState {
    fn from(it: WalkthroughState) -> Self {
        match it {
            WalkthroughState::Draft => Self::Draft,
            WalkthroughState::Published => Self::Published,
            WalkthroughState::Archived => Self::Archived,
        }
    }
}

impl From<walkthrough::WalkthroughState> for WalkthroughState {
    fn from(it: walkthrough::WalkthroughState) -> Self {
        match it {
            walkthrough::WalkthroughState::Draft => Self::Draft,
            walkthrough::WalkthroughState::Published => Self::Published,
            walkthrough::WalkthroughState::Archived => Self::Archived,
        }
    }
}

/// A walkthrough in a list.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct WalkthroughSummary {
    #[schema(example = "wt_0123456789abcdef")]
    pub id: String,
    /// Name in addresses and of the prompt; unique in the organisation.
    pub slug: String,
    pub title: String,
    pub description: String,
    #[serde(rename = "type")]
    pub kind: WalkthroughType,
    pub state: WalkthroughState,
    /// Steps in the draft.
    pub step_count: u32,
    pub estimated_duration_minutes: Option<u32>,
    pub tags: Vec<String>,
    /// The number of the version that is served; null before the first and when all are withdrawn.
    pub current_version: Option<u32>,
    /// The id of that version.
    pub current_version_id: Option<String>,
    /// Whether the draft has changed since that version; false while there is none.
    pub has_unpublished_changes: bool,
    /// Counts the edits of the draft; the `ETag` of a walkthrough.
    pub revision: u32,
    #[schema(format = DateTime)]
    pub created_at: String,
    #[schema(format = DateTime)]
    pub updated_at: String,
}

impl From<&ListedWalkthrough> for WalkthroughSummary {
    fn from(listed: &ListedWalkthrough) -> Self {
        let head = &listed.walkthrough;
        Self {
            id: head.id.to_string(),
            slug: head.slug.clone(),
            title: head.title.clone(),
            description: head.description.clone(),
            kind: head.kind.into(),
            state: head.state.into(),
            step_count: listed.step_count,
            estimated_duration_minutes: head.estimated_duration_minutes,
            tags: head.tags.clone(),
            current_version: listed.current_version,
            current_version_id: head.current_version_id.as_ref().map(ToString::to_string),
            has_unpublished_changes: head.has_unpublished_changes(),
            revision: head.revision,
            created_at: head.created_at.rfc3339(),
            updated_at: head.updated_at.rfc3339(),
        }
    }
}

/// A walkthrough's head with its metadata: what can be edited of it.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct WalkthroughDetails {
    #[serde(flatten)]
    pub summary: WalkthroughSummary,
    /// Free members.
    #[schema(value_type = Object)]
    pub metadata: Map<String, Value>,
}

impl From<&ListedWalkthrough> for WalkthroughDetails {
    fn from(listed: &ListedWalkthrough) -> Self {
        Self { summary: listed.into(), metadata: listed.walkthrough.metadata.clone() }
    }
}

/// A walkthrough with the steps of its draft.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Walkthrough {
    #[serde(flatten)]
    pub head: WalkthroughDetails,
    /// In order.
    pub steps: Vec<Step>,
}

impl Walkthrough {
    /// The draft with what a list shows of its head.
    pub(super) fn new(listed: &ListedWalkthrough, draft: &Draft) -> Self {
        Self { head: listed.into(), steps: steps(&draft.walkthrough, &draft.steps) }
    }
}

/// A step.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Step {
    #[schema(example = "ws_0123456789abcdef")]
    pub id: String,
    /// The author's own name of it, by which an import finds it again.
    pub key: Option<String>,
    /// Where it stands, from 1.
    pub position: usize,
    pub title: String,
    pub section_title: Option<String>,
    /// What the user reads, Markdown.
    pub content: String,
    pub introduction_for_agent: Option<String>,
    pub context_for_agent: Option<String>,
    pub operations_for_agent: Option<String>,
    /// Free members.
    #[schema(value_type = Object)]
    pub metadata: Map<String, Value>,
    /// Fields that publishing requires and that are empty.
    pub missing: Vec<&'static str>,
}

impl Step {
    /// A step of a walkthrough of the type `kind`, at `position`.
    pub(super) fn new(kind: walkthrough::WalkthroughType, position: usize, step: &step::Step) -> Self {
        let content = &step.content;
        Self {
            id: step.id.to_string(),
            key: step.key.clone(),
            position,
            title: content.title.clone(),
            section_title: content.section_title.clone(),
            content: content.content.clone(),
            introduction_for_agent: content.introduction_for_agent.clone(),
            context_for_agent: content.context_for_agent.clone(),
            operations_for_agent: content.operations_for_agent.clone(),
            metadata: content.metadata.clone(),
            missing: kind.missing_fields(content).collect(),
        }
    }
}

/// The steps of a draft or of a version of `head`'s type.
pub(super) fn steps(head: &walkthrough::Walkthrough, steps: &[step::Step]) -> Vec<Step> {
    (1..).zip(steps).map(|(position, step)| Step::new(head.kind, position, step)).collect()
}

/// A step after an edit.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct StepEditResult {
    /// The walkthrough's revision, for the next edit.
    pub revision: u32,
    pub step: Step,
}

/// A step that was deleted.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct StepDeleteResult {
    /// The walkthrough's revision, for the next edit.
    pub revision: u32,
    /// As it was: send it to `/restore` to bring it back.
    pub step: Step,
    /// The step that stood before it; null for the first.
    pub after: Option<String>,
}

impl StepDeleteResult {
    pub(super) fn new(kind: walkthrough::WalkthroughType, position: usize, removed: &draft::StepDeletion) -> Self {
        Self {
            revision: removed.revision,
            step: Step::new(kind, position, &removed.step),
            after: removed.after.as_ref().map(ToString::to_string),
        }
    }
}

/// A walkthrough to make.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct WalkthroughCreate {
    /// Unique in the organisation.
    #[schema(min_length = 1, max_length = 200)]
    pub title: String,
    #[serde(rename = "type")]
    pub kind: WalkthroughType,
    /// One paragraph.
    #[serde(default)]
    #[schema(max_length = 65536)]
    pub description: String,
    /// Made from the title when absent.
    #[schema(pattern = "^[a-z0-9]([a-z0-9-]*[a-z0-9])?$", max_length = 60)]
    pub slug: Option<String>,
    pub estimated_duration_minutes: Option<u32>,
    #[serde(default)]
    #[schema(max_items = 100)]
    pub tags: Vec<String>,
    #[serde(default)]
    #[schema(value_type = Object)]
    pub metadata: Map<String, Value>,
    /// Begin with the steps of the type's template.
    #[serde(default)]
    pub template: bool,
}

impl From<WalkthroughCreate> for waypost_ops::walkthroughs::NewWalkthrough {
    fn from(it: WalkthroughCreate) -> Self {
        Self {
            fields: WalkthroughFields {
                title: it.title,
                description: it.description,
                kind: it.kind.into(),
                estimated_duration_minutes: it.estimated_duration_minutes,
                tags: it.tags,
                metadata: it.metadata,
            },
            slug: it.slug,
        }
    }
}

/// What to change of a walkthrough; what is absent stays.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct WalkthroughUpdate {
    #[schema(min_length = 1, max_length = 200)]
    pub title: Option<String>,
    /// Served at once; the other fields are served when they are published.
    #[schema(pattern = "^[a-z0-9]([a-z0-9-]*[a-z0-9])?$", max_length = 60)]
    pub slug: Option<String>,
    #[schema(max_length = 65536)]
    pub description: Option<String>,
    #[serde(rename = "type")]
    pub kind: Option<WalkthroughType>,
    /// Null clears it.
    #[serde(default, deserialize_with = "nullable")]
    #[schema(value_type = Option<u32>)]
    pub estimated_duration_minutes: Option<Option<u32>>,
    #[schema(max_items = 100)]
    pub tags: Option<Vec<String>>,
    #[schema(value_type = Option<Object>)]
    pub metadata: Option<Map<String, Value>>,
}

impl From<WalkthroughUpdate> for waypost_ops::walkthroughs::WalkthroughPatch {
    fn from(it: WalkthroughUpdate) -> Self {
        Self {
            title: it.title,
            slug: it.slug,
            description: it.description,
            kind: it.kind.map(Into::into),
            estimated_duration_minutes: it.estimated_duration_minutes,
            tags: it.tags,
            metadata: it.metadata,
        }
    }
}

/// Fields of a step to change; what is absent stays, null clears.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct StepUpdate {
    #[serde(default, deserialize_with = "nullable")]
    #[schema(value_type = Option<String>, max_length = 256)]
    pub key: Option<Option<String>>,
    #[schema(min_length = 1, max_length = 200)]
    pub title: Option<String>,
    #[serde(default, deserialize_with = "nullable")]
    #[schema(value_type = Option<String>, max_length = 200)]
    pub section_title: Option<Option<String>>,
    #[serde(default, deserialize_with = "nullable")]
    #[schema(value_type = Option<String>, max_length = 65536)]
    pub content: Option<Option<String>>,
    #[serde(default, deserialize_with = "nullable")]
    #[schema(value_type = Option<String>, max_length = 65536)]
    pub introduction_for_agent: Option<Option<String>>,
    #[serde(default, deserialize_with = "nullable")]
    #[schema(value_type = Option<String>, max_length = 65536)]
    pub context_for_agent: Option<Option<String>>,
    #[serde(default, deserialize_with = "nullable")]
    #[schema(value_type = Option<String>, max_length = 65536)]
    pub operations_for_agent: Option<Option<String>>,
    #[schema(value_type = Option<Object>)]
    pub metadata: Option<Map<String, Value>>,
}

impl From<StepUpdate> for StepPatch {
    fn from(it: StepUpdate) -> Self {
        Self {
            key: it.key,
            title: it.title,
            section_title: it.section_title,
            content: it.content.map(Option::unwrap_or_default),
            introduction_for_agent: it.introduction_for_agent,
            context_for_agent: it.context_for_agent,
            operations_for_agent: it.operations_for_agent,
            metadata: it.metadata,
        }
    }
}
