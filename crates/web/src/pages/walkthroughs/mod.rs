//! Walkthroughs: the list in [`list`], making and importing in [`new`], publishing in [`publish`], the history in
//! [`versions`], servers and files in [`assignments`]. The editor has a file of its own.

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
use crate::Web;
use crate::diff::{DiffLine, DiffTag, Differ};

/// The pages.
pub(super) fn routes() -> Routes {
    Routes::new()
        .merge(list::routes())
        .merge(new::routes())
        .merge(publish::routes())
        .merge(trash::routes())
        .merge(versions::routes())
        .merge(assignments::routes())
}

/// The id in a path. One that is none is that of nothing.
fn walkthrough_id(text: &str) -> Result<WalkthroughId> {
    text.parse().map_err(|_| Error::not_found("walkthrough"))
}

/// A walkthrough's draft, opened for one of its pages.
struct DraftContext {
    member: Member,
    id: WalkthroughId,
    draft: Draft,
    /// The address of the walkthrough.
    at: String,
}

impl DraftContext {
    async fn new(web: &Web, member: Member, id: &str) -> Result<Self, PageError> {
        let found = async {
            let id = walkthrough_id(id)?;
            walkthroughs::get_draft(&member.cx, web.ops(), &member.organization_id, &id).await
        };
        match found.await {
            Ok(draft) => {
                let id = draft.walkthrough.id.clone();
                let at = member.org.path(&format!("walkthroughs/{id}"));
                Ok(Self { member, id, draft, at })
            }
            Err(error) => Err(PageError::from(error).with_layout(member.layout.with_section("walkthroughs"))),
        }
    }

    fn walkthrough(&self) -> &Walkthrough {
        &self.draft.walkthrough
    }

    fn layout(&self) -> Layout {
        self.member.layout.clone().with_section("walkthroughs")
    }

    fn page_error(&self, error: Error) -> PageError {
        PageError::from(error).with_layout(self.layout())
    }

    /// What a form changes, and the revision that its page showed.
    fn target(&self, revision: Option<u32>) -> EditTarget<'_> {
        EditTarget { organization_id: &self.member.organization_id, walkthrough_id: &self.id, revision }
    }

    /// What stands around each of the pages.
    fn header(&self, tab: &'static str) -> WalkthroughHeader {
        WalkthroughHeader {
            list: self.member.org.path("walkthroughs"),
            title: self.walkthrough().title.clone(),
            state: self.walkthrough().state,
            unpublished: self.walkthrough().has_unpublished_changes(),
            at: self.at.clone(),
            tab,
        }
    }
}

/// What stands around the pages of one walkthrough.
struct WalkthroughHeader {
    /// The address of the list.
    list: String,
    title: String,
    state: WalkthroughState,
    /// Whether the draft has changed since its newest version.
    unpublished: bool,
    /// The address of the walkthrough.
    at: String,
    /// The present page.
    tab: &'static str,
}

impl WalkthroughHeader {
    /// The present page.
    fn tab(&self) -> &'static str {
        self.tab
    }
}

/// The badge of a state: its class and its word.
fn badge(state: &WalkthroughState) -> (&'static str, &'static str) {
    match state {
        WalkthroughState::Draft => ("badge info", "Draft"),
        WalkthroughState::Published => ("badge good", "Published"),
        WalkthroughState::Archived => ("badge", "Archived"),
    }
}

/// The name of a type for people.
fn kind_name(kind: &WalkthroughType) -> &'static str {
    match kind {
        WalkthroughType::Course => "Course",
        WalkthroughType::Installer => "Installer",
        WalkthroughType::Troubleshooting => "Troubleshooting",
        WalkthroughType::Integration => "Integration",
        WalkthroughType::Quickstart => "Quickstart",
    }
}

/// The name of a field for people.
fn field_name(field: &str) -> String {
    let words = field.replace("_for_agent", " for the agent").replace('_', " ");
    let mut letters = words.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

/// A field that is different, for a page.
struct FieldChange {
    name: String,
    lines: Vec<DiffLine>,
}

/// A step that is different, for a page.
struct StepChange {
    /// Class and text of its badge.
    badge: (&'static str, &'static str),
    title: String,
    /// Where it stood and stands.
    places: String,
    fields: Vec<FieldChange>,
}

/// What is different, without what stayed.
struct Changes {
    head: Vec<FieldChange>,
    steps: Vec<StepChange>,
    /// How many steps stayed as they are.
    unchanged: usize,
}

impl Changes {
    fn new(comparison: waypost_core::compare::Comparison) -> Self {
        let differ = Differ::default();
        let fields = |fields: Vec<waypost_core::compare::FieldDifference>| {
            let change = |it: waypost_core::compare::FieldDifference| FieldChange {
                name: field_name(it.field),
                lines: differ.lines(&it.before, &it.after),
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
            places: match (step.before, step.after) {
                (Some(before), Some(after)) if before != after => format!("step {before}, now {after}"),
                (Some(position), Some(_)) | (None, Some(position)) => format!("step {position}"),
                (Some(before), None) => format!("was step {before}"),
                (None, None) => String::new(),
            },
            title: step.title,
            fields: fields(step.fields),
        });
        Self { steps: steps.collect(), head: fields(comparison.head), unchanged }
    }

    fn is_empty(&self) -> bool {
        self.head.is_empty() && self.steps.is_empty()
    }
}

/// The mark of a line, which says what the colour says.
fn mark(tag: &DiffTag) -> &'static str {
    match tag {
        DiffTag::Same => " ",
        DiffTag::Added => "+",
        DiffTag::Removed => "−",
        DiffTag::Skipped => "⋯",
    }
}
