//! The page of a toolbox.

use askama::Template;
use axum::extract::{Path, State};
use axum::response::Response;
use http::HeaderMap;
use serde::Deserialize;
use waypost_core::id::ToolboxId;
use waypost_core::instance::Instance;
use waypost_core::toolbox::ToolboxState;
use waypost_core::{Error, Timestamp};
use waypost_ops::instances;
use waypost_ops::toolboxes::{self, JoinToken, ToolboxPatch, ToolboxView, join_command};
use waypost_toolbox_proto::runtime::find_vulnerability;

use super::{Usage, badge, cpu, memory, page_error};
use crate::Console;
use crate::form::Form;
use crate::instance_state::{badge as instance_badge, label as instance_label};
use crate::layout::{CurrentOrganization, Layout};
use crate::live::{self, bytes};
use crate::session::Member;
use crate::view::{self, FormError, PageError, PageResult};

/// The state and the properties of a toolbox, which are polled.
#[derive(Template)]
#[template(path = "toolboxes/status.html")]
struct Status {
    org: CurrentOrganization,
    view: ToolboxView,
    badge: &'static str,
    memory: Option<Usage>,
    cpu: Option<Usage>,
    disk_free: Option<String>,
    /// Whether the token has expired.
    is_expired: bool,
    instances: Vec<Instance>,
}

impl Status {
    fn is_pending(&self) -> bool {
        self.view.state == ToolboxState::Pending
    }

    /// Whether a machine has joined, but its daemon has never connected.
    fn is_waiting_for_daemon(&self) -> bool {
        self.is_pending() && self.view.toolbox.joined_at.is_some()
    }

    fn is_online(&self) -> bool {
        self.view.state == ToolboxState::Online
    }

    fn is_unresponsive(&self) -> bool {
        self.view.state == ToolboxState::Unresponsive
    }

    fn runtime_warning(&self) -> Option<String> {
        self.view.toolbox.engine.as_ref().and_then(|engine| find_vulnerability(&engine.runtime))
    }

    fn instance_badge(&self, instance: &Instance) -> &'static str {
        instance_badge(instance.state)
    }

    fn instance_label(&self, instance: &Instance) -> &'static str {
        instance_label(instance.state)
    }
}

/// The command with which a machine joins. Shown once.
struct Join {
    command: String,
    expires_at: String,
}

#[derive(Template)]
#[template(path = "toolboxes/show.html")]
struct ToolboxPage {
    layout: Layout,
    org: CurrentOrganization,
    form_error: FormError,
    entered_name: String,
    join: Option<Join>,
    status: Status,
}

impl ToolboxPage {
    fn path(&self) -> String {
        self.org.path(&format!("toolboxes/{}", self.status.view.toolbox.id))
    }

    fn state(&self) -> ToolboxState {
        self.status.view.state
    }

    fn is_revoked(&self) -> bool {
        self.state() == ToolboxState::Revoked
    }

    fn has_key(&self) -> bool {
        matches!(self.state(), ToolboxState::Online | ToolboxState::Unresponsive)
    }
}

fn parse_id(text: &str) -> Result<ToolboxId, Error> {
    text.parse().map_err(|_| Error::not_found("toolbox"))
}

async fn load(console: &Console, member: &Member, view: ToolboxView) -> Result<Status, Error> {
    let Member { cx, organization_id, org, .. } = member;
    let instances = instances::list_by_toolbox(cx, console.ops(), organization_id, &view.toolbox.id).await?;
    let has_expired = |at: Timestamp| at <= cx.now();
    Ok(Status {
        org: org.clone(),
        badge: badge(view.state),
        memory: memory(&view),
        cpu: cpu(&view),
        disk_free: view.toolbox.capacity.map(|capacity| bytes(capacity.disk_free_bytes)),
        is_expired: view.state == ToolboxState::Pending && view.toolbox.join_expires_at.is_none_or(has_expired),
        instances,
        view,
    })
}

async fn find(console: &Console, member: &Member, text: &str) -> Result<Status, PageError> {
    let Member { cx, organization_id, .. } = member;
    let found = async {
        let view = toolboxes::get(cx, console.ops(), organization_id, &parse_id(text)?).await?;
        load(console, member, view).await
    };
    found.await.map_err(page_error(member))
}

fn page(member: &Member, status: Status) -> ToolboxPage {
    ToolboxPage {
        layout: member.layout.clone().with_section("toolboxes"),
        org: member.org.clone(),
        form_error: FormError::default(),
        entered_name: status.view.toolbox.name.clone(),
        join: None,
        status,
    }
}

/// Renders the page of a toolbox with the command by which a machine joins with a new token.
pub(super) async fn render_with_token(
    console: &Console,
    member: &Member,
    view: ToolboxView,
    token: &JoinToken,
) -> PageResult {
    let status = load(console, member, view).await.map_err(page_error(member))?;
    let command = join_command(&console.public_url, &token.token);
    let join = Some(Join { command, expires_at: token.expires_at.rfc3339() });
    Ok(view::page(&ToolboxPage { join, ..page(member, status) }))
}

pub(super) async fn show(
    State(console): State<Console>,
    member: Member,
    Path((_, id)): Path<(String, String)>,
) -> PageResult {
    Ok(view::page(&page(&member, find(&console, &member, &id).await?)))
}

pub(super) async fn status(
    State(console): State<Console>,
    member: Member,
    Path((_, id)): Path<(String, String)>,
    headers: HeaderMap,
) -> PageResult {
    Ok(live::fragment(&headers, &find(&console, &member, &id).await?))
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Rename {
    name: String,
}

pub(super) async fn rename(
    State(console): State<Console>,
    member: Member,
    Path((_, id)): Path<(String, String)>,
    Form(Rename { name }): Form<Rename>,
) -> PageResult {
    let page = page(&member, find(&console, &member, &id).await?);
    let patch = ToolboxPatch { name: Some(name.clone()) };
    let id = &page.status.view.toolbox.id;
    match toolboxes::update(&member.cx, console.ops(), &member.organization_id, id, &patch).await {
        Ok(_) => Ok(view::redirect_with_flash(&page.path(), "Saved.")),
        Err(error) => {
            let (status, form_error) = FormError::from_error(error).map_err(page_error(&member))?;
            Ok(view::html(status, &ToolboxPage { form_error, entered_name: name, ..page }))
        }
    }
}

/// Responds to an action: redirects to the page, or renders it with the error.
async fn finish<T>(
    console: &Console,
    member: &Member,
    id: &ToolboxId,
    result: Result<T, Error>,
    message: &str,
) -> Result<Response, PageError> {
    match result {
        Ok(_) => Ok(view::redirect_with_flash(&member.org.path(&format!("toolboxes/{id}")), message)),
        Err(error) => {
            let (status, form_error) = FormError::from_error(error).map_err(page_error(member))?;
            let page = page(member, find(console, member, id.as_str()).await?);
            Ok(view::html(status, &ToolboxPage { form_error, ..page }))
        }
    }
}

pub(super) async fn rotate_key(
    State(console): State<Console>,
    member: Member,
    Path((_, id)): Path<(String, String)>,
) -> PageResult {
    let id = parse_id(&id).map_err(page_error(&member))?;
    let rotated = toolboxes::rotate_key(&member.cx, console.ops(), &member.organization_id, &id).await;
    let message = "Key rotation requested. The daemon replaces its key at the latest with its next heartbeat.";
    finish(&console, &member, &id, rotated, message).await
}

pub(super) async fn renew_token(
    State(console): State<Console>,
    member: Member,
    Path((_, id)): Path<(String, String)>,
) -> PageResult {
    let id = parse_id(&id).map_err(page_error(&member))?;
    match toolboxes::renew_token(&member.cx, console.ops(), &member.organization_id, &id).await {
        // No redirect, because the token is only available in this response.
        Ok((view, token)) => render_with_token(&console, &member, view, &token).await,
        Err(error) => finish(&console, &member, &id, Err::<(), _>(error), "").await,
    }
}

pub(super) async fn revoke(
    State(console): State<Console>,
    member: Member,
    Path((_, id)): Path<(String, String)>,
) -> PageResult {
    let id = parse_id(&id).map_err(page_error(&member))?;
    let revoked = toolboxes::revoke(&member.cx, console.ops(), &member.organization_id, &id).await;
    finish(&console, &member, &id, revoked, "Toolbox revoked. Its machine can no longer connect.").await
}

pub(super) async fn delete(
    State(console): State<Console>,
    member: Member,
    Path((_, id)): Path<(String, String)>,
) -> PageResult {
    let id = parse_id(&id).map_err(page_error(&member))?;
    match toolboxes::delete(&member.cx, console.ops(), &member.organization_id, &id).await {
        Ok(()) => Ok(view::redirect_with_flash(&member.org.path("toolboxes"), "Toolbox deleted.")),
        Err(error) => finish(&console, &member, &id, Err::<(), _>(error), "").await,
    }
}
