//! Texts for agents: `message` and the text block are each sufficient alone, and every text is correct for its
//! server.

use http::{Method, StatusCode};
use serde_json::{Value, json};
use waypost_core::server::{AuthType, Toolset};
use waypost_ops::servers::ServerSettings;

use crate::app::{App, Server, document, open};
use crate::client::{Client, ToolResult};

waypost_testkit::both!(extended open => a_step_id_determines_the_walkthrough, any_word_of_a_query_matches);

async fn set_up(app: &App, toolset: Toolset) -> Server {
    let server = app
        .org("acme")
        .await
        .server_with("acme", ServerSettings { toolset: Some(toolset), ..ServerSettings::default() })
        .await;
    server.walkthrough("Install Acme", &["Download", "Unpack", "Run"]).await;
    server
}

/// Returns `message` and the text block of a result.
fn texts(result: &ToolResult) -> [String; 2] {
    assert!(!result.message().is_empty(), "{result}");
    [result.message().to_owned(), result.text.clone()]
}

#[tokio::test]
async fn message_and_text_contain_the_next_call() {
    let app = App::new().await;
    let server = set_up(&app, Toolset::Guided).await;
    let by_slug = json!({ "walkthrough_id": "install-acme" });
    for mut user in [server.modern(), server.legacy("2025-06-18").connect().await] {
        let mut result = user.play("select_walkthrough", by_slug.clone()).await;
        for _ in 0..2 {
            let (id, step, handle) = (result.ok()["walkthrough"]["id"].clone(), result.step_id(), result.handle());
            let next = format!(
                "call next_walkthrough_step(walkthrough_id: {id}, current_step_id: \"{step}\", progress_handle: \"{handle}\")"
            );
            for text in texts(&result) {
                assert!(
                    text.contains("Show <content>") && text.contains("and stop. Only when the user says"),
                    "{text}"
                );
                assert!(text.contains(&next), "{next} in {text}");
                assert!(text.contains("notes") && text.contains("AGENTS.md") && text.contains(".waypost"), "{text}");
            }
            result = user.play("next_walkthrough_step", json!({ "current_step_id": step })).await;
        }
        for (tool, arguments) in [("list_walkthroughs", json!({})), ("get_walkthrough_status", by_slug.clone())] {
            let result = user.call(tool, arguments).await;
            let resume = "select_walkthrough(walkthrough_id: \"wt_";
            for text in texts(&result) {
                assert!(text.contains(resume) && text.contains(&format!("\"{}\"", result.handle())), "{tool}: {text}");
            }
        }
        let end = user.play("next_walkthrough_step", json!({})).await;
        for text in texts(&end) {
            assert!(text.contains("\"Install Acme\" is completed.") && text.contains("list_walkthroughs"), "{text}");
            assert!(text.contains("resume_if_exists: false, confirm: true, progress_handle: "), "{text}");
        }
    }
    app.finish().await;
}

#[tokio::test]
async fn texts_for_a_personal_url_mention_no_handle() {
    let app = App::new().await;
    let server = set_up(&app, Toolset::All).await;
    let user = server.personal("ann");
    let by_slug = json!({ "walkthrough_id": "install-acme" });
    for (tool, arguments) in [
        ("list_walkthroughs", json!({})),
        ("get_walkthrough_status", by_slug.clone()),
        ("select_walkthrough", by_slug.clone()),
        ("next_walkthrough_step", json!({})),
        ("get_current_step", by_slug.clone()),
        ("reset_walkthrough_progress", json!({ "walkthrough_id": "install-acme", "confirm": true })),
    ] {
        let result = user.call(tool, arguments).await;
        assert_eq!(result.ok()["progress_handle"], Value::Null);
        for text in texts(&result) {
            assert!(!text.contains("handle"), "{tool}: {text}");
        }
    }
    let info = user.send("server/discover", json!({})).await;
    let instructions = info.result()["instructions"].as_str().unwrap();
    assert!(instructions.contains("Progress is kept for this personal URL."), "{instructions}");
    let tools = user.send("tools/list", json!({})).await;
    assert!(!tools.body.contains("Pass progress_handle"), "{}", tools.body);
    app.finish().await;
}

#[tokio::test]
async fn texts_for_signed_in_users_mention_no_handle() {
    let app = App::new().await;
    let server = set_up(&app, Toolset::Guided).await;
    let info = server.modern().send("server/discover", json!({})).await;
    assert!(info.result()["instructions"].as_str().unwrap().contains("Pass progress_handle on EVERY call"));
    server.update(ServerSettings { auth_type: Some(AuthType::PlatformOauth), ..ServerSettings::default() }).await;
    let client = server.modern();
    let info = client.send("server/discover", json!({})).await;
    let instructions = info.result()["instructions"].as_str().unwrap();
    assert!(instructions.contains("Progress is kept for the signed-in user.") && !instructions.contains("handle"));
    assert!(!client.send("tools/list", json!({})).await.body.contains("Pass progress_handle"));
    let listed = client.call("list_walkthroughs", json!({})).await;
    assert!(texts(&listed).iter().all(|text| !text.contains("handle")), "{listed}");
    let prompt = client.send("prompts/get", json!({ "name": "install-acme" })).await;
    assert!(!prompt.body.contains("handle"), "{}", prompt.body);
    app.finish().await;
}

#[tokio::test]
async fn descriptions_and_prompts_state_the_rules() {
    let app = App::new().await;
    let server = set_up(&app, Toolset::All).await;
    let fields = "intro: say this first; context: for you only; operations: carry these out; content: show verbatim";
    let wait = "Never call it twice in a row without a reply from the user";
    let handle = "Pass progress_handle on EVERY call";
    let tools = server.modern().send("tools/list", json!({})).await.result()["tools"].as_array().unwrap().clone();
    for tool in &tools {
        let (name, text) = (tool["name"].as_str().unwrap(), tool["description"].as_str().unwrap());
        assert!(text.contains(handle), "{name}: {text}");
        let is_step =
            ["select_walkthrough", "next_walkthrough_step", "get_current_step", "complete_step"].contains(&name);
        assert_eq!(text.contains(fields), is_step, "{name}: {text}");
        assert_eq!(text.contains(wait), ["next_walkthrough_step", "complete_step"].contains(&name), "{name}: {text}");
        let members = &tool["outputSchema"]["properties"];
        assert_eq!(
            (&members["message"]["type"], members["progress_handle"].is_object()),
            (&json!("string"), true),
            "{name}"
        );
    }
    let prompts = server.modern().send("prompts/list", json!({})).await;
    assert_eq!(
        prompts.result()["prompts"][0]["description"],
        "Guides you through \"Install Acme\" (3 steps), one step at a time."
    );
    let prompt = server.modern().send("prompts/get", json!({ "name": "install-acme" })).await;
    for rule in [fields, wait, handle] {
        assert!(prompt.body.contains(rule), "{rule}");
    }
    app.finish().await;
}

#[tokio::test]
async fn a_stepwise_server_mentions_only_its_own_tools() {
    let app = App::new().await;
    let server = set_up(&app, Toolset::Stepwise).await;
    let walkthrough = server.walkthrough("Use Acme", &["Open", "Click"]).await;
    let by_slug = json!({ "walkthrough_id": walkthrough.slug });
    let done =
        async |title: &str| json!({ "walkthrough_id": walkthrough.slug, "step_id": walkthrough.step(title).await });
    let mut seen = String::new();
    let mut user = server.modern();
    for tool in ["list_walkthroughs", "get_current_step", "move_to_latest_version"] {
        let arguments = if tool == "list_walkthroughs" { json!({}) } else { by_slug.clone() };
        seen.push_str(&user.call(tool, arguments).await.response.body);
    }
    let unknown =
        user.call("reset_walkthrough_progress", json!({ "walkthrough_id": walkthrough.slug, "confirm": true })).await;
    assert!(unknown.text.contains("Pass the one from the first complete_step result"), "{unknown}");
    let lost = server.modern().with_handle("wph_00000000000000000000000000");
    seen.push_str(&lost.call("get_current_step", by_slug.clone()).await.response.body);
    let started = user.play("complete_step", done("Open").await).await;
    assert_eq!(started.progress(), "2/2 50%");
    let details = user.call("get_walkthrough_details", by_slug.clone()).await;
    let expected = json!({ "id": walkthrough.id, "slug": "use-acme", "title": "Use Acme", "version": 1, "latest_version": 1,
        "description": "", "type": "course", "tags": [], "step_count": 2, "estimated_duration_minutes": null });
    assert_eq!(details.ok()["walkthrough"], expected);
    assert_eq!(details.ok()["current_step"]["title"], "Click");
    assert!(details.text.contains("The current step is 2 of 2, \"Click\". Call get_current_step("), "{details}");
    walkthrough.publish(&["Open", "Click", "Close"]).await;
    let current = user.call("get_current_step", by_slug.clone()).await;
    assert!(
        current.message().contains("A newer version (2) is available; move_to_latest_version moves to it."),
        "{current}"
    );
    let moved = user.play("move_to_latest_version", by_slug.clone()).await;
    assert_eq!((moved.progress().as_str(), &moved.ok()["walkthrough"]["version"]), ("2/3 33%", &json!(2)));
    let same = user.play("move_to_latest_version", by_slug.clone()).await;
    assert!(same.message().starts_with("This is already the newest version"), "{same}");
    for title in ["Click", "Close"] {
        seen.push_str(&user.play("complete_step", done(title).await).await.response.body);
    }
    let completed = user.call("get_current_step", by_slug.clone()).await;
    for text in texts(&completed) {
        assert!(text.contains("\"Use Acme\" is already completed."), "{text}");
    }
    let reset =
        user.call("reset_walkthrough_progress", json!({ "walkthrough_id": walkthrough.slug, "confirm": true })).await;
    assert_eq!(reset.ok()["reset"], true);
    for result in [unknown, started, details, current, moved, same, completed, reset] {
        seen.push_str(&result.response.body);
    }
    for method in ["tools/list", "server/discover", "prompts/list"] {
        seen.push_str(&user.send(method, json!({})).await.body);
    }
    seen.push_str(&user.send("prompts/get", json!({ "name": walkthrough.slug })).await.body);
    for tool in ["select_walkthrough", "next_walkthrough_step", "get_walkthrough_status"] {
        assert!(!seen.contains(tool), "{tool} in {seen}");
    }
    app.finish().await;
}

#[tokio::test]
async fn errors_without_a_handle_ask_for_one() {
    let app = App::new().await;
    let server = set_up(&app, Toolset::Guided).await;
    let by_slug = json!({ "walkthrough_id": "install-acme" });
    let seen = "No progress_handle was passed, so the user is unknown. Pass the one from select_walkthrough";
    for user in [server.modern(), server.legacy("2025-06-18").connect().await] {
        for (tool, arguments, code) in [
            ("next_walkthrough_step", json!({}), "no_active_walkthrough"),
            ("next_walkthrough_step", by_slug.clone(), "no_active_walkthrough"),
            ("reset_walkthrough_progress", json!({ "walkthrough_id": "install-acme", "confirm": true }), "no_progress"),
        ] {
            let result = user.call(tool, arguments).await;
            assert_eq!(result.error_code(), code, "{tool}");
            assert!(result.text.starts_with(seen), "{result}");
        }
        let status = user.call("get_walkthrough_status", by_slug.clone()).await;
        assert_eq!(status.ok()["progress"]["status"], "not_started");
        assert!(status.message().starts_with(seen), "{status}");
    }
    app.finish().await;
}

#[tokio::test]
async fn null_and_empty_arguments_count_as_absent() {
    let app = App::new().await;
    let server = set_up(&app, Toolset::All).await;
    for absent in [json!(null), json!("")] {
        let mut user = server.modern();
        let begin = json!({ "walkthrough_id": "install-acme", "resume_if_exists": absent, "confirm": absent,
            "use_version": absent, "progress_handle": absent });
        user.play("select_walkthrough", begin.clone()).await.ok();
        let next = json!({ "walkthrough_id": absent, "current_step_id": absent });
        assert_eq!(user.play("next_walkthrough_step", next).await.progress(), "2/3 33%");
        let list = json!({ "query": absent, "cursor": absent });
        assert_eq!(user.call("list_walkthroughs", list).await.ok()["walkthroughs"][0]["progress_percent"], 33);
        let nameless = json!({ "walkthrough_id": absent });
        let stepless = json!({ "walkthrough_id": "install-acme", "step_id": absent });
        for (tool, arguments, field) in
            [("select_walkthrough", nameless, "walkthrough_id"), ("complete_step", stepless, "step_id")]
        {
            let missing = user.call(tool, arguments).await;
            let field = format!("`{field}` is missing.");
            assert_eq!((missing.error_code(), missing.text.as_str()), ("invalid_arguments", field.as_str()), "{tool}");
        }
    }
    app.finish().await;
}

async fn a_step_id_determines_the_walkthrough(app: App) {
    let server = set_up(&app, Toolset::Guided).await;
    server.walkthrough("Use Acme", &["Open", "Click"]).await;
    let mut user = server.modern();
    let first = user.play("select_walkthrough", json!({ "walkthrough_id": "install-acme" })).await;
    let other = user.play("select_walkthrough", json!({ "walkthrough_id": "use-acme" })).await;
    assert_eq!(user.call("next_walkthrough_step", json!({})).await.error_code(), "ambiguous_walkthrough");
    let next = |step: &str| json!({ "current_step_id": step });
    let result = user.call("next_walkthrough_step", next(&first.step_id())).await;
    assert_eq!((result.progress().as_str(), &result.ok()["walkthrough"]["slug"]), ("2/3 33%", &json!("install-acme")));
    let repeated = user.call("next_walkthrough_step", next(&first.step_id())).await;
    assert_eq!((repeated.progress().as_str(), &repeated.ok()["completed_step_id"]), ("2/3 33%", &Value::Null));
    let crossed = json!({ "walkthrough_id": "install-acme", "current_step_id": other.step_id() });
    assert_eq!(user.call("next_walkthrough_step", crossed).await.error_code(), "step_mismatch");
    assert_eq!(
        user.call("next_walkthrough_step", next("ws_0000000000000000")).await.error_code(),
        "ambiguous_walkthrough"
    );
    app.finish().await;
}

async fn any_word_of_a_query_matches(app: App) {
    let server = app.server("acme").await;
    for (title, description, steps) in [
        ("Réglages", "How to configure.", ["Ouvrir le café", "Fin"]),
        ("Install", "Start here.", ["Download the archive", "Run"]),
        ("Install the database", "Tables.", ["Create", "Run"]),
    ] {
        let mut file = document(title, &steps);
        file["walkthrough"]["description"] = json!(description);
        file["walkthrough"]["tags"] = json!([format!("tag-{}", steps[0].split(' ').next().unwrap())]);
        server.import(&file).await;
    }
    let user = server.modern();
    let titles = async |query: &str| -> Vec<String> {
        let result = user.call("list_walkthroughs", json!({ "query": query })).await;
        let rows = result.ok()["walkthroughs"].as_array().unwrap().clone();
        rows.iter().map(|row| row["title"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(titles("install DATABASE kubernetes").await, ["Install the database", "Install"], "ranked");
    assert_eq!(titles("reglages").await, ["Réglages"], "accents are ignored");
    assert_eq!(titles("CAFE").await, ["Réglages"], "step titles are searched");
    assert_eq!(titles("configure").await, ["Réglages"], "descriptions");
    assert_eq!(titles("tag-download").await[0], "Install", "tags");
    assert_eq!(titles("  ").await.len(), 3);
    let none = user.call("list_walkthroughs", json!({ "query": "kubernetes" })).await;
    assert_eq!(none.ok()["walkthroughs"], json!([]));
    for text in texts(&none) {
        assert_eq!(text, "No walkthrough matches \"kubernetes\". Omit query to see all 3 walkthroughs.");
    }
    app.finish().await;
}

#[tokio::test]
async fn a_trailing_slash_is_ignored() {
    let app = App::new().await;
    let server = set_up(&app, Toolset::Guided).await;
    for (host, path) in [
        ("localhost:8080", "/s/acme/mcp/"),
        ("localhost:8080", "/s/acme/t/ann/mcp/"),
        ("acme.localhost:8080", "/mcp/"),
        ("acme.localhost:8080", "/t/ann/mcp/"),
    ] {
        let client: Client = server.modern().at_host(host, path);
        let result = client.call("select_walkthrough", json!({ "walkthrough_id": "install-acme" })).await;
        assert_eq!(result.progress(), "1/3 0%", "{host}{path}");
        let get = app.request(Method::GET, path).header("host", host).send().await;
        assert_eq!(get.status, StatusCode::METHOD_NOT_ALLOWED, "{host}{path}");
    }
    app.finish().await;
}

#[tokio::test]
async fn sse_clients_are_referred_to_streamable_http() {
    let app = App::new().await;
    let server = set_up(&app, Toolset::Guided).await;
    let get = app.request(Method::GET, &server.path()).header("accept", "text/event-stream").send().await;
    assert_eq!(get.status, StatusCode::METHOD_NOT_ALLOWED);
    assert!(get.body.contains("set the transport to Streamable HTTP"), "{get}");
    for (method, host, path, address) in [
        (Method::GET, "localhost:8080", "/s/acme/sse", "http://localhost:8080/s/acme/mcp"),
        (Method::POST, "localhost:8080", "/s/acme/messages/", "http://localhost:8080/s/acme/mcp"),
        (Method::GET, "localhost:8080", "/s/acme/t/ann/sse", "http://localhost:8080/s/acme/t/ann/mcp"),
        (Method::GET, "acme.localhost:8080", "/sse", "http://acme.localhost:8080/mcp"),
        (Method::POST, "acme.localhost:8080", "/messages", "http://acme.localhost:8080/mcp"),
    ] {
        let response =
            app.request(method, path).header("host", host).header("accept", "text/event-stream").send().await;
        assert_eq!(response.status, StatusCode::GONE, "{host}{path}");
        let message = response.json()["error"]["message"].as_str().unwrap();
        assert!(message.contains("Streamable HTTP") && message.contains(&format!("the URL {address}.")), "{message}");
    }
    let unknown = app.request(Method::GET, "/s/nobody/sse").header("accept", "text/event-stream").send().await;
    assert_eq!(unknown.status, StatusCode::NOT_FOUND);
    app.finish().await;
}
