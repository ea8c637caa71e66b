//! Responses of pages: HTML, redirects and errors, with security headers.

use askama::Template;
use axum::response::{IntoResponse, Response};
use http::request::Parts;
use http::{HeaderValue, Method, StatusCode, header};
use waypost_core::{Code, Error};

use crate::layout::Layout;
use crate::plain_text;
use waypost_http_kit::{cookies, headers, status};

/// The result of a page handler.
pub type PageResult = Result<Response, PageError>;

/// Renders a page or a fragment.
pub fn html(status: StatusCode, template: &impl Template) -> Response {
    match template.render() {
        Ok(body) => {
            let mut response = (status, [(header::CONTENT_TYPE, "text/html; charset=utf-8")], body).into_response();
            add_security_headers(&mut response);
            response
        }
        Err(error) => {
            tracing::error!(%error, "failed to render a page");
            (StatusCode::INTERNAL_SERVER_ERROR, "Something went wrong. Try again.").into_response()
        }
    }
}

/// Renders a page and sets `Retry-After` (RFC 9110, section 10.2.3) to `retry_after`, in seconds. Omits the header if
/// it is `None`.
pub fn html_with_retry_after(status: StatusCode, retry_after: Option<u64>, template: &impl Template) -> Response {
    let mut response = html(status, template);
    if let Some(seconds) = retry_after {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

/// Renders a page with status 200.
pub fn page(template: &impl Template) -> Response {
    html(StatusCode::OK, template)
}

/// Redirects the browser to the local path `location` with GET.
#[must_use]
pub fn redirect(location: &str) -> Response {
    match HeaderValue::from_str(location) {
        Ok(location) => {
            let mut response = (StatusCode::SEE_OTHER, [(header::LOCATION, location)]).into_response();
            add_security_headers(&mut response);
            response
        }
        Err(error) => {
            tracing::error!(%error, "failed to create a redirect");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

/// Redirects like [`redirect`] and shows `message` once on the next page.
#[must_use]
pub fn redirect_with_flash(location: &str, message: &str) -> Response {
    let mut response = redirect(location);
    cookies::set_flash(response.headers_mut(), message);
    response
}

/// Whether the response to this request shows the flash message, so that [`clear_flash`] must be called. A fragment of
/// a page does not show it.
pub fn clears_flash(request: &Parts) -> bool {
    request.method == Method::GET
        && cookies::read(&request.headers, cookies::FLASH).is_some()
        && !request.headers.contains_key("hx-request")
}

/// Clears the flash message, unless the response is a redirect, which does not show it.
pub fn clear_flash(response: &mut Response) {
    if !response.status().is_redirection() {
        cookies::clear(response.headers_mut(), cookies::FLASH);
    }
}

/// Returns `next` if it is a path of this site, otherwise `/`. Prevents redirects to other sites.
#[must_use]
pub fn local_path(next: &str) -> &str {
    let is_local = next.starts_with('/')
        && !next.starts_with("//")
        && !next.contains(['\\', '\r', '\n', '\t'])
        && next.is_ascii()
        && next.len() <= 1_024;
    if is_local { next } else { "/" }
}

/// An error that is rendered as a page.
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
    /// Renders the error within `layout`.
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
        status::log(&error);
        let (title, advice) = match error.code {
            Code::NotFound => (
                "Page not found",
                "It may have been deleted, or it belongs to an organisation that you are not a member of.",
            ),
            Code::Forbidden => ("Access denied", "Ask an admin or owner of the organisation for access."),
            Code::RateLimited => ("Too many requests", "Wait a moment, then reload the page."),
            Code::Unavailable => ("Temporarily unavailable", "Try again in a moment."),
            Code::Internal => ("Something went wrong", "Try again. If the problem persists, contact the operator."),
            _ => ("Invalid request", "Go back, correct your input and try again."),
        };
        let layout = layout.map_or_else(Layout::empty, |layout| *layout);
        let (status, retry_after) = (status::of(error.code), status::retry_after(&error));
        let field = error.details.get("field").and_then(|field| field.as_str()).unwrap_or_default();
        let message = plain_text::message(&error.message, field);
        html_with_retry_after(status, retry_after, &ErrorPage { layout, title, message, advice })
    }
}

/// Formats a count with its noun: `1 server`, `2 servers`.
#[must_use]
pub fn pluralize(count: i64, one: &str, many: &str) -> String {
    if count == 1 { format!("1 {one}") } else { format!("{count} {many}") }
}

/// A validation error of a form, shown next to the field.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FormError {
    /// The name of the field. Empty for the form as a whole.
    pub field: String,
    /// The message.
    pub message: String,
    /// The value of the `Retry-After` header, in seconds.
    pub retry_after: Option<u64>,
}

impl FormError {
    /// Converts `error` into the status and form error to show to the user.
    ///
    /// # Errors
    /// Returns `error` unchanged if it was not caused by the input. Show it on an error page.
    pub fn from_error(error: Error) -> Result<(StatusCode, Self), Error> {
        match error.code {
            Code::InvalidArguments
            | Code::Conflict
            | Code::RateLimited
            | Code::PreconditionFailed
            | Code::ImageNotFound
            | Code::ImageDenied
            | Code::ToolServerError
            | Code::WalkthroughEmpty
            | Code::ConfirmationRequired => {
                let field = error.details.get("field").and_then(|field| field.as_str()).unwrap_or_default().to_owned();
                let retry_after = status::retry_after(&error);
                let message = plain_text::message(&error.message, &field);
                Ok((status::of(error.code), Self { field, message, retry_after }))
            }
            Code::NotFound
            | Code::WalkthroughNotFound
            | Code::StepNotFound
            | Code::NoActiveWalkthrough
            | Code::AmbiguousWalkthrough
            | Code::StepMismatch
            | Code::HandleUnknown
            | Code::EmailRequired
            | Code::SignInRequired
            | Code::NoProgress
            | Code::Unavailable
            | Code::Forbidden
            | Code::Internal => Err(error),
        }
    }

    /// Returns the message if the error belongs to `field`.
    #[must_use]
    pub fn message_for(&self, field: &str) -> Option<&str> {
        (self.field == field && !self.message.is_empty()).then_some(self.message.as_str())
    }
}

/// Formats a duration, such as `3 min 20 s`. `None` becomes `–`.
#[must_use]
pub fn duration(milliseconds: Option<i64>) -> String {
    let Some(milliseconds) = milliseconds else { return "–".to_owned() };
    let seconds = milliseconds / 1_000;
    let pair = |large: i64, unit, small: i64, part| {
        if small == 0 { format!("{large} {unit}") } else { format!("{large} {unit} {small} {part}") }
    };
    match seconds {
        ..1 => format!("{milliseconds} ms"),
        1..60 => format!("{seconds} s"),
        60..3_600 => pair(seconds / 60, "min", seconds % 60, "s"),
        3_600..86_400 => pair(seconds / 3_600, "h", seconds % 3_600 / 60, "min"),
        _ => pair(seconds / 86_400, "d", seconds % 86_400 / 3_600, "h"),
    }
}

/// Adds the security headers: only local content and scripts, no framing, no caching.
pub(crate) fn add_security_headers(response: &mut Response) {
    const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
        connect-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'";
    headers::protect(response, POLICY);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_local_paths_are_redirect_targets() {
        assert_eq!(local_path("/o/acme/servers?x=1"), "/o/acme/servers?x=1");
        for next in
            ["", "https://evil.example", "//evil.example", "/\\evil.example", "/a\r\nSet-Cookie: x", "javascript:x"]
        {
            assert_eq!(local_path(next), "/", "{next:?}");
        }
    }
}
