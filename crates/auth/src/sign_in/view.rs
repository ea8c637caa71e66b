//! The data that every sign-in page shows.

use askama::Template;
use askama::filters::Safe;
use axum::response::Response;
use http::{HeaderValue, StatusCode, header};
use waypost_core::Error;

use crate::Auth;
use crate::page::{self, Layout};
use crate::pending::{self, PendingAuthorization};

use super::form::Problem;

/// The request that a page belongs to, and the user's input so far.
pub(super) struct View<'a> {
    pending: &'a PendingAuthorization,
    /// The CSRF token of its forms.
    pub(super) csrf: &'a str,
    /// The self-reported name of the application.
    pub(super) client_name: &'a str,
    /// The email that was entered.
    pub(super) email: String,
    /// The problem to show.
    pub(super) problem: Option<Problem>,
    /// The field that has the focus.
    focus: &'static str,
}

impl<'a> View<'a> {
    /// Creates a view without a problem, with the focus on the field `focus`.
    pub(super) fn new(pending: &'a PendingAuthorization, email: &str, focus: &'static str) -> Self {
        let (csrf, client_name) = (pending.csrf.as_str(), pending.request.client_name.as_str());
        Self { pending, csrf, client_name, email: email.to_owned(), problem: None, focus }
    }

    /// Adds the problem for `error`.
    ///
    /// # Errors
    /// Returns an error page if the user cannot correct the error.
    pub(super) fn with_error(mut self, error: &Error) -> Result<Self, Response> {
        self.problem = Some(Problem::from_error(error).ok_or_else(|| pending::failed(&self.pending.incoming, error))?);
        Ok(self)
    }

    /// Returns the URL path of another page of the same request.
    pub(super) fn path(&self, name: &str) -> String {
        self.pending.path(name)
    }

    /// Returns the HTML attributes of a field that depend on the problem and the focus.
    pub(super) fn state(&self, field: &str) -> Safe<String> {
        Safe(self.attributes(field, false))
    }

    /// Like [`Self::state`], for a field with a hint below it.
    pub(super) fn state_with_hint(&self, field: &str) -> Safe<String> {
        Safe(self.attributes(field, true))
    }

    fn attributes(&self, field: &str, has_hint: bool) -> String {
        let is_invalid = self.problem.as_ref().is_some_and(|problem| problem.field == field);
        let problem_field =
            self.problem.as_ref().map(|problem| problem.field.as_str()).filter(|field| !field.is_empty());
        let mut attributes = String::new();
        if is_invalid {
            attributes.push_str(" aria-invalid=\"true\"");
        }
        match (is_invalid, has_hint) {
            (true, true) => attributes.push_str(" aria-describedby=\"problem hint\""),
            (true, false) => attributes.push_str(" aria-describedby=\"problem\""),
            (false, true) => attributes.push_str(" aria-describedby=\"hint\""),
            (false, false) => {}
        }
        if problem_field.unwrap_or(self.focus) == field {
            attributes.push_str(" autofocus");
        }
        attributes
    }
}

/// Renders a page.
pub(super) async fn render<'a, T: Template>(
    auth: &Auth,
    pending: &PendingAuthorization,
    view: View<'a>,
    template: impl FnOnce(Layout, View<'a>) -> T,
) -> Response {
    let layout = match Layout::new(auth, &pending.incoming).await {
        Ok(layout) => layout,
        Err(error) => return pending::failed(&pending.incoming, &error),
    };
    let status = view.problem.as_ref().map_or(StatusCode::OK, |problem| problem.status);
    let retry_after = view.problem.as_ref().and_then(|problem| problem.retry_after);
    // After the sign-in, the browser may be redirected to a known client immediately, so the client's redirect URI must
    // be among the allowed form targets.
    let mut response = page::html(status, &template(layout, view), Some(&pending.request.redirect_uri));
    if let Some(seconds) = retry_after {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}
