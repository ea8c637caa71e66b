//! Reads the schema of a database in the same form for both databases.

use std::collections::{BTreeMap, BTreeSet};

use waypost_store::{Conn, Dialect, on};

/// A foreign key: columns, referenced table, its columns, action on deletion, whether it is checked at commit.
pub type ForeignKey = (Vec<String>, String, Vec<String>, String, bool);
/// An index: columns, whether it is unique, condition.
pub type Index = (Vec<String>, bool, Option<String>);

/// A table, as both databases must define it.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Table {
    /// The type (`INTEGER` or `TEXT`) and whether it is nullable, by column.
    pub columns: BTreeMap<String, (String, bool)>,
    pub primary_key: Vec<String>,
    pub indexes: BTreeSet<Index>,
    pub foreign_keys: BTreeSet<ForeignKey>,
    pub checks: i64,
}

/// Returns every table by name, except the table of migrations.
pub async fn read(conn: &mut Conn) -> BTreeMap<String, Table> {
    match conn.dialect() {
        Dialect::Sqlite => sqlite(conn).await,
        Dialect::Postgres => postgres(conn).await,
    }
}

/// Returns all rows of a query, with each column as text.
pub async fn rows<const N: usize>(conn: &mut Conn, sql: String) -> Vec<[Option<String>; N]> {
    use sqlx::Row;
    let sql = sqlx::AssertSqlSafe(sql);
    on!(conn, c => sqlx::query(sql).fetch_all(c).await.unwrap().iter()
        .map(|row| std::array::from_fn(|at| row.get::<Option<String>, _>(at))).collect())
}

fn list(text: &Option<String>) -> Vec<String> {
    text.iter().flat_map(|text| text.split(',')).map(|name| name.trim().trim_matches('"').to_owned()).collect()
}

fn condition(text: &str) -> String {
    text.to_lowercase().replace(['(', ')'], "").split_whitespace().collect::<Vec<_>>().join(" ")
}

async fn sqlite(conn: &mut Conn) -> BTreeMap<String, Table> {
    let mut tables = BTreeMap::new();
    let names = "SELECT name, sql FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'
        AND name <> '_sqlx_migrations'";
    for [name, text] in rows::<2>(conn, names.to_owned()).await {
        let (name, text) = (name.unwrap(), text.unwrap());
        let mut table = Table { checks: text.matches("CHECK (").count() as i64, ..Table::default() };
        let columns = format!(
            "SELECT name, type, CAST(\"notnull\" AS TEXT), CAST(pk AS TEXT) FROM pragma_table_info('{name}') ORDER BY pk"
        );
        for [column, kind, not_null, key] in rows::<4>(conn, columns).await {
            let column = column.unwrap();
            if key.as_deref() != Some("0") {
                table.primary_key.push(column.clone());
            }
            table.columns.insert(column, (kind.unwrap(), not_null.as_deref() == Some("0")));
        }
        let indexes = format!(
            "SELECT (SELECT group_concat(name) FROM (SELECT name FROM pragma_index_info(i.name) ORDER BY seqno)),
                    CAST(i.\"unique\" AS TEXT), (SELECT sql FROM sqlite_master WHERE name = i.name)
             FROM pragma_index_list('{name}') AS i WHERE i.origin <> 'pk'"
        );
        for [columns, unique, sql] in rows::<3>(conn, indexes).await {
            let partial = sql.as_deref().and_then(|sql| sql.split_once(" WHERE ")).map(|(_, text)| condition(text));
            table.indexes.insert((list(&columns), unique.as_deref() == Some("1"), partial));
        }
        let keys = format!("SELECT \"from\", \"table\", \"to\", on_delete FROM pragma_foreign_key_list('{name}')");
        for [from, to_table, to, on_delete] in rows::<4>(conn, keys).await {
            // SQLite provides this only in the text of the table.
            let from = list(&from);
            let deferred = text.lines().any(|line| {
                line.trim().starts_with(&format!("{} ", from[0])) && line.contains("DEFERRABLE INITIALLY DEFERRED")
            });
            table.foreign_keys.insert((from, to_table.unwrap(), list(&to), on_delete.unwrap(), deferred));
        }
        tables.insert(name, table);
    }
    tables
}

async fn postgres(conn: &mut Conn) -> BTreeMap<String, Table> {
    let mut tables: BTreeMap<String, Table> = BTreeMap::new();
    let columns = "SELECT table_name::text, column_name::text, data_type::text, is_nullable::text
        FROM information_schema.columns WHERE table_schema = current_schema() AND table_name <> '_sqlx_migrations'";
    for [table, column, kind, nullable] in rows::<4>(conn, columns.to_owned()).await {
        let kind = match kind.as_deref().unwrap() {
            // SQLite has no separate type for booleans.
            "bigint" | "boolean" => "INTEGER".to_owned(),
            "text" => "TEXT".to_owned(),
            other => other.to_owned(),
        };
        let nullable = nullable.as_deref() == Some("YES");
        tables.entry(table.unwrap()).or_default().columns.insert(column.unwrap(), (kind, nullable));
    }
    let indexes = "SELECT t.relname::text, i.indisunique::text, i.indisprimary::text,
            pg_get_expr(i.indpred, i.indrelid),
            array_to_string(ARRAY(SELECT pg_get_indexdef(i.indexrelid, k, true)
                FROM generate_series(1, i.indnkeyatts::int) AS k), ',')
        FROM pg_index i JOIN pg_class t ON t.oid = i.indrelid
        WHERE t.relnamespace = current_schema()::regnamespace AND t.relname <> '_sqlx_migrations'";
    for [table, unique, primary, partial, columns] in rows::<5>(conn, indexes.to_owned()).await {
        let table = tables.get_mut(&table.unwrap()).unwrap();
        if primary.as_deref() == Some("true") {
            table.primary_key = list(&columns);
        } else {
            let partial = partial.as_deref().map(|text| condition(text).replace("::text", ""));
            table.indexes.insert((list(&columns), unique.as_deref() == Some("true"), partial));
        }
    }
    let names = |keys: &str, table: &str| {
        format!(
            "(SELECT string_agg(a.attname, ',' ORDER BY k.at) FROM unnest({keys}) WITH ORDINALITY AS k(number, at)
              JOIN pg_attribute a ON a.attrelid = {table} AND a.attnum = k.number)"
        )
    };
    let keys = format!(
        "SELECT t.relname::text, {}, f.relname::text, {}, c.confdeltype::text, c.condeferred::text, c.contype::text
         FROM pg_constraint c JOIN pg_class t ON t.oid = c.conrelid LEFT JOIN pg_class f ON f.oid = c.confrelid
         WHERE t.relnamespace = current_schema()::regnamespace AND c.contype IN ('f', 'c')",
        names("c.conkey", "c.conrelid"),
        names("c.confkey", "c.confrelid")
    );
    for [table, from, to_table, to, on_delete, deferred, kind] in rows::<7>(conn, keys).await {
        let table = tables.get_mut(&table.unwrap()).unwrap();
        if kind.as_deref() == Some("c") {
            table.checks += 1;
            continue;
        }
        let on_delete = match on_delete.as_deref() {
            Some("c") => "CASCADE",
            Some("a") => "NO ACTION",
            Some("n") => "SET NULL",
            other => panic!("unexpected action on deletion: {other:?}"),
        };
        let deferred = deferred.as_deref() == Some("true");
        table.foreign_keys.insert((list(&from), to_table.unwrap(), list(&to), on_delete.to_owned(), deferred));
    }
    tables
}
