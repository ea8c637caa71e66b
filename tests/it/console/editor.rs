//! The editor's page, and what its preview shows.

use http::Method;
use serde_json::json;
use waypost_core::organization::Role;

use super::Browser;
use crate::app::{App, Org, open};

const EVIL: &str = "</script><script>alert(1)</script><img src=x onerror=alert(1)>\"'";

/// A walkthrough of `org` with these steps; gives its id, and those of the steps.
async fn written(browser: &Browser, title: &str, steps: &[(&str, &str)]) -> (String, Vec<String>) {
    let made = browser.api(Method::POST, "/walkthroughs", Some(json!({ "title": title, "type": "course" }))).await;
    let id = made.is(201).json()["id"].as_str().unwrap().to_owned();
    let mut ids = Vec::new();
    for (title, content) in steps {
        let step = json!({ "title": title, "content": content });
        let made = browser.api(Method::POST, &format!("/walkthroughs/{id}/steps"), Some(step)).await;
        ids.push(made.is(201).json()["step"]["id"].as_str().unwrap().to_owned());
    }
    (id, ids)
}

async fn stage(app: &App) -> (Org, Browser, Browser) {
    let (org, other) = (app.org("acme").await, app.org("other").await);
    let browser = Browser::member(&org, "anna@example.com", Role::Member).await.within("acme");
    let stranger = Browser::owner(&other).await.within("other");
    (org, browser, stranger)
}

async fn the_page_is_for_members_of_the_organisation(app: App) {
    let (_, browser, stranger) = stage(&app).await;
    let (id, steps) = written(&browser, "Rockets", &[("One", "Text")]).await;
    let page = format!("/o/acme/walkthroughs/{id}");
    let shown = browser.page(&page).await;
    shown.says("Rockets").says("/assets/editor.js?v=").says(&format!("data-walkthrough=\"{id}\""));
    shown.says(&format!("href=\"{page}/publish\""));
    assert!(shown.body.len() < 60_000, "{} bytes", shown.body.len());

    let typed = [("step_id", steps[0].as_str()), ("title", "x")];
    let (preview, play) = (format!("{page}/preview"), format!("{page}/play?at=0"));
    for address in [&page, &play] {
        assert!(Browser::new(&app).get(address).await.is(303).location().starts_with("/login"));
        stranger.get(address).await.is(404).does_not_say("Rockets");
        stranger.get(&address.replace("/acme/", "/other/")).await.is(404).does_not_say("Rockets");
        browser.get(&address.replace(&id, "wt_0000000000000000")).await.is(404);
        browser.get(&address.replace(&id, "%00")).await.is(404);
    }
    assert!(Browser::new(&app).post(&preview, &typed).await.is(303).location().starts_with("/login"));
    stranger.post(&preview, &typed).await.is(404);
    stranger.post(&preview.replace("/acme/", "/other/"), &typed).await.is(404);
    for step in ["", "ws_0000000000000000", "\0", "../x"] {
        browser.post(&preview, &[("step_id", step)]).await.is(404);
    }
    app.finish().await;
}

async fn what_people_wrote_is_text(app: App) {
    let (_, browser, _) = stage(&app).await;
    let (id, steps) = written(&browser, EVIL, &[("One", "Text")]).await;
    let page = format!("/o/acme/walkthroughs/{id}");
    browser.page(&page).await.does_not_say("<script>alert").does_not_say("<img src=x");
    let fields =
        ["title", "section_title", "content", "introduction_for_agent", "context_for_agent", "operations_for_agent"];
    let mut typed = vec![("step_id", steps[0].as_str())];
    typed.extend(fields.map(|name| (name, EVIL)));
    let shown = browser.post(&format!("{page}/preview"), &typed).await;
    shown.is(200).does_not_say("<script").does_not_say("<img");
    assert!(shown.header("content-security-policy").contains("script-src 'self'"));
    browser.page(&format!("{page}/play")).await.does_not_say("<script").does_not_say("<img");
    app.finish().await;
}

async fn the_preview_shows_what_is_typed_and_saves_nothing(app: App) {
    let (_, browser, _) = stage(&app).await;
    let (id, steps) = written(&browser, "Rockets", &[("One", "Old"), ("Two", "Text")]).await;
    let page = format!("/o/acme/walkthroughs/{id}");
    let typed =
        [("step_id", steps[1].as_str()), ("title", ""), ("content", "Run **make**"), ("context_for_agent", "Linux")];
    let shown = browser.post(&format!("{page}/preview"), &typed).await;
    shown.is(200).says("<strong>make</strong>").says("Untitled step").says("next_walkthrough_step");
    shown.says("&#60;context&#62;\nLinux\n&#60;/context&#62;").says("Step 2 of 2 (50 %)");
    let saved = browser.api(Method::GET, &format!("/walkthroughs/{id}"), None).await.is(200).json();
    assert_eq!(saved["steps"][1]["content"], "Text");

    let long = "x".repeat(65_537);
    let typed = [("step_id", steps[0].as_str()), ("title", "x"), ("content", long.as_str())];
    browser.post(&format!("{page}/preview"), &typed).await.is(422).says("at most");

    browser.page(&format!("{page}/play")).await.says("select_walkthrough").says("Step 1 of 2");
    browser.page(&format!("{page}/play?at=2")).await.says("The user has completed the walkthrough");
    browser.page(&format!("{page}/play?at=999999")).await.says("All 2 steps completed");
    for at in ["-1", "x", "99999999999999999999999"] {
        browser.get(&format!("{page}/play?at={at}")).await.is(400);
    }
    let (empty, _) = written(&browser, "Empty", &[]).await;
    browser.get(&format!("/o/acme/walkthroughs/{empty}/play")).await.is(409).says("no steps yet");
    app.finish().await;
}

/// What the editor asks every few seconds: whether somebody else has changed the draft.
async fn an_unchanged_draft_is_not_sent_again(app: App) {
    let (_, browser, stranger) = stage(&app).await;
    let (id, _) = written(&browser, "Rockets", &[("One", "Text")]).await;
    let path = format!("/api/v1/walkthroughs/{id}");
    let ask = async |browser: &Browser, tag: &str| {
        let request =
            http::Request::get(&path).header("if-none-match", tag).header("waypost-organization", browser.org());
        browser.send(request.body(axum::body::Body::empty()).unwrap()).await
    };
    let first = ask(&browser, "\"1\"").await;
    assert_eq!((first.status.as_u16(), first.header("etag")), (200, "\"2\""));
    for tag in ["\"2\"", "W/\"2\"", "\"1\", \"2\"", "*"] {
        let again = ask(&browser, tag).await;
        assert_eq!((again.status.as_u16(), again.header("etag"), again.body.as_str()), (304, "\"2\"", ""), "{tag}");
    }
    ask(&browser, "2").await.is(200);
    ask(&stranger, "*").await.is(404);
    app.finish().await;
}

async fn a_large_walkthrough_has_a_small_page(app: App) {
    let (_, browser, _) = stage(&app).await;
    let text = "word ".repeat(2_000);
    let steps: Vec<_> = (0..40).map(|n| (format!("Step {n}"), text.clone())).collect();
    let steps: Vec<_> = steps.iter().map(|(title, text)| (title.as_str(), text.as_str())).collect();
    let (id, _) = written(&browser, "Large", &steps).await;
    let shown = browser.page(&format!("/o/acme/walkthroughs/{id}")).await;
    let mut size = shown.body.len();
    let mut names = vec!["console.css", "console.js", "htmx.js", "dom.js", "editor.js"];
    let parts = ["conflict", "diff", "fields", "head", "keep", "model", "preview", "queue", "session", "steps", "text"];
    let parts = parts.map(|part| format!("editor-{part}.js"));
    names.extend(parts.iter().map(String::as_str));
    for name in names {
        size += browser.page(&format!("/assets/{name}")).await.body.len();
    }
    assert!(size < 200_000, "{size} bytes");
    app.finish().await;
}

waypost_testkit::both!(open =>
    the_page_is_for_members_of_the_organisation,
    what_people_wrote_is_text,
    the_preview_shows_what_is_typed_and_saves_nothing,
    an_unchanged_draft_is_not_sent_again,
    a_large_walkthrough_has_a_small_page,
);
