//! Tests of agents, their tokens and grants, and tool sets.

use std::sync::Arc;

use serde_json::{Value, json};
use waypost_core::agent::{AgentKind, AgentState, INACTIVE_TOKEN_MS, MAX_AGENTS, MAX_INACTIVE_TOKENS, MAX_TOKENS};
use waypost_core::argument_rule::{ArgumentRule, Comparison};
use waypost_core::caller::Ctx;
use waypost_core::clock::ManualClock;
use waypost_core::grant::{AccessLevel, Grant, GrantedNames, MAX_GRANTS};
use waypost_core::id::{AgentId, AgentTokenId, InstanceId, OrganizationId};
use waypost_core::organization::Role;
use waypost_core::random::SystemRandom;
use waypost_core::seal::SecretText;
use waypost_core::secret::SecretKey;
use waypost_core::tool_set::{MAX_TOOL_SETS, ToolSetMember};
use waypost_core::{Code, Error, Timestamp};
use waypost_ops::agent_tokens::{CreateAgentToken, ResolvedAgent};
use waypost_ops::agents::AgentPatch;
use waypost_ops::grants::{GrantFilter, GrantPatch, NewGrant};
use waypost_ops::hosting::{Hosting, HostingOptions, Tasks};
use waypost_ops::tool_sets::{NewToolSet, ToolSetPatch};
use waypost_ops::{agent_tokens, agents, grants, tool_sets};
use waypost_store::db::count_statements;
use waypost_store::{audit, on};

use crate::fixture::{Fixture, set_up};

waypost_testkit::both!(extended set_up =>
    agents_are_named_and_switched_off,
    tokens_authenticate_until_they_end,
    a_valid_token_is_cached_for_a_second,
    the_use_of_a_token_is_recorded_once_a_minute,
    ended_tokens_are_deleted,
    grants_are_created_changed_and_reported,
    tool_sets_select_instances,
    limits_are_exact_under_concurrency,
);

const MINUTE: i64 = 60_000;

#[track_caller]
fn assert_rejected<T: std::fmt::Debug>(result: Result<T, Error>, code: Code, words: &str) -> Error {
    let error = result.unwrap_err();
    assert_eq!(error.code, code, "{error}");
    assert!(error.message.contains(words), "{error}");
    error
}

fn token(name: &str, expires_at: Option<Timestamp>) -> CreateAgentToken<'_> {
    CreateAgentToken { name, expires_at }
}

fn instance(id: &str) -> InstanceId {
    InstanceId::from_store(id.to_owned())
}

/// An organisation with the instances `ins_acme` and `ins_second`, and an admin.
struct Acme {
    fixture: Fixture,
    org: OrganizationId,
    cx: Ctx,
    clock: Arc<ManualClock>,
}

async fn acme(fixture: Fixture) -> Acme {
    let org = fixture.create_tenant("acme").await.organization.id;
    fixture.create_instance(&org, "REGISTRY").await;
    fixture
        .execute(
            "INSERT INTO instances (id, organization_id, slug, slug_skeleton, name, catalog_version_id, toolbox_id, desired,
                 state, generation, observed_generation, restarts, is_removing, health, config, learn_egress, rejected_egress,
                 created_at, updated_at)
             SELECT 'ins_second', organization_id, 'second', 'second', 'Second',
                 catalog_version_id, toolbox_id, desired, state, generation, observed_generation, restarts, is_removing,
                 health, config, learn_egress, rejected_egress, created_at, updated_at FROM instances"
                .to_owned(),
        )
        .await;
    let clock = Arc::new(ManualClock::new(fixture.cx.now()));
    let cx = Ctx { clock: clock.clone(), ..fixture.member_context(&org, Role::Admin) };
    Acme { fixture, org, cx, clock }
}

impl Acme {
    /// Starts a `Hosting` with empty caches.
    fn start(&self) -> (Hosting, Tasks) {
        let keys = SecretKey::new([7; 32]).into();
        let (clock, random) = (self.clock.clone(), Arc::new(SystemRandom));
        let options = HostingOptions { keys, version_cache_bytes: 1024, clock, random };
        Hosting::start(self.fixture.ops.store().clone(), options)
    }

    async fn resolve(&self, secret: &SecretText) -> Option<ResolvedAgent> {
        // Without a cache.
        let (hosting, _tasks) = self.start();
        agent_tokens::resolve(&hosting, secret.expose()).await.unwrap()
    }

    async fn create_agent(&self, name: &str) -> AgentId {
        agents::create(&self.cx, &self.fixture.ops, &self.org, name).await.unwrap().agent.id
    }

    async fn create_token(&self, agent: &AgentId, expires_at: Option<Timestamp>) -> (AgentTokenId, SecretText) {
        let created = agent_tokens::create(&self.cx, &self.fixture.ops, &self.org, agent, token("t", expires_at)).await;
        let (token, secret) = created.unwrap();
        (token.id, secret)
    }

    /// Returns the actions of the audit log that begin with `prefix`, with their details, oldest first.
    async fn audited(&self, prefix: &str) -> Vec<(String, Value)> {
        let mut conn = self.fixture.ops.store().read().await.unwrap();
        let mut events = audit::list(&mut conn, &self.org, None, 200).await.unwrap();
        events.sort_by_key(|event| event.created_at);
        let events = events.into_iter().filter(|event| event.act.starts_with(prefix));
        events.map(|event| (event.act, Value::Object(event.detail))).collect()
    }

    async fn count(&self, sql: &str) -> i64 {
        let mut conn = self.fixture.ops.store().read().await.unwrap();
        let sql = sqlx::AssertSqlSafe(sql.to_owned());
        on!(&mut conn, c => sqlx::query_scalar(sql).fetch_one(c).await.unwrap())
    }
}

async fn agents_are_named_and_switched_off(fixture: Fixture) {
    let acme = acme(fixture).await;
    let (cx, ops, org) = (&acme.cx, &acme.fixture.ops, &acme.org);
    let created = agents::create(cx, ops, org, "  Crawler\n").await.unwrap();
    let agent = &created.agent;
    assert_eq!((agent.name.as_str(), agent.kind, agent.state), ("Crawler", AgentKind::Service, AgentState::Active));
    assert_eq!((agent.created_by.as_str(), agent.last_seen_at, &created.tokens[..]), ("usr_caller", None, &[][..]));
    for text in ["Crawler", " Crawler ", agent.id.as_str()] {
        assert_eq!(agents::resolve(cx, ops, org, text).await.unwrap(), created);
    }
    assert_rejected(agents::resolve(cx, ops, org, "crawler").await, Code::NotFound, "no such agent");
    assert_rejected(agents::create(cx, ops, org, "Crawler").await, Code::Conflict, "`Crawler` already exists");
    for name in ["", "agt_0123456789abcdef", &"x".repeat(101)] {
        let error = assert_rejected(agents::create(cx, ops, org, name).await, Code::InvalidArguments, "`name`");
        assert_eq!(error.details["field"], "name");
    }
    acme.create_agent("Builder").await;
    let first = agents::list(cx, ops, org, None, 1).await.unwrap();
    let rest = agents::list(cx, ops, org, Some(&first[0].agent.name), 9).await.unwrap();
    assert_eq!((first[0].agent.name.as_str(), rest), ("Builder", vec![created.clone()]));

    let (kept, secret) = acme.create_token(&agent.id, None).await;
    acme.clock.advance(1);
    let off = AgentPatch { state: Some(AgentState::Disabled), ..AgentPatch::default() };
    let changed = agents::update(cx, ops, org, &agent.id, &off).await.unwrap();
    assert_eq!((changed.agent.state, &changed.tokens[0].id), (AgentState::Disabled, &kept));
    assert_eq!(acme.resolve(&secret).await, None);
    acme.clock.advance(1);
    let on = AgentPatch { state: Some(AgentState::Active), name: Some("Spider".to_owned()) };
    let changed = agents::update(cx, ops, org, &agent.id, &on).await.unwrap();
    assert_eq!(acme.resolve(&secret).await.unwrap().agent, changed.agent);
    assert_eq!(agents::update(cx, ops, org, &agent.id, &on).await.unwrap().agent.name, "Spider", "no change");
    let taken = AgentPatch { name: Some("Builder".to_owned()), state: None };
    assert_rejected(agents::update(cx, ops, org, &agent.id, &taken).await, Code::Conflict, "`Builder` already exists");

    acme.clock.advance(1);
    agents::delete(cx, ops, org, &agent.id).await.unwrap();
    assert_rejected(agents::get(cx, ops, org, &agent.id).await, Code::NotFound, "no such agent");
    assert_eq!(acme.resolve(&secret).await, None, "deleted with its agent");
    let acts: Vec<_> = acme.audited("agent.").await.into_iter().map(|(act, _)| act).collect();
    assert_eq!(acts, ["agent.create", "agent.create", "agent.update", "agent.update", "agent.delete"]);
}

async fn tokens_authenticate_until_they_end(fixture: Fixture) {
    let acme = acme(fixture).await;
    let (cx, ops, org) = (&acme.cx, &acme.fixture.ops, &acme.org);
    let agent = acme.create_agent("Crawler").await;
    let other = acme.create_agent("Other").await;
    let (forever, permanent) = acme.create_token(&agent, None).await;
    let (_, expiring) = acme.create_token(&agent, Some(cx.now().plus(MINUTE))).await;
    assert!(permanent.expose().starts_with("wpa_") && permanent.expose().len() == 47, "32 bytes in base64url");
    let resolved = acme.resolve(&permanent).await.unwrap();
    assert_eq!((&resolved.organization_id, &resolved.agent.id), (org, &agent));
    assert!(acme.resolve(&expiring).await.is_some());
    for unknown in ["", "wpa_", "wpk_AAAA", &permanent.expose().to_uppercase(), &format!("{}A", permanent.expose())] {
        assert_eq!(acme.resolve(&SecretText::new(unknown)).await, None);
    }
    acme.clock.advance(MINUTE);
    assert_eq!(acme.resolve(&expiring).await, None, "expired");
    assert_rejected(agent_tokens::revoke(cx, ops, org, &other, &forever).await, Code::NotFound, "no such token");
    agent_tokens::revoke(cx, ops, org, &agent, &forever).await.unwrap();
    agent_tokens::revoke(cx, ops, org, &agent, &forever).await.unwrap();
    assert_eq!(acme.resolve(&permanent).await, None, "revoked");
    let view = agents::get(cx, ops, org, &agent).await.unwrap();
    let revoked: Vec<_> = view.tokens.iter().filter(|token| token.revoked_at == Some(cx.now())).collect();
    assert_eq!((view.tokens.len(), revoked.len(), &revoked[0].id), (2, 1, &forever));

    let past = agent_tokens::create(cx, ops, org, &agent, token("t", Some(cx.now()))).await;
    assert_rejected(past, Code::InvalidArguments, "must be in the future");
    let nameless = agent_tokens::create(cx, ops, org, &agent, token(" ", None)).await;
    assert_rejected(nameless, Code::InvalidArguments, "`name`");
    let user = &acme.fixture.create_tenant("home").await.owner.user_id;
    acme.fixture
        .execute(format!(
            "INSERT INTO agents VALUES ('agt_person', '{org}', 'ann@acme.de', 'person', '{user}', 'active', 1, 'x', NULL)"
        ))
        .await;
    let person = AgentId::from_store("agt_person".to_owned());
    let result = agent_tokens::create(cx, ops, org, &person, token("t", None)).await;
    assert_rejected(result, Code::Conflict, "People sign in");
    let audited = acme.audited("agent_token.").await;
    let acts: Vec<_> = audited.iter().map(|(act, _)| act.as_str()).collect();
    assert_eq!(acts, ["agent_token.create", "agent_token.create", "agent_token.revoke"]);
    assert!(audited.iter().all(|(_, detail)| detail["agent_id"] == agent.as_str()));
    assert!(!format!("{audited:?}").contains("wpa_"));
}

async fn a_valid_token_is_cached_for_a_second(fixture: Fixture) {
    let acme = acme(fixture).await;
    let (cx, ops, org) = (&acme.cx, &acme.fixture.ops, &acme.org);
    let agent = acme.create_agent("Crawler").await;
    let (id, secret) = acme.create_token(&agent, Some(cx.now().plus(MINUTE))).await;
    let (hosting, _tasks) = acme.start();
    let resolve = async || count_statements(agent_tokens::resolve(&hosting, secret.expose())).await;
    // The cache also uses the system's clock, so a lookup can miss if this test is suspended for a second.
    let mut has_hit = false;
    for _ in 0..20 {
        let (found, statements) = resolve().await;
        assert!(found.unwrap().is_some());
        has_hit |= statements == 0;
    }
    assert!(has_hit, "a lookup within a second needs no statement");
    agent_tokens::revoke(cx, ops, org, &agent, &id).await.unwrap();
    acme.clock.advance(999);
    resolve().await.0.unwrap();
    acme.clock.advance(1);
    let (found, statements) = resolve().await;
    assert_eq!((found.unwrap(), statements > 0), (None, true), "one second after the lookup");
    assert!(resolve().await.1 > 0, "failed lookups are not cached");

    // A cached token is rejected when it expires.
    let (_, secret) = acme.create_token(&agent, Some(cx.now().plus(500))).await;
    assert!(agent_tokens::resolve(&hosting, secret.expose()).await.unwrap().is_some());
    acme.clock.advance(500);
    assert_eq!(agent_tokens::resolve(&hosting, secret.expose()).await.unwrap(), None);
}

async fn the_use_of_a_token_is_recorded_once_a_minute(fixture: Fixture) {
    let acme = acme(fixture).await;
    let (cx, ops, org) = (&acme.cx, &acme.fixture.ops, &acme.org);
    let agent = acme.create_agent("Crawler").await;
    let (_, secret) = acme.create_token(&agent, None).await;
    let start = cx.now();
    let uses = async || {
        let (hosting, tasks) = acme.start();
        agent_tokens::resolve(&hosting, secret.expose()).await.unwrap().unwrap();
        drop(hosting);
        tasks.finish().await;
        let view = agents::get(cx, ops, org, &agent).await.unwrap();
        assert_eq!(view.agent.last_seen_at, view.tokens[0].last_used_at);
        view.agent.last_seen_at
    };
    assert_eq!(uses().await, Some(start));
    acme.clock.advance(MINUTE - 1);
    assert_eq!(uses().await, Some(start));
    acme.clock.advance(1);
    assert_eq!(uses().await, Some(start.plus(MINUTE)));
}

async fn ended_tokens_are_deleted(fixture: Fixture) {
    let acme = acme(fixture).await;
    let (cx, ops, org) = (&acme.cx, &acme.fixture.ops, &acme.org);
    let agent = acme.create_agent("Crawler").await;
    let (kept, _) = acme.create_token(&agent, None).await;
    // A client that replaces its token every time leaves a limited number of rows.
    for _ in 0..MAX_INACTIVE_TOKENS + 5 {
        acme.clock.advance(1);
        let (id, _) = acme.create_token(&agent, None).await;
        agent_tokens::revoke(cx, ops, org, &agent, &id).await.unwrap();
    }
    let tokens = agents::get(cx, ops, org, &agent).await.unwrap().tokens;
    assert_eq!(tokens.len(), MAX_INACTIVE_TOKENS + 2, "the last revocation was after the last creation");
    acme.clock.advance(INACTIVE_TOKEN_MS);
    assert_eq!(agent_tokens::delete_ended(ops.store(), &*acme.clock).await.unwrap(), MAX_INACTIVE_TOKENS as u64);
    acme.clock.advance(1);
    assert_eq!(agent_tokens::delete_ended(ops.store(), &*acme.clock).await.unwrap(), 1);
    let tokens = agents::get(cx, ops, org, &agent).await.unwrap().tokens;
    assert_eq!((tokens.len(), &tokens[0].id), (1, &kept));
}

fn new_grant(agent: &AgentId, access: AccessLevel) -> NewGrant {
    let (agent_id, instance_id) = (agent.clone(), instance("ins_acme"));
    NewGrant { agent_id, instance_id, access, names: GrantedNames::default(), rules: Vec::new(), expires_at: None }
}

fn tools(names: &[&str]) -> GrantedNames {
    let tools = names.iter().map(|name| (*name).to_owned()).collect();
    GrantedNames { tools, ..GrantedNames::default() }
}

async fn grants_are_created_changed_and_reported(fixture: Fixture) {
    let acme = acme(fixture).await;
    let (cx, ops, org) = (&acme.cx, &acme.fixture.ops, &acme.org);
    acme.fixture
        .execute(format!(
            "INSERT INTO webhooks (id, organization_id, url, description, secret, events, enabled, created_at, updated_at)
             VALUES ('whk_1', '{org}', 'https://example.com', '', 's', '[\"grant.created\"]', TRUE, 1, 1)"
        ))
        .await;
    let agent = acme.create_agent("Crawler").await;
    let rule = ArgumentRule {
        tool: "search".to_owned(),
        field: "limit".to_owned(),
        comparison: Comparison::AtMost,
        value: json!(5),
    };
    let custom = NewGrant {
        names: tools(&["search", "fetch"]),
        rules: vec![rule.clone()],
        expires_at: Some(cx.now().plus(MINUTE)),
        ..new_grant(&agent, AccessLevel::Custom)
    };
    let grant = grants::create(cx, ops, org, &custom).await.unwrap();
    assert_eq!((grant.created_by.as_str(), &grant.names, &grant.rules), ("usr_caller", &custom.names, &custom.rules));
    assert_eq!(grants::get(cx, ops, org, &grant.id).await.unwrap(), grant);
    acme.clock.advance(1);
    let all = grants::create(cx, ops, org, &new_grant(&agent, AccessLevel::FullAccess)).await.unwrap();
    let filter = GrantFilter { agent: Some(&agent), instance: None };
    assert_eq!(grants::list(cx, ops, org, filter, (None, 9)).await.unwrap(), [all.clone(), grant.clone()]);
    assert_eq!(grants::list(cx, ops, org, filter, (Some(&all.id), 9)).await.unwrap(), std::slice::from_ref(&grant));
    assert_eq!(acme.count("SELECT count(*) FROM webhook_deliveries").await, 2);

    let rejected = async |new: NewGrant, field: &str| {
        let error = grants::create(cx, ops, org, &new).await.unwrap_err();
        assert_eq!((error.code, &error.details["field"]), (Code::InvalidArguments, &json!(field)), "{error}");
    };
    let unknown = AgentId::from_store("agt_0".to_owned());
    rejected(new_grant(&unknown, AccessLevel::FullAccess), "agent_id").await;
    rejected(NewGrant { instance_id: instance("ins_0"), ..new_grant(&agent, AccessLevel::FullAccess) }, "instance_id")
        .await;
    rejected(NewGrant { expires_at: Some(cx.now()), ..new_grant(&agent, AccessLevel::FullAccess) }, "expires_at").await;
    rejected(new_grant(&agent, AccessLevel::Custom), "tools").await;
    rejected(NewGrant { names: tools(&["a"]), ..new_grant(&agent, AccessLevel::ReadOnly) }, "access").await;
    let foreign = acme.fixture.create_tenant("other").await.organization.id;
    let result = grants::create(&acme.fixture.cx, ops, &foreign, &new_grant(&agent, AccessLevel::FullAccess)).await;
    assert_rejected(result, Code::InvalidArguments, "no such agent");

    acme.clock.advance(1);
    let update = async |change: GrantPatch| grants::update(cx, ops, org, &grant.id, &change).await;
    let without = GrantPatch { tools: Some(vec!["fetch".to_owned()]), ..GrantPatch::default() };
    assert_rejected(update(without).await, Code::InvalidArguments, "not in `tools`");
    let read_only = GrantPatch { access: Some(AccessLevel::ReadOnly), expires_at: Some(None), ..GrantPatch::default() };
    let changed = update(read_only.clone()).await.unwrap();
    let expected =
        Grant { access: AccessLevel::ReadOnly, names: GrantedNames::default(), expires_at: None, ..grant.clone() };
    assert_eq!(changed, expected, "the lists are emptied, and the rules are kept");
    assert_eq!(update(read_only).await.unwrap(), changed, "no change");
    let custom = GrantPatch { access: Some(AccessLevel::Custom), ..GrantPatch::default() };
    assert_rejected(update(custom.clone()).await, Code::InvalidArguments, "at least one entry");
    acme.clock.advance(1);
    let prompts = Some(vec!["review".to_owned()]);
    let changed = update(GrantPatch { prompts, rules: Some(Vec::new()), ..custom }).await.unwrap();
    assert_eq!((changed.names.prompts.len(), changed.rules.len()), (1, 0));
    assert_eq!(grants::get(cx, ops, org, &grant.id).await.unwrap(), changed);

    acme.clock.advance(1);
    grants::delete(cx, ops, org, &grant.id).await.unwrap();
    assert_rejected(grants::delete(cx, ops, org, &grant.id).await, Code::NotFound, "no such grant");
    acme.fixture.execute("UPDATE instances SET is_removing = TRUE".to_owned()).await;
    let result = grants::create(cx, ops, org, &new_grant(&agent, AccessLevel::FullAccess)).await;
    assert_rejected(result, Code::Conflict, "being removed");
    assert_eq!(acme.count("SELECT count(*) FROM webhook_deliveries").await, 2, "only creations are reported");
    let audited = acme.audited("grant.").await;
    let acts: Vec<_> = audited.iter().map(|(act, _)| act.as_str()).collect();
    assert_eq!(acts, ["grant.create", "grant.create", "grant.update", "grant.update", "grant.delete"]);
    assert_eq!(audited[0].1["tools"], json!({ "count": 2, "first": ["search", "fetch"] }));
    assert_eq!(audited[0].1["rules"], json!({ "count": 1, "first": [rule] }));
}

async fn tool_sets_select_instances(fixture: Fixture) {
    let acme = acme(fixture).await;
    let (cx, ops, org) = (&acme.cx, &acme.fixture.ops, &acme.org);
    let member = |id: &str| ToolSetMember { instance_id: instance(id), tools: None };
    let new =
        |slug: &str| NewToolSet { slug: slug.to_owned(), name: None, prefix: false, members: vec![member("ins_acme")] };
    let created = tool_sets::create(cx, ops, org, &new("burn")).await.unwrap();
    assert_eq!(
        (created.name.as_str(), created.prefix, &created.members[..]),
        ("burn", false, &[member("ins_acme")][..])
    );
    for text in ["burn", created.id.as_str()] {
        assert_eq!(tool_sets::resolve(cx, ops, org, text).await.unwrap(), created);
    }
    assert_rejected(tool_sets::create(cx, ops, org, &new("burn")).await, Code::Conflict, "`burn` already exists");
    let error =
        assert_rejected(tool_sets::create(cx, ops, org, &new("bum")).await, Code::Conflict, "looks like `burn`");
    assert_eq!(error.details["field"], "slug");
    assert_rejected(tool_sets::create(cx, ops, org, &new("A")).await, Code::InvalidArguments, "`slug`");
    let unknown = NewToolSet { members: vec![member("ins_0")], ..new("other") };
    assert_rejected(tool_sets::create(cx, ops, org, &unknown).await, Code::InvalidArguments, "`ins_0`");
    let both = vec![member("ins_second"), member("ins_acme")];
    let error = tool_sets::create(cx, ops, org, &NewToolSet { members: both.clone(), ..new("other") }).await;
    assert_rejected(error, Code::InvalidArguments, "exactly one instance");

    acme.clock.advance(1);
    let update = async |change: ToolSetPatch| tool_sets::update(cx, ops, org, &created.id, &change).await;
    let members = ToolSetPatch { members: Some(both.clone()), ..ToolSetPatch::default() };
    assert_rejected(update(members.clone()).await, Code::InvalidArguments, "exactly one instance");
    let changed = update(ToolSetPatch { prefix: Some(true), slug: Some("bum".to_owned()), ..members }).await.unwrap();
    assert_eq!((changed.slug.as_str(), &changed.members), ("bum", &both), "a slug may look like its former one");
    let second = tool_sets::create(cx, ops, org, &new("a")).await.unwrap();
    assert_eq!(tool_sets::list(cx, ops, org, None, 9).await.unwrap(), [second.clone(), changed.clone()]);
    assert_eq!(tool_sets::list(cx, ops, org, Some("a"), 9).await.unwrap(), std::slice::from_ref(&changed));
    let taken = ToolSetPatch { slug: Some("a".to_owned()), ..ToolSetPatch::default() };
    assert_rejected(update(taken).await, Code::Conflict, "`a` already exists");

    // Other fields can be changed although the only instance was deleted.
    acme.fixture.execute("DELETE FROM instances WHERE id = 'ins_acme'".to_owned()).await;
    let renamed = ToolSetPatch { name: Some("A".to_owned()), ..ToolSetPatch::default() };
    let empty = tool_sets::update(cx, ops, org, &second.id, &renamed).await.unwrap();
    assert_eq!((empty.name.as_str(), &empty.members[..]), ("A", &[][..]));
    acme.clock.advance(1);
    tool_sets::delete(cx, ops, org, &second.id).await.unwrap();
    assert_rejected(tool_sets::delete(cx, ops, org, &second.id).await, Code::NotFound, "no such tool set");
    let mut acts: Vec<_> = acme.audited("tool_set.").await.into_iter().map(|(act, _)| act).collect();
    acts.sort_unstable();
    let (create, update) = ("tool_set.create", "tool_set.update");
    assert_eq!(acts, [create, create, "tool_set.delete", update, update]);
}

/// Fills a table up to one row below a limit, and creates two rows at the same time: only one succeeds.
async fn limits_are_exact_under_concurrency(fixture: Fixture) {
    let acme = acme(fixture).await;
    let (cx, ops, org) = (&acme.cx, &acme.fixture.ops, &acme.org);
    let agent = acme.create_agent("Crawler").await;
    let many =
        |limit: usize| format!("WITH RECURSIVE n(i) AS (SELECT 2 UNION ALL SELECT i + 1 FROM n WHERE i < {limit})");
    let fill = format!(
        "{} INSERT INTO agents SELECT 'agt_' || i, '{org}', 'n' || i, 'service', NULL, 'active', 1, 'x', NULL FROM n
            WHERE i < {MAX_AGENTS};
         {} INSERT INTO agent_tokens SELECT 'agk_' || i, '{org}', '{agent}', 'n', 'h' || i, 1, NULL, NULL, NULL, NULL FROM n;
         {} INSERT INTO grants SELECT 'grt_' || i, '{org}', '{agent}', 'ins_acme', 'full_access', '[]', '[]', '[]', '[]',
            NULL, 1, 'x' FROM n;
         {} INSERT INTO tool_sets SELECT 'set_' || i, '{org}', 's' || i, 's' || i, 'n', TRUE FROM n;
         INSERT INTO agent_tokens VALUES ('agk_off', '{org}', '{agent}', 'n', 'off', 1, 2, NULL, 2, NULL);",
        many(MAX_AGENTS),
        many(MAX_TOKENS),
        many(MAX_GRANTS),
        many(MAX_TOOL_SETS)
    );
    acme.fixture.execute(fill).await;
    #[track_caller]
    fn assert_one(results: (Result<(), Error>, Result<(), Error>), words: &str) {
        let error = match results {
            (Ok(()), Err(error)) | (Err(error), Ok(())) => error,
            results => panic!("{results:?}"),
        };
        assert!(error.code == Code::Conflict && error.message.contains(words), "{error}");
    }
    let create = async |name: &str| agents::create(cx, ops, org, name).await.map(|_| ());
    assert_one(tokio::join!(create("a"), create("b")), "at most 1000 agents");
    let create = async || agent_tokens::create(cx, ops, org, &agent, token("t", None)).await.map(|_| ());
    assert_one(tokio::join!(create(), create()), "at most 20 active tokens");
    let create = async || grants::create(cx, ops, org, &new_grant(&agent, AccessLevel::ReadOnly)).await.map(|_| ());
    assert_one(tokio::join!(create(), create()), "at most 200 grants");
    let members = vec![ToolSetMember { instance_id: instance("ins_acme"), tools: None }];
    let new = |slug: &str| NewToolSet { slug: slug.to_owned(), name: None, prefix: true, members: members.clone() };
    let create = async |slug: &str| tool_sets::create(cx, ops, org, &new(slug)).await.map(|_| ());
    assert_one(tokio::join!(create("aa"), create("bb")), "at most 100 tool sets");
}
