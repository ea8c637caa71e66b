//! Requests to the toolbox of an instance.

use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode};
use waypost_core::id::{InstanceId, OrganizationId, ToolboxId};
use waypost_core::instance::Instance;
use waypost_core::{Code, Error, Result};
use waypost_link::{Body, LinkError, Links};
use waypost_store::instance as store;
use waypost_toolbox_proto::http::CallError;

use super::not_found;
use crate::Ops;
use crate::deployments::notify::clean;

/// The time limit for the response to a request that the daemon answers itself.
pub(super) const TIMEOUT: Duration = Duration::from_secs(10);
/// The maximum size of the body of an error response, in bytes.
const MAX_ERROR_BYTES: usize = 64 * 1024;

/// Returns an instance. The caller must be authorized.
///
/// # Errors
/// `not_found` if it does not exist.
pub(super) async fn find(ops: &Ops, organization: &OrganizationId, id: &InstanceId) -> Result<Instance> {
    store::find(&mut ops.store.read().await?, organization, id).await?.ok_or_else(not_found)
}

/// Sends a request to the toolbox of an instance. Returns the body of its response. There is no time limit.
///
/// # Errors
/// `conflict` for a remote server; `unavailable` if there is no link or it is lost; the error of the toolbox as described for
/// [`error`].
pub(super) async fn send(ops: &Ops, instance: &Instance, request: Request<Bytes>) -> Result<Body> {
    send_to(ops.links(), &instance.container()?.toolbox_id, request).await
}

/// Like [`send`], but takes the toolbox instead of an instance.
///
/// # Errors
/// Those of [`send`] except `conflict` for a remote server.
pub(super) async fn send_to(links: &Links, toolbox: &ToolboxId, request: Request<Bytes>) -> Result<Body> {
    let response = links.request(toolbox, request).await?;
    let status = response.status();
    if status.is_success() {
        return Ok(response.into_body());
    }
    let body = response.into_body().read_to_end(MAX_ERROR_BYTES).await.unwrap_or_default();
    let message = serde_json::from_slice::<CallError>(&body).map(|error| clean(&error.message)).unwrap_or_default();
    Err(error(status, message))
}

/// Like [`send`], for a GET request that the daemon answers itself.
///
/// # Errors
/// Those of [`send`]; `unavailable` if there is no response within ten seconds.
pub(super) async fn get(ops: &Ops, instance: &Instance, path: &str) -> Result<Body> {
    let request = Request::get(path).body(Bytes::new()).map_err(Error::internal)?;
    within(TIMEOUT, send(ops, instance, request)).await
}

/// Awaits `work` for at most `limit`, and returns its result.
///
/// # Errors
/// Those of `work`; `unavailable` if the limit is exceeded.
pub(crate) async fn within<T>(limit: Duration, work: impl Future<Output = Result<T>>) -> Result<T> {
    let late = |_| Error::new(Code::Unavailable, "There was no answer in time. Try again.").with("reason", "timeout");
    tokio::time::timeout(limit, work).await.map_err(late)?
}

/// Returns the error for a response that ended early.
pub(super) fn interrupted() -> Error {
    LinkError::Interrupted.into()
}

/// Returns the error for a response of the daemon (see [`waypost_toolbox_proto::http`]). `reason` identifies it.
fn error(status: StatusCode, message: String) -> Error {
    let (code, reason, default) = match status.as_u16() {
        400 => (
            Code::InvalidArguments,
            "rejected",
            "The toolbox rejected the message, for example because it is nested too deeply.",
        ),
        404 => (Code::Conflict, "not_deployed", "The toolbox has not received this instance yet."),
        409 => (Code::Conflict, "not_running", "The instance is not running. Start it first."),
        413 => (Code::InvalidArguments, "too_large", "The message is too large."),
        429 => (Code::RateLimited, "too_many_calls", "Too many calls to this instance are waiting. Try again later."),
        502 => (Code::ToolServerError, "no_mcp", "The server did not answer with MCP."),
        503 => (Code::Unavailable, "not_available", "The instance is not available at the moment. Try again."),
        504 => (Code::ToolServerError, "timeout", "The server did not answer in time."),
        other => return Error::internal(format!("a toolbox answered with status {other}: {message}")),
    };
    // The instance exists: the daemon has not received it yet.
    let uses_default = message.is_empty() || reason == "not_deployed";
    let message = if uses_default { default.to_owned() } else { message };
    Error::new(code, message).with("reason", reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn daemon_statuses_map_to_codes_and_reasons() {
        let cases = [
            (400, Code::InvalidArguments, "rejected"),
            (404, Code::Conflict, "not_deployed"),
            (409, Code::Conflict, "not_running"),
            (413, Code::InvalidArguments, "too_large"),
            (429, Code::RateLimited, "too_many_calls"),
            (502, Code::ToolServerError, "no_mcp"),
            (503, Code::Unavailable, "not_available"),
            (504, Code::ToolServerError, "timeout"),
        ];
        for (status, code, reason) in cases {
            let found = error(StatusCode::from_u16(status).unwrap(), "From the daemon.".to_owned());
            assert_eq!((found.code, &found.details["reason"]), (code, &reason.into()), "{status}");
            assert_eq!(found.message == "From the daemon.", status != 404, "{status}");
            assert!(!error(StatusCode::from_u16(status).unwrap(), String::new()).message.is_empty());
        }
        assert_eq!(error(StatusCode::IM_A_TEAPOT, String::new()).code, Code::Internal);
    }
}
