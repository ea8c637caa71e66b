//! Remote servers and their checks.

use waypost_core::id::{CatalogVersionId, InstanceId, ToolSecretId};
use waypost_core::instance::{Backend, ConnectionMode, DesiredRun, Instance, RegisteredClient, RemoteServer};
use waypost_store::{Db, catalog_entry, instance, remote_server, tool_secret};
use waypost_toolbox_proto::entry::Transport;
use waypost_toolbox_proto::instance::{Health, InstanceState};

use crate::fixture::{Fixture, NOW};
use crate::open;

async fn remote_servers_are_due_until_they_have_been_checked(db: Db) {
    let (one, two) = (Fixture::new(1), Fixture::new(2));
    one.seed_with_activity(&db).await;
    two.seed_with_activity(&db).await;
    let mut tx = db.begin().await.unwrap();
    let org = &one.organization;
    let id = InstanceId::from_store("ins_1".into());
    assert_eq!(remote_server::list_due(&mut tx, NOW, 9).await.unwrap(), [], "containers are not checked like this");
    let container = instance::find(&mut tx, org, &id).await.unwrap().unwrap();
    assert_eq!(container.catalog_version_id(), Some(&CatalogVersionId::from_store("ctv_1".into())));
    let remote = RemoteServer {
        catalog_version_id: None,
        transport: Transport::Sse,
        origin: "https://far.example".to_owned(),
        sealed_url: "v1.k.x".to_owned(),
        is_oauth: true,
        connection: ConnectionMode::PerAgent,
        client: None,
    };
    let mut far = Instance {
        id: InstanceId::from_store("ins_far".into()),
        slug: "far".to_owned(),
        backend: Backend::Remote(remote.clone()),
        desired: DesiredRun::Running,
        state: InstanceState::Deploying,
        secrets: Vec::new(),
        ..container
    };
    instance::insert(&mut tx, &far, "far").await.unwrap();
    assert_eq!(instance::find(&mut tx, org, &far.id).await.unwrap(), Some(far.clone()));
    let due = async |tx: &mut waypost_store::Tx, now| {
        let due = remote_server::list_due(tx, now, 9).await.unwrap();
        due.into_iter().map(|(_, id)| id.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(due(&mut tx, NOW).await, ["ins_far"]);
    let streak = async |tx: &mut waypost_store::Tx, instance: &Instance, succeeded| {
        remote_server::count_check(tx, instance, succeeded).await.unwrap()
    };
    for (succeeded, expected) in [(false, 1), (false, 2), (true, 1), (true, 2), (false, 1)] {
        assert_eq!(streak(&mut tx, &far, succeeded).await, Some(expected));
    }
    far.state = InstanceState::Running;
    far.health = Some(Health { ok: true, checked_at: NOW.0, latency_ms: Some(3), message: None });
    remote_server::update_health(&mut tx, &far, NOW.plus(30)).await.unwrap();
    assert_eq!(instance::find(&mut tx, org, &far.id).await.unwrap(), Some(far.clone()));
    assert_eq!(due(&mut tx, NOW.plus(29)).await, [""; 0]);
    assert_eq!(due(&mut tx, NOW.plus(30)).await, ["ins_far"]);
    remote_server::suspend_checks(&mut tx, org, &far.id).await.unwrap();
    assert_eq!(due(&mut tx, NOW.plus(1_000_000_000)).await, [""; 0]);
    // What was read before a change is obsolete, and another organisation changes nothing.
    let foreign = Instance { organization_id: two.organization.clone(), ..far.clone() };
    remote_server::reset_checks(&mut tx, &two.organization, &far.id).await.unwrap();
    assert_eq!((streak(&mut tx, &foreign, true).await, due(&mut tx, NOW).await.len()), (None, 0));
    // A server of the catalogue has a version, but no toolbox.
    let version = Some(CatalogVersionId::from_store("ctv_1".into()));
    let listed = Instance {
        backend: Backend::Remote(RemoteServer { catalog_version_id: version.clone(), ..remote.clone() }),
        ..far.clone()
    };
    instance::update(&mut tx, &listed).await.unwrap();
    let found = instance::find(&mut tx, org, &far.id).await.unwrap().unwrap();
    assert_eq!((found.catalog_version_id(), found.toolbox_id()), (version.as_ref(), None));
    assert_eq!(found, listed);
    let entry = catalog_entry::find_by_slug(&mut tx, org, "search").await.unwrap().unwrap();
    assert_eq!(entry.deployments, 2);
    let slugs = catalog_entry::list_instance_slugs(&mut tx, org, &entry.id).await.unwrap();
    assert_eq!(slugs, ["far", "search"]);
    let changed = Instance {
        generation: far.generation + 1,
        backend: Backend::Remote(RemoteServer { transport: Transport::StreamableHttp, ..remote }),
        ..far.clone()
    };
    instance::update(&mut tx, &changed).await.unwrap();
    assert_eq!(streak(&mut tx, &far, true).await, None);
    remote_server::reset_checks(&mut tx, org, &far.id).await.unwrap();
    assert_eq!((due(&mut tx, NOW).await.len(), streak(&mut tx, &changed, true).await), (1, Some(1)));
    let stopped = Instance { desired: DesiredRun::Stopped, ..changed };
    instance::update(&mut tx, &stopped).await.unwrap();
    assert_eq!((due(&mut tx, NOW).await.len(), streak(&mut tx, &stopped, true).await), (0, None));
}

async fn a_registered_client_uses_its_secret(db: Db) {
    let (one, two) = (Fixture::new(1), Fixture::new(2));
    one.seed_with_activity(&db).await;
    two.seed_with_activity(&db).await;
    let mut tx = db.begin().await.unwrap();
    let (org, secret) = (&one.organization, ToolSecretId::from_store("sec_1".into()));
    let container = instance::find(&mut tx, org, &InstanceId::from_store("ins_1".into())).await.unwrap().unwrap();
    let client = |secret_id| Some(RegisteredClient { client_id: "waypost-1".to_owned(), secret_id });
    let remote = |client| {
        Backend::Remote(RemoteServer {
            catalog_version_id: None,
            transport: Transport::StreamableHttp,
            origin: "https://far.example".to_owned(),
            sealed_url: "v1.k.x".to_owned(),
            is_oauth: true,
            connection: ConnectionMode::Shared,
            client,
        })
    };
    let far = Instance {
        id: InstanceId::from_store("ins_far".into()),
        slug: "far".to_owned(),
        backend: remote(client(Some(secret.clone()))),
        secrets: Vec::new(),
        ..container
    };
    instance::insert(&mut tx, &far, "far").await.unwrap();
    assert_eq!(instance::find(&mut tx, org, &far.id).await.unwrap(), Some(far.clone()));
    let users = async |tx: &mut waypost_store::Tx, org| {
        let users = tool_secret::list_users(tx, org, &secret).await.unwrap();
        users.into_iter().map(|user| user.slug).collect::<Vec<_>>()
    };
    assert_eq!(users(&mut tx, org).await, ["far", "search"]);
    assert_eq!(users(&mut tx, &two.organization).await, [""; 0]);
    for client in [client(None), None] {
        let changed = Instance { backend: remote(client), ..far.clone() };
        instance::update(&mut tx, &changed).await.unwrap();
        assert_eq!(instance::find(&mut tx, org, &far.id).await.unwrap(), Some(changed));
        assert_eq!(users(&mut tx, org).await, ["search"]);
    }
    // A secret that only the client uses cannot be deleted either.
    instance::update(&mut tx, &far).await.unwrap();
    instance::delete(&mut tx, org, &InstanceId::from_store("ins_1".into())).await.unwrap();
    assert!(tool_secret::delete(&mut tx, org, &secret).await.unwrap_err().is_foreign_key_violation());
}

waypost_testkit::both!(open => remote_servers_are_due_until_they_have_been_checked, a_registered_client_uses_its_secret,);
