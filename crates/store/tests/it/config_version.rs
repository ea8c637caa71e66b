//! The configuration version and the organisations' last changes.

use waypost_core::id::OrganizationId;
use waypost_store::Db;
use waypost_store::config_version::ConfigVersion;

use crate::open;

fn org(n: u32) -> OrganizationId {
    OrganizationId::from_store(format!("org_{n}"))
}

async fn bump(db: &Db, organization: &OrganizationId) {
    let mut tx = db.begin().await.unwrap();
    tx.bump_config_version(organization).await.unwrap();
    tx.commit().await.unwrap();
}

async fn changes_are_listed_since_a_version(db: Db) {
    let first = db.read().await.unwrap().config_version().await.unwrap();
    for n in [1, 2, 1] {
        bump(&db, &org(n)).await;
    }
    let mut tx = db.begin().await.unwrap();
    tx.bump_config_version_for_all().await.unwrap();
    tx.commit().await.unwrap();
    let mut conn = db.read().await.unwrap();
    let ConfigVersion { version, recorded_changes } = conn.config_version().await.unwrap();
    assert_eq!((version - first.version, recorded_changes - first.recorded_changes), (4, 3));
    let (one, two) = ((org(1), first.version + 3), (org(2), first.version + 2));
    assert_eq!(conn.list_changed_organizations(first.version, 9).await.unwrap(), [two.clone(), one.clone()]);
    assert_eq!(conn.list_changed_organizations(first.version, 1).await.unwrap(), [two]);
    assert_eq!(conn.list_changed_organizations(first.version + 2, 9).await.unwrap(), [one]);
    assert_eq!(conn.list_changed_organizations(version, 9).await.unwrap(), []);
}

/// If the later change did not wait, a poll could see its number first and never list the organisation of the earlier
/// change.
async fn a_change_waits_for_the_transaction_of_an_earlier_one(db: Db) {
    let first = db.read().await.unwrap().config_version().await.unwrap().version;
    let mut earlier = db.begin().await.unwrap();
    earlier.bump_config_version(&org(1)).await.unwrap();
    let later = tokio::spawn({
        let db = db.clone();
        async move { bump(&db, &org(2)).await }
    });
    // While the earlier transaction is open, polls see neither change. There are enough polls for the later transaction
    // to overtake the earlier one if it did not wait.
    for _ in 0..200 {
        assert_eq!(db.read().await.unwrap().config_version().await.unwrap().version, first);
        assert!(!later.is_finished());
    }
    earlier.commit().await.unwrap();
    later.await.unwrap();
    let changed = db.read().await.unwrap().list_changed_organizations(first, 9).await.unwrap();
    assert_eq!(changed, [(org(1), first + 1), (org(2), first + 2)]);
}

waypost_testkit::both!(open =>
    changes_are_listed_since_a_version,
    a_change_waits_for_the_transaction_of_an_earlier_one,
);
