//! Access rules over HTTP: every API operation and every page is requested without credentials, with each role, and
//! by the owner of another organisation. The results must match `docs/access.md`, which `WAYPOST_TEST_WRITE=1` updates.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::PathBuf;

use axum::body::Body;
use http::{Method, Request, StatusCode, header};
use serde_json::{Map, Value, json};
use waypost_console::routes::Access;
use waypost_core::organization::Role;
use waypost_ops::api_keys::{self, CreateApiKey};
use waypost_ops::users;
use waypost_testkit::TempDir;

use super::{ConsoleBrowser, ConsoleResponse, read_response};
use crate::app::{App, Org};
use crate::client::Client;

/// The roles, from least to most privileged.
const ROLES: [Role; 3] = [Role::Member, Role::Admin, Role::Owner];

/// Two organisations, one with a resource of every kind. `ids` maps the noun in paths and bodies to an ID.
struct Fixture {
    folder: TempDir,
    ids: BTreeMap<String, String>,
    /// The first organisation's API keys, by role.
    keys: BTreeMap<&'static str, String>,
    /// The API key of the other organisation's owner.
    other: String,
    org: String,
}

fn database_file(folder: &TempDir) -> PathBuf {
    folder.path().join("waypost.db")
}

async fn start(folder: &TempDir) -> App {
    App::open_at(&waypost_testkit::sqlite_url(folder)).await
}

async fn call(app: &App, secret: Option<&str>, method: &str, path: &str, body: Option<&Value>) -> ConsoleResponse {
    let mut request = Request::builder().method(method).uri(path).header(header::HOST, "localhost:8080");
    if let Some(secret) = secret {
        request = request.header(header::AUTHORIZATION, format!("Bearer {secret}"));
    }
    let body = match body {
        Some(body) => {
            request = request.header(header::CONTENT_TYPE, "application/json");
            Body::from(body.to_string())
        }
        None => Body::empty(),
    };
    read_response(app.send(request.body(body).unwrap()).await).await
}

async fn create_key(org: &Org, name: &str, role: Role) -> String {
    let new = CreateApiKey { name, scope: role, expires_at: None };
    api_keys::create(org.app.cx(), &org.app.ops(), &org.id, new).await.unwrap().1
}

/// Posts `body` to `path` as the owner and returns the response.
async fn create(app: &App, key: &str, path: &str, body: Value) -> Value {
    let response = call(app, Some(key), "POST", &format!("/api/v1{path}"), Some(&body)).await;
    assert!(response.status.is_success(), "{path}: {} {}", response.status, response.body);
    response.json()
}

async fn fixture() -> Fixture {
    let folder = waypost_testkit::folder();
    let app = start(&folder).await;
    let (ours, theirs) = (app.org("ours").await, app.org("theirs").await);
    let mut keys = BTreeMap::new();
    for role in ROLES {
        keys.insert(role.as_str(), create_key(&ours, role.as_str(), role).await);
    }
    let other = create_key(&theirs, "owner", Role::Owner).await;
    let ids = fill(&app, &ours, &keys["owner"]).await;
    let org = ours.id.to_string();
    drop(ours);
    drop(theirs);
    app.skip_call_check();
    app.finish().await;
    Fixture { folder, ids, keys, other, org }
}

/// Creates one resource of every kind. Every noun that is followed by an ID in a path must be in the result.
async fn fill(app: &App, ours: &Org, owner: &str) -> BTreeMap<String, String> {
    let mut ids = BTreeMap::new();
    let mut keep = |noun: &str, value: &Value| ids.insert(noun.to_owned(), value.as_str().unwrap().to_owned());
    let server = create(app, owner, "/servers", json!({ "slug": "first-name", "support": "tickets" })).await;
    keep("servers", &server["id"]);
    let member = users::create(app.cx(), &app.ops(), &ours.id, "member@ours.example", Role::Member).await.unwrap();
    keep("members", &json!(member.user_id));
    let path = format!("/api/v1/servers/{}", server["id"].as_str().unwrap());
    call(app, Some(owner), "PATCH", &path, Some(&json!({ "slug": "second-name" }))).await.assert_status(200);
    keep("slugs", &json!("first-name"));
    let walkthrough = create(app, owner, "/walkthroughs", json!({ "title": "Guide", "type": "quickstart" })).await;
    keep("walkthroughs", &walkthrough["id"]);
    let path = format!("/walkthroughs/{}", walkthrough["id"].as_str().unwrap());
    let step = create(app, owner, &format!("{path}/steps"), json!({ "title": "One", "content": "Do it." })).await;
    keep("steps", &step["step"]["id"]);
    create(app, owner, &format!("{path}/publish"), json!({})).await;
    let deleted = create(app, owner, "/walkthroughs", json!({ "title": "Deleted", "type": "course" })).await;
    let own = format!("/api/v1/walkthroughs/{}", deleted["id"].as_str().unwrap());
    call(app, Some(owner), "DELETE", &own, None).await.assert_status(204);
    keep("trash", &deleted["id"]);
    keep("versions", &json!("1"));
    keep("revisions", &json!("1"));
    let assignment = json!({ "server_id": server["id"], "walkthrough_id": walkthrough["id"] });
    keep("assignments", &create(app, owner, "/assignments", assignment).await["id"]);
    let invitation = json!({ "email": "new@ours.example", "role": "member" });
    keep("invitations", &create(app, owner, "/invitations", invitation).await["id"]);
    keep("api-keys", &create(app, owner, "/api-keys", json!({ "name": "spare", "scope": "member" })).await["id"]);
    const PROVIDER: &str = "INSERT INTO oauth_configs
        SELECT 'oac_0123456789abcdef', id, 'Login', 'oauth', '', 'https://id.example/a', 'https://id.example/t', NULL, NULL,
            'waypost', NULL, 'none', 'openid', 'sub', FALSE, 1, 1 FROM organizations WHERE slug = 'ours'";
    app.execute(PROVIDER).await;
    keep("oauth-configs", &json!("oac_0123456789abcdef"));
    keep("secrets", &create(app, owner, "/secrets", json!({ "name": "TOKEN", "value": "hunter2" })).await["id"]);
    let entry = json!({ "slug": "search-tool", "name": "Search", "version": "1", "transport": "stdio",
        "sharing": "per_agent", "secrets": [{ "name": "API_KEY", "required": false }],
        "source": { "image": format!("registry.example/search@sha256:{}", "ab".repeat(32)) } });
    let entry = create(app, owner, "/catalog/import", entry).await;
    keep("catalog", &entry["id"]);
    keep("catalog-versions", &entry["versions"][0]["id"]);
    let receiver = json!({ "url": "https://hook.example/x", "events": ["ticket.created"] });
    let receiver = create(app, owner, "/webhooks", receiver).await;
    keep("webhooks", &receiver["id"]);
    let toolbox = create(app, owner, "/toolboxes", json!({ "name": "rack" })).await;
    keep("toolboxes", &toolbox["id"]);
    let instance = json!({
        "slug": "own", "catalog_version_id": entry["versions"][0]["id"], "toolbox_id": toolbox["id"],
        "personal_secrets": ["API_KEY"]
    });
    let instance = create(app, owner, "/instances", instance).await;
    keep("instances", &instance["id"]);
    keep("deployments", &instance["deployment"]["id"]);
    const DEFINITION: &str = "INSERT INTO tool_definitions (id, organization_id, instance_id,
            catalog_version_id, kind, name, digest, definition, problem, is_current, state, class, reason, decided_by,
            decided_at, first_seen_at) SELECT 'apr_0123456789abcdef01234567', organization_id, id,
            catalog_version_id, 'tool', 'find', 'd0', '{\"name\":\"find\"}', NULL, TRUE, 'pending', NULL, NULL, NULL, NULL, 1
        FROM instances";
    app.execute(DEFINITION).await;
    keep("tool-approvals", &json!("apr_0123456789abcdef01234567"));
    let agent = create(app, owner, "/agents", json!({ "name": "Crawler" })).await;
    keep("agents", &agent["id"]);
    let id = |value: &Value| value["id"].as_str().unwrap().to_owned();
    let path = format!("/api/v1/instances/{}/agents/{}/personal-secrets/API_KEY", id(&instance), id(&agent));
    call(app, Some(owner), "PUT", &path, Some(&json!({ "value": "hunter2" }))).await.assert_status(204);
    keep("personal-secrets", &json!("API_KEY"));
    let tokens = format!("/agents/{}/tokens", agent["id"].as_str().unwrap());
    keep("tokens", &create(app, owner, &tokens, json!({})).await["id"]);
    let grant = json!({ "agent_id": agent["id"], "instance_id": instance["id"], "access": "full_access" });
    keep("grants", &create(app, owner, "/grants", grant).await["id"]);
    const CONNECTION: &str = "INSERT INTO remote_connections SELECT i.id || ':' || a.id, i.organization_id, i.id, a.id,
            'https://id.example', 'sealed', 1, NULL, NULL, NULL, NULL, TRUE, 'usr_1', 1, 1, NULL FROM instances i, agents a";
    app.execute(CONNECTION).await;
    keep("connections", &agent["id"]);
    const CALL: &str =
        "INSERT INTO calls SELECT 'cal_0123456789abcdef01234567', i.organization_id, a.id, i.id, 'tools/call',
            'find', 'ok', 1, 1, 1, 1, '{}', 1 FROM instances i, agents a";
    app.execute(CALL).await;
    keep("calls", &json!("cal_0123456789abcdef01234567"));
    let tool_set = json!({ "slug": "own", "members": [{ "instance_id": instance["id"] }] });
    keep("tool-sets", &create(app, owner, "/tool-sets", tool_set).await["id"]);
    // An end user opens a ticket, which creates a webhook delivery.
    app.refresh().await;
    let end_user = Client::modern(app, "/s/second-name/t/ann/mcp".to_owned());
    end_user.call("select_walkthrough", json!({ "walkthrough_id": walkthrough["id"] })).await.ok();
    let ticket = end_user.call("get_support", json!({ "title": "Stuck", "problem": "Here." })).await;
    let ticket = ticket.ok()["ticket_id"].clone();
    keep("tickets", &ticket);
    let comments = format!("/tickets/{}/comments", ticket.as_str().unwrap());
    keep("comments", &create(app, owner, &comments, json!({ "body": "Try this." })).await["id"]);
    let list = async |path: &str| {
        call(app, Some(owner), "GET", &format!("/api/v1{path}"), None).await.json()["items"][0]["id"].clone()
    };
    keep("end-users", &list("/end-users").await);
    const JOIN: &str = "INSERT INTO joins (id, organization_id, server_id, from_end_user_id, to_end_user_id, kind, undo,
            created_at) SELECT 'joi_0123456789abcdef01234567', organization_id, (SELECT id FROM servers), id, id, 'tracking',
            '{}', 1 FROM end_users LIMIT 1";
    app.execute(JOIN).await;
    keep("joins", &list("/joins").await);
    let deliveries = format!("/webhooks/{}/deliveries", receiver["id"].as_str().unwrap());
    keep("webhook-deliveries", &list(&deliveries).await);
    ids
}

/// Returns a value that matches a schema, with the fixture's IDs where an ID is expected.
fn example_value(document: &Value, schema: &Value, name: &str, ids: &BTreeMap<String, String>) -> Value {
    // For these parameters, any other value is rejected before the resource is looked up.
    match name {
        "after" => return Value::Null,
        "from" | "to" => return json!("1"),
        _ => {}
    }
    if let Some(reference) = schema["$ref"].as_str() {
        let schema = reference.rsplit('/').next().unwrap();
        return example_value(document, &document["components"]["schemas"][schema], name, ids);
    }
    if let Some(values) = schema["enum"].as_array() {
        return values[0].clone();
    }
    if let Some(first) = ["oneOf", "anyOf"].iter().find_map(|word| schema[*word].as_array()) {
        let part = first.iter().find(|part| part["type"] != "null").unwrap();
        return example_value(document, part, name, ids);
    }
    let noun = name.strip_suffix("_id").map(|noun| format!("{}s", noun.replace('_', "-")));
    if let Some(id) = noun.and_then(|noun| ids.get(&noun)) {
        return json!(id);
    }
    let kind = schema["type"].as_str().or_else(|| schema["type"][0].as_str()).unwrap_or("object");
    match kind {
        "string" => schema["example"].as_str().map_or_else(|| json!("sample"), |example| json!(example)),
        "integer" | "number" => json!(1),
        "boolean" => json!(true),
        "array" => json!([]),
        _ => {
            let required = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str);
            let members = required
                .map(|member| (member.to_owned(), example_value(document, &schema["properties"][member], member, ids)));
            Value::Object(members.collect::<Map<_, _>>())
        }
    }
}

/// Replaces the placeholders in a path template with the fixture's IDs. A placeholder follows its noun: `/servers/{server_id}`.
fn resolve_path(path: &str, fixture: &Fixture) -> String {
    let mut parts: Vec<String> = Vec::new();
    for part in path.split('/') {
        let before = parts.last().cloned().unwrap_or_default();
        parts.push(match part.strip_prefix('{') {
            Some(_) if before == "organizations" => fixture.org.clone(),
            Some(_) => {
                let noun = path.split('/').nth(parts.len() - 1).unwrap();
                fixture.ids.get(noun).cloned().unwrap_or_else(|| panic!("{path}: the fixture has no ID for {noun}"))
            }
            None => part.to_owned(),
        });
    }
    parts.join("/")
}

/// Returns the lowest role that has access, or `user` if no API key has access.
async fn minimum_role(app: &App, fixture: &Fixture, method: &str, path: &str, body: Option<&Value>) -> String {
    for role in ROLES {
        let response = call(app, Some(&fixture.keys[role.as_str()]), method, path, body).await;
        // The toolbox of the fixture is not connected.
        let is_offline = response.body.contains("\"reason\":\"toolbox_offline\"");
        let is_expected = !response.status.is_server_error() || is_offline;
        assert!(is_expected, "{method} {path}: {} {}", response.status, response.body);
        if response.status != StatusCode::FORBIDDEN {
            // A 404 is expected only for a missing logo or a step that was not deleted.
            let expected = ["no such logo", "was deleted from this walkthrough"];
            let is_found =
                response.status != StatusCode::NOT_FOUND || expected.iter().any(|text| response.body.contains(text));
            assert!(is_found, "{method} {path} as {role}: {}", response.body);
            return role.as_str().to_owned();
        }
    }
    "user".to_owned()
}

async fn check_operations(fixture: &Fixture, table: &mut String) {
    let document = waypost_api::document();
    let read_copy = start_copy(fixture).await;
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            let content = operation["requestBody"]["content"].as_object().and_then(|content| content.values().next());
            let mut body = content.map(|content| example_value(document, &content["schema"], "", &fixture.ids));
            if let Some(body) = body.as_mut().filter(|_| path == "/api-keys") {
                // An API key can only create a weaker key, so the new key must expire.
                body["expires_at"] = json!("2030-01-01T00:00:00Z");
            }
            let own = format!("/api/v1{}", resolve_path(path, fixture));
            let query: Vec<String> = operation["parameters"]
                .as_array()
                .into_iter()
                .flatten()
                .filter(|parameter| parameter["in"] == "query" && parameter["required"] == true)
                .map(|parameter| {
                    let name = parameter["name"].as_str().unwrap();
                    let value = example_value(document, &parameter["schema"], name, &fixture.ids);
                    format!("{name}={}", value.as_str().map_or_else(|| value.to_string(), ToOwned::to_owned))
                })
                .collect();
            let own = if query.is_empty() { own } else { format!("{own}?{}", query.join("&")) };
            let method = method.to_uppercase();
            // Every write operation gets its own copy, because one operation can delete what the next one needs.
            let own_copy = if method == "GET" { None } else { Some(start_copy(fixture).await) };
            let app = own_copy.as_ref().map_or(&read_copy.1, |(_, app)| app);
            let anonymous = call(app, None, &method, &own, body.as_ref()).await;
            assert_eq!(anonymous.status, StatusCode::UNAUTHORIZED, "{method} {path} without credentials");
            let foreign = call(app, Some(&fixture.other), &method, &own, body.as_ref()).await;
            if path.contains('{') {
                assert_eq!(
                    foreign.status,
                    StatusCode::NOT_FOUND,
                    "{method} {path} of another organisation: {}",
                    foreign.body
                );
            }
            for id in fixture.ids.values().filter(|id| id.contains('_')) {
                let is_sent = own.contains(id.as_str())
                    || body.as_ref().is_some_and(|body| body.to_string().contains(id.as_str()));
                assert!(
                    is_sent || !foreign.body.contains(id.as_str()),
                    "{method} {path} shows {id} to another organisation"
                );
            }
            let least = minimum_role(app, fixture, &method, &own, body.as_ref()).await;
            let other = if path.contains('{') { foreign.status.as_u16().to_string() } else { "own data".to_owned() };
            writeln!(table, "| `{method} /api/v1{path}` | {least} | {other} |").unwrap();
            if let Some((_, app)) = own_copy {
                app.stop().await;
            }
        }
    }
    read_copy.1.stop().await;
}

/// Starts an app on a copy of the fixture's database, without the check that every call is recorded.
async fn start_copy(fixture: &Fixture) -> (TempDir, App) {
    let folder = waypost_testkit::folder();
    std::fs::copy(database_file(&fixture.folder), database_file(&folder)).unwrap();
    let app = start(&folder).await;
    app.skip_call_check();
    (folder, app)
}

async fn check_pages(app: &App, table: &mut String) {
    let (ours, theirs) = (app.org("console").await, app.org("elsewhere").await);
    let visitor = ConsoleBrowser::new(app);
    let outsider = ConsoleBrowser::owner(&theirs).await;
    let mut browsers = Vec::new();
    for role in ROLES {
        browsers.push((role, ConsoleBrowser::member(&ours, &format!("{role}@ours.example"), role).await));
    }
    for route in waypost_console::routes().list() {
        let path = route.path.replace("{org}", "console");
        // Unknown IDs: callers with access get 404, others are rejected first.
        let path = path
            .split('/')
            .map(|part| if part.starts_with('{') { "nothing" } else { part })
            .collect::<Vec<_>>()
            .join("/");
        let send = async |browser: &ConsoleBrowser| match route.method {
            Method::GET => browser.get(&path).await,
            _ => browser.post(&path, &[]).await,
        };
        let (method, at) = (&route.method, route.path);
        if let Access::Member(action) = route.access {
            let response = send(&visitor).await;
            assert!(
                response.location().starts_with("/login"),
                "{method} {at}: a visitor gets {} {}",
                response.status,
                response.body
            );
            send(&outsider).await.assert_status(404);
            for (role, browser) in &browsers {
                let is_allowed = action.minimum_role().is_some_and(|least| role.covers(least));
                let response = send(browser).await;
                assert_eq!(
                    response.status == StatusCode::FORBIDDEN,
                    !is_allowed,
                    "{method} {at} as {role}: {}",
                    response.status
                );
                assert!(
                    response.status != StatusCode::INTERNAL_SERVER_ERROR,
                    "{method} {at} as {role}: {}",
                    response.body
                );
            }
        } else {
            let response = send(&visitor).await;
            assert!(response.status != StatusCode::INTERNAL_SERVER_ERROR, "{method} {at}: {}", response.body);
            let is_redirected = response.location().starts_with("/login");
            assert!(
                route.access == Access::Public || is_redirected,
                "{method} {at}: a visitor gets {}",
                response.status
            );
        }
        let least = match route.access {
            Access::Public => "anyone",
            Access::User => "user",
            Access::Member(action) => action.minimum_role().map_or("no one", Role::as_str),
        };
        let other = if matches!(route.access, Access::Member(_)) { "404" } else { "-" };
        writeln!(table, "| `{method} {at}` | {least} | {other} |").unwrap();
    }
    // Forms from other sites with the cookies of a signed-in user.
    for site in [Some("cross-site"), Some("same-site"), None] {
        let mut request =
            Request::post("/o/console/settings").header(header::CONTENT_TYPE, "application/x-www-form-urlencoded");
        if let Some(site) = site {
            request = request.header("sec-fetch-site", site);
        }
        let response = browsers[2].1.send(request.body(Body::from("name=Stolen")).unwrap()).await;
        assert_eq!(response.status, StatusCode::FORBIDDEN, "{site:?}");
    }
}

const HEADER: &str = "\
<!-- Written by the test `console::access` (tests/it). Do not edit. -->

# Access rules

The test requests each API operation and each page without credentials, with each role, and as the owner of another
organisation. \"From\" is the lowest role with access (`user`: signed-in users for their own account, no API keys).
\"Elsewhere\" is the response to the owner of another organisation for the same path. Without credentials every operation
returns 401, and every page except the public ones redirects to the sign-in page. API keys and invitations are requested
with the role `owner`, which only owners can grant. `cargo test --test it access` fails if a route is missing here. The
[public pages](public-page.md) of servers are open to anyone with the link.

| Operation | From | Elsewhere |
|---|---|---|
";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_route_enforces_its_access_rule() {
    let fixture = fixture().await;
    let mut table = HEADER.to_owned();
    check_operations(&fixture, &mut table).await;
    table.push_str("\n| Page | From | Elsewhere |\n|---|---|---|\n");
    let app = App::new().await;
    check_pages(&app, &mut table).await;
    app.stop().await;
    let file = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("docs/access.md");
    if std::env::var_os("WAYPOST_TEST_WRITE").is_some() {
        std::fs::write(&file, &table).unwrap();
    }
    let known = std::fs::read_to_string(&file).unwrap_or_default();
    assert!(
        known == table,
        "docs/access.md does not match the routes: run this test with WAYPOST_TEST_WRITE=1\n{table}"
    );
}
