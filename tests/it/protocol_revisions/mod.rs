//! Handling of requests in each protocol revision.

mod http_layer;

use insta::assert_snapshot;
use serde_json::{Value, json};

use crate::app::{App, Server};
use crate::client::{HttpResponse, LEGACY, MODERN, request_meta};

async fn set_up() -> (App, Server) {
    let app = App::new().await;
    let server = app.server("acme").await;
    server.walkthrough("Install Acme", &["Download", "Run"]).await;
    (app, server)
}

/// Summarises a response in one line: status, JSON-RPC code, message.
fn summarize(what: &str, response: &HttpResponse) -> String {
    let outcome = match &response.json {
        Some(json) if json["error"].is_object() => {
            format!("{} {}", json["error"]["code"], json["error"]["message"].as_str().unwrap())
        }
        Some(json) if json["result"].is_object() => "result".to_owned(),
        Some(json) if json.is_array() => format!("array of {}", json.as_array().unwrap().len()),
        _ => format!("{:?}", response.body),
    };
    format!("{what}: {} {outcome}\n", response.status.as_u16())
}

fn legacy_message(method: &str) -> Value {
    json!({ "jsonrpc": "2.0", "id": 7, "method": method, "params": {} })
}

fn modern_message(method: &str) -> Value {
    json!({ "jsonrpc": "2.0", "id": 7, "method": method, "params": { "_meta": request_meta() } })
}

#[tokio::test]
async fn invalid_bodies_are_rejected() {
    let (app, server) = set_up().await;
    let mut seen = String::new();
    for body in ["", "{", "hello", "\"text\"", "42", "null", "{}", "[1", "\u{feff}{}"] {
        let response = app.post(&server.path(), body).send().await;
        assert_eq!(response.json().get("id"), None, "the ID of the request is not known");
        seen.push_str(&summarize(&format!("{body:?}"), &response));
    }
    let bytes = app.post(&server.path(), b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"\xff\"}".to_vec()).send().await;
    seen.push_str(&summarize("not UTF-8", &bytes));
    for (what, body) in [
        ("id null", r#"{"jsonrpc":"2.0","id":null,"method":"ping"}"#),
        ("id object", r#"{"jsonrpc":"2.0","id":{},"method":"ping"}"#),
        ("id fraction", r#"{"jsonrpc":"2.0","id":1.5,"method":"ping"}"#),
        ("no jsonrpc", r#"{"id":1,"method":"ping"}"#),
        ("method number", r#"{"jsonrpc":"2.0","id":1,"method":1}"#),
        ("params array", r#"{"jsonrpc":"2.0","id":1,"method":"ping","params":[]}"#),
        ("params text", r#"{"jsonrpc":"2.0","id":1,"method":"ping","params":"x"}"#),
        ("method twice", r#"{"jsonrpc":"2.0","id":1,"method":"ping","method":"tools/list"}"#),
    ] {
        seen.push_str(&summarize(what, &app.post(&server.path(), body).send().await));
    }
    assert_snapshot!(seen, @r#"
    "": 400 -32700 Parse error: EOF while parsing a value at line 1 column 0.
    "{": 400 -32700 Parse error: EOF while parsing an object at line 1 column 1.
    "hello": 400 -32700 Parse error: expected value at line 1 column 1.
    "\"text\"": 400 -32600 Invalid Request: not a JSON-RPC message.
    "42": 400 -32600 Invalid Request: not a JSON-RPC message.
    "null": 400 -32600 Invalid Request: not a JSON-RPC message.
    "{}": 400 -32600 Invalid Request: `jsonrpc` must be "2.0".
    "[1": 400 -32700 Parse error: EOF while parsing a list at line 1 column 2.
    "\u{feff}{}": 400 -32700 Parse error: expected value at line 1 column 1.
    not UTF-8: 400 -32700 Parse error: invalid unicode code point at line 1 column 35.
    id null: 400 -32600 Invalid Request: `id` must be a string or an integer.
    id object: 400 -32600 Invalid Request: `id` must be a string or an integer.
    id fraction: 400 -32600 Invalid Request: `id` must be a string or an integer.
    no jsonrpc: 400 -32600 Invalid Request: `jsonrpc` must be "2.0".
    method number: 400 -32600 Invalid Request: `method` must be a string.
    params array: 400 -32602 Invalid params: `params` must be an object.
    params text: 400 -32602 Invalid params: `params` must be an object.
    method twice: 400 -32600 Invalid Request: not a JSON-RPC message.
    "#);
    app.finish().await;
}

#[tokio::test]
async fn only_2025_03_26_accepts_batches() {
    let (app, server) = set_up().await;
    let batch = json!([legacy_message("ping"), { "jsonrpc": "2.0", "method": "notifications/initialized" },
        { "jsonrpc": "2.0", "id": "b", "method": "tools/list" }]);
    let mut seen = String::new();
    seen.push_str(&summarize("no header", &app.post(&server.path(), batch.to_string()).send().await));
    for revision in LEGACY.into_iter().chain([MODERN, "1999-01-01"]) {
        let post = app.post(&server.path(), batch.to_string()).header("mcp-protocol-version", revision);
        seen.push_str(&summarize(revision, &post.send().await));
    }
    for (what, body) in [
        ("empty", json!([])),
        ("nested", json!([[legacy_message("ping")]])),
        ("with initialize", json!([legacy_message("initialize")])),
        ("modern inside", json!([modern_message("tools/list")])),
        ("notifications only", json!([{ "jsonrpc": "2.0", "method": "notifications/initialized" }])),
        ("51 messages", Value::Array(vec![legacy_message("ping"); 51])),
    ] {
        seen.push_str(&summarize(what, &app.post(&server.path(), body.to_string()).send().await));
    }
    assert_snapshot!(seen, @r#"
    no header: 200 array of 2
    2024-11-05: 400 -32600 Invalid Request: this revision does not support batches.
    2025-03-26: 200 array of 2
    2025-06-18: 400 -32600 Invalid Request: this revision does not support batches.
    2025-11-25: 400 -32600 Invalid Request: this revision does not support batches.
    2026-07-28: 400 -32600 Invalid Request: this revision does not support batches.
    1999-01-01: 400 -32600 Invalid Request: this revision does not support batches.
    empty: 400 -32600 Invalid Request: a batch has 1 to 50 messages.
    nested: 400 -32600 Invalid Request: a batch cannot contain a batch.
    with initialize: 400 -32600 Invalid Request: initialize cannot be part of a batch.
    modern inside: 400 -32600 Invalid Request: this revision does not support batches.
    notifications only: 202 ""
    51 messages: 400 -32600 Invalid Request: a batch has 1 to 50 messages.
    "#);
    let responses = app.post(&server.path(), batch.to_string()).send().await;
    let responses = responses.json();
    assert_eq!(
        (&responses[0]["id"], &responses[1]["id"]),
        (&json!(7), &json!("b")),
        "each response has its request's ID"
    );
    assert!(responses[1]["result"]["tools"].is_array());
    app.finish().await;
}

#[tokio::test]
async fn initialize_negotiates_a_revision() {
    let (app, server) = set_up().await;
    let mut seen = String::new();
    for asked in LEGACY.into_iter().chain([MODERN, "1999-01-01", "DRAFT", ""]) {
        let params =
            json!({ "protocolVersion": asked, "capabilities": {}, "clientInfo": { "name": "t", "version": "1" } });
        let body = json!({ "jsonrpc": "2.0", "id": 1, "method": "initialize", "params": params });
        let response = app.post(&server.path(), body.to_string()).send().await;
        let result = response.result();
        let session = response.header("mcp-session-id").is_some();
        assert!(session && result["_meta"].is_null() && result["resultType"].is_null(), "{response}");
        seen.push_str(&format!("{asked:?} -> {}\n", result["protocolVersion"]));
    }
    for (what, params) in [
        ("no version", json!({ "capabilities": {}, "clientInfo": { "name": "t", "version": "1" } })),
        (
            "version a number",
            json!({ "protocolVersion": 1, "capabilities": {}, "clientInfo": { "name": "t", "version": "1" } }),
        ),
        ("no capabilities", json!({ "protocolVersion": "2025-06-18", "clientInfo": { "name": "t", "version": "1" } })),
        ("no client", json!({ "protocolVersion": "2025-06-18", "capabilities": {} })),
        ("no params", json!(null)),
    ] {
        let body = json!({ "jsonrpc": "2.0", "id": 1, "method": "initialize", "params": params });
        let response = app.post(&server.path(), body.to_string()).send().await;
        assert_eq!(response.header("mcp-session-id"), None, "no session for an error: {what}");
        seen.push_str(&summarize(what, &response));
    }
    assert_snapshot!(seen, @r#"
    "2024-11-05" -> "2024-11-05"
    "2025-03-26" -> "2025-03-26"
    "2025-06-18" -> "2025-06-18"
    "2025-11-25" -> "2025-11-25"
    "2026-07-28" -> "2025-11-25"
    "1999-01-01" -> "2025-11-25"
    "DRAFT" -> "2025-11-25"
    "" -> "2025-11-25"
    no version: 200 -32602 Invalid params for initialize.
    version a number: 200 -32602 Invalid params for initialize.
    no capabilities: 200 -32602 Invalid params for initialize.
    no client: 200 -32602 Invalid params for initialize.
    no params: 200 -32602 Invalid params for initialize.
    "#);
    let params =
        json!({ "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": { "name": "t", "version": "1" } });
    assert_snapshot!(server.legacy("2025-11-25").send("initialize", params).await, @r#"
    200 {
      "jsonrpc": "2.0",
      "id": 1,
      "result": {
        "protocolVersion": "2025-11-25",
        "capabilities": {
          "completions": {},
          "prompts": {},
          "resources": {},
          "tools": {}
        },
        "serverInfo": {
          "name": "acme",
          "title": "acme",
          "version": "0.1.0"
        },
        "instructions": "Guided walkthroughs for acme. Call list_walkthroughs to see what is available, then lead the user through one step at a time: show the step's content, then stop and wait, and call next_walkthrough_step only when the user says that the step is done. In a step, intro: say this first; context: for you only; operations: carry these out; content: show verbatim. Progress is kept for the progress_handle in the results. Pass progress_handle on EVERY call, and keep it in your notes (for example AGENTS.md or a .waypost file) to resume after a restart; without it, or a personal URL, the user starts from the beginning."
      }
    }
    "#);
    app.finish().await;
}

#[tokio::test]
async fn headers_of_2026_07_28_must_match_the_body() {
    let (app, server) = set_up().await;
    let call = json!({ "jsonrpc": "2.0", "id": 7, "method": "tools/call",
        "params": { "name": "list_walkthroughs", "arguments": {}, "_meta": request_meta() } });
    let good = || app.post(&server.path(), call.to_string()).modern("tools/call", Some("list_walkthroughs"));
    let mut seen = summarize("all right", &good().send().await);
    app.count_call();
    for (what, post) in [
        ("no version header", good().without("mcp-protocol-version")),
        ("another version header", good().header("mcp-protocol-version", "2025-11-25")),
        ("unknown version header", good().header("mcp-protocol-version", "2030-01-01")),
        ("no method header", good().without("mcp-method")),
        ("another method header", good().header("mcp-method", "tools/list")),
        ("method in capitals", good().header("mcp-method", "TOOLS/CALL")),
        ("no name header", good().without("mcp-name")),
        ("another name header", good().header("mcp-name", "select_walkthrough")),
    ] {
        seen.push_str(&summarize(what, &post.send().await));
    }
    let encoded = good().header("mcp-name", "=?base64?bGlzdF93YWxrdGhyb3VnaHM=?=").send().await;
    app.count_call();
    seen.push_str(&summarize("name in base64", &encoded));
    let stray = good().header("mcp-session-id", "nonsense").header("last-event-id", "9").send().await;
    app.count_call();
    seen.push_str(&summarize("session and event id are not looked at", &stray));
    assert_snapshot!(seen, @r"
    all right: 200 result
    no version header: 400 -32020 request _meta protocolVersion requires MCP-Protocol-Version header
    another version header: 400 -32020 MCP-Protocol-Version header (2025-11-25) does not match request _meta protocolVersion (2026-07-28)
    unknown version header: 400 -32020 MCP-Protocol-Version header (2030-01-01) does not match request _meta protocolVersion (2026-07-28)
    no method header: 400 -32020 missing required Mcp-Method header
    another method header: 400 -32020 Mcp-Method header `tools/list` does not match body method `tools/call`
    method in capitals: 400 -32020 Mcp-Method header `TOOLS/CALL` does not match body method `tools/call`
    no name header: 400 -32020 missing required Mcp-Name header for `tools/call`
    another name header: 400 -32020 Mcp-Name header `select_walkthrough` does not match body value `list_walkthroughs`
    name in base64: 200 result
    session and event id are not looked at: 200 result
    ");
    app.finish().await;
}

#[tokio::test]
async fn meta_is_required_in_2026_07_28() {
    let (app, server) = set_up().await;
    let mut seen = String::new();
    let version = "io.modelcontextprotocol/protocolVersion";
    let capabilities = "io.modelcontextprotocol/clientCapabilities";
    for (what, header, meta) in [
        ("header without _meta", MODERN, json!(null)),
        ("no version in it", MODERN, json!({ capabilities: {} })),
        ("no capabilities in it", MODERN, json!({ version: MODERN })),
        ("no client info in it", MODERN, json!({ version: MODERN, capabilities: {} })),
        ("version a number", MODERN, json!({ version: 2026, capabilities: {} })),
        ("capabilities a text", MODERN, json!({ version: MODERN, capabilities: "x" })),
        ("unknown version", "2030-01-01", json!({ version: "2030-01-01", capabilities: {} })),
        ("a version with a handshake", "2025-11-25", json!({ version: "2025-11-25", capabilities: {} })),
    ] {
        let mut body = legacy_message("tools/list");
        if !meta.is_null() {
            body["params"]["_meta"] = meta;
        }
        let post = app.post(&server.path(), body.to_string()).modern("tools/list", None);
        let response = post.header("mcp-protocol-version", header).send().await;
        seen.push_str(&summarize(what, &response));
        if what == "unknown version" {
            let data = &response.json()["error"]["data"];
            assert_eq!(data["requested"], "2030-01-01");
            assert!(data["supported"].as_array().unwrap().contains(&json!(MODERN)), "{response}");
        }
    }
    assert_snapshot!(seen, @r"
    header without _meta: 400 -32602 Invalid params: `_meta` lacks io.modelcontextprotocol/protocolVersion, which 2026-07-28 requires.
    no version in it: 400 -32602 Invalid params: `_meta` lacks io.modelcontextprotocol/protocolVersion, which 2026-07-28 requires.
    no capabilities in it: 400 -32602 request _meta is missing or has malformed required fields: io.modelcontextprotocol/clientCapabilities
    no client info in it: 200 result
    version a number: 400 -32602 Invalid params: request _meta is missing or has malformed required fields: io.modelcontextprotocol/protocolVersion
    capabilities a text: 400 -32602 request _meta is missing or has malformed required fields: io.modelcontextprotocol/clientCapabilities
    unknown version: 400 -32022 Unsupported protocol version
    a version with a handshake: 200 result
    ");
    app.finish().await;
}

#[tokio::test]
async fn removed_methods_are_not_found_in_2026_07_28() {
    let (app, server) = set_up().await;
    let mut seen = String::new();
    let removed =
        ["ping", "initialize", "logging/setLevel", "resources/subscribe", "resources/unsubscribe", "no/such", ""];
    for method in removed {
        let post = app.post(&server.path(), modern_message(method).to_string()).modern(method, None);
        let response = post.send().await;
        assert_eq!(response.json()["id"], 7, "{method}");
        seen.push_str(&summarize(&format!("modern {method}"), &response));
    }
    for method in removed.into_iter().filter(|method| *method != "initialize") {
        for revision in [None, Some("2025-11-25")] {
            let post = app.post(&server.path(), legacy_message(method).to_string());
            let post = match revision {
                Some(revision) => post.header("mcp-protocol-version", revision),
                None => post,
            };
            seen.push_str(&summarize(
                &format!("legacy {method} {}", revision.unwrap_or("no header")),
                &post.send().await,
            ));
        }
    }
    assert_snapshot!(seen, @r"
    modern ping: 404 -32601 Method not found: ping. It exists in 2024-11-05, 2025-03-26, 2025-06-18, 2025-11-25; this request uses 2026-07-28.
    modern initialize: 404 -32601 Method not found: initialize. It exists in 2024-11-05, 2025-03-26, 2025-06-18, 2025-11-25; this request uses 2026-07-28.
    modern logging/setLevel: 404 -32601 Method not found: logging/setLevel. It exists in 2024-11-05, 2025-03-26, 2025-06-18, 2025-11-25; this request uses 2026-07-28.
    modern resources/subscribe: 404 -32601 Method not found: resources/subscribe. It exists in 2024-11-05, 2025-03-26, 2025-06-18, 2025-11-25; this request uses 2026-07-28.
    modern resources/unsubscribe: 404 -32601 Method not found: resources/unsubscribe. It exists in 2024-11-05, 2025-03-26, 2025-06-18, 2025-11-25; this request uses 2026-07-28.
    modern no/such: 404 -32601 Method not found: no/such. No revision from 2024-11-05 to 2026-07-28 defines it.
    modern : 404 -32601 Method not found: . No revision from 2024-11-05 to 2026-07-28 defines it.
    legacy ping no header: 200 result
    legacy ping 2025-11-25: 200 result
    legacy logging/setLevel no header: 200 -32601 Method not found: logging/setLevel. It exists in 2024-11-05, 2025-03-26, 2025-06-18, 2025-11-25; this server does not offer it.
    legacy logging/setLevel 2025-11-25: 200 -32601 Method not found: logging/setLevel. It exists in 2024-11-05, 2025-03-26, 2025-06-18, 2025-11-25; this server does not offer it.
    legacy resources/subscribe no header: 200 -32601 Method not found: resources/subscribe. It exists in 2024-11-05, 2025-03-26, 2025-06-18, 2025-11-25; this server does not offer it.
    legacy resources/subscribe 2025-11-25: 200 -32601 Method not found: resources/subscribe. It exists in 2024-11-05, 2025-03-26, 2025-06-18, 2025-11-25; this server does not offer it.
    legacy resources/unsubscribe no header: 200 -32601 Method not found: resources/unsubscribe. It exists in 2024-11-05, 2025-03-26, 2025-06-18, 2025-11-25; this server does not offer it.
    legacy resources/unsubscribe 2025-11-25: 200 -32601 Method not found: resources/unsubscribe. It exists in 2024-11-05, 2025-03-26, 2025-06-18, 2025-11-25; this server does not offer it.
    legacy no/such no header: 200 -32601 Method not found: no/such. No revision from 2024-11-05 to 2026-07-28 defines it.
    legacy no/such 2025-11-25: 200 -32601 Method not found: no/such. No revision from 2024-11-05 to 2026-07-28 defines it.
    legacy  no header: 200 -32601 Method not found: . No revision from 2024-11-05 to 2026-07-28 defines it.
    legacy  2025-11-25: 200 -32601 Method not found: . No revision from 2024-11-05 to 2026-07-28 defines it.
    ");
    app.finish().await;
}

#[tokio::test]
async fn requests_without_meta_are_legacy() {
    let (app, server) = set_up().await;
    let mut seen =
        summarize("no header", &app.post(&server.path(), legacy_message("tools/list").to_string()).send().await);
    for revision in LEGACY.into_iter().chain(["2030-01-01", "1999-01-01", "nonsense", "", MODERN]) {
        let post = app.post(&server.path(), legacy_message("tools/list").to_string());
        let response = post.header("mcp-protocol-version", revision).send().await;
        seen.push_str(&summarize(&format!("{revision:?}"), &response));
    }
    assert_snapshot!(seen, @r#"
    no header: 200 result
    "2024-11-05": 200 result
    "2025-03-26": 200 result
    "2025-06-18": 200 result
    "2025-11-25": 200 result
    "2030-01-01": 400 -32600 Bad Request: Unsupported MCP-Protocol-Version: 2030-01-01
    "1999-01-01": 400 -32600 Bad Request: Unsupported MCP-Protocol-Version: 1999-01-01
    "nonsense": 400 -32600 Bad Request: Unsupported MCP-Protocol-Version: nonsense
    "": 400 -32600 Bad Request: Unsupported MCP-Protocol-Version: 
    "2026-07-28": 400 -32602 Invalid params: `_meta` lacks io.modelcontextprotocol/protocolVersion, which 2026-07-28 requires.
    "#);
    app.finish().await;
}

#[tokio::test]
async fn notifications_and_responses_are_handled_in_both_eras() {
    let (app, server) = set_up().await;
    let mut seen = String::new();
    let note = json!({ "jsonrpc": "2.0", "method": "notifications/initialized" });
    let unknown = json!({ "jsonrpc": "2.0", "method": "notifications/of/tomorrow", "params": { "a": 1 } });
    let result = json!({ "jsonrpc": "2.0", "id": 1, "result": {} });
    let error = json!({ "jsonrpc": "2.0", "id": 1, "error": { "code": -1, "message": "no" } });
    for (what, body) in
        [("notification", &note), ("unknown notification", &unknown), ("response", &result), ("error", &error)]
    {
        let legacy = app.post(&server.path(), body.to_string()).send().await;
        seen.push_str(&summarize(&format!("legacy {what}"), &legacy));
        let method = body["method"].as_str().unwrap_or("none");
        let modern = app.post(&server.path(), body.to_string()).modern(method, None).send().await;
        seen.push_str(&summarize(&format!("modern {what}"), &modern));
    }
    assert_snapshot!(seen, @r#"
    legacy notification: 202 ""
    modern notification: 202 ""
    legacy unknown notification: 202 ""
    modern unknown notification: 202 ""
    legacy response: 202 ""
    modern response: 400 -32600 stateless server does not accept JSON-RPC responses
    legacy error: 202 ""
    modern error: 400 -32600 stateless server does not accept JSON-RPC responses
    "#);
    app.finish().await;
}

#[tokio::test]
async fn results_have_the_shape_of_their_era() {
    let (app, server) = set_up().await;
    let walkthrough = "walkthrough://unknown";
    for client in [server.modern(), server.legacy("2024-11-05"), server.legacy("2025-11-25")] {
        for (method, params) in [
            ("tools/list", json!({})),
            ("prompts/list", json!({})),
            ("resources/list", json!({})),
            ("resources/templates/list", json!({})),
            ("prompts/get", json!({ "name": "install-acme" })),
            (
                "completion/complete",
                json!({ "ref": { "type": "ref/prompt", "name": "install-acme" },
                "argument": { "name": "a", "value": "" } }),
            ),
        ] {
            client.send(method, params).await.result();
        }
        client.call("list_walkthroughs", json!({})).await.ok();
        let missing = client.send("resources/read", json!({ "uri": walkthrough })).await;
        let modern = server.modern().era == client.era;
        assert_eq!(missing.status_and_code(), (200, if modern { -32_602 } else { -32_002 }), "{missing}");
        assert_eq!(missing.json()["error"]["data"]["uri"], walkthrough);
    }
    assert_snapshot!(server.modern().send("server/discover", json!({})).await, @r#"
    200 {
      "jsonrpc": "2.0",
      "id": 1,
      "result": {
        "resultType": "complete",
        "supportedVersions": [
          "2024-11-05",
          "2025-03-26",
          "2025-06-18",
          "2025-11-25",
          "2026-07-28"
        ],
        "capabilities": {
          "completions": {},
          "prompts": {
            "listChanged": true
          },
          "resources": {
            "subscribe": true,
            "listChanged": true
          },
          "tools": {
            "listChanged": true
          }
        },
        "instructions": "Guided walkthroughs for acme. Call list_walkthroughs to see what is available, then lead the user through one step at a time: show the step's content, then stop and wait, and call next_walkthrough_step only when the user says that the step is done. In a step, intro: say this first; context: for you only; operations: carry these out; content: show verbatim. Progress is kept for the progress_handle in the results. Pass progress_handle on EVERY call, and keep it in your notes (for example AGENTS.md or a .waypost file) to resume after a restart; without it, or a personal URL, the user starts from the beginning.",
        "ttlMs": 60000,
        "cacheScope": "public",
        "_meta": {
          "io.modelcontextprotocol/serverInfo": {
            "name": "acme",
            "title": "acme",
            "version": "0.1.0"
          }
        }
      }
    }
    "#);
    app.finish().await;
}
