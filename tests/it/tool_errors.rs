//! Error codes of the tools, and invalid arguments.

use insta::assert_snapshot;
use serde_json::{Value, json};
use waypost_core::server::Toolset;
use waypost_ops::servers::ServerSettings;

use crate::app::{App, Server};

async fn set_up() -> (App, Server) {
    let app = App::new().await;
    let settings = ServerSettings { toolset: Some(Toolset::All), ..ServerSettings::default() };
    let server = app.org("acme").await.server_with("acme", settings).await;
    server.walkthrough("Install Acme", &["Download", "Unpack", "Run"]).await;
    server.walkthrough("Use Acme", &["Open", "Click"]).await;
    (app, server)
}

#[tokio::test]
async fn each_error_message_says_what_to_do() {
    let (app, server) = set_up().await;
    let mut user = server.modern();
    let install = json!({ "walkthrough_id": "install-acme" });
    let mut seen = String::new();
    let mut record = |result: crate::client::ToolResult| {
        assert!(result.structured["error"]["message"].is_string());
        seen.push_str(&format!("{}\n\n", app.redact(&result.structured["error"].to_string())));
    };
    record(user.call("select_walkthrough", json!({ "walkthrough_id": "no-such" })).await);
    record(user.call("next_walkthrough_step", json!({})).await);
    record(user.call("next_walkthrough_step", install.clone()).await);
    record(user.call("reset_walkthrough_progress", json!({ "walkthrough_id": "install-acme", "confirm": true })).await);
    user.play("select_walkthrough", install.clone()).await.ok();
    record(
        user.call("reset_walkthrough_progress", json!({ "walkthrough_id": "install-acme", "confirm": false })).await,
    );
    record(user.call("next_walkthrough_step", json!({ "current_step_id": "ws_0000000000000000" })).await);
    record(
        user.call("complete_step", json!({ "walkthrough_id": "install-acme", "step_id": "ws_0000000000000000" })).await,
    );
    user.play("select_walkthrough", json!({ "walkthrough_id": "use-acme" })).await.ok();
    let ambiguous = user.call("next_walkthrough_step", json!({})).await;
    assert!(ambiguous.text.contains("Use Acme"), "the text also names the candidates: {}", ambiguous.text);
    record(ambiguous);
    record(user.call("select_walkthrough", json!({})).await);
    assert_snapshot!(seen, @r#"
    {"code":"walkthrough_not_found","message":"This server has no such walkthrough. Call list_walkthroughs to see the available ones."}

    {"code":"no_active_walkthrough","message":"No progress_handle was passed, so the user is unknown. Pass the one from select_walkthrough; check your notes for it (for example AGENTS.md or a .waypost file). If nothing has been started yet, call select_walkthrough."}

    {"code":"no_active_walkthrough","message":"No progress_handle was passed, so the user is unknown. Pass the one from select_walkthrough; check your notes for it (for example AGENTS.md or a .waypost file). If nothing has been started yet, call select_walkthrough."}

    {"code":"no_progress","message":"No progress_handle was passed, so the user is unknown. Pass the one from select_walkthrough; check your notes for it (for example AGENTS.md or a .waypost file). If nothing has been started yet, call select_walkthrough."}

    {"code":"confirmation_required","message":"Resetting ends the user's attempt. Ask the user, then call again with confirm true."}

    {"code":"step_mismatch","message":"ws:1 is not the current step. The current step is ws:2 (\"Download\").","current_step_id":"ws:2"}

    {"code":"step_not_found","message":"Version 1 of this walkthrough has no step ws:1.","step_id":"ws:1"}

    {"code":"ambiguous_walkthrough","message":"Several walkthroughs are in progress. Call again with the walkthrough_id of one of them.","candidates":[{"id":"wt:1","title":"Install Acme"},{"id":"wt:2","title":"Use Acme"}]}

    {"code":"invalid_arguments","message":"`walkthrough_id` is missing.","field":"walkthrough_id"}
    "#);
    app.finish().await;
}

#[tokio::test]
async fn invalid_arguments_name_the_field() {
    let (app, server) = set_up().await;
    let user = server.modern();
    let deep = (0..100).fold(json!("x"), |inner, _| json!([inner]));
    let named = |more: Value| {
        let mut arguments = json!({ "walkthrough_id": "install-acme" });
        arguments.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        arguments
    };
    let mut seen = String::new();
    for (tool, arguments) in [
        ("select_walkthrough", json!({})),
        ("select_walkthrough", json!({ "walkthrough_id": 7 })),
        ("select_walkthrough", json!({ "walkthrough_id": null })),
        ("select_walkthrough", json!({ "walkthrough_id": "a\u{0}b" })),
        ("select_walkthrough", json!({ "walkthrough_id": deep })),
        ("select_walkthrough", named(json!({ "resume_if_exists": "yes" }))),
        ("select_walkthrough", named(json!({ "use_version": "newest" }))),
        ("select_walkthrough", named(json!({ "progress_handle": ["x"] }))),
        ("select_walkthrough", named(json!({ "surprise": 1 }))),
        ("select_walkthrough", named(json!({ "sur\u{0}prise": 1 }))),
        ("select_walkthrough", named(json!({ "email": "a@b.example" }))),
        ("reset_walkthrough_progress", named(json!({ "confirm": "true" }))),
        ("reset_walkthrough_progress", named(json!({}))),
        ("complete_step", named(json!({}))),
        ("list_walkthroughs", json!({ "cursor": "nonsense" })),
        ("list_walkthroughs", json!({ "query": 1 })),
    ] {
        let result = user.call(tool, arguments.clone()).await;
        let error = &result.structured["error"];
        let arguments: String = arguments.to_string().chars().take(70).collect();
        seen.push_str(&format!(
            "{tool} {arguments}\n  {} {}: {}\n",
            result.error_code(),
            error["field"],
            error["message"]
        ));
    }
    assert_snapshot!(seen, @r#"
    select_walkthrough {}
      invalid_arguments "walkthrough_id": "`walkthrough_id` is missing."
    select_walkthrough {"walkthrough_id":7}
      invalid_arguments "walkthrough_id": "`walkthrough_id` must be a string."
    select_walkthrough {"walkthrough_id":null}
      invalid_arguments "walkthrough_id": "`walkthrough_id` is missing."
    select_walkthrough {"walkthrough_id":"a\u0000b"}
      invalid_arguments "walkthrough_id": "`walkthrough_id` must not contain NUL characters."
    select_walkthrough {"walkthrough_id":[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[
      invalid_arguments "walkthrough_id": "`walkthrough_id` must be a string."
    select_walkthrough {"walkthrough_id":"install-acme","resume_if_exists":"yes"}
      invalid_arguments "resume_if_exists": "`resume_if_exists` must be a boolean."
    select_walkthrough {"walkthrough_id":"install-acme","use_version":"newest"}
      invalid_arguments "use_version": "`use_version` must be one of [\"started\",\"latest\"]."
    select_walkthrough {"walkthrough_id":"install-acme","progress_handle":["x"]}
      invalid_arguments "progress_handle": "`progress_handle` must be a string."
    select_walkthrough {"walkthrough_id":"install-acme","surprise":1}
      invalid_arguments "surprise": "`surprise` is not an argument of this tool."
    select_walkthrough {"walkthrough_id":"install-acme","sur\u0000prise":1}
      invalid_arguments "surprise": "`surprise` is not an argument of this tool."
    select_walkthrough {"walkthrough_id":"install-acme","email":"a@b.example"}
      invalid_arguments "email": "`email` is not an argument of this tool."
    reset_walkthrough_progress {"walkthrough_id":"install-acme","confirm":"true"}
      invalid_arguments "confirm": "`confirm` must be a boolean."
    reset_walkthrough_progress {"walkthrough_id":"install-acme"}
      confirmation_required null: "Resetting ends the user's attempt. Ask the user, then call again with confirm true."
    complete_step {"walkthrough_id":"install-acme"}
      invalid_arguments "step_id": "`step_id` is missing."
    list_walkthroughs {"cursor":"nonsense"}
      invalid_arguments "cursor": "`cursor` is invalid. Start again without it."
    list_walkthroughs {"query":1}
      invalid_arguments "query": "`query` must be a string."
    "#);
    assert_eq!(app.count("SELECT count(*) FROM end_users").await, 0);
    app.finish().await;
}

#[tokio::test]
async fn huge_arguments_get_a_short_error() {
    let (app, server) = set_up().await;
    let user = server.modern();
    let huge = "é".repeat(400_000);
    let result = user.call("select_walkthrough", json!({ "walkthrough_id": huge })).await;
    assert_eq!(result.error_code(), "walkthrough_not_found");
    assert!(result.response.body.len() < 2_000);
    let result =
        user.call("select_walkthrough", json!({ "walkthrough_id": "install-acme", "progress_handle": huge })).await;
    assert_eq!(result.error_code(), "invalid_arguments");
    let result = user.call("list_walkthroughs", json!({ "query": huge })).await;
    assert_eq!((result.error_code(), &result.structured["error"]["field"]), ("invalid_arguments", &json!("query")));
    let result = user.call("list_walkthroughs", json!({ huge.clone(): 1 })).await;
    assert_eq!(result.error_code(), "invalid_arguments");
    assert!(result.response.body.len() < 4_000, "the response has {} bytes", result.response.body.len());
    let result = user.call("list_walkthroughs", json!({ "cursor": huge })).await;
    assert_eq!(result.error_code(), "invalid_arguments");
    assert!(result.response.body.len() < 4_000);
    let mut user = server.modern();
    user.play("select_walkthrough", json!({ "walkthrough_id": "install-acme" })).await.ok();
    for (tool, arguments) in [
        ("next_walkthrough_step", json!({ "current_step_id": huge })),
        ("complete_step", json!({ "walkthrough_id": "install-acme", "step_id": huge })),
    ] {
        let result = user.call(tool, arguments).await;
        assert!(result.response.body.len() < 4_000, "{tool}: the response has {} bytes", result.response.body.len());
    }
    let longest = "SELECT max(length(arguments)) FROM tool_calls";
    app.stop().await;
    assert!(app.count(longest).await < 2_000, "the recorded arguments are short");
    app.finish().await;
}

#[tokio::test]
async fn malformed_calls_are_protocol_errors() {
    let (app, server) = set_up().await;
    let mut seen = String::new();
    for client in [server.modern(), server.legacy("2025-11-25")] {
        for params in [
            json!({ "name": "no_such_tool", "arguments": {} }),
            json!({ "name": "get_support", "arguments": { "title": "t", "problem": "p" } }),
            json!({ "arguments": {} }),
            json!({ "name": 7, "arguments": {} }),
            json!({ "name": "list_walkthroughs", "arguments": [] }),
            json!({ "name": "list_walkthroughs", "arguments": "x" }),
        ] {
            let response = client.send("tools/call", params.clone()).await;
            seen.push_str(&format!("{:?} {params} {:?}\n", client.era, response.status_and_code()));
        }
        let none = client.send("tools/call", json!({ "name": "list_walkthroughs" })).await;
        assert!(
            none.result()["structuredContent"]["walkthroughs"].is_array(),
            "missing arguments are treated as empty"
        );
        app.count_call();
        for (method, params) in [
            ("prompts/get", json!({ "name": "no-such" })),
            ("prompts/get", json!({})),
            ("resources/read", json!({})),
            ("resources/read", json!({ "uri": 7 })),
            ("resources/read", json!({ "uri": "file:///etc/passwd" })),
            ("tools/list", json!({ "cursor": "x" })),
            ("tools/list", json!({ "cursor": 7 })),
            ("completion/complete", json!({})),
        ] {
            let response = client.send(method, params.clone()).await;
            seen.push_str(&format!("{:?} {method} {params} {:?}\n", client.era, response.status_and_code()));
        }
    }
    assert_snapshot!(seen, @r#"
    Modern {"name":"no_such_tool","arguments":{}} (200, -32602)
    Modern {"name":"get_support","arguments":{"title":"t","problem":"p"}} (200, 0)
    Modern {"arguments":{}} (200, -32602)
    Modern {"name":7,"arguments":{}} (200, -32602)
    Modern {"name":"list_walkthroughs","arguments":[]} (200, -32602)
    Modern {"name":"list_walkthroughs","arguments":"x"} (200, -32602)
    Modern prompts/get {"name":"no-such"} (200, -32602)
    Modern prompts/get {} (200, -32602)
    Modern resources/read {} (200, -32602)
    Modern resources/read {"uri":7} (200, -32602)
    Modern resources/read {"uri":"file:///etc/passwd"} (200, -32602)
    Modern tools/list {"cursor":"x"} (200, -32602)
    Modern tools/list {"cursor":7} (200, 0)
    Modern completion/complete {} (200, -32602)
    Legacy("2025-11-25") {"name":"no_such_tool","arguments":{}} (200, -32602)
    Legacy("2025-11-25") {"name":"get_support","arguments":{"title":"t","problem":"p"}} (200, 0)
    Legacy("2025-11-25") {"arguments":{}} (200, -32602)
    Legacy("2025-11-25") {"name":7,"arguments":{}} (200, -32602)
    Legacy("2025-11-25") {"name":"list_walkthroughs","arguments":[]} (200, -32602)
    Legacy("2025-11-25") {"name":"list_walkthroughs","arguments":"x"} (200, -32602)
    Legacy("2025-11-25") prompts/get {"name":"no-such"} (200, -32602)
    Legacy("2025-11-25") prompts/get {} (200, -32602)
    Legacy("2025-11-25") resources/read {} (200, -32602)
    Legacy("2025-11-25") resources/read {"uri":7} (200, -32602)
    Legacy("2025-11-25") resources/read {"uri":"file:///etc/passwd"} (200, -32002)
    Legacy("2025-11-25") tools/list {"cursor":"x"} (200, -32602)
    Legacy("2025-11-25") tools/list {"cursor":7} (200, 0)
    Legacy("2025-11-25") completion/complete {} (200, -32602)
    "#);
    // `get_support` responds although it is not listed here.
    app.count_call();
    app.count_call();
    app.finish().await;
}

#[tokio::test]
async fn deeply_nested_json_is_rejected() {
    let (app, server) = set_up().await;
    for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
        let nested = format!("{}1{}", open.repeat(100_000), close.repeat(100_000));
        let body = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"ping","params":{{"x":{nested}}}}}"#);
        let response = app.post(&server.path(), body).send().await;
        assert_eq!(response.status_and_code(), (400, -32_700), "{}", &response.body);
        assert_eq!(app.post(&server.path(), nested).send().await.status, 400);
    }
    app.finish().await;
}

#[tokio::test]
async fn a_database_error_is_unavailable_and_hides_details() {
    let app = App::new().await;
    let server = app.server("acme").await;
    server.walkthrough("Install Acme", &["Download", "Run"]).await;
    let mut user = server.modern();
    user.play("select_walkthrough", json!({ "walkthrough_id": "install-acme" })).await.ok();
    let next = json!({ "walkthrough_id": "install-acme" });
    app.execute("ALTER TABLE step_completions RENAME TO away").await;
    let failed = user.call("next_walkthrough_step", next.clone()).await;
    assert_snapshot!(failed, @r#"
    > next_walkthrough_step {"walkthrough_id":"install-acme","progress_handle":"wph:1"}
    {
      "error": {
        "code": "unavailable",
        "message": "An internal error occurred. Try again; if it persists, contact the operator."
      }
    }
    ---
    An internal error occurred. Try again; if it persists, contact the operator.
    "#);
    app.execute("ALTER TABLE away RENAME TO step_completions").await;
    assert_eq!(
        user.call("next_walkthrough_step", next.clone()).await.progress(),
        "2/2 50%",
        "the failed call changed nothing"
    );
    // Waits first, because the recorder cannot write while a table is missing.
    app.wait_for_records().await;
    app.execute("ALTER TABLE client_sessions RENAME TO away").await;
    let other_client = server.modern().with_handle("wph_0000000000000000000000000");
    assert_eq!(other_client.call("list_walkthroughs", json!({})).await.error_code(), "unavailable");
    app.execute("ALTER TABLE away RENAME TO client_sessions").await;
    app.wait_for_records().await;
    app.execute("ALTER TABLE servers RENAME TO away").await;
    let unknown = app.post("/s/unknown/mcp", "{}").send().await;
    assert!(unknown.status.is_server_error(), "{unknown}");
    app.execute("ALTER TABLE away RENAME TO servers").await;
    app.finish().await;
}

#[tokio::test]
async fn a_batch_runs_its_calls_in_order() {
    let (app, server) = set_up().await;
    let handle = server.modern().call("select_walkthrough", json!({ "walkthrough_id": "install-acme" })).await.handle();
    let call = |id: u32, arguments: Value| {
        let mut arguments = arguments;
        arguments["progress_handle"] = json!(handle);
        let params = json!({ "name": "next_walkthrough_step", "arguments": arguments });
        json!({ "jsonrpc": "2.0", "id": id, "method": "tools/call", "params": params })
    };
    let batch = json!([call(1, json!({})), call(2, json!({ "current_step_id": "x" })), call(3, json!({}))]);
    let response = app.post(&server.path(), batch.to_string()).send().await;
    let outcome = |index: usize| response.json()[index]["result"]["structuredContent"].clone();
    assert_eq!(outcome(0)["progress"]["percent"], 33);
    assert_eq!(outcome(1)["error"]["code"], "step_mismatch");
    assert_eq!(outcome(2)["progress"]["percent"], 66);
    (0..3).for_each(|_| app.count_call());
    app.finish().await;
}
