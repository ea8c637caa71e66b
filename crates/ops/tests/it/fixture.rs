//! A test fixture: a database with organisations, and contexts of all kinds of callers.

use std::sync::Arc;

use waypost_core::Timestamp;
use waypost_core::caller::{Caller, Ctx};
use waypost_core::clock::ManualClock;
use waypost_core::id::{EndUserId, InvitationId, JoinId, OrganizationId, WalkthroughId};
use waypost_core::organization::{ApiKey, Member, Organization, Role};
use waypost_core::random::SeededRandom;
use waypost_core::server::Server;
use waypost_ops::api_keys::CreateApiKey;
use waypost_ops::invitations::InvitationWithSecret;
use waypost_ops::servers::ServerSettings;
use waypost_ops::{Ops, api_keys, assignments, invitations, organizations, servers, users};
use waypost_store::{Db, migrate, on};

pub struct Fixture {
    pub ops: Ops,
    /// The operator's context, with a stopped clock and deterministic random numbers.
    pub cx: Ctx,
}

/// An organisation with one object of each kind.
pub struct Tenant {
    pub organization: Organization,
    pub owner: Member,
    pub member: Member,
    pub key: ApiKey,
    pub server: Server,
    pub walkthrough: WalkthroughId,
    pub end_user: EndUserId,
    pub join: JoinId,
    pub invitation: InvitationId,
    pub invited: InvitationWithSecret,
}

/// Returns an API key request without an expiry.
pub fn plain_key(name: &str, scope: Role) -> CreateApiKey<'_> {
    CreateApiKey { name, scope, expires_at: None }
}

pub async fn set_up(url: &str) -> Fixture {
    let db = Db::open(url).await.unwrap();
    migrate::migrate(&db).await.unwrap();
    let cx = Ctx {
        clock: Arc::new(ManualClock::new(Timestamp(1_790_000_000_000))),
        random: Arc::new(SeededRandom::new(7)),
        ..Ctx::operator()
    };
    Fixture { ops: Ops::new(db), cx }
}

impl Fixture {
    /// Returns the context of a caller.
    pub fn context(&self, caller: Caller) -> Ctx {
        self.cx.with_caller(caller)
    }

    /// Returns the context of a member with `role` in `organization`.
    pub fn member_context(&self, organization: &OrganizationId, role: Role) -> Ctx {
        let organization_id = organization.clone();
        self.context(Caller::Member { organization_id, role, actor: "usr_caller".to_owned() })
    }

    /// Runs SQL statements.
    pub async fn execute(&self, sql: String) {
        let mut tx = self.ops.store().begin().await.unwrap();
        on!(&mut tx, c => sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(c).await.unwrap().rows_affected());
        tx.commit().await.unwrap();
    }

    /// Creates the instance `search` (`ins_acme`) of the catalogue entry `entry`, whose registry requires a secret.
    pub async fn create_instance(&self, organization: &OrganizationId, registry_secret: &str) {
        let definition = format!(
            r#"{{"source":{{"image":"r.example/x@sha256:0"}},"transport":"stdio","registry_secret":"{registry_secret}"}}"#
        );
        self.execute(format!(
            "INSERT INTO toolboxes (id, organization_id, name, desired_revision, last_event, created_at, updated_at)
             VALUES ('tbx_acme', '{organization}', 'rack', 0, 0, 1, 1);
             INSERT INTO catalog_entries (id, organization_id, slug, name, description, categories, state, created_at,
                 updated_at) VALUES ('cat_acme', '{organization}', 'entry', 'E', '', '[]', 'published', 1, 1);
             INSERT INTO catalog_versions (id, organization_id, catalog_entry_id, version, definition, created_at)
             VALUES ('ctv_acme', '{organization}', 'cat_acme', '1', '{definition}', 1);
             INSERT INTO instances (id, organization_id, slug, slug_skeleton, name, catalog_version_id, toolbox_id,
                 desired, state, generation, observed_generation, restarts, is_removing, config, learn_egress,
                 rejected_egress, created_at, updated_at)
             VALUES ('ins_acme', '{organization}', 'search', 'search', 'S', 'ctv_acme', 'tbx_acme', 'running', 'running',
                 1, 1, 0, FALSE, '{{}}', FALSE, '[]', 1, 1)"
        ))
        .await;
    }

    /// Creates an organisation with one object of each kind.
    pub async fn create_tenant(&self, name: &str) -> Tenant {
        let Self { cx, ops } = self;
        let organization = organizations::create(cx, ops, name, None).await.unwrap();
        let id = &organization.id;
        let owner = users::create(cx, ops, id, &format!("owner@{name}.de"), Role::Owner).await.unwrap();
        let member = users::create(cx, ops, id, &format!("member@{name}.de"), Role::Member).await.unwrap();
        let (key, _) = api_keys::create(cx, ops, id, plain_key("first", Role::Member)).await.unwrap();
        let server = servers::create(cx, ops, id, name, &ServerSettings::default()).await.unwrap();
        let walkthrough = WalkthroughId::from_store(format!("wt_{name}"));
        let join = JoinId::from_store(format!("joi_{name:0>12}").replace('-', "0"));
        let end_user = EndUserId::from_store(format!("eu_{name:0>12}").replace('-', "0"));
        let sql = sqlx::AssertSqlSafe(format!(
            "INSERT INTO walkthroughs (id, organization_id, title, title_key, slug, description, type, state, tags,
                 metadata, revision, next_ordinal, created_at, updated_at)
             VALUES ('{walkthrough}', '{id}', 'W', 'w', 'w', '', 'course', 'draft', '[]', '{{}}', 1, 0, 1, 1);
             INSERT INTO end_users (id, organization_id, tracking_id, created_at)
             VALUES ('{end_user}', '{id}', 'tracked', 1);
             INSERT INTO joins (id, organization_id, server_id, from_end_user_id, to_end_user_id, kind, undo, created_at)
             VALUES ('{join}', '{id}', '{}', '{end_user}', '{end_user}', 'tracking', '{{}}', 1)",
            server.id
        ));
        let mut tx = ops.store().begin().await.unwrap();
        on!(&mut tx, c => sqlx::raw_sql(sql).execute(c).await.unwrap().rows_affected());
        tx.commit().await.unwrap();
        let settings = assignments::AssignmentPatch::default();
        assignments::assign(cx, ops, id, &server.id, &walkthrough, settings).await.unwrap();
        let invited = invitations::create(cx, ops, id, &format!("invited@{name}.de"), Role::Member).await.unwrap();
        let invitation = invited.invitation.id.clone();
        Tenant { invitation, invited, organization, owner, member, key, server, walkthrough, end_user, join }
    }
}
