//! The console's pages for agents and their grants.

use http::Method;
use serde_json::{Value, json};
use waypost_core::grant::AccessLevel;
use waypost_core::organization::Role;

use super::ConsoleBrowser;
use crate::app::{App, Setup};
use crate::gateway::{Stage, tool};

/// Returns the path of the agent's page.
fn page(stage: &Stage) -> String {
    format!("/o/acme/agents/{}", stage.agent)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_is_created_with_a_token_that_is_shown_once() {
    let app = App::new().await;
    let org = app.org("acme").await;
    let owner = ConsoleBrowser::owner(&org).await;
    owner.get_page("/o/acme/agents").await.assert_contains("No agents yet").assert_contains("aria-current=\"page\"");
    owner.post("/o/acme/agents", &[("name", " ")]).await.assert_status(422).assert_contains("id=\"e-name\"");
    let created = owner.post("/o/acme/agents", &[("name", "CI <1>")]).await;
    let page = created.location().to_owned();
    assert_eq!(created.status, 303, "{}", created.body);
    owner.post("/o/acme/agents", &[("name", "CI <1>")]).await.assert_status(409).assert_contains("id=\"e-name\"");
    let shown = owner.get_page(&page).await;
    shown
        .assert_contains("CI &#60;1&#62;")
        .assert_contains("so it sees nothing")
        .assert_contains("so it cannot connect");
    let tokens = format!("{page}/tokens");
    for (name, day, field) in [("", "", "token_name"), ("a", "2001-01-01", "expires_on"), ("a", "x", "expires_on")] {
        let rejected = owner.post(&tokens, &[("token_name", name), ("expires_on", day)]).await;
        rejected.assert_status(422).assert_contains(&format!("id=\"e-{field}\"")).assert_lacks("“name”");
    }
    let created = owner.post(&tokens, &[("token_name", "laptop"), ("expires_on", "")]).await;
    created.assert_status(200).assert_contains("Token <bdi>laptop</bdi> created");
    assert_eq!((created.header("cache-control"), created.header("content-encoding")), ("no-store", ""));
    let secret = created.body.split("<code>wpa_").nth(1).unwrap().split('<').next().unwrap().to_owned();
    // The snippets contain the token, and the address of the organisation.
    created.assert_contains(&format!("Authorization: Bearer wpa_{secret}&#39;")).assert_lacks("YOUR_TOKEN");
    created.assert_contains("http://localhost:8080/gateway/acme/mcp");
    let shown = owner.get_page(&page).await;
    shown.assert_lacks(&secret).assert_contains("<bdi>laptop</bdi>").assert_contains("badge good\">active");
    let revoke = shown.body.split("action=\"").find(|part| part.contains("/revoke\"")).unwrap();
    let revoke = revoke.split('"').next().unwrap().to_owned();
    owner.post(&revoke, &[]).await.assert_redirect(&page);
    owner.get_page(&page).await.assert_contains("badge bad\">revoked").assert_lacks("/revoke\"");
    owner.post(&format!("{page}/disable"), &[]).await.assert_redirect(&page);
    owner.get_page(&page).await.assert_contains("This agent is disabled").assert_contains("/enable\"");
    owner.post(&format!("{page}/enable"), &[]).await.assert_redirect(&page);
    owner.post(&page, &[("name", "CI 2")]).await.assert_redirect(&page);
    owner.get_page(&page).await.assert_contains("value=\"CI 2\"").assert_lacks("This agent is disabled");
    owner.post(&format!("{page}/delete"), &[]).await.assert_redirect("/o/acme/agents");
    owner.get(&page).await.assert_status(404);
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_page_shows_which_tools_the_gateway_lists_and_why() {
    let stage = Stage::new().await;
    let owner = ConsoleBrowser::owner(&stage.api.org).await;
    let visible = format!("{}/visible", page(&stage));
    owner
        .get_page(&visible)
        .await
        .assert_contains("has no grant")
        .assert_contains("Nothing is known of this server yet");
    let grant = stage.grant(AccessLevel::ReadOnly).await;
    stage.set(|server| server.tools.push(tool("purge", "Purges.")));
    stage.api.post(&format!("/instances/{}/check-definitions", stage.instance), json!({})).await.assert_status(200);
    owner.get_page(&visible).await.assert_contains("Not approved yet.").assert_lacks(">visible<");
    let pending = stage.api.get("/tool-approvals?state=pending").await;
    for approval in pending["items"].as_array().unwrap() {
        let path = format!("/tool-approvals/{}", approval["id"].as_str().unwrap());
        let approve = |class| (format!("{path}/approve"), json!({ "digest": approval["digest"], "class": class }));
        let (path, decision) = match approval["name"].as_str().unwrap() {
            "find" => approve("read"),
            "delete" => approve("write"),
            "purge" => (format!("{path}/reject"), json!({ "reason": "dangerous" })),
            _ => continue,
        };
        stage.api.post(&path, decision).await.assert_status(200);
    }
    // The page reports exactly what the gateway lists.
    assert_eq!(stage.tools().await, ["search__find"]);
    let shown = owner.get_page(&visible).await;
    shown.assert_contains("<code>search__find</code>").assert_contains("Approved and granted.");
    shown
        .assert_contains("none of the agent&#39;s grants for this instance covers it")
        .assert_contains("Rejected by an admin.");
    assert_eq!(shown.body.matches(">visible<").count(), 1, "{}", shown.body);
    shown.assert_contains(&format!("/o/acme/grants/{}\">Grant: Read only", grant.id));
    let expire = async |at: Value| {
        let path = format!("/grants/{}", grant.id);
        stage.api.call(Method::PATCH, &path, Some(json!({ "expires_at": at }))).await.assert_status(200);
    };
    expire(json!(stage.api.app.cx().now().plus(60_000).rfc3339())).await;
    stage.api.app.advance_clock(60_000).await;
    assert_eq!(stage.tools().await, [""; 0]);
    owner.get_page(&visible).await.assert_contains("The grant has expired.").assert_contains("Read only, expired");
    expire(Value::Null).await;
    assert_eq!(stage.tools().await, ["search__find"]);
    // A tool whose definition has changed is hidden until the change is approved.
    stage.set(|server| server.tools.iter_mut().for_each(|tool| tool["description"] = json!("Other.")));
    stage.api.post(&format!("/instances/{}/check-definitions", stage.instance), json!({})).await.assert_status(200);
    assert_eq!(stage.tools().await, [""; 0]);
    owner.get_page(&visible).await.assert_contains("Changed since its approval").assert_lacks(">visible<");
    stage.set(|server| server.tools.clear());
    stage.api.post(&format!("/instances/{}/check-definitions", stage.instance), json!({})).await.assert_status(200);
    owner.get_page(&visible).await.assert_contains("no longer lists it").assert_lacks(">visible<");
    owner.get(&format!("{visible}?instance=ins_0123456789abcdef")).await.assert_status(404);
    drop(owner);
    stage.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_grant_is_created_and_edited_with_forms() {
    let stage = Stage::new().await;
    let owner = ConsoleBrowser::owner(&stage.api.org).await;
    stage.approve_all("write").await;
    let (agent, instance) = (stage.agent.to_string(), stage.instance.clone());
    owner.get_page("/o/acme/grants/new").await.assert_contains(">ci</option>").assert_contains(">search</option>");
    let new = format!("/o/acme/grants/new?agent={agent}&instance={instance}");
    owner.get_page(&new).await.assert_contains("id=\"tools-1\"").assert_contains("Rule 2").assert_lacks("Rule 3");
    let base = [("agent_id", agent.as_str()), ("instance_id", &instance), ("access", "custom"), ("tools", "find")];
    let rule = [
        ("rule-1-tool", "find"),
        ("rule-1-field", "limit"),
        ("rule-1-comparison", "at_most"),
        ("rule-1-kind", "text"),
        ("rule-1-value", "10"),
    ];
    let submit = async |fields: &[(&str, &str)]| owner.post("/o/acme/grants", &[&base[..], fields].concat()).await;
    let more = submit(&[&rule[..], &[("act", "rows")]].concat()).await;
    more.assert_status(200).assert_contains("Rule 3").assert_contains("value=\"limit\"").assert_lacks("Rule 4");
    let wrong = submit(&[&rule[..4], &[("rule-1-value", "ten"), ("act", "save")]].concat()).await;
    wrong.assert_status(422).assert_contains("Enter a number");
    let expired = submit(&[("expires_on", "2001-01-01")]).await;
    expired.assert_status(422).assert_contains("id=\"e-expires_on\"").assert_lacks("`");
    let created = submit(&[&rule[..], &[("act", "save"), ("expires_on", "2030-01-31")]].concat()).await;
    created.assert_redirect(&page(&stage));
    let grants = stage.api.get("/grants").await;
    let grant = &grants["items"][0];
    assert_eq!((&grant["access"], &grant["tools"]), (&json!("custom"), &json!(["find"])));
    let expected = json!([{ "tool": "find", "field": "limit", "comparison": "at_most", "value": 10 }]);
    assert_eq!((&grant["rules"], &grant["expires_at"]), (&expected, &json!("2030-01-31T23:59:59.999Z")));
    let shown = owner.get_page(&page(&stage)).await;
    shown.assert_contains("Selected tools").assert_contains("1 tool").assert_contains("find: limit is at most 10");
    // A change of the access level removes the tool names. If the day is not changed, the exact expiry is kept.
    let path = format!("/o/acme/grants/{}", grant["id"].as_str().unwrap());
    owner.get_page(&path).await.assert_contains("value=\"2030-01-31\"").assert_contains("checked");
    let full = [("access", "full_access"), ("expires_on", "2030-01-31"), ("act", "save")];
    owner.post(&path, &full).await.assert_redirect(&page(&stage));
    let changed = stage.api.get("/grants").await["items"][0].clone();
    assert_eq!((&changed["tools"], &changed["rules"]), (&json!([]), &json!([])));
    assert_eq!(changed["expires_at"], grant["expires_at"]);
    let empty = [("access", "custom"), ("expires_on", ""), ("act", "save")];
    owner.post(&path, &empty).await.assert_status(422).assert_contains("at least one entry").assert_lacks("`");
    owner.post(&format!("{path}/delete"), &[]).await.assert_redirect(&page(&stage));
    owner.get(&path).await.assert_status(404);
    drop(owner);
    stage.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_pages_require_an_admin_and_the_gateway() {
    let app = App::new().await;
    let org = app.org("acme").await;
    let member = ConsoleBrowser::member(&org, "member@example.com", Role::Member).await;
    member.get("/o/acme/agents").await.assert_status(403);
    member.get_page("/o/acme").await.assert_lacks("/o/acme/agents\"");
    app.finish().await;
    let app = App::with(Setup { gateway: None, ..Setup::default() }).await;
    let owner = ConsoleBrowser::owner(&app.org("acme").await).await;
    owner.get_page("/o/acme").await.assert_lacks("/o/acme/agents\"").assert_contains("/o/acme/instances\"");
    for path in ["agents", "grants/new"] {
        owner.get(&format!("/o/acme/{path}")).await.assert_status(404);
    }
    owner.get_page("/o/acme/settings").await.assert_lacks("settings/gateway");
    app.finish().await;
}
