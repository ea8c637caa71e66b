//! When a token is asked for, how, and whom it names: RS-1 to RS-8 of docs/sign-in.md.

use http::{Method, StatusCode};
use serde_json::{Value, json};
use waypost_core::scope::{Scope, Scopes};
use waypost_core::server::{AuthType, SignIn};
use waypost_mcp::bearer::Bearer;
use waypost_mcp::limits::LimitOptions;
use waypost_ops::servers::ServerSettings;

use crate::stage::{Asked, CHALLENGE, Stage, WALKTHROUGH, challenge, limited, stage};

waypost_testkit::both!(stage =>
    rs1_an_invalid_token_is_401_before_everything,
    rs1_a_missing_token_is_401_exactly_where_it_is_needed,
    rs1_on_connect_everything_needs_a_token,
    auto_asks_clients_that_fail_later_when_they_connect,
    auto_asks_the_same_client_in_its_session,
    rs1_a_batch_needs_a_token_when_one_of_its_calls_does,
    rs4_a_token_in_the_address_is_refused,
    rs7_a_scope_that_is_missing_is_403,
    rs8_a_session_is_for_whom_it_was_made,
    rs8_only_the_token_names_the_user,
    what_was_done_before_signing_in_is_joined,
    refusals_are_recorded,
);

fn missing() -> Bearer {
    Bearer::Missing(challenge())
}

fn tour() -> Value {
    json!({ "walkthrough_id": WALKTHROUGH })
}

/// Requests that no server should look into before it knows who asks.
fn anything() -> Vec<Asked> {
    let mut all = vec![
        Asked::post(""),
        Asked::post("nonsense"),
        Asked::post("[]"),
        Asked::post(r#"{"jsonrpc":"2.0","id":7,"method":"unknown"}"#),
        Asked::post("x".repeat(2 * 1024 * 1024)),
        Asked::modern("tools/list", json!({})),
        Asked::modern("server/discover", json!({})),
        Asked::modern("initialize", json!({})),
        Asked::legacy("initialize", json!({ "protocolVersion": "2025-06-18" })),
        Asked::tool("select_walkthrough", tour()),
        Asked::tool("list_walkthroughs", json!({})),
        Asked::tool("unknown", json!({})),
    ];
    for method in [Method::GET, Method::DELETE] {
        all.push(Asked { method, ..Asked::post("") });
    }
    all
}

async fn rs1_an_invalid_token_is_401_before_everything(stage: Stage) {
    for sign_in in [SignIn::WhenNeeded, SignIn::OnConnect] {
        stage.sign_in(sign_in).await;
        for asked in anything() {
            let (shown, has_id) = (asked.body.chars().take(99).collect::<String>(), asked.body.contains("\"id\":7"));
            let answer = stage.send(&Bearer::Invalid(challenge()), asked).await;
            assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{shown}");
            assert_eq!(answer.challenge(), Some(format!("{CHALLENGE}, error=\"invalid_token\"").as_str()));
            assert_eq!(answer.body["error"]["code"], -31_401);
            assert!(answer.body["error"].get("data").is_none() && answer.body.get("result").is_none());
            assert_eq!(answer.body.get("id"), has_id.then(|| json!(7)).as_ref(), "{shown}");
        }
    }
}

async fn rs1_a_missing_token_is_401_exactly_where_it_is_needed(stage: Stage) {
    let step = |id: &str| json!({ "uri": format!("walkthrough://wt_any/steps/{id}") });
    let needed = [
        Asked::tool("select_walkthrough", tour()),
        Asked::tool("next_walkthrough_step", json!({})),
        Asked::tool("get_walkthrough_status", tour()),
        Asked::tool("reset_walkthrough_progress", tour()),
        Asked::tool("get_walkthrough_details", tour()),
        Asked::tool("get_current_step", tour()),
        Asked::tool("complete_step", json!({ "walkthrough_id": WALKTHROUGH, "step_id": "ws_1" })),
        Asked::tool("get_walkthrough_steps", tour()),
        // Also with arguments that are wrong, or of a walkthrough that is not there: nobody learns that.
        Asked::tool("select_walkthrough", json!({ "walkthrough_id": 7, "progress_handle": "wph_1" })),
        Asked::modern("resources/read", step("ws_1")),
        Asked::legacy("tools/call", json!({ "name": "next_walkthrough_step" })),
        Asked { tracking_id: Some("ann"), ..Asked::tool("select_walkthrough", tour()) },
    ];
    for asked in needed {
        let shown = asked.body.clone();
        let answer = stage.send(&missing(), asked).await;
        assert_eq!((answer.status, answer.challenge()), (StatusCode::UNAUTHORIZED, Some(CHALLENGE)), "{shown}");
        assert_eq!((&answer.body["id"], &answer.body["error"]["code"]), (&json!(7), &json!(-31_401)), "{shown}");
    }
    let anonymous = [
        (
            Asked::legacy(
                "initialize",
                json!({ "protocolVersion": "2025-06-18", "capabilities": {},
            "clientInfo": { "name": "t", "version": "1" } }),
            ),
            200,
        ),
        (Asked::post(r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#), 202),
        (Asked::legacy("ping", json!({})), 200),
        (Asked::modern("server/discover", json!({})), 200),
        (Asked::modern("tools/list", json!({})), 200),
        (Asked::modern("prompts/list", json!({})), 200),
        (Asked::modern("prompts/get", json!({ "name": WALKTHROUGH })), 200),
        (Asked::modern("resources/list", json!({})), 200),
        (Asked::modern("resources/templates/list", json!({})), 200),
        (Asked::modern("unknown/method", json!({})), 404),
        (Asked::post("nonsense"), 400),
        (Asked { method: Method::GET, ..Asked::post("") }, 405),
    ];
    for (asked, status) in anonymous {
        let shown = asked.body.clone();
        let answer = stage.send(&missing(), asked).await;
        assert_eq!((answer.status.as_u16(), answer.challenge()), (status, None), "{shown}: {answer:?}");
    }
    let listed = stage.send(&missing(), Asked::tool("list_walkthroughs", json!({}))).await;
    assert_eq!(listed.structured()["walkthroughs"][0]["status"], "not_started");
    let unknown = stage.send(&missing(), Asked::tool("unknown", json!({}))).await;
    assert_eq!((unknown.challenge(), &unknown.body["error"]["code"]), (None, &json!(-32_602)));
}

async fn rs1_on_connect_everything_needs_a_token(stage: Stage) {
    stage.sign_in(SignIn::OnConnect).await;
    for asked in anything() {
        let shown: String = asked.body.chars().take(99).collect();
        let answer = stage.send(&missing(), asked).await;
        assert_eq!((answer.status, answer.challenge()), (StatusCode::UNAUTHORIZED, Some(CHALLENGE)), "{shown}");
    }
    let anna = stage.token("anna", Scopes::default()).await;
    let listed = stage.send(&anna, Asked::modern("tools/list", json!({}))).await;
    assert_eq!(listed.status, StatusCode::OK);
    let refused = stage.send(&anna, Asked { method: Method::GET, ..Asked::post("") }).await;
    assert_eq!(refused.status, StatusCode::METHOD_NOT_ALLOWED);
}

fn initialize(name: &str, version: &str) -> Asked {
    let info = json!({ "name": name, "version": version });
    Asked::legacy("initialize", json!({ "protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": info }))
}

async fn auto_asks_clients_that_fail_later_when_they_connect(stage: Stage) {
    stage.sign_in(SignIn::Auto).await;
    let modern = |name: &str| {
        let mut asked = Asked::modern("tools/list", json!({}));
        let mut body: Value = serde_json::from_str(&asked.body).unwrap();
        body["params"]["_meta"]["io.modelcontextprotocol/clientInfo"] = json!({ "name": name, "version": "1" });
        asked.body = body.to_string();
        asked
    };
    for (name, version) in [
        ("codex-mcp-client", "0.169.0"),
        ("gemini-cli-mcp-client", "0.61.0"),
        ("opencode", "1.18.33"),
        ("mcp-remote-fallback-test", "0.0.0"),
        ("claude-ai (via mcp-remote 0.1.37)", "0.1.0"),
    ] {
        let answer = stage.send(&missing(), initialize(name, version)).await;
        assert_eq!((answer.status, answer.challenge()), (StatusCode::UNAUTHORIZED, Some(CHALLENGE)), "{name}");
    }
    assert_eq!(stage.send(&missing(), modern("opencode")).await.status, StatusCode::UNAUTHORIZED);
    let anna = stage.token("anna", Scopes::default()).await;
    assert_eq!(stage.send(&anna, initialize("opencode", "1.18.33")).await.status, StatusCode::OK);
    assert_eq!(stage.send(&anna, modern("opencode")).await.status, StatusCode::OK);

    // Every other client is asked when it is needed.
    let newer = initialize("mcp-remote-fallback-test", "0.0.0").header("mcp-method", "initialize");
    assert_eq!(stage.send(&missing(), newer).await.status, StatusCode::OK, "mcp-remote 0.15.1");
    for name in ["claude-code", "claude-ai (via mcp-remote 0.15.1)", "Visual Studio Code", ""] {
        assert_eq!(stage.send(&missing(), initialize(name, "1")).await.status, StatusCode::OK, "{name}");
        assert_eq!(stage.send(&missing(), modern(name)).await.status, StatusCode::OK, "{name}");
    }
    assert_eq!(stage.send(&missing(), Asked::modern("tools/list", json!({}))).await.status, StatusCode::OK);
    let needed = stage.send(&missing(), Asked::tool("select_walkthrough", tour())).await;
    assert_eq!((needed.status, needed.challenge()), (StatusCode::UNAUTHORIZED, Some(CHALLENGE)));
}

async fn auto_asks_the_same_client_in_its_session(stage: Stage) {
    stage.sign_in(SignIn::WhenNeeded).await;
    let session = |name: &'static str| {
        let stage = &stage;
        async move {
            let answer = stage.send(&missing(), initialize(name, "0.169.0")).await;
            answer.headers["mcp-session-id"].to_str().unwrap().to_owned()
        }
    };
    let (codex, other) = (session("codex-mcp-client").await, session("claude-code").await);
    let probe = session("mcp-remote-fallback-test").await;
    stage.sign_in(SignIn::Auto).await;
    let list = |session: &str| Asked::legacy("tools/list", json!({})).header("mcp-session-id", session);
    let listen = |session: &str| Asked { method: Method::GET, ..Asked::post("").header("mcp-session-id", session) };
    let answer = stage.send(&missing(), listen(&probe)).await;
    assert_eq!(answer.status, StatusCode::METHOD_NOT_ALLOWED, "a newer mcp-remote has passed as well");
    for asked in [list(&codex), listen(&codex)] {
        assert_eq!(stage.send(&missing(), asked).await.status, StatusCode::UNAUTHORIZED);
    }
    assert_eq!(stage.send(&missing(), list(&other)).await.status, StatusCode::OK);
    assert_eq!(stage.send(&missing(), listen(&other)).await.status, StatusCode::METHOD_NOT_ALLOWED);
    let forged = format!("{codex}A");
    assert_eq!(stage.send(&missing(), list(&forged)).await.status, StatusCode::NOT_FOUND);
    let anna = stage.token("anna", Scopes::default()).await;
    assert_eq!(stage.send(&anna, list(&codex)).await.status, StatusCode::OK);
}

async fn rs1_a_batch_needs_a_token_when_one_of_its_calls_does(stage: Stage) {
    let call = |id: u32, name: &str| json!({ "jsonrpc": "2.0", "id": id, "method": "tools/call", "params": { "name": name, "arguments": tour() } });
    let list = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/list" });
    let mixed = json!([list, call(2, "select_walkthrough")]).to_string();
    let answer = stage.send(&missing(), Asked::post(mixed.clone())).await;
    assert_eq!((answer.status, answer.challenge()), (StatusCode::UNAUTHORIZED, Some(CHALLENGE)));
    assert!(answer.body.is_object(), "one answer for all: {answer:?}");
    let harmless = stage.send(&missing(), Asked::post(json!([list]).to_string())).await;
    assert_eq!((harmless.status, harmless.body.as_array().map(Vec::len)), (StatusCode::OK, Some(1)));
    let anna = stage.token("anna", Scopes::default()).await;
    let answer = stage.send(&anna, Asked::post(mixed)).await;
    assert_eq!(answer.body[1]["result"]["structuredContent"]["step"]["position"], 1, "{answer:?}");
}

async fn rs4_a_token_in_the_address_is_refused(stage: Stage) {
    let anna = stage.token("anna", Scopes::default()).await;
    for bearer in [missing(), Bearer::Invalid(challenge()), anna.clone()] {
        for uri in ["/mcp?access_token=abc", "/mcp?a=b&access_token=abc", "/mcp?access_token"] {
            let answer = stage.send(&bearer, Asked { uri, ..Asked::modern("tools/list", json!({})) }).await;
            assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
            assert_eq!(answer.challenge(), Some(format!("{CHALLENGE}, error=\"invalid_request\"").as_str()));
        }
    }
    let harmless = Asked { uri: "/mcp?token=abc", ..Asked::modern("tools/list", json!({})) };
    assert_eq!(stage.send(&anna, harmless).await.status, StatusCode::OK);
}

async fn rs7_a_scope_that_is_missing_is_403(stage: Stage) {
    let reader = stage.token("reader", Scopes::from(Scope::WalkRead)).await;
    for tool in ["select_walkthrough", "next_walkthrough_step", "reset_walkthrough_progress", "complete_step"] {
        let answer = stage.send(&reader, Asked::tool(tool, tour())).await;
        assert_eq!(answer.status, StatusCode::FORBIDDEN, "{tool}");
        assert_eq!(answer.challenge(), Some(format!("{CHALLENGE}, error=\"insufficient_scope\"").as_str()));
        assert_eq!((&answer.body["id"], &answer.body["error"]["code"]), (&json!(7), &json!(-31_403)));
    }
    for tool in ["get_walkthrough_status", "get_walkthrough_details", "get_current_step", "get_walkthrough_steps"] {
        let answer = stage.send(&reader, Asked::tool(tool, tour())).await;
        assert!(answer.structured().get("error").is_none(), "{tool}: {answer:?}");
    }
    let all = stage.token("all", Scopes::default()).await;
    let read = stage.send(&all, Asked::tool("get_walkthrough_status", tour())).await;
    assert_eq!(read.structured()["progress"]["status"], "not_started", "walk includes walk:read");
}

async fn session_of(stage: &Stage, bearer: &Bearer) -> String {
    let params = json!({ "protocolVersion": "2025-06-18", "capabilities": {},
        "clientInfo": { "name": "t", "version": "1" } });
    let answer = stage.send(bearer, Asked::legacy("initialize", params)).await;
    answer.headers["mcp-session-id"].to_str().unwrap().to_owned()
}

async fn rs8_a_session_is_for_whom_it_was_made(stage: Stage) {
    let (anna, bert) = (stage.token("anna", Scopes::default()).await, stage.token("bert", Scopes::default()).await);
    let of_anna = session_of(&stage, &anna).await;
    let list = |session: &str| Asked::legacy("tools/list", json!({})).header("mcp-session-id", session);
    assert_eq!(stage.send(&anna, list(&of_anna)).await.status, StatusCode::OK);
    assert_eq!(stage.send(&bert, list(&of_anna)).await.status, StatusCode::NOT_FOUND);
    let batch = Asked::post(r#"[{"jsonrpc":"2.0","id":1,"method":"tools/list"}]"#);
    assert_eq!(stage.send(&bert, batch.header("mcp-session-id", &of_anna)).await.status, StatusCode::NOT_FOUND);
    // Without a token it is good for what anybody may do, and for nothing else.
    let call = Asked::legacy("tools/call", json!({ "name": "get_walkthrough_status", "arguments": tour() }));
    assert_eq!(stage.send(&missing(), call.header("mcp-session-id", &of_anna)).await.status, StatusCode::UNAUTHORIZED);
    let of_nobody = session_of(&stage, &missing()).await;
    for token in [&anna, &bert] {
        assert_eq!(stage.send(token, list(&of_nobody)).await.status, StatusCode::OK, "connected before signing in");
    }
}

async fn rs8_only_the_token_names_the_user(stage: Stage) {
    let (anna, bert) = (stage.token("anna", Scopes::default()).await, stage.token("bert", Scopes::default()).await);
    let begun = stage.send(&anna, Asked::tool("select_walkthrough", tour())).await;
    assert_eq!(
        (&begun.structured()["step"]["position"], &begun.structured()["progress_handle"]),
        (&json!(1), &json!(null))
    );
    assert!(!begun.body["result"]["content"][0]["text"].as_str().unwrap().contains("wph_"));
    let next = stage.send(&anna, Asked::tool("next_walkthrough_step", json!({}))).await;
    assert_eq!(next.structured()["step"]["position"], 2);
    // Another client, a personal URL, a handle: with the same token it is the same user, with another one it is not.
    let elsewhere = Asked { tracking_id: Some("bert"), ..Asked::tool("get_walkthrough_status", tour()) };
    assert_eq!(stage.send(&anna, elsewhere).await.structured()["progress"]["completed"], 1);
    let shown = json!({ "walkthrough_id": WALKTHROUGH, "progress_handle": "wph_of_somebody" });
    assert_eq!(
        stage.send(&anna, Asked::tool("get_walkthrough_status", shown)).await.structured()["progress"]["completed"],
        1
    );
    let other = Asked { tracking_id: Some("anna"), ..Asked::tool("get_walkthrough_status", tour()) };
    assert_eq!(stage.send(&bert, other).await.structured()["progress"]["status"], "not_started");
    let listed = stage.send(&anna, Asked::tool("list_walkthroughs", json!({}))).await;
    assert_eq!(listed.structured()["walkthroughs"][0]["progress_percent"], 33);
    let id = listed.structured()["walkthroughs"][0]["id"].as_str().unwrap().to_owned();
    let step = begun.structured()["step"]["id"].as_str().unwrap();
    let uri = json!({ "uri": format!("walkthrough://{id}/steps/{step}") });
    let read = stage.send(&anna, Asked::modern("resources/read", uri.clone())).await;
    assert_eq!(read.body["result"]["cacheScope"], "private", "{read:?}");
    assert!(stage.send(&bert, Asked::modern("resources/read", uri)).await.body["error"].is_object());
}

async fn what_was_done_before_signing_in_is_joined(stage: Stage) {
    stage.set(ServerSettings { auth_type: Some(AuthType::None), ..ServerSettings::default() }).await;
    let session = session_of(&stage, &Bearer::NotRequired).await;
    let with_session = |name: &str, arguments: Value| {
        Asked::legacy("tools/call", json!({ "name": name, "arguments": arguments })).header("mcp-session-id", &session)
    };
    stage.send(&Bearer::NotRequired, with_session("select_walkthrough", tour())).await;
    stage.send(&Bearer::NotRequired, with_session("next_walkthrough_step", json!({}))).await;
    stage.set(ServerSettings { auth_type: Some(AuthType::PlatformOauth), ..ServerSettings::default() }).await;
    let refused = stage.send(&missing(), with_session("next_walkthrough_step", json!({}))).await;
    assert_eq!(refused.status, StatusCode::UNAUTHORIZED, "a session identifies nobody any more");
    let (anna, bert) = (stage.token("anna", Scopes::default()).await, stage.token("bert", Scopes::default()).await);
    // The client signs in and repeats its call.
    let joined = stage.send(&anna, with_session("next_walkthrough_step", json!({}))).await;
    assert_eq!(joined.structured()["step"]["position"], 3, "{joined:?}");
    let other = stage.send(&bert, with_session("get_walkthrough_status", tour())).await;
    assert_eq!(other.structured()["progress"]["status"], "not_started");
}

async fn refusals_are_recorded(stage: Stage) {
    let reader = stage.token("reader", Scopes::from(Scope::WalkRead)).await;
    for bearer in [missing(), Bearer::Invalid(challenge()), reader] {
        stage.send(&bearer, Asked::tool("select_walkthrough", tour())).await;
    }
    stage.send(&missing(), Asked::modern("tools/list", json!({}))).await;
    assert_eq!(stage.refused().await, [("insufficient_scope".to_owned(), 1), ("unauthorized".to_owned(), 2)]);
}

/// RS-11: with a token the user is counted, and whoever is turned away is counted by address.
#[tokio::test]
async fn rs11_a_signed_in_user_has_a_limit_of_their_own() {
    let folder = waypost_testkit::folder();
    let limits = LimitOptions { per_caller: 1, burst: 3, ..LimitOptions::OFF };
    let stage = limited(&waypost_testkit::sqlite_url(&folder), limits).await;
    let (anna, bert) = (stage.token("anna", Scopes::default()).await, stage.token("bert", Scopes::default()).await);
    let anything = |tracking_id| Asked { tracking_id, ..Asked::tool("get_walkthrough_status", tour()) };
    // The bucket fills up by one a second meanwhile; who asks without a pause empties it all the same.
    let mut told = Vec::new();
    while told.last() != Some(&429) && told.len() < 50 {
        let tracking_id = ["a", "b", "c"][told.len() % 3];
        told.push(stage.send(&anna, anything(Some(tracking_id))).await.status.as_u16());
    }
    assert!(told.len() > 3 && told.ends_with(&[200, 429]), "a personal URL is no other user: {told:?}");
    assert_eq!(stage.send(&bert, anything(Some("a"))).await.status, StatusCode::OK);
    told.clear();
    while told.last() != Some(&429) && told.len() < 50 {
        told.push(stage.send(&Bearer::Invalid(challenge()), anything(None)).await.status.as_u16());
    }
    assert!(told.len() > 3 && told.ends_with(&[401, 429]), "{told:?}");
}
