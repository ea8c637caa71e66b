//! The off switches of the installation, an organisation and an instance.

use serde_json::Map;
use waypost_core::id::{InstanceId, OrganizationId, ToolboxId};
use waypost_core::instance::DesiredRun;
use waypost_core::{Code, Error};
use waypost_link::Directory;
use waypost_ops::organizations::{self, OrganizationPatch};
use waypost_ops::public_url::PublicUrl;
use waypost_ops::toolbox_directory::ToolboxDirectory;
use waypost_ops::{Ops, ToolboxSwitch, deployments, instances, toolboxes};
use waypost_toolbox_proto::handshake::Rejection;
use waypost_toolbox_proto::instance::InstanceState;

use crate::fixture::{Fixture, challenge, hello, join_request, new_key, set_up};

waypost_testkit::both!(extended set_up =>
    toolboxes_are_switched_off_for_an_installation,
    toolboxes_are_switched_off_for_an_organisation,
    a_stopped_instance_is_not_called_and_stays_stopped,
);

/// Whether an error says that toolboxes are switched off.
fn is_off(error: &Error) -> bool {
    error.code == Code::Forbidden && error.details.get("reason").is_some_and(|reason| reason == "toolboxes_off")
}

async fn call(fixture: &Fixture, ops: &Ops, org: &OrganizationId, id: &InstanceId) -> Error {
    instances::call::call_tool(&fixture.cx, ops, org, id, ("find", &Map::new())).await.unwrap_err()
}

/// Checks that nothing new can run or be called.
async fn assert_unusable(fixture: &Fixture, ops: &Ops, id: &InstanceId, toolbox: &ToolboxId) {
    let Fixture { cx, org, .. } = fixture;
    let new = fixture.new_instance("another");
    let tail = instances::logs::DEFAULT_TAIL;
    let errors = [
        toolboxes::create(cx, ops, org, "another").await.unwrap_err(),
        toolboxes::rotate_key(cx, ops, org, toolbox).await.unwrap_err(),
        toolboxes::renew_token(cx, ops, org, toolbox).await.unwrap_err(),
        instances::create(cx, ops, org, &new).await.unwrap_err(),
        instances::update(cx, ops, org, id, &Default::default()).await.unwrap_err(),
        instances::start(cx, ops, org, id).await.unwrap_err(),
        instances::restart(cx, ops, org, id).await.unwrap_err(),
        instances::call::list_tools(cx, ops, org, id).await.unwrap_err(),
        instances::logs::list(cx, ops, org, id, tail).await.unwrap_err(),
        instances::logs::check(cx, ops, org, id).await.unwrap_err(),
        call(fixture, ops, org, id).await,
    ];
    for (position, error) in errors.iter().enumerate() {
        assert!(is_off(error), "{position}: {error:?}");
    }
}

async fn toolboxes_are_switched_off_for_an_installation(fixture: Fixture) {
    let Fixture { cx, org, clock, .. } = &fixture;
    let daemon = fixture.daemon(org, "rack").await;
    daemon.heartbeat(Vec::new()).await;
    let id = fixture.create("search").await.instance.id;
    let (_, token) = toolboxes::create(cx, &fixture.ops, org, "pending").await.unwrap();
    let incomplete = fixture.ops.clone().with_toolboxes(ToolboxSwitch::Incomplete);
    let error = toolboxes::list(cx, &incomplete, org, None, 10).await.unwrap_err();
    assert!(is_off(&error) && error.message.contains("`internal_url`"), "{error:?}");
    let off = fixture.ops.clone().with_toolboxes(ToolboxSwitch::Off);
    assert_unusable(&fixture, &off, &id, &daemon.id).await;
    let errors = [
        toolboxes::list(cx, &off, org, None, 10).await.unwrap_err(),
        toolboxes::get(cx, &off, org, &daemon.id).await.unwrap_err(),
        toolboxes::revoke(cx, &off, org, &daemon.id).await.unwrap_err(),
        instances::list(cx, &off, org, None, 10).await.unwrap_err(),
        instances::get(cx, &off, org, &id).await.unwrap_err(),
        instances::stop(cx, &off, org, &id).await.unwrap_err(),
        instances::delete(cx, &off, org, &id).await.unwrap_err(),
        deployments::list(cx, &off, org, &id, None, 10).await.unwrap_err(),
        toolboxes::join(cx, &off, &join_request(token.token.expose(), &new_key())).await.unwrap_err(),
    ];
    for (position, error) in errors.iter().enumerate() {
        assert!(is_off(error), "{position}: {error:?}");
    }
    // A daemon that connects nevertheless is asked to retry.
    let url = PublicUrl::new("https://waypost.example".parse().unwrap());
    let directory = ToolboxDirectory::new(off, url, clock.clone(), cx.random.clone());
    let challenge = challenge();
    let hello = hello(&challenge, &daemon.id, &daemon.key, None);
    assert_eq!(directory.authenticate(&challenge, &hello).await, Err(Rejection::Unavailable));
    assert_eq!(directory.desired_state(&daemon.id).await.unwrap(), None, "an open link is closed");
    // Nothing was lost.
    daemon.authenticate(&daemon.key, None).await.unwrap();
    assert_eq!(fixture.get(&id).await.instance.desired, DesiredRun::Running);
    toolboxes::join(cx, &fixture.ops, &join_request(token.token.expose(), &new_key())).await.unwrap();
}

async fn toolboxes_are_switched_off_for_an_organisation(fixture: Fixture) {
    let Fixture { ops, cx, org, other, directory, .. } = &fixture;
    let daemon = fixture.daemon(org, "rack").await;
    let foreign = fixture.daemon(other, "rack").await;
    daemon.heartbeat(Vec::new()).await;
    let id = fixture.create("search").await.instance.id;
    daemon.complete(&id).await;
    let (pending, token) = toolboxes::create(cx, ops, org, "pending").await.unwrap();
    let switch = async |is_on: bool| {
        let patch = OrganizationPatch { toolboxes_enabled: Some(is_on), ..OrganizationPatch::default() };
        let updated = organizations::update(cx, ops, org, &patch).await.unwrap();
        assert_eq!(updated.toolboxes_enabled, is_on);
    };
    switch(false).await;
    assert_unusable(&fixture, ops, &id, &daemon.id).await;
    let request = join_request(token.token.expose(), &new_key());
    assert!(is_off(&toolboxes::join(cx, ops, &request).await.unwrap_err()));
    let unknown = join_request("wpt_unknown", &new_key());
    assert!(!is_off(&toolboxes::join(cx, ops, &unknown).await.unwrap_err()), "only the owner of the token learns it");
    assert_eq!(daemon.authenticate(&daemon.key, None).await, Err(Rejection::Unavailable));
    assert_eq!(daemon.authenticate(&new_key(), None).await, Err(Rejection::Unauthorized));
    assert_eq!(directory.desired_state(&daemon.id).await.unwrap(), None, "an open link is closed");
    assert_eq!(directory.list_revisions(&[&daemon.id]).await.unwrap(), [(daemon.id.clone(), None)]);
    // Other organisations are not affected.
    foreign.authenticate(&foreign.key, None).await.unwrap();
    assert!(directory.desired_state(&foreign.id).await.unwrap().is_some());
    assert!(matches!(directory.list_revisions(&[&foreign.id]).await.unwrap()[..], [(_, Some(_))]));
    // What is stored can be read, and less can be made to run.
    assert_eq!(toolboxes::list(cx, ops, org, None, 10).await.unwrap().len(), 2);
    assert_eq!(deployments::list(cx, ops, org, &id, None, 10).await.unwrap().len(), 1);
    assert_eq!(instances::stop(cx, ops, org, &id).await.unwrap().instance.desired, DesiredRun::Stopped);
    toolboxes::delete(cx, ops, org, &pending.toolbox.id).await.unwrap();
    switch(true).await;
    daemon.authenticate(&daemon.key, None).await.unwrap();
    let desired = directory.desired_state(&daemon.id).await.unwrap().unwrap();
    assert!(!desired.instances[0].run, "the instance was stopped while toolboxes were off");
    let changes = "SELECT count(*) FROM audit_events WHERE act = 'organization.update'";
    assert_eq!(fixture.count(changes).await, 2);
}

async fn a_stopped_instance_is_not_called_and_stays_stopped(fixture: Fixture) {
    let Fixture { ops, cx, org, clock, directory, .. } = &fixture;
    let daemon = fixture.daemon(org, "rack").await;
    daemon.heartbeat(Vec::new()).await;
    let id = fixture.create("search").await.instance.id;
    daemon.complete(&id).await;
    assert_eq!(call(&fixture, ops, org, &id).await.code, Code::Unavailable, "a running instance needs the link");
    instances::stop(cx, ops, org, &id).await.unwrap();
    let audited = "SELECT count(*) FROM audit_events WHERE act = 'instance.call'";
    let calls = fixture.count(audited).await;
    // A new process of the control plane has only what is stored.
    let restarted = Ops::new(ops.store().clone());
    let url = PublicUrl::new("https://waypost.example".parse().unwrap());
    let restarted_directory = ToolboxDirectory::new(restarted.clone(), url, clock.clone(), cx.random.clone());
    for (ops, directory) in [(ops, directory), (&restarted, &restarted_directory)] {
        let listed = instances::call::list_tools(cx, ops, org, &id).await.unwrap_err();
        for error in [call(&fixture, ops, org, &id).await, listed] {
            assert_eq!(error.code, Code::Conflict);
            assert_eq!(error.details["reason"], "not_running");
            assert_eq!(error.message, "The instance is stopped, so it cannot be called. Start it first.");
        }
        assert!(!directory.desired_state(&daemon.id).await.unwrap().unwrap().instances[0].run);
        // A restarted daemon connects again and reports what it finds; that does not start the instance.
        daemon.authenticate(&daemon.key, None).await.unwrap();
        daemon.report(&id, 1, InstanceState::Running).await;
        daemon.report(&id, 1, InstanceState::Stopped).await;
        let found = fixture.instance(&id).await;
        assert_eq!((found.desired, found.state), (DesiredRun::Stopped, InstanceState::Stopped));
    }
    assert_eq!(fixture.count(audited).await, calls, "a rejected call is not recorded as a call");
    instances::start(cx, ops, org, &id).await.unwrap();
    assert_eq!(call(&fixture, ops, org, &id).await.code, Code::Unavailable, "it can be called again");
}
