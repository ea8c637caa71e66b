//! Tests of the file format of entries.

use serde_json::{Value, json};
use waypost_core::catalog::{ResourceClass, SecretDelivery, Sharing, Source, Transport};

use super::file::{EntryFile, MAX_FILE_BYTES};

const DIGEST: &str = "sha256:00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

/// Returns the smallest entry.
fn smallest() -> Value {
    json!({
        "slug": "search",
        "name": "Search",
        "version": "1.0.0",
        "source": { "image": format!("registry.example/search@{DIGEST}") },
        "transport": "stdio",
    })
}

/// Returns the smallest entry with changed members; `null` removes one.
fn with(changes: Value) -> Value {
    let mut entry = smallest();
    for (name, value) in changes.as_object().unwrap() {
        entry[name] = value.clone();
    }
    entry
}

fn parse(entry: &Value) -> waypost_core::Result<EntryFile> {
    EntryFile::parse("entry.json", &entry.to_string())
}

#[test]
fn omitted_fields_have_defaults() {
    let file = parse(&smallest()).unwrap();
    assert_eq!((file.slug.as_str(), file.name.as_str(), file.version.as_str()), ("search", "Search", "1.0.0"));
    assert_eq!((file.description.as_str(), &file.categories[..], &file.license), ("", &[][..], &None));
    let definition = file.definition;
    assert_eq!(definition.source, Source::Image(format!("registry.example/search@{DIGEST}")));
    assert_eq!(
        (definition.transport, definition.resources, definition.sharing),
        (Transport::Stdio, ResourceClass::Medium, Sharing::Shared)
    );
    assert_eq!((definition.image_tag, definition.command, definition.args), (None, None, None));
    assert!(
        definition.secrets.is_empty()
            && definition.egress.is_empty()
            && definition.volumes.is_empty()
            && !definition.lazy
    );
}

const COMPLETE: &str = r#"
slug: web-search
name: "  Web\tsearch "
description: |
  Finds pages.

  With citations.
categories: [web, search, web]
license: MIT OR Apache-2.0
documentation_url: https://docs.example
version: "2.1"
source:
  image: alpine:3.20
transport: streamable_http
command: [/bin/server]
args: ["--key-file", "/run/secrets/API_KEY", "--region=${config.region}"]
port: 8080
config_schema:
  type: object
  properties:
    region: {type: string, enum: [eu, us]}
  additionalProperties: false
secrets:
  - {name: API_KEY, description: The key., required: false}
  - name: TOKEN
    as: env
registry_secret: REGISTRY
resources: light
egress: ["API.example.com:443", "api.example.com:443", "10.1.2.3:5432"]
volumes:
  - {name: data, path: /data}
sharing: per_session
lazy: true
idle_seconds: 600
max_lifetime_seconds: 86400
"#;

#[test]
fn a_complete_file_is_read() {
    let file = EntryFile::parse("entry.yaml", COMPLETE).unwrap();
    assert_eq!((file.name.as_str(), file.description.as_str()), ("Web search", "Finds pages.\n\nWith citations."));
    assert_eq!(
        (&file.categories[..], file.documentation_url.as_deref()),
        (&["web".to_owned(), "search".to_owned()][..], Some("https://docs.example/"))
    );
    let definition = &file.definition;
    assert_eq!(
        (&definition.source, definition.image_tag.as_deref()),
        (&Source::Image("docker.io/library/alpine:3.20".to_owned()), Some("3.20"))
    );
    assert_eq!((definition.port, definition.path.as_deref()), (Some(8080), Some("/mcp")));
    assert_eq!(definition.args.as_ref().map(Vec::len), Some(3));
    let secrets: Vec<_> =
        definition.secrets.iter().map(|secret| (secret.name.as_str(), secret.required, secret.delivery)).collect();
    assert_eq!(secrets, [("API_KEY", false, SecretDelivery::File), ("TOKEN", true, SecretDelivery::Env)]);
    assert_eq!(
        definition.egress.iter().map(ToString::to_string).collect::<Vec<_>>(),
        ["api.example.com:443", "10.1.2.3:5432"]
    );
    assert_eq!(
        (definition.idle_seconds, definition.max_lifetime_seconds, definition.lazy),
        (Some(600), Some(86_400), true)
    );
    assert_eq!(definition.registry_secret.as_deref(), Some("REGISTRY"));
    let sse = with(json!({ "transport": "sse", "port": 80 }));
    assert_eq!(parse(&sse).unwrap().definition.path.as_deref(), Some("/sse"));
}

#[test]
fn yaml_and_json_are_recognised() {
    let yaml = format!("slug: a\nname: A\nversion: '1'\ntransport: stdio\nsource: {{image: 'a@{DIGEST}'}}\n");
    let json = with(json!({ "slug": "a", "name": "A", "version": "1", "source": { "image": format!("a@{DIGEST}") } }))
        .to_string();
    for (name, text) in
        [("a.yml", &yaml), ("a.YAML", &yaml), ("a", &yaml), ("a.json", &json), ("a", &json), ("a.yaml", &json)]
    {
        let file = EntryFile::parse(name, &format!("\u{feff}{text}")).unwrap();
        assert_eq!((file.slug.as_str(), file.version.as_str()), ("a", "1"), "{name}");
    }
}

/// Every rejection names the file and the field, and says what to do.
#[test]
fn rejections_name_the_field() {
    for (changes, field, words) in [
        (json!({ "slug": null }), "slug", "is missing"),
        (json!({ "slug": "Search" }), "slug", "characters from a to z"),
        (json!({ "slug": "a".repeat(61) }), "slug", "1 to 60 characters"),
        (json!({ "slug": "-a" }), "slug", "begins and ends with"),
        (json!({ "slug": 7 }), "slug", "must be text, not the number 7. Put it in quotes"),
        (json!({ "name": " \u{200b}" }), "name", "is empty"),
        (json!({ "name": "x".repeat(201) }), "name", "maximum is 200"),
        (json!({ "description": "a\u{1b}[2J" }), "description", "control characters"),
        (json!({ "description": "x".repeat(10_001) }), "description", "maximum is 10000"),
        (json!({ "categories": "web" }), "categories", "must be a list, not text"),
        (json!({ "categories": [["web"]] }), "categories[0]", "must be text, not a list"),
        (json!({ "categories": vec!["web"; 21] }), "categories", "maximum is 20"),
        (json!({ "license": "MIT; rm" }), "license", "SPDX"),
        (json!({ "documentation_url": "javascript:alert(1)" }), "documentation_url", "https or http URL"),
        (json!({ "documentation_url": "https://u:p@docs.example" }), "documentation_url", "without credentials"),
        (json!({ "version": 1.5 }), "version", "Put it in quotes"),
        (json!({ "version": "1 2" }), "version", "such as `1.2.0`"),
        (json!({ "version": "" }), "version", "1 to 100 characters"),
        (json!({ "source": null }), "source", "source: {image: …}"),
        (json!({ "source": "alpine" }), "source", "must be an object, not text"),
        (json!({ "source": {} }), "source.image", "is missing"),
        (json!({ "source": { "image": "Alpine" } }), "source.image", "not a reference to an image"),
        (json!({ "source": { "image": "a", "build": "." } }), "source.build", "not a known field"),
        (json!({ "source": { "image": "a", "remote": {} } }), "source.image", "in addition to `source.remote`"),
        (json!({ "source": { "remote": "https://far.example" } }), "source.remote", "must be an object, not text"),
        (
            json!({ "source": { "package": { "registry": "npm" } } }),
            "source",
            "the kind `package`, which is not supported yet",
        ),
        (json!({ "transport": null }), "transport", "is missing"),
        (json!({ "transport": "http" }), "transport", "expected one of stdio, streamable_http, sse"),
        (json!({ "transport": "sse" }), "port", "needs the port"),
        (json!({ "port": 80 }), "port", "the transport is `stdio`"),
        (json!({ "path": "/mcp" }), "path", "the transport is `stdio`"),
        (json!({ "transport": "sse", "port": 0 }), "port", "from 1 to 65535"),
        (json!({ "transport": "sse", "port": 65536 }), "port", "from 1 to 65535"),
        (json!({ "transport": "sse", "port": 80, "path": "mcp" }), "path", "must begin with `/`"),
        (json!({ "transport": "sse", "port": 80, "path": "/mcp?x" }), "path", "no spaces, `?` or `#`"),
        (json!({ "command": [] }), "command", "is empty"),
        (json!({ "command": "sh -c x" }), "command", "must be a list"),
        (json!({ "args": ["a\u{0}"] }), "args[0]", "NUL"),
        (json!({ "args": ["x".repeat(4_097)] }), "args[0]", "maximum is 4096"),
        (json!({ "args": vec!["x"; 101] }), "args", "maximum is 100"),
        (json!({ "args": ["a", "${config.}"] }), "args[1]", "Write `${config.NAME}`"),
        (json!({ "args": ["${config.a"] }), "args[0]", "without `}`"),
        (
            json!({ "args": ["${config.b}"], "config_schema": { "properties": { "a": {} }, "additionalProperties": false } }),
            "args[0]",
            "no property `b`",
        ),
        (json!({ "config_schema": true }), "config_schema", "must be an object"),
        (
            json!({ "config_schema": { "properties": { "a": { "$ref": "https://x" } } } }),
            "config_schema.properties.a.$ref",
            "not supported",
        ),
        (json!({ "secrets": [{}] }), "secrets[0].name", "is missing"),
        (json!({ "secrets": ["TOKEN"] }), "secrets[0]", "must be an object"),
        (json!({ "secrets": [{ "name": "../x" }] }), "secrets[0].name", "1 to 64 characters"),
        (json!({ "secrets": [{ "name": "A" }, { "name": "A" }] }), "secrets[1].name", "Rename one"),
        (json!({ "secrets": [{ "name": "A", "as": "pipe" }] }), "secrets[0].as", "expected one of file, env, header"),
        (json!({ "secrets": [{ "name": "A", "as": "header" }] }), "secrets[0].as", "only a remote server has headers"),
        (json!({ "secrets": [{ "name": "A", "required": "yes" }] }), "secrets[0].required", "`true` or `false`"),
        (json!({ "secrets": [{ "name": "A", "value": "hunter2" }] }), "secrets[0].value", "not a known field"),
        (json!({ "secrets": [{ "name": "a-b", "as": "env" }] }), "secrets[0].name", "letters, digits and `_`"),
        (
            json!({ "secrets": [{ "name": "LD_PRELOAD", "as": "env" }] }),
            "secrets[0].name",
            "reserved environment variable",
        ),
        (
            json!({ "secrets": [{ "name": "API_KEY", "as": "env" }], "config_schema": { "properties": { "api-key": {} } } }),
            "secrets[0].name",
            "`config_schema.properties.api-key` sets",
        ),
        (json!({ "registry_secret": "user:password" }), "registry_secret", "the name of a secret"),
        (json!({ "resources": "huge" }), "resources", "expected one of light, medium, heavy"),
        (json!({ "egress": ["example.com"] }), "egress[0]", "is not `host:port`"),
        (json!({ "egress": ["*.example.com:443"] }), "egress[0]", "is not `host:port`"),
        (json!({ "egress": ["a.example:1", "169.254.169.254:80"] }), "egress[1]", "never allowed"),
        (json!({ "volumes": [{ "name": "Data", "path": "/data" }] }), "volumes[0].name", "1 to 32 characters"),
        (json!({ "volumes": [{ "name": "data", "path": "data" }] }), "volumes[0].path", "absolute path"),
        (json!({ "volumes": [{ "name": "data", "path": "/" }] }), "volumes[0].path", "absolute path"),
        (json!({ "volumes": [{ "name": "data", "path": "/a/../proc" }] }), "volumes[0].path", "absolute path"),
        (json!({ "volumes": [{ "name": "data", "path": "/data:ro" }] }), "volumes[0].path", "absolute path"),
        (
            json!({ "volumes": [{ "name": "data", "path": "/run/secrets" }] }),
            "volumes[0].path",
            "the engine provides `/run`",
        ),
        (
            json!({ "volumes": [{ "name": "data", "path": "/var" }] }),
            "volumes[0].path",
            "the engine provides `/var/run`",
        ),
        (
            json!({ "volumes": [{ "name": "a", "path": "/a" }, { "name": "a", "path": "/b" }] }),
            "volumes[1].name",
            "Rename one",
        ),
        (
            json!({ "volumes": [{ "name": "a", "path": "/a" }, { "name": "b", "path": "/a/b" }] }),
            "volumes[1].path",
            "separate folders",
        ),
        (
            json!({ "volumes": [{ "name": "a", "path": "/a", "driver": "local" }] }),
            "volumes[0].driver",
            "not a known field",
        ),
        (json!({ "sharing": "none" }), "sharing", "expected one of shared, per_agent, per_session"),
        (json!({ "lazy": "true" }), "lazy", "`true` or `false`"),
        (json!({ "idle_seconds": 1 }), "idle_seconds", "from 10 to 2592000"),
        (json!({ "max_lifetime_seconds": -1 }), "max_lifetime_seconds", "from 60 to 31536000"),
        (json!({ "title_text": "x" }), "title_text", "not a known field"),
    ] {
        let entry = with(changes);
        let error = parse(&entry).expect_err(&entry.to_string());
        assert_eq!((&error.details["field"], &error.details["file"]), (&json!(field), &json!("entry.json")), "{error}");
        let start = format!("entry.json: `{field}` ");
        assert!(error.message.starts_with(&start) && error.message.contains(words), "{error}");
        assert!(!error.message.contains("hunter2") && error.message.ends_with('.'), "{error}");
    }
}

/// No key in an entry can weaken the isolation.
#[test]
fn isolation_cannot_be_configured() {
    for key in [
        "privileged",
        "cap_add",
        "user",
        "devices",
        "network_mode",
        "security_opt",
        "ports",
        "pid",
        "binds",
        "runtime",
        "mounts",
    ] {
        let error = parse(&with(json!({ key: true }))).unwrap_err();
        assert_eq!(error.details["field"], key);
        assert!(error.message.contains("all containers are isolated in the same way"), "{error}");
    }
    for key in ["Privileged", "hostConfig", "entrypoint", "env"] {
        assert_eq!(parse(&with(json!({ key: true }))).unwrap_err().details["field"], key);
    }
}

#[test]
fn malformed_files_are_rejected() {
    let large = format!("{{\"slug\":\"{}\"}}", "a".repeat(MAX_FILE_BYTES));
    let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..12 {
        let aliases = vec![format!("*a{}", level - 1); 9].join(", ");
        bomb.push_str(&format!("a{level}: &a{level} [{aliases}]\n"));
    }
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    for (name, text, words) in [
        ("a.json", "{\"slug\": ", "not valid JSON at line 1"),
        ("a.json", "{\"slug\": \"a\", \"slug\": \"b\"}", "the member \"slug\" is repeated"),
        ("a.json", "[]", "must be an object"),
        ("a.json", "{} {}", "not valid JSON"),
        ("a.json", &deep, "not valid JSON"),
        ("a.yaml", "slug: a\nslug: b\n", "not valid YAML at line 2"),
        ("a.yaml", "a:\n  - b\n c: [", "not valid YAML at line"),
        ("a.yaml", "", "must be an object"),
        ("a.yaml", "a: 1\n---\na: 2\n", "not valid YAML"),
        ("a.yaml", "? [a]\n: b\n", "not valid YAML"),
        ("a.yaml", &deep, "not valid YAML"),
        ("a.yaml", &bomb, "not valid YAML"),
        ("a.json", &large, "the maximum is 262144"),
    ] {
        let error = EntryFile::parse(name, text).unwrap_err();
        assert_eq!(error.details["field"], "file", "{error}");
        assert!(error.message.contains(words) && error.message.len() < 400, "{words}: {error}");
    }
}
