//! Organisations, users, servers, keys, assignments.

use serde_json::json;

use crate::Place;

#[test]
fn an_operator_sets_up_an_organisation() {
    let place = Place::new();
    insta::assert_snapshot!(place.fine(&["org", "create", "acme", "--name", "Acme Inc."]), @"
    id:          org_…
    slug:        acme
    name:        Acme Inc.
    created at:  TIME
    ");
    insta::assert_snapshot!(place.fine(&["user", "create", "Ann@acme.example", "--org", "acme", "--role", "owner"]), @"
    id:               usr_…
    email:            Ann@acme.example
    role:             owner
    verified:         no
    created at:       TIME
    link:             http://localhost:8080/link?token=TOKEN
    link expires at:  TIME
    ");
    insta::assert_snapshot!(place.fine(&["server", "create", "acme-docs", "--org", "acme", "--product", "Acme", "--toolset", "all"]), @"
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
    // With one organisation, it need not be named.
    insta::assert_snapshot!(place.fine(&["key", "create", "--name", "ci"]), @"
    id:    key_…
    name:  ci
    key:   wpk_…
    Keep the key now: it cannot be shown again.
    ");
    for (noun, of) in [("org", "acme"), ("user", "ann@ACME.example"), ("server", "acme-docs"), ("key", "ci")] {
        let shown = place.json(&[noun, "show", of]);
        let listed = place.json(&[noun, "list"]);
        assert_eq!(listed["items"][0]["id"], shown["id"], "{noun}");
        assert_eq!(place.json(&[noun, "show", shown["id"].as_str().unwrap()])["id"], shown["id"], "{noun}");
    }
    insta::assert_snapshot!(place.fine(&["key", "list"]), @"
    NAME  SCOPE  ID                    CREATED AT                EXPIRES AT  LAST USED AT
    ci    admin  key_…  TIME  -           -
    ");
}

#[test]
fn a_key_is_three_members_in_json() {
    let place = Place::new();
    place.fine(&["org", "create", "acme"]);
    let key = place.json(&["key", "create", "--org", "acme", "--name", "ci", "--scope", "member"]);
    let members: Vec<_> = key.as_object().unwrap().keys().collect();
    assert_eq!(members, ["id", "name", "key"]);
    assert!(key["key"].as_str().unwrap().starts_with("wpk_"));
    assert_eq!(place.json(&["key", "show", "ci"])["scope"], "member");
    assert_eq!(place.json(&["key", "update", "ci", "--name", "cd", "--scope", "owner"])["scope"], "owner");
}

#[test]
fn what_is_named_is_changed_and_deleted() {
    let place = Place::new();
    place.fine(&["org", "create", "acme"]);
    place.fine(&["user", "create", "ann@acme.example", "--role", "owner"]);
    place.fine(&["user", "create", "bob@acme.example"]);
    place.fine(&["server", "create", "acme-docs"]);
    assert_eq!(place.json(&["user", "update", "bob@acme.example", "--role", "admin"])["role"], "admin");
    let server = place.json(&["server", "update", "acme-docs", "--slug", "acme-help", "--walkthrough-tools", "false"]);
    assert_eq!(server["former_slugs"], json!(["acme-docs"]));
    assert_eq!(server["walkthrough_tools_enabled"], false);
    assert_eq!(place.json(&["server", "release-slug", "acme-help", "acme-docs"])["former_slugs"], json!([]));
    assert_eq!(place.json(&["org", "update", "acme", "--name", "A"])["name"], "A");
    insta::assert_snapshot!(place.fails(2, &["server", "delete", "acme-help"]), @"error: Delete the server acme-help with its assignments and everybody's progress? Say --yes to do it; there is no terminal to ask on.");
    let deleted = place.json(&["server", "delete", "acme-help", "--yes"]);
    assert_eq!((&deleted["id"], &deleted["deleted"]), (&server["id"], &json!(true)));
    insta::assert_snapshot!(place.fine(&["user", "delete", "bob@acme.example", "--yes"]), @"Took bob@acme.example out of the organisation acme.");
    insta::assert_snapshot!(place.fine(&["server", "list"]), @"Nothing there yet.");
    insta::assert_snapshot!(place.fine(&["org", "delete", "acme", "--yes"]), @"Deleted the organisation acme.");
}

#[test]
fn refusals_say_what_to_do() {
    let place = Place::new();
    insta::assert_snapshot!(place.fails(1, &["server", "list"]), @"error: there is no organisation yet: make one with `waypost org create SLUG`");
    place.fine(&["org", "create", "acme"]);
    insta::assert_snapshot!(place.fails(1, &["org", "create", "acme"]), @"error: The slug `acme` is taken by another organisation. Choose another one.");
    insta::assert_snapshot!(place.fails(1, &["org", "show", "gone"]), @"error: there is no organisation `gone`: `waypost org list` shows them");
    insta::assert_snapshot!(place.fails(1, &["server", "create", "Docs!"]), @r#"error: The slug "Docs!" does not fit: a slug has only small letters from a to z, digits and `-`."#);
    insta::assert_snapshot!(place.fails(1, &["user", "create", "nobody"]), @"error: `email` must be an address such as `anna@example.com`.");
    place.fine(&["org", "create", "other"]);
    insta::assert_snapshot!(place.fails(2, &["server", "list"]), @"error: say which organisation with --org SLUG: acme, other");
    assert_eq!(place.json(&["server", "list", "--org", "other"]), json!({"items": []}));
}

#[tokio::test]
async fn joins_are_listed_and_undone() {
    let place = Place::new();
    let org = place.json(&["org", "create", "acme"])["id"].as_str().unwrap().to_owned();
    let server = place.json(&["server", "create", "acme-docs"])["id"].as_str().unwrap().to_owned();
    insta::assert_snapshot!(place.fine(&["join", "list"]), @"Nothing there yet.");
    let sql = format!(
        "INSERT INTO end_users (id, organization_id, created_at) VALUES ('eu_1', '{org}', 1), ('eu_2', '{org}', 1);
         INSERT INTO joins (id, organization_id, server_id, from_end_user_id, to_end_user_id, kind, undo, created_at)
         VALUES ('joi_000000000001', '{org}', '{server}', 'eu_1', 'eu_2', 'session', '{{}}', 1)"
    );
    let url = format!("sqlite://{}", place.path("waypost-data/waypost.db").to_str().unwrap());
    let db = waypost_store::Db::open(&url).await.unwrap();
    let mut tx = db.begin().await.unwrap();
    waypost_store::on!(&mut tx, c => { sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(c).await.unwrap(); });
    tx.commit().await.unwrap();
    db.close().await;
    let join = &place.json(&["join", "list"])["items"][0];
    assert_eq!((&join["kind"], &join["undone_at"]), (&json!("session"), &json!(null)));
    let id = join["id"].as_str().unwrap();
    assert_eq!(&place.json(&["join", "show", id]), join);
    insta::assert_snapshot!(place.fails(2, &["join", "undo", id]), @"error: Undo the join joi_000000000001? The signed-in user loses what it brought. Say --yes to do it; there is no terminal to ask on.");
    let undone = place.json(&["join", "undo", id, "--yes"]);
    assert!(undone["undone_at"].is_string());
    assert_eq!(place.json(&["join", "undo", id, "--yes"]), undone, "undoing again changes nothing");
    let link = place.json(&["join", "link", "ann", "--server", "acme-docs", "--expires-in-hours", "2"]);
    let url = link["url"].as_str().unwrap();
    assert!(url.starts_with("http://localhost:8080/s/acme-docs/t/claim~ann~") && url.ends_with("/mcp"), "{url}");
    insta::assert_snapshot!(place.fails(1, &["join", "link", "ann", "--server", "gone"]), @"error: there is no server `gone`: `waypost server list` shows them");
    insta::assert_snapshot!(place.fails(1, &["join", "show", "gone"]), @"error: there is no join `gone`: `waypost join list` shows them");
}

#[test]
fn an_organisation_has_a_logo() {
    // The smallest picture there is: one pixel.
    const GIF: &str = "R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7";
    let place = Place::new();
    place.fine(&["org", "create", "acme"]);
    let picture = place.path("logo.gif");
    std::fs::write(&picture, data_encoding::BASE64.decode(GIF.as_bytes()).unwrap()).unwrap();
    place.fine(&["org", "update", "acme", "--logo", picture.to_str().unwrap()]);
    place.fine(&["org", "update", "acme", "--logo", "none"]);
    let svg = place.file("logo.svg", "<svg xmlns='http://www.w3.org/2000/svg'/>");
    insta::assert_snapshot!(place.fails(1, &["org", "update", "acme", "--logo", &svg]), @"error: This logo cannot be used: an SVG can hold scripts. Save it as PNG.");
    let error = place.fails(1, &["org", "update", "acme", "--logo", "gone.png"]);
    assert!(error.contains("gone.png cannot be read"), "{error}");
}
