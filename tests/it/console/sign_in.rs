//! Sign-in and account management.

use axum::body::Body;
use http::Request;
use waypost_core::organization::{Role, SignUpPolicy};
use waypost_core::secret::SecretKey;
use waypost_ops::user_accounts::{create_account_link, set_up_token};
use waypost_ops::{user_sessions, users};
use waypost_store::db::count_statements;

use super::{ConsoleBrowser, ConsoleResponse};
use crate::app::{App, Setup, open};

pub const PASSWORD: &str = "quartz-banjo-umbrella-42";
pub(super) const OTHER_PASSWORD: &str = "walnut.tractor.opera.19";

async fn get_set_up_token(app: &App) -> Option<String> {
    set_up_token(&app.ops(), &SecretKey::new([7; 32])).await.unwrap()
}

pub(super) async fn start_app(sign_up: SignUpPolicy, can_mail: bool) -> App {
    App::with(Setup { sign_up, can_mail, ..Setup::default() }).await
}

/// Returns the code in the `count`-th email.
async fn email_code(app: &App, count: usize) -> String {
    let mails = app.mails().wait_for_count(count).await;
    mails[count - 1].text.lines().next().unwrap().to_owned()
}

/// Returns the value of the hidden field `name`.
#[track_caller]
pub fn hidden_field(response: &ConsoleResponse, name: &str) -> String {
    let mark = format!("name=\"{name}\" value=\"");
    let rest = response.body.split_once(&mark).unwrap_or_else(|| panic!("{name} is missing: {}", response.body)).1;
    rest.split('"').next().unwrap().to_owned()
}

/// Creates a member with a password and a verified email. The returned browser is signed in as the member.
pub async fn create_verified_member(app: &App, org: &crate::app::Org, email: &str, role: Role) -> ConsoleBrowser {
    let browser = create_unverified_member(app, org, email, role).await;
    let member = users::resolve(app.cx(), &app.ops(), &org.id, email).await.unwrap();
    let mut tx = app.db().begin().await.unwrap();
    waypost_store::user::mark_verified(&mut tx, &member.user_id, app.cx().now()).await.unwrap();
    tx.commit().await.unwrap();
    browser
}

/// Creates a member who set a password through an operator's link, so the email is unverified.
pub(super) async fn create_unverified_member(
    app: &App,
    org: &crate::app::Org,
    email: &str,
    role: Role,
) -> ConsoleBrowser {
    let member = users::create(app.cx(), &app.ops(), &org.id, email, role).await.unwrap();
    let link = create_account_link(app.cx(), &app.ops(), &org.id, &member.user_id).await.unwrap();
    let browser = ConsoleBrowser::new(app);
    browser
        .get_page(&format!("/link?token={}", link.token))
        .await
        .assert_contains("Welcome to Waypost")
        .assert_contains(email);
    let fields = [("token", link.token.as_str()), ("name", "Anna"), ("password", PASSWORD)];
    browser.post("/link", &fields).await.assert_redirect("/");
    ConsoleBrowser::new(app)
        .get(&format!("/link?token={}", link.token))
        .await
        .assert_status(404)
        .assert_contains("no longer valid");
    browser
}

async fn the_first_owner_can_set_up_once(app: App) {
    let org = app.org("acme").await;
    let token = get_set_up_token(&app).await.unwrap();
    let browser = ConsoleBrowser::new(&app);
    browser.get("/setup").await.assert_status(404).assert_contains("no longer valid");
    browser.get("/setup?token=AAAA").await.assert_status(404);
    browser.get_page(&format!("/setup?token={token}")).await.assert_contains("Set up Waypost");
    let fields =
        [("token", token.as_str()), ("name", "Anna <b>"), ("email", "anna@example.com"), ("password", PASSWORD)];
    let wrong = browser.post("/setup", &[fields[0], fields[1], fields[2], ("password", "short")]).await;
    wrong.assert_status(422).assert_contains("at least 12").assert_contains("Anna &#60;b&#62;").assert_lacks("short");
    browser.post("/setup", &fields).await.assert_redirect("/");
    browser.get("/").await.assert_redirect("/o/acme");
    assert_eq!(self::get_set_up_token(&app).await, None);
    ConsoleBrowser::new(&app).post("/setup", &fields).await.assert_status(404);
    ConsoleBrowser::new(&app).get(&format!("/setup?token={token}")).await.assert_status(404);
    let members = users::list(app.cx(), &app.ops(), &org.id).await.unwrap();
    let members: Vec<_> = members.iter().map(|member| (member.email.as_str(), member.role)).collect();
    assert_eq!(members, [("anna@example.com", Role::Owner)]);
    browser.post("/logout", &[]).await.assert_redirect("/login");
    browser.get("/").await.assert_redirect("/login");
    browser.get_page("/login").await.assert_contains("You have signed out.");
    let wrong = browser.post("/login", &[("email", "anna@example.com"), ("password", "quartz")]).await;
    wrong
        .assert_status(422)
        .assert_contains("or password is incorrect")
        .assert_contains("anna@example.com")
        .assert_lacks("quartz");
    let fields = [("email", "anna@example.com"), ("password", PASSWORD), ("next", "/o/acme")];
    browser.post("/login", &fields).await.assert_redirect("/o/acme");
    browser.get("/login?next=/account").await.assert_redirect("/account");
    app.finish().await;
}

waypost_testkit::both!(extended open => the_first_owner_can_set_up_once);

/// A session cookie planted before the sign-in is invalid afterwards, and so is a copied cookie after signing out.
#[tokio::test]
async fn signing_in_creates_a_new_session_and_signing_out_ends_it() {
    let app = App::new().await;
    let org = app.org("acme").await;
    let browser = create_verified_member(&app, &org, "anna@example.com", Role::Owner).await;
    let planted = browser.cookie("__Host-wp_console").unwrap();
    browser.post("/login", &[("email", "anna@example.com"), ("password", PASSWORD)]).await.assert_redirect("/");
    let fresh = browser.cookie("__Host-wp_console").unwrap();
    assert_ne!(planted, fresh);
    let other = ConsoleBrowser::new(&app);
    other.set_cookie("__Host-wp_console", &planted);
    other.get("/account").await.assert_redirect("/login?next=%2Faccount");
    other.set_cookie("__Host-wp_console", &fresh);
    other.get_page("/account").await;
    browser.post("/logout", &[]).await.assert_redirect("/login");
    assert_eq!(browser.cookie("__Host-wp_console"), None);
    other.get("/account").await.assert_redirect("/login?next=%2Faccount");
    app.finish().await;
}

#[tokio::test]
async fn next_redirects_only_to_own_pages() {
    let app = App::new().await;
    let org = app.org("acme").await;
    create_verified_member(&app, &org, "anna@example.com", Role::Owner).await;
    for next in ["https://evil.example", "//evil.example", "/\\evil.example", "/a\r\nSet-Cookie: x=y", "javascript:x"] {
        let browser = ConsoleBrowser::new(&app);
        let query = url::form_urlencoded::Serializer::new(String::new()).append_pair("next", next).finish();
        let page = browser.get_page(&format!("/login?{query}")).await;
        assert_eq!(hidden_field(&page, "next"), "/", "{next}");
        let fields = [("email", "anna@example.com"), ("password", PASSWORD), ("next", next)];
        let response = browser.post("/login", &fields).await;
        response.assert_redirect("/");
        assert_eq!(response.headers.get_all("set-cookie").iter().count(), 2, "the session and the browser");
        browser.post("/logout", &[("next", next)]).await.assert_redirect("/");
    }
    app.finish().await;
}

#[tokio::test]
async fn cross_site_forms_are_rejected() {
    let app = App::new().await;
    for path in ["/login", "/setup", "/logout", "/sign-up", "/forgot", "/code", "/link", "/invite", "/account"] {
        let request = http::Request::post(path)
            .header("content-type", "application/x-www-form-urlencoded")
            .header("sec-fetch-site", "cross-site");
        ConsoleBrowser::new(&app).send(request.body(axum::body::Body::empty()).unwrap()).await.assert_status(403);
    }
    app.finish().await;
}

/// Returns a response without the parts that differ by design: the email and the ID of the code.
fn normalize(response: &ConsoleResponse, email: &str) -> (u16, String, String) {
    let location = response.location().split("sent=").next().unwrap().to_owned();
    (response.status.as_u16(), location, response.body.replace(email, "ADDRESS"))
}

#[tokio::test]
async fn responses_do_not_reveal_whether_an_account_exists() {
    let app = start_app(SignUpPolicy::Open, true).await;
    let org = app.org("acme").await;
    create_verified_member(&app, &org, "known@example.com", Role::Owner).await;
    let mut responses = Vec::new();
    for (n, email) in [(1, "known@example.com"), (2, "other@example.com")] {
        let browser = ConsoleBrowser::new(&app).with_client_address(n);
        let mut seen = Vec::new();
        for _ in 0..6 {
            let response = browser.post("/login", &[("email", email), ("password", "wrong password 123")]).await;
            seen.push(normalize(&response, email));
        }
        assert_eq!(seen.iter().map(|response| response.0).collect::<Vec<_>>(), [422, 422, 422, 429, 429, 429]);
        for path in ["/login/code", "/forgot", "/sign-up"] {
            let response = browser.post(path, &[("email", email), ("password", OTHER_PASSWORD)]).await;
            response.assert_status(303);
            seen.push(normalize(&response, email));
            let page = browser.get_page(response.location()).await;
            let sent = hidden_field(&page, "sent");
            seen.push((200, String::new(), page.body.replace(email, "ADDRESS").replace(&sent, "ID")));
            let fields =
                [("sent", sent.as_str()), ("code", "00000000"), ("name", "X"), ("new_password", OTHER_PASSWORD)];
            let wrong = browser.post("/code", &fields).await;
            wrong.assert_status(422).assert_contains("You have 4 more attempts");
            seen.push((422, String::new(), wrong.body.replace(email, "ADDRESS").replace(&sent, "ID")));
        }
        responses.push(seen);
    }
    assert_eq!(responses[0], responses[1]);
    let mails = app.mails().wait_for_count(6).await;
    let to =
        |email: &str| mails.iter().filter(|mail| mail.to == email).map(|mail| mail.text.clone()).collect::<Vec<_>>();
    assert_eq!((to("known@example.com").len(), to("other@example.com").len()), (3, 3));
    assert!(to("other@example.com").iter().filter(|text| text.contains("No account uses it")).count() == 2);
    app.finish().await;
}

#[tokio::test]
async fn email_codes_sign_up_sign_in_and_reset_passwords() {
    let app = start_app(SignUpPolicy::Open, true).await;
    let browser = ConsoleBrowser::new(&app);
    browser.get_page("/login").await.assert_contains("Create an account").assert_contains("Forgot your password?");
    browser.get_page("/sign-up").await;
    let fields = [("email", "anna@example.com"), ("password", PASSWORD)];
    browser
        .post("/sign-up", &[fields[0], ("password", "short")])
        .await
        .assert_status(422)
        .assert_contains("at least 12");
    let sent = browser.post("/sign-up", &fields).await;
    let page = browser.get_page(sent.location()).await;
    page.assert_contains("anna@example.com").assert_contains("Your name").assert_lacks("New password");
    let id = hidden_field(&page, "sent");
    let code_one = email_code(&app, 1).await;
    // Another browser cannot use the code.
    let other = ConsoleBrowser::new(&app);
    other.get(sent.location()).await.assert_status(422).assert_contains("This code is not valid");
    let form = [("sent", id.as_str()), ("code", code_one.as_str()), ("name", "Anna")];
    other.post("/code", &form).await.assert_status(422).assert_contains("This code is not valid");
    browser.post("/code", &[form[0], form[1], ("name", "")]).await.assert_status(422).assert_contains(&code_one);
    browser.post("/code", &form).await.assert_redirect("/");
    browser.get("/").await.assert_redirect("/organizations/new");
    browser.post("/code", &form).await.assert_status(422);
    // A sign-in code, then a new password.
    let other = ConsoleBrowser::new(&app);
    let fields = [("email", "anna@example.com"), ("next", "/account"), ("password", "")];
    let sent = other.post("/login/code", &fields).await;
    let page = other.get_page(sent.location()).await;
    let code_two = email_code(&app, 2).await;
    let form = [("sent", &*hidden_field(&page, "sent")), ("code", &code_two), ("next", &*hidden_field(&page, "next"))];
    other.post("/code", &form).await.assert_redirect("/account");
    let third = ConsoleBrowser::new(&app);
    let sent = third.post("/forgot", &[("email", "anna@example.com")]).await;
    let page = third.get_page(sent.location()).await;
    let id = hidden_field(
        &page.assert_contains("New password").assert_lacks("Your name").status.is_success().then_some(page).unwrap(),
        "sent",
    );
    let code_three = email_code(&app, 3).await;
    let weak = third.post("/code", &[("sent", &id), ("code", &code_three), ("new_password", "password1234")]).await;
    weak.assert_status(422).assert_contains("easy to guess").assert_contains(&code_three);
    third
        .post("/code", &[("sent", &id), ("code", &code_three), ("new_password", OTHER_PASSWORD)])
        .await
        .assert_redirect("/");
    browser.get("/account").await.assert_redirect("/login?next=%2Faccount");
    other.get("/account").await.assert_redirect("/login?next=%2Faccount");
    third.get_page("/account").await;
    app.finish().await;
}

#[tokio::test]
async fn pages_explain_disabled_features() {
    let app = start_app(SignUpPolicy::Invite, false).await;
    let browser = ConsoleBrowser::new(&app);
    let login = browser.get_page("/login").await;
    login.assert_lacks("Create an account").assert_lacks("/login/code").assert_contains("waypost user link");
    browser.get("/sign-up").await.assert_status(403).assert_contains("by invitation");
    browser.post("/sign-up", &[("email", "a@b.de"), ("password", PASSWORD)]).await.assert_status(403);
    browser.get("/forgot").await.assert_status(503).assert_contains("cannot send email");
    browser.post("/forgot", &[("email", "a@b.de")]).await.assert_status(503);
    browser.post("/login/code", &[("email", "a@b.de")]).await.assert_status(503);
    browser.get("/code?sent=nonsense").await.assert_status(422);
    browser.get("/invite?token=").await.assert_status(404).assert_contains("no longer valid");
    browser.get("/account").await.assert_redirect("/login?next=%2Faccount");
    app.finish().await;
    let app = start_app(SignUpPolicy::Open, false).await;
    ConsoleBrowser::new(&app).get("/sign-up").await.assert_status(503).assert_contains("cannot send email");
    app.finish().await;
    let app = start_app(SignUpPolicy::Closed, true).await;
    ConsoleBrowser::new(&app).get("/sign-up").await.assert_status(403).assert_contains("Sign-up is closed");
    app.finish().await;
}

/// Wrong passwords entered by others, even from the same client address, do not lock out a browser that has signed in
/// before.
#[tokio::test]
async fn failed_sign_ins_by_others_do_not_lock_out_a_user() {
    let app = start_app(SignUpPolicy::Invite, true).await;
    let org = app.org("acme").await;
    let anna = create_verified_member(&app, &org, "anna@example.com", Role::Owner).await;
    let credentials = [("email", "anna@example.com"), ("password", PASSWORD)];
    let attacker = ConsoleBrowser::new(&app);
    for _ in 0..3 {
        attacker.post("/login", &[credentials[0], ("password", "wrong password 123")]).await.assert_status(422);
    }
    let limited = attacker.post("/login", &[credentials[0], ("password", "wrong password 123")]).await;
    limited.assert_status(429).assert_contains("Too many failed sign-ins");
    let wait: u64 = limited.header("retry-after").parse().unwrap();
    assert!((1..=20).contains(&wait), "{wait}");
    for _ in 0..3 {
        attacker.post("/login/code", &credentials[..1]).await.assert_status(303);
    }
    let limited = attacker.post("/login/code", &credentials[..1]).await;
    assert!(!limited.assert_status(429).header("retry-after").is_empty());
    // Reaches the general limit of the client address, which does not apply to a browser that has signed in before.
    for n in 0..130 {
        attacker.post("/login", &[("email", &format!("a{n}@")), ("password", "x")]).await;
    }
    attacker.post("/login", &[("email", "a@"), ("password", "x")]).await.assert_status(429);
    anna.post("/logout", &[]).await.assert_redirect("/login");
    anna.post("/login", &credentials).await.assert_redirect("/");
    let sent = anna.post("/login/code", &credentials[..1]).await;
    let page = anna.get_page(sent.location()).await;
    let (id, mails) = (hidden_field(&page, "sent"), app.mails().wait_for_count(4).await);
    let code = mails[3].text.lines().next().unwrap().to_owned();
    anna.post("/code", &[("sent", &id), ("code", &code)]).await.assert_redirect("/");
    // Another browser at another address is not rejected either.
    ConsoleBrowser::new(&app).with_client_address(1).post("/login", &credentials).await.assert_redirect("/");
    app.finish().await;
}

#[tokio::test]
async fn users_manage_their_own_account() {
    let app = App::new().await;
    let org = app.org("acme").await;
    let browser = create_verified_member(&app, &org, "anna@example.com", Role::Owner).await;
    let page = browser.get_page("/account").await;
    page.assert_contains("anna@example.com").assert_contains("This session").assert_lacks("Sign out other sessions");
    browser.post("/account", &[("name", "<script>alert(1)</script>")]).await.assert_redirect("/account");
    browser.get_page("/account").await.assert_contains("Name saved.").assert_lacks("<script>alert");
    browser.post("/account", &[("name", " ")]).await.assert_status(422).assert_contains("must not be empty");
    let two = ConsoleBrowser::new(&app);
    two.post("/login", &[("email", "anna@example.com"), ("password", PASSWORD)]).await.assert_redirect("/");
    browser.get_page("/account").await.assert_contains("Sign out other sessions");
    let wrong =
        browser.post("/account/password", &[("password", OTHER_PASSWORD), ("new_password", OTHER_PASSWORD)]).await;
    wrong.assert_status(422).assert_contains("The current password is incorrect.");
    let fields = [("password", PASSWORD), ("new_password", OTHER_PASSWORD)];
    browser.post("/account/password", &fields).await.assert_redirect("/account");
    browser.get_page("/account").await.assert_contains("1 other browser was signed out");
    two.get("/account").await.assert_redirect("/login?next=%2Faccount");
    // Users can end their own sessions but not those of others.
    let fields = [("email", "anna@example.com"), ("password", OTHER_PASSWORD)];
    two.post("/login", &fields).await.assert_redirect("/");
    let anna = users::resolve(app.cx(), &app.ops(), &org.id, "anna@example.com").await.unwrap();
    let cx = app.cx().with_caller(waypost_core::caller::Caller::User { user_id: anna.user_id.clone() });
    let sessions = user_sessions::list(&cx, &app.ops()).await.unwrap();
    let own =
        user_sessions::find(&cx, &app.ops(), &browser.cookie("__Host-wp_console").unwrap()).await.unwrap().unwrap();
    let other = sessions.iter().find(|session| session.id != own.id).unwrap().id.clone();
    let mallory = create_verified_member(&app, &org, "mallory@example.com", Role::Member).await;
    mallory.post(&format!("/account/sessions/{other}/end"), &[]).await.assert_status(404);
    mallory.post("/account/sessions/nonsense/end", &[]).await.assert_status(404);
    two.get_page("/account").await;
    browser.post(&format!("/account/sessions/{other}/end"), &[]).await.assert_redirect("/account");
    two.get("/account").await.assert_redirect("/login?next=%2Faccount");
    two.post("/login", &fields).await.assert_redirect("/");
    browser.post("/account/sessions/end-others", &[]).await.assert_redirect("/account");
    two.get("/account").await.assert_redirect("/login?next=%2Faccount");
    browser.get_page("/account").await;
    // The last owner cannot leave; others can.
    let leave = format!("/account/organizations/{}/leave", org.id);
    browser.post(&leave, &[]).await.assert_status(409).assert_contains("You are the last owner");
    mallory.post(&leave, &[]).await.assert_redirect("/account");
    mallory.get_page("/account").await.assert_contains("You have left acme").assert_contains("No organisations yet");
    mallory.post(&leave, &[]).await.assert_status(404);
    app.finish().await;
}

#[tokio::test]
async fn sign_ins_are_rate_limited_per_network() {
    let app = App::new().await;
    let browser = ConsoleBrowser::new(&app);
    let mut statuses = std::collections::BTreeSet::new();
    for n in 0..130 {
        let email = format!("a{n}@");
        statuses.insert(browser.post("/login", &[("email", &email), ("password", "x")]).await.status.as_u16());
    }
    assert_eq!(statuses.into_iter().collect::<Vec<_>>(), [422, 429]);
    app.finish().await;
}

/// Anyone can load the page, so it must not read the database. Until there is a user, it checks whether the
/// installation is set up.
#[tokio::test]
async fn the_sign_in_page_of_an_installation_with_users_reads_nothing() {
    let app = App::new().await;
    let load = async || {
        let request = Request::get("/login").header("host", "localhost:8080").header("accept", "text/html");
        let (response, statements) = count_statements(app.send(request.body(Body::empty()).unwrap())).await;
        assert_eq!(response.status(), 200);
        statements
    };
    let first = load().await;
    assert!(first > 0, "an empty installation is checked on every load");
    assert_eq!(load().await, first);
    let org = app.org("acme").await;
    ConsoleBrowser::owner(&org).await;
    assert!(load().await > 0);
    assert_eq!(load().await, 0);
    app.finish().await;
}
