//! The two connections that write to a SQLite file (src/sqlite.rs).

use std::sync::mpsc;
use std::sync::{Arc, Mutex};

use futures::FutureExt;
use waypost_store::sqlite::SqliteWriter;
use waypost_store::{Db, Error, Result};

use crate::open;

const INSERT: &str =
    "INSERT INTO organizations (id, slug, name, created_at, updated_at) VALUES ('org_1', 'one', 'One', 1, 1)";

fn writer(db: &Db) -> &SqliteWriter {
    let Db::Sqlite { write, .. } = db else { panic!("the database is not SQLite") };
    write
}

/// Returns the number of organisations, as the thread's connection sees it.
async fn count(writer: &SqliteWriter) -> Result<i64> {
    writer.run(|conn| Ok(conn.query_row("SELECT count(*) FROM organizations", (), |row| row.get(0))?)).await
}

#[tokio::test]
async fn the_thread_has_the_settings_of_the_other_connection() {
    let folder = waypost_testkit::folder();
    let db = open(&waypost_testkit::sqlite_url(&folder)).await;
    for name in [
        "journal_mode",
        "synchronous",
        "foreign_keys",
        "temp_store",
        "journal_size_limit",
        "cache_size",
        "busy_timeout",
    ] {
        let sql = format!("SELECT CAST({name} AS TEXT) FROM pragma_{name}");
        let sql = sql.replace("CAST(busy_timeout", "CAST(timeout");
        let mut tx = db.begin().await.unwrap();
        let text = sqlx::AssertSqlSafe(sql.clone());
        let expected: String = waypost_store::on!(&mut tx, c => sqlx::query_scalar(text).fetch_one(c).await.unwrap());
        drop(tx);
        let found = writer(&db).run(move |conn| Ok(conn.query_row(&sql, (), |row| row.get::<_, String>(0))?)).await;
        assert_eq!(found.unwrap(), expected, "{name}");
    }
}

#[tokio::test]
async fn a_panic_or_an_open_transaction_affects_only_its_job() {
    let folder = waypost_testkit::folder();
    let db = open(&waypost_testkit::sqlite_url(&folder)).await;
    let writer = writer(&db);
    for fails in [true, false] {
        let result = writer
            .run(move |conn| {
                conn.execute_batch("BEGIN IMMEDIATE")?;
                conn.execute(INSERT, ())?;
                assert!(!fails, "a fault");
                Ok(())
            })
            .await;
        assert_eq!(result.is_err_and(|error| error.is_unavailable()), fails);
        assert_eq!(count(writer).await.unwrap(), 0);
        db.begin().await.unwrap().commit().await.unwrap();
    }
}

#[tokio::test]
async fn errors_are_classified() {
    let folder = waypost_testkit::folder();
    let url = waypost_testkit::sqlite_url(&folder);
    let db = open(&url).await;
    let execute = |sql: &'static str| writer(&db).run(move |conn| Ok(conn.execute(sql, ())?));
    execute(INSERT).await.unwrap();
    assert!(execute(INSERT).await.unwrap_err().is_unique_violation());
    let error = execute("INSERT INTO end_users (id, organization_id, created_at) VALUES ('eu_1', 'org_9', 1)").await;
    assert!(error.unwrap_err().is_foreign_key_violation());
    let error = execute("PRAGMA query_only = on; ").await.err().map(|error| error.to_string());
    assert_eq!(error, None);
    let error = execute("DELETE FROM organizations").await.unwrap_err();
    assert!(error.is_unavailable(), "{error}");
    assert_eq!(error.code().as_deref(), Some("8"));
}

/// Both connections are used in the order of the requests, one at a time.
#[tokio::test]
async fn the_connections_take_turns() {
    const ROUNDS: usize = 5;
    let folder = waypost_testkit::folder();
    let db = open(&waypost_testkit::sqlite_url(&folder)).await;
    let writer = writer(&db);
    let first = db.begin().await.unwrap();
    let order = Arc::new(Mutex::new(Vec::new()));
    let mut waiting = Vec::new();
    for n in 0..ROUNDS {
        let (db, finished) = (db.clone(), Arc::clone(&order));
        let transaction = async move {
            let tx = db.begin().await.unwrap();
            finished.lock().unwrap().push(2 * n);
            tx.commit().await.unwrap();
        };
        let (writer, finished) = (writer.clone(), Arc::clone(&order));
        let job = async move {
            let work = move |conn: &mut _| {
                // Fails if the other connection has the file's lock.
                let conn: &mut rusqlite::Connection = conn;
                conn.execute_batch("PRAGMA busy_timeout = 0; BEGIN IMMEDIATE; COMMIT")?;
                finished.lock().unwrap().push(2 * n + 1);
                Ok(())
            };
            writer.run(work).await.unwrap();
        };
        waiting.extend([transaction.boxed(), job.boxed()]);
    }
    let mut waiting = futures::future::join_all(waiting);
    assert!(futures::poll!(&mut waiting).is_pending());
    assert!(order.lock().unwrap().is_empty());
    first.commit().await.unwrap();
    waiting.await;
    assert_eq!(*order.lock().unwrap(), (0..2 * ROUNDS).collect::<Vec<_>>());
}

/// A job whose caller has stopped waiting runs to completion, and closing waits for it.
#[tokio::test]
async fn closing_waits_for_the_current_job() {
    let folder = waypost_testkit::folder();
    let url = waypost_testkit::sqlite_url(&folder);
    let db = open(&url).await;
    let writer = writer(&db).clone();
    let (resume, resumed) = mpsc::channel::<()>();
    let mut job = Box::pin(writer.run(move |conn| {
        let _ = resumed.recv();
        Ok(conn.execute(INSERT, ())?)
    }));
    assert!(futures::poll!(&mut job).is_pending());
    drop(job);
    let mut close = Box::pin(db.close());
    assert!(futures::poll!(&mut close).is_pending());
    resume.send(()).unwrap();
    close.await;
    assert!(matches!(count(&writer).await, Err(Error::Database(sqlx::Error::PoolClosed))));
    // The connection that was closed last has run a checkpoint and deleted the log.
    assert!(!folder.path().join("waypost.db-wal").exists());
    assert_eq!(count(self::writer(&open(&url).await)).await.unwrap(), 1);
}
