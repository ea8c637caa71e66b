//! Requests from the control plane: tool calls, logs and statistics (see [`waypost_toolbox_proto::http`]).

use std::io;
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use futures::{Stream, StreamExt, TryStreamExt};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header};
use serde::Serialize;
use tokio::sync::Semaphore;
use waypost_link_io::{Body, BodyError};
use waypost_mcp_wire::Envelope;
use waypost_mcp_wire::relay::make_single_line;
use waypost_toolbox_proto::http::{MAX_MESSAGE_BYTES, NotificationsRequest};

use super::storage::Storage;
use crate::engine::Engine;
use crate::link::requests::{BoxFuture, Requests, ResponseBody, error_response};
use crate::supervisor::Supervisor;
use crate::supervisor::servers::{CallFailure, CallOptions, Notifications, Servers};

/// The number of log lines that are returned by default.
const DEFAULT_TAIL: usize = 200;

/// The maximum number of notification streams of all instances: less than half of the requests that a link carries
/// concurrently, so that they do not prevent calls.
const MAX_NOTIFICATION_STREAMS: usize = 200;

/// Answers requests about the instances of this toolbox.
pub(super) struct InstanceRequests<E, S> {
    supervisor: Supervisor<E, S>,
    storage: Arc<Storage>,
    /// Limits the number of notification streams.
    streams: Arc<Semaphore>,
}

impl<E: Engine, S: Servers> InstanceRequests<E, S> {
    pub(super) fn new(supervisor: Supervisor<E, S>, storage: Arc<Storage>) -> Self {
        Self { supervisor, storage, streams: Arc::new(Semaphore::new(MAX_NOTIFICATION_STREAMS)) }
    }

    async fn respond(&self, request: Parts, body: Body) -> Response<ResponseBody> {
        let path: Vec<&str> = request.uri.path().split('/').collect();
        let ["", "v1", "instances", id, resource] = path[..] else { return not_found() };
        match (&request.method, resource) {
            (&Method::POST, "mcp") => {
                let response = self.call(id, &request.headers, body).await;
                let status = response.status().as_str().to_owned();
                metrics::counter!("waypost_daemon_calls_total", "status" => status).increment(1);
                response
            }
            (&Method::POST, "responses") => self.receive_response(id, body).await,
            (&Method::POST, "notifications") => self.notifications(id, body).await,
            // The folder of an unknown instance must not be created.
            _ if !self.has(id) => not_found(),
            (&Method::GET, "logs") => {
                let (tail, follow) = log_query(request.uri.query().unwrap_or_default());
                self.logs(id, tail, follow).await.unwrap_or_else(|error| storage_error(&error))
            }
            (&Method::GET, "stats") => self.stats(id).await.unwrap_or_else(|error| storage_error(&error)),
            _ => not_found(),
        }
    }

    fn has(&self, instance_id: &str) -> bool {
        self.supervisor.reports().iter().any(|report| report.id == instance_id)
    }

    async fn call(&self, instance_id: &str, headers: &HeaderMap, body: Body) -> Response<ResponseBody> {
        let message = match read_message(body).await {
            Ok(message) => message,
            Err(response) => return response,
        };
        let Ok(envelope) = Envelope::parse(&message) else {
            return error_response(StatusCode::BAD_REQUEST, "The message is not a JSON-RPC message.");
        };
        let is_notification = envelope.id.is_none();
        let options = CallOptions::from_headers(headers);
        match self.supervisor.call(instance_id, message, options).await {
            Ok(_) if is_notification => accepted(),
            Ok(mut messages) => match messages.next().await {
                // The status depends on whether there is an answer, so the first message is awaited.
                Some(Ok(first)) => {
                    let messages = futures::stream::once(async { Ok(first) }).chain(messages);
                    lines(messages.map_ok(to_line).map_err(|_: CallFailure| BodyError::Interrupted))
                }
                Some(Err(failure)) => call_error(&failure),
                None => error_response(StatusCode::BAD_GATEWAY, "The server did not answer."),
            },
            Err(failure) => call_error(&failure),
        }
    }

    /// Passes on the response of a caller to a request from a server.
    async fn receive_response(&self, instance_id: &str, body: Body) -> Response<ResponseBody> {
        let response = match read_message(body).await {
            Ok(response) => response,
            Err(response) => return response,
        };
        match self.supervisor.respond(instance_id, response).await {
            Ok(()) => accepted(),
            Err(failure) => call_error(&failure),
        }
    }

    /// Streams the announcements of a server outside of calls.
    async fn notifications(&self, instance_id: &str, body: Body) -> Response<ResponseBody> {
        let message = match read_message(body).await {
            Ok(message) => message,
            Err(response) => return response,
        };
        let request: Option<NotificationsRequest> = serde_json::from_slice(&message).ok();
        let Some(request) = request.filter(NotificationsRequest::is_valid) else {
            return error_response(
                StatusCode::BAD_REQUEST,
                "The request is malformed, or names too many resources or a URI that is too long.",
            );
        };
        let Ok(slot) = Arc::clone(&self.streams).try_acquire_owned() else {
            return error_response(StatusCode::TOO_MANY_REQUESTS, "Too many streams of notifications are open.");
        };
        match self.supervisor.notifications(instance_id, request.resources).await {
            Ok(Notifications { opened, messages }) => {
                let first = futures::stream::once(std::future::ready(serialise(&opened)));
                let messages = messages.map(move |message| {
                    let _slot = &slot;
                    Ok(to_line(message))
                });
                lines(first.chain(messages))
            }
            Err(failure) => call_error(&failure),
        }
    }

    async fn logs(&self, instance_id: &str, tail: usize, follow: bool) -> io::Result<Response<ResponseBody>> {
        let log = self.storage.log(instance_id)?;
        if !follow {
            let stored = futures::stream::iter(log.tail(tail).await?);
            return Ok(lines(stored.map(|line| serialise(&line))));
        }
        let (stored, new) = log.follow(tail).await?;
        Ok(lines(futures::stream::iter(stored).chain(new).map(|line| serialise(&line))))
    }

    async fn stats(&self, instance_id: &str) -> io::Result<Response<ResponseBody>> {
        let samples = self.storage.stats(instance_id)?.read((self.storage.clock())(), true).await?;
        Ok(lines(futures::stream::iter(samples).map(|sample| serialise(&sample))))
    }
}

impl<E: Engine, S: Servers> Requests for InstanceRequests<E, S> {
    fn handle(&self, request: Parts, body: Body) -> BoxFuture<'_, Response<ResponseBody>> {
        Box::pin(self.respond(request, body))
    }
}

/// Reads a message. Returns the error response if it is too large or incomplete.
async fn read_message(body: Body) -> Result<Bytes, Response<ResponseBody>> {
    body.read_to_end(MAX_MESSAGE_BYTES).await.map_err(|error| match error {
        BodyError::TooLarge => error_response(StatusCode::PAYLOAD_TOO_LARGE, "The message is too large."),
        BodyError::Interrupted => error_response(StatusCode::BAD_REQUEST, "The message is incomplete."),
    })
}

fn accepted() -> Response<ResponseBody> {
    let mut response = Response::new(ResponseBody::Complete(Bytes::new()));
    *response.status_mut() = StatusCode::ACCEPTED;
    response
}

/// Parses a query such as `tail=N&follow=true`. Returns the number of lines, and whether to follow the log.
fn log_query(query: &str) -> (usize, bool) {
    let value = |name: &str| query.split('&').filter_map(|part| part.split_once('=')).find(|(key, _)| *key == name);
    let tail = value("tail").and_then(|(_, text)| text.parse().ok()).unwrap_or(DEFAULT_TAIL);
    (tail, value("follow").is_some_and(|(_, text)| text == "true"))
}

/// Returns a message as one line. Line breaks can occur only between the tokens of a JSON text, because they are
/// escaped in strings (RFC 8259, section 7).
fn to_line(message: Bytes) -> Bytes {
    let mut line = BytesMut::with_capacity(message.len() + 1);
    line.extend_from_slice(&message);
    make_single_line(&mut line);
    line.put_u8(b'\n');
    line.freeze()
}

fn serialise(item: &impl Serialize) -> Result<Bytes, BodyError> {
    let mut line = serde_json::to_vec(item).map_err(|_| BodyError::Interrupted)?;
    line.push(b'\n');
    Ok(line.into())
}

fn lines(stream: impl Stream<Item = Result<Bytes, BodyError>> + Send + 'static) -> Response<ResponseBody> {
    let mut response = Response::new(ResponseBody::stream(stream));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"));
    response
}

fn call_error(failure: &CallFailure) -> Response<ResponseBody> {
    let status = StatusCode::from_u16(failure.status).unwrap_or(StatusCode::BAD_GATEWAY);
    error_response(status, &failure.message)
}

fn not_found() -> Response<ResponseBody> {
    error_response(StatusCode::NOT_FOUND, "The toolbox does not have this instance.")
}

fn storage_error(error: &io::Error) -> Response<ResponseBody> {
    tracing::warn!(%error, "failed to read the files of an instance");
    error_response(StatusCode::SERVICE_UNAVAILABLE, "The files of the instance cannot be read.")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_one_line() {
        assert_eq!(to_line(Bytes::from_static(b"{\n  \"id\": 1\r\n}")), "{   \"id\": 1  }\n");
        assert_eq!(to_line(Bytes::from_static(b"{\"id\":1}")), "{\"id\":1}\n");
    }

    #[test]
    fn the_query_of_logs_has_defaults() {
        assert_eq!(log_query("tail=5&follow=true"), (5, true));
        assert_eq!(log_query("follow=false"), (DEFAULT_TAIL, false));
        assert_eq!(log_query("tail=x"), (DEFAULT_TAIL, false));
    }
}
