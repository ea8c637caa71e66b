//! `/account`: the account settings of the signed-in user.

use askama::Template;
use axum::extract::{Path, State};
use http::HeaderMap;
use serde::Deserialize;
use waypost_core::{Error, Result};
use waypost_ops::gateway_sign_in::{self, ConnectedClient};
use waypost_ops::user_accounts::PasswordChange;
use waypost_ops::{user_accounts, user_sessions};

use crate::Console;
use crate::form::Form;
use crate::layout::Layout;
use crate::routes::{Access, Routes};
use crate::session::CurrentUser;
use crate::sign_in::{self, Device};
use crate::view::{self, FormError, PageError, PageResult};
use waypost_http_kit::cookies;
use waypost_http_kit::limits::LimitKind;
use waypost_http_kit::request_info::RequestInfo;

/// Returns the routes of these pages.
pub(super) fn routes() -> Routes {
    Routes::new()
        .get("/account", Access::User, show)
        .post("/account", Access::User, rename)
        .post("/account/password", Access::User, change_password)
        .post("/account/sessions/end-others", Access::User, end_other_sessions)
        .post("/account/sessions/{id}/end", Access::User, end_session)
        .post("/account/applications/{id}/disconnect", Access::User, disconnect_application)
        .post("/account/organizations/{id}/leave", Access::User, leave_organization)
}

/// A row of the session list.
struct SessionRow {
    id: String,
    browser: String,
    address: String,
    created_at: String,
    last_used_at: String,
    is_own: bool,
}

/// A row of the list of connected applications.
struct ApplicationRow {
    id: String,
    name: String,
    organization: String,
    address: String,
    created_at: String,
}

/// A row of the organisation list.
struct OrganizationRow {
    id: String,
    name: String,
    slug: String,
    role: &'static str,
}

#[derive(Template)]
#[template(path = "account/account.html")]
struct AccountPage {
    layout: Layout,
    /// The name of the form that `form_error` belongs to.
    form: &'static str,
    form_error: FormError,
    full_name: String,
    email: String,
    has_password: bool,
    sessions: Vec<SessionRow>,
    applications: Vec<ApplicationRow>,
    organizations: Vec<OrganizationRow>,
}

impl AccountPage {
    /// Returns the error of the form `name`, or an empty one.
    fn form_error_for(&self, name: &str) -> FormError {
        if self.form == name { self.form_error.clone() } else { FormError::default() }
    }
}

async fn load_page(console: &Console, current_user: CurrentUser) -> Result<AccountPage> {
    let layout = current_user.layout_with_navigation();
    let CurrentUser { cx, session: current_session, memberships, .. } = current_user;
    let user = user_sessions::get_user(&cx, console.ops()).await?;
    let has_password = console.accounts().has_password(&cx).await?;
    let sessions = user_sessions::list(&cx, console.ops()).await?.into_iter().map(|session| SessionRow {
        browser: browser_name(&session.user_agent),
        address: session.address,
        created_at: session.created_at.rfc3339(),
        last_used_at: session.last_used_at.rfc3339(),
        is_own: session.id == current_session.id,
        id: session.id.to_string(),
    });
    let applications = gateway_sign_in::list_clients(&cx, console.ops()).await?;
    let applications = applications.into_iter().map(|ConnectedClient { grant, organization }| ApplicationRow {
        id: grant.id.to_string(),
        name: grant.client_name,
        organization,
        address: grant.resource,
        created_at: grant.created_at.rfc3339(),
    });
    let organizations = memberships.into_iter().map(|membership| OrganizationRow {
        id: membership.organization.id.to_string(),
        name: membership.organization.name,
        slug: membership.organization.slug,
        role: membership.role.as_str(),
    });
    Ok(AccountPage {
        layout,
        form: "",
        form_error: FormError::default(),
        full_name: user.name.unwrap_or_default(),
        email: user.email,
        has_password,
        sessions: sessions.collect(),
        applications: applications.collect(),
        organizations: organizations.collect(),
    })
}

async fn show(State(console): State<Console>, current_user: CurrentUser) -> PageResult {
    Ok(view::page(&load_page(&console, current_user).await?))
}

/// Renders the page with the error of one of its forms.
async fn render_error(console: &Console, current_user: CurrentUser, form: &'static str, error: Error) -> PageResult {
    let layout = current_user.layout.clone();
    let (status, form_error) =
        FormError::from_error(error).map_err(|error| PageError::from(error).with_layout(layout))?;
    let retry_after = form_error.retry_after;
    Ok(view::html_with_retry_after(
        status,
        retry_after,
        &AccountPage { form, form_error, ..load_page(console, current_user).await? },
    ))
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct NameForm {
    name: String,
}

async fn rename(State(console): State<Console>, current_user: CurrentUser, Form(fields): Form<NameForm>) -> PageResult {
    match user_accounts::set_name(&current_user.cx, console.ops(), &fields.name).await {
        Ok(()) => Ok(view::redirect_with_flash("/account", "Name saved.")),
        Err(error) => render_error(&console, current_user, "name", error).await,
    }
}

/// Does not implement `Debug` because it contains passwords.
#[derive(Default, Deserialize)]
#[serde(default)]
struct PasswordForm {
    password: String,
    new_password: String,
}

async fn change_password(
    State(console): State<Console>,
    info: RequestInfo,
    headers: HeaderMap,
    current_user: CurrentUser,
    Form(fields): Form<PasswordForm>,
) -> PageResult {
    let changed = async {
        sign_in::check_limit(&console, LimitKind::SignIn, &info)?;
        let device = Device::from_request(&headers, &info);
        console
            .accounts()
            .change_password(
                &current_user.cx,
                &fields.password,
                &fields.new_password,
                &current_user.session.id,
                device.browser(),
            )
            .await
    };
    match changed.await {
        Ok(PasswordChange { ended, device }) => {
            let message = match ended {
                0 => "Password changed.".to_owned(),
                1 => "Password changed. 1 other browser was signed out.".to_owned(),
                ended => format!("Password changed. {ended} other browsers were signed out."),
            };
            let mut response = view::redirect_with_flash("/account", &message);
            cookies::set_device(response.headers_mut(), cookies::DEVICE, &device);
            Ok(response)
        }
        Err(error) => render_error(&console, current_user, "password", error).await,
    }
}

async fn end_session(State(console): State<Console>, current_user: CurrentUser, Path(id): Path<String>) -> PageResult {
    let page_error = |error| PageError::from(error).with_layout(current_user.layout.clone());
    let id = id.parse().map_err(|_| page_error(Error::not_found("session")))?;
    user_sessions::delete(&current_user.cx, console.ops(), &id).await.map_err(page_error)?;
    Ok(view::redirect_with_flash("/account", "Browser signed out."))
}

async fn end_other_sessions(State(console): State<Console>, current_user: CurrentUser) -> PageResult {
    user_sessions::delete_others(&current_user.cx, console.ops(), Some(&current_user.session.id)).await?;
    Ok(view::redirect_with_flash("/account", "All other browsers signed out."))
}

async fn disconnect_application(
    State(console): State<Console>,
    current_user: CurrentUser,
    Path(id): Path<String>,
) -> PageResult {
    let page_error = |error| PageError::from(error).with_layout(current_user.layout.clone());
    let id = id.parse().map_err(|_| page_error(Error::not_found("connected application")))?;
    gateway_sign_in::disconnect_client(&current_user.cx, console.ops(), &id).await.map_err(page_error)?;
    Ok(view::redirect_with_flash("/account", "Application disconnected."))
}

async fn leave_organization(
    State(console): State<Console>,
    current_user: CurrentUser,
    Path(id): Path<String>,
) -> PageResult {
    let page_error = |error| PageError::from(error).with_layout(current_user.layout.clone());
    let membership = current_user.memberships.iter().find(|membership| membership.organization.id.as_str() == id);
    let organization = membership.ok_or_else(|| page_error(Error::not_found("organisation")))?.organization.clone();
    match user_accounts::leave_organization(&current_user.cx, console.ops(), &organization.id).await {
        Ok(()) => Ok(view::redirect_with_flash("/account", &format!("You have left {}.", organization.name))),
        Err(error) => render_error(&console, current_user, "organizations", error).await,
    }
}

/// Returns a readable browser name from a user agent, such as `Firefox on Linux`.
fn browser_name(user_agent: &str) -> String {
    // User agents include the names of older browsers, so the order matters.
    const BROWSERS: [(&str, &str); 6] = [
        ("Edg/", "Edge"),
        ("OPR/", "Opera"),
        ("Firefox/", "Firefox"),
        ("Chrome/", "Chrome"),
        ("Safari/", "Safari"),
        ("curl/", "curl"),
    ];
    const SYSTEMS: [(&str, &str); 6] = [
        ("Android", "Android"),
        ("iPhone", "iPhone"),
        ("iPad", "iPad"),
        ("Windows", "Windows"),
        ("Mac OS X", "macOS"),
        ("Linux", "Linux"),
    ];
    let name = |names: &[(&str, &'static str)]| {
        names.iter().find(|(mark, _)| user_agent.contains(mark)).map(|(_, name)| *name)
    };
    match (name(&BROWSERS), name(&SYSTEMS)) {
        (Some(browser), Some(system)) => format!("{browser} on {system}"),
        (Some(browser), None) => browser.to_owned(),
        (None, _) if user_agent.is_empty() => "Unknown browser".to_owned(),
        (None, _) => user_agent.chars().take(60).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_agents_become_browser_names() {
        for (user_agent, name) in [
            ("Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0", "Firefox on Linux"),
            (
                "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/120.0 Safari/537.36 Edg/120.0",
                "Edge on Windows",
            ),
            (
                "Mozilla/5.0 (iPhone; CPU iPhone OS 17_0 like Mac OS X) AppleWebKit/605.1.15 Version/17.0 Mobile/15E148 Safari/604.1",
                "Safari on iPhone",
            ),
            ("curl/8.5.0", "curl"),
            ("", "Unknown browser"),
            ("<script>", "<script>"),
        ] {
            assert_eq!(browser_name(user_agent), name);
        }
    }
}
