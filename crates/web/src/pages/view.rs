//! Answers of pages: HTML, redirects, errors, with the headers that each of them has.

use askama::Template;
use axum::extract::Request;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::{HeaderName, HeaderValue, Method, StatusCode, header};
use waypost_core::{Code, Error};

use super::layout::Layout;
use crate::{cookies, problem};

/// What a handler of a page gives.
pub type PageResult = Result<Response, PageError>;

/// Renders a page or a part of one.
pub fn html(status: StatusCode, template: &impl Template) -> Response {
    match template.render() {
        Ok(body) => {
            let mut response = (status, [(header::CONTENT_TYPE, "text/html; charset=utf-8")], body).into_response();
            add_security_headers(&mut response);
            response
        }
        Err(error) => {
            tracing::error!(%error, "a page could not be rendered");
            (StatusCode::INTERNAL_SERVER_ERROR, "Something went wrong on our side. Try again.").into_response()
        }
    }
}

/// Renders a page with a form that was refused, with `Retry-After` (RFC 9110, section 10.2.3) if it may be sent again after
/// some seconds.
pub fn html_with_retry_after(status: StatusCode, retry_after: Option<u64>, template: &impl Template) -> Response {
    let mut response = html(status, template);
    if let Some(seconds) = retry_after {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

/// Renders a page that shows all is well.
pub fn page(template: &impl Template) -> Response {
    html(StatusCode::OK, template)
}

/// Sends the browser to `location`, a path of ours, with GET.
#[must_use]
pub fn redirect(location: &str) -> Response {
    match HeaderValue::from_str(location) {
        Ok(location) => {
            let mut response = (StatusCode::SEE_OTHER, [(header::LOCATION, location)]).into_response();
            add_security_headers(&mut response);
            response
        }
        Err(error) => {
            tracing::error!(%error, "a redirect could not be written");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

/// As [`redirect`]; the page there says `message`, once.
#[must_use]
pub fn redirect_with_flash(location: &str, message: &str) -> Response {
    let mut response = redirect(location);
    cookies::set_flash(response.headers_mut(), message);
    response
}

/// What [`redirect_saying`] left for the next page is shown by one page only.
pub async fn clear_flash(request: Request, next: Next) -> Response {
    let said = request.method() == Method::GET && cookies::read(request.headers(), cookies::FLASH).is_some();
    let part = request.headers().contains_key("hx-request");
    let mut response = next.run(request).await;
    if said && !part && !response.status().is_redirection() {
        cookies::clear(response.headers_mut(), cookies::FLASH);
    }
    response
}

/// A path of ours that a query or a form may name as the place to go on to; `/` for anything else.
#[must_use]
pub fn local_path(next: &str) -> &str {
    let own = next.starts_with('/')
        && !next.starts_with("//")
        && !next.contains(['\\', '\r', '\n', '\t'])
        && next.is_ascii()
        && next.len() <= 1_024;
    if own { next } else { "/" }
}

/// An error on its way to a page of its own.
#[derive(Debug)]
pub struct PageError {
    error: Error,
    layout: Option<Box<Layout>>,
}

impl From<Error> for PageError {
    fn from(error: Error) -> Self {
        Self { error, layout: None }
    }
}

impl PageError {
    /// With the navigation around it.
    #[must_use]
    pub fn with_layout(self, layout: Layout) -> Self {
        Self { layout: Some(Box::new(layout)), ..self }
    }
}

#[derive(Template)]
#[template(path = "error.html")]
struct ErrorPage {
    layout: Layout,
    title: &'static str,
    message: String,
    advice: &'static str,
}

impl IntoResponse for PageError {
    fn into_response(self) -> Response {
        let Self { error, layout } = self;
        problem::log(&error);
        let (title, advice) = match error.code {
            Code::NotFound => (
                "There is nothing here",
                "It may have been deleted, or it belongs to an organisation that is not yours.",
            ),
            Code::Forbidden => ("You may not do this", "Ask an owner of the organisation for a higher role."),
            Code::RateLimited => ("Too many requests", "Wait a little, then load this page again."),
            Code::Unavailable => ("A part of Waypost does not answer", "Try again in a moment."),
            Code::Internal => ("Something went wrong on our side", "Try again; if it stays, tell the operator."),
            _ => ("This did not work", "Go back, change it, and try once more."),
        };
        let layout = layout.map_or_else(Layout::empty, |layout| *layout);
        let (status, retry_after) = (problem::status(error.code), problem::retry_after(&error));
        html_with_retry_after(status, retry_after, &ErrorPage { layout, title, message: error.message, advice })
    }
}

/// `1 server`, `2 servers`.
#[must_use]
pub fn pluralize(count: i64, one: &str, many: &str) -> String {
    if count == 1 { format!("1 {one}") } else { format!("{count} {many}") }
}

/// What is wrong with a form, to stand beside its fields.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FormError {
    /// The field; empty when it is none in particular.
    pub field: String,
    /// What is wrong, and what would be right.
    pub message: String,
    /// Seconds until it is worth trying again, for the header `Retry-After`.
    pub retry_after: Option<u64>,
}

impl FormError {
    /// What `error` is for who filled in the form.
    ///
    /// # Errors
    /// The error itself, when it is none of theirs: a page of its own shows it.
    pub fn from_error(error: Error) -> Result<(StatusCode, Self), Error> {
        match error.code {
            Code::InvalidArguments
            | Code::Conflict
            | Code::RateLimited
            | Code::PreconditionFailed
            | Code::WalkthroughEmpty
            | Code::ConfirmationRequired => {
                let field = error.details.get("field").and_then(|field| field.as_str()).unwrap_or_default().to_owned();
                let retry_after = problem::retry_after(&error);
                Ok((problem::status(error.code), Self { field, message: error.message, retry_after }))
            }
            _ => Err(error),
        }
    }

    /// The message, when it is about `field`.
    #[must_use]
    pub fn message_for(&self, field: &str) -> Option<&str> {
        (self.field == field && !self.message.is_empty()).then_some(self.message.as_str())
    }
}

/// Nothing from elsewhere, no script but ours, in nobody's frame, in nobody's cache.
fn add_security_headers(response: &mut Response) {
    const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
        connect-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'";
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::REFERRER_POLICY, "same-origin"),
        (HeaderName::from_static("permissions-policy"), "camera=(), geolocation=(), microphone=()"),
    ] {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn goes_on_to_our_own_pages_only() {
        assert_eq!(local_path("/o/acme/servers?x=1"), "/o/acme/servers?x=1");
        for next in
            ["", "https://evil.example", "//evil.example", "/\\evil.example", "/a\r\nSet-Cookie: x", "javascript:x"]
        {
            assert_eq!(local_path(next), "/", "{next:?}");
        }
    }
}
