//! The parts of pages around their main content: navigation, names, labels and the next action.

use http::Method;
use serde_json::json;
use waypost_core::organization::Role;

use super::ConsoleBrowser;
use super::walkthroughs::{call, create_walkthrough};
use crate::app::App;

#[tokio::test]
async fn the_sign_in_page_of_an_empty_installation_mentions_the_set_up_link() {
    let app = App::new().await;
    let visitor = ConsoleBrowser::new(&app);
    visitor.get_page("/login").await.assert_contains("open the setup link");
    ConsoleBrowser::owner(&app.org("acme").await).await;
    visitor.get_page("/login").await.assert_lacks("setup link");
    app.finish().await;
}

#[tokio::test]
async fn the_account_page_has_the_navigation_of_the_current_organisation() {
    let app = App::new().await;
    let member = ConsoleBrowser::member(&app.org("acme").await, "anna@example.com", Role::Member).await;
    let page = member.get_page("/account").await;
    page.assert_contains("href=\"/o/acme/walkthroughs\"").assert_lacks("href=\"/o/acme/settings\"");
    app.finish().await;
}

#[tokio::test]
async fn members_and_assignees_are_shown_by_name() {
    let app = App::new().await;
    let org = app.org("acme").await;
    let owner = ConsoleBrowser::member(&org, "owner@example.com", Role::Owner).await;
    owner.post("/account", &[("name", "Olga Öst")]).await.assert_redirect("/account");
    let page = owner.get_page("/o/acme/members").await;
    page.assert_contains("<span dir=\"auto\">Olga Öst</span>").assert_contains("owner@example.com</small>");
    owner
        .get_page("/o/acme/tickets")
        .await
        .assert_contains(">Olga Öst</option>")
        .assert_lacks("owner@example.com</option>");
    // Members with the same name are distinguished by their emails.
    let other = ConsoleBrowser::member(&org, "other@example.com", Role::Member).await;
    other.post("/account", &[("name", "Olga Öst")]).await.assert_redirect("/account");
    let page = owner.get_page("/o/acme/tickets").await;
    page.assert_contains(">Olga Öst (owner@example.com)</option>")
        .assert_contains(">Olga Öst (other@example.com)</option>");
    app.finish().await;
}

#[tokio::test]
async fn the_publish_page_offers_the_next_action() {
    let app = App::new().await;
    let org = app.org("acme").await;
    let owner = ConsoleBrowser::owner(&org).await;
    let (at, _) = create_walkthrough(&owner, "Set up", &["A"]).await;
    let page = format!("/o/acme{at}/publish");
    let first = owner.get_page(&page).await;
    first.assert_contains("class=\"primary\">Publish version 1</button>").assert_contains("There are no servers yet");
    let server = org.server("guide").await;
    call(&owner, Method::POST, &format!("{at}/publish"), json!({})).await.assert_status(200);
    // Nothing has changed, so the next action is to assign it.
    let unassigned = owner.get_page(&page).await;
    unassigned.assert_contains("<button type=\"submit\">Publish again</button>");
    unassigned.assert_contains("class=\"primary\">Assign</button>");
    let form = [("act", "add"), ("server_id", server.id.as_str())];
    let assigned = owner.post(&format!("/o/acme{at}/assignments"), &form).await;
    assigned.assert_redirect(&format!("/o/acme{at}/assignments"));
    owner.get_page(&page).await.assert_lacks("Assign to a server");
    app.finish().await;
}

#[tokio::test]
async fn form_errors_name_labels_instead_of_api_fields() {
    let app = App::new().await;
    let owner = ConsoleBrowser::owner(&app.org("acme").await).await;
    let key = [("name", "CI"), ("scope", "member"), ("expires_on", "2001-01-01")];
    let rejected = owner.post("/o/acme/api-keys", &key).await;
    rejected.assert_status(422).assert_lacks("`").assert_lacks("expires_at");
    let webhook = [("url", ""), ("description", "")];
    owner.post("/o/acme/webhooks", &webhook).await.assert_status(422).assert_lacks("`");
    let slug = [("name", "Docs"), ("slug", "api")];
    let reserved = owner.post("/o/acme/servers", &slug).await;
    reserved.assert_lacks("`");
    app.finish().await;
}
