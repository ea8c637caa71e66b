//! Initial approvals: they work once, and end with their instance.

use waypost_core::id::InstanceId;
use waypost_core::initial_approval::InitialApproval;
use waypost_core::tool_definition::Class;
use waypost_store::initial_approval as store;
use waypost_store::{Db, expired, instance};

use crate::fixture::{Fixture, NOW};
use crate::open;

fn instance_of(number: u32) -> InstanceId {
    InstanceId::from_store(format!("ins_{number}"))
}

async fn seeded(url: &str) -> (Db, Fixture, Fixture) {
    let db = open(url).await;
    let (one, two) = (Fixture::new(1), Fixture::new(2));
    one.seed_with_activity(&db).await;
    two.seed_with_activity(&db).await;
    let mut tx = db.begin().await.unwrap();
    for (fixture, number) in [(&one, 1), (&two, 2)] {
        store::delete(&mut tx, &fixture.organization, &instance_of(number)).await.unwrap();
    }
    tx.commit().await.unwrap();
    (db, one, two)
}

fn approval(fixture: &Fixture) -> InitialApproval {
    InitialApproval {
        instance_id: instance_of(1),
        organization_id: fixture.organization.clone(),
        class: Class::Destructive,
        requested_by: fixture.user.to_string(),
        created_at: NOW,
        expires_at: NOW.plus(1_000),
    }
}

async fn an_approval_is_consumed_by_one_of_many_processes((db, one, two): (Db, Fixture, Fixture)) {
    let new = approval(&one);
    let mut tx = db.begin().await.unwrap();
    store::insert(&mut tx, &new).await.unwrap();
    assert_eq!(store::consume(&mut tx, &two.organization, &new.instance_id).await.unwrap(), None, "another tenant");
    assert!(!store::exists(&mut tx, &two.organization, &new.instance_id).await.unwrap());
    store::delete(&mut tx, &two.organization, &new.instance_id).await.unwrap();
    assert!(store::exists(&mut tx, &one.organization, &new.instance_id).await.unwrap());
    tx.commit().await.unwrap();
    let mut tasks = Vec::new();
    for _ in 0..8 {
        let (db, organization) = (db.clone(), one.organization.clone());
        tasks.push(tokio::spawn(async move {
            let mut tx = db.begin().await.unwrap();
            let consumed = store::consume(&mut tx, &organization, &instance_of(1)).await.unwrap();
            tx.commit().await.unwrap();
            consumed
        }));
    }
    let mut consumed = Vec::new();
    for task in tasks {
        consumed.extend(task.await.unwrap());
    }
    assert_eq!(consumed, [new]);
    let mut tx = db.begin().await.unwrap();
    assert!(!store::exists(&mut tx, &one.organization, &instance_of(1)).await.unwrap());
}

async fn servers_that_serve_calls_are_due((db, one, _): (Db, Fixture, Fixture)) {
    let (new, org) = (approval(&one), &one.organization);
    let mut tx = db.begin().await.unwrap();
    store::insert(&mut tx, &new).await.unwrap();
    let due = async |tx: &mut waypost_store::Tx, at| {
        let found = store::list_due(tx, NOW.plus(at), 9).await.unwrap();
        found.into_iter().map(|due| (due.organization_id, due.instance_id, due.attempts)).collect::<Vec<_>>()
    };
    let found = |attempts| vec![(org.clone(), new.instance_id.clone(), attempts)];
    assert_eq!(due(&mut tx, 0).await, found(0));
    assert_eq!(due(&mut tx, 1_000).await, [], "expired");
    store::postpone(&mut tx, org, &new.instance_id, NOW.plus(500)).await.unwrap();
    assert_eq!(due(&mut tx, 499).await, []);
    assert_eq!(due(&mut tx, 500).await, found(1));
    let mut changed = instance::find(&mut tx, org, &new.instance_id).await.unwrap().unwrap();
    for (state, is_due) in [("deploying", false), ("idle", true), ("unhealthy", true), ("failed", false)] {
        changed.state = state.parse().unwrap();
        instance::update(&mut tx, &changed).await.unwrap();
        assert_eq!(!due(&mut tx, 500).await.is_empty(), is_due, "{state}");
    }
    changed.state = "running".parse().unwrap();
    changed.is_removing = true;
    instance::update(&mut tx, &changed).await.unwrap();
    assert_eq!(due(&mut tx, 500).await, []);
}

async fn an_approval_ends_with_its_instance_and_is_deleted_later((db, one, _): (Db, Fixture, Fixture)) {
    let (new, org) = (approval(&one), &one.organization);
    let mut tx = db.begin().await.unwrap();
    store::insert(&mut tx, &new).await.unwrap();
    let twice = store::insert(&mut tx, &new).await;
    // PostgreSQL rejects every further statement of this transaction.
    assert!(twice.unwrap_err().is_unique_violation());
    drop(tx);
    let mut tx = db.begin().await.unwrap();
    store::insert(&mut tx, &new).await.unwrap();
    expired::delete(&mut tx, new.expires_at, 99).await.unwrap();
    assert!(store::exists(&mut tx, org, &new.instance_id).await.unwrap());
    expired::delete(&mut tx, new.expires_at.plus(1), 99).await.unwrap();
    assert!(!store::exists(&mut tx, org, &new.instance_id).await.unwrap());
    store::insert(&mut tx, &new).await.unwrap();
    instance::delete(&mut tx, org, &new.instance_id).await.unwrap();
    assert!(!store::exists(&mut tx, org, &new.instance_id).await.unwrap());
}

waypost_testkit::both!(seeded => an_approval_is_consumed_by_one_of_many_processes, servers_that_serve_calls_are_due,
    an_approval_ends_with_its_instance_and_is_deleted_later,);
