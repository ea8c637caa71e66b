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
use waypost_ops::instances::connect::{self, AuthorizationResponse, ConnectionView};
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
    /// `None` if it is not connected.
    pub current: Option<ConnectionView>,
}

impl Connection {
    /// Returns `None` for an instance that does not use OAuth.
    pub async fn find(console: &Console, at: &InstanceContext) -> Result<Option<Self>> {
        match &at.instance().backend {
            Backend::Remote(server) if server.is_oauth => {
                let current = connect::find(&at.cx, console.ops(), &at.organization_id, at.id()).await?;
                Ok(Some(Self { current }))
            }
            _ => Ok(None),
        }
    }
}

#[derive(Template)]
#[template(path = "instances/authorize.html")]
struct AuthorizePage {
    layout: Layout,
    /// The path of the instance.
    base: String,
    name: String,
    issuer: String,
    url: Url,
}

/// Starts the connection. The page that follows has a link instead of a redirect, so that the user sees which server will
/// ask for a sign-in; also, browsers do not follow redirects of forms to other sites (`form-action`).
pub(super) async fn authorize(State(console): State<Console>, at: InstanceContext) -> PageResult {
    let origin = console.public_url.origin();
    match connect::begin(&at.cx, console.ops(), &at.organization_id, at.id(), &origin).await {
        Ok(started) => Ok(view::page(&AuthorizePage {
            layout: at.layout.clone(),
            base: at.path(""),
            name: at.instance().name.clone(),
            issuer: started.issuer,
            url: started.url,
        })),
        Err(error) => render_with_error(&console, at, error).await,
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

/// Finishes the connection of the user who has started it.
pub(super) async fn callback(
    State(console): State<Console>,
    user: CurrentUser,
    Query(query): Query<CallbackQuery>,
) -> Response {
    match finish(&console, &user, query).await {
        Ok(path) => view::redirect_with_flash(&path, "Connected. The server is being tested."),
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

/// Returns the path of the connected instance.
async fn finish(console: &Console, user: &CurrentUser, query: CallbackQuery) -> Result<String> {
    let organization = connect::find_organization(&user.cx, console.ops(), &query.state).await?;
    let membership = user.memberships.iter().find(|membership| membership.organization.id == organization);
    let membership = membership.ok_or_else(|| Error::not_found("connection"))?;
    let cx = user.cx.with_caller(member_caller(&user.session.user_id, membership));
    let CallbackQuery { state, code, iss, error } = query;
    let response = AuthorizationResponse { state, code, iss, error };
    let view = connect::finish(&cx, console.ops(), &organization, &response).await?;
    Ok(format!("/o/{}/instances/{}", membership.organization.slug, view.instance.id))
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
