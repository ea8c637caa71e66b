//! The form extractor of the console's pages.

use axum::extract::{FromRequest, Request};
use axum::response::{IntoResponse, Response};
use serde::de::DeserializeOwned;
use waypost_core::{Code, Error, Timestamp};

use crate::Console;
use crate::view::PageError;

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
