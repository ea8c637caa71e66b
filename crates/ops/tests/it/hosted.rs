//! A test fixture: a hosted server with a walkthrough, anonymous users and signed-in users.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use tokio::time::Instant;
use waypost_content::transfer;
use waypost_core::caller::Ctx;
use waypost_core::clock::ManualClock;
use waypost_core::id::{EndUserId, OauthGrantId, OrganizationId, ServerId, StepId, WalkthroughId};
use waypost_core::progress::Status;
use waypost_core::progress::operations::SelectOptions;
use waypost_core::random::SystemRandom;
use waypost_core::scope::Scopes;
use waypost_core::secret::SecretKey;
use waypost_core::server::AuthType;
use waypost_core::{Clock, Result, Timestamp};
use waypost_ops::call_records::CallContext;
use waypost_ops::hosting::{Hosting, HostingOptions};
use waypost_ops::identity::{ClientInfo, Credentials, Subject};
use waypost_ops::offers::Offers;
use waypost_ops::progress::{self, PlayRequest, StepResult};
use waypost_ops::servers::{self, ServerSettings};
use waypost_ops::walkthroughs::import::{self, ImportOptions};
use waypost_ops::{Ops, organizations};
use waypost_store::{Db, migrate, on};

/// Number of steps of the walkthrough.
pub const STEPS: u32 = 8;
const START: Timestamp = Timestamp(1_795_000_000_000);
/// The IP address of all clients.
const ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 7));

pub struct HostedTest {
    pub ops: Ops,
    pub cx: Ctx,
    pub clock: Arc<ManualClock>,
    pub hosting: Hosting,
    pub org: OrganizationId,
    pub server: ServerId,
    pub walkthrough: WalkthroughId,
}

/// Creates a hosted server that does not require sign-in.
pub async fn hosted(url: &str) -> HostedTest {
    let db = Db::open(url).await.unwrap();
    migrate::migrate(&db).await.unwrap();
    let clock = Arc::new(ManualClock::new(START));
    let cx = Ctx { clock: clock.clone(), random: Arc::new(SystemRandom), ..Ctx::operator() };
    let hosting = start(db.clone(), clock.clone());
    let ops = Ops::new(db);
    let org = organizations::create(&cx, &ops, "acme", None).await.unwrap().id;
    let server = servers::create(&cx, &ops, &org, "guide", &ServerSettings::default()).await.unwrap().id;
    let titles: Vec<_> = (0..STEPS).map(|index| format!("Step {index}")).collect();
    let walkthrough = publish(&cx, &ops, &org, &titles).await;
    HostedTest { ops, cx, clock, hosting, org, server, walkthrough }
}

/// Starts a `Hosting` with empty caches.
pub fn start(db: Db, clock: Arc<dyn Clock>) -> Hosting {
    let keys = SecretKey::new([7; 32]).into();
    let random = Arc::new(SystemRandom);
    let (hosting, _tasks) =
        Hosting::start(db, HostingOptions { keys, version_cache_bytes: 1024 * 1024, clock, random });
    hosting
}

/// Publishes the walkthrough with the given steps.
async fn publish(cx: &Ctx, ops: &Ops, org: &OrganizationId, titles: &[String]) -> WalkthroughId {
    let steps: Vec<_> = titles
        .iter()
        .map(|title| {
            let fields = serde_json::json!({ "version": "v1", "contentForUser": "Do it." });
            serde_json::json!({ "key": title, "title": title, "contentFields": fields })
        })
        .collect();
    let walkthrough = serde_json::json!({ "title": "Tour", "type": "course" });
    let document = serde_json::json!({ "version": "1.1", "walkthrough": walkthrough, "steps": steps }).to_string();
    let options =
        ImportOptions { publish: true, server: Some("guide".into()), replace: true, ..ImportOptions::default() };
    let file = transfer::parse("tour.json", &document).unwrap();
    import::import(cx, ops, org, file, options).await.unwrap().id.unwrap()
}

impl HostedTest {
    /// Starts another `Hosting` on the same database, with empty caches.
    pub fn restart(&self) -> Hosting {
        start(self.ops.store().clone(), self.clock.clone())
    }

    /// Publishes a version with the given steps.
    pub async fn publish(&self, titles: &[&str]) {
        let titles: Vec<_> = titles.iter().map(|&title| title.to_owned()).collect();
        publish(&self.cx, &self.ops, &self.org, &titles).await;
    }

    pub async fn set_auth_type(&self, auth_type: AuthType) {
        let settings = ServerSettings { auth_type: Some(auth_type), ..ServerSettings::default() };
        servers::update(&self.cx, &self.ops, &self.org, &self.server, &settings).await.unwrap();
    }

    pub async fn offers(&self) -> Arc<Offers> {
        self.hosting.offer_cache().poll().await.unwrap();
        self.hosting.offer_cache().get("guide").await.unwrap()
    }

    /// Creates a signed-in user.
    pub async fn create_user(&self, name: &str) -> Subject {
        let end_user_id = EndUserId::from_store(format!("eu_{name}"));
        self.execute(format!(
            "INSERT INTO end_users (id, organization_id, created_at) VALUES ('{end_user_id}', '{}', 1)",
            self.org
        ))
        .await;
        let grant_id = OauthGrantId::from_store(format!("ogr_{name}"));
        Subject { end_user_id, grant_id, scopes: Scopes::default() }
    }

    pub async fn execute(&self, sql: String) {
        let mut tx = self.ops.store().begin().await.unwrap();
        on!(&mut tx, c => sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(c).await.unwrap().rows_affected());
        tx.commit().await.unwrap();
    }

    /// Returns the rows of a query with one text column.
    pub async fn query_texts(&self, sql: String) -> Vec<String> {
        let mut conn = self.ops.store().read().await.unwrap();
        on!(&mut conn, c => sqlx::query_scalar(sqlx::AssertSqlSafe(sql)).fetch_all(c).await.unwrap())
    }

    pub async fn select(&self, credentials: &Credentials) -> Result<StepResult> {
        let (call, options) = (call(), SelectOptions::default());
        let offers = self.offers().await;
        let play = PlayRequest { offers: &offers, credentials: credentials.clone(), email: None, call: &call };
        progress::select(&self.cx, &self.hosting, &play, self.walkthrough.as_str(), options).await
    }

    pub async fn advance(&self, credentials: &Credentials) -> Result<StepResult> {
        self.advance_with(&self.offers().await, credentials).await
    }

    pub async fn advance_with(&self, offers: &Arc<Offers>, credentials: &Credentials) -> Result<StepResult> {
        let call = call();
        let play = PlayRequest { offers, credentials: credentials.clone(), email: None, call: &call };
        progress::advance(&self.cx, &self.hosting, &play, Some(self.walkthrough.as_str()), None).await
    }

    pub async fn complete(&self, credentials: &Credentials, step: &StepId) -> Result<StepResult> {
        let (call, offers) = (call(), self.offers().await);
        let play = PlayRequest { offers: &offers, credentials: credentials.clone(), email: None, call: &call };
        progress::complete_step(&self.cx, &self.hosting, &play, self.walkthrough.as_str(), step.clone()).await
    }

    pub async fn status(&self, credentials: &Credentials) -> Result<StepResult> {
        let (call, offers) = (call(), self.offers().await);
        let play = PlayRequest { offers: &offers, credentials: credentials.clone(), email: None, call: &call };
        progress::get_status(&self.cx, &self.hosting, &play, self.walkthrough.as_str()).await
    }

    /// Returns the status and percentage of each listed walkthrough.
    pub async fn list(&self, credentials: &Credentials) -> Result<Vec<(Status, u8)>> {
        let (call, offers) = (call(), self.offers().await);
        let play = PlayRequest { offers: &offers, credentials: credentials.clone(), email: None, call: &call };
        let listed = progress::list(&self.cx, &self.hosting, &play).await?;
        Ok(listed.rows.iter().map(|listed| (listed.status, listed.percent)).collect())
    }

    /// Returns the steps of the newest version.
    pub async fn steps(&self) -> Vec<StepId> {
        let offers = self.offers().await;
        let (_, version) =
            progress::get_latest_version(&self.cx, &self.hosting, &offers, self.walkthrough.as_str()).await.unwrap();
        version.steps().iter().map(|step| step.id.clone()).collect()
    }
}

pub fn call() -> CallContext {
    CallContext {
        tool: "test".to_owned(),
        arguments: "{}".to_owned(),
        since: Instant::now(),
        at: START,
        client: ClientInfo::default(),
        protocol_session: None,
        is_test: false,
        address: ADDRESS,
    }
}

/// Returns credentials with only a token.
pub fn with_token(subject: &Subject) -> Credentials {
    Credentials::Subject(subject.clone(), Box::new(Credentials::Nothing))
}

/// Returns credentials with a token and a handle.
pub fn with_handle(subject: &Subject, handle: &str) -> Credentials {
    Credentials::Subject(subject.clone(), Box::new(Credentials::Handle(handle.to_owned())))
}
