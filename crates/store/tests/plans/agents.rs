//! The statements of agents, tokens, grants, tool sets and calls.

use waypost_core::Timestamp;
use waypost_core::agent::{Agent, AgentToken};
use waypost_core::agent_secret::AgentSecret;
use waypost_core::call::{Call, CallOutcome};
use waypost_core::grant::Grant;
use waypost_core::id::{AgentId, AgentSecretId, AgentTokenId, CallId, GrantId, InstanceId, ToolSetId};
use waypost_core::tool_override::ToolOverride;
use waypost_core::tool_set::ToolSet;
use waypost_store::agent_token::TokenUse;
use waypost_store::call::CallFilter;
use waypost_store::call_contents::SealedContents;
use waypost_store::grant::GrantFilter;
use waypost_store::{
    Tx, agent, agent_secret, agent_token, call, call_contents, grant, instance, system, tool_override, tool_set,
};

use crate::fixture::{Fixture, NOW};

pub(super) async fn use_agents(tx: &mut Tx, one: &Fixture) {
    let (org, id) = (&one.organization, AgentId::from_store("agt_1".into()));
    let found = agent::find(tx, org, &id).await.unwrap().unwrap();
    agent::find_by_name(tx, org, "Crawler").await.unwrap().unwrap();
    agent::list(tx, org, Some("A"), 9).await.unwrap();
    agent::count(tx, org).await.unwrap();
    agent::update(tx, &found).await.unwrap();
    let new = AgentId::from_store("agt_new".into());
    agent::insert(tx, &Agent { id: new.clone(), name: "New".into(), ..found }).await.unwrap();
    agent::delete(tx, org, &new).await.unwrap();
    use_tokens(tx, one, &id).await;
    use_grants(tx, one, &id).await;
    use_tool_sets(tx, one).await;
    use_tool_overrides(tx, one).await;
    use_agent_secrets(tx, one, &id).await;
    use_calls(tx, one, &id).await;
}

async fn use_tokens(tx: &mut Tx, one: &Fixture, agent: &AgentId) {
    let (org, id) = (&one.organization, AgentTokenId::from_store("agk_1".into()));
    let found = agent_token::find(tx, org, agent, &id).await.unwrap().unwrap();
    system::find_agent_token(tx, "agent-1").await.unwrap().unwrap();
    agent_token::list(tx, org, &[agent]).await.unwrap();
    agent_token::count_active(tx, org, agent, NOW).await.unwrap();
    let new = AgentToken { id: AgentTokenId::from_store("agk_new".into()), ..found };
    agent_token::insert(tx, org, &new, "new").await.unwrap();
    agent_token::revoke(tx, org, agent, &new.id, NOW).await.unwrap();
    let token_use = TokenUse { token_id: Some(new.id), agent_id: agent.clone(), at: NOW };
    agent_token::record_uses(tx, &[token_use]).await.unwrap();
    agent_token::delete_surplus(tx, org, agent, NOW, 1).await.unwrap();
    agent_token::delete_ended(tx, NOW, 9).await.unwrap();
}

async fn use_grants(tx: &mut Tx, one: &Fixture, agent: &AgentId) {
    let (org, instance) = (&one.organization, InstanceId::from_store("ins_1".into()));
    let found = grant::find(tx, org, &GrantId::from_store("grt_1".into())).await.unwrap().unwrap();
    for agent in [None, Some(agent)] {
        for instance in [None, Some(&instance)] {
            grant::list(tx, org, GrantFilter { agent, instance }, None, 9).await.unwrap();
            grant::list(tx, org, GrantFilter { agent, instance }, Some(&found.id), 9).await.unwrap();
        }
    }
    grant::count(tx, org, agent).await.unwrap();
    grant::update(tx, &found).await.unwrap();
    let new = Grant { id: GrantId::from_store("grt_new".into()), ..found };
    grant::insert(tx, &new).await.unwrap();
    grant::delete(tx, org, &new.id).await.unwrap();
}

async fn use_tool_sets(tx: &mut Tx, one: &Fixture) {
    let org = &one.organization;
    let found = tool_set::find(tx, org, &ToolSetId::from_store("set_1".into())).await.unwrap().unwrap();
    tool_set::find_by_slug(tx, org, "research").await.unwrap().unwrap();
    tool_set::find_by_skeleton(tx, org, "research").await.unwrap().unwrap();
    tool_set::list(tx, org, Some("a"), 9).await.unwrap();
    tool_set::count(tx, org).await.unwrap();
    tool_set::update(tx, &found, "research").await.unwrap();
    let new = ToolSet { id: ToolSetId::from_store("set_new".into()), slug: "new".into(), ..found };
    tool_set::insert(tx, &new, "new").await.unwrap();
    tool_set::delete(tx, org, &new.id).await.unwrap();
    instance::list_existing(tx, org, &[&InstanceId::from_store("ins_1".into())]).await.unwrap();
}

async fn use_tool_overrides(tx: &mut Tx, one: &Fixture) {
    let (org, instance) = (&one.organization, InstanceId::from_store("ins_1".into()));
    tool_override::list(tx, org, None).await.unwrap();
    let found = tool_override::list(tx, org, Some(&instance)).await.unwrap().remove(0);
    tool_override::replace(tx, &ToolOverride { tool: "new".into(), name: None, ..found }).await.unwrap();
    tool_override::delete(tx, org, &instance, "new").await.unwrap();
}

async fn use_agent_secrets(tx: &mut Tx, one: &Fixture, agent: &AgentId) {
    let (org, instance) = (&one.organization, InstanceId::from_store("ins_1".into()));
    agent_secret::next_version(tx, org, &instance).await.unwrap().unwrap();
    agent_secret::list(tx, org, agent, None).await.unwrap();
    let found = agent_secret::list(tx, org, agent, Some(&instance)).await.unwrap().remove(0);
    agent_secret::list_by_instance(tx, org, &instance).await.unwrap();
    agent_secret::list_agents(tx, org, &instance, waypost_core::Timestamp(0)).await.unwrap();
    agent_secret::list_values(tx, org, agent, &instance).await.unwrap();
    let id = AgentSecretId::from_store("ags_new".into());
    agent_secret::replace(tx, &AgentSecret { id, name: "NEW".into(), ..found }, None).await.unwrap();
    agent_secret::delete_others(tx, org, &instance, &["TOKEN"]).await.unwrap();
}

async fn use_calls(tx: &mut Tx, one: &Fixture, agent: &AgentId) {
    let (org, instance) = (&one.organization, InstanceId::from_store("ins_1".into()));
    let after = CallId::floor(NOW);
    let all = CallFilter {
        agent: None,
        instance: None,
        tool: None,
        outcome: None,
        since: Timestamp(0),
        until: Timestamp(i64::MAX),
        after: None,
    };
    for filter in [
        all,
        CallFilter { after: Some(&after), tool: Some("search"), ..all },
        CallFilter { agent: Some(agent), ..all },
        CallFilter { instance: Some(&instance), ..all },
        CallFilter { outcome: Some(CallOutcome::Ok), ..all },
        CallFilter { outcome: Some(CallOutcome::Denied), ..all },
        CallFilter { agent: Some(agent), instance: Some(&instance), outcome: Some(CallOutcome::Failed), ..all },
    ] {
        call::list(tx, org, filter, 9).await.unwrap();
    }
    call::summarize(tx, org, Timestamp(0), 9).await.unwrap();
    let id = CallId::from_store("cal_1".into());
    call::find(tx, org, &id).await.unwrap();
    call_contents::find(tx, org, &id).await.unwrap();
    let contents = SealedContents {
        call_id: CallId::from_store("cal_none".into()),
        organization_id: org.clone(),
        agent_id: agent.clone(),
        instance_id: instance.clone(),
        contents: "sealed".into(),
    };
    call_contents::insert(tx, &[contents]).await.unwrap();
    let found = call::list(tx, org, all, 9).await.unwrap();
    call::insert(
        tx,
        &found.into_iter().map(|call| Call { id: CallId::from_store("cal_new".into()), ..call }).collect::<Vec<_>>(),
    )
    .await
    .unwrap();
    call::delete_old(tx, Timestamp(1), 9).await.unwrap();
}
