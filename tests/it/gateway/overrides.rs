//! Tools with another name or description for agents: policies apply to the original name.

use http::Method;
use serde_json::{Value, json};
use waypost_core::argument_rule::{ArgumentRule, Comparison};
use waypost_core::grant::AccessLevel;
use waypost_core::organization::Role;
use waypost_ops::grants::GrantPatch;

use super::{Stage, is_unknown, tool, wait_for_calls};
use crate::console::ConsoleBrowser;

impl Stage {
    /// Changes the override of a tool and returns the status and the body.
    pub(super) async fn set_override(&self, change: Value) -> (u16, Value) {
        let path = format!("/instances/{}/tool-overrides", self.instance);
        let response = self.api.call(Method::PATCH, &path, Some(change)).await;
        (response.status.as_u16(), response.json())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_renamed_tool_is_listed_and_called_by_its_new_name_only() {
    let stage = Stage::new().await;
    let grant = stage.grant(AccessLevel::FullAccess).await;
    let rule = ArgumentRule {
        tool: "find".to_owned(),
        field: "limit".to_owned(),
        comparison: Comparison::AtMost,
        value: json!(10),
    };
    let change = GrantPatch {
        access: Some(AccessLevel::Custom),
        tools: Some(vec!["find".to_owned()]),
        rules: Some(vec![rule]),
        ..GrantPatch::default()
    };
    stage.change(&grant, change).await;
    stage.approve_all("read").await;
    assert_eq!(stage.tools().await, ["search__find"]);
    let description = "Finds \"pages\".\nUse it first.";
    let (status, body) =
        stage.set_override(json!({ "tool": "find", "name": "look_up", "description": description })).await;
    assert_eq!((status, &body), (200, &json!({ "tool": "find", "name": "look_up", "description": description })));
    // Every other member is relayed as it was listed.
    let listed = stage.legacy_request("tools/list", json!({})).await;
    let expected = json!({ "name": "search__look_up", "description": description,
        "inputSchema": { "type": "object" }, "x-vendor": { "b": 1.0 } });
    assert_eq!(listed["result"]["tools"], json!([expected]));
    assert!(is_unknown(&stage.call("search__find", json!({ "limit": 1 })).await));
    // Rules, the server and the log use the original name.
    assert!(stage.call("search__look_up", json!({ "limit": 1 })).await["result"].is_object());
    assert!(is_unknown(&stage.call("search__look_up", json!({ "limit": 11 })).await));
    assert_eq!(stage.received()[0]["params"]["name"], "find");
    let (status, body) =
        stage.modern_request("tools/call", json!({ "name": "search__look_up", "arguments": { "limit": 2 } })).await;
    assert_eq!(status, 200, "{body}");
    wait_for_calls(&stage.api.app, 4).await;
    let calls = stage.api.get(&format!("/calls?tool=find&instance_id={}", stage.instance)).await;
    assert_eq!(calls["items"].as_array().unwrap().len(), 3, "{calls}");
    // The approval is not affected, and a partial change keeps the other member.
    let (_, body) = stage.set_override(json!({ "tool": "find", "description": null })).await;
    assert_eq!(body, json!({ "tool": "find", "name": "look_up", "description": null }));
    let listed = stage.legacy_request("tools/list", json!({})).await;
    assert_eq!(listed["result"]["tools"][0]["description"], "Finds.");
    let (_, body) = stage.set_override(json!({ "tool": "find", "name": "find" })).await;
    assert_eq!(body, json!({ "tool": "find", "name": null, "description": null }));
    assert_eq!(stage.tools().await, ["search__find"]);
    let list = stage.api.get(&format!("/instances/{}/tool-overrides", stage.instance)).await;
    assert_eq!(list, json!({ "items": [], "next_cursor": null }));
    let audit = stage.api.get("/audit-events?act=tool_override.update").await;
    let details: Vec<_> = audit["items"].as_array().unwrap().iter().map(|event| event["detail"].clone()).collect();
    assert_eq!(details.len(), 3, "{audit}");
    let expected = json!({ "tool": "find", "name": "look_up", "description": description });
    assert!(details.contains(&expected), "{audit}");
    stage.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_must_be_valid_and_differ_from_those_of_other_tools() {
    let stage = Stage::new().await.ready().await;
    for (change, status, field) in [
        (json!({ "tool": "unknown", "name": "a" }), 422, "tool"),
        (json!({ "tool": "find", "name": "" }), 422, "name"),
        (json!({ "tool": "find", "name": "a.b" }), 422, "name"),
        (json!({ "tool": "find", "name": "é" }), 422, "name"),
        (json!({ "tool": "find", "name": "a b" }), 422, "name"),
        (json!({ "tool": "find", "name": "a".repeat(65) }), 422, "name"),
        (json!({ "tool": "find", "description": "" }), 422, "description"),
        (json!({ "tool": "find", "description": "a".repeat(4_001) }), 422, "description"),
        (json!({ "tool": "find", "description": "a\u{0}b" }), 422, "description"),
        (json!({ "tool": "find", "description": "a\u{200b}b" }), 422, "description"),
        (json!({ "tool": "find", "name": "delete" }), 409, "name"),
    ] {
        let (got, body) = stage.set_override(change.clone()).await;
        assert_eq!((got, body["field"].as_str()), (status, Some(field)), "{change}: {body}");
    }
    let set = async |tool: &str, name: Value| stage.set_override(json!({ "tool": tool, "name": name })).await.0;
    // A long name is shortened like a name that the server lists.
    assert_eq!(set("find", "a".repeat(64).into()).await, 200);
    let listed = stage.tools().await;
    assert_eq!(listed.iter().map(String::len).collect::<Vec<_>>(), ["search__delete".len(), 48], "{listed:?}");
    assert!(stage.call(&listed[1], json!({})).await["result"].is_object());
    assert_eq!(stage.received().pop().unwrap()["params"]["name"], "find");
    let (status, body) = stage.set_override(json!({ "tool": "find", "description": "é".repeat(4_000) })).await;
    assert_eq!((status, body["name"].as_str()), (200, Some(&*"a".repeat(64))), "{body}");
    // The shortened name of another tool is taken as well.
    assert_eq!(set("delete", listed[1].strip_prefix("search__").unwrap().into()).await, 409);
    // The name of another tool is taken, and the original name of a tool stays its own.
    assert_eq!(set("find", "look_up".into()).await, 200);
    assert_eq!(set("delete", "look_up".into()).await, 409);
    assert_eq!(set("delete", "find".into()).await, 409);
    let other = "/instances/ins_0123456789abcdef/tool-overrides";
    stage.api.call(Method::PATCH, other, Some(json!({ "tool": "find" }))).await.assert_status(404);
    // A change without an effect is not recorded.
    let recorded =
        async || stage.api.get("/audit-events?act=tool_override.update").await["items"].as_array().unwrap().len();
    let before = recorded().await;
    assert_eq!(set("delete", Value::Null).await, 200);
    assert_eq!(set("find", "look_up".into()).await, 200);
    assert_eq!(recorded().await, before);
    // The number of overrides per instance is limited; existing overrides can still be changed.
    const FULL: &str = "INSERT INTO tool_overrides (instance_id, tool, organization_id, name, description)
        WITH RECURSIVE numbers(number) AS (SELECT 1 UNION ALL SELECT number + 1 FROM numbers WHERE number < 499)
        SELECT instances.id, 'tool-' || CAST(number AS TEXT), organization_id, NULL, 'One.' FROM instances, numbers";
    stage.api.app.execute(FULL).await;
    assert_eq!(set("delete", "remove".into()).await, 409);
    assert_eq!(set("find", "search".into()).await, 200);
    let (status, body) = stage.set_override(json!({ "tool": "tool-7", "description": null })).await;
    assert_eq!((status, body), (200, json!({ "tool": "tool-7", "name": null, "description": null })));
    assert_eq!(set("delete", "remove".into()).await, 200);
    stage.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_cannot_take_over_a_name_that_an_admin_has_given() {
    let stage = Stage::new().await.ready().await;
    let set_member = json!([{ "instance_id": stage.instance }]);
    let tool_set = json!({ "slug": "plain", "prefix": false, "members": set_member });
    stage.api.post("/tool-sets", tool_set).await.assert_status(201);
    let plain = async |method: &str, params: Value| {
        let request = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params }).to_string();
        let (_, body) = stage.send("/gateway/acme/plain/mcp", Some(&stage.token), &[], request).await;
        serde_json::from_str::<Value>(&body).unwrap()
    };
    let change = json!({ "tool": "find", "name": "look_up" });
    assert_eq!(stage.set_override(change).await.0, 200);
    let names = async || {
        let listed = plain("tools/list", json!({})).await;
        let tools = listed["result"]["tools"].as_array().unwrap().iter();
        tools.map(|tool| tool["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(names().await, ["delete", "look_up"]);
    assert!(plain("tools/call", json!({ "name": "look_up", "arguments": {} })).await["result"].is_object());
    assert_eq!(stage.received().pop().unwrap()["params"]["name"], "find");
    // The server lists a tool with this name, and an admin even approves it: agents still call the renamed tool.
    stage.set(|server| server.tools.push(tool("look_up", "Looks up.")));
    stage.approve_all("read").await;
    assert_eq!(stage.tools().await, ["search__delete", "search__look_up"]);
    assert_eq!(names().await, ["delete", "look_up"]);
    for request in ["search__look_up", "look_up"] {
        let answer = match request {
            "look_up" => plain("tools/call", json!({ "name": request, "arguments": {} })).await,
            _ => stage.call(request, json!({})).await,
        };
        assert!(answer["result"].is_object(), "{answer}");
        assert_eq!(stage.received().pop().unwrap()["params"]["name"], "find");
    }
    let owner = ConsoleBrowser::owner(&stage.api.org).await;
    let visible = format!("/o/acme/agents/{}/visible", stage.agent);
    owner.get_page(&visible).await.assert_contains("Another definition has the same public name");
    // No tool has the name while the server does not list the renamed tool.
    stage.set(|server| server.tools.retain(|tool| tool["name"] != "find"));
    stage.approve_all("read").await;
    assert_eq!(stage.tools().await, ["search__delete"]);
    assert!(is_unknown(&stage.call("search__look_up", json!({})).await));
    assert_eq!(names().await, ["delete"]);
    // The other tool can have a name of its own, or this name as soon as the override is removed.
    assert_eq!(stage.set_override(json!({ "tool": "look_up", "description": "Other." })).await.0, 200);
    assert_eq!(stage.tools().await, ["search__delete"]);
    assert_eq!(stage.set_override(json!({ "tool": "look_up", "name": "other" })).await.0, 200);
    assert_eq!(stage.tools().await, ["search__delete", "search__other"]);
    assert_eq!(stage.set_override(json!({ "tool": "look_up", "name": null })).await.0, 200);
    assert_eq!(stage.set_override(json!({ "tool": "find", "name": null })).await.0, 200);
    assert_eq!(stage.tools().await, ["search__delete", "search__look_up"]);
    drop(owner);
    stage.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_can_be_changed_on_the_tools_page() {
    let stage = Stage::new().await.ready().await;
    let owner = ConsoleBrowser::owner(&stage.api.org).await;
    let page = format!("/o/acme/instances/{}/tools", stage.instance);
    owner.get_page(&page).await.assert_contains("original names and descriptions").assert_contains(">find</option>");
    let fields = [("tool", "find"), ("name", "look_up"), ("description", "One.\r\n<Two>.")];
    owner.post(&page, &fields).await.assert_redirect(&page);
    let shown = owner.get_page(&page).await;
    shown.assert_contains("<code>search__look_up</code>").assert_contains("&#60;Two&#62;.");
    let edited = owner.get_page(&format!("{page}?tool=find")).await;
    edited.assert_contains("value=\"look_up\"").assert_contains("value=\"find\" selected");
    let taken = owner.post(&page, &[("tool", "delete"), ("name", "look_up"), ("description", "")]).await;
    taken.assert_status(409).assert_contains("id=\"e-name\"").assert_contains("value=\"delete\" selected");
    owner.post(&page, &[("tool", "x"), ("name", "y")]).await.assert_status(422).assert_contains("id=\"e-tool\"");
    let visible = owner.get_page(&format!("/o/acme/agents/{}/visible", stage.agent)).await;
    visible.assert_contains(">find</bdi>").assert_contains("<code>search__look_up</code>");
    let member = ConsoleBrowser::member(&stage.api.org, "member@example.com", Role::Member).await;
    member.get_page(&page).await.assert_contains("search__look_up").assert_lacks("Change a tool");
    member.post(&page, &fields).await.assert_status(403);
    owner.post(&page, &[("tool", "find"), ("name", ""), ("description", "")]).await.assert_redirect(&page);
    assert_eq!(stage.tools().await, ["search__delete", "search__find"]);
    drop((owner, member));
    stage.finish().await;
}
