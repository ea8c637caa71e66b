//! Backup and restore, on and between both databases.

use std::io::{Cursor, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};

use sqlx::AssertSqlSafe;
use waypost_core::Timestamp;
use waypost_store::backup::{self, BackupSummary};
use waypost_store::config_version::ConfigVersion;
use waypost_store::migrate::{current_version, known_version, migrate, migrate_to};
use waypost_store::{Db, Dialect, Error, on};
use waypost_testkit::TempDir;

use crate::fixture::sign_in_rows;
use crate::open;

/// Inserts a row into every table, with difficult values: quotes, control characters, non-ASCII characters, strings
/// that look like numbers, the largest integer, both booleans, nulls, a chain of steps, and a cycle of references.
async fn fill(db: &Db) {
    let hard = "'tab\t unit\u{1f} delete\u{7f} \u{2028} 🚀 </script>'";
    let sql = include_str!("content.sql").replace("E_OTHER", hard) + &sign_in_rows(1);
    let mut tx = db.begin().await.unwrap();
    on!(&mut tx, c => sqlx::raw_sql(AssertSqlSafe(sql)).execute(c).await.unwrap().rows_affected());
    tx.commit().await.unwrap();
}

async fn write(db: &Db) -> (Vec<u8>, BackupSummary) {
    let mut bytes = Vec::new();
    let summary = backup::write(db, &mut bytes, Timestamp(0)).await.unwrap();
    (bytes, summary)
}

async fn read(db: &Db, bytes: &[u8]) -> Result<BackupSummary, Error> {
    backup::read(db, &mut Cursor::new(bytes)).await
}

/// Opens an empty database of the same kind, without tables.
async fn open_empty(dialect: Dialect) -> (Db, TempDir) {
    let folder = waypost_testkit::folder();
    let url = match dialect {
        Dialect::Sqlite => waypost_testkit::empty_sqlite_url(&folder),
        Dialect::Postgres => waypost_testkit::empty_postgres_url(),
    };
    (Db::open(&url).await.unwrap(), folder)
}

async fn a_backup_is_restored_completely(db: Db) {
    fill(&db).await;
    let (bytes, summary) = write(&db).await;
    assert!(summary.rows.values().all(|count| *count > 0), "every table needs a row: {:?}", summary.rows);
    assert_eq!(summary.rows["audit_events"], 1203);
    let (copy, _folder) = open_empty(db.dialect()).await;
    assert_eq!(read(&copy, &bytes).await.unwrap(), summary);
    assert_eq!(current_version(&copy).await.unwrap(), known_version(copy.dialect()));
    assert_eq!(write(&copy).await.0, bytes);
    // A migrated empty database is accepted; one with rows is not.
    let (migrated, _folder) = open_empty(db.dialect()).await;
    migrate(&migrated).await.unwrap();
    let before = migrated.read().await.unwrap().config_version().await.unwrap();
    read(&migrated, &bytes).await.unwrap();
    let after = migrated.read().await.unwrap().config_version().await.unwrap();
    assert!(after.unrecorded_changes() > before.unrecorded_changes(), "other processes evict everything");
    let error = read(&migrated, &bytes).await.unwrap_err();
    assert!(matches!(error, Error::NotEmpty { .. }), "{error}");
    assert_eq!(write(&migrated).await.0, bytes);
}

async fn a_damaged_file_changes_nothing(db: Db) {
    fill(&db).await;
    let (bytes, _) = write(&db).await;
    let text = String::from_utf8(bytes).unwrap();
    let (target, _folder) = open_empty(db.dialect()).await;
    let half = &text[..text.len() / 2];
    let whole_lines = &half[..=half.rfind('\n').unwrap()];
    let known = format!("\"schema_version\":{}", known_version(db.dialect()));
    let newer = text.replacen(&known, "\"schema_version\":99", 1);
    let digest = newer.rfind("\"sha256\"").unwrap();
    let trailer = newer[..digest].rfind('\n').unwrap() + 1;
    let newer = format!("{}{{\"rows\":{{}},\"sha256\":\"{}\"}}\n", &newer[..trailer], sha256(&newer[..trailer]));
    for (damaged, expected) in [
        ("", "it is not a Waypost backup"),
        ("{\"a\":1}\n", "it is not a Waypost backup"),
        (half, "truncated"),
        (whole_lines, "truncated"),
        (&text.replacen("\"owner\"", "\"admin\"", 1), "its checksum does not match"),
        (&format!("{text}{text}"), "its checksum does not match"),
        (&text.replacen("\"waypost_backup\":1", "\"waypost_backup\":2", 1), "use a newer version of Waypost"),
        (&newer, "it has schema version 99, but this program supports versions up to"),
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

/// An output that continues only after other transactions have committed.
struct WaitingOutput {
    bytes: Vec<u8>,
    commits: mpsc::Receiver<()>,
    lines: usize,
}

impl Write for WaitingOutput {
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

async fn a_backup_is_a_snapshot_during_writes(db: Db) {
    fill(&db).await;
    let stop = Arc::new(AtomicBool::new(false));
    let (committed, commits) = mpsc::channel();
    let writer = tokio::spawn({
        let (db, stop) = (db.clone(), Arc::clone(&stop));
        async move {
            let mut number = 100;
            while !stop.load(Ordering::SeqCst) {
                // Each transaction inserts a row that the backup reads late and one that it reads early.
                const USER: &str = "INSERT INTO users (id, email, account_key, created_at) VALUES ($1, $1, $1, 1)";
                const MEMBER: &str = "INSERT INTO memberships VALUES ('org_1', $1, 'member', 1)";
                let id = format!("usr_{number}");
                let mut tx = db.begin().await.unwrap();
                on!(&mut tx, c => sqlx::query(USER).bind(&id).execute(c).await.unwrap().rows_affected());
                on!(&mut tx, c => sqlx::query(MEMBER).bind(&id).execute(c).await.unwrap().rows_affected());
                tx.commit().await.unwrap();
                number += 1;
                let _ = committed.send(());
            }
        }
    });
    let mut output = WaitingOutput { bytes: Vec::new(), commits, lines: 0 };
    let summary = backup::write(&db, &mut output, Timestamp(0)).await.unwrap();
    stop.store(true, Ordering::SeqCst);
    writer.await.unwrap();
    assert_eq!(summary.rows["memberships"], summary.rows["users"] + 1, "one user has two memberships");
    let (copy, _folder) = open_empty(db.dialect()).await;
    // The restore checks the references.
    read(&copy, &output.bytes).await.unwrap();
}

/// The tables of sign-in with an identity provider were renamed in schema 32.
async fn a_backup_from_before_a_table_was_renamed_is_restored(url: String) {
    let old = Db::open(&url).await.unwrap();
    migrate_to(&old, 31).await.unwrap();
    let sql = "INSERT INTO organizations (id, slug, name, created_at, updated_at) VALUES ('org_1', 'a', 'A', 1, 1);
        INSERT INTO oauth_configs VALUES
            ('oac_1', 'org_1', 'acme', 'openid', 'https://id.example', 'https://id.example/a', 'https://id.example/t', NULL,
             'https://id.example/k', 'waypost', 'sealed', 'client_secret_basic', 'openid email', 'sub', TRUE, 2, 3);
        INSERT INTO end_users (id, organization_id, created_at) VALUES ('eu_1', 'org_1', 1);
        INSERT INTO identities VALUES ('idn_1', 'org_1', 'eu_1', 'acme', 'sub', NULL, NULL, FALSE, 4, 5);
        INSERT INTO upstream_tokens VALUES ('idn_1', 'org_1', 'oac_1', 'sealed', NULL, 'openid', 27, NULL, 28);";
    let mut tx = old.begin().await.unwrap();
    on!(&mut tx, c => sqlx::raw_sql(sql).execute(c).await.unwrap().rows_affected());
    tx.commit().await.unwrap();
    let (bytes, summary) = write(&old).await;
    assert_eq!((summary.schema_version, summary.rows["upstream_tokens"]), (31, 1));

    let (new, _folder) = open_empty(old.dialect()).await;
    assert_eq!(read(&new, &bytes).await.unwrap(), summary);
    migrate(&new).await.unwrap();
    let (_, after) = write(&new).await;
    assert_eq!((after.schema_version, after.rows["identity_provider_tokens"]), (known_version(new.dialect()), 1));
    assert!(!after.rows.contains_key("upstream_tokens"), "{:?}", after.rows);
    // The restore was recorded at a schema without changes per organisation.
    let empty = ConfigVersion { version: 1, recorded_changes: 0 };
    let version = new.read().await.unwrap().config_version().await.unwrap();
    assert!(version.unrecorded_changes() > empty.unrecorded_changes(), "{version:?}");
}

async fn url(url: &str) -> String {
    url.to_owned()
}

waypost_testkit::both!(empty url => a_backup_from_before_a_table_was_renamed_is_restored);
waypost_testkit::both!(open =>
    a_backup_is_restored_completely,
    a_damaged_file_changes_nothing,
    a_backup_is_a_snapshot_during_writes,
);

waypost_testkit::needs_postgres! {
    #[tokio::test]
    async fn a_backup_moves_between_databases() {
        let folder = waypost_testkit::folder();
        let first = open(&waypost_testkit::sqlite_url(&folder)).await;
        fill(&first).await;
        let (bytes, _) = write(&first).await;
        let (second, _folder) = open_empty(Dialect::Postgres).await;
        read(&second, &bytes).await.unwrap();
        let (moved, _) = write(&second).await;
        assert_eq!(String::from_utf8_lossy(&moved), String::from_utf8_lossy(&bytes));
        let (third, _folder) = open_empty(Dialect::Sqlite).await;
        read(&third, &moved).await.unwrap();
        assert_eq!(write(&third).await.0, bytes);
    }
}
