//! Rewriting of messages and definitions that are relayed under other names, or between the eras of the protocol.
//!
//! Only the edited members change. Everything else stays as it was received, byte for byte, except that line breaks
//! between tokens become spaces, if not stated otherwise. Values are JSON text.

use bytes::Bytes;

use crate::edits::{Edits, key_of};
use crate::relay::RequestMeta;
use crate::revision::{META_CLIENT_CAPABILITIES, META_CLIENT_INFO, META_LOG_LEVEL, META_PROTOCOL_VERSION};
use crate::scan::{Scanner, unquote};
use crate::strict::{Message, Meta};

/// A member of `params` or of `result`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Member {
    /// `arguments` of a request.
    Arguments,
    /// `cursor` of a request.
    Cursor,
    /// `inputResponses` of a request.
    InputResponses,
    /// `level` of a request or notification.
    Level,
    /// `notifications` of a request.
    Notifications,
    /// `progressToken` of a notification.
    ProgressToken,
    /// `requestId` of a notification.
    RequestId,
    /// `requestState` of a request or result.
    RequestState,
    /// `capabilities` of a request or result.
    Capabilities,
    /// `protocolVersion` of a request or result.
    ProtocolVersion,
    /// `resultType` of a result.
    ResultType,
    /// `inputRequests` of a result.
    InputRequests,
    /// `nextCursor` of a result.
    NextCursor,
    /// `ttlMs` of a result.
    TtlMs,
    /// `cacheScope` of a result.
    CacheScope,
    /// `instructions` of a result.
    Instructions,
}

/// The time for which, and the scope in which, a result can be cached (2026-07-28, "Caching").
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Caching {
    /// `ttlMs`.
    pub ttl_ms: u64,
    /// Whether `cacheScope` is `public`; otherwise it is `private`.
    pub is_public: bool,
}

impl Member {
    fn name(self) -> &'static str {
        match self {
            Self::Arguments => "arguments",
            Self::Cursor => "cursor",
            Self::InputResponses => "inputResponses",
            Self::Level => "level",
            Self::Notifications => "notifications",
            Self::ProgressToken => "progressToken",
            Self::RequestId => "requestId",
            Self::RequestState => "requestState",
            Self::Capabilities => "capabilities",
            Self::ProtocolVersion => "protocolVersion",
            Self::ResultType => "resultType",
            Self::InputRequests => "inputRequests",
            Self::NextCursor => "nextCursor",
            Self::TtlMs => "ttlMs",
            Self::CacheScope => "cacheScope",
            Self::Instructions => "instructions",
        }
    }

    /// Whether messages of this kind can have the member, and its value.
    fn find<'a>(self, message: &Message<'a>) -> Option<Option<&'a str>> {
        let params = &message.params;
        let value = match (self, &message.result) {
            (Self::RequestState, Some(result)) => result.request_state,
            (Self::Capabilities, Some(result)) => result.capabilities,
            (Self::ProtocolVersion, Some(result)) => result.protocol_version,
            (Self::ResultType, Some(result)) => result.result_type,
            (Self::InputRequests, Some(result)) => result.input_requests,
            (Self::NextCursor, Some(result)) => result.next_cursor,
            (Self::TtlMs, Some(result)) => result.ttl_ms,
            (Self::CacheScope, Some(result)) => result.cache_scope,
            (Self::Instructions, Some(result)) => result.instructions,
            (_, Some(_)) => return None,
            _ if message.method.is_none() => return None,
            (Self::Arguments, None) => params.arguments,
            (Self::Cursor, None) => params.cursor,
            (Self::InputResponses, None) => params.input_responses,
            (Self::Level, None) => params.level,
            (Self::Notifications, None) => params.notifications,
            (Self::ProgressToken, None) => params.progress_token,
            (Self::RequestId, None) => params.request_id,
            (Self::RequestState, None) => params.request_state,
            (Self::Capabilities, None) => params.capabilities,
            (Self::ProtocolVersion, None) => params.protocol_version,
            _ => return None,
        };
        Some(value)
    }
}

/// Edits of one message. A member must not be edited twice, and none within a member that is edited itself.
pub struct Rewrite<'m, 'a> {
    message: &'m Message<'a>,
    edits: Edits<'a>,
    /// The members that are added to `params` or `result`.
    added: Vec<String>,
    /// The members that are added to `_meta`.
    added_meta: Vec<String>,
}

impl<'m, 'a> Rewrite<'m, 'a> {
    /// Creates a rewrite without edits.
    #[must_use]
    pub fn new(message: &'m Message<'a>) -> Self {
        Self { message, edits: Edits::new(message.text), added: Vec::new(), added_meta: Vec::new() }
    }

    /// Replaces or adds the ID, which is JSON text.
    pub fn set_id(&mut self, id: &str) {
        match self.message.raw_id {
            Some(raw) => self.edits.replace(raw, id),
            None => self.edits.insert_members(self.message.text, &format!("\"id\":{id}")),
        }
    }

    /// Replaces the name or URI of the tool, prompt, resource or template ([`Message::target`]) by a string. Does nothing
    /// if the message has none.
    pub fn set_target(&mut self, target: &str) {
        if let Some(raw) = self.message.target() {
            self.edits.replace(raw, &quote(target));
        }
    }

    /// Replaces, adds or (with `None`) removes a member of `params` or `result`. Does nothing if messages of this kind
    /// have no such member.
    pub fn set(&mut self, member: Member, value: Option<&str>) {
        match (member.find(self.message), value) {
            (Some(Some(raw)), Some(value)) => self.edits.replace(raw, value),
            (Some(Some(raw)), None) => self.edits.remove_member(key_of(self.message.text, raw), raw),
            (Some(None), Some(value)) => self.added.push(member_text(member.name(), value)),
            (Some(None), None) | (None, _) => {}
        }
    }

    /// Replaces, adds or (with `None`) removes a member of `_meta` of the parameters or result.
    pub fn set_meta(&mut self, name: &str, value: Option<&str>) {
        let own = self.meta().raw.and_then(|meta| find_member(meta, name));
        match (own, value) {
            (Some((_, raw)), Some(value)) => self.edits.replace(raw, value),
            (Some((key, raw)), None) => self.edits.remove_member(key, raw),
            (None, Some(value)) => self.added_meta.push(member_text(name, value)),
            (None, None) => {}
        }
    }

    /// Removes the members of `_meta` that only requests of 2026-07-28 have.
    pub fn request_to_legacy(&mut self) {
        for name in [META_PROTOCOL_VERSION, META_CLIENT_INFO, META_CLIENT_CAPABILITIES, META_LOG_LEVEL] {
            self.set_meta(name, None);
        }
    }

    /// Replaces or adds the members of `_meta` that every request of 2026-07-28 declares.
    pub fn request_to_modern(&mut self, meta: &RequestMeta) {
        self.set_meta(META_PROTOCOL_VERSION, Some(&meta.protocol_version));
        self.set_meta(META_CLIENT_INFO, Some(&meta.client_info));
        self.set_meta(META_CLIENT_CAPABILITIES, Some(&meta.client_capabilities));
    }

    /// Adds the members of `_meta` that every request of 2026-07-28 declares and this one lacks.
    pub fn complete_request_meta(&mut self, meta: &RequestMeta) {
        let own = self.meta();
        let members = [
            (META_PROTOCOL_VERSION, &meta.protocol_version, own.protocol_version),
            (META_CLIENT_INFO, &meta.client_info, own.client_info),
            (META_CLIENT_CAPABILITIES, &meta.client_capabilities, own.client_capabilities),
        ];
        for (name, value, _) in members.into_iter().filter(|(_, _, own)| own.is_none()) {
            self.set_meta(name, Some(value));
        }
    }

    /// Removes the members that only results of 2026-07-28 have: `resultType`, `ttlMs` and `cacheScope`. The result must
    /// be complete: one that requires input cannot be converted like this.
    pub fn result_to_legacy(&mut self) {
        for member in [Member::ResultType, Member::TtlMs, Member::CacheScope] {
            self.set(member, None);
        }
    }

    /// Adds the members that every complete result of 2026-07-28 has and this one lacks: `resultType`, and for results
    /// that can be cached `ttlMs` and `cacheScope`.
    pub fn result_to_modern(&mut self, caching: Option<Caching>) {
        let Some(result) = &self.message.result else { return };
        let (has_type, has_ttl) = (result.result_type.is_some(), result.ttl_ms.is_some());
        let has_scope = result.cache_scope.is_some();
        if !has_type {
            self.set(Member::ResultType, Some("\"complete\""));
        }
        let Some(caching) = caching else { return };
        if !has_ttl {
            self.set(Member::TtlMs, Some(&caching.ttl_ms.to_string()));
        }
        if !has_scope {
            self.set(Member::CacheScope, Some(if caching.is_public { "\"public\"" } else { "\"private\"" }));
        }
    }

    /// Returns the message in one line.
    #[must_use]
    pub fn finish(mut self) -> Vec<u8> {
        self.add_params();
        self.edits.apply()
    }

    /// Returns the message in pieces. Long parts that have not changed are shared with `owner` instead of copied, if it is what
    /// the message was read from ([`OwnedMessage::text`](crate::strict::OwnedMessage::text)). Line breaks remain.
    #[must_use]
    pub fn finish_shared(mut self, owner: &Bytes) -> Vec<Bytes> {
        self.add_params();
        self.edits.apply_shared(owner)
    }

    fn add_params(&mut self) {
        // An error has no parameters.
        if let Some(members) = self.add_members().filter(|_| self.message.method.is_some()) {
            self.edits.insert_members(self.message.text, &format!("\"params\":{{{members}}}"));
        }
    }

    /// Returns only the parameters of a request or notification, in one line; `None` if there are none.
    #[must_use]
    pub fn finish_params(mut self) -> Option<String> {
        let params = match self.add_members() {
            Some(members) => format!("{{{members}}}").into_bytes(),
            None => self.edits.apply_to(self.message.params.raw?),
        };
        // Edits keep the text valid UTF-8.
        String::from_utf8(params).ok()
    }

    /// Adds members to `params` or `result`. Returns them if the message has neither.
    fn add_members(&mut self) -> Option<String> {
        let meta = self.meta().raw;
        if !self.added_meta.is_empty() {
            let members = self.added_meta.join(",");
            match meta {
                Some(raw) if raw.starts_with('{') => self.edits.insert_members(raw, &members),
                Some(raw) => self.edits.replace(raw, &format!("{{{members}}}")),
                None => self.added.push(format!("\"_meta\":{{{members}}}")),
            }
        }
        if self.added.is_empty() {
            return None;
        }
        let members = self.added.join(",");
        match self.message.result.as_ref().map(|result| result.raw).or(self.message.params.raw) {
            Some(raw) if raw.starts_with('{') => self.edits.insert_members(raw, &members),
            Some(raw) => self.edits.replace(raw, &format!("{{{members}}}")),
            None => return Some(members),
        }
        None
    }

    fn meta(&self) -> &'m Meta<'a> {
        self.message.result.as_ref().map_or(&self.message.params.meta, |result| &result.meta)
    }
}

/// Replaces, adds or (with `None`) removes members of a definition, such as its `name`. Each is a name and JSON text.
#[must_use]
pub fn rewrite_definition(definition: &str, members: &[(&str, Option<&str>)]) -> Vec<u8> {
    let mut edits = Edits::new(definition);
    for (name, value) in members {
        match (find_member(definition, name), value) {
            (Some((_, raw)), Some(value)) => edits.replace(raw, value),
            (Some((key, raw)), None) => edits.remove_member(key, raw),
            (None, Some(value)) => edits.insert_members(definition, &member_text(name, value)),
            (None, None) => {}
        }
    }
    edits.apply()
}

/// Returns the JSON text of a string.
#[must_use]
pub fn quote(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

fn member_text(name: &str, value: &str) -> String {
    format!("{}:{value}", quote(name))
}

/// Returns the name, with its quotation marks, and the value of a member.
fn find_member<'a>(object: &'a str, name: &str) -> Option<(&'a str, &'a str)> {
    let mut found = None;
    let members = Scanner::new(object).raw_members(0, |key, value| {
        if unquote(key).as_deref() == Some(name) {
            found = Some((key, value));
        }
    });
    members.ok().and(found)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Map, Value, json};

    use super::*;

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
    fn the_parameters_can_be_taken_out() {
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
        let meta = RequestMeta {
            protocol_version: "\"V\"".into(),
            client_info: "{}".into(),
            client_capabilities: "{}".into(),
        };
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
    fn definitions_are_renamed() {
        let definition = r#"{ "name":"a", "inputSchema":{"properties":{"name":{}},"x":1.0}, "title":"A"}"#;
        let members = [("name", Some("\"s__a\"")), ("description", Some("\"d\"")), ("title", None), ("uri", None)];
        let expected = r#"{"description":"d", "name":"s__a", "inputSchema":{"properties":{"name":{}},"x":1.0}}"#;
        assert_eq!(String::from_utf8(rewrite_definition(definition, &members)).unwrap(), expected);
    }

    const MEMBERS: [Member; 4] = [Member::RequestState, Member::ResultType, Member::TtlMs, Member::NextCursor];

    proptest! {
        /// An edit of one member has the effect of the same edit of a tree, and leaves all other text as it is.
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
            let edited = rewrite_definition(&definition, &changes);
            prop_assert_eq!(serde_json::from_slice::<Value>(&edited).unwrap(), Value::from(expected));
        }
    }
}
