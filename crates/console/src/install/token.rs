//! Setup instructions for a server that requires a token in the `Authorization` header, such as the gateway.

use serde_json::{Value, json};

use super::{Client, Snippet, Target, all_clients, file, needs_allow_http, quoted, shell, toml_key};

/// The environment variable from which Codex reads the token if the server was added by a command.
const TOKEN_VARIABLE: &str = "WAYPOST_AGENT_TOKEN";

/// Returns the instructions for every client that can send a token. There are no install links: a link would store the
/// token in the browser's history.
#[must_use]
pub fn clients_with_token(target: Target<'_>, token: &str) -> Vec<Client> {
    all_clients(target).into_iter().filter_map(|client| with_token(client, target, token)).collect()
}

/// Returns a client with the token in its snippets; `None` if the client cannot send one.
fn with_token(client: Client, target: Target<'_>, token: &str) -> Option<Client> {
    let authorization = format!("Bearer {token}");
    let header = shell(&format!("Authorization: {authorization}"));
    let headers = json!({ "Authorization": authorization });
    let (server_name, url) = (shell(target.name), shell(target.url));
    let place = client.snippets.last().map_or("JSON", |snippet| snippet.place);
    let json_file = |member: &str, server: Value| vec![Snippet { place, text: file(member, target.name, &server) }];
    let (hint, snippets) = match client.id {
        "claude-code" => {
            let text = format!("claude mcp add --transport http {server_name} {url} --header {header}");
            (client.hint, vec![Snippet { place, text }])
        }
        "claude-desktop" => (
            "Connectors cannot send a token. Add the server to the configuration file of Claude Desktop, which starts \
             mcp-remote, then restart Claude Desktop. Needs Node.js.",
            json_file("mcpServers", remote(target.url, &authorization)),
        ),
        "cursor" => {
            ("Add the server to the file.", json_file("mcpServers", json!({ "url": target.url, "headers": headers })))
        }
        "vs-code" => (
            "Add the server to the file that the command “MCP: Open User Configuration” opens.",
            vec![Snippet {
                place: "mcp.json",
                text: file("servers", target.name, &json!({ "type": "http", "url": target.url, "headers": headers })),
            }],
        ),
        "windsurf" => (client.hint, json_file("mcpServers", json!({ "serverUrl": target.url, "headers": headers }))),
        "zed" => (client.hint, json_file("context_servers", json!({ "url": target.url, "headers": headers }))),
        "codex" => (
            "Add the lines to the file, or run the commands in a terminal. Codex then reads the token from the environment \
             variable whenever it starts.",
            codex(target, token),
        ),
        "gemini-cli" => {
            let text = format!("gemini mcp add --scope user --transport http --header {header} {server_name} {url}");
            let mut snippets = vec![Snippet { place: "Terminal", text }];
            snippets.extend(json_file("mcpServers", json!({ "httpUrl": target.url, "headers": headers })));
            (client.hint, snippets)
        }
        "opencode" => {
            let server = json!({ "type": "remote", "url": target.url, "enabled": true, "headers": headers });
            (client.hint, json_file("mcp", server))
        }
        "jetbrains" => (client.hint, json_file("mcpServers", remote(target.url, &authorization))),
        "cline" => {
            let server = json!({ "type": "streamableHttp", "url": target.url, "headers": headers });
            (client.hint, json_file("mcpServers", server))
        }
        "inspector" => {
            let text = format!(
                "npx @modelcontextprotocol/inspector --cli --server-url {url} --transport http --header {header} --method \
                 tools/list"
            );
            ("Lists the tools in the terminal. Needs Node.js.", vec![Snippet { place: "Terminal", text }])
        }
        "json" => {
            let server = json!({ "type": "http", "url": target.url, "headers": headers });
            let mut snippets = vec![
                Snippet { place: "URL", text: target.url.to_owned() },
                Snippet { place: "Header", text: format!("Authorization: {authorization}") },
            ];
            snippets.extend(json_file("mcpServers", server));
            (
                "Most clients need the URL and the header. The transport is “Streamable HTTP”, also called “HTTP”.",
                snippets,
            )
        }
        // Other clients support only OAuth.
        _ => return None,
    };
    // Only the desktop app can start mcp-remote.
    let name = if client.id == "claude-desktop" { "Claude Desktop" } else { client.name };
    Some(Client { name, hint, links: Vec::new(), snippets, needs_internet: false, ..client })
}

/// Returns the configuration of mcp-remote for clients whose documentation does not mention headers. The value of the
/// header is in an environment variable, because some clients split arguments at spaces.
fn remote(url: &str, authorization: &str) -> Value {
    let mut arguments = vec!["-y", "mcp-remote", url, "--header", "Authorization:${AUTHORIZATION}"];
    if needs_allow_http(url) {
        arguments.push("--allow-http");
    }
    json!({ "command": "npx", "args": arguments, "env": { "AUTHORIZATION": authorization } })
}

fn codex(target: Target<'_>, token: &str) -> Vec<Snippet> {
    let (name, url) = (shell(target.name), shell(target.url));
    let config = format!(
        "[mcp_servers.{}]\nurl = {}\nhttp_headers = {{ Authorization = {} }}",
        toml_key(target.name),
        quoted(target.url),
        quoted(&format!("Bearer {token}")),
    );
    let command = format!(
        "export {TOKEN_VARIABLE}={}\ncodex mcp add {name} --url {url} --bearer-token-env-var {TOKEN_VARIABLE}",
        shell(token)
    );
    vec![Snippet { place: "~/.codex/config.toml", text: config }, Snippet { place: "Terminal", text: command }]
}

#[cfg(test)]
mod tests {
    use super::*;

    const TARGET: Target<'_> = Target { name: "acme", url: "https://way.example/gateway/acme/mcp" };
    const TOKEN: &str = "wpa_0-_aZ";

    fn texts(id: &str) -> Vec<String> {
        let clients = clients_with_token(TARGET, TOKEN);
        let client = clients.into_iter().find(|client| client.id == id).unwrap();
        client.snippets.into_iter().map(|snippet| snippet.text).collect()
    }

    #[test]
    fn every_client_has_a_snippet_with_the_token_and_no_links() {
        for client in clients_with_token(TARGET, TOKEN) {
            assert!(client.links.is_empty(), "{}", client.id);
            assert!(client.snippets.iter().any(|snippet| snippet.text.contains(TOKEN)), "{}", client.id);
        }
        let ids: Vec<_> = clients_with_token(TARGET, TOKEN).iter().map(|client| client.id).collect();
        assert_eq!((ids.len(), ids.contains(&"chatgpt")), (13, false), "{ids:?}");
    }

    #[test]
    fn snippets_have_the_format_that_clients_read() {
        assert_eq!(
            texts("claude-code"),
            [
                "claude mcp add --transport http acme https://way.example/gateway/acme/mcp --header 'Authorization: Bearer wpa_0-_aZ'"
            ]
        );
        for (id, path) in [
            ("cursor", "/mcpServers/acme/headers/Authorization"),
            ("vs-code", "/servers/acme/headers/Authorization"),
            ("windsurf", "/mcpServers/acme/headers/Authorization"),
            ("zed", "/context_servers/acme/headers/Authorization"),
            ("opencode", "/mcp/acme/headers/Authorization"),
            ("cline", "/mcpServers/acme/headers/Authorization"),
            ("gemini-cli", "/mcpServers/acme/headers/Authorization"),
            ("json", "/mcpServers/acme/headers/Authorization"),
            ("claude-desktop", "/mcpServers/acme/env/AUTHORIZATION"),
            ("jetbrains", "/mcpServers/acme/env/AUTHORIZATION"),
        ] {
            let file: Value = serde_json::from_str(texts(id).last().unwrap()).unwrap();
            assert_eq!(file.pointer(path).unwrap(), "Bearer wpa_0-_aZ", "{id}");
        }
        let config: toml::Table = texts("codex")[0].parse().unwrap();
        let server = &config["mcp_servers"]["acme"];
        assert_eq!(server["url"].as_str(), Some(TARGET.url));
        assert_eq!(server["http_headers"]["Authorization"].as_str(), Some("Bearer wpa_0-_aZ"));
    }
}
