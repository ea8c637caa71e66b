//! Schema migrations.

use waypost_store::migrate::{check, current_version, known_version, migrate};
use waypost_store::{Db, Error, on};

use crate::open;

async fn url(url: &str) -> String {
    url.to_owned()
}

async fn an_empty_database_is_migrated_once(url: String) {
    let db = Db::open(&url).await.unwrap();
    let known = known_version(db.dialect());
    assert_eq!(current_version(&db).await.unwrap(), 0);
    assert!(matches!(check(&db).await, Err(Error::OlderSchema { found: 0, .. })));
    assert_eq!(migrate(&db).await.unwrap(), (0, known));
    assert_eq!(migrate(&db).await.unwrap(), (known, known));
    check(&db).await.unwrap();
}

async fn several_processes_can_migrate_concurrently(url: String) {
    let mut tasks = Vec::new();
    for _ in 0..6 {
        let url = url.clone();
        // Each task has its own connections, like a process.
        tasks.push(tokio::spawn(async move {
            let db = Db::open(&url).await?;
            migrate(&db).await?;
            check(&db).await
        }));
    }
    for task in tasks {
        task.await.unwrap().unwrap();
    }
}

async fn a_newer_database_is_rejected(db: Db) {
    let known = known_version(db.dialect());
    let mut tx = db.begin().await.unwrap();
    const SQL: &str = "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
        SELECT version + 1, 'later', success, checksum, execution_time FROM _sqlx_migrations WHERE version = $1";
    on!(&mut tx, c => sqlx::query(SQL).bind(known).execute(c).await.unwrap().rows_affected());
    tx.commit().await.unwrap();
    for result in [migrate(&db).await.map(|_| ()), check(&db).await] {
        let error = result.unwrap_err();
        assert!(matches!(error, Error::NewerSchema { found, known: k } if found == known + 1 && k == known), "{error}");
        assert!(error.to_string().contains("use a newer version of Waypost"), "{error}");
    }
}

waypost_testkit::both!(empty url => an_empty_database_is_migrated_once, several_processes_can_migrate_concurrently);
waypost_testkit::both!(open => a_newer_database_is_rejected);
