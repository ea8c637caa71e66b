//! Rotation of secrets.

use waypost_core::deployment::DeploymentState;
use waypost_core::id::InstanceId;
use waypost_link::Directory;
use waypost_ops::instances::{self, InstancePatch};
use waypost_toolbox_proto::deployment::ErrorCode;
use waypost_toolbox_proto::message::DeploymentOutcome;

use crate::fixture::{Daemon, Fixture, MINUTE, failure, secret, set_up};

waypost_testkit::both!(set_up => parallel_advances_deploy_one_instance);

waypost_testkit::both!(extended set_up =>
    instances_get_a_new_value_one_after_another,
    a_failed_rotation_is_rolled_back_and_goes_on,
    stopped_and_offline_instances_wait,
);

async fn advance(fixture: &Fixture) -> usize {
    instances::advance_rotations(&fixture.cx, &fixture.ops).await.unwrap()
}

/// Creates three running instances.
async fn create_three(fixture: &Fixture, daemon: &Daemon<'_>) -> Vec<InstanceId> {
    let mut ids = Vec::new();
    for slug in ["a", "b", "c"] {
        let id = fixture.create(slug).await.instance.id;
        daemon.complete(&id).await;
        ids.push(id);
    }
    // Rotations go by ID.
    ids.sort();
    ids
}

async fn generations(fixture: &Fixture, ids: &[InstanceId]) -> Vec<u64> {
    let mut generations = Vec::new();
    for id in ids {
        generations.push(fixture.instance(id).await.generation);
    }
    generations
}

async fn versions(fixture: &Fixture, ids: &[InstanceId]) -> Vec<u64> {
    let mut versions = Vec::new();
    for id in ids {
        versions.push(fixture.instance(id).await.secrets[0].version);
    }
    versions
}

async fn instances_get_a_new_value_one_after_another(fixture: Fixture) {
    let daemon = fixture.daemon(&fixture.org, "rack").await;
    let ids = create_three(&fixture, &daemon).await;
    assert_eq!(advance(&fixture).await, 0);
    fixture.rotate_secret(&secret(1, "TOKEN"), "second").await;
    assert_eq!(advance(&fixture).await, 1);
    assert_eq!(advance(&fixture).await, 0, "one is being deployed");
    assert_eq!(generations(&fixture, &ids).await, [2, 1, 1]);
    assert_eq!(versions(&fixture, &ids).await, [2, 1, 1]);
    let desired = fixture.directory.desired_state(&daemon.id).await.unwrap().unwrap();
    let found = desired.instances.iter().find(|found| found.id == ids[0].as_str()).unwrap();
    assert_eq!(found.spec.secrets[0].version, 2);
    assert_eq!(daemon.secrets(&ids[0], 2).await.unwrap()["TOKEN"], "second");
    assert_eq!(daemon.secrets(&ids[0], 1).await.unwrap()["TOKEN"], "hunter2", "a roll-back starts the old container");
    // The end of a deployment begins the next one.
    daemon.complete(&ids[0]).await;
    assert_eq!(generations(&fixture, &ids).await, [2, 2, 1]);
    daemon.complete(&ids[1]).await;
    daemon.complete(&ids[2]).await;
    assert_eq!(advance(&fixture).await, 0);
    assert_eq!(generations(&fixture, &ids).await, [2, 2, 2]);
    assert_eq!(versions(&fixture, &ids).await, [2, 2, 2]);
    let replaced = async || fixture.count("SELECT count(*) FROM replaced_secrets").await;
    assert_eq!(replaced().await, 1, "the old containers may still answer calls");
    fixture.clock.advance(11 * MINUTE);
    daemon.heartbeat(Vec::new()).await;
    assert_eq!(advance(&fixture).await, 0);
    assert_eq!(replaced().await, 0, "no deployment uses the old value any more");
}

async fn a_failed_rotation_is_rolled_back_and_goes_on(fixture: Fixture) {
    let Fixture { ops, cx, org, .. } = &fixture;
    let daemon = fixture.daemon(org, "rack").await;
    let ids = create_three(&fixture, &daemon).await;
    fixture.rotate_secret(&secret(1, "TOKEN"), "second").await;
    advance(&fixture).await;
    let error = failure(ErrorCode::HealthTimeout);
    daemon.end(&ids[0], DeploymentOutcome::RolledBack { error: error.clone() }).await;
    assert_eq!(versions(&fixture, &ids).await, [1, 2, 1], "the first one was rolled back, the second one follows");
    assert_eq!(fixture.get(&ids[0]).await.deployment.unwrap().state, DeploymentState::RolledBack);
    daemon.end(&ids[1], DeploymentOutcome::Failed { error: error.clone() }).await;
    daemon.complete(&ids[2]).await;
    assert_eq!(versions(&fixture, &ids).await, [1, 2, 2]);
    for _ in 0..3 {
        assert_eq!(advance(&fixture).await, 0, "a failed attempt is not repeated");
    }
    // The instance that was rolled back is started again with the value that it had.
    assert_eq!(daemon.secrets(&ids[0], 1).await.unwrap()["TOKEN"], "hunter2");
    assert_eq!(daemon.secrets(&ids[2], 2).await.unwrap()["TOKEN"], "second");
    assert_eq!(generations(&fixture, &ids).await, [2, 2, 2]);
    // A restart uses the new value, and so does the next rotation.
    let restarted = instances::restart(cx, ops, org, &ids[0]).await.unwrap().instance;
    assert_eq!((restarted.generation, restarted.secrets[0].version), (3, 2));
    daemon.end(&ids[0], DeploymentOutcome::RolledBack { error }).await;
    assert_eq!(advance(&fixture).await, 0);
    fixture.rotate_secret(&secret(1, "TOKEN"), "third").await;
    assert_eq!(advance(&fixture).await, 1);
    assert_eq!(versions(&fixture, &ids).await[0], 3);
    assert_eq!(daemon.secrets(&ids[0], 1).await.unwrap()["TOKEN"], "hunter2", "after two rotations");
    assert_eq!(daemon.secrets(&ids[2], 2).await.unwrap()["TOKEN"], "second");
    assert_eq!(daemon.secrets(&ids[0], 4).await.unwrap()["TOKEN"], "third");
    // A change that is rolled back for another reason does not end the rotation.
    daemon.complete(&ids[0]).await;
    let patch = InstancePatch { learn_egress: Some(true), ..InstancePatch::default() };
    instances::update(cx, ops, org, &ids[2], &patch).await.unwrap();
    let error = failure(ErrorCode::ConfigInvalid);
    daemon.end(&ids[1], DeploymentOutcome::Complete).await;
    daemon.end(&ids[2], DeploymentOutcome::RolledBack { error }).await;
    assert_eq!(versions(&fixture, &ids).await, [3, 3, 3]);
    assert_eq!(generations(&fixture, &ids).await[2], 4, "the rotation deploys it again");
}

async fn stopped_and_offline_instances_wait(fixture: Fixture) {
    let Fixture { ops, cx, org, clock, .. } = &fixture;
    let daemon = fixture.daemon(org, "rack").await;
    let ids = create_three(&fixture, &daemon).await;
    instances::stop(cx, ops, org, &ids[0]).await.unwrap();
    fixture.rotate_secret(&secret(1, "TOKEN"), "second").await;
    clock.advance(4 * MINUTE);
    assert_eq!(advance(&fixture).await, 0, "the toolbox is offline");
    daemon.heartbeat(Vec::new()).await;
    assert_eq!(advance(&fixture).await, 1);
    daemon.complete(&ids[1]).await;
    daemon.complete(&ids[2]).await;
    assert_eq!(advance(&fixture).await, 0);
    assert_eq!(versions(&fixture, &ids).await, [1, 2, 2]);
    let started = instances::start(cx, ops, org, &ids[0]).await.unwrap();
    assert_eq!((started.instance.generation, started.instance.secrets[0].version), (2, 2));
    assert_eq!(started.deployment.unwrap().state, DeploymentState::Running);
}

async fn parallel_advances_deploy_one_instance(fixture: Fixture) {
    let daemon = fixture.daemon(&fixture.org, "rack").await;
    let ids = create_three(&fixture, &daemon).await;
    fixture.rotate_secret(&secret(1, "TOKEN"), "second").await;
    let advance = || {
        let (cx, ops) = (fixture.cx.clone(), fixture.ops.clone());
        tokio::spawn(async move { instances::advance_rotations(&cx, &ops).await.unwrap() })
    };
    let tasks: Vec<_> = (0..6).map(|_| advance()).collect();
    let mut count = 0;
    for task in tasks {
        count += task.await.unwrap();
    }
    assert_eq!(count, 1);
    assert_eq!(generations(&fixture, &ids).await, [2, 1, 1]);
}
