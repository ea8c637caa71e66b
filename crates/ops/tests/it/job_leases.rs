//! Tests of job leases, which replicas share through the database.

use std::sync::Arc;

use waypost_core::clock::ManualClock;
use waypost_core::{SystemRandom, Timestamp};
use waypost_jobs::{LEASE, Leases};
use waypost_ops::job_leases::JobLeases;
use waypost_store::{Db, Dialect, migrate};

async fn open(url: &str) -> Db {
    let db = Db::open(url).await.unwrap();
    migrate::migrate(&db).await.unwrap();
    db
}

/// Only one of two replicas holds the lease, until the lease is released or expires. With SQLite there are no replicas,
/// so the only process holds every lease.
async fn only_one_replica_holds_a_lease(db: Db) {
    let clock = Arc::new(ManualClock::new(Timestamp(1_795_000_000_000)));
    let [a, b] = [(); 2].map(|()| JobLeases::new(db.clone(), clock.clone(), &SystemRandom));
    let is_sqlite = db.dialect() == Dialect::Sqlite;
    assert!(a.acquire("packing", LEASE).await.unwrap());
    assert_eq!(b.acquire("packing", LEASE).await.unwrap(), is_sqlite);
    clock.advance(i64::try_from(LEASE.as_millis()).unwrap());
    assert!(b.acquire("packing", LEASE).await.unwrap(), "the lease of a crashed replica expires");
    assert_eq!(a.acquire("packing", LEASE).await.unwrap(), is_sqlite);
    b.release("packing").await.unwrap();
    assert!(a.acquire("packing", LEASE).await.unwrap());
}

waypost_testkit::both!(extended open => only_one_replica_holds_a_lease);
