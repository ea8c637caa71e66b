use super::*;

const URL: &str = "https://way.example/s/acme/mcp";

fn client(id: &str, target: Target<'_>) -> Client {
    all_clients(target).into_iter().find(|client| client.id == id).unwrap()
}

fn texts(id: &str) -> Vec<String> {
    client(id, Target { name: "acme", url: URL }).snippets.into_iter().map(|snippet| snippet.text).collect()
}

#[test]
fn snippets_have_the_format_that_clients_read() {
    assert_eq!(texts("claude-code"), ["claude mcp add --transport http acme https://way.example/s/acme/mcp"]);
    assert_eq!(
        texts("claude-desktop"),
        [
            URL,
            r#"{
  "mcpServers": {
    "acme": {
      "command": "npx",
      "args": [
        "-y",
        "mcp-remote",
        "https://way.example/s/acme/mcp"
      ]
    }
  }
}"#
        ]
    );
    let by_url = |member: &str, field: &str| {
        format!("{{\n  \"{member}\": {{\n    \"acme\": {{\n      \"{field}\": \"{URL}\"\n    }}\n  }}\n}}")
    };
    assert_eq!(texts("cursor"), [by_url("mcpServers", "url")]);
    assert_eq!(texts("windsurf"), [by_url("mcpServers", "serverUrl")]);
    assert_eq!(texts("zed"), [by_url("context_servers", "url")]);
    let typed = |member: &str| {
        format!(
            "{{\n  \"{member}\": {{\n    \"acme\": {{\n      \"type\": \"http\",\n      \"url\": \"{URL}\"\n    }}\n  }}\n}}"
        )
    };
    assert_eq!(
        texts("vs-code"),
        [
            typed("servers"),
            r#"code --add-mcp '{"name":"acme","type":"http","url":"https://way.example/s/acme/mcp"}'"#.to_owned(),
        ]
    );
    assert_eq!(texts("json"), [URL.to_owned(), typed("mcpServers")]);
    assert_eq!(texts("chatgpt"), [URL]);
    assert_eq!(
        texts("codex"),
        [format!("codex mcp add acme --url {URL}"), format!("[mcp_servers.acme]\nurl = \"{URL}\""),]
    );
    assert_eq!(
        texts("gemini-cli"),
        [format!("gemini mcp add --scope user --transport http acme {URL}"), by_url("mcpServers", "httpUrl")]
    );
    assert_eq!(
        texts("opencode"),
        [format!(
            "{{\n  \"mcp\": {{\n    \"acme\": {{\n      \"type\": \"remote\",\n      \"url\": \"{URL}\",\n      \"enabled\": true\n    }}\n  }}\n}}"
        )]
    );
    assert_eq!(texts("jetbrains"), [by_url("mcpServers", "url")]);
    assert_eq!(texts("cline"), [typed("mcpServers").replace("\"http\"", "\"streamableHttp\"")]);
    assert_eq!(
        texts("inspector"),
        [
            "npx @modelcontextprotocol/inspector --server-url https://way.example/s/acme/mcp --transport http",
            "npx @modelcontextprotocol/inspector --cli --server-url https://way.example/s/acme/mcp --transport http --method tools/list",
        ]
    );
}

#[test]
fn only_authors_get_the_inspector() {
    let target = Target { name: "acme", url: URL };
    let ids = |clients: Vec<Client>| clients.into_iter().map(|client| client.id).collect::<Vec<_>>();
    let users = ids(end_user_clients(target));
    assert_eq!((users[0], users[users.len() - 1], users.len()), ("claude-code", "json", 13));
    let mut all = ids(all_clients(target));
    assert!(all.ends_with(&["inspector", "json"]), "{all:?}");
    all.retain(|id| *id != "inspector");
    assert_eq!(all, users);
}

#[test]
fn cloud_clients_need_a_public_https_url() {
    let clouds: Vec<_> =
        all_clients(Target { name: "a", url: URL }).into_iter().filter(|client| client.needs_internet).collect();
    assert_eq!(clouds.iter().map(|client| client.id).collect::<Vec<_>>(), ["claude-desktop", "chatgpt"]);
    assert!(is_reachable_from_internet(URL));
    for url in ["http://way.example/x", "https://localhost/x", "https://a.localhost/x", "https://127.0.0.1/x", "x"] {
        assert!(!is_reachable_from_internet(url), "{url}");
    }
}

#[test]
fn links_have_the_schemes_that_clients_registered() {
    let links =
        |id| client(id, Target { name: "acme", url: URL }).links.into_iter().map(|link| link.href).collect::<Vec<_>>();
    assert_eq!(
        links("cursor"),
        ["cursor://anysphere.cursor-deeplink/mcp/install?name=acme\
          &config=eyJ1cmwiOiJodHRwczovL3dheS5leGFtcGxlL3MvYWNtZS9tY3AifQ%3D%3D"]
    );
    let query = "%7B%22name%22%3A%22acme%22%2C%22type%22%3A%22http%22%2C%22url%22%3A%22https%3A%2F%2Fway.example\
                 %2Fs%2Facme%2Fmcp%22%7D";
    let expected = [format!("vscode:mcp/install?{query}"), format!("vscode-insiders:mcp/install?{query}")];
    assert_eq!(links("vs-code"), expected);
    for client in all_clients(Target { name: "acme", url: URL }) {
        let schemes = ["cursor://", "vscode:", "vscode-insiders:"];
        assert!(client.links.iter().all(|link| schemes.iter().any(|scheme| link.href.starts_with(scheme))));
    }
}

/// Any name is one word in a shell command, one key in JSON and TOML, and one value in a link.
#[test]
fn hostile_names_are_escaped() {
    for name in ["a b", "it's; rm -rf ~", "$(id)", "`id`", "\"quoted\"", "back\\slash", "a&config=x", "ü\n", "'; '"] {
        let target = Target { name, url: URL };
        let command = claude_code_command(target);
        let word = command
            .strip_prefix("claude mcp add --transport http ")
            .unwrap()
            .strip_suffix(URL)
            .unwrap()
            .trim_end_matches(' ');
        assert_eq!(unquoted(word), name, "{command}");
        let toml: toml::Table = client("codex", target).snippets[1].text.parse().unwrap();
        assert_eq!(toml["mcp_servers"][name]["url"].as_str(), Some(URL));
        for client in all_clients(target) {
            for snippet in &client.snippets {
                if let Ok(Value::Object(file)) = serde_json::from_str::<Value>(&snippet.text) {
                    let servers = file.values().next().unwrap().as_object().unwrap();
                    assert_eq!(servers.keys().collect::<Vec<_>>(), [name], "{}", client.id);
                }
            }
            for link in &client.links {
                assert!(
                    link.href.bytes().all(|byte| byte.is_ascii_graphic() && !b"\"'<>`\\".contains(&byte)),
                    "{}",
                    link.href
                );
            }
        }
        let cursor = Url::parse(&client("cursor", target).links[0].href).unwrap();
        let pairs: Vec<_> = cursor.query_pairs().map(|(key, value)| (key.into_owned(), value.into_owned())).collect();
        assert_eq!((pairs.len(), pairs[0].1.as_str()), (2, name));
    }
}

/// Unquotes a word in single quotes as a shell does.
fn unquoted(word: &str) -> String {
    let (mut out, mut quoted, mut chars) = (String::new(), false, word.chars());
    while let Some(c) = chars.next() {
        match c {
            '\'' => quoted = !quoted,
            '\\' if !quoted => out.extend(chars.next()),
            c => {
                assert!(quoted || c.is_ascii_alphanumeric() || "-_./:@%+=,".contains(c), "{word}");
                out.push(c);
            }
        }
    }
    assert!(!quoted, "{word}");
    out
}

#[test]
fn mcp_remote_gets_allow_http_for_remote_urls_without_tls() {
    let has_flag = |url| client("claude-desktop", Target { name: "a", url }).snippets[1].text.contains("--allow-http");
    assert!(has_flag("http://way.example/s/a/mcp"));
    for url in
        ["https://way.example/s/a/mcp", "http://localhost:8080/s/a/mcp", "http://127.0.0.1/s/a/mcp", "http://[::1]/x"]
    {
        assert!(!has_flag(url), "{url}");
    }
}
