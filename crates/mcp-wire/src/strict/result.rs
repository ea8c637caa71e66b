//! The result or error of a response.

use std::borrow::Cow;

use super::params::Meta;
use crate::error::INVALID_REQUEST;
use crate::scan::{Flaw, Names, Numbers, Scanner, unquote};

/// The level of the members of `result` and `error`.
const LEVEL: usize = 2;
const RESULT: Names<16> = Names::new(
    [
        "_meta",
        "resultType",
        "isError",
        "requestState",
        "inputRequests",
        "nextCursor",
        "ttlMs",
        "cacheScope",
        "tools",
        "prompts",
        "resources",
        "resourceTemplates",
        "protocolVersion",
        "supportedVersions",
        "capabilities",
        "instructions",
    ],
    &[
        "serverInfo",
        "content",
        "structuredContent",
        "contents",
        "messages",
        "description",
        "completion",
        "action",
        "roots",
        "role",
        "model",
        "stopReason",
        "task",
        "tasks",
        "taskId",
    ],
);
const ERROR: Names<3> = Names::new(["code", "message", "data"], &[]);

/// The members of a `result`. Each value is JSON text as received, of any type, and is not parsed further.
#[derive(Debug, Clone, Default)]
pub struct ResultMembers<'a> {
    /// The object.
    pub raw: &'a str,
    /// `_meta`.
    pub meta: Meta<'a>,
    /// `resultType` (2026-07-28).
    pub result_type: Option<&'a str>,
    /// `isError` of a tool result.
    pub is_error: Option<&'a str>,
    /// `requestState` (2026-07-28, "Multi Round-Trip Requests").
    pub request_state: Option<&'a str>,
    /// `inputRequests`.
    pub input_requests: Option<&'a str>,
    /// `nextCursor` of a list.
    pub next_cursor: Option<&'a str>,
    /// `ttlMs` (2026-07-28, "Caching").
    pub ttl_ms: Option<&'a str>,
    /// `cacheScope`.
    pub cache_scope: Option<&'a str>,
    /// `tools`.
    pub tools: Option<&'a str>,
    /// `prompts`.
    pub prompts: Option<&'a str>,
    /// `resources`.
    pub resources: Option<&'a str>,
    /// `resourceTemplates`.
    pub resource_templates: Option<&'a str>,
    /// `protocolVersion` of `initialize`.
    pub protocol_version: Option<&'a str>,
    /// `supportedVersions` of `server/discover`.
    pub supported_versions: Option<&'a str>,
    /// `capabilities` of `initialize` and `server/discover`.
    pub capabilities: Option<&'a str>,
    /// `instructions` of `initialize` and `server/discover`.
    pub instructions: Option<&'a str>,
}

/// The members of an `error`.
#[derive(Debug, Clone)]
pub struct ErrorMembers<'a> {
    /// The object.
    pub raw: &'a str,
    /// `code`.
    pub code: i64,
    /// `message`; empty if it is missing.
    pub message: Cow<'a, str>,
    /// `data` as received.
    pub data: Option<&'a str>,
}

impl<'a> ResultMembers<'a> {
    /// Parses the JSON text of a `result`. Returns `None` if it is not an object, or parsers could read it differently.
    #[must_use]
    pub fn parse(text: &'a str) -> Option<Self> {
        let mut scanner = Scanner::new(text);
        let members = Self::read(&mut scanner).ok()?;
        scanner.end().ok()?;
        Some(members)
    }

    /// Reads the object at the second level of a message.
    pub(super) fn read(scanner: &mut Scanner<'a>) -> Result<Self, Flaw> {
        let mut meta = Meta::default();
        let (raw, values) = scanner.members(LEVEL - 1, &RESULT, |scanner, key| match (key, scanner.peek()) {
            ("_meta", Some(b'{')) => meta.read(scanner, LEVEL),
            _ => scanner.skip(LEVEL),
        })?;
        let [_meta, result_type, is_error, request_state, input_requests, next_cursor, ttl_ms, cache_scope, rest @ ..] =
            values;
        let [tools, prompts, resources, resource_templates, rest @ ..] = rest;
        let [protocol_version, supported_versions, capabilities, instructions] = rest;
        Ok(Self {
            raw,
            meta,
            result_type,
            is_error,
            request_state,
            input_requests,
            next_cursor,
            ttl_ms,
            cache_scope,
            tools,
            prompts,
            resources,
            resource_templates,
            protocol_version,
            supported_versions,
            capabilities,
            instructions,
        })
    }
}

impl<'a> ErrorMembers<'a> {
    /// Reads the object at the second level of a message.
    pub(super) fn read(scanner: &mut Scanner<'a>) -> Result<Self, Flaw> {
        let (raw, [code, message, data]) = scanner.members(LEVEL - 1, &ERROR, |scanner, key| match key {
            "data" => scanner.skip(LEVEL),
            _ => scanner.value(LEVEL, Numbers::Any),
        })?;
        let code = code.and_then(|code| code.parse().ok());
        let code = code.ok_or(Flaw::Invalid(INVALID_REQUEST, "`code` of an error must be an integer."))?;
        Ok(Self { raw, code, message: message.and_then(unquote).unwrap_or_default(), data })
    }
}
