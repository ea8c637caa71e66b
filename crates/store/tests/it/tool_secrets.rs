//! Secrets of tool servers.

use waypost_core::Timestamp;
use waypost_core::deployment::Deployment;
use waypost_core::id::{InstanceId, OrganizationId, ToolSecretId};
use waypost_core::instance::SecretUse;
use waypost_core::tool_secret::{SecretUser, ToolSecret};
use waypost_store::{Tx, deployment, instance, organization, replaced_secret, tool_secret};

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

/// The secret of a fixture has version 2, and its instance has one deployment, which names no secret.
async fn replaced_values_are_kept_while_a_deployment_uses_them(TwoWorlds { mut tx, one, two }: TwoWorlds) {
    let (org, secret) = (&one.organization, id("sec_1"));
    replaced_secret::insert(&mut tx, org, &secret, (2, "sealed-2"), Timestamp(6)).await.unwrap();
    let mut found = instance::find(&mut tx, org, &user(1).instance_id).await.unwrap().unwrap();
    let first = deployment::find_by_generation(&mut tx, org, &found.id, 1).await.unwrap().unwrap();
    let used = async |tx: &mut Tx, generation, version| {
        let secrets = vec![SecretUse { name: "API_KEY".into(), secret_id: id("sec_1"), version }];
        let new = Deployment {
            id: format!("dep_01j0000000000000000000000{generation}").parse().unwrap(),
            generation,
            secrets,
            ..first.clone()
        };
        deployment::insert(tx, &new).await.unwrap();
    };
    used(&mut tx, 2, 1).await;
    used(&mut tx, 3, 2).await;
    (found.observed_generation, found.generation) = (2, 3);
    instance::update(&mut tx, &found).await.unwrap();
    let (at, later) = (Timestamp(6), Timestamp(7));
    assert_eq!(replaced_secret::delete_unused(&mut tx, org, later).await.unwrap(), 0, "both generations are in use");
    let listed = replaced_secret::list(&mut tx, org, &[&secret, &id("sec_2")]).await.unwrap();
    let mut listed: Vec<_> = listed.into_iter().map(|found| (found.id, found.version, found.value)).collect();
    listed.sort();
    let row = |version: i64| (format!("sec_1.{version}"), version, format!("sealed-{version}"));
    assert_eq!(listed, [row(1), row(2)], "those of another organisation are not listed");
    found.observed_generation = 3;
    instance::update(&mut tx, &found).await.unwrap();
    assert_eq!(replaced_secret::delete_unused(&mut tx, org, at).await.unwrap(), 0, "it was replaced too recently");
    assert_eq!(replaced_secret::delete_unused(&mut tx, org, later).await.unwrap(), 1, "the first one served before");
    let organizations = [org.clone(), two.organization.clone()];
    assert_eq!(replaced_secret::list_organizations(&mut tx).await.unwrap(), organizations);
    let twice = replaced_secret::insert(&mut tx, org, &secret, (2, "again"), Timestamp(6)).await;
    assert!(twice.unwrap_err().is_unique_violation());
}

waypost_testkit::both!(two_worlds =>
    replaced_values_are_kept_while_a_deployment_uses_them,
    secrets_know_the_instances_that_use_them,
    values_are_replaced_and_read_by_name,
    a_used_secret_cannot_be_deleted,
    names_are_unique_in_an_organisation,
);
