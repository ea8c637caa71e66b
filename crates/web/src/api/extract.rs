//! What handlers of the API take, with refusals that are problem details.

use std::str::FromStr;

use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::header::{CONTENT_TYPE, ETAG, IF_MATCH, LOCATION};
use http::request::Parts;
use http::{HeaderValue, StatusCode};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize};
use waypost_core::caller::{Caller, Ctx};
use waypost_core::id::OrganizationId;
use waypost_core::{Code, Error};

use super::authenticate::Authenticated;
use crate::Web;
use crate::problem::ApiError;
use crate::request_info::RequestInfo;

/// The organisation that the caller acts for.
pub struct Scope {
    /// Who asks.
    pub cx: Ctx,
    /// For which organisation.
    pub organization_id: OrganizationId,
}

impl FromRequestParts<Web> for Scope {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, web: &Web) -> Result<Self, ApiError> {
        let (authenticated, info) = arrived(parts)?;
        let Caller::Member { organization_id, .. } = &authenticated.caller else {
            let message = "You are a member of no organisation yet. Make one first: POST /api/v1/organizations.";
            return Err(Error::new(Code::Conflict, message).into());
        };
        let organization_id = organization_id.clone();
        Ok(Self { cx: web.context(authenticated.caller, &info), organization_id })
    }
}

/// A signed-in user, for what they do for themselves. API keys are refused.
pub struct Person {
    /// Who asks.
    pub cx: Ctx,
}

impl FromRequestParts<Web> for Person {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, web: &Web) -> Result<Self, ApiError> {
        let (authenticated, info) = arrived(parts)?;
        let user = authenticated.user.ok_or_else(|| {
            Error::new(Code::Forbidden, "Only a signed-in user can do this, not an API key: use the console.")
        })?;
        Ok(Self { cx: web.context(user, &info) })
    }
}

/// Whoever it is: a user as such, or else a key.
pub struct Anybody {
    /// Who asks.
    pub cx: Ctx,
}

impl FromRequestParts<Web> for Anybody {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, web: &Web) -> Result<Self, ApiError> {
        let (authenticated, info) = arrived(parts)?;
        Ok(Self { cx: web.context(authenticated.user.unwrap_or(authenticated.caller), &info) })
    }
}

fn arrived(parts: &Parts) -> Result<(Authenticated, RequestInfo), ApiError> {
    let authenticated = parts.extensions.get::<Authenticated>().cloned();
    let authenticated = authenticated.ok_or_else(|| Error::internal("a request came to the API without a caller"))?;
    Ok((authenticated, RequestInfo::of(parts)?))
}

/// A body in JSON. A member that is not described is refused: what nobody reads was meant otherwise.
pub struct Json<T>(pub T);

impl<T: DeserializeOwned> FromRequest<Web> for Json<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, web: &Web) -> Result<Self, ApiError> {
        let kind = request.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        let kind = kind.split(';').next().unwrap_or_default().trim();
        if !(kind.eq_ignore_ascii_case("application/json") || kind.to_ascii_lowercase().ends_with("+json")) {
            let error =
                Error::new(Code::InvalidArguments, "The body has to be JSON: `Content-Type: application/json`.");
            return Err(ApiError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, error));
        }
        let body = read(request, web).await?;
        let value: serde_json::Value = serde_json::from_slice(&body).map_err(|error| {
            let error = Error::new(Code::InvalidArguments, format!("The body is not JSON: {error}."));
            ApiError::new(StatusCode::BAD_REQUEST, error)
        })?;
        serde_json::from_value(value).map(Self).map_err(|error| {
            ApiError::from(Error::new(Code::InvalidArguments, format!("The body does not fit: {error}.")))
        })
    }
}

/// The body as bytes.
///
/// # Errors
/// 413 when it is too large, 400 when it breaks off.
pub async fn read(request: Request, web: &Web) -> Result<Bytes, ApiError> {
    Bytes::from_request(request, web).await.map_err(|rejection| {
        let message = if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE {
            "The body is too large: 1 MiB at most."
        } else {
            "The body broke off."
        };
        ApiError::new(rejection.status(), Error::new(Code::InvalidArguments, message))
    })
}

impl<T: Serialize> IntoResponse for Json<T> {
    fn into_response(self) -> Response {
        axum::Json(self.0).into_response()
    }
}

/// The query of an address.
pub struct Query<T>(pub T);

impl<T: DeserializeOwned> FromRequestParts<Web> for Query<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, web: &Web) -> Result<Self, ApiError> {
        let query = axum::extract::Query::<T>::from_request_parts(parts, web).await;
        query.map(|axum::extract::Query(query)| Self(query)).map_err(|rejection| {
            Error::new(Code::InvalidArguments, format!("The query does not fit: {}.", rejection.body_text())).into()
        })
    }
}

/// The parts of a path. Ids that are none are those of nothing: 404.
pub struct Path<T>(pub T);

impl<T: DeserializeOwned + Send> FromRequestParts<Web> for Path<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, web: &Web) -> Result<Self, ApiError> {
        let path = axum::extract::Path::<T>::from_request_parts(parts, web).await;
        path.map(|axum::extract::Path(path)| Self(path)).map_err(|_| Error::not_found("thing").into())
    }
}

/// The revision that an edit was made from (`If-Match`, RFC 9110, section 13.1.1); none when the caller does not say, or
/// says `*`.
pub struct IfMatch(pub Option<u32>);

impl FromRequestParts<Web> for IfMatch {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &Web) -> Result<Self, ApiError> {
        let Some(value) = parts.headers.get(IF_MATCH) else { return Ok(Self(None)) };
        let text = value.to_str().unwrap_or_default().trim();
        if text == "*" {
            return Ok(Self(None));
        }
        let number = text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).and_then(|text| text.parse().ok());
        number.map(|revision| Self(Some(revision))).ok_or_else(|| {
            // A tag that we never gave is that of nothing that is here.
            Error::new(Code::PreconditionFailed, "`If-Match` is not the `ETag` of a walkthrough as it was answered.")
                .into()
        })
    }
}

/// An answer with the revision of a draft as its `ETag`.
pub fn tagged(revision: u32, response: impl IntoResponse) -> Response {
    let mut response = response.into_response();
    if let Ok(tag) = HeaderValue::from_str(&format!("\"{revision}\"")) {
        response.headers_mut().insert(ETAG, tag);
    }
    response
}

/// The id that stands in a path. What is none of this kind is that of nothing.
///
/// # Errors
/// `not_found` for the noun.
pub fn id<T: FromStr>(text: &str, noun: &str) -> Result<T, Error> {
    text.parse().map_err(|_| Error::not_found(noun))
}

/// 201 with what was made, and its address below `/api/v1`.
pub fn created(path: &str, body: &impl Serialize) -> Response {
    let mut response = (StatusCode::CREATED, axum::Json(body)).into_response();
    if let Ok(location) = HeaderValue::from_str(&format!("/api/v1/{path}")) {
        response.headers_mut().insert(LOCATION, location);
    }
    response
}

/// Reads a member of a change that may be null: absent is none, null is none inside.
///
/// # Errors
/// When the value is of another type.
pub fn nullable<'de, T: Deserialize<'de>, D: Deserializer<'de>>(input: D) -> Result<Option<Option<T>>, D::Error> {
    Option::deserialize(input).map(Some)
}
