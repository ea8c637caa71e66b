//! A restored installation knows the toolboxes, and their daemons connect with the keys that they have.

use std::io::Cursor;
use std::sync::Arc;

use waypost_core::deployment::DeploymentState;
use waypost_core::instance::DesiredRun;
use waypost_core::{SystemRandom, Timestamp};
use waypost_link::Directory;
use waypost_ops::public_url::PublicUrl;
use waypost_ops::toolbox_directory::ToolboxDirectory;
use waypost_ops::{Ops, catalog, deployments, instances, tool_secrets, toolbox_counts, toolboxes};
use waypost_store::{Db, Dialect, backup};
use waypost_toolbox_proto::handshake::Rejection;
use waypost_toolbox_proto::instance::InstanceState;
use waypost_toolbox_proto::message::{ControlMessage, DaemonMessage};

use crate::fixture::{Fixture, challenge, hello, new_key, set_up};

waypost_testkit::both!(extended set_up =>
    a_restored_installation_accepts_its_daemons,
    toolboxes_and_instances_are_counted_by_state,
);

async fn a_restored_installation_accepts_its_daemons(fixture: Fixture) {
    let Fixture { ops, cx, org, clock, .. } = &fixture;
    let daemon = fixture.daemon(org, "rack").await;
    daemon.heartbeat(Vec::new()).await;
    let id = fixture.create("search").await.instance.id;
    daemon.complete(&id).await;
    let (pending, _) = toolboxes::create(cx, ops, org, "pending").await.unwrap();
    let secrets = daemon.secrets(&id, 1).await.unwrap();
    assert!(!secrets.is_empty());
    let mut bytes = Vec::new();
    backup::write(ops.store(), &mut bytes, Timestamp(0)).await.unwrap();
    for value in secrets.values() {
        assert!(!String::from_utf8_lossy(&bytes).contains(value.as_str()), "secrets are sealed in a backup");
    }
    let folder = waypost_testkit::folder();
    let url = match ops.store().dialect() {
        Dialect::Sqlite => waypost_testkit::empty_sqlite_url(&folder),
        Dialect::Postgres => waypost_testkit::empty_postgres_url(),
    };
    let db = Db::open(&url).await.unwrap();
    backup::read(&db, &mut Cursor::new(&bytes)).await.unwrap();
    let restored = Ops::new(db).with_keyring(ops.keyring().unwrap().clone());

    let before = (
        toolboxes::list(cx, ops, org, None, 10).await.unwrap(),
        instances::list(cx, ops, org, None, 10).await.unwrap(),
        deployments::list(cx, ops, org, &id, None, 10).await.unwrap(),
        instances::list_events(cx, ops, org, &id, None, 10).await.unwrap(),
        format!("{:?}", catalog::list(cx, ops, org, 10, None).await.unwrap()),
        format!("{:?}", tool_secrets::list(cx, ops, org, 10, None).await.unwrap()),
    );
    let after = (
        toolboxes::list(cx, &restored, org, None, 10).await.unwrap(),
        instances::list(cx, &restored, org, None, 10).await.unwrap(),
        deployments::list(cx, &restored, org, &id, None, 10).await.unwrap(),
        instances::list_events(cx, &restored, org, &id, None, 10).await.unwrap(),
        format!("{:?}", catalog::list(cx, &restored, org, 10, None).await.unwrap()),
        format!("{:?}", tool_secrets::list(cx, &restored, org, 10, None).await.unwrap()),
    );
    assert_eq!(after, before);
    assert_eq!((after.0.len(), after.1.len(), after.2[0].state), (2, 1, DeploymentState::Complete));

    let public_url = PublicUrl::new("https://waypost.example".parse().unwrap());
    let directory = ToolboxDirectory::new(restored.clone(), public_url, clock.clone(), Arc::new(SystemRandom));
    let challenge = challenge();
    let valid = hello(&challenge, &daemon.id, &daemon.key, None);
    assert_eq!(directory.authenticate(&challenge, &valid).await, Ok(daemon.id.clone()));
    let invalid = hello(&challenge, &daemon.id, &new_key(), None);
    assert_eq!(directory.authenticate(&challenge, &invalid).await, Err(Rejection::Unauthorized));
    let unjoined = hello(&challenge, &pending.toolbox.id, &daemon.key, None);
    assert_eq!(directory.authenticate(&challenge, &unjoined).await, Err(Rejection::Unauthorized));
    let desired = directory.desired_state(&daemon.id).await.unwrap().unwrap();
    assert_eq!((desired.instances[0].id.as_str(), desired.instances[0].run), (id.as_str(), true));
    let request = DaemonMessage::SecretRequest { request: 1, instance_id: id.to_string(), generation: 1, key: None };
    let answer = directory.receive(&daemon.id, request).await.unwrap();
    let Some(ControlMessage::Secrets { secrets: Some(answered), .. }) = answer else { panic!("no secrets") };
    assert_eq!(answered.values, secrets);
    assert_eq!(instances::stop(cx, &restored, org, &id).await.unwrap().instance.desired, DesiredRun::Stopped);
}

async fn toolboxes_and_instances_are_counted_by_state(fixture: Fixture) {
    let Fixture { ops, cx, org, other, clock, .. } = &fixture;
    let old = fixture.daemon(org, "old").await;
    old.heartbeat(Vec::new()).await;
    clock.advance(10 * crate::fixture::MINUTE);
    let daemon = fixture.daemon(org, "rack").await;
    daemon.heartbeat(Vec::new()).await;
    let revoked = fixture.daemon(other, "rack").await;
    toolboxes::revoke(cx, ops, other, &revoked.id).await.unwrap();
    toolboxes::create(cx, ops, org, "pending").await.unwrap();
    let first = fixture.create("first").await.instance.id;
    daemon.complete(&first).await;
    let second = fixture.create("second").await.instance.id;
    fixture.create("third").await;
    instances::delete(cx, ops, org, &second).await.unwrap();
    let (toolboxes, instances) = toolbox_counts::count(cx, ops).await.unwrap();
    for (state, count) in toolboxes {
        assert_eq!(count, 1, "{state:?}");
    }
    for (state, count) in instances {
        let has_one = matches!(state, InstanceState::Running | InstanceState::Deploying | InstanceState::Removing);
        assert_eq!(count, u64::from(has_one), "{state:?}");
    }
}
