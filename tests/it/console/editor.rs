//! The editor page and its preview.

use http::Method;
use serde_json::json;
use waypost_core::organization::Role;

use super::ConsoleBrowser;
use crate::app::{App, Org, open};

const HOSTILE: &str = "</script><script>alert(1)</script><img src=x onerror=alert(1)>\"'";

/// Creates a walkthrough with the given steps. Returns its ID and the IDs of the steps.
async fn create_walkthrough(browser: &ConsoleBrowser, title: &str, steps: &[(&str, &str)]) -> (String, Vec<String>) {
    let created = browser.api(Method::POST, "/walkthroughs", Some(json!({ "title": title, "type": "course" }))).await;
    let id = created.assert_status(201).json()["id"].as_str().unwrap().to_owned();
    let mut ids = Vec::new();
    for (title, content) in steps {
        let step = json!({ "title": title, "content": content });
        let created = browser.api(Method::POST, &format!("/walkthroughs/{id}/steps"), Some(step)).await;
        ids.push(created.assert_status(201).json()["step"]["id"].as_str().unwrap().to_owned());
    }
    (id, ids)
}

async fn set_up(app: &App) -> (Org, ConsoleBrowser, ConsoleBrowser) {
    let (org, other) = (app.org("acme").await, app.org("other").await);
    let browser = ConsoleBrowser::member(&org, "anna@example.com", Role::Member).await.for_org("acme");
    let outsider = ConsoleBrowser::owner(&other).await.for_org("other");
    (org, browser, outsider)
}

async fn only_members_can_open_the_editor(app: App) {
    let (_, browser, outsider) = set_up(&app).await;
    let (id, steps) = create_walkthrough(&browser, "Rockets", &[("One", "Text")]).await;
    let page = format!("/o/acme/walkthroughs/{id}");
    let page_response = browser.get_page(&page).await;
    page_response
        .assert_contains("Rockets")
        .assert_contains("/assets/editor.js?v=")
        .assert_contains(&format!("data-walkthrough=\"{id}\""));
    page_response.assert_contains(&format!("href=\"{page}/publish\""));
    assert!(page_response.body.len() < 60_000, "{} bytes", page_response.body.len());

    let form = [("step_id", steps[0].as_str()), ("title", "x")];
    let (preview, play) = (format!("{page}/preview"), format!("{page}/play?at=0"));
    for url in [&page, &play] {
        assert!(ConsoleBrowser::new(&app).get(url).await.assert_status(303).location().starts_with("/login"));
        outsider.get(url).await.assert_status(404).assert_lacks("Rockets");
        outsider.get(&url.replace("/acme/", "/other/")).await.assert_status(404).assert_lacks("Rockets");
        browser.get(&url.replace(&id, "wt_0000000000000000")).await.assert_status(404);
        browser.get(&url.replace(&id, "%00")).await.assert_status(404);
    }
    assert!(ConsoleBrowser::new(&app).post(&preview, &form).await.assert_status(303).location().starts_with("/login"));
    outsider.post(&preview, &form).await.assert_status(404);
    outsider.post(&preview.replace("/acme/", "/other/"), &form).await.assert_status(404);
    for step in ["", "ws_0000000000000000", "\0", "../x"] {
        browser.post(&preview, &[("step_id", step)]).await.assert_status(404);
    }
    app.finish().await;
}

async fn user_text_is_escaped(app: App) {
    let (_, browser, _) = set_up(&app).await;
    let (id, steps) = create_walkthrough(&browser, HOSTILE, &[("One", "Text")]).await;
    let page = format!("/o/acme/walkthroughs/{id}");
    browser.get_page(&page).await.assert_lacks("<script>alert").assert_lacks("<img src=x");
    let fields =
        ["title", "section_title", "content", "introduction_for_agent", "context_for_agent", "operations_for_agent"];
    let mut form = vec![("step_id", steps[0].as_str())];
    form.extend(fields.map(|name| (name, HOSTILE)));
    let page_response = browser.post(&format!("{page}/preview"), &form).await;
    page_response.assert_status(200).assert_lacks("<script").assert_lacks("<img");
    assert!(page_response.header("content-security-policy").contains("script-src 'self'"));
    browser.get_page(&format!("{page}/play")).await.assert_lacks("<script").assert_lacks("<img");
    app.finish().await;
}

async fn the_preview_shows_unsaved_text_without_saving_it(app: App) {
    let (_, browser, _) = set_up(&app).await;
    let (id, steps) = create_walkthrough(&browser, "Rockets", &[("One", "Old"), ("Two", "Text")]).await;
    let page = format!("/o/acme/walkthroughs/{id}");
    let form =
        [("step_id", steps[1].as_str()), ("title", ""), ("content", "Run **make**"), ("context_for_agent", "Linux")];
    let page_response = browser.post(&format!("{page}/preview"), &form).await;
    page_response
        .assert_status(200)
        .assert_contains("<strong>make</strong>")
        .assert_contains("Untitled step")
        .assert_contains("next_walkthrough_step");
    page_response.assert_contains("&#60;context&#62;\nLinux\n&#60;/context&#62;").assert_contains("Step 2 of 2 (50%)");
    let saved = browser.api(Method::GET, &format!("/walkthroughs/{id}"), None).await.assert_status(200).json();
    assert_eq!(saved["steps"][1]["content"], "Text");

    let long = "x".repeat(65_537);
    let form = [("step_id", steps[0].as_str()), ("title", "x"), ("content", long.as_str())];
    browser.post(&format!("{page}/preview"), &form).await.assert_status(422).assert_contains("at most");

    browser
        .get_page(&format!("{page}/play"))
        .await
        .assert_contains("select_walkthrough")
        .assert_contains("Step 1 of 2");
    browser.get_page(&format!("{page}/play?at=2")).await.assert_contains("The user has completed the walkthrough");
    browser.get_page(&format!("{page}/play?at=999999")).await.assert_contains("All 2 steps completed");
    for at in ["-1", "x", "99999999999999999999999"] {
        browser.get(&format!("{page}/play?at={at}")).await.assert_status(400);
    }
    let (empty, _) = create_walkthrough(&browser, "Empty", &[]).await;
    browser.get(&format!("/o/acme/walkthroughs/{empty}/play")).await.assert_status(409).assert_contains("no steps yet");
    app.finish().await;
}

/// Every few seconds, the editor checks whether another user has changed the draft.
async fn an_unchanged_draft_returns_304(app: App) {
    let (_, browser, outsider) = set_up(&app).await;
    let (id, _) = create_walkthrough(&browser, "Rockets", &[("One", "Text")]).await;
    let path = format!("/api/v1/walkthroughs/{id}");
    let get_if_changed = async |browser: &ConsoleBrowser, tag: &str| {
        let request =
            http::Request::get(&path).header("if-none-match", tag).header("waypost-organization", browser.org());
        browser.send(request.body(axum::body::Body::empty()).unwrap()).await
    };
    let first = get_if_changed(&browser, "\"1\"").await;
    assert_eq!((first.status.as_u16(), first.header("etag")), (200, "\"2\""));
    for tag in ["\"2\"", "W/\"2\"", "\"1\", \"2\"", "*"] {
        let again = get_if_changed(&browser, tag).await;
        assert_eq!((again.status.as_u16(), again.header("etag"), again.body.as_str()), (304, "\"2\"", ""), "{tag}");
    }
    get_if_changed(&browser, "2").await.assert_status(200);
    get_if_changed(&outsider, "*").await.assert_status(404);
    app.finish().await;
}

async fn a_large_walkthrough_has_a_small_page(app: App) {
    let (_, browser, _) = set_up(&app).await;
    let text = "word ".repeat(2_000);
    let steps: Vec<_> = (0..40).map(|n| (format!("Step {n}"), text.clone())).collect();
    let steps: Vec<_> = steps.iter().map(|(title, text)| (title.as_str(), text.as_str())).collect();
    let (id, _) = create_walkthrough(&browser, "Large", &steps).await;
    let page_response = browser.get_page(&format!("/o/acme/walkthroughs/{id}")).await;
    let mut size = page_response.body.len();
    let mut names = vec!["console.css", "console.js", "htmx.js", "dom.js", "editor.js"];
    let parts = ["conflict", "diff", "fields", "head", "keep", "model", "preview", "queue", "session", "steps", "text"];
    let parts = parts.map(|part| format!("editor-{part}.js"));
    names.extend(parts.iter().map(String::as_str));
    for name in names {
        size += browser.get_page(&format!("/assets/{name}")).await.body.len();
    }
    assert!(size < 200_000, "{size} bytes");
    app.finish().await;
}

waypost_testkit::both!(extended open =>
    only_members_can_open_the_editor,
    user_text_is_escaped,
    the_preview_shows_unsaved_text_without_saving_it,
    an_unchanged_draft_returns_304,
    a_large_walkthrough_has_a_small_page,
);
