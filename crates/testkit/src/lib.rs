//! What tests need of a database: a PostgreSQL of their own, a SQLite file, and one way to run a test on both.
//!
//! A test is written once, as a function of an open database, and listed:
//!
//! ```text
//! async fn finds_by_slug(db: Db) { … }
//! waypost_testkit::both!(open => finds_by_slug);
//! ```
//!
//! That makes the tests `finds_by_slug::sqlite` and `finds_by_slug::postgres`. On a machine without PostgreSQL the
//! second shows as ignored, with the reason. The crate's build script says whether there is one:
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

pub use probe::{Browser, Conformance, browser, conformance};
pub use tempfile::TempDir;

/// The URL of a new, empty schema on this process's own PostgreSQL, which the first call starts.
///
/// # Panics
/// When PostgreSQL is not there or does not start: a test that needs it is ignored where it is missing.
#[must_use]
pub fn postgres_url() -> String {
    cluster::fresh_schema()
}

/// The URL of a SQLite file in `folder`.
///
/// # Panics
/// When the folder's name is not UTF-8.
#[must_use]
pub fn sqlite_url(folder: &TempDir) -> String {
    let folder = folder.path().to_str();
    #[expect(clippy::expect_used, reason = "a test cannot go on without")]
    let folder = folder.expect("the folder for temporary files has a name in UTF-8");
    format!("sqlite://{folder}/waypost.db")
}

/// A new folder for a test's files, removed when it is dropped.
///
/// # Panics
/// When it cannot be made.
#[must_use]
pub fn folder() -> TempDir {
    #[expect(clippy::expect_used, reason = "a test cannot go on without")]
    TempDir::new().expect("a folder for temporary files")
}

/// Makes two tests of each function, `NAME::sqlite` and `NAME::postgres`.
///
/// `open` stands in the same module: an async function from a database's URL to what the tests take.
#[macro_export]
macro_rules! both {
    ($open:ident => $($test:ident),+ $(,)?) => {$(
        mod $test {
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn sqlite() {
                let folder = $crate::folder();
                super::$test(super::$open(&$crate::sqlite_url(&folder)).await).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            #[cfg_attr(not(have_postgres), ignore = "needs PostgreSQL")]
            async fn postgres() {
                super::$test(super::$open(&$crate::postgres_url()).await).await;
            }
        }
    )+};
}
