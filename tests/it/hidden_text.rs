//! Text that is invisible to users never reaches a model (docs/security.md).

use serde_json::{Value, json};
use waypost_content::invisible::is_invisible;
use waypost_core::server::{Support, Toolset};
use waypost_ops::servers::ServerSettings;

use crate::app::{App, document};

/// "hi" in tag characters, two variation selectors, a soft hyphen and filler characters.
const INVISIBLE: &str = "\u{E0068}\u{E0069}\u{FE01}\u{E0101}\u{AD}\u{115F}\u{3164}\u{2800}\u{200B}";

/// Inserts invisible characters into `text`.
fn hide(text: &str) -> String {
    let (start, end) = text.split_at(2);
    format!("{start}{INVISIBLE}{end}")
}

/// Checks that a response contains no invisible characters and no `SECRET`.
fn assert_visible(response: &Value) {
    let text = response.to_string();
    let seen: Vec<_> = text.chars().filter(|&c| is_invisible(c)).collect();
    assert!(seen.is_empty(), "{seen:?} in {text}");
    assert!(!text.contains("SECRET"), "{text}");
}

#[tokio::test]
async fn invisible_text_is_removed_from_results() {
    let app = App::new().await;
    let server = app.server("acme").await;
    let mut file = document(&hide("Install Acme"), &["Download"]);
    file["walkthrough"]["description"] = json!(hide("How to install it."));
    file["walkthrough"]["tags"] = json!([hide("cli")]);
    let step = &mut file["steps"][0];
    step["title"] = json!(hide("Download"));
    let content = format!(
        "Run `{code}`[^1], see [docs](https://acme.example \"SECRET\") and [more].\n\n\
         [//]: # (SECRET)\n[unused]: https://acme.example 'SECRET'\n\
         [more]: https://acme.example/more (SECRET)\n[more]: https://acme.example/SECRET\n\n\
         [^1]: A note.\n\n[^2]: SECRET\n\n```sh SECRET\n{code}\n```\n\n\
         | a | b |\n|---|---|\n| 1 | 2 | SECRET |\n\n<!-- SECRET -->\n\n{text} < / content> &#xE0068;&shy; end",
        code = hide("curl acme"),
        text = hide("Text"),
    );
    step["contentFields"]["contentForUser"] = json!(content);
    step["contentFields"]["contextForAgent"] = json!(hide("Context"));
    server.import(&file).await;
    let settings = ServerSettings {
        name: Some(hide("Acme Server")),
        product_name: Some(hide("Acme")),
        ..ServerSettings::default()
    };
    server.update(settings).await;

    let mut user = server.modern();
    for method in ["server/discover", "tools/list", "prompts/list", "resources/list"] {
        assert_visible(user.send(method, json!({})).await.json());
    }
    assert_visible(user.send("prompts/get", json!({ "name": "install-acme" })).await.json());
    assert_visible(user.call("list_walkthroughs", json!({})).await.response.json());
    let step = user.play("select_walkthrough", json!({ "walkthrough_id": "install-acme" })).await;
    assert_visible(step.response.json());
    assert_eq!(
        step.ok()["step"]["content"],
        "Run `curl acme`[^1], see [docs](https://acme.example) and [more].\n\n\
         \n\n[more]: https://acme.example/more \n\n\n[^1]: A note.\n\n\n\n```sh\ncurl acme\n```\n\n\
         | a | b |\n|---|---|\n| 1 | 2 |\n\n\n\nText < / content>  end"
    );
    // No text can close the section that contains it.
    assert!(step.text.contains("<content-2>\nRun `curl acme`"), "{}", step.text);
    assert!(step.text.contains("end\n</content-2>\n"), "{}", step.text);
    app.finish().await;
}

#[tokio::test]
async fn stored_invisible_text_is_removed_when_served() {
    let app = App::new().await;
    let server = app.server("acme").await;
    server.walkthrough("Install Acme", &["Download"]).await;
    app.execute("UPDATE servers SET name = 'Ac\u{E0068}me', product_name = 'Ac\u{AD}\u{3164}me'").await;
    // Any configuration change makes the process reload the server's names.
    server.update(ServerSettings { toolset: Some(Toolset::All), ..ServerSettings::default() }).await;
    let response = server.modern().send("server/discover", json!({})).await;
    assert_visible(response.json());
    assert!(response.json().to_string().contains("Acme"), "{response}");
    app.finish().await;
}

#[tokio::test]
async fn invisible_text_is_removed_from_tickets() {
    let app = App::new().await;
    let settings = ServerSettings { support: Some(Support::Tickets), ..ServerSettings::default() };
    let server = app.org("acme").await.server_with("acme", settings).await;
    let arguments = json!({ "title": hide("Help me"), "problem": hide("It fails"), "context": hide("Beta") });
    server.personal("ann").call("get_support", arguments).await.ok();
    let stored = app.query_lines("SELECT title || '|' || problem || '|' || context FROM tickets").await;
    assert_eq!(stored.trim(), "Help me|It fails|Beta");
    app.finish().await;
}
