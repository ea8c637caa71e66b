//! Sessions over HTTP with in-memory servers.

use std::sync::atomic::{AtomicUsize, Ordering};

use ::http::{HeaderMap, Method, Response, StatusCode};
use futures::FutureExt;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;

use super::callers::{FORM, caller, next, question};
use super::*;
use crate::bridge::connect::{Connecting, Connector};
use crate::engine::NetworkNamespace;

pub(super) type Body = BoxBody<Bytes, std::io::Error>;
type Respond = dyn Fn(Received) -> BoxFuture<'static, Response<Body>> + Send + Sync;

/// A request as the server received it.
#[derive(Debug, Clone)]
pub(super) struct Received {
    method: Method,
    path: String,
    pub(super) headers: HeaderMap,
    pub(super) body: Value,
}

impl Received {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    pub(super) fn is(&self, method: &Method) -> bool {
        self.method == *method
    }

    pub(super) fn rpc(&self) -> &str {
        self.body["method"].as_str().unwrap_or_default()
    }

    /// Returns the argument of a call.
    pub(super) fn text(&self) -> Option<&str> {
        self.body["params"]["arguments"]["text"].as_str()
    }
}

/// A container with an in-memory HTTP server on its port.
pub(super) struct Container {
    respond: Arc<Respond>,
    pub(super) received: Arc<Mutex<Vec<Received>>>,
    connections: AtomicUsize,
    /// The number of attempts that are refused because the server is starting.
    refused: AtomicUsize,
}

impl Container {
    pub(super) fn new(
        respond: impl Fn(Received) -> BoxFuture<'static, Response<Body>> + Send + Sync + 'static,
    ) -> Arc<Self> {
        let (received, connections, refused) = (Arc::default(), AtomicUsize::new(0), AtomicUsize::new(0));
        Arc::new(Self { respond: Arc::new(respond), received, connections, refused })
    }

    pub(super) fn fixture(self: &Arc<Self>) -> Fixture {
        Fixture::with(Bridge::with_connector(|| 1_000, Arc::new(Network(self.clone()))))
    }

    pub(super) fn methods(&self) -> Vec<String> {
        self.received.lock().unwrap().iter().map(|request| request.rpc().to_owned()).collect()
    }

    /// Waits for a message that the daemon sends in the background.
    pub(super) async fn wait_for(&self, method: &str) -> Received {
        for _ in 0..1_000 {
            let found = self.received.lock().unwrap().iter().find(|request| request.rpc() == method).cloned();
            if let Some(request) = found {
                return request;
            }
            tokio::task::yield_now().await;
        }
        panic!("no `{method}` among {:?}", self.methods());
    }
}

struct Network(Arc<Container>);

impl Connector for Network {
    fn connect<'a>(&'a self, _namespace: &'a NetworkNamespace, port: u16) -> Connecting<'a> {
        assert_eq!(port, 8080);
        let container = &self.0;
        let is_refused = container.refused.try_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1)).is_ok();
        if is_refused {
            return async { Err(std::io::ErrorKind::ConnectionRefused.into()) }.boxed();
        }
        container.connections.fetch_add(1, Ordering::SeqCst);
        let (client, server) = tokio::io::duplex(64 * 1024);
        let (respond, received) = (container.respond.clone(), container.received.clone());
        let service = service_fn(move |request: ::http::Request<Incoming>| {
            let (respond, received) = (respond.clone(), received.clone());
            async move {
                let (parts, body) = request.into_parts();
                let body = body.collect().await?.to_bytes();
                let body = serde_json::from_slice(&body).unwrap_or_default();
                let path = parts.uri.to_string();
                let request = Received { method: parts.method, path, headers: parts.headers, body };
                received.lock().unwrap().push(request.clone());
                Ok::<_, hyper::Error>(respond(request).await)
            }
        });
        crate::tasks::spawn("server", async move {
            let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(server), service).await;
        });
        async { Ok(Box::new(client) as Box<dyn crate::bridge::connect::Connection>) }.boxed()
    }
}

pub(super) fn target(transport: TransportKind) -> Target {
    let namespace = NetworkNamespace::of_process(std::process::id()).unwrap();
    Target::Http { namespace, port: 8080, path: "/mcp".to_owned(), transport }
}

pub(super) fn streamable() -> Target {
    target(TransportKind::StreamableHttp)
}

pub(super) fn full(status: u16, content_type: &str, text: impl Into<Bytes>) -> Response<Body> {
    let body = Full::new(text.into()).map_err(|never| match never {}).boxed();
    let builder = Response::builder().status(StatusCode::from_u16(status).unwrap());
    builder.header("content-type", content_type).body(body).unwrap()
}

pub(super) fn json_response(value: &Value) -> Response<Body> {
    full(200, "application/json; charset=utf-8", serde_json::to_string_pretty(value).unwrap())
}

/// A response that is sent part by part.
pub(super) fn streaming(parts: BoxStream<'static, String>) -> Response<Body> {
    let frames = parts.map(|part| Ok(Frame::data(Bytes::from(part))));
    // The body of `hyper` must be `Sync`.
    let body = BodyExt::boxed(StreamBody::new(SyncStream(Mutex::new(frames.boxed()))));
    Response::builder().header("content-type", "text/event-stream").body(body).unwrap()
}

struct SyncStream(Mutex<BoxStream<'static, Result<Frame<Bytes>, std::io::Error>>>);

impl futures::Stream for SyncStream {
    type Item = Result<Frame<Bytes>, std::io::Error>;

    fn poll_next(self: Pin<&mut Self>, context: &mut std::task::Context<'_>) -> std::task::Poll<Option<Self::Item>> {
        self.0.lock().unwrap().poll_next_unpin(context)
    }
}

fn events(messages: &[Value]) -> Response<Body> {
    let parts: Vec<String> = messages.iter().map(|message| format!("data: {message}\n\n")).collect();
    streaming(futures::stream::iter(parts).boxed())
}

/// Wraps a function that responds without waiting.
pub(super) fn ready(
    respond: impl Fn(&Received) -> Response<Body> + Send + Sync + 'static,
) -> impl Fn(Received) -> BoxFuture<'static, Response<Body>> + Send + Sync + 'static {
    move |request| {
        let response = respond(&request);
        async { response }.boxed()
    }
}

pub(super) fn accepted() -> Response<Body> {
    full(202, "text/plain", "")
}

/// A legacy server whose session is `session`.
pub(super) fn legacy_response(request: &Received, session: &str) -> Response<Body> {
    match request.rpc() {
        "initialize" => {
            let mut response = json_response(&legacy(&request.body).unwrap());
            response.headers_mut().insert("mcp-session-id", session.parse().unwrap());
            response
        }
        _ if request.header("mcp-session-id") != Some(session) => full(404, "text/plain", "unknown session"),
        _ => legacy(&request.body).map_or_else(accepted, |answer| json_response(&answer)),
    }
}

#[tokio::test(start_paused = true)]
async fn a_modern_server_receives_headers_that_match_the_body() {
    let container = Container::new(ready(|request| match modern(&request.body) {
        Some(answer) if request.rpc() == "tools/call" => events(&[answer]),
        Some(_) if request.rpc() == "tools/list" => {
            let properties = json!({ "text": { "type": "string", "x-mcp-header": "Text" } });
            let tool = json!({ "name": "echo", "inputSchema": { "type": "object", "properties": properties } });
            json_response(&result(&request.body, json!({ "tools": [tool] })))
        }
        Some(answer) if answer["error"].is_object() => full(404, "application/json", answer.to_string()),
        answer => answer.map_or_else(accepted, |answer| json_response(&answer)),
    }));
    container.refused.store(5, Ordering::SeqCst);
    let fixture = container.fixture();
    let session = fixture.connect(streamable()).await.unwrap();
    assert_eq!(session.revision(), MODERN);
    for number in 0..3 {
        let answer = response(&session, call(number, "hi")).await;
        assert_eq!(answer["id"], number);
        assert_eq!(answer["result"]["echo"]["_meta"]["io.modelcontextprotocol/protocolVersion"], MODERN);
        tokio::task::yield_now().await;
    }
    let request = container.wait_for("tools/call").await;
    assert_eq!((request.method.as_str(), &request.path[..]), ("POST", "/mcp"));
    assert_eq!(request.header("host"), Some("127.0.0.1:8080"));
    assert_eq!(request.header("mcp-protocol-version"), Some(MODERN));
    assert_eq!((request.header("mcp-method"), request.header("mcp-name")), (Some("tools/call"), Some("echo")));
    assert_eq!((request.header("mcp-session-id"), request.header("mcp-param-text")), (None, Some("hi")));
    assert_eq!(container.methods().iter().filter(|method| *method == "tools/list").count(), 1);
    // A JSON-RPC error with an HTTP status is the response.
    let unknown = response(&session, r#"{"jsonrpc":"2.0","id":"u","method":"no/such"}"#).await;
    assert_eq!((&unknown["id"], &unknown["error"]["code"]), (&json!("u"), &json!(-32_601)));
    session.probe().await.unwrap();
    assert_eq!(container.connections.load(Ordering::SeqCst), 1, "the connection is reused");
    tokio::time::advance(Duration::from_secs(4)).await;
    session.probe().await.unwrap();
    assert_eq!(container.connections.load(Ordering::SeqCst), 2, "but not after the server may have closed it");
}

#[tokio::test]
async fn a_lost_session_is_replaced_once_and_a_saved_one_is_continued() {
    let current = Arc::new(Mutex::new("one"));
    let server_session = current.clone();
    let container = Container::new(ready(move |request| legacy_response(request, *server_session.lock().unwrap())));
    let fixture = container.fixture();
    let session = fixture.connect(streamable()).await.unwrap();
    let notification = container.wait_for("notifications/initialized").await;
    assert_eq!(notification.header("mcp-session-id"), Some("one"));
    assert_eq!(notification.header("mcp-protocol-version"), Some("2025-06-18"));
    assert_eq!(response(&session, call(1, "a")).await["id"], 1);

    drop(session);
    let session = fixture.connect(streamable()).await.unwrap();
    assert_eq!(response(&session, call(2, "b")).await["id"], 2);
    let count = |method: &str| container.methods().iter().filter(|m| *m == method).count();
    assert_eq!(count("initialize"), 1, "a restarted daemon continues the session");

    *current.lock().unwrap() = "two";
    let calls = (0..20).map(|number| response(&session, call(number, "c")).map(move |answer| (number, answer)).boxed());
    for (number, answer) in futures::future::join_all(calls).await {
        assert_eq!(answer["id"], number);
    }
    assert_eq!(count("initialize"), 2, "one new session for all calls");
    let mut ids: Vec<_> =
        container.received.lock().unwrap().iter().filter_map(|request| request.body["id"].as_u64()).collect();
    let all = ids.len();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), all, "repeated requests have new IDs");

    *current.lock().unwrap() = "three";
    let text = r#"{"jsonrpc":"2.0","method":"notifications/roots/list_changed"}"#;
    assert_eq!(collect(&session, text, TIMEOUT).await, (Vec::new(), None));
    assert_eq!(count("initialize"), 3);
    assert_eq!(fixture.saved()["negotiated"]["session"], "three");
}

#[tokio::test]
async fn a_call_receives_its_own_stream() {
    let container = Container::new(ready(|request| match request.rpc() {
        "tools/call" => {
            let token = &request.body["params"]["_meta"]["progressToken"];
            let progress = |token: &Value| json!({ "jsonrpc": "2.0", "method": "notifications/progress", "params": { "progressToken": token } });
            events(&[
                json!({ "jsonrpc": "2.0", "id": "s", "method": "sampling/createMessage" }),
                progress(token),
                progress(&json!(12)),
                json!({ "jsonrpc": "2.0", "method": "notifications/message", "params": { "data": 1 } }),
                json!({ "jsonrpc": "2.0", "id": 999_999, "result": "of another call" }),
                result(&request.body, json!("done")),
                progress(token),
            ])
        }
        _ => legacy_response(request, "one"),
    }));
    let fixture = container.fixture();
    let session = fixture.connect(streamable()).await.unwrap();
    let params = json!({ "_meta": { "progressToken": "mine" } });
    let message = json!({ "jsonrpc": "2.0", "id": "a", "method": "tools/call", "params": params }).to_string();
    let (messages, failure) = collect(&session, message, TIMEOUT).await;
    assert_eq!(failure, None);
    assert_eq!(messages.len(), 3, "{messages:?}");
    assert_eq!(messages[0]["params"]["progressToken"], "mine");
    assert_eq!(messages[1]["method"], "notifications/message");
    assert_eq!(messages[2], json!({ "jsonrpc": "2.0", "id": "a", "result": "done" }));
    let counters = session.counters();
    assert_eq!(counters.unmatched_responses.load(Ordering::Relaxed), 1);
    assert!(counters.dropped_notifications.load(Ordering::Relaxed) >= 1, "the one of another call");
    for _ in 0..1_000 {
        let received = container.received.lock().unwrap().clone();
        if received.iter().any(|request| request.body["error"]["code"] == -32_601 && request.body["id"] == "s") {
            return;
        }
        tokio::task::yield_now().await;
    }
    panic!("the request of the server is answered");
}

#[tokio::test(start_paused = true)]
async fn cancellation_reaches_both_eras() {
    /// Sends a message when it is dropped.
    struct Dropped(mpsc::UnboundedSender<()>);
    impl Drop for Dropped {
        fn drop(&mut self) {
            let _ = self.0.send(());
        }
    }
    for era in [modern as fn(&Value) -> Option<Value>, legacy] {
        let (closed, mut is_closed) = mpsc::unbounded_channel();
        let container = Container::new(ready(move |request| {
            let text = &request.body["params"]["arguments"]["text"];
            match era(&request.body) {
                Some(_) if text == "stream" => {
                    let dropped = Dropped(closed.clone());
                    let first = futures::stream::iter([": open\n\n".to_owned()]);
                    streaming(first.chain(futures::stream::pending()).inspect(move |_| _ = &dropped).boxed())
                }
                answer => answer.map_or_else(accepted, |answer| json_response(&answer)),
            }
        }));
        let fixture = container.fixture();
        let session = fixture.connect(streamable()).await.unwrap();
        let messages = session.call(call(1, "stream"), TIMEOUT).await.unwrap();
        drop(messages);
        is_closed.recv().await.expect("the stream is closed");
        if session.revision() != MODERN {
            let cancelled = container.wait_for("notifications/cancelled").await;
            let id = container.wait_for("tools/call").await.body["id"].clone();
            assert_eq!(cancelled.body["params"]["requestId"], id);
        }
        assert_eq!(status(&session, call(2, "stream"), TIMEOUT).await, 504);
        is_closed.recv().await.expect("the stream is closed");
        tokio::task::yield_now().await;
        let cancelled = container.methods().iter().filter(|method| *method == "notifications/cancelled").count();
        assert_eq!(cancelled, if session.revision() == MODERN { 0 } else { 2 });
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_ends_early_is_resumed_after_its_last_event() {
    let container = Container::new(ready(|request| match (request.method.as_str(), request.rpc()) {
        ("POST", "tools/call") => {
            let text = if request.body["params"]["arguments"]["text"] == "resume" {
                "id: e1\nretry: 400\ndata:\n\n"
            } else {
                ": \n\n"
            };
            streaming(futures::stream::iter([text.to_owned()]).boxed())
        }
        ("GET", _) => {
            assert_eq!((request.header("last-event-id"), request.header("mcp-session-id")), (Some("e1"), Some("one")));
            // Only the server knows the ID of the request, so the response has none.
            events(&[json!({ "jsonrpc": "2.0", "error": { "code": 1, "message": "resumed" } })])
        }
        _ => legacy_response(request, "one"),
    }));
    let fixture = container.fixture();
    let session = fixture.connect(streamable()).await.unwrap();
    let answer = response(&session, call("r", "resume")).await;
    assert_eq!((&answer["id"], &answer["error"]["message"]), (&json!("r"), &json!("resumed")));
    assert_eq!(status(&session, call(2, "end"), TIMEOUT).await, 502);
}

#[tokio::test]
async fn responses_that_are_not_mcp_are_failures() {
    let container = Container::new(ready(|request| match request.text() {
        None => modern(&request.body).map_or_else(accepted, |answer| json_response(&answer)),
        Some("html") => full(200, "text/html", "<html>"),
        Some("500") => full(500, "text/plain", "error"),
        Some("404") => full(404, "text/plain", "error"),
        Some("redirect") => {
            let mut response = full(307, "text/plain", "");
            response.headers_mut().insert("location", "/other".parse().unwrap());
            response
        }
        Some("other") => json_response(&json!({ "jsonrpc": "2.0", "id": 7, "result": {} })),
        Some("two types") => {
            let mut response = json_response(&result(&request.body, json!({})));
            response.headers_mut().append("content-type", "text/event-stream".parse().unwrap());
            response
        }
        Some("huge") => {
            let part = "x".repeat(1024 * 1024);
            streaming(futures::stream::repeat(format!("data: {part}")).boxed())
        }
        Some(text) => panic!("{text}"),
    }));
    let fixture = container.fixture();
    let session = fixture.connect(streamable()).await.unwrap();
    for text in ["html", "500", "404", "redirect", "other", "two types", "huge"] {
        assert_eq!(status(&session, call(1, text), TIMEOUT).await, 502, "{text}");
    }
    assert!(container.received.lock().unwrap().iter().all(|request| request.path == "/mcp"));
    assert_eq!(session.counters().oversized_messages.load(Ordering::Relaxed), 1);

    let html = Container::new(ready(|_| full(404, "text/html", "<html>")));
    let error = html.fixture().connect(streamable()).await.err().unwrap();
    assert!(matches!(error, ConnectError::NotMcp(_)), "{error}");
    let html = Container::new(ready(|_| full(200, "text/html", "<html>")));
    assert!(matches!(html.fixture().connect(streamable()).await.err().unwrap(), ConnectError::NotMcp(_)));
}

/// A server with the transport of revision 2024-11-05. It ends its stream when the argument `text` of a call is `end`.
pub(super) fn sse_container() -> Arc<Container> {
    let streams: Arc<Mutex<Vec<mpsc::UnboundedSender<String>>>> = Arc::default();
    Container::new(ready(move |request| {
        let mut streams = streams.lock().unwrap();
        if request.method == Method::GET {
            let (sender, receiver) = mpsc::unbounded_channel();
            let endpoint = format!("event: endpoint\ndata: /messages?session={}\n\n", streams.len());
            sender.send(endpoint).unwrap();
            streams.push(sender);
            let parts =
                futures::stream::unfold(receiver, async |mut receiver| Some((receiver.recv().await?, receiver)));
            return streaming(parts.boxed());
        }
        let number: usize = request.path.strip_prefix("/messages?session=").unwrap().parse().unwrap();
        match request.text() {
            Some("end") => streams[number] = mpsc::unbounded_channel().0,
            Some("ignore") => {}
            Some("reject") => return full(413, "text/plain", "too large"),
            Some("ask") => streams[number].send(format!("data: {}\n\n", question("s1", "Sure?"))).unwrap(),
            _ => {
                let answer = legacy(&request.body).map(|answer| format!("data: {answer}\n\n"));
                answer.map(|answer| streams[number].send(answer));
            }
        }
        accepted()
    }))
}

#[tokio::test(start_paused = true)]
async fn an_sse_server_is_reached_through_its_endpoint() {
    let container = sse_container();
    let fixture = container.fixture();
    let session = fixture.connect(target(TransportKind::Sse)).await.unwrap();
    assert_eq!(container.methods(), ["", "initialize", "notifications/initialized"], "legacy only");
    let calls = (0..10).map(|number| response(&session, call(number, "x")).boxed());
    for (number, answer) in (0..).zip(futures::future::join_all(calls).await) {
        assert_eq!(answer["id"], number);
    }
    session.probe().await.unwrap();
    assert_eq!(status(&session, call(1, "ignore"), TIMEOUT).await, 504);
    container.wait_for("notifications/cancelled").await;

    // The stream is the session, so a new stream begins with the handshake.
    assert_eq!(status(&session, call(1, "end"), TIMEOUT).await, 502);
    let calls = (0..10).map(|number| response(&session, call(number, "y")).boxed());
    futures::future::join_all(calls).await;
    let initialized = container.methods().iter().filter(|method| *method == "initialize").count();
    assert_eq!(initialized, 2);
    assert!(container.received.lock().unwrap().last().unwrap().path.ends_with("session=1"));
}

#[tokio::test]
async fn a_call_that_an_sse_server_rejects_does_not_block_later_requests() {
    let fixture = Fixture { is_shared: true, ..sse_container().fixture() };
    let session = fixture.connect(target(TransportKind::Sse)).await.unwrap();
    assert_eq!(status(&session, call(1, "reject"), TIMEOUT).await, 502);
    let mut messages = session.call(call(2, "ask"), caller("b", FORM)).await.unwrap();
    assert_eq!(next(&mut messages).await["params"]["message"], "Sure?");
}

#[tokio::test]
async fn a_restarted_daemon_opens_a_new_sse_stream_with_new_ids() {
    let container = sse_container();
    let fixture = container.fixture();
    for _ in 0..2 {
        let session = fixture.connect(target(TransportKind::Sse)).await.unwrap();
        response(&session, call(1, "x")).await;
    }
    let received = container.received.lock().unwrap();
    let mut ids: Vec<_> = received.iter().filter_map(|request| request.body["id"].as_u64()).collect();
    assert_eq!(ids.len(), 4);
    ids.dedup();
    assert!(ids.is_sorted() && ids.len() == 4, "{ids:?}");
}
