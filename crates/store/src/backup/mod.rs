//! Backup and restore. SQLite and PostgreSQL share one format. A backup is read from one snapshot and does not block
//! writers.
//!
//! A backup consists of JSON lines: a header, one line per row, and a trailer with the number of rows per table and the
//! SHA-256 of all bytes before it. A truncated or modified file is rejected completely. Rows are streamed in both
//! directions; at most a few hundred of them are in memory.

mod schema;

use std::collections::BTreeMap;
use std::io::{BufRead, Read, Seek, Write};

use futures::TryStreamExt;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use sqlx::AssertSqlSafe;
use waypost_core::Timestamp;

use crate::db::{Conn, Db, Dialect};
use crate::error::{Error, Result};
use crate::{migrate, on};
use schema::Table;

/// The version of the format.
const FORMAT_VERSION: u32 = 1;
/// The maximum number of rows per insert statement.
const BATCH_ROWS: usize = 500;
/// The approximate maximum size of the rows of an insert statement, in bytes.
const BATCH_BYTES: usize = 4 * 1024 * 1024;
/// The maximum length of a line, in bytes: far more than any row needs.
const MAX_LINE_BYTES: u64 = 64 * 1024 * 1024;

#[derive(Debug, Serialize, Deserialize)]
struct Header {
    waypost_backup: u32,
    schema_version: i64,
    created_at: String,
}

#[derive(Debug, Serialize, Deserialize)]
struct Trailer {
    rows: BTreeMap<String, u64>,
    sha256: String,
}

#[derive(Debug, Deserialize)]
struct Row {
    table: String,
    row: Map<String, Value>,
}

/// The contents of a backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BackupSummary {
    /// The schema version of the rows.
    pub schema_version: i64,
    /// The time of the backup, in RFC 3339.
    pub created_at: String,
    /// The number of rows per table.
    pub rows: BTreeMap<String, u64>,
}

/// Writes a snapshot of the whole database to `output`. `now` is recorded as the time of the backup.
///
/// # Errors
/// Returns an error if reading the database or writing `output` fails. In that case, the output is not a valid backup.
pub async fn write(db: &Db, output: &mut (dyn Write + Send), now: Timestamp) -> Result<BackupSummary> {
    let mut tx = db.snapshot().await?;
    let dialect = tx.dialect();
    let schema_version = migrate::version(&mut tx).await?;
    let mut output = HashingWriter { output, hash: Sha256::new() };
    let header = Header { waypost_backup: FORMAT_VERSION, schema_version, created_at: now.rfc3339() };
    output.write_line(&serde_json::to_string(&header).map_err(write_error)?)?;
    let mut rows = BTreeMap::new();
    for table in schema::read_tables(&mut tx).await? {
        let count = write_table(&mut tx, &table, dialect, &mut output).await?;
        rows.insert(table.name, count);
    }
    let sha256 = data_encoding::HEXLOWER.encode(&output.hash.clone().finalize());
    let trailer = Trailer { rows, sha256 };
    output.write_line(&serde_json::to_string(&trailer).map_err(write_error)?)?;
    output.output.flush().map_err(|source| Error::File { what: "failed to write the backup".to_owned(), source })?;
    Ok(BackupSummary { schema_version, created_at: header.created_at, rows: trailer.rows })
}

async fn write_table(conn: &mut Conn, table: &Table, dialect: Dialect, output: &mut HashingWriter<'_>) -> Result<u64> {
    let sql = table.select(dialect);
    let mut count = 0;
    on!(conn, c => {
        let mut rows = sqlx::query_scalar::<_, String>(AssertSqlSafe(sql)).fetch(c);
        while let Some(row) = rows.try_next().await? {
            output.write_line(&format!("{{\"table\":\"{}\",\"row\":{row}}}", table.name))?;
            count += 1;
        }
    });
    Ok(count)
}

struct HashingWriter<'a> {
    output: &'a mut (dyn Write + Send),
    hash: Sha256,
}

impl HashingWriter<'_> {
    fn write_line(&mut self, line: &str) -> Result<()> {
        self.hash.update(line.as_bytes());
        self.hash.update(b"\n");
        let written = self.output.write_all(line.as_bytes()).and_then(|()| self.output.write_all(b"\n"));
        written.map_err(|source| Error::File { what: "failed to write the backup".to_owned(), source })
    }
}

fn write_error(error: serde_json::Error) -> Error {
    Error::File { what: "failed to write the backup".to_owned(), source: error.into() }
}

/// Restores a backup into an empty database, completely or not at all. A database without tables is first migrated to
/// the backup's schema version; the caller migrates it to the newest version afterwards.
///
/// # Errors
/// Returns an error if the file is damaged or from a newer version of Waypost, or if the database fails or is not
/// empty.
pub async fn read<I: BufRead + Seek + Send>(db: &Db, input: &mut I) -> Result<BackupSummary> {
    // The file is read twice, so that a damaged one is rejected before anything is changed.
    let (header, trailer, last_line) = verify(&mut Lines::new(input))?;
    input.rewind().map_err(read_error)?;
    prepare(db, header.schema_version).await?;
    let mut tx = db.begin().await?;
    let tables = schema::read_tables(&mut tx).await?;
    lock(&mut tx, &tables).await?;
    let mut restore = Restore { dialect: tx.dialect(), tables, batch: Batch::default(), counts: BTreeMap::new() };
    let mut lines = Lines::new(input);
    lines.next()?;
    while lines.number + 1 < last_line
        && let Some(line) = lines.next()?
    {
        let Row { table, row } = serde_json::from_str(&line).map_err(|_| damaged_line(lines.number))?;
        restore.add_row(&mut tx, &table, row, &lines).await?;
    }
    restore.flush(&mut tx).await?;
    if trailer.rows.iter().any(|(table, count)| restore.counts.get(table).copied().unwrap_or(0) != *count) {
        return Err(Error::Backup("the number of rows does not match the trailer".to_owned()));
    }
    tx.bump_config_version_for_all().await?;
    tx.commit().await?;
    Ok(BackupSummary { schema_version: header.schema_version, created_at: header.created_at, rows: trailer.rows })
}

/// Checks that the file is complete and unmodified. Returns its header, its trailer and the number of its last line.
fn verify(input: &mut Lines<'_>) -> Result<(Header, Trailer, u64)> {
    let line = input.next()?.unwrap_or_default();
    let header: Header =
        serde_json::from_str(&line).map_err(|_| Error::Backup("it is not a Waypost backup".to_owned()))?;
    if header.waypost_backup != FORMAT_VERSION {
        let format = header.waypost_backup;
        return Err(Error::Backup(format!(
            "it has format version {format}, but this program supports version {FORMAT_VERSION}: use a newer version of Waypost"
        )));
    }
    let (mut last_line, mut hash_before_last) = (line, input.hash.clone());
    loop {
        let hash = input.hash.clone();
        match input.next()? {
            Some(line) => (last_line, hash_before_last) = (line, hash),
            None => break,
        }
    }
    let trailer: Trailer = serde_json::from_str(&last_line)
        .map_err(|_| Error::Backup("its trailer is missing: it was truncated or modified".to_owned()))?;
    if data_encoding::HEXLOWER.encode(&hash_before_last.finalize()) != trailer.sha256 {
        return Err(Error::Backup("its checksum does not match: it was modified after it was written".to_owned()));
    }
    Ok((header, trailer, input.number))
}

/// Migrates an empty database to the schema version of the backup.
async fn prepare(db: &Db, version: i64) -> Result<()> {
    let (actual, supported) = (migrate::current_version(db).await?, migrate::known_version(db.dialect()));
    if version > supported || version < 1 {
        return Err(Error::Backup(format!(
            "it has schema version {version}, but this program supports versions up to {supported}: use a newer version of Waypost"
        )));
    }
    if actual == 0 {
        return migrate::migrate_to(db, version).await;
    }
    if actual != version {
        return Err(Error::Backup(format!(
            "it has schema version {version}, but the database has version {actual}: restore into a new database"
        )));
    }
    Ok(())
}

/// Locks the tables against other writers and checks that they are empty.
async fn lock(conn: &mut Conn, tables: &[Table]) -> Result<()> {
    let names: Vec<_> = tables.iter().map(|table| format!("\"{}\"", table.name)).collect();
    let sql = match conn.dialect() {
        // The transaction already holds the file's write lock. Foreign keys are checked when it commits.
        Dialect::Sqlite => "PRAGMA defer_foreign_keys = on".to_owned(),
        Dialect::Postgres => format!("LOCK TABLE {} IN SHARE ROW EXCLUSIVE MODE", names.join(", ")),
    };
    on!(conn, c => sqlx::query(AssertSqlSafe(sql)).execute(c).await?.rows_affected());
    for (table, name) in tables.iter().zip(names) {
        let sql = format!("SELECT count(*) FROM (SELECT 1 FROM {name} LIMIT 1) AS first");
        let rows: i64 = on!(conn, c => sqlx::query_scalar(AssertSqlSafe(sql)).fetch_one(c).await?);
        if rows > 0 {
            return Err(Error::NotEmpty { table: table.name.clone() });
        }
    }
    Ok(())
}

#[derive(Default)]
struct Batch {
    table: usize,
    rows: Vec<Value>,
    bytes: usize,
}

struct Restore {
    dialect: Dialect,
    tables: Vec<Table>,
    batch: Batch,
    counts: BTreeMap<String, u64>,
}

impl Restore {
    async fn add_row(&mut self, conn: &mut Conn, name: &str, row: Map<String, Value>, lines: &Lines<'_>) -> Result<()> {
        let (number, bytes) = (lines.number, lines.length);
        let index = self.tables.iter().position(|table| table.name == name).ok_or_else(|| damaged_line(number))?;
        let columns = &self.tables[index].columns;
        if row.len() != columns.len() || !columns.iter().all(|column| row.contains_key(&column.name)) {
            return Err(damaged_line(number));
        }
        if self.batch.table != index || self.batch.rows.len() >= BATCH_ROWS || self.batch.bytes + bytes > BATCH_BYTES {
            self.flush(conn).await?;
        }
        self.batch.table = index;
        self.batch.bytes += bytes;
        self.batch.rows.push(Value::Object(row));
        Ok(())
    }

    async fn flush(&mut self, conn: &mut Conn) -> Result<()> {
        let batch = std::mem::take(&mut self.batch);
        if batch.rows.is_empty() {
            return Ok(());
        }
        let table = &self.tables[batch.table];
        *self.counts.entry(table.name.clone()).or_default() += batch.rows.len() as u64;
        let (sql, rows) = (table.insert(self.dialect), Value::Array(batch.rows).to_string());
        on!(conn, c => sqlx::query(AssertSqlSafe(sql)).bind(rows).execute(c).await?.rows_affected());
        Ok(())
    }
}

fn damaged_line(line: u64) -> Error {
    Error::Backup(format!("line {line} is damaged or belongs to another schema version"))
}

fn read_error(source: std::io::Error) -> Error {
    Error::File { what: "failed to read the backup".to_owned(), source }
}

struct Lines<'a> {
    input: &'a mut (dyn BufRead + Send),
    hash: Sha256,
    /// The number of the line that was read last, starting at 1.
    number: u64,
    /// The length of the line that was read last, in bytes.
    length: usize,
}

impl<'a> Lines<'a> {
    fn new(input: &'a mut (dyn BufRead + Send)) -> Self {
        Self { input, hash: Sha256::new(), number: 0, length: 0 }
    }

    /// Returns the next line without its line feed, or `None` at the end of the file. A line without a line feed was
    /// truncated.
    fn next(&mut self) -> Result<Option<String>> {
        let mut line = Vec::new();
        let read = (&mut *self.input).take(MAX_LINE_BYTES).read_until(b'\n', &mut line).map_err(read_error)?;
        if read == 0 {
            return Ok(None);
        }
        self.number += 1;
        self.length = read;
        self.hash.update(&line);
        if line.pop() != Some(b'\n') {
            return Err(Error::Backup(format!("line {} is truncated", self.number)));
        }
        String::from_utf8(line).map(Some).map_err(|_| damaged_line(self.number))
    }
}
