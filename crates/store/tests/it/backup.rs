//! Backup and restore, on and between both databases.

use std::io::{Cursor, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};

use sqlx::AssertSqlSafe;
use waypost_core::Timestamp;
use waypost_store::backup::{self, Summary};
use waypost_store::migrate::{current_version, known_version};
use waypost_store::{Db, Dialect, Error, on};
use waypost_testkit::TempDir;

use crate::open;
use crate::world::signed_in;

/// A row in every table, with what is hard to carry: quotes, controls, letters beyond ASCII, numbers that look like
/// texts, the largest integer, both booleans, nulls, a chain of steps, a circle of references.
async fn fill(db: &Db) {
    let hard = "'tab\t unit\u{1f} delete\u{7f} \u{2028} 🚀 </script>'";
    let sql = include_str!("content.sql").replace("E_OTHER", hard) + &signed_in(1);
    let mut tx = db.begin().await.unwrap();
    on!(&mut tx, c => sqlx::raw_sql(AssertSqlSafe(sql)).execute(c).await.unwrap().rows_affected());
    tx.commit().await.unwrap();
}

async fn write(db: &Db) -> (Vec<u8>, Summary) {
    let mut bytes = Vec::new();
    let summary = backup::write(db, &mut bytes, Timestamp(0)).await.unwrap();
    (bytes, summary)
}

async fn read(db: &Db, bytes: &[u8]) -> Result<Summary, Error> {
    backup::read(db, &mut Cursor::new(bytes)).await
}

/// An empty database of the same kind, without any tables.
async fn another(dialect: Dialect) -> (Db, TempDir) {
    let folder = waypost_testkit::folder();
    let url = match dialect {
        Dialect::Sqlite => waypost_testkit::empty_sqlite_url(&folder),
        Dialect::Postgres => waypost_testkit::empty_postgres_url(),
    };
    (Db::open(&url).await.unwrap(), folder)
}

async fn comes_back_as_it_was(db: Db) {
    fill(&db).await;
    let (bytes, summary) = write(&db).await;
    assert!(summary.rows.values().all(|count| *count > 0), "a table without a row is not tested: {:?}", summary.rows);
    assert_eq!(summary.rows["audit_events"], 1203);
    let (copy, _folder) = another(db.dialect()).await;
    assert_eq!(read(&copy, &bytes).await.unwrap(), summary);
    assert_eq!(current_version(&copy).await.unwrap(), known_version(copy.dialect()));
    assert_eq!(write(&copy).await.0, bytes);
    // A migrated database without content will also do; one with content will not.
    let (migrated, _folder) = another(db.dialect()).await;
    waypost_store::migrate::migrate(&migrated).await.unwrap();
    let before = migrated.read().await.unwrap().config_version().await.unwrap();
    read(&migrated, &bytes).await.unwrap();
    assert!(migrated.read().await.unwrap().config_version().await.unwrap() > before, "other processes must notice");
    let error = read(&migrated, &bytes).await.unwrap_err();
    assert!(matches!(error, Error::NotEmpty { .. }), "{error}");
    assert_eq!(write(&migrated).await.0, bytes);
}

async fn a_damaged_file_changes_nothing(db: Db) {
    fill(&db).await;
    let (bytes, _) = write(&db).await;
    let text = String::from_utf8(bytes).unwrap();
    let (target, _folder) = another(db.dialect()).await;
    let half = &text[..text.len() / 2];
    let whole_lines = &half[..=half.rfind('\n').unwrap()];
    let known = format!("\"schema_version\":{}", known_version(db.dialect()));
    let newer = text.replacen(&known, "\"schema_version\":99", 1);
    let digest = newer.rfind("\"sha256\"").unwrap();
    let trailer = newer[..digest].rfind('\n').unwrap() + 1;
    let newer = format!("{}{{\"rows\":{{}},\"sha256\":\"{}\"}}\n", &newer[..trailer], sha256(&newer[..trailer]));
    for (damaged, expected) in [
        ("", "it is no backup of Waypost"),
        ("{\"a\":1}\n", "it is no backup of Waypost"),
        (half, "cut short"),
        (whole_lines, "cut short"),
        (&text.replacen("\"owner\"", "\"admin\"", 1), "its checksum differs"),
        (&format!("{text}{text}"), "its checksum differs"),
        (&text.replacen("\"waypost_backup\":1", "\"waypost_backup\":2", 1), "use a newer waypost"),
        (&newer, "it has schema 99, this program knows schemas up to"),
    ] {
        let error = read(&target, damaged.as_bytes()).await.unwrap_err().to_string();
        assert!(error.starts_with("the backup cannot be used") && error.contains(expected), "{expected}: {error}");
        assert_eq!(current_version(&target).await.unwrap(), 0, "{expected}");
    }
    read(&target, text.as_bytes()).await.unwrap();
}

fn sha256(text: &str) -> String {
    use sha2::Digest;
    data_encoding::HEXLOWER.encode(&sha2::Sha256::digest(text))
}

/// Goes on writing only after others have committed meanwhile.
struct Waits {
    bytes: Vec<u8>,
    commits: mpsc::Receiver<()>,
    lines: usize,
}

impl Write for Waits {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if bytes == b"\n" {
            self.lines += 1;
            if self.lines <= 20 {
                self.commits.recv().map_err(std::io::Error::other)?;
            }
        }
        self.bytes.write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

async fn is_of_one_moment_while_others_write(db: Db) {
    fill(&db).await;
    let stop = Arc::new(AtomicBool::new(false));
    let (told, commits) = mpsc::channel();
    let writer = tokio::spawn({
        let (db, stop) = (db.clone(), Arc::clone(&stop));
        async move {
            let mut number = 100;
            while !stop.load(Ordering::SeqCst) {
                // In each transaction a row of a table that the backup reads late and one of a table that it reads early.
                const USER: &str = "INSERT INTO users (id, email, account_key, created_at) VALUES ($1, $1, $1, 1)";
                const MEMBER: &str = "INSERT INTO memberships VALUES ('org_1', $1, 'member', 1)";
                let id = format!("usr_{number}");
                let mut tx = db.begin().await.unwrap();
                on!(&mut tx, c => sqlx::query(USER).bind(&id).execute(c).await.unwrap().rows_affected());
                on!(&mut tx, c => sqlx::query(MEMBER).bind(&id).execute(c).await.unwrap().rows_affected());
                tx.commit().await.unwrap();
                number += 1;
                let _ = told.send(());
            }
        }
    });
    let mut output = Waits { bytes: Vec::new(), commits, lines: 0 };
    let summary = backup::write(&db, &mut output, Timestamp(0)).await.unwrap();
    stop.store(true, Ordering::SeqCst);
    writer.await.unwrap();
    assert_eq!(summary.rows["memberships"], summary.rows["users"] + 1, "one user is in two organisations");
    let (copy, _folder) = another(db.dialect()).await;
    // The references are checked by the restore.
    read(&copy, &output.bytes).await.unwrap();
}

waypost_testkit::both!(open => comes_back_as_it_was, a_damaged_file_changes_nothing, is_of_one_moment_while_others_write);

#[tokio::test]
#[cfg_attr(not(have_postgres), ignore = "needs PostgreSQL")]
async fn moves_between_the_databases() {
    let folder = waypost_testkit::folder();
    let first = open(&waypost_testkit::sqlite_url(&folder)).await;
    fill(&first).await;
    let (bytes, _) = write(&first).await;
    let (second, _folder) = another(Dialect::Postgres).await;
    read(&second, &bytes).await.unwrap();
    let (there, _) = write(&second).await;
    assert_eq!(String::from_utf8_lossy(&there), String::from_utf8_lossy(&bytes));
    let (third, _folder) = another(Dialect::Sqlite).await;
    read(&third, &there).await.unwrap();
    assert_eq!(write(&third).await.0, bytes);
}
