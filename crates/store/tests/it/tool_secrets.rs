//! Secrets of tool servers.

use waypost_core::id::{InstanceId, OrganizationId, ToolSecretId};
use waypost_core::tool_secret::{SecretUser, ToolSecret};
use waypost_store::{Tx, organization, tool_secret};

use crate::fixture::{Fixture, NOW};
use crate::open;

struct TwoWorlds {
    tx: Tx,
    one: Fixture,
    two: Fixture,
}

async fn two_worlds(url: &str) -> TwoWorlds {
    let db = open(url).await;
    let (one, two) = (Fixture::new(1), Fixture::new(2));
    one.seed_with_activity(&db).await;
    two.seed_with_activity(&db).await;
    TwoWorlds { tx: db.begin().await.unwrap(), one, two }
}

fn id(text: &str) -> ToolSecretId {
    ToolSecretId::from_store(text.to_owned())
}

fn user(fixture: u32) -> SecretUser {
    SecretUser { instance_id: InstanceId::from_store(format!("ins_{fixture}")), slug: "search".to_owned() }
}

fn secret(organization: &OrganizationId, id: &str, name: &str) -> ToolSecret {
    ToolSecret {
        id: ToolSecretId::from_store(id.to_owned()),
        organization_id: organization.clone(),
        name: name.to_owned(),
        version: 1,
        created_at: NOW,
        rotated_at: None,
        used_by: Vec::new(),
    }
}

/// The instance of a fixture uses `TOKEN` as a secret of its server, and `REGISTRY` as the credentials of the registry.
async fn secrets_know_the_instances_that_use_them(TwoWorlds { mut tx, one, two }: TwoWorlds) {
    let org = &one.organization;
    let token = tool_secret::find(&mut tx, org, &id("sec_1")).await.unwrap().unwrap();
    assert_eq!((token.name.as_str(), token.version, &token.used_by[..]), ("TOKEN", 2, &[user(1)][..]));
    assert_eq!(tool_secret::find(&mut tx, org, &id("sec_2")).await.unwrap(), None, "another organisation");
    assert_eq!(tool_secret::find_by_name(&mut tx, org, "TOKEN").await.unwrap().as_ref(), Some(&token));
    let registry = secret(org, "sec_r", "REGISTRY");
    tool_secret::insert(&mut tx, &registry, "sealed-r").await.unwrap();
    tool_secret::insert(&mut tx, &secret(org, "sec_u", "UNUSED"), "sealed-u").await.unwrap();
    let registry = ToolSecret { used_by: vec![user(1)], ..registry };
    assert_eq!(tool_secret::find_by_name(&mut tx, org, "REGISTRY").await.unwrap().as_ref(), Some(&registry));
    let listed = tool_secret::list(&mut tx, org, None, 2).await.unwrap();
    assert_eq!(listed, [registry, token]);
    let rest = tool_secret::list(&mut tx, org, Some("TOKEN"), 10).await.unwrap();
    assert_eq!(rest, [secret(org, "sec_u", "UNUSED")]);
    assert_eq!(tool_secret::count(&mut tx, org).await.unwrap(), 3);
    assert_eq!(tool_secret::count(&mut tx, &two.organization).await.unwrap(), 1);
    assert_eq!(tool_secret::list_users(&mut tx, &two.organization, &id("sec_2")).await.unwrap(), [user(2)]);
    assert_eq!(tool_secret::list_users(&mut tx, &two.organization, &id("sec_1")).await.unwrap(), []);
}

async fn values_are_replaced_and_read_by_name(TwoWorlds { mut tx, one, two }: TwoWorlds) {
    let org = &one.organization;
    let at = NOW.plus(5);
    assert!(!tool_secret::rotate(&mut tx, &two.organization, &id("sec_1"), "other", at).await.unwrap());
    assert!(tool_secret::rotate(&mut tx, org, &id("sec_1"), "new", at).await.unwrap());
    let rotated = tool_secret::find(&mut tx, org, &id("sec_1")).await.unwrap().unwrap();
    assert_eq!((rotated.version, rotated.rotated_at), (3, Some(at)));
    let value = tool_secret::find_value(&mut tx, org, "TOKEN").await.unwrap();
    assert_eq!(value, Some((id("sec_1"), "new".to_owned())));
    assert_eq!(tool_secret::find_value(&mut tx, org, "OTHER").await.unwrap(), None);
}

async fn a_used_secret_cannot_be_deleted(TwoWorlds { mut tx, one, two }: TwoWorlds) {
    let org = &one.organization;
    tool_secret::insert(&mut tx, &secret(org, "sec_u", "UNUSED"), "sealed").await.unwrap();
    assert!(!tool_secret::delete(&mut tx, &two.organization, &id("sec_u")).await.unwrap());
    assert!(tool_secret::delete(&mut tx, org, &id("sec_u")).await.unwrap());
    assert!(!tool_secret::delete(&mut tx, org, &id("sec_u")).await.unwrap());
    assert!(tool_secret::delete(&mut tx, org, &id("sec_1")).await.unwrap_err().is_foreign_key_violation());
}

async fn names_are_unique_in_an_organisation(TwoWorlds { mut tx, one, two }: TwoWorlds) {
    assert!(organization::lock(&mut tx, &one.organization).await.unwrap());
    assert!(!organization::lock(&mut tx, &OrganizationId::from_store("org_9".into())).await.unwrap());
    tool_secret::insert(&mut tx, &secret(&two.organization, "sec_o", "NEW"), "sealed").await.unwrap();
    tool_secret::insert(&mut tx, &secret(&one.organization, "sec_n", "NEW"), "sealed").await.unwrap();
    let twice = tool_secret::insert(&mut tx, &secret(&one.organization, "sec_m", "NEW"), "sealed").await;
    assert!(twice.unwrap_err().is_unique_violation());
}

waypost_testkit::both!(two_worlds =>
    secrets_know_the_instances_that_use_them,
    values_are_replaced_and_read_by_name,
    a_used_secret_cannot_be_deleted,
    names_are_unique_in_an_organisation,
);
