mod availability;
mod cache;
mod fetching;
mod server;

use proptest::prelude::*;
use serde_json::{Value, json};

use std::sync::Arc;

use waypost_outbound::{Outbound, Purpose, Route};

use super::fetch::Documents;
use super::*;

/// The route of documents for organisations that no entry names.
fn route(outbound: &Outbound) -> Route {
    outbound.route(Purpose::ClientDocuments, &[]).unwrap()
}

async fn get(documents: &Documents, url: &str) -> Result<Arc<ClientDocument>, DocumentError> {
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

/// The document with another value for `field`; null takes it away.
fn with(field: &str, value: Value) -> Vec<u8> {
    let mut document = document();
    document[field] = value;
    serde_json::to_vec(&document).unwrap()
}

fn refused(field: &str, value: Value) -> String {
    ClientDocument::parse(ID, &with(field, value)).unwrap_err().to_string()
}

#[test]
fn as_7_an_id_is_a_document_only_as_an_https_url_with_a_path() {
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
    /// Two ids that differ are never two spellings of one URL.
    #[test]
    fn an_id_has_one_spelling(id in "https://[a-zA-Z.%0-9]{1,8}(:[0-9]{1,3})?/[a-z./%2eE\\\\?#@]{0,12}") {
        if let Ok(url) = check_url(&id) {
            prop_assert_eq!(url.as_str(), id.as_str());
            prop_assert!(url.path_segments().unwrap().all(|segment| segment != "." && segment != ".."));
        }
    }

    #[test]
    fn no_bytes_are_too_strange_to_be_refused(bytes: Vec<u8>) {
        prop_assert!(ClientDocument::parse(ID, &bytes).is_err());
    }
}

#[test]
fn as_7_reads_what_is_needed_and_passes_over_the_rest() {
    let read = ClientDocument::parse(ID, &serde_json::to_vec(&document()).unwrap()).unwrap();
    let expected = ClientDocument {
        client_id: ID.to_owned(),
        client_name: "Example client".to_owned(),
        client_uri: Some("https://client.example/".to_owned()),
        redirect_uris: vec!["http://127.0.0.1:33418/".to_owned(), "https://client.example/callback".to_owned()],
        application_type: Some("native".to_owned()),
    };
    assert_eq!(read, expected);
    let least = json!({ "client_id": ID, "client_name": "C", "redirect_uris": ["http://localhost/cb"] });
    let read = ClientDocument::parse(ID, &serde_json::to_vec(&least).unwrap()).unwrap();
    assert_eq!((read.client_uri, read.application_type), (None, None));
    for optional in ["grant_types", "response_types", "token_endpoint_auth_method"] {
        assert!(ClientDocument::parse(ID, &with(optional, Value::Null)).is_ok(), "{optional}");
    }
}

#[test]
fn as_7_a_document_about_another_client_is_refused() {
    let lies = [
        json!("https://other.example/oauth/metadata.json"),
        json!("https://client.example/oauth/metadata.json/"),
        json!("https://CLIENT.example/oauth/metadata.json"),
        json!("https://client.example:443/oauth/metadata.json"),
        json!(7),
        Value::Null,
    ];
    for lie in lies {
        let error = ClientDocument::parse(ID, &with("client_id", lie.clone())).unwrap_err();
        assert!(matches!(error, DocumentError::WrongId), "{lie}: {error}");
    }
}

#[test]
fn as_7_nobody_shares_a_secret_in_public() {
    let secret = "The client's metadata document cannot be used: `token_endpoint_auth_method` needs a client secret, and a public document cannot keep one.";
    for method in ["client_secret_basic", "client_secret_post", "client_secret_jwt"] {
        assert_eq!(refused("token_endpoint_auth_method", json!(method)), secret, "{method}");
    }
    for method in ["private_key_jwt", "tls_client_auth", ""] {
        let why = refused("token_endpoint_auth_method", json!(method));
        assert!(why.ends_with("The only `token_endpoint_auth_method` that is supported here is `none`."), "{why}");
    }
    for (field, value) in [("client_secret", json!("s")), ("client_secret_expires_at", json!(0))] {
        assert!(refused(field, value).contains("It holds a client secret"), "{field}");
    }
}

#[test]
fn fields_that_are_missing_or_wrong_are_named() {
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
        let why = refused(field, value.clone());
        assert!(why.contains(&format!("`{field}`")), "{field} as {value}: {why}");
    }
}

/// What a client says of itself is shown to people who decide by it.
#[test]
fn names_cannot_play_with_the_page() {
    let read = ClientDocument::parse(ID, &with("client_name", json!("Bank\u{202e}\n\u{0}\u{1b}[1m of\u{2066} us ")));
    assert_eq!(read.unwrap().client_name, "Bank   [1m of us");
    for uri in ["javascript:alert(1)", "http://client.example/", "data:text/html,x", "client"] {
        let read = ClientDocument::parse(ID, &with("client_uri", json!(uri))).unwrap();
        assert_eq!(read.client_uri, None, "{uri}");
    }
    let read = ClientDocument::parse(ID, &with("application_type", json!("<script>"))).unwrap();
    assert_eq!(read.application_type, None);
}

#[test]
fn what_is_no_json_object_is_refused() {
    for text in ["", "[]", "null", "\"x\"", "{", "<!doctype html>", "{\"client_id\": \"\u{0}\"}"] {
        let error = ClientDocument::parse(ID, text.as_bytes()).unwrap_err();
        assert!(matches!(error, DocumentError::Json), "{text:?}: {error}");
    }
}
