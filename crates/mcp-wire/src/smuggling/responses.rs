//! Malformed and ambiguous messages of a server.

use super::{INVALID, RejectedMessage, Row, message, not_json};

/// Responses with ambiguous members.
const RESPONSES: &[Row] = &[
    (
        "result and error",
        r#"{"jsonrpc":"2.0","id":"ID","result":{"content":[]},"error":{"code":1,"message":"x"}}"#,
        true,
    ),
    ("response with params", r#"{"jsonrpc":"2.0","id":"ID","params":{},"result":{"content":[]}}"#, true),
    ("request that is also a response", r#"{"jsonrpc":"2.0","id":"ID","method":"ping","result":{"content":[]}}"#, true),
    ("repeated result", r#"{"jsonrpc":"2.0","id":"ID","result":{"content":[]},"result":{"content":[]}}"#, true),
    ("capitalised result", r#"{"jsonrpc":"2.0","id":"ID","Result":{"content":[]},"result":{"content":[]}}"#, true),
    (
        "result with a long s",
        "{\"jsonrpc\":\"2.0\",\"id\":\"ID\",\"re\u{17f}ult\":{},\"result\":{\"content\":[]}}",
        true,
    ),
    ("repeated member of the result", r#"{"jsonrpc":"2.0","id":"ID","result":{"content":[],"content":[]}}"#, true),
    (
        "repeated result type with an escape",
        r#"{"jsonrpc":"2.0","id":"ID","result":{"resultType":"complete","resultTyp\u0065":"task"}}"#,
        true,
    ),
    ("case variant of isError", r#"{"jsonrpc":"2.0","id":"ID","result":{"content":[],"iserror":true}}"#, true),
    ("case variant of a list", r#"{"jsonrpc":"2.0","id":"ID","result":{"Tools":[],"tools":[]}}"#, true),
    (
        "case variant of the request state",
        r#"{"jsonrpc":"2.0","id":"ID","result":{"resultType":"input_required","RequestState":"x"}}"#,
        true,
    ),
    (
        "repeated member of the result's metadata",
        r#"{"jsonrpc":"2.0","id":"ID","result":{"_meta":{"a":1,"a":2}}}"#,
        true,
    ),
    ("result that is not an object", r#"{"jsonrpc":"2.0","id":"ID","result":[]}"#, true),
    ("result without ID", r#"{"jsonrpc":"2.0","result":{}}"#, false),
    ("result with null ID", r#"{"jsonrpc":"2.0","id":null,"result":{}}"#, false),
    ("repeated ID of a response", r#"{"jsonrpc":"2.0","id":"ID","id":"ID","result":{}}"#, false),
    ("error code that is not an integer", r#"{"jsonrpc":"2.0","id":"ID","error":{"code":"1","message":"x"}}"#, true),
    ("repeated error code", r#"{"jsonrpc":"2.0","id":"ID","error":{"code":1,"code":2,"message":"x"}}"#, true),
    ("case variant of an error code", r#"{"jsonrpc":"2.0","id":"ID","error":{"code":1,"Code":2,"message":"x"}}"#, true),
    ("error that is a string", r#"{"jsonrpc":"2.0","id":"ID","error":"x"}"#, true),
    (
        "notification with a case variant",
        r#"{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":7,"ProgressToken":8}}"#,
        false,
    ),
    (
        "notification with a repeated member",
        r#"{"jsonrpc":"2.0","method":"notifications/message","params":{"level":"info","level":"error"}}"#,
        false,
    ),
    ("upper-case error", r#"{"jsonrpc":"2.0","id":"ID","result":{},"ERROR":{"code":1,"message":"x"}}"#, true),
    (
        "escaped case variant of the result",
        r#"{"jsonrpc":"2.0","id":"ID","\u0052esult":{},"result":{"content":[]}}"#,
        true,
    ),
    (
        "name of the result that ends at a null character",
        r#"{"jsonrpc":"2.0","id":"ID","result":{"content":[]},"result\u0000x":{}}"#,
        true,
    ),
    ("lone surrogate in a name of a response", r#"{"jsonrpc":"2.0","id":"ID","result":{},"x\ud800":1}"#, true),
    ("result and null error", r#"{"jsonrpc":"2.0","id":"ID","result":{"content":[]},"error":null}"#, true),
    ("null result", r#"{"jsonrpc":"2.0","id":"ID","result":null}"#, true),
    ("response without revision of JSON-RPC", r#"{"id":"ID","result":{}}"#, true),
    ("repeated revision of JSON-RPC in a response", r#"{"jsonrpc":"2.0","jsonrpc":"2.0","id":"ID","result":{}}"#, true),
    ("fractional ID of a response", r#"{"jsonrpc":"2.0","id":7.0,"result":{}}"#, false),
    ("mixed-case ID of a response", r#"{"jsonrpc":"2.0","id":"ID","iD":8,"result":{}}"#, false),
    ("case variant of the result type", r#"{"jsonrpc":"2.0","id":"ID","result":{"ResultType":"task"}}"#, true),
    ("case variant of the content", r#"{"jsonrpc":"2.0","id":"ID","result":{"content":[],"Content":[]}}"#, true),
    ("error without a code", r#"{"jsonrpc":"2.0","id":"ID","error":{"message":"x"}}"#, true),
    (
        "case variant of an error message",
        r#"{"jsonrpc":"2.0","id":"ID","error":{"code":1,"message":"x","MESSAGE":"y"}}"#,
        true,
    ),
    ("empty batch of responses", "[]", false),
    ("batch in a batch of responses", r#"[[{"jsonrpc":"2.0","id":"ID","result":{}}]]"#, false),
    ("batch with a number", r#"[{"jsonrpc":"2.0","id":"ID","result":{}},7]"#, false),
    (
        "batch with one ID for two responses",
        r#"[{"jsonrpc":"2.0","id":"ID","result":{}},{"jsonrpc":"2.0","id":"ID","result":{}}]"#,
        false,
    ),
    ("batch with a repeated result", r#"[{"jsonrpc":"2.0","id":"ID","result":{},"result":{}}]"#, true),
];

/// Returns messages of a server that responds to the request `id` (JSON text).
#[must_use]
pub fn responses(id: &str) -> Vec<RejectedMessage> {
    let rejected = |name, text: String| RejectedMessage { name, body: text.into_bytes(), code: INVALID, has_id: false };
    let deep = format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{{"a":{}{}}}}}"#, "[".repeat(126), "]".repeat(126));
    let batch = format!("[{}]", vec![r#"{"jsonrpc":"2.0","method":"x"}"#; 51].join(","));
    let mut messages: Vec<_> = RESPONSES.iter().map(|row| message(row, id, "")).collect();
    messages.extend(not_json());
    messages.extend([rejected("128 levels", deep), rejected("batch of 51 messages of a server", batch)]);
    messages
}
