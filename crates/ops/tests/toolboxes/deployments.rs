//! The course and the outcomes of deployments.

use serde_json::json;
use waypost_core::deployment::DeploymentState;
use waypost_core::id::InstanceId;
use waypost_link::Directory;
use waypost_ops::deployments::{self, MAX_OFFLINE_MS};
use waypost_ops::instances::{self, InstancePatch, InstanceView};
use waypost_toolbox_proto::deployment::{DeploymentStep, ErrorCode};
use waypost_toolbox_proto::instance::InstanceState;
use waypost_toolbox_proto::message::{DeploymentOutcome, ToolboxEvent};

use crate::fixture::{Daemon, Fixture, ended, failure, map, secret, set_up};

waypost_testkit::both!(extended set_up =>
    a_deployment_completes,
    a_failed_first_deployment_leaves_a_failed_instance,
    a_rollback_restores_what_serves_calls,
    a_late_outcome_does_not_affect_a_newer_generation,
    deployments_on_offline_toolboxes_end,
    deployments_are_bounded,
    an_instance_is_read_together_with_its_deployment,
);

async fn change_root(fixture: &Fixture, id: &InstanceId, root: &str) {
    let patch = InstancePatch { config: Some(map(json!({ "root": root }))), ..InstancePatch::default() };
    instances::update(&fixture.cx, &fixture.ops, &fixture.org, id, &patch).await.unwrap();
}

fn failed(code: ErrorCode) -> DeploymentOutcome {
    DeploymentOutcome::Failed { error: failure(code) }
}

fn rolled_back() -> DeploymentOutcome {
    DeploymentOutcome::RolledBack { error: failure(ErrorCode::HealthTimeout) }
}

async fn a_deployment_completes(fixture: Fixture) {
    fixture.subscribe().await;
    let daemon = fixture.daemon(&fixture.org, "rack").await;
    let view = fixture.create("search").await;
    let (id, deployment) = (view.instance.id, view.deployment.unwrap());
    let step = |step| ToolboxEvent::DeploymentStep {
        deployment_id: deployment.id.to_string(),
        instance_id: id.to_string(),
        step,
    };
    daemon.send(step(DeploymentStep::Pulling)).await;
    assert_eq!(fixture.get(&id).await.deployment.unwrap().step, DeploymentStep::Pulling);
    daemon.complete(&id).await;
    daemon.send(step(DeploymentStep::Checking)).await;
    daemon.send(ended(&deployment, failed(ErrorCode::Exited))).await;
    daemon.send(ended(&deployment, DeploymentOutcome::Complete)).await;
    let view = fixture.get(&id).await;
    let deployment = view.deployment.unwrap();
    assert_eq!((deployment.state, deployment.step), (DeploymentState::Complete, DeploymentStep::Complete));
    assert_eq!((deployment.error, deployment.ended_at), (None, Some(fixture.cx.now())));
    assert_eq!((view.instance.state, view.instance.observed_generation), (InstanceState::Running, 1));
    assert_eq!(fixture.webhook_events().await, ["deployment.complete"]);
}

async fn a_failed_first_deployment_leaves_a_failed_instance(fixture: Fixture) {
    fixture.subscribe().await;
    let daemon = fixture.daemon(&fixture.org, "rack").await;
    let id = fixture.create("search").await.instance.id;
    let mut error = failure(ErrorCode::ImageNotFound);
    error.cause = "There is\u{202e} no\nsuch image.".to_owned();
    daemon.end(&id, DeploymentOutcome::Failed { error }).await;
    daemon.report(&id, 1, InstanceState::Failed).await;
    let view = fixture.get(&id).await;
    let deployment = view.deployment.unwrap();
    assert_eq!((view.instance.state, view.instance.observed_generation), (InstanceState::Failed, 0));
    assert_eq!(deployment.state, DeploymentState::Failed);
    assert_eq!(deployment.error.unwrap().cause, "There is no such image.");
    assert_eq!(fixture.webhook_events().await, ["instance.failed"]);
    let events = instances::list_events(&fixture.cx, &fixture.ops, &fixture.org, &id, None, 9).await.unwrap();
    assert_eq!(
        events.iter().map(|event| event.message.as_str()).collect::<Vec<_>>(),
        ["failed: There is no such image."]
    );
}

async fn a_rollback_restores_what_serves_calls(fixture: Fixture) {
    let Fixture { ops, cx, org, .. } = &fixture;
    let daemon = fixture.daemon(org, "rack").await;
    let id = fixture.create("search").await.instance.id;
    daemon.complete(&id).await;
    let before = fixture.directory.desired_state(&daemon.id).await.unwrap().unwrap();
    let secrets = [("TOKEN".to_owned(), secret(1, "SPARE"))].into();
    let patch = InstancePatch {
        config: Some(map(json!({ "root": "/broken" }))),
        secrets: Some(secrets),
        learn_egress: Some(true),
        ..InstancePatch::default()
    };
    instances::update(cx, ops, org, &id, &patch).await.unwrap();
    assert_eq!(daemon.secrets(&id, 1).await.unwrap()["TOKEN"], "hunter2", "of the container that serves calls");
    assert_eq!(daemon.secrets(&id, 2).await.unwrap()["TOKEN"], "correct horse");
    daemon.end(&id, rolled_back()).await;
    daemon.report(&id, 1, InstanceState::Running).await;
    let view = fixture.get(&id).await;
    assert_eq!((view.instance.generation, view.instance.observed_generation), (2, 1));
    assert_eq!((view.instance.state, view.instance.learn_egress), (InstanceState::Running, false));
    assert_eq!(view.instance.config, map(json!({ "root": "/data" })));
    assert_eq!(view.instance.secrets[0].secret_id, secret(1, "TOKEN"));
    let deployment = view.deployment.unwrap();
    assert_eq!(deployment.state, DeploymentState::RolledBack);
    assert_eq!(deployment.error.unwrap().code, ErrorCode::HealthTimeout);
    let after = fixture.directory.desired_state(&daemon.id).await.unwrap().unwrap();
    assert_eq!(after.revision, before.revision + 2);
    assert_eq!(after.instances[0].spec, before.instances[0].spec, "the daemon keeps what runs");
    assert_eq!(after.instances[0].generation, 2);
    // The same secret may have been deleted while it was not used.
    change_root(&fixture, &id, "/other").await;
    let patch =
        InstancePatch { secrets: Some([("TOKEN".to_owned(), secret(1, "SPARE"))].into()), ..InstancePatch::default() };
    instances::update(cx, ops, org, &id, &patch).await.unwrap();
    fixture.execute(format!("DELETE FROM tool_secrets WHERE id = '{}'", secret(1, "TOKEN"))).await;
    daemon.end(&id, rolled_back()).await;
    assert!(fixture.instance(&id).await.secrets.is_empty());
}

async fn a_late_outcome_does_not_affect_a_newer_generation(fixture: Fixture) {
    let daemon = fixture.daemon(&fixture.org, "rack").await;
    let view = fixture.create("search").await;
    let (id, first) = (view.instance.id, view.deployment.unwrap());
    change_root(&fixture, &id, "/two").await;
    let second = fixture.get(&id).await.deployment.unwrap();
    daemon.send(ended(&first, failed(ErrorCode::Exited))).await;
    daemon.report(&id, 1, InstanceState::Failed).await;
    let view = fixture.get(&id).await;
    assert_eq!(
        (view.instance.state, view.deployment.unwrap().state),
        (InstanceState::Deploying, DeploymentState::Running)
    );
    let all = fixture.deployments(&id).await;
    assert_eq!(all[1].error.as_ref().unwrap().code, ErrorCode::Exited, "the daemon knows better");
    daemon.complete(&id).await;
    change_root(&fixture, &id, "/three").await;
    // The rollback of an older generation changes nothing.
    daemon.send(ended(&second, rolled_back())).await;
    let instance = fixture.instance(&id).await;
    assert_eq!((instance.config["root"].as_str(), instance.observed_generation), (Some("/three"), 2));
    // A deployment that was replaced completes before the daemon learns of the next one.
    let third = fixture.get(&id).await.deployment.unwrap();
    change_root(&fixture, &id, "/four").await;
    daemon.send(ended(&third, DeploymentOutcome::Complete)).await;
    let instance = fixture.instance(&id).await;
    assert_eq!((instance.generation, instance.observed_generation), (4, 3));
    daemon.end(&id, rolled_back()).await;
    assert_eq!(fixture.instance(&id).await.config["root"], "/three", "what serves calls");
    let states: Vec<_> = fixture.deployments(&id).await.iter().map(|found| found.state).collect();
    use DeploymentState::{Complete, Failed, RolledBack};
    assert_eq!(states, [RolledBack, Complete, Complete, Failed]);
}

async fn end_offline(fixture: &Fixture) -> usize {
    deployments::end_offline(&fixture.cx, &fixture.ops).await.unwrap()
}

async fn deployments_on_offline_toolboxes_end(fixture: Fixture) {
    fixture.subscribe().await;
    let daemon = fixture.daemon(&fixture.org, "rack").await;
    let served = fixture.create("served").await.instance.id;
    daemon.complete(&served).await;
    change_root(&fixture, &served, "/two").await;
    let new = fixture.create("new").await.instance.id;
    fixture.clock.advance(MAX_OFFLINE_MS);
    assert_eq!(end_offline(&fixture).await, 0);
    daemon.heartbeat(Vec::new()).await;
    fixture.clock.advance(MAX_OFFLINE_MS);
    assert_eq!(end_offline(&fixture).await, 0, "it was online in the meantime");
    fixture.clock.advance(1);
    assert_eq!(end_offline(&fixture).await, 2);
    assert_eq!(end_offline(&fixture).await, 0);
    let view = fixture.get(&new).await;
    let deployment = view.deployment.unwrap();
    assert_eq!((view.instance.state, deployment.state), (InstanceState::Failed, DeploymentState::Failed));
    assert_eq!(deployment.error.unwrap().code, ErrorCode::ToolboxOffline);
    let view = fixture.get(&served).await;
    assert_eq!(view.instance.state, InstanceState::Running);
    assert_eq!(view.deployment.unwrap().state, DeploymentState::RolledBack);
    assert_eq!(view.instance.config["root"], "/two", "it is still to be deployed");
    // The daemon is back, and its reports replace the outcome.
    daemon.heartbeat(Vec::new()).await;
    daemon.complete(&new).await;
    daemon.end(&served, rolled_back()).await;
    let view = fixture.get(&new).await;
    assert_eq!(
        (view.instance.state, view.deployment.unwrap().state),
        (InstanceState::Running, DeploymentState::Complete)
    );
    let view = fixture.get(&served).await;
    assert_eq!(view.deployment.unwrap().error.unwrap().code, ErrorCode::HealthTimeout);
    assert_eq!(view.instance.config["root"], "/data");
    assert_eq!(fixture.webhook_events().await, ["deployment.complete", "deployment.complete", "instance.failed"]);
}

async fn deployments_are_bounded(fixture: Fixture) {
    let daemon: Daemon<'_> = fixture.daemon(&fixture.org, "rack").await;
    let id = fixture.create("search").await.instance.id;
    daemon.complete(&id).await;
    for n in 0..105 {
        change_root(&fixture, &id, &format!("/{n}")).await;
    }
    let count = fixture.count("SELECT count(*) FROM deployments").await;
    assert_eq!(count, 101, "the newest hundred and the serving one");
    daemon.end(&id, rolled_back()).await;
    assert_eq!(fixture.instance(&id).await.config["root"], "/data");
}

/// The end of a deployment is never returned with the instance before it.
async fn an_instance_is_read_together_with_its_deployment(fixture: Fixture) {
    let Fixture { cx, ops, org, .. } = &fixture;
    let daemon = fixture.daemon(org, "rack").await;
    let id = fixture.create("search").await.instance.id;
    let changes = async {
        for n in 0..50 {
            daemon.complete(&id).await;
            change_root(&fixture, &id, &format!("/{n}")).await;
        }
    };
    let reads = async {
        loop {
            let mut views = instances::list(cx, ops, org, None, 9).await.unwrap();
            views.push(instances::resolve(cx, ops, org, "search").await.unwrap());
            views.push(fixture.get(&id).await);
            for InstanceView { instance, deployment } in views {
                let deployment = deployment.unwrap();
                assert_eq!(deployment.generation, instance.generation);
                let is_complete = deployment.state == DeploymentState::Complete;
                assert_eq!(is_complete, instance.observed_generation == instance.generation, "{deployment:?}");
            }
        }
    };
    tokio::select! {
        () = changes => {}
        () = reads => {}
    }
}
