//! Connections to remote servers: leases, refreshes, and requests that work once.

use waypost_core::agent::AgentKind;
use waypost_core::id::{AgentId, InstanceId};
use waypost_store::remote_connection::{self, RemoteConnection};
use waypost_store::remote_connection_request::{self, RemoteConnectionRequest};
use waypost_store::{Db, agent, expired, instance};

use crate::fixture::{Fixture, NOW};
use crate::open;

/// The time for which a connection is leased in these tests.
const LEASE: i64 = 60_000;

fn instance_of(number: u32) -> InstanceId {
    InstanceId::from_store(format!("ins_{number}"))
}

async fn seeded(url: &str) -> (Db, Fixture, Fixture) {
    let db = open(url).await;
    let (one, two) = (Fixture::new(1), Fixture::new(2));
    one.seed_with_activity(&db).await;
    two.seed_with_activity(&db).await;
    let mut tx = db.begin().await.unwrap();
    for (fixture, number) in [(&one, 1), (&two, 2)] {
        remote_connection::delete_all(&mut tx, &fixture.organization, &instance_of(number)).await.unwrap();
    }
    tx.commit().await.unwrap();
    (db, one, two)
}

fn connection(fixture: &Fixture) -> RemoteConnection {
    RemoteConnection {
        instance_id: instance_of(1),
        organization_id: fixture.organization.clone(),
        agent_id: None,
        issuer: "https://id.example".to_owned(),
        credentials: "sealed one".to_owned(),
        revision: 7,
        expires_at: Some(NOW.plus(300_000)),
        refresh_at: Some(NOW),
        failed_at: None,
        is_by_admin: true,
        connected_by: fixture.user.to_string(),
        connected_at: NOW,
        updated_at: NOW,
        required_scope: None,
    }
}

async fn a_connection_is_leased_by_one_of_many_processes((db, one, _): (Db, Fixture, Fixture)) {
    let own = connection(&one);
    let mut tx = db.begin().await.unwrap();
    remote_connection::upsert(&mut tx, &own).await.unwrap();
    tx.commit().await.unwrap();
    let mut tasks = Vec::new();
    for number in 0..8 {
        let (db, own) = (db.clone(), own.clone());
        // Half of them refresh because it is time, the others because the server has rejected the token.
        tasks.push(tokio::spawn(async move {
            let mut tx = db.begin().await.unwrap();
            let leased = match number % 2 {
                0 => remote_connection::lease_due(&mut tx, NOW, NOW.plus(LEASE), 9).await.unwrap().len(),
                _ => {
                    let key = (&own.organization_id, own.key());
                    let found = remote_connection::lease(&mut tx, key, 7, (NOW, NOW.plus(LEASE))).await.unwrap();
                    usize::from(found.is_some())
                }
            };
            tx.commit().await.unwrap();
            leased
        }));
    }
    let mut leased = 0;
    for task in tasks {
        leased += task.await.unwrap();
    }
    assert_eq!(leased, 1);
    let mut tx = db.begin().await.unwrap();
    let early = NOW.plus(LEASE - 1);
    assert_eq!(remote_connection::lease_due(&mut tx, early, early.plus(LEASE), 9).await.unwrap(), []);
    let late = NOW.plus(LEASE);
    assert_eq!(remote_connection::lease_due(&mut tx, late, late.plus(LEASE), 9).await.unwrap(), [own], "it has ended");
}

async fn only_the_leased_revision_is_replaced((db, one, two): (Db, Fixture, Fixture)) {
    let (own, org) = (connection(&one), &one.organization);
    let key = (org, own.key());
    let mut tx = db.begin().await.unwrap();
    remote_connection::upsert(&mut tx, &own).await.unwrap();
    assert_eq!(remote_connection::find(&mut tx, &two.organization, own.key()).await.unwrap(), None);
    let until = NOW.plus(LEASE);
    let foreign = (&two.organization, own.key());
    assert_eq!(remote_connection::lease(&mut tx, foreign, 7, (NOW, until)).await.unwrap(), None);
    assert_eq!(remote_connection::lease(&mut tx, key, 6, (NOW, until)).await.unwrap(), None, "another revision");
    assert_eq!(remote_connection::lease(&mut tx, key, 7, (NOW, until)).await.unwrap(), Some(own.clone()));
    let new = RemoteConnection {
        credentials: "sealed two".to_owned(),
        expires_at: Some(NOW.plus(900_000)),
        refresh_at: None,
        updated_at: NOW.plus(1),
        ..own.clone()
    };
    let stranger = RemoteConnection { organization_id: two.organization.clone(), ..new.clone() };
    assert!(!remote_connection::complete_refresh(&mut tx, &stranger).await.unwrap());
    assert!(remote_connection::complete_refresh(&mut tx, &new).await.unwrap());
    let stored = RemoteConnection { revision: 8, ..new.clone() };
    assert_eq!(remote_connection::find(&mut tx, org, own.key()).await.unwrap(), Some(stored.clone()));
    assert!(!remote_connection::complete_refresh(&mut tx, &new).await.unwrap(), "the revision was replaced");
    assert!(!remote_connection::delete_rejected(&mut tx, &own).await.unwrap());
    assert_eq!(remote_connection::lease_due(&mut tx, until, until.plus(1), 9).await.unwrap(), [], "nothing to refresh");
    // The lease has ended with the refresh. A new connection has a higher revision, whatever its own time.
    assert!(remote_connection::lease(&mut tx, key, 8, (NOW, until)).await.unwrap().is_some());
    remote_connection::upsert(&mut tx, &own).await.unwrap();
    assert!(!remote_connection::complete_refresh(&mut tx, &stored).await.unwrap());
    let found = remote_connection::find(&mut tx, org, own.key()).await.unwrap().unwrap();
    assert_eq!(found, RemoteConnection { revision: 9, ..own.clone() });
    assert!(remote_connection::lease(&mut tx, key, 9, (NOW, until)).await.unwrap().is_some(), "without a lease");
    assert!(remote_connection::delete_rejected(&mut tx, &found).await.unwrap());
    assert_eq!(remote_connection::find(&mut tx, org, own.key()).await.unwrap(), None);
}

async fn a_request_works_once_and_for_its_user((db, one, two): (Db, Fixture, Fixture)) {
    let request = RemoteConnectionRequest {
        state_hash: "state".to_owned(),
        organization_id: one.organization.clone(),
        instance_id: instance_of(1),
        agent_id: Some(AgentId::from_store("agt_1".to_owned())),
        user_id: one.user.clone(),
        generation: 3,
        request: "sealed".to_owned(),
        created_at: NOW,
        expires_at: NOW.plus(10),
    };
    let mut tx = db.begin().await.unwrap();
    remote_connection_request::replace(&mut tx, &request).await.unwrap();
    let second = RemoteConnectionRequest { state_hash: "second".to_owned(), ..request.clone() };
    remote_connection_request::replace(&mut tx, &second).await.unwrap();
    let (org, user) = (&one.organization, &one.user);
    let consume = async |tx: &mut waypost_store::Tx, org, user, state: &str, at| {
        remote_connection_request::consume(tx, org, user, state, NOW.plus(at)).await.unwrap()
    };
    assert_eq!(consume(&mut tx, org, user, "state", 0).await, None, "the second one has replaced it");
    let find = remote_connection_request::find_organization(&mut tx, user, "second", NOW).await.unwrap();
    assert_eq!(find.as_ref(), Some(org));
    let find = remote_connection_request::find_organization(&mut tx, &two.user, "second", NOW).await.unwrap();
    assert_eq!(find, None);
    assert_eq!(consume(&mut tx, org, &two.user, "second", 0).await, None, "another user");
    assert_eq!(consume(&mut tx, &two.organization, user, "second", 0).await, None, "another organisation");
    assert_eq!(consume(&mut tx, org, user, "second", 10).await, None, "expired");
    assert_eq!(consume(&mut tx, org, user, "second", 9).await, Some(second.clone()));
    assert_eq!(consume(&mut tx, org, user, "second", 9).await, None, "used");
    remote_connection_request::replace(&mut tx, &second).await.unwrap();
    expired::delete(&mut tx, NOW.plus(11), 99).await.unwrap();
    assert_eq!(consume(&mut tx, org, user, "second", 0).await, None, "deleted");
    // Everything goes with the instance.
    remote_connection_request::replace(&mut tx, &second).await.unwrap();
    remote_connection::upsert(&mut tx, &connection(&one)).await.unwrap();
    instance::delete(&mut tx, org, &instance_of(1)).await.unwrap();
    assert_eq!(remote_connection::find(&mut tx, org, (&instance_of(1), None)).await.unwrap(), None);
    assert_eq!(consume(&mut tx, org, user, "second", 0).await, None);
}

/// The services and the person of organisation 1.
const AGENTS: [&str; 2] = ["agt_1", "agt_person1"];

fn of_agent(fixture: &Fixture, id: &str) -> RemoteConnection {
    let agent_id = Some(AgentId::from_store(id.to_owned()));
    RemoteConnection { agent_id, credentials: format!("sealed for {id}"), ..connection(fixture) }
}

async fn connections_of_agents_are_separate((db, one, two): (Db, Fixture, Fixture)) {
    let (org, instance) = (&one.organization, instance_of(1));
    let [service, person] = AGENTS.map(|id| of_agent(&one, id));
    let mut tx = db.begin().await.unwrap();
    for own in [&service, &person] {
        remote_connection::upsert(&mut tx, own).await.unwrap();
    }
    let found = remote_connection::find(&mut tx, org, service.key()).await.unwrap();
    assert_eq!(found.as_ref(), Some(&service));
    assert_eq!(remote_connection::find(&mut tx, org, (&instance, None)).await.unwrap(), None, "not that of all");
    assert_eq!(remote_connection::find_revision(&mut tx, org, person.key()).await.unwrap(), Some(7));
    assert_eq!(remote_connection::find_revision(&mut tx, &two.organization, person.key()).await.unwrap(), None);
    // A refresh concerns one of them.
    let due = remote_connection::lease_due(&mut tx, NOW, NOW.plus(LEASE), 1).await.unwrap();
    let (leased, other) = if due[0] == service { (&service, &person) } else { (&person, &service) };
    let new = RemoteConnection { credentials: "new".to_owned(), refresh_at: None, ..leased.clone() };
    assert!(remote_connection::complete_refresh(&mut tx, &new).await.unwrap());
    assert_eq!(remote_connection::find(&mut tx, org, other.key()).await.unwrap().as_ref(), Some(other));
    // One that has failed is neither used nor refreshed, and can be connected again.
    assert!(remote_connection::fail_rejected(&mut tx, other, NOW.plus(1)).await.unwrap());
    assert!(!remote_connection::fail_rejected(&mut tx, other, NOW.plus(1)).await.unwrap());
    let failed = remote_connection::find(&mut tx, org, other.key()).await.unwrap().unwrap();
    assert_eq!((failed.failed_at, failed.refresh_at, failed.revision), (Some(NOW.plus(1)), None, 8));
    assert_eq!(remote_connection::find_revision(&mut tx, org, other.key()).await.unwrap(), None);
    let late = NOW.plus(9 * LEASE);
    assert_eq!(remote_connection::lease_due(&mut tx, late, late.plus(1), 9).await.unwrap(), []);
    assert_eq!(remote_connection::lease(&mut tx, (org, other.key()), 8, (late, late.plus(1))).await.unwrap(), None);
    remote_connection::upsert(&mut tx, other).await.unwrap();
    assert_eq!(remote_connection::find_revision(&mut tx, org, other.key()).await.unwrap(), Some(9));
    // Each is deleted alone, and with its agent.
    assert_eq!(
        remote_connection::list_of_agent(&mut tx, org, service.agent_id.as_ref().unwrap()).await.unwrap().len(),
        1
    );
    agent::delete(&mut tx, org, service.agent_id.as_ref().unwrap()).await.unwrap();
    assert_eq!(remote_connection::find(&mut tx, org, service.key()).await.unwrap(), None);
    assert_eq!(remote_connection::delete(&mut tx, &two.organization, person.key()).await.unwrap(), None);
    let deleted = remote_connection::delete(&mut tx, org, person.key()).await.unwrap();
    assert_eq!(deleted.unwrap().agent_id, person.agent_id);
    assert_eq!(remote_connection::delete_all(&mut tx, org, &instance).await.unwrap(), []);
    assert!(remote_connection::upsert(&mut tx, &service).await.is_err(), "the agent does not exist");
}

async fn a_required_scope_belongs_to_the_tokens_that_lack_it((db, one, two): (Db, Fixture, Fixture)) {
    let own = connection(&one);
    let mut tx = db.begin().await.unwrap();
    remote_connection::upsert(&mut tx, &own).await.unwrap();
    let require = async |tx: &mut waypost_store::Tx, org, revision| {
        remote_connection::require_scope(tx, (org, own.key()), revision, "read write").await.unwrap()
    };
    assert!(!require(&mut tx, &one.organization, 6).await, "another revision");
    assert!(!require(&mut tx, &two.organization, 7).await, "another organisation");
    assert_eq!(remote_connection::find(&mut tx, &one.organization, own.key()).await.unwrap(), Some(own.clone()));
    assert!(require(&mut tx, &one.organization, 7).await);
    // A refresh does not change the scope of the tokens, but a new connection does.
    assert!(remote_connection::complete_refresh(&mut tx, &own).await.unwrap());
    let found = remote_connection::find(&mut tx, &one.organization, own.key()).await.unwrap().unwrap();
    assert_eq!((found.revision, found.required_scope.as_deref()), (8, Some("read write")));
    let forget = async |tx: &mut waypost_store::Tx, org| {
        remote_connection::forget_required_scope(tx, org, own.key()).await.unwrap()
    };
    assert!(!forget(&mut tx, &two.organization).await, "another organisation");
    assert!(forget(&mut tx, &one.organization).await);
    assert!(!forget(&mut tx, &one.organization).await, "there is none any more");
    assert!(require(&mut tx, &one.organization, 8).await);
    remote_connection::upsert(&mut tx, &own).await.unwrap();
    let found = remote_connection::find(&mut tx, &one.organization, own.key()).await.unwrap().unwrap();
    assert_eq!((found.revision, found.required_scope), (9, None));
}

async fn connections_are_listed_and_ordered_for_definitions((db, one, two): (Db, Fixture, Fixture)) {
    let (org, instance) = (&one.organization, instance_of(1));
    let [service, person] = AGENTS.map(|id| of_agent(&one, id));
    let person = RemoteConnection { connected_at: NOW.plus(-5), is_by_admin: false, ..person };
    let mut tx = db.begin().await.unwrap();
    for own in [&person, &service] {
        remote_connection::upsert(&mut tx, own).await.unwrap();
    }
    let listed = remote_connection::list(&mut tx, org, &instance, None, 9).await.unwrap();
    let agents: Vec<_> = listed.iter().map(|one| one.agent.clone().unwrap()).collect();
    assert_eq!(agents, [("Crawler".to_owned(), AgentKind::Service), ("a@x.de".to_owned(), AgentKind::Person)]);
    assert_eq!(listed[1].connection, person);
    let after = listed[0].connection.agent_id.as_ref();
    let next = remote_connection::list(&mut tx, org, &instance, after, 9).await.unwrap();
    assert_eq!(next, listed[1..]);
    assert_eq!(remote_connection::list(&mut tx, org, &instance, None, 1).await.unwrap(), listed[..1]);
    assert_eq!(remote_connection::list(&mut tx, &two.organization, &instance, None, 9).await.unwrap(), []);
    let definitions = async |tx: &mut waypost_store::Tx, limit| {
        let found = remote_connection::list_definition_agents(tx, org, &instance, limit).await.unwrap();
        found.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(definitions(&mut tx, 9).await, AGENTS, "that of an admin, although it is newer");
    assert_eq!(definitions(&mut tx, 1).await, AGENTS[..1]);
    remote_connection::fail_rejected(&mut tx, &service, NOW).await.unwrap();
    assert_eq!(definitions(&mut tx, 9).await, AGENTS[1..]);
    let deleted = remote_connection::delete_all(&mut tx, org, &instance).await.unwrap();
    assert_eq!((deleted.len(), definitions(&mut tx, 9).await.len()), (2, 0));
    // The connection of the organisation is none of an agent.
    remote_connection::upsert(&mut tx, &connection(&one)).await.unwrap();
    assert_eq!(definitions(&mut tx, 9).await.len(), 0);
    let listed = remote_connection::list(&mut tx, org, &instance, None, 9).await.unwrap();
    assert_eq!((listed.len(), &listed[0].agent), (1, &None));
}

waypost_testkit::both!(seeded => a_connection_is_leased_by_one_of_many_processes, only_the_leased_revision_is_replaced,
    a_request_works_once_and_for_its_user, connections_of_agents_are_separate,
    a_required_scope_belongs_to_the_tokens_that_lack_it, connections_are_listed_and_ordered_for_definitions,);
