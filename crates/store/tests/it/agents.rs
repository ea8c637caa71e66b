//! Agents, their tokens and grants, and tool sets.

use serde_json::json;
use waypost_core::Timestamp;
use waypost_core::agent::{Agent, AgentKind, AgentState, AgentToken};
use waypost_core::argument_rule::{ArgumentRule, Comparison};
use waypost_core::grant::{AccessLevel, Grant, GrantedNames};
use waypost_core::id::{AgentId, AgentTokenId, GrantId, InstanceId, OrganizationId, ToolSetId, UserId};
use waypost_core::tool_override::ToolOverride;
use waypost_core::tool_set::{ToolSet, ToolSetMember};
use waypost_store::agent_token::{TokenUse, USED_EVERY_MS};
use waypost_store::grant::GrantFilter;
use waypost_store::recorder::{Recorder, RecorderEntry};
use waypost_store::{Conn, Db, Tx, agent, agent_token, grant, instance, system, tool_override, tool_set};

use crate::fixture::{Fixture, NOW, execute};
use crate::open;

struct TwoWorlds {
    db: Db,
    tx: Tx,
    one: Fixture,
    two: Fixture,
}

async fn two_worlds(url: &str) -> TwoWorlds {
    let db = open(url).await;
    let (one, two) = (Fixture::new(1), Fixture::new(2));
    one.seed_with_activity(&db).await;
    two.seed_with_activity(&db).await;
    TwoWorlds { tx: db.begin().await.unwrap(), db, one, two }
}

fn agent_id(text: &str) -> AgentId {
    AgentId::from_store(text.to_owned())
}

fn token_id(text: &str) -> AgentTokenId {
    AgentTokenId::from_store(text.to_owned())
}

fn instance_id(text: &str) -> InstanceId {
    InstanceId::from_store(text.to_owned())
}

fn new_agent(organization: &OrganizationId, id: &str, name: &str) -> Agent {
    Agent {
        id: agent_id(id),
        organization_id: organization.clone(),
        name: name.to_owned(),
        kind: AgentKind::Service,
        user_id: None,
        state: AgentState::Active,
        created_at: NOW,
        created_by: "operator".to_owned(),
        last_seen_at: None,
    }
}

/// Returns the number of the organisation's last change.
async fn version(conn: &mut Conn, organization: &OrganizationId) -> i64 {
    let changed = conn.list_changed_organizations(-1, 99).await.unwrap();
    changed.into_iter().find(|(id, _)| id == organization).map_or(0, |(_, version)| version)
}

async fn agents_are_read_and_written(TwoWorlds { mut tx, one, two, .. }: TwoWorlds) {
    let org = &one.organization;
    let mut new = new_agent(org, "agt_x", "Zed");
    agent::insert(&mut tx, &new).await.unwrap();
    assert_eq!(agent::find(&mut tx, org, &new.id).await.unwrap().as_ref(), Some(&new));
    assert_eq!(agent::find(&mut tx, &two.organization, &new.id).await.unwrap(), None);
    assert_eq!(agent::find_by_name(&mut tx, org, "Zed").await.unwrap().as_ref(), Some(&new));
    assert_eq!(agent::find_by_name(&mut tx, &two.organization, "Zed").await.unwrap(), None);
    let person = agent::find(&mut tx, org, &agent_id("agt_person1")).await.unwrap().unwrap();
    assert_eq!((person.kind, person.user_id.as_ref()), (AgentKind::Person, Some(&one.user)));
    (new.name, new.state) = ("Zoe".to_owned(), AgentState::Disabled);
    let foreign = Agent { organization_id: two.organization.clone(), ..new.clone() };
    assert!(!agent::update(&mut tx, &foreign).await.unwrap());
    assert!(agent::update(&mut tx, &new).await.unwrap());
    assert_eq!(agent::find(&mut tx, org, &new.id).await.unwrap(), Some(new.clone()));
    let names = async |tx: &mut Tx, after: Option<&str>, limit: u32| -> Vec<String> {
        agent::list(tx, org, after, limit).await.unwrap().into_iter().map(|found| found.name).collect()
    };
    let all = names(&mut tx, None, 9).await;
    assert_eq!((all.len(), agent::count(&mut tx, org).await.unwrap()), (3, 3));
    assert_eq!(names(&mut tx, Some(&all[0]), 9).await, all[1..]);
    assert_eq!(names(&mut tx, None, 1).await, all[..1]);
    assert!(!agent::delete(&mut tx, &two.organization, &new.id).await.unwrap());
    assert!(agent::delete(&mut tx, org, &new.id).await.unwrap());
    assert!(!agent::delete(&mut tx, org, &new.id).await.unwrap());
}

async fn names_and_persons_are_unique_in_an_organisation(TwoWorlds { db, tx, one, two }: TwoWorlds) {
    drop(tx);
    let insert = async |agent: Agent| {
        let mut tx = db.begin().await.unwrap();
        agent::insert(&mut tx, &agent).await
    };
    insert(new_agent(&two.organization, "agt_x", "New")).await.unwrap();
    let taken = insert(new_agent(&one.organization, "agt_x", "Crawler")).await;
    assert!(taken.unwrap_err().is_unique_violation());
    let person = |organization, user: &UserId| Agent {
        kind: AgentKind::Person,
        user_id: Some(user.clone()),
        ..new_agent(organization, "agt_x", "Person")
    };
    assert!(insert(person(&one.organization, &one.user)).await.unwrap_err().is_unique_violation());
    insert(person(&one.organization, &two.user)).await.unwrap();
}

async fn tokens_are_found_by_their_hash_and_revoked(TwoWorlds { mut tx, one, two, .. }: TwoWorlds) {
    let (org, agent) = (&one.organization, agent_id("agt_1"));
    let token = AgentToken {
        id: token_id("agk_x"),
        agent_id: agent.clone(),
        name: "server".to_owned(),
        created_at: NOW,
        expires_at: Some(NOW.plus(10)),
        last_used_at: None,
        revoked_at: None,
    };
    let forever = AgentToken { id: token_id("agk_y"), expires_at: None, ..token.clone() };
    agent_token::insert(&mut tx, org, &token, "hash-x").await.unwrap();
    agent_token::insert(&mut tx, org, &forever, "hash-y").await.unwrap();
    let (found, owner) = system::find_agent_token(&mut tx, "hash-x").await.unwrap().unwrap();
    assert_eq!((&found, owner.id.as_str(), &owner.organization_id), (&token, "agt_1", org));
    assert_eq!(system::find_agent_token(&mut tx, "hash").await.unwrap(), None);
    assert_eq!(agent_token::find(&mut tx, org, &agent, &token.id).await.unwrap().as_ref(), Some(&token));
    assert_eq!(agent_token::find(&mut tx, org, &agent_id("agt_2"), &token.id).await.unwrap(), None);
    assert_eq!(agent_token::find(&mut tx, &two.organization, &agent, &token.id).await.unwrap(), None);
    let active = async |tx: &mut Tx, at| agent_token::count_active(tx, org, &agent, at).await.unwrap();
    assert_eq!((active(&mut tx, NOW).await, active(&mut tx, NOW.plus(10)).await), (2, 1), "one is expired");
    assert!(!agent_token::revoke(&mut tx, &two.organization, &agent, &token.id, NOW).await.unwrap());
    assert!(!agent_token::revoke(&mut tx, org, &agent_id("agt_2"), &token.id, NOW).await.unwrap());
    assert!(agent_token::revoke(&mut tx, org, &agent, &forever.id, NOW.plus(3)).await.unwrap());
    assert!(!agent_token::revoke(&mut tx, org, &agent, &forever.id, NOW.plus(4)).await.unwrap(), "revoked once");
    let listed = agent_token::list(&mut tx, org, &[&agent, &agent_id("agt_2")]).await.unwrap();
    let revoked = AgentToken { revoked_at: Some(NOW.plus(3)), ..forever };
    let mine = agent_token::find(&mut tx, org, &agent, &token_id("agk_1")).await.unwrap().unwrap();
    assert_eq!(mine.revoked_at, Some(Timestamp(7)));
    assert_eq!(listed, [mine, token, revoked]);
    assert_eq!((active(&mut tx, NOW.plus(3)).await, active(&mut tx, NOW.plus(10)).await), (1, 0));
    assert_eq!(agent_token::list(&mut tx, &two.organization, &[&agent]).await.unwrap(), []);
}

async fn ended_tokens_are_deleted(TwoWorlds { mut tx, one, .. }: TwoWorlds) {
    let (org, agent) = (&one.organization, agent_id("agt_1"));
    for (id, expires_at, revoked_at) in [
        ("agk_a", Some(NOW.plus(1)), None),
        ("agk_b", Some(NOW.plus(9)), Some(NOW.plus(2))),
        ("agk_c", None, Some(NOW.plus(3))),
        ("agk_d", Some(NOW.plus(3)), Some(NOW.plus(8))),
        ("agk_e", None, None),
        ("agk_f", Some(NOW.plus(9)), None),
    ] {
        let (id, name) = (token_id(id), String::new());
        let token = AgentToken {
            id: id.clone(),
            agent_id: agent.clone(),
            name,
            created_at: NOW,
            expires_at,
            last_used_at: None,
            revoked_at: None,
        };
        agent_token::insert(&mut tx, org, &token, id.as_str()).await.unwrap();
        if let Some(at) = revoked_at {
            assert!(agent_token::revoke(&mut tx, org, &agent, &id, at).await.unwrap());
        }
    }
    let ids = async |tx: &mut Tx| -> Vec<String> {
        let tokens = agent_token::list(tx, org, &[&agent]).await.unwrap();
        tokens.into_iter().map(|token| token.id.to_string()).collect()
    };
    // The tokens of the fixtures ended long ago.
    assert_eq!(agent_token::delete_ended(&mut tx, NOW, 1).await.unwrap(), 1);
    assert_eq!(agent_token::delete_ended(&mut tx, NOW, 9).await.unwrap(), 1);
    assert_eq!(ids(&mut tx).await, ["agk_a", "agk_b", "agk_c", "agk_d", "agk_e", "agk_f"]);
    assert_eq!(agent_token::delete_ended(&mut tx, NOW.plus(3), 9).await.unwrap(), 2);
    assert_eq!(ids(&mut tx).await, ["agk_c", "agk_d", "agk_e", "agk_f"]);
    agent_token::delete_surplus(&mut tx, org, &agent, NOW.plus(3), 2).await.unwrap();
    assert_eq!(ids(&mut tx).await.len(), 4);
    agent_token::delete_surplus(&mut tx, org, &agent, NOW.plus(3), 1).await.unwrap();
    assert_eq!(ids(&mut tx).await, ["agk_d", "agk_e", "agk_f"], "the newest ended one is kept");
}

async fn uses_are_recorded_at_most_once_a_minute(TwoWorlds { db, tx, one, .. }: TwoWorlds) {
    drop(tx);
    let (org, agent) = (&one.organization, agent_id("agt_1"));
    let token_use = |at: Timestamp| TokenUse { token_id: Some(token_id("agk_1")), agent_id: agent.clone(), at };
    let record = async |uses: &[Timestamp]| {
        let (recorder, done) = Recorder::start(db.clone());
        for at in uses {
            recorder.record(RecorderEntry::TokenUse(token_use(*at))).await;
        }
        drop(recorder);
        done.await.unwrap();
        let mut conn = db.read().await.unwrap();
        let token = agent_token::find(&mut conn, org, &agent, &token_id("agk_1")).await.unwrap().unwrap();
        let agent = agent::find(&mut conn, org, &agent).await.unwrap().unwrap();
        (token.last_used_at, agent.last_seen_at)
    };
    let before = version(&mut db.read().await.unwrap(), org).await;
    assert_eq!(record(&[NOW, NOW.plus(1)]).await, (Some(NOW), Some(NOW)));
    assert_eq!(record(&[NOW.plus(USED_EVERY_MS - 1)]).await, (Some(NOW), Some(NOW)));
    let next = NOW.plus(USED_EVERY_MS);
    assert_eq!(record(&[next, NOW]).await, (Some(next), Some(next)));
    assert_eq!(record(&[NOW.plus(1)]).await, (Some(next), Some(next)), "an earlier use");
    assert_eq!(version(&mut db.read().await.unwrap(), org).await, before, "a use is not a change");
}

fn new_grant(organization: &OrganizationId, id: &str, agent: &str, instance: &str) -> Grant {
    Grant {
        id: GrantId::from_store(id.to_owned()),
        organization_id: organization.clone(),
        agent_id: agent_id(agent),
        instance_id: instance_id(instance),
        access: AccessLevel::FullAccess,
        names: GrantedNames::default(),
        rules: Vec::new(),
        expires_at: None,
        created_at: NOW,
        created_by: "operator".to_owned(),
    }
}

async fn grants_are_read_and_written(TwoWorlds { mut tx, one, two, .. }: TwoWorlds) {
    let org = &one.organization;
    let seeded = grant::find(&mut tx, org, &GrantId::from_store("grt_1".into())).await.unwrap().unwrap();
    let rule = ArgumentRule {
        tool: "search".to_owned(),
        field: "limit".to_owned(),
        comparison: Comparison::AtMost,
        value: json!(5),
    };
    assert_eq!(
        (seeded.names.resources.as_slice(), seeded.rules.as_slice()),
        (&["notes://{id}".to_owned()][..], &[rule.clone()][..])
    );
    let mut new = new_grant(org, "grt_x", "agt_person1", "ins_1");
    grant::insert(&mut tx, &new).await.unwrap();
    assert_eq!(grant::find(&mut tx, org, &new.id).await.unwrap().as_ref(), Some(&new));
    assert_eq!(grant::find(&mut tx, &two.organization, &new.id).await.unwrap(), None);
    new.access = AccessLevel::Custom;
    let list = |text: &str| vec![text.to_owned(), "ü\u{0000}\"".to_owned()];
    new.names = GrantedNames { tools: list("t"), prompts: list("p"), resources: list("r://x") };
    new.rules = vec![rule.clone(), ArgumentRule { value: json!(["a", 1.5, null, true]), ..rule }];
    new.expires_at = Some(NOW.plus(1));
    let foreign = Grant { organization_id: two.organization.clone(), ..new.clone() };
    assert!(!grant::update(&mut tx, &foreign).await.unwrap());
    assert!(grant::update(&mut tx, &new).await.unwrap());
    assert_eq!(grant::find(&mut tx, org, &new.id).await.unwrap().as_ref(), Some(&new));
    let (agent, instance) = (agent_id("agt_1"), instance_id("ins_1"));
    let listed = async |tx: &mut Tx, filter, before: Option<&GrantId>, limit| -> Vec<String> {
        let grants = grant::list(tx, org, filter, before, limit).await.unwrap();
        grants.into_iter().map(|grant| grant.id.to_string()).collect()
    };
    let all = GrantFilter::default();
    assert_eq!(listed(&mut tx, all, None, 9).await, ["grt_x", "grt_1"], "newest first");
    assert_eq!(listed(&mut tx, all, None, 1).await, ["grt_x"]);
    assert_eq!(listed(&mut tx, all, Some(&new.id), 9).await, ["grt_1"]);
    let of_agent = GrantFilter { agent: Some(&agent), instance: None };
    assert_eq!(listed(&mut tx, of_agent, None, 9).await, ["grt_1"]);
    assert_eq!(listed(&mut tx, GrantFilter { instance: Some(&instance), ..all }, None, 9).await, ["grt_x", "grt_1"]);
    let both = GrantFilter { instance: Some(&instance), ..of_agent };
    assert_eq!(listed(&mut tx, both, Some(&new.id), 9).await, ["grt_1"]);
    let other = instance_id("ins_2");
    assert!(listed(&mut tx, GrantFilter { instance: Some(&other), ..all }, None, 9).await.is_empty());
    assert_eq!(grant::count(&mut tx, org, &agent).await.unwrap(), 1);
    assert_eq!(grant::count(&mut tx, &two.organization, &agent).await.unwrap(), 0);
    assert!(!grant::delete(&mut tx, &two.organization, &new.id).await.unwrap());
    assert!(grant::delete(&mut tx, org, &new.id).await.unwrap());
    assert!(!grant::delete(&mut tx, org, &new.id).await.unwrap());
}

fn new_tool_set(organization: &OrganizationId, id: &str, slug: &str, members: Vec<ToolSetMember>) -> ToolSet {
    ToolSet {
        id: ToolSetId::from_store(id.to_owned()),
        organization_id: organization.clone(),
        slug: slug.to_owned(),
        name: "Set".to_owned(),
        prefix: false,
        members,
    }
}

async fn tool_sets_are_read_and_written(TwoWorlds { mut tx, one, two, .. }: TwoWorlds) {
    let org = &one.organization;
    let member = |id: &str, tools: Option<&str>| ToolSetMember {
        instance_id: instance_id(id),
        tools: tools.map(|name| vec![name.to_owned(), "\"'\u{0000}".to_owned()]),
    };
    let mut new = new_tool_set(org, "set_x", "a-set", vec![member("ins_1", None)]);
    tool_set::insert(&mut tx, &new, "skeleton").await.unwrap();
    assert_eq!(tool_set::find(&mut tx, org, &new.id).await.unwrap().as_ref(), Some(&new));
    assert_eq!(tool_set::find(&mut tx, &two.organization, &new.id).await.unwrap(), None);
    assert_eq!(tool_set::find_by_slug(&mut tx, org, "a-set").await.unwrap().as_ref(), Some(&new));
    assert_eq!(tool_set::find_by_slug(&mut tx, &two.organization, "a-set").await.unwrap(), None);
    let taken = tool_set::find_by_skeleton(&mut tx, org, "skeleton").await.unwrap();
    assert_eq!(taken, Some((new.id.clone(), "a-set".to_owned())));
    assert_eq!(tool_set::find_by_skeleton(&mut tx, &two.organization, "skeleton").await.unwrap(), None);
    // The order is that of the members, not that of the instances.
    new.members = vec![member("ins_2", Some("b")), member("ins_1", Some("a"))];
    (new.prefix, new.slug, new.name) = (true, "b-set".to_owned(), "Other".to_owned());
    let foreign = ToolSet { organization_id: two.organization.clone(), ..new.clone() };
    assert!(!tool_set::update(&mut tx, &foreign, "b").await.unwrap());
    assert!(tool_set::update(&mut tx, &new, "b").await.unwrap());
    assert_eq!(tool_set::find(&mut tx, org, &new.id).await.unwrap().as_ref(), Some(&new));
    let seeded = tool_set::find_by_slug(&mut tx, org, "research").await.unwrap().unwrap();
    assert_eq!(seeded.members, [ToolSetMember { tools: Some(vec!["search".to_owned()]), ..member("ins_1", None) }]);
    assert_eq!(tool_set::list(&mut tx, org, None, 9).await.unwrap(), [new.clone(), seeded.clone()]);
    assert_eq!(tool_set::list(&mut tx, org, None, 1).await.unwrap(), [new.clone()]);
    assert_eq!(tool_set::list(&mut tx, org, Some("b-set"), 9).await.unwrap(), [seeded]);
    assert_eq!(tool_set::count(&mut tx, org).await.unwrap(), 2);
    assert!(!tool_set::delete(&mut tx, &two.organization, &new.id).await.unwrap());
    assert!(tool_set::delete(&mut tx, org, &new.id).await.unwrap());
    assert_eq!(tool_set::count(&mut tx, org).await.unwrap(), 1);
    assert_eq!(tool_set::count(&mut tx, &two.organization).await.unwrap(), 1);
}

async fn tool_overrides_are_read_and_written(TwoWorlds { mut tx, one, two, .. }: TwoWorlds) {
    let (org, instance) = (&one.organization, instance_id("ins_1"));
    let seeded = tool_override::list(&mut tx, org, Some(&instance)).await.unwrap();
    assert_eq!(seeded.iter().map(|one| one.tool.as_str()).collect::<Vec<_>>(), ["search"]);
    let new = ToolOverride { tool: "a.b".into(), name: None, description: Some("\"'é".into()), ..seeded[0].clone() };
    tool_override::replace(&mut tx, &new).await.unwrap();
    let all = [new.clone(), seeded[0].clone()];
    assert_eq!(tool_override::list(&mut tx, org, Some(&instance)).await.unwrap(), all);
    assert_eq!(tool_override::list(&mut tx, org, None).await.unwrap(), all);
    assert_eq!(tool_override::list(&mut tx, &two.organization, Some(&instance)).await.unwrap(), []);
    let changed = ToolOverride { name: Some("b".into()), description: None, ..new.clone() };
    let foreign = ToolOverride { organization_id: two.organization.clone(), ..changed.clone() };
    tool_override::replace(&mut tx, &foreign).await.unwrap();
    assert_eq!(tool_override::list(&mut tx, org, None).await.unwrap(), all, "another organisation changes nothing");
    tool_override::replace(&mut tx, &changed).await.unwrap();
    assert_eq!(tool_override::list(&mut tx, org, None).await.unwrap(), [changed, seeded[0].clone()]);
    assert!(!tool_override::delete(&mut tx, &two.organization, &instance, "a.b").await.unwrap());
    assert!(tool_override::delete(&mut tx, org, &instance, "a.b").await.unwrap());
    assert_eq!(tool_override::list(&mut tx, org, None).await.unwrap(), seeded);
    let taken = ToolOverride { name: seeded[0].name.clone(), ..new };
    assert!(tool_override::replace(&mut tx, &taken).await.unwrap_err().is_unique_violation());
}

async fn slugs_are_unique_in_an_organisation(TwoWorlds { db, tx, one, two }: TwoWorlds) {
    drop(tx);
    let insert = async |organization: &OrganizationId, slug: &str, skeleton: &str| {
        let mut tx = db.begin().await.unwrap();
        tool_set::insert(&mut tx, &new_tool_set(organization, "set_x", slug, Vec::new()), skeleton).await
    };
    insert(&one.organization, "other", "other").await.unwrap();
    insert(&two.organization, "research-2", "other").await.unwrap();
    assert!(insert(&one.organization, "research", "other").await.unwrap_err().is_unique_violation());
    assert!(insert(&one.organization, "other", "research").await.unwrap_err().is_unique_violation());
}

/// Deletions remove what refers to the deleted object, and every change is noticed by other processes.
async fn deletions_cascade_and_changes_are_numbered(TwoWorlds { mut tx, one, two, .. }: TwoWorlds) {
    let (org, instance) = (&one.organization, instance_id("ins_1"));
    let ids = [&instance, &instance_id("ins_2"), &instance_id("ins_9")];
    assert_eq!(instance::list_existing(&mut tx, org, &ids).await.unwrap(), vec![instance.clone()]);
    execute(&mut tx, "UPDATE instances SET is_removing = TRUE WHERE id = 'ins_1'".to_owned()).await;
    assert_eq!(instance::list_existing(&mut tx, org, &ids).await.unwrap(), []);
    let other = version(&mut tx, &two.organization).await;
    let mut last = version(&mut tx, org).await;
    let mut is_numbered = async |tx: &mut Tx| {
        let before = std::mem::replace(&mut last, version(tx, org).await);
        before < last
    };
    let agent = new_agent(org, "agt_x", "New");
    agent::insert(&mut tx, &agent).await.unwrap();
    assert!(is_numbered(&mut tx).await);
    agent::update(&mut tx, &agent).await.unwrap();
    assert!(is_numbered(&mut tx).await);
    let token = agent_token::find(&mut tx, org, &agent_id("agt_1"), &token_id("agk_1")).await.unwrap().unwrap();
    let token = AgentToken { id: token_id("agk_x"), agent_id: agent.id.clone(), ..token };
    agent_token::insert(&mut tx, org, &token, "x").await.unwrap();
    assert!(is_numbered(&mut tx).await);
    agent_token::revoke(&mut tx, org, &agent.id, &token.id, NOW).await.unwrap();
    assert!(is_numbered(&mut tx).await);
    let mut grant = new_grant(org, "grt_x", "agt_x", "ins_1");
    grant::insert(&mut tx, &grant).await.unwrap();
    assert!(is_numbered(&mut tx).await);
    grant::update(&mut tx, &grant).await.unwrap();
    assert!(is_numbered(&mut tx).await);
    agent::delete(&mut tx, org, &agent.id).await.unwrap();
    assert!(is_numbered(&mut tx).await);
    assert_eq!(grant::find(&mut tx, org, &grant.id).await.unwrap(), None, "deleted with its agent");
    assert_eq!(system::find_agent_token(&mut tx, "x").await.unwrap(), None);
    grant = new_grant(org, "grt_y", "agt_1", "ins_1");
    grant::insert(&mut tx, &grant).await.unwrap();
    assert!(is_numbered(&mut tx).await);
    grant::delete(&mut tx, org, &grant.id).await.unwrap();
    assert!(is_numbered(&mut tx).await);
    let set = new_tool_set(org, "set_x", "new", vec![ToolSetMember { instance_id: instance.clone(), tools: None }]);
    tool_set::insert(&mut tx, &set, "new").await.unwrap();
    assert!(is_numbered(&mut tx).await);
    tool_set::update(&mut tx, &set, "new").await.unwrap();
    assert!(is_numbered(&mut tx).await);
    assert!(instance::delete(&mut tx, org, &instance).await.unwrap());
    assert!(is_numbered(&mut tx).await);
    assert_eq!(grant::list(&mut tx, org, GrantFilter::default(), None, 9).await.unwrap(), []);
    assert_eq!(tool_set::find(&mut tx, org, &set.id).await.unwrap().unwrap().members, []);
    tool_set::delete(&mut tx, org, &set.id).await.unwrap();
    assert!(is_numbered(&mut tx).await);
    instance::delete_by_toolbox(&mut tx, org, &waypost_core::id::ToolboxId::from_store("tbx_1".into())).await.unwrap();
    assert!(is_numbered(&mut tx).await);
    assert_eq!(version(&mut tx, &two.organization).await, other);
    assert_eq!(grant::list(&mut tx, &two.organization, GrantFilter::default(), None, 9).await.unwrap().len(), 1);
}

waypost_testkit::both!(two_worlds =>
    agents_are_read_and_written,
    names_and_persons_are_unique_in_an_organisation,
    tokens_are_found_by_their_hash_and_revoked,
    ended_tokens_are_deleted,
    uses_are_recorded_at_most_once_a_minute,
    grants_are_read_and_written,
    tool_sets_are_read_and_written,
    tool_overrides_are_read_and_written,
    slugs_are_unique_in_an_organisation,
    deletions_cascade_and_changes_are_numbered,
);
