//! Organisations, users, servers, API keys, joins and logos.

use serde_json::json;

use crate::Workspace;

#[test]
fn an_operator_sets_up_an_organisation() {
    let workspace = Workspace::new();
    insta::assert_snapshot!(workspace.run_ok(&["org", "create", "acme", "--name", "Acme Inc."]), @"
    id:                 org_…
    slug:               acme
    name:               Acme Inc.
    toolboxes enabled:  yes
    gateway enabled:    yes
    created at:         TIME
    ");
    insta::assert_snapshot!(workspace.run_ok(&["user", "create", "Ann@acme.example", "--org", "acme", "--role", "owner"]), @"
    id:               usr_…
    email:            Ann@acme.example
    role:             owner
    verified:         no
    created at:       TIME
    link:             http://localhost:8080/link?token=TOKEN
    link expires at:  TIME
    ");
    insta::assert_snapshot!(workspace.run_ok(&["server", "create", "acme-docs", "--org", "acme", "--product", "Acme", "--toolset", "all"]), @"
    id:                         srv_…
    organization id:            org_…
    slug:                       acme-docs
    name:                       acme-docs
    product name:               Acme
    auth type:                  none
    sign in:                    auto
    oauth config id:            -
    walkthrough tools enabled:  yes
    toolset:                    all
    support:                    off
    allowed origins:            -
    public page:                yes
    public page indexed:        no
    created at:                 TIME
    updated at:                 TIME
    ");
    // With a single organisation, `--org` can be omitted.
    insta::assert_snapshot!(workspace.run_ok(&["key", "create", "--name", "ci"]), @"
    id:    key_…
    name:  ci
    key:   wpk_…
    Store the key now. It cannot be shown again.
    ");
    for (noun, name) in [("org", "acme"), ("user", "ann@ACME.example"), ("server", "acme-docs"), ("key", "ci")] {
        let shown = workspace.run_json(&[noun, "show", name]);
        let listed = workspace.run_json(&[noun, "list"]);
        assert_eq!(listed["items"][0]["id"], shown["id"], "{noun}");
        assert_eq!(workspace.run_json(&[noun, "show", shown["id"].as_str().unwrap()])["id"], shown["id"], "{noun}");
    }
    insta::assert_snapshot!(workspace.run_ok(&["key", "list"]), @"
    NAME  SCOPE  ID                    CREATED AT                EXPIRES AT  LAST USED AT
    ci    admin  key_…  TIME  -           -
    ");
}

#[test]
fn key_create_prints_three_members_as_json() {
    let workspace = Workspace::new();
    workspace.run_ok(&["org", "create", "acme"]);
    let key = workspace.run_json(&["key", "create", "--org", "acme", "--name", "ci", "--scope", "member"]);
    let members: Vec<_> = key.as_object().unwrap().keys().collect();
    assert_eq!(members, ["id", "name", "key"]);
    assert!(key["key"].as_str().unwrap().starts_with("wpk_"));
    assert_eq!(workspace.run_json(&["key", "show", "ci"])["scope"], "member");
    assert_eq!(workspace.run_json(&["key", "update", "ci", "--name", "cd", "--scope", "owner"])["scope"], "owner");
}

#[test]
fn resources_are_updated_and_deleted() {
    let workspace = Workspace::new();
    workspace.run_ok(&["org", "create", "acme"]);
    workspace.run_ok(&["user", "create", "ann@acme.example", "--role", "owner"]);
    workspace.run_ok(&["user", "create", "bob@acme.example"]);
    workspace.run_ok(&["server", "create", "acme-docs"]);
    assert_eq!(workspace.run_json(&["user", "update", "bob@acme.example", "--role", "admin"])["role"], "admin");
    let server =
        workspace.run_json(&["server", "update", "acme-docs", "--slug", "acme-help", "--walkthrough-tools", "false"]);
    assert_eq!(server["former_slugs"], json!(["acme-docs"]));
    assert_eq!(server["walkthrough_tools_enabled"], false);
    assert_eq!(workspace.run_json(&["server", "release-slug", "acme-help", "acme-docs"])["former_slugs"], json!([]));
    assert_eq!(workspace.run_json(&["org", "update", "acme", "--name", "A"])["name"], "A");
    insta::assert_snapshot!(workspace.run_err(2, &["server", "delete", "acme-help"]), @"error: Delete the server acme-help with its assignments and the progress of all users? Pass --yes to confirm; there is no terminal for a prompt.");
    let deleted = workspace.run_json(&["server", "delete", "acme-help", "--yes"]);
    assert_eq!((&deleted["id"], &deleted["deleted"]), (&server["id"], &json!(true)));
    insta::assert_snapshot!(workspace.run_ok(&["user", "delete", "bob@acme.example", "--yes"]), @"Removed bob@acme.example from organisation acme.");
    insta::assert_snapshot!(workspace.run_ok(&["server", "list"]), @"No entries.");
    insta::assert_snapshot!(workspace.run_ok(&["org", "delete", "acme", "--yes"]), @"Deleted the organisation acme.");
}

#[test]
fn errors_say_what_to_do() {
    let workspace = Workspace::new();
    insta::assert_snapshot!(workspace.run_err(1, &["server", "list"]), @"error: there is no organisation yet: create one with `waypost org create SLUG`");
    workspace.run_ok(&["org", "create", "acme"]);
    insta::assert_snapshot!(workspace.run_err(1, &["org", "create", "acme"]), @"error: The slug `acme` is taken by another organisation. Choose another one.");
    insta::assert_snapshot!(workspace.run_err(1, &["org", "show", "gone"]), @"error: there is no organisation `gone`: run `waypost org list` to see all");
    insta::assert_snapshot!(workspace.run_err(1, &["server", "create", "Docs!"]), @r#"error: The slug "Docs!" is invalid: a slug may contain only lowercase letters from a to z, digits and `-`."#);
    insta::assert_snapshot!(workspace.run_err(1, &["user", "create", "nobody"]), @"error: `email` must be an email address such as `anna@example.com`.");
    workspace.run_ok(&["org", "create", "other"]);
    insta::assert_snapshot!(workspace.run_err(2, &["server", "list"]), @"error: there are several organisations, choose one with --org SLUG: acme, other");
    assert_eq!(workspace.run_json(&["server", "list", "--org", "other"]), json!({"items": []}));
}

#[tokio::test]
async fn joins_are_listed_and_undone() {
    let workspace = Workspace::new();
    let org = workspace.run_json(&["org", "create", "acme"])["id"].as_str().unwrap().to_owned();
    let server = workspace.run_json(&["server", "create", "acme-docs"])["id"].as_str().unwrap().to_owned();
    insta::assert_snapshot!(workspace.run_ok(&["join", "list"]), @"No entries.");
    let sql = format!(
        "INSERT INTO end_users (id, organization_id, created_at) VALUES ('eu_1', '{org}', 1), ('eu_2', '{org}', 1);
         INSERT INTO joins (id, organization_id, server_id, from_end_user_id, to_end_user_id, kind, undo, created_at)
         VALUES ('joi_000000000001', '{org}', '{server}', 'eu_1', 'eu_2', 'session', '{{}}', 1)"
    );
    let url = format!("sqlite://{}", workspace.path("waypost-data/waypost.db").to_str().unwrap());
    let db = waypost_store::Db::open(&url).await.unwrap();
    let mut tx = db.begin().await.unwrap();
    waypost_store::on!(&mut tx, c => { sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(c).await.unwrap(); });
    tx.commit().await.unwrap();
    db.close().await;
    let join = &workspace.run_json(&["join", "list"])["items"][0];
    assert_eq!((&join["kind"], &join["undone_at"]), (&json!("session"), &json!(null)));
    let id = join["id"].as_str().unwrap();
    assert_eq!(&workspace.run_json(&["join", "show", id]), join);
    insta::assert_snapshot!(workspace.run_err(2, &["join", "undo", id]), @"error: Undo join joi_000000000001? The signed-in user loses the progress it added. Pass --yes to confirm; there is no terminal for a prompt.");
    let undone = workspace.run_json(&["join", "undo", id, "--yes"]);
    assert!(undone["undone_at"].is_string());
    assert_eq!(workspace.run_json(&["join", "undo", id, "--yes"]), undone, "a repeated undo changes nothing");
    let link = workspace.run_json(&["join", "link", "ann", "--server", "acme-docs", "--expires-in-hours", "2"]);
    let url = link["url"].as_str().unwrap();
    assert!(url.starts_with("http://localhost:8080/s/acme-docs/t/claim~ann~") && url.ends_with("/mcp"), "{url}");
    insta::assert_snapshot!(workspace.run_err(1, &["join", "link", "ann", "--server", "gone"]), @"error: there is no server `gone`: run `waypost server list` to see all");
    insta::assert_snapshot!(workspace.run_err(1, &["join", "show", "gone"]), @"error: there is no join `gone`: run `waypost join list` to see all");
}

#[test]
fn a_logo_is_set_and_removed() {
    // A one-pixel GIF.
    const GIF: &str = "R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7";
    let workspace = Workspace::new();
    workspace.run_ok(&["org", "create", "acme"]);
    let picture = workspace.path("logo.gif");
    std::fs::write(&picture, data_encoding::BASE64.decode(GIF.as_bytes()).unwrap()).unwrap();
    workspace.run_ok(&["org", "update", "acme", "--logo", picture.to_str().unwrap()]);
    workspace.run_ok(&["org", "update", "acme", "--logo", "none"]);
    let svg = workspace.write_file("logo.svg", "<svg xmlns='http://www.w3.org/2000/svg'/>");
    insta::assert_snapshot!(workspace.run_err(1, &["org", "update", "acme", "--logo", &svg]), @"error: This logo cannot be used: an SVG can contain scripts. Save it as PNG.");
    let error = workspace.run_err(1, &["org", "update", "acme", "--logo", "gone.png"]);
    assert!(error.contains("cannot read gone.png"), "{error}");
}
