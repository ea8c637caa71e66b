//! What reaches an agent: each form of a result is sufficient on its own, and every text is true for its server.

use http::{Method, StatusCode};
use serde_json::{Value, json};
use waypost_core::server::{AuthType, Toolset};
use waypost_ops::servers::ServerSettings;

use crate::app::{App, Server, document, open};
use crate::client::{Called, Client};

waypost_testkit::both!(open => a_step_determines_the_walkthrough, any_word_of_a_query_matches);

async fn ready(app: &App, toolset: Toolset) -> Server {
    let server = app
        .org("acme")
        .await
        .server_with("acme", ServerSettings { toolset: Some(toolset), ..ServerSettings::default() })
        .await;
    server.walkthrough("Install Acme", &["Download", "Unpack", "Run"]).await;
    server
}

/// `message` and the text, each on its own.
fn forms(called: &Called) -> [String; 2] {
    assert!(!called.message().is_empty(), "{called}");
    [called.message().to_owned(), called.text.clone()]
}

#[tokio::test]
async fn both_forms_carry_the_next_call_with_its_values() {
    let app = App::new().await;
    let server = ready(&app, Toolset::Guided).await;
    let named = json!({ "walkthrough_id": "install-acme" });
    for mut user in [server.modern(), server.legacy("2025-06-18").connect().await] {
        let mut called = user.play("select_walkthrough", named.clone()).await;
        for _ in 0..2 {
            let (id, step, handle) = (called.ok()["walkthrough"]["id"].clone(), called.step_id(), called.handle());
            let next = format!(
                "call next_walkthrough_step(walkthrough_id: {id}, current_step_id: \"{step}\", progress_handle: \"{handle}\")"
            );
            for form in forms(&called) {
                assert!(
                    form.contains("Show <content>") && form.contains("and stop. Only when the user says"),
                    "{form}"
                );
                assert!(form.contains(&next), "{next} in {form}");
                assert!(form.contains("notes") && form.contains("AGENTS.md") && form.contains(".waypost"), "{form}");
            }
            called = user.play("next_walkthrough_step", json!({ "current_step_id": step })).await;
        }
        for (tool, arguments) in [("list_walkthroughs", json!({})), ("get_walkthrough_status", named.clone())] {
            let called = user.call(tool, arguments).await;
            let resume = "select_walkthrough(walkthrough_id: \"wt_";
            for form in forms(&called) {
                assert!(form.contains(resume) && form.contains(&format!("\"{}\"", called.handle())), "{tool}: {form}");
            }
        }
        let end = user.play("next_walkthrough_step", json!({})).await;
        for form in forms(&end) {
            assert!(form.contains("\"Install Acme\" is completed.") && form.contains("list_walkthroughs"), "{form}");
            assert!(form.contains("resume_if_exists: false, confirm: true, progress_handle: "), "{form}");
        }
    }
    app.finish().await;
}

#[tokio::test]
async fn a_personal_url_has_no_handle_in_any_text() {
    let app = App::new().await;
    let server = ready(&app, Toolset::All).await;
    let user = server.personal("ann");
    let named = json!({ "walkthrough_id": "install-acme" });
    for (tool, arguments) in [
        ("list_walkthroughs", json!({})),
        ("get_walkthrough_status", named.clone()),
        ("select_walkthrough", named.clone()),
        ("next_walkthrough_step", json!({})),
        ("get_current_step", named.clone()),
        ("reset_walkthrough_progress", json!({ "walkthrough_id": "install-acme", "confirm": true })),
    ] {
        let called = user.call(tool, arguments).await;
        assert_eq!(called.ok()["progress_handle"], Value::Null);
        for form in forms(&called) {
            assert!(!form.contains("handle"), "{tool}: {form}");
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
async fn where_users_sign_in_nothing_is_said_about_handles() {
    let app = App::new().await;
    let server = ready(&app, Toolset::Guided).await;
    let info = server.modern().send("server/discover", json!({})).await;
    assert!(info.result()["instructions"].as_str().unwrap().contains("Pass progress_handle on EVERY call"));
    server.set(ServerSettings { auth_type: Some(AuthType::PlatformOauth), ..ServerSettings::default() }).await;
    let client = server.modern();
    let info = client.send("server/discover", json!({})).await;
    let instructions = info.result()["instructions"].as_str().unwrap();
    assert!(instructions.contains("Progress is kept for the signed-in user.") && !instructions.contains("handle"));
    assert!(!client.send("tools/list", json!({})).await.body.contains("Pass progress_handle"));
    let listed = client.call("list_walkthroughs", json!({})).await;
    assert!(forms(&listed).iter().all(|form| !form.contains("handle")), "{listed}");
    let prompt = client.send("prompts/get", json!({ "name": "install-acme" })).await;
    assert!(!prompt.body.contains("handle"), "{}", prompt.body);
    app.finish().await;
}

#[tokio::test]
async fn descriptions_and_prompts_state_the_rules() {
    let app = App::new().await;
    let server = ready(&app, Toolset::All).await;
    let fields = "intro: say it first; context: for you only; operations: do these; content: show as written";
    let wait = "Never call it twice in a row without an answer from the user";
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
async fn a_stepwise_server_names_only_its_own_tools() {
    let app = App::new().await;
    let server = ready(&app, Toolset::Stepwise).await;
    let guide = server.walkthrough("Use Acme", &["Open", "Click"]).await;
    let named = json!({ "walkthrough_id": guide.slug });
    let done = async |title: &str| json!({ "walkthrough_id": guide.slug, "step_id": guide.step(title).await });
    let mut said = String::new();
    let mut user = server.modern();
    for tool in ["list_walkthroughs", "get_current_step", "move_to_latest_version"] {
        let arguments = if tool == "list_walkthroughs" { json!({}) } else { named.clone() };
        said.push_str(&user.call(tool, arguments).await.answer.body);
    }
    let unknown =
        user.call("reset_walkthrough_progress", json!({ "walkthrough_id": guide.slug, "confirm": true })).await;
    assert!(unknown.text.contains("Pass the one from the first complete_step result"), "{unknown}");
    let lost = server.modern().with_handle("wph_00000000000000000000000000");
    said.push_str(&lost.call("get_current_step", named.clone()).await.answer.body);
    let begun = user.play("complete_step", done("Open").await).await;
    assert_eq!(begun.at(), "2/2 50 %");
    let details = user.call("get_walkthrough_details", named.clone()).await;
    let expected = json!({ "id": guide.id, "slug": "use-acme", "title": "Use Acme", "version": 1, "latest_version": 1,
        "description": "", "type": "course", "tags": [], "step_count": 2, "estimated_duration_minutes": null });
    assert_eq!(details.ok()["walkthrough"], expected);
    assert_eq!(details.ok()["current_step"]["title"], "Click");
    assert!(details.text.contains("The current step is 2 of 2, \"Click\". Call get_current_step("), "{details}");
    guide.publish(&["Open", "Click", "Close"]).await;
    let current = user.call("get_current_step", named.clone()).await;
    assert!(current.message().contains("A newer version (2) exists; move_to_latest_version moves to it."), "{current}");
    let moved = user.play("move_to_latest_version", named.clone()).await;
    assert_eq!((moved.at().as_str(), &moved.ok()["walkthrough"]["version"]), ("2/3 33 %", &json!(2)));
    let same = user.play("move_to_latest_version", named.clone()).await;
    assert!(same.message().starts_with("This is the newest version already"), "{same}");
    for title in ["Click", "Close"] {
        said.push_str(&user.play("complete_step", done(title).await).await.answer.body);
    }
    let completed = user.call("get_current_step", named.clone()).await;
    for form in forms(&completed) {
        assert!(form.contains("\"Use Acme\" is completed already."), "{form}");
    }
    let reset = user.call("reset_walkthrough_progress", json!({ "walkthrough_id": guide.slug, "confirm": true })).await;
    assert_eq!(reset.ok()["reset"], true);
    for called in [unknown, begun, details, current, moved, same, completed, reset] {
        said.push_str(&called.answer.body);
    }
    for method in ["tools/list", "server/discover", "prompts/list"] {
        said.push_str(&user.send(method, json!({})).await.body);
    }
    said.push_str(&user.send("prompts/get", json!({ "name": guide.slug })).await.body);
    for tool in ["select_walkthrough", "next_walkthrough_step", "get_walkthrough_status"] {
        assert!(!said.contains(tool), "{tool} in {said}");
    }
    app.finish().await;
}

#[tokio::test]
async fn without_a_handle_the_user_is_unknown() {
    let app = App::new().await;
    let server = ready(&app, Toolset::Guided).await;
    let named = json!({ "walkthrough_id": "install-acme" });
    let said = "No progress_handle was given, so your user is unknown. Pass the one from select_walkthrough";
    for user in [server.modern(), server.legacy("2025-06-18").connect().await] {
        for (tool, arguments, code) in [
            ("next_walkthrough_step", json!({}), "no_active_walkthrough"),
            ("next_walkthrough_step", named.clone(), "no_active_walkthrough"),
            ("reset_walkthrough_progress", json!({ "walkthrough_id": "install-acme", "confirm": true }), "no_progress"),
        ] {
            let called = user.call(tool, arguments).await;
            assert_eq!(called.code(), code, "{tool}");
            assert!(called.text.starts_with(said), "{called}");
        }
        let status = user.call("get_walkthrough_status", named.clone()).await;
        assert_eq!(status.ok()["progress"]["status"], "not_started");
        assert!(status.message().starts_with(said), "{status}");
    }
    app.finish().await;
}

#[tokio::test]
async fn null_and_empty_text_are_absent() {
    let app = App::new().await;
    let server = ready(&app, Toolset::All).await;
    for absent in [json!(null), json!("")] {
        let mut user = server.modern();
        let begin = json!({ "walkthrough_id": "install-acme", "resume_if_exists": absent, "confirm": absent,
            "use_version": absent, "progress_handle": absent });
        user.play("select_walkthrough", begin.clone()).await.ok();
        let next = json!({ "walkthrough_id": absent, "current_step_id": absent });
        assert_eq!(user.play("next_walkthrough_step", next).await.at(), "2/3 33 %");
        let list = json!({ "query": absent, "cursor": absent });
        assert_eq!(user.call("list_walkthroughs", list).await.ok()["walkthroughs"][0]["progress_percent"], 33);
        let nameless = json!({ "walkthrough_id": absent });
        let stepless = json!({ "walkthrough_id": "install-acme", "step_id": absent });
        for (tool, arguments, field) in
            [("select_walkthrough", nameless, "walkthrough_id"), ("complete_step", stepless, "step_id")]
        {
            let missing = user.call(tool, arguments).await;
            let field = format!("`{field}` is missing.");
            assert_eq!((missing.code(), missing.text.as_str()), ("invalid_arguments", field.as_str()), "{tool}");
        }
    }
    app.finish().await;
}

async fn a_step_determines_the_walkthrough(app: App) {
    let server = ready(&app, Toolset::Guided).await;
    server.walkthrough("Use Acme", &["Open", "Click"]).await;
    let mut user = server.modern();
    let first = user.play("select_walkthrough", json!({ "walkthrough_id": "install-acme" })).await;
    let other = user.play("select_walkthrough", json!({ "walkthrough_id": "use-acme" })).await;
    assert_eq!(user.call("next_walkthrough_step", json!({})).await.code(), "ambiguous_walkthrough");
    let next = |step: &str| json!({ "current_step_id": step });
    let called = user.call("next_walkthrough_step", next(&first.step_id())).await;
    assert_eq!((called.at().as_str(), &called.ok()["walkthrough"]["slug"]), ("2/3 33 %", &json!("install-acme")));
    let repeated = user.call("next_walkthrough_step", next(&first.step_id())).await;
    assert_eq!((repeated.at().as_str(), &repeated.ok()["completed_step_id"]), ("2/3 33 %", &Value::Null));
    let crossed = json!({ "walkthrough_id": "install-acme", "current_step_id": other.step_id() });
    assert_eq!(user.call("next_walkthrough_step", crossed).await.code(), "step_mismatch");
    assert_eq!(user.call("next_walkthrough_step", next("ws_0000000000000000")).await.code(), "ambiguous_walkthrough");
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
        let called = user.call("list_walkthroughs", json!({ "query": query })).await;
        let rows = called.ok()["walkthroughs"].as_array().unwrap().clone();
        rows.iter().map(|row| row["title"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(titles("install DATABASE kubernetes").await, ["Install the database", "Install"], "ranked");
    assert_eq!(titles("reglages").await, ["Réglages"], "without accents");
    assert_eq!(titles("CAFE").await, ["Réglages"], "titles of steps");
    assert_eq!(titles("configure").await, ["Réglages"], "descriptions");
    assert_eq!(titles("tag-download").await[0], "Install", "tags");
    assert_eq!(titles("  ").await.len(), 3);
    let none = user.call("list_walkthroughs", json!({ "query": "kubernetes" })).await;
    assert_eq!(none.ok()["walkthroughs"], json!([]));
    for form in forms(&none) {
        assert_eq!(form, "Nothing matches \"kubernetes\". Without query there are 3.");
    }
    app.finish().await;
}

#[tokio::test]
async fn a_slash_at_the_end_of_an_address_changes_nothing() {
    let app = App::new().await;
    let server = ready(&app, Toolset::Guided).await;
    for (host, path) in [
        ("localhost:8080", "/s/acme/mcp/"),
        ("localhost:8080", "/s/acme/t/ann/mcp/"),
        ("acme.localhost:8080", "/mcp/"),
        ("acme.localhost:8080", "/t/ann/mcp/"),
    ] {
        let client: Client = server.modern().at_host(host, path);
        let called = client.call("select_walkthrough", json!({ "walkthrough_id": "install-acme" })).await;
        assert_eq!(called.at(), "1/3 0 %", "{host}{path}");
        let get = app.request(Method::GET, path).header("host", host).send().await;
        assert_eq!(get.status, StatusCode::METHOD_NOT_ALLOWED, "{host}{path}");
    }
    app.finish().await;
}

#[tokio::test]
async fn clients_of_the_removed_transport_are_told_what_to_change() {
    let app = App::new().await;
    let server = ready(&app, Toolset::Guided).await;
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
        let answer = app.request(method, path).header("host", host).header("accept", "text/event-stream").send().await;
        assert_eq!(answer.status, StatusCode::GONE, "{host}{path}");
        let message = answer.json()["error"]["message"].as_str().unwrap();
        assert!(message.contains("Streamable HTTP") && message.contains(&format!("the URL {address}.")), "{message}");
    }
    let unknown = app.request(Method::GET, "/s/nobody/sse").header("accept", "text/event-stream").send().await;
    assert_eq!(unknown.status, StatusCode::NOT_FOUND);
    app.finish().await;
}
