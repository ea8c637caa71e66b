//! `Idempotency-Key` on requests that make something (as in the IETF's draft `idempotency-key-header`).

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
use waypost_core::{Code, Error};
use waypost_ops::idempotency::{self, BeginOutcome};
use waypost_ops::limits::MAX_BODY;

use super::authenticate::Authenticated;
use crate::Web;
use crate::problem::ApiError;
use crate::request_info::RequestInfo;

const KEY: &str = "idempotency-key";
/// Says that an answer is one that was given before.
const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");
/// Bytes of an answer that is kept, at most.
const MAX_ANSWER: usize = 8 * 1024 * 1024;
/// The headers of an answer that are kept with it.
const KEPT: [HeaderName; 3] = [header::CONTENT_TYPE, header::ETAG, header::LOCATION];

#[derive(Serialize, Deserialize)]
struct Answer {
    status: u16,
    headers: Vec<(String, String)>,
    body: String,
}

/// Carries out a POST with a key once. Refuses a body that says to be too large, also if nobody would read it.
pub async fn once(State(web): State<Web>, info: RequestInfo, request: Request, next: Next) -> Response {
    if request.body().size_hint().lower() > MAX_BODY as u64 {
        return too_large().into_response();
    }
    let key = request.headers().get(KEY).filter(|_| request.method() == Method::POST).cloned();
    let caller = request.extensions().get::<Authenticated>().map(|it| it.caller.clone());
    let (Some(key), Some(caller)) = (key, caller) else { return next.run(request).await };
    let cx = web.context(caller, &info);
    let key = key.to_str().unwrap_or_default().to_owned();
    match run(&web, cx, (key, request), next).await {
        Ok(response) => response,
        Err(error) => error.into_response(),
    }
}

async fn run(web: &Web, cx: Ctx, (key, request): (String, Request), next: Next) -> Result<Response, ApiError> {
    let (parts, body) = request.into_parts();
    let body = to_bytes(body, MAX_BODY).await.map_err(|_| too_large())?;
    let mut hash = Sha256::new();
    hash.update(parts.uri.to_string().as_bytes());
    hash.update([0]);
    // The same key in another organisation is another request.
    hash.update(format!("{:?}", cx.caller).as_bytes());
    hash.update([0]);
    hash.update(&body);
    let hash = HEXLOWER.encode(&hash.finalize());
    let keyring = web.provider_context.keyring.clone();
    match idempotency::begin(&cx, web.ops(), &keyring, (&key, &hash)).await? {
        BeginOutcome::Known(answer) => replay(&answer),
        BeginOutcome::New => {
            let web = web.clone();
            let request = Request::from_parts(parts, Body::from(body));
            // To the end, also when the client goes away: nobody could tell else what became of it.
            let task = tokio::spawn(async move { keep(&web, &cx, &key, next.run(request).await).await });
            task.await.map_err(Error::internal)?
        }
    }
}

fn too_large() -> ApiError {
    let error = Error::new(Code::InvalidArguments, "The body is too large, or broke off: 1 MiB at most.");
    ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, error)
}

/// Keeps the answer; one that is our fault, or that asks to come back later, is not.
async fn keep(web: &Web, cx: &Ctx, key: &str, response: Response) -> Result<Response, ApiError> {
    let status = response.status();
    if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS {
        idempotency::release(cx, web.ops(), key).await?;
        return Ok(response);
    }
    let (parts, body) = response.into_parts();
    let body = to_bytes(body, MAX_ANSWER).await.map_err(Error::internal)?;
    let header = |name: &HeaderName| {
        let value = parts.headers.get(name)?.to_str().ok()?;
        Some((name.to_string(), value.to_owned()))
    };
    let answer = Answer {
        status: status.as_u16(),
        headers: KEPT.iter().filter_map(header).collect(),
        body: BASE64.encode(&body),
    };
    let answer = serde_json::to_vec(&answer).map_err(Error::internal)?;
    idempotency::complete(cx, web.ops(), &web.provider_context.keyring, (key, &answer)).await?;
    Ok(Response::from_parts(parts, Body::from(body)))
}

fn replay(answer: &[u8]) -> Result<Response, ApiError> {
    let answer: Answer = serde_json::from_slice(answer).map_err(Error::internal)?;
    let body = BASE64.decode(answer.body.as_bytes()).map_err(Error::internal)?;
    let mut response = body.into_response();
    *response.status_mut() = StatusCode::from_u16(answer.status).map_err(Error::internal)?;
    let headers = response.headers_mut();
    headers.remove(header::CONTENT_TYPE);
    for (name, value) in answer.headers {
        if let (Ok(name), Ok(value)) = (name.parse::<HeaderName>(), value.parse::<HeaderValue>()) {
            headers.insert(name, value);
        }
    }
    headers.insert(REPLAYED, HeaderValue::from_static("true"));
    Ok(response)
}
