//! `subscriptions/listen`: which notifications a stream sends and when it ends.

use std::time::Duration;

use axum::body::{Body, BodyDataStream};
use futures::StreamExt;
use http::{HeaderMap, Request, Response, StatusCode, header};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use waypost_core::server::{AuthType, SignInPolicy, Support};
use waypost_mcp::listen::ListenOptions;
use waypost_ops::assignments::AssignmentPatch;
use waypost_ops::servers::{self, ServerSettings};

use crate::app::{App, Server, Setup, open};
use crate::sign_in::{EndUserBrowser, OauthClient, create_sign_in_server, oauth_path, post_form};

waypost_testkit::both!(extended open =>
    a_stream_reports_publishing_assignments_and_new_versions,
    only_supported_notifications_are_acknowledged,
    a_stream_ends_when_its_server_is_deleted_or_requires_sign_in,
    a_stream_ends_when_its_token_is_revoked_or_expires,
);

/// The maximum time that a test waits for a message.
const TIMEOUT: Duration = Duration::from_secs(20);

fn all_lists() -> Value {
    json!({ "toolsListChanged": true, "promptsListChanged": true, "resourcesListChanged": true })
}

fn build_request(path: &str, method: &str, mut params: Value, token: Option<&str>) -> Request<Body> {
    params["_meta"] = json!({
        "io.modelcontextprotocol/protocolVersion": "2026-07-28", "io.modelcontextprotocol/clientCapabilities": {},
    });
    let message = json!({ "jsonrpc": "2.0", "id": "listen-1", "method": method, "params": params });
    let mut request = Request::post(path)
        .header(header::HOST, "localhost:8080")
        .header(header::CONTENT_TYPE, "application/json")
        .header("mcp-protocol-version", "2026-07-28")
        .header("mcp-method", method);
    if let Some(token) = token {
        request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
    }
    request.body(Body::from(message.to_string())).unwrap()
}

async fn listen(server: &Server, filter: Value, token: Option<&str>) -> Response<Body> {
    let params = json!({ "notifications": filter });
    server.app.send(build_request(&server.path(), "subscriptions/listen", params, token)).await
}

async fn read_json(response: Response<Body>) -> Value {
    serde_json::from_slice(&response.into_body().collect().await.unwrap().to_bytes()).unwrap()
}

/// An open stream.
struct Stream {
    headers: HeaderMap,
    body: BodyDataStream,
    text: String,
}

impl Stream {
    fn from_response(response: Response<Body>) -> Self {
        assert_eq!(response.status(), StatusCode::OK);
        let (parts, body) = response.into_parts();
        Self { headers: parts.headers, body: body.into_data_stream(), text: String::new() }
    }

    /// Opens a stream and reads the acknowledgement, which must be the first message.
    async fn open(server: &Server, filter: Value, token: Option<&str>) -> (Self, Value) {
        let mut stream = Self::from_response(listen(server, filter, token).await);
        let message = stream.next_message().await.unwrap();
        assert_eq!(message["method"], "notifications/subscriptions/acknowledged", "{message}");
        assert_eq!(message["params"]["_meta"]["io.modelcontextprotocol/subscriptionId"], "listen-1");
        (stream, message["params"]["notifications"].clone())
    }

    /// Returns the next message, or `None` at the end of the stream.
    async fn next_message(&mut self) -> Option<Value> {
        loop {
            if let Some((event, rest)) = self.text.split_once("\n\n") {
                let data: String = event.lines().filter_map(|line| line.strip_prefix("data:")).collect();
                self.text = rest.to_owned();
                if !data.trim().is_empty() {
                    return Some(serde_json::from_str(&data).unwrap());
                }
                continue;
            }
            let chunk = timeout(TIMEOUT, self.body.next()).await.expect("a message arrives in time");
            self.text.push_str(std::str::from_utf8(&chunk?.unwrap()).unwrap());
        }
    }

    /// Returns the methods of the next `count` notifications.
    async fn next_methods(&mut self, count: usize) -> Vec<String> {
        let mut methods = Vec::new();
        for _ in 0..count {
            let message = self.next_message().await.expect("the stream sends a notification");
            assert_eq!(message["params"]["_meta"]["io.modelcontextprotocol/subscriptionId"], "listen-1", "{message}");
            methods.push(message["method"].as_str().unwrap_or_else(|| panic!("{message}")).to_owned());
        }
        methods
    }

    /// Asserts that the stream ends with a result and no further message.
    async fn assert_ends(mut self) {
        let last = self.next_message().await.expect("the stream sends a result");
        assert_eq!((&last["id"], &last["result"]["resultType"]), (&json!("listen-1"), &json!("complete")), "{last}");
        assert_eq!(self.next_message().await, None);
    }
}

const TOOLS: &str = "notifications/tools/list_changed";
const PROMPTS: &str = "notifications/prompts/list_changed";
const RESOURCES: &str = "notifications/resources/list_changed";

async fn a_stream_reports_publishing_assignments_and_new_versions(app: App) {
    let (server, other) = (app.server("acme").await, app.server("other").await);
    let (mut stream, accepted) = Stream::open(&server, all_lists(), None).await;
    assert_eq!(accepted, all_lists());
    assert_eq!(stream.headers[header::CONTENT_TYPE], "text/event-stream");
    assert_eq!(stream.headers["x-accel-buffering"], "no");

    other.walkthrough("Elsewhere", &["One"]).await;
    let walkthrough = server.walkthrough("Install Acme", &["One"]).await;
    assert_eq!(
        stream.next_methods(3).await,
        [TOOLS, PROMPTS, RESOURCES],
        "the first publication, but not the one on the other server"
    );
    walkthrough.publish(&["One", "Two"]).await;
    assert_eq!(stream.next_methods(2).await, [PROMPTS, RESOURCES], "a new version");
    let second = server.org.walkthrough("Use Acme", &["One"]).await;
    server.assign(&second, AssignmentPatch::default()).await;
    assert_eq!(stream.next_methods(2).await, [PROMPTS, RESOURCES], "an assignment");
    server.update(ServerSettings { support: Some(Support::Tickets), ..ServerSettings::default() }).await;
    assert_eq!(stream.next_methods(1).await, [TOOLS], "a setting that adds a tool");
    for walkthrough in [&walkthrough, &second] {
        server.unassign(walkthrough).await;
    }
    let mut rest = Vec::new();
    while !rest.contains(&TOOLS.to_owned()) {
        rest.extend(stream.next_methods(1).await);
    }
    drop(stream);
    app.finish().await;
}

async fn only_supported_notifications_are_acknowledged(app: App) {
    let server = app.server("acme").await;
    let walkthrough = server.walkthrough("Install Acme", &["One"]).await;
    let outline = format!("walkthrough://{}", walkthrough.id);
    let step = format!("{outline}/steps/{}", walkthrough.step("One").await);
    let uris = json!([outline, step, "walkthrough://wt_unknown", "file:///etc/passwd", ""]);
    let (mut stream, accepted) = Stream::open(&server, json!({ "resourceSubscriptions": uris }), None).await;
    assert_eq!(accepted, json!({ "resourceSubscriptions": [outline] }), "a step is not a subscribable resource");
    let (mut prompts, accepted) = Stream::open(&server, json!({ "promptsListChanged": true }), None).await;
    assert_eq!(accepted, json!({ "promptsListChanged": true }));
    walkthrough.publish(&["One", "Two"]).await;
    let update = stream.next_message().await.unwrap();
    assert_eq!(
        (&update["method"], &update["params"]["uri"]),
        (&json!("notifications/resources/updated"), &json!(outline))
    );
    assert_eq!(prompts.next_methods(1).await, [PROMPTS]);
    walkthrough.delete().await;
    assert_eq!(stream.next_methods(1).await, ["notifications/resources/updated"], "the resource is deleted");
    assert_eq!(prompts.next_methods(1).await, [PROMPTS]);
    let (empty_stream, accepted) = Stream::open(&server, json!({}), None).await;
    assert_eq!(accepted, json!({}));
    drop((stream, prompts, empty_stream));
    app.skip_call_check();
    app.finish().await;
}

async fn a_stream_ends_when_its_server_is_deleted_or_requires_sign_in(app: App) {
    let server = app.server("acme").await;
    let (stream, _) = Stream::open(&server, all_lists(), None).await;
    let auth_type = Some(AuthType::PlatformOauth);
    server
        .update(ServerSettings { auth_type, sign_in: Some(SignInPolicy::OnConnect), ..ServerSettings::default() })
        .await;
    stream.assert_ends().await;
    assert_eq!(listen(&server, all_lists(), None).await.status(), StatusCode::UNAUTHORIZED);
    server.update(ServerSettings { auth_type: Some(AuthType::None), ..ServerSettings::default() }).await;
    let (stream, _) = Stream::open(&server, all_lists(), None).await;
    app.skip_call_check();
    servers::delete(app.cx(), &app.ops(), &server.org.id, &server.id).await.unwrap();
    stream.assert_ends().await;
    app.finish().await;
}

async fn a_stream_ends_when_its_token_is_revoked_or_expires(app: App) {
    let server = create_sign_in_server(&app, "acme").await;
    let client = OauthClient::register(&server).await;
    let (browser, _) = EndUserBrowser::signed_in(&server, "anna").await;
    let tokens = client.get_tokens(&browser).await;
    let (stream, accepted) = Stream::open(&server, all_lists(), Some(&tokens.access)).await;
    assert_eq!(accepted, all_lists());
    let (mut anonymous, _) = Stream::open(&server, all_lists(), None).await;
    let form = [("token", tokens.access.as_str()), ("client_id", client.id.as_str())];
    assert_eq!(post_form(&app, &oauth_path(&server, "revoke"), &form).await.status, 200);
    server.walkthrough("More", &["One"]).await;
    stream.assert_ends().await;
    assert_eq!(anonymous.next_methods(2).await, [PROMPTS, RESOURCES], "a stream without a token continues");
    let next = client.get_tokens(&browser).await;
    let (stream, _) = Stream::open(&server, all_lists(), Some(&next.access)).await;
    app.advance_clock(2 * 60 * 60 * 1_000).await;
    stream.assert_ends().await;
    assert_eq!(listen(&server, all_lists(), Some(&next.access)).await.status(), StatusCode::UNAUTHORIZED);
    drop(anonymous);
    app.finish().await;
}

#[tokio::test]
async fn list_changes_are_announced_only_in_2026_07_28() {
    let app = App::new().await;
    let server = app.server("acme").await;
    server.walkthrough("Install Acme", &["One"]).await;
    let request = build_request(&server.path(), "server/discover", json!({}), None);
    let discovered = read_json(app.send(request).await).await;
    let capabilities = &discovered["result"]["capabilities"];
    for list in ["tools", "prompts", "resources"] {
        assert_eq!(capabilities[list]["listChanged"], true, "{capabilities}");
    }
    let legacy = async |method: &str, params: Value| {
        let message = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params });
        let request = Request::post(server.path())
            .header(header::HOST, "localhost:8080")
            .header(header::CONTENT_TYPE, "application/json")
            .body(Body::from(message.to_string()));
        let response = app.send(request.unwrap()).await;
        read_json(response).await
    };
    for revision in ["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"] {
        let info = json!({ "name": "t", "version": "1" });
        let params = json!({ "protocolVersion": revision, "capabilities": {}, "clientInfo": info });
        let response = legacy("initialize", params).await;
        let capabilities = &response["result"]["capabilities"];
        for list in ["tools", "prompts", "resources"] {
            assert_eq!(capabilities[list], json!({}), "{revision}: {capabilities}");
        }
    }
    let rejected = legacy("subscriptions/listen", json!({ "notifications": all_lists() })).await;
    assert_eq!(rejected["error"]["code"], -32_601, "{rejected}");
    let malformed =
        app.send(build_request(&server.path(), "subscriptions/listen", json!({ "notifications": 7 }), None)).await;
    assert_eq!(read_json(malformed).await["error"]["code"], -32_602);
    app.finish().await;
}

/// Opens streams until one is rejected. Returns the open streams and the rejection.
async fn open_until_rejected(server: &Server) -> (Vec<Stream>, Response<Body>) {
    let mut streams = Vec::new();
    loop {
        let response = listen(server, all_lists(), None).await;
        if response.status() != StatusCode::OK {
            return (streams, response);
        }
        streams.push(Stream::from_response(response));
        assert!(streams.len() < 100, "the limit is never reached");
    }
}

async fn assert_stream_limit(limits: ListenOptions, count: usize, status: StatusCode) {
    let app = App::with(Setup { listen: limits, ..Setup::default() }).await;
    let server = app.server("acme").await;
    let (mut streams, rejected) = open_until_rejected(&server).await;
    assert_eq!((streams.len(), rejected.status()), (count, status));
    assert!(rejected.headers().contains_key(header::RETRY_AFTER));
    let body = read_json(rejected).await;
    assert_eq!((&body["id"], &body["error"]["code"]), (&json!("listen-1"), &json!(-31_029)), "{body}");
    // Closing a stream frees its slot.
    streams.pop();
    let listen_again = async {
        while listen(&server, all_lists(), None).await.status() != StatusCode::OK {
            tokio::task::yield_now().await;
        }
    };
    timeout(TIMEOUT, listen_again).await.expect("a stream is available again");
    drop(streams);
    app.finish().await;
}

#[tokio::test]
async fn streams_are_limited() {
    let unlimited = ListenOptions { total: 0, per_server: 0, per_address: 0, ..ListenOptions::default() };
    assert_stream_limit(ListenOptions { per_address: 2, ..unlimited }, 2, StatusCode::TOO_MANY_REQUESTS).await;
    assert_stream_limit(ListenOptions { per_server: 3, ..unlimited }, 3, StatusCode::SERVICE_UNAVAILABLE).await;
    assert_stream_limit(ListenOptions { total: 4, ..unlimited }, 4, StatusCode::SERVICE_UNAVAILABLE).await;
}

#[tokio::test]
async fn streams_end_with_a_result_on_shutdown() {
    let stop = CancellationToken::new();
    let app = App::with(Setup { stop: stop.clone(), ..Setup::default() }).await;
    let server = app.server("acme").await;
    let mut streams = Vec::new();
    for _ in 0..3 {
        streams.push(Stream::open(&server, all_lists(), None).await.0);
    }
    stop.cancel();
    for stream in streams {
        stream.assert_ends().await;
    }
    app.finish().await;
}
