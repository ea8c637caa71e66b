//! `Idempotency-Key` for POST requests (IETF draft `idempotency-key-header`).

use axum::body::HttpBody as _;
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use data_encoding::{BASE64, HEXLOWER};
use http::{HeaderName, HeaderValue, Method, StatusCode, header};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use waypost_core::caller::Ctx;
use waypost_core::id::OrganizationId;
use waypost_core::{Code, Error};
use waypost_ops::idempotency::{self, BeginOutcome};
use waypost_ops::limits::MAX_BODY;

use crate::Web;
use crate::authenticate::AuthenticatedCaller;
use crate::problem::ApiError;
use waypost_http_kit::request_info::RequestInfo;

const IDEMPOTENCY_KEY: &str = "idempotency-key";
/// The header that marks a replayed response.
const IDEMPOTENCY_REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");
/// The maximum size of a stored response body in bytes.
const MAX_RESPONSE_BYTES: usize = 8 * 1024 * 1024;
/// The response headers that are stored.
const STORED_HEADERS: [HeaderName; 3] = [header::CONTENT_TYPE, header::ETAG, header::LOCATION];

#[derive(Serialize, Deserialize)]
struct StoredResponse {
    status: u16,
    headers: Vec<(String, String)>,
    body: String,
}

/// Processes a POST request that has an idempotency key at most once, and returns the stored response to a retry.
/// Rejects a body whose declared size is too large, even if no handler reads it.
pub async fn handle(State(web): State<Web>, info: RequestInfo, request: Request, next: Next) -> Response {
    if request.body().size_hint().lower() > MAX_BODY as u64 {
        return too_large().into_response();
    }
    let key = request.headers().get(IDEMPOTENCY_KEY).filter(|_| request.method() == Method::POST).cloned();
    let authenticated = request.extensions().get::<AuthenticatedCaller>().cloned();
    let (Some(key), Some(authenticated)) = (key, authenticated) else { return next.run(request).await };
    let organization = authenticated.organization_id().ok().cloned();
    let cx = web.context(authenticated.caller, &info);
    let key = key.to_str().unwrap_or_default().to_owned();
    match run_once(&web, cx, organization, key, request, next).await {
        Ok(response) => response,
        Err(error) => error.into_response(),
    }
}

async fn run_once(
    web: &Web,
    cx: Ctx,
    organization: Option<OrganizationId>,
    key: String,
    request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    let (parts, body) = request.into_parts();
    let body = to_bytes(body, MAX_BODY).await.map_err(|_| too_large())?;
    let mut hash = Sha256::new();
    hash.update(parts.uri.to_string().as_bytes());
    hash.update([0]);
    // The caller and organisation are part of the hash, so that a response is never replayed for another organisation.
    for part in [cx.caller.actor(), organization.as_ref().map_or("", |id| id.as_str())] {
        hash.update(part.as_bytes());
        hash.update([0]);
    }
    hash.update(&body);
    let hash = HEXLOWER.encode(&hash.finalize());
    match idempotency::begin(&cx, web.ops(), &key, &hash).await? {
        BeginOutcome::Known(response) => replay(&response),
        BeginOutcome::New => {
            let web = web.clone();
            let request = Request::from_parts(parts, Body::from(body));
            // Runs in a task, so that it completes even if the client disconnects. Otherwise the outcome would be
            // unknown.
            #[expect(clippy::disallowed_methods, reason = "awaited below, where a panic becomes a 500")]
            let task = tokio::spawn(async move { store_response(&web, &cx, &key, next.run(request).await).await });
            task.await.map_err(Error::internal)?
        }
    }
}

fn too_large() -> ApiError {
    let error = Error::new(Code::InvalidArguments, "The body is too large or incomplete. The limit is 1 MiB.");
    ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, error)
}

/// Stores the response. After a server error or a 429, releases the key instead, so that the request can be retried.
async fn store_response(web: &Web, cx: &Ctx, key: &str, response: Response) -> Result<Response, ApiError> {
    let status = response.status();
    if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS {
        idempotency::release(cx, web.ops(), key).await?;
        return Ok(response);
    }
    let (parts, body) = response.into_parts();
    let body = to_bytes(body, MAX_RESPONSE_BYTES).await.map_err(Error::internal)?;
    let header = |name: &HeaderName| {
        let value = parts.headers.get(name)?.to_str().ok()?;
        Some((name.to_string(), value.to_owned()))
    };
    let stored = StoredResponse {
        status: status.as_u16(),
        headers: STORED_HEADERS.iter().filter_map(header).collect(),
        body: BASE64.encode(&body),
    };
    let stored = serde_json::to_vec(&stored).map_err(Error::internal)?;
    idempotency::complete(cx, web.ops(), key, &stored).await?;
    Ok(Response::from_parts(parts, Body::from(body)))
}

fn replay(stored: &[u8]) -> Result<Response, ApiError> {
    let stored: StoredResponse = serde_json::from_slice(stored).map_err(Error::internal)?;
    let body = BASE64.decode(stored.body.as_bytes()).map_err(Error::internal)?;
    let mut response = body.into_response();
    *response.status_mut() = StatusCode::from_u16(stored.status).map_err(Error::internal)?;
    let headers = response.headers_mut();
    headers.remove(header::CONTENT_TYPE);
    for (name, value) in stored.headers {
        if let (Ok(name), Ok(value)) = (name.parse::<HeaderName>(), value.parse::<HeaderValue>()) {
            headers.insert(name, value);
        }
    }
    headers.insert(IDEMPOTENCY_REPLAYED, HeaderValue::from_static("true"));
    Ok(response)
}
