//! Tests of the limits of sign-in attempts: strict per client address, loose per account, and separate for browsers
//! that have signed in before.

use waypost_core::account::CodePurpose;
use waypost_core::organization::{Role, SignUpPolicy};
use waypost_core::secret::SecretKey;
use waypost_core::{Code, Error};
use waypost_ops::user_accounts::{NewUserSession, UserAccounts, UserCodeEntry, UserCodeRequest};
use waypost_ops::user_sessions::{self, Browser};
use waypost_ops::{Ops, organizations, users};
use waypost_store::db::count_statements;

use super::{DEVICE, MINUTE, OTHER_PASSWORD, PASSWORD, UserTest, assert_rejected, at, set_up};

const WRONG_PASSWORD: &str = "wrong password 123";
const DAY: i64 = 24 * 60 * MINUTE;

fn seconds(error: &Error) -> i64 {
    assert_eq!(error.code, Code::RateLimited, "{error}");
    error.details["retry_after_seconds"].as_i64().unwrap()
}

/// Returns the browser of a session at the client address of the attacker.
fn known(session: &NewUserSession) -> Browser<'_> {
    Browser { device: &session.device, ..DEVICE }
}

/// Sets the number of attempts for each account with attempts.
async fn exhaust_accounts(test: &UserTest, attempts: i64) {
    let mut tx = test.fixture.ops.store().begin().await.unwrap();
    let sql = "UPDATE sign_in_attempts SET attempts = $1";
    waypost_store::on!(&mut tx, c => sqlx::query(sql).bind(attempts).execute(c).await.unwrap().rows_affected());
    tx.commit().await.unwrap();
}

/// Returns the responses to wrong passwords up to and beyond the limit of the client address.
async fn exhaust_client_address(test: &UserTest, browser: Browser<'_>, email: &str) -> Vec<String> {
    let mut responses = Vec::new();
    for _ in 0..5 {
        let error = test.sign_in_with_password_from(browser, email, WRONG_PASSWORD).await.unwrap_err();
        responses.push(format!("{} {} {:?}", error.code, error.message, error.details));
    }
    responses
}

async fn a_client_address_has_three_failures_and_then_three_per_minute(test: UserTest) {
    test.create_verified_member("anna@example.com", Role::Owner, PASSWORD).await;
    test.create_member("new@example.com", Role::Member).await;
    let responses = exhaust_client_address(&test, at(1), "anna@example.com").await;
    assert!(
        responses[2].contains("or password is incorrect") && responses[3].contains("Too many failed sign-ins"),
        "{responses:#?}"
    );
    assert_eq!(responses, exhaust_client_address(&test, at(2), "nobody@example.com").await);
    assert_eq!(
        responses,
        exhaust_client_address(&test, at(3), "new@example.com").await,
        "a user who has never signed in"
    );
    // Another email does not help, but another client address does: the account is not locked.
    assert_eq!(
        seconds(&test.sign_in_with_password_from(at(1), "other@example.com", WRONG_PASSWORD).await.unwrap_err()),
        20
    );
    assert_eq!(seconds(&test.sign_in_with_password_from(at(1), "anna@example.com", PASSWORD).await.unwrap_err()), 20);
    test.sign_in_with_password_from(at(4), "anna@example.com", PASSWORD).await.unwrap();
    test.clock.advance(20_000);
    assert_rejected(
        test.sign_in_with_password_from(at(1), "anna@example.com", WRONG_PASSWORD).await,
        "password",
        "is incorrect",
    );
    assert_eq!(seconds(&test.sign_in_with_password_from(at(1), "anna@example.com", PASSWORD).await.unwrap_err()), 20);
    test.clock.advance(20_000);
    // Successful attempts are not counted.
    for _ in 0..5 {
        test.sign_in_with_password_from(at(1), " ANNA@Example.com", PASSWORD).await.unwrap();
    }
    assert_eq!(test.count_events("user.lock").await, 0);
}

async fn concurrent_failures_are_counted(test: UserTest) {
    test.create_verified_member("anna@example.com", Role::Owner, PASSWORD).await;
    let attempts = (0..12).map(|_| test.sign_in_with_password("anna@example.com", WRONG_PASSWORD));
    let results = futures::future::join_all(attempts).await;
    let checked = results.iter().filter(|result| result.as_ref().unwrap_err().code == Code::InvalidArguments).count();
    assert_eq!(checked, 3);
}

async fn codes_are_limited_by_client_address_and_account(test: UserTest) {
    test.create_member("anna@example.com", Role::Owner).await;
    for (n, email) in [(1, "anna@example.com"), (2, "nobody@example.com")] {
        for _ in 0..3 {
            test.request_code_from(at(n), email).await.unwrap();
        }
        let error =
            assert_rejected(test.request_code_from(at(n), &email.to_uppercase()).await, "email", "Too many codes");
        assert_eq!(seconds(&error), 20);
        test.request_code_from(at(n), "third@example.com").await.unwrap();
        test.request_code_from(at(3), email).await.unwrap();
    }
    test.clock.advance(20_000);
    test.request_code_from(at(1), "anna@example.com").await.unwrap();
    assert_rejected(test.request_code("anna", CodePurpose::SignIn, None).await, "email", "");
}

async fn a_correct_code_is_never_rejected(test: UserTest) {
    let test = test.with_policy(SignUpPolicy::Open);
    test.create_verified_member("anna@example.com", Role::Owner, PASSWORD).await;
    let sign_in = test.request_code("anna@example.com", CodePurpose::SignIn, None).await.unwrap();
    let reset = test.request_code("anna@example.com", CodePurpose::Reset, None).await.unwrap();
    // The limits of the account and of this client address are reached.
    exhaust_client_address(&test, DEVICE, "anna@example.com").await;
    exhaust_accounts(&test, 300).await;
    seconds(&test.sign_in_with_password("anna@example.com", PASSWORD).await.unwrap_err());
    seconds(&test.sign_in_with_password_from(at(1_000), "anna@example.com", PASSWORD).await.unwrap_err());
    assert_rejected(test.enter_code("uco_000000000000000000000000", "12345678").await, "code", "no longer valid");
    let hashed = test.fixture.ops.hashed_passwords();
    let wrong = if reset.code == "00000000" { "00000001" } else { "00000000" };
    assert_rejected(test.enter_code(reset.id.as_str(), wrong).await, "code", "4 more attempts");
    assert_eq!(test.fixture.ops.hashed_passwords(), hashed, "no password is hashed for a wrong code");
    test.enter_code(sign_in.id.as_str(), &sign_in.code).await.unwrap();
    test.enter_code(reset.id.as_str(), &reset.code).await.unwrap();
}

async fn a_browser_that_has_signed_in_before_is_never_rejected(test: UserTest) {
    let anna = test.create_verified_member("anna@example.com", Role::Owner, PASSWORD).await;
    let berta = test.create_verified_member("berta@example.com", Role::Member, PASSWORD).await;
    exhaust_client_address(&test, DEVICE, "anna@example.com").await;
    test.request_code_from(at(1), "anna@example.com").await.unwrap();
    exhaust_accounts(&test, 300).await;
    for browser in [DEVICE, at(5_000)] {
        seconds(&test.sign_in_with_password_from(browser, "anna@example.com", PASSWORD).await.unwrap_err());
        seconds(&test.request_code_from(browser, "anna@example.com").await.unwrap_err());
    }
    assert_rejected(
        test.sign_in_with_password_from(known(&anna), "anna@example.com", WRONG_PASSWORD).await,
        "password",
        "is incorrect",
    );
    let again = test.sign_in_with_password_from(known(&anna), "anna@example.com", PASSWORD).await.unwrap();
    test.request_code_from(known(&anna), "anna@example.com").await.unwrap();
    assert!(test.accounts.is_known_browser(&test.visitor_context(), " ANNA@example.com", &anna.device));
    // The cookie is bound to its account and to this installation.
    seconds(&test.sign_in_with_password_from(known(&berta), "anna@example.com", PASSWORD).await.unwrap_err());
    let other = UserAccounts::new(test.fixture.ops.clone(), SecretKey::new([8; 32]), SignUpPolicy::Invite);
    assert!(!other.is_known_browser(&test.visitor_context(), "anna@example.com", &anna.device));
    // The browser has its own limit, so the cookie does not help to guess a password: 30 attempts, then one every 48
    // minutes.
    for _ in 0..28 {
        assert_rejected(
            test.sign_in_with_password_from(known(&anna), "anna@example.com", WRONG_PASSWORD).await,
            "password",
            "is incorrect",
        );
    }
    test.sign_in_with_password_from(known(&anna), "anna@example.com", PASSWORD).await.unwrap();
    assert_rejected(
        test.sign_in_with_password_from(known(&anna), "anna@example.com", WRONG_PASSWORD).await,
        "password",
        "is incorrect",
    );
    seconds(&test.sign_in_with_password_from(known(&anna), "anna@example.com", PASSWORD).await.unwrap_err());
    test.sign_in_with_password_from(known(&again), "anna@example.com", PASSWORD)
        .await
        .expect("each browser has its own limit");
    // A new password invalidates the cookie, except in the browser in which it was set.
    let cx = test.user_context(&again.user.id);
    let keep = user_sessions::find(&cx, &test.fixture.ops, &again.token).await.unwrap().unwrap().id;
    let changed = test.accounts.change_password(&cx, PASSWORD, OTHER_PASSWORD, &keep, known(&again)).await.unwrap();
    assert!(!format!("{changed:?}").contains(&changed.device));
    seconds(&test.sign_in_with_password_from(known(&again), "anna@example.com", OTHER_PASSWORD).await.unwrap_err());
    let own = Browser { device: &changed.device, ..DEVICE };
    test.sign_in_with_password_from(own, "anna@example.com", OTHER_PASSWORD).await.unwrap();
    test.clock.advance(90 * DAY);
    assert!(
        !test.accounts.is_known_browser(&test.visitor_context(), "anna@example.com", &changed.device),
        "the cookie expires"
    );
}

/// The limit by account is stored in the database: it applies to all replicas, whether or not the account exists.
async fn an_account_is_limited_across_replicas(test: UserTest) {
    test.create_verified_member("anna@example.com", Role::Owner, PASSWORD).await;
    let replica = || {
        let ops = Ops::new(test.fixture.ops.store().clone());
        UserAccounts::new(ops, SecretKey::new([7; 32]), SignUpPolicy::Invite)
    };
    let replicas = [replica(), replica()];
    for email in ["anna@example.com", "nobody@example.com"] {
        let mut counts = [0, 0];
        let credentials =
            waypost_ops::user_accounts::UserPasswordSignIn { email, password: WRONG_PASSWORD, organization: "" };
        replicas[0].sign_in_with_password(&test.visitor_context(), credentials, at(500)).await.unwrap_err();
        exhaust_accounts(&test, 294).await;
        for n in 0..10 {
            let accounts = &replicas[n as usize % 2];
            let error = accounts.sign_in_with_password(&test.visitor_context(), credentials, at(n)).await.unwrap_err();
            counts[usize::from(error.code == Code::RateLimited)] += 1;
        }
        assert_eq!(counts, [6, 4], "{email}: 300 were checked");
    }
    // One client address alone cannot reach the limit.
    test.clock.advance(DAY + 1);
    let mut checked = 0;
    for _ in 0..100 {
        test.clock.advance(MINUTE);
        let error = test.sign_in_with_password("anna@example.com", WRONG_PASSWORD).await.unwrap_err();
        checked += usize::from(error.code == Code::InvalidArguments);
    }
    assert!((30..=33).contains(&checked), "30, and then one every 48 minutes: {checked}");
    test.sign_in_with_password_from(at(1), "anna@example.com", PASSWORD).await.unwrap();
}

/// Known and unknown emails cost the same statements and hashes, regardless of their accounts and organisations.
async fn known_and_unknown_emails_cost_the_same(test: UserTest) {
    let test = test.with_policy(SignUpPolicy::Open);
    test.create_verified_member("anna@example.com", Role::Owner, PASSWORD).await;
    for slug in ["b", "c", "d"] {
        let other = organizations::create(&test.operator_context(), &test.fixture.ops, &format!("{slug}-org"), None)
            .await
            .unwrap();
        users::create(&test.operator_context(), &test.fixture.ops, &other.id, "anna@example.com", Role::Member)
            .await
            .unwrap();
    }
    test.create_member("new@example.com", Role::Member).await;
    let mut n = 0;
    let mut costs = Vec::new();
    for email in ["anna@example.com", "new@example.com", "nobody@example.com"] {
        let mut cost = Vec::new();
        n += 1_000;
        let hashed = test.fixture.ops.hashed_passwords();
        cost.push(count_statements(test.sign_in_with_password_from(at(n), email, WRONG_PASSWORD)).await.1);
        for purpose in [CodePurpose::SignIn, CodePurpose::Reset, CodePurpose::SignUp] {
            let password = (purpose == CodePurpose::SignUp).then_some(PASSWORD);
            let request = UserCodeRequest { email, purpose, password, cookie: "browser" };
            n += 1;
            let (issued, statements) =
                count_statements(test.accounts.create_code(&test.visitor_context(), request, at(n))).await;
            let issued = issued.unwrap();
            let wrong = if issued.code == "00000000" { "00000001" } else { "00000000" };
            let entry = UserCodeEntry {
                id: issued.id.as_str(),
                code: wrong,
                cookie: "browser",
                name: "X",
                new_password: OTHER_PASSWORD,
            };
            let cx = test.visitor_context();
            let enter = test.accounts.sign_in_with_code(&cx, entry, at(n));
            cost.extend([statements, count_statements(enter).await.1]);
        }
        exhaust_accounts(&test, 300).await;
        let limited = test.sign_in_with_password_from(at(n + 500), email, WRONG_PASSWORD);
        let (limited, statements) = count_statements(limited).await;
        seconds(&limited.unwrap_err());
        cost.push(statements);
        costs.push((cost, test.fixture.ops.hashed_passwords() - hashed));
    }
    assert_eq!(costs[0], costs[1]);
    assert_eq!(costs[0], costs[2]);
    // An attempt beyond the limit of the client address costs nothing.
    exhaust_client_address(&test, DEVICE, "anna@example.com").await;
    let rejected = count_statements(test.sign_in_with_password("anna@example.com", WRONG_PASSWORD)).await;
    assert_eq!((seconds(&rejected.0.unwrap_err()), rejected.1), (20, 0));
}

/// Regression: 590 forms from one client address delayed everyone by 9 seconds.
async fn a_flood_of_passwords_costs_three_hashes(test: UserTest) {
    test.create_verified_member("anna@example.com", Role::Owner, PASSWORD).await;
    let before = test.fixture.ops.hashed_passwords();
    let emails: Vec<_> = (0..590).map(|n| format!("{n}@example.com")).collect();
    let flood = futures::future::join_all(emails.iter().map(|email| test.sign_in_with_password(email, WRONG_PASSWORD)));
    let (flood, other) = tokio::join!(flood, test.sign_in_with_password_from(at(1), "anna@example.com", PASSWORD));
    other.unwrap();
    let rejected = flood.iter().filter(|result| result.as_ref().unwrap_err().code == Code::RateLimited).count();
    assert_eq!((rejected, test.fixture.ops.hashed_passwords() - before), (587, 4));
}

/// Sign-ups cannot fail and are not counted, so the queue is bounded per client address.
async fn a_flood_of_sign_ups_is_shed(test: UserTest) {
    let test = test.with_policy(SignUpPolicy::Open);
    let before = test.fixture.ops.hashed_passwords();
    let emails: Vec<_> = (0..200).map(|n| format!("{n}@example.com")).collect();
    let ask = |email| test.request_code(email, CodePurpose::SignUp, Some(PASSWORD));
    let flood = futures::future::join_all(emails.iter().map(|email| ask(email))).await;
    let shed: Vec<_> = flood.iter().filter_map(|result| result.as_ref().err()).collect();
    assert!(shed.iter().all(|error| seconds(error) == 2), "{shed:?}");
    let hashed = test.fixture.ops.hashed_passwords() - before;
    assert_eq!(u64::try_from(shed.len()).unwrap() + hashed, 200);
    assert!(hashed >= 10, "two running and eight waiting: {hashed}");
    assert!(!shed.is_empty());
}

waypost_testkit::both!(set_up => concurrent_failures_are_counted);
waypost_testkit::both!(extended set_up =>
    a_client_address_has_three_failures_and_then_three_per_minute,
    codes_are_limited_by_client_address_and_account,
    a_correct_code_is_never_rejected,
    a_browser_that_has_signed_in_before_is_never_rejected,
    an_account_is_limited_across_replicas,
    known_and_unknown_emails_cost_the_same,
    a_flood_of_passwords_costs_three_hashes,
    a_flood_of_sign_ups_is_shed,
);
