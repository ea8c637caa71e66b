//! The form extractor of the pages.

use axum::extract::{FromRequest, Request};
use axum::response::{IntoResponse, Response};
use serde::de::DeserializeOwned;
use waypost_core::{Code, Error};

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
