//! The parameters of requests and notifications.

use std::borrow::Cow;

use super::check_names;
use crate::error::INVALID_PARAMS;
use crate::scan::{Flaw, Names, Numbers, Scanner, unquote};

/// The names of parameters of all requests and notifications, in both directions, whose values are not read here.
const OTHER: &[&str] = &[
    "argument",
    "context",
    "progress",
    "total",
    "message",
    "reason",
    "logger",
    "data",
    "task",
    "taskId",
    "ttl",
    "messages",
    "modelPreferences",
    "systemPrompt",
    "includeContext",
    "temperature",
    "maxTokens",
    "stopSequences",
    "metadata",
    "tools",
    "toolChoice",
    "requestedSchema",
    "mode",
    "url",
    "elicitationId",
];
const PARAMS: Names<15> = Names::new(
    [
        "_meta",
        "name",
        "uri",
        "arguments",
        "cursor",
        "requestState",
        "inputResponses",
        "protocolVersion",
        "capabilities",
        "clientInfo",
        "level",
        "ref",
        "notifications",
        "progressToken",
        "requestId",
    ],
    OTHER,
);
const META: Names<8> = Names {
    read: [
        "progressToken",
        "io.modelcontextprotocol/protocolVersion",
        "io.modelcontextprotocol/clientInfo",
        "io.modelcontextprotocol/clientCapabilities",
        "io.modelcontextprotocol/logLevel",
        "io.modelcontextprotocol/subscriptionId",
        "traceparent",
        "tracestate",
    ],
    other: &["io.modelcontextprotocol/serverInfo", "io.modelcontextprotocol/related-task", "baggage"],
    prefix: Some("io.modelcontextprotocol/"),
};
const REFERENCE: Names<3> = Names::new(["type", "name", "uri"], &[]);
const ARGUMENT: Names<0> = Names::new([], &["name", "value"]);
const CONTEXT: Names<0> = Names::new([], &["arguments"]);
const FILTER: Names<0> = Names::new(
    [],
    &["toolsListChanged", "promptsListChanged", "resourcesListChanged", "resourceSubscriptions", "taskIds"],
);
const CAPABILITIES: Names<0> = Names::new(
    [],
    &["roots", "sampling", "elicitation", "experimental", "extensions", "tasks", "tools", "prompts", "resources"],
);
const INFO: Names<0> = Names::new([], &["name", "version", "title", "description", "websiteUrl", "icons"]);

/// The members of `params`. Each value is JSON text as received, of any type.
#[derive(Debug, Clone, Default)]
pub struct Params<'a> {
    /// The object, or null; `None` if the member is missing.
    pub raw: Option<&'a str>,
    /// `_meta`.
    pub meta: Meta<'a>,
    /// `name`: the tool or prompt.
    pub name: Option<&'a str>,
    /// `uri`: the resource.
    pub uri: Option<&'a str>,
    /// `arguments` of a tool or prompt.
    pub arguments: Option<&'a str>,
    /// `cursor` of a list.
    pub cursor: Option<&'a str>,
    /// `requestState` of a repeated request (2026-07-28, "Multi Round-Trip Requests").
    pub request_state: Option<&'a str>,
    /// `inputResponses` of a repeated request.
    pub input_responses: Option<&'a str>,
    /// `protocolVersion` of `initialize`.
    pub protocol_version: Option<&'a str>,
    /// `capabilities` of `initialize`.
    pub capabilities: Option<&'a str>,
    /// `clientInfo` of `initialize`.
    pub client_info: Option<&'a str>,
    /// `level` of `logging/setLevel` and of log messages.
    pub level: Option<&'a str>,
    /// `ref` of `completion/complete`.
    pub reference: Reference<'a>,
    /// `notifications`: the filter of `subscriptions/listen`.
    pub notifications: Option<&'a str>,
    /// `progressToken` of a progress notification.
    pub progress_token: Option<&'a str>,
    /// `requestId` of a cancellation.
    pub request_id: Option<&'a str>,
}

/// The members of `_meta`. Each value is JSON text as received.
#[derive(Debug, Clone, Default)]
pub struct Meta<'a> {
    /// The object, or null; `None` if the member is missing.
    pub raw: Option<&'a str>,
    /// `progressToken`.
    pub progress_token: Option<&'a str>,
    /// `io.modelcontextprotocol/protocolVersion`.
    pub protocol_version: Option<&'a str>,
    /// `io.modelcontextprotocol/clientInfo`.
    pub client_info: Option<&'a str>,
    /// `io.modelcontextprotocol/clientCapabilities`.
    pub client_capabilities: Option<&'a str>,
    /// `io.modelcontextprotocol/logLevel`.
    pub log_level: Option<&'a str>,
    /// `io.modelcontextprotocol/subscriptionId`.
    pub subscription_id: Option<&'a str>,
    /// `traceparent` (W3C Trace Context).
    pub traceparent: Option<&'a str>,
    /// `tracestate`.
    pub tracestate: Option<&'a str>,
}

/// The members of `ref`. Each value is JSON text as received.
#[derive(Debug, Clone, Default)]
pub struct Reference<'a> {
    /// `type`: `"ref/prompt"` or `"ref/resource"`.
    pub kind: Option<&'a str>,
    /// `name` of a prompt.
    pub name: Option<&'a str>,
    /// `uri` of a resource template.
    pub uri: Option<&'a str>,
}

impl<'a> Params<'a> {
    /// Reads the value of `params`, which is at the second level of a message.
    pub(super) fn read(&mut self, scanner: &mut Scanner<'a>) -> Result<&'a str, Flaw> {
        const LEVEL: usize = 1;
        if scanner.peek() != Some(b'{') {
            let raw = scanner.value(LEVEL, Numbers::Any)?;
            *self = Self { raw: Some(raw), ..Self::default() };
            return if raw == "null" {
                Ok(raw)
            } else {
                Err(Flaw::Invalid(INVALID_PARAMS, "`params` must be an object."))
            };
        }
        let (mut own_meta, mut own_reference) = (Meta::default(), Reference::default());
        let (raw, values) = scanner.members(LEVEL, &PARAMS, |scanner, key| {
            let level = LEVEL + 1;
            match key {
                "_meta" => own_meta.read(scanner, level),
                "ref" => own_reference.read(scanner, level),
                "arguments" => scanner.value(level, Numbers::Exact),
                "argument" => check_names(scanner, level, &ARGUMENT, Numbers::Exact),
                "context" => check_names(scanner, level, &CONTEXT, Numbers::Exact),
                "notifications" => check_names(scanner, level, &FILTER, Numbers::Any),
                "capabilities" => check_names(scanner, level, &CAPABILITIES, Numbers::Any),
                "clientInfo" => check_names(scanner, level, &INFO, Numbers::Any),
                _ => scanner.value(level, Numbers::Any),
            }
        })?;
        let [_meta, name, uri, arguments, cursor, request_state, input_responses, rest @ ..] = values;
        let [protocol_version, capabilities, client_info, level, _ref, notifications, progress_token, request_id] =
            rest;
        *self = Self {
            raw: Some(raw),
            meta: own_meta,
            name,
            uri,
            arguments,
            cursor,
            request_state,
            input_responses,
            protocol_version,
            capabilities,
            client_info,
            level,
            reference: own_reference,
            notifications,
            progress_token,
            request_id,
        };
        Ok(raw)
    }
}

impl<'a> Meta<'a> {
    /// Reads the value of `_meta`.
    pub(super) fn read(&mut self, scanner: &mut Scanner<'a>, level: usize) -> Result<&'a str, Flaw> {
        if scanner.peek() != Some(b'{') {
            let raw = scanner.value(level, Numbers::Any)?;
            *self = Self { raw: Some(raw), ..Self::default() };
            return if raw == "null" {
                Ok(raw)
            } else {
                Err(Flaw::Invalid(INVALID_PARAMS, "`_meta` must be an object."))
            };
        }
        let (raw, values) = scanner.members(level, &META, |scanner, _| scanner.value(level + 1, Numbers::Any))?;
        let [progress_token, protocol_version, client_info, client_capabilities, log_level, rest @ ..] = values;
        let [subscription_id, traceparent, tracestate] = rest;
        let raw_text = Some(raw);
        *self = Self {
            raw: raw_text,
            progress_token,
            protocol_version,
            client_info,
            client_capabilities,
            log_level,
            subscription_id,
            traceparent,
            tracestate,
        };
        Ok(raw)
    }
}

impl<'a> Reference<'a> {
    fn read(&mut self, scanner: &mut Scanner<'a>, level: usize) -> Result<&'a str, Flaw> {
        if scanner.peek() != Some(b'{') {
            return scanner.value(level, Numbers::Any);
        }
        let (raw, values) = scanner.members(level, &REFERENCE, |scanner, _| scanner.value(level + 1, Numbers::Any))?;
        let [kind, name, uri] = values;
        *self = Self { kind, name, uri };
        Ok(raw)
    }
}

/// Returns the value of a JSON string; `None` if it is missing or not a string.
#[must_use]
pub fn text_of(raw: Option<&str>) -> Option<Cow<'_, str>> {
    unquote(raw?)
}
