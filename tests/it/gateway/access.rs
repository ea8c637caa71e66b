//! The definitions that agents see and can call, depending on grants, approvals and tool sets, and the addresses that
//! they can use.

use http::StatusCode;
use serde_json::{Value, json};
use waypost_core::agent::AgentState;
use waypost_core::argument_rule::{ArgumentRule, Comparison};
use waypost_core::grant::AccessLevel;
use waypost_core::tool_set::ToolSetMember;
use waypost_ops::agents::{self, AgentPatch};
use waypost_ops::grants::GrantPatch;
use waypost_ops::tool_sets::{self, NewToolSet};

use super::{Stage, is_unknown, tool};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_granted_and_approved_tools_are_listed_and_called() {
    let stage = Stage::new().await;
    assert_eq!(stage.tools().await, [""; 0], "nothing is granted");
    stage.grant(AccessLevel::FullAccess).await;
    assert_eq!(stage.tools().await, [""; 0], "nothing is approved");
    assert!(is_unknown(&stage.call("search__find", json!({})).await));
    assert_eq!(stage.received(), [] as [Value; 0]);
    stage.approve_all("read").await;
    assert_eq!(stage.tools().await, ["search__delete", "search__find"]);
    let answer = stage.call("search__find", json!({ "q": 1 })).await;
    assert_eq!(answer, json!({ "jsonrpc": "2.0", "id": 7, "result": { "content": [], "n": 1.0 } }));
    let received = stage.received();
    assert_eq!(received.len(), 1);
    assert_eq!(received[0]["params"]["name"], "find", "the server's own name");
    for unknown in ["find", "search__other", "search__", "other__find", ""] {
        assert!(is_unknown(&stage.call(unknown, json!({})).await), "{unknown}");
    }
    assert_eq!(stage.received(), [] as [Value; 0]);
    stage.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tool_that_changes_between_two_calls_is_rejected_until_it_is_approved() {
    for is_modern in [false, true] {
        let stage = Stage::new().await;
        stage.set(|server| server.is_modern = is_modern);
        stage.grant(AccessLevel::FullAccess).await;
        stage.approve_all("write").await;
        assert!(stage.call("search__find", json!({})).await.get("result").is_some());
        // A nested member of one schema changes.
        stage.set(|server| server.tools[0]["inputSchema"]["properties"] = json!({ "q": { "type": "string" } }));
        stage.received();
        assert!(is_unknown(&stage.call("search__find", json!({})).await));
        assert_eq!(stage.received(), [] as [Value; 0], "the changed tool was not called");
        assert_eq!(stage.tools().await, ["search__delete"]);
        let pending = stage.api.get("/tool-approvals?state=pending").await;
        let approval = &pending["items"][0];
        assert_eq!((&approval["name"], &approval["kind"]), (&json!("find"), &json!("tool")));
        let diff = approval["diff"].as_array().unwrap();
        let added = diff.iter().filter(|line| line["tag"] == "added").map(|line| line["text"].as_str().unwrap().trim());
        assert!(added.clone().any(|line| line == r#""type": "string""#), "{diff:?}");
        stage.approve_all("write").await;
        assert!(stage.call("search__find", json!({})).await.get("result").is_some(), "restored");
        stage.finish().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn grants_are_limited_by_class_name_argument_and_time() {
    let stage = Stage::new().await;
    stage.approve_all("write").await;
    let grant = stage.grant(AccessLevel::ReadOnly).await;
    assert_eq!(stage.tools().await, [""; 0], "no tool is classified as read");
    let rule = ArgumentRule {
        tool: "find".to_owned(),
        field: "q".to_owned(),
        comparison: Comparison::Equals,
        value: "docs".into(),
    };
    let custom = GrantPatch {
        access: Some(AccessLevel::Custom),
        tools: Some(vec!["find".to_owned()]),
        rules: Some(vec![rule]),
        ..GrantPatch::default()
    };
    stage.change(&grant, custom).await;
    assert_eq!(stage.tools().await, ["search__find"]);
    assert!(is_unknown(&stage.call("search__delete", json!({})).await));
    assert!(is_unknown(&stage.call("search__find", json!({ "q": "mail" })).await), "the rule does not match");
    assert!(stage.call("search__find", json!({ "q": "docs" })).await.get("result").is_some());
    let expires_at = stage.api.app.cx().now().plus(60_000);
    let change = GrantPatch { rules: Some(Vec::new()), expires_at: Some(Some(expires_at)), ..GrantPatch::default() };
    stage.change(&grant, change).await;
    assert!(stage.call("search__find", json!({ "q": "mail" })).await.get("result").is_some());
    stage.api.app.advance_clock(60_000).await;
    assert_eq!(stage.tools().await, [""; 0], "the grant has expired");
    assert!(is_unknown(&stage.call("search__find", json!({})).await));
    stage.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn addresses_of_other_organisations_do_not_exist() {
    let stage = Stage::new().await.ready().await;
    let (cx, ops) = (stage.api.app.cx(), stage.api.app.running_ops());
    stage.api.app.org("other").await;
    let new = NewToolSet {
        slug: "reading".to_owned(),
        name: None,
        prefix: false,
        members: vec![ToolSetMember {
            instance_id: stage.instance.parse().unwrap(),
            tools: Some(vec!["find".to_owned()]),
        }],
    };
    tool_sets::create(cx, &ops, &stage.api.org.id, &new).await.unwrap();
    let list = r#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#;
    let mut seen = Vec::new();
    for path in [
        "/gateway/mcp",
        "/gateway/acme/mcp",
        "/gateway/acme/reading/mcp",
        "/gateway/other/mcp",
        "/gateway/none/mcp",
        "/gateway/acme/none/mcp",
        "/gateway/other/reading/mcp",
    ] {
        let (status, text) = stage.send(path, Some(&stage.token), &[], list).await;
        let answer: Value = serde_json::from_str(&text).unwrap();
        let names: Vec<_> =
            answer["result"]["tools"].as_array().into_iter().flatten().map(|tool| &tool["name"]).collect();
        seen.push(format!("{path} {} {}", status.as_u16(), json!(names)));
        // Without a valid token, the response does not reveal whether an address exists.
        for token in [None, Some("wpa_wrong"), Some(stage.api.key.as_str())] {
            assert_eq!(stage.send(path, token, &[], list).await.0, StatusCode::UNAUTHORIZED, "{path}");
        }
    }
    insta::assert_snapshot!(seen.join("\n"), @r#"
    /gateway/mcp 200 ["search__delete","search__find"]
    /gateway/acme/mcp 200 ["search__delete","search__find"]
    /gateway/acme/reading/mcp 200 ["find"]
    /gateway/other/mcp 404 []
    /gateway/none/mcp 404 []
    /gateway/acme/none/mcp 404 []
    /gateway/other/reading/mcp 404 []
    "#);
    let call = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"find"}}"#;
    let (_, text) = stage.send("/gateway/acme/reading/mcp", Some(&stage.token), &[], call).await;
    assert!(text.contains("content"), "{text}");
    assert_eq!(stage.received()[0]["params"]["name"], "find");
    // The token of an agent is not accepted elsewhere.
    assert_eq!(stage.send("/api/v1/agents", Some(&stage.token), &[], "").await.0, StatusCode::UNAUTHORIZED);
    let disabled = AgentPatch { name: None, state: Some(AgentState::Disabled) };
    agents::update(cx, &ops, &stage.api.org.id, &stage.agent, &disabled).await.unwrap();
    stage.api.app.advance_clock(2_000).await;
    assert_eq!(stage.send("/gateway/mcp", Some(&stage.token), &[], list).await.0, StatusCode::UNAUTHORIZED);
    stage.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn prompts_and_resources_are_subject_to_the_same_rules() {
    let stage = Stage::new().await;
    stage.set(|server| {
        server.prompts = vec![json!({ "name": "greet", "arguments": [{ "name": "who" }] })];
        server.resources = vec![json!({ "uri": "notes://today", "name": "Today" })];
        server.templates = vec![json!({ "uriTemplate": "notes://{id}", "name": "Note" })];
    });
    let stage = stage.ready().await;
    let list = async |method: &str, member: &str, name: &str| {
        let answer = stage.legacy_request(method, json!({})).await;
        answer["result"][member][0][name].as_str().unwrap().to_owned()
    };
    assert_eq!(list("prompts/list", "prompts", "name").await, "search__greet");
    assert_eq!(list("resources/list", "resources", "uri").await, "wp+search:notes://today");
    assert_eq!(list("resources/templates/list", "resourceTemplates", "uriTemplate").await, "wp+search:notes://{id}");
    let is_relayed = async |method: &str, params: Value| {
        let answer = stage.legacy_request(method, params).await;
        (answer.get("result").is_some(), stage.received().pop().map(|message| message["params"].clone()))
    };
    let relayed = |params: Value| (true, Some(params));
    assert_eq!(
        is_relayed("prompts/get", json!({ "name": "search__greet" })).await,
        relayed(json!({ "name": "greet" }))
    );
    for uri in ["notes://today", "notes://7"] {
        let found = is_relayed("resources/read", json!({ "uri": format!("wp+search:{uri}") })).await;
        assert_eq!(found, relayed(json!({ "uri": uri })));
    }
    let reference = |name: &str| json!({ "ref": { "type": "ref/prompt", "name": name }, "argument": { "name": "who", "value": "a" } });
    let found = is_relayed("completion/complete", reference("search__greet")).await;
    assert_eq!(found, relayed(reference("greet")));
    for (method, params) in [
        ("prompts/get", json!({ "name": "greet" })),
        ("resources/read", json!({ "uri": "notes://today" })),
        ("resources/read", json!({ "uri": "wp+other:notes://today" })),
        ("resources/read", json!({ "uri": "wp+search:file:///etc/passwd" })),
        ("completion/complete", reference("greet")),
    ] {
        assert_eq!(is_relayed(method, params.clone()).await, (false, None), "{method} {params}");
    }
    let described = stage
        .legacy_request(
            "initialize",
            json!({ "protocolVersion": "2025-06-18", "capabilities": {},
        "clientInfo": { "name": "c", "version": "1" } }),
        )
        .await;
    assert_eq!(described["result"]["protocolVersion"], "2025-06-18");
    let instructions = described["result"]["instructions"].as_str().unwrap();
    assert!(instructions.ends_with("Server `search`:\nBe careful."), "{instructions}");
    stage.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_list_of_tools_does_not_wait_for_a_server() {
    let stage = Stage::new().await.ready().await;
    stage.set(|server| server.tools.push(tool("late", "")));
    // The daemon no longer answers.
    stage.task.abort();
    assert_eq!(stage.tools().await, ["search__delete", "search__find"]);
    stage.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_instance_rejects_calls() {
    let stage = Stage::new().await.ready().await;
    let path = format!("/instances/{}", stage.instance);
    stage.api.post(&format!("{path}/stop"), json!({})).await.assert_status(200);
    let answer = stage.call("search__find", json!({})).await;
    assert_eq!(answer["error"]["data"]["reason"], "not_running");
    assert_eq!(stage.received(), [] as [Value; 0]);
    stage.api.post(&format!("{path}/start"), json!({})).await.assert_status(200);
    assert!(stage.call("search__find", json!({})).await.get("result").is_some());
    stage.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_approved_template_does_not_cover_resources_with_a_different_decision() {
    let stage = Stage::new().await;
    stage.set(|server| {
        server.resources = vec![json!({ "uri": "notes://secret", "name": "Secret" })];
        server.templates = vec![json!({ "uriTemplate": "notes://{id}", "name": "Note" })];
    });
    let can_read = async |stage: &Stage, id: &str| {
        let uri = format!("wp+search:notes://{id}");
        stage.legacy_request("resources/read", json!({ "uri": uri })).await.get("result").is_some()
    };
    let grant = stage.grant(AccessLevel::ReadOnly).await;
    // The template is approved, the resource is not.
    stage.approve("resource_template", "read").await;
    assert!(can_read(&stage, "7").await && !can_read(&stage, "secret").await);
    // The resource is classified as `write`.
    stage.approve("resource", "write").await;
    assert!(can_read(&stage, "7").await && !can_read(&stage, "secret").await);
    // A grant of one URI covers only this URI, although the definition is a template.
    let custom = GrantPatch {
        access: Some(AccessLevel::Custom),
        resources: Some(vec!["notes://7".to_owned()]),
        ..GrantPatch::default()
    };
    stage.change(&grant, custom).await;
    assert!(can_read(&stage, "7").await && !can_read(&stage, "8").await && !can_read(&stage, "secret").await);
    stage.finish().await;
}
