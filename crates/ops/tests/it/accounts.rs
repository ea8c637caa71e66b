//! Signing in with Waypost's own accounts.

use waypost_core::account::CodePurpose;
use waypost_core::{Code, Error, Result};
use waypost_ops::accounts::{ClientInfo, CodeEntry, CodeRequest, NewSession, PasswordSignIn, PendingCode};
use waypost_ops::browser_sessions;
use waypost_store::db::count_statements;

use crate::people::{CLIENT, MINUTE, People, at, people};

const FINE: &str = "quartz-banjo-umbrella-42";
const OTHER: &str = "walnut.tractor.opera.19";

#[track_caller]
fn refused(result: Result<NewSession>, field: &str, words: &str) {
    let error = result.unwrap_err();
    assert_eq!(error.details["field"], field, "{error}");
    assert!(error.message.contains(words), "{error}");
}

async fn a_code_makes_the_account_and_signs_in_again(people: People) {
    let first = people.by_code("Anna@Example.com").await;
    let again = people.by_code(" anna@example.COM ").await;
    assert_eq!(again.signed_in, first.signed_in);
    assert_ne!(again.token, first.token);
    let (cx, org) = (people.cx(&people.one), &people.one.organization.id);
    let session = browser_sessions::find(&cx, &people.stage.ops, org, &first.token).await.unwrap().unwrap();
    assert_eq!(session.email.as_deref(), Some("Anna@Example.com"));
    assert_eq!(people.told("account.create").await, 1);
    assert_eq!(people.told("end_user.sign_in").await, 2);
    assert_ne!(people.by_code("berta@example.com").await.signed_in.end_user_id, first.signed_in.end_user_id);
    for event in people.log(org).await {
        let text = format!("{event:?}");
        assert!(!text.contains(&first.token), "{text}");
    }
}

async fn a_code_works_once_in_its_own_request(people: People) {
    let (request, other) = (people.request(&people.one).await, people.request(&people.one).await);
    let foreign = people.request(&people.two).await;
    let made = people.code(&request, "anna@example.com").await;
    let id = made.id.as_str();
    refused(people.enter(&other, id, &made.code).await, "code", "cannot be used any more");
    let entered = CodeEntry { id, code: &made.code, new_password: None };
    refused(
        people.accounts.sign_in_with_code(&people.cx(&people.two), &foreign, entered, CLIENT.address).await,
        "code",
        "any more",
    );
    refused(people.enter(&request, "ecd_000000000000000000000000", &made.code).await, "code", "any more");
    refused(people.enter(&request, id, "1234567").await, "code", "8 digits");
    let spaced = format!(" {} {} ", &made.code[..4], &made.code[4..]);
    people.enter(&request, id, &spaced).await.unwrap();
    refused(people.enter(&request, id, &made.code).await, "code", "any more");
    let two = people.code(&request, "anna@example.com").await;
    let (a, b) = tokio::join!(
        people.enter(&request, two.id.as_str(), &two.code),
        people.enter(&request, two.id.as_str(), &two.code)
    );
    assert_eq!(usize::from(a.is_ok()) + usize::from(b.is_ok()), 1, "{a:?} {b:?}");
}

async fn a_code_has_five_tries_and_ten_minutes(people: People) {
    let request = people.request(&people.one).await;
    let made = people.code(&request, "anna@example.com").await;
    let wrong = if made.code == "00000000" { "00000001" } else { "00000000" };
    for words in ["4 more tries", "3 more tries", "2 more tries", "one more try", "the last try", "any more"] {
        refused(people.enter(&request, made.id.as_str(), wrong).await, "code", words);
    }
    refused(people.enter(&request, made.id.as_str(), &made.code).await, "code", "any more");
    let made = people.code(&request, "anna@example.com").await;
    people.clock.advance(10 * MINUTE - 1);
    assert_eq!(
        people.accounts.get_code(&people.cx(&people.one), &request, made.id.as_str()).await.unwrap(),
        PendingCode { email: "anna@example.com".into(), purpose: CodePurpose::SignIn }
    );
    people.clock.advance(1);
    refused(people.enter(&request, made.id.as_str(), &made.code).await, "code", "any more");
    assert_eq!(people.told("account.create").await, 0);
}

async fn a_password_is_set_when_the_code_proves_the_address(people: People) {
    let request = people.request(&people.one).await;
    let asked = CodeRequest { email: "anna@example.com", purpose: CodePurpose::SignUp, password: Some(FINE) };
    let error = people.ask(&request, CodeRequest { password: Some("short"), ..asked }).await.unwrap_err();
    assert_eq!(error.details["field"], "password");
    let error = people.ask(&request, CodeRequest { password: Some("anna@example.com"), ..asked }).await.unwrap_err();
    assert!(error.message.contains("easy to guess"), "{error}");
    let made = people.ask(&request, asked).await.unwrap();
    assert!(!made.has_account);
    refused(people.by_password("anna@example.com", FINE).await, "password", "or the password is wrong");
    let session = people.enter(&request, made.id.as_str(), &made.code).await.unwrap();
    let again = people.by_password(" ANNA@example.com", FINE).await.unwrap();
    assert_eq!(again.signed_in, session.signed_in);
    refused(people.by_password("anna@example.com", OTHER).await, "password", "or the password is wrong");
    refused(people.by_password("anna", FINE).await, "email", "address");
    let cx = people.cx(&people.two);
    let typed = PasswordSignIn { email: "anna@example.com", password: FINE };
    let elsewhere = people.accounts.sign_in_with_password(&cx, &people.two.organization.id, typed, CLIENT).await;
    refused(elsewhere, "password", "or the password is wrong");
    assert_eq!(people.told("account.password").await, 1);
}

async fn a_new_password_ends_what_the_old_one_began(people: People) {
    let (cx, ops, org) = (people.cx(&people.one), &people.stage.ops, &people.one.organization.id);
    let old = people.sign_up("anna@example.com", FINE).await;
    let grant = "INSERT INTO oauth_grants (id, organization_id, server_id, end_user_id, client_id, client_name, scope,
            resource, generation, created_at, expires_at)
        VALUES ('ogr_1', $1, $2, $3, 'client', 'ClientInfo', 'walk', 'https://way.example/mcp', 1, 1, 9999999999999)";
    let mut tx = ops.db().begin().await.unwrap();
    waypost_store::on!(&mut tx, c => sqlx::query(grant).bind(org.as_str()).bind(people.one.server.id.as_str())
        .bind(old.signed_in.end_user_id.as_str()).execute(c).await.unwrap().rows_affected());
    tx.commit().await.unwrap();
    let request = people.request(&people.one).await;
    let asked = CodeRequest { email: "anna@example.com", purpose: CodePurpose::Reset, password: None };
    let made = people.ask(&request, asked).await.unwrap();
    assert!(made.has_account);
    let entered = CodeEntry { id: made.id.as_str(), code: &made.code, new_password: None };
    refused(
        people.accounts.sign_in_with_code(&cx, &request, entered, CLIENT.address).await,
        "new_password",
        "Type a new password",
    );
    let weak = CodeEntry { new_password: Some("password1234"), ..entered };
    refused(
        people.accounts.sign_in_with_code(&cx, &request, weak, CLIENT.address).await,
        "new_password",
        "easy to guess",
    );
    let fine = CodeEntry { new_password: Some(OTHER), ..entered };
    let new = people.accounts.sign_in_with_code(&cx, &request, fine, CLIENT.address).await.unwrap();
    assert_eq!(new.signed_in, old.signed_in);
    assert_eq!(browser_sessions::find(&cx, ops, org, &old.token).await.unwrap(), None);
    assert!(browser_sessions::find(&cx, ops, org, &new.token).await.unwrap().is_some());
    let revoked = "SELECT revoked_reason FROM oauth_grants WHERE id = 'ogr_1'";
    let mut conn = ops.db().read().await.unwrap();
    let reason: Option<String> =
        waypost_store::on!(&mut conn, c => sqlx::query_scalar(revoked).fetch_one(c).await.unwrap());
    assert_eq!(reason.as_deref(), Some("new_password"));
    drop(conn);
    refused(people.by_password("anna@example.com", FINE).await, "password", "or the password is wrong");
    people.by_password("anna@example.com", OTHER).await.unwrap();
    // Signing up again with an address that has an account is the same as a forgotten password.
    assert_eq!(people.sign_up("anna@example.com", FINE).await.signed_in, old.signed_in);
    people.by_password("anna@example.com", FINE).await.unwrap();
}

const WRONG: &str = "wrong password 123";

fn seconds(error: &Error) -> i64 {
    assert_eq!(error.code, Code::RateLimited, "{error}");
    error.details["retry_after_seconds"].as_i64().unwrap()
}

/// What wrong passwords are answered until the client address has used up its failures, and what comes then.
async fn knock(people: &People, client: ClientInfo<'_>, email: &str) -> Vec<String> {
    let mut told = Vec::new();
    for _ in 0..5 {
        let error = people.by_password_from(client, email, WRONG).await.unwrap_err();
        told.push(format!("{} {} {:?}", error.code, error.message, error.details));
    }
    told
}

/// As 300 attempts at each account that was tried would; `slots` is a pattern of slots: those of passwords begin with `p`.
async fn use_up_accounts(people: &People, slots: &str) {
    let mut tx = people.stage.ops.db().begin().await.unwrap();
    let sql = "UPDATE sign_in_attempts SET attempts = 300 WHERE slot LIKE $1";
    waypost_store::on!(&mut tx, c => sqlx::query(sql).bind(slots).execute(c).await.unwrap().rows_affected());
    tx.commit().await.unwrap();
}

async fn a_client_address_has_three_failures_and_then_three_per_minute(people: People) {
    people.sign_up("anna@example.com", FINE).await;
    people.by_code("coded@example.com").await;
    let told = knock(&people, at(1), "anna@example.com").await;
    assert!(told[2].contains("or the password is wrong") && told[3].contains("Too many failed sign-ins"), "{told:#?}");
    assert_eq!(told, knock(&people, at(2), "nobody@example.com").await);
    assert_eq!(told, knock(&people, at(3), "coded@example.com").await, "an account without a password");
    assert_eq!(seconds(&people.by_password_from(at(1), "anna@example.com", FINE).await.unwrap_err()), 20);
    people.by_password_from(at(4), "anna@example.com", FINE).await.expect("nobody is locked out");
    people.clock.advance(20_000);
    people.by_password_from(at(1), "anna@example.com", FINE).await.unwrap();
    assert_eq!(people.told("account.lock").await, 0);
    let tries = (0..12).map(|_| people.by_password("anna@example.com", WRONG));
    let answers = futures::future::join_all(tries).await;
    let checked = answers.iter().filter(|it| it.as_ref().unwrap_err().code == Code::InvalidArguments).count();
    assert_eq!(checked, 3, "those at the same moment count too");
}

async fn nobody_is_rejected_for_what_others_do(people: People) {
    let anna = people.sign_up("anna@example.com", FINE).await;
    let berta = people.sign_up("berta@example.com", FINE).await;
    let request = people.request(&people.one).await;
    let made = people.code(&request, "anna@example.com").await;
    knock(&people, CLIENT, "anna@example.com").await;
    people.ask_from(at(1), "anna@example.com").await.unwrap();
    use_up_accounts(&people, "%").await;
    for stranger in [CLIENT, at(5_000), ClientInfo { device: &berta.device, ..CLIENT }] {
        seconds(&people.by_password_from(stranger, "anna@example.com", FINE).await.unwrap_err());
        seconds(&people.ask_from(stranger, "anna@example.com").await.unwrap_err());
    }
    let known = ClientInfo { device: &anna.device, ..CLIENT };
    refused(people.by_password_from(known, "anna@example.com", WRONG).await, "password", "is wrong");
    people.by_password_from(known, "anna@example.com", FINE).await.unwrap();
    people.ask_from(known, "anna@example.com").await.unwrap();
    people.enter(&request, made.id.as_str(), &made.code).await.expect("a right code is never rejected");
    // A new password makes the cookie void.
    let request = people.request(&people.one).await;
    let asked = CodeRequest { email: "anna@example.com", purpose: CodePurpose::Reset, password: None };
    let made = people.accounts.create_code(&people.cx(&people.one), &request, asked, known).await.unwrap();
    let entered = CodeEntry { id: made.id.as_str(), code: &made.code, new_password: Some(OTHER) };
    let new =
        people.accounts.sign_in_with_code(&people.cx(&people.one), &request, entered, CLIENT.address).await.unwrap();
    seconds(&people.by_password_from(known, "anna@example.com", OTHER).await.unwrap_err());
    let known = ClientInfo { device: &new.device, ..CLIENT };
    people.by_password_from(known, "anna@example.com", OTHER).await.unwrap();
}

async fn known_and_unknown_addresses_cost_the_same(people: People) {
    people.sign_up("anna@example.com", FINE).await;
    people.by_code("coded@example.com").await;
    let mut costs = Vec::new();
    for (n, email) in [(1_000, "anna@example.com"), (2_000, "coded@example.com"), (3_000, "nobody@example.com")] {
        people.clock.advance(MINUTE);
        let hashed = people.stage.ops.hashed_passwords();
        let mut cost = vec![count_statements(people.by_password_from(at(n), email, WRONG)).await.1];
        let request = people.request(&people.one).await;
        for purpose in [CodePurpose::SignIn, CodePurpose::Reset, CodePurpose::SignUp] {
            let password = (purpose == CodePurpose::SignUp).then_some(FINE);
            let (made, statements) =
                count_statements(people.ask(&request, CodeRequest { email, purpose, password })).await;
            let made = made.unwrap();
            let wrong = if made.code == "00000000" { "00000001" } else { "00000000" };
            let entered = CodeEntry { id: made.id.as_str(), code: wrong, new_password: Some(OTHER) };
            let cx = people.cx(&people.one);
            let enter = people.accounts.sign_in_with_code(&cx, &request, entered, CLIENT.address);
            cost.extend([statements, count_statements(enter).await.1]);
        }
        use_up_accounts(&people, "p%").await;
        let (limited, statements) = count_statements(people.by_password_from(at(n + 500), email, WRONG)).await;
        seconds(&limited.unwrap_err());
        cost.push(statements);
        costs.push((cost, people.stage.ops.hashed_passwords() - hashed));
    }
    assert_eq!(costs[0], costs[1]);
    assert_eq!(costs[0], costs[2]);
    knock(&people, CLIENT, "anna@example.com").await;
    let rejected = count_statements(people.by_password("anna@example.com", WRONG)).await;
    assert_eq!((seconds(&rejected.0.unwrap_err()), rejected.1), (20, 0));
}

async fn first_codes_at_the_same_moment_make_one_account(people: People) {
    let (one, two) = (people.request(&people.one).await, people.request(&people.one).await);
    let (a, b) = (people.code(&one, "anna@example.com").await, people.code(&two, "anna@example.com").await);
    let (a, b) = tokio::join!(people.enter(&one, a.id.as_str(), &a.code), people.enter(&two, b.id.as_str(), &b.code));
    assert_eq!(a.unwrap().signed_in, b.unwrap().signed_in);
    assert_eq!(people.told("account.create").await, 1);
}

async fn codes_are_kept_as_keyed_hashes(people: People) {
    let request = people.request(&people.one).await;
    let made = people.code(&request, "anna@example.com").await;
    assert!(!format!("{made:?}").contains(&made.code));
    let mut conn = people.stage.ops.db().read().await.unwrap();
    let sql = "SELECT code_hash FROM email_codes";
    let kept: String = waypost_store::on!(&mut conn, c => sqlx::query_scalar(sql).fetch_one(c).await.unwrap());
    assert!(kept.len() == 64 && kept != waypost_core::secret::hash(&made.code), "{kept}");
}

waypost_testkit::both!(
    people => a_code_makes_the_account_and_signs_in_again, a_code_works_once_in_its_own_request,
    a_code_has_five_tries_and_ten_minutes,
    a_password_is_set_when_the_code_proves_the_address, a_new_password_ends_what_the_old_one_began,
    a_client_address_has_three_failures_and_then_three_per_minute, nobody_is_rejected_for_what_others_do,
    known_and_unknown_addresses_cost_the_same,
    first_codes_at_the_same_moment_make_one_account, codes_are_kept_as_keyed_hashes
);
