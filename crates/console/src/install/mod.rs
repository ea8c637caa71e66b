//! Setup instructions for each MCP client: install links and snippets. Pure functions of a server's name and URL, used
//! by the console's install page and by the public page.
//!
//! Sources: code.claude.com/docs (`claude mcp add`), cursor.com/docs/mcp/install-links, code.visualstudio.com/api
//! (`vscode:mcp/install`), docs.windsurf.com (`serverUrl`), zed.dev/docs/ai/mcp (`context_servers`),
//! developers.openai.com/codex/mcp (`mcp_servers`), geminicli.com/docs (`httpUrl`), opencode.ai/docs/mcp-servers,
//! jetbrains.com/help/ai-assistant/mcp.html, docs.cline.bot/mcp, the Inspector's docs/mcp-server-configuration.md. A
//! client without a documented install link has no link here. `https://` install links are not used: they would send a
//! personal URL to a third party.

mod token;

use data_encoding::BASE64;
use serde_json::{Value, json};
use url::{Host, Url};

pub use self::token::clients_with_token;

/// The server to connect to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Target<'a> {
    /// The server's name in the client's configuration: its slug, which every client accepts.
    pub name: &'a str,
    /// The MCP URL.
    pub url: &'a str,
}

/// A link that adds the server to a client with one click.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// The text of the link.
    pub label: &'static str,
    /// The URL, with a scheme that the client has registered.
    pub href: String,
}

/// Text to paste.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snippet {
    /// The place to paste it: a file, a terminal or a dialog.
    pub place: &'static str,
    /// The text.
    pub text: String,
}

/// The setup instructions for one client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Client {
    /// The client's name in URLs.
    pub id: &'static str,
    /// The client's name.
    pub name: &'static str,
    /// Instructions in one or two sentences.
    pub hint: &'static str,
    /// Whether the client connects from the cloud, so that the URL must use https and be reachable from the internet.
    pub needs_internet: bool,
    /// Links that add the server.
    pub links: Vec<Link>,
    /// Snippets to paste.
    pub snippets: Vec<Snippet>,
}

/// Returns the instructions for every known client.
#[must_use]
pub fn all_clients(target: Target<'_>) -> Vec<Client> {
    let mut all = end_user_clients(target);
    // Inserted before the last entry, "Other clients".
    all.insert(all.len() - 1, inspector(target));
    all
}

/// Returns the instructions for the clients that end users use. The first client is the recommended one.
#[must_use]
pub fn end_user_clients(target: Target<'_>) -> Vec<Client> {
    vec![
        claude_code(target),
        claude_desktop(target),
        chatgpt(target),
        cursor(target),
        vs_code(target),
        windsurf(target),
        zed(target),
        codex(target),
        gemini_cli(target),
        opencode(target),
        jetbrains(target),
        cline(target),
        plain(target),
    ]
}

/// Whether clients in the cloud can reach `url`: it uses https and its host name is not local.
#[must_use]
pub fn is_reachable_from_internet(url: &str) -> bool {
    let is_subdomain = |url: &Url| url.domain().is_some_and(|domain| domain.ends_with(".localhost"));
    Url::parse(url).is_ok_and(|url| url.scheme() == "https" && !is_local(&url) && !is_subdomain(&url))
}

/// Returns the command that adds a server to Claude Code.
#[must_use]
pub fn claude_code_command(target: Target<'_>) -> String {
    format!("claude mcp add --transport http {} {}", shell(target.name), shell(target.url))
}

fn claude_code(target: Target<'_>) -> Client {
    Client {
        id: "claude-code",
        name: "Claude Code",
        hint: "Run this in a terminal. It adds the server to the current project. To add it to every project, append --scope user.",
        needs_internet: false,
        links: Vec::new(),
        snippets: vec![Snippet { place: "Terminal", text: claude_code_command(target) }],
    }
}

fn claude_desktop(target: Target<'_>) -> Client {
    let mut arguments = vec!["-y", "mcp-remote", target.url];
    if needs_allow_http(target.url) {
        arguments.push("--allow-http");
    }
    let server = json!({ "command": "npx", "args": arguments });
    Client {
        id: "claude-desktop",
        name: "Claude (web and desktop)",
        hint: "In Claude, open Settings, then Connectors, select “Add custom connector” and paste the URL. If you do not have \
               access to connectors, use the configuration file of Claude Desktop instead.",
        needs_internet: true,
        links: Vec::new(),
        snippets: vec![
            Snippet { place: "Settings → Connectors → Add custom connector", text: target.url.to_owned() },
            Snippet {
                place: "claude_desktop_config.json (Claude Desktop, needs Node.js)",
                text: file("mcpServers", target.name, &server),
            },
        ],
    }
}

fn chatgpt(target: Target<'_>) -> Client {
    Client {
        id: "chatgpt",
        name: "ChatGPT",
        hint: "In ChatGPT, open Settings, then Apps & Connectors, turn on developer mode under Advanced settings, select \
               “Create” and paste the URL.",
        needs_internet: true,
        links: Vec::new(),
        snippets: vec![Snippet { place: "MCP server URL", text: target.url.to_owned() }],
    }
}

fn cursor(target: Target<'_>) -> Client {
    let server = json!({ "url": target.url });
    let config = BASE64.encode(server.to_string().as_bytes());
    let href = format!(
        "cursor://anysphere.cursor-deeplink/mcp/install?name={}&config={}",
        component(target.name),
        component(&config)
    );
    Client {
        id: "cursor",
        name: "Cursor",
        hint: "Click the button and confirm in Cursor, or add the server to the file.",
        needs_internet: false,
        links: vec![Link { label: "Add to Cursor", href }],
        snippets: vec![Snippet { place: "~/.cursor/mcp.json", text: file("mcpServers", target.name, &server) }],
    }
}

fn vs_code(target: Target<'_>) -> Client {
    let named = json!({ "name": target.name, "type": "http", "url": target.url }).to_string();
    let query = component(&named);
    let server = json!({ "type": "http", "url": target.url });
    Client {
        id: "vs-code",
        name: "VS Code",
        hint: "Click the button and confirm in VS Code, or add the server to the file that the command “MCP: Open User \
               Configuration” opens.",
        needs_internet: false,
        links: vec![
            Link { label: "Add to VS Code", href: format!("vscode:mcp/install?{query}") },
            Link { label: "Add to VS Code Insiders", href: format!("vscode-insiders:mcp/install?{query}") },
        ],
        snippets: vec![
            Snippet { place: "mcp.json", text: file("servers", target.name, &server) },
            Snippet { place: "Terminal", text: format!("code --add-mcp {}", shell(&named)) },
        ],
    }
}

fn windsurf(target: Target<'_>) -> Client {
    let server = json!({ "serverUrl": target.url });
    Client {
        id: "windsurf",
        name: "Windsurf",
        hint: "Add the server to the file, then refresh the list of MCP servers in Cascade.",
        needs_internet: false,
        links: Vec::new(),
        snippets: vec![Snippet {
            place: "~/.codeium/windsurf/mcp_config.json",
            text: file("mcpServers", target.name, &server),
        }],
    }
}

fn zed(target: Target<'_>) -> Client {
    let server = json!({ "url": target.url });
    Client {
        id: "zed",
        name: "Zed",
        hint: "Add the server to the file that the command “zed: open settings file” opens.",
        needs_internet: false,
        links: Vec::new(),
        snippets: vec![Snippet { place: "settings.json", text: file("context_servers", target.name, &server) }],
    }
}

fn codex(target: Target<'_>) -> Client {
    Client {
        id: "codex",
        name: "Codex",
        hint: "Run the command in a terminal, or add the lines to the file. The Codex editor extension reads the same file.",
        needs_internet: false,
        links: Vec::new(),
        snippets: vec![
            Snippet {
                place: "Terminal",
                text: format!("codex mcp add {} --url {}", shell(target.name), shell(target.url)),
            },
            Snippet {
                place: "~/.codex/config.toml",
                text: format!("[mcp_servers.{}]\nurl = {}", toml_key(target.name), quoted(target.url)),
            },
        ],
    }
}

fn gemini_cli(target: Target<'_>) -> Client {
    let server = json!({ "httpUrl": target.url });
    let (name, url) = (shell(target.name), shell(target.url));
    Client {
        id: "gemini-cli",
        name: "Gemini CLI",
        hint: "Run the command in a terminal, or add the server to the file.",
        needs_internet: false,
        links: Vec::new(),
        snippets: vec![
            Snippet { place: "Terminal", text: format!("gemini mcp add --scope user --transport http {name} {url}") },
            Snippet { place: "~/.gemini/settings.json", text: file("mcpServers", target.name, &server) },
        ],
    }
}

fn opencode(target: Target<'_>) -> Client {
    let server = json!({ "type": "remote", "url": target.url, "enabled": true });
    Client {
        id: "opencode",
        name: "opencode",
        hint: "Add the server to the file.",
        needs_internet: false,
        links: Vec::new(),
        snippets: vec![Snippet { place: "~/.config/opencode/opencode.json", text: file("mcp", target.name, &server) }],
    }
}

fn jetbrains(target: Target<'_>) -> Client {
    let server = json!({ "url": target.url });
    Client {
        id: "jetbrains",
        name: "JetBrains IDEs",
        hint: "Open Settings, then Tools, AI Assistant, Model Context Protocol (MCP), select “Add”, “As JSON” and paste the \
               text. Junie reads the same text from the file ~/.junie/mcp/mcp.json.",
        needs_internet: false,
        links: Vec::new(),
        snippets: vec![Snippet { place: "JSON", text: file("mcpServers", target.name, &server) }],
    }
}

fn cline(target: Target<'_>) -> Client {
    let server = json!({ "type": "streamableHttp", "url": target.url });
    Client {
        id: "cline",
        name: "Cline",
        hint: "Select “MCP Servers”, “Configure”, “Configure MCP Servers”, and add the server to the file that opens.",
        needs_internet: false,
        links: Vec::new(),
        snippets: vec![Snippet { place: "cline_mcp_settings.json", text: file("mcpServers", target.name, &server) }],
    }
}

fn inspector(target: Target<'_>) -> Client {
    let url = shell(target.url);
    Client {
        id: "inspector",
        name: "MCP Inspector",
        hint: "Shows every request and response. Useful for walkthrough authors. Needs Node.js.",
        needs_internet: false,
        links: Vec::new(),
        snippets: vec![
            Snippet {
                place: "Terminal",
                text: format!("npx @modelcontextprotocol/inspector --server-url {url} --transport http"),
            },
            Snippet {
                place: "Terminal, without a browser",
                text: format!(
                    "npx @modelcontextprotocol/inspector --cli --server-url {url} --transport http --method tools/list"
                ),
            },
        ],
    }
}

fn plain(target: Target<'_>) -> Client {
    let server = json!({ "type": "http", "url": target.url });
    Client {
        id: "json",
        name: "Other clients",
        hint: "Most clients need only the URL. The transport is “Streamable HTTP”, also called “HTTP”.",
        needs_internet: false,
        links: Vec::new(),
        snippets: vec![
            Snippet { place: "URL", text: target.url.to_owned() },
            Snippet { place: "JSON", text: file("mcpServers", target.name, &server) },
        ],
    }
}

/// Formats `{"MEMBER": {"NAME": server}}` with indentation.
fn file(member: &str, name: &str, server: &Value) -> String {
    let file = json!({ member: { name: server } });
    serde_json::to_string_pretty(&file).unwrap_or_default()
}

/// Formats a JSON string. It is also a valid TOML 1.0 basic string, unless `text` contains U+007F.
fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

/// Formats a key of a TOML table: quoted, unless it is a bare key.
fn toml_key(name: &str) -> String {
    let is_bare = |c: char| c.is_ascii_alphanumeric() || "-_".contains(c);
    if !name.is_empty() && name.chars().all(is_bare) { name.to_owned() } else { quoted(name) }
}

/// Whether mcp-remote needs `--allow-http` for this URL. Without it, http is accepted only for the local machine.
fn needs_allow_http(url: &str) -> bool {
    Url::parse(url).is_ok_and(|url| url.scheme() == "http" && !is_local(&url))
}

fn is_local(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(domain)) => domain == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

/// Formats a word for a POSIX shell (XCU, section 2.2.2): in single quotes if it has a character that is special to a
/// shell, otherwise unchanged.
fn shell(word: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./:@%+=,".contains(&byte);
    if !word.is_empty() && word.bytes().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// Percent-encodes a URL component. Stricter than JavaScript's `encodeURIComponent`: only unreserved characters are
/// kept (RFC 3986, section 2.3).
fn component(text: &str) -> String {
    let mut out = String::with_capacity(text.len() * 2);
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push('%');
            for digit in [byte >> 4, byte & 15] {
                out.push(char::from_digit(u32::from(digit), 16).unwrap_or('0').to_ascii_uppercase());
            }
        }
    }
    out
}

#[cfg(test)]
mod tests;
