//! The connection of an instance to a remote server that requires OAuth, and the pages that start and finish it.

use askama::Template;
use axum::extract::{Query, State};
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use serde::Deserialize;
use url::Url;
use waypost_core::instance::Backend;
use waypost_core::{Error, Result};
use waypost_http_kit::status;
use waypost_ops::instances::connect::{
    self, AuthorizationResponse, ConnectionOwner, ConnectionView, StartedConnection,
};
use waypost_ops::user_sessions::member_caller;

use super::InstanceContext;
use super::overview::render_with_error;
use crate::Console;
use crate::layout::Layout;
use crate::session::CurrentUser;
use crate::sign_in::notice;
use crate::view::{self, PageResult};

/// The connection of an instance that uses OAuth.
pub(super) struct Connection {
    /// `None` if it is not connected, or each agent has its own connection.
    pub current: Option<ConnectionView>,
    /// The path of the page on which people connect their own account, if each agent has its own connection.
    pub own: Option<String>,
}

impl Connection {
    /// Returns the connection of an instance, or `None` if the instance does not use OAuth.
    pub async fn find(console: &Console, at: &InstanceContext) -> Result<Option<Self>> {
        match &at.instance().backend {
            Backend::Remote(server) if server.is_oauth => {
                let current = connect::find(&at.cx, console.ops(), &at.organization_id, at.id()).await?;
                let is_per_agent = at.instance().is_connected_per_agent();
                let own = is_per_agent.then(|| at.org.path(&format!("connect/{}", at.instance().slug)));
                Ok(Some(Self { current, own }))
            }
            _ => Ok(None),
        }
    }
}

#[derive(Template)]
#[template(path = "instances/authorize.html")]
struct AuthorizePage {
    layout: Layout,
    /// The path of the page to which the user can return.
    base: String,
    name: String,
    issuer: String,
    url: Url,
    /// A sentence that states who will use the account.
    effect: String,
}

/// Returns the page that leads to the authorization server.
pub(super) fn authorize_page(
    layout: Layout,
    started: StartedConnection,
    (base, name, effect): (String, String, String),
) -> Response {
    view::page(&AuthorizePage { layout, base, name, issuer: started.issuer, url: started.url, effect })
}

/// Starts the connection. Shows a page with a link instead of redirecting, so that the user sees which server will ask
/// them to sign in. Besides, `form-action` prevents browsers from following a redirect to another site after a form
/// submission.
pub(super) async fn authorize(State(console): State<Console>, at: InstanceContext) -> PageResult {
    let origin = console.public_url.origin();
    match connect::begin(&at.cx, console.ops(), &at.organization_id, at.id(), (None, &origin)).await {
        Ok(started) => {
            let effect = "All agents of the organisation that are granted this instance then use the account with which you \
                          sign in.";
            let texts = (at.path(""), at.instance().name.clone(), effect.to_owned());
            Ok(authorize_page(at.layout.clone(), started, texts))
        }
        Err(error) => render_with_error(&console, at, error).await,
    }
}

/// Ends the connection of the organisation.
pub(super) async fn disconnect(State(console): State<Console>, at: InstanceContext) -> PageResult {
    match connect::disconnect(&at.cx, console.ops(), &at.organization_id, at.id(), None).await {
        Ok(()) => Ok(view::redirect_with_flash(&at.path(""), "Disconnected.")),
        Err(error) => Err(at.page_error(error)),
    }
}

/// The authorization response (RFC 6749, section 4.1.2; RFC 9207, section 2). Repeated parameters are rejected.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct CallbackQuery {
    state: String,
    code: Option<String>,
    iss: Option<String>,
    error: Option<String>,
}

/// Finishes a connection that the user has started.
pub(super) async fn callback(
    State(console): State<Console>,
    user: CurrentUser,
    Query(query): Query<CallbackQuery>,
) -> Response {
    match finish(&console, &user, query).await {
        Ok((path, message)) => view::redirect_with_flash(&path, message),
        Err(error) => {
            status::log(&error);
            let message = match error.code {
                waypost_core::Code::NotFound => {
                    "This connection has expired, was already finished, or was started by another user. Start it again."
                        .to_owned()
                }
                _ => error.message,
            };
            notice(status::of(error.code), "Not connected", message, "/", "Back to the console")
        }
    }
}

/// Returns the path of the page from which the connection was started, and the message to show there.
async fn finish(console: &Console, user: &CurrentUser, query: CallbackQuery) -> Result<(String, &'static str)> {
    let organization = connect::find_organization(&user.cx, console.ops(), &query.state).await?;
    let membership = user.memberships.iter().find(|membership| membership.organization.id == organization);
    let membership = membership.ok_or_else(|| Error::not_found("connection"))?;
    let cx = user.cx.with_caller(member_caller(&user.session.user_id, membership));
    let CallbackQuery { state, code, iss, error } = query;
    let response = AuthorizationResponse { state, code, iss, error };
    let finished = connect::finish(&cx, console.ops(), &organization, &response).await?;
    let (base, id) = (format!("/o/{}", membership.organization.slug), &finished.instance_id);
    Ok(match finished.owner {
        ConnectionOwner::Organization => (format!("{base}/instances/{id}"), "Connected. The server is being tested."),
        ConnectionOwner::Service => (format!("{base}/instances/{id}/connections"), "Connected."),
        ConnectionOwner::Person => (format!("{base}/connect/{}", finished.slug), "Connected."),
    })
}

/// Returns Waypost's metadata document, which authorization servers fetch.
pub(super) async fn client_document(State(console): State<Console>) -> Response {
    let document = connect::client_document(&console.public_url.origin()).to_string();
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("application/json")),
        (header::CACHE_CONTROL, HeaderValue::from_static("public, max-age=3600")),
    ];
    (StatusCode::OK, headers, document).into_response()
}
