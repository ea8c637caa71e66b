//! The console's pages for the secrets of tool servers.

use axum::body::Body;
use http::{Request, header};
use serde_json::json;
use waypost_ops::ToolboxSwitch;

use super::ConsoleBrowser;
use super::toolbox_pages::Stage;
use crate::app::{App, Setup};

const VALUE: &str = "correct horse <battery>";
const LIST: &str = "/o/acme/secrets";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_secret_is_created_rotated_and_deleted_without_being_shown() {
    let app = App::new().await;
    let owner = ConsoleBrowser::owner(&app.org("acme").await).await.for_org("acme");
    owner.get_page(LIST).await.assert_contains("No secrets yet");
    let rejected = owner.post(LIST, &[("name", "a b"), ("value", VALUE)]).await;
    rejected.assert_status(422).assert_contains("id=\"e-name\"").assert_contains("value=\"a b\"");
    rejected.assert_lacks("battery");
    owner.post(LIST, &[("name", "TOKEN"), ("value", "")]).await.assert_status(422).assert_contains("id=\"e-value\"");
    let large = "x".repeat(64 * 1024 + 1);
    owner.post(LIST, &[("name", "TOKEN"), ("value", &large)]).await.assert_status(422).assert_lacks("xxxx");
    let created = owner.post(LIST, &[("name", " TOKEN"), ("value", VALUE)]).await;
    created.assert_redirect(LIST);
    assert_eq!(created.header("cache-control"), "no-store");
    owner.post(LIST, &[("name", "TOKEN"), ("value", VALUE)]).await.assert_status(409).assert_lacks("battery");
    // The largest value, with characters that have the longest encoding in a form.
    let largest = "\u{1}".repeat(64 * 1024);
    owner.post(LIST, &[("name", "LARGE"), ("value", &largest)]).await.assert_redirect(LIST);
    let list = owner.get_page(LIST).await;
    list.assert_contains(">TOKEN</a>").assert_contains("No instances").assert_contains("Never").assert_lacks("battery");
    let id = owner.api(http::Method::GET, "/secrets", None).await.json()["items"][1]["id"].as_str().unwrap().to_owned();
    let page = format!("{LIST}/{id}");
    owner.get_page(&page).await.assert_contains("<h1 class=\"mono\">TOKEN</h1>").assert_lacks("battery");
    owner.post(&format!("{page}/rotate"), &[("value", "")]).await.assert_status(422).assert_contains("id=\"e-value\"");
    owner.post(&format!("{page}/rotate"), &[("value", "second\r\nline")]).await.assert_redirect(&page);
    let rotated = owner.get_page(&page).await;
    rotated.assert_contains("Value replaced").assert_contains("<dt>Version</dt><dd>2</dd>").assert_lacks("second");
    owner.post(&format!("{page}/delete"), &[]).await.assert_redirect(LIST);
    owner.get(&page).await.assert_status(404);
    owner.get(&format!("{LIST}/x")).await.assert_status(404);
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_secret_in_use_names_its_users_and_cannot_be_deleted() {
    let stage = Stage::new().await;
    let (owner, page) = (&stage.owner, format!("{LIST}/{}", stage.secret));
    let instance = stage.instance().await;
    for path in [LIST, &page] {
        owner.get_page(path).await.assert_contains(&format!("<a href=\"{instance}\">search</a>"));
    }
    let refused = owner.post(&format!("{page}/delete"), &[]).await;
    refused.assert_status(409).assert_contains("These instances use this secret: “search”");
    owner.get_page("/o/acme/instances").await.assert_contains("href=\"/o/acme/secrets\"");
    let entry = stage.api.get("/catalog").await["items"][0]["id"].as_str().unwrap().to_owned();
    let form = owner.get_page(&format!("/o/acme/instances/new?entry={entry}")).await;
    form.assert_contains("<a href=\"/o/acme/secrets\">Secrets</a>.");
    stage.api.app.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_admins_of_the_organisation_can_access_secrets() {
    let stage = Stage::new().await;
    let (owner, page) = (&stage.owner, format!("{LIST}/{}", stage.secret));
    for path in [LIST, &page] {
        stage.member.get(path).await.assert_status(403);
    }
    stage.member.get_page("/o/acme").await.assert_lacks("href=\"/o/acme/secrets\"");
    let stranger = ConsoleBrowser::owner(&stage.api.app.org("other").await).await;
    stranger.get(&page).await.assert_status(404);
    stranger.get(&page.replace("acme", "other")).await.assert_status(404);
    for path in [LIST.to_owned(), format!("{page}/rotate"), format!("{page}/delete")] {
        let fields = [("name", "STOLEN"), ("value", "new")];
        stage.member.post(&path, &fields).await.assert_status(403);
        stranger.post(&path, &fields).await.assert_status(404);
        // A form on another site.
        let request = Request::post(&path)
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .header("sec-fetch-site", "cross-site");
        owner.send(request.body(Body::from("name=STOLEN&value=new")).unwrap()).await.assert_status(403);
    }
    let secrets = stage.api.get("/secrets").await;
    assert_eq!((secrets["items"].as_array().unwrap().len(), &secrets["items"][0]["version"]), (1, &json!(1)));
    stage.api.app.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_list_has_pages() {
    let app = App::with(Setup { toolboxes: ToolboxSwitch::Off, ..Setup::default() }).await;
    let owner = ConsoleBrowser::owner(&app.org("acme").await).await.for_org("acme");
    for n in 0..101 {
        let name = format!("NAME_{n:0>3}");
        owner.post(LIST, &[("name", &name), ("value", "x")]).await.assert_redirect(LIST);
    }
    let first = owner.get_page(LIST).await;
    first.assert_contains("NAME_099").assert_lacks("NAME_100").assert_contains("/secrets?after=NAME_099\"");
    let second = owner.get_page(&format!("{LIST}?after=NAME_099")).await;
    second.assert_contains("NAME_100").assert_lacks("NAME_099").assert_contains("First page");
    // Secrets can be changed while toolboxes are off, but there is no link to them.
    owner.get_page("/o/acme").await.assert_lacks("href=\"/o/acme/secrets\"");
    app.finish().await;
}
