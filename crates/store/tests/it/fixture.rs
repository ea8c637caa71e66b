//! Test data: an organisation with rows in every table that reference each other.

use std::sync::Arc;

use waypost_core::id::{
    ApiKeyId, AssignmentId, AuditEventId, EndUserId, OrganizationId, ProgressId, ServerId, StepId, ToolCallId, UserId,
    VersionId, WalkthroughId,
};
use waypost_core::organization::{ApiKey, Organization, Role, User};
use waypost_core::progress::{Attempt, AttemptState, StepSet, VersionOffer};
use waypost_core::server::{AuthType, Server, SignInPolicy, Support, Toolset};
use waypost_core::step::StepContent;
use waypost_core::version::{StoredVersion, Version, VersionStep};
use waypost_core::{Timestamp, assignment::Assignment, audit::AuditEvent};
use waypost_store::progress::ProgressKey;
use waypost_store::tool_call::{RejectionCount, ToolCall};
use waypost_store::{Conn, Db, api_key, assignment, audit, on, organization, server, tool_call, user};

/// The creation time of everything in a fixture.
pub const NOW: Timestamp = Timestamp(1_790_000_000_000);
/// The number of steps of a fixture's walkthrough.
pub const STEPS: u32 = 40;

/// The IDs of an organisation's objects. `n` distinguishes the fixtures of a database.
pub struct Fixture {
    n: u32,
    pub organization: OrganizationId,
    pub user: UserId,
    pub key: ApiKeyId,
    pub server: ServerId,
    pub walkthrough: WalkthroughId,
    pub version: VersionId,
    pub end_user: EndUserId,
    pub progress: ProgressId,
    pub assignment: AssignmentId,
}

/// Runs SQL statements.
pub async fn execute(conn: &mut Conn, sql: String) {
    on!(conn, c => sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(c).await.unwrap().rows_affected());
}

/// Returns SQL that inserts rows into the tables for sign-in, the console, analytics, tickets, webhooks, tool servers and
/// the history of drafts, for `org_N`, `srv_N`, `eu_N`, `usr_N` and `wt_N`.
pub fn sign_in_rows(n: u32) -> String {
    let number = n.to_string();
    let placeholders = [
        "org_N", "oac_N", "srv_N", "idn_N", "eu_N", "acc_N", "arq_N", "cal_N", "ecd_N", "ogr_N", "joi_N", "usr_N",
        "uss_N", "uco_N", "state_N", "inv_N", "seg_N", "wt_N", "tkt_N", "tkc_N", "eml_N", "whk_N", "whd_N", "tbx_N",
        "cat_N", "ctv_N", "sec_N", "ins_N", "dep_N", "iev_N", "agt_N", "gatewayN", "personN", "agk_N", "agent-N",
        "ags_N", "grt_N", "set_N", "apr_N", "-N'",
    ];
    let template = include_str!("signed_in.sql").to_owned();
    placeholders.iter().fold(template, |sql, text| sql.replace(text, &text.replace('N', &number)))
}

impl Fixture {
    pub fn new(n: u32) -> Self {
        Self {
            n,
            organization: OrganizationId::from_store(format!("org_{n}")),
            user: UserId::from_store(format!("usr_{n}")),
            key: ApiKeyId::from_store(format!("key_{n}")),
            server: ServerId::from_store(format!("srv_{n}")),
            walkthrough: WalkthroughId::from_store(format!("wt_{n}")),
            version: VersionId::from_store(format!("wv_{n}")),
            end_user: EndUserId::from_store(format!("eu_{n}")),
            progress: ProgressId::from_store(format!("wp_{n}")),
            assignment: AssignmentId::from_store(format!("msw_{n}")),
        }
    }

    pub fn step(&self, index: u32) -> StepId {
        StepId::from_store(format!("ws_{}x{index:03}", self.n))
    }

    pub fn organization(&self) -> Organization {
        let n = self.n;
        Organization {
            id: self.organization.clone(),
            slug: format!("org-{n}"),
            name: format!("Organisation {n}"),
            toolboxes_enabled: true,
            gateway_enabled: true,
            created_at: NOW,
        }
    }

    pub fn user(&self) -> User {
        let (id, email) = (self.user.clone(), format!("A{}@x.de", self.n));
        User { id, email, name: None, verified_at: None, organization_id: None, created_at: NOW }
    }

    pub fn server(&self) -> Server {
        Server {
            id: self.server.clone(),
            organization_id: self.organization.clone(),
            slug: format!("server-{}", self.n),
            name: "Server".to_owned(),
            product_name: "Product".to_owned(),
            auth_type: AuthType::None,
            oauth_config_id: None,
            sign_in: SignInPolicy::OnConnect,
            walkthrough_tools_enabled: true,
            toolset: Toolset::All,
            support: Support::Off,
            allowed_origins: vec!["https://example.com".to_owned()],
            public_page: false,
            public_page_indexed: true,
            created_at: NOW,
            updated_at: NOW,
        }
    }

    pub fn assignment(&self) -> Assignment {
        Assignment {
            id: self.assignment.clone(),
            organization_id: self.organization.clone(),
            server_id: self.server.clone(),
            walkthrough_id: self.walkthrough.clone(),
            display_order: 1,
            enabled: true,
            created_at: NOW,
        }
    }

    pub fn progress_key(&self, end_user: &EndUserId) -> ProgressKey {
        ProgressKey {
            organization_id: self.organization.clone(),
            end_user_id: end_user.clone(),
            server_id: self.server.clone(),
            walkthrough_id: self.walkthrough.clone(),
        }
    }

    pub fn tool_call(&self, id: &str) -> ToolCall {
        ToolCall {
            session_id: None,
            is_test: false,
            id: ToolCallId::from_store(id.to_owned()),
            organization_id: self.organization.clone(),
            server_id: self.server.clone(),
            end_user_id: Some(self.end_user.clone()),
            tool: "next_walkthrough_step".to_owned(),
            arguments: "{}".to_owned(),
            outcome: "ok".to_owned(),
            duration_us: 5,
            client_name: None,
            protocol_version: None,
            request_id: "r".to_owned(),
            created_at: NOW,
        }
    }

    pub fn audit_event(&self, index: u32) -> AuditEvent {
        AuditEvent {
            id: AuditEventId::from_store(format!("aud_{}x{index:05}", self.n)),
            organization_id: self.organization.clone(),
            actor: "operator".to_owned(),
            act: "server.update".to_owned(),
            target: self.server.as_str().to_owned(),
            detail: serde_json::Map::from_iter([("name".to_owned(), "Server".into())]),
            created_at: NOW,
        }
    }

    /// Returns the offer of the fixture's version, as passed to the writer.
    pub fn version_offer(&self) -> VersionOffer {
        let steps = (0..STEPS).map(|index| VersionStep {
            id: self.step(index),
            ordinal: index,
            content: StepContent { title: format!("Step {index}"), ..StepContent::default() },
        });
        let version = StoredVersion {
            id: self.version.clone(),
            walkthrough_id: self.walkthrough.clone(),
            number: 1,
            title: "W".into(),
            steps: steps.collect(),
        };
        VersionOffer { latest: Arc::new(Version::from_clean(version)), withdrawal: None }
    }

    /// Inserts an organisation, a user, a key, a server with a former slug, a walkthrough with steps and a version, and
    /// an assignment.
    pub async fn seed(&self, db: &Db) {
        let (n, mut tx) = (self.n, db.begin().await.unwrap());
        organization::insert(&mut tx, &self.organization()).await.unwrap();
        let user = self.user();
        user::insert(&mut tx, &user, &format!("a{n}@x.de")).await.unwrap();
        user::add_member(&mut tx, &self.organization, &self.user, Role::Owner, NOW).await.unwrap();
        let key = ApiKey {
            id: self.key.clone(),
            organization_id: self.organization.clone(),
            name: "key".to_owned(),
            scope: Role::Admin,
            created_at: NOW,
            expires_at: None,
            last_used_at: None,
        };
        api_key::insert(&mut tx, &key, &format!("hash-{n}"), self.user.as_str()).await.unwrap();
        server::insert(&mut tx, &Server { slug: format!("former-{n}"), ..self.server() }).await.unwrap();
        server::update(&mut tx, &self.server()).await.unwrap();
        let (organization, walkthrough, version) = (&self.organization, &self.walkthrough, &self.version);
        let now = NOW.0;
        let mut sql = format!(
            "INSERT INTO walkthroughs (id, organization_id, title, title_key, slug, description, type, state, tags,
                 metadata, first_step_id, current_version_id, revision, next_ordinal, created_at, updated_at)
             VALUES ('{walkthrough}', '{organization}', 'W', 'w', 'w', '', 'course', 'published', '[]', '{{}}',
                 '{}', '{version}', 1, {STEPS}, {now}, {now});
             INSERT INTO versions (id, organization_id, walkthrough_id, number, title, description, type, tags,
                 metadata, step_count, created_at)
             VALUES ('{version}', '{organization}', '{walkthrough}', 1, 'W', '', 'course', '[]', '{{}}', {STEPS}, {now});",
            self.step(0)
        );
        for at in 0..STEPS {
            let id = self.step(at);
            let next = if at + 1 < STEPS { format!("'{}'", self.step(at + 1)) } else { "NULL".to_owned() };
            sql.push_str(&format!(
                "INSERT INTO steps (id, organization_id, walkthrough_id, ordinal, next_step_id, title, content, metadata)
                 VALUES ('{id}', '{organization}', '{walkthrough}', {at}, {next}, 'S', 'c', '{{}}');
                 INSERT INTO version_steps (version_id, position, step_id, ordinal, title, content, metadata)
                 VALUES ('{version}', {at}, '{id}', {at}, 'S', 'c', '{{}}');"
            ));
        }
        execute(&mut tx, sql).await;
        assert!(assignment::insert(&mut tx, &self.assignment()).await.unwrap());
        tx.commit().await.unwrap();
    }

    /// Like [`Fixture::seed`], and also inserts an end user with a session, progress, an event, calls, rejections and an
    /// audit event, and the rows of [`sign_in_rows`].
    pub async fn seed_with_activity(&self, db: &Db) {
        self.seed(db).await;
        let mut tx = db.begin().await.unwrap();
        let (n, now, step) = (self.n, NOW.0, self.step(0));
        let Self { organization, server, walkthrough, version, end_user, progress, .. } = self;
        let sql = format!(
            "INSERT INTO end_users (id, organization_id, tracking_id, created_at)
             VALUES ('{end_user}', '{organization}', 'tracked', {now});
             INSERT INTO client_sessions (id, organization_id, server_id, end_user_id, handle_hash, created_at,
                 last_used_at)
             VALUES ('ses_{n}', '{organization}', '{server}', '{end_user}', 'handle-{n}', {now}, {now});
             INSERT INTO progress (id, organization_id, end_user_id, server_id, walkthrough_id, version_id, status,
                 completed_steps, started_at, last_activity_at, metadata)
             VALUES ('{progress}', '{organization}', '{end_user}', '{server}', '{walkthrough}', '{version}',
                 'in_progress', '01', {now}, {now}, '{{}}');
             INSERT INTO step_completions (progress_id, step_id, version_id, completed_at)
             VALUES ('{progress}', '{step}', '{version}', {now});
             INSERT INTO walkthrough_events (id, organization_id, server_id, walkthrough_id, end_user_id, progress_id,
                 version_id, step_id, kind, created_at)
             VALUES ('ev_{n}', '{organization}', '{server}', '{walkthrough}', '{end_user}', '{progress}', '{version}',
                 '{step}', 'step_completed', {now});
             INSERT INTO counted_calls (server_id, minute, tool, outcome, count)
             VALUES ('{server}', 1, 'list_walkthroughs', 'ok', 3);"
        );
        execute(&mut tx, sql).await;
        execute(&mut tx, sign_in_rows(n)).await;
        tool_call::insert(&mut tx, &[self.tool_call(&format!("tc_{n}"))]).await.unwrap();
        let rejections = RejectionCount {
            server_id: server.clone(),
            minute: 1,
            reason: "rate_limited".to_owned(),
            organization_id: organization.clone(),
            count: 2,
        };
        tool_call::add_rejections(&mut tx, &[rejections]).await.unwrap();
        audit::insert(&mut tx, &self.audit_event(1)).await.unwrap();
        tx.commit().await.unwrap();
    }

    /// Returns the attempt that [`Fixture::seed_with_activity`] inserts.
    pub fn attempt(&self) -> Attempt {
        Attempt {
            id: self.progress.clone(),
            version_id: self.version.clone(),
            completed: StepSet::from_iter([0]),
            state: AttemptState::InProgress,
            started_at: NOW,
            last_activity_at: NOW,
            closed_at: None,
            metadata: serde_json::Map::new(),
        }
    }
}
