//! What a walkthrough is, apart from its steps.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::clock::Timestamp;
use crate::id::{OrganizationId, StepId, VersionId, WalkthroughId};
use crate::step::StepContent;

/// Walkthroughs in an organisation at most.
pub const MAX_WALKTHROUGHS: usize = 20_000;

/// Makes an enum of names: text in, text out, one place.
macro_rules! names {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $text:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
        pub enum $name { $($(#[$vdoc])* #[serde(rename = $text)] $variant),+ }

        impl $name {
            /// Every value.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The name in the store, in the API and on the command line.
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
    /// What a walkthrough is for; decides which fields publishing requires.
    WalkthroughType {
        /// Lessons in order.
        Course = "course",
        /// Sets something up; each step needs operations for the agent.
        Installer = "installer",
        /// Finds and mends a fault; each step needs context for the agent.
        Troubleshooting = "troubleshooting",
        /// Connects two things; each step needs context and operations for the agent.
        Integration = "integration",
        /// The shortest way to a first success.
        Quickstart = "quickstart",
    }
}

impl WalkthroughType {
    /// The fields that every step must have before it is published, by name.
    #[must_use]
    pub fn required_fields(self) -> &'static [&'static str] {
        match self {
            Self::Course | Self::Quickstart => &["content"],
            Self::Installer => &["content", "operations_for_agent"],
            Self::Troubleshooting => &["content", "context_for_agent"],
            Self::Integration => &["content", "context_for_agent", "operations_for_agent"],
        }
    }

    /// Those of [`Self::required_fields`] that are empty in `step`.
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

    /// The first of [`Self::missing_fields`].
    #[must_use]
    pub fn missing_field(self, step: &StepContent) -> Option<&'static str> {
        self.missing_fields(step).next()
    }
}

names! {
    /// Where a walkthrough is in its life.
    WalkthroughState {
        /// Never published, or taken back: not served.
        Draft = "draft",
        /// Its newest version is served where it is assigned.
        Published = "published",
        /// Out of use: not served, kept.
        Archived = "archived",
    }
}

names! {
    /// By what a list of walkthroughs is sorted.
    WalkthroughSort {
        /// Title.
        Title = "title",
        /// The last change.
        UpdatedAt = "updated_at",
        /// When it was made.
        CreatedAt = "created_at",
    }
}

/// A walkthrough's head: everything but its steps.
#[derive(Debug, Clone, PartialEq)]
pub struct Walkthrough {
    /// The walkthrough.
    pub id: WalkthroughId,
    /// Whose it is.
    pub organization_id: OrganizationId,
    /// Title, unique in the organisation.
    pub title: String,
    /// Name in addresses and of the prompt; unique in the organisation, stable when the title changes.
    pub slug: String,
    /// One paragraph for a list.
    pub description: String,
    /// What it is for.
    pub kind: WalkthroughType,
    /// Where it is in its life.
    pub state: WalkthroughState,
    /// How long it takes, in minutes.
    pub estimated_duration_minutes: Option<u32>,
    /// Labels.
    pub tags: Vec<String>,
    /// Free members, kept and written back.
    pub metadata: Map<String, Value>,
    /// The first step of the draft.
    pub first_step_id: Option<StepId>,
    /// The newest version that is not withdrawn.
    pub current_version_id: Option<VersionId>,
    /// Counts the edits of the draft; an edit names the revision that it was made on.
    pub revision: u32,
    /// The revision that the newest version was made of; none while it is not known.
    pub published_revision: Option<u32>,
    /// The next free ordinal of a step.
    pub next_ordinal: u32,
    /// When it was made.
    pub created_at: Timestamp,
    /// When the draft or the head last changed.
    pub updated_at: Timestamp,
}

impl fmt::Display for Walkthrough {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.title)
    }
}

/// What an author can set on a walkthrough, apart from its steps.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WalkthroughFields {
    /// Title, 1 to 200 characters.
    pub title: String,
    /// One paragraph for a list.
    pub description: String,
    /// What it is for.
    #[serde(rename = "type")]
    pub kind: WalkthroughType,
    /// How long it takes, in minutes.
    pub estimated_duration_minutes: Option<u32>,
    /// Labels.
    pub tags: Vec<String>,
    /// Free members.
    pub metadata: Map<String, Value>,
}

impl Walkthrough {
    /// The author's part of the head.
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

    /// Whether the draft has changed since its newest version was published; false while there is no version.
    #[must_use]
    pub fn has_unpublished_changes(&self) -> bool {
        self.current_version_id.is_some() && self.published_revision != Some(self.revision)
    }

    /// Replaces the author's part of the head.
    pub fn set_fields(&mut self, fields: WalkthroughFields) {
        self.title = fields.title;
        self.description = fields.description;
        self.kind = fields.kind;
        self.estimated_duration_minutes = fields.estimated_duration_minutes;
        self.tags = fields.tags;
        self.metadata = fields.metadata;
    }
}

/// Reads a name of an enum, with the field that it stood in.
///
/// # Errors
/// `invalid_arguments` naming `field` and the values that exist.
pub fn parse_enum<T: FromStr<Err = String>>(field: &str, text: &str) -> crate::Result<T> {
    text.parse().map_err(|expected| crate::Error::invalid(field, format!("`{field}`: {expected}, not `{text}`.")))
}
