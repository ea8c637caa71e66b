//! Remote servers that require OAuth: connected by an admin or by each agent, used through the gateway, with tokens that are
//! refreshed.

mod per_agent;
mod registered;
mod scopes;
mod server;

use http::Method;
use http_body_util::BodyExt;
use serde_json::{Value, json};
use url::Url;
use waypost_core::organization::Role;
use waypost_ops::instances::connect::NOT_CONNECTED;
use waypost_ops::remote_checks;
use waypost_ops::remote_tokens::{self, RefreshSummary};
use waypost_outbound::Allowance;

use self::server::{Server, callback};
use crate::app::Setup;
use crate::console::ConsoleBrowser;
use crate::console::instances::Api;

/// An hour in milliseconds: the lifetime of a token.
const HOUR: i64 = 3_600_000;
const MINUTE: i64 = 60_000;

/// An instance of a server that requires OAuth, an admin, and an agent with full access to the instance.
struct Stage {
    api: Api,
    server: Server,
    admin: ConsoleBrowser,
    id: String,
    token: String,
}

impl Stage {
    async fn new() -> Self {
        let allow: Vec<Allowance> = vec!["127.0.0.0/8=tools".parse().unwrap()];
        let api = Api::with(Setup { allow, ..Setup::default() }).await;
        let server = Server::start().await;
        let admin = ConsoleBrowser::member(&api.org, "ann@acme.example", Role::Admin).await.for_org("acme");
        let agent = api.post("/agents", json!({ "name": "ci" })).await.assert_status(201).json();
        let agent = agent["id"].as_str().unwrap().to_owned();
        let token = api.post(&format!("/agents/{agent}/tokens"), json!({ "name": "main" })).await.json();
        let new = json!({ "slug": "far", "remote": { "url": server.url(), "oauth": true } });
        let created = api.post("/instances", new).await.assert_status(202).json();
        let id = created["id"].as_str().unwrap().to_owned();
        let grant = json!({ "agent_id": agent, "instance_id": id, "access": "full_access" });
        api.post("/grants", grant).await.assert_status(201);
        Self { token: token["token"].as_str().unwrap().to_owned(), api, server, admin, id }
    }

    /// Returns a stage whose instance is connected and running, with its tool approved.
    async fn connected() -> Self {
        let stage = Self::new().await;
        stage.connect().await;
        let pending = stage.api.get("/tool-approvals?state=pending").await;
        for approval in pending["items"].as_array().unwrap() {
            let path = format!("/tool-approvals/{}/approve", approval["id"].as_str().unwrap());
            stage.api.post(&path, json!({ "digest": approval["digest"], "class": "read" })).await.assert_status(200);
        }
        assert_eq!(stage.call().await["result"], json!({ "content": [] }));
        stage
    }

    async fn connect(&self) {
        let path = self.server.allow(&self.authorization_url().await);
        self.admin.get(&path).await.assert_redirect(&format!("/o/acme/instances/{}", self.id));
        self.check().await;
        assert_eq!(self.instance().await["state"], "running");
    }

    async fn begin(&self) -> crate::console::ConsoleResponse {
        self.admin.api(Method::POST, &format!("/instances/{}/connect", self.id), Some(json!({}))).await
    }

    async fn authorization_url(&self) -> String {
        let started = self.begin().await.assert_status(200).json();
        started["authorization_url"].as_str().unwrap().to_owned()
    }

    async fn check(&self) {
        remote_checks::check_due(self.api.app.cx(), &self.api.app.running_ops()).await.unwrap();
    }

    async fn refresh(&self) -> (u64, u64) {
        let refreshed = remote_tokens::refresh_due(self.api.app.cx(), &self.api.app.running_ops()).await;
        let RefreshSummary { refreshed, failed } = refreshed.unwrap();
        (refreshed, failed)
    }

    async fn instance(&self) -> Value {
        self.api.get(&format!("/instances/{}", self.id)).await
    }

    async fn call(&self) -> Value {
        let params = json!({ "name": "far__find", "arguments": {} });
        let body = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params }).to_string();
        let request = http::Request::post("/gateway/mcp")
            .header("host", "localhost:8080")
            .header("content-type", "application/json")
            .header("authorization", format!("Bearer {}", self.token));
        let response = self.api.app.send(request.body(body.into()).unwrap()).await;
        serde_json::from_slice(&response.into_body().collect().await.unwrap().to_bytes()).unwrap()
    }

    async fn finish(self) {
        self.api.app.clone().finish().await;
    }
}

fn state_of(url: &str) -> String {
    let url = Url::parse(url).unwrap();
    url.query_pairs().find(|(name, _)| name == "state").unwrap().1.into_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_admin_connects_a_server_and_agents_use_it() {
    let stage = Stage::new().await;
    stage.check().await;
    let instance = stage.instance().await;
    assert_eq!((&instance["state"], &instance["remote"]["oauth"]), (&json!("deploying"), &json!(true)));
    assert_eq!(instance["health"]["message"], NOT_CONNECTED);
    assert!(stage.server.state().paths.is_empty(), "it is not tested before it is connected");
    let page = format!("/o/acme/instances/{}", stage.id);
    stage.admin.get_page(&page).await.assert_contains("The server requires OAuth, and is not connected.");
    // An API key cannot connect a server, because a user has to sign in.
    let with_key = stage.api.post(&format!("/instances/{}/connect", stage.id), json!({})).await;
    with_key.assert_status(409).assert_contains("user_required");
    let started = stage.admin.post(&format!("{page}/authorize"), &[]).await;
    started.assert_status(200).assert_contains(&stage.server.issuer());
    let start = started.body.find(&format!("{}/authorize?", stage.server.base)).unwrap();
    let url = started.body[start..].split('"').next().unwrap().replace("&#38;", "&").replace("&amp;", "&");
    let path = stage.server.allow(&url);
    stage.admin.get(&path).await.assert_redirect(&page);
    stage.check().await;
    let instance = stage.instance().await;
    assert_eq!((&instance["state"], &instance["health"]["ok"]), (&json!("running"), &json!(true)), "{instance}");
    assert_eq!(stage.server.last_token().as_deref(), Some("Bearer access-1"));
    stage
        .admin
        .get_page(&page)
        .await
        .assert_contains("Connect again")
        .assert_lacks("access-1")
        .assert_lacks("refresh-1");
    // Tokens are stored sealed, and do not appear in the audit log.
    let stored = stage.api.app.query_lines("SELECT credentials FROM remote_connections").await;
    assert!(stored.starts_with("v1.") && !stored.contains("access-1") && !stored.contains("refresh-1"), "{stored}");
    let audited = stage.api.app.query_lines("SELECT act || ' ' || detail FROM audit_events").await;
    assert!(audited.contains("instance.connect") && !audited.contains("access-1"), "{audited}");
    assert_eq!(stage.api.app.count("SELECT count(*) FROM remote_connection_requests").await, 0);
    stage.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_challenge_after_the_handshake_is_found() {
    let stage = Stage::new().await;
    stage.server.state().is_handshake_open = true;
    // Only the challenge states the scope that the server expects.
    stage.connect().await;
    stage.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_are_refreshed_before_they_expire() {
    let stage = Stage::connected().await;
    stage.api.app.advance_clock(HOUR - 5 * MINUTE - 1).await;
    assert_eq!(stage.refresh().await, (0, 0), "it is too early");
    stage.api.app.advance_clock(1).await;
    assert_eq!(stage.refresh().await, (1, 0));
    assert_eq!(stage.refresh().await, (0, 0));
    assert_eq!(stage.server.state().refreshes, ["refresh-1"]);
    // The gateway uses the new token within one second.
    stage.api.app.advance_clock(1_000).await;
    tokio::time::timeout(std::time::Duration::from_secs(20), async {
        while stage.server.last_token().as_deref() != Some("Bearer access-2") {
            stage.call().await;
        }
    })
    .await
    .expect("the new token is used");
    assert_eq!(stage.call().await["result"], json!({ "content": [] }));
    assert_eq!(stage.server.state().refreshes, ["refresh-1"], "without another refresh");
    stage.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rejected_token_is_refreshed_once_without_the_agent_noticing() {
    let stage = Stage::connected().await;
    let revoke = || stage.server.state().tokens.as_mut().unwrap().0 = "another".to_owned();
    stage.api.app.advance_clock(MINUTE).await;
    revoke();
    let (one, two) = tokio::join!(stage.call(), stage.call());
    assert_eq!((&one["result"], &two["result"]), (&json!({ "content": [] }), &json!({ "content": [] })));
    assert_eq!(stage.server.state().refreshes, ["refresh-1"]);
    revoke();
    assert_eq!(stage.call().await["error"]["data"]["reason"], "unauthorized");
    assert_eq!(stage.server.state().refreshes.len(), 1, "a new token is not refreshed");
    stage.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rejected_refresh_ends_the_connection_until_it_is_connected_again() {
    let stage = Stage::connected().await;
    stage.server.state().refuses = true;
    stage.api.app.advance_clock(HOUR - 5 * MINUTE).await;
    assert_eq!(stage.refresh().await, (0, 1));
    assert_eq!(stage.api.app.count("SELECT count(*) FROM remote_connections").await, 0);
    let instance = stage.instance().await;
    assert_eq!(instance["state"], "failed");
    let message = instance["health"]["message"].as_str().unwrap();
    assert!(message.contains("no longer accepts the connection") && !message.contains("secret text"), "{message}");
    // The connection is neither refreshed nor tested again automatically.
    let requests = stage.server.state().paths.len();
    stage.api.app.advance_clock(HOUR).await;
    stage.check().await;
    assert_eq!((stage.refresh().await, stage.server.state().paths.len()), ((0, 0), requests));
    stage.server.state().refuses = false;
    stage.connect().await;
    assert_eq!(stage.server.last_token().as_deref(), Some("Bearer access-2"));
    // A new URL ends the connection, because the tokens were issued for the former URL.
    let remote = json!({ "url": format!("{}/other", stage.server.base), "oauth": true });
    let path = format!("/instances/{}", stage.id);
    stage.api.call(Method::PATCH, &path, Some(json!({ "remote": remote }))).await.assert_status(200);
    assert_eq!(stage.instance().await["health"]["message"], NOT_CONNECTED);
    assert_eq!(stage.api.app.count("SELECT count(*) FROM remote_connections").await, 0);
    stage.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_state_is_valid_once_for_ten_minutes_and_only_for_its_user() {
    let stage = Stage::new().await;
    let other = ConsoleBrowser::member(&stage.api.org, "bob@acme.example", Role::Admin).await;
    let member = ConsoleBrowser::member(&stage.api.org, "cas@acme.example", Role::Member).await.for_org("acme");
    let path = format!("/instances/{}/connect", stage.id);
    member.api(Method::POST, &path, Some(json!({}))).await.assert_status(403);
    let url = stage.authorization_url().await;
    let done = stage.server.allow(&url);
    // Another admin does not use up the state, and neither does a visitor.
    other.get(&done).await.assert_status(404);
    let visitor = ConsoleBrowser::new(&stage.api.app).get(&done).await;
    assert!(visitor.location().starts_with("/login?next="), "{}", visitor.location());
    for unknown in ["/connections/callback", &callback("unknown", &[("code", "one-code")])] {
        stage.admin.get(unknown).await.assert_status(404);
    }
    assert!(stage.server.state().tokens.is_none());
    stage.admin.get(&done).await.assert_status(303);
    stage.admin.get(&done).await.assert_status(404);
    // Responses with another issuer, or without one, use up the state without a token request.
    let issuer = stage.server.issuer();
    for parameters in [&[("code", "one-code"), ("iss", "https://evil.example")][..], &[("code", "one-code")]] {
        let state = state_of(&stage.authorization_url().await);
        stage.admin.get(&callback(&state, parameters)).await.assert_status(502).assert_contains("authorization server");
        let right = callback(&state, &[("code", "one-code"), ("iss", &issuer)]);
        stage.admin.get(&right).await.assert_status(404);
    }
    let state = state_of(&stage.authorization_url().await);
    let denied = callback(&state, &[("error", "access_denied"), ("iss", &issuer)]);
    stage.admin.get(&denied).await.assert_status(409).assert_contains("denied");
    // A user's second request replaces the first.
    let first = stage.server.allow(&stage.authorization_url().await);
    let second = stage.server.allow(&stage.authorization_url().await);
    stage.admin.get(&first).await.assert_status(404);
    stage.api.app.advance_clock(10 * MINUTE).await;
    stage.admin.get(&second).await.assert_status(404);
    assert_eq!(stage.server.state().issued, 1);
    stage.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instance_that_was_changed_during_sign_in_is_not_connected() {
    let stage = Stage::new().await;
    let done = stage.server.allow(&stage.authorization_url().await);
    let remote = json!({ "url": format!("{}/other", stage.server.base), "oauth": true });
    let path = format!("/instances/{}", stage.id);
    stage.api.call(Method::PATCH, &path, Some(json!({ "remote": remote }))).await.assert_status(200);
    stage.admin.get(&done).await.assert_status(409).assert_contains("has been changed");
    assert_eq!(stage.api.app.count("SELECT count(*) FROM remote_connections").await, 0);
    // The header of the connection cannot be set as well, and only servers with OAuth can be connected.
    let secret = json!({ "name": "far-token", "value": "Bearer one" });
    let secret = stage.api.post("/secrets", secret).await.assert_status(201).json()["id"].clone();
    let patch = json!({ "secrets": { "authorization": secret } });
    stage.api.call(Method::PATCH, &path, Some(patch)).await.assert_status(422);
    let new = json!({ "slug": "two", "remote": { "url": stage.server.url(), "oauth": true },
        "secrets": { "Authorization": secret } });
    stage.api.post("/instances", new).await.assert_status(422);
    let remote = json!({ "remote": { "url": stage.server.url() } });
    stage.api.call(Method::PATCH, &path, Some(remote)).await.assert_status(200);
    stage.begin().await.assert_status(409).assert_contains("not_oauth");
    stage.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_that_cannot_be_trusted_are_rejected_with_a_reason() {
    let stage = Stage::new().await;
    let base = stage.server.base.clone();
    let (none, huge) = (json!({}), "x".repeat(65 * 1024));
    let long = json!({ "authorization_servers": [format!("{base}/as?x=1")] });
    let private = json!({ "token_endpoint": "http://10.0.0.1/token" });
    let script = json!({ "authorization_endpoint": "javascript:alert(1)" });
    /// Changes to the metadata of the resource and of the authorization server, another response to requests for the
    /// latter, and the reason of the error.
    type Case<'a> = (Value, Value, Option<(u16, &'a str)>, &'a str);
    let cases: Vec<Case<'_>> = vec![
        (json!({ "resource": "https://evil.example/mcp" }), none.clone(), None, "resource_mismatch"),
        (json!({ "resource": format!("{base}/mcp/other") }), none.clone(), None, "resource_mismatch"),
        (json!({ "authorization_servers": [] }), none.clone(), None, "invalid_metadata"),
        (long, none.clone(), None, "invalid_metadata"),
        (json!({ "authorization_servers": [format!("{base}/none")] }), none.clone(), None, "no_metadata"),
        (json!({ "authorization_servers": ["http://10.0.0.1"] }), none.clone(), None, "unreachable"),
        (none.clone(), json!({ "issuer": format!("{base}/other") }), None, "issuer_mismatch"),
        (none.clone(), json!({ "issuer": format!("{base}/as/") }), None, "issuer_mismatch"),
        (none.clone(), json!({ "code_challenge_methods_supported": ["plain"] }), None, "no_pkce"),
        (none.clone(), json!({ "code_challenge_methods_supported": null }), None, "no_pkce"),
        (none.clone(), json!({ "registration_endpoint": null }), None, "no_registration"),
        (none.clone(), json!({ "registration_endpoint": format!("{base}/gone") }), None, "registration_failed"),
        (none.clone(), private, None, "unreachable"),
        (none.clone(), script, None, "unreachable"),
        (none.clone(), none.clone(), Some((302, "")), "redirect"),
        (none.clone(), none.clone(), Some((200, &huge)), "invalid_metadata"),
        (none.clone(), none.clone(), Some((200, "<html>")), "invalid_metadata"),
    ];
    for (resource, server, other, reason) in cases {
        {
            let mut state = stage.server.state();
            state.resource_metadata = resource.clone();
            state.server_metadata = server.clone();
            state.other_metadata = other.map(|(status, text)| (status, text.to_owned()));
        }
        let response = stage.begin().await;
        assert_eq!(response.status, 502, "{resource} {server} {reason}: {}", response.body);
        assert_eq!(response.json()["reason"], reason, "{resource} {server}: {}", response.body);
    }
    assert_eq!(stage.api.app.count("SELECT count(*) FROM remote_connection_requests").await, 0);
    assert!(!stage.server.state().paths.iter().any(|path| path == "/elsewhere"), "redirects are not followed");
    let page = format!("/o/acme/instances/{}", stage.id);
    stage.admin.post(&format!("{page}/authorize"), &[]).await.assert_status(502).assert_contains("is not valid");
    stage.finish().await;
}

#[tokio::test]
async fn the_client_metadata_document_is_public() {
    let app = crate::app::App::with(Setup { public_url: "https://way.example", ..Setup::default() }).await;
    let request = http::Request::get("/connections/client-metadata.json").header("host", "way.example");
    let response = app.send(request.body(axum::body::Body::empty()).unwrap()).await;
    assert_eq!(response.headers()["content-type"], "application/json");
    let document = response.into_body().collect().await.unwrap().to_bytes();
    let document: Value = serde_json::from_slice(&document).unwrap();
    assert_eq!(document["client_id"], "https://way.example/connections/client-metadata.json");
    assert_eq!(document["redirect_uris"], json!(["https://way.example/connections/callback"]));
    app.finish().await;
}
