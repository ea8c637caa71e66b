//! The form extractor of the console's pages, and functions for dates in forms.

use axum::extract::{FromRequest, Request};
use axum::response::{IntoResponse, Response};
use serde::de::DeserializeOwned;
use waypost_core::analytics::DAY_MS;
use waypost_core::{Code, Error, Timestamp};

use crate::Console;
use crate::view::PageError;

/// The default lifetime of a new credential, in days.
const DEFAULT_LIFETIME_DAYS: i64 = 90;

/// The fields of a form. Renders an error page if the form cannot be parsed.
pub struct Form<T>(pub T);

impl<T: DeserializeOwned> FromRequest<Console> for Form<T> {
    type Rejection = Response;

    async fn from_request(request: Request, console: &Console) -> Result<Self, Response> {
        match axum::Form::<T>::from_request(request, console).await {
            Ok(axum::Form(fields)) => Ok(Self(fields)),
            Err(rejection) => {
                let message = "This form could not be read. Go back, reload the page and submit it again.";
                let mut response = PageError::from(Error::new(Code::InvalidArguments, message)).into_response();
                *response.status_mut() = rejection.status();
                Err(response)
            }
        }
    }
}

/// Returns the start of a day in UTC, or `None` for an empty string.
pub(crate) fn parse_day(field: &str, text: &str) -> Result<Option<Timestamp>, Error> {
    if text.is_empty() {
        return Ok(None);
    }
    let time = Timestamp::from_rfc3339(&format!("{text}T00:00:00Z"));
    time.map(Some)
        .ok_or_else(|| Error::invalid(field, "Enter a valid date, such as 2026-01-31, or leave the field empty."))
}

/// Returns the day of a time in UTC.
pub(crate) fn day(time: Timestamp) -> String {
    time.rfc3339().chars().take(10).collect()
}

/// Returns the expiry date that the form of a new credential suggests.
pub(crate) fn default_expiry(now: Timestamp) -> String {
    day(now.plus(DEFAULT_LIFETIME_DAYS * DAY_MS))
}

/// Returns the end of a day in UTC, or `None` for an empty string. Errors belong to the field `expires_on`.
pub(crate) fn end_of_day(day: &str) -> Result<Option<Timestamp>, Error> {
    if day.is_empty() {
        return Ok(None);
    }
    let time = Timestamp::from_rfc3339(&format!("{day}T23:59:59.999Z"));
    time.map(Some).ok_or_else(|| {
        Error::invalid("expires_on", "Enter a valid date, such as 2027-01-31, or leave the field empty.")
    })
}

/// Moves an error about `expires_at` to the form field `expires_on`.
pub(crate) fn locate_expiry(error: Error) -> Error {
    let is_expiry = error.details.get("field").is_some_and(|field| field == "expires_at");
    if is_expiry { error.with("field", "expires_on") } else { error }
}
