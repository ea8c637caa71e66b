//! Servers for the tests.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::Bytes;
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use url::Url;
use waypost_outbound::{Route, StreamLimits};
use waypost_upstream::{Client, ConnectOptions, Error, Identity};

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
}

impl Server {
    pub async fn start(respond: impl Fn(&ReceivedRequest) -> Response + Clone + Send + Sync + 'static) -> Self {
        let log: Arc<Mutex<Vec<ReceivedRequest>>> = Arc::default();
        let received = log.clone();
        let router = axum::Router::new().fallback(move |method: Method, uri: Uri, headers: HeaderMap, body: Bytes| {
            let body = serde_json::from_slice(&body).unwrap_or_default();
            let request = ReceivedRequest { method, path: uri.path().to_owned(), headers, body };
            received.lock().unwrap().push(request.clone());
            let response = respond(&request);
            async move { response }
        });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/mcp", listener.local_addr().unwrap()).parse().unwrap();
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { url, log }
    }

    pub fn received(&self) -> Vec<ReceivedRequest> {
        self.log.lock().unwrap().clone()
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
