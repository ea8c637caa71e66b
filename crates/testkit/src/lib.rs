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
//! second one is ignored, with the reason. This crate's build script detects PostgreSQL, so that the crates under test
//! need no build script; [`needs_postgres`], [`needs_strace`], [`needs_docker`] and [`needs_dockerd`] do the same for
//! individual tests. Crates that must not depend on the store use only these, without the feature `databases`.

#[cfg(feature = "databases")]
mod cluster;
mod folders;
#[path = "../probe.rs"]
mod probe;
#[cfg(feature = "databases")]
mod template;

use std::path::PathBuf;

pub use probe::{Browser, Conformance, browser, conformance, docker_socket, samples_folder};
pub use tempfile::TempDir;

/// Creates a database with every migration applied and returns its URL. The first call starts a PostgreSQL cluster for
/// this process.
///
/// # Panics
/// If PostgreSQL is not installed or does not start. Tests that need it are ignored if it is not installed.
#[cfg(feature = "databases")]
#[must_use]
pub fn postgres_url() -> String {
    cluster::migrated_database()
}

/// Like [`postgres_url`], without tables.
///
/// # Panics
/// See [`postgres_url`].
#[cfg(feature = "databases")]
#[must_use]
pub fn empty_postgres_url() -> String {
    cluster::empty_database()
}

/// Creates a SQLite file with every migration applied in `folder` and returns its URL. An existing file is not changed.
///
/// # Panics
/// If the file cannot be written or the path of the folder is not UTF-8.
#[cfg(feature = "databases")]
#[must_use]
#[expect(clippy::expect_used, reason = "tests require it")]
pub fn sqlite_url(folder: &TempDir) -> String {
    let file = sqlite_file(folder);
    if !file.exists() {
        std::fs::write(file, template::sqlite()).expect("the temporary folder is writable");
    }
    empty_sqlite_url(folder)
}

/// Returns the URL of a SQLite file in `folder`, which does not exist yet.
///
/// # Panics
/// If the path of the folder is not UTF-8.
#[must_use]
pub fn empty_sqlite_url(folder: &TempDir) -> String {
    let file = sqlite_file(folder);
    #[expect(clippy::expect_used, reason = "tests require it")]
    let file = file.to_str().expect("the path of the temporary folder is UTF-8");
    format!("sqlite://{file}")
}

fn sqlite_file(folder: &TempDir) -> PathBuf {
    folder.path().join("waypost.db")
}

/// Creates a temporary folder that is removed when dropped, in memory if possible.
///
/// # Panics
/// If the folder cannot be created.
#[must_use]
pub fn folder() -> TempDir {
    #[expect(clippy::expect_used, reason = "tests require it")]
    TempDir::new_in(folders::parent()).expect("a temporary folder can be created")
}

/// Creates two tests for each function, `NAME::sqlite` and `NAME::postgres`.
///
/// `open` is an async function in the same module that takes the URL of a database and returns the argument of the
/// tests. The database has every migration applied; with `empty open => …`, it has no tables.
///
/// With `extended open => …`, the test on PostgreSQL is ignored unless the test program is called with `--ignored` or
/// `--include-ignored`, as in CI. This is for tests above the store: the store's own tests always run on both
/// databases, and the layers above it have no SQL.
#[macro_export]
macro_rules! both {
    (empty $open:ident => $($test:ident),+ $(,)?) => {
        $($crate::both!(@ empty_sqlite_url empty_postgres_url needs_postgres $open => $test);)+
    };
    (extended $open:ident => $($test:ident),+ $(,)?) => {
        $($crate::both!(@ sqlite_url postgres_url extended_on_postgres $open => $test);)+
    };
    ($open:ident => $($test:ident),+ $(,)?) => {
        $($crate::both!(@ sqlite_url postgres_url needs_postgres $open => $test);)+
    };
    (@ $sqlite:ident $postgres:ident $declare:ident $open:ident => $test:ident) => {
        mod $test {
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn sqlite() {
                let folder = $crate::folder();
                super::$test(super::$open(&$crate::$sqlite(&folder)).await).await;
            }

            $crate::$declare! {
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn postgres() {
                    super::$test(super::$open(&$crate::$postgres()).await).await;
                }
            }
        }
    };
}

/// Declares tests that need PostgreSQL. They are ignored where it is not installed.
#[cfg(have_postgres)]
#[macro_export]
macro_rules! needs_postgres {
    ($($test:item)+) => { $($test)+ };
}

/// Declares tests that need PostgreSQL. They are ignored where it is not installed.
#[cfg(not(have_postgres))]
#[macro_export]
macro_rules! needs_postgres {
    ($($test:item)+) => { $(#[ignore = "needs PostgreSQL"] $test)+ };
}

/// Declares tests of [`both!`] with `extended`. They are ignored, with the reason.
#[cfg(have_postgres)]
#[macro_export]
macro_rules! extended_on_postgres {
    ($($test:item)+) => { $(#[ignore = "PostgreSQL above the store: run with --ignored"] $test)+ };
}

/// Declares tests of [`both!`] with `extended`. They are ignored, with the reason.
#[cfg(not(have_postgres))]
#[macro_export]
macro_rules! extended_on_postgres {
    ($($test:item)+) => { $(#[ignore = "needs PostgreSQL"] $test)+ };
}

/// Declares tests that need `strace`. They are ignored where it is not installed.
#[cfg(have_strace)]
#[macro_export]
macro_rules! needs_strace {
    ($($test:item)+) => { $($test)+ };
}

/// Declares tests that need `strace`. They are ignored where it is not installed.
#[cfg(not(have_strace))]
#[macro_export]
macro_rules! needs_strace {
    ($($test:item)+) => { $(#[ignore = "needs strace"] $test)+ };
}

/// Declares tests that need a Docker Engine, Debian's `docker-registry` and root. They are ignored without these.
#[cfg(docker = "ready")]
#[macro_export]
macro_rules! needs_docker {
    ($($test:item)+) => { $($test)+ };
}

/// Declares tests that need a Docker Engine, Debian's `docker-registry` and root. They are ignored without these.
#[cfg(docker = "missing")]
#[macro_export]
macro_rules! needs_docker {
    ($($test:item)+) => { $(#[ignore = "needs Docker"] $test)+ };
}

/// Declares tests that need a Docker Engine, Debian's `docker-registry` and root. They are ignored without these.
#[cfg(docker = "without_root")]
#[macro_export]
macro_rules! needs_docker {
    ($($test:item)+) => { $(#[ignore = "needs Docker and root"] $test)+ };
}

/// Declares tests that need a Docker Engine, Debian's `docker-registry` and root. They are ignored without these.
#[cfg(docker = "without_registry")]
#[macro_export]
macro_rules! needs_docker {
    ($($test:item)+) => { $(#[ignore = "needs Docker and docker-registry"] $test)+ };
}

/// Declares tests that start a Docker Engine of their own and kill it. They are ignored if it cannot be started.
#[cfg(have_dockerd)]
#[macro_export]
macro_rules! needs_dockerd {
    ($($test:item)+) => { $($test)+ };
}

/// Declares tests that start a Docker Engine of their own and kill it. They are ignored if it cannot be started.
#[cfg(not(have_dockerd))]
#[macro_export]
macro_rules! needs_dockerd {
    ($($test:item)+) => { $(#[ignore = "needs root and dockerd"] $test)+ };
}
