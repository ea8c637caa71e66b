//! The suite against the fixtures through the gateway: a remote server, of which an agent was granted everything, and whose
//! definitions are all approved.

use std::collections::BTreeMap;

use waypost_core::caller::Ctx;
use waypost_core::grant::{AccessLevel, GrantedNames};
use waypost_core::id::{InstanceId, OrganizationId};
use waypost_core::instance::ConnectionMode;
use waypost_core::tool_definition::{ApprovalState, Class};
use waypost_core::tool_set::ToolSetMember;
use waypost_ops::agent_tokens::CreateAgentToken;
use waypost_ops::grants::NewGrant;
use waypost_ops::instances::remote::NewRemoteServer;
use waypost_ops::instances::{NewInstance, NewServer};
use waypost_ops::tool_approvals::ListToolApprovals;
use waypost_ops::tool_sets::NewToolSet;
use waypost_ops::{
    Ops, agent_tokens, agents, grants, instances, organizations, remote_checks, tool_approvals, tool_sets,
};
use waypost_toolbox_proto::entry::Transport;

use crate::{exceptions, server, suite};

/// The path of the tool set that [`connect`] creates.
pub const PATH: &str = "/gateway/acme/fixtures/mcp";

/// Connects a new organisation to the server at `url`, and returns the token of an agent that can use everything it offers.
pub async fn connect(ops: &Ops, url: &str) -> String {
    let cx = Ctx::operator();
    let organization = organizations::create(&cx, ops, "acme", None).await.unwrap().id;
    let remote = NewRemoteServer {
        url: url.to_owned(),
        transport: Transport::StreamableHttp,
        is_oauth: false,
        connection: ConnectionMode::Shared,
        client: None,
    };
    let new = NewInstance {
        slug: "fixtures".to_owned(),
        name: None,
        server: NewServer::Remote(remote),
        secrets: BTreeMap::new(),
        access: Default::default(),
    };
    let instance = instances::create(&cx, ops, &organization, &new).await.unwrap().instance.id;
    remote_checks::check_due(&cx, ops).await.unwrap();
    approve_all(&cx, ops, &organization).await;
    let members = vec![ToolSetMember { instance_id: instance.clone(), tools: None }];
    let new = NewToolSet { slug: "fixtures".to_owned(), name: None, prefix: false, members };
    tool_sets::create(&cx, ops, &organization, &new).await.unwrap();
    grant_all(&cx, ops, &organization, instance).await
}

async fn approve_all(cx: &Ctx, ops: &Ops, organization: &OrganizationId) {
    let pending = ListToolApprovals { state: Some(ApprovalState::Pending), limit: 100, ..Default::default() };
    let page = tool_approvals::list(cx, ops, organization, &pending).await.unwrap();
    assert!(page.next_cursor.is_none() && !page.items.is_empty());
    for approval in page.items {
        let decision = (approval.definition.digest.as_str(), Class::Write);
        tool_approvals::approve(cx, ops, organization, &approval.definition.id, decision).await.unwrap();
    }
}

/// Creates an agent with access to everything that an instance offers, and returns its token.
pub async fn grant_all(cx: &Ctx, ops: &Ops, organization: &OrganizationId, instance_id: InstanceId) -> String {
    let agent_id = agents::create(cx, ops, organization, "suite").await.unwrap().agent.id;
    let new = NewGrant {
        agent_id: agent_id.clone(),
        instance_id,
        access: AccessLevel::FullAccess,
        names: GrantedNames::default(),
        rules: Vec::new(),
        expires_at: None,
    };
    grants::create(cx, ops, organization, &new).await.unwrap();
    let new = CreateAgentToken { name: "main", expires_at: None };
    let (_, secret) = agent_tokens::create(cx, ops, organization, &agent_id, new).await.unwrap();
    secret.expose().to_owned()
}

/// Checks that every scenario of a revision passes through the gateway, including optional ones except the Tasks extension,
/// apart from exactly the exceptions.
async fn passes_except_listed(revision: &str) {
    let fixtures = server::with_fixtures_of(revision).await;
    let gateway = server::with_gateway(&fixtures.url).await;
    let report = suite::run(&gateway.url, &["--requirements", revision]).await;
    println!("{}", report.summary());
    let required = suite::required(revision).await;
    assert!(required.len() >= 30, "{revision} requires only {required:?}");
    exceptions::assert_only("gateway_exceptions.json", revision, &report, &required);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[cfg_attr(not(have_conformance), ignore = "needs the MCP conformance suite")]
async fn the_gateway_passes_2025_11_25() {
    passes_except_listed("2025-11-25").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[cfg_attr(not(have_conformance), ignore = "needs the MCP conformance suite")]
async fn the_gateway_passes_2026_07_28() {
    passes_except_listed("2026-07-28").await;
}
