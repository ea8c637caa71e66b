//! An installation with a long walkthrough, for load tests.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::json;
use waypost_content::transfer;
use waypost_core::caller::Ctx;
use waypost_core::id::{OrganizationId, ServerId, WalkthroughId};
use waypost_ops::walkthroughs::import::{self, ImportOptions};
use waypost_ops::{Ops, organizations, servers};
use waypost_store::{Db, health, migrate, on};
use waypost_testkit::TempDir;

/// The number of steps of the walkthrough.
pub const STEPS: usize = 150;
/// A generous timeout for everything that is not measured.
pub const TIMEOUT: Duration = Duration::from_secs(30);

/// A data folder, a database with content, and the IDs of that content.
pub struct Installation {
    folder: TempDir,
    /// The URL of the database.
    pub url: String,
    /// The organisation.
    pub organization: OrganizationId,
    /// The server `demo`.
    pub server: ServerId,
    /// The walkthrough with [`STEPS`] steps.
    pub walkthrough: WalkthroughId,
}

impl Installation {
    /// Creates an installation on SQLite, in the data folder.
    pub async fn sqlite() -> Self {
        let folder = waypost_testkit::folder();
        let url = waypost_testkit::sqlite_url(&folder);
        Self::fill(folder, url).await
    }

    /// Creates an installation in a new PostgreSQL database.
    pub async fn postgres() -> Self {
        Self::fill(waypost_testkit::folder(), waypost_testkit::postgres_url()).await
    }

    async fn fill(folder: TempDir, url: String) -> Self {
        let db = Db::open(&url).await.unwrap();
        migrate::migrate(&db).await.unwrap();
        let (cx, ops) = (Ctx::operator(), Ops::new(db));
        let organization = organizations::create(&cx, &ops, "demo", None).await.unwrap().id;
        let server =
            servers::create(&cx, &ops, &organization, "demo", &servers::ServerSettings::default()).await.unwrap().id;
        let options = ImportOptions { server: Some("demo".to_owned()), publish: true, ..ImportOptions::default() };
        let file = transfer::parse("long.json", &walkthrough("Step")).unwrap();
        let report = import::import(&cx, &ops, &organization, file, options).await.unwrap();
        let walkthrough = report.id.unwrap();
        // Leaves the database in the same state as a clean stop.
        ops.store().close().await;
        Self { folder, url, organization, server, walkthrough }
    }

    /// Returns the data directory, which contains the SQLite database.
    pub fn data_dir(&self) -> PathBuf {
        self.folder.path().to_owned()
    }

    /// Opens the database for operations, like a command that runs alongside `serve`.
    pub async fn ops(&self) -> Ops {
        Ops::new(Db::open(&self.url).await.unwrap())
    }

    /// Checks that every advance left one completion, one event and one recorded call, and that the database is
    /// consistent.
    pub async fn check(&self, advances: usize) {
        let db = Db::open(&self.url).await.unwrap();
        let health = health::examine(&db).await.unwrap();
        assert!(health.damage.is_empty() && health.orphans.unwrap_or(0) == 0, "{health:?}");
        let counts = [
            "SELECT count(*) FROM step_completions",
            "SELECT count(*) FROM walkthrough_events WHERE kind = 'step_completed'",
            "SELECT count(*) FROM tool_calls WHERE tool = 'next_walkthrough_step' AND outcome = 'ok'",
        ];
        for sql in counts {
            let count: i64 =
                on!(&mut db.read().await.unwrap(), c => sqlx::query_scalar(sql).fetch_one(c).await.unwrap());
            assert_eq!(usize::try_from(count).unwrap(), advances, "{sql}");
        }
        db.close().await;
    }
}

/// Returns a walkthrough document with the step titles `NAME 1`, `NAME 2` and so on.
pub fn walkthrough(name: &str) -> String {
    let steps: Vec<_> = (1..=STEPS)
        .map(|n| {
            let content = format!("Do what step {n} says.");
            json!({
                "key": format!("step-{n}"),
                "title": format!("{name} {n}"),
                "contentFields": { "version": "v1", "contentForUser": content },
            })
        })
        .collect();
    json!({ "version": "1.1", "walkthrough": { "title": "A long way", "type": "course" }, "steps": steps }).to_string()
}
