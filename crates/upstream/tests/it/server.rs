//! Servers for the tests.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use tokio::sync::{Notify, mpsc};
use url::Url;
use waypost_mcp_wire::memory::MemoryShare;
use waypost_outbound::{Route, StreamLimits};
use waypost_upstream::{
    Client, ConnectOptions, Connection, ConnectionOptions, Error, Identity, Limits, Protocol, Redirects,
};

pub const LIMITS: StreamLimits =
    StreamLimits { max_bytes: 4096, idle: Duration::from_secs(10), timeout: Duration::from_secs(10) };
pub const JSON: [(&str, &str); 1] = [("content-type", "application/json")];
pub const EVENTS: [(&str, &str); 1] = [("content-type", "text/event-stream")];

/// A request as the server received it.
#[derive(Debug, Clone)]
pub struct ReceivedRequest {
    pub method: Method,
    pub path: String,
    pub headers: HeaderMap,
    pub body: Value,
}

impl ReceivedRequest {
    pub fn rpc_method(&self) -> &str {
        self.body["method"].as_str().unwrap_or_default()
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }
}

/// A server whose responses are a function of the request.
pub struct Server {
    pub url: Url,
    log: Arc<Mutex<Vec<ReceivedRequest>>>,
    received: Arc<Notify>,
}

impl Server {
    pub async fn start(respond: impl Fn(&ReceivedRequest) -> Response + Clone + Send + Sync + 'static) -> Self {
        let log: Arc<Mutex<Vec<ReceivedRequest>>> = Arc::default();
        let received: Arc<Notify> = Arc::default();
        let (own_log, notify) = (log.clone(), received.clone());
        let router = axum::Router::new().fallback(move |method: Method, uri: Uri, headers: HeaderMap, body: Bytes| {
            let body = serde_json::from_slice(&body).unwrap_or_default();
            let request = ReceivedRequest { method, path: uri.path().to_owned(), headers, body };
            own_log.lock().unwrap().push(request.clone());
            notify.notify_waiters();
            let response = respond(&request);
            async move {
                if response.headers().contains_key(HANG) {
                    std::future::pending::<()>().await;
                }
                response
            }
        });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/mcp", listener.local_addr().unwrap()).parse().unwrap();
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { url, log, received }
    }

    pub fn received(&self) -> Vec<ReceivedRequest> {
        self.log.lock().unwrap().clone()
    }

    /// Waits until `find` finds something in the requests that were received.
    async fn wait_until<T>(&self, find: impl Fn(Vec<ReceivedRequest>) -> Option<T>) -> T {
        let wait = async {
            loop {
                let next = self.received.notified();
                if let Some(found) = find(self.received()) {
                    return found;
                }
                next.await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), wait).await.expect("the message arrives")
    }

    /// Waits for a message with this method, and returns the first one.
    pub async fn wait_for(&self, method: &str) -> ReceivedRequest {
        self.wait_until(|received| received.into_iter().find(|request| request.rpc_method() == method)).await
    }

    /// Waits until the request with this ID is cancelled.
    pub async fn wait_for_cancellation(&self, id: &Value) -> ReceivedRequest {
        let is_cancellation = |request: &ReceivedRequest| {
            request.rpc_method() == "notifications/cancelled" && request.body["params"]["requestId"] == *id
        };
        self.wait_until(|received| received.into_iter().find(is_cancellation)).await
    }

    /// Waits for this number of responses of the client.
    pub async fn answers(&self, number: usize) -> Vec<Value> {
        let is_answer = |request: &ReceivedRequest| request.method == Method::POST && request.rpc_method().is_empty();
        let answers = |received: Vec<ReceivedRequest>| {
            let answers = received.into_iter().filter(is_answer).map(|request| request.body);
            Some(answers.collect::<Vec<_>>()).filter(|answers| answers.len() >= number)
        };
        self.wait_until(answers).await
    }

    pub fn methods(&self) -> Vec<String> {
        self.received().iter().map(|request| format!("{} {}", request.method, request.rpc_method())).collect()
    }

    /// Returns options of a raw connection.
    pub fn raw_options(&self, protocol: Protocol) -> ConnectionOptions {
        let ConnectOptions { url, route, identity, .. } = self.options();
        ConnectionOptions {
            url,
            route,
            headers: HeaderMap::new(),
            identity,
            capabilities: r#"{"roots":{}}"#.to_owned(),
            accepts_requests: false,
            protocol,
            redirects: Redirects::Never,
            limits: Limits { timeout: Duration::from_secs(10), ..Limits::default() },
            memory: MemoryShare::default(),
        }
    }

    pub async fn open(&self, protocol: Protocol) -> Connection {
        Connection::open(self.raw_options(protocol)).await.unwrap()
    }

    pub fn options(&self) -> ConnectOptions {
        let route = Route::unguarded(&self.url).unwrap();
        let identity = Identity { name: "test", version: "1" };
        ConnectOptions { url: self.url.clone(), route, identity, limits: LIMITS }
    }

    pub async fn connect(&self) -> Result<Client, Error> {
        Client::connect(self.options()).await
    }
}

/// A header of a response that is never sent.
pub const HANG: &str = "x-hang";

/// Returns a response that never arrives.
pub fn hang() -> Response {
    [(HANG, "1")].into_response()
}

/// Returns the response of a server of this era to the messages of the negotiation, and to notifications.
pub fn negotiate(request: &ReceivedRequest, protocol: Protocol) -> Option<Response> {
    match (request.rpc_method(), protocol) {
        ("server/discover", Protocol::Modern) => Some(discovered(request, &["2026-07-28"])),
        ("server/discover", _) => Some(StatusCode::NOT_FOUND.into_response()),
        ("initialize", _) => {
            let session = [("content-type", "application/json"), ("mcp-session-id", "s-1")];
            let text =
                r#"{"protocolVersion":"2025-11-25","capabilities":{ "tools":{} },"instructions":"Use \u0069t."}"#;
            Some((session, result(request, text)).into_response())
        }
        (method, _) if method.starts_with("notifications/") => Some(StatusCode::ACCEPTED.into_response()),
        ("", _) if request.method == Method::DELETE => Some(StatusCode::OK.into_response()),
        // A response of the client.
        ("", _) if request.method == Method::POST => Some(StatusCode::ACCEPTED.into_response()),
        _ => None,
    }
}

/// Returns a message as an event.
pub fn event(data: &str) -> String {
    let lines: String = data.split('\n').map(|line| format!("data: {line}\n")).collect();
    format!("{lines}\n")
}

/// A stream of events that the test writes. `None` breaks the connection.
pub type EventSender = mpsc::UnboundedSender<Option<String>>;

/// Returns a response whose events the test writes.
pub fn stream() -> (EventSender, Response) {
    let (sender, receiver) = mpsc::unbounded_channel::<Option<String>>();
    let events = futures::stream::unfold(receiver, async |mut receiver| {
        let item = receiver.recv().await?;
        Some((item.map(Bytes::from).ok_or_else(|| std::io::Error::other("broken")), receiver))
    });
    (sender, (EVENTS, Body::from_stream(events)).into_response())
}

/// Returns a response with `result`, which is inserted as it is.
pub fn result(request: &ReceivedRequest, result: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":{},"result":{result}}}"#, request.body["id"])
}

pub fn discovered(request: &ReceivedRequest, versions: &[&str]) -> Response {
    (JSON, result(request, &json!({ "supportedVersions": versions }).to_string())).into_response()
}

pub fn rpc_error(status: StatusCode, code: i64) -> Response {
    (status, JSON, json!({ "jsonrpc": "2.0", "error": { "code": code, "message": "no" } }).to_string()).into_response()
}

/// A body that never arrives.
pub struct Pending;

impl futures::Stream for Pending {
    type Item = Result<Bytes, std::convert::Infallible>;

    fn poll_next(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Self::Item>> {
        std::task::Poll::Pending
    }
}
