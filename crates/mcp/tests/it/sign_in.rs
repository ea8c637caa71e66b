//! Checks when a token is required, the challenges, the user that a token identifies, and the rate limit of that user: RS-1
//! to RS-8 and RS-11 of docs/sign-in.md.

use http::{Method, StatusCode};
use serde_json::{Value, json};
use waypost_core::scope::{Scope, Scopes};
use waypost_core::server::{AuthType, SignInPolicy};
use waypost_mcp::bearer::Bearer;
use waypost_mcp::limits::LimitOptions;
use waypost_ops::servers::ServerSettings;

use crate::fixture::{CHALLENGE, Fixture, TestRequest, WALKTHROUGH, challenge, fixture, limited};

waypost_testkit::both!(fixture =>
    rs1_an_invalid_token_is_401_before_any_other_check,
    rs1_a_missing_token_is_401_where_one_is_required,
    rs1_on_connect_everything_needs_a_token,
    auto_asks_clients_that_would_fail_later_on_connect,
    auto_asks_the_same_client_in_its_session,
    rs1_a_batch_needs_a_token_when_one_of_its_calls_does,
    rs4_a_token_in_the_url_is_rejected,
    rs7_a_missing_scope_is_403,
    rs8_a_session_is_valid_for_its_user_only,
    rs8_only_the_token_identifies_the_user,
    progress_from_before_sign_in_is_joined,
    rejections_are_recorded,
);

fn missing() -> Bearer {
    Bearer::Missing(challenge())
}

fn tour() -> Value {
    json!({ "walkthrough_id": WALKTHROUGH })
}

/// Requests that must not be examined before the token is checked.
fn anything() -> Vec<TestRequest> {
    let mut all = vec![
        TestRequest::post(""),
        TestRequest::post("nonsense"),
        TestRequest::post("[]"),
        TestRequest::post(r#"{"jsonrpc":"2.0","id":7,"method":"unknown"}"#),
        TestRequest::post("x".repeat(2 * 1024 * 1024)),
        TestRequest::modern("tools/list", json!({})),
        TestRequest::modern("server/discover", json!({})),
        TestRequest::modern("initialize", json!({})),
        TestRequest::legacy("initialize", json!({ "protocolVersion": "2025-06-18" })),
        TestRequest::tool("select_walkthrough", tour()),
        TestRequest::tool("list_walkthroughs", json!({})),
        TestRequest::tool("unknown", json!({})),
    ];
    for method in [Method::GET, Method::DELETE] {
        all.push(TestRequest { method, ..TestRequest::post("") });
    }
    all
}

async fn rs1_an_invalid_token_is_401_before_any_other_check(fixture: Fixture) {
    for sign_in in [SignInPolicy::WhenNeeded, SignInPolicy::OnConnect] {
        fixture.sign_in(sign_in).await;
        for request in anything() {
            let (shown, has_id) =
                (request.body.chars().take(99).collect::<String>(), request.body.contains("\"id\":7"));
            let response = fixture.send(&Bearer::Invalid(challenge()), request).await;
            assert_eq!(response.status, StatusCode::UNAUTHORIZED, "{shown}");
            assert_eq!(response.challenge(), Some(format!("{CHALLENGE}, error=\"invalid_token\"").as_str()));
            assert_eq!(response.body["error"]["code"], -31_401);
            assert!(response.body["error"].get("data").is_none() && response.body.get("result").is_none());
            assert_eq!(response.body.get("id"), has_id.then(|| json!(7)).as_ref(), "{shown}");
        }
    }
}

async fn rs1_a_missing_token_is_401_where_one_is_required(fixture: Fixture) {
    let step = |id: &str| json!({ "uri": format!("walkthrough://wt_any/steps/{id}") });
    let needed = [
        TestRequest::tool("select_walkthrough", tour()),
        TestRequest::tool("next_walkthrough_step", json!({})),
        TestRequest::tool("get_walkthrough_status", tour()),
        TestRequest::tool("reset_walkthrough_progress", tour()),
        TestRequest::tool("get_walkthrough_details", tour()),
        TestRequest::tool("get_current_step", tour()),
        TestRequest::tool("complete_step", json!({ "walkthrough_id": WALKTHROUGH, "step_id": "ws_1" })),
        TestRequest::tool("get_walkthrough_steps", tour()),
        // Also with invalid arguments or an unknown walkthrough, which must not be revealed.
        TestRequest::tool("select_walkthrough", json!({ "walkthrough_id": 7, "progress_handle": "wph_1" })),
        TestRequest::modern("resources/read", step("ws_1")),
        TestRequest::legacy("tools/call", json!({ "name": "next_walkthrough_step" })),
        TestRequest { tracking_id: Some("ann"), ..TestRequest::tool("select_walkthrough", tour()) },
    ];
    for request in needed {
        let shown = request.body.clone();
        let response = fixture.send(&missing(), request).await;
        assert_eq!((response.status, response.challenge()), (StatusCode::UNAUTHORIZED, Some(CHALLENGE)), "{shown}");
        assert_eq!((&response.body["id"], &response.body["error"]["code"]), (&json!(7), &json!(-31_401)), "{shown}");
    }
    let anonymous = [
        (
            TestRequest::legacy(
                "initialize",
                json!({ "protocolVersion": "2025-06-18", "capabilities": {},
            "clientInfo": { "name": "t", "version": "1" } }),
            ),
            200,
        ),
        (TestRequest::post(r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#), 202),
        (TestRequest::legacy("ping", json!({})), 200),
        (TestRequest::modern("server/discover", json!({})), 200),
        (TestRequest::modern("tools/list", json!({})), 200),
        (TestRequest::modern("prompts/list", json!({})), 200),
        (TestRequest::modern("prompts/get", json!({ "name": WALKTHROUGH })), 200),
        (TestRequest::modern("resources/list", json!({})), 200),
        (TestRequest::modern("resources/templates/list", json!({})), 200),
        (TestRequest::modern("unknown/method", json!({})), 404),
        (TestRequest::post("nonsense"), 400),
        (TestRequest { method: Method::GET, ..TestRequest::post("") }, 405),
    ];
    for (request, status) in anonymous {
        let shown = request.body.clone();
        let response = fixture.send(&missing(), request).await;
        assert_eq!((response.status.as_u16(), response.challenge()), (status, None), "{shown}: {response:?}");
    }
    let listed = fixture.send(&missing(), TestRequest::tool("list_walkthroughs", json!({}))).await;
    assert_eq!(listed.structured()["walkthroughs"][0]["status"], "not_started");
    let unknown = fixture.send(&missing(), TestRequest::tool("unknown", json!({}))).await;
    assert_eq!((unknown.challenge(), &unknown.body["error"]["code"]), (None, &json!(-32_602)));
}

async fn rs1_on_connect_everything_needs_a_token(fixture: Fixture) {
    fixture.sign_in(SignInPolicy::OnConnect).await;
    for request in anything() {
        let shown: String = request.body.chars().take(99).collect();
        let response = fixture.send(&missing(), request).await;
        assert_eq!((response.status, response.challenge()), (StatusCode::UNAUTHORIZED, Some(CHALLENGE)), "{shown}");
    }
    let anna = fixture.token("anna", Scopes::default()).await;
    let listed = fixture.send(&anna, TestRequest::modern("tools/list", json!({}))).await;
    assert_eq!(listed.status, StatusCode::OK);
    let refused = fixture.send(&anna, TestRequest { method: Method::GET, ..TestRequest::post("") }).await;
    assert_eq!(refused.status, StatusCode::METHOD_NOT_ALLOWED);
}

fn initialize(name: &str, version: &str) -> TestRequest {
    let info = json!({ "name": name, "version": version });
    TestRequest::legacy(
        "initialize",
        json!({ "protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": info }),
    )
}

async fn auto_asks_clients_that_would_fail_later_on_connect(fixture: Fixture) {
    fixture.sign_in(SignInPolicy::Auto).await;
    let modern = |name: &str| {
        let mut request = TestRequest::modern("tools/list", json!({}));
        let mut body: Value = serde_json::from_str(&request.body).unwrap();
        body["params"]["_meta"]["io.modelcontextprotocol/clientInfo"] = json!({ "name": name, "version": "1" });
        request.body = body.to_string();
        request
    };
    for (name, version) in [
        ("codex-mcp-client", "0.169.0"),
        ("gemini-cli-mcp-client", "0.61.0"),
        ("opencode", "1.18.33"),
        ("mcp-remote-fallback-test", "0.0.0"),
        ("claude-ai (via mcp-remote 0.1.37)", "0.1.0"),
    ] {
        let response = fixture.send(&missing(), initialize(name, version)).await;
        assert_eq!((response.status, response.challenge()), (StatusCode::UNAUTHORIZED, Some(CHALLENGE)), "{name}");
    }
    assert_eq!(fixture.send(&missing(), modern("opencode")).await.status, StatusCode::UNAUTHORIZED);
    let anna = fixture.token("anna", Scopes::default()).await;
    assert_eq!(fixture.send(&anna, initialize("opencode", "1.18.33")).await.status, StatusCode::OK);
    assert_eq!(fixture.send(&anna, modern("opencode")).await.status, StatusCode::OK);

    // All other clients are asked to sign in only when a token is needed.
    let newer = initialize("mcp-remote-fallback-test", "0.0.0").header("mcp-method", "initialize");
    assert_eq!(fixture.send(&missing(), newer).await.status, StatusCode::OK, "mcp-remote 0.15.1");
    for name in ["claude-code", "claude-ai (via mcp-remote 0.15.1)", "Visual Studio Code", ""] {
        assert_eq!(fixture.send(&missing(), initialize(name, "1")).await.status, StatusCode::OK, "{name}");
        assert_eq!(fixture.send(&missing(), modern(name)).await.status, StatusCode::OK, "{name}");
    }
    assert_eq!(fixture.send(&missing(), TestRequest::modern("tools/list", json!({}))).await.status, StatusCode::OK);
    let needed = fixture.send(&missing(), TestRequest::tool("select_walkthrough", tour())).await;
    assert_eq!((needed.status, needed.challenge()), (StatusCode::UNAUTHORIZED, Some(CHALLENGE)));
}

async fn auto_asks_the_same_client_in_its_session(fixture: Fixture) {
    fixture.sign_in(SignInPolicy::WhenNeeded).await;
    let session = |name: &'static str| {
        let fixture = &fixture;
        async move {
            let response = fixture.send(&missing(), initialize(name, "0.169.0")).await;
            response.headers["mcp-session-id"].to_str().unwrap().to_owned()
        }
    };
    let (codex, other) = (session("codex-mcp-client").await, session("claude-code").await);
    let probe = session("mcp-remote-fallback-test").await;
    fixture.sign_in(SignInPolicy::Auto).await;
    let list = |session: &str| TestRequest::legacy("tools/list", json!({})).header("mcp-session-id", session);
    let listen =
        |session: &str| TestRequest { method: Method::GET, ..TestRequest::post("").header("mcp-session-id", session) };
    let response = fixture.send(&missing(), listen(&probe)).await;
    assert_eq!(response.status, StatusCode::METHOD_NOT_ALLOWED, "a newer mcp-remote has passed as well");
    for request in [list(&codex), listen(&codex)] {
        assert_eq!(fixture.send(&missing(), request).await.status, StatusCode::UNAUTHORIZED);
    }
    assert_eq!(fixture.send(&missing(), list(&other)).await.status, StatusCode::OK);
    assert_eq!(fixture.send(&missing(), listen(&other)).await.status, StatusCode::METHOD_NOT_ALLOWED);
    let forged = format!("{codex}A");
    assert_eq!(fixture.send(&missing(), list(&forged)).await.status, StatusCode::NOT_FOUND);
    let anna = fixture.token("anna", Scopes::default()).await;
    assert_eq!(fixture.send(&anna, list(&codex)).await.status, StatusCode::OK);
}

async fn rs1_a_batch_needs_a_token_when_one_of_its_calls_does(fixture: Fixture) {
    let call = |id: u32, name: &str| json!({ "jsonrpc": "2.0", "id": id, "method": "tools/call", "params": { "name": name, "arguments": tour() } });
    let list = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/list" });
    let mixed = json!([list, call(2, "select_walkthrough")]).to_string();
    let response = fixture.send(&missing(), TestRequest::post(mixed.clone())).await;
    assert_eq!((response.status, response.challenge()), (StatusCode::UNAUTHORIZED, Some(CHALLENGE)));
    assert!(response.body.is_object(), "one response for the whole batch: {response:?}");
    let harmless = fixture.send(&missing(), TestRequest::post(json!([list]).to_string())).await;
    assert_eq!((harmless.status, harmless.body.as_array().map(Vec::len)), (StatusCode::OK, Some(1)));
    let anna = fixture.token("anna", Scopes::default()).await;
    let response = fixture.send(&anna, TestRequest::post(mixed)).await;
    assert_eq!(response.body[1]["result"]["structuredContent"]["step"]["position"], 1, "{response:?}");
}

async fn rs4_a_token_in_the_url_is_rejected(fixture: Fixture) {
    let anna = fixture.token("anna", Scopes::default()).await;
    for bearer in [missing(), Bearer::Invalid(challenge()), anna.clone()] {
        for uri in ["/mcp?access_token=abc", "/mcp?a=b&access_token=abc", "/mcp?access_token"] {
            let response =
                fixture.send(&bearer, TestRequest { uri, ..TestRequest::modern("tools/list", json!({})) }).await;
            assert_eq!(response.status, StatusCode::UNAUTHORIZED);
            assert_eq!(response.challenge(), Some(format!("{CHALLENGE}, error=\"invalid_request\"").as_str()));
        }
    }
    let harmless = TestRequest { uri: "/mcp?token=abc", ..TestRequest::modern("tools/list", json!({})) };
    assert_eq!(fixture.send(&anna, harmless).await.status, StatusCode::OK);
}

async fn rs7_a_missing_scope_is_403(fixture: Fixture) {
    let reader = fixture.token("reader", Scopes::from(Scope::WalkRead)).await;
    for tool in ["select_walkthrough", "next_walkthrough_step", "reset_walkthrough_progress", "complete_step"] {
        let response = fixture.send(&reader, TestRequest::tool(tool, tour())).await;
        assert_eq!(response.status, StatusCode::FORBIDDEN, "{tool}");
        assert_eq!(response.challenge(), Some(format!("{CHALLENGE}, error=\"insufficient_scope\"").as_str()));
        assert_eq!((&response.body["id"], &response.body["error"]["code"]), (&json!(7), &json!(-31_403)));
    }
    for tool in ["get_walkthrough_status", "get_walkthrough_details", "get_current_step", "get_walkthrough_steps"] {
        let response = fixture.send(&reader, TestRequest::tool(tool, tour())).await;
        assert!(response.structured().get("error").is_none(), "{tool}: {response:?}");
    }
    let all = fixture.token("all", Scopes::default()).await;
    let read = fixture.send(&all, TestRequest::tool("get_walkthrough_status", tour())).await;
    assert_eq!(read.structured()["progress"]["status"], "not_started", "walk includes walk:read");
}

async fn session_of(fixture: &Fixture, bearer: &Bearer) -> String {
    let params = json!({ "protocolVersion": "2025-06-18", "capabilities": {},
        "clientInfo": { "name": "t", "version": "1" } });
    let response = fixture.send(bearer, TestRequest::legacy("initialize", params)).await;
    response.headers["mcp-session-id"].to_str().unwrap().to_owned()
}

async fn rs8_a_session_is_valid_for_its_user_only(fixture: Fixture) {
    let (anna, bert) = (fixture.token("anna", Scopes::default()).await, fixture.token("bert", Scopes::default()).await);
    let anna_session = session_of(&fixture, &anna).await;
    let list = |session: &str| TestRequest::legacy("tools/list", json!({})).header("mcp-session-id", session);
    assert_eq!(fixture.send(&anna, list(&anna_session)).await.status, StatusCode::OK);
    assert_eq!(fixture.send(&bert, list(&anna_session)).await.status, StatusCode::NOT_FOUND);
    let batch = TestRequest::post(r#"[{"jsonrpc":"2.0","id":1,"method":"tools/list"}]"#);
    assert_eq!(fixture.send(&bert, batch.header("mcp-session-id", &anna_session)).await.status, StatusCode::NOT_FOUND);
    // Without a token, the session allows only what needs no token.
    let call = TestRequest::legacy("tools/call", json!({ "name": "get_walkthrough_status", "arguments": tour() }));
    assert_eq!(
        fixture.send(&missing(), call.header("mcp-session-id", &anna_session)).await.status,
        StatusCode::UNAUTHORIZED
    );
    let unbound_session = session_of(&fixture, &missing()).await;
    for token in [&anna, &bert] {
        assert_eq!(
            fixture.send(token, list(&unbound_session)).await.status,
            StatusCode::OK,
            "connected before signing in"
        );
    }
}

async fn rs8_only_the_token_identifies_the_user(fixture: Fixture) {
    let (anna, bert) = (fixture.token("anna", Scopes::default()).await, fixture.token("bert", Scopes::default()).await);
    let begun = fixture.send(&anna, TestRequest::tool("select_walkthrough", tour())).await;
    assert_eq!(
        (&begun.structured()["step"]["position"], &begun.structured()["progress_handle"]),
        (&json!(1), &json!(null))
    );
    assert!(!begun.body["result"]["content"][0]["text"].as_str().unwrap().contains("wph_"));
    let next = fixture.send(&anna, TestRequest::tool("next_walkthrough_step", json!({}))).await;
    assert_eq!(next.structured()["step"]["position"], 2);
    // The token alone identifies the user, regardless of the client, personal URL or handle.
    let elsewhere = TestRequest { tracking_id: Some("bert"), ..TestRequest::tool("get_walkthrough_status", tour()) };
    assert_eq!(fixture.send(&anna, elsewhere).await.structured()["progress"]["completed"], 1);
    let shown = json!({ "walkthrough_id": WALKTHROUGH, "progress_handle": "wph_of_somebody" });
    assert_eq!(
        fixture.send(&anna, TestRequest::tool("get_walkthrough_status", shown)).await.structured()["progress"]["completed"],
        1
    );
    let other = TestRequest { tracking_id: Some("anna"), ..TestRequest::tool("get_walkthrough_status", tour()) };
    assert_eq!(fixture.send(&bert, other).await.structured()["progress"]["status"], "not_started");
    let listed = fixture.send(&anna, TestRequest::tool("list_walkthroughs", json!({}))).await;
    assert_eq!(listed.structured()["walkthroughs"][0]["progress_percent"], 33);
    let id = listed.structured()["walkthroughs"][0]["id"].as_str().unwrap().to_owned();
    let step = begun.structured()["step"]["id"].as_str().unwrap();
    let uri = json!({ "uri": format!("walkthrough://{id}/steps/{step}") });
    let read = fixture.send(&anna, TestRequest::modern("resources/read", uri.clone())).await;
    assert_eq!(read.body["result"]["cacheScope"], "private", "{read:?}");
    assert!(fixture.send(&bert, TestRequest::modern("resources/read", uri)).await.body["error"].is_object());
}

async fn progress_from_before_sign_in_is_joined(fixture: Fixture) {
    fixture.set(ServerSettings { auth_type: Some(AuthType::None), ..ServerSettings::default() }).await;
    let session = session_of(&fixture, &Bearer::NotRequired).await;
    let with_session = |name: &str, arguments: Value| {
        TestRequest::legacy("tools/call", json!({ "name": name, "arguments": arguments }))
            .header("mcp-session-id", &session)
    };
    fixture.send(&Bearer::NotRequired, with_session("select_walkthrough", tour())).await;
    fixture.send(&Bearer::NotRequired, with_session("next_walkthrough_step", json!({}))).await;
    fixture.set(ServerSettings { auth_type: Some(AuthType::PlatformOauth), ..ServerSettings::default() }).await;
    let refused = fixture.send(&missing(), with_session("next_walkthrough_step", json!({}))).await;
    assert_eq!(refused.status, StatusCode::UNAUTHORIZED, "a session no longer identifies a user");
    let (anna, bert) = (fixture.token("anna", Scopes::default()).await, fixture.token("bert", Scopes::default()).await);
    // The client signs in and repeats the call.
    let joined = fixture.send(&anna, with_session("next_walkthrough_step", json!({}))).await;
    assert_eq!(joined.structured()["step"]["position"], 3, "{joined:?}");
    let other = fixture.send(&bert, with_session("get_walkthrough_status", tour())).await;
    assert_eq!(other.structured()["progress"]["status"], "not_started");
}

async fn rejections_are_recorded(fixture: Fixture) {
    let reader = fixture.token("reader", Scopes::from(Scope::WalkRead)).await;
    for bearer in [missing(), Bearer::Invalid(challenge()), reader] {
        fixture.send(&bearer, TestRequest::tool("select_walkthrough", tour())).await;
    }
    fixture.send(&missing(), TestRequest::modern("tools/list", json!({}))).await;
    assert_eq!(fixture.rejections().await, [("insufficient_scope".to_owned(), 1), ("unauthorized".to_owned(), 2)]);
}

/// RS-11: requests with a token count against the user; rejected requests count against the IP address.
#[tokio::test]
async fn rs11_a_signed_in_user_has_a_limit_of_their_own() {
    let folder = waypost_testkit::folder();
    let limits = LimitOptions { per_caller: 1, burst: 3, ..LimitOptions::OFF };
    let fixture = limited(&waypost_testkit::sqlite_url(&folder), limits).await;
    let (anna, bert) = (fixture.token("anna", Scopes::default()).await, fixture.token("bert", Scopes::default()).await);
    let anything = |tracking_id| TestRequest { tracking_id, ..TestRequest::tool("get_walkthrough_status", tour()) };
    // The bucket is refilled by one request per second. Requests without a pause empty it anyway.
    let mut statuses = Vec::new();
    while statuses.last() != Some(&429) && statuses.len() < 50 {
        let tracking_id = ["a", "b", "c"][statuses.len() % 3];
        statuses.push(fixture.send(&anna, anything(Some(tracking_id))).await.status.as_u16());
    }
    assert!(
        statuses.len() > 3 && statuses.ends_with(&[200, 429]),
        "a personal URL does not change the user: {statuses:?}"
    );
    assert_eq!(fixture.send(&bert, anything(Some("a"))).await.status, StatusCode::OK);
    statuses.clear();
    while statuses.last() != Some(&429) && statuses.len() < 50 {
        statuses.push(fixture.send(&Bearer::Invalid(challenge()), anything(None)).await.status.as_u16());
    }
    assert!(statuses.len() > 3 && statuses.ends_with(&[401, 429]), "{statuses:?}");
}
