//! Announcements of servers outside of calls.

use std::collections::BTreeSet;

use ::http::Method;
use tokio::sync::mpsc::UnboundedSender;
use waypost_toolbox_proto::http::NotificationsOpened;

use super::http::{Body, Container, Received, full, json_response, streamable, streaming};
use super::*;
use crate::supervisor::servers::Notifications;

const TOOLS: &str = "notifications/tools/list_changed";
const UPDATED: &str = "notifications/resources/updated";

/// Returns the response of a legacy server with resources; `None` for notifications.
fn announcing(request: &Value) -> Option<Value> {
    request.get("id")?;
    Some(match request["method"].as_str()? {
        "initialize" => {
            let capabilities = json!({ "resources": { "subscribe": true } });
            result(request, json!({ "protocolVersion": "2025-06-18", "capabilities": capabilities }))
        }
        "resources/subscribe" if request["params"]["uri"] == "bad" => error(request, -32_602),
        "resources/subscribe" | "resources/unsubscribe" => result(request, json!({})),
        _ => return legacy(request),
    })
}

fn updated(uri: &str) -> Value {
    json!({ "jsonrpc": "2.0", "method": UPDATED, "params": { "uri": uri } })
}

fn list_changed() -> Value {
    json!({ "jsonrpc": "2.0", "method": TOOLS })
}

/// Adds a member that must not be passed on.
fn with_secret(mut message: Value) -> Value {
    message["params"]["secret"] = "of somebody else".into();
    message
}

/// A server on standard input and output that also writes unprompted.
struct Fake {
    output: UnboundedSender<Result<OutputChunk, EngineError>>,
    received: Arc<Mutex<Vec<Value>>>,
}

impl Fake {
    fn write(&self, message: &Value) {
        let _ = self.output.send(Ok(OutputChunk::Stdout(Bytes::from(format!("{message}\n")))));
    }

    fn count(&self, method: &str) -> usize {
        self.received.lock().unwrap().iter().filter(|message| message["method"] == method).count()
    }

    async fn wait_for(&self, method: &str) -> Value {
        loop {
            let found = self.received.lock().unwrap().iter().find(|message| message["method"] == method).cloned();
            if let Some(message) = found {
                return message;
            }
            tokio::task::yield_now().await;
        }
    }
}

async fn serve(
    fixture: &Fixture,
    mut respond: impl FnMut(&Value) -> Vec<Value> + Send + 'static,
) -> (Arc<Session>, Fake) {
    let (attached, server) = server();
    let fake = Fake { output: server.output.clone(), received: Arc::default() };
    let received = fake.received.clone();
    server.serve(move |message| {
        received.lock().unwrap().push(message.clone());
        respond(message)
    });
    (fixture.connect(attached).await.unwrap(), fake)
}

async fn open(session: &Arc<Session>, uris: &[&str]) -> Result<Option<Notifications>, u16> {
    let uris = uris.iter().map(|uri| (*uri).to_owned()).collect();
    session.clone().notifications(uris).await.map_err(|failure| failure.status)
}

async fn next(stream: &mut Notifications) -> Option<Value> {
    Some(serde_json::from_slice(&stream.messages.next().await?).unwrap())
}

fn uris(uris: &[&str]) -> BTreeSet<String> {
    uris.iter().map(|uri| (*uri).to_owned()).collect()
}

#[tokio::test(start_paused = true)]
async fn a_stdio_server_announces_lists_and_the_resources_of_each_stream() {
    let fixture = Fixture::new();
    let (session, fake) = serve(&fixture, |request| announcing(request).into_iter().collect()).await;
    let mut one = open(&session, &["a", "bad"]).await.unwrap().unwrap();
    assert_eq!((one.opened.can_subscribe, &one.opened.accepted), (true, &uris(&["a"])));
    let rejected = &one.opened.rejected["bad"];
    assert!(rejected.contains("no [secret]") && rejected.contains("-32602"), "{rejected}");
    let mut other = open(&session, &["a", "b"]).await.unwrap().unwrap();
    assert_eq!(other.opened.accepted, uris(&["a", "b"]));
    assert_eq!(fake.count("resources/subscribe"), 3, "a is subscribed once");
    for _ in 0..100 {
        for message in [updated("b"), updated("a"), updated("c"), list_changed()] {
            fake.write(&with_secret(message));
        }
    }
    // When the probe is answered, everything written before has been read.
    session.probe().await.unwrap();
    assert_eq!([next(&mut one).await, next(&mut one).await], [Some(updated("a")), Some(list_changed())]);
    let all = [next(&mut other).await, next(&mut other).await, next(&mut other).await];
    assert_eq!(all, [Some(updated("b")), Some(updated("a")), Some(list_changed())]);
    // A stream that replaces another receives what the other has not delivered.
    fake.write(&updated("b"));
    session.probe().await.unwrap();
    let mut replacement = open(&session, &["b"]).await.unwrap().unwrap();
    drop(other);
    assert_eq!(next(&mut replacement).await, Some(updated("b")));
    assert_eq!(fake.count("resources/unsubscribe"), 0, "each is still needed");
    drop(one);
    assert_eq!(fake.wait_for("resources/unsubscribe").await["params"]["uri"], "a");
    // A stream does not keep the session open.
    drop(session);
    assert_eq!(next(&mut replacement).await, None);
}

#[tokio::test(start_paused = true)]
async fn streams_end_with_the_server_and_are_limited() {
    let fixture = Fixture::new();
    let (attached, mut fake) = server();
    let (session, ()) = tokio::join!(fixture.connect(attached), fake.initialize());
    let session = session.unwrap();
    let mut streams = Vec::new();
    for _ in 0..16 {
        streams.push(open(&session, &["a"]).await.unwrap().unwrap());
    }
    assert_eq!(streams[0].opened, NotificationsOpened::default(), "the server has no subscriptions, and is not asked");
    assert_eq!(open(&session, &[]).await.err(), Some(429));
    streams.pop();
    let mut last = open(&session, &[]).await.unwrap().unwrap();
    drop(fake);
    assert_eq!(next(&mut last).await, None);
    assert_eq!(open(&session, &[]).await.err(), Some(502));
}

#[tokio::test(start_paused = true)]
async fn a_modern_server_announces_what_it_has_acknowledged() {
    let fixture = Fixture::new();
    let (session, fake) = serve(&fixture, |request| match request["method"].as_str() {
        Some("subscriptions/listen")
            if request["params"]["notifications"]["resourceSubscriptions"] == json!(["bad"]) =>
        {
            vec![error(request, -32_602)]
        }
        Some("subscriptions/listen") => {
            let id = json!({ "io.modelcontextprotocol/subscriptionId": request["id"] });
            let message = |method: &str, mut params: Value| {
                params["_meta"] = id.clone();
                json!({ "jsonrpc": "2.0", "method": method, "params": params })
            };
            let accepted =
                json!({ "notifications": { "toolsListChanged": true, "resourceSubscriptions": ["a", "z"] } });
            vec![
                message("notifications/subscriptions/acknowledged", accepted),
                message(UPDATED, json!({ "uri": "a", "secret": 1 })),
                message(UPDATED, json!({ "uri": "z" })),
                message(TOOLS, json!({})),
            ]
        }
        _ => modern(request).into_iter().collect(),
    })
    .await;
    assert!(open(&session, &["bad"]).await.unwrap().is_none());
    let mut stream = open(&session, &["a", "b"]).await.unwrap().unwrap();
    assert_eq!(stream.opened.accepted, uris(&["a"]));
    assert_eq!([next(&mut stream).await, next(&mut stream).await], [Some(updated("a")), Some(list_changed())]);
    let listen =
        fake.received.lock().unwrap().iter().rfind(|message| message["method"] == "subscriptions/listen").cloned();
    let listen = listen.unwrap();
    let filter = json!({ "toolsListChanged": true, "promptsListChanged": true, "resourcesListChanged": true,
        "resourceSubscriptions": ["a", "b"] });
    assert_eq!(listen["params"]["notifications"], filter);
    drop(stream);
    let cancelled = fake.wait_for("notifications/cancelled").await;
    assert_eq!(cancelled["params"]["requestId"], listen["id"]);
}

/// A server with Streamable HTTP, and the streams that were opened with GET requests.
#[derive(Clone, Default)]
struct HttpServer {
    streams: Arc<Mutex<Vec<UnboundedSender<String>>>>,
    session: Arc<Mutex<u32>>,
    has_stream: bool,
}

impl HttpServer {
    fn respond(&self, request: &Received) -> ::http::Response<Body> {
        let id = self.session.lock().unwrap().to_string();
        if request.rpc() == "initialize" {
            let mut response = json_response(&announcing(&request.body).unwrap());
            response.headers_mut().insert("mcp-session-id", id.parse().unwrap());
            return response;
        }
        if request.header("mcp-session-id") != Some(&id) {
            return full(404, "text/plain", "unknown session");
        }
        if request.is(&Method::GET) {
            if !self.has_stream {
                return full(405, "text/plain", "");
            }
            let (sender, receiver) = mpsc::unbounded_channel();
            self.streams.lock().unwrap().push(sender);
            let parts =
                futures::stream::unfold(receiver, async |mut receiver| Some((receiver.recv().await?, receiver)));
            return streaming(parts.boxed());
        }
        announcing(&request.body).map_or_else(|| full(202, "text/plain", ""), |answer| json_response(&answer))
    }

    fn container(&self) -> Arc<Container> {
        let server = self.clone();
        Container::new(move |request| Box::pin(std::future::ready(server.respond(&request))))
    }

    fn stream(&self) -> UnboundedSender<String> {
        self.streams.lock().unwrap().last().unwrap().clone()
    }
}

#[tokio::test(start_paused = true)]
async fn an_http_server_has_one_stream_while_it_is_needed() {
    let server = HttpServer { has_stream: true, ..HttpServer::default() };
    let container = server.container();
    let fixture = container.fixture();
    let session = fixture.connect(streamable()).await.unwrap();
    let mut one = open(&session, &["a"]).await.unwrap().unwrap();
    let mut other = open(&session, &["a"]).await.unwrap().unwrap();
    assert_eq!((one.opened.accepted.len(), server.streams.lock().unwrap().len()), (1, 1));
    let stream = server.stream();
    let question = json!({ "jsonrpc": "2.0", "id": 9, "method": "sampling/createMessage", "params": {} });
    for message in [with_secret(updated("a")), updated("b"), question, with_secret(list_changed())] {
        stream.send(format!("data: {message}\n\n")).unwrap();
    }
    for stream in [&mut one, &mut other] {
        assert_eq!([next(stream).await, next(stream).await], [Some(updated("a")), Some(list_changed())]);
    }
    let answer = loop {
        let received = container.received.lock().unwrap().iter().find(|request| request.body["id"] == 9).cloned();
        match received {
            Some(received) => break received,
            None => tokio::task::yield_now().await,
        }
    };
    assert_eq!(answer.body["error"]["code"], -32_601, "nobody can be asked");
    drop(one);
    drop(other);
    container.wait_for("resources/unsubscribe").await;
    tokio::time::timeout(TIMEOUT, stream.closed()).await.expect("the stream is closed");
    // If the server's stream breaks, the streams of the control plane end. A new one is opened in a new session, with
    // all subscriptions.
    let mut broken = open(&session, &["a"]).await.unwrap().unwrap();
    *server.session.lock().unwrap() += 1;
    server.streams.lock().unwrap().clear();
    assert_eq!(next(&mut broken).await, None);
    let before = container.methods().iter().filter(|method| *method == "resources/subscribe").count();
    let mut renewed = open(&session, &["a"]).await.unwrap().unwrap();
    assert_eq!(container.methods().iter().filter(|method| *method == "resources/subscribe").count(), before + 1);
    server.stream().send(format!("data: {}\n\n", updated("a"))).unwrap();
    assert_eq!(next(&mut renewed).await, Some(updated("a")));
}

#[tokio::test(start_paused = true)]
async fn an_http_server_without_a_stream_announces_nothing() {
    let container = HttpServer::default().container();
    let fixture = container.fixture();
    let session = fixture.connect(streamable()).await.unwrap();
    assert!(open(&session, &["a"]).await.unwrap().is_none());
    assert!(!container.methods().contains(&"resources/subscribe".to_owned()));
    session.probe().await.unwrap();
}
