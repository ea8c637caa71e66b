//! Parses arbitrary bytes as a request body. The bytes are either accepted or rejected with a JSON-RPC error.
#![no_main]

// Includes only the module, so that the fuzzer builds in seconds without the whole server.
#[path = "../../crates/mcp/src/message.rs"]
#[allow(dead_code)]
mod message;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    match message::peek(bytes) {
        Ok(message::RequestBody::Batch(batch)) => assert!(!batch.is_empty() && batch.len() <= message::MAX_BATCH),
        Ok(message::RequestBody::Single(_)) => assert!(serde_json::from_slice::<serde_json::Value>(bytes).is_ok()),
        Err(error) => assert_eq!(error.to_json()["jsonrpc"], "2.0"),
    }
});
