//! The rows of agents, their tokens and grants, tool sets, and approvals.

use waypost_core::authorization::AuthorizationRequest;
use waypost_core::grant::{AccessLevel, GrantedNames};
use waypost_core::id::{
    AgentId, AgentTokenId, CallId, CatalogVersionId, GrantId, InstanceId, OauthGrantId, ToolApprovalId, ToolSetId,
};
use waypost_core::issuer::IssuerId;
use waypost_core::seal::SecretText;
use waypost_core::tool_definition::Class;
use waypost_core::tool_set::ToolSetMember;
use waypost_ops::agent_secrets::AgentSecretRef;
use waypost_ops::agent_tokens::CreateAgentToken;
use waypost_ops::agents::AgentPatch;
use waypost_ops::calls::ListCalls;
use waypost_ops::gateway_url::GatewayResource;
use waypost_ops::grants::{GrantFilter, GrantPatch, NewGrant};
use waypost_ops::tool_approvals::ListToolApprovals;
use waypost_ops::tool_overrides::ToolOverridePatch;
use waypost_ops::tool_sets::{NewToolSet, ToolSetPatch};
use waypost_ops::{
    agent_secrets, agent_tokens, agents, calls, gateway_sign_in, grants, tool_approvals, tool_definitions,
    tool_overrides, tool_sets, visibility,
};

use super::super::Access;
use super::{Call, Row, row};
use crate::account_test::authorization_request;

pub(super) async fn agents(call: Call<'_>) -> Vec<Row> {
    let Call { cx, ops, tenant: t, new, .. } = call;
    let org = &t.organization.id;
    let (agent, token) = (&AgentId::from_store("agt_0".into()), &AgentTokenId::from_store("agk_0".into()));
    let (grant, set) = (&GrantId::from_store("grt_0".into()), &ToolSetId::from_store("set_0".into()));
    let instance = InstanceId::from_store("ins_0".into());
    let new_token = CreateAgentToken { name: "a", expires_at: None };
    let new_grant = NewGrant {
        agent_id: agent.clone(),
        instance_id: instance.clone(),
        access: AccessLevel::FullAccess,
        names: GrantedNames::default(),
        rules: Vec::new(),
        expires_at: None,
    };
    let request = &AuthorizationRequest { issuer_id: IssuerId::Gateway, ..authorization_request(cx, t) };
    let resource = GatewayResource::new(&t.organization.slug, None).unwrap();
    let members = vec![ToolSetMember { instance_id: instance.clone(), tools: None }];
    let new_set = NewToolSet { slug: "a".to_owned(), name: None, prefix: true, members };
    let secret = AgentSecretRef { instance: &instance, agent, name: "KEY" };
    let value = SecretText::new("value".to_owned());
    rows! {
        Member gateway_sign_in::issue_code(cx, ops, request, "browser", org, &t.member.user_id);
        Member gateway_sign_in::deny(cx, ops, request, "browser", Some(org));
        User gateway_sign_in::find_membership(cx, ops, &resource);
        User gateway_sign_in::list_clients(cx, ops);
        User gateway_sign_in::disconnect_client(cx, ops, &OauthGrantId::from_store("ogr_0".into()));
        Admin agents::create(cx, ops, org, new);
        Admin agents::list(cx, ops, org, None, 1);
        Admin agents::get(cx, ops, org, agent);
        Admin agents::resolve(cx, ops, org, new);
        Admin agents::update(cx, ops, org, agent, &AgentPatch::default());
        Admin agents::delete(cx, ops, org, agent);
        Admin agent_tokens::create(cx, ops, org, agent, new_token);
        Admin agent_tokens::revoke(cx, ops, org, agent, token);
        Admin agent_secrets::list(cx, ops, org, &instance);
        Admin agent_secrets::list_of_agent(cx, ops, org, agent);
        Admin agent_secrets::set(cx, ops, org, secret, &value);
        Admin agent_secrets::delete(cx, ops, org, secret);
        Member agent_secrets::list_own(cx, ops, org);
        Member agent_secrets::set_own(cx, ops, org, (&instance, "KEY"), &value);
        Member agent_secrets::delete_own(cx, ops, org, (&instance, "KEY"));
        Admin grants::create(cx, ops, org, &new_grant);
        Admin grants::list(cx, ops, org, GrantFilter::default(), (None, 1));
        Admin grants::get(cx, ops, org, grant);
        Admin grants::update(cx, ops, org, grant, &GrantPatch::default());
        Admin grants::delete(cx, ops, org, grant);
        Admin tool_sets::create(cx, ops, org, &new_set);
        Member tool_sets::list(cx, ops, org, None, 1);
        Member tool_sets::get(cx, ops, org, set);
        Member tool_sets::resolve(cx, ops, org, "a");
        Admin tool_sets::update(cx, ops, org, set, &ToolSetPatch::default());
        Admin tool_sets::delete(cx, ops, org, set);
        Admin visibility::list(cx, ops, org, agent);
        Admin visibility::explain(cx, ops, org, agent, &instance);
    }
}

pub(super) async fn approvals(call: Call<'_>) -> Vec<Row> {
    let Call { cx, ops, tenant: t, .. } = call;
    let org = &t.organization.id;
    let (approval, instance) = (&ToolApprovalId::from_store("apr_0".into()), &InstanceId::from_store("ins_0".into()));
    let query = ListToolApprovals { limit: 1, ..ListToolApprovals::default() };
    let digests = ["d0".to_owned()];
    let call_id = CallId::floor(cx.now());
    let all_calls = ListCalls { limit: 1, ..ListCalls::default() };
    rows! {
        Member tool_approvals::list(cx, ops, org, &query);
        Member tool_approvals::get(cx, ops, org, approval);
        Member tool_approvals::list_known(cx, ops, org, &CatalogVersionId::from_store("ctv_0".into()));
        Operator tool_definitions::check_new(cx, ops);
        Admin tool_approvals::refresh(cx, ops, org, instance);
        Admin tool_approvals::approve(cx, ops, org, approval, ("d0", Class::Read));
        Admin tool_approvals::approve_all(cx, ops, org, instance, (&digests, Class::Read));
        Admin tool_approvals::reject(cx, ops, org, approval, "");
        Member tool_overrides::list(cx, ops, org, instance);
        Member tool_overrides::list_tools(cx, ops, org, instance);
        Admin tool_overrides::update(cx, ops, org, instance, &ToolOverridePatch::default());
        Admin calls::list(cx, ops, org, &all_calls);
        Admin calls::get(cx, ops, org, &call_id);
        Admin calls::summarize(cx, ops, org);
        Admin calls::list_connections(cx, ops, org, (None, 1));
    }
}
