//! The tools of an instance, which `instance-tools.js` lists and calls through the REST API, and their names and
//! descriptions for agents.

use askama::Template;
use axum::extract::{Query, State};
use http::StatusCode;
use serde::Deserialize;
use waypost_core::Error;
use waypost_core::tool_override::{MAX_DESCRIPTION, ToolOverride};
use waypost_ops::tool_overrides::{self, ToolOverridePatch};

use super::{InstanceContext, InstanceHeader};
use crate::Console;
use crate::form::Form;
use crate::layout::Layout;
use crate::view::{self, FormError, PageError, PageResult};

/// The number of characters of a description in the table.
const MAX_SHOWN_DESCRIPTION: usize = 200;

/// The query of the page.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct ToolQuery {
    /// The original name of the tool whose override is edited.
    tool: String,
}

/// The form for the name and the description of a tool for agents.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct OverrideForm {
    tool: String,
    name: String,
    description: String,
}

/// The values of the fields of the form.
enum Fields {
    /// The submitted values.
    Submitted(OverrideForm),
    /// The values that are stored for this tool.
    Selected(String),
}

/// A tool that has another name or description for agents.
struct OverrideRow {
    href: String,
    tool: String,
    public: String,
    description: Option<String>,
}

/// The names and descriptions for agents.
struct Overrides {
    rows: Vec<OverrideRow>,
    /// The tools that can be selected, as values and labels.
    tools: Vec<(String, String)>,
    fields: OverrideForm,
    max_description: usize,
}

#[derive(Template)]
#[template(path = "instances/tools.html")]
struct ToolsPage {
    layout: Layout,
    header: InstanceHeader,
    id: String,
    form_error: FormError,
    /// `None` if the gateway is off.
    overrides: Option<Overrides>,
}

impl ToolsPage {
    async fn load(console: &Console, at: &InstanceContext, fields: Fields) -> Result<Self, PageError> {
        let overrides = match console.has_gateway() {
            true => Some(load_overrides(console, at, fields).await.map_err(|error| at.page_error(error))?),
            false => None,
        };
        Ok(Self {
            layout: at.layout.clone(),
            header: at.header("tools"),
            id: at.id().to_string(),
            form_error: FormError::default(),
            overrides,
        })
    }
}

async fn load_overrides(console: &Console, at: &InstanceContext, fields: Fields) -> Result<Overrides, Error> {
    let found = tool_overrides::list(&at.cx, console.ops(), &at.organization_id, at.id()).await?;
    let known = tool_overrides::list_tools(&at.cx, console.ops(), &at.organization_id, at.id()).await?;
    let fields = match fields {
        Fields::Submitted(fields) => fields,
        Fields::Selected(tool) => stored_fields(&found, tool),
    };
    // A tool that has an override is selected by its link, so that the fields contain its current values.
    let new = known.into_iter().filter(|tool| found.iter().all(|one| one.tool != *tool));
    let mut tools: Vec<String> = new.collect();
    if found.iter().any(|one| one.tool == fields.tool) {
        tools.push(fields.tool.clone());
    }
    let row = |one: ToolOverride| OverrideRow {
        href: format!("{}?{}#agents-title", at.path("tools"), tool_query(&one.tool)),
        public: tool_overrides::public_name_of(&at.instance().slug, &one),
        tool: one.tool,
        description: one.description.map(|description| shorten(&description)),
    };
    Ok(Overrides {
        rows: found.into_iter().map(row).collect(),
        tools: tools.into_iter().map(|tool| (tool.clone(), tool)).collect(),
        fields,
        max_description: MAX_DESCRIPTION,
    })
}

fn stored_fields(found: &[ToolOverride], tool: String) -> OverrideForm {
    let own = found.iter().find(|one| one.tool == tool);
    let text = |text: Option<&String>| text.cloned().unwrap_or_default();
    let name = text(own.and_then(|own| own.name.as_ref()));
    let description = text(own.and_then(|own| own.description.as_ref()));
    OverrideForm { tool, name, description }
}

/// Shortens a description for the table, because an instance can have many tools.
fn shorten(description: &str) -> String {
    let mut short: String = description.chars().take(MAX_SHOWN_DESCRIPTION).collect();
    if short.len() < description.len() {
        short.push('…');
    }
    short
}

fn tool_query(tool: &str) -> String {
    url::form_urlencoded::Serializer::new(String::new()).append_pair("tool", tool).finish()
}

pub(super) async fn show(
    State(console): State<Console>,
    at: InstanceContext,
    Query(query): Query<ToolQuery>,
) -> PageResult {
    Ok(view::page(&ToolsPage::load(&console, &at, Fields::Selected(query.tool)).await?))
}

/// Saves the name and the description of a tool for agents. Empty fields restore the original.
pub(super) async fn save(
    State(console): State<Console>,
    at: InstanceContext,
    Form(form): Form<OverrideForm>,
) -> PageResult {
    if !console.has_gateway() {
        return Err(at.page_error(Error::not_found("page")));
    }
    // Browsers send line breaks as CR LF.
    let text = |text: &str| Some((!text.trim().is_empty()).then(|| text.trim().replace("\r\n", "\n")));
    let change =
        ToolOverridePatch { tool: form.tool.clone(), name: text(&form.name), description: text(&form.description) };
    match tool_overrides::update(&at.cx, console.ops(), &at.organization_id, at.id(), &change).await {
        Ok(_) => Ok(view::redirect_with_flash(&at.path("tools"), "Saved. Agents see the change within seconds.")),
        Err(error) => {
            let (status, form_error): (StatusCode, FormError) =
                FormError::from_error(error).map_err(|error| at.page_error(error))?;
            let page = ToolsPage::load(&console, &at, Fields::Submitted(form)).await?;
            Ok(view::html(status, &ToolsPage { form_error, ..page }))
        }
    }
}
