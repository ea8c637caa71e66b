//! The console's pages for a catalogue entry with a remote server, and for its instances.

use serde_json::json;
use waypost_core::organization::Role;

use super::ConsoleBrowser;
use super::instances::Api;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_remote_entry_is_deployed_without_a_toolbox() {
    let api = Api::new().await;
    let owner = ConsoleBrowser::owner(&api.org).await.for_org("acme");
    let member = ConsoleBrowser::member(&api.org, "member@example.com", Role::Member).await;
    let remote = |version: &str| {
        json!({
            "slug": "far", "name": "Far", "version": version,
            "source": { "remote": { "url": format!("https://far.example/{version}/hunter2-planted"), "transport": "sse",
                "headers": { "X-Region": "${config.region}" } } },
            "config_schema": { "properties": { "region": { "type": "string" } }, "required": ["region"],
                "additionalProperties": false },
            "secrets": [{ "name": "Authorization", "description": "Of the service." }],
        })
    };
    let first = api.post("/catalog/import", remote("1")).await.assert_status(200).json();
    let secret = api.post("/secrets", json!({ "name": "TOKEN", "value": "Bearer planted" })).await.json();
    let secret = secret["id"].as_str().unwrap().to_owned();
    let catalog = member.get_page("/o/acme/catalog").await;
    catalog
        .assert_contains("Remote server at https://far.example<")
        .assert_contains("<td data-label=\"Resources\">–</td>");
    catalog.assert_lacks("hunter2-planted");
    let form = owner.get_page(&format!("/o/acme/instances/new?entry={}", first["id"].as_str().unwrap())).await;
    form.assert_contains("<bdi>https://far.example</bdi>").assert_lacks("hunter2-planted");
    form.assert_contains("Of the service. Sent as the header with this name.").assert_contains("for=\"f-config-0\"");
    form.assert_lacks("name=\"toolbox_id\"").assert_lacks("name=\"learn_egress\"").assert_lacks("No toolbox is online");
    let version = first["version_id"].as_str().unwrap();
    let deploy = async |fields: &[(&str, &str)]| {
        let base = [("catalog_version_id", version), ("slug", "far"), ("name", "Far")];
        owner.post("/o/acme/instances", &[&base[..], fields].concat()).await
    };
    let missing = deploy(&[("config-0", "eu")]).await;
    missing.assert_status(422).assert_contains("This version requires the secret “Authorization”");
    let created = deploy(&[("config-0", "eu"), ("secret-0", &secret)]).await;
    let page = created.assert_status(303).location().to_owned();
    let shown = member.get_page(&page).await;
    shown.assert_contains("<bdi>Far</bdi>, version 1").assert_contains("<bdi>https://far.example</bdi>");
    shown.assert_contains("Authorization, X-Region").assert_contains("The connection is being tested.");
    shown.assert_lacks("hunter2-planted").assert_lacks("/deployments\"");
    owner.get_page("/o/acme/instances").await.assert_contains(">Deploy</a>");
    let second = api.post("/catalog/import", remote("2")).await.assert_status(200).json();
    let newest = second["version_id"].as_str().unwrap();
    let path = format!("{page}/configuration");
    let form = owner.get_page(&format!("{path}?version={newest}")).await;
    form.assert_contains("These are the fields of version 2").assert_contains("the connection is tested again");
    form.assert_lacks("name=\"learn_egress\"").assert_lacks("name=\"url\"").assert_contains("value=\"eu\"");
    let save = async |version: &str, region: &str| {
        let fields = [("catalog_version_id", version), ("name", "Far"), ("config-0", region), ("secret-0", &secret)];
        owner.post(&path, &fields).await
    };
    save(version, "eu").await.assert_redirect(&path);
    save(newest, "us").await.assert_redirect(&page);
    let instance = api.get(&page.replace("/o/acme", "")).await;
    assert_eq!((&instance["catalog_version_id"], &instance["generation"]), (&json!(newest), &json!(2)));
    assert_eq!(instance["config"], json!({ "region": "us" }));
    // A version of the entry that runs on a toolbox needs a new instance.
    let image = json!({
        "slug": "far", "name": "Far", "version": "3", "transport": "stdio", "config_schema": remote("3")["config_schema"],
        "source": { "image": format!("registry.example/far@sha256:{}", "ab".repeat(32)) },
        "secrets": [{ "name": "Authorization" }],
    });
    let third = api.post("/catalog/import", image).await.assert_status(200).json();
    let rejected = save(third["version_id"].as_str().unwrap(), "us").await;
    rejected.assert_status(422).assert_contains("but the instance is a remote server");
    member.get_page(&path).await.assert_contains("us").assert_contains("assigned</span>").assert_lacks("TOKEN");
    api.app.finish().await;
}
