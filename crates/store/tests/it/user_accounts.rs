//! Accounts of an email address: separate until it is verified, then a single one; and the migration of older accounts.

use waypost_core::Timestamp;
use waypost_core::id::{InvitationId, OrganizationId, UserCodeId, UserId};
use waypost_core::organization::{ApiKey, Role, User};
use waypost_store::migrate::{migrate, migrate_to};
use waypost_store::user_account::{self, RevocationCounts};
use waypost_store::user_code::{self, NewUserLink};
use waypost_store::{Db, Tx, api_key, db::Dialect, invitation, on, system, user, user_identity, user_session};

use crate::fixture::{Fixture, NOW};
use crate::open;

async fn two_fixtures(url: &str) -> (Tx, Fixture, Fixture) {
    let db: Db = open(url).await;
    let (one, two) = (Fixture::new(1), Fixture::new(2));
    one.seed_with_activity(&db).await;
    two.seed_with_activity(&db).await;
    (db.begin().await.unwrap(), one, two)
}

fn account(id: &str, organization: Option<&OrganizationId>) -> User {
    User {
        id: UserId::from_store(id.to_owned()),
        email: "V@big.example".to_owned(),
        name: None,
        verified_at: None,
        organization_id: organization.cloned(),
        created_at: NOW,
    }
}

const KEY: &str = "v@big.example";

async fn ids(tx: &mut Tx) -> Vec<String> {
    system::list_accounts(tx, KEY).await.unwrap().into_iter().map(|account| account.user.id.to_string()).collect()
}

async fn an_address_has_one_account_for_each_organisation_and_one_for_all((mut tx, one, two): (Tx, Fixture, Fixture)) {
    let tx = &mut tx;
    for (id, organization) in
        [("usr_b", Some(&two.organization)), ("usr_a", Some(&one.organization)), ("usr_all", None)]
    {
        user::insert(tx, &account(id, organization), KEY).await.unwrap();
    }
    assert_eq!(ids(tx).await, ["usr_all", "usr_a", "usr_b"]);
    assert_eq!(system::find_verified_user(tx, KEY).await.unwrap(), None);
    let (all, a) = (account("usr_all", None), account("usr_a", Some(&one.organization)));
    assert_eq!(user::find(tx, &a.id).await.unwrap(), Some(a.clone()));
    user::mark_verified(tx, &all.id, NOW).await.unwrap();
    assert_eq!(system::find_verified_user(tx, KEY).await.unwrap().map(|user| user.id), Some(all.id.clone()));
    user_account::merge(tx, &all.id, &a.id).await.unwrap();
    user::mark_verified(tx, &a.id, NOW).await.unwrap();
    let verified = system::find_verified_user(tx, KEY).await.unwrap().unwrap();
    assert_eq!((&verified.id, verified.organization_id, verified.verified_at), (&a.id, None, Some(NOW)));
    assert_eq!(ids(tx).await, ["usr_a", "usr_b"], "the verified one is first");
    assert_eq!(system::lock_accounts(tx, KEY).await.unwrap().len(), 2);
}

async fn emails_count_for_the_organisation_of_the_recipient((mut tx, one, two): (Tx, Fixture, Fixture)) {
    let tx = &mut tx;
    for (id, organization) in [("usr_b", Some(&two.organization)), ("usr_all", None)] {
        user::insert(tx, &account(id, organization), KEY).await.unwrap();
    }
    assert_eq!(system::find_organization_by_email(tx, KEY).await.unwrap(), None);
    let member = async |tx: &mut Tx, id: &str, organization: &OrganizationId, at| {
        user::add_member(tx, organization, &UserId::from_store(id.to_owned()), Role::Member, at).await.unwrap();
    };
    member(tx, "usr_b", &two.organization, NOW).await;
    assert_eq!(system::find_organization_by_email(tx, KEY).await.unwrap(), Some(two.organization.clone()));
    member(tx, "usr_all", &one.organization, NOW.plus(1)).await;
    user::mark_verified(tx, &UserId::from_store("usr_all".to_owned()), NOW).await.unwrap();
    let organization = system::find_organization_by_email(tx, KEY).await.unwrap();
    assert_eq!(organization, Some(one.organization), "that of the verified account");
    assert_eq!(system::find_organization_by_email(tx, "nobody@x.de").await.unwrap(), None);
}

async fn a_second_account_for_the_same_organisation_is_rejected(url: String) {
    let db = open(&url).await;
    let one = Fixture::new(1);
    one.seed(&db).await;
    for organization in [Some(&one.organization), None] {
        let mut tx = db.begin().await.unwrap();
        user::insert(&mut tx, &account("usr_a", organization), KEY).await.unwrap();
        let again = user::insert(&mut tx, &account("usr_b", organization), KEY).await;
        assert!(again.unwrap_err().is_unique_violation(), "{organization:?}");
    }
}

async fn all_credentials_are_revoked((mut tx, one, two): (Tx, Fixture, Fixture)) {
    let tx = &mut tx;
    let a = account("usr_a", None);
    user::insert(tx, &a, KEY).await.unwrap();
    user::set_password(tx, &a.id, "argon").await.unwrap();
    user::set_name(tx, &a.id, "Mallory").await.unwrap();
    user_identity::insert(tx, "https://id.example", "1", &a.id, NOW).await.unwrap();
    let link_id = UserCodeId::from_store("uco_link".to_owned());
    let link = NewUserLink {
        id: &link_id,
        user: &a.id,
        email: "V@big.example",
        email_key: KEY,
        token_hash: "link",
        created_at: NOW,
        expires_at: NOW.plus(1),
    };
    user_code::insert_link(tx, &link).await.unwrap();
    user::add_member(tx, &one.organization, &a.id, Role::Owner, NOW).await.unwrap();
    for (n, creator) in ["usr_a", "key_made0", "key_made1", "usr_other"].into_iter().enumerate() {
        let key = ApiKey {
            id: waypost_core::id::ApiKeyId::from_store(format!("key_made{n}")),
            organization_id: one.organization.clone(),
            name: format!("made {n}"),
            scope: Role::Owner,
            created_at: NOW,
            expires_at: None,
            last_used_at: None,
        };
        api_key::insert(tx, &key, &format!("made-{n}"), creator).await.unwrap();
    }
    let expected = RevocationCounts { passwords: 1, sessions: 0, identities: 1 };
    assert_eq!(user_account::revoke_access(tx, &a.id, NOW).await.unwrap(), expected);
    assert_eq!(user_account::revoke_access(tx, &a.id, NOW).await.unwrap(), RevocationCounts::default());
    assert_eq!(user_code::find_link(tx, "link", NOW).await.unwrap(), None);
    assert_eq!(user_identity::find(tx, "https://id.example", "1").await.unwrap(), None);
    let credentials = user::find_credentials(tx, &a.id).await.unwrap().unwrap();
    assert_eq!((credentials.password_hash, credentials.user.name), (None, None));
    let names: Vec<String> =
        user_account::delete_api_keys(tx, a.id.as_str()).await.unwrap().into_iter().map(|key| key.name).collect();
    assert_eq!(names, ["made 0", "made 1", "made 2"], "including those created with these keys");
    assert!(system::find_api_key(tx, "made-3").await.unwrap().is_some());
    // Sessions of other accounts are kept; memberships are moved.
    let before = Timestamp(0);
    assert!(user_session::find(tx, "session-1", before).await.unwrap().is_some());
    assert_eq!(user_account::revoke_access(tx, &one.user, NOW).await.unwrap().sessions, 1);
    assert_eq!(user_session::find(tx, "session-1", before).await.unwrap(), None);
    user_account::merge(tx, &a.id, &two.user).await.unwrap();
    let moved = user::find_member(tx, &one.organization, &two.user).await.unwrap().unwrap();
    assert_eq!(moved.role, Role::Owner);
    assert_eq!(user::find(tx, &a.id).await.unwrap(), None);
}

async fn failed_sign_ins_are_counted_by_the_hour((mut tx, one, _): (Tx, Fixture, Fixture)) {
    const HOUR: i64 = 60 * 60 * 1_000;
    let mut counts = Vec::new();
    for at in [0, 1, HOUR - 1, HOUR, HOUR + 1, 3 * HOUR] {
        counts.extend(system::record_failed_sign_in(&mut tx, "a1@x.de", NOW.plus(at)).await.unwrap());
    }
    assert_eq!(counts, [1, 2, 3, 1, 2, 1].map(|count| (one.user.clone(), count)));
    assert_eq!(system::record_failed_sign_in(&mut tx, "nobody@x.de", NOW).await.unwrap(), []);
    let organizations = system::list_organizations_by_email(&mut tx, "a1@x.de").await.unwrap();
    assert_eq!(organizations, [(one.user.clone(), one.organization.clone())]);
    assert_eq!(system::list_organizations_by_email(&mut tx, "nobody@x.de").await.unwrap(), []);
}

async fn only_the_newest_link_is_marked_as_emailed((mut tx, one, two): (Tx, Fixture, Fixture)) {
    let tx = &mut tx;
    let open = "UPDATE invitations SET revoked_at = NULL, expires_at = 1790000060000";
    on!(tx, c => sqlx::query(open).execute(c).await.unwrap().rows_affected());
    let id = InvitationId::from_store("inv_1".to_owned());
    let emailed = async |tx: &mut Tx, token: &str| {
        system::find_invitation(tx, token, NOW).await.unwrap().map(|found| found.emailed)
    };
    assert_eq!(emailed(tx, "token-1").await, Some(false));
    assert!(!invitation::mark_emailed(tx, &one.organization, &id, "older", NOW).await.unwrap());
    assert!(!invitation::mark_emailed(tx, &two.organization, &id, "token-1", NOW).await.unwrap());
    assert!(invitation::mark_emailed(tx, &one.organization, &id, "token-1", NOW).await.unwrap());
    assert_eq!(emailed(tx, "token-1").await, Some(true));
    let invitation = invitation::find(tx, &one.organization, &id).await.unwrap().unwrap();
    assert!(invitation::renew(tx, &invitation, "shown").await.unwrap());
    assert_eq!(emailed(tx, "shown").await, Some(false), "a new link may be shown");
    let revoked = user_account::revoke_invitations(tx, &invitation.invited_by, NOW).await.unwrap();
    assert!(revoked.contains(&(one.organization.clone(), id)), "{revoked:?}");
    assert_eq!(emailed(tx, "shown").await, None);
}

async fn url(url: &str) -> String {
    url.to_owned()
}

/// Returns SQL for a user in the schema before version 20. `methods` are the methods of their sign-ins.
fn older_user(n: u32, methods: &[&str], organizations: &[&str]) -> String {
    let mut sql = format!(
        "INSERT INTO users (id, email, email_key, created_at, name, password_hash, verified_at)
             VALUES ('usr_{n}', 'u{n}@x.de', 'u{n}@x.de', 1, 'U', 'argon', 5);
         INSERT INTO user_sessions (id, token_hash, user_id, user_agent, address, created_at, last_used_at, expires_at)
             VALUES ('uss_{n}', 'session-{n}', 'usr_{n}', '', '', 1, 1, 2000000000000);
         INSERT INTO api_keys (id, organization_id, name, scope, secret_hash, created_at)
             VALUES ('key_{n}', 'org_a', 'key {n}', 'owner', 'secret-{n}', 1);
         INSERT INTO audit_events (id, organization_id, actor, act, target, detail, created_at)
             VALUES ('aud_key{n}', 'org_a', 'usr_{n}', 'key.create', 'key_{n}', '{{}}', 1);"
    );
    for (number, by) in methods.iter().enumerate() {
        sql += &format!(
            "INSERT INTO audit_events (id, organization_id, actor, act, target, detail, created_at)
             VALUES ('aud_{n}_{number}', 'org_a', 'usr_{n}', 'user.sign_in', 'usr_{n}', '{{\"by\":\"{by}\"}}', 1);"
        );
    }
    for organization in organizations {
        sql += &format!(
            "INSERT INTO memberships (organization_id, user_id, role, created_at)
             VALUES ('{organization}', 'usr_{n}', 'owner', 1);"
        );
    }
    sql
}

async fn accounts_that_only_accepted_an_invitation_become_unverified(url: String) {
    let db = Db::open(&url).await.unwrap();
    let versions = match db.dialect() {
        Dialect::Sqlite => sqlx_macros::migrate!("migrations/sqlite"),
        Dialect::Postgres => sqlx_macros::migrate!("migrations/postgres"),
    };
    let before = versions.iter().map(|version| version.version).filter(|version| *version < 20).max().unwrap();
    migrate_to(&db, before).await.unwrap();
    let mut sql = String::new();
    for slug in ["a", "b"] {
        sql += &format!(
            "INSERT INTO organizations (id, slug, name, created_at, updated_at) VALUES ('org_{slug}', '{slug}', 'X', 1, 1);"
        );
    }
    sql += &older_user(1, &["invitation", "password"], &["org_a", "org_b"]);
    sql += &older_user(2, &["invitation", "password", "code"], &["org_a"]);
    sql += &older_user(3, &["set_up", "password"], &["org_a"]);
    sql += &older_user(4, &["code"], &["org_a"]);
    sql += &older_user(5, &["invitation"], &["org_b"]);
    sql += &older_user(6, &["link"], &["org_b"]);
    sql += "INSERT INTO user_codes (id, email, email_key, purpose, browser_hash, code_hash, attempts, created_at, expires_at)
        VALUES ('uco_1', 'u1@x.de', 'u1@x.de', 'link', '', 'link-1', 0, 1, 2000000000000);";
    let mut tx = db.begin().await.unwrap();
    on!(&mut tx, c => sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(c).await.unwrap().rows_affected());
    tx.commit().await.unwrap();
    migrate(&db).await.unwrap();
    let mut tx = db.begin().await.unwrap();
    let mut accounts_after = Vec::new();
    for n in 1..=6 {
        let accounts = system::list_accounts(&mut tx, &format!("u{n}@x.de")).await.unwrap();
        assert_eq!(accounts.len(), 1, "{n}");
        let account = &accounts[0];
        let organizations = user_session::list_memberships(&mut tx, &account.user.id).await.unwrap();
        let organizations: Vec<_> =
            organizations.iter().map(|organization| organization.organization.slug.clone()).collect();
        let session = user_session::find(&mut tx, &format!("session-{n}"), NOW).await.unwrap().is_some();
        let own = account.user.organization_id.as_ref().map_or("-", OrganizationId::as_str);
        accounts_after.push(format!(
            "{n} verified={} password={} session={session} {} only {own}",
            account.user.verified_at.is_some(),
            account.password_hash.is_some(),
            organizations.join("+"),
        ));
        let key = user_account::delete_api_keys(&mut tx, account.user.id.as_str()).await.unwrap();
        assert_eq!(key.len(), 1, "the creator of a key is read from the audit log");
    }
    assert_eq!(
        accounts_after,
        [
            "1 verified=false password=true session=true a+b only -",
            "2 verified=true password=false session=false a only -",
            "3 verified=true password=true session=true a only -",
            "4 verified=true password=true session=true a only -",
            "5 verified=false password=true session=true b only org_b",
            "6 verified=true password=true session=true b only -",
        ]
    );
    let user = user_code::find_link(&mut tx, "link-1", NOW).await.unwrap();
    assert_eq!(user.as_ref().map(UserId::as_str), Some("usr_1"));
}

waypost_testkit::both!(
    two_fixtures => an_address_has_one_account_for_each_organisation_and_one_for_all, all_credentials_are_revoked,
    failed_sign_ins_are_counted_by_the_hour, only_the_newest_link_is_marked_as_emailed,
    emails_count_for_the_organisation_of_the_recipient
);
waypost_testkit::both!(empty url =>
    a_second_account_for_the_same_organisation_is_rejected,
    accounts_that_only_accepted_an_invitation_become_unverified,
);
