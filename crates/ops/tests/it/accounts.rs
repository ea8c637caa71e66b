//! Tests of sign-in with Waypost accounts.

use waypost_core::account::CodePurpose;
use waypost_core::{Code, Error, Result};
use waypost_ops::accounts::{CodeEntry, CodeRequest, NewSession, PasswordSignIn, PendingCode, SignInClient};
use waypost_ops::browser_sessions;
use waypost_store::db::count_statements;

use crate::account_test::{AccountTest, CLIENT, MINUTE, at, set_up_accounts};

const PASSWORD: &str = "quartz-banjo-umbrella-42";
const OTHER_PASSWORD: &str = "walnut.tractor.opera.19";

#[track_caller]
fn assert_rejected(result: Result<NewSession>, field: &str, words: &str) {
    let error = result.unwrap_err();
    assert_eq!(error.details["field"], field, "{error}");
    assert!(error.message.contains(words), "{error}");
}

async fn a_code_creates_the_account_and_signs_in_again(test: AccountTest) {
    let first = test.sign_in_with_code("Anna@Example.com").await;
    let again = test.sign_in_with_code(" anna@example.COM ").await;
    assert_eq!(again.signed_in, first.signed_in);
    assert_ne!(again.token, first.token);
    let (cx, org) = (test.client_context(&test.one), &test.one.organization.id);
    let session = browser_sessions::find(&cx, &test.fixture.ops, org, &first.token).await.unwrap().unwrap();
    assert_eq!(session.email.as_deref(), Some("Anna@Example.com"));
    assert_eq!(test.count_events("account.create").await, 1);
    assert_eq!(test.count_events("end_user.sign_in").await, 2);
    assert_ne!(test.sign_in_with_code("berta@example.com").await.signed_in.end_user_id, first.signed_in.end_user_id);
    for event in test.list_events(org).await {
        let text = format!("{event:?}");
        assert!(!text.contains(&first.token), "{text}");
    }
}

async fn a_code_works_once_in_its_own_request(test: AccountTest) {
    let (request, other) = (test.create_request(&test.one).await, test.create_request(&test.one).await);
    let foreign = test.create_request(&test.two).await;
    let issued = test.request_sign_in_code(&request, "anna@example.com").await;
    let id = issued.id.as_str();
    assert_rejected(test.enter_code(&other, id, &issued.code).await, "code", "no longer valid");
    let entry = CodeEntry { id, code: &issued.code, new_password: None };
    assert_rejected(
        test.accounts.sign_in_with_code(&test.client_context(&test.two), &foreign, entry, CLIENT.address).await,
        "code",
        "no longer valid",
    );
    assert_rejected(
        test.enter_code(&request, "ecd_000000000000000000000000", &issued.code).await,
        "code",
        "no longer valid",
    );
    assert_rejected(test.enter_code(&request, id, "1234567").await, "code", "8 digits");
    let spaced = format!(" {} {} ", &issued.code[..4], &issued.code[4..]);
    test.enter_code(&request, id, &spaced).await.unwrap();
    assert_rejected(test.enter_code(&request, id, &issued.code).await, "code", "no longer valid");
    let two = test.request_sign_in_code(&request, "anna@example.com").await;
    let (a, b) = tokio::join!(
        test.enter_code(&request, two.id.as_str(), &two.code),
        test.enter_code(&request, two.id.as_str(), &two.code)
    );
    assert_eq!(usize::from(a.is_ok()) + usize::from(b.is_ok()), 1, "{a:?} {b:?}");
}

async fn a_code_has_five_attempts_and_ten_minutes(test: AccountTest) {
    let request = test.create_request(&test.one).await;
    let issued = test.request_sign_in_code(&request, "anna@example.com").await;
    let wrong = if issued.code == "00000000" { "00000001" } else { "00000000" };
    for words in [
        "4 more attempts",
        "3 more attempts",
        "2 more attempts",
        "one more attempt",
        "the last attempt",
        "no longer valid",
    ] {
        assert_rejected(test.enter_code(&request, issued.id.as_str(), wrong).await, "code", words);
    }
    assert_rejected(test.enter_code(&request, issued.id.as_str(), &issued.code).await, "code", "no longer valid");
    let issued = test.request_sign_in_code(&request, "anna@example.com").await;
    test.clock.advance(10 * MINUTE - 1);
    assert_eq!(
        test.accounts.get_code(&test.client_context(&test.one), &request, issued.id.as_str()).await.unwrap(),
        PendingCode { email: "anna@example.com".into(), purpose: CodePurpose::SignIn }
    );
    test.clock.advance(1);
    assert_rejected(test.enter_code(&request, issued.id.as_str(), &issued.code).await, "code", "no longer valid");
    assert_eq!(test.count_events("account.create").await, 0);
}

async fn a_password_is_set_when_the_code_verifies_the_email(test: AccountTest) {
    let request = test.create_request(&test.one).await;
    let request_code =
        CodeRequest { email: "anna@example.com", purpose: CodePurpose::SignUp, password: Some(PASSWORD) };
    let error = test.request_code(&request, CodeRequest { password: Some("short"), ..request_code }).await.unwrap_err();
    assert_eq!(error.details["field"], "password");
    let error = test
        .request_code(&request, CodeRequest { password: Some("anna@example.com"), ..request_code })
        .await
        .unwrap_err();
    assert!(error.message.contains("easy to guess"), "{error}");
    let issued = test.request_code(&request, request_code).await.unwrap();
    assert!(!issued.has_account);
    assert_rejected(
        test.sign_in_with_password("anna@example.com", PASSWORD).await,
        "password",
        "or password is incorrect",
    );
    let session = test.enter_code(&request, issued.id.as_str(), &issued.code).await.unwrap();
    let again = test.sign_in_with_password(" ANNA@example.com", PASSWORD).await.unwrap();
    assert_eq!(again.signed_in, session.signed_in);
    assert_rejected(
        test.sign_in_with_password("anna@example.com", OTHER_PASSWORD).await,
        "password",
        "or password is incorrect",
    );
    assert_rejected(test.sign_in_with_password("anna", PASSWORD).await, "email", "");
    let cx = test.client_context(&test.two);
    let credentials = PasswordSignIn { email: "anna@example.com", password: PASSWORD };
    let in_other_organization =
        test.accounts.sign_in_with_password(&cx, &test.two.organization.id, credentials, CLIENT).await;
    assert_rejected(in_other_organization, "password", "or password is incorrect");
    assert_eq!(test.count_events("account.password").await, 1);
}

async fn a_new_password_ends_sessions_and_grants(test: AccountTest) {
    let (cx, ops, org) = (test.client_context(&test.one), &test.fixture.ops, &test.one.organization.id);
    let old = test.sign_up("anna@example.com", PASSWORD).await;
    let grant = "INSERT INTO oauth_grants (id, organization_id, server_id, end_user_id, client_id, client_name, scope,
            resource, generation, created_at, expires_at)
        VALUES ('ogr_1', $1, $2, $3, 'client', 'Client', 'walk', 'https://way.example/mcp', 1, 1, 9999999999999)";
    let mut tx = ops.store().begin().await.unwrap();
    waypost_store::on!(&mut tx, c => sqlx::query(grant).bind(org.as_str()).bind(test.one.server.id.as_str())
        .bind(old.signed_in.end_user_id.as_str()).execute(c).await.unwrap().rows_affected());
    tx.commit().await.unwrap();
    let request = test.create_request(&test.one).await;
    let request_code = CodeRequest { email: "anna@example.com", purpose: CodePurpose::Reset, password: None };
    let issued = test.request_code(&request, request_code).await.unwrap();
    assert!(issued.has_account);
    let entry = CodeEntry { id: issued.id.as_str(), code: &issued.code, new_password: None };
    assert_rejected(
        test.accounts.sign_in_with_code(&cx, &request, entry, CLIENT.address).await,
        "new_password",
        "Enter a new password",
    );
    let weak = CodeEntry { new_password: Some("password1234"), ..entry };
    assert_rejected(
        test.accounts.sign_in_with_code(&cx, &request, weak, CLIENT.address).await,
        "new_password",
        "easy to guess",
    );
    let fine = CodeEntry { new_password: Some(OTHER_PASSWORD), ..entry };
    let new = test.accounts.sign_in_with_code(&cx, &request, fine, CLIENT.address).await.unwrap();
    assert_eq!(new.signed_in, old.signed_in);
    assert_eq!(browser_sessions::find(&cx, ops, org, &old.token).await.unwrap(), None);
    assert!(browser_sessions::find(&cx, ops, org, &new.token).await.unwrap().is_some());
    let revoked = "SELECT revoked_reason FROM oauth_grants WHERE id = 'ogr_1'";
    let mut conn = ops.store().read().await.unwrap();
    let reason: Option<String> =
        waypost_store::on!(&mut conn, c => sqlx::query_scalar(revoked).fetch_one(c).await.unwrap());
    assert_eq!(reason.as_deref(), Some("new_password"));
    drop(conn);
    assert_rejected(
        test.sign_in_with_password("anna@example.com", PASSWORD).await,
        "password",
        "or password is incorrect",
    );
    test.sign_in_with_password("anna@example.com", OTHER_PASSWORD).await.unwrap();
    // Another sign-up with the email of an account is equivalent to a forgotten password.
    assert_eq!(test.sign_up("anna@example.com", PASSWORD).await.signed_in, old.signed_in);
    test.sign_in_with_password("anna@example.com", PASSWORD).await.unwrap();
}

const WRONG_PASSWORD: &str = "wrong password 123";

fn seconds(error: &Error) -> i64 {
    assert_eq!(error.code, Code::RateLimited, "{error}");
    error.details["retry_after_seconds"].as_i64().unwrap()
}

/// Returns the responses to wrong passwords up to and beyond the limit of the client address.
async fn exhaust_client_address(test: &AccountTest, client: SignInClient<'_>, email: &str) -> Vec<String> {
    let mut responses = Vec::new();
    for _ in 0..5 {
        let error = test.sign_in_with_password_from(client, email, WRONG_PASSWORD).await.unwrap_err();
        responses.push(format!("{} {} {:?}", error.code, error.message, error.details));
    }
    responses
}

/// Sets the attempts of each account to the limit of 300. `slots` is a pattern of slots: those of passwords start with
/// `p`.
async fn exhaust_accounts(test: &AccountTest, slots: &str) {
    let mut tx = test.fixture.ops.store().begin().await.unwrap();
    let sql = "UPDATE sign_in_attempts SET attempts = 300 WHERE slot LIKE $1";
    waypost_store::on!(&mut tx, c => sqlx::query(sql).bind(slots).execute(c).await.unwrap().rows_affected());
    tx.commit().await.unwrap();
}

async fn a_client_address_has_three_failures_and_then_three_per_minute(test: AccountTest) {
    test.sign_up("anna@example.com", PASSWORD).await;
    test.sign_in_with_code("coded@example.com").await;
    let responses = exhaust_client_address(&test, at(1), "anna@example.com").await;
    assert!(
        responses[2].contains("or password is incorrect") && responses[3].contains("Too many failed sign-ins"),
        "{responses:#?}"
    );
    assert_eq!(responses, exhaust_client_address(&test, at(2), "nobody@example.com").await);
    assert_eq!(
        responses,
        exhaust_client_address(&test, at(3), "coded@example.com").await,
        "an account without a password"
    );
    assert_eq!(seconds(&test.sign_in_with_password_from(at(1), "anna@example.com", PASSWORD).await.unwrap_err()), 20);
    test.sign_in_with_password_from(at(4), "anna@example.com", PASSWORD).await.expect("the account is not locked");
    test.clock.advance(20_000);
    test.sign_in_with_password_from(at(1), "anna@example.com", PASSWORD).await.unwrap();
    assert_eq!(test.count_events("account.lock").await, 0);
    let attempts = (0..12).map(|_| test.sign_in_with_password("anna@example.com", WRONG_PASSWORD));
    let results = futures::future::join_all(attempts).await;
    let checked = results.iter().filter(|result| result.as_ref().unwrap_err().code == Code::InvalidArguments).count();
    assert_eq!(checked, 3, "concurrent failures count, too");
}

async fn attempts_of_others_do_not_lock_out_known_browsers(test: AccountTest) {
    let anna = test.sign_up("anna@example.com", PASSWORD).await;
    let berta = test.sign_up("berta@example.com", PASSWORD).await;
    let request = test.create_request(&test.one).await;
    let issued = test.request_sign_in_code(&request, "anna@example.com").await;
    exhaust_client_address(&test, CLIENT, "anna@example.com").await;
    test.request_code_from(at(1), "anna@example.com").await.unwrap();
    exhaust_accounts(&test, "%").await;
    for client in [CLIENT, at(5_000), SignInClient { device: &berta.device, ..CLIENT }] {
        seconds(&test.sign_in_with_password_from(client, "anna@example.com", PASSWORD).await.unwrap_err());
        seconds(&test.request_code_from(client, "anna@example.com").await.unwrap_err());
    }
    let known = SignInClient { device: &anna.device, ..CLIENT };
    assert_rejected(
        test.sign_in_with_password_from(known, "anna@example.com", WRONG_PASSWORD).await,
        "password",
        "is incorrect",
    );
    test.sign_in_with_password_from(known, "anna@example.com", PASSWORD).await.unwrap();
    test.request_code_from(known, "anna@example.com").await.unwrap();
    test.enter_code(&request, issued.id.as_str(), &issued.code).await.expect("a correct code is never rejected");
    // A new password invalidates the cookie.
    let request = test.create_request(&test.one).await;
    let request_code = CodeRequest { email: "anna@example.com", purpose: CodePurpose::Reset, password: None };
    let issued =
        test.accounts.create_code(&test.client_context(&test.one), &request, request_code, known).await.unwrap();
    let entry = CodeEntry { id: issued.id.as_str(), code: &issued.code, new_password: Some(OTHER_PASSWORD) };
    let new = test
        .accounts
        .sign_in_with_code(&test.client_context(&test.one), &request, entry, CLIENT.address)
        .await
        .unwrap();
    seconds(&test.sign_in_with_password_from(known, "anna@example.com", OTHER_PASSWORD).await.unwrap_err());
    let known = SignInClient { device: &new.device, ..CLIENT };
    test.sign_in_with_password_from(known, "anna@example.com", OTHER_PASSWORD).await.unwrap();
}

async fn known_and_unknown_emails_cost_the_same(test: AccountTest) {
    test.sign_up("anna@example.com", PASSWORD).await;
    test.sign_in_with_code("coded@example.com").await;
    let mut costs = Vec::new();
    for (n, email) in [(1_000, "anna@example.com"), (2_000, "coded@example.com"), (3_000, "nobody@example.com")] {
        test.clock.advance(MINUTE);
        let hashed = test.fixture.ops.hashed_passwords();
        let mut cost = vec![count_statements(test.sign_in_with_password_from(at(n), email, WRONG_PASSWORD)).await.1];
        let request = test.create_request(&test.one).await;
        for purpose in [CodePurpose::SignIn, CodePurpose::Reset, CodePurpose::SignUp] {
            let password = (purpose == CodePurpose::SignUp).then_some(PASSWORD);
            let (issued, statements) =
                count_statements(test.request_code(&request, CodeRequest { email, purpose, password })).await;
            let issued = issued.unwrap();
            let wrong = if issued.code == "00000000" { "00000001" } else { "00000000" };
            let entry = CodeEntry { id: issued.id.as_str(), code: wrong, new_password: Some(OTHER_PASSWORD) };
            let cx = test.client_context(&test.one);
            let enter = test.accounts.sign_in_with_code(&cx, &request, entry, CLIENT.address);
            cost.extend([statements, count_statements(enter).await.1]);
        }
        exhaust_accounts(&test, "p%").await;
        let (limited, statements) =
            count_statements(test.sign_in_with_password_from(at(n + 500), email, WRONG_PASSWORD)).await;
        seconds(&limited.unwrap_err());
        cost.push(statements);
        costs.push((cost, test.fixture.ops.hashed_passwords() - hashed));
    }
    assert_eq!(costs[0], costs[1]);
    assert_eq!(costs[0], costs[2]);
    exhaust_client_address(&test, CLIENT, "anna@example.com").await;
    let rejected = count_statements(test.sign_in_with_password("anna@example.com", WRONG_PASSWORD)).await;
    assert_eq!((seconds(&rejected.0.unwrap_err()), rejected.1), (20, 0));
}

async fn concurrent_first_codes_create_one_account(test: AccountTest) {
    let (one, two) = (test.create_request(&test.one).await, test.create_request(&test.one).await);
    let (a, b) = (
        test.request_sign_in_code(&one, "anna@example.com").await,
        test.request_sign_in_code(&two, "anna@example.com").await,
    );
    let (a, b) =
        tokio::join!(test.enter_code(&one, a.id.as_str(), &a.code), test.enter_code(&two, b.id.as_str(), &b.code));
    assert_eq!(a.unwrap().signed_in, b.unwrap().signed_in);
    assert_eq!(test.count_events("account.create").await, 1);
}

async fn codes_are_stored_as_keyed_hashes(test: AccountTest) {
    let request = test.create_request(&test.one).await;
    let issued = test.request_sign_in_code(&request, "anna@example.com").await;
    assert!(!format!("{issued:?}").contains(&issued.code));
    let mut conn = test.fixture.ops.store().read().await.unwrap();
    let sql = "SELECT code_hash FROM email_codes";
    let stored: String = waypost_store::on!(&mut conn, c => sqlx::query_scalar(sql).fetch_one(c).await.unwrap());
    assert!(stored.len() == 64 && stored != waypost_core::secret::hash(&issued.code), "{stored}");
}

waypost_testkit::both!(set_up_accounts =>
    a_code_works_once_in_its_own_request,
    attempts_of_others_do_not_lock_out_known_browsers,
    concurrent_first_codes_create_one_account,
);
waypost_testkit::both!(extended set_up_accounts =>
    a_code_creates_the_account_and_signs_in_again,
    a_code_has_five_attempts_and_ten_minutes,
    a_password_is_set_when_the_code_verifies_the_email,
    a_new_password_ends_sessions_and_grants,
    a_client_address_has_three_failures_and_then_three_per_minute,
    known_and_unknown_emails_cost_the_same,
    codes_are_stored_as_keyed_hashes,
);
