//! Walkthroughs, without their steps.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::clock::Timestamp;
use crate::id::{OrganizationId, StepId, VersionId, WalkthroughId};
use crate::step::StepContent;

/// Maximum number of walkthroughs in an organisation.
pub const MAX_WALKTHROUGHS: usize = 20_000;

/// Defines an enum whose variants have names, with parsing, formatting and serialisation. The documentation of the REST
/// API contains the names and the comments.
macro_rules! names {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $text:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
        #[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(rename_all = "snake_case"))]
        pub enum $name { $($(#[$vdoc])* #[serde(rename = $text)] $variant),+ }

        impl $name {
            /// Every value.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// Returns the name used in the store, in the API and on the command line.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text),+ }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl std::str::FromStr for $name {
            type Err = String;

            fn from_str(text: &str) -> Result<Self, String> {
                match text {
                    $($text => Ok(Self::$variant),)+
                    _ => Err(format!("expected one of {}", [$($text),+].join(", "))),
                }
            }
        }
    };
}
pub(crate) use names;

names! {
    /// The type of a walkthrough. It determines the fields that publishing requires: `operations_for_agent` on every step
    /// for `installer`, `context_for_agent` for `troubleshooting`, and both for `integration`.
    WalkthroughType {
        /// A sequence of lessons.
        Course = "course",
        /// Installs something. Every step needs `operations_for_agent`.
        Installer = "installer",
        /// Finds and fixes a problem. Every step needs `context_for_agent`.
        Troubleshooting = "troubleshooting",
        /// Connects two systems. Every step needs `context_for_agent` and `operations_for_agent`.
        Integration = "integration",
        /// The shortest path to a first result.
        Quickstart = "quickstart",
    }
}

impl WalkthroughType {
    /// Returns the names of the fields that every step must have before publishing.
    #[must_use]
    pub fn required_fields(self) -> &'static [&'static str] {
        match self {
            Self::Course | Self::Quickstart => &["content"],
            Self::Installer => &["content", "operations_for_agent"],
            Self::Troubleshooting => &["content", "context_for_agent"],
            Self::Integration => &["content", "context_for_agent", "operations_for_agent"],
        }
    }

    /// Returns the [`Self::required_fields`] that are empty in `step`.
    pub fn missing_fields(self, step: &StepContent) -> impl Iterator<Item = &'static str> {
        self.required_fields().iter().copied().filter(move |field| {
            let text = match *field {
                "context_for_agent" => step.context_for_agent.as_deref().unwrap_or_default(),
                "operations_for_agent" => step.operations_for_agent.as_deref().unwrap_or_default(),
                _ => &step.content,
            };
            text.trim().is_empty()
        })
    }
}

names! {
    /// The state of a walkthrough. `draft`: not served. `published`: the newest version is served on every server that the
    /// walkthrough is assigned to. `archived`: not served, but kept.
    WalkthroughState {
        /// Never published, or unpublished. Not served.
        Draft = "draft",
        /// The newest version is served on every server that the walkthrough is assigned to.
        Published = "published",
        /// Not served, but kept.
        Archived = "archived",
    }
}

names! {
    /// The sort order of a list of walkthroughs.
    WalkthroughSort {
        /// By title.
        Title = "title",
        /// By the time of the last change.
        UpdatedAt = "updated_at",
        /// By the time of creation.
        CreatedAt = "created_at",
    }
}

/// A walkthrough without its steps.
#[derive(Debug, Clone, PartialEq)]
pub struct Walkthrough {
    /// The walkthrough's ID.
    pub id: WalkthroughId,
    /// The organisation that owns the walkthrough.
    pub organization_id: OrganizationId,
    /// Title, unique in the organisation.
    pub title: String,
    /// The name in URLs, and the name of the prompt. Unique in the organisation; stable when the title changes.
    pub slug: String,
    /// One paragraph for lists.
    pub description: String,
    /// The type.
    pub kind: WalkthroughType,
    /// The state.
    pub state: WalkthroughState,
    /// Estimated duration in minutes.
    pub estimated_duration_minutes: Option<u32>,
    /// Tags.
    pub tags: Vec<String>,
    /// Arbitrary metadata, preserved on export.
    pub metadata: Map<String, Value>,
    /// The first step of the draft.
    pub first_step_id: Option<StepId>,
    /// The newest version that is not withdrawn.
    pub current_version_id: Option<VersionId>,
    /// Number of edits of the draft. Each edit states the revision it is based on.
    pub revision: u32,
    /// The revision from which the newest version was published; `None` if unknown.
    pub published_revision: Option<u32>,
    /// The next unused step ordinal.
    pub next_ordinal: u32,
    /// When the walkthrough was created.
    pub created_at: Timestamp,
    /// When the draft or a field was last changed.
    pub updated_at: Timestamp,
}

impl fmt::Display for Walkthrough {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.title)
    }
}

/// The fields of a walkthrough that an author can set.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WalkthroughFields {
    /// Title, 1 to 200 characters.
    pub title: String,
    /// One paragraph for lists.
    pub description: String,
    /// The type.
    #[serde(rename = "type")]
    pub kind: WalkthroughType,
    /// Estimated duration in minutes.
    pub estimated_duration_minutes: Option<u32>,
    /// Tags.
    pub tags: Vec<String>,
    /// Arbitrary metadata.
    pub metadata: Map<String, Value>,
}

impl Walkthrough {
    /// Returns the fields that an author can set.
    #[must_use]
    pub fn fields(&self) -> WalkthroughFields {
        WalkthroughFields {
            title: self.title.clone(),
            description: self.description.clone(),
            kind: self.kind,
            estimated_duration_minutes: self.estimated_duration_minutes,
            tags: self.tags.clone(),
            metadata: self.metadata.clone(),
        }
    }

    /// Whether the draft has changed since the newest version was published. False if there is no version.
    #[must_use]
    pub fn has_unpublished_changes(&self) -> bool {
        self.current_version_id.is_some() && self.published_revision != Some(self.revision)
    }

    /// Replaces the fields that an author can set.
    pub fn set_fields(&mut self, fields: WalkthroughFields) {
        self.title = fields.title;
        self.description = fields.description;
        self.kind = fields.kind;
        self.estimated_duration_minutes = fields.estimated_duration_minutes;
        self.tags = fields.tags;
        self.metadata = fields.metadata;
    }
}
