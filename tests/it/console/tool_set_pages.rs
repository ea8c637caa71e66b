//! The console's pages for tool sets.

use serde_json::json;
use waypost_core::organization::Role;

use super::ConsoleBrowser;
use crate::gateway::Stage;

const LIST: &str = "/o/acme/tool-sets";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tool_set_is_created_changed_and_deleted() {
    let stage = Stage::new().await;
    let owner = ConsoleBrowser::owner(&stage.api.org).await;
    let member = ConsoleBrowser::member(&stage.api.org, "member@example.com", Role::Member).await;
    let instance = stage.instance.as_str();
    member.get_page(LIST).await.assert_contains("Ask an admin").assert_lacks("tool-sets/new");
    owner.get_page(&format!("{LIST}/new")).await.assert_contains("name=\"prefix\"").assert_contains(instance);
    let empty = owner.post(LIST, &[("slug", "research"), ("prefix", "true")]).await;
    empty.assert_status(422).assert_contains("at least one instance").assert_lacks("`");
    let tools = format!("tools-{instance}");
    let fields = [("name", "Research"), ("member", instance), (tools.as_str(), "find\r\n delete \r\n")];
    owner
        .post(LIST, &[&fields[..], &[("slug", "Research!")]].concat())
        .await
        .assert_status(422)
        .assert_contains("id=\"e-slug\"");
    let created = owner.post(LIST, &[&fields[..], &[("slug", "research")]].concat()).await;
    let page = created.location().to_owned();
    assert_eq!(created.status, 303, "{}", created.body);
    let stored = stage.api.get("/tool-sets").await["items"][0].clone();
    let members = json!([{ "instance_id": instance, "tools": ["find", "delete"] }]);
    assert_eq!((&stored["members"], &stored["prefix"], &stored["name"]), (&members, &json!(false), &json!("Research")));
    let url = "http://localhost:8080/gateway/acme/research/mcp";
    owner.get_page(LIST).await.assert_contains(url).assert_contains(">search</span>");
    owner.get_page(&page).await.assert_contains(url).assert_contains("find\ndelete</textarea>");
    let shown = member.get_page(&page).await;
    shown.assert_contains(url).assert_lacks("<form method=\"post\" action=\"/o/").assert_contains("find\ndelete");
    let connect = format!("/o/acme/agents/{}/connect", stage.agent);
    owner.get_page(&connect).await.assert_contains(">Tool set Research</option>").assert_lacks(url);
    owner.get_page(&format!("{connect}?set=research")).await.assert_contains(url).assert_contains("YOUR_TOKEN");
    let all = [("name", "Research"), ("slug", "research"), ("member", instance), ("prefix", "true")];
    owner.post(&page, &all).await.assert_redirect(&page);
    let stored = stage.api.get("/tool-sets").await["items"][0].clone();
    assert_eq!((&stored["members"][0]["tools"], &stored["prefix"]), (&json!(null), &json!(true)));
    owner.post(LIST, &all).await.assert_status(409).assert_contains("id=\"e-slug\"");
    owner.post(&format!("{page}/delete"), &[]).await.assert_redirect(LIST);
    owner.get(&page).await.assert_status(404);
    drop((owner, member));
    stage.finish().await;
}
