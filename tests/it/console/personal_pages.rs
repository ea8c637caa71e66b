//! The console's pages for personal secrets: the user's own secrets, and those of an agent.

use http::Method;
use serde_json::json;
use waypost_core::grant::{AccessLevel, GrantedNames};
use waypost_core::id::AgentId;
use waypost_core::organization::Role;
use waypost_ops::grants::NewGrant;
use waypost_ops::{grants, users};

use super::ConsoleBrowser;
use crate::gateway::{Stage, personal_stage};

const LIST: &str = "/o/acme/personal-secrets";
const VALUE: &str = "correct horse <battery>";

/// Creates a member with an agent. Returns a browser signed in as the member, and the ID of the agent.
async fn person(stage: &Stage, name: &str) -> (ConsoleBrowser, AgentId) {
    let email = format!("{name}@acme.example");
    let browser = ConsoleBrowser::member(&stage.api.org, &email, Role::Member).await.for_org("acme");
    let (cx, ops, org) = (stage.api.app.cx(), stage.api.app.running_ops(), &stage.api.org.id);
    let member = users::resolve(cx, &ops, org, &email).await.unwrap();
    let agent = waypost_core::agent::Agent {
        id: AgentId::new(&*cx.random),
        organization_id: org.clone(),
        name: email,
        kind: waypost_core::agent::AgentKind::Person,
        user_id: Some(member.user_id),
        state: waypost_core::agent::AgentState::Active,
        created_at: cx.now(),
        created_by: "operator".to_owned(),
        last_seen_at: None,
    };
    let mut tx = ops.store().begin().await.unwrap();
    waypost_store::agent::insert(&mut tx, &agent).await.unwrap();
    tx.commit().await.unwrap();
    (browser, agent.id)
}

async fn grant(stage: &Stage, agent: &AgentId) {
    let new = NewGrant {
        agent_id: agent.clone(),
        instance_id: stage.instance.parse().unwrap(),
        access: AccessLevel::ReadOnly,
        names: GrantedNames::default(),
        rules: Vec::new(),
        expires_at: None,
    };
    grants::create(stage.api.app.cx(), &stage.api.app.running_ops(), &stage.api.org.id, &new).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn users_set_their_own_values_and_see_only_granted_instances() {
    let stage = personal_stage().await;
    let ((ann, agent), (bob, _)) = (person(&stage, "ann").await, person(&stage, "bob").await);
    let nobody = ConsoleBrowser::member(&stage.api.org, "new@acme.example", Role::Member).await;
    grant(&stage, &agent).await;
    let (set, delete) = (format!("{LIST}/{}", stage.instance), format!("{LIST}/{}/delete", stage.instance));
    let page = ann.get_page(LIST).await;
    page.assert_contains("id=\"search\"").assert_contains("badge bad\">missing").assert_contains("Your key.");
    for other in [&bob, &nobody] {
        other.get_page(LIST).await.assert_contains("No personal secrets").assert_lacks("search");
        for path in [&set, &delete] {
            let refused = other.post(path, &[("name", "API_KEY"), ("value", VALUE)]).await;
            refused.assert_status(404).assert_lacks("battery").assert_lacks("API_KEY");
        }
    }
    for (name, value) in [("API_KEY", ""), ("NOPE", VALUE)] {
        let rejected = ann.post(&set, &[("name", name), ("value", value)]).await;
        rejected.assert_status(422).assert_contains("role=\"alert\"").assert_lacks("battery");
    }
    let large = "x".repeat(64 * 1024 + 1);
    ann.post(&set, &[("name", "API_KEY"), ("value", &large)]).await.assert_status(422).assert_lacks("xxxx");
    let saved = ann.post(&set, &[("name", "API_KEY"), ("value", VALUE)]).await;
    saved.assert_redirect(LIST);
    let page = ann.get_page(LIST).await;
    page.assert_contains("badge good\">set").assert_contains("Replace value").assert_lacks("battery");
    assert_eq!(page.header("cache-control"), "no-store");
    // An admin sees that a value is set, and can remove the value but not set it.
    let owner = ConsoleBrowser::owner(&stage.api.org).await.for_org("acme");
    let own = format!("/o/acme/agents/{agent}/secrets");
    let page = owner.get_page(&own).await;
    page.assert_contains("badge good\">set").assert_contains("Remove value").assert_lacks("battery");
    page.assert_lacks("<textarea");
    let at = format!("{own}/{}", stage.instance);
    owner.post(&at, &[("name", "API_KEY"), ("value", "x")]).await.assert_status(409);
    owner.post(&format!("{at}/delete"), &[("name", "API_KEY")]).await.assert_redirect(&own);
    ann.get_page(LIST).await.assert_contains("badge bad\">missing");
    ann.post(&delete, &[("name", "API_KEY")]).await.assert_status(404);
    ann.post(&set, &[("name", "HINT"), ("value", VALUE)]).await.assert_redirect(LIST);
    ann.post(&delete, &[("name", "HINT")]).await.assert_redirect(LIST);
    stage.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn admins_set_the_values_of_a_service_agent_on_its_page() {
    let stage = personal_stage().await;
    let owner = ConsoleBrowser::owner(&stage.api.org).await.for_org("acme");
    let page = format!("/o/acme/agents/{}/secrets", stage.agent);
    owner.get_page(&page).await.assert_contains("Calls fail until it is set").assert_contains("aria-current=\"page\"");
    let at = format!("{page}/{}", stage.instance);
    owner.post(&at, &[("name", "API_KEY"), ("value", "two\r\nlines")]).await.assert_redirect(&page);
    owner.get_page(&page).await.assert_contains("badge good\">set").assert_lacks("lines");
    owner.post(&at, &[("name", "API_KEY"), ("value", "")]).await.assert_status(422);
    owner.post(&format!("{page}/x"), &[("name", "API_KEY"), ("value", "x")]).await.assert_status(404);
    stage.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn secrets_are_marked_as_personal_in_the_form_of_an_instance() {
    let stage = personal_stage().await;
    let owner = ConsoleBrowser::owner(&stage.api.org).await.for_org("acme");
    let path = format!("/o/acme/instances/{}/configuration", stage.instance);
    let page = owner.get_page(&path).await;
    page.assert_contains("<option value=\"personal\" selected>Each agent supplies its own value</option>");
    let version = stage.api.get(&format!("/instances/{}", stage.instance)).await["catalog_version_id"].clone();
    let version = version.as_str().unwrap();
    let save = async |first: &str, second: &str| {
        let fields = [("catalog_version_id", version), ("name", "Search"), ("secret-0", first), ("secret-1", second)];
        owner.post(&path, &fields).await
    };
    save("personal", "").await.assert_redirect(&path.replace("/configuration", ""));
    let found = stage.api.get(&format!("/instances/{}", stage.instance)).await;
    assert_eq!(found["personal_secrets"], json!(["API_KEY"]));
    save("", "personal").await.assert_status(422).assert_contains("requires the secret");
    // If the agents of a version share a container, the form does not offer this choice, and the choice is rejected.
    let entry = json!({ "slug": "shared", "name": "Shared", "version": "1", "transport": "stdio",
        "secrets": [{ "name": "API_KEY" }],
        "source": { "image": format!("registry.example/search@sha256:{}", "ab".repeat(32)) } });
    let entry = stage.api.call(Method::POST, "/catalog/import", Some(entry)).await.json();
    let form = owner.get_page(&format!("/o/acme/instances/new?entry={}", entry["id"].as_str().unwrap())).await;
    form.assert_lacks("Each agent supplies its own value");
    let version = entry["versions"][0]["id"].as_str().unwrap();
    let fields = [("catalog_version_id", version), ("slug", "shared"), ("name", ""), ("secret-0", "personal")];
    let rejected = owner.post("/o/acme/instances", &fields).await;
    rejected.assert_status(422).assert_contains("sharing: per_agent");
    stage.finish().await;
}
