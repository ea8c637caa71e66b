//! A server in a container and a remote one change a definition between two calls of an agent: from a new installation
//! through the approval of the change on its page to the expiry of the grants.

use http::{Method, StatusCode};
use serde_json::{Value, json};
use waypost_core::caller::Ctx;

use crate::console::Console;
use crate::engine::Engine;
use crate::image::Image;
use crate::remote_server::RemoteServer;
use crate::site::{Site, id_of};
use crate::support::installation::Installation;
use crate::waypost::{Toolbox, Waypost};

/// The time until the grants expire, in milliseconds.
const UNTIL_EXPIRY: i64 = 3_000;

/// The protocol revision that the agent uses.
#[derive(Debug, Clone, Copy)]
enum Era {
    /// A revision with a handshake.
    Legacy,
    /// 2026-07-28.
    Modern,
}

#[derive(Debug, Clone, Copy)]
enum Server {
    /// In a container, on standard input and output, with a handshake: the instance `local`.
    Deployed,
    /// On loopback, over Streamable HTTP, with 2026-07-28: the instance `far`.
    Remote,
}

impl Server {
    /// Returns the name by which agents call the tool whose definition changes.
    fn tool(self) -> &'static str {
        match self {
            Self::Deployed => "local__write",
            Self::Remote => "far__echo",
        }
    }

    fn other(self) -> Self {
        match self {
            Self::Deployed => Self::Remote,
            Self::Remote => Self::Deployed,
        }
    }

    /// Returns the arguments that identify the call with this name.
    fn arguments(self, call: &str) -> Value {
        match self {
            Self::Deployed => json!({ "path": path_of(call) }),
            Self::Remote => json!({ "text": call }),
        }
    }
}

/// Returns the path of the file that a call of the server in the container writes.
fn path_of(call: &str) -> String {
    format!("/tmp/{call}")
}

/// An installation with both servers, and an agent that may use all of their tools.
struct Stage {
    site: Site,
    console: Console,
    remote: RemoteServer,
    /// The ID of the instance `local`.
    local: String,
    /// The ID of the instance `far`.
    far: String,
    token: String,
}

impl Stage {
    async fn new() -> Self {
        let mut installation = Installation::new().await;
        installation.set_env("WAYPOST_GATEWAY_DEFINITION_MAX_AGE_SECONDS", "0".to_owned());
        installation.set_env("WAYPOST_OUTBOUND_ALLOW", "127.0.0.0/8=tools".to_owned());
        let waypost = Waypost::start_as(installation).await;
        let console = Console::set_up(&waypost).await;
        let toolbox = Toolbox::join(&waypost, "machine").await;
        let site = Site::start_as(Engine::shared(), waypost, toolbox).await;
        let remote = RemoteServer::start().await;
        let agent = id_of(&site.api(Method::POST, "/agents", &json!({ "name": "ci" })).await);
        let new = json!({ "name": "main" });
        let token = site.api(Method::POST, &format!("/agents/{agent}/tokens"), &new).await;
        let token = token["token"].as_str().expect("a token").to_owned();
        let local = deploy(&site, &agent).await;
        let far = connect(&site, &agent, &remote.url()).await;
        Self { site, console, remote, local, far, token }
    }

    /// Sends a request of the agent.
    async fn request(&self, era: Era, method: &str, params: Value) -> Value {
        let message = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params });
        let waypost = &self.site.waypost;
        match era {
            Era::Legacy => waypost.post("/gateway/mcp", &self.token, &message).await,
            Era::Modern => waypost.post_modern("/gateway/mcp", &self.token, (json!({}), message)).await,
        }
    }

    /// Returns the names of the tools that the agent sees.
    async fn tools(&self, era: Era) -> Vec<String> {
        let listed = self.request(era, "tools/list", json!({})).await;
        let tools = listed["result"]["tools"].as_array().unwrap_or_else(|| panic!("no tools in {listed}"));
        tools.iter().map(|tool| tool["name"].as_str().expect("a name").to_owned()).collect()
    }

    /// Whether the agent sees the tool of a server.
    async fn lists(&self, era: Era, server: Server) -> bool {
        self.tools(era).await.iter().any(|tool| tool == server.tool())
    }

    async fn wait_for_tool(&self, era: Era, server: Server) {
        self.site.poll(server.tool(), async || self.lists(era, server).await).await;
    }

    async fn call(&self, era: Era, server: Server, name: &str) -> Value {
        let params = json!({ "name": server.tool(), "arguments": server.arguments(name) });
        self.request(era, "tools/call", params).await
    }

    /// Whether a server has received the call with this name.
    async fn has_received(&self, server: Server, name: &str) -> bool {
        match server {
            Server::Deployed => {
                let (status, result) = self.site.call(&self.local, "read", json!({ "path": path_of(name) })).await;
                let text = result["content"][0]["text"].as_str().unwrap_or_default();
                let is_known = text == "written" || text.contains("No such file or directory");
                assert!(status == StatusCode::OK && is_known, "{status} {result}");
                text == "written"
            }
            Server::Remote => self.remote.calls().contains(&server.arguments(name).to_string()),
        }
    }

    async fn assert_called(&self, era: Era, server: Server, name: &str) {
        let answer = self.call(era, server, name).await;
        assert!(answer["result"].is_object() && answer["result"]["isError"] != true, "{name}: {answer}");
        assert!(self.has_received(server, name).await, "{name}");
    }

    async fn assert_unknown(&self, era: Era, server: Server, name: &str) {
        let answer = self.call(era, server, name).await;
        assert_eq!(answer["error"], json!({ "code": -32602, "message": "Unknown tool" }), "{name}: {answer}");
        assert!(!self.has_received(server, name).await, "{name}: the server has received a call that was rejected");
    }

    /// Changes one nested member of the schema of a server's tool. The server announces nothing.
    async fn change_schema(&self, server: Server) {
        match server {
            Server::Deployed => {
                let (status, result) = self.site.call(&self.local, "change_schema", json!({ "tool": "write" })).await;
                assert_eq!((status, &result["isError"]), (StatusCode::OK, &json!(false)), "{result}");
            }
            Server::Remote => self.remote.change_schema(),
        }
    }

    /// Approves the changed definition of a server on its page, which shows the member that has changed.
    async fn approve_on_page(&self, server: Server) {
        let instance = match server {
            Server::Deployed => &self.local,
            Server::Remote => &self.far,
        };
        let approval = pending(&self.site, instance).await;
        let path = format!("/o/acme/tool-approvals/{}", id_of(&approval));
        let list = self.console.page("/o/acme/tool-approvals").await;
        assert!(list.contains(&format!("href=\"{path}\"")), "{path} is not in:\n{list}");
        let digest = approval["digest"].as_str().expect("a digest");
        let page = self.console.page(&path).await;
        let title = "Difference from the definition that was approved last";
        assert!(page.contains(title) && page.contains(digest), "{page}");
        for element in ["del", "ins"] {
            let lines = texts_of(&page, element);
            assert!(lines.len() == 1 && lines[0].contains("maxLength"), "{element}: {lines:?}");
        }
        self.console.submit(&format!("{path}/approve"), &[("digest", digest), ("class", "write")]).await;
    }

    /// Lets a server change its tool between two calls, and checks that the second call does not reach it until the
    /// change is approved.
    async fn change_between_calls(&self, era: Era, server: Server) {
        let name = |step: &str| format!("{era:?}-{server:?}-{step}");
        self.assert_called(era, server, &name("before")).await;
        self.change_schema(server).await;
        self.assert_unknown(era, server, &name("changed")).await;
        assert!(!self.lists(era, server).await, "{server:?}");
        self.assert_called(era, server.other(), &name("other")).await;
        self.approve_on_page(server).await;
        self.wait_for_tool(era, server).await;
        self.assert_called(era, server, &name("approved")).await;
    }

    /// Lets the grants expire, after which the agent has no tools.
    async fn let_grants_expire(&self) {
        let list = self.site.api(Method::GET, "/grants", &Value::Null).await;
        let grants = list["items"].as_array().expect("a list");
        assert_eq!(grants.len(), 2, "{list}");
        let cx = Ctx::operator();
        let expires_at = cx.now().plus(UNTIL_EXPIRY);
        for grant in grants {
            let change = json!({ "expires_at": expires_at.rfc3339() });
            self.site.api(Method::PATCH, &format!("/grants/{}", id_of(grant)), &change).await;
        }
        self.site.poll("the end of the grants", async || self.tools(Era::Legacy).await.is_empty()).await;
        assert!(cx.now() >= expires_at, "the tools are listed until the grants expire");
        assert_eq!(self.tools(Era::Modern).await, [""; 0]);
        for era in [Era::Legacy, Era::Modern] {
            for server in [Server::Deployed, Server::Remote] {
                self.assert_unknown(era, server, &format!("{era:?}-{server:?}-expired")).await;
            }
        }
    }
}

/// Deploys the instance `local`, which is approved and granted to the agent when it is created. Returns its ID.
async fn deploy(site: &Site, agent: &str) -> String {
    let version = site.import("local", "1", &Image::stdio(), json!({})).await;
    let grants = json!([{ "agent_id": agent, "access": "full_access" }]);
    let new = json!({ "slug": "local", "catalog_version_id": version, "approve": {}, "grants": grants });
    let id = id_of(&site.api(Method::POST, "/instances", &new).await);
    let instance = site.deployed(&id).await;
    assert_eq!(instance["deployment"]["state"], "complete", "{instance}");
    id
}

/// Connects to the remote server as the instance `far`, approves its tool, and grants the agent access. Returns its ID.
async fn connect(site: &Site, agent: &str, url: &str) -> String {
    let new = json!({ "slug": "far", "remote": { "url": url } });
    let id = id_of(&site.api(Method::POST, "/instances", &new).await);
    site.wait_for_state(&id, "running").await;
    let approval = pending(site, &id).await;
    let decision = json!({ "digest": approval["digest"], "class": "write" });
    site.api(Method::POST, &format!("/tool-approvals/{}/approve", id_of(&approval)), &decision).await;
    let grant = json!({ "agent_id": agent, "instance_id": id, "access": "full_access" });
    site.api(Method::POST, "/grants", &grant).await;
    id
}

/// Returns the only pending approval of an instance.
async fn pending(site: &Site, instance: &str) -> Value {
    let path = format!("/tool-approvals?state=pending&instance_id={instance}");
    let list = site.api(Method::GET, &path, &Value::Null).await;
    let items = list["items"].as_array().expect("a list");
    assert_eq!(items.len(), 1, "{list}");
    items[0].clone()
}

/// Returns the contents of the elements that have this name and no attributes.
fn texts_of<'a>(page: &'a str, element: &str) -> Vec<&'a str> {
    let (start, end) = (format!("<{element}>"), format!("</{element}>"));
    page.split(&start).skip(1).filter_map(|rest| rest.split_once(&end)).map(|(text, _)| text).collect()
}

waypost_testkit::needs_docker! {
    #[tokio::test(flavor = "multi_thread")]
    async fn a_changed_definition_cannot_be_called_until_it_is_approved_docker() {
        let stage = Stage::new().await;
        for era in [Era::Legacy, Era::Modern] {
            for server in [Server::Deployed, Server::Remote] {
                stage.wait_for_tool(era, server).await;
            }
        }
        for era in [Era::Legacy, Era::Modern] {
            for server in [Server::Deployed, Server::Remote] {
                stage.change_between_calls(era, server).await;
            }
        }
        stage.let_grants_expire().await;
        stage.site.finish().await;
    }
}
