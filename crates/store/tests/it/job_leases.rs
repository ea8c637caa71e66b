//! Leases of background jobs.

use waypost_store::{Db, job_lease};

use crate::fixture::NOW;
use crate::open;

async fn acquire(db: &Db, name: &str, owner: &str, after_s: i64) -> bool {
    let mut tx = db.begin().await.unwrap();
    let now = NOW.plus(after_s * 1_000);
    let held = job_lease::acquire(&mut tx, name, owner, now, now.plus(60_000)).await.unwrap();
    tx.commit().await.unwrap();
    held
}

/// A lease has one owner, who can renew it until it expires or is released.
async fn a_lease_has_one_owner(db: Db) {
    assert!(acquire(&db, "packing", "a", 0).await);
    assert!(!acquire(&db, "packing", "b", 0).await);
    assert!(acquire(&db, "expiry", "b", 0).await, "each job has its own lease");
    assert!(acquire(&db, "packing", "a", 50).await, "renewed");
    assert!(!acquire(&db, "packing", "b", 109).await);
    assert!(acquire(&db, "packing", "b", 110).await, "expired");
    assert!(!acquire(&db, "packing", "a", 110).await);
    let mut tx = db.begin().await.unwrap();
    job_lease::release(&mut tx, "packing", "a").await.unwrap();
    job_lease::release(&mut tx, "expiry", "b").await.unwrap();
    tx.commit().await.unwrap();
    assert!(!acquire(&db, "packing", "a", 111).await, "the lease of another owner cannot be released");
    assert!(acquire(&db, "expiry", "a", 1).await);
}

/// One of several concurrent requests gets the lease.
async fn one_concurrent_request_gets_the_lease(db: Db) {
    for round in 0..10 {
        let name: &'static str = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j"][round];
        let request = |owner: usize| {
            let db = db.clone();
            tokio::spawn(async move { acquire(&db, name, &format!("owner-{owner}"), 0).await })
        };
        let mut held = 0;
        for task in (0..8).map(request).collect::<Vec<_>>() {
            held += usize::from(task.await.unwrap());
        }
        assert_eq!(held, 1);
    }
}

waypost_testkit::both!(open => a_lease_has_one_owner, one_concurrent_request_gets_the_lease);
