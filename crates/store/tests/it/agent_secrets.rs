//! The values of agents for personal secrets.

use waypost_core::agent_secret::AgentSecret;
use waypost_core::id::{AgentId, AgentSecretId, InstanceId, OrganizationId};
use waypost_store::{Tx, agent, agent_secret, instance};

use crate::fixture::{Fixture, NOW, execute};
use crate::open;

struct TwoWorlds {
    tx: Tx,
    one: Fixture,
    two: Fixture,
}

async fn two_worlds(url: &str) -> TwoWorlds {
    let db = open(url).await;
    let (one, two) = (Fixture::new(1), Fixture::new(2));
    one.seed_with_activity(&db).await;
    two.seed_with_activity(&db).await;
    TwoWorlds { tx: db.begin().await.unwrap(), one, two }
}

fn agent_id(text: &str) -> AgentId {
    AgentId::from_store(text.to_owned())
}

fn instance_id() -> InstanceId {
    InstanceId::from_store("ins_1".to_owned())
}

fn secret(organization: &OrganizationId, (id, agent): (&str, &str), name: &str, version: u64) -> AgentSecret {
    AgentSecret {
        id: AgentSecretId::from_store(id.to_owned()),
        organization_id: organization.clone(),
        instance_id: instance_id(),
        agent_id: agent_id(agent),
        name: name.to_owned(),
        is_set: true,
        version,
        updated_at: NOW,
    }
}

async fn values_are_written_replaced_and_removed(TwoWorlds { mut tx, one, two }: TwoWorlds) {
    let (org, instance, crawler) = (&one.organization, instance_id(), agent_id("agt_1"));
    let seeded = agent_secret::list(&mut tx, org, &crawler, None).await.unwrap();
    assert_eq!(seeded.iter().map(|secret| secret.name.as_str()).collect::<Vec<_>>(), ["TOKEN"]);
    let key = secret(org, ("ags_key", "agt_1"), "A_KEY", 2);
    agent_secret::replace(&mut tx, &key, Some("sealed-1")).await.unwrap();
    let own = secret(org, ("ags_own", "agt_person1"), "A_KEY", 3);
    agent_secret::replace(&mut tx, &own, Some("sealed-2")).await.unwrap();
    let all = [key.clone(), seeded[0].clone()];
    assert_eq!(agent_secret::list(&mut tx, org, &crawler, Some(&instance)).await.unwrap(), all);
    assert_eq!(agent_secret::list(&mut tx, &two.organization, &crawler, Some(&instance)).await.unwrap(), []);
    let by_instance = agent_secret::list_by_instance(&mut tx, org, &instance).await.unwrap();
    assert_eq!(by_instance, [key.clone(), seeded[0].clone(), own.clone()]);
    assert_eq!(agent_secret::list_by_instance(&mut tx, &two.organization, &instance).await.unwrap(), []);
    // Each value has its own ID.
    let replaced = AgentSecret { id: AgentSecretId::from_store("ags_new".into()), version: 4, ..key.clone() };
    agent_secret::replace(&mut tx, &replaced, Some("sealed-3")).await.unwrap();
    let foreign = AgentSecret { organization_id: two.organization.clone(), version: 9, ..replaced.clone() };
    agent_secret::replace(&mut tx, &foreign, Some("foreign")).await.unwrap();
    let values = agent_secret::list_values(&mut tx, org, &crawler, &instance).await.unwrap();
    let values: Vec<_> = values.iter().map(|(id, value)| (id.as_str(), value.as_str())).collect();
    assert_eq!(values, [("ags_new", "sealed-3"), ("ags_1", "sealed")]);
    assert_eq!(agent_secret::list_values(&mut tx, &two.organization, &crawler, &instance).await.unwrap(), []);
    // A value that was removed keeps its number.
    let removed =
        AgentSecret { id: AgentSecretId::from_store("ags_none".into()), version: 5, is_set: false, ..replaced };
    agent_secret::replace(&mut tx, &removed, None).await.unwrap();
    assert_eq!(agent_secret::list(&mut tx, org, &crawler, Some(&instance)).await.unwrap()[0], removed);
    assert_eq!(agent_secret::list_values(&mut tx, org, &crawler, &instance).await.unwrap().len(), 1);
    assert_eq!(agent_secret::list_by_instance(&mut tx, org, &instance).await.unwrap(), [seeded[0].clone(), own]);
}

async fn changes_are_numbered_within_an_instance(TwoWorlds { mut tx, one, two }: TwoWorlds) {
    let instance = instance_id();
    for expected in 1..4 {
        assert_eq!(agent_secret::next_version(&mut tx, &one.organization, &instance).await.unwrap(), Some(expected));
    }
    assert_eq!(agent_secret::next_version(&mut tx, &two.organization, &instance).await.unwrap(), None);
    // A change of the instance keeps the number.
    let found = instance::find(&mut tx, &one.organization, &instance).await.unwrap().unwrap();
    instance::update(&mut tx, &found).await.unwrap();
    assert_eq!(agent_secret::next_version(&mut tx, &one.organization, &instance).await.unwrap(), Some(4));
}

async fn active_agents_with_values_are_listed_services_first(TwoWorlds { mut tx, one, two }: TwoWorlds) {
    let (org, instance) = (&one.organization, instance_id());
    let own = secret(org, ("ags_own", "agt_person1"), "A_KEY", 3);
    agent_secret::replace(&mut tx, &own, Some("sealed")).await.unwrap();
    agent_secret::replace(&mut tx, &secret(org, ("ags_x", "agt_1"), "A_KEY", 4), None).await.unwrap();
    let agents = async |tx: &mut Tx, org: &OrganizationId| -> Vec<(String, String)> {
        let found = agent_secret::list_agents(tx, org, &instance_id(), NOW).await.unwrap();
        found.into_iter().map(|(agent, name)| (agent.to_string(), name)).collect()
    };
    let pair = |agent: &str, name: &str| (agent.to_owned(), name.to_owned());
    // A person needs a grant; a service does not.
    execute(&mut tx, "DELETE FROM grants".to_owned()).await;
    assert_eq!(agents(&mut tx, org).await, [pair("agt_1", "TOKEN")]);
    let grant = "INSERT INTO grants VALUES ('grt_person', 'org_1', 'agt_person1', 'ins_1', 'full', '[]', '[]', '[]', '[]', \
                 NULL, 5, 'usr_1')";
    execute(&mut tx, grant.to_owned()).await;
    execute(&mut tx, format!("UPDATE grants SET expires_at = {}", NOW.0)).await;
    assert_eq!(agents(&mut tx, org).await, [pair("agt_1", "TOKEN")], "the grant has expired");
    execute(&mut tx, format!("UPDATE grants SET expires_at = {}", NOW.0 + 1)).await;
    assert_eq!(agents(&mut tx, org).await, [pair("agt_1", "TOKEN"), pair("agt_person1", "A_KEY")]);
    assert_eq!(agents(&mut tx, &two.organization).await, []);
    execute(&mut tx, "UPDATE agents SET state = 'disabled' WHERE id = 'agt_1'".to_owned()).await;
    assert_eq!(agents(&mut tx, org).await, [pair("agt_person1", "A_KEY")]);
    agent_secret::delete_others(&mut tx, &two.organization, &instance, &[]).await.unwrap();
    agent_secret::delete_others(&mut tx, org, &instance, &["A_KEY"]).await.unwrap();
    assert_eq!(agent_secret::list(&mut tx, org, &agent_id("agt_1"), None).await.unwrap().len(), 1);
    assert_eq!(agents(&mut tx, org).await, [pair("agt_person1", "A_KEY")]);
    agent_secret::delete_others(&mut tx, org, &instance, &[]).await.unwrap();
    assert_eq!(agents(&mut tx, org).await, []);
}

async fn values_are_deleted_with_their_agent_and_their_instance(TwoWorlds { mut tx, one, two }: TwoWorlds) {
    let (org, instance) = (&one.organization, instance_id());
    let own = secret(org, ("ags_own", "agt_person1"), "A_KEY", 3);
    agent_secret::replace(&mut tx, &own, Some("sealed")).await.unwrap();
    agent::delete(&mut tx, org, &agent_id("agt_1")).await.unwrap();
    assert_eq!(agent_secret::list_by_instance(&mut tx, org, &instance).await.unwrap(), [own]);
    assert!(instance::delete(&mut tx, org, &instance).await.unwrap());
    assert_eq!(agent_secret::list(&mut tx, org, &agent_id("agt_person1"), None).await.unwrap(), []);
    assert_eq!(agent_secret::list(&mut tx, &two.organization, &agent_id("agt_2"), None).await.unwrap().len(), 1);
}

waypost_testkit::both!(two_worlds =>
    values_are_written_replaced_and_removed,
    changes_are_numbered_within_an_instance,
    active_agents_with_values_are_listed_services_first,
    values_are_deleted_with_their_agent_and_their_instance,
);
