//! Databases for tests: a separate PostgreSQL cluster, SQLite files, and a macro to run a test on both.
//!
//! A test is written once, as a function that takes an open database, and registered with the macro:
//!
//! ```text
//! async fn finds_by_slug(db: Db) { … }
//! waypost_testkit::both!(open => finds_by_slug);
//! ```
//!
//! This creates the tests `finds_by_slug::sqlite` and `finds_by_slug::postgres`. On a machine without PostgreSQL, the
//! second one is ignored, with the reason. The crate's build script detects PostgreSQL:
//!
//! ```text
//! #[path = "../testkit/probe.rs"]
//! mod probe;
//! fn main() {
//!     probe::emit();
//! }
//! ```

mod cluster;
#[path = "../probe.rs"]
mod probe;
mod template;

use std::path::PathBuf;

pub use probe::{Browser, Conformance, browser, conformance};
pub use tempfile::TempDir;

/// Creates a database with every migration applied on this process's own PostgreSQL, which the first call starts, and
/// returns its URL.
///
/// # Panics
/// If PostgreSQL is not installed or does not start: a test that needs it is ignored where it is missing.
#[must_use]
pub fn postgres_url() -> String {
    cluster::migrated_database()
}

/// Like [`postgres_url`], without tables.
///
/// # Panics
/// See [`postgres_url`].
#[must_use]
pub fn empty_postgres_url() -> String {
    cluster::empty_database()
}

/// Creates a SQLite file with every migration applied in `folder` and returns its URL. A file that exists is kept as it
/// is.
///
/// # Panics
/// If the file cannot be written or the folder's name is not UTF-8.
#[must_use]
#[expect(clippy::expect_used, reason = "a test cannot go on without")]
pub fn sqlite_url(folder: &TempDir) -> String {
    let file = sqlite_file(folder);
    if !file.exists() {
        std::fs::write(file, template::sqlite()).expect("a file can be written into the temporary folder");
    }
    empty_sqlite_url(folder)
}

/// The URL of a SQLite file in `folder`, which [`sqlite_url`] or the program under test creates.
///
/// # Panics
/// If the folder's name is not UTF-8.
#[must_use]
pub fn empty_sqlite_url(folder: &TempDir) -> String {
    let file = sqlite_file(folder);
    #[expect(clippy::expect_used, reason = "a test cannot go on without")]
    let file = file.to_str().expect("the folder for temporary files has a name in UTF-8");
    format!("sqlite://{file}")
}

fn sqlite_file(folder: &TempDir) -> PathBuf {
    folder.path().join("waypost.db")
}

/// A new folder for a test's files, removed when it is dropped.
///
/// # Panics
/// If it cannot be created.
#[must_use]
pub fn folder() -> TempDir {
    #[expect(clippy::expect_used, reason = "a test cannot go on without")]
    TempDir::new().expect("a folder for temporary files")
}

/// Creates two tests of each function, `NAME::sqlite` and `NAME::postgres`.
///
/// `open` is an async function of the same module from a database's URL to what the tests take. The database has every
/// migration applied; with `empty open => …` it has no tables.
#[macro_export]
macro_rules! both {
    (empty $open:ident => $($test:ident),+ $(,)?) => {
        $crate::both!(@ empty_sqlite_url empty_postgres_url $open => $($test),+);
    };
    ($open:ident => $($test:ident),+ $(,)?) => {
        $crate::both!(@ sqlite_url postgres_url $open => $($test),+);
    };
    (@ $sqlite:ident $postgres:ident $open:ident => $($test:ident),+) => {$(
        mod $test {
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn sqlite() {
                let folder = $crate::folder();
                super::$test(super::$open(&$crate::$sqlite(&folder)).await).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            #[cfg_attr(not(have_postgres), ignore = "needs PostgreSQL")]
            async fn postgres() {
                super::$test(super::$open(&$crate::$postgres()).await).await;
            }
        }
    )+};
}
