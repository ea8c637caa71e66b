//! The extractors of API handlers. They reject requests with problem details.

use std::str::FromStr;

use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, IF_MATCH, LOCATION};
use http::request::Parts;
use http::{HeaderValue, StatusCode};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize};
use waypost_core::caller::Ctx;
use waypost_core::id::OrganizationId;
use waypost_core::{Code, Error, Timestamp};

use crate::Web;
use crate::authenticate::AuthenticatedCaller;
use crate::problem::ApiError;
use waypost_http_kit::compression::without_coding;
use waypost_http_kit::request_info::RequestInfo;

/// The caller and their organisation. A signed-in user without an organisation is rejected with `conflict`, the operator
/// without a selected one with `invalid_arguments`.
pub struct Scope {
    /// The caller's context.
    pub cx: Ctx,
    /// The ID of the organisation.
    pub organization_id: OrganizationId,
}

impl FromRequestParts<Web> for Scope {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, web: &Web) -> Result<Self, ApiError> {
        let (authenticated, info) = authenticated_caller(parts)?;
        let organization_id = authenticated.organization_id()?.clone();
        Ok(Self { cx: web.context(authenticated.caller, &info), organization_id })
    }
}

/// A signed-in user, for operations on their own behalf. API keys and the operator are rejected.
pub struct SessionUser {
    /// The user's context.
    pub cx: Ctx,
}

impl FromRequestParts<Web> for SessionUser {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, web: &Web) -> Result<Self, ApiError> {
        let (authenticated, info) = authenticated_caller(parts)?;
        let user = authenticated
            .user
            .ok_or_else(|| Error::new(Code::Forbidden, "API keys cannot do this. Sign in to the console instead."))?;
        Ok(Self { cx: web.context(user, &info) })
    }
}

/// Any caller: a signed-in user or the operator (both independent of an organisation), or an API key.
pub struct AnyCaller {
    /// The caller's context.
    pub cx: Ctx,
}

impl FromRequestParts<Web> for AnyCaller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, web: &Web) -> Result<Self, ApiError> {
        let (authenticated, info) = authenticated_caller(parts)?;
        Ok(Self { cx: web.context(authenticated.user.unwrap_or(authenticated.caller), &info) })
    }
}

fn authenticated_caller(parts: &Parts) -> Result<(AuthenticatedCaller, RequestInfo), ApiError> {
    let authenticated = parts.extensions.get::<AuthenticatedCaller>().cloned();
    let authenticated = authenticated.ok_or_else(|| Error::internal("the API request has no caller"))?;
    Ok((authenticated, RequestInfo::from_parts(parts)?))
}

/// A JSON body. Unknown members are rejected, because they are probably mistakes.
pub struct Json<T>(pub T);

impl<T: DeserializeOwned> FromRequest<Web> for Json<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, web: &Web) -> Result<Self, ApiError> {
        let content_type = request.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let media_type = content_type.unwrap_or_default().split(';').next().unwrap_or_default().trim();
        if !(media_type.eq_ignore_ascii_case("application/json") || media_type.to_ascii_lowercase().ends_with("+json"))
        {
            let error =
                Error::new(Code::InvalidArguments, "The body must be JSON. Set `Content-Type: application/json`.");
            return Err(ApiError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, error));
        }
        let body = read_body(request, web).await?;
        let value: serde_json::Value = serde_json::from_slice(&body).map_err(|error| {
            let error = Error::new(Code::InvalidArguments, format!("The body is not valid JSON: {error}."));
            ApiError::new(StatusCode::BAD_REQUEST, error)
        })?;
        serde_json::from_value(value).map(Self).map_err(|error| {
            ApiError::from(Error::new(Code::InvalidArguments, format!("The body does not match the schema: {error}.")))
        })
    }
}

/// Reads the body as bytes.
///
/// # Errors
/// 413 if the body is too large, 400 if it is incomplete.
pub async fn read_body(request: Request, web: &Web) -> Result<Bytes, ApiError> {
    Bytes::from_request(request, web).await.map_err(|rejection| {
        let message = if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE {
            "The body is too large. The limit is 1 MiB."
        } else {
            "The body is incomplete. Send the request again."
        };
        ApiError::new(rejection.status(), Error::new(Code::InvalidArguments, message))
    })
}

impl<T: Serialize> IntoResponse for Json<T> {
    fn into_response(self) -> Response {
        axum::Json(self.0).into_response()
    }
}

/// The query string.
pub struct Query<T>(pub T);

impl<T: DeserializeOwned> FromRequestParts<Web> for Query<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, web: &Web) -> Result<Self, ApiError> {
        let query = axum::extract::Query::<T>::from_request_parts(parts, web).await;
        query.map(|axum::extract::Query(query)| Self(query)).map_err(|rejection| {
            Error::new(Code::InvalidArguments, format!("The query string is invalid: {}.", rejection.body_text()))
                .into()
        })
    }
}

/// The parameters of the path. Parameters that cannot be deserialized return 404.
pub struct Path<T>(pub T);

impl<T: DeserializeOwned + Send> FromRequestParts<Web> for Path<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, web: &Web) -> Result<Self, ApiError> {
        let path = axum::extract::Path::<T>::from_request_parts(parts, web).await;
        path.map(|axum::extract::Path(path)| Self(path)).map_err(|_| Error::not_found("resource").into())
    }
}

/// The revision that an edit is based on (`If-Match`, RFC 9110, section 13.1.1). `None` if the header is absent or `*`.
pub struct IfMatch(pub Option<u32>);

impl FromRequestParts<Web> for IfMatch {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &Web) -> Result<Self, ApiError> {
        let Some(value) = parts.headers.get(IF_MATCH) else { return Ok(Self(None)) };
        let text = value.to_str().unwrap_or_default().trim();
        if text == "*" {
            return Ok(Self(None));
        }
        let tag = text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
        let revision = tag.and_then(|tag| without_coding(tag).parse().ok());
        revision.map(|revision| Self(Some(revision))).ok_or_else(|| {
            // A tag that was never issued cannot match the current revision.
            let message =
                "`If-Match` is not a valid revision. Send the `ETag` of the latest response, including the quotes.";
            Error::new(Code::PreconditionFailed, message).into()
        })
    }
}

/// Adds the revision to a response as its `ETag`.
pub fn with_etag(revision: u32, response: impl IntoResponse) -> Response {
    let mut response = response.into_response();
    if let Ok(tag) = HeaderValue::from_str(&format!("\"{revision}\"")) {
        response.headers_mut().insert(ETAG, tag);
    }
    response
}

/// Parses an ID from a path, a query or a body.
///
/// # Errors
/// `not_found` for `noun` if the ID is malformed.
pub fn parse_id<T: FromStr>(text: &str, noun: &str) -> Result<T, Error> {
    text.parse().map_err(|_| Error::not_found(noun))
}

/// Parses a time from a query or a body.
///
/// # Errors
/// `invalid_arguments` naming `field` if the text is not an RFC 3339 time.
pub fn parse_time(field: &str, text: &str) -> Result<Timestamp, Error> {
    Timestamp::from_rfc3339(text).ok_or_else(|| {
        Error::invalid(field, format!("`{field}` must be an RFC 3339 time, such as `2026-01-31T00:00:00Z`."))
    })
}

/// Parses an ID of another resource in a query or a body.
///
/// # Errors
/// `invalid_arguments` naming `field` if the ID is malformed.
pub fn parse_field<T: FromStr>(field: &str, text: &str) -> Result<T, Error> {
    text.parse().map_err(|_| Error::invalid(field, format!("`{field}` is not a valid ID.")))
}

/// Parses a time from a body in which null removes the time, and an absent member does not change it.
///
/// # Errors
/// Those of [`parse_time`].
pub fn parse_nullable_time(field: &str, text: Option<&Option<String>>) -> Result<Option<Option<Timestamp>>, Error> {
    text.map(|text| text.as_deref().map(|text| parse_time(field, text)).transpose()).transpose()
}

/// Adds `Cache-Control: no-store` to a response that contains a secret.
pub fn no_store(mut response: Response) -> Response {
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// Returns a 201 response with `body`, and a `Location` below `/api/v1`.
pub fn created(path: &str, body: &impl Serialize) -> Response {
    let mut response = (StatusCode::CREATED, axum::Json(body)).into_response();
    if let Ok(location) = HeaderValue::from_str(&format!("/api/v1/{path}")) {
        response.headers_mut().insert(LOCATION, location);
    }
    response
}

/// Deserializes a nullable member of a partial update. With `#[serde(default)]`, an absent member is `None` and null is
/// `Some(None)`.
///
/// # Errors
/// Returns an error if the value has another type.
pub fn nullable<'de, T: Deserialize<'de>, D: Deserializer<'de>>(input: D) -> Result<Option<Option<T>>, D::Error> {
    Option::deserialize(input).map(Some)
}
