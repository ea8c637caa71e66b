use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::error::{INVALID_PARAMS, METHOD_NOT_FOUND};
use crate::scan::MAX_LEVELS;
use crate::{Envelope, smuggling};

fn read_code(text: &str) -> Option<i64> {
    Message::read(text.as_bytes()).err().map(|error| error.code)
}

fn call(arguments: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{{"name":"t","arguments":{arguments}}}}}"#)
}

#[test]
fn every_ambiguous_message_is_rejected_with_its_code_and_id() {
    let requests = ["7", "\"a\\u0062\""].map(|id| (id, smuggling::requests(id, "tool")));
    let responses = ["7", "\"a\\u0062\""].map(|id| (id, smuggling::responses(id)));
    assert!(requests[0].1.len() >= 70 && responses[0].1.len() >= 59);
    for (id, messages) in requests.into_iter().chain(responses) {
        for message in messages {
            let text = String::from_utf8_lossy(&message.body).chars().take(200).collect::<String>();
            let error = Messages::read(&message.body).map(|_| ()).expect_err(&format!("{}: {text}", message.name));
            assert_eq!(error.code, message.code, "{}: {text}", message.name);
            let expected = RequestId::from_text(id).filter(|_| message.has_id);
            assert_eq!(error.id, expected, "{}: {text}", message.name);
        }
    }
}

#[test]
fn names_of_arguments_and_unread_values_may_differ_in_case_and_repeat() {
    for text in [
        call(r#"{"name":1,"Name":2,"NAME":{"uri":3,"URI":4}}"#),
        call(r#"[1.0, 1e20, 1e-400, 9007199254740991, -9007199254740991, -0, 0.1, "\ud83d\ude00", "\\ud800"]"#),
        r#"{"jsonrpc":"2.0","id":7,"method":"x","params":{"requestState":"a","inputResponses":{"a":{"Content":1},"A":{}}}}"#.into(),
        r#"{"jsonrpc":"2.0","id":7,"method":"x","params":{"_meta":{"com.example/a":1,"COM.example/a":2},"x":18446744073709551615}}"#.into(),
        r#"{"jsonrpc":"2.0","id":7,"result":{"content":[{"a":1,"a":2,"big":99999999999999999999,"s":"\ud800"}],"x":1,"X":2}}"#.into(),
        r#"{"jsonrpc":"2.0","id":7,"method":"x","params":null}"#.into(),
        r#"{"jsonrpc":"2.0","id":7,"method":"x","params":{"_meta":null}}"#.into(),
        r#"{"jsonrpc":"2.0","id":9007199254740993,"method":"x"}"#.into(),
        r#" {"jsonrpc" : "2.0" , "id":7, "Extra":1, "method":"x" } "#.into(),
        r#"{"jsonrpc":"2.0","id":null,"error":{"code":-32700,"message":"x","data":{"a":1,"a":1}}}"#.into(),
        r#"{"jsonrpc":"2.0","error":{"code":-32700,"message":"x"}}"#.into(),
    ] {
        assert_eq!(read_code(&text), None, "{text}");
    }
}

#[test]
fn exactly_64_levels_are_accepted() {
    // The message and the parameters are two levels.
    let nested = |levels: usize| call(&format!("{}{}", "[".repeat(levels), "]".repeat(levels)));
    assert_eq!(read_code(&nested(MAX_LEVELS - 2)), None);
    assert_eq!(read_code(&nested(MAX_LEVELS - 1)), Some(INVALID_REQUEST));
    let result = |levels: usize| {
        format!(r#"{{"jsonrpc":"2.0","id":7,"result":{{"a":{}{}}}}}"#, "[".repeat(levels), "]".repeat(levels))
    };
    assert_eq!(read_code(&result(125)), None, "a result can have as many levels as a parser accepts");
    assert!(serde_json::from_str::<Value>(&result(125)).is_ok());
    assert_eq!(read_code(&result(126)), Some(INVALID_REQUEST));
}

#[test]
fn all_members_are_found() {
    let meta = r#"{"progressToken":1,"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientInfo":{},"io.modelcontextprotocol/clientCapabilities":{"a":1},"io.modelcontextprotocol/logLevel":"info","io.modelcontextprotocol/subscriptionId":"s"}"#;
    let text = format!(
        r#"{{"jsonrpc":"2.0","id":"i","method":"m\u0021","params":{{"_meta":{meta},"name":"n","uri":"u","arguments":{{}},"cursor":"c","requestState":"r","inputResponses":{{"x":{{}}}},"protocolVersion":"p","capabilities":{{"roots":{{}}}},"clientInfo":{{"name":"x"}},"level":"l","ref":{{"type":"ref/prompt","name":"rn","uri":"ru"}},"notifications":{{"toolsListChanged":true}},"progressToken":5,"requestId":6}}}}"#
    );
    let message = Message::read(text.as_bytes()).unwrap();
    assert_eq!(
        (message.kind, message.method.as_deref(), message.id()),
        (MessageKind::Request, Some("m!"), RequestId::from_text("\"i\""))
    );
    assert!(message.is_modern());
    let params = &message.params;
    assert_eq!(params.meta.raw, Some(meta));
    let found = [
        params.meta.progress_token,
        params.meta.protocol_version,
        params.meta.client_info,
        params.meta.client_capabilities,
        params.meta.log_level,
        params.meta.subscription_id,
        params.name,
        params.uri,
        params.arguments,
        params.cursor,
        params.request_state,
        params.input_responses,
        params.protocol_version,
        params.capabilities,
        params.client_info,
        params.level,
        params.reference.kind,
        params.reference.name,
        params.reference.uri,
        params.notifications,
        params.progress_token,
        params.request_id,
    ];
    let expected = [
        "1",
        "\"2026-07-28\"",
        "{}",
        r#"{"a":1}"#,
        "\"info\"",
        "\"s\"",
        "\"n\"",
        "\"u\"",
        "{}",
        "\"c\"",
        "\"r\"",
        r#"{"x":{}}"#,
        "\"p\"",
        r#"{"roots":{}}"#,
        r#"{"name":"x"}"#,
        "\"l\"",
        "\"ref/prompt\"",
        "\"rn\"",
        "\"ru\"",
        r#"{"toolsListChanged":true}"#,
        "5",
        "6",
    ];
    assert_eq!(found, expected.map(Some));
    assert_eq!(text_of(params.name).as_deref(), Some("n"));
    assert_eq!(text_of(params.progress_token), None);
}

#[test]
fn the_top_level_of_a_result_is_found() {
    let text = r#"{"jsonrpc":"2.0","id":1,"result": {"_meta":{"io.modelcontextprotocol/subscriptionId":7},"resultType":"complete","isError":false,"requestState":"r","inputRequests":{},"nextCursor":"n","ttlMs":1,"cacheScope":"public","tools":[1],"prompts":[2],"resources":[3],"resourceTemplates":[4],"protocolVersion":"p","supportedVersions":[5],"capabilities":{"c":{}},"instructions":"i"} }"#;
    let message = Message::read(text.as_bytes()).unwrap();
    let result = message.result.unwrap();
    let found = [
        result.meta.subscription_id,
        result.result_type,
        result.is_error,
        result.request_state,
        result.input_requests,
        result.next_cursor,
        result.ttl_ms,
        result.cache_scope,
        result.tools,
        result.prompts,
        result.resources,
        result.resource_templates,
        result.protocol_version,
        result.supported_versions,
        result.capabilities,
        result.instructions,
    ];
    let expected = [
        "7",
        "\"complete\"",
        "false",
        "\"r\"",
        "{}",
        "\"n\"",
        "1",
        "\"public\"",
        "[1]",
        "[2]",
        "[3]",
        "[4]",
        "\"p\"",
        "[5]",
        r#"{"c":{}}"#,
        "\"i\"",
    ];
    assert_eq!(found, expected.map(Some));
    assert!(result.raw.starts_with('{') && result.raw.ends_with('}'));

    let text = r#"{"jsonrpc":"2.0","id":1,"error":{"code":-32601,"message":"a\n","data":[1]}}"#;
    let error = Message::read(text.as_bytes()).unwrap().error.unwrap();
    assert_eq!((error.code, &*error.message, error.data), (METHOD_NOT_FOUND, "a\n", Some("[1]")));
}

#[test]
fn batches_are_read_one_by_one() {
    let text = br#" [{"jsonrpc":"2.0","id":1,"method":"a"}, {"jsonrpc":"2.0","id":"1","method":"b"}, {"jsonrpc":"2.0","method":"c"}] "#;
    let Messages::Batch(batch) = Messages::read(text).unwrap() else { panic!("a batch") };
    assert_eq!(batch.iter().map(|message| message.method.as_deref().unwrap()).collect::<String>(), "abc");
    assert_eq!(Message::read(text).unwrap_err().code, INVALID_REQUEST, "not accepted where one message is expected");
    let invalid = Messages::read(br#"[{"jsonrpc":"2.0","id":1,"method":"a","params":7}]"#).unwrap_err();
    assert_eq!((invalid.code, invalid.id), (INVALID_PARAMS, Some(1.into())));
}

fn json_values() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (-(1_i64 << 53) + 1..1_i64 << 53).prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 40, 20, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..20).prop_map(Value::from),
            prop::collection::btree_map("[a-z\"\\\\é]{0,9}", inner, 0..20)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

/// Escapes all characters of a string.
fn escaped(text: &str) -> String {
    text.encode_utf16().map(|unit| format!("\\u{unit:04x}")).collect()
}

proptest! {
    #[test]
    fn messages_of_a_serializer_are_accepted(id in any::<u64>(), arguments in json_values(), is_pretty: bool) {
        let message = json!({ "jsonrpc": "2.0", "id": id, "method": "tools/call", "params": { "name": "t", "arguments": arguments } });
        let text = if is_pretty { serde_json::to_string_pretty(&message) } else { serde_json::to_string(&message) }.unwrap();
        let read = Message::read(text.as_bytes()).unwrap();
        prop_assert_eq!(serde_json::from_str::<Value>(read.params.arguments.unwrap()).unwrap(), arguments);
        prop_assert_eq!(read.id(), Some(id.into()));
        let response = json!({ "jsonrpc": "2.0", "id": id, "result": { "structuredContent": message } }).to_string();
        prop_assert!(Message::read(response.as_bytes()).is_ok());
    }

    #[test]
    fn a_repeated_member_is_found_at_any_position(
        names in prop::collection::btree_set("[a-zA-Z]{1,8}", 1..40), at: prop::sample::Index, to: prop::sample::Index,
        depth in 0_usize..20,
    ) {
        let mut members: Vec<String> = names.iter().map(|name| format!("\"{name}\":1")).collect();
        let nested = |members: &[String]| {
            call(&format!("{}{{{}}}{}", "[{\"a\":".repeat(depth), members.join(","), "}]".repeat(depth)))
        };
        prop_assert!(Message::read(nested(&members).as_bytes()).is_ok());
        let name = names.iter().nth(at.index(names.len())).unwrap();
        members.insert(to.index(members.len() + 1), format!("\"{}\":2", escaped(name)));
        let error = Message::read(nested(&members).as_bytes()).unwrap_err();
        prop_assert_eq!((error.code, error.id), (INVALID_REQUEST, Some(7.into())));
    }

    /// Every accepted message is also accepted, and read in the same way, by a complete parser.
    #[test]
    fn mutated_messages_are_rejected_or_read_as_by_a_parser(edits in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), any::<u8>()), 1..4)) {
        let mut text = br#"{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"\u00e9","_meta":{"a":[1,-2.5e3]},"arguments":{"a":"b\\\"","c":[true,false,null]}}}"#.to_vec();
        for (at, kind, byte) in edits {
            let at = at.index(text.len());
            match kind.index(4) {
                0 => text[at] = byte,
                1 => { text.remove(at); }
                2 => text.insert(at, b"{}[],:\"\\ \n0eu"[usize::from(byte) % 13]),
                _ => text.truncate(at.max(9)),
            }
        }
        match Message::read(&text) {
            Ok(message) => {
                let envelope = Envelope::parse(&text).unwrap();
                prop_assert_eq!(envelope.id, message.id());
                prop_assert_eq!(envelope.method.as_deref(), message.method.as_deref());
                let routing = Envelope::parse(&text).unwrap().routing_params().unwrap();
                let name = text_of(message.params.name).or(text_of(message.params.uri)).map(Cow::into_owned);
                prop_assert_eq!(routing.name, name);
                prop_assert!(serde_json::from_slice::<Value>(&text).is_ok());
            }
            Err(error) if error.code == PARSE_ERROR => prop_assert!(serde_json::from_slice::<Value>(&text).is_err()),
            Err(_) => {}
        }
    }

    #[test]
    fn any_bytes_are_accepted_or_rejected(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        if let Err(error) = Messages::read(&bytes) {
            prop_assert!([PARSE_ERROR, INVALID_REQUEST].contains(&error.code));
        }
    }
}
