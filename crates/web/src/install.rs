//! What to paste into an MCP client so that it uses a server. Pure: a name and an address in, texts and links out.
//!
//! Sources: code.claude.com/docs (`claude mcp add`), cursor.com/docs/mcp/install-links, code.visualstudio.com/api
//! (`vscode:mcp/install`), docs.windsurf.com (`serverUrl`), zed.dev/docs/ai/mcp (`context_servers`), the Inspector's
//! docs/mcp-server-configuration.md. Clients without a documented address to install from have no link here.

use data_encoding::BASE64;
use serde_json::{Value, json};
use url::{Host, Url};

/// A server as a client gets to know it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Target<'a> {
    /// What the client calls it: the server's slug, which every client takes.
    pub name: &'a str,
    /// Its MCP address.
    pub url: &'a str,
}

/// A link that installs the server by a click.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Its text.
    pub label: &'static str,
    /// Its address, of a scheme that the client has registered.
    pub href: String,
}

/// Something to paste, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snippet {
    /// Where it goes: a file, or a terminal.
    pub place: &'static str,
    /// The text.
    pub text: String,
}

/// How one client gets the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Client {
    /// Its name in addresses.
    pub id: &'static str,
    /// Its name.
    pub name: &'static str,
    /// What to know before.
    pub hint: &'static str,
    /// By a click.
    pub links: Vec<Link>,
    /// By hand.
    pub snippets: Vec<Snippet>,
}

/// Every client that is known here.
#[must_use]
pub fn clients(target: Target<'_>) -> Vec<Client> {
    vec![
        claude_code(target),
        claude_desktop(target),
        cursor(target),
        vs_code(target),
        windsurf(target),
        zed(target),
        inspector(target),
        plain(target),
    ]
}

/// The command that adds a server to Claude Code.
#[must_use]
pub fn claude_code_command(target: Target<'_>) -> String {
    format!("claude mcp add --transport http {} {}", shell(target.name), shell(target.url))
}

fn claude_code(target: Target<'_>) -> Client {
    Client {
        id: "claude-code",
        name: "Claude Code",
        hint: "Type this in a terminal. It adds the server to the project that you are in; with --scope user, to all of them.",
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
        name: "Claude Desktop",
        hint: "Open Settings, Connectors, Add custom connector, and paste the address. That needs an address with https \
               that can be reached from the internet; for any other one, put the second text into the settings file.",
        links: Vec::new(),
        snippets: vec![
            Snippet { place: "Settings, Connectors, Add custom connector", text: target.url.to_owned() },
            Snippet {
                place: "claude_desktop_config.json (needs Node.js)",
                text: file("mcpServers", target.name, &server),
            },
        ],
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
        hint: "Cursor asks before it adds the server.",
        links: vec![Link { label: "Add to Cursor", href }],
        snippets: vec![Snippet { place: ".cursor/mcp.json", text: file("mcpServers", target.name, &server) }],
    }
}

fn vs_code(target: Target<'_>) -> Client {
    let named = json!({ "name": target.name, "type": "http", "url": target.url }).to_string();
    let query = component(&named);
    let server = json!({ "type": "http", "url": target.url });
    Client {
        id: "vs-code",
        name: "VS Code",
        hint: "VS Code shows the server before it adds it.",
        links: vec![
            Link { label: "Add to VS Code", href: format!("vscode:mcp/install?{query}") },
            Link { label: "Add to VS Code Insiders", href: format!("vscode-insiders:mcp/install?{query}") },
        ],
        snippets: vec![
            Snippet { place: ".vscode/mcp.json", text: file("servers", target.name, &server) },
            Snippet { place: "Terminal", text: format!("code --add-mcp {}", shell(&named)) },
        ],
    }
}

fn windsurf(target: Target<'_>) -> Client {
    let server = json!({ "serverUrl": target.url });
    Client {
        id: "windsurf",
        name: "Windsurf",
        hint: "Refresh the list of MCP servers in Cascade afterwards.",
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
        hint: "Open the settings file with the command “zed: open settings file”.",
        links: Vec::new(),
        snippets: vec![Snippet { place: "settings.json", text: file("context_servers", target.name, &server) }],
    }
}

fn inspector(target: Target<'_>) -> Client {
    let url = shell(target.url);
    Client {
        id: "inspector",
        name: "MCP Inspector",
        hint: "Shows every request and answer: for those who write walkthroughs. Needs Node.js.",
        links: Vec::new(),
        snippets: vec![
            Snippet {
                place: "Terminal",
                text: format!("npx @modelcontextprotocol/inspector --server-url {url} --transport http"),
            },
            Snippet {
                place: "Terminal, without a page",
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
        hint: "Most clients take the address alone (transport: Streamable HTTP), or a file like this one.",
        links: Vec::new(),
        snippets: vec![
            Snippet { place: "Address", text: target.url.to_owned() },
            Snippet { place: "JSON", text: file("mcpServers", target.name, &server) },
        ],
    }
}

/// `{"MEMBER": {"NAME": server}}`, as people write it.
fn file(member: &str, name: &str, server: &Value) -> String {
    let file = json!({ member: { name: server } });
    serde_json::to_string_pretty(&file).unwrap_or_default()
}

/// mcp-remote takes an address without TLS only on this machine, or when it is told to.
fn needs_allow_http(url: &str) -> bool {
    let Ok(url) = Url::parse(url) else { return false };
    let local = match url.host() {
        Some(Host::Domain(domain)) => domain == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    };
    url.scheme() == "http" && !local
}

/// A word of a POSIX shell (XCU, section 2.2.2): as it is when nothing in it means anything, else in single quotes.
fn shell(word: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./:@%+=,".contains(&byte);
    if !word.is_empty() && word.bytes().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// As `encodeURIComponent` of JavaScript, and stricter: only unreserved characters stay (RFC 3986, section 2.3).
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
