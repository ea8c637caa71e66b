//! What every page of these shows.

use askama::Template;
use askama::filters::Safe;
use axum::response::Response;
use http::{HeaderValue, StatusCode, header};
use waypost_core::Error;

use crate::Auth;
use crate::page::{self, Layout};
use crate::pending::{self, Pending};

use super::form::Problem;

/// The request that a page belongs to, and what the user has typed so far.
pub(super) struct View<'a> {
    pending: &'a Pending,
    /// The token of its forms.
    pub(super) csrf: &'a str,
    /// What the application calls itself.
    pub(super) client_name: &'a str,
    /// The address that was typed.
    pub(super) email: String,
    /// What went wrong.
    pub(super) problem: Option<Problem>,
    /// The field to begin with.
    first: &'static str,
}

impl<'a> View<'a> {
    /// A page without a problem; the user begins in the field `first`.
    pub(super) fn new(pending: &'a Pending, email: &str, first: &'static str) -> Self {
        let (csrf, client_name) = (pending.csrf.as_str(), pending.request.client_name.as_str());
        Self { pending, csrf, client_name, email: email.to_owned(), problem: None, first }
    }

    /// The same with a problem.
    ///
    /// # Errors
    /// The page to show instead, when the error is none that the user can do something about.
    pub(super) fn with(mut self, error: &Error) -> Result<Self, Response> {
        self.problem = Some(Problem::of(error).ok_or_else(|| pending::failed(&self.pending.incoming, error))?);
        Ok(self)
    }

    /// The address of another page of the same request.
    pub(super) fn to(&self, name: &str) -> String {
        self.pending.path(name)
    }

    /// The attributes of a field that depend on what went wrong.
    pub(super) fn state(&self, field: &str) -> Safe<String> {
        Safe(self.attributes(field, false))
    }

    /// [`Self::state`] of a field with a hint below it.
    pub(super) fn state_with_hint(&self, field: &str) -> Safe<String> {
        Safe(self.attributes(field, true))
    }

    fn attributes(&self, field: &str, hint: bool) -> String {
        let wrong = self.problem.as_ref().is_some_and(|problem| problem.field == field);
        let first = self.problem.as_ref().map(|problem| problem.field.as_str()).filter(|field| !field.is_empty());
        let mut attributes = String::new();
        if wrong {
            attributes.push_str(" aria-invalid=\"true\"");
        }
        match (wrong, hint) {
            (true, true) => attributes.push_str(" aria-describedby=\"problem hint\""),
            (true, false) => attributes.push_str(" aria-describedby=\"problem\""),
            (false, true) => attributes.push_str(" aria-describedby=\"hint\""),
            (false, false) => {}
        }
        if first.unwrap_or(self.first) == field {
            attributes.push_str(" autofocus");
        }
        attributes
    }
}

/// Shows a page.
pub(super) async fn answer<'a, T: Template>(
    auth: &Auth,
    pending: &Pending,
    view: View<'a>,
    template: impl FnOnce(Layout, View<'a>) -> T,
) -> Response {
    let layout = match Layout::new(auth, &pending.incoming).await {
        Ok(layout) => layout,
        Err(error) => return pending::failed(&pending.incoming, &error),
    };
    let status = view.problem.as_ref().map_or(StatusCode::OK, |problem| problem.status);
    let retry_after = view.problem.as_ref().and_then(|problem| problem.retry_after);
    // A known client is sent to right after the sign-in: its address has to be among those where forms may lead.
    let mut response = page::html(status, &template(layout, view), Some(&pending.request.redirect_uri));
    if let Some(seconds) = retry_after {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}
