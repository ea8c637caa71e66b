//! A server with a handshake in a container: the gateway, the link, and the bridge of the daemon, with a server on standard
//! input and output in memory.

use std::sync::{Arc, Mutex};

use axum::body::Body;
use bytes::Bytes;
use futures::StreamExt;
use http::{HeaderName, HeaderValue, Method, Request, StatusCode};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::sync::mpsc;
use tower::ServiceExt;
use waypost::replicas::relay;
use waypost_core::grant::AccessLevel;
use waypost_gateway::GatewayOptions;
use waypost_testkit::TempDir;
use waypost_toolbox::bridge::{Bridge, Session};
use waypost_toolbox::engine::{Attached, OutputChunk};
use waypost_toolbox::supervisor::servers::{CallOptions, ConnectContext, LogSink, Target as ServerTarget};
use waypost_toolbox_proto::http::{
    CALL_HEADERS, CAPABILITIES_HEADER, LOG_LEVEL_HEADER, LogStream, mcp_path, notifications_path, responses_path,
};

use super::fixture::{Agent, FORM, Target, form_of, json_of};
use crate::app::Setup;
use crate::console::instances::Api;
use crate::daemon::Call;
use crate::gateway::listen::Stream;
use crate::gateway::{Stage, tool};

const FORM_CAPABILITY: &str = r#"{"elicitation":{}}"#;

impl Target for Stage {
    const TOOL: &'static str = "search__find";

    fn api(&self) -> &Api {
        &self.api
    }

    fn token(&self) -> String {
        self.token.clone()
    }
}

struct NoLog;

impl LogSink for NoLog {
    fn line(&self, _: LogStream, _: &str) {}
}

/// A container whose server sends a request with this method and these parameters before it responds to a call. The
/// result of the call contains the client's response.
pub struct Container {
    instance: String,
    bridge: Bridge,
    session: Arc<Session>,
    received: Arc<Mutex<Vec<Value>>>,
    _folder: TempDir,
}

impl Container {
    async fn start(instance: &str, method: &'static str, params: &'static str) -> Arc<Self> {
        let (stdin, input) = tokio::io::duplex(64 * 1024);
        let (output, receiver) = mpsc::unbounded_channel();
        let received: Arc<Mutex<Vec<Value>>> = Arc::default();
        let log = received.clone();
        crate::daemon::spawn(async move {
            let mut lines = BufReader::new(input).lines();
            let mut call = Value::Null;
            while let Some(line) = lines.next_line().await.unwrap() {
                let message: Value = serde_json::from_str(&line).unwrap();
                log.lock().unwrap().push(message.clone());
                let result =
                    |id: &Value, result: Value| json!({ "jsonrpc": "2.0", "id": id, "result": result }).to_string();
                let id = &message["id"];
                let answer = match message["method"].as_str() {
                    Some("initialize") => result(
                        id,
                        json!({ "protocolVersion": "2025-11-25", "capabilities": { "tools": {} },
                        "serverInfo": { "name": "s", "version": "1" } }),
                    ),
                    Some("tools/list") => result(id, json!({ "tools": [tool("find", "Finds.")] })),
                    Some("tools/call") => {
                        call = id.clone();
                        format!(r#"{{"jsonrpc":"2.0","id":5,"method":"{method}","params":{params}}}"#)
                    }
                    None => result(&call, json!({ "content": [], "answered": message })),
                    Some(_) if id.is_null() => continue,
                    Some(_) => {
                        json!({ "jsonrpc": "2.0", "id": id, "error": { "code": -32601, "message": "Unknown." } })
                            .to_string()
                    }
                };
                let _ = output.send(Ok(OutputChunk::Stdout(Bytes::from(answer + "\n"))));
            }
        });
        let chunks = futures::stream::unfold(receiver, async |mut receiver| Some((receiver.recv().await?, receiver)));
        let attached = Attached { stdin: Box::pin(stdin), output: Box::pin(chunks) };
        let folder = waypost_testkit::folder();
        let context = ConnectContext {
            instance_id: instance.to_owned(),
            container_id: "c1".to_owned(),
            folder: folder.path().to_owned(),
            is_shared: true,
            masks: Vec::new(),
            log: Arc::new(NoLog),
        };
        let bridge = Bridge::new(|| 1_000);
        let session = bridge.connect(ServerTarget::Stdio(attached), context).await.unwrap();
        Arc::new(Self { instance: instance.to_owned(), bridge, session, received, _folder: folder })
    }

    /// Responds to a request of the control plane as the daemon does.
    pub async fn answer(&self, mut call: Call) {
        let (path, options) = (call.path().to_owned(), CallOptions::from_headers(call.headers()));
        let Some(message) = call.message().await else { return };
        let message = message.to_string();
        if path == responses_path(&self.instance) {
            let status = match self.bridge.respond(&self.instance, message.as_bytes()).await {
                Ok(()) => 202,
                Err(failure) => failure.status,
            };
            return call.respond(status, &[]).await;
        }
        if path == notifications_path(&self.instance) {
            return call.respond(404, &[]).await;
        }
        assert_eq!(path, mcp_path(&self.instance));
        let mut messages = self.session.call(Bytes::from(message), options).await.unwrap();
        let mut next = messages.next().await;
        let mut stream = call.open(200);
        while let Some(Ok(message)) = next {
            let line = Bytes::from([&message[..], b"\n"].concat());
            if waypost_link_io::send(&mut stream, line).await.is_err() {
                return;
            }
            // Dropping the messages cancels the call, as it does in the daemon.
            next = tokio::select! {
                next = messages.next() => next,
                _ = std::future::poll_fn(|cx| stream.poll_reset(cx)) => return,
            };
        }
        let _ = stream.send_data(Bytes::new(), true);
    }

    /// Waits until the server receives a message.
    async fn wait_for(&self, condition: impl Fn(&Value) -> bool) -> Value {
        loop {
            let found = self.received.lock().unwrap().iter().find(|message| condition(message)).cloned();
            if let Some(message) = found {
                return message;
            }
            tokio::task::yield_now().await;
        }
    }
}

/// Starts a product with such a container, whose tool is approved and granted.
async fn start(method: &'static str, params: &'static str) -> (Stage, Arc<Container>) {
    start_with(Setup::default(), method, params).await
}

async fn start_with(setup: Setup, method: &'static str, params: &'static str) -> (Stage, Arc<Container>) {
    let stage = Stage::with(setup).await;
    let container = Container::start(&stage.instance, method, params).await;
    stage.set(|server| server.container = Some(container.clone()));
    (stage.ready().await, container)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_with_a_session_is_asked() {
    let (stage, container) = start("elicitation/create", FORM).await;
    let agent = Agent::new(&stage, json!({ "elicitation": {} })).await;
    let other = Agent::new(&stage, json!({ "elicitation": {} })).await;
    let mut stream = Stream::new(agent.call().await);
    let question = stream.next().await.unwrap();
    assert_eq!(
        (&question["method"], question["params"].to_string()),
        (&json!("elicitation/create"), form_of("search"))
    );
    let answer = json!({ "action": "accept", "content": { "n": 1.0 } });
    assert_eq!(other.respond(&question["id"], &json!({ "action": "decline" })).await, 202);
    assert_eq!(agent.respond(&question["id"], &answer).await, 202);
    let response = stream.last().await;
    assert_eq!(response["id"], "x");
    assert_eq!(response["result"]["answered"], json!({ "jsonrpc": "2.0", "id": 5, "result": answer }));
    let declared = container.wait_for(|message| message["method"] == "initialize").await;
    let all = json!({ "elicitation": { "form": {}, "url": {} }, "sampling": { "tools": {} } });
    assert_eq!(declared["params"]["capabilities"], all);
    stage.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_of_2026_07_28_is_asked_and_its_call_is_continued_once() {
    let (stage, _container) = start("elicitation/create", FORM).await;
    let agent = Agent::without_session(&stage);
    let response = json_of(agent.modern_call(json!({})).await).await;
    let result = &response["result"];
    assert_eq!(
        (&result["resultType"], &result["inputRequests"]["input"]["method"]),
        (&json!("input_required"), &json!("elicitation/create"))
    );
    let answer = json!({ "action": "accept", "content": { "n": 1.0 } });
    let again = json!({ "inputResponses": { "input": answer }, "requestState": result["requestState"] });
    let mut response = json_of(agent.modern_call(again.clone()).await).await;
    assert_eq!(response["result"]["answered"], json!({ "jsonrpc": "2.0", "id": 5, "result": answer }));
    assert_eq!((&response["id"], &response["result"]["resultType"]), (&json!("y"), &json!("complete")));
    response = json_of(agent.modern_call(again).await).await;
    assert_eq!(response["error"]["code"], -32602);
    stage.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_agents_that_can_be_asked_are_asked() {
    let (stage, _container) = start("sampling/createMessage", r#"{"messages":[],"maxTokens":1}"#).await;
    let undeclared = Agent::new(&stage, json!({ "elicitation": {} })).await;
    let alone = Agent::without_session(&stage);
    for agent in [&undeclared, &alone] {
        let response = agent.call_once().await;
        assert_eq!(response["result"]["answered"]["error"]["code"], -32601);
    }
    // An admin who calls the tool cannot be asked either.
    let path = format!("/instances/{}/call", stage.instance);
    let called = stage.api.call(Method::POST, &path, Some(json!({ "tool": "find", "arguments": {} }))).await;
    let called = called.assert_status(200).json();
    assert!(called.to_string().contains("-32601"), "{called}");
    stage.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_on_a_host_that_is_not_listed_is_not_shown() {
    const PAGE: &str = r#"{"mode":"url","message":"Sign in","url":"https://b.example/","elicitationId":"e"}"#;
    for (hosts, code) in [("a.example", -32602), ("", -32601)] {
        let elicitation_hosts = hosts.parse().unwrap();
        let setup = Setup::default();
        let gateway = setup.gateway.map(|options| GatewayOptions { elicitation_hosts, ..options });
        let (stage, _container) = start_with(Setup { gateway, ..setup }, "elicitation/create", PAGE).await;
        let agent = Agent::new(&stage, json!({ "elicitation": { "form": {}, "url": {} } })).await;
        let response = agent.call_once().await;
        // Without hosts, the daemon is not told that the agent can open pages.
        let error = &response["result"]["answered"]["error"];
        assert_eq!(error["code"], code, "{response}");
        let reason = if hosts.is_empty() { Value::Null } else { "elicitation_url_blocked".into() };
        assert_eq!(error["data"]["reason"], reason);
        stage.finish().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_server_is_notified_if_the_agent_cancels_or_disconnects() {
    for cancels in [false, true] {
        let (stage, container) = start("elicitation/create", FORM).await;
        let agent = Agent::new(&stage, json!({ "elicitation": {} })).await;
        let mut stream = Stream::new(agent.call().await);
        let question = stream.next().await.unwrap();
        if cancels {
            assert_eq!(agent.cancel().await, 202);
            assert_eq!(stream.next().await, None, "there is no response");
        }
        drop(stream);
        container.wait_for(|message| message["id"] == 5 && message["error"]["code"] == -32603).await;
        container.wait_for(|message| message["method"] == "notifications/cancelled").await;
        assert_eq!(agent.respond(&question["id"], &json!({ "action": "accept" })).await, 202, "nobody waits any more");
        let answers = container.received.lock().unwrap().iter().filter(|message| message["id"] == 5).count();
        assert_eq!(answers, 1);
        stage.finish().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_daemon_is_told_what_the_agent_can_be_asked_for() {
    // This daemon does not know the header, and responds like a daemon that does not support requests to agents.
    let stage = Stage::new().await.ready().await;
    stage.grant(AccessLevel::FullAccess).await;
    stage.call("search__find", json!({})).await;
    assert_eq!(stage.received()[0]["params"], json!({ "name": "find", "arguments": {} }));
    let agent = Agent::new(&stage, json!({ "elicitation": {}, "experimental": {} })).await;
    let level = json!({ "jsonrpc": "2.0", "id": 1, "method": "logging/setLevel", "params": { "level": "error" } });
    agent.post(&level).await;
    assert_eq!(agent.call_once().await["result"]["n"], 1.0);
    let headers = stage.server.lock().unwrap().headers.clone();
    let values = |name: &str| headers.iter().map(|headers| headers.get(name).cloned()).collect::<Vec<_>>();
    assert_eq!(values(CAPABILITIES_HEADER), [None, Some(HeaderValue::from_static(FORM_CAPABILITY))]);
    assert_eq!(values(LOG_LEVEL_HEADER), [None, Some(HeaderValue::from_static("error"))]);
    assert_eq!(headers[0]["waypost-timeout-ms"], headers[1]["waypost-timeout-ms"], "asking does not count");
    stage.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_replica_forwards_what_the_agent_can_be_asked_for() {
    let stage = Stage::new().await;
    let instance = stage.api.get(&format!("/instances/{}", stage.instance)).await;
    let path = format!("/toolboxes/{}{}", instance["toolbox_id"].as_str().unwrap(), mcp_path(&stage.instance));
    let message = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {} });
    let request = Request::post(path).header("x-other", "1").body(Body::from(message.to_string())).unwrap();
    let (mut parts, body) = request.into_parts();
    parts.headers.extend(CALL_HEADERS.map(|name| (name.parse::<HeaderName>().unwrap(), HeaderValue::from_static("v"))));
    let replica = relay::routes(stage.api.app.running_ops().links().clone());
    let response = replica.oneshot(Request::from_parts(parts, body)).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    let headers = stage.server.lock().unwrap().headers[0].clone();
    assert!(CALL_HEADERS.iter().all(|name| headers[*name] == "v"), "{headers:?}");
    assert!(!headers.contains_key("x-other"));
    drop(response);
    stage.finish().await;
}
