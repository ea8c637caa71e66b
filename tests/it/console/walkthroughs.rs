//! Walkthroughs over the REST API and on pages: editing, versions, import, validation and access.

use axum::body::Body;
use http::{Method, Request, header};
use serde_json::{Value, json};
use waypost_core::organization::Role;

use super::{ConsoleBrowser, ConsoleResponse};
use crate::app::App;

pub async fn call(browser: &ConsoleBrowser, method: Method, path: &str, body: Value) -> ConsoleResponse {
    browser.api(method, path, Some(body)).await
}

/// Like [`call`], with an `If-Match` header for `revision`.
async fn call_with_revision(
    browser: &ConsoleBrowser,
    method: Method,
    path: &str,
    revision: u64,
    body: Value,
) -> ConsoleResponse {
    let request = Request::builder()
        .method(method)
        .uri(format!("/api/v1{path}"))
        .header("sec-fetch-site", "same-origin")
        .header(header::IF_MATCH, format!("\"{revision}\""))
        .header(header::CONTENT_TYPE, "application/json");
    browser.send(request.body(Body::from(body.to_string())).unwrap()).await
}

/// Creates a walkthrough with the given steps. Returns its API path and the IDs of the steps.
pub async fn create_walkthrough(browser: &ConsoleBrowser, title: &str, steps: &[&str]) -> (String, Vec<String>) {
    let response = call(browser, Method::POST, "/walkthroughs", json!({ "title": title, "type": "course" })).await;
    let path = response.assert_status(201).location().strip_prefix("/api/v1").unwrap().to_owned();
    let mut ids = Vec::new();
    for title in steps {
        let response =
            call(browser, Method::POST, &format!("{path}/steps"), json!({ "title": title, "content": "c" })).await;
        ids.push(response.assert_status(201).json()["step"]["id"].as_str().unwrap().to_owned());
    }
    (path, ids)
}

async fn list_titles(browser: &ConsoleBrowser, at: &str) -> Vec<String> {
    let steps = browser.api(Method::GET, at, None).await.json()["steps"].clone();
    steps.as_array().unwrap().iter().map(|step| step["title"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn a_draft_is_edited_step_by_step() {
    let app = App::new().await;
    let browser = ConsoleBrowser::owner(&app.org("acme").await).await;
    let (at, ids) = create_walkthrough(&browser, "Set up", &["A", "B", "C"]).await;
    let one = |at: &str, id: &str| format!("{at}/steps/{id}");
    // The revision is 4: created at revision 1, then three steps were added.
    let patched = call_with_revision(&browser, Method::PATCH, &one(&at, &ids[1]), 4, json!({ "content": "new" })).await;
    assert_eq!(
        (patched.assert_status(200).header("etag"), &patched.json()["step"]["content"]),
        ("\"5\"", &json!("new"))
    );
    assert_eq!(patched.json()["step"]["title"], "B", "absent members are not changed");
    let late = call_with_revision(&browser, Method::PATCH, &one(&at, &ids[1]), 4, json!({ "content": "mine" })).await;
    let late = late.assert_status(412).json();
    assert_eq!((&late["code"], &late["revision"]), (&json!("precondition_failed"), &json!(5)));
    assert_eq!(late["current"]["content"], "new", "the response contains the stored step");
    for (method, path, body) in [
        (Method::PATCH, at.clone(), json!({ "title": "T" })),
        (Method::DELETE, at.clone(), json!({})),
        (Method::POST, format!("{at}/steps"), json!({ "title": "T" })),
        (Method::DELETE, one(&at, &ids[0]), json!({})),
        (Method::POST, one(&at, &ids[0]) + "/move", json!({ "after": null })),
        (Method::POST, one(&at, &ids[0]) + "/duplicate", json!({})),
        (Method::POST, format!("{at}/publish"), json!({})),
        (Method::POST, format!("{at}/archive"), json!({})),
    ] {
        call_with_revision(&browser, method, &path, 1, body).await.assert_status(412);
    }
    let moved = call(&browser, Method::POST, &(one(&at, &ids[2]) + "/move"), json!({ "after": null })).await;
    assert_eq!(moved.assert_status(200).json()["step"]["position"], 1);
    call(&browser, Method::POST, &(one(&at, &ids[0]) + "/duplicate"), json!({})).await.assert_status(201);
    assert_eq!(list_titles(&browser, &at).await, ["C", "A", "A (copy)", "B"]);

    let removed = browser.api(Method::DELETE, &one(&at, &ids[0]), None).await.assert_status(200).json();
    assert_eq!((&removed["step"]["id"], &removed["after"]), (&json!(ids[0]), &json!(ids[2])));
    let back = json!({ "step": removed["step"], "after": removed["after"] });
    let (other, _) = create_walkthrough(&browser, "Other", &["X"]).await;
    call(&browser, Method::POST, &(one(&other, &ids[0]) + "/restore"), back.clone()).await.assert_status(404);
    let restored = call(&browser, Method::POST, &(one(&at, &ids[0]) + "/restore"), back.clone()).await;
    assert_eq!(restored.assert_status(201).json()["step"]["id"], json!(ids[0]));
    call(&browser, Method::POST, &(one(&at, &ids[0]) + "/restore"), back).await.assert_status(404);
    assert_eq!(list_titles(&browser, &at).await, ["C", "A", "A (copy)", "B"]);

    for (body, field) in [
        (json!({ "title": "" }), "title"),
        (json!({ "title": "x".repeat(201) }), "title"),
        (json!({ "content": "x".repeat(65_537) }), "content"),
        (json!({ "key": " " }), "key"),
    ] {
        let rejected = call(&browser, Method::PATCH, &one(&at, &ids[0]), body).await;
        assert_eq!(rejected.assert_status(422).json()["field"], field);
    }
    call(&browser, Method::PATCH, &one(&at, &ids[0]), json!({ "organization_id": "org_x" })).await.assert_status(422);
    app.finish().await;
}

#[tokio::test]
async fn versions_are_published_compared_restored_and_withdrawn() {
    let app = App::new().await;
    let browser = ConsoleBrowser::owner(&app.org("acme").await).await;
    let (at, ids) = create_walkthrough(&browser, "Set up", &["A", "B"]).await;
    let post = |path: &str, body: Value| {
        let path = format!("{at}{path}");
        let browser = &browser;
        async move { call(browser, Method::POST, &path, body).await }
    };
    assert_eq!(post("/publish", json!({})).await.assert_status(200).json()["number"], 1);
    assert_eq!(post("/publish", json!({})).await.assert_status(200).json()["created"], false);
    let get_member = |name: &'static str| {
        let (browser, at) = (&browser, &at);
        async move { browser.api(Method::GET, at, None).await.json()[name].clone() }
    };
    assert_eq!(get_member("has_unpublished_changes").await, false);
    browser.api(Method::DELETE, &format!("{at}/steps/{}", ids[0]), None).await.assert_status(200);
    call(&browser, Method::PATCH, &format!("{at}/steps/{}", ids[1]), json!({ "content": "c\nd" }))
        .await
        .assert_status(200);
    assert_eq!(get_member("has_unpublished_changes").await, true);
    let impact = browser.api(Method::GET, &format!("{at}/impact"), None).await.assert_status(200).json();
    assert_eq!((&impact["from_version"], &impact["to_version"]), (&json!(1), &json!(2)));
    assert_eq!(impact["sentences"][0], "Since version 1, steps: 1 removed, 1 changed.");
    let diff = browser
        .api(Method::GET, &format!("{at}/versions/compare?from=1&to=draft"), None)
        .await
        .assert_status(200)
        .json();
    assert_eq!((&diff["steps"][0]["change"], &diff["steps"][1]["change"]), (&json!("removed"), &json!("changed")));
    let lines = &diff["steps"][1]["fields"][0]["lines"];
    assert!(lines.to_string().contains(r#"{"tag":"added","text":"d"}"#), "{lines}");
    assert_eq!(post("/publish", json!({})).await.assert_status(200).json()["number"], 2);

    let restored = post("/versions/1/restore", json!({})).await.assert_status(200).json();
    assert_eq!(restored["steps"][0]["id"], json!(ids[0]), "the step is restored with its ID");
    assert_eq!(restored["steps"][1]["content"], "c");
    assert_eq!(get_member("current_version").await, 2);
    assert_eq!(
        post("/versions/2/withdraw", json!({ "reason": "" })).await.assert_status(422).json()["field"],
        "reason"
    );
    assert_eq!(
        post("/versions/2/withdraw", json!({ "reason": "Wrong" })).await.assert_status(200).json()["current_version"],
        1
    );
    let versions = browser.api(Method::GET, &format!("{at}/versions"), None).await.json();
    assert_eq!(
        (&versions["items"][0]["withdrawn_reason"], &versions["items"][1]["is_current"]),
        (&json!("Wrong"), &json!(true))
    );
    for path in ["/versions/9", "/versions/0", "/versions/x", "/versions/99999999999999"] {
        browser.api(Method::GET, &format!("{at}{path}"), None).await.assert_status(404);
    }
    let preview = post("/preview", json!({ "format": "agent" })).await.assert_status(200).json();
    assert!(preview["items"][1]["text"].as_str().unwrap().contains("call next_walkthrough_step("), "{preview}");
    let unsaved = json!({ "format": "html", "step_id": ids[0], "step": { "content": "<script>x</script>" } });
    let preview = post("/preview", unsaved).await.assert_status(200).json();
    assert_eq!(preview["items"][0]["html"], json!(""));
    let excerpt = json!({ "typed": "<script>x</script>", "served": "" });
    assert_eq!(preview["items"][0]["changes"], json!([{ "field": "content", "excerpts": [excerpt], "more": 0 }]));
    app.finish().await;
}

#[tokio::test]
async fn lists_are_searched_sorted_and_paginated() {
    let app = App::new().await;
    let browser = ConsoleBrowser::owner(&app.org("acme").await).await;
    for title in ["Beta", "alpha", "Gamma"] {
        create_walkthrough(&browser, title, &[]).await;
    }
    let list_names = |response: &ConsoleResponse| {
        let items = response.assert_status(200).json()["items"].clone();
        items.as_array().unwrap().iter().map(|item| item["title"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    for (query, expected) in [
        ("", vec!["alpha", "Beta", "Gamma"]),
        ("?order=desc", vec!["Gamma", "Beta", "alpha"]),
        ("?q=LPH", vec!["alpha"]),
        ("?state=published", vec![]),
        ("?server_id=srv_0123456789abcdef", vec![]),
    ] {
        assert_eq!(
            list_names(&browser.api(Method::GET, &format!("/walkthroughs{query}"), None).await),
            expected,
            "{query}"
        );
    }
    for sort in ["title", "updated_at", "created_at"] {
        let (mut seen, mut cursor) = (Vec::new(), String::new());
        loop {
            let path = format!("/walkthroughs?sort={sort}&order=desc&limit=1{cursor}");
            let page = browser.api(Method::GET, &path, None).await;
            seen.extend(list_names(&page));
            match page.json()["next_cursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => break,
            }
        }
        seen.sort();
        assert_eq!(seen, ["Beta", "Gamma", "alpha"], "{sort}");
    }
    for query in ["?limit=0", "?limit=201", "?cursor=x", "?sort=x", "?q=%00", "?nope=1"] {
        browser.api(Method::GET, &format!("/walkthroughs{query}"), None).await.assert_status(422);
    }
    app.finish().await;
}

#[tokio::test]
async fn ids_of_another_organisation_return_404() {
    let app = App::new().await;
    let (org, other) = (app.org("acme").await, app.org("other").await);
    let (browser, outsider) = (ConsoleBrowser::owner(&org).await, ConsoleBrowser::owner(&other).await);
    let (foreign, steps) = create_walkthrough(&outsider, "Foreign", &["A"]).await;
    call(&outsider, Method::POST, &format!("{foreign}/publish"), json!({})).await.assert_status(200);
    let (mine, my_steps) = create_walkthrough(&browser, "Mine", &["A"]).await;
    let step = json!({ "step": { "title": "T" }, "after": null });
    for (method, path, body) in [
        (Method::GET, String::new(), None),
        (Method::PATCH, String::new(), Some(json!({ "title": "T" }))),
        (Method::DELETE, String::new(), None),
        (Method::GET, "/steps".into(), None),
        (Method::POST, "/steps".into(), Some(json!({ "title": "T" }))),
        (Method::GET, format!("/steps/{}", steps[0]), None),
        (Method::PATCH, format!("/steps/{}", steps[0]), Some(json!({ "title": "T" }))),
        (Method::DELETE, format!("/steps/{}", steps[0]), None),
        (Method::POST, format!("/steps/{}/move", steps[0]), Some(json!({ "after": null }))),
        (Method::POST, format!("/steps/{}/duplicate", steps[0]), None),
        (Method::POST, format!("/steps/{}/restore", steps[0]), Some(step.clone())),
        (Method::POST, "/duplicate".into(), Some(json!({}))),
        (Method::POST, "/archive".into(), None),
        (Method::POST, "/unarchive".into(), None),
        (Method::POST, "/unpublish".into(), None),
        (Method::POST, "/publish".into(), Some(json!({}))),
        (Method::GET, "/lint".into(), None),
        (Method::GET, "/impact".into(), None),
        (Method::GET, "/export".into(), None),
        (Method::POST, "/preview".into(), Some(json!({ "format": "html" }))),
        (Method::GET, "/versions".into(), None),
        (Method::GET, "/versions/1".into(), None),
        (Method::GET, "/versions/compare?from=1&to=draft".into(), None),
        (Method::POST, "/versions/1/restore".into(), None),
        (Method::POST, "/versions/1/withdraw".into(), Some(json!({ "reason": "x" }))),
    ] {
        browser.api(method.clone(), &format!("{foreign}{path}"), body.clone()).await.assert_status(404);
        // A foreign step is not found in the organisation's own walkthrough either.
        if path.contains(steps[0].as_str()) {
            browser.api(method, &format!("{mine}{path}"), body).await.assert_status(404);
        }
    }
    let after = json!({ "after": steps[0] });
    call(&browser, Method::POST, &format!("{mine}/steps/{}/move", my_steps[0]), after).await.assert_status(404);
    for page in ["", "/publish", "/versions", "/assignments", "/export", "/export/json", "/delete"] {
        let id = foreign.rsplit('/').next().unwrap();
        browser.get(&format!("/o/acme/walkthroughs/{id}{page}")).await.assert_status(404);
    }
    assert_eq!(outsider.api(Method::GET, &foreign, None).await.assert_status(200).json()["title"], "Foreign");
    app.finish().await;
}

/// Uploads files as multipart form data. Each file is a path and its bytes.
async fn import(browser: &ConsoleBrowser, query: &str, files: &[(&str, &[u8])]) -> ConsoleResponse {
    let mut body = Vec::new();
    for (path, bytes) in files {
        let head = format!(
            "--xx\r\nContent-Disposition: form-data; name=\"file\"; filename=\"{path}\"\r\n\
             Content-Type: text/markdown\r\n\r\n"
        );
        body.extend([head.as_bytes(), bytes, b"\r\n"].concat());
    }
    body.extend(b"--xx--\r\n");
    let request = Request::post(format!("/api/v1/walkthroughs/import{query}"))
        .header("sec-fetch-site", "same-origin")
        .header(header::CONTENT_TYPE, "multipart/form-data; boundary=xx");
    browser.send(request.body(Body::from(body)).unwrap()).await
}

#[tokio::test]
async fn files_and_folders_are_imported() {
    let app = App::new().await;
    let browser = ConsoleBrowser::owner(&app.org("acme").await).await;
    let file: &[(&str, &[u8])] = &[("a.md", b"# Set up\n\n## One\n\ntext\n\n## Two\n\ntext\n")];
    let dry = import(&browser, "?dry_run=true", file).await.assert_status(200).json();
    assert_eq!(
        (&dry["created"], &dry["id"], &dry["steps"][0]["change"]),
        (&json!(true), &Value::Null, &json!("added"))
    );
    assert_eq!(browser.api(Method::GET, "/walkthroughs", None).await.json()["items"], json!([]), "nothing was created");
    let done = import(&browser, "?publish=true", file).await.assert_status(200).json();
    assert_eq!((&done["title"], &done["published_version"]), (&json!("Set up"), &json!(1)));
    assert_eq!(
        import(&browser, "", file).await.assert_status(200).json()["changed"],
        false,
        "the same file changes nothing"
    );
    let folder: &[(&str, &[u8])] = &[
        ("my-course/01-begin/02-two.md", b"# Two\n\ntext"),
        ("my-course/01-begin/01-one.md", b"# One\n\ntext"),
        ("my-course/picture.png", &[0xff, 0xfe]),
    ];
    let course = import(&browser, "", folder).await.assert_status(200).json();
    assert_eq!((&course["title"], &course["steps"][0]["title"]), (&json!("My course"), &json!("One")));
    let id = done["id"].as_str().unwrap();
    let export = browser.api(Method::GET, &format!("/walkthroughs/{id}/export"), None).await;
    assert_eq!(export.assert_status(200).header("content-disposition"), "attachment; filename=\"set-up.json\"");
    app.finish().await;
}

#[tokio::test]
async fn hostile_imports_are_rejected() {
    let app = App::new().await;
    let browser = ConsoleBrowser::owner(&app.org("acme").await).await;
    let deep = "[".repeat(100_000);
    type Files<'a> = &'a [(&'a str, &'a [u8])];
    let cases: &[(Files<'_>, &str)] = &[
        (&[("../../etc/passwd.md", b"# A")], "outside the folder"),
        (&[("/etc/x.md", b"# A"), ("b.md", b"# B")], "outside the folder"),
        (&[("..\\..\\x.md", b"# A")], "outside the folder"),
        (&[("a/b/c/d/e/f/g/h/i/j/k.md", b"# A")], "8 folders deep"),
        (&[("a.md", &[b'#', 0xff])], "is not valid UTF-8"),
        (&[("a.json", deep.as_bytes())], "a.json"),
        (&[("a.json", br#"{"version":"1.1","walkthrough":{"title":"T"},"steps":[{"title":5}]}"#)], "a.json"),
        (&[], "contains no file"),
    ];
    for (files, words) in cases {
        let rejected = import(&browser, "", files).await;
        let detail = rejected.assert_status(422).json()["detail"].as_str().unwrap().to_owned();
        assert!(detail.contains(words), "{words}: {detail}");
    }
    let many: Vec<(String, Vec<u8>)> = (0..501).map(|n| (format!("f/{n}.md"), b"# A".to_vec())).collect();
    let many: Vec<(&str, &[u8])> = many.iter().map(|(path, bytes)| (path.as_str(), bytes.as_slice())).collect();
    import(&browser, "", &many).await.assert_status(422);
    let large = vec![b'a'; 1024 * 1024];
    import(&browser, "", &[("a.md", &large)]).await.assert_status(413);
    assert_eq!(browser.api(Method::GET, "/walkthroughs", None).await.json()["items"], json!([]));
    app.finish().await;
}

#[tokio::test]
async fn pages_cover_creating_publishing_and_deleting() {
    let app = App::new().await;
    let org = app.org("acme").await;
    let browser = ConsoleBrowser::owner(&org).await;
    browser.get_page("/o/acme/walkthroughs").await.assert_contains("No walkthroughs yet");
    browser.get_page("/o/acme/walkthroughs/new").await.assert_contains("Troubleshooting");
    browser.get_page("/o/acme/walkthroughs/import").await.assert_contains("Drop a file or folder here");
    let fields = [("title", "<b>Set up</b>"), ("type", "installer"), ("start", "template")];
    let made = browser.post("/o/acme/walkthroughs/new", &fields).await;
    let at = made.assert_status(303).location().to_owned();
    browser.post("/o/acme/walkthroughs/new", &fields).await.assert_status(409).assert_contains("already");
    browser.get_page("/o/acme/walkthroughs").await.assert_contains("Set up").assert_lacks("<b>Set up</b>");
    browser.get_page("/o/acme/walkthroughs?q=nothing").await.assert_contains("No matching walkthroughs");
    browser.get_page(&format!("{at}/publish")).await.assert_contains("This is the first version, with 4 steps.");
    browser
        .post(&format!("{at}/publish"), &[("revision", "9")])
        .await
        .assert_status(412)
        .assert_contains("changed in the meantime");
    let rejected = browser.post(&format!("{at}/publish"), &[("revision", "1")]).await;
    rejected.assert_status(422).assert_contains("‹fill in: ");
    let path = format!("/walkthroughs/{}", at.rsplit('/').next().unwrap());
    let rejected = call(&browser, Method::POST, &format!("{path}/publish"), json!({})).await.assert_status(422).json();
    assert!(
        rejected["detail"].as_str().unwrap().contains("step 1 \"Check the prerequisites\": `content`"),
        "{rejected}"
    );
    let listed = browser.api(Method::GET, &path, None).await.json()["steps"].clone();
    for step in listed.as_array().unwrap() {
        let step_path = format!("{path}/steps/{}", step["id"].as_str().unwrap());
        let filled = json!({ "content": "{{exec}} <YOUR_API_KEY> ‹quoted›", "context_for_agent": null,
            "operations_for_agent": "Run it." });
        call(&browser, Method::PATCH, &step_path, filled).await.assert_status(200);
    }
    let published = browser.post(&format!("{at}/publish"), &[]).await;
    published.assert_redirect(&format!("{at}/assignments"));
    browser.get_page(&format!("{at}/versions?from=1&to=draft")).await.assert_contains("No differences.");
    browser.get_page(&format!("{at}/assignments")).await.assert_contains("No servers yet");
    browser.get_page(&format!("{at}/export")).await.assert_contains("Download");
    browser.get_page(&format!("{at}/export/markdown")).await.assert_contains("## Install");
    browser
        .post(&format!("{at}/versions/1/withdraw"), &[("reason", "")])
        .await
        .assert_status(422)
        .assert_contains("reason");
    let id = at.rsplit('/').next().unwrap();
    let selection = [("action", "delete"), ("ids", id)];
    browser
        .post("/o/acme/walkthroughs/bulk", &selection)
        .await
        .assert_status(200)
        .assert_contains("4 steps, 1 published version");
    let confirmed = [("action", "delete"), ("ids", id), ("confirmed", "yes")];
    browser.post("/o/acme/walkthroughs/bulk", &confirmed).await.assert_redirect("/o/acme/walkthroughs");
    browser.get(&at).await.assert_status(404);
    let member = ConsoleBrowser::member(&org, "m@x.example", Role::Member).await;
    member.get_page("/o/acme/walkthroughs").await.assert_contains("No walkthroughs yet");
    app.finish().await;
}
