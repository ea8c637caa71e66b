//! Tests of each sign-in method and its failures.

use std::io::Cursor;

use http::{StatusCode, header};
use waypost_core::server::AuthType;
use waypost_ops::logos;

use crate::harness::{Browser, MINUTE, Pages, TestResponse};

const ANNA: &str = "anna@example.com";
const PASSWORD: &str = "quartz-banjo-umbrella-42";
const OTHER_PASSWORD: &str = "walnut.tractor.opera.19";
const BAD: StatusCode = StatusCode::UNPROCESSABLE_ENTITY;

/// Signs up with a password. The code arrives in the `count`-th email.
async fn sign_up(pages: &Pages, browser: &mut Browser<'_>, email: &str, count: usize) {
    let response = browser.post("sign-up", &[("email", email), ("password", PASSWORD)]).await;
    let (sent, (code, _)) = (browser.sent(&response), pages.code(count).await);
    let response = browser.post("sign-in/code", &[("sent", &sent), ("code", &code)]).await;
    assert_eq!(response.location(), browser.path("authorize/continue"));
}

fn wrong(code: &str) -> &'static str {
    if code == "00000000" { "11111111" } else { "00000000" }
}

#[tokio::test]
async fn a_user_signs_in_with_a_code() {
    let pages = Pages::new().await;
    let server = pages.server("acme", AuthType::PlatformOauth).await;
    let mut browser = pages.browser(&server).await;
    let page = browser.get("sign-in").await;
    page.shows(
        StatusCode::OK,
        &["hint@example.com", "Acme &#38; Söhne", "Acme Cloud", "Client &#60;b&#62;", "Send me a code"],
    );
    let response = browser.post("sign-in/code", &[("email", " Anna@Example.com ")]).await;
    let sent = browser.sent(&response);
    let page = browser.get(response.location()).await;
    page.shows(StatusCode::OK, &["Anna@Example.com", "autocomplete=\"one-time-code\"", "inputmode=\"numeric\""]);
    let (code, mail) = pages.code(1).await;
    assert_eq!(
        (mail.to.as_str(), mail.subject),
        ("Anna@Example.com", format!("{code} is your code for “Acme & Söhne”"))
    );
    for words in ["sign in to Acme & Söhne", "10 minutes", "ignore this email", &format!("&sent={sent}&code={code}")] {
        assert!(mail.text.contains(words), "{words} in {}", mail.text);
    }
    let page = browser.post("sign-in/code", &[("sent", &sent), ("code", wrong(&code))]).await;
    page.shows(
        BAD,
        &["role=\"alert\"", "4 more attempts", "aria-invalid=\"true\" aria-describedby=\"problem\" autofocus"],
    );
    assert!(!page.body.contains(wrong(&code)), "the entered code is not shown again");
    let response = browser.post("sign-in/code", &[("sent", &sent), ("code", &code)]).await;
    assert_eq!(response.location(), browser.path("authorize/continue"));
    let cookie = response.headers[header::SET_COOKIE].to_str().unwrap();
    assert!(cookie.contains("HttpOnly; SameSite=Lax; Secure; Path=/; Max-Age=2592000"), "{cookie}");
    assert_eq!(browser.signed_in_as().await.as_deref(), Some("Anna@Example.com"));
    let page = browser.post("sign-in/code", &[("sent", &sent), ("code", &code)]).await;
    page.shows(BAD, &["no longer valid", "Send me a code"]);
}

#[tokio::test]
async fn the_link_works_only_in_the_same_browser_and_with_a_button() {
    let pages = Pages::new().await;
    let server = pages.server("acme", AuthType::PlatformOauth).await;
    let mut browser = pages.browser(&server).await;
    browser.post("sign-in/code", &[("email", ANNA)]).await;
    let (code, mail) = pages.code(1).await;
    let link = mail.text.lines().find_map(|line| line.strip_prefix("http://localhost:8080")).unwrap().to_owned();
    let mut other = pages.browser(&server).await;
    other.get(&link).await.shows(StatusCode::BAD_REQUEST, &["Enter the code instead", "Go back to that browser"]);
    other.cookies.clear();
    other.get(&link).await.shows(StatusCode::BAD_REQUEST, &["Enter the code instead"]);
    for _ in 0..7 {
        let page = browser.get(&link).await;
        page.shows(StatusCode::OK, &["Is this you?", "Sign in as anna@example.com", &code]);
    }
    assert_eq!(browser.session(), None, "opening the link changes nothing");
    let sent = link.split_once("&sent=").unwrap().1.split('&').next().unwrap().to_owned();
    let response = browser.post("sign-in/link", &[("sent", &sent), ("code", &code)]).await;
    assert_eq!(response.location(), browser.path("authorize/continue"));
    assert_eq!(browser.signed_in_as().await.as_deref(), Some(ANNA));
    browser.get(&link).await.shows(BAD, &["no longer valid"]);
}

#[tokio::test]
async fn a_user_signs_in_with_a_password_after_signing_up() {
    let pages = Pages::new().await;
    let server = pages.server("acme", AuthType::PlatformOauth).await;
    let mut browser = pages.browser(&server).await;
    browser.get("sign-up").await.shows(StatusCode::OK, &["autocomplete=\"new-password\"", "At least 12 characters"]);
    let page = browser.post("sign-up", &[("email", ANNA), ("password", "short")]).await;
    page.shows(BAD, &["at least 12 characters", "value=\"anna@example.com\"", "aria-describedby=\"problem hint\""]);
    assert!(!page.body.contains("short"), "the password is not shown again");
    let page = browser.post("sign-up", &[("email", ANNA), ("password", "anna@example.com")]).await;
    page.shows(BAD, &["easy to guess"]);
    browser.post("sign-up", &[("email", "anna"), ("password", PASSWORD)]).await.shows(BAD, &["Enter a valid email"]);
    sign_up(&pages, &mut browser, ANNA, 1).await;
    let mut other = pages.browser(&server).await;
    // With only the email, the page asks for the password.
    let page = other.post("sign-in/password", &[("email", ANNA)]).await;
    page.shows(
        StatusCode::OK,
        &["value=\"anna@example.com\"", "autocomplete=\"current-password\"", "Forgot your password?"],
    );
    assert!(!page.body.contains("role=\"alert\""));
    let page = other.post("sign-in/password", &[("email", ANNA), ("password", OTHER_PASSWORD)]).await;
    page.shows(BAD, &["or password is incorrect"]);
    assert!(!page.body.contains(OTHER_PASSWORD));
    let response = other.post("sign-in/password", &[("email", " ANNA@example.com"), ("password", PASSWORD)]).await;
    assert_eq!(response.location(), other.path("authorize/continue"));
    assert_eq!(other.signed_in_as().await.as_deref(), Some(ANNA));
}

#[tokio::test]
async fn a_user_resets_the_password() {
    let pages = Pages::new().await;
    let server = pages.server("acme", AuthType::PlatformOauth).await;
    let (mut browser, mut old) = (pages.browser(&server).await, pages.browser(&server).await);
    sign_up(&pages, &mut old, ANNA, 1).await;
    browser.get("sign-in/forgotten").await.shows(StatusCode::OK, &["Set a new password"]);
    let response = browser.post("sign-in/forgotten", &[("email", ANNA)]).await;
    let (sent, (code, mail)) = (browser.sent(&response), pages.code(2).await);
    assert!(mail.text.contains("set a new password"), "{}", mail.text);
    let page = browser.get(response.location()).await;
    page.shows(StatusCode::OK, &["name=\"new_password\"", ANNA]);
    let page = browser.post("sign-in/reset", &[("sent", &sent), ("code", &code), ("new_password", "short")]).await;
    page.shows(BAD, &["at least 12", &format!("value=\"{code}\"")]);
    let fields = [("sent", sent.as_str()), ("code", wrong(&code)), ("new_password", OTHER_PASSWORD)];
    browser.post("sign-in/reset", &fields).await.shows(BAD, &["4 more attempts"]);
    // The link opens the same form with the code filled in.
    let link = mail.text.lines().find_map(|line| line.strip_prefix("http://localhost:8080")).unwrap();
    browser.get(link).await.shows(StatusCode::OK, &["name=\"new_password\"", &format!("value=\"{code}\"")]);
    let response =
        browser.post("sign-in/reset", &[("sent", &sent), ("code", &code), ("new_password", OTHER_PASSWORD)]).await;
    assert_eq!(response.location(), browser.path("authorize/continue"));
    assert_eq!(browser.signed_in_as().await.as_deref(), Some(ANNA));
    assert_eq!(old.signed_in_as().await, None, "the other browser is signed out");
    let fields = [("email", ANNA), ("password", PASSWORD)];
    old.post("sign-in/password", &fields).await.shows(BAD, &["or password is incorrect"]);
}

/// Returns the content of a response without the values that differ between requests.
fn shown(browser: &Browser<'_>, response: &TestResponse, email: &str) -> String {
    let mut text = format!("{} {:?} {}", response.status, response.headers.get(header::LOCATION), response.body);
    if let Some((_, sent)) = text.clone().split_once("sent=") {
        text = text.replace(sent.split('"').next().unwrap(), "SENT");
    }
    if let Some((_, rest)) = response.body.split_once("name=\"sent\" value=\"") {
        text = text.replace(rest.split('"').next().unwrap(), "SENT");
    }
    text = text.replace(browser.request.as_str(), "REQUEST").replace(email, "EMAIL");
    if browser.csrf.is_empty() { text } else { text.replace(&browser.csrf, "CSRF") }
}

#[tokio::test]
async fn known_and_unknown_emails_get_the_same_responses() {
    let pages = Pages::new().await;
    let server = pages.server("acme", AuthType::PlatformOauth).await;
    sign_up(&pages, &mut pages.browser(&server).await, ANNA, 1).await;
    let mut responses = Vec::new();
    for (email, sent_before) in [(ANNA, 1), ("nobody@example.com", 4)] {
        pages.clock.advance(MINUTE);
        let (mut browser, mut shown_pages) = (pages.browser(&server).await, Vec::new());
        for (count, (name, fields)) in [
            ("sign-in/code", vec![("email", email)]),
            ("sign-up", vec![("email", email), ("password", OTHER_PASSWORD)]),
            ("sign-in/forgotten", vec![("email", email)]),
        ]
        .into_iter()
        .enumerate()
        {
            let response = browser.post(name, &fields).await;
            let (sent, next) = (browser.sent(&response), response.location().to_owned());
            shown_pages.push(shown(&browser, &response, email));
            let page = browser.get(&next).await;
            shown_pages.push(shown(&browser, &page, email));
            let (code, mail) = pages.code(sent_before + count + 1).await;
            assert_eq!(mail.to, email, "both get an email");
            let enter = if name == "sign-in/forgotten" { "sign-in/reset" } else { "sign-in/code" };
            let fields = [("sent", sent.as_str()), ("code", wrong(&code)), ("new_password", OTHER_PASSWORD)];
            let page = browser.post(enter, &fields).await;
            shown_pages.push(shown(&browser, &page, email));
        }
        pages.clock.advance(MINUTE);
        for _ in 0..7 {
            let page = browser.post("sign-in/password", &[("email", email), ("password", OTHER_PASSWORD)]).await;
            shown_pages.push(shown(&browser, &page, email));
        }
        responses.push(shown_pages);
    }
    assert_eq!(responses[0], responses[1]);
    assert!(responses[0].last().unwrap().contains("Too many failed sign-ins"), "{:#?}", responses[0].last());
}

#[tokio::test]
async fn codes_expire_after_five_attempts_or_ten_minutes() {
    let pages = Pages::new().await;
    let server = pages.server("acme", AuthType::PlatformOauth).await;
    let mut browser = pages.browser(&server).await;
    let response = browser.post("sign-in/code", &[("email", ANNA)]).await;
    let (sent, (code, _)) = (browser.sent(&response), pages.code(1).await);
    for words in ["4 more", "3 more", "2 more", "one more", "the last attempt"] {
        let page = browser.post("sign-in/code", &[("sent", &sent), ("code", wrong(&code))]).await;
        page.shows(BAD, &[words]);
    }
    let fields = [("sent", sent.as_str()), ("code", code.as_str())];
    browser.post("sign-in/code", &fields).await.shows(BAD, &["no longer valid", "Send me a code"]);
    let response = browser.post("sign-in/code", &[("email", ANNA)]).await;
    let (sent, (code, _)) = (browser.sent(&response), pages.code(2).await);
    pages.clock.advance(10 * MINUTE);
    let fields = [("sent", sent.as_str()), ("code", code.as_str())];
    browser.post("sign-in/code", &fields).await.shows(BAD, &["no longer valid"]);
    browser.get(response.location()).await.shows(BAD, &["no longer valid"]);
    assert_eq!(browser.session(), None);
}

#[tokio::test]
async fn a_code_is_bound_to_a_browser_and_a_request() {
    let pages = Pages::new().await;
    let server = pages.server("acme", AuthType::PlatformOauth).await;
    let (mut browser, mut other) = (pages.browser(&server).await, pages.browser(&server).await);
    let response = browser.post("sign-in/code", &[("email", ANNA)]).await;
    let (sent, (code, _)) = (browser.sent(&response), pages.code(1).await);
    let fields = [("sent", sent.as_str()), ("code", code.as_str())];
    other.post("sign-in/code", &fields).await.shows(BAD, &["no longer valid"]);
    let own = std::mem::replace(&mut other.request, browser.request.clone());
    other.get("sign-in").await.shows(StatusCode::BAD_REQUEST, &["This sign-in is no longer active"]);
    let response = other.post("sign-in/code", &fields).await;
    response.shows(StatusCode::BAD_REQUEST, &["This sign-in is no longer active"]);
    other.request = own;
    let first = browser.request.clone();
    browser.begin().await;
    browser.post("sign-in/code", &fields).await.shows(BAD, &["no longer valid"]);
    browser.request = first;
    browser.get("sign-in").await;
    browser.post("sign-in/code", &fields).await.location();
}

#[tokio::test]
async fn forms_require_the_csrf_token_of_their_own_page() {
    let pages = Pages::new().await;
    let server = pages.server("acme", AuthType::PlatformOauth).await;
    let (mut browser, mut other) = (pages.browser(&server).await, pages.browser(&server).await);
    other.get("sign-in").await;
    let foreign = other.csrf.clone();
    let fields = [("email", ANNA), ("password", PASSWORD), ("code", "12345678"), ("sent", "ecd_000000000000")];
    for name in [
        "sign-in/code",
        "sign-in/link",
        "sign-in/password",
        "sign-up",
        "sign-in/forgotten",
        "sign-in/reset",
        "sign-out",
    ] {
        for csrf in ["", "nonsense", &foreign] {
            let response = browser.post_with(name, csrf, &fields).await;
            response.shows(StatusCode::FORBIDDEN, &["This form is not valid"]);
        }
        browser.get("sign-in").await;
        for origin in ["https://evil.example", "null", "http://acme.localhost:8080"] {
            let response = browser.post_from(origin, name, &fields).await;
            response.shows(StatusCode::FORBIDDEN, &["This form is not valid"]);
        }
    }
    assert_eq!(pages.mails.sent().len(), 0);
}

#[tokio::test]
async fn wrong_passwords_are_limited_and_the_page_shows_the_wait_time() {
    let pages = Pages::new().await;
    let server = pages.server("acme", AuthType::PlatformOauth).await;
    let (mut known, mut browser) = (pages.browser(&server).await, pages.browser(&server).await);
    sign_up(&pages, &mut known, ANNA, 1).await;
    let (right, bad) = ([("email", ANNA), ("password", PASSWORD)], [("email", ANNA), ("password", OTHER_PASSWORD)]);
    for _ in 0..3 {
        browser.post("sign-in/password", &bad).await.shows(BAD, &["or password is incorrect"]);
    }
    let page = browser.post("sign-in/password", &right).await;
    page.shows(StatusCode::TOO_MANY_REQUESTS, &["in 20 seconds, or sign in with a code", "role=\"alert\""]);
    assert_eq!(page.headers[header::RETRY_AFTER], "20");
    // The browser in which Anna has signed in before is not rejected, although it has the same client address.
    known.post("sign-in/password", &bad).await.shows(BAD, &["or password is incorrect"]);
    known.post("sign-in/password", &right).await.location();
    pages.clock.advance(MINUTE / 3);
    browser.post("sign-in/password", &bad).await.shows(BAD, &["or password is incorrect"]);
    browser.post("sign-in/password", &right).await.shows(StatusCode::TOO_MANY_REQUESTS, &["in 20 seconds"]);
    pages.clock.advance(MINUTE / 3);
    browser.post("sign-in/password", &right).await.location();
}

#[tokio::test]
async fn a_session_is_valid_only_in_its_organisation() {
    let pages = Pages::new().await;
    let (one, two) =
        (pages.server("acme", AuthType::PlatformOauth).await, pages.server("other", AuthType::PlatformOauth).await);
    let (mut browser, mut foreign) = (pages.browser(&one).await, pages.browser(&two).await);
    sign_up(&pages, &mut browser, ANNA, 1).await;
    let token = browser.session().unwrap().clone();
    for organization in [&one.organization_id, &two.organization_id] {
        foreign.cookies.insert(format!("__Host-wp_eu_{organization}"), token.clone());
    }
    assert_eq!(foreign.signed_in_as().await, None, "under neither cookie name");
    assert_eq!(foreign.get("consent").await.location(), foreign.path("sign-in"));
    foreign.post("sign-out", &[]).await.location();
    assert_eq!(
        browser.signed_in_as().await.as_deref(),
        Some(ANNA),
        "the session cannot be ended from another organisation"
    );
}

#[tokio::test]
async fn signing_out_deletes_the_session() {
    let pages = Pages::new().await;
    let server = pages.server("acme", AuthType::PlatformOauth).await;
    let mut browser = pages.browser(&server).await;
    sign_up(&pages, &mut browser, ANNA, 1).await;
    let first = browser.session().unwrap().clone();
    // Another sign-in replaces the session.
    browser.post("sign-in/password", &[("email", ANNA), ("password", PASSWORD)]).await.location();
    let second = browser.session().unwrap().clone();
    let name = format!("__Host-wp_eu_{}", server.organization_id);
    browser.cookies.insert(name.clone(), first);
    assert_eq!(browser.signed_in_as().await, None);
    browser.cookies.insert(name.clone(), second.clone());
    assert_eq!(browser.signed_in_as().await.as_deref(), Some(ANNA));
    let response = browser.post("sign-out", &[]).await;
    assert_eq!(response.location(), browser.path("authorize/continue"));
    assert_eq!(browser.session(), None);
    browser.cookies.insert(name, second);
    assert_eq!(browser.signed_in_as().await, None, "the session is deleted, not only the cookie");
}

#[tokio::test]
async fn without_email_only_passwords_are_offered() {
    let pages = Pages::with_mail(false).await;
    let server = pages.server("acme", AuthType::PlatformOauth).await;
    let mut browser = pages.browser(&server).await;
    let page = browser.get("sign-in").await;
    page.shows(StatusCode::OK, &["Email is unavailable", "current-password"]);
    assert!(!page.body.contains("Send me a code") && !page.body.contains("Forgot"), "{}", page.body);
    for name in ["sign-up", "sign-in/forgotten"] {
        browser.get(name).await.shows(StatusCode::SERVICE_UNAVAILABLE, &["Email is unavailable"]);
    }
    for name in ["sign-in/code", "sign-up", "sign-in/forgotten"] {
        let response = browser.post(name, &[("email", ANNA), ("password", PASSWORD)]).await;
        response.shows(StatusCode::SERVICE_UNAVAILABLE, &["Email is unavailable"]);
    }
}

#[tokio::test]
async fn too_many_emails_are_rejected() {
    let pages = Pages::new().await;
    let server = pages.server("acme", AuthType::PlatformOauth).await;
    let mut browser = pages.browser(&server).await;
    for _ in 0..3 {
        browser.post("sign-in/code", &[("email", ANNA)]).await.location();
    }
    let page = browser.post("sign-in/code", &[("email", "ANNA@example.com")]).await;
    page.shows(StatusCode::TOO_MANY_REQUESTS, &["Too many codes were requested", "role=\"alert\""]);
    assert_eq!(page.headers[header::RETRY_AFTER], "20");
    let mut refused = None;
    for n in 0..200 {
        let response = browser.post("sign-in/code", &[("email", &format!("a{n}@example.com"))]).await;
        if response.status == StatusCode::TOO_MANY_REQUESTS {
            refused = Some(response);
            break;
        }
    }
    let refused = refused.unwrap();
    let again = browser.post("sign-in/code", &[("email", ANNA)]).await;
    again.shows(StatusCode::TOO_MANY_REQUESTS, &["Too many requests"]);
    refused.shows(StatusCode::TOO_MANY_REQUESTS, &["Too many requests"]);
    assert!(refused.headers.contains_key(header::RETRY_AFTER));
    let mut other = pages.browser(&server).await;
    other.post("sign-in/code", &[("email", "b@example.com")]).await.location();
}

#[tokio::test]
async fn servers_with_other_auth_types_have_no_sign_in_pages() {
    let pages = Pages::new().await;
    let server = pages.server("acme", AuthType::PlatformOauth).await;
    let mut browser = pages.browser(&server).await;
    browser.get("sign-in").await;
    let names = ["sign-in", "sign-in/code", "sign-in/link", "sign-in/password", "sign-up", "sign-in/forgotten"];
    let server = pages.set_auth_type(server, AuthType::CustomOauth).await;
    for name in names {
        let response = browser.get(name).await;
        assert_eq!(response.status, StatusCode::BAD_REQUEST, "{name}: a self-created account does not grant access");
    }
    let response = browser.post("sign-in/password", &[("email", ANNA), ("password", PASSWORD)]).await;
    assert_eq!(response.status, StatusCode::BAD_REQUEST);
    pages.set_auth_type(server, AuthType::None).await;
    for name in names {
        assert_eq!(browser.get(name).await.status, StatusCode::NOT_FOUND, "{name}");
    }
}

#[tokio::test]
async fn pages_have_security_headers_a_style_sheet_and_a_logo() {
    let pages = Pages::new().await;
    let server = pages.server("acme", AuthType::PlatformOauth).await;
    let mut browser = pages.browser(&server).await;
    let page = browser.get("sign-in").await;
    let policy = page.headers[header::CONTENT_SECURITY_POLICY].to_str().unwrap();
    assert!(policy.contains("default-src 'none'") && policy.contains("form-action 'self' http://127.0.0.1:3999"));
    assert_eq!(page.headers[header::CACHE_CONTROL], "no-store");
    for forbidden in ["<script", "style=", "<style", "onclick", "javascript:", "<img"] {
        assert!(!page.body.contains(forbidden), "{forbidden} in {}", page.body);
    }
    let style = page.body.split_once("rel=\"stylesheet\" href=\"").unwrap().1.split('"').next().unwrap().to_owned();
    let response = browser.get(&style).await;
    response.shows(StatusCode::OK, &["prefers-color-scheme: dark"]);
    assert_eq!(response.headers[header::CONTENT_TYPE], "text/css; charset=utf-8");
    assert!(response.headers[header::CACHE_CONTROL].to_str().unwrap().contains("immutable"));
    let old = browser.get(&style.replace("v=", "v=0")).await;
    assert_eq!(old.headers[header::CACHE_CONTROL], "no-cache");
    assert_eq!(browser.get("logo.png").await.status, StatusCode::NOT_FOUND);
    let mut png = Vec::new();
    let picture = image::DynamicImage::new_rgb8(8, 8);
    picture.write_to(&mut Cursor::new(&mut png), image::ImageFormat::Png).unwrap();
    logos::set(&pages.cx, &pages.ops, &server.organization_id, png).await.unwrap();
    let page = browser.get("sign-in").await;
    let logo = page.body.split_once("<img src=\"").unwrap().1.split('"').next().unwrap().to_owned();
    let response = browser.get(&logo).await;
    assert_eq!(
        (response.status, &response.headers[header::CONTENT_TYPE]),
        (StatusCode::OK, &"image/png".parse().unwrap())
    );
    assert_eq!(response.headers[header::X_CONTENT_TYPE_OPTIONS], "nosniff");
}
