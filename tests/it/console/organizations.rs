//! Organisations: creation, settings, logo, deletion and the overview.

use axum::body::Body;
use http::{Method, Request, header};
use serde_json::{Value, json};
use waypost_core::organization::Role;

use super::{ConsoleBrowser, call_with_key, create_key};
use crate::app::{App, open};

async fn a_user_creates_and_owns_an_organisation(app: App) {
    let home = app.org("home").await;
    let anna = ConsoleBrowser::member(&home, "anna@example.com", Role::Member).await;
    anna.get_page("/organizations/new").await.assert_contains("A new organisation").assert_lacks("dialog");
    let part = anna.get_page("/organizations/slug?name=Acme+%3Cb%3E+GmbH&slug=&suggested=").await;
    part.assert_contains("value=\"acme-b-gmbh\"").assert_contains("is available").assert_lacks("<b>");
    anna.get_page("/organizations/slug?name=Other&slug=mine&suggested=x").await.assert_contains("value=\"mine\"");
    anna.get_page("/organizations/slug?name=Home").await.assert_contains("value=\"home-2\"");
    anna.get_page("/organizations/slug?name=%21%21%00").await.assert_contains("value=\"\"");
    anna.get_page("/organizations/slug/check?slug=home")
        .await
        .assert_contains("is taken")
        .assert_contains("class=\"field-error\"");
    anna.get_page("/organizations/slug/check?slug=%3Cscript%3E").await.assert_lacks("<script>");
    let taken = anna.post("/organizations/new", &[("name", "X<script>"), ("slug", "home")]).await;
    taken
        .assert_status(409)
        .assert_contains("taken")
        .assert_contains("id=\"e-slug\"")
        .assert_contains("X&#60;script&#62;")
        .assert_lacks("X<script>");
    anna.post("/organizations/new", &[("name", ""), ("slug", "fine")])
        .await
        .assert_status(422)
        .assert_contains("id=\"e-name\"");
    anna.post("/organizations/new", &[("name", "Acme"), ("slug", "acme")]).await.assert_redirect("/o/acme");
    anna.get_page("/o/acme")
        .await
        .assert_contains("Organisation created.")
        .assert_contains("Get started")
        .assert_contains("/o/acme/servers/new");

    let created = anna.api(Method::POST, "/organizations", Some(json!({ "slug": "third" }))).await;
    let id = created.assert_status(201).json()["id"].as_str().unwrap().to_owned();
    assert_eq!(
        (created.location(), created.json()["name"].as_str()),
        (&*format!("/api/v1/organizations/{id}"), Some("third"))
    );
    for body in
        [json!({}), json!({ "slug": "A" }), json!({ "slug": "x\u{0}y" }), json!({ "slug": "ok-1", "id": "org_1" })]
    {
        anna.api(Method::POST, "/organizations", Some(body)).await.assert_status(422);
    }
    anna.api(Method::POST, "/organizations", Some(json!({ "slug": "third" }))).await.assert_status(409);
    call_with_key(&home, Role::Owner, Method::POST, "/organizations", Some(json!({ "slug": "by-key" })))
        .await
        .assert_status(403);
    let listed = anna.api(Method::GET, "/organizations", None).await.json();
    let slugs: Vec<_> = listed["items"].as_array().unwrap().iter().map(|item| item["slug"].as_str().unwrap()).collect();
    assert_eq!(slugs, ["acme", "home", "third"]);
    app.finish().await;
}

async fn roles_are_enforced(app: App) {
    let (org, other) = (app.org("acme").await, app.org("other").await);
    let path = format!("/organizations/{}", org.id);
    let rename = || Some(json!({ "name": "Renamed" }));
    let outsider = ConsoleBrowser::owner(&other).await;
    for (method, body) in [(Method::GET, None), (Method::PATCH, rename()), (Method::DELETE, None)] {
        outsider.api(method.clone(), &path, body.clone()).await.assert_status(404);
        call_with_key(&other, Role::Owner, method.clone(), &path, body.clone()).await.assert_status(404);
        outsider.api(method.clone(), "/organizations/org_", body.clone()).await.assert_status(404);
        ConsoleBrowser::new(&app).api(method, &path, body).await.assert_status(401);
    }
    for page in ["/o/acme", "/o/acme/settings", "/o/acme/members", "/o/acme/logo", "/o/acme/api-keys", "/o/acme/audit"]
    {
        outsider.get(page).await.assert_status(404);
        assert!(ConsoleBrowser::new(&app).get(page).await.location().starts_with("/login?next="), "{page}");
    }
    let member = ConsoleBrowser::member(&org, "m@example.com", Role::Member).await;
    let admin = ConsoleBrowser::member(&org, "a@example.com", Role::Admin).await;
    member.api(Method::GET, &path, None).await.assert_status(200);
    member.api(Method::PATCH, &path, rename()).await.assert_status(403);
    member.get("/o/acme/settings").await.assert_status(403);
    member.get_page("/o/acme").await.assert_lacks("Recent changes").assert_lacks("/o/acme/audit");
    // The organisation is addressed by ID, independently of the session's organisation.
    admin.api(Method::PATCH, &path, rename()).await.assert_status(200);
    admin.api(Method::PATCH, &path, Some(json!({ "created_at": "2020-01-01T00:00:00Z" }))).await.assert_status(422);
    admin.api(Method::DELETE, &path, None).await.assert_status(403);
    admin.get_page("/o/acme/settings").await.assert_lacks("Delete organisation");
    admin.post("/o/acme/settings/delete", &[("confirm", "acme")]).await.assert_status(403);
    admin.get_page("/o/acme").await.assert_contains("Recent changes").assert_contains("organization.update");
    admin
        .post("/o/acme/settings", &[("name", "N"), ("slug", "other")])
        .await
        .assert_status(409)
        .assert_contains("taken");
    admin
        .post("/o/acme/settings", &[("name", "<i>N</i>"), ("slug", "moved")])
        .await
        .assert_redirect("/o/moved/settings");
    admin.get_page("/o/moved/settings").await.assert_contains("&#60;i&#62;N").assert_lacks("<i>N");
    app.finish().await;
}

async fn the_gateway_is_switched_off_and_on(app: App) {
    let (org, other) = (app.org("acme").await, app.org("other").await);
    let path = format!("/organizations/{}", org.id);
    let member = ConsoleBrowser::member(&org, "m@example.com", Role::Member).await;
    let admin = ConsoleBrowser::member(&org, "a@example.com", Role::Admin).await;
    let outsider = ConsoleBrowser::owner(&other).await;
    let switch = |value: Value| Some(json!({ "gateway_enabled": value }));
    member.api(Method::PATCH, &path, switch(json!(false))).await.assert_status(403);
    outsider.api(Method::PATCH, &path, switch(json!(false))).await.assert_status(404);
    admin.api(Method::PATCH, &path, switch(json!("off"))).await.assert_status(422);
    assert_eq!(admin.api(Method::GET, &path, None).await.json()["gateway_enabled"], true);
    let changed = admin.api(Method::PATCH, &path, switch(json!(false))).await.assert_status(200).json();
    assert_eq!((&changed["gateway_enabled"], &changed["toolboxes_enabled"]), (&json!(false), &json!(true)));
    // Other changes do not switch it on again.
    let renamed = admin.api(Method::PATCH, &path, Some(json!({ "name": "N" }))).await.json();
    assert_eq!((&renamed["name"], &renamed["gateway_enabled"]), (&json!("N"), &json!(false)));
    let listed = outsider.api(Method::GET, "/organizations", None).await.json();
    assert_eq!(listed["items"][0]["gateway_enabled"], true, "another organisation");
    let changed = admin.api(Method::PATCH, &path, switch(json!(true))).await.assert_status(200).json();
    assert_eq!(changed["gateway_enabled"], true);

    let (on, off) = ("/o/acme/settings/gateway/enable", "/o/acme/settings/gateway/disable");
    let notice = "The gateway is switched off for this organisation";
    let agent = admin.api(Method::POST, "/agents", Some(json!({ "name": "ci" }))).await.assert_status(201).json();
    let agent = format!("/o/acme/agents/{}", agent["id"].as_str().unwrap());
    member.post(off, &[]).await.assert_status(403);
    admin.get_page("/o/acme/settings").await.assert_contains(off).assert_lacks(on).assert_lacks(notice);
    for page in ["/o/acme/agents", &agent] {
        admin.get_page(page).await.assert_lacks(notice);
    }
    admin.post(off, &[]).await.assert_redirect("/o/acme/settings");
    let page = admin.get_page("/o/acme/settings").await;
    page.assert_contains("Gateway switched off.").assert_contains(notice).assert_contains(on).assert_lacks(off);
    for page in ["/o/acme/agents", &agent] {
        admin.get_page(page).await.assert_contains(notice);
    }
    // The form with the name does not switch it on again.
    admin.post("/o/acme/settings", &[("name", "N"), ("slug", "acme")]).await.assert_redirect("/o/acme/settings");
    assert_eq!(admin.api(Method::GET, &path, None).await.json()["gateway_enabled"], false);
    admin.post(on, &[]).await.assert_redirect("/o/acme/settings");
    admin.get_page("/o/acme/settings").await.assert_contains("Gateway switched on.").assert_lacks(notice);
    app.finish().await;
}

async fn deleting_an_organisation_deletes_its_contents(app: App) {
    let org = app.org("acme").await;
    org.server("acme-help").await.walkthrough("Guide", &["One"]).await;
    let owner = ConsoleBrowser::owner(&org).await;
    let page = owner.get_page("/o/acme/settings").await;
    page.assert_contains("1 server:")
        .assert_contains("1 walkthrough with")
        .assert_contains("0 end users")
        .assert_contains("the access of 1 member");
    owner
        .post("/o/acme/settings/delete", &[("confirm", "ACME")])
        .await
        .assert_status(422)
        .assert_contains("Nothing was deleted");
    let secret = create_key(&app, &org.id, Role::Owner).await;
    owner.post("/o/acme/settings/delete", &[("confirm", "acme")]).await.assert_redirect("/");
    // The account is kept: the user can create another organisation.
    owner.get("/").await.assert_redirect("/organizations/new");
    owner.get_page("/organizations/new").await.assert_contains(" deleted.").assert_contains("your first organisation");
    let request =
        Request::get("/api/v1/servers").header(header::AUTHORIZATION, format!("Bearer {secret}")).body(Body::empty());
    ConsoleBrowser::new(&app).send(request.unwrap()).await.assert_status(401);
    app.finish().await;
}

/// A PNG of one pixel.
const PIXEL: &[u8] = &[
    0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a, 0, 0, 0, 0x0d, 0x49, 0x48, 0x44, 0x52, 0, 0, 0, 1, 0, 0, 0, 1, 8,
    6, 0, 0, 0, 0x1f, 0x15, 0xc4, 0x89, 0, 0, 0, 0x0d, 0x49, 0x44, 0x41, 0x54, 0x78, 0x9c, 0x63, 0xf8, 0xcf, 0xc0,
    0xf0, 0x1f, 0, 5, 0, 1, 0xff, 0x89, 0x99, 0x3d, 0x1d, 0, 0, 0, 0, 0x49, 0x45, 0x4e, 0x44, 0xae, 0x42, 0x60, 0x82,
];

fn logo_form(file: &[u8]) -> Request<Body> {
    let mut body = b"--cut\r\ncontent-disposition: form-data; name=\"logo\"; filename=\"../<x>.png\"\r\n\r\n".to_vec();
    body.extend_from_slice(file);
    body.extend_from_slice(b"\r\n--cut--\r\n");
    Request::post("/o/acme/settings/logo")
        .header(header::CONTENT_TYPE, "multipart/form-data; boundary=cut")
        .header("sec-fetch-site", "same-origin")
        .body(Body::from(body))
        .unwrap()
}

async fn logos_are_validated_and_stored(app: App) {
    let org = app.org("acme").await;
    let (owner, member) =
        (ConsoleBrowser::owner(&org).await, ConsoleBrowser::member(&org, "m@example.com", Role::Member).await);
    let path = format!("/api/v1/organizations/{}/logo", org.id);
    owner.get("/o/acme/logo").await.assert_status(404);
    member.send(logo_form(PIXEL)).await.assert_status(403);
    owner
        .send(logo_form(b"<svg><script/></svg>"))
        .await
        .assert_status(422)
        .assert_contains("SVG")
        .assert_contains("id=\"e-logo\"");
    owner.send(logo_form(b"")).await.assert_status(422).assert_contains("Select a PNG");
    owner.send(logo_form(&vec![0; 1_000_001])).await.assert_status(422).assert_contains("1 MB");
    owner.send(logo_form(&vec![0; 4 * 1024 * 1024])).await.assert_status(413).assert_contains("1 MiB");
    owner.send(logo_form(PIXEL)).await.assert_redirect("/o/acme/settings");
    owner.get_page("/o/acme/settings").await.assert_contains("/o/acme/logo?v=").assert_contains("Replace logo");
    let put =
        |body: Vec<u8>| Request::put(&path).header("sec-fetch-site", "same-origin").body(Body::from(body)).unwrap();
    member.send(put(PIXEL.to_vec())).await.assert_status(403);
    owner.send(put(PIXEL.to_vec())).await.assert_status(204);
    owner.send(put(b"hello".to_vec())).await.assert_status(422);
    owner.send(put(vec![0; 1_000_001])).await.assert_status(422).assert_contains("1 MB");
    owner.send(put(vec![0; 1_048_577])).await.assert_status(413);
    assert!(!app.query_lines("SELECT png FROM organization_logos").await.is_empty());
    let other = ConsoleBrowser::owner(&app.org("other").await).await;
    other.send(Request::get(&path).body(Body::empty()).unwrap()).await.assert_status(404);
    owner.post("/o/acme/settings/logo/remove", &[]).await.assert_redirect("/o/acme/settings");
    owner.send(Request::get(&path).body(Body::empty()).unwrap()).await.assert_status(404);
    app.finish().await;
}

async fn the_overview_leads_to_the_first_call(app: App) {
    let org = app.org("acme").await;
    let owner = ConsoleBrowser::owner(&org).await;
    let next_step_link = |page: &super::ConsoleResponse| {
        let from = page.body.find("aria-current=\"step\"").map(|at| page.body[at..].to_owned()).unwrap_or_default();
        from.split("class=\"button primary\" href=\"").nth(1).unwrap_or_default().split('"').next().unwrap().to_owned()
    };
    assert_eq!(next_step_link(&owner.get_page("/o/acme").await), "/o/acme/servers/new");
    let server = org.server("acme-help").await;
    assert_eq!(next_step_link(&owner.get_page("/o/acme").await), "/o/acme/walkthroughs/new");
    let walkthrough = org.walkthrough("Guide", &["One", "Two"]).await;
    assert_eq!(
        next_step_link(&owner.get_page("/o/acme").await),
        format!("/o/acme/walkthroughs/{}/assignments", walkthrough.id)
    );
    server.assign(&walkthrough, Default::default()).await;
    assert_eq!(next_step_link(&owner.get_page("/o/acme").await), format!("/o/acme/servers/{}/install", server.id));
    let page = owner.get_page("/o/acme").await;
    page.assert_contains("Connect a client");
    assert!(page.body.len() < 200_000);
    server.personal("ann").call("select_walkthrough", json!({ "walkthrough_id": "guide" })).await.ok();
    app.stop().await;
    assert_eq!(app.count("SELECT count(*) FROM tool_calls").await, 1);
    app.finish().await;
}

waypost_testkit::both!(extended open =>
    a_user_creates_and_owns_an_organisation,
    roles_are_enforced,
    the_gateway_is_switched_off_and_on,
    deleting_an_organisation_deletes_its_contents,
    logos_are_validated_and_stored,
    the_overview_leads_to_the_first_call);
