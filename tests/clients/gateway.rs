//! People at the gateway with real clients: the client signs its user in to the console, an admin grants access to a remote
//! server, and the next run of the client lists and calls its tool without signing in again.

use serde_json::{Value, json};
use waypost_core::caller::Ctx;
use waypost_core::grant::{AccessLevel, GrantedNames};
use waypost_core::id::{InstanceId, OrganizationId};
use waypost_core::tool_definition::{ApprovalState, Class};
use waypost_ops::grants::NewGrant;
use waypost_ops::tool_approvals::ListToolApprovals;
use waypost_ops::{Ops, agents, grants, instances, organizations, tool_approvals};
use waypost_store::Db;

use crate::remote_server::RemoteServer;
use crate::sign_in::{REDIRECT_URIS, Registration, Run, assert_no_secret_logged};
use crate::support::documents::DocumentServer;
use crate::support::installation::Installation;
use crate::support::user::SimulatedUser;

/// The person, a member of the organisation `acme`.
const EMAIL: &str = "ada@example.com";
/// The tool of the remote server, as agents see it.
const TOOL: &str = "far__echo";
/// Allows servers and client documents on loopback.
const ALLOW: &str = "127.0.0.0/8=tools,127.0.0.0/8=client-documents,::1=client-documents";

/// A client script with its settings.
struct Case {
    script: &'static str,
    client: &'static str,
    era: &'static str,
    version: &'static str,
    registration: Registration,
}

/// Operations on the database of an installation, as an admin.
struct Admin {
    cx: Ctx,
    ops: Ops,
    organization: OrganizationId,
    instance: InstanceId,
}

impl Admin {
    async fn new(installation: &Installation) -> Self {
        let url = format!("sqlite://{}", installation.folder().join("data/waypost.db").display());
        let (cx, ops) = (Ctx::operator(), Ops::new(Db::open(&url).await.expect("the database is opened")));
        let organization = organizations::resolve(&cx, &ops, "acme").await.expect("the organisation exists").id;
        let found = instances::resolve(&cx, &ops, &organization, "far").await.expect("the instance exists");
        Self { cx, ops, organization, instance: found.instance.id }
    }

    /// Approves everything that the server lists.
    async fn approve(&self) {
        let Self { cx, ops, organization, .. } = self;
        let pending = ListToolApprovals { state: Some(ApprovalState::Pending), limit: 100, ..Default::default() };
        let pending = tool_approvals::list(cx, ops, organization, &pending).await.expect("the definitions are listed");
        assert_eq!(pending.items.len(), 1, "the server lists one tool");
        for approval in pending.items {
            let decision = (approval.definition.digest.as_str(), Class::Read);
            let approved = tool_approvals::approve(cx, ops, organization, &approval.definition.id, decision).await;
            approved.expect("the tool is approved");
        }
    }

    /// Grants the person's agent, which exists since the consent, access to the server.
    async fn grant(&self) {
        let Self { cx, ops, organization, instance } = self;
        let mut all = agents::list(cx, ops, organization, None, 10).await.expect("the agents are listed");
        assert_eq!(all.len(), 1, "the consent creates one agent");
        let agent = all.remove(0).agent;
        assert_eq!((agent.name.as_str(), agent.user_id.is_some()), (EMAIL, true));
        let new = NewGrant {
            agent_id: agent.id,
            instance_id: instance.clone(),
            access: AccessLevel::ReadOnly,
            names: GrantedNames::default(),
            rules: Vec::new(),
            expires_at: None,
        };
        grants::create(cx, ops, organization, &new).await.expect("the grant is created");
    }
}

async fn use_gateway(case: Case) {
    let documents = DocumentServer::start(REDIRECT_URIS).await;
    let remote = RemoteServer::start().await;
    let mut installation = Installation::new().await;
    let authority = installation.folder().join("authority.pem");
    documents.write_authority(&authority);
    installation.set_env("WAYPOST_LOG_LEVEL", "debug".to_owned());
    installation.set_env("WAYPOST_OUTBOUND_CA_FILE", authority.display().to_string());
    installation.set_env("WAYPOST_OUTBOUND_ALLOW", ALLOW.to_owned());
    let state = installation.folder().join("client");
    std::fs::create_dir(&state).expect("the folder is created");
    installation.run(&["user", "create", EMAIL, "--org", "acme", "--role", "member"]).await;
    let user = SimulatedUser::start(EMAIL, installation.mailbox.clone()).await;
    let server = installation.serve().await;
    installation.run(&["instance", "create", "far", "--remote", &remote.url(), "--org", "acme", "--wait"]).await;
    let admin = Admin::new(&installation).await;
    admin.approve().await;

    let document = (case.registration == Registration::Document).then(|| documents.client_id(case.client));
    let config = json!({
        "url": format!("{}/gateway/acme/mcp", server.origin), "era": case.era, "user": user.origin,
        "state": state, "run": "gateway", "tool": TOOL, "document": document,
    });
    let first = Run::start(case.script, &config).read_report().await;
    assert_eq!((&first["tools"], &first["result"]), (&json!([]), &Value::Null), "nothing is granted yet");
    assert_eq!(first["protocol_version"], case.version, "{first}");
    assert_eq!(user.sign_ins(), 1);
    admin.grant().await;
    let second = Run::start(case.script, &config).read_report().await;
    assert_eq!(second["tools"], json!([TOOL]), "{second}");
    let arguments = json!({ "text": "Grüße", "number": 1.5 });
    assert_eq!(second["result"]["structuredContent"], arguments, "{second}");
    assert_eq!(remote.calls().iter().map(|text| text.parse::<Value>().unwrap()).collect::<Vec<_>>(), [arguments]);
    assert_eq!(user.sign_ins(), 1, "the client's stored tokens are sufficient");
    assert_no_secret_logged(&installation, &user, &state);
    assert_eq!(
        documents.fetch_count() > 0,
        case.registration == Registration::Document,
        "the document is fetched only if the client is identified by it"
    );
    server.kill().await;
}

/// Defines a client's tests, with the era to use and the version that must be negotiated.
macro_rules! uses_gateway {
    ($module:ident, $script:literal, $client:literal, $($test:ident => $registration:ident, $era:literal, $version:literal;)+) => {
        mod $module {
            use super::{Case, Registration, use_gateway};

            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                #[cfg_attr(not(have_clients), ignore = "needs the MCP clients of e2e/clients")]
                async fn $test() {
                    let (script, client) = ($script, $client);
                    use_gateway(Case { script, client, era: $era, version: $version, registration: Registration::$registration }).await;
                }
            )+
        }
    };
}

uses_gateway! { inspector, "inspector.mjs", "inspector",
    registered => Dynamic, "legacy", "2025-11-25";
    with_document => Document, "auto", "2026-07-28";
}

// The client behind mcp-remote uses a legacy revision, even if mcp-remote uses a newer one with the gateway.
uses_gateway! { mcp_remote, "mcp_remote.mjs", "mcp-remote",
    registered => Dynamic, "legacy", "2025-11-25";
    with_document => Document, "auto", "2025-11-25";
    old_registered => Dynamic, "mcp-remote-0.1", "2025-11-25";
}
