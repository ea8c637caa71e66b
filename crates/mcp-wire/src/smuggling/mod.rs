//! Malformed and ambiguous messages, each with the error that it must cause, for tests of all code that relays messages
//! (contract, section 8). None of them may be relayed, in either direction.

mod content_types;
mod responses;

use crate::error::{HEADER_MISMATCH, INVALID_PARAMS, INVALID_REQUEST, PARSE_ERROR};

pub use content_types::{ContentTypeCase, content_types};
pub use responses::responses;

/// A message that must be rejected.
#[derive(Debug, Clone)]
pub struct RejectedMessage {
    /// The reason why it is rejected.
    pub name: &'static str,
    /// The bytes of the body, event or line.
    pub body: Vec<u8>,
    /// The JSON-RPC error code.
    pub code: i64,
    /// Whether the error has the ID of the message.
    pub has_id: bool,
}

/// The code of most rows.
const INVALID: i64 = INVALID_REQUEST;
/// A placeholder for the name of a tool.
const TOOL: &str = "TOOL";
/// A placeholder for the value of an ID.
const ID: &str = ":\"ID\"";

/// The name, the message, and whether the error has the ID of the message.
type Row = (&'static str, &'static str, bool);

/// Calls of a tool with ambiguous envelopes.
const ENVELOPES: &[Row] = &[
    (
        "repeated method",
        r#"{"jsonrpc":"2.0","id":"ID","method":"tools/call","method":"tools/list","params":{"name":"TOOL"}}"#,
        true,
    ),
    ("repeated ID", r#"{"jsonrpc":"2.0","id":"ID","id":8,"method":"tools/call","params":{"name":"TOOL"}}"#, false),
    (
        "repeated params",
        r#"{"jsonrpc":"2.0","id":"ID","method":"tools/call","params":{"name":"x"},"params":{"name":"TOOL"}}"#,
        true,
    ),
    (
        "repeated revision of JSON-RPC",
        r#"{"jsonrpc":"2.0","jsonrpc":"2.0","id":"ID","method":"tools/call","params":{"name":"TOOL"}}"#,
        true,
    ),
    (
        "repeated unknown member",
        r#"{"jsonrpc":"2.0","id":"ID","method":"tools/call","x":1,"x":2,"params":{"name":"TOOL"}}"#,
        true,
    ),
    (
        "repeated with an escape",
        r#"{"jsonrpc":"2.0","id":"ID","method":"tools/list","m\u0065thod":"tools/call","params":{"name":"TOOL"}}"#,
        true,
    ),
    (
        "capitalised method",
        r#"{"jsonrpc":"2.0","id":"ID","method":"tools/list","Method":"tools/call","params":{"name":"TOOL"}}"#,
        true,
    ),
    ("upper-case method", r#"{"jsonrpc":"2.0","id":"ID","METHOD":"tools/call","params":{"name":"TOOL"}}"#, true),
    ("mixed-case ID", r#"{"jsonrpc":"2.0","id":"ID","iD":8,"method":"tools/call","params":{"name":"TOOL"}}"#, false),
    ("only a variant of the ID", r#"{"jsonrpc":"2.0","ID":7,"method":"tools/call","params":{"name":"TOOL"}}"#, false),
    (
        "params with a long s",
        "{\"jsonrpc\":\"2.0\",\"id\":\"ID\",\"method\":\"tools/call\",\"param\u{17f}\":{\"name\":\"TOOL\"}}",
        true,
    ),
    (
        "escaped case variant",
        r#"{"jsonrpc":"2.0","id":"ID","method":"tools/call","\u0050arams":{"name":"TOOL"}}"#,
        true,
    ),
    (
        "name that ends at a null character",
        r#"{"jsonrpc":"2.0","id":"ID","method":"tools/list","method\u0000x":"tools/call","params":{"name":"TOOL"}}"#,
        true,
    ),
    (
        "lone surrogate in a name",
        r#"{"jsonrpc":"2.0","id":"ID","method":"tools/call","method\ud800":"x","params":{"name":"TOOL"}}"#,
        true,
    ),
    (
        "lone surrogate in the method",
        r#"{"jsonrpc":"2.0","id":"ID","method":"tools/call\udc00","params":{"name":"TOOL"}}"#,
        true,
    ),
    (
        "method and result",
        r#"{"jsonrpc":"2.0","id":"ID","method":"tools/call","params":{"name":"TOOL"},"result":{}}"#,
        true,
    ),
    (
        "method and error",
        r#"{"jsonrpc":"2.0","id":"ID","method":"tools/call","params":{"name":"TOOL"},"error":{"code":1,"message":""}}"#,
        true,
    ),
    (
        "method and null result",
        r#"{"jsonrpc":"2.0","id":"ID","method":"tools/call","params":{"name":"TOOL"},"result":null}"#,
        true,
    ),
    ("no revision of JSON-RPC", r#"{"id":"ID","method":"tools/call","params":{"name":"TOOL"}}"#, true),
    (
        "another revision of JSON-RPC",
        r#"{"jsonrpc":"1.0","id":"ID","method":"tools/call","params":{"name":"TOOL"}}"#,
        true,
    ),
    (
        "method that is not a string",
        r#"{"jsonrpc":"2.0","id":"ID","method":["tools/call"],"params":{"name":"TOOL"}}"#,
        true,
    ),
    ("null ID", r#"{"jsonrpc":"2.0","id":null,"method":"tools/call","params":{"name":"TOOL"}}"#, false),
    ("fractional ID", r#"{"jsonrpc":"2.0","id":7.0,"method":"tools/call","params":{"name":"TOOL"}}"#, false),
    (
        "ID that is an object",
        r#"{"jsonrpc":"2.0","id":{"id":7},"method":"tools/call","params":{"name":"TOOL"}}"#,
        false,
    ),
    (
        "ID beyond 64 bits",
        r#"{"jsonrpc":"2.0","id":99999999999999999999,"method":"tools/call","params":{"name":"TOOL"}}"#,
        false,
    ),
    ("neither request nor response", r#"{"jsonrpc":"2.0","id":"ID","params":{"name":"TOOL"}}"#, true),
];

/// Calls of a tool with ambiguous parameters.
const PARAMS: &[Row] = &[
    ("repeated name", r#"{"jsonrpc":"2.0","id":"ID","method":"tools/call","params":{"name":"x","name":"TOOL"}}"#, true),
    (
        "repeated name with an escape",
        r#"{"jsonrpc":"2.0","id":"ID","method":"tools/call","params":{"name":"x","n\u0061me":"TOOL"}}"#,
        true,
    ),
    (
        "capitalised name",
        r#"{"jsonrpc":"2.0","id":"ID","method":"tools/call","params":{"name":"x","Name":"TOOL"}}"#,
        true,
    ),
    (
        "upper-case arguments",
        r#"{"jsonrpc":"2.0","id":"ID","method":"tools/call","params":{"name":"TOOL","ARGUMENTS":{}}}"#,
        true,
    ),
    (
        "arguments with a long s",
        "{\"jsonrpc\":\"2.0\",\"id\":\"ID\",\"method\":\"tools/call\",\"params\":{\"name\":\"TOOL\",\"argument\u{17f}\":{}}}",
        true,
    ),
    (
        "repeated unknown parameter",
        r#"{"jsonrpc":"2.0","id":"ID","method":"tools/call","params":{"name":"TOOL","x":1,"x":1}}"#,
        true,
    ),
    (
        "repeated metadata",
        r#"{"jsonrpc":"2.0","id":"ID","method":"tools/call","params":{"name":"TOOL","_meta":{},"_meta":{}}}"#,
        true,
    ),
    (
        "upper-case metadata",
        r#"{"jsonrpc":"2.0","id":"ID","method":"tools/call","params":{"name":"TOOL","_META":{}}}"#,
        true,
    ),
    (
        "repeated member of the metadata",
        r#"{"jsonrpc":"2.0","id":"ID","method":"tools/call","params":{"name":"TOOL","_meta":{"progressToken":1,"progressToken":2}}}"#,
        true,
    ),
    (
        "case variant of a reserved name",
        r#"{"jsonrpc":"2.0","id":"ID","method":"tools/call","params":{"name":"TOOL","_meta":{"io.modelcontextprotocol/protocolversion":"2026-07-28"}}}"#,
        true,
    ),
    (
        "case variant of the reserved prefix",
        r#"{"jsonrpc":"2.0","id":"ID","method":"tools/call","params":{"name":"TOOL","_meta":{"IO.modelcontextprotocol/other":1}}}"#,
        true,
    ),
    (
        "reserved name with a Kelvin sign",
        "{\"jsonrpc\":\"2.0\",\"id\":\"ID\",\"method\":\"tools/call\",\"params\":{\"name\":\"TOOL\",\"_meta\":{\"progressTo\u{212a}en\":1}}}",
        true,
    ),
    (
        "case variant in a reference",
        r#"{"jsonrpc":"2.0","id":"ID","method":"completion/complete","params":{"ref":{"type":"ref/prompt","name":"TOOL","Name":"x"},"argument":{"name":"a","value":"b"}}}"#,
        true,
    ),
    (
        "case variant in the argument of a completion",
        r#"{"jsonrpc":"2.0","id":"ID","method":"completion/complete","params":{"ref":{"type":"ref/prompt","name":"TOOL"},"argument":{"name":"a","VALUE":"b"}}}"#,
        true,
    ),
    (
        "case variant in a filter",
        r#"{"jsonrpc":"2.0","id":"ID","method":"subscriptions/listen","params":{"notifications":{"toolslistchanged":true}}}"#,
        true,
    ),
    (
        "repeated argument",
        r#"{"jsonrpc":"2.0","id":"ID","method":"tools/call","params":{"name":"TOOL","arguments":{"path":"a","path":"b"}}}"#,
        true,
    ),
    (
        "repeated nested argument",
        r#"{"jsonrpc":"2.0","id":"ID","method":"tools/call","params":{"name":"TOOL","arguments":{"a":[{"b":{"c":1,"\u0063":2}}]}}}"#,
        true,
    ),
    (
        "integer beyond 2^53",
        r#"{"jsonrpc":"2.0","id":"ID","method":"tools/call","params":{"name":"TOOL","arguments":{"n":9007199254740993}}}"#,
        true,
    ),
    (
        "integer below -2^53",
        r#"{"jsonrpc":"2.0","id":"ID","method":"tools/call","params":{"name":"TOOL","arguments":{"a":[-9007199254740992]}}}"#,
        true,
    ),
    (
        "number beyond doubles",
        r#"{"jsonrpc":"2.0","id":"ID","method":"tools/call","params":{"name":"TOOL","arguments":{"n":1e400}}}"#,
        true,
    ),
    (
        "lone surrogate in an argument",
        r#"{"jsonrpc":"2.0","id":"ID","method":"tools/call","params":{"name":"TOOL","arguments":{"text":"\ud83d"}}}"#,
        true,
    ),
    (
        "surrogates in the wrong order",
        r#"{"jsonrpc":"2.0","id":"ID","method":"tools/call","params":{"name":"TOOL","arguments":{"text":"\ude00\ud83d"}}}"#,
        true,
    ),
];

/// Text that is not JSON, or not a message.
const NOT_JSON: &[(&str, &[u8])] = &[
    ("nothing", b""),
    ("half a message", br#"{"jsonrpc":"2.0","id":7,"method":"tools/call""#),
    ("two messages", br#"{"jsonrpc":"2.0","id":7,"method":"ping"}{"jsonrpc":"2.0","id":8,"method":"ping"}"#),
    ("text after the message", br#"{"jsonrpc":"2.0","id":7,"method":"ping"}]"#),
    ("byte order mark", b"\xef\xbb\xbf{\"jsonrpc\":\"2.0\",\"id\":7,\"method\":\"ping\"}"),
    ("invalid UTF-8", b"{\"jsonrpc\":\"2.0\",\"id\":7,\"method\":\"ping\",\"x\":\"\xff\"}"),
    ("overlong UTF-8", b"{\"jsonrpc\":\"2.0\",\"id\":7,\"method\":\"ping\",\"x\":\"\xc0\xaf\"}"),
    ("surrogate in UTF-8", b"{\"jsonrpc\":\"2.0\",\"id\":7,\"method\":\"ping\",\"x\":\"\xed\xa0\x80\"}"),
    ("line break in a string", b"{\"jsonrpc\":\"2.0\",\"id\":7,\"method\":\"ping\",\"x\":\"a\nb\"}"),
    ("trailing comma", br#"{"jsonrpc":"2.0","id":7,"method":"ping",}"#),
    ("comment", br#"{"jsonrpc":"2.0","id":7,/* */"method":"ping"}"#),
    ("single quotation marks", br#"{'jsonrpc':'2.0','id':7,'method':'ping'}"#),
    ("not a number", br#"{"jsonrpc":"2.0","id":7,"method":"ping","params":{"x":NaN}}"#),
    ("leading zero", br#"{"jsonrpc":"2.0","id":07,"method":"ping"}"#),
    ("hexadecimal number", br#"{"jsonrpc":"2.0","id":0x7,"method":"ping"}"#),
    ("form feed between tokens", b"{\"jsonrpc\":\"2.0\",\x0c\"id\":7,\"method\":\"ping\"}"),
];

/// Returns messages of a client with the ID `id` (JSON text). Most are calls of `tool`.
#[must_use]
pub fn requests(id: &str, tool: &str) -> Vec<RejectedMessage> {
    let mut messages: Vec<_> = ENVELOPES.iter().chain(PARAMS).map(|row| message(row, id, tool)).collect();
    messages.extend(not_json());
    let call = |arguments: String| {
        let text = r#"{"jsonrpc":"2.0","id":"ID","method":"tools/call","params":{"name":"TOOL","arguments":"#;
        format!("{text}{arguments}}}}}").replace(ID, &format!(":{id}")).replace(TOOL, tool).into_bytes()
    };
    let rejected = |name, body, code, has_id| RejectedMessage { name, body, code, has_id };
    let text = |text: &str| text.replace(ID, &format!(":{id}")).replace(TOOL, tool).into_bytes();
    messages.extend([
        // The envelope, the parameters, and 63 more levels.
        rejected("65 levels of arrays", call("[".repeat(63) + &"]".repeat(63)), INVALID, true),
        rejected("65 levels of objects", call("{\"a\":".repeat(63) + "1" + &"}".repeat(63)), INVALID, true),
        rejected("100,000 levels", call("[".repeat(100_000) + &"]".repeat(100_000)), INVALID, false),
        rejected("array as parameters", text(r#"{"jsonrpc":"2.0","id":"ID","method":"tools/call","params":["TOOL"]}"#), INVALID_PARAMS, true),
        rejected("array as metadata", text(r#"{"jsonrpc":"2.0","id":"ID","method":"tools/call","params":{"name":"TOOL","_meta":[]}}"#), INVALID_PARAMS, true),
        rejected("empty batch", b"[]".to_vec(), INVALID, false),
        rejected("batch in a batch", text(r#"[[{"jsonrpc":"2.0","id":"ID","method":"tools/call","params":{"name":"TOOL"}}]]"#), INVALID, false),
        rejected("batch with initialize", text(r#"[{"jsonrpc":"2.0","id":"ID","method":"initialize","params":{}}]"#), INVALID, false),
        rejected(
            "batch with one ID for two requests",
            text(r#"[{"jsonrpc":"2.0","id":"ID","method":"ping"},{"jsonrpc":"2.0","id":"ID","method":"tools/call","params":{"name":"TOOL"}}]"#),
            INVALID,
            false,
        ),
        rejected("batch of 51 messages", format!("[{}]", vec![r#"{"jsonrpc":"2.0","method":"x"}"#; 51].join(",")).into_bytes(), INVALID, false),
    ]);
    messages
}

fn message((name, text, has_id): &Row, id: &str, tool: &str) -> RejectedMessage {
    let body = text.replace(ID, &format!(":{id}")).replace(TOOL, tool).into_bytes();
    RejectedMessage { name, body, code: INVALID, has_id: *has_id }
}

fn not_json() -> impl Iterator<Item = RejectedMessage> {
    NOT_JSON.iter().map(|(name, body)| RejectedMessage { name, body: body.to_vec(), code: PARSE_ERROR, has_id: false })
}

/// A call whose headers and body are compared (2026-07-28, "Standard Request Headers").
#[derive(Debug, Clone)]
pub struct HeaderCase {
    /// The property that is tested.
    pub name: &'static str,
    /// The headers; the names are in lower case.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
    /// The JSON-RPC error code; `None` if the call is accepted.
    pub code: Option<i64>,
}

/// Returns the definition of the tool that [`headers`] calls, whose argument `region` is repeated in `mcp-param-region`
/// and `count` in `mcp-param-count`.
#[must_use]
pub fn headers_tool(tool: &str) -> String {
    let properties =
        r#"{"region":{"type":"string","x-mcp-header":"Region"},"count":{"type":"integer","x-mcp-header":"Count"}}"#;
    format!(r#"{{"name":"{tool}","inputSchema":{{"type":"object","properties":{properties}}}}}"#)
}

/// The name, the changes to the headers (`None`: removed; `+`: repeated with this value; otherwise replaced), and
/// whether the call is rejected.
type HeaderRow = (&'static str, &'static [(&'static str, Option<&'static str>)], bool);

const HEADERS: &[HeaderRow] = &[
    ("correct headers", &[], false),
    ("no revision", &[("mcp-protocol-version", None)], true),
    ("another revision", &[("mcp-protocol-version", Some("2025-11-25"))], true),
    ("repeated revision", &[("mcp-protocol-version", Some("+2026-07-28"))], true),
    ("no method", &[("mcp-method", None)], true),
    ("another method", &[("mcp-method", Some("tools/list"))], true),
    ("method in another case", &[("mcp-method", Some("Tools/Call"))], true),
    ("repeated method", &[("mcp-method", Some("+tools/list"))], true),
    ("no name", &[("mcp-name", None)], true),
    ("another name", &[("mcp-name", Some("other"))], true),
    ("name in another case", &[("mcp-name", Some("=?base64?VE9PTA==?="))], true),
    ("invalid Base64", &[("mcp-name", Some("=?base64?!?="))], true),
    ("unfinished Base64", &[("mcp-name", Some("=?base64?dG9vbA=="))], true),
    ("repeated name", &[("mcp-name", Some("+other"))], true),
    ("two names in one header", &[("mcp-name", Some("TOOL, other"))], true),
    ("white space around the name", &[("mcp-name", Some(" TOOL\t"))], false),
    ("no header for an argument", &[("mcp-param-region", None)], true),
    ("another argument", &[("mcp-param-region", Some("us"))], true),
    ("repeated argument", &[("mcp-param-region", Some("+us"))], true),
    ("encoded argument", &[("mcp-param-region", Some("=?base64?ZXU=?="))], false),
    ("header for a missing argument", &[("mcp-param-count", Some("1"))], true),
];

/// Returns calls of `tool` (see [`headers_tool`]) with the ID `id` (JSON text), the value `eu` of the argument
/// `region`, and various headers.
#[must_use]
pub fn headers(id: &str, tool: &str) -> Vec<HeaderCase> {
    let meta =
        r#"{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{}}"#;
    let params = format!(r#"{{"name":"{tool}","arguments":{{"region":"eu"}},"_meta":{meta}}}"#);
    let body = format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"tools/call","params":{params}}}"#).into_bytes();
    let correct = [
        ("mcp-protocol-version", "2026-07-28"),
        ("mcp-method", "tools/call"),
        ("mcp-name", tool),
        ("mcp-param-region", "eu"),
    ];
    let case = |(name, changes, is_rejected): &HeaderRow| {
        let mut headers: Vec<(String, String)> =
            correct.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        for (header, value) in *changes {
            let repeated = value.and_then(|value| value.strip_prefix('+'));
            headers.retain(|(other, _)| other != header || repeated.is_some());
            let value = repeated.or(*value).map(|value| value.replace(TOOL, tool));
            headers.extend(value.map(|value| ((*header).to_owned(), value)));
        }
        HeaderCase { name, headers, body: body.clone(), code: is_rejected.then_some(HEADER_MISMATCH) }
    };
    HEADERS.iter().map(case).collect()
}
