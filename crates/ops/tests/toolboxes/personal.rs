//! Personal secrets: who sets and sees which values, and which container gets them.

use std::collections::{BTreeMap, BTreeSet};

use waypost_core::Code;
use waypost_core::agent::{Agent, AgentKind, AgentState};
use waypost_core::caller::{Caller, Ctx};
use waypost_core::grant::{AccessLevel, GrantedNames};
use waypost_core::id::{AgentId, InstanceId, UserId};
use waypost_core::organization::Role;
use waypost_core::seal::{Keyring, SecretText};
use waypost_core::secret::SecretKey;
use waypost_core::tool_secret::MAX_VALUE;
use waypost_link::Directory;
use waypost_ops::agent_secrets::{self, AgentSecretRef};
use waypost_ops::grants::NewGrant;
use waypost_ops::instances::containers;
use waypost_ops::instances::{self, InstancePatch, NewInstance};
use waypost_ops::{agents, grants, secret_key, users};
use waypost_store::{agent, audit};
use waypost_toolbox_proto::deployment::ErrorCode;
use waypost_toolbox_proto::message::DeploymentOutcome;

use crate::fixture::{Daemon, Fixture, code, failure, secret, set_up, version, with};

waypost_testkit::both!(set_up => the_value_of_an_agent_is_sent_only_for_its_own_container);

waypost_testkit::both!(extended set_up =>
    personal_secrets_are_validated,
    admins_set_the_values_of_services,
    people_set_their_own_values_where_they_have_a_grant,
    a_missing_value_is_reported_with_the_page_on_which_to_set_it,
    lists_are_read_with_an_agent_that_has_all_values,
    values_follow_updates_and_rollbacks,
);

const VALUE: &str = "hunter2-planted-value";

fn names(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn text(value: &str) -> SecretText {
    SecretText::new(value.to_owned())
}

/// A person with an agent.
struct Person {
    cx: Ctx,
    user: UserId,
    agent: AgentId,
}

impl Fixture {
    /// Returns an instance for which each agent supplies its own `TOKEN` and can supply `EXTRA`.
    fn new_personal(&self, slug: &str) -> NewInstance {
        let new = with(self.new_instance(slug), |new| {
            new.catalog_version_id = version(1, 5);
            new.personal_secrets = names(&["TOKEN", "EXTRA"]);
        });
        NewInstance { secrets: BTreeMap::new(), ..new }
    }

    async fn create_personal(&self, slug: &str) -> InstanceId {
        instances::create(&self.cx, &self.ops, &self.org, &self.new_personal(slug)).await.unwrap().instance.id
    }

    async fn service(&self, name: &str) -> AgentId {
        agents::create(&self.cx, &self.ops, &self.org, name).await.unwrap().agent.id
    }

    async fn person(&self, name: &str) -> Person {
        let email = format!("{name}@acme.example");
        let member = users::create(&self.cx, &self.ops, &self.org, &email, Role::Member).await.unwrap();
        let actor = member.user_id.to_string();
        let caller = Caller::Member { organization_id: self.org.clone(), role: Role::Member, actor };
        let agent = Agent {
            id: AgentId::new(&*self.cx.random),
            organization_id: self.org.clone(),
            name: email,
            kind: AgentKind::Person,
            user_id: Some(member.user_id.clone()),
            state: AgentState::Active,
            created_at: self.cx.now(),
            created_by: "operator".to_owned(),
            last_seen_at: None,
        };
        let mut tx = self.ops.store().begin().await.unwrap();
        agent::insert(&mut tx, &agent).await.unwrap();
        tx.commit().await.unwrap();
        Person { cx: self.cx.with_caller(caller), user: member.user_id, agent: agent.id }
    }

    async fn grant(&self, agent: &AgentId, instance: &InstanceId, expires_in: Option<i64>) {
        let new = NewGrant {
            agent_id: agent.clone(),
            instance_id: instance.clone(),
            access: AccessLevel::ReadOnly,
            names: GrantedNames::default(),
            rules: Vec::new(),
            expires_at: expires_in.map(|time| self.cx.now().plus(time)),
        };
        grants::create(&self.cx, &self.ops, &self.org, &new).await.unwrap();
    }

    async fn set(&self, instance: &InstanceId, agent: &AgentId, name: &str, value: &str) -> waypost_core::Result<()> {
        let at = AgentSecretRef { instance, agent, name };
        agent_secrets::set(&self.cx, &self.ops, &self.org, at, &text(value)).await
    }
}

/// Returns the values and the number that a daemon gets for the container of an agent.
async fn values(daemon: &Daemon<'_>, id: &InstanceId, agent: &AgentId) -> (Vec<(String, String)>, u64) {
    let found = daemon.secrets_for(id, 1, Some(&format!("agent:{agent}"))).await.unwrap();
    (found.values.into_iter().collect(), found.personal_version)
}

fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

async fn personal_secrets_are_validated(fixture: Fixture) {
    let Fixture { ops, cx, org, .. } = &fixture;
    let daemon = fixture.daemon(org, "rack").await;
    let create = async |new: NewInstance| instances::create(cx, ops, org, &new).await;
    let personal = |change: &dyn Fn(&mut instances::CatalogServer)| with(fixture.new_personal("own"), change);
    let cases = [
        // Other modes of sharing, and volumes that agents share.
        personal(&|new| new.catalog_version_id = version(1, 1)),
        personal(&|new| new.catalog_version_id = version(1, 6)),
        personal(&|new| new.personal_secrets = names(&["TOKEN", "OTHER"])),
        NewInstance { secrets: [("TOKEN".to_owned(), secret(1, "TOKEN"))].into(), ..fixture.new_personal("own") },
    ];
    for new in cases {
        let error = create(new).await.unwrap_err();
        assert_eq!(
            (error.code, &error.details["field"]),
            (Code::InvalidArguments, &"personal_secrets".into()),
            "{error}"
        );
    }
    let error = create(personal(&|new| new.personal_secrets = names(&["EXTRA"]))).await.unwrap_err();
    assert_eq!(error.details["reason"], "secret_missing", "TOKEN is required");
    let id = create(fixture.new_personal("own")).await.unwrap().instance.id;
    let found = fixture.instance(&id).await;
    let found: Vec<_> =
        found.personal_secrets.iter().map(|secret| (secret.name.as_str(), secret.is_required)).collect();
    assert_eq!(found, [("EXTRA", false), ("TOKEN", true)]);
    let desired = fixture.directory.desired_state(&daemon.id).await.unwrap().unwrap();
    let mounts = &desired.instances[0].spec.secrets;
    let mounts: Vec<_> =
        mounts.iter().map(|one| (one.name.as_str(), one.personal, one.optional, one.version)).collect();
    assert_eq!(mounts, [("TOKEN", true, false, 0), ("EXTRA", true, true, 0)]);
    let update = async |patch: InstancePatch| instances::update(cx, ops, org, &id, &patch).await;
    let assigned = BTreeMap::from([("TOKEN".to_owned(), secret(1, "TOKEN"))]);
    for patch in [
        InstancePatch { secrets: Some(assigned.clone()), ..InstancePatch::default() },
        InstancePatch { catalog_version_id: Some(version(1, 1)), ..InstancePatch::default() },
        InstancePatch { personal_secrets: Some(names(&["NOPE", "TOKEN"])), ..InstancePatch::default() },
    ] {
        assert_eq!(update(patch).await.unwrap_err().details["field"], "personal_secrets");
    }
    let same = InstancePatch { personal_secrets: Some(names(&["TOKEN", "EXTRA"])), ..InstancePatch::default() };
    assert_eq!(update(same).await.unwrap().instance.generation, 1, "nothing has changed");
    let shared = InstancePatch {
        secrets: Some(assigned),
        personal_secrets: Some(BTreeSet::new()),
        catalog_version_id: Some(version(1, 1)),
        ..InstancePatch::default()
    };
    let updated = update(shared).await.unwrap().instance;
    assert_eq!((updated.generation, updated.personal_secrets.len(), updated.secrets.len()), (2, 0, 1));
}

async fn admins_set_the_values_of_services(fixture: Fixture) {
    let Fixture { ops, cx, org, other, .. } = &fixture;
    let _daemon = fixture.daemon(org, "rack").await;
    let id = fixture.create_personal("own").await;
    let agent = fixture.service("ci").await;
    fixture.set(&id, &agent, "TOKEN", VALUE).await.unwrap();
    fixture.set(&id, &agent, "TOKEN", &"x".repeat(MAX_VALUE)).await.unwrap();
    for (name, value, field) in [("TOKEN", "", "value"), ("NOPE", "x", "name"), ("", "x", "name")] {
        let error = fixture.set(&id, &agent, name, value).await.unwrap_err();
        assert_eq!((error.code, &error.details["field"]), (Code::InvalidArguments, &field.into()), "{error}");
    }
    let large = fixture.set(&id, &agent, "TOKEN", &"x".repeat(MAX_VALUE + 1)).await.unwrap_err();
    assert_eq!(large.details["field"], "value");
    let unknown = AgentId::from_store("agt_0".into());
    assert_eq!(code(fixture.set(&id, &unknown, "TOKEN", "x").await), Code::NotFound);
    let at = AgentSecretRef { instance: &id, agent: &agent, name: "TOKEN" };
    assert_eq!(code(agent_secrets::set(cx, ops, other, at, &text("x")).await), Code::NotFound);
    let shared = fixture.create("shared").await.instance.id;
    assert_eq!(code(fixture.set(&shared, &agent, "TOKEN", "x").await), Code::InvalidArguments);
    // People set their own values, but admins can remove them.
    let person = fixture.person("ann").await;
    fixture.grant(&person.agent, &id, None).await;
    let error = fixture.set(&id, &person.agent, "TOKEN", "x").await.unwrap_err();
    assert_eq!((error.code, &error.details["reason"]), (Code::Conflict, &"person".into()));
    agent_secrets::set_own(&person.cx, ops, org, (&id, "EXTRA"), &text(VALUE)).await.unwrap();
    let listed = agent_secrets::list(cx, ops, org, &id).await.unwrap();
    let listed: Vec<_> = listed.iter().map(|one| (one.agent_name.as_str(), one.name.as_str())).collect();
    assert_eq!(listed, [("ann@acme.example", "EXTRA"), ("ci", "TOKEN")]);
    let own = AgentSecretRef { instance: &id, agent: &person.agent, name: "EXTRA" };
    agent_secrets::delete(cx, ops, org, own).await.unwrap();
    assert_eq!(code(agent_secrets::delete(cx, ops, org, own).await), Code::NotFound);
    let view = agent_secrets::list_of_agent(cx, ops, org, &agent).await.unwrap();
    assert_eq!((view.len(), view[0].slug.as_str()), (1, "own"), "only instances with personal secrets");
    let view: Vec<_> = view[0].secrets.iter().map(|one| (one.name.as_str(), one.set_at.is_some())).collect();
    assert_eq!(view, [("EXTRA", false), ("TOKEN", true)]);
    // Every write is in the audit log, without the value.
    let events = audit::list(&mut ops.store().read().await.unwrap(), org, None, 100).await.unwrap();
    let events: Vec<_> = events.into_iter().filter(|event| event.act.starts_with("agent_secret.")).collect();
    let mut acts: Vec<_> = events.iter().map(|event| event.act.as_str()).collect();
    acts.sort_unstable();
    assert_eq!(acts, ["agent_secret.delete", "agent_secret.set", "agent_secret.set", "agent_secret.set"]);
    assert!(events.iter().all(|event| !format!("{event:?}").contains(VALUE)), "{events:?}");
    // The values are stored sealed, and rotate with the key of the installation.
    let stored = fixture.text("SELECT value FROM agent_secrets WHERE value IS NOT NULL").await;
    assert!(!stored.contains(&"x".repeat(32)));
    let key = |byte| SecretKey::new([byte; 32]);
    let rotated = Keyring::new(&key(8), Some(&key(7)));
    secret_key::reseal(cx, ops, &rotated).await.unwrap();
    assert_ne!(fixture.text("SELECT value FROM agent_secrets WHERE value IS NOT NULL").await, stored);
}

async fn people_set_their_own_values_where_they_have_a_grant(fixture: Fixture) {
    let Fixture { ops, cx, org, clock, .. } = &fixture;
    let daemon = fixture.daemon(org, "rack").await;
    let (own, hidden, expired) = (
        fixture.create_personal("own").await,
        fixture.create_personal("hidden").await,
        fixture.create_personal("expired").await,
    );
    let shared = fixture.create("shared").await.instance.id;
    let (ann, bob) = (fixture.person("ann").await, fixture.person("bob").await);
    for (instance, expires) in [(&own, None), (&shared, None), (&expired, Some(1_000))] {
        fixture.grant(&ann.agent, instance, expires).await;
    }
    let slugs = async |person: &Person| -> Vec<String> {
        let found = agent_secrets::list_own(&person.cx, ops, org).await.unwrap();
        found.into_iter().map(|one| one.slug).collect()
    };
    assert_eq!(slugs(&ann).await, ["expired", "own"]);
    clock.advance(1_000);
    assert_eq!(slugs(&ann).await, ["own"]);
    assert_eq!(slugs(&bob).await, Vec::<String>::new());
    agent_secrets::set_own(&ann.cx, ops, org, (&own, "TOKEN"), &text(VALUE)).await.unwrap();
    let unknown = InstanceId::from_store("ins_0".into());
    let missing = agent_secrets::set_own(&ann.cx, ops, org, (&unknown, "TOKEN"), &text("x")).await.unwrap_err();
    // An instance without a grant, or without personal secrets, is like one that does not exist, whatever the name.
    for (person, instance) in [(&ann, &hidden), (&ann, &expired), (&ann, &shared), (&bob, &own)] {
        for name in ["TOKEN", "NOPE"] {
            let error = agent_secrets::set_own(&person.cx, ops, org, (instance, name), &text("x")).await.unwrap_err();
            assert_eq!((error.code, &error.message), (missing.code, &missing.message));
            let error = agent_secrets::delete_own(&person.cx, ops, org, (instance, name)).await.unwrap_err();
            assert_eq!((error.code, &error.message), (missing.code, &missing.message));
        }
    }
    // The operator and API keys have no values of their own.
    let key = Caller::Member { organization_id: org.clone(), role: Role::Owner, actor: "key_1".to_owned() };
    for caller in [Caller::Operator, key] {
        let error = agent_secrets::list_own(&cx.with_caller(caller), ops, org).await.unwrap_err();
        assert_eq!(error.details["reason"], "user_required");
    }
    let (found, first) = values(&daemon, &own, &ann.agent).await;
    assert_eq!(found, pairs(&[("TOKEN", VALUE)]));
    // A removal is a change as well.
    agent_secrets::delete_own(&ann.cx, ops, org, (&own, "TOKEN")).await.unwrap();
    let (found, second) = values(&daemon, &own, &ann.agent).await;
    assert!(found.is_empty() && second > first);
    agent_secrets::set_own(&ann.cx, ops, org, (&own, "TOKEN"), &text("again")).await.unwrap();
    assert!(values(&daemon, &own, &ann.agent).await.1 > second);
    // Everything is deleted when the person leaves.
    users::delete(cx, ops, org, &ann.user).await.unwrap();
    assert_eq!(fixture.count("SELECT count(*) FROM agent_secrets").await, 0);
    assert!(values(&daemon, &own, &ann.agent).await.0.is_empty());
}

/// Requests with the key of another agent, of no agent, or of another instance or toolbox get no personal secret.
async fn the_value_of_an_agent_is_sent_only_for_its_own_container(fixture: Fixture) {
    let Fixture { org, other, .. } = &fixture;
    let (daemon, second) = (fixture.daemon(org, "rack").await, fixture.daemon(org, "second").await);
    let foreign = fixture.daemon(other, "rack").await;
    let on = |slug: &str| with(fixture.new_personal(slug), |new| new.toolbox_id = Some(daemon.id.clone()));
    let create =
        async |new: NewInstance| instances::create(&fixture.cx, &fixture.ops, org, &new).await.unwrap().instance.id;
    let (own, twin) = (create(on("own")).await, create(on("twin")).await);
    let mut agents = Vec::new();
    for name in ["one", "two", "three"] {
        let agent = fixture.service(name).await;
        for instance in [&own, &twin] {
            fixture.set(instance, &agent, "TOKEN", &format!("{name} of {instance}")).await.unwrap();
        }
        agents.push((name, agent));
    }
    for (name, agent) in &agents {
        for instance in [&own, &twin] {
            let (found, number) = values(&daemon, instance, agent).await;
            assert_eq!(found, pairs(&[("TOKEN", &format!("{name} of {instance}"))]));
            assert!(number > 0);
        }
        // The toolbox has no such instance.
        let key = format!("agent:{agent}");
        assert_eq!(second.secrets_for(&own, 1, Some(&key)).await, None);
        assert_eq!(foreign.secrets_for(&own, 1, Some(&key)).await, None);
    }
    let agent = &agents[0].1;
    let keys = [
        "deployment".to_owned(),
        "api".to_owned(),
        "api:operator".to_owned(),
        String::new(),
        "agent:".to_owned(),
        agent.to_string(),
        format!("agent:{agent}:session"),
        format!("Agent:{agent}"),
        format!("agent: {agent}"),
        "agent:agt_0000000000000000".to_owned(),
        "agent:%".to_owned(),
    ];
    for key in keys.iter().map(|key| Some(key.as_str())).chain([None]) {
        let found = daemon.secrets_for(&own, 1, key).await.unwrap();
        assert!(found.values.is_empty() && found.personal_version == 0, "{key:?}: {found:?}");
    }
    // A change of one agent has another number than those of the others, and changes nothing of theirs.
    let before = values(&daemon, &own, &agents[1].1).await;
    fixture.set(&own, agent, "EXTRA", "new").await.unwrap();
    let (found, number) = values(&daemon, &own, agent).await;
    assert_eq!(found, pairs(&[("EXTRA", "new"), ("TOKEN", &format!("one of {own}"))]));
    assert!(number > before.1);
    assert_eq!(values(&daemon, &own, &agents[1].1).await, before);
}

async fn a_missing_value_is_reported_with_the_page_on_which_to_set_it(fixture: Fixture) {
    let Fixture { org, cx, .. } = &fixture;
    let ops = &fixture.ops.clone().with_console_origin("https://waypost.example".to_owned());
    let _daemon = fixture.daemon(org, "rack").await;
    let id = fixture.create_personal("own").await;
    let instance = fixture.instance(&id).await;
    let (ann, service) = (fixture.person("ann").await, fixture.service("ci").await);
    fixture.grant(&ann.agent, &id, None).await;
    let cases = [
        (&ann.agent, "https://waypost.example/o/acme/personal-secrets#own".to_owned()),
        (&service, format!("https://waypost.example/o/acme/agents/{service}/secrets#own")),
    ];
    for (agent, url) in cases {
        let error = containers::find_of_agent(ops, &instance, agent).await.unwrap_err();
        assert_eq!((error.code, &error.details["reason"]), (Code::Conflict, &"secret_missing".into()));
        assert!(error.message.contains(&url) && error.message.contains("`TOKEN`"), "{}", error.message);
        assert_eq!(error.details["url"], url.as_str());
    }
    agent_secrets::set_own(&ann.cx, ops, org, (&id, "TOKEN"), &text(VALUE)).await.unwrap();
    let found = containers::find_of_agent(ops, &instance, &ann.agent).await.unwrap();
    assert_eq!((found.key, found.personal_version), (format!("agent:{}", ann.agent), 1));
    assert!(containers::find_of_agent(ops, &instance, &service).await.is_err(), "the value is that of another agent");
    // A call from the console uses the container of the caller's own agent, or fails.
    let admin = |actor: &str| {
        let (organization_id, actor) = (org.clone(), actor.to_owned());
        cx.with_caller(Caller::Member { organization_id, role: Role::Admin, actor })
    };
    let call = async |cx: &Ctx| {
        let arguments = serde_json::Map::new();
        instances::call::call_tool(cx, ops, org, &id, ("find", &arguments)).await.unwrap_err()
    };
    assert_eq!(call(&admin("key_1")).await.details["reason"], "secret_missing");
    assert_eq!(call(&admin(ann.user.as_str())).await.details["reason"], "toolbox_offline", "it was sent");
}

async fn lists_are_read_with_an_agent_that_has_all_values(fixture: Fixture) {
    let Fixture { ops, cx, org, .. } = &fixture;
    let _daemon = fixture.daemon(org, "rack").await;
    let id = fixture.create_personal("own").await;
    let list = async || instances::call::list_tools(cx, ops, org, &id).await.unwrap_err();
    let error = list().await;
    assert_eq!(error.details["reason"], "secret_missing");
    assert!(error.message.contains("`TOKEN`"), "{}", error.message);
    let agent = fixture.service("ci").await;
    fixture.set(&id, &agent, "EXTRA", "x").await.unwrap();
    assert_eq!(list().await.details["reason"], "secret_missing", "TOKEN is required");
    fixture.set(&id, &agent, "TOKEN", "x").await.unwrap();
    assert_eq!(list().await.details["reason"], "toolbox_offline", "it was sent");
    let disabled = agents::AgentPatch { state: Some(AgentState::Disabled), ..Default::default() };
    agents::update(cx, ops, org, &agent, &disabled).await.unwrap();
    assert_eq!(list().await.details["reason"], "secret_missing");
}

/// Values of the earlier generation are kept until the new one serves calls, and exist again after a rollback.
async fn values_follow_updates_and_rollbacks(fixture: Fixture) {
    let Fixture { ops, cx, org, .. } = &fixture;
    let daemon = fixture.daemon(org, "rack").await;
    let id = fixture.create_personal("own").await;
    daemon.complete(&id).await;
    let agent = fixture.service("ci").await;
    for name in ["TOKEN", "EXTRA"] {
        fixture.set(&id, &agent, name, name).await.unwrap();
    }
    let update = async |personal: &[&str]| {
        let secrets = BTreeMap::from([("TOKEN".to_owned(), secret(1, "TOKEN"))]);
        let secrets = Some(secrets).filter(|_| !personal.contains(&"TOKEN"));
        let patch = InstancePatch { secrets, personal_secrets: Some(names(personal)), ..InstancePatch::default() };
        instances::update(cx, ops, org, &id, &patch).await.unwrap();
    };
    let key = format!("agent:{agent}");
    let found = async |generation| daemon.secrets_for(&id, generation, Some(&key)).await.unwrap().values;
    update(&["EXTRA"]).await;
    // Each generation gets what it declares.
    assert_eq!(found(1).await.into_iter().collect::<Vec<_>>(), pairs(&[("EXTRA", "EXTRA"), ("TOKEN", "TOKEN")]));
    assert_eq!(found(2).await.into_iter().collect::<Vec<_>>(), pairs(&[("EXTRA", "EXTRA"), ("TOKEN", "hunter2")]));
    let error = failure(ErrorCode::HealthTimeout);
    daemon.end(&id, DeploymentOutcome::RolledBack { error }).await;
    let restored = fixture.instance(&id).await;
    assert_eq!((restored.personal_secrets.len(), restored.secrets.len()), (2, 0));
    assert_eq!(fixture.count("SELECT count(*) FROM agent_secrets").await, 2);
    update(&["EXTRA"]).await;
    daemon.complete(&id).await;
    assert_eq!(fixture.count("SELECT count(*) FROM agent_secrets").await, 1);
    assert_eq!(code(fixture.set(&id, &agent, "TOKEN", "x").await), Code::InvalidArguments);
}
