//! The page of a call, with its arguments and its result if they were recorded.

use askama::Template;
use axum::extract::{Path, State};
use serde_json::Value;
use waypost_core::Error;
use waypost_core::call::ContentText;
use waypost_core::id::CallId;
use waypost_ops::calls;

use super::list::page_error;
use super::rows::{CallRows, Names};
use crate::Console;
use crate::layout::{CurrentOrganization, Layout};
use crate::session::Member;
use crate::view::{self, PageResult};

#[derive(Template)]
#[template(path = "calls/detail.html")]
struct CallPage {
    layout: Layout,
    org: CurrentOrganization,
    id: CallId,
    tool: String,
    /// The table with the call.
    row: CallRows,
    /// The titles and texts of the contents. `None` if they were not recorded.
    contents: Option<Vec<(&'static str, Part)>>,
}

/// A part of the contents of a call: its arguments, its result or an error.
struct Part {
    /// The text. `None` if the call had no such part.
    text: Option<String>,
    is_truncated: bool,
}

impl Part {
    fn new(text: Option<ContentText>) -> Self {
        let is_truncated = text.as_ref().is_some_and(|text| text.is_truncated);
        Self { text: text.map(|text| indented(text.text)), is_truncated }
    }
}

/// Indents JSON. Returns other text, such as truncated JSON, unchanged.
fn indented(text: String) -> String {
    let value = serde_json::from_str::<Value>(&text).ok();
    value.and_then(|value| serde_json::to_string_pretty(&value).ok()).unwrap_or(text)
}

pub(super) async fn show(
    State(console): State<Console>,
    member: Member,
    Path((_, id)): Path<(String, String)>,
) -> PageResult {
    let Member { cx, organization_id, org, layout } = &member;
    let page = async {
        let id: CallId = id.parse().map_err(|_| Error::not_found("call"))?;
        let detail = calls::get(cx, console.ops(), organization_id, &id).await?;
        let names = Names::load(cx, &console, organization_id).await?;
        let contents = detail.contents.map(|contents| {
            let mut parts = vec![("Arguments", Part::new(contents.arguments)), ("Result", Part::new(contents.result))];
            if contents.error.is_some() {
                parts.push(("Error", Part::new(contents.error)));
            }
            parts
        });
        Ok(CallPage {
            layout: layout.clone().with_section("calls"),
            org: org.clone(),
            id,
            tool: detail.call.tool.clone(),
            row: CallRows::new(org, &names, vec![detail.call]),
            contents,
        })
    };
    Ok(view::page(&page.await.map_err(page_error(&member))?))
}
