//! `/o/{org}/connect/{instance}`: the page on which people connect their own account to a remote server for which they
//! have a grant.

use askama::Template;
use axum::extract::{Path, State};
use waypost_core::Error;
use waypost_ops::instances::connect::{self, OwnConnection};

use super::connection::authorize_page;
use super::connections::badge;
use crate::Console;
use crate::layout::Layout;
use crate::session::Member;
use crate::view::{self, FormError, PageError, PageResult};

#[derive(Template)]
#[template(path = "instances/own_connection.html")]
struct OwnConnectionPage {
    layout: Layout,
    form_error: FormError,
    found: OwnConnection,
    /// The path of the page.
    base: String,
}

/// The current connection, formatted for the page.
struct Shown<'a> {
    issuer: &'a str,
    badge: &'static str,
    state: &'static str,
    connected_at: String,
}

impl OwnConnectionPage {
    fn current(&self) -> Option<Shown<'_>> {
        let (issuer, state, at) = self.found.current.as_ref()?;
        Some(Shown { issuer, badge: badge(*state), state: state.as_str(), connected_at: at.rfc3339() })
    }
}

fn page_error(member: &Member, error: Error) -> PageError {
    PageError::from(error).with_layout(member.layout.clone())
}

async fn page(console: &Console, member: &Member, slug: &str) -> Result<OwnConnectionPage, PageError> {
    let found = connect::find_own(&member.cx, console.ops(), &member.organization_id, slug).await;
    let found = found.map_err(|error| page_error(member, error))?;
    let base = member.org.path(&format!("connect/{}", found.slug));
    Ok(OwnConnectionPage { layout: member.layout.clone(), form_error: FormError::default(), found, base })
}

pub(super) async fn show(
    State(console): State<Console>,
    member: Member,
    Path((_, slug)): Path<(String, String)>,
) -> PageResult {
    Ok(view::page(&page(&console, &member, &slug).await?))
}

/// Starts the connection of the viewer's agent.
pub(super) async fn connect(
    State(console): State<Console>,
    member: Member,
    Path((_, slug)): Path<(String, String)>,
) -> PageResult {
    let page = page(&console, &member, &slug).await?;
    let origin = console.public_url.origin();
    match connect::begin_own(&member.cx, console.ops(), &member.organization_id, (&slug, &origin)).await {
        Ok(started) => {
            let effect = "Only your own applications then use the account with which you sign in.".to_owned();
            Ok(authorize_page(member.layout.clone(), started, (page.base, page.found.name, effect)))
        }
        Err(error) => {
            let (status, form_error) = FormError::from_error(error).map_err(|error| page_error(&member, error))?;
            Ok(view::html(status, &OwnConnectionPage { form_error, ..page }))
        }
    }
}

/// Ends the connection of the viewer's agent.
pub(super) async fn disconnect(
    State(console): State<Console>,
    member: Member,
    Path((_, slug)): Path<(String, String)>,
) -> PageResult {
    let page = page(&console, &member, &slug).await?;
    let ended = connect::disconnect_own(&member.cx, console.ops(), &member.organization_id, &slug).await;
    ended.map_err(|error| page_error(&member, error))?;
    // Without a grant, the page no longer exists.
    let path = if page.found.can_connect { page.base } else { member.org.path("") };
    Ok(view::redirect_with_flash(&path, "Disconnected."))
}
