//! A database with a walkthrough that is long enough to be walked for a while, and the folder of an installation.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::json;
use waypost_core::caller::Ctx;
use waypost_core::id::{OrganizationId, ServerId, WalkthroughId};
use waypost_core::transfer;
use waypost_ops::walkthroughs::import::{self, ImportOptions};
use waypost_ops::{Ops, organizations, servers};
use waypost_store::{Db, health, migrate, on};
use waypost_testkit::TempDir;

/// Steps of the walkthrough.
pub const STEPS: usize = 150;
/// How long anything may take that is not measured: generous, because the machine may be busy.
pub const TIMEOUT: Duration = Duration::from_secs(30);

/// An installation: a data folder, a database with content, and what that content is called.
pub struct Installation {
    folder: TempDir,
    /// The database.
    pub url: String,
    /// The organisation of everything.
    pub organization: OrganizationId,
    /// The server `demo`.
    pub server: ServerId,
    /// The walkthrough with [`STEPS`] steps.
    pub walkthrough: WalkthroughId,
}

impl Installation {
    /// On SQLite, in the data folder.
    pub async fn sqlite() -> Self {
        let folder = waypost_testkit::folder();
        let url = waypost_testkit::sqlite_url(&folder);
        Self::fill(folder, url).await
    }

    /// On a schema of its own in PostgreSQL.
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
        // The program is to find the database as a stopped one leaves it.
        ops.db().close().await;
        Self { folder, url, organization, server, walkthrough }
    }

    /// The folder of everything, the database of SQLite among it.
    pub fn data_dir(&self) -> PathBuf {
        self.folder.path().to_owned()
    }

    /// The acts of an operator on the same database, as a command does them beside a running `serve`.
    pub async fn ops(&self) -> Ops {
        Ops::new(Db::open(&self.url).await.unwrap())
    }

    /// Every advance left one completion, one event and one record, all or nothing, and the database is sound.
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

/// A walkthrough to import, whose steps are called `NAME 1`, `NAME 2` and so on.
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
