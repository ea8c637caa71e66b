//! Organisations: making one, its settings, its logo, its end, and the overview.

use axum::body::Body;
use http::{Method, Request, header};
use serde_json::json;
use waypost_core::organization::Role;

use super::{Browser, key, with_key};
use crate::app::{App, open};

async fn a_user_makes_and_owns_one(app: App) {
    let home = app.org("home").await;
    let anna = Browser::member(&home, "anna@example.com", Role::Member).await;
    anna.page("/organizations/new").await.says("A further organisation").does_not_say("dialog");
    let part = anna.page("/organizations/slug?name=Acme+%3Cb%3E+GmbH&slug=&suggested=").await;
    part.says("value=\"acme-b-gmbh\"").says("is free").does_not_say("<b>");
    anna.page("/organizations/slug?name=Other&slug=mine&suggested=x").await.says("value=\"mine\"");
    anna.page("/organizations/slug?name=Home").await.says("value=\"home-2\"");
    anna.page("/organizations/slug?name=%21%21%00").await.says("value=\"\"");
    anna.page("/organizations/slug/check?slug=home").await.says("is taken").says("class=\"wrong\"");
    anna.page("/organizations/slug/check?slug=%3Cscript%3E").await.does_not_say("<script>");
    let taken = anna.post("/organizations/new", &[("name", "X<script>"), ("slug", "home")]).await;
    taken.is(409).says("taken").says("id=\"e-slug\"").says("X&#60;script&#62;").does_not_say("X<script>");
    anna.post("/organizations/new", &[("name", ""), ("slug", "fine")]).await.is(422).says("id=\"e-name\"");
    anna.post("/organizations/new", &[("name", "Acme"), ("slug", "acme")]).await.leads_to("/o/acme");
    anna.page("/o/acme").await.says("You own it").says("First steps").says("/o/acme/servers/new");

    let made = anna.api(Method::POST, "/organizations", Some(json!({ "slug": "third" }))).await;
    let id = made.is(201).json()["id"].as_str().unwrap().to_owned();
    assert_eq!(
        (made.location(), made.json()["name"].as_str()),
        (&*format!("/api/v1/organizations/{id}"), Some("third"))
    );
    for body in
        [json!({}), json!({ "slug": "A" }), json!({ "slug": "x\u{0}y" }), json!({ "slug": "ok-1", "id": "org_1" })]
    {
        anna.api(Method::POST, "/organizations", Some(body)).await.is(422);
    }
    anna.api(Method::POST, "/organizations", Some(json!({ "slug": "third" }))).await.is(409);
    with_key(&home, Role::Owner, Method::POST, "/organizations", Some(json!({ "slug": "by-key" }))).await.is(403);
    let listed = anna.api(Method::GET, "/organizations", None).await.json();
    let slugs: Vec<_> = listed["items"].as_array().unwrap().iter().map(|it| it["slug"].as_str().unwrap()).collect();
    assert_eq!(slugs, ["acme", "home", "third"]);
    app.finish().await;
}

async fn everybody_does_what_their_role_allows(app: App) {
    let (org, other) = (app.org("acme").await, app.org("other").await);
    let path = format!("/organizations/{}", org.id);
    let rename = || Some(json!({ "name": "Renamed" }));
    let stranger = Browser::owner(&other).await;
    for (method, body) in [(Method::GET, None), (Method::PATCH, rename()), (Method::DELETE, None)] {
        stranger.api(method.clone(), &path, body.clone()).await.is(404);
        with_key(&other, Role::Owner, method.clone(), &path, body.clone()).await.is(404);
        stranger.api(method.clone(), "/organizations/org_", body.clone()).await.is(404);
        Browser::new(&app).api(method, &path, body).await.is(401);
    }
    for page in ["/o/acme", "/o/acme/settings", "/o/acme/members", "/o/acme/logo", "/o/acme/api-keys", "/o/acme/audit"]
    {
        stranger.get(page).await.is(404);
        assert!(Browser::new(&app).get(page).await.location().starts_with("/login?next="), "{page}");
    }
    let member = Browser::member(&org, "m@example.com", Role::Member).await;
    let admin = Browser::member(&org, "a@example.com", Role::Admin).await;
    member.api(Method::GET, &path, None).await.is(200);
    member.api(Method::PATCH, &path, rename()).await.is(403);
    member.get("/o/acme/settings").await.is(403);
    member.page("/o/acme").await.does_not_say("Latest changes").does_not_say("/o/acme/audit");
    // Of several organisations, by its id, whichever the session works for.
    admin.api(Method::PATCH, &path, rename()).await.is(200);
    admin.api(Method::PATCH, &path, Some(json!({ "created_at": "2020-01-01T00:00:00Z" }))).await.is(422);
    admin.api(Method::DELETE, &path, None).await.is(403);
    admin.page("/o/acme/settings").await.does_not_say("Delete this organisation");
    admin.post("/o/acme/settings/delete", &[("confirm", "acme")]).await.is(403);
    admin.page("/o/acme").await.says("Latest changes").says("organization.update");
    admin.post("/o/acme/settings", &[("name", "N"), ("slug", "other")]).await.is(409).says("taken");
    admin.post("/o/acme/settings", &[("name", "<i>N</i>"), ("slug", "moved")]).await.leads_to("/o/moved/settings");
    admin.page("/o/moved/settings").await.says("&#60;i&#62;N").does_not_say("<i>N");
    app.finish().await;
}

async fn it_is_deleted_with_everything(app: App) {
    let org = app.org("acme").await;
    org.server("acme-help").await.walkthrough("Guide", &["One"]).await;
    let owner = Browser::owner(&org).await;
    let page = owner.page("/o/acme/settings").await;
    page.says("1 server:").says("1 walkthrough with").says("0 end users").says("the access of 1 member");
    owner.post("/o/acme/settings/delete", &[("confirm", "ACME")]).await.is(422).says("Nothing was deleted");
    let secret = key(&app, &org.id, Role::Owner).await;
    owner.post("/o/acme/settings/delete", &[("confirm", "acme")]).await.leads_to("/");
    // The account stays: the user can make another one.
    owner.get("/").await.leads_to("/organizations/new");
    owner.page("/organizations/new").await.says("is deleted").says("your first one");
    let request =
        Request::get("/api/v1/servers").header(header::AUTHORIZATION, format!("Bearer {secret}")).body(Body::empty());
    Browser::new(&app).send(request.unwrap()).await.is(401);
    app.finish().await;
}

/// A PNG of one pixel.
const PIXEL: &[u8] = &[
    0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a, 0, 0, 0, 0x0d, 0x49, 0x48, 0x44, 0x52, 0, 0, 0, 1, 0, 0, 0, 1, 8,
    6, 0, 0, 0, 0x1f, 0x15, 0xc4, 0x89, 0, 0, 0, 0x0d, 0x49, 0x44, 0x41, 0x54, 0x78, 0x9c, 0x63, 0xf8, 0xcf, 0xc0,
    0xf0, 0x1f, 0, 5, 0, 1, 0xff, 0x89, 0x99, 0x3d, 0x1d, 0, 0, 0, 0, 0x49, 0x45, 0x4e, 0x44, 0xae, 0x42, 0x60, 0x82,
];

fn form(file: &[u8]) -> Request<Body> {
    let mut body = b"--cut\r\ncontent-disposition: form-data; name=\"logo\"; filename=\"../<x>.png\"\r\n\r\n".to_vec();
    body.extend_from_slice(file);
    body.extend_from_slice(b"\r\n--cut--\r\n");
    Request::post("/o/acme/settings/logo")
        .header(header::CONTENT_TYPE, "multipart/form-data; boundary=cut")
        .header("sec-fetch-site", "same-origin")
        .body(Body::from(body))
        .unwrap()
}

async fn logos(app: App) {
    let org = app.org("acme").await;
    let (owner, member) = (Browser::owner(&org).await, Browser::member(&org, "m@example.com", Role::Member).await);
    let path = format!("/api/v1/organizations/{}/logo", org.id);
    owner.get("/o/acme/logo").await.is(404);
    member.send(form(PIXEL)).await.is(403);
    owner.send(form(b"<svg><script/></svg>")).await.is(422).says("SVG").says("id=\"e-logo\"");
    owner.send(form(b"")).await.is(422).says("Choose a file");
    owner.send(form(&vec![0; 1_000_001])).await.is(422).says("1 MB");
    owner.send(form(&vec![0; 4 * 1024 * 1024])).await.is(413).says("1 MiB");
    owner.send(form(PIXEL)).await.leads_to("/o/acme/settings");
    owner.page("/o/acme/settings").await.says("/o/acme/logo?v=").says("Replace logo");
    let put =
        |body: Vec<u8>| Request::put(&path).header("sec-fetch-site", "same-origin").body(Body::from(body)).unwrap();
    member.send(put(PIXEL.to_vec())).await.is(403);
    owner.send(put(PIXEL.to_vec())).await.is(204);
    owner.send(put(b"hello".to_vec())).await.is(422);
    owner.send(put(vec![0; 1_000_001])).await.is(422).says("1 MB");
    owner.send(put(vec![0; 1_048_577])).await.is(413);
    assert!(!app.lines("SELECT png FROM organization_logos").await.is_empty());
    let other = Browser::owner(&app.org("other").await).await;
    other.send(Request::get(&path).body(Body::empty()).unwrap()).await.is(404);
    owner.post("/o/acme/settings/logo/remove", &[]).await.leads_to("/o/acme/settings");
    owner.send(Request::get(&path).body(Body::empty()).unwrap()).await.is(404);
    app.finish().await;
}

async fn the_first_run_leads_to_the_first_call(app: App) {
    let org = app.org("acme").await;
    let owner = Browser::owner(&org).await;
    let next = |page: &super::Answer| {
        let from = page.body.find("aria-current=\"step\"").map(|at| page.body[at..].to_owned()).unwrap_or_default();
        from.split("class=\"button primary\" href=\"").nth(1).unwrap_or_default().split('"').next().unwrap().to_owned()
    };
    assert_eq!(next(&owner.page("/o/acme").await), "/o/acme/servers/new");
    let server = org.server("acme-help").await;
    assert_eq!(next(&owner.page("/o/acme").await), "/o/acme/walkthroughs/new");
    let guide = org.walkthrough("Guide", &["One", "Two"]).await;
    assert_eq!(next(&owner.page("/o/acme").await), format!("/o/acme/walkthroughs/{}/assignments", guide.id));
    server.assign(&guide, Default::default()).await;
    assert_eq!(next(&owner.page("/o/acme").await), format!("/o/acme/servers/{}/install", server.id));
    let page = owner.page("/o/acme").await;
    page.says("Connect a client");
    assert!(page.body.len() < 200_000);
    server.personal("ann").call("select_walkthrough", json!({ "walkthrough_id": "guide" })).await.ok();
    app.stop().await;
    assert_eq!(app.count("SELECT count(*) FROM tool_calls").await, 1);
    app.finish().await;
}

waypost_testkit::both!(open =>
    a_user_makes_and_owns_one,
    everybody_does_what_their_role_allows,
    it_is_deleted_with_everything,
    logos,
    the_first_run_leads_to_the_first_call);
