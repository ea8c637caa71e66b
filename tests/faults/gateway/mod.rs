//! The gateway with remote servers, while a server, a replica or the database fails, and with two replicas.

mod agent;
mod changes;
mod hanging;
mod outage;
mod replicas;

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;
use tokio::process::Command;
use waypost_core::caller::Ctx;
use waypost_core::grant::{AccessLevel, GrantedNames};
use waypost_core::id::InstanceId;
use waypost_core::instance::ConnectionMode;
use waypost_core::seal::Keyring;
use waypost_core::secret::SecretKey;
use waypost_core::tool_definition::{ApprovalState, Class};
use waypost_ops::agent_tokens::CreateAgentToken;
use waypost_ops::grants::NewGrant;
use waypost_ops::instances::remote::NewRemoteServer;
use waypost_ops::instances::{NewInstance, NewServer};
use waypost_ops::tool_approvals::ListToolApprovals;
use waypost_ops::{Ops, agent_tokens, agents, grants, instances, remote_checks, tool_approvals};
use waypost_outbound::{Outbound, Policy};
use waypost_store::{Db, on};
use waypost_toolbox_proto::entry::Transport;

use self::agent::Agent;
use crate::installation::Installation;
use crate::program::{SERVE, ServeProcess, configure};

/// The setting that allows connections to the servers of the tests.
const ALLOW: &str = "127.0.0.0/8=tools";

/// Creates an instance for each slug and URL, approves all tools with the class `write`, and creates agents that may
/// use all of them.
async fn connect(installation: &Installation, servers: &[(&str, &str)], agent_count: usize) -> Vec<Agent> {
    let (cx, ops) = (Ctx::operator(), open_ops(installation).await);
    let mut instances = Vec::new();
    for (slug, url) in servers {
        instances.push(create_instance(&cx, &ops, installation, slug, url).await);
    }
    remote_checks::check_due(&cx, &ops).await.unwrap();
    assert_eq!(approve_all(&cx, &ops, installation).await, servers.len(), "every server lists one tool");
    let mut all = Vec::new();
    for n in 0..agent_count {
        let token = create_agent(&cx, &ops, installation, (&format!("agent-{n}"), &instances)).await;
        all.push(Agent::new(&token));
    }
    ops.store().close().await;
    all
}

/// Opens the database for operations that can use the servers of the tests.
pub async fn open_ops(installation: &Installation) -> Ops {
    // The key that the program uses.
    let key = SecretKey::new(std::array::from_fn(|n| u8::try_from(n).unwrap()));
    let outbound = Outbound::new(Policy { allow: vec![ALLOW.parse().unwrap()], extra_roots_pem: None }).unwrap();
    installation.ops().await.with_keyring(Keyring::new(&key, None)).with_outbound(outbound)
}

/// Approves all pending tools with the class `write`. Returns their number.
pub async fn approve_all(cx: &Ctx, ops: &Ops, installation: &Installation) -> usize {
    let organization = &installation.organization;
    let pending = ListToolApprovals { state: Some(ApprovalState::Pending), limit: 100, ..Default::default() };
    let pending = tool_approvals::list(cx, ops, organization, &pending).await.unwrap().items;
    for approval in &pending {
        let decision = (approval.definition.digest.as_str(), Class::Write);
        tool_approvals::approve(cx, ops, organization, &approval.definition.id, decision).await.unwrap();
    }
    pending.len()
}

/// Creates an instance for a remote server.
pub async fn create_instance(cx: &Ctx, ops: &Ops, installation: &Installation, slug: &str, url: &str) -> InstanceId {
    let remote = NewRemoteServer {
        url: url.to_owned(),
        transport: Transport::StreamableHttp,
        is_oauth: false,
        connection: ConnectionMode::Shared,
        client: None,
    };
    let new = NewInstance {
        slug: slug.to_owned(),
        name: None,
        server: NewServer::Remote(remote),
        secrets: BTreeMap::new(),
        access: Default::default(),
    };
    instances::create(cx, ops, &installation.organization, &new).await.unwrap().instance.id
}

/// Creates an agent that may use all tools of these instances. Returns its token.
pub async fn create_agent(
    cx: &Ctx,
    ops: &Ops,
    installation: &Installation,
    (name, instances): (&str, &[InstanceId]),
) -> String {
    let organization = &installation.organization;
    let agent_id = agents::create(cx, ops, organization, name).await.unwrap().agent.id;
    for instance_id in instances {
        let new = NewGrant {
            agent_id: agent_id.clone(),
            instance_id: instance_id.clone(),
            access: AccessLevel::FullAccess,
            names: GrantedNames::default(),
            rules: Vec::new(),
            expires_at: None,
        };
        grants::create(cx, ops, organization, &new).await.unwrap();
    }
    let new = CreateAgentToken { name: "main", expires_at: None };
    let (_, token) = agent_tokens::create(cx, ops, organization, &agent_id, new).await.unwrap();
    token.expose().to_owned()
}

/// Starts the program, which may connect to the servers of the tests.
pub async fn serve(installation: &Installation) -> ServeProcess {
    let mut command = Command::new(env!("CARGO_BIN_EXE_waypost"));
    configure(&mut command, installation, SERVE);
    command.env("WAYPOST_OUTBOUND_ALLOW", ALLOW);
    ServeProcess::run(command, &installation.data_dir()).await
}

/// Returns the number of open file descriptors of a process.
fn count_open_files(program: &ServeProcess) -> usize {
    let folder = format!("/proc/{}/fd", program.pid().as_raw_nonzero());
    std::fs::read_dir(Path::new(&folder)).unwrap().count()
}

/// Returns the number of call records by the name of the only argument of the call.
async fn read_recorded_calls(installation: &Installation) -> BTreeMap<String, usize> {
    let db = Db::open(&installation.url).await.unwrap();
    let sql = "SELECT argument_shape FROM calls";
    let shapes: Vec<String> =
        on!(&mut db.read().await.unwrap(), c => sqlx::query_scalar(sql).fetch_all(c).await.unwrap());
    db.close().await;
    let mut counts = BTreeMap::new();
    for shape in shapes {
        let names: BTreeMap<String, Value> = serde_json::from_str(&shape).unwrap();
        *counts.entry(names.into_keys().next().unwrap_or_default()).or_default() += 1;
    }
    counts
}
