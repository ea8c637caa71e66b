use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::error::PARSE_ERROR;

/// Returns the code with which a message is rejected.
fn code(text: &str) -> Option<i64> {
    let envelope = match Envelope::parse(text.as_bytes()) {
        Ok(envelope) => envelope,
        Err(error) => return Some(error.code),
    };
    envelope.check_unambiguous().err().map(|error| error.code)
}

fn call(params: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{params}}}"#)
}

#[test]
fn ambiguous_messages_are_rejected() {
    let nested = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
    let messages = [
        // Repeated members, also those that are only equal once escapes are read.
        r#"{"jsonrpc":"2.0","id":1,"id":2,"method":"tools/call"}"#.to_owned(),
        r#"{"jsonrpc":"2.0","id":1,"method":"tools/list","method":"tools/call"}"#.to_owned(),
        r#"{"jsonrpc":"2.0","id":1,"method":"tools/list","m\u0065thod":"tools/call"}"#.to_owned(),
        r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a"},"params":{"name":"b"}}"#.to_owned(),
        r#"{"jsonrpc":"2.0","id":1,"method":"x","other":1,"other":2}"#.to_owned(),
        r#"{"jsonrpc":"2.0","id":1,"result":{},"result":{}}"#.to_owned(),
        r#"{"jsonrpc":"2.0","id":1,"result":{"isError":false,"isError":true}}"#.to_owned(),
        r#"{"jsonrpc":"2.0","id":1,"error":{"code":1,"code":2,"message":""}}"#.to_owned(),
        call(r#"{"name":"a","name":"b"}"#),
        call(r#"{"name":"a","n\u0061me":"b"}"#),
        call(r#"{"name":"a","arguments":{},"arguments":{"x":1}}"#),
        call(r#"{"name":"a","arguments":{"x":1,"x":2}}"#),
        call(r#"{"name":"a","arguments":{"x":[{"y":{"z":1,"z":2}}]}}"#),
        call(r#"{"name":"a","_meta":{"progressToken":1,"progressToken":2}}"#),
        call(r#"{"name":"a","_meta":{},"_meta":{}}"#),
        call(r#"{"name":"a","_meta":{"x/y":{"z":1,"z":2}}}"#),
        call(r#"{"ref":{"type":"ref/prompt","name":"a","name":"b"}}"#),
        call(r#"{"name":"a","inputResponses":{"k":{"action":"accept","action":"decline"}}}"#),
        // Members that differ only in case.
        r#"{"jsonrpc":"2.0","id":1,"method":"tools/list","Method":"tools/call"}"#.to_owned(),
        r#"{"jsonrpc":"2.0","id":1,"METHOD":"tools/call","method":"tools/list"}"#.to_owned(),
        r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","Params":{"name":"b"}}"#.to_owned(),
        r#"{"jsonrpc":"2.0","id":1,"ID":2,"method":"tools/list"}"#.to_owned(),
        r#"{"jsonrpc":"2.0","id":1,"result":{},"Error":{}}"#.to_owned(),
        r#"{"JsonRpc":"2.0","jsonrpc":"2.0","id":1,"method":"x"}"#.to_owned(),
        r#"{"jsonrpc":"2.0","id":1,"method":"x","param\u017f":{}}"#.to_owned(),
        r#"{"jsonrpc":"2.0","id":1,"result":{"IsError":true}}"#.to_owned(),
        r#"{"jsonrpc":"2.0","id":1,"error":{"Code":1,"message":""}}"#.to_owned(),
        call(r#"{"name":"a","Name":"b"}"#),
        call(r#"{"name":"a","Arguments":{"x":1}}"#),
        call(r#"{"name":"a","argument\u017f":{"x":1}}"#),
        call("{\"name\":\"a\",\"_meta\":{\"progressTo\u{212a}en\":1}}"),
        call(r#"{"name":"a","_Meta":{}}"#),
        call(r#"{"name":"a","_meta":{"IO.modelcontextprotocol/protocolVersion":"2026-07-28"}}"#),
        call(r#"{"uri":"a:b","URI":"c:d"}"#),
        call(r#"{"ref":{"type":"ref/prompt","Name":"b"}}"#),
        call(r#"{"name":"a","RequestState":"x"}"#),
        // Numbers.
        call(r#"{"name":"a","arguments":{"x":9007199254740992}}"#),
        call(r#"{"name":"a","arguments":{"x":-9007199254740992}}"#),
        call(r#"{"name":"a","arguments":{"x":[123456789012345678901234567890]}}"#),
        call(r#"{"name":"a","arguments":{"x":1e400}}"#),
        r#"{"jsonrpc":"2.0","id":9007199254740993,"method":"tools/list"}"#.to_owned(),
        // Strings.
        call(r#"{"name":"a\ud800"}"#),
        call(r#"{"name":"a","arguments":{"\udc00x":1}}"#),
        // Depth. The message, its parameters and the arguments are three levels.
        call(&format!(r#"{{"name":"a","arguments":{{"x":{}}}}}"#, nested(MAX_DEPTH - 2))),
        // Members that do not belong together, and parameters that are not an object.
        r#"{"jsonrpc":"2.0","id":1,"method":"x","result":{}}"#.to_owned(),
        r#"{"jsonrpc":"2.0","id":1,"result":{},"error":{"code":1,"message":""}}"#.to_owned(),
        r#"{"jsonrpc":"2.0","result":{}}"#.to_owned(),
        r#"{"jsonrpc":"2.0","id":null,"result":{}}"#.to_owned(),
        call("[]"),
        call("7"),
    ];
    assert!(messages.len() >= 40);
    for text in &messages {
        assert_eq!(code(text), Some(INVALID_REQUEST), "{text}");
    }
    assert_eq!(code("{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"a\" \"x\":1}"), Some(PARSE_ERROR));
}

#[test]
fn unambiguous_messages_are_accepted() {
    let nested = format!("{}{}", "[".repeat(MAX_DEPTH - 3), "]".repeat(MAX_DEPTH - 3));
    for text in [
        r#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#.to_owned(),
        r#"{"jsonrpc":"2.0","id":"a","method":"tools/list","params":null,"extra":{"Method":1}}"#.to_owned(),
        r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#.to_owned(),
        r#"{"jsonrpc":"2.0","id":null,"error":{"code":-32700,"message":"x"}}"#.to_owned(),
        // Names that users choose may differ in case, and be those of the protocol.
        call(r#"{"name":"a","arguments":{"name":1,"Name":2,"METHOD":3,"é":4,"É":5}}"#),
        call(r#"{"name":"a","arguments":{"x":1.0,"y":1e300,"z":-9007199254740991,"w":9007199254740991,"e":1E2}}"#),
        call(r#"{"name":"a","arguments":{"s":"\ud83d\ude00 \u0000 \\ \" {\"a\":1,\"a\":2}"}}"#),
        call(r#"{"name":"a","_meta":{"acme.example/Name":{"a":1,"A":2}}}"#),
        call(&format!(r#"{{"name":"a","arguments":{{"x":{nested}}}}}"#)),
        // The value of a result is relayed unread.
        r#"{"jsonrpc":"2.0","id":1,"result":{"structuredContent":{"a":1,"a":2,"b":99999999999999999999},"content":[]}}"#
            .to_owned(),
    ] {
        assert_eq!(code(&text), None, "{text}");
    }
}

#[test]
fn errors_name_the_member_and_the_request() {
    let message = |text: &str| {
        let error = Envelope::parse(text.as_bytes()).unwrap().check_unambiguous().unwrap_err();
        (error.id, error.message)
    };
    let (id, text) = message(&call(r#"{"name":"a","Name":"b"}"#));
    assert_eq!(id, Some(crate::RequestId::from(1)));
    assert_eq!(text, "Invalid Request: the member `Name` differs from `name` only in case.");
    let (_, text) = message(&call(r#"{"arguments":{"x":1,"x":2}}"#));
    assert_eq!(text, "Invalid Request: the member `x` is repeated.");
}

#[test]
fn ambiguous_definitions_are_rejected() {
    let definition = |members: &str| check_definition(&format!(r#"{{"name":"a"{members}}}"#));
    assert_eq!(definition(r#","inputSchema":{"type":"object","properties":{"name":{},"Name":{}}}"#), Ok(()));
    assert_eq!(definition(r#","x-vendor":{"A":1,"a":2}"#), Ok(()));
    assert!(matches!(definition(r#","Name":"b""#), Err(Ambiguity::Case(..))));
    assert!(matches!(definition(r#","annotations":{"ReadOnlyHint":true}"#), Err(Ambiguity::Case(..))));
    assert!(matches!(definition(r#","arguments":[{"name":"x","NAME":"y"}]"#), Err(Ambiguity::Case(..))));
    assert!(matches!(definition(r#","description":"b","description":"c""#), Err(Ambiguity::Repeated(_))));
    let repeated = r#","inputSchema":{"properties":{"x":{"type":"string","type":"number"}}}"#;
    assert_eq!(definition(repeated), Err(Ambiguity::Repeated("type".to_owned())));
    assert_eq!(definition(r#","inputSchema":{"maximum":18446744073709551616}"#), Err(Ambiguity::Integer));
    assert_eq!(definition(",\"title\":\"\\ud800\""), Err(Ambiguity::Surrogate));
    let deep = format!(r#","inputSchema":{}{}"#, "[".repeat(MAX_DEPTH), "]".repeat(MAX_DEPTH));
    assert_eq!(definition(&deep), Err(Ambiguity::Depth));
    for text in ["", "{", "{\"a\"}", "{\"a\":}", "{\"a\":1,}", "[1,]", "{\"a\":1}x", "\"", "{a:1}"] {
        assert_eq!(check_definition(text), Err(Ambiguity::Syntax), "{text}");
    }
}

#[test]
fn objects_with_many_members_are_checked() {
    let members: Vec<String> = (0..1_000).map(|n| format!("\"m{n}\":1")).collect();
    let all = members.join(",");
    assert_eq!(code(&call(&format!("{{\"arguments\":{{{all}}}}}"))), None);
    assert_eq!(code(&call(&format!("{{\"arguments\":{{{all},\"m500\":2}}}}"))), Some(INVALID_REQUEST));
    assert_eq!(code(&call(&format!("{{\"arguments\":{{{all},\"m3\":2}}}}"))), Some(INVALID_REQUEST));
}

fn json_values() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (-(1_i64 << 53) + 1..1_i64 << 53).prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(5, 40, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::btree_map(any::<String>(), inner, 0..24)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn messages_of_a_serialiser_are_accepted(arguments in json_values()) {
        let text = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": { "name": "a", "arguments": arguments } });
        prop_assert_eq!(code(&text.to_string()), None);
        prop_assert_eq!(code(&serde_json::to_string_pretty(&text).unwrap()), None);
    }

    /// Every parser agrees on an accepted message: no member is lost when it is read into a tree.
    #[test]
    fn an_accepted_message_has_as_many_members_as_its_tree(text in r#"\{("[ab]":(\{("[ab]":[01],?){0,3}\}|[01]),?){0,4}\}"#) {
        if let Ok(tree) = serde_json::from_str::<Value>(&text)
            && check_definition(&text).is_ok()
        {
            fn count(value: &Value) -> usize {
                value.as_object().map_or(0, |members| members.len() + members.values().map(count).sum::<usize>())
            }
            prop_assert_eq!(count(&tree), text.matches(':').count(), "{}", text);
        }
    }

    #[test]
    fn any_text_is_accepted_or_rejected(text in "[{}\\[\\]\":,a\\\\u0-9 .e-]{0,60}") {
        let _ = check_definition(&text);
        if serde_json::from_str::<Value>(&text).is_err() {
            prop_assert!(code(&text).is_some());
        }
    }
}
