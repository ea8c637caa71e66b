//! Strict parsing of messages (contract, section 8): a single pass without a tree, which rejects everything that two
//! parsers could read differently.
//!
//! In the envelope and in `params`, including `_meta`, it rejects repeated members at any depth, even with different
//! escapes; case variants of the protocol's names; lone surrogates; and more than [`MAX_LEVELS`](crate::MAX_LEVELS)
//! levels. In arguments, it also rejects numbers that parsers round differently: integers beyond ±(2^53−1), and numbers
//! beyond the range of doubles, such as `1e400`. `1.0`, `1e20` and `1e-400` are accepted, because every parser that
//! uses doubles reads them alike. In `result`, only the top level and `_meta` are checked in this way, and in `error`
//! only the top level; everything else in them must only be JSON.

mod owned;
mod params;
mod result;
#[cfg(test)]
mod tests;

use std::borrow::Cow;

use crate::envelope::MAX_BATCH;
use crate::error::{INVALID_REQUEST, JsonRpcError, PARSE_ERROR};
use crate::request_id::RequestId;
use crate::scan::{Flaw, Names, Numbers, Scanner, unquote};
pub use owned::OwnedMessage;
pub use params::{Meta, Params, Reference, text_of};
pub use result::{ErrorMembers, ResultMembers};

const ENVELOPE: Names<6> = Names::new(["jsonrpc", "id", "method", "params", "result", "error"], &[]);

/// The kind of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MessageKind {
    /// A request.
    Request,
    /// A notification.
    Notification,
    /// A response with a result.
    Result,
    /// A response with an error.
    Error,
}

/// A message that every parser reads alike. Values are the JSON text that was received.
#[derive(Debug, Clone)]
pub struct Message<'a> {
    /// The complete text.
    pub text: &'a str,
    /// The kind.
    pub kind: MessageKind,
    /// The ID as received: a string or an integer, or null for an error response to an unreadable request.
    pub raw_id: Option<&'a str>,
    /// The method of a request or notification.
    pub method: Option<Cow<'a, str>>,
    /// The parameters of a request or notification.
    pub params: Params<'a>,
    /// The result of a successful response.
    pub result: Option<ResultMembers<'a>>,
    /// The error of an error response.
    pub error: Option<ErrorMembers<'a>>,
}

impl<'a> Message<'a> {
    /// Reads one message.
    ///
    /// # Errors
    /// A [`JsonRpcError`] with the request's ID, if it can be read unambiguously: `PARSE_ERROR` if the text is not
    /// JSON; `INVALID_PARAMS` if `params` or `_meta` is not an object; `INVALID_REQUEST` if it is not a message, or
    /// violates a rule of this module.
    pub fn read(bytes: &'a [u8]) -> Result<Self, JsonRpcError> {
        let text = std::str::from_utf8(bytes).map_err(|error| parse_error(error.valid_up_to()))?;
        read(text).map_err(|flaw| rejection(text, flaw))
    }

    /// Returns the ID; `None` for a notification, or an error response to an unreadable request.
    #[must_use]
    pub fn id(&self) -> Option<RequestId> {
        self.raw_id.and_then(RequestId::from_text)
    }

    /// Returns the JSON text of the name or URI of the tool, prompt, resource or template to which the message refers;
    /// `None` if its method has no target, or if the member is missing.
    #[must_use]
    pub fn target(&self) -> Option<&'a str> {
        let Params { name, uri, reference, .. } = &self.params;
        match self.method.as_deref()? {
            "tools/call" | "prompts/get" => *name,
            "resources/read" | "resources/subscribe" | "resources/unsubscribe" | "notifications/resources/updated" => {
                *uri
            }
            "completion/complete" => match text_of(reference.kind)?.as_ref() {
                "ref/prompt" => reference.name,
                "ref/resource" => reference.uri,
                _ => None,
            },
            _ => None,
        }
    }

    /// Whether the message declares the revision 2026-07-28 or a later one ("Per-request metadata").
    #[must_use]
    pub fn is_modern(&self) -> bool {
        self.params.meta.protocol_version.is_some()
    }
}

/// The messages of a request body, or of an event.
#[derive(Debug, Clone)]
pub enum Messages<'a> {
    /// One message.
    Single(Box<Message<'a>>),
    /// A batch (2025-03-26 only).
    Batch(Vec<Message<'a>>),
}

impl<'a> Messages<'a> {
    /// Reads a message or a batch.
    ///
    /// # Errors
    /// The errors of [`Message::read`]; `INVALID_REQUEST` if a batch is empty, has more than [`MAX_BATCH`] messages,
    /// contains `initialize` (2025-03-26, "Lifecycle"), or uses the same ID for two messages.
    pub fn read(bytes: &'a [u8]) -> Result<Self, JsonRpcError> {
        if bytes.trim_ascii_start().first() != Some(&b'[') {
            return Message::read(bytes).map(Box::new).map(Self::Single);
        }
        let text = std::str::from_utf8(bytes).map_err(|error| parse_error(error.valid_up_to()))?;
        let invalid = |message: &str| JsonRpcError::new(INVALID_REQUEST, format!("Invalid Request: {message}"), None);
        let items = split_array(text, MAX_BATCH).map_err(|flaw| match flaw {
            Flaw::Syntax(at) => parse_error(at),
            _ => invalid("the batch is nested too deeply."),
        })?;
        let items = items.filter(|items| !items.is_empty());
        let items = items.ok_or_else(|| invalid(&format!("a batch has 1 to {MAX_BATCH} messages.")))?;
        let batch = items.into_iter().map(|item| Message::read(item.as_bytes()));
        let batch = batch.collect::<Result<Vec<_>, _>>()?;
        if batch.iter().any(|message| message.method.as_deref() == Some("initialize")) {
            return Err(invalid("initialize cannot be part of a batch."));
        }
        let mut ids: Vec<_> = batch.iter().filter_map(Message::id).map(|id| id.to_string()).collect();
        ids.sort_unstable();
        if ids.windows(2).any(|pair| pair[0] == pair[1]) {
            return Err(invalid("two messages of the batch have the same ID."));
        }
        Ok(Self::Batch(batch))
    }
}

/// Returns the text of the items of an array; `None` if there are more than `limit`.
pub(crate) fn split_array(text: &str, limit: usize) -> Result<Option<Vec<&str>>, Flaw> {
    let mut scanner = Scanner::new(text);
    let (mut items, mut count) = (Vec::new(), 0);
    scanner.array(0, |scanner| {
        let item = scanner.skip(1)?;
        count += 1;
        if count <= limit {
            items.push(item);
        }
        Ok(item)
    })?;
    scanner.end()?;
    Ok((count <= limit).then_some(items))
}

fn read(text: &str) -> Result<Message<'_>, Flaw> {
    let mut scanner = Scanner::new(text);
    let (mut params, mut result, mut error) = (Params::default(), None, None);
    if scanner.peek() != Some(b'{') {
        scanner.skip(0)?;
        scanner.end()?;
        return Err(Flaw::Invalid(INVALID_REQUEST, "not a JSON-RPC message."));
    }
    let (_, [jsonrpc, raw_id, method, raw_params, raw_result, raw_error]) =
        scanner.members(0, &ENVELOPE, |scanner, key| {
            let start = scanner.peek();
            match (key, start) {
                ("params", _) => params.read(scanner),
                ("result", Some(b'{')) => Ok(result.insert(ResultMembers::read(scanner)?).raw),
                ("error", Some(b'{')) => Ok(error.insert(ErrorMembers::read(scanner)?).raw),
                _ => scanner.value(1, Numbers::Any),
            }
        })?;
    scanner.end()?;
    let invalid = |message| Err(Flaw::Invalid(INVALID_REQUEST, message));
    if jsonrpc.and_then(unquote).as_deref() != Some("2.0") {
        return invalid("`jsonrpc` must be \"2.0\".");
    }
    let kind = match (method, raw_result, raw_error, raw_id) {
        (Some(_), None, None, Some(_)) => MessageKind::Request,
        (Some(_), None, None, None) => MessageKind::Notification,
        (None, Some(_), None, _) if raw_params.is_none() => MessageKind::Result,
        (None, None, Some(_), _) if raw_params.is_none() => MessageKind::Error,
        (None, None, None, _) => return invalid("`method` is missing."),
        _ => return invalid("the members of a request and of a response, or `result` and `error`, are combined."),
    };
    if kind != MessageKind::Notification
        && raw_id.and_then(RequestId::from_text).is_none()
        && (kind != MessageKind::Error || raw_id.is_some_and(|id| id != "null"))
    {
        return invalid("`id` must be a string or an integer.");
    }
    let method = match method.map(unquote) {
        Some(None) => return invalid("`method` must be a string."),
        method => method.flatten(),
    };
    if (kind == MessageKind::Result && result.is_none()) || (kind == MessageKind::Error && error.is_none()) {
        return invalid("`result` and `error` must be objects.");
    }
    Ok(Message { text, kind, raw_id, method, params, result, error })
}

fn parse_error(at: usize) -> JsonRpcError {
    JsonRpcError::new(PARSE_ERROR, format!("Parse error: invalid JSON at byte {at}."), None)
}

/// Returns the error for text that [`read`] rejects.
fn rejection(text: &str, flaw: Flaw) -> JsonRpcError {
    if let Flaw::Syntax(at) = flaw {
        return parse_error(at);
    }
    // The rest of the text has not been read yet.
    let id = match find_id(text) {
        Ok(id) => id,
        Err(Flaw::Syntax(at)) => return parse_error(at),
        Err(_) => None,
    };
    match flaw {
        Flaw::Invalid(INVALID_REQUEST, message) => {
            JsonRpcError::new(INVALID_REQUEST, format!("Invalid Request: {message}"), id)
        }
        Flaw::Invalid(code, message) => JsonRpcError::new(code, format!("Invalid params: {message}"), id),
        Flaw::Ambiguous(ambiguity) => JsonRpcError::new(INVALID_REQUEST, format!("Invalid Request: {ambiguity}."), id),
        Flaw::Syntax(at) => parse_error(at),
    }
}

/// Returns the ID of an object, if it has exactly one `id` and no variant of it.
fn find_id(text: &str) -> Result<Option<RequestId>, Flaw> {
    const ID: Names<1> = Names::new(["id"], &[]);
    let mut scanner = Scanner::new(text);
    let (mut id, mut count) = (None, 0);
    if scanner.peek() == Some(b'{') {
        scanner.raw_members(0, |name, value| {
            // A name with a lone surrogate is not `id`.
            let found = unquote(name).map_or(Ok(None), |name| ID.find(&name));
            if !matches!(found, Ok(None)) {
                count += 1;
                id = found.ok().and(RequestId::from_text(value));
            }
        })?;
        scanner.end()?;
    }
    Ok(id.filter(|_| count == 1))
}

/// Reads an object of the protocol whose values are not needed, and rejects variants of its names. Values of other
/// types are read without this check.
fn check_names<'a, const N: usize>(
    scanner: &mut Scanner<'a>,
    level: usize,
    names: &Names<N>,
    numbers: Numbers,
) -> Result<&'a str, Flaw> {
    if scanner.peek() != Some(b'{') {
        return scanner.value(level, numbers);
    }
    scanner.members(level, names, |scanner, _| scanner.value(level + 1, numbers)).map(|(text, _)| text)
}
