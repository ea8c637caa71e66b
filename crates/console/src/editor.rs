//! `/o/{org}/walkthroughs/{id}`: the editor. `assets/editor.js` loads and saves the walkthrough through the REST API.
//! The preview is rendered here, by the functions that serve end users.

use askama::Template;
use axum::extract::{Path, Query, State};
use axum::response::Response;
use http::StatusCode;
use serde::Deserialize;
use waypost_content::clean::FieldChange;
use waypost_core::access::Operation;
use waypost_core::id::{StepId, WalkthroughId};
use waypost_core::progress::percent;
use waypost_core::step::{Step, StepContent};
use waypost_core::walkthrough::Walkthrough;
use waypost_core::{Error, Result};
use waypost_ops::walkthroughs::preview::{self, Preview, PreviewPoint};
use waypost_ops::walkthroughs::{self};

use crate::Console;
use crate::form::Form;
use crate::layout::Layout;
use crate::routes::{Access, Routes};
use crate::session::Member;
use crate::view::{self, FormError, PageError, PageResult};
use waypost_content::html;
use waypost_http_kit::status;

/// Returns the routes of the editor and its fragments.
pub(super) fn routes() -> Routes {
    Routes::new()
        .get("/o/{org}/walkthroughs/{id}", Access::Member(Operation::WalkthroughRead), show)
        .post("/o/{org}/walkthroughs/{id}/preview", Access::Member(Operation::WalkthroughRead), preview_step)
        .get("/o/{org}/walkthroughs/{id}/play", Access::Member(Operation::WalkthroughRead), play)
}

/// The value and label of each type.
const KINDS: [(&str, &str); 5] = [
    ("course", "Course: lessons in order"),
    ("quickstart", "Quickstart: the fastest path to a first result"),
    ("installer", "Installer: every step needs operations for the agent"),
    ("troubleshooting", "Troubleshooting: every step needs context for the agent"),
    ("integration", "Integration: every step needs context and operations for the agent"),
];

#[derive(Template)]
#[template(path = "editor/editor.html")]
struct EditorPage<'a> {
    layout: Layout,
    walkthrough: &'a Walkthrough,
    /// The path of the list.
    walkthroughs: String,
    /// The path of this walkthrough.
    path: String,
    tab: &'static str,
    /// The email of the viewer. The browser keeps unsaved text per viewer.
    viewer: String,
    kinds: [(&'static str, &'static str); 5],
}

async fn show(
    State(console): State<Console>,
    Member { cx, organization_id, org, layout }: Member,
    Path((_, id)): Path<(String, String)>,
) -> PageResult {
    let layout = layout.with_section("walkthroughs");
    let result = async { walkthroughs::get(&cx, console.ops(), &organization_id, &walkthrough_id(&id)?).await }.await;
    let walkthrough = result.map_err(|error| PageError::from(error).with_layout(layout.clone()))?;
    let viewer = layout.viewer.as_ref().map(|viewer| viewer.email.clone()).unwrap_or_default();
    let path = org.path(&format!("walkthroughs/{}", walkthrough.id));
    Ok(view::page(&EditorPage {
        layout,
        walkthrough: &walkthrough,
        walkthroughs: org.path("walkthroughs"),
        path,
        tab: "editor",
        viewer,
        kinds: KINDS,
    }))
}

/// Parses the ID in a path. A malformed ID returns `not_found`.
fn walkthrough_id(text: &str) -> Result<WalkthroughId> {
    text.parse().map_err(|_| Error::not_found("walkthrough"))
}

/// The content of a step in the editor, including unsaved changes.
#[derive(Default, Deserialize)]
#[serde(default)]
struct StepForm {
    step_id: String,
    title: String,
    section_title: String,
    content: String,
    introduction_for_agent: String,
    context_for_agent: String,
    operations_for_agent: String,
}

impl StepForm {
    fn into_content(self) -> StepContent {
        StepContent {
            // A step without a title can be previewed but not saved.
            title: if self.title.trim().is_empty() { "Untitled step".to_owned() } else { self.title },
            section_title: Some(self.section_title),
            content: self.content,
            introduction_for_agent: Some(self.introduction_for_agent),
            context_for_agent: Some(self.context_for_agent),
            operations_for_agent: Some(self.operations_for_agent),
            ..StepContent::default()
        }
    }
}

#[derive(Template)]
#[template(path = "editor/preview.html")]
struct PreviewFragment<'a> {
    title: &'a str,
    section: Option<&'a str>,
    html: String,
    changes: &'a [FieldChange],
    tool: &'static str,
    text: &'a str,
    structured: String,
}

/// Renders a step as the user and the agent see it.
async fn preview_step(
    State(console): State<Console>,
    Member { cx, organization_id, .. }: Member,
    Path((_, id)): Path<(String, String)>,
    Form(form): Form<StepForm>,
) -> PageResult {
    let rendered = async {
        let step_id: StepId = form.step_id.parse().map_err(|_| Error::not_found("step"))?;
        let moment = PreviewPoint::Step(step_id, Some(Box::new(form.into_content())));
        preview::render(&cx, console.ops(), &organization_id, &walkthrough_id(&id)?, moment).await
    };
    match rendered.await {
        Ok(preview) => {
            let step = preview.step.as_ref().map(|step| &step.content);
            Ok(view::page(&PreviewFragment {
                title: step.map_or("", |step| &step.title),
                section: step.and_then(|step| step.section_title.as_deref()),
                html: step.map(|step| html::render(&step.content)).unwrap_or_default(),
                changes: &preview.changes,
                tool: preview.tool,
                text: &preview.result.text,
                structured: pretty(&preview.result.structured),
            }))
        }
        Err(error) => render_preview_error(error),
    }
}

#[derive(Deserialize)]
struct PlayQuery {
    #[serde(default)]
    at: usize,
}

#[derive(Template)]
#[template(path = "editor/play.html")]
struct PlayFragment<'a> {
    completed: usize,
    total: usize,
    percent: u8,
    tool: &'static str,
    arguments: String,
    text: &'a str,
    structured: String,
    step: Option<&'a Step>,
    html: String,
}

/// Renders the draft of the walkthrough after `at` completed steps.
async fn play(
    State(console): State<Console>,
    Member { cx, organization_id, .. }: Member,
    Path((_, id)): Path<(String, String)>,
    Query(PlayQuery { at }): Query<PlayQuery>,
) -> PageResult {
    let rendered = async {
        preview::render(&cx, console.ops(), &organization_id, &walkthrough_id(&id)?, PreviewPoint::After(at)).await
    };
    match rendered.await {
        Ok(Preview { tool, arguments, result, step, completed, total, .. }) => Ok(view::page(&PlayFragment {
            completed,
            total,
            percent: percent(completed, total),
            tool,
            arguments: pretty(&arguments),
            text: &result.text,
            structured: pretty(&result.structured),
            step: step.as_ref(),
            html: step.as_ref().map(|step| html::render(&step.content.content)).unwrap_or_default(),
        })),
        Err(error) => render_preview_error(error),
    }
}

fn pretty(value: &serde_json::Value) -> String {
    serde_json::to_string_pretty(value).unwrap_or_default()
}

#[derive(Template)]
#[template(path = "editor/preview_error.html")]
struct PreviewErrorFragment {
    message: String,
}

/// Renders the error shown in place of a preview.
fn render_preview_error(error: Error) -> Result<Response, PageError> {
    let (status, message) = match FormError::from_error(error) {
        Ok((status, form_error)) => (status, form_error.message),
        Err(error) if status::of(error.code) == StatusCode::NOT_FOUND => (StatusCode::NOT_FOUND, error.message),
        Err(error) => return Err(error.into()),
    };
    Ok(view::html(status, &PreviewErrorFragment { message }))
}

#[cfg(test)]
mod tests {
    use waypost_core::walkthrough::WalkthroughType;

    use super::*;

    #[test]
    fn every_type_can_be_chosen() {
        let mut named = KINDS.map(|(value, _)| value);
        named.sort_unstable();
        let mut all: Vec<_> = WalkthroughType::ALL.iter().map(|kind| kind.as_str()).collect();
        all.sort_unstable();
        assert_eq!(named.as_slice(), all);
    }
}
