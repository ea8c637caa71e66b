//! Connections to the database.

use crate::open;

/// Opening a read connection does not wait for the writer.
#[tokio::test]
async fn readers_are_opened_while_a_transaction_writes() {
    let folder = waypost_testkit::folder();
    let db = open(&waypost_testkit::sqlite_url(&folder)).await;
    let mut writer = db.begin().await.unwrap();
    writer.bump_config_version_for_all().await.unwrap();
    let mut readers = Vec::new();
    for n in 1..=4 {
        let mut reader = db.read().await.unwrap_or_else(|error| panic!("reader {n}: {error}"));
        reader.config_version().await.unwrap();
        readers.push(reader);
    }
}
