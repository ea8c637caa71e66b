#![expect(clippy::disallowed_methods, reason = "the tests start servers and clients")]

mod availability;
mod cache;
mod fetching;
mod server;

use proptest::prelude::*;
use serde_json::{Value, json};

use std::sync::Arc;

use waypost_outbound::{Outbound, Purpose, Route};

use super::fetch::ClientDocuments;
use super::*;

/// Returns the route for fetching documents, for an organisation without an `outbound_allow` entry.
fn route(outbound: &Outbound) -> Route {
    outbound.route(Purpose::ClientDocuments, &[]).unwrap()
}

async fn get(documents: &ClientDocuments, url: &str) -> Result<Arc<ClientDocument>, DocumentError> {
    documents.get(&route(documents.outbound()), url).await
}

const ID: &str = "https://client.example/oauth/metadata.json";

fn document() -> Value {
    json!({
        "client_id": ID,
        "client_name": "Example client",
        "client_uri": "https://client.example/",
        "redirect_uris": ["http://127.0.0.1:33418/", "https://client.example/callback"],
        "grant_types": ["authorization_code", "refresh_token"],
        "response_types": ["code"],
        "token_endpoint_auth_method": "none",
        "application_type": "native",
        "software_version": { "of no": ["interest"] },
        "logo_uri": "https://client.example/logo.svg",
    })
}

/// Returns the document with another value for `field`. A field with the value `null` is treated as absent.
fn with(field: &str, value: Value) -> Vec<u8> {
    let mut document = document();
    document[field] = value;
    serde_json::to_vec(&document).unwrap()
}

fn parse_error(field: &str, value: Value) -> String {
    ClientDocument::parse(ID, &with(field, value)).unwrap_err().to_string()
}

#[test]
fn as_7_only_an_https_url_with_a_path_is_a_document_id() {
    for (id, expected) in [
        (ID, true),
        ("https://client.example/a", true),
        ("https://client.example:8443/a/", true),
        ("https://client.example/a?b=c", true),
        ("https://client.example/a%20b", true),
        ("https://client.example/..a/b..", true),
        ("https://client.example", false),
        ("https://client.example/", false),
        ("https://client.example/?a=b", false),
        ("http://client.example/a", false),
        ("http://127.0.0.1/a", false),
        ("HTTPS://client.example/a", false),
        ("https://CLIENT.example/a", false),
        ("https://client.example:443/a", false),
        ("https://client.example/a#b", false),
        ("https://client.example/a#", false),
        ("https://user@client.example/a", false),
        ("https://user:secret@client.example/a", false),
        ("https://@client.example/a", false),
        ("https://client.example/a/../b", false),
        ("https://client.example/a/./b", false),
        ("https://client.example/a/..", false),
        ("https://client.example/%2e%2E/b", false),
        ("https://client.example/a/.%2e", false),
        ("https://client.example\\a", false),
        ("https:client.example/a", false),
        ("https:///client.example/a", false),
        (" https://client.example/a", false),
        ("https://client.example/a\n", false),
        ("https://client.example/a\tb", false),
        ("https://bücher.example/a", false),
        ("https://127.1/a", false),
        ("ftp://client.example/a", false),
        ("data:application/json,{}", false),
        ("0190c3a2-client", false),
        ("", false),
    ] {
        assert_eq!(is_document_url(id), expected, "{id:?}");
    }
    let longest = format!("https://client.example/{}", "a".repeat(MAX_URL - 23));
    assert!(is_document_url(&longest) && !is_document_url(&format!("{longest}a")));
}

proptest! {
    /// Two different IDs are never spellings of the same URL.
    #[test]
    fn an_id_has_one_spelling(id in "https://[a-zA-Z.%0-9]{1,8}(:[0-9]{1,3})?/[a-z./%2eE\\\\?#@]{0,12}") {
        if let Ok(url) = check_url(&id) {
            prop_assert_eq!(url.as_str(), id.as_str());
            prop_assert!(url.path_segments().unwrap().all(|segment| segment != "." && segment != ".."));
        }
    }

    #[test]
    fn arbitrary_bytes_are_rejected(bytes: Vec<u8>) {
        prop_assert!(ClientDocument::parse(ID, &bytes).is_err());
    }
}

#[test]
fn as_7_known_members_are_parsed_and_others_are_ignored() {
    let parsed = ClientDocument::parse(ID, &serde_json::to_vec(&document()).unwrap()).unwrap();
    let expected = ClientDocument {
        client_id: ID.to_owned(),
        client_name: "Example client".to_owned(),
        client_uri: Some("https://client.example/".to_owned()),
        redirect_uris: vec!["http://127.0.0.1:33418/".to_owned(), "https://client.example/callback".to_owned()],
        application_type: Some("native".to_owned()),
    };
    assert_eq!(parsed, expected);
    let minimal = json!({ "client_id": ID, "client_name": "C", "redirect_uris": ["http://localhost/cb"] });
    let parsed = ClientDocument::parse(ID, &serde_json::to_vec(&minimal).unwrap()).unwrap();
    assert_eq!((parsed.client_uri, parsed.application_type), (None, None));
    for optional in ["grant_types", "response_types", "token_endpoint_auth_method"] {
        assert!(ClientDocument::parse(ID, &with(optional, Value::Null)).is_ok(), "{optional}");
    }
}

#[test]
fn as_7_a_document_of_another_client_is_rejected() {
    let invalid_ids = [
        json!("https://other.example/oauth/metadata.json"),
        json!("https://client.example/oauth/metadata.json/"),
        json!("https://CLIENT.example/oauth/metadata.json"),
        json!("https://client.example:443/oauth/metadata.json"),
        json!(7),
        Value::Null,
    ];
    for id in invalid_ids {
        let error = ClientDocument::parse(ID, &with("client_id", id.clone())).unwrap_err();
        assert!(matches!(error, DocumentError::WrongId), "{id}: {error}");
    }
}

#[test]
fn as_7_a_public_document_cannot_use_a_client_secret() {
    let secret = "The client's metadata document cannot be used: `token_endpoint_auth_method` requires a client secret, but the document is public.";
    for method in ["client_secret_basic", "client_secret_post", "client_secret_jwt"] {
        assert_eq!(parse_error("token_endpoint_auth_method", json!(method)), secret, "{method}");
    }
    for method in ["private_key_jwt", "tls_client_auth", ""] {
        let reason = parse_error("token_endpoint_auth_method", json!(method));
        assert!(reason.ends_with("The only supported `token_endpoint_auth_method` is `none`."), "{reason}");
    }
    for (field, value) in [("client_secret", json!("s")), ("client_secret_expires_at", json!(0))] {
        assert!(parse_error(field, value).contains("It contains a client secret"), "{field}");
    }
}

#[test]
fn errors_name_the_missing_or_invalid_field() {
    for (field, value) in [
        ("client_name", Value::Null),
        ("client_name", json!("")),
        ("client_name", json!(" \u{202e}\u{7} ")),
        ("client_name", json!(7)),
        ("client_name", json!("x".repeat(201))),
        ("redirect_uris", Value::Null),
        ("redirect_uris", json!([])),
        ("redirect_uris", json!("https://client.example/callback")),
        ("redirect_uris", json!([7])),
        ("redirect_uris", json!(vec!["https://client.example/callback"; MAX_REDIRECT_URIS + 1])),
        ("redirect_uris", json!([format!("https://client.example/{}", "x".repeat(5_000))])),
        ("redirect_uris", json!(["https://client.example/callback", "http://client.example/callback"])),
        ("redirect_uris", json!(["https://client.example/#fragment"])),
        ("redirect_uris", json!(["https://user@client.example/"])),
        ("redirect_uris", json!(["javascript:alert(1)"])),
        ("redirect_uris", json!(["/callback"])),
        ("grant_types", json!(["client_credentials"])),
        ("grant_types", json!("authorization_code")),
        ("response_types", json!(["token"])),
        ("response_types", json!([])),
        ("token_endpoint_auth_method", json!(["none"])),
    ] {
        let reason = parse_error(field, value.clone());
        assert!(reason.contains(&format!("`{field}`")), "{field} as {value}: {reason}");
    }
}

/// Users decide based on the client's self-reported metadata.
#[test]
fn names_cannot_manipulate_the_page() {
    let parsed = ClientDocument::parse(ID, &with("client_name", json!("Bank\u{202e}\n\u{0}\u{1b}[1m of\u{2066} us ")));
    assert_eq!(parsed.unwrap().client_name, "Bank   [1m of us");
    for uri in ["javascript:alert(1)", "http://client.example/", "data:text/html,x", "client"] {
        let parsed = ClientDocument::parse(ID, &with("client_uri", json!(uri))).unwrap();
        assert_eq!(parsed.client_uri, None, "{uri}");
    }
    let parsed = ClientDocument::parse(ID, &with("application_type", json!("<script>"))).unwrap();
    assert_eq!(parsed.application_type, None);
}

#[test]
fn anything_but_a_json_object_is_rejected() {
    for text in ["", "[]", "null", "\"x\"", "{", "<!doctype html>", "{\"client_id\": \"\u{0}\"}"] {
        let error = ClientDocument::parse(ID, text.as_bytes()).unwrap_err();
        assert!(matches!(error, DocumentError::Json), "{text:?}: {error}");
    }
}
