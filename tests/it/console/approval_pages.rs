//! The console's pages for approvals.

use serde_json::{Value, json};
use waypost_core::organization::Role;

use super::ConsoleBrowser;
use crate::app::{App, Setup};
use crate::gateway::{Stage, tool};

const LIST: &str = "/o/acme/tool-approvals";

/// Checks the server, as the button on the page does.
async fn check(stage: &Stage, owner: &ConsoleBrowser) {
    let checked = owner.post(&format!("{LIST}/check"), &[("instance_to_check", &stage.instance)]).await;
    checked.assert_redirect(&format!("{LIST}?state=pending&instance={}", stage.instance));
}

/// Returns the pending definition with this name.
async fn pending(stage: &Stage, name: &str) -> Value {
    let pending = stage.api.get("/tool-approvals?state=pending").await;
    let found = pending["items"].as_array().unwrap().iter().find(|approval| approval["name"] == name);
    found.unwrap_or_else(|| panic!("{name}: {pending}")).clone()
}

fn text<'a>(value: &'a Value, member: &str) -> &'a str {
    value[member].as_str().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_definition_is_approved_with_the_digest_that_was_shown() {
    let stage = Stage::new().await;
    let owner = ConsoleBrowser::owner(&stage.api.org).await;
    let member = ConsoleBrowser::member(&stage.api.org, "member@example.com", Role::Member).await;
    owner.get_page(LIST).await.assert_contains("Nothing waits for an approval").assert_contains("Check now");
    check(&stage, &owner).await;
    owner.get_page(LIST).await.assert_contains("The server lists 3 new definitions.").assert_contains(">find</bdi>");
    check(&stage, &owner).await;
    owner.get_page(LIST).await.assert_contains("The server lists no new definitions.");
    let first = pending(&stage, "find").await;
    let page = format!("{LIST}/{}", text(&first, "id"));
    let shown = owner.get_page(&page).await;
    shown.assert_contains("Approve as destructive").assert_contains("Finds.").assert_lacks("Difference");
    member.get_page(&page).await.assert_contains("Finds.").assert_lacks("Approve as").assert_lacks("/reject\"");
    member.get_page(LIST).await.assert_lacks("Approve selected").assert_lacks("Check now");
    let digest = text(&first, "digest").to_owned();
    let approve = format!("{page}/approve");
    owner.post(&approve, &[("digest", &digest)]).await.assert_status(422).assert_contains("read, write or destructive");
    let other = owner.post(&approve, &[("digest", "00"), ("class", "read")]).await;
    other.assert_status(409).assert_contains("another digest").assert_contains("Show what waits");
    owner.post(&approve, &[("digest", &digest), ("class", "read")]).await.assert_redirect(LIST);
    owner.get_page(LIST).await.assert_contains("find approved as read.");
    // The server changes the tool before the admin decides about the second one.
    stage.set(|server| server.tools = vec![tool("find", "Finds \u{202E}more."), tool("delete", "Other.")]);
    let second = pending(&stage, "delete").await;
    check(&stage, &owner).await;
    let late = [("digest", text(&second, "digest")), ("class", "write")];
    let late = owner.post(&format!("{LIST}/{}/approve", text(&second, "id")), &late).await;
    late.assert_status(409).assert_contains("no longer lists this definition");
    let changed = pending(&stage, "find").await;
    let shown = owner.get_page(&format!("{LIST}/{}", text(&changed, "id"))).await;
    shown.assert_contains("Difference from the definition that was approved last");
    shown.assert_contains("Finds.&#34;").assert_contains("Finds \\u202Emore.").assert_lacks("\u{202E}");
    let reject = format!("{LIST}/{}/reject", text(&changed, "id"));
    owner.post(&reject, &[("reason", &"x".repeat(501))]).await.assert_status(422).assert_contains("id=\"e-reason\"");
    owner.post(&reject, &[("reason", "Hides text.")]).await.assert_redirect(LIST);
    let rejected = owner.get_page(&format!("{LIST}?state=rejected")).await;
    rejected.assert_contains(text(&changed, "id")).assert_contains("badge bad\">rejected");
    owner.get_page(&format!("{LIST}/{}", text(&changed, "id"))).await.assert_contains("Hides text.");
    drop((owner, member));
    stage.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn selected_definitions_are_approved_together_and_failures_are_named() {
    let stage = Stage::new().await;
    let owner = ConsoleBrowser::owner(&stage.api.org).await;
    stage.set(|server| server.tools.push(json!({ "name": "broken", "inputSchema": {} })));
    check(&stage, &owner).await;
    let bulk = format!("{LIST}/bulk");
    let mut selected = Vec::new();
    for name in ["find", "delete", "broken"] {
        let approval = pending(&stage, name).await;
        selected.push(format!("{} {}", text(&approval, "id"), text(&approval, "digest")));
    }
    let page = owner.get_page(LIST).await;
    assert!(selected.iter().all(|value| page.body.contains(&format!("value=\"{value}\""))), "{}", page.body);
    owner
        .post(&bulk, &[("class", "write")])
        .await
        .assert_status(422)
        .assert_contains("Select at least one definition.");
    owner.post(&bulk, &[("selected", &selected[0])]).await.assert_status(422).assert_contains("id=\"e-class\"");
    let fields: Vec<_> = selected.iter().map(|value| ("selected", value.as_str())).collect();
    let result = owner.post(&bulk, &[&fields[..], &[("class", "write")]].concat()).await;
    result.assert_status(409).assert_contains("2 approved.").assert_contains(">broken</bdi></a>: ");
    let find = owner.get_page(&format!("{LIST}?state=approved&instance={}", stage.instance)).await;
    find.assert_contains(">find</bdi>").assert_contains(">delete</bdi>").assert_lacks(">broken</bdi>");
    let rest = [("selected", selected[0].as_str()), ("class", "read"), ("state", "all")];
    owner.post(&bulk, &rest).await.assert_redirect(&format!("{LIST}?state=all"));
    owner.get_page(LIST).await.assert_contains("1 definition approved.");
    drop(owner);
    stage.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_pages_do_not_exist_without_the_gateway() {
    let app = App::with(Setup { gateway: None, ..Setup::default() }).await;
    let owner = ConsoleBrowser::owner(&app.org("acme").await).await;
    owner.get(LIST).await.assert_status(404);
    app.finish().await;
}
