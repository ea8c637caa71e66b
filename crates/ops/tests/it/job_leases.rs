//! Replicas share the leases of jobs through the database.

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

/// Of two replicas one holds the lease, until it has crashed and the lease has expired. SQLite has no replicas: the one
/// process holds every lease.
async fn replicas_take_turns(db: Db) {
    let clock = Arc::new(ManualClock::new(Timestamp(1_795_000_000_000)));
    let [a, b] = [(); 2].map(|()| JobLeases::new(db.clone(), clock.clone(), &SystemRandom));
    let is_sqlite = db.dialect() == Dialect::Sqlite;
    assert!(a.acquire("packing", LEASE).await.unwrap());
    assert_eq!(b.acquire("packing", LEASE).await.unwrap(), is_sqlite);
    clock.advance(i64::try_from(LEASE.as_millis()).unwrap());
    assert!(b.acquire("packing", LEASE).await.unwrap(), "the lease of a replica that crashed expires");
    assert_eq!(a.acquire("packing", LEASE).await.unwrap(), is_sqlite);
    b.release("packing").await.unwrap();
    assert!(a.acquire("packing", LEASE).await.unwrap());
}

waypost_testkit::both!(open => replicas_take_turns);
