//! The statements of toolboxes, instances and deployments.

use waypost_core::deployment::Deployment;
use waypost_core::id::{AgentId, CatalogVersionId, DeploymentId, InstanceEventId, InstanceId, ToolSecretId, ToolboxId};
use waypost_core::instance::{Instance, InstanceEvent, InstanceEventKind};
use waypost_core::toolbox::Toolbox;
use waypost_store::remote_connection_request::RemoteConnectionRequest;
use waypost_store::toolbox::{Joining, NewToken};
use waypost_store::{
    Tx, deployment, initial_approval, instance, instance_event, instance_source, remote_connection,
    remote_connection_request, remote_server, system, toolbox,
};

use crate::fixture::{Fixture, NOW};

pub(super) async fn use_instances(tx: &mut Tx, one: &Fixture) {
    let org = &one.organization;
    let id = InstanceId::from_store("ins_1".into());
    let secret = ToolSecretId::from_store("sec_1".into());
    let found = instance::find(tx, org, &id).await.unwrap().unwrap();
    instance::find_by_slug(tx, org, "search").await.unwrap().unwrap();
    instance::find_slug_by_skeleton(tx, org, "search").await.unwrap().unwrap();
    instance::list(tx, org, Some("a"), 9).await.unwrap();
    instance::list_by_toolbox(tx, org, found.toolbox_id().unwrap()).await.unwrap();
    remote_server::list_due(tx, NOW, 9).await.unwrap();
    remote_server::reset_checks(tx, org, &id).await.unwrap();
    remote_server::count_check(tx, &found, true).await.unwrap();
    remote_server::update_health(tx, &found, NOW).await.unwrap();
    remote_server::suspend_checks(tx, org, &id).await.unwrap();
    use_connections(tx, one, &id).await;
    use_initial_approvals(tx, one, &id).await;
    instance::count(tx, org).await.unwrap();
    instance::update(tx, &found).await.unwrap();
    instance::replace_secrets(tx, &found).await.unwrap();
    instance::mark_rotation_attempted(tx, org, &id).await.unwrap();
    instance::list_secret_users(tx, org, &secret).await.unwrap();
    let version = CatalogVersionId::from_store("ctv_1".into());
    instance_source::find(tx, org, &version).await.unwrap().unwrap();
    instance_source::list_secrets(tx, org, &[&secret]).await.unwrap();
    instance_source::find_secret_by_name(tx, org, "TOKEN").await.unwrap();
    let first = deployment::find_by_generation(tx, org, &id, 1).await.unwrap().unwrap();
    deployment::find(tx, org, &id, &first.id).await.unwrap().unwrap();
    deployment::list(tx, org, &id, None, 9).await.unwrap();
    deployment::list_current(tx, org, &[&id]).await.unwrap();
    deployment::list_offline(tx, NOW, 9).await.unwrap();
    let next = Deployment { id: DeploymentId::from_store("dep_new".into()), generation: 2, ..first };
    deployment::insert(tx, &next).await.unwrap();
    deployment::update(tx, &next).await.unwrap();
    deployment::prune(tx, org, &id, 1, 9).await.unwrap();
    let event = InstanceEvent {
        id: InstanceEventId::from_store("iev_new".into()),
        organization_id: org.clone(),
        instance_id: id.clone(),
        kind: InstanceEventKind::Crashed,
        message: String::new(),
        created_at: NOW,
    };
    instance_event::insert(tx, &event, 9).await.unwrap();
    instance_event::list(tx, org, &id, None, 9).await.unwrap();
    instance_event::list(tx, org, &id, Some(&event.id), 9).await.unwrap();
    let new = InstanceId::from_store("ins_new".into());
    instance::insert(tx, &Instance { id: new.clone(), slug: "new".into(), ..found }, "new").await.unwrap();
    instance::delete(tx, org, &new).await.unwrap();
}

async fn use_connections(tx: &mut Tx, one: &Fixture, id: &InstanceId) {
    let org = &one.organization;
    let (shared, agent) = ((id, None), AgentId::from_store("agt_1".into()));
    let connection = remote_connection::find(tx, org, shared).await.unwrap().unwrap();
    remote_connection::find_revision(tx, org, (id, Some(&agent))).await.unwrap().unwrap();
    remote_connection::list(tx, org, id, None, 9).await.unwrap();
    remote_connection::list(tx, org, id, Some(&agent), 9).await.unwrap();
    remote_connection::list_definition_agents(tx, org, id, 3).await.unwrap();
    let of_agent = remote_connection::list_of_agent(tx, org, &agent).await.unwrap();
    remote_connection::upsert(tx, &connection).await.unwrap();
    remote_connection::lease_due(tx, NOW, NOW.plus(9), 9).await.unwrap();
    remote_connection::lease(tx, (org, shared), connection.revision, (NOW, NOW.plus(9))).await.unwrap();
    remote_connection::require_scope(tx, (org, shared), connection.revision, "write").await.unwrap();
    remote_connection::forget_required_scope(tx, org, shared).await.unwrap();
    remote_connection::complete_refresh(tx, &connection).await.unwrap();
    remote_connection::fail_rejected(tx, &of_agent[0], NOW).await.unwrap();
    remote_connection::delete_rejected(tx, &connection).await.unwrap();
    remote_connection::delete(tx, org, shared).await.unwrap();
    remote_connection::delete_all(tx, org, id).await.unwrap();
    let request = RemoteConnectionRequest {
        state_hash: "connect-new".to_owned(),
        organization_id: org.clone(),
        instance_id: id.clone(),
        agent_id: Some(agent),
        user_id: one.user.clone(),
        generation: 1,
        request: "sealed".to_owned(),
        created_at: NOW,
        expires_at: NOW.plus(9),
    };
    remote_connection_request::replace(tx, &request).await.unwrap();
    remote_connection_request::find_organization(tx, &one.user, "connect-new", NOW).await.unwrap().unwrap();
    remote_connection_request::consume(tx, org, &one.user, "connect-new", NOW).await.unwrap().unwrap();
}

async fn use_initial_approvals(tx: &mut Tx, one: &Fixture, id: &InstanceId) {
    let org = &one.organization;
    assert!(initial_approval::exists(tx, org, id).await.unwrap());
    initial_approval::list_due(tx, NOW, 9).await.unwrap();
    initial_approval::postpone(tx, org, id, NOW).await.unwrap();
    let approval = initial_approval::consume(tx, org, id).await.unwrap().unwrap();
    initial_approval::insert(tx, &approval).await.unwrap();
    initial_approval::delete(tx, org, id).await.unwrap();
}

pub(super) async fn use_toolboxes(tx: &mut Tx, one: &Fixture) {
    let org = &one.organization;
    let id = ToolboxId::from_store("tbx_1".into());
    toolbox::lock_organization(tx, org).await.unwrap();
    let found = toolbox::lock(tx, org, &id).await.unwrap().unwrap();
    toolbox::find(tx, org, &id).await.unwrap().unwrap();
    toolbox::find_by_name(tx, org, "rack").await.unwrap().unwrap();
    toolbox::list(tx, org, Some("a"), 9).await.unwrap();
    toolbox::count(tx, org).await.unwrap();
    toolbox::list_use(tx, org, None).await.unwrap();
    toolbox::list_use(tx, org, Some(&id)).await.unwrap();
    system::find_toolbox(tx, &id).await.unwrap().unwrap();
    system::find_toolbox_by_token(tx, "hash").await.unwrap();
    system::list_toolbox_revisions(tx, &[&id]).await.unwrap();
    toolbox::rename(tx, org, &id, "rack-2", NOW).await.unwrap();
    toolbox::request_key_rotation(tx, org, &id, NOW).await.unwrap();
    toolbox::update_link(tx, &found).await.unwrap();
    toolbox::update_heartbeat(tx, &found).await.unwrap();
    toolbox::increment_revision(tx, org, &id).await.unwrap();
    toolbox::set_last_event(tx, org, &id, 9).await.unwrap();
    toolbox::mark_unresponsive(tx, NOW, NOW, 9).await.unwrap();
    let new = ToolboxId::from_store("tbx_new".into());
    let toolbox = Toolbox { id: new.clone(), name: "new".into(), join_token_hash: Some("hash".into()), ..found };
    toolbox::insert(tx, &toolbox).await.unwrap();
    let joining = Joining { token_hash: "hash", public_key: "key", version: "1", now: NOW };
    toolbox::join(tx, org, &new, joining).await.unwrap();
    toolbox::renew_token(tx, org, &new, NewToken { hash: "other", expires_at: NOW, now: NOW }).await.unwrap();
    toolbox::delete_expired_tokens(tx, NOW, 9).await.unwrap();
    toolbox::revoke(tx, org, &new, NOW).await.unwrap();
    instance::delete_by_toolbox(tx, org, &new).await.unwrap();
    toolbox::delete(tx, org, &new).await.unwrap();
}
