//! The schemas of both databases are equal.

use std::collections::BTreeMap;

use waypost_store::Db;

use crate::open;
use crate::schema::{self, Table};

waypost_testkit::needs_postgres! {
    #[tokio::test]
    async fn both_schemas_are_equal() {
        let folder = waypost_testkit::folder();
        let sqlite = open(&waypost_testkit::sqlite_url(&folder)).await;
        let postgres = open(&waypost_testkit::postgres_url()).await;
        let sqlite = schema::read(&mut sqlite.read().await.unwrap()).await;
        let postgres = schema::read(&mut postgres.read().await.unwrap()).await;
        assert!(sqlite.len() >= 17, "the test reads the tables: {:?}", sqlite.keys());
        assert!(sqlite.values().any(|table| table.indexes.iter().any(|(_, unique, partial)| *unique && partial.is_some())));
        let names = |tables: &BTreeMap<String, Table>| tables.keys().cloned().collect::<Vec<_>>();
        assert_eq!(names(&sqlite), names(&postgres));
        for (name, table) in &sqlite {
            assert_eq!(table, &postgres[name], "{name}: SQLite on the left, PostgreSQL on the right");
        }
    }
}

/// A deletion looks up referencing rows. Without an index, it would scan the whole table.
async fn every_foreign_key_has_an_index(db: Db) {
    for (name, table) in schema::read(&mut db.read().await.unwrap()).await {
        for (columns, ..) in &table.foreign_keys {
            let whole = table.indexes.iter().filter(|(_, _, partial)| partial.is_none()).map(|(columns, ..)| columns);
            let covered = whole.chain([&table.primary_key]).any(|index| index.starts_with(columns));
            assert!(covered, "{name}: no index begins with {columns:?}");
        }
    }
}

waypost_testkit::both!(open => every_foreign_key_has_an_index);
