//! The request and response bodies for walkthroughs and steps.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;
use waypost_core::step;
use waypost_core::walkthrough::{self, WalkthroughFields, WalkthroughState, WalkthroughType};
use waypost_ops::walkthroughs::draft::{self, StepPatch};
use waypost_ops::walkthroughs::{Draft, ListedWalkthrough};

use crate::extract::nullable;

/// A walkthrough in a list.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct WalkthroughSummary {
    #[schema(example = "wt_0123456789abcdef")]
    pub id: String,
    /// The slug, which is also the name of the MCP prompt. Unique in the organisation.
    pub slug: String,
    pub title: String,
    pub description: String,
    #[serde(rename = "type")]
    pub kind: WalkthroughType,
    pub state: WalkthroughState,
    /// The number of steps in the draft.
    pub step_count: u32,
    pub estimated_duration_minutes: Option<u32>,
    pub tags: Vec<String>,
    /// The number of the current version: the newest one that has not been withdrawn. Null if there is none.
    pub current_version: Option<u32>,
    /// The ID of the current version.
    pub current_version_id: Option<String>,
    /// Whether the draft has changed since the current version. False if there is none.
    pub has_unpublished_changes: bool,
    /// The revision of the draft, increased by every edit. It is also the `ETag`.
    pub revision: u32,
    #[schema(format = DateTime)]
    pub created_at: String,
    #[schema(format = DateTime)]
    pub updated_at: String,
}

impl From<&ListedWalkthrough> for WalkthroughSummary {
    fn from(listed: &ListedWalkthrough) -> Self {
        let walkthrough = &listed.walkthrough;
        Self {
            id: walkthrough.id.to_string(),
            slug: walkthrough.slug.clone(),
            title: walkthrough.title.clone(),
            description: walkthrough.description.clone(),
            kind: walkthrough.kind,
            state: walkthrough.state,
            step_count: listed.step_count,
            estimated_duration_minutes: walkthrough.estimated_duration_minutes,
            tags: walkthrough.tags.clone(),
            current_version: listed.current_version,
            current_version_id: walkthrough.current_version_id.as_ref().map(ToString::to_string),
            has_unpublished_changes: walkthrough.has_unpublished_changes(),
            revision: walkthrough.revision,
            created_at: walkthrough.created_at.rfc3339(),
            updated_at: walkthrough.updated_at.rfc3339(),
        }
    }
}

/// A walkthrough with its metadata, without steps.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct WalkthroughDetails {
    #[serde(flatten)]
    pub summary: WalkthroughSummary,
    /// Custom metadata.
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
    pub details: WalkthroughDetails,
    /// The steps of the draft, in order.
    pub steps: Vec<Step>,
}

impl Walkthrough {
    /// Creates the body from a draft and its list entry.
    pub(super) fn new(listed: &ListedWalkthrough, draft: &Draft) -> Self {
        Self { details: listed.into(), steps: steps(&draft.walkthrough, &draft.steps) }
    }
}

/// A step of a draft or version.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Step {
    #[schema(example = "ws_0123456789abcdef")]
    pub id: String,
    /// The author's key for the step, by which an import recognises it. Unique in the walkthrough.
    pub key: Option<String>,
    /// The position, starting at 1.
    pub position: usize,
    pub title: String,
    /// The title of the section that the step belongs to.
    pub section_title: Option<String>,
    /// The Markdown content shown to the end user.
    pub content: String,
    /// Text for the agent: how to introduce the step.
    pub introduction_for_agent: Option<String>,
    /// Text for the agent: background information.
    pub context_for_agent: Option<String>,
    /// Text for the agent: operations to carry out.
    pub operations_for_agent: Option<String>,
    /// Custom metadata.
    #[schema(value_type = Object)]
    pub metadata: Map<String, Value>,
    /// Empty fields that publishing requires.
    pub missing: Vec<&'static str>,
}

impl Step {
    /// Creates the body of a step of a walkthrough of type `kind`, at `position`.
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

/// Creates the bodies of a draft's steps.
pub(super) fn steps(walkthrough: &walkthrough::Walkthrough, steps: &[step::Step]) -> Vec<Step> {
    (1..).zip(steps).map(|(position, step)| Step::new(walkthrough.kind, position, step)).collect()
}

/// The result of editing a step.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct StepEditResult {
    /// The new revision of the draft, for the next edit.
    pub revision: u32,
    pub step: Step,
}

/// The result of deleting a step.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct StepDeleteResult {
    /// The new revision of the draft, for the next edit.
    pub revision: u32,
    /// The deleted step. Send it to `/restore` to restore it.
    pub step: Step,
    /// The ID of the previous step. Null if the deleted step was the first one.
    pub after: Option<String>,
}

impl From<draft::StepEdit> for StepEditResult {
    fn from(edited: draft::StepEdit) -> Self {
        Self { revision: edited.revision, step: Step::new(edited.kind, edited.position, &edited.step) }
    }
}

impl From<draft::StepDeletion> for StepDeleteResult {
    fn from(deletion: draft::StepDeletion) -> Self {
        let StepEditResult { revision, step } = deletion.deleted.into();
        Self { revision, step, after: deletion.after.as_ref().map(ToString::to_string) }
    }
}

/// A walkthrough to create.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct WalkthroughCreate {
    /// The title. Unique in the organisation.
    #[schema(min_length = 1, max_length = 200)]
    pub title: String,
    #[serde(rename = "type")]
    pub kind: WalkthroughType,
    /// The description, one paragraph.
    #[serde(default)]
    #[schema(max_length = 65536)]
    pub description: String,
    /// The slug. Derived from the title by default.
    #[schema(pattern = "^[a-z0-9]([a-z0-9-]*[a-z0-9])?$", max_length = 60)]
    pub slug: Option<String>,
    pub estimated_duration_minutes: Option<u32>,
    #[serde(default)]
    #[schema(max_items = 100)]
    pub tags: Vec<String>,
    /// Custom metadata.
    #[serde(default)]
    #[schema(value_type = Object)]
    pub metadata: Map<String, Value>,
    /// Whether to start with the steps of the template for the type.
    #[serde(default)]
    pub template: bool,
}

impl From<WalkthroughCreate> for waypost_ops::walkthroughs::NewWalkthrough {
    fn from(create: WalkthroughCreate) -> Self {
        Self {
            fields: WalkthroughFields {
                title: create.title,
                description: create.description,
                kind: create.kind,
                estimated_duration_minutes: create.estimated_duration_minutes,
                tags: create.tags,
                metadata: create.metadata,
            },
            slug: create.slug,
        }
    }
}

/// Changes to a walkthrough. Absent members are not changed.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct WalkthroughUpdate {
    #[schema(min_length = 1, max_length = 200)]
    pub title: Option<String>,
    /// The slug. It takes effect immediately; the other fields take effect when they are published.
    #[schema(pattern = "^[a-z0-9]([a-z0-9-]*[a-z0-9])?$", max_length = 60)]
    pub slug: Option<String>,
    #[schema(max_length = 65536)]
    pub description: Option<String>,
    #[serde(rename = "type")]
    pub kind: Option<WalkthroughType>,
    /// Null clears the value.
    #[serde(default, deserialize_with = "nullable")]
    #[schema(value_type = Option<u32>)]
    pub estimated_duration_minutes: Option<Option<u32>>,
    #[schema(max_items = 100)]
    pub tags: Option<Vec<String>>,
    #[schema(value_type = Option<Object>)]
    pub metadata: Option<Map<String, Value>>,
}

impl From<WalkthroughUpdate> for waypost_ops::walkthroughs::WalkthroughPatch {
    fn from(update: WalkthroughUpdate) -> Self {
        Self {
            title: update.title,
            slug: update.slug,
            description: update.description,
            kind: update.kind,
            estimated_duration_minutes: update.estimated_duration_minutes,
            tags: update.tags,
            metadata: update.metadata,
        }
    }
}

/// Changes to a step. Absent members are not changed; null clears a value.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct StepUpdate {
    /// The author's key for the step. Unique in the walkthrough.
    #[serde(default, deserialize_with = "nullable")]
    #[schema(value_type = Option<String>, max_length = 256)]
    pub key: Option<Option<String>>,
    #[schema(min_length = 1, max_length = 200)]
    pub title: Option<String>,
    /// The title of the section that the step belongs to.
    #[serde(default, deserialize_with = "nullable")]
    #[schema(value_type = Option<String>, max_length = 200)]
    pub section_title: Option<Option<String>>,
    /// The Markdown content shown to the end user.
    #[serde(default, deserialize_with = "nullable")]
    #[schema(value_type = Option<String>, max_length = 65536)]
    pub content: Option<Option<String>>,
    /// Text for the agent: how to introduce the step.
    #[serde(default, deserialize_with = "nullable")]
    #[schema(value_type = Option<String>, max_length = 65536)]
    pub introduction_for_agent: Option<Option<String>>,
    /// Text for the agent: background information.
    #[serde(default, deserialize_with = "nullable")]
    #[schema(value_type = Option<String>, max_length = 65536)]
    pub context_for_agent: Option<Option<String>>,
    /// Text for the agent: operations to carry out.
    #[serde(default, deserialize_with = "nullable")]
    #[schema(value_type = Option<String>, max_length = 65536)]
    pub operations_for_agent: Option<Option<String>>,
    /// Custom metadata. Replaces the current metadata.
    #[schema(value_type = Option<Object>)]
    pub metadata: Option<Map<String, Value>>,
}

impl From<StepUpdate> for StepPatch {
    fn from(update: StepUpdate) -> Self {
        Self {
            key: update.key,
            title: update.title,
            section_title: update.section_title,
            content: update.content.map(Option::unwrap_or_default),
            introduction_for_agent: update.introduction_for_agent,
            context_for_agent: update.context_for_agent,
            operations_for_agent: update.operations_for_agent,
            metadata: update.metadata,
        }
    }
}
