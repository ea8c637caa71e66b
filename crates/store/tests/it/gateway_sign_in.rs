//! Sign-in of people to the gateway: their tokens, and the separation of issuers.

use waypost_core::Timestamp;
use waypost_core::id::{AgentId, AuthorizationRequestId, OauthGrantId};
use waypost_core::issuer::IssuerId;
use waypost_core::oauth_grant::GrantOwner;
use waypost_store::authorization_request::{self, AuthorizationRequestKey};
use waypost_store::db::Dialect;
use waypost_store::migrate::{migrate, migrate_to};
use waypost_store::oauth_grant::{self, CodeOutcome, RefreshOutcome};
use waypost_store::{Db, Tx, agent, oauth_client, on, system, user};

use crate::fixture::{Fixture, NOW, execute};
use crate::open;

/// A time at which the rows of the fixture are valid.
const THEN: Timestamp = Timestamp(5);

struct TwoFixtures {
    tx: Tx,
    one: Fixture,
    two: Fixture,
}

async fn two_fixtures(url: &str) -> TwoFixtures {
    let db: Db = open(url).await;
    let (one, two) = (Fixture::new(1), Fixture::new(2));
    one.seed_with_activity(&db).await;
    two.seed_with_activity(&db).await;
    TwoFixtures { tx: db.begin().await.unwrap(), one, two }
}

fn server_of(fixture: &Fixture) -> IssuerId {
    IssuerId::Server { organization_id: fixture.organization.clone(), server_id: fixture.server.clone() }
}

async fn a_token_of_a_person_is_valid_while_they_are_a_member(TwoFixtures { mut tx, one, two }: TwoFixtures) {
    let (token, found) = system::find_person_token(&mut tx, "access-person-1", THEN).await.unwrap().unwrap();
    assert_eq!(token.grant_id, OauthGrantId::from_store("ogr_person1".to_owned()));
    assert_eq!((token.resource.as_str(), token.expires_at), ("https://way.example/gateway/acme/mcp", NOW));
    assert_eq!((&found.organization_id, found.user_id.as_ref()), (&one.organization, Some(&one.user)));
    assert_eq!(system::find_person_token(&mut tx, "access-person-1", NOW).await.unwrap(), None, "expired");
    assert_eq!(system::find_person_token(&mut tx, "access-1", THEN).await.unwrap(), None, "of a server");
    let own = agent::find_by_user(&mut tx, &one.organization, &one.user).await.unwrap();
    assert_eq!(own.map(|agent| agent.id), Some(found.id.clone()));
    assert_eq!(agent::find_by_user(&mut tx, &two.organization, &one.user).await.unwrap(), None);
    let listed = system::list_person_grants(&mut tx, &one.user, THEN).await.unwrap();
    assert_eq!((listed.len(), &listed[0].0.owner), (1, &GrantOwner::Agent(found.id.clone())));
    assert_eq!(system::list_person_grants(&mut tx, &one.user, NOW).await.unwrap(), []);
    assert!(user::lock_member(&mut tx, &one.organization, &one.user).await.unwrap());
    assert!(!user::lock_member(&mut tx, &two.organization, &one.user).await.unwrap());
    assert!(user::remove_member(&mut tx, &one.organization, &one.user).await.unwrap());
    assert!(!user::lock_member(&mut tx, &one.organization, &one.user).await.unwrap());
    assert_eq!(system::find_person_token(&mut tx, "access-person-1", THEN).await.unwrap(), None);
    let other = system::find_person_token(&mut tx, "access-person-2", THEN).await.unwrap();
    assert!(other.is_some(), "tokens of others are kept");
    assert!(oauth_grant::revoke_access_token(&mut tx, "access-person-2", THEN).await.unwrap());
    assert_eq!(system::find_person_token(&mut tx, "access-person-2", THEN).await.unwrap(), None);
}

async fn grants_of_an_agent_are_counted_and_deleted(TwoFixtures { mut tx, one, two }: TwoFixtures) {
    let owner = GrantOwner::Agent(AgentId::from_store("agt_person1".to_owned()));
    let newest = oauth_grant::find_nth_newest(&mut tx, &one.organization, &owner, 1).await.unwrap();
    assert_eq!(newest, Some(Timestamp(17)));
    assert_eq!(oauth_grant::find_nth_newest(&mut tx, &one.organization, &owner, 2).await.unwrap(), None);
    assert_eq!(oauth_grant::find_nth_newest(&mut tx, &two.organization, &owner, 1).await.unwrap(), None);
    let until = async |tx: &mut Tx, organization, at| {
        oauth_grant::delete_created_until(tx, organization, &owner, Timestamp(at)).await.unwrap()
    };
    assert_eq!(until(&mut tx, &one.organization, 16).await, 0);
    assert_eq!(until(&mut tx, &two.organization, 17).await, 0);
    assert_eq!(until(&mut tx, &one.organization, 17).await, 1);
    assert_eq!(system::find_person_token(&mut tx, "access-person-1", THEN).await.unwrap(), None);
}

/// A row of one issuer is unknown to every other.
async fn issuers_are_separate(TwoFixtures { mut tx, one, two }: TwoFixtures) {
    let issuers = [server_of(&one), server_of(&two), IssuerId::Gateway];
    for (own, client, request, code, access, refresh) in [
        (&issuers[0], "client-1", "arq_1", "code-1", "access-1", "refresh-1"),
        (&issuers[2], "client-gateway1", "arq_gateway1", "code-person-1", "access-person-1", "refresh-person-1"),
    ] {
        let id = AuthorizationRequestId::from_store(request.to_owned());
        for issuer in &issuers {
            let is_own = issuer == own;
            let key = AuthorizationRequestKey { issuer, id: &id, browser_hash: "browser" };
            let found = authorization_request::find(&mut tx, key, Timestamp(8)).await.unwrap();
            assert_eq!(found.map(|request| request.issuer_id), is_own.then(|| own.clone()), "{request} {issuer:?}");
            let found = oauth_client::find(&mut tx, issuer, client, THEN).await.unwrap();
            assert_eq!(found.map(|client| client.issuer_id), is_own.then(|| own.clone()), "{client} {issuer:?}");
            for token in [access, refresh] {
                let found = oauth_grant::find_by_token(&mut tx, issuer, "client", token).await.unwrap();
                assert_eq!(found.map(|(_, is_refresh)| is_refresh), is_own.then_some(token == refresh), "{token}");
            }
            // The codes of the fixture are consumed.
            let outcome = oauth_grant::consume_code(&mut tx, issuer, "client", code, THEN).await.unwrap();
            assert_eq!(matches!(outcome, CodeOutcome::Reused(_)), is_own, "{code} {issuer:?}");
        }
        // A rotation comes last, because it changes the grant.
        for issuer in issuers.iter().filter(|issuer| *issuer != own).chain([own]) {
            let outcome = oauth_grant::refresh(&mut tx, issuer, "client", refresh, THEN, NOW).await.unwrap();
            assert_eq!(matches!(outcome, RefreshOutcome::Valid { .. }), issuer == own, "{refresh} {issuer:?}");
        }
    }
}

/// The migration keeps every row and what references it.
async fn the_migration_keeps_rows(url: String) {
    let db = Db::open(&url).await.unwrap();
    let versions = match db.dialect() {
        Dialect::Sqlite => sqlx_macros::migrate!("migrations/sqlite"),
        Dialect::Postgres => sqlx_macros::migrate!("migrations/postgres"),
    };
    let before = versions.iter().map(|version| version.version).filter(|version| *version < 43).max().unwrap();
    migrate_to(&db, before).await.unwrap();
    let mut tx = db.begin().await.unwrap();
    execute(&mut tx, BEFORE.to_owned()).await;
    tx.commit().await.unwrap();
    migrate(&db).await.unwrap();
    let mut conn = db.read().await.unwrap();
    for table in [
        "oauth_clients",
        "authorization_requests",
        "email_codes",
        "identity_provider_states",
        "oauth_grants",
        "authorization_codes",
        "access_tokens",
        "refresh_tokens",
    ] {
        let sql = sqlx::AssertSqlSafe(format!("SELECT count(*) FROM {table}"));
        let count: i64 = on!(&mut conn, c => sqlx::query_scalar(sql).fetch_one(c).await.unwrap());
        assert_eq!(count, 1, "{table}");
    }
    drop(conn);
    // The foreign keys are those of the new tables.
    let mut tx = db.begin().await.unwrap();
    execute(&mut tx, "DELETE FROM oauth_grants; DELETE FROM authorization_requests;".to_owned()).await;
    for table in ["email_codes", "identity_provider_states", "authorization_codes", "access_tokens", "refresh_tokens"] {
        let sql = sqlx::AssertSqlSafe(format!("SELECT count(*) FROM {table}"));
        let count: i64 = on!(&mut tx, c => sqlx::query_scalar(sql).fetch_one(c).await.unwrap());
        assert_eq!(count, 0, "{table}");
    }
    drop(tx);
    db.close().await;
}

const BEFORE: &str = "
INSERT INTO organizations (id, slug, name, created_at, updated_at) VALUES ('org_a', 'a', 'A', 1, 1);
INSERT INTO servers (id, organization_id, slug, name, product_name, auth_type, sign_in, toolset, support, allowed_origins,
        walkthrough_tools_enabled, created_at, updated_at)
    VALUES ('srv_a', 'org_a', 'aaa', 'A', 'A', 'platform_oauth', 'auto', 'guided', 'off', '[]', TRUE, 1, 1);
INSERT INTO end_users (id, organization_id, created_at) VALUES ('eu_a', 'org_a', 1);
INSERT INTO oauth_configs VALUES
    ('oac_a', 'org_a', 'acme', 'openid', 'i', 'a', 't', NULL, 'k', 'waypost', 'sealed', 'client_secret_basic', 's', 'sub',
     TRUE, 2, 3);
INSERT INTO oauth_clients VALUES ('srv_a', 'client', 'org_a', 'C', '[]', 'native', 'none', NULL, 1, 1, 1, '');
INSERT INTO authorization_requests VALUES ('arq_a', 'org_a', 'srv_a', 'b', 'i', 'c', 'C', 'r', 's', 'walk', 'r', NULL, 'c',
    NULL, NULL, 8, 9, NULL, NULL, NULL, NULL);
INSERT INTO email_codes VALUES ('ecd_a', 'org_a', 'arq_a', 'z@b.example', 'z@b.example', 'sign_in', 'h', NULL, 0, 10, 11, NULL);
INSERT INTO identity_provider_states VALUES ('state', 'org_a', 'oac_a', 'arq_a', 'nonce', 'sealed', 25, 26);
INSERT INTO oauth_grants VALUES
    ('ogr_a', 'org_a', 'srv_a', 'eu_a', 'client', 'C', 'walk', 'r', 1, NULL, 17, 18, NULL, NULL, NULL);
INSERT INTO authorization_codes VALUES ('code', 'ogr_a', 'client', 'r', 'c', 19, 20, 21);
INSERT INTO access_tokens VALUES ('access', 'ogr_a', 'walk', 22, 23, NULL);
INSERT INTO refresh_tokens VALUES ('refresh', 'ogr_a', 1, 24);
";

async fn url(url: &str) -> String {
    url.to_owned()
}

waypost_testkit::both!(two_fixtures =>
    a_token_of_a_person_is_valid_while_they_are_a_member, grants_of_an_agent_are_counted_and_deleted, issuers_are_separate);
waypost_testkit::both!(empty url => the_migration_keeps_rows);
