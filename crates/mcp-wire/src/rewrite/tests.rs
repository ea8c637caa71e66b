//! Tests of rewriting.

use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::*;
use crate::strict::OwnedMessage;

fn rewrite(text: &str, edit: impl FnOnce(&mut Rewrite<'_, '_>)) -> String {
    let message = Message::read(text.as_bytes()).unwrap();
    let mut rewrite = Rewrite::new(&message);
    edit(&mut rewrite);
    String::from_utf8(rewrite.finish()).unwrap()
}

fn request(method: &str, params: &str) -> String {
    format!(r#"{{ "jsonrpc":"2.0", "id" : 1,"method":"{method}","x": 1.0,"params":{params} }}"#)
}

#[test]
fn the_target_of_each_method_is_replaced() {
    for (method, params, expected) in [
        ("tools/call", r#"{"uri":"u","name" : "a" }"#, r#"{"uri":"u","name" : "n\"" }"#),
        ("prompts/get", r#"{"n\u0061me":"\u0061"}"#, r#"{"n\u0061me":"n\""}"#),
        ("resources/read", r#"{"uri":"u","name":"a"}"#, r#"{"uri":"n\"","name":"a"}"#),
        ("resources/subscribe", r#"{"uri":"u"}"#, r#"{"uri":"n\""}"#),
        ("resources/unsubscribe", r#"{"uri":"u"}"#, r#"{"uri":"n\""}"#),
        (
            "completion/complete",
            r#"{"ref":{"type":"ref/prompt","name":"a","uri":"u"},"argument":{"name":"x","value":"y"}}"#,
            r#"{"ref":{"type":"ref/prompt","name":"n\"","uri":"u"},"argument":{"name":"x","value":"y"}}"#,
        ),
        (
            "completion/complete",
            r#"{"ref":{"type":"ref/resource","name":"a","uri":"u"}}"#,
            r#"{"ref":{"type":"ref/resource","name":"a","uri":"n\""}}"#,
        ),
        ("tools/list", r#"{"name":"a","uri":"u"}"#, r#"{"name":"a","uri":"u"}"#),
        ("tools/call", r#"{"uri":"u"}"#, r#"{"uri":"u"}"#),
    ] {
        let text = rewrite(&request(method, params), |rewrite| rewrite.set_target("n\""));
        assert_eq!(text, request(method, expected), "{method}");
    }
}

#[test]
fn the_parameters_can_be_extracted() {
    for (params, expected) in [
        (r#"{"name": "a",\n"x":1.0}"#, r#"{"_meta":{"a":1},"name": "n", "x":1.0}"#),
        (r#"{ "name":"a","_meta":{"a":7} }"#, r#"{ "name":"n","_meta":{"a":1} }"#),
        ("null", r#"{"_meta":{"a":1}}"#),
    ] {
        let text = request("tools/call", &params.replace("\\n", "\n"));
        let message = Message::read(text.as_bytes()).unwrap();
        let mut rewrite = Rewrite::new(&message);
        rewrite.set_id("77");
        rewrite.set_target("n");
        rewrite.set_meta("a", Some("1"));
        assert_eq!(rewrite.finish_params().as_deref(), Some(expected), "{text}");
    }
    let message = Message::read(br#"{"jsonrpc":"2.0","method":"x"}"#).unwrap();
    assert_eq!(Rewrite::new(&message).finish_params(), None);
    let mut rewrite = Rewrite::new(&message);
    rewrite.set(Member::Cursor, Some("1"));
    assert_eq!(rewrite.finish_params().as_deref(), Some(r#"{"cursor":1}"#));
}

#[test]
fn requests_are_converted_between_the_eras() {
    let meta =
        RequestMeta { protocol_version: "\"V\"".into(), client_info: "{}".into(), client_capabilities: "{}".into() };
    for params in ["null", "{}", r#"{"_meta":null}"#, r#"{ "_meta" : { } }"#] {
        let modern = rewrite(&request("x", params), |rewrite| rewrite.request_to_modern(&meta));
        let value: Value = serde_json::from_str(&modern).unwrap();
        let expected = json!({ META_PROTOCOL_VERSION: "V", META_CLIENT_INFO: {}, META_CLIENT_CAPABILITIES: {} });
        assert_eq!(value["params"], json!({ "_meta": expected }), "{modern}");
        assert_eq!(rewrite(&request("x", params), |rewrite| rewrite.complete_request_meta(&meta)), modern);
        let other = RequestMeta { protocol_version: "1".into(), ..meta.clone() };
        assert_eq!(
            rewrite(&modern, |rewrite| rewrite.complete_request_meta(&other)),
            modern,
            "present members are kept"
        );
        let legacy = rewrite(&modern, |rewrite| rewrite.request_to_legacy());
        assert_eq!(serde_json::from_str::<Value>(&legacy).unwrap()["params"], json!({ "_meta": {} }), "{legacy}");
    }
    let text = r#"{"jsonrpc":"2.0","method":"x"}"#;
    let text = rewrite(text, |rewrite| {
        rewrite.set(Member::RequestState, Some("\"s\""));
        rewrite.set_meta("a", Some("1"));
    });
    assert_eq!(text, r#"{"params":{"requestState":"s","_meta":{"a":1}},"jsonrpc":"2.0","method":"x"}"#);
    let other = json!({ META_LOG_LEVEL: "info", "traceparent": "t", META_CLIENT_INFO: { "name": "c" } });
    let text = request("x", &json!({ "_meta": other }).to_string());
    assert!(
        rewrite(&text, |rewrite| rewrite.request_to_legacy()).contains(r#""params":{"_meta":{"traceparent":"t"}}"#)
    );
}

#[test]
fn results_are_converted_between_the_eras() {
    let response = |result: &str| format!(r#"{{"jsonrpc":"2.0","id":1,"result":{result}}}"#);
    let caching = Caching { ttl_ms: 5, is_public: false };
    let list = rewrite(&response(r#"{"tools":[1.0]}"#), |rewrite| rewrite.result_to_modern(Some(caching)));
    let modern = r#"{"resultType":"complete","ttlMs":5,"cacheScope":"private","tools":[1.0]}"#;
    assert_eq!(list, response(modern));
    assert_eq!(rewrite(&list, |rewrite| rewrite.result_to_modern(Some(caching))), list, "present members are kept");
    assert_eq!(rewrite(&list, |rewrite| rewrite.result_to_legacy()), response(r#"{"tools":[1.0]}"#));
    assert_eq!(
        rewrite(&response("{}"), |rewrite| rewrite.result_to_modern(None)),
        response(r#"{"resultType":"complete"}"#)
    );
    let only = response(r#"{"resultTyp\u0065" : "complete"}"#);
    assert_eq!(rewrite(&only, |rewrite| rewrite.result_to_legacy()), response("{}"));
    let error = r#"{"jsonrpc":"2.0","id":1,"error":{"code":1,"message":""}}"#;
    assert_eq!(
        rewrite(error, |rewrite| {
            rewrite.result_to_modern(Some(caching));
            rewrite.set(Member::RequestState, Some("1"));
            rewrite.set_meta("a", Some("1"));
            rewrite.set_id("\"i\"");
        }),
        error.replace(":1,\"error", ":\"i\",\"error")
    );
}

#[test]
fn any_value_of_a_message_can_be_replaced() {
    let text =
        r#"{"jsonrpc":"2.0","id":1,"result":{"inputRequests":{"a":{"params":{"b":1.0}}, "c":{}},"requestState":"s"}}"#;
    let edited = rewrite(text, |rewrite| {
        let at = text.find(r#"{"b":1.0}"#).unwrap();
        rewrite.replace(&text[at..at + 9], r#"{"b":2}"#);
        rewrite.set(Member::RequestState, Some("\"t\""));
        rewrite.set_id("7");
    });
    let expected = text.replace(r#"{"b":1.0}"#, r#"{"b":2}"#).replace("\"s\"", "\"t\"").replace(":1,", ":7,");
    assert_eq!(edited, expected);
}

#[test]
fn definitions_are_renamed() {
    let definition = "{ \"name\":\"a\",\n \"inputSchema\":{\"properties\":{\"name\":{}},\"x\":1e2,\r\n\t\"\\u00e9\":[ ]}, \"title\":\"A\"}\n";
    let members = [("name", Some("\"s__a\"")), ("description", Some("\"d\"")), ("title", None), ("uri", None)];
    let mut text = "[".to_owned();
    rewrite_definition(definition, &members, &mut text);
    let expected = definition.replace("\"a\"", "\"s__a\"").replace(", \"title\":\"A\"", "");
    assert_eq!(text, expected.replacen('{', "[{\"description\":\"d\",", 1));
}

const MEMBERS: [Member; 4] = [Member::RequestState, Member::ResultType, Member::TtlMs, Member::NextCursor];

proptest! {
    /// An edit of one member has the same effect as in a tree, and leaves all other text unchanged.
    #[test]
    fn an_edit_changes_only_its_own_member(
        values in prop::collection::btree_map("[a-zA-Z\"é]{1,9}", any::<f64>(), 0..5), own in prop::option::of("[a-z\"]{0,5}"),
        value in prop::option::of(any::<u32>()), at: prop::sample::Index, index in 0_usize..4, is_pretty: bool,
    ) {
        let member = MEMBERS[index];
        let mut members: Vec<(String, Value)> = values.into_iter().map(|(name, value)| (name, json!([value]))).collect();
        if let Some(own) = own {
            members.insert(at.index(members.len() + 1), (member.name().to_owned(), own.into()));
        }
        let mut result: Map<String, Value> = members.into_iter().collect();
        let response = |result: &Map<String, Value>| {
            let response = json!({ "jsonrpc": "2.0", "id": 1, "result": result, "x": 1.5 });
            if is_pretty { serde_json::to_string_pretty(&response).unwrap() } else { response.to_string() }
        };
        let text = response(&result);
        let value = value.map(|value| value.to_string());
        let edited = rewrite(&text, |rewrite| rewrite.set(member, value.as_deref()));
        let is_replaced = value.is_some() && result.contains_key(member.name());
        match &value {
            Some(value) => { result.insert(member.name().into(), serde_json::from_str(value).unwrap()); }
            None => { result.shift_remove(member.name()); }
        }
        let edited_value: Value = serde_json::from_str(&edited).unwrap();
        prop_assert_eq!(edited_value["result"].as_object().unwrap(), &result);
        if is_replaced || (value.is_none() && !is_pretty) {
            prop_assert_eq!(edited, response(&result).replace('\n', " "), "the order is kept");
        }
    }

    #[test]
    fn metadata_and_definitions_are_edited_like_trees(
        values in prop::collection::btree_map("[a-h]{1}", any::<u8>(), 0..6),
        changes in prop::collection::btree_map("[a-h]{1}", prop::option::of(any::<u8>()), 0..6),
    ) {
        let mut expected: Map<String, Value> = values.into_iter().map(|(name, value)| (name, value.into())).collect();
        let definition = Value::from(expected.clone()).to_string();
        let text = request("x", &json!({ "_meta": expected, "a": 1 }).to_string());
        for (name, value) in &changes {
            match value {
                Some(value) => { expected.insert(name.clone(), (*value).into()); }
                None => { expected.shift_remove(name); }
            }
        }
        let changes: Vec<_> = changes.into_iter().map(|(name, value)| (name, value.map(|value| value.to_string()))).collect();
        let edited = rewrite(&text, |rewrite| {
            changes.iter().for_each(|(name, value)| rewrite.set_meta(name, value.as_deref()));
        });
        let expected_params = json!({ "_meta": expected, "a": 1 });
        prop_assert_eq!(&serde_json::from_str::<Value>(&edited).unwrap()["params"], &expected_params);
        let changes: Vec<_> = changes.iter().map(|(name, value)| (name.as_str(), value.as_deref())).collect();
        let mut edited = String::new();
        rewrite_definition(&definition, &changes, &mut edited);
        prop_assert_eq!(serde_json::from_str::<Value>(&edited).unwrap(), Value::from(expected));
    }
}

#[test]
fn long_unchanged_parts_of_a_message_are_shared() {
    let long = "x".repeat(100_000);
    let text = format!(r#"{{"jsonrpc":"2.0","id":7,"result":{{"a":"{long}"}}}}"#);
    let owned = OwnedMessage::read(text.clone().into()).unwrap();
    let mut rewrite = Rewrite::new(owned.message());
    rewrite.set_id("\"x\"");
    rewrite.result_to_modern(None);
    let pieces = rewrite.finish_shared(owned.text());
    let expected = text.replace(r#""id":7"#, r#""id":"x""#).replace(r#"{"a""#, r#"{"resultType":"complete","a""#);
    assert_eq!(pieces.concat(), expected.as_bytes());
    assert!(owned.text().as_ptr_range().contains(&pieces[1].as_ptr()) && pieces[1].len() > long.len());
}
