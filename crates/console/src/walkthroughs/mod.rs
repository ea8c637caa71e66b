//! Walkthroughs: the list in [`list`], creating and importing in [`new`], publishing in [`publish`], the history in
//! [`versions`], assignments and export in [`assignments`]. The editor has its own module.

mod assignments;
mod bulk_publish;
mod list;
mod new;
mod publish;
mod trash;
mod versions;

use waypost_core::id::WalkthroughId;
use waypost_core::walkthrough::{Walkthrough, WalkthroughState, WalkthroughType};
use waypost_core::{Error, Result};
use waypost_ops::walkthroughs::{self, Draft, EditTarget};

use super::layout::Layout;
use super::routes::Routes;
use super::session::Member;
use super::view::PageError;
use crate::Console;
use waypost_content::diff::{DiffLine, DiffTag, Differ};

/// Returns the routes of these pages.
pub(super) fn routes() -> Routes {
    Routes::new()
        .merge(list::routes())
        .merge(new::routes())
        .merge(publish::routes())
        .merge(trash::routes())
        .merge(versions::routes())
        .merge(assignments::routes())
}

/// Parses the ID in a path. A malformed ID returns `not_found`.
fn walkthrough_id(text: &str) -> Result<WalkthroughId> {
    text.parse().map_err(|_| Error::not_found("walkthrough"))
}

/// A draft with the context of the request.
pub(crate) struct DraftContext {
    pub(crate) member: Member,
    pub(crate) id: WalkthroughId,
    draft: Draft,
    /// The path of the walkthrough.
    pub(crate) path: String,
}

impl DraftContext {
    pub(crate) async fn new(console: &Console, member: Member, id: &str) -> Result<Self, PageError> {
        let loaded = async {
            let id = walkthrough_id(id)?;
            walkthroughs::get_draft(&member.cx, console.ops(), &member.organization_id, &id).await
        };
        match loaded.await {
            Ok(draft) => {
                let id = draft.walkthrough.id.clone();
                let path = member.org.path(&format!("walkthroughs/{id}"));
                Ok(Self { member, id, draft, path })
            }
            Err(error) => Err(PageError::from(error).with_layout(member.layout.with_section("walkthroughs"))),
        }
    }

    fn walkthrough(&self) -> &Walkthrough {
        &self.draft.walkthrough
    }

    pub(crate) fn layout(&self) -> Layout {
        self.member.layout.clone().with_section("walkthroughs")
    }

    pub(crate) fn page_error(&self, error: Error) -> PageError {
        PageError::from(error).with_layout(self.layout())
    }

    /// Returns the target of a change, with the revision that the page showed.
    fn target(&self, revision: Option<u32>) -> EditTarget<'_> {
        EditTarget { organization_id: &self.member.organization_id, walkthrough_id: &self.id, revision }
    }

    /// Returns the header for a page of the walkthrough.
    pub(crate) fn header(&self, tab: &'static str) -> WalkthroughHeader {
        WalkthroughHeader {
            list: self.member.org.path("walkthroughs"),
            title: self.walkthrough().title.clone(),
            state: self.walkthrough().state,
            unpublished: self.walkthrough().has_unpublished_changes(),
            path: self.path.clone(),
            tab,
        }
    }
}

/// The header of all pages of a walkthrough.
pub(crate) struct WalkthroughHeader {
    /// The path of the list.
    pub(crate) list: String,
    pub(crate) title: String,
    pub(crate) state: WalkthroughState,
    /// Whether the draft has changed since the newest version.
    pub(crate) unpublished: bool,
    /// The path of the walkthrough.
    pub(crate) path: String,
    /// The current tab.
    tab: &'static str,
}

impl WalkthroughHeader {
    /// Returns the current tab.
    pub(crate) fn tab(&self) -> &'static str {
        self.tab
    }
}

/// Returns the class and label of the badge of a state.
pub(crate) fn badge(state: &WalkthroughState) -> (&'static str, &'static str) {
    match state {
        WalkthroughState::Draft => ("badge info", "Draft"),
        WalkthroughState::Published => ("badge good", "Published"),
        WalkthroughState::Archived => ("badge", "Archived"),
    }
}

/// Returns the label of a type.
fn kind_name(kind: &WalkthroughType) -> &'static str {
    match kind {
        WalkthroughType::Course => "Course",
        WalkthroughType::Installer => "Installer",
        WalkthroughType::Troubleshooting => "Troubleshooting",
        WalkthroughType::Integration => "Integration",
        WalkthroughType::Quickstart => "Quickstart",
    }
}

/// Returns the label of a field.
fn field_name(field: &str) -> String {
    let label = field.replace("_for_agent", " for the agent").replace('_', " ");
    let mut letters = label.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

/// A changed field.
struct FieldChange {
    name: String,
    lines: Vec<DiffLine>,
}

/// A changed step.
struct StepChange {
    /// The class and label of the badge.
    badge: (&'static str, &'static str),
    title: String,
    /// The old and new position.
    position: String,
    fields: Vec<FieldChange>,
}

/// The changes between two versions, without unchanged steps.
struct Changes {
    fields: Vec<FieldChange>,
    steps: Vec<StepChange>,
    /// The number of unchanged steps.
    unchanged: usize,
}

impl Changes {
    fn new(comparison: waypost_content::compare::Comparison) -> Self {
        let differ = Differ::default();
        let fields = |fields: Vec<waypost_content::compare::FieldDifference>| {
            let change = |difference: waypost_content::compare::FieldDifference| FieldChange {
                name: field_name(difference.field),
                lines: differ.lines(&difference.before, &difference.after),
            };
            fields.into_iter().map(change).collect::<Vec<_>>()
        };
        let unchanged = comparison.steps.iter().filter(|step| step.is_unchanged()).count();
        let steps = comparison.steps.into_iter().filter(|step| !step.is_unchanged()).map(|step| StepChange {
            badge: match &step {
                step if step.is_added() => ("badge good", "Added"),
                step if step.is_removed() => ("badge bad", "Removed"),
                step if step.is_changed() && step.moved => ("badge warn", "Changed and moved"),
                step if step.is_changed() => ("badge warn", "Changed"),
                _ => ("badge info", "Moved"),
            },
            position: match (step.before, step.after) {
                (Some(before), Some(after)) if before != after => format!("step {before}, now {after}"),
                (Some(position), Some(_)) | (None, Some(position)) => format!("step {position}"),
                (Some(before), None) => format!("was step {before}"),
                (None, None) => String::new(),
            },
            title: step.title,
            fields: fields(step.fields),
        });
        Self { steps: steps.collect(), fields: fields(comparison.fields), unchanged }
    }

    fn is_empty(&self) -> bool {
        self.fields.is_empty() && self.steps.is_empty()
    }
}

/// Returns the sign of a line, so that the change is not conveyed by colour alone.
pub(crate) fn mark(tag: &DiffTag) -> &'static str {
    match tag {
        DiffTag::Same => " ",
        DiffTag::Added => "+",
        DiffTag::Removed => "−",
        DiffTag::Skipped => "⋯",
    }
}
