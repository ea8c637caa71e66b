//! An HTTP/1.1 client for one port of a container. It follows no redirects and uses no proxy.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE, HOST};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use waypost_mcp_wire::media_type::MediaType;
use waypost_mcp_wire::revision::{METHOD_HEADER, NAME_HEADER, SESSION_HEADER, VERSION_HEADER, header_value};

use super::connect::Connector;
use super::interface::Failure;
use super::wire::Wire;
use crate::engine::NetworkNamespace;
use crate::tasks;

/// The number of idle connections that are kept.
const MAX_IDLE: usize = 8;
/// The time after which an idle connection is closed. Common servers close theirs after five seconds.
const MAX_IDLE_TIME: Duration = Duration::from_secs(3);
/// The maximum size of the headers of a response in bytes.
const MAX_HEADER_BYTES: usize = 64 * 1024;
/// The timeout of messages whose outcome no caller waits for.
const DETACHED_TIMEOUT: Duration = Duration::from_secs(5);
/// The maximum number of concurrent messages whose outcome no caller waits for. Further ones are dropped.
const MAX_DETACHED: usize = 16;

/// Sends requests to one port, and reuses connections.
pub(super) struct HttpClient {
    connector: Arc<dyn Connector>,
    namespace: NetworkNamespace,
    port: u16,
    host: HeaderValue,
    idle: Mutex<Vec<Idle>>,
    detached: Arc<Semaphore>,
}

struct Idle {
    sender: SendRequest<Full<Bytes>>,
    since: Instant,
}

/// A response whose body is being read.
pub(super) struct Exchange {
    client: Arc<HttpClient>,
    sender: Option<SendRequest<Full<Bytes>>>,
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    body: Incoming,
}

impl HttpClient {
    pub(super) fn new(
        connector: Arc<dyn Connector>,
        namespace: NetworkNamespace,
        port: u16,
    ) -> Result<Arc<Self>, Failure> {
        let host =
            HeaderValue::try_from(format!("127.0.0.1:{port}")).map_err(|error| Failure::Refused(error.to_string()))?;
        let (idle, detached) = (Mutex::default(), Arc::new(Semaphore::new(MAX_DETACHED)));
        Ok(Arc::new(Self { connector, namespace, port, host, idle, detached }))
    }

    /// Sends a request and waits for the headers of the response.
    pub(super) async fn send(self: &Arc<Self>, mut request: Request<Full<Bytes>>) -> Result<Exchange, Failure> {
        request.headers_mut().insert(HOST, self.host.clone());
        while let Some(mut sender) = self.take_idle() {
            match sender.try_send_request(request).await {
                Ok(response) => return Ok(self.exchange(sender, response)),
                Err(mut error) => match error.take_message() {
                    // The server had closed the connection, so the request was not sent.
                    Some(unsent) => request = unsent,
                    None => return Err(failure(&error.into_error())),
                },
            }
        }
        let stream = self.connector.connect(&self.namespace, self.port).await;
        let stream = stream.map_err(|error| Failure::Refused(error.to_string()))?;
        let handshake = http1::Builder::new().max_buf_size(MAX_HEADER_BYTES).handshake(TokioIo::new(stream));
        let (mut sender, connection) = handshake.await.map_err(|error| failure(&error))?;
        tasks::spawn("http-connection", async move {
            // The request also fails with the error.
            let _ = connection.await;
        });
        let response = sender.send_request(request).await.map_err(|error| failure(&error))?;
        Ok(self.exchange(sender, response))
    }

    /// Sends a message in the background, without waiting for the outcome.
    pub(super) fn send_detached(self: &Arc<Self>, request: Request<Full<Bytes>>) {
        let Ok(permit) = self.detached.clone().try_acquire_owned() else { return };
        let client = self.clone();
        tasks::spawn("http-message", async move {
            let _permit = permit;
            let send = async {
                let mut exchange = client.send(request).await?;
                exchange.read(MAX_HEADER_BYTES).await
            };
            // If the message is lost, the server continues as if it had not been sent.
            let _ = tokio::time::timeout(DETACHED_TIMEOUT, send).await;
        });
    }

    fn exchange(self: &Arc<Self>, sender: SendRequest<Full<Bytes>>, response: http::Response<Incoming>) -> Exchange {
        let (parts, body) = response.into_parts();
        Exchange { client: self.clone(), sender: Some(sender), status: parts.status, headers: parts.headers, body }
    }

    fn take_idle(&self) -> Option<SendRequest<Full<Bytes>>> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(|connection| connection.since.elapsed() < MAX_IDLE_TIME && !connection.sender.is_closed());
        let position = idle.iter().rposition(|connection| connection.sender.is_ready())?;
        Some(idle.remove(position).sender)
    }

    fn keep(&self, sender: SendRequest<Full<Bytes>>) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < MAX_IDLE {
            idle.push(Idle { sender, since: Instant::now() });
        }
    }
}

impl Exchange {
    /// Returns the next part of the body; `None` at its end, after which the connection is reused.
    pub(super) async fn chunk(&mut self) -> Option<Result<Bytes, Failure>> {
        loop {
            match self.body.frame().await {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => return Some(Ok(data)),
                    Err(_trailers) => {}
                },
                Some(Err(error)) => {
                    self.sender = None;
                    return Some(Err(failure(&error)));
                }
                None => {
                    if let Some(sender) = self.sender.take() {
                        self.client.keep(sender);
                    }
                    return None;
                }
            }
        }
    }

    /// Reads the whole body.
    pub(super) async fn read(&mut self, max_bytes: usize) -> Result<Vec<u8>, Failure> {
        let mut body = Vec::new();
        while let Some(chunk) = self.chunk().await {
            body.extend_from_slice(&chunk?);
            if body.len() > max_bytes {
                return Err(Failure::NotMcp("the response is too large".to_owned()));
            }
        }
        Ok(body)
    }

    /// Reads the rest of the body in the background, so that the connection can be reused.
    pub(super) fn finish_detached(mut self) {
        let Ok(permit) = self.client.detached.clone().try_acquire_owned() else { return };
        tasks::spawn("http-body", async move {
            let _permit = permit;
            let _ = tokio::time::timeout(DETACHED_TIMEOUT, self.read(MAX_HEADER_BYTES)).await;
        });
    }

    /// Whether the body is an event stream. Any other body is a message, regardless of its content type: some servers
    /// send messages with a wrong content type, or without one.
    ///
    /// Fails if the response has several content types, or an event stream has a malformed content type or a charset
    /// other than UTF-8.
    pub(super) fn is_event_stream(&self) -> Result<bool, Failure> {
        is_event_stream(&self.headers)
    }
}

fn is_event_stream(headers: &HeaderMap) -> Result<bool, Failure> {
    let mut values = headers.get_all(CONTENT_TYPE).iter().map(HeaderValue::as_bytes);
    let Some(value) = values.next() else { return Ok(false) };
    if values.any(|other| !other.eq_ignore_ascii_case(value)) {
        return Err(Failure::NotMcp("the response has several content types".to_owned()));
    }
    match MediaType::of([value]) {
        Some(media_type) => Ok(media_type == MediaType::Events),
        None if String::from_utf8_lossy(value).to_ascii_lowercase().contains("text/event-stream") => {
            Err(Failure::NotMcp("the content type of its stream of events is invalid".to_owned()))
        }
        None => Ok(false),
    }
}

/// A request for [`HttpClient::send`].
pub(super) struct Post<'a> {
    pub(super) path: &'a str,
    pub(super) wire: &'a Wire,
    /// The method and the name of a request; `None` for other messages.
    pub(super) target: Option<(&'a str, Option<&'a str>)>,
    pub(super) text: Bytes,
}

impl Post<'_> {
    /// Returns a POST request with the headers of Streamable HTTP.
    pub(super) fn into_request(self) -> Result<Request<Full<Bytes>>, Failure> {
        let mut request = request(Method::POST, self.path, self.wire, Full::new(self.text))?;
        let headers = request.headers_mut();
        headers.insert(ACCEPT, HeaderValue::from_static("application/json, text/event-stream"));
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        // 2026-07-28, "Streamable HTTP": these headers repeat members of the body.
        if let Some((method, name)) = self.target.filter(|_| self.wire.is_modern()) {
            insert(headers, METHOD_HEADER, &header_value(method))?;
            if let Some(name) = name {
                insert(headers, NAME_HEADER, &header_value(name))?;
            }
        }
        Ok(request)
    }

    /// Like [`Self::into_request`], with additional headers. They never replace headers of Streamable HTTP, or earlier
    /// ones.
    pub(super) fn into_request_with(
        self,
        headers: Vec<(HeaderName, HeaderValue)>,
    ) -> Result<Request<Full<Bytes>>, Failure> {
        let mut request = self.into_request()?;
        for (name, value) in headers {
            request.headers_mut().entry(name).or_insert(value);
        }
        Ok(request)
    }
}

/// Returns a GET request for an event stream, which continues after the event `last_id` if there is one.
pub(super) fn get_events(path: &str, wire: &Wire, last_id: Option<&str>) -> Result<Request<Full<Bytes>>, Failure> {
    let mut request = request(Method::GET, path, wire, Full::default())?;
    request.headers_mut().insert(ACCEPT, HeaderValue::from_static("text/event-stream"));
    if let Some(id) = last_id {
        insert(request.headers_mut(), "last-event-id", id)?;
    }
    Ok(request)
}

fn request(method: Method, path: &str, wire: &Wire, body: Full<Bytes>) -> Result<Request<Full<Bytes>>, Failure> {
    let uri = path.parse::<Uri>().map_err(|_| Failure::Refused(format!("the path `{path}` is invalid")))?;
    let mut request = Request::new(body);
    *request.method_mut() = method;
    *request.uri_mut() = uri;
    let headers = request.headers_mut();
    for (name, value) in [(VERSION_HEADER, &wire.revision), (SESSION_HEADER, &wire.session)] {
        if let Some(value) = value {
            insert(headers, name, value)?;
        }
    }
    Ok(request)
}

fn insert(headers: &mut HeaderMap, name: &'static str, value: &str) -> Result<(), Failure> {
    let value = HeaderValue::try_from(value).map_err(|_| Failure::NotMcp(format!("`{name}` has an invalid value")))?;
    headers.insert(name, value);
    Ok(())
}

fn failure(error: &hyper::Error) -> Failure {
    if error.is_parse() || error.is_parse_too_large() {
        return Failure::NotMcp("the response is not HTTP".to_owned());
    }
    Failure::Closed(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_unambiguous_type_is_an_event_stream() {
        let is_event_stream = |values: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(CONTENT_TYPE, value.parse().unwrap());
            }
            is_event_stream(&headers).ok()
        };
        let cases: &[(&[&str], Option<bool>)] = &[
            (&["text/event-stream"], Some(true)),
            (&["Text/Event-Stream;charset=UTF-8"], Some(true)),
            (&["text/event-stream", "text/event-stream"], Some(true)),
            (&[], Some(false)),
            (&[""], Some(false)),
            (&["application/json"], Some(false)),
            (&["application/json; charset=latin1"], Some(false)),
            (&["text/plain"], Some(false)),
            (&["application/json", "text/event-stream"], None),
            (&["text/event-stream", "application/json"], None),
            (&["application/json, text/event-stream"], None),
            (&["text/event-stream; charset=latin1"], None),
            (&["text/event-stream; charset"], None),
        ];
        for (values, expected) in cases {
            assert_eq!(is_event_stream(values), *expected, "{values:?}");
        }
    }
}
