//! Rewriting of messages and definitions that are relayed under other names, or between the eras of the protocol.
//!
//! Only the edited members change. Everything else remains as it was received, byte for byte, except that line breaks
//! between tokens become spaces, unless stated otherwise. Values are JSON text.

#[cfg(test)]
mod tests;

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

    /// Returns the value of the member in a message, if it is present. The outer `Option` is `None` if messages of this
    /// kind cannot have the member.
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

/// Edits of one message. A member must not be edited twice, nor may a member be edited within another edited member.
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

    /// Replaces the name or URI of the tool, prompt, resource or template ([`Message::target`]) with a string. Does
    /// nothing if the message has no target.
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

    /// Replaces a value, which must be a slice of the message's text, such as the parameters of one of its
    /// `inputRequests`.
    pub fn replace(&mut self, value: &str, new: &str) {
        self.edits.replace(value, new);
    }

    /// Replaces, adds or (with `None`) removes a member of `_meta` in the parameters or the result.
    pub fn set_meta(&mut self, name: &str, value: Option<&str>) {
        let own = self.meta().raw.and_then(|meta| find_member(meta, name));
        match (own, value) {
            (Some((_, raw)), Some(value)) => self.edits.replace(raw, value),
            (Some((key, raw)), None) => self.edits.remove_member(key, raw),
            (None, Some(value)) => self.added_meta.push(member_text(name, value)),
            (None, None) => {}
        }
    }

    /// Removes the members of `_meta` that exist only in requests of 2026-07-28.
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

    /// Removes the members that exist only in results of 2026-07-28: `resultType`, `ttlMs` and `cacheScope`. The result
    /// must be complete: a result that requires input cannot be converted in this way.
    pub fn result_to_legacy(&mut self) {
        for member in [Member::ResultType, Member::TtlMs, Member::CacheScope] {
            self.set(member, None);
        }
    }

    /// Adds the members that every complete result of 2026-07-28 has and this one lacks: `resultType` and, with
    /// `caching`, `ttlMs` and `cacheScope`.
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

    /// Returns the rewritten message in one line.
    #[must_use]
    pub fn finish(mut self) -> Vec<u8> {
        self.add_params();
        self.edits.apply()
    }

    /// Returns the rewritten message in pieces. Long unchanged parts are shared with `owner` instead of copied, if
    /// `owner` is the text from which the message was read ([`OwnedMessage::text`](crate::strict::OwnedMessage::text)).
    /// Line breaks remain.
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

    /// Returns only the rewritten parameters of a request or notification, in one line; `None` if there are none.
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

/// Appends a definition to `output`. `members`, such as `name`, are replaced, added or (with `None`) removed; each
/// consists of a name and JSON text. Line breaks remain.
pub fn rewrite_definition(definition: &str, members: &[(&str, Option<&str>)], output: &mut String) {
    let mut edits = Edits::new(definition);
    for (name, value) in members {
        match (find_member(definition, name), value) {
            (Some((_, raw)), Some(value)) => edits.replace(raw, value),
            (Some((key, raw)), None) => edits.remove_member(key, raw),
            (None, Some(value)) => edits.insert_members(definition, &member_text(name, value)),
            (None, None) => {}
        }
    }
    edits.append_to(output);
}

/// Returns the JSON text of a string.
#[must_use]
pub fn quote(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

fn member_text(name: &str, value: &str) -> String {
    format!("{}:{value}", quote(name))
}

/// Returns the name (with its quotation marks) and the value of a member; `None` if the object has no such member.
fn find_member<'a>(object: &'a str, name: &str) -> Option<(&'a str, &'a str)> {
    let mut found = None;
    let members = Scanner::new(object).raw_members(0, |key, value| {
        if unquote(key).as_deref() == Some(name) {
            found = Some((key, value));
        }
    });
    members.ok().and(found)
}
