//! Databases that are migrated once per test process and copied for each test, because applying every migration takes
//! longer than most tests.

use std::sync::OnceLock;

use waypost_store::Db;

/// Returns the bytes of a SQLite file with every migration applied.
#[expect(clippy::expect_used, reason = "tests require a database")]
pub(crate) fn sqlite() -> &'static [u8] {
    static TEMPLATE: OnceLock<Vec<u8>> = OnceLock::new();
    TEMPLATE.get_or_init(|| {
        let folder = crate::folder();
        let url = crate::empty_sqlite_url(&folder);
        migrate(&url);
        std::fs::read(crate::sqlite_file(&folder)).expect("the file can be read")
    })
}

/// Applies every migration to the database at `url` and closes it.
#[expect(clippy::expect_used, reason = "tests require a database")]
pub(crate) fn migrate(url: &str) {
    block_on(async {
        let db = Db::open(url).await?;
        waypost_store::migrate::migrate(&db).await?;
        db.close().await;
        Ok::<_, waypost_store::Error>(())
    })
    .expect("a new database can be migrated");
}

/// Runs a future to completion on a separate thread, because the caller may be inside a runtime, where blocking is not
/// allowed.
#[expect(clippy::expect_used, reason = "tests require a database")]
pub(crate) fn block_on<T: Send>(future: impl Future<Output = T> + Send) -> T {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime can be built").block_on(future)
        });
        thread.join().expect("the thread does not panic")
    })
}
