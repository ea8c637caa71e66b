//! The list of approvals, the approval of several definitions at once, and checks of servers.

use std::collections::BTreeMap;

use askama::Template;
use axum::extract::{Query, State};
use axum::response::Response;
use http::StatusCode;
use serde::Deserialize;
use url::form_urlencoded;
use waypost_core::id::{InstanceId, ToolApprovalId};
use waypost_core::tool_definition::{ApprovalState, Class, ToolDefinition};
use waypost_core::{Code, Error, Result};
use waypost_http_kit::status;
use waypost_ops::tool_approvals::{self, ListToolApprovals, ToolApproval};

use super::{badge, can_approve, classes, describe_change, display_name, page_error, parse_class};
use crate::Console;
use crate::form::Form;
use crate::grants::kind_label;
use crate::instance_list::list_all;
use crate::layout::{CurrentOrganization, Layout};
use crate::session::Member;
use crate::view::{self, FormError, PageError, PageResult, pluralize};

/// The number of approvals per page.
const LIMIT: u32 = 50;
/// The value of the filter that shows all states.
const ALL: &str = "all";

/// The filters and the cursor of the list.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct ListQuery {
    /// A state or `all`. By default, `pending`.
    state: String,
    /// The ID of an instance, or empty.
    instance: String,
    cursor: String,
}

impl ListQuery {
    fn from_pairs(pairs: &[(String, String)]) -> Self {
        let text = |name: &str| {
            let found = pairs.iter().find(|(own, _)| own == name);
            found.map(|(_, value)| value.clone()).unwrap_or_default()
        };
        Self { state: text("state"), instance: text("instance"), cursor: text("cursor") }
    }

    fn state(&self) -> Option<ApprovalState> {
        match self.state.as_str() {
            ALL => None,
            text => Some(text.parse().unwrap_or(ApprovalState::Pending)),
        }
    }

    fn state_text(&self) -> &'static str {
        self.state().map_or(ALL, ApprovalState::as_str)
    }

    fn path(&self, org: &CurrentOrganization, cursor: &str) -> String {
        let mut query = form_urlencoded::Serializer::new(String::new());
        query.append_pair("state", self.state_text());
        for (name, value) in [("instance", self.instance.as_str()), ("cursor", cursor)] {
            if !value.is_empty() {
                query.append_pair(name, value);
            }
        }
        org.path(&format!("tool-approvals?{}", query.finish()))
    }

    fn to_operation(&self) -> Result<ListToolApprovals> {
        let instance = Some(self.instance.as_str()).filter(|id| !id.is_empty());
        let instance_id = instance.map(str::parse::<InstanceId>).transpose();
        Ok(ListToolApprovals {
            state: self.state(),
            instance_id: instance_id.map_err(|_| Error::not_found("instance"))?,
            limit: LIMIT,
            cursor: Some(self.cursor.clone()).filter(|cursor| !cursor.is_empty()),
        })
    }
}

struct ApprovalRow {
    definition: ToolDefinition,
    name: String,
    kind: &'static str,
    instance: String,
    change: &'static str,
    badge: (&'static str, &'static str),
    /// Whether the definition can be selected.
    is_selectable: bool,
}

/// A selected definition that was not approved.
struct Failure {
    id: String,
    name: String,
    message: String,
}

#[derive(Template)]
#[template(path = "tool_approvals/list.html")]
struct ApprovalsPage {
    layout: Layout,
    org: CurrentOrganization,
    form_error: FormError,
    query: ListQuery,
    rows: Vec<ApprovalRow>,
    /// The IDs and slugs of the instances.
    instances: Vec<(String, String)>,
    next: Option<String>,
    /// The number of definitions that were just approved, if some of the selected ones were not.
    approved: usize,
    failures: Vec<Failure>,
}

impl ApprovalsPage {
    fn states(&self) -> [(&'static str, &'static str); 4] {
        [("pending", "Pending"), ("approved", "Approved"), ("rejected", "Rejected"), (ALL, "All")]
    }

    fn class_options(&self) -> [(Class, &'static str); 3] {
        classes()
    }

    fn has_selectable(&self) -> bool {
        self.rows.iter().any(|row| row.is_selectable)
    }

    fn first_page(&self) -> String {
        self.query.path(&self.org, "")
    }
}

async fn load(console: &Console, member: &Member, query: ListQuery) -> Result<ApprovalsPage, PageError> {
    let Member { cx, organization_id, org, layout } = member;
    let found = async {
        let page = tool_approvals::list(cx, console.ops(), organization_id, &query.to_operation()?).await?;
        Ok((page, list_all(cx, console, organization_id).await?))
    };
    let (page, instances) = found.await.map_err(page_error(member))?;
    let slugs: BTreeMap<_, _> = instances.iter().map(|instance| (&instance.id, &instance.slug)).collect();
    let row = |approval: ToolApproval| ApprovalRow {
        name: display_name(&approval.definition),
        kind: kind_label(approval.definition.kind),
        instance: slugs.get(&approval.definition.instance_id).map(ToString::to_string).unwrap_or_default(),
        change: describe_change(&approval),
        badge: badge(&approval.definition),
        is_selectable: can_approve(org, &approval.definition),
        definition: approval.definition,
    };
    Ok(ApprovalsPage {
        layout: layout.clone().with_section("tool-approvals"),
        org: org.clone(),
        form_error: FormError::default(),
        rows: page.items.into_iter().map(row).collect(),
        next: page.next_cursor.map(|cursor| query.path(org, &cursor)),
        instances: instances.iter().map(|instance| (instance.id.to_string(), instance.slug.clone())).collect(),
        query,
        approved: 0,
        failures: Vec::new(),
    })
}

pub(super) async fn show(State(console): State<Console>, member: Member, Query(query): Query<ListQuery>) -> PageResult {
    Ok(view::page(&load(&console, &member, query).await?))
}

async fn reject(console: &Console, member: &Member, query: ListQuery, error: Error) -> PageResult {
    let (status, form_error) = FormError::from_error(error).map_err(page_error(member))?;
    let page = load(console, member, query).await?;
    Ok(view::html(status, &ApprovalsPage { form_error, ..page }))
}

/// Approves each selected definition with the digest that the page showed. Each approval is a separate operation, so
/// that a definition that has changed in the meantime does not prevent the approval of the others.
pub(super) async fn approve_selected(
    State(console): State<Console>,
    member: Member,
    Form(pairs): Form<Vec<(String, String)>>,
) -> PageResult {
    let query = ListQuery::from_pairs(&pairs);
    let class = pairs.iter().find(|(name, _)| name == "class").map_or("", |(_, class)| class.as_str());
    let class = match parse_class(class) {
        Ok(class) => class,
        Err(error) => return reject(&console, &member, query, error).await,
    };
    let selected = pairs.iter().filter(|(name, _)| name == "selected").filter_map(|(_, value)| value.split_once(' '));
    let (mut approved, mut failures) = (0, Vec::new());
    for (id, digest) in selected.take(LIMIT as usize) {
        match approve_one(&console, &member, id, (digest, class)).await {
            Ok(_) => approved += 1,
            Err(error) => failures.push(failure(&console, &member, id, error).await?),
        }
    }
    if approved == 0 && failures.is_empty() {
        return reject(&console, &member, query, Error::invalid("selected", "Select at least one definition.")).await;
    }
    if failures.is_empty() {
        let message = format!("{} approved.", pluralize(approved, "definition", "definitions"));
        return Ok(view::redirect_with_flash(&query.path(&member.org, ""), &message));
    }
    let page = load(&console, &member, query).await?;
    let approved = usize::try_from(approved).unwrap_or_default();
    Ok(view::html(StatusCode::CONFLICT, &ApprovalsPage { approved, failures, ..page }))
}

async fn approve_one(console: &Console, member: &Member, id: &str, decision: (&str, Class)) -> Result<ToolDefinition> {
    let id: ToolApprovalId = id.parse().map_err(|_| Error::not_found("definition"))?;
    tool_approvals::approve(&member.cx, console.ops(), &member.organization_id, &id, decision).await
}

/// Returns the reason why a selected definition was not approved.
///
/// # Errors
/// Returns `error` as a page error if it does not concern this definition.
async fn failure(console: &Console, member: &Member, id: &str, error: Error) -> Result<Failure, PageError> {
    let message = match FormError::from_error(error) {
        Ok((_, form_error)) => form_error.message,
        Err(error) if error.code == Code::NotFound => "It no longer exists.".to_owned(),
        Err(error) => return Err(page_error(member)(error)),
    };
    let name = match id.parse::<ToolApprovalId>() {
        Ok(id) => tool_approvals::get(&member.cx, console.ops(), &member.organization_id, &id).await.ok(),
        Err(_) => None,
    };
    let name = name.map_or_else(|| id.to_owned(), |found| display_name(&found.definition));
    Ok(Failure { id: id.to_owned(), name, message })
}

/// Reads the definitions that the server of an instance currently lists.
pub(super) async fn check(
    State(console): State<Console>,
    member: Member,
    Form(pairs): Form<Vec<(String, String)>>,
) -> PageResult {
    let instance = pairs.iter().find(|(name, _)| name == "instance_to_check").map_or("", |(_, id)| id.as_str());
    let Ok(id) = instance.parse::<InstanceId>() else {
        let error = Error::invalid("instance_to_check", "Select one of the instances.");
        return reject(&console, &member, ListQuery::default(), error).await;
    };
    let query = ListQuery { instance: instance.to_owned(), ..ListQuery::default() };
    match tool_approvals::refresh(&member.cx, console.ops(), &member.organization_id, &id).await {
        Ok(observation) => {
            let message = match i64::try_from(observation.added.len()).unwrap_or(i64::MAX) {
                0 => "The server lists no new definitions.".to_owned(),
                added => format!("The server lists {}.", pluralize(added, "new definition", "new definitions")),
            };
            Ok(view::redirect_with_flash(&query.path(&member.org, ""), &message))
        }
        Err(error) if error.code == Code::Unavailable => unavailable(&console, &member, query, &error).await,
        Err(error) => reject(&console, &member, query, error).await,
    }
}

/// Renders the page with the reason why a server cannot be reached.
async fn unavailable(
    console: &Console,
    member: &Member,
    query: ListQuery,
    error: &Error,
) -> Result<Response, PageError> {
    let form_error = FormError { message: error.message.clone(), ..FormError::default() };
    let page = load(console, member, query).await?;
    Ok(view::html(status::of(error.code), &ApprovalsPage { form_error, ..page }))
}
