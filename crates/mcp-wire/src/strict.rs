//! Checks of messages that are relayed between parties that do not trust each other.
//!
//! Two parsers must not read one message differently: what the gateway has checked would not be what the other side
//! executes. JSON parsers disagree about repeated members (the first or the last one counts), about members that differ
//! only in case (some compare without case, also with the Unicode letters `ſ` and `K`), about integers beyond ±(2^53−1)
//! (some round), and about lone surrogates. Messages and definitions that contain one are rejected, not corrected
//! (docs/gateway.md).
//!
//! The text is scanned once, without building a tree. It must be valid JSON: [`Envelope::parse`] has checked its syntax.

use std::borrow::Cow;
use std::collections::HashSet;

use crate::envelope::Envelope;
use crate::error::{INVALID_REQUEST, JsonRpcError};

/// The maximum nesting depth of a message (without the value of `result`) and of a definition.
pub const MAX_DEPTH: usize = 64;
/// The largest integer that every JSON parser reads exactly (RFC 7493, section 2.2).
const MAX_INTEGER: u64 = (1 << 53) - 1;
/// Up to this number of members, the names are compared one by one.
const FEW_MEMBERS: usize = 16;

/// The reason why a text could be read in different ways.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Ambiguity {
    /// A member is repeated.
    #[error("the member `{0}` is repeated")]
    Repeated(String),
    /// A member differs from a member of the protocol only in case.
    #[error("the member `{0}` differs from `{1}` only in case")]
    Case(String, &'static str),
    /// An integer outside ±(2^53−1).
    #[error("an integer is beyond ±(2^53−1)")]
    Integer,
    /// A string with half of a surrogate pair.
    #[error("a string contains half of a surrogate pair")]
    Surrogate,
    /// The nesting is too deep.
    #[error("there are more than {MAX_DEPTH} levels of nesting")]
    Depth,
    /// The text is not JSON.
    #[error("the text is not valid JSON")]
    Syntax,
}

/// The members of JSON-RPC 2.0.
const ENVELOPE: &[&str] = &["jsonrpc", "id", "method", "params", "result", "error"];
const ERROR: &[&str] = &["code", "message", "data"];
/// The members of `params`, of all methods and revisions, and of the objects in it that [`Place::child`] also treats as
/// parameters.
const PARAMS: &[&str] = &[
    "_meta",
    "argument",
    "arguments",
    "capabilities",
    "clientInfo",
    "context",
    "cursor",
    "inputResponses",
    "level",
    "name",
    "notifications",
    "progress",
    "progressToken",
    "promptsListChanged",
    "protocolVersion",
    "reason",
    "ref",
    "requestId",
    "requestState",
    "resourceSubscriptions",
    "resourcesListChanged",
    "taskId",
    "toolsListChanged",
    "total",
    "type",
    "uri",
    "value",
];
const META: &[&str] = &[
    "progressToken",
    "io.modelcontextprotocol/protocolVersion",
    "io.modelcontextprotocol/clientInfo",
    "io.modelcontextprotocol/clientCapabilities",
    "io.modelcontextprotocol/logLevel",
    "io.modelcontextprotocol/serverInfo",
    "io.modelcontextprotocol/subscriptionId",
];
const RESULT: &[&str] = &[
    "_meta",
    "cacheScope",
    "capabilities",
    "completion",
    "content",
    "contents",
    "inputRequests",
    "instructions",
    "isError",
    "messages",
    "nextCursor",
    "prompts",
    "protocolVersion",
    "requestState",
    "resourceTemplates",
    "resources",
    "resultType",
    "serverInfo",
    "structuredContent",
    "supportedVersions",
    "tools",
    "ttlMs",
];
const DEFINITION: &[&str] = &[
    "_meta",
    "annotations",
    "arguments",
    "audience",
    "description",
    "destructiveHint",
    "execution",
    "icons",
    "idempotentHint",
    "inputSchema",
    "lastModified",
    "mimeType",
    "name",
    "openWorldHint",
    "outputSchema",
    "priority",
    "readOnlyHint",
    "required",
    "size",
    "sizes",
    "src",
    "taskSupport",
    "title",
    "uri",
    "uriTemplate",
];

/// What the scanner is reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Envelope,
    Params,
    Meta,
    Error,
    /// The top-level members of a result.
    Result,
    Definition,
    /// Names that users choose: arguments, schemas and content.
    Free,
    /// A value that is relayed unread.
    Unread,
}

impl Place {
    /// Returns the members of the protocol in this place.
    fn members(self) -> &'static [&'static str] {
        match self {
            Self::Envelope => ENVELOPE,
            Self::Params => PARAMS,
            Self::Meta => META,
            Self::Error => ERROR,
            Self::Result => RESULT,
            Self::Definition => DEFINITION,
            Self::Free | Self::Unread => &[],
        }
    }

    /// Returns the place of the member `name`.
    fn child(self, name: &str) -> Self {
        match (self, name) {
            (Self::Envelope, "params") => Self::Params,
            (Self::Envelope, "result") => Self::Result,
            (Self::Envelope, "error") => Self::Error,
            (Self::Params, "_meta") => Self::Meta,
            (Self::Params, "argument" | "context" | "notifications" | "ref") => Self::Params,
            (Self::Definition, "annotations" | "arguments" | "execution" | "icons") => Self::Definition,
            (Self::Error | Self::Result | Self::Unread, _) => Self::Unread,
            _ => Self::Free,
        }
    }
}

impl Envelope<'_> {
    /// Checks that every parser reads this message in the same way, apart from the values of its result, which are
    /// relayed unread.
    ///
    /// # Errors
    /// `INVALID_REQUEST` with the reason.
    pub fn check_unambiguous(&self) -> Result<(), JsonRpcError> {
        let invalid = |reason: &dyn std::fmt::Display| {
            JsonRpcError::new(INVALID_REQUEST, format!("Invalid Request: {reason}."), self.id.clone())
        };
        scan(self.text, Place::Envelope).map_err(|ambiguity| invalid(&ambiguity))?;
        let is_response = self.result.is_some() || self.error.is_some();
        if self.method.is_some() && is_response {
            return Err(invalid(&"a message with `method` cannot have `result` or `error`"));
        }
        if self.result.is_some() && self.error.is_some() {
            return Err(invalid(&"a response has either `result` or `error`"));
        }
        if self.result.is_some() && self.id.is_none() {
            return Err(invalid(&"a result needs the `id` of its request"));
        }
        if self.params.is_some_and(|params| !params.get().starts_with('{')) {
            return Err(invalid(&"`params` must be an object"));
        }
        Ok(())
    }
}

/// Checks that every parser reads the definition of a tool, prompt or resource in the same way.
///
/// # Errors
/// The first [`Ambiguity`].
pub fn check_definition(text: &str) -> Result<(), Ambiguity> {
    scan(text, Place::Definition)
}

/// Checks the top-level members of a result.
///
/// # Errors
/// The first [`Ambiguity`].
pub fn check_result(text: &str) -> Result<(), Ambiguity> {
    scan(text, Place::Result)
}

fn scan(text: &str, place: Place) -> Result<(), Ambiguity> {
    let mut scanner = Scanner { text, at: 0 };
    scanner.skip_white_space();
    scanner.value(place, 0)?;
    scanner.skip_white_space();
    if scanner.at == text.len() { Ok(()) } else { Err(Ambiguity::Syntax) }
}

struct Scanner<'a> {
    text: &'a str,
    /// The position of the next byte.
    at: usize,
}

impl<'a> Scanner<'a> {
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn skip_white_space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    /// Skips white space before and after `byte`.
    fn expect(&mut self, byte: u8) -> Result<(), Ambiguity> {
        self.skip_white_space();
        if self.peek() != Some(byte) {
            return Err(Ambiguity::Syntax);
        }
        self.at += 1;
        self.skip_white_space();
        Ok(())
    }

    /// Reads a value in which `depth` levels are open.
    fn value(&mut self, place: Place, depth: usize) -> Result<(), Ambiguity> {
        match self.peek() {
            Some(b'{') if place != Place::Unread => self.object(place, depth + 1),
            Some(b'[') if place != Place::Unread => self.array(place, depth + 1),
            Some(b'{' | b'[') => self.skip_nested(),
            Some(b'"') => self.string(place != Place::Unread).map(|_| ()),
            Some(_) => self.scalar(place),
            None => Err(Ambiguity::Syntax),
        }
    }

    fn object(&mut self, place: Place, depth: usize) -> Result<(), Ambiguity> {
        if depth > MAX_DEPTH {
            return Err(Ambiguity::Depth);
        }
        self.expect(b'{')?;
        let mut names = Names::default();
        while self.peek() != Some(b'}') {
            if !names.is_empty() {
                self.expect(b',')?;
            }
            let name = unescape(self.string(true)?)?;
            if let Some(member) = case_variant(&name, place.members()) {
                return Err(Ambiguity::Case(shorten(&name), member));
            }
            let child = place.child(&name);
            names.add(name)?;
            self.expect(b':')?;
            self.value(child, depth)?;
            self.skip_white_space();
        }
        self.at += 1;
        Ok(())
    }

    /// The elements are in the same place as the array.
    fn array(&mut self, place: Place, depth: usize) -> Result<(), Ambiguity> {
        if depth > MAX_DEPTH {
            return Err(Ambiguity::Depth);
        }
        self.expect(b'[')?;
        let mut is_first = true;
        while self.peek() != Some(b']') {
            if !is_first {
                self.expect(b',')?;
            }
            is_first = false;
            self.value(place, depth)?;
            self.skip_white_space();
        }
        self.at += 1;
        Ok(())
    }

    /// Skips an array or object without reading it. [`Envelope::parse`] has limited its depth.
    fn skip_nested(&mut self) -> Result<(), Ambiguity> {
        let mut depth = 0_usize;
        loop {
            match self.peek() {
                Some(b'"') => {
                    self.string(false)?;
                    continue;
                }
                Some(b'{' | b'[') => depth += 1,
                Some(b'}' | b']') => depth = depth.saturating_sub(1),
                Some(_) => {}
                None => return Err(Ambiguity::Syntax),
            }
            self.at += 1;
            if depth == 0 {
                return Ok(());
            }
        }
    }

    /// Reads a string and returns it with its quotation marks.
    fn string(&mut self, is_checked: bool) -> Result<&'a str, Ambiguity> {
        let start = self.at;
        let bytes = self.text.as_bytes();
        let mut at = start + 1;
        let mut has_escapes = false;
        loop {
            match bytes.get(at) {
                Some(b'"') => break,
                Some(b'\\') => {
                    has_escapes = true;
                    at += 2;
                }
                Some(_) => at += 1,
                None => return Err(Ambiguity::Syntax),
            }
        }
        self.at = at + 1;
        let text = self.text.get(start..=at).filter(|_| bytes[start] == b'"').ok_or(Ambiguity::Syntax)?;
        if is_checked && has_escapes {
            unescape(text)?;
        }
        Ok(text)
    }

    /// Reads a number or a literal.
    fn scalar(&mut self, place: Place) -> Result<(), Ambiguity> {
        let start = self.at;
        while !matches!(self.peek(), None | Some(b',' | b'}' | b']' | b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
        let text = &self.text[start..self.at];
        if text.is_empty() {
            return Err(Ambiguity::Syntax);
        }
        if place != Place::Unread && is_inexact(text) { Err(Ambiguity::Integer) } else { Ok(()) }
    }
}

/// Whether a number is an integer beyond ±(2^53−1), or too large for a double. With a fraction or an exponent, a number
/// is not an integer in this sense: all parsers read it as a double.
fn is_inexact(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    if !digits.starts_with(|first: char| first.is_ascii_digit()) {
        return false;
    }
    if digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return digits.parse::<u64>().map_or(true, |magnitude| magnitude > MAX_INTEGER);
    }
    digits.parse::<f64>().map_or(true, f64::is_infinite)
}

/// Returns the content of a string in quotation marks.
fn unescape(text: &str) -> Result<Cow<'_, str>, Ambiguity> {
    let content = &text[1..text.len() - 1];
    if !content.contains('\\') {
        return Ok(Cow::Borrowed(content));
    }
    let error = if content.contains("\\u") { Ambiguity::Surrogate } else { Ambiguity::Syntax };
    serde_json::from_str::<String>(text).map(Cow::Owned).map_err(|_| error)
}

/// Returns the member of the protocol from which `name` differs only in case.
fn case_variant(name: &str, members: &'static [&'static str]) -> Option<&'static str> {
    if members.is_empty() || members.contains(&name) {
        return None;
    }
    members.iter().copied().find(|member| folded(name).eq(folded(member)))
}

/// Returns the characters of a name as parsers compare them that ignore case: with Unicode's simple case folding, which
/// maps two letters outside of ASCII to ASCII.
fn folded(name: &str) -> impl Iterator<Item = char> + '_ {
    name.chars().map(|c| match c {
        'ſ' => 's',
        '\u{212a}' => 'k',
        other => other.to_ascii_lowercase(),
    })
}

fn shorten(name: &str) -> String {
    name.chars().take(64).collect()
}

/// The names of an object's members.
#[derive(Default)]
struct Names<'a> {
    few: Vec<Cow<'a, str>>,
    many: HashSet<Cow<'a, str>>,
}

impl<'a> Names<'a> {
    fn is_empty(&self) -> bool {
        self.few.is_empty()
    }

    fn add(&mut self, name: Cow<'a, str>) -> Result<(), Ambiguity> {
        if self.few.contains(&name) || self.many.contains(&name) {
            return Err(Ambiguity::Repeated(shorten(&name)));
        }
        if self.few.len() < FEW_MEMBERS {
            self.few.push(name);
        } else {
            self.many.insert(name);
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "strict_tests.rs"]
mod tests;
