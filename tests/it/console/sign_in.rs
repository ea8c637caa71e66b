//! How users get in, and manage themselves.

use waypost_core::organization::{Role, SignUp};
use waypost_core::secret::SecretKey;
use waypost_ops::user_accounts::{create_account_link, set_up_token};
use waypost_ops::{invitations, user_sessions, users};

use super::{Answer, Browser};
use crate::app::{App, Setup, open};

const FINE: &str = "quartz-banjo-umbrella-42";
const OTHER: &str = "walnut.tractor.opera.19";

async fn token(app: &App) -> Option<String> {
    set_up_token(&app.ops(), &SecretKey::new([7; 32])).await.unwrap()
}

async fn with(sign_up: SignUp, can_mail: bool) -> App {
    App::with(Setup { sign_up, can_mail, ..Setup::default() }).await
}

/// The code of the `count`-th mail.
async fn code(app: &App, count: usize) -> String {
    let mails = app.mails().wait_for_count(count).await;
    mails[count - 1].text.lines().next().unwrap().to_owned()
}

/// The hidden field `name` of a form.
#[track_caller]
fn hidden(answer: &Answer, name: &str) -> String {
    let mark = format!("name=\"{name}\" value=\"");
    let rest = answer.body.split_once(&mark).unwrap_or_else(|| panic!("{name} is missing: {}", answer.body)).1;
    rest.split('"').next().unwrap().to_owned()
}

/// A member with a password and a verified address, in a browser that came by a link.
async fn with_password(app: &App, org: &crate::app::Org, email: &str, role: Role) -> Browser {
    let browser = unverified(app, org, email, role).await;
    let member = users::find(app.cx(), &app.ops(), &org.id, email).await.unwrap();
    let mut tx = app.db().begin().await.unwrap();
    waypost_store::user::verify(&mut tx, &member.user_id, app.cx().now()).await.unwrap();
    tx.commit().await.unwrap();
    browser
}

/// A member with a password who had nothing but a link by the operator, in the browser that came by it.
async fn unverified(app: &App, org: &crate::app::Org, email: &str, role: Role) -> Browser {
    let member = users::create(app.cx(), &app.ops(), &org.id, email, role).await.unwrap();
    let link = create_account_link(app.cx(), &app.ops(), &org.id, &member.user_id).await.unwrap();
    let browser = Browser::new(app);
    browser.page(&format!("/link?token={}", link.token)).await.says("Welcome to Waypost").says(email);
    let fields = [("token", link.token.as_str()), ("name", "Anna"), ("password", FINE)];
    browser.post("/link", &fields).await.leads_to("/");
    Browser::new(app).get(&format!("/link?token={}", link.token)).await.is(404).says("not valid any more");
    browser
}

async fn the_first_owner_sets_up_once(app: App) {
    let org = app.org("acme").await;
    let token = token(&app).await.unwrap();
    let browser = Browser::new(&app);
    browser.get("/setup").await.is(404).says("not valid any more");
    browser.get("/setup?token=AAAA").await.is(404);
    browser.page(&format!("/setup?token={token}")).await.says("Set up Waypost");
    let fields = [("token", token.as_str()), ("name", "Anna <b>"), ("email", "anna@example.com"), ("password", FINE)];
    let wrong = browser.post("/setup", &[fields[0], fields[1], fields[2], ("password", "short")]).await;
    wrong.is(422).says("at least 12").says("Anna &#60;b&#62;").does_not_say("short");
    browser.post("/setup", &fields).await.leads_to("/");
    browser.get("/").await.leads_to("/o/acme");
    assert_eq!(self::token(&app).await, None);
    Browser::new(&app).post("/setup", &fields).await.is(404);
    Browser::new(&app).get(&format!("/setup?token={token}")).await.is(404);
    let members = users::list(app.cx(), &app.ops(), &org.id).await.unwrap();
    let members: Vec<_> = members.iter().map(|it| (it.email.as_str(), it.role)).collect();
    assert_eq!(members, [("anna@example.com", Role::Owner)]);
    browser.post("/logout", &[]).await.leads_to("/login");
    browser.get("/").await.leads_to("/login");
    browser.page("/login").await.says("You are signed out.");
    let wrong = browser.post("/login", &[("email", "anna@example.com"), ("password", "quartz")]).await;
    wrong.is(422).says("or the password is wrong").says("anna@example.com").does_not_say("quartz");
    let fields = [("email", "anna@example.com"), ("password", FINE), ("next", "/o/acme")];
    browser.post("/login", &fields).await.leads_to("/o/acme");
    browser.get("/login?next=/account").await.leads_to("/account");
    app.finish().await;
}

waypost_testkit::both!(open => the_first_owner_sets_up_once);

/// A cookie that somebody planted in the browser opens nothing after the sign-in; neither does one that was copied before
/// the end of the session.
#[tokio::test]
async fn a_session_is_new_and_ends() {
    let app = App::new().await;
    let org = app.org("acme").await;
    let browser = with_password(&app, &org, "anna@example.com", Role::Owner).await;
    let planted = browser.cookie("__Host-wp_console").unwrap();
    browser.post("/login", &[("email", "anna@example.com"), ("password", FINE)]).await.leads_to("/");
    let fresh = browser.cookie("__Host-wp_console").unwrap();
    assert_ne!(planted, fresh);
    let other = Browser::new(&app);
    other.set_cookie("__Host-wp_console", &planted);
    other.get("/account").await.leads_to("/login?next=%2Faccount");
    other.set_cookie("__Host-wp_console", &fresh);
    other.page("/account").await;
    browser.post("/logout", &[]).await.leads_to("/login");
    assert_eq!(browser.cookie("__Host-wp_console"), None);
    other.get("/account").await.leads_to("/login?next=%2Faccount");
    app.finish().await;
}

#[tokio::test]
async fn next_leads_to_our_own_pages_only() {
    let app = App::new().await;
    let org = app.org("acme").await;
    with_password(&app, &org, "anna@example.com", Role::Owner).await;
    for next in ["https://evil.example", "//evil.example", "/\\evil.example", "/a\r\nSet-Cookie: x=y", "javascript:x"] {
        let browser = Browser::new(&app);
        let query = url::form_urlencoded::Serializer::new(String::new()).append_pair("next", next).finish();
        let page = browser.page(&format!("/login?{query}")).await;
        assert_eq!(hidden(&page, "next"), "/", "{next}");
        let fields = [("email", "anna@example.com"), ("password", FINE), ("next", next)];
        let answer = browser.post("/login", &fields).await;
        answer.leads_to("/");
        assert_eq!(answer.headers.get_all("set-cookie").iter().count(), 2, "the session, and the browser");
        browser.post("/logout", &[("next", next)]).await.leads_to("/");
    }
    app.finish().await;
}

#[tokio::test]
async fn forms_of_elsewhere_do_nothing() {
    let app = App::new().await;
    for path in ["/login", "/setup", "/logout", "/sign-up", "/forgot", "/code", "/link", "/invite", "/account"] {
        let request = http::Request::post(path)
            .header("content-type", "application/x-www-form-urlencoded")
            .header("sec-fetch-site", "cross-site");
        Browser::new(&app).send(request.body(axum::body::Body::empty()).unwrap()).await.is(403);
    }
    app.finish().await;
}

/// What is answered for an address, without what has to differ: the address and the id of the code.
fn likeness(answer: &Answer, email: &str) -> (u16, String, String) {
    let location = answer.location().split("sent=").next().unwrap().to_owned();
    (answer.status.as_u16(), location, answer.body.replace(email, "ADDRESS"))
}

#[tokio::test]
async fn nothing_tells_whether_an_address_has_an_account() {
    let app = with(SignUp::Open, true).await;
    let org = app.org("acme").await;
    with_password(&app, &org, "known@example.com", Role::Owner).await;
    let mut answers = Vec::new();
    for (n, email) in [(1, "known@example.com"), (2, "other@example.com")] {
        let browser = Browser::new(&app).at(n);
        let mut told = Vec::new();
        for _ in 0..6 {
            let answer = browser.post("/login", &[("email", email), ("password", "wrong password 123")]).await;
            told.push(likeness(&answer, email));
        }
        assert_eq!(told.iter().map(|it| it.0).collect::<Vec<_>>(), [422, 422, 422, 429, 429, 429]);
        for path in ["/login/code", "/forgot", "/sign-up"] {
            let answer = browser.post(path, &[("email", email), ("password", OTHER)]).await;
            answer.is(303);
            told.push(likeness(&answer, email));
            let page = browser.page(answer.location()).await;
            let sent = hidden(&page, "sent");
            told.push((200, String::new(), page.body.replace(email, "ADDRESS").replace(&sent, "ID")));
            let fields = [("sent", sent.as_str()), ("code", "00000000"), ("name", "X"), ("new_password", OTHER)];
            let wrong = browser.post("/code", &fields).await;
            wrong.is(422).says("You have 4 more tries");
            told.push((422, String::new(), wrong.body.replace(email, "ADDRESS").replace(&sent, "ID")));
        }
        answers.push(told);
    }
    assert_eq!(answers[0], answers[1]);
    let mails = app.mails().wait_for_count(6).await;
    let to =
        |email: &str| mails.iter().filter(|mail| mail.to == email).map(|mail| mail.text.clone()).collect::<Vec<_>>();
    assert_eq!((to("known@example.com").len(), to("other@example.com").len()), (3, 3));
    assert!(to("other@example.com").iter().filter(|text| text.contains("There is no account with it")).count() == 2);
    app.finish().await;
}

#[tokio::test]
async fn codes_by_mail() {
    let app = with(SignUp::Open, true).await;
    let browser = Browser::new(&app);
    browser.page("/login").await.says("Create an account").says("Forgot your password?");
    browser.page("/sign-up").await;
    let fields = [("email", "anna@example.com"), ("password", FINE)];
    browser.post("/sign-up", &[fields[0], ("password", "short")]).await.is(422).says("at least 12");
    let sent = browser.post("/sign-up", &fields).await;
    let page = browser.page(sent.location()).await;
    page.says("anna@example.com").says("Your name").does_not_say("New password");
    let id = hidden(&page, "sent");
    let code_one = code(&app, 1).await;
    // Another browser can do nothing with the code.
    let other = Browser::new(&app);
    other.get(sent.location()).await.is(422).says("does not work");
    let typed = [("sent", id.as_str()), ("code", code_one.as_str()), ("name", "Anna")];
    other.post("/code", &typed).await.is(422).says("does not work");
    browser.post("/code", &[typed[0], typed[1], ("name", "")]).await.is(422).says(&code_one);
    browser.post("/code", &typed).await.leads_to("/");
    browser.get("/").await.leads_to("/organizations/new");
    browser.post("/code", &typed).await.is(422);
    // A code to sign in with, and a new password.
    let other = Browser::new(&app);
    let fields = [("email", "anna@example.com"), ("next", "/account"), ("password", "")];
    let sent = other.post("/login/code", &fields).await;
    let page = other.page(sent.location()).await;
    let code_two = code(&app, 2).await;
    let typed = [("sent", &*hidden(&page, "sent")), ("code", &code_two), ("next", &*hidden(&page, "next"))];
    other.post("/code", &typed).await.leads_to("/account");
    let third = Browser::new(&app);
    let sent = third.post("/forgot", &[("email", "anna@example.com")]).await;
    let page = third.page(sent.location()).await;
    let id = hidden(
        &page.says("New password").does_not_say("Your name").status.is_success().then_some(page).unwrap(),
        "sent",
    );
    let code_three = code(&app, 3).await;
    let weak = third.post("/code", &[("sent", &id), ("code", &code_three), ("new_password", "password1234")]).await;
    weak.is(422).says("easy to guess").says(&code_three);
    third.post("/code", &[("sent", &id), ("code", &code_three), ("new_password", OTHER)]).await.leads_to("/");
    browser.get("/account").await.leads_to("/login?next=%2Faccount");
    other.get("/account").await.leads_to("/login?next=%2Faccount");
    third.page("/account").await;
    app.finish().await;
}

#[tokio::test]
async fn pages_say_what_is_not_possible_here() {
    let app = with(SignUp::Invite, false).await;
    let browser = Browser::new(&app);
    let login = browser.page("/login").await;
    login.does_not_say("Create an account").does_not_say("/login/code").says("waypost user link");
    browser.get("/sign-up").await.is(403).says("by invitation");
    browser.post("/sign-up", &[("email", "a@b.de"), ("password", FINE)]).await.is(403);
    browser.get("/forgot").await.is(503).says("cannot send mails");
    browser.post("/forgot", &[("email", "a@b.de")]).await.is(503);
    browser.post("/login/code", &[("email", "a@b.de")]).await.is(503);
    browser.get("/code?sent=nonsense").await.is(422);
    browser.get("/invite?token=").await.is(404).says("not valid any more");
    browser.get("/account").await.leads_to("/login?next=%2Faccount");
    app.finish().await;
    let app = with(SignUp::Open, false).await;
    Browser::new(&app).get("/sign-up").await.is(503).says("cannot send mails");
    app.finish().await;
    let app = with(SignUp::Closed, true).await;
    Browser::new(&app).get("/sign-up").await.is(403).says("No new accounts");
    app.finish().await;
}

#[tokio::test]
async fn a_colleague_is_invited() {
    let app = App::new().await;
    let org = app.org("acme").await;
    let anna = with_password(&app, &org, "anna@example.com", Role::Owner).await;
    let invite = async |email: &str| {
        let made = invitations::create(app.cx(), &app.ops(), &org.id, email, Role::Admin).await.unwrap();
        format!("/invite?token={}", made.secret)
    };
    let path = invite("berta@example.com").await;
    // Who is signed in with another address is told so, and comes back after signing out.
    let page = anna.page(&path).await;
    page.says("You are signed in as <strong>anna@example.com</strong>").says("berta@example.com");
    assert_eq!(hidden(&page, "next"), path);
    let token = path.split_once('=').unwrap().1;
    anna.post("/invite", &[("token", token)]).await.is(403).says("Sign in with that address");
    // The new one makes an account.
    let berta = Browser::new(&app);
    berta.page(&path).await.says("Join acme").says("an admin").says("Create the account and join");
    let fields = [("token", token), ("name", "Berta\r\nBcc: x"), ("password", OTHER)];
    berta.post("/invite", &[fields[0], fields[1], ("password", "short")]).await.is(422).says("at least 12");
    berta.post("/invite", &fields).await.leads_to("/o/acme");
    berta.page("/account").await.says("Berta  Bcc: x").says("Welcome to acme.");
    Browser::new(&app).get(&path).await.is(404).says("not valid any more");
    berta.post("/invite", &fields).await.is(404);
    // Her account is for this organisation only: the invitation of another one makes another account.
    berta.get("/organizations/new").await.is(200);
    berta.post("/organizations/new", &[("name", "Mine"), ("slug", "mine")]).await.is(403).says("not verified");
    assert_eq!(app.count("SELECT count(*) FROM organizations").await, 1);
    let elsewhere = app.org("other").await;
    let invite_to_other = async || {
        let address = "berta@example.com";
        let made = invitations::create(app.cx(), &app.ops(), &elsewhere.id, address, Role::Member).await.unwrap();
        format!("/invite?token={}", made.secret)
    };
    let path = invite_to_other().await;
    berta.page(&path).await.says("Create the account and join").does_not_say("Accept and join");
    let token = path.split_once('=').unwrap().1;
    berta.post("/invite", &[("token", token), ("name", "Berta"), ("password", OTHER)]).await.leads_to("/o/other");
    berta.get("/o/acme").await.is(404);
    let fields = [("email", "berta@example.com"), ("password", OTHER), ("next", "/o/acme/members")];
    berta.post("/login", &fields).await.leads_to("/o/acme/members");
    berta.page("/o/acme/members").await;
    let member = users::find(app.cx(), &app.ops(), &elsewhere.id, "berta@example.com").await.unwrap();
    users::delete(app.cx(), &app.ops(), &elsewhere.id, &member.user_id).await.unwrap();
    // Who has a verified account signs in, and comes back.
    let member = users::find(app.cx(), &app.ops(), &org.id, "berta@example.com").await.unwrap();
    let mut tx = app.db().begin().await.unwrap();
    waypost_store::user::verify(&mut tx, &member.user_id, app.cx().now()).await.unwrap();
    tx.commit().await.unwrap();
    let path = invite_to_other().await;
    let token = path.split_once('=').unwrap().1;
    let again = Browser::new(&app);
    again.page(&path).await.says("sign in to accept").says("/login?next=%2Finvite%3Ftoken%3D");
    again.post("/login", &[("email", "berta@example.com"), ("password", OTHER), ("next", &path)]).await.leads_to(&path);
    again.page(&path).await.says("Accept and join");
    again.post("/invite", &[("token", token)]).await.leads_to("/o/other");
    app.finish().await;
}

/// The page is the same whether the address has a verified account, an unverified one, or none.
#[tokio::test]
async fn an_invitation_does_not_tell_whether_there_is_an_account() {
    for sign_up in [SignUp::Invite, SignUp::Closed] {
        let app = with(sign_up, false).await;
        let (org, other) = (app.org("acme").await, app.org("other").await);
        with_password(&app, &other, "known@example.com", Role::Owner).await;
        unverified(&app, &other, "begun@example.com", Role::Owner).await;
        let mut pages = Vec::new();
        for email in ["known@example.com", "begun@example.com", "nobody@example.com"] {
            let made = invitations::create(app.cx(), &app.ops(), &org.id, email, Role::Member).await.unwrap();
            let page = Browser::new(&app).page(&format!("/invite?token={}", made.secret)).await;
            let expires_at = made.invitation.expires_at.rfc3339();
            let plain =
                |text: &str| text.replace(email, "EMAIL").replace(&made.secret, "TOKEN").replace(&expires_at, "AT");
            let mut told = plain(&page.body);
            if sign_up == SignUp::Invite {
                let fields = [("token", made.secret.as_str()), ("name", "X"), ("password", OTHER)];
                let answer = Browser::new(&app).post("/invite", &fields).await;
                told.push_str(&format!("{} {}", answer.status, answer.location()));
            }
            pages.push(told);
        }
        assert_eq!(pages[0], pages[1]);
        assert_eq!(pages[0], pages[2]);
        app.finish().await;
    }
}

/// Wrong passwords of somebody else, also from the same client address, do not reject a browser that has signed in before.
#[tokio::test]
async fn nobody_is_locked_out_by_others() {
    let app = with(SignUp::Invite, true).await;
    let org = app.org("acme").await;
    let anna = with_password(&app, &org, "anna@example.com", Role::Owner).await;
    let right = [("email", "anna@example.com"), ("password", FINE)];
    let attacker = Browser::new(&app);
    for _ in 0..3 {
        attacker.post("/login", &[right[0], ("password", "wrong password 123")]).await.is(422);
    }
    let limited = attacker.post("/login", &[right[0], ("password", "wrong password 123")]).await;
    limited.is(429).says("Too many failed sign-ins");
    let wait: u64 = limited.header("retry-after").parse().unwrap();
    assert!((1..=20).contains(&wait), "{wait}");
    for _ in 0..3 {
        attacker.post("/login/code", &right[..1]).await.is(303);
    }
    let limited = attacker.post("/login/code", &right[..1]).await;
    assert!(!limited.is(429).header("retry-after").is_empty());
    // General limits by client address come before these for everybody else.
    for n in 0..130 {
        attacker.post("/login", &[("email", &format!("a{n}@")), ("password", "x")]).await;
    }
    attacker.post("/login", &[("email", "a@"), ("password", "x")]).await.is(429);
    anna.post("/logout", &[]).await.leads_to("/login");
    anna.post("/login", &right).await.leads_to("/");
    let sent = anna.post("/login/code", &right[..1]).await;
    let page = anna.page(sent.location()).await;
    let (id, mails) = (hidden(&page, "sent"), app.mails().wait_for_count(4).await);
    let code = mails[3].text.lines().next().unwrap().to_owned();
    anna.post("/code", &[("sent", &id), ("code", &code)]).await.leads_to("/");
    // Another browser at another address is not rejected, either.
    Browser::new(&app).at(1).post("/login", &right).await.leads_to("/");
    app.finish().await;
}

#[tokio::test]
async fn users_manage_themselves() {
    let app = App::new().await;
    let org = app.org("acme").await;
    let browser = with_password(&app, &org, "anna@example.com", Role::Owner).await;
    let page = browser.page("/account").await;
    page.says("anna@example.com").says("This one").does_not_say("Sign out all others");
    browser.post("/account", &[("name", "<script>alert(1)</script>")]).await.leads_to("/account");
    browser.page("/account").await.says("Your name is saved.").does_not_say("<script>alert");
    browser.post("/account", &[("name", " ")]).await.is(422).says("must not be empty");
    let two = Browser::new(&app);
    two.post("/login", &[("email", "anna@example.com"), ("password", FINE)]).await.leads_to("/");
    browser.page("/account").await.says("Sign out all others");
    let wrong = browser.post("/account/password", &[("password", OTHER), ("new_password", OTHER)]).await;
    wrong.is(422).says("not your present password");
    let fields = [("password", FINE), ("new_password", OTHER)];
    browser.post("/account/password", &fields).await.leads_to("/account");
    browser.page("/account").await.says("one other browser signed out");
    two.get("/account").await.leads_to("/login?next=%2Faccount");
    // Each browser can be signed out, and those of others cannot.
    let fields = [("email", "anna@example.com"), ("password", OTHER)];
    two.post("/login", &fields).await.leads_to("/");
    let anna = users::find(app.cx(), &app.ops(), &org.id, "anna@example.com").await.unwrap();
    let cx = app.cx().with_caller(waypost_core::caller::Caller::User { user_id: anna.user_id.clone() });
    let sessions = user_sessions::list(&cx, &app.ops()).await.unwrap();
    let own =
        user_sessions::find(&cx, &app.ops(), &browser.cookie("__Host-wp_console").unwrap()).await.unwrap().unwrap();
    let other = sessions.iter().find(|it| it.id != own.id).unwrap().id.clone();
    let mallory = with_password(&app, &org, "mallory@example.com", Role::Member).await;
    mallory.post(&format!("/account/sessions/{other}/end"), &[]).await.is(404);
    mallory.post("/account/sessions/nonsense/end", &[]).await.is(404);
    two.page("/account").await;
    browser.post(&format!("/account/sessions/{other}/end"), &[]).await.leads_to("/account");
    two.get("/account").await.leads_to("/login?next=%2Faccount");
    two.post("/login", &fields).await.leads_to("/");
    browser.post("/account/sessions/end-others", &[]).await.leads_to("/account");
    two.get("/account").await.leads_to("/login?next=%2Faccount");
    browser.page("/account").await;
    // The last owner stays; others leave.
    let leave = format!("/account/organizations/{}/leave", org.id);
    browser.post(&leave, &[]).await.is(409).says("You are the last owner");
    mallory.post(&leave, &[]).await.leads_to("/account");
    mallory.page("/account").await.says("You have left acme").says("You are in no organisation");
    mallory.post(&leave, &[]).await.is(404);
    app.finish().await;
}

#[tokio::test]
async fn too_many_tries_from_one_network() {
    let app = App::new().await;
    let browser = Browser::new(&app);
    let mut statuses = std::collections::BTreeSet::new();
    for n in 0..130 {
        let email = format!("a{n}@");
        statuses.insert(browser.post("/login", &[("email", &email), ("password", "x")]).await.status.as_u16());
    }
    assert_eq!(statuses.into_iter().collect::<Vec<_>>(), [422, 429]);
    app.finish().await;
}
