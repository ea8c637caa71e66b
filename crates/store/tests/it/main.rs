//! The store on both databases.

mod backup;
mod migrate;

use waypost_store::{Db, migrate as schema};

/// Opens the database at `url` with every migration applied.
async fn open(url: &str) -> Db {
    let db = Db::open(url).await.unwrap();
    schema::migrate(&db).await.unwrap();
    db
}
