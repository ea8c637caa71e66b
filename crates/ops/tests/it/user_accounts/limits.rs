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

use super::{DEVICE, FINE, MINUTE, OTHER, Users, assert_rejected, at, open};

const WRONG: &str = "wrong password 123";
const DAY: i64 = 24 * 60 * MINUTE;

fn seconds(error: &Error) -> i64 {
    assert_eq!(error.code, Code::RateLimited, "{error}");
    error.details["retry_after_seconds"].as_i64().unwrap()
}

/// Returns the browser of a session at the client address of the attacker.
fn known(session: &NewUserSession) -> Browser<'_> {
    Browser { device: &session.device, ..DEVICE }
}

/// Sets the number of attempts of this day for each account with attempts.
async fn exhaust_accounts(users: &Users, attempts: i64) {
    let mut tx = users.stage.ops.db().begin().await.unwrap();
    let sql = "UPDATE sign_in_attempts SET attempts = $1";
    waypost_store::on!(&mut tx, c => sqlx::query(sql).bind(attempts).execute(c).await.unwrap().rows_affected());
    tx.commit().await.unwrap();
}

/// Returns the responses to wrong passwords up to and beyond the limit of the client address.
async fn exhaust_client_address(users: &Users, browser: Browser<'_>, email: &str) -> Vec<String> {
    let mut responses = Vec::new();
    for _ in 0..5 {
        let error = users.by_password_from(browser, email, WRONG).await.unwrap_err();
        responses.push(format!("{} {} {:?}", error.code, error.message, error.details));
    }
    responses
}

async fn a_client_address_has_three_failures_and_then_three_per_minute(users: Users) {
    users.member("anna@example.com", Role::Owner, FINE).await;
    users.create_member("new@example.com", Role::Member).await;
    let responses = exhaust_client_address(&users, at(1), "anna@example.com").await;
    assert!(
        responses[2].contains("or the password is wrong") && responses[3].contains("Too many failed sign-ins"),
        "{responses:#?}"
    );
    assert_eq!(responses, exhaust_client_address(&users, at(2), "nobody@example.com").await);
    assert_eq!(
        responses,
        exhaust_client_address(&users, at(3), "new@example.com").await,
        "a user who has never signed in"
    );
    // Another email does not help, but another client address does: the account is not locked.
    assert_eq!(seconds(&users.by_password_from(at(1), "other@example.com", WRONG).await.unwrap_err()), 20);
    assert_eq!(seconds(&users.by_password_from(at(1), "anna@example.com", FINE).await.unwrap_err()), 20);
    users.by_password_from(at(4), "anna@example.com", FINE).await.unwrap();
    users.clock.advance(20_000);
    assert_rejected(users.by_password_from(at(1), "anna@example.com", WRONG).await, "password", "is wrong");
    assert_eq!(seconds(&users.by_password_from(at(1), "anna@example.com", FINE).await.unwrap_err()), 20);
    users.clock.advance(20_000);
    // Successful attempts are not counted.
    for _ in 0..5 {
        users.by_password_from(at(1), " ANNA@Example.com", FINE).await.unwrap();
    }
    assert_eq!(users.count_events("user.lock").await, 0);
}

async fn concurrent_failures_are_counted(users: Users) {
    users.member("anna@example.com", Role::Owner, FINE).await;
    let attempts = (0..12).map(|_| users.by_password("anna@example.com", WRONG));
    let results = futures::future::join_all(attempts).await;
    let checked = results.iter().filter(|it| it.as_ref().unwrap_err().code == Code::InvalidArguments).count();
    assert_eq!(checked, 3);
}

async fn codes_are_limited_by_client_address_and_account(users: Users) {
    users.create_member("anna@example.com", Role::Owner).await;
    for (n, email) in [(1, "anna@example.com"), (2, "nobody@example.com")] {
        for _ in 0..3 {
            users.ask_from(at(n), email).await.unwrap();
        }
        let error = assert_rejected(users.ask_from(at(n), &email.to_uppercase()).await, "email", "Too many codes");
        assert_eq!(seconds(&error), 20);
        users.ask_from(at(n), "third@example.com").await.unwrap();
        users.ask_from(at(3), email).await.unwrap();
    }
    users.clock.advance(20_000);
    users.ask_from(at(1), "anna@example.com").await.unwrap();
    assert_rejected(users.ask("anna", CodePurpose::SignIn, None).await, "email", "");
}

async fn a_correct_code_is_never_rejected(users: Users) {
    let users = users.with(SignUpPolicy::Open);
    users.member("anna@example.com", Role::Owner, FINE).await;
    let sign_in = users.ask("anna@example.com", CodePurpose::SignIn, None).await.unwrap();
    let reset = users.ask("anna@example.com", CodePurpose::Reset, None).await.unwrap();
    // The limits of the account and of this client address are reached.
    exhaust_client_address(&users, DEVICE, "anna@example.com").await;
    exhaust_accounts(&users, 300).await;
    seconds(&users.by_password("anna@example.com", FINE).await.unwrap_err());
    seconds(&users.by_password_from(at(1_000), "anna@example.com", FINE).await.unwrap_err());
    assert_rejected(users.enter("uco_000000000000000000000000", "12345678").await, "code", "no longer valid");
    let hashed = users.stage.ops.hashed_passwords();
    let wrong = if reset.code == "00000000" { "00000001" } else { "00000000" };
    assert_rejected(users.enter(reset.id.as_str(), wrong).await, "code", "4 more attempts");
    assert_eq!(users.stage.ops.hashed_passwords(), hashed, "no password is hashed for a wrong code");
    users.enter(sign_in.id.as_str(), &sign_in.code).await.unwrap();
    users.enter(reset.id.as_str(), &reset.code).await.unwrap();
}

async fn a_browser_that_has_signed_in_before_is_never_rejected(users: Users) {
    let anna = users.member("anna@example.com", Role::Owner, FINE).await;
    let berta = users.member("berta@example.com", Role::Member, FINE).await;
    exhaust_client_address(&users, DEVICE, "anna@example.com").await;
    users.ask_from(at(1), "anna@example.com").await.unwrap();
    exhaust_accounts(&users, 300).await;
    for browser in [DEVICE, at(5_000)] {
        seconds(&users.by_password_from(browser, "anna@example.com", FINE).await.unwrap_err());
        seconds(&users.ask_from(browser, "anna@example.com").await.unwrap_err());
    }
    assert_rejected(users.by_password_from(known(&anna), "anna@example.com", WRONG).await, "password", "is wrong");
    let again = users.by_password_from(known(&anna), "anna@example.com", FINE).await.unwrap();
    users.ask_from(known(&anna), "anna@example.com").await.unwrap();
    assert!(users.accounts.is_known_browser(&users.cx(), " ANNA@example.com", &anna.device));
    // The cookie is bound to its account and to this installation.
    seconds(&users.by_password_from(known(&berta), "anna@example.com", FINE).await.unwrap_err());
    let other = UserAccounts::new(users.stage.ops.clone(), SecretKey::new([8; 32]), SignUpPolicy::Invite);
    assert!(!other.is_known_browser(&users.cx(), "anna@example.com", &anna.device));
    // The browser has its own limit, so the cookie does not help to guess a password: 30 attempts, then one every 48
    // minutes.
    for _ in 0..28 {
        assert_rejected(users.by_password_from(known(&anna), "anna@example.com", WRONG).await, "password", "is wrong");
    }
    users.by_password_from(known(&anna), "anna@example.com", FINE).await.unwrap();
    assert_rejected(users.by_password_from(known(&anna), "anna@example.com", WRONG).await, "password", "is wrong");
    seconds(&users.by_password_from(known(&anna), "anna@example.com", FINE).await.unwrap_err());
    users.by_password_from(known(&again), "anna@example.com", FINE).await.expect("each browser has its own limit");
    // A new password invalidates the cookie, except in the browser in which it was set.
    let cx = users.as_user(&again.user.id);
    let keep = user_sessions::find(&cx, &users.stage.ops, &again.token).await.unwrap().unwrap().id;
    let changed = users.accounts.change_password(&cx, (FINE, OTHER), &keep, known(&again)).await.unwrap();
    assert!(!format!("{changed:?}").contains(&changed.device));
    seconds(&users.by_password_from(known(&again), "anna@example.com", OTHER).await.unwrap_err());
    let own = Browser { device: &changed.device, ..DEVICE };
    users.by_password_from(own, "anna@example.com", OTHER).await.unwrap();
    users.clock.advance(90 * DAY);
    assert!(!users.accounts.is_known_browser(&users.cx(), "anna@example.com", &changed.device), "it expires");
}

/// The limit by account is stored in the database: it applies to all replicas, whether or not the account exists.
async fn an_account_is_limited_across_replicas(users: Users) {
    users.member("anna@example.com", Role::Owner, FINE).await;
    let replica = || {
        let ops = Ops::new(users.stage.ops.db().clone());
        UserAccounts::new(ops, SecretKey::new([7; 32]), SignUpPolicy::Invite)
    };
    let replicas = [replica(), replica()];
    for email in ["anna@example.com", "nobody@example.com"] {
        let mut counts = [0, 0];
        let typed = waypost_ops::user_accounts::UserPasswordSignIn { email, password: WRONG, organization: "" };
        replicas[0].sign_in_with_password(&users.cx(), typed, at(500)).await.unwrap_err();
        exhaust_accounts(&users, 294).await;
        for n in 0..10 {
            let accounts = &replicas[n as usize % 2];
            let error = accounts.sign_in_with_password(&users.cx(), typed, at(n)).await.unwrap_err();
            counts[usize::from(error.code == Code::RateLimited)] += 1;
        }
        assert_eq!(counts, [6, 4], "{email}: 300 were checked");
    }
    // One client address alone cannot reach the limit.
    users.clock.advance(DAY + 1);
    let mut checked = 0;
    for _ in 0..100 {
        users.clock.advance(MINUTE);
        let error = users.by_password("anna@example.com", WRONG).await.unwrap_err();
        checked += usize::from(error.code == Code::InvalidArguments);
    }
    assert!((30..=33).contains(&checked), "30, and then one every 48 minutes: {checked}");
    users.by_password_from(at(1), "anna@example.com", FINE).await.unwrap();
}

/// Known and unknown emails cost the same statements and hashes, regardless of their accounts and organisations.
async fn known_and_unknown_emails_cost_the_same(users: Users) {
    let users = users.with(SignUpPolicy::Open);
    users.member("anna@example.com", Role::Owner, FINE).await;
    for slug in ["b", "c", "d"] {
        let other =
            organizations::create(&users.operator(), &users.stage.ops, &format!("{slug}-org"), None).await.unwrap();
        users::create(&users.operator(), &users.stage.ops, &other.id, "anna@example.com", Role::Member).await.unwrap();
    }
    users.create_member("new@example.com", Role::Member).await;
    let mut n = 0;
    let mut costs = Vec::new();
    for email in ["anna@example.com", "new@example.com", "nobody@example.com"] {
        let mut cost = Vec::new();
        n += 1_000;
        let hashed = users.stage.ops.hashed_passwords();
        cost.push(count_statements(users.by_password_from(at(n), email, WRONG)).await.1);
        for purpose in [CodePurpose::SignIn, CodePurpose::Reset, CodePurpose::SignUp] {
            let password = (purpose == CodePurpose::SignUp).then_some(FINE);
            let asked = UserCodeRequest { email, purpose, password, cookie: "browser" };
            n += 1;
            let (made, statements) = count_statements(users.accounts.create_code(&users.cx(), asked, at(n))).await;
            let made = made.unwrap();
            let wrong = if made.code == "00000000" { "00000001" } else { "00000000" };
            let entered =
                UserCodeEntry { id: made.id.as_str(), code: wrong, cookie: "browser", name: "X", new_password: OTHER };
            let cx = users.cx();
            let enter = users.accounts.sign_in_with_code(&cx, entered, at(n));
            cost.extend([statements, count_statements(enter).await.1]);
        }
        exhaust_accounts(&users, 300).await;
        let limited = users.by_password_from(at(n + 500), email, WRONG);
        let (limited, statements) = count_statements(limited).await;
        seconds(&limited.unwrap_err());
        cost.push(statements);
        costs.push((cost, users.stage.ops.hashed_passwords() - hashed));
    }
    assert_eq!(costs[0], costs[1]);
    assert_eq!(costs[0], costs[2]);
    // An attempt beyond the limit of the client address costs nothing.
    exhaust_client_address(&users, DEVICE, "anna@example.com").await;
    let rejected = count_statements(users.by_password("anna@example.com", WRONG)).await;
    assert_eq!((seconds(&rejected.0.unwrap_err()), rejected.1), (20, 0));
}

/// Regression: 590 forms from one client address delayed everyone by 9 seconds.
async fn a_flood_of_passwords_costs_three_hashes(users: Users) {
    users.member("anna@example.com", Role::Owner, FINE).await;
    let before = users.stage.ops.hashed_passwords();
    let emails: Vec<_> = (0..590).map(|n| format!("{n}@example.com")).collect();
    let flood = futures::future::join_all(emails.iter().map(|email| users.by_password(email, WRONG)));
    let (flood, other) = tokio::join!(flood, users.by_password_from(at(1), "anna@example.com", FINE));
    other.unwrap();
    let rejected = flood.iter().filter(|it| it.as_ref().unwrap_err().code == Code::RateLimited).count();
    assert_eq!((rejected, users.stage.ops.hashed_passwords() - before), (587, 4));
}

/// Sign-ups cannot fail and are not counted, so the queue is bounded per client address.
async fn a_flood_of_sign_ups_is_shed(users: Users) {
    let users = users.with(SignUpPolicy::Open);
    let before = users.stage.ops.hashed_passwords();
    let emails: Vec<_> = (0..200).map(|n| format!("{n}@example.com")).collect();
    let ask = |email| users.ask(email, CodePurpose::SignUp, Some(FINE));
    let flood = futures::future::join_all(emails.iter().map(|email| ask(email))).await;
    let shed: Vec<_> = flood.iter().filter_map(|it| it.as_ref().err()).collect();
    assert!(shed.iter().all(|error| seconds(error) == 2), "{shed:?}");
    let hashed = users.stage.ops.hashed_passwords() - before;
    assert_eq!(u64::try_from(shed.len()).unwrap() + hashed, 200);
    assert!(hashed >= 10, "two running and eight waiting: {hashed}");
    assert!(!shed.is_empty());
}

waypost_testkit::both!(
    open => a_client_address_has_three_failures_and_then_three_per_minute, concurrent_failures_are_counted,
    codes_are_limited_by_client_address_and_account, a_correct_code_is_never_rejected,
    a_browser_that_has_signed_in_before_is_never_rejected, an_account_is_limited_across_replicas,
    known_and_unknown_emails_cost_the_same, a_flood_of_passwords_costs_three_hashes, a_flood_of_sign_ups_is_shed
);
