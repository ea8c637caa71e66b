//! The tables of the database. They are read from the database catalogue, so that backups include new tables
//! automatically.

use std::collections::BTreeMap;

use sqlx::AssertSqlSafe;

use crate::db::{Conn, Dialect};
use crate::error::{Error, Result};
use crate::on;

/// Tables that are not backed up: the migrations (the header contains the schema version), the configuration version
/// and the last changes of the organisations (they only increase), and leases and links (they belong to processes).
const EXCLUDED: &str = "('_sqlx_migrations', 'config_version', 'organization_changes', 'job_leases', 'toolbox_links')";

/// A column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Column {
    pub name: String,
    is_text: bool,
    is_boolean: bool,
    /// The position in the primary key, starting at 1; 0 if the column is not part of it.
    key: i64,
}

/// A table with its columns in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Table {
    pub name: String,
    pub columns: Vec<Column>,
}

impl Table {
    /// Returns a query for all rows as JSON objects, ordered by primary key. Both databases return identical JSON.
    pub fn select(&self, dialect: Dialect) -> String {
        let mut key: Vec<_> = self.columns.iter().filter(|column| column.key > 0).collect();
        key.sort_by_key(|column| column.key);
        let order = |collation: &str| {
            let terms =
                key.iter().map(|column| format!("\"{}\"{}", column.name, if column.is_text { collation } else { "" }));
            terms.collect::<Vec<_>>().join(", ")
        };
        let name = &self.name;
        match dialect {
            Dialect::Sqlite => {
                let members = self.columns.iter().map(|column| format!("'{0}', \"{0}\"", column.name));
                let members = members.collect::<Vec<_>>().join(", ");
                format!("SELECT json_object({members}) FROM \"{name}\" ORDER BY {}", order(""))
            }
            Dialect::Postgres => {
                // SQLite stores booleans as 0 and 1, and compares text by bytes.
                let columns = self.columns.iter().map(|column| {
                    let cast = if column.is_boolean { "::int" } else { "" };
                    format!("\"{0}\"{cast} AS \"{0}\"", column.name)
                });
                let columns = columns.collect::<Vec<_>>().join(", ");
                let order = order(" COLLATE \"C\"");
                format!(
                    "SELECT row_to_json(r)::text FROM (SELECT {columns} FROM (SELECT * FROM \"{name}\" ORDER BY {order}) AS sorted) AS r"
                )
            }
        }
    }

    /// Returns a statement that inserts the rows of the JSON array `$1`.
    pub fn insert(&self, dialect: Dialect) -> String {
        let name = &self.name;
        let list: Vec<_> = self.columns.iter().map(|column| format!("\"{}\"", column.name)).collect();
        let list = list.join(", ");
        match dialect {
            Dialect::Sqlite => {
                let values: Vec<_> = self.columns.iter().map(|column| format!("value ->> '{}'", column.name)).collect();
                format!("INSERT INTO \"{name}\" ({list}) SELECT {} FROM json_each($1)", values.join(", "))
            }
            Dialect::Postgres => {
                format!(
                    "INSERT INTO \"{name}\" ({list}) SELECT {list} FROM json_populate_recordset(NULL::\"{name}\", $1::json)"
                )
            }
        }
    }
}

/// Returns all tables to back up, each after the tables that it references.
pub(super) async fn read_tables(conn: &mut Conn) -> Result<Vec<Table>> {
    let mut tables: BTreeMap<String, Table> = BTreeMap::new();
    for (table, name, kind, key) in read_columns(conn).await? {
        let kind = kind.to_ascii_lowercase();
        let column = Column { name, is_text: kind == "text", is_boolean: kind == "boolean", key };
        tables.entry(table.clone()).or_insert_with(|| Table { name: table, columns: Vec::new() }).columns.push(column);
    }
    let references = read_references(conn).await?;
    let order = sort(tables.keys().map(String::as_str).collect(), &references)?;
    Ok(order.into_iter().filter_map(|name| tables.remove(&name)).collect())
}

/// Returns the table, name, type and primary key position of every column.
async fn read_columns(conn: &mut Conn) -> Result<Vec<(String, String, String, i64)>> {
    let sql = match conn.dialect() {
        Dialect::Sqlite => format!(
            "SELECT m.name, c.name, c.type, c.pk FROM sqlite_schema AS m JOIN pragma_table_info(m.name) AS c
             WHERE m.type = 'table' AND m.name NOT LIKE 'sqlite~_%' ESCAPE '~' AND m.name NOT IN {EXCLUDED}
             ORDER BY m.name, c.cid"
        ),
        Dialect::Postgres => format!(
            "SELECT c.relname::text, a.attname::text, a.atttypid::regtype::text,
                    coalesce(array_position(i.indkey::int2[], a.attnum) + 1, 0)::bigint
             FROM pg_class AS c
             JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
             LEFT JOIN pg_index AS i ON i.indrelid = c.oid AND i.indisprimary
             WHERE c.relkind = 'r' AND c.relnamespace = current_schema()::regnamespace
               AND c.relname NOT IN {EXCLUDED}
             ORDER BY c.relname, a.attnum"
        ),
    };
    Ok(on!(conn, c => sqlx::query_as(AssertSqlSafe(sql)).fetch_all(c).await?))
}

/// A foreign key between two tables.
struct Reference {
    from: String,
    to: String,
    /// Whether the column is nullable. Such a foreign key may be checked at the end of the transaction.
    is_optional: bool,
}

async fn read_references(conn: &mut Conn) -> Result<Vec<Reference>> {
    let sql = match conn.dialect() {
        Dialect::Sqlite => {
            "SELECT m.name, f.\"table\", c.\"notnull\" FROM sqlite_schema AS m
             JOIN pragma_foreign_key_list(m.name) AS f
             JOIN pragma_table_info(m.name) AS c ON c.name = f.\"from\"
             WHERE m.type = 'table'"
        }
        Dialect::Postgres => {
            "SELECT c.relname::text, r.relname::text, bool_and(a.attnotnull)::int::bigint
             FROM pg_constraint AS k
             JOIN pg_class AS c ON c.oid = k.conrelid
             JOIN pg_class AS r ON r.oid = k.confrelid
             JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum = ANY (k.conkey)
             WHERE k.contype = 'f' AND k.connamespace = current_schema()::regnamespace
             GROUP BY k.oid, c.relname, r.relname"
        }
    };
    let rows: Vec<(String, String, i64)> = on!(conn, c => sqlx::query_as(sql).fetch_all(c).await?);
    Ok(rows.into_iter().map(|(from, to, required)| Reference { from, to, is_optional: required == 0 }).collect())
}

/// Sorts tables so that each one comes after the tables that it references. In a cycle, optional references are
/// ignored: the schema checks them at the end of the transaction.
fn sort(mut waiting: Vec<&str>, references: &[Reference]) -> Result<Vec<String>> {
    let mut order = Vec::with_capacity(waiting.len());
    while !waiting.is_empty() {
        let is_blocked = |table: &str, include_optional: bool| {
            references.iter().any(|reference| {
                let counts = include_optional || !reference.is_optional;
                counts && reference.from == table && reference.to != table && waiting.contains(&reference.to.as_str())
            })
        };
        let next = waiting.iter().position(|table| !is_blocked(table, true));
        let next = next.or_else(|| waiting.iter().position(|table| !is_blocked(table, false)));
        let Some(next) = next else {
            return Err(Error::Backup(format!("the tables {} reference each other in a cycle", waiting.join(", "))));
        };
        order.push(waiting.remove(next).to_owned());
    }
    Ok(order)
}
