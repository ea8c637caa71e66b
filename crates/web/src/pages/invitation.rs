//! `/invite`: accepting an invitation.

use askama::Template;
use axum::extract::{Query, State};
use axum::response::Response;
use http::{HeaderMap, StatusCode};
use serde::Deserialize;
use url::form_urlencoded;
use waypost_core::organization::SignUp;
use waypost_core::{Code, Error, Result, email};
use waypost_ops::user_accounts::{AccountDetails, InvitationDetails};

use super::entry::{self, Device};
use super::form::Form;
use super::frame::Frame;
use super::routes::{Access, Routes};
use super::session::{Anyone, SignedIn};
use super::view::{self, PageResult, Wrong};
use crate::limits::LimitKind;
use crate::request_info::RequestInfo;
use crate::{Web, cookies};

/// The page.
pub(super) fn routes() -> Routes {
    Routes::new().get("/invite", Access::Public, show).post("/invite", Access::Public, post)
}

/// What who comes with an invitation can do.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    /// Accept it: they are signed in.
    Accept,
    /// Sign out: they are signed in with another address.
    SignOut,
    /// Sign in, or make an account: the page does not reveal whether there is one.
    Create,
    /// Sign in: no new accounts are made here.
    SignIn,
}

#[derive(Template)]
#[template(path = "invitation/accept.html")]
struct InvitationPage<'a> {
    frame: Frame,
    wrong: Wrong,
    way: Way,
    token: &'a str,
    organization: &'a str,
    role: &'a str,
    address: &'a str,
    invited_by: Option<&'a str>,
    expires_at: String,
    own_address: &'a str,
    full_name: &'a str,
    /// This page, to come back to.
    here: String,
    /// The page to sign in on, which leads back here.
    login: String,
}

/// What the link and the form send. Without `Debug`: a password is in it.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Fields {
    token: String,
    name: String,
    password: String,
}

async fn show(
    State(web): State<Web>,
    info: RequestInfo,
    headers: HeaderMap,
    Anyone(user): Anyone,
    Query(fields): Query<Fields>,
) -> PageResult {
    let invited = match web.accounts().get_invitation(&entry::visitor(&web, &info), &fields.token).await {
        Ok(invited) => invited,
        Err(error) => return refused(error),
    };
    let mut page = page(&web, &invited, user.as_ref(), &fields);
    page.frame.flash = cookies::flash(&headers);
    Ok(view::page(&page))
}

async fn post(
    State(web): State<Web>,
    info: RequestInfo,
    headers: HeaderMap,
    Anyone(user): Anyone,
    Form(fields): Form<Fields>,
) -> PageResult {
    let error = match enter(&web, (&info, &headers), user.as_ref(), &fields).await {
        Ok(response) => return Ok(response),
        Err(error) => error,
    };
    let invited = match web.accounts().get_invitation(&entry::visitor(&web, &info), &fields.token).await {
        Ok(invited) => invited,
        Err(error) => return refused(error),
    };
    let (status, wrong) = match error.code {
        Code::Forbidden => (StatusCode::FORBIDDEN, Wrong { message: error.message, ..Wrong::default() }),
        _ => Wrong::of(error)?,
    };
    let page = page(&web, &invited, user.as_ref(), &fields);
    Ok(view::refused(status, wrong.retry_after, &InvitationPage { wrong, ..page }))
}

async fn enter(
    web: &Web,
    (info, headers): (&RequestInfo, &HeaderMap),
    user: Option<&SignedIn>,
    fields: &Fields,
) -> Result<Response> {
    entry::check_limit(web, LimitKind::SignIn, info)?;
    let welcome = |name: &str| format!("Welcome to {name}.");
    let invited = web.accounts().get_invitation(&entry::visitor(web, info), &fields.token).await?;
    if let Some(user) = user.filter(|user| !starts_anew(user, &invited)) {
        let organization = web.accounts().accept_invitation(&user.cx, &fields.token).await?;
        return Ok(view::redirect_saying(&format!("/o/{}", organization.slug), &welcome(&organization.name)));
    }
    let (cx, device) = (entry::visitor(web, info), Device::of(headers, info));
    let newcomer = AccountDetails { name: &fields.name, password: &fields.password };
    let (session, organization) =
        web.accounts().accept_and_sign_up(&cx, &fields.token, newcomer, device.browser()).await?;
    let mut response = entry::signed_in(web, headers, &session, &format!("/o/{}", organization.slug)).await;
    cookies::set_flash(response.headers_mut(), &welcome(&organization.name));
    Ok(response)
}

fn page<'a>(
    web: &Web,
    invited: &'a InvitationDetails,
    user: Option<&'a SignedIn>,
    fields: &'a Fields,
) -> InvitationPage<'a> {
    let invitation = &invited.invitation;
    let own_address = user.and_then(|user| user.frame.viewer.as_ref()).map_or("", |viewer| viewer.email.as_str());
    let way = match user.filter(|user| !starts_anew(user, invited)) {
        Some(_) if email::key(own_address) == invitation.email_key => Way::Accept,
        Some(_) => Way::SignOut,
        None if web.accounts().sign_up() == SignUp::Closed => Way::SignIn,
        None => Way::Create,
    };
    let query =
        |name: &str, value: &str| form_urlencoded::Serializer::new(String::new()).append_pair(name, value).finish();
    let here = format!("/invite?{}", query("token", &fields.token));
    InvitationPage {
        frame: user.map_or_else(Frame::empty, |user| user.frame.clone()),
        wrong: Wrong::default(),
        way,
        token: &fields.token,
        organization: &invitation.organization.name,
        role: invitation.role.as_str(),
        address: &invitation.email,
        invited_by: invited.invited_by.as_deref(),
        expires_at: invitation.expires_at.rfc3339(),
        own_address,
        full_name: &fields.name,
        login: format!("/login?{}", query("next", &here)),
        here,
    }
}

/// Whether somebody signed in gets another account by this invitation: their own account is for the invited address, but not
/// verified, so it is valid for other organisations only.
fn starts_anew(user: &SignedIn, invited: &InvitationDetails) -> bool {
    !user.is_verified && user.email_key() == invited.invitation.email_key
}

fn refused(error: Error) -> PageResult {
    if error.code != Code::NotFound {
        return Err(error.into());
    }
    let words = ("This invitation is not valid any more", error.message);
    Ok(entry::notice(StatusCode::NOT_FOUND, words, ("/", "To the start")))
}
