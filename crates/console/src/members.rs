//! Members and invitations.

use askama::Template;
use axum::extract::{Path, Query, State};
use axum::response::Response;
use http::StatusCode;
use serde::Deserialize;
use waypost_core::access::Operation;
use waypost_core::id::{InvitationId, UserId};
use waypost_core::invitation::InvitationState;
use waypost_core::organization::{Member as OrganizationMember, Role, SignUpPolicy};
use waypost_core::{Error, Timestamp};
use waypost_ops::invitation_emails::{self, SentInvitation};
use waypost_ops::invitations::{self, InvitationWithSecret};
use waypost_ops::users;

use crate::Console;
use crate::form::Form;
use crate::layout::{CurrentOrganization, Layout};
use crate::routes::{Access, Routes};
use crate::session::Member;
use crate::view::{self, FormError, PageError, PageResult};
use waypost_http_kit::request_info::RequestInfo;

/// The number of invitations per page.
const INVITATIONS: u32 = 50;

/// Returns the routes of these pages.
pub(super) fn routes() -> Routes {
    const WRITE: Access = Access::Member(Operation::MemberWrite);
    const INVITE: Access = Access::Member(Operation::InvitationWrite);
    Routes::new()
        .get("/o/{org}/members", Access::Member(Operation::MemberRead), list)
        .post("/o/{org}/members/{id}/role", WRITE, set_role)
        .post("/o/{org}/members/{id}/remove", WRITE, remove)
        .post("/o/{org}/invitations", INVITE, invite)
        .post("/o/{org}/invitations/{id}/resend", INVITE, resend)
        .post("/o/{org}/invitations/{id}/revoke", INVITE, revoke)
}

/// Returns the roles that a member with the role `own` can assign, lowest first, as pairs of value and label.
pub(super) fn roles(own: Role) -> Vec<(&'static str, &'static str)> {
    let all = [
        (Role::Member, "Member: reads and writes content"),
        (Role::Admin, "Admin: everything except managing owners and deleting the organisation"),
        (Role::Owner, "Owner: everything"),
    ];
    all.into_iter().filter(|(role, _)| own.covers(*role)).map(|(role, text)| (role.as_str(), text)).collect()
}

/// A row of the member list.
struct MemberRow {
    member: OrganizationMember,
    /// Whether the member is the viewer.
    is_self: bool,
    /// Whether the viewer can change or remove the member.
    can_change: bool,
    /// Whether the member is the only owner.
    is_last_owner: bool,
}

/// A row of the invitation list.
struct InvitationRow {
    id: InvitationId,
    email: String,
    role: Role,
    state: InvitationState,
    invited_by: String,
    at: String,
    can_change: bool,
}

#[derive(Template)]
#[template(path = "members/list.html")]
struct MembersPage {
    layout: Layout,
    org: CurrentOrganization,
    form_error: FormError,
    members: Vec<MemberRow>,
    roles: Vec<(&'static str, &'static str)>,
    invitations: Vec<InvitationRow>,
    /// The URL of the next page of invitations.
    older: Option<String>,
    /// The email entered in the form.
    email: String,
    role: String,
    /// The invitation that was just created.
    sent: Option<SentInvitation>,
    /// Whether this installation can send email.
    can_mail: bool,
    /// Whether only users with an existing account can accept invitations.
    is_sign_up_closed: bool,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct MemberForm {
    email: String,
    role: String,
    before: String,
}

impl MembersPage {
    async fn load(console: &Console, member: &Member, before: &str) -> Result<Self, PageError> {
        let Member { cx, organization_id, org, layout } = member;
        let page_error = |error| PageError::from(error).with_layout(layout.clone());
        let members = users::list(cx, console.ops(), organization_id).await.map_err(page_error)?;
        let owners = members.iter().filter(|member| member.role == Role::Owner).count();
        let row = |member: OrganizationMember| MemberRow {
            is_self: member.user_id.as_str() == cx.caller.actor(),
            can_change: org.is_admin() && org.role.covers(member.role),
            is_last_owner: member.role == Role::Owner && owners == 1,
            member,
        };
        let mut pending = Vec::new();
        if org.is_admin() {
            let before: Option<InvitationId> = before.parse().ok();
            let limit = INVITATIONS + 1;
            let list = invitations::list(cx, console.ops(), organization_id, before.as_ref(), limit).await;
            pending = list.map_err(page_error)?;
        }
        let has_more = pending.len() > INVITATIONS as usize;
        pending.truncate(INVITATIONS as usize);
        let last = pending.last().filter(|_| has_more).map(|view| view.invitation.id.clone());
        let now = cx.now();
        let invitations = pending.into_iter().map(|view| invitation_row(view, now, org.role)).collect();
        Ok(Self {
            layout: layout.clone().with_section("members"),
            org: org.clone(),
            form_error: FormError::default(),
            members: members.into_iter().map(row).collect(),
            roles: roles(org.role),
            invitations,
            older: last.map(|id| format!("{}?before={id}#invitations", org.path("members"))),
            email: String::new(),
            role: Role::Member.as_str().to_owned(),
            sent: None,
            can_mail: console.mail.is_some(),
            is_sign_up_closed: console.sign_up() == SignUpPolicy::Closed,
        })
    }

    /// Loads the page with a form error.
    async fn with_error(console: &Console, member: &Member, error: Error) -> Result<(StatusCode, Self), PageError> {
        let (status, form_error) =
            FormError::from_error(error).map_err(|error| PageError::from(error).with_layout(member.layout.clone()))?;
        Ok((status, Self { form_error, ..Self::load(console, member, "").await? }))
    }
}

fn invitation_row(listed: invitations::InvitationView, now: Timestamp, own: Role) -> InvitationRow {
    let invitation = listed.invitation;
    let state = invitation.state(now);
    // The time at which the invitation was accepted or revoked, or at which it expires or has expired.
    let at = match state {
        InvitationState::Accepted => invitation.accepted_at,
        InvitationState::Revoked => invitation.revoked_at,
        InvitationState::Pending | InvitationState::Expired => Some(invitation.expires_at),
    };
    let invited_by = listed.invited_by.unwrap_or_else(|| match invitation.invited_by.as_str() {
        "operator" => "Operator".to_owned(),
        gone => gone.to_owned(),
    });
    InvitationRow {
        can_change: own.covers(invitation.role),
        id: invitation.id,
        email: invitation.email,
        role: invitation.role,
        state,
        invited_by,
        at: at.unwrap_or(invitation.created_at).rfc3339(),
    }
}

async fn list(State(console): State<Console>, member: Member, Query(fields): Query<MemberForm>) -> PageResult {
    Ok(view::page(&MembersPage::load(&console, &member, &fields.before).await?))
}

async fn set_role(
    State(console): State<Console>,
    member: Member,
    Path((_, id)): Path<(String, String)>,
    Form(fields): Form<MemberForm>,
) -> PageResult {
    let changed = match (id.parse::<UserId>(), fields.role.parse::<Role>()) {
        (Ok(user), Ok(role)) => users::update(&member.cx, console.ops(), &member.organization_id, &user, role).await,
        (Err(_), _) => Err(Error::not_found("member")),
        (_, Err(reason)) => Err(Error::invalid("", format!("Invalid role: {reason}."))),
    };
    match changed {
        Ok(changed) => {
            let message = format!("{} now has the role {}.", changed.display_name(), changed.role);
            Ok(view::redirect_with_flash(&member.org.path("members"), &message))
        }
        Err(error) => render_error(&console, &member, error).await,
    }
}

async fn remove(State(console): State<Console>, member: Member, Path((_, id)): Path<(String, String)>) -> PageResult {
    let removed = match id.parse::<UserId>() {
        Ok(user) => users::delete(&member.cx, console.ops(), &member.organization_id, &user).await,
        Err(_) => Err(Error::not_found("member")),
    };
    match removed {
        Ok(()) if id == member.cx.caller.actor() => {
            Ok(view::redirect_with_flash("/", &format!("You have left {}.", member.org.organization.name)))
        }
        Ok(()) => Ok(view::redirect_with_flash(&member.org.path("members"), "Member removed.")),
        Err(error) => render_error(&console, &member, error).await,
    }
}

/// Renders the page with the error above the lists.
async fn render_error(console: &Console, member: &Member, error: Error) -> PageResult {
    let (status, page) = MembersPage::with_error(console, member, error).await?;
    Ok(view::html(status, &page))
}

async fn invite(
    State(console): State<Console>,
    info: RequestInfo,
    member: Member,
    Form(fields): Form<MemberForm>,
) -> PageResult {
    match create_and_send(&console, &info, &member, &fields).await {
        Ok(sent) => render_link(&console, &member, sent).await,
        Err(error) => {
            let (status, page) = MembersPage::with_error(&console, &member, error).await?;
            Ok(view::html(status, &MembersPage { email: fields.email, role: fields.role, ..page }))
        }
    }
}

async fn create_and_send(
    console: &Console,
    info: &RequestInfo,
    member: &Member,
    fields: &MemberForm,
) -> Result<SentInvitation, Error> {
    let role = fields.role.parse::<Role>();
    let role = role.map_err(|reason| Error::invalid("role", format!("Invalid role: {reason}.")))?;
    console.check_invitation_limits(info)?;
    let (cx, organization) = (&member.cx, &member.organization_id);
    let invited = invitations::create(cx, console.ops(), organization, &fields.email, role).await?;
    send(console, member, &invited).await
}

async fn send(console: &Console, member: &Member, invited: &InvitationWithSecret) -> Result<SentInvitation, Error> {
    invitation_emails::send(&member.cx, console.ops(), invited, &console.public_url, console.mail.as_ref()).await
}

async fn resend(
    State(console): State<Console>,
    info: RequestInfo,
    member: Member,
    Path((_, id)): Path<(String, String)>,
) -> PageResult {
    match renew_and_send(&console, &info, &member, &id).await {
        Ok(sent) => render_link(&console, &member, sent).await,
        Err(error) => render_error(&console, &member, error).await,
    }
}

async fn renew_and_send(
    console: &Console,
    info: &RequestInfo,
    member: &Member,
    id: &str,
) -> Result<SentInvitation, Error> {
    let id = id.parse::<InvitationId>().map_err(|_| Error::not_found("invitation"))?;
    console.check_invitation_limits(info)?;
    let invited = invitations::resend(&member.cx, console.ops(), &member.organization_id, &id).await?;
    send(console, member, &invited).await
}

/// Renders the page with the invitation link. A redirect would leave the link in browser histories and logs.
async fn render_link(console: &Console, member: &Member, sent: SentInvitation) -> Result<Response, PageError> {
    let page = MembersPage::load(console, member, "").await?;
    Ok(view::page(&MembersPage { sent: Some(sent), ..page }))
}

async fn revoke(State(console): State<Console>, member: Member, Path((_, id)): Path<(String, String)>) -> PageResult {
    let revoked = match id.parse::<InvitationId>() {
        Ok(id) => invitations::revoke(&member.cx, console.ops(), &member.organization_id, &id).await,
        Err(_) => Err(Error::not_found("invitation")),
    };
    match revoked {
        Ok(()) => Ok(view::redirect_with_flash(&member.org.path("members"), "Invitation revoked.")),
        Err(error) => render_error(&console, &member, error).await,
    }
}
