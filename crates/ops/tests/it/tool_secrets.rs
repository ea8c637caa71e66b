//! Tests of the secrets of tool servers.

use serde_json::json;
use waypost_core::id::{OrganizationId, ToolSecretId};
use waypost_core::organization::Role;
use waypost_core::seal::{Keyring, SecretText};
use waypost_core::secret::SecretKey;
use waypost_core::tool_secret::{MAX_SECRETS, MAX_VALUE};
use waypost_core::{Code, Error};
use waypost_ops::{Ops, secret_key, tool_secrets};
use waypost_store::{audit, sealed};

use crate::fixture::{Fixture, set_up};

waypost_testkit::both!(extended set_up =>
    a_value_is_written_but_never_shown,
    a_secret_in_use_cannot_be_deleted,
    the_limit_is_exact_under_concurrency,
    values_are_resealed_with_the_key,
);

const VALUE: &str = "hunter2-planted-value";

fn value(text: &str) -> SecretText {
    SecretText::new(text)
}

#[track_caller]
fn assert_rejected<T: std::fmt::Debug>(result: Result<T, Error>, code: Code, words: &str) -> Error {
    let error = result.unwrap_err();
    assert_eq!(error.code, code, "{error}");
    assert!(error.message.contains(words) && !error.message.contains(VALUE), "{error}");
    error
}

fn ops(fixture: &Fixture) -> Ops {
    fixture.ops.clone().with_keyring(Keyring::new(&SecretKey::new([1; 32]), None))
}

async fn a_value_is_written_but_never_shown(fixture: Fixture) {
    let (acme, other) = (fixture.create_tenant("acme").await, fixture.create_tenant("other").await);
    let (org, ops) = (&acme.organization.id, &ops(&fixture));
    let cx = &fixture.member_context(org, Role::Admin);
    let created = tool_secrets::create(cx, ops, org, "TOKEN", &value(VALUE)).await.unwrap();
    assert_eq!((created.version, created.rotated_at, &created.used_by[..]), (1, None, &[][..]));
    assert_eq!(tool_secrets::resolve(cx, ops, org, "TOKEN").await.unwrap(), created);
    assert_eq!(tool_secrets::resolve(cx, ops, org, created.id.as_str()).await.unwrap(), created);
    let taken = tool_secrets::create(cx, ops, org, "TOKEN", &value(VALUE)).await;
    assert_rejected(taken, Code::Conflict, "`TOKEN` already exists");
    for name in ["", "a b", "sec_0123456789abcdef"] {
        let result = tool_secrets::create(cx, ops, org, name, &value(VALUE)).await;
        assert_eq!(assert_rejected(result, Code::InvalidArguments, "`name`").details["field"], "name");
    }
    for (text, words) in [(String::new(), "is empty"), (VALUE.repeat(MAX_VALUE), "maximum is 65536")] {
        let result = tool_secrets::create(cx, ops, org, "OTHER", &value(&text)).await;
        assert_rejected(result, Code::InvalidArguments, words);
        let result = tool_secrets::rotate(cx, ops, org, &created.id, &value(&text)).await;
        assert_rejected(result, Code::InvalidArguments, words);
    }
    let rotated = tool_secrets::rotate(cx, ops, org, &created.id, &value("new")).await.unwrap();
    assert_eq!((rotated.version, rotated.rotated_at), (2, Some(cx.now())));
    for name in ["A", "B"] {
        tool_secrets::create(cx, ops, org, name, &value(VALUE)).await.unwrap();
    }
    let first = tool_secrets::list(cx, ops, org, 2, None).await.unwrap();
    let names: Vec<_> = first.items.iter().map(|secret| secret.name.as_str()).collect();
    assert_eq!((&names[..], first.next_cursor.as_deref()), (&["A", "B"][..], Some("B")));
    let rest = tool_secrets::list(cx, ops, org, 2, first.next_cursor.as_deref()).await.unwrap();
    assert_eq!((rest.items, rest.next_cursor), (vec![rotated.clone()], None));
    assert_rejected(tool_secrets::list(cx, ops, org, 0, None).await, Code::InvalidArguments, "`limit`");
    assert_rejected(tool_secrets::list(cx, ops, org, 1, Some("'")).await, Code::InvalidArguments, "`cursor`");
    let outsider = &fixture.member_context(&other.organization.id, Role::Owner);
    for org in [org, &other.organization.id] {
        assert_rejected(tool_secrets::get(outsider, ops, org, &created.id).await, Code::NotFound, "no such");
        assert_rejected(
            tool_secrets::rotate(outsider, ops, org, &created.id, &value("x")).await,
            Code::NotFound,
            "no such",
        );
        assert_rejected(tool_secrets::delete(outsider, ops, org, &created.id).await, Code::NotFound, "no such");
    }
    tool_secrets::delete(cx, ops, org, &created.id).await.unwrap();
    assert_rejected(tool_secrets::delete(cx, ops, org, &created.id).await, Code::NotFound, "no such secret");
    let events = audit::list(&mut ops.store().read().await.unwrap(), org, None, 100).await.unwrap();
    let events: Vec<_> = events.into_iter().filter(|event| event.act.starts_with("tool_secret.")).collect();
    let mut acts: Vec<_> = events.iter().map(|event| event.act.as_str()).collect();
    acts.sort_unstable();
    let create = "tool_secret.create";
    assert_eq!(acts, [create, create, create, "tool_secret.delete", "tool_secret.rotate"]);
    assert!(events.iter().all(|event| !format!("{event:?}").contains(VALUE)), "{events:?}");
}

/// Users are instances, by a declared secret or by the registry of their image, and entries that name the secret.
async fn a_secret_in_use_cannot_be_deleted(fixture: Fixture) {
    let acme = fixture.create_tenant("acme").await;
    let (org, ops, cx) = (&acme.organization.id, &ops(&fixture), &fixture.cx);
    let token = tool_secrets::create(cx, ops, org, "TOKEN", &value("t")).await.unwrap();
    let registry = tool_secrets::create(cx, ops, org, "REGISTRY", &value("u:p")).await.unwrap();
    fixture.create_instance(org, "REGISTRY").await;
    fixture
        .execute(format!(
            "INSERT INTO instance_secrets (instance_id, name, organization_id, secret_id, version, attempted_version)
             VALUES ('ins_acme', 'API_KEY', '{org}', '{}', 1, 0)",
            token.id
        ))
        .await;
    let token = tool_secrets::get(cx, ops, org, &token.id).await.unwrap();
    let slugs: Vec<_> = token.used_by.iter().map(|user| (user.instance_id.as_str(), user.slug.as_str())).collect();
    assert_eq!(slugs, [("ins_acme", "search")]);
    let error = tool_secrets::delete(cx, ops, org, &token.id).await;
    let error =
        assert_rejected(error, Code::Conflict, "These instances use this secret: `search`. Change or delete them");
    assert_eq!((&error.details["instances"], &error.details["catalog"]), (&json!(["search"]), &json!([])));
    let error = tool_secrets::delete(cx, ops, org, &registry.id).await;
    let error = assert_rejected(error, Code::Conflict, "These catalogue entries use it as `registry_secret`: `entry`.");
    assert_eq!(error.details["instances"], json!(["search"]));
    let rotated = tool_secrets::rotate(cx, ops, org, &token.id, &value("u")).await.unwrap();
    assert_eq!(rotated.used_by, token.used_by, "these instances have to be restarted");
    fixture.execute("DELETE FROM instances".to_owned()).await;
    tool_secrets::delete(cx, ops, org, &token.id).await.unwrap();
    let error = tool_secrets::delete(cx, ops, org, &registry.id).await;
    assert_rejected(error, Code::Conflict, "These catalogue entries use it as `registry_secret`: `entry`. Change");
    fixture.execute("DELETE FROM catalog_entries".to_owned()).await;
    tool_secrets::delete(cx, ops, org, &registry.id).await.unwrap();
}

async fn fill(fixture: &Fixture, org: &OrganizationId, count: usize) {
    let rows: Vec<_> =
        (0..count).map(|n| format!("('sec_{n:0>16}', '{org}', 'S{n:0>4}', 'sealed', 1, 1, NULL)")).collect();
    fixture.execute(format!("INSERT INTO tool_secrets VALUES {}", rows.join(", "))).await;
}

async fn the_limit_is_exact_under_concurrency(fixture: Fixture) {
    let acme = fixture.create_tenant("acme").await;
    let (org, ops, cx) = (&acme.organization.id, &ops(&fixture), &fixture.cx);
    fill(&fixture, org, MAX_SECRETS - 3).await;
    let tasks = (0..10).map(|n| {
        let (cx, ops, org) = (cx.clone(), ops.clone(), org.clone());
        tokio::spawn(async move { tool_secrets::create(&cx, &ops, &org, &format!("NEW{n}"), &value("x")).await })
    });
    let mut created = 0;
    for result in futures::future::join_all(tasks.collect::<Vec<_>>()).await {
        match result.unwrap() {
            Ok(_) => created += 1,
            Err(error) => drop(assert_rejected(Err::<(), _>(error), Code::Conflict, "at most 1000 secrets")),
        }
    }
    assert_eq!(created, 3);
    tool_secrets::delete(cx, ops, org, &ToolSecretId::from_store(format!("sec_{:0>16}", 0))).await.unwrap();
    tool_secrets::create(cx, ops, org, "AGAIN", &value("x")).await.unwrap();
}

async fn values_are_resealed_with_the_key(fixture: Fixture) {
    let acme = fixture.create_tenant("acme").await;
    let (org, cx) = (&acme.organization.id, &fixture.cx);
    let created = tool_secrets::create(cx, &ops(&fixture), org, "TOKEN", &value(VALUE)).await.unwrap();
    let keyring = Keyring::new(&SecretKey::new([2; 32]), Some(&SecretKey::new([1; 32])));
    let ops = &fixture.ops.clone().with_keyring(keyring.clone());
    assert_eq!(secret_key::reseal(cx, ops, &keyring).await.unwrap().resealed, 1);
    let column = sealed::COLUMNS.iter().find(|column| column.label == "tool_secrets").unwrap();
    let mut conn = ops.store().read().await.unwrap();
    let rows = sealed::list_outdated(&mut conn, column, "", "none", 10).await.unwrap();
    assert!(rows.len() == 1 && rows[0].0 == created.id.as_str() && keyring.is_current(&rows[0].1));
    assert!(!rows[0].1.contains(VALUE));
}
