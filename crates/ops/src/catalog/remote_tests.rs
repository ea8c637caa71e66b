//! Tests of the file format of entries with a remote server.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use waypost_core::catalog::{RemoteSource, SecretDelivery, Sharing, Source, Transport};

use super::file::{EntryFile, SourceReference};

const URL: &str = "https://mcp.example:8443/v1/mcp?key=hunter2";

/// Returns an entry with a remote server. `remote` has additional members of its source, `changes` those of the file;
/// `null` removes one.
fn entry(remote: Value, changes: Value) -> Value {
    let mut entry = json!({
        "slug": "far", "name": "Far", "version": "1",
        "source": { "remote": { "url": URL, "transport": "sse" } },
    });
    for (name, value) in remote.as_object().unwrap() {
        entry["source"]["remote"][name] = value.clone();
    }
    for (name, value) in changes.as_object().unwrap() {
        entry[name] = value.clone();
    }
    entry
}

fn parse(entry: &Value) -> waypost_core::Result<EntryFile> {
    EntryFile::parse("entry.json", &entry.to_string())
}

const COMPLETE: &str = r#"
slug: far
name: Far
version: "1"
source:
  remote:
    url: https://mcp.example/v1/mcp?key=hunter2
    transport: streamable_http
    headers:
      X-Region: ${config.region}
      X-Client: waypost
transport: streamable_http
config_schema:
  properties:
    region: {type: string}
  additionalProperties: false
secrets:
  - {name: Authorization, description: "Bearer …", required: false}
  - {name: X-Api-Key, as: header}
sharing: shared
"#;

#[test]
fn a_complete_file_is_read() {
    let file = EntryFile::parse("entry.yaml", COMPLETE).unwrap();
    assert_eq!(file.reference, SourceReference::Remote("https://mcp.example/v1/mcp?key=hunter2".parse().unwrap()));
    let headers = [("X-Client", "waypost"), ("X-Region", "${config.region}")];
    let source = RemoteSource {
        origin: "https://mcp.example".to_owned(),
        transport: Transport::StreamableHttp,
        headers: headers.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
    };
    let definition = &file.definition;
    assert_eq!(definition.source, Source::Remote(source));
    assert_eq!((definition.transport, definition.sharing), (Transport::StreamableHttp, Sharing::Shared));
    let secrets: Vec<_> =
        definition.secrets.iter().map(|secret| (secret.name.as_str(), secret.required, secret.delivery)).collect();
    let header = SecretDelivery::Header;
    assert_eq!(secrets, [("Authorization", false, header), ("X-Api-Key", true, header)]);
    // The definition is not secret, and is stored without encryption.
    assert!(!serde_json::to_string(definition).unwrap().contains("hunter2"));
}

#[test]
fn the_transport_of_the_version_is_optional() {
    let file = parse(&entry(json!({}), json!({}))).unwrap();
    assert_eq!(file.definition.transport, Transport::Sse);
    let Source::Remote(source) = &file.definition.source else { panic!("it is remote") };
    assert_eq!((source.origin.as_str(), &source.headers), ("https://mcp.example:8443", &BTreeMap::new()));
    assert_eq!(parse(&entry(json!({}), json!({ "transport": "sse" }))).unwrap(), file);
}

/// Every rejection names the file and the field, and does not contain the URL.
#[test]
fn rejections_name_the_field() {
    let (many, too_many) = (many_headers(20), many_headers(21));
    let long_url = format!("https://mcp.example/{}", "x".repeat(2_048));
    for (remote, changes, field, words) in [
        (json!({ "url": null }), json!({}), "source.remote.url", "is missing"),
        (json!({ "url": 7 }), json!({}), "source.remote.url", "must be text"),
        (json!({ "url": "hunter2" }), json!({}), "source.remote.url", "The URL is invalid"),
        (json!({ "url": "https://hunter2.example/#a" }), json!({}), "source.remote.url", "fragment"),
        (json!({ "url": long_url }), json!({}), "source.remote.url", "at most 2048 bytes"),
        (json!({ "url": "https://a.example/${config.hunter2}" }), json!({}), "source.remote.url", "contains `${`"),
        (json!({ "transport": null }), json!({}), "source.remote.transport", "is missing"),
        (json!({ "transport": "stdio" }), json!({}), "source.remote.transport", "reached over HTTP"),
        (json!({ "transport": "http" }), json!({}), "source.remote.transport", "expected one of"),
        (json!({}), json!({ "transport": "streamable_http" }), "transport", "`source.remote.transport` is `sse`"),
        (json!({ "token": "hunter2" }), json!({}), "source.remote.token", "not a known field"),
        (json!({ "headers": ["X"] }), json!({}), "source.remote.headers", "must be an object"),
        (json!({ "headers": too_many }), json!({}), "source.remote.headers", "the maximum is 20"),
        (json!({ "headers": { "Host": "x" } }), json!({}), "source.remote.headers", "the protocol uses it"),
        (json!({ "headers": { "mcp-Session-Id": "x" } }), json!({}), "source.remote.headers", "the protocol uses it"),
        (json!({ "headers": { "a b": "x" } }), json!({}), "source.remote.headers", "not a valid header name"),
        (json!({ "headers": { "x".repeat(101): "x" } }), json!({}), "source.remote.headers", "not a valid header name"),
        (json!({ "headers": { "X-A": "x", "x-a": "y" } }), json!({}), "source.remote.headers.x-a", "set twice"),
        (json!({ "headers": { "X-A": 1 } }), json!({}), "source.remote.headers.X-A", "Put it in quotes"),
        (json!({ "headers": { "X-A": "a\r\nb" } }), json!({}), "source.remote.headers.X-A", "control characters"),
        (json!({ "headers": { "X-A": "x".repeat(4_097) } }), json!({}), "source.remote.headers.X-A", "maximum is 4096"),
        (json!({ "headers": { "X-A": "${config.a" } }), json!({}), "source.remote.headers.X-A", "without `}`"),
        (
            json!({ "headers": { "X-A": "${config.b}" } }),
            json!({ "config_schema": { "properties": { "a": {} }, "additionalProperties": false } }),
            "source.remote.headers.X-A",
            "no property `b`",
        ),
        (
            json!({ "headers": { "authorization": "Bearer hunter2" } }),
            json!({}),
            "source.remote.headers.authorization",
            "Declare it in `secrets`",
        ),
        (
            json!({ "headers": { "Cookie": "a=b" } }),
            json!({}),
            "source.remote.headers.Cookie",
            "Declare it in `secrets`",
        ),
        (json!({}), json!({ "secrets": [{ "name": "X-A", "as": "env" }] }), "secrets[0].as", "is `env`, but"),
        (json!({}), json!({ "secrets": [{ "name": "X-A", "as": "file" }] }), "secrets[0].as", "is `file`, but"),
        (json!({}), json!({ "secrets": [{ "name": "Content-Type" }] }), "secrets[0].name", "the protocol uses it"),
        (json!({}), json!({ "secrets": [{ "name": "X-A" }, { "name": "x-a" }] }), "secrets[1].name", "set twice"),
        (
            json!({ "headers": { "X-A": "x" } }),
            json!({ "secrets": [{ "name": "x-a" }] }),
            "secrets[0].name",
            "set twice",
        ),
        (
            json!({ "headers": many }),
            json!({ "secrets": [{ "name": "Y" }] }),
            "secrets",
            "more than 20 headers together",
        ),
        (json!({}), json!({ "command": ["a"] }), "command", "has no container"),
        (json!({}), json!({ "args": [] }), "args", "has no container"),
        (json!({}), json!({ "port": 80 }), "port", "has no container"),
        (json!({}), json!({ "path": "/mcp" }), "path", "has no container"),
        (json!({}), json!({ "resources": "light" }), "resources", "has no container"),
        (json!({}), json!({ "egress": [] }), "egress", "has no container"),
        (json!({}), json!({ "volumes": [] }), "volumes", "has no container"),
        (json!({}), json!({ "registry_secret": "A" }), "registry_secret", "has no container"),
        (json!({}), json!({ "lazy": false }), "lazy", "has no container"),
        (json!({}), json!({ "idle_seconds": 60 }), "idle_seconds", "has no container"),
        (json!({}), json!({ "max_lifetime_seconds": 60 }), "max_lifetime_seconds", "has no container"),
        (json!({}), json!({ "sharing": "per_agent" }), "sharing", "all callers share"),
    ] {
        let entry = entry(remote, changes);
        let error = parse(&entry).expect_err(&entry.to_string());
        assert_eq!((&error.details["field"], &error.details["file"]), (&json!(field), &json!("entry.json")), "{error}");
        assert!(error.message.contains(words) && error.message.ends_with('.'), "{error}");
        assert!(!error.message.contains("hunter2"), "{error}");
    }
    assert!(parse(&entry(json!({ "headers": many_headers(20) }), json!({}))).is_ok());
}

fn many_headers(count: usize) -> Value {
    (0..count).map(|n| (format!("X-{n}"), json!("v"))).collect::<serde_json::Map<_, _>>().into()
}
