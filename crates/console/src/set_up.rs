//! `/setup`: creating the first owner with the link that `serve` prints.

use askama::Template;
use axum::extract::{Query, State};
use axum::response::Response;
use http::{HeaderMap, StatusCode};
use serde::Deserialize;
use waypost_core::{Code, Error};
use waypost_ops::user_accounts::NewOwner;

use crate::Console;
use crate::form::Form;
use crate::layout::Layout;
use crate::routes::{Access, Routes};
use crate::sign_in::{self, Device};
use crate::view::{self, FormError, PageResult};
use waypost_http_kit::limits::LimitKind;
use waypost_http_kit::request_info::RequestInfo;

/// Returns the routes of this page.
pub(super) fn routes() -> Routes {
    Routes::new().get("/setup", Access::Public, show).post("/setup", Access::Public, submit)
}

#[derive(Template)]
#[template(path = "set_up/set_up.html")]
struct SetUpPage<'a> {
    layout: Layout,
    form_error: FormError,
    token: &'a str,
    full_name: &'a str,
    email: &'a str,
}

/// The fields of the link and the form. Does not implement `Debug` because it contains a password.
#[derive(Default, Deserialize)]
#[serde(default)]
struct SetUpForm {
    token: String,
    name: String,
    email: String,
    password: String,
}

async fn show(State(console): State<Console>, info: RequestInfo, Query(fields): Query<SetUpForm>) -> PageResult {
    let checked = match sign_in::check_limit(&console, LimitKind::SignIn, &info) {
        Ok(()) => console.accounts().check_set_up(&fields.token).await,
        Err(error) => Err(error),
    };
    match checked {
        Ok(()) => {
            let (layout, form_error) = (Layout::empty(), FormError::default());
            Ok(view::page(&SetUpPage { layout, form_error, token: &fields.token, full_name: "", email: "" }))
        }
        Err(error) => render_invalid_link(error),
    }
}

async fn submit(
    State(console): State<Console>,
    info: RequestInfo,
    headers: HeaderMap,
    Form(fields): Form<SetUpForm>,
) -> PageResult {
    match create_owner(&console, &info, &headers, &fields).await {
        Ok(response) => Ok(response),
        Err(error) if error.code == Code::NotFound => render_invalid_link(error),
        Err(error) => {
            let (status, form_error) = FormError::from_error(error)?;
            let SetUpForm { token, name: full_name, email, .. } = &fields;
            Ok(view::html_with_retry_after(
                status,
                form_error.retry_after,
                &SetUpPage { layout: Layout::empty(), form_error, token, full_name, email },
            ))
        }
    }
}

async fn create_owner(
    console: &Console,
    info: &RequestInfo,
    headers: &HeaderMap,
    fields: &SetUpForm,
) -> Result<Response, Error> {
    sign_in::check_limit(console, LimitKind::SignIn, info)?;
    let SetUpForm { token, name, email, password } = fields;
    let (cx, device) = (sign_in::visitor_context(console, info), Device::from_request(headers, info));
    let owner = NewOwner { email, name, password };
    let session = console.accounts().set_up(&cx, token, owner, device.browser()).await?;
    Ok(sign_in::start_session(console, headers, &session, "/").await)
}

fn render_invalid_link(error: Error) -> PageResult {
    if error.code != Code::NotFound {
        return Err(error.into());
    }
    Ok(sign_in::notice(StatusCode::NOT_FOUND, "This link is no longer valid", error.message, "/login", "Sign in"))
}
