//! Parses arbitrary bytes as a request body. The bytes are either accepted or rejected with a JSON-RPC error.
#![no_main]

use libfuzzer_sys::fuzz_target;
use waypost_mcp_wire::{Body, Envelope, MAX_BATCH};

fn check(envelope: &Envelope) {
    assert!(serde_json::from_str::<&serde_json::value::RawValue>(envelope.text).is_ok());
    if let Err(error) = envelope.routing_params() {
        assert_eq!(error.to_json()["jsonrpc"], "2.0");
    }
}

fuzz_target!(|bytes: &[u8]| {
    match Body::parse(bytes) {
        Ok(Body::Batch(batch)) => {
            assert!(!batch.is_empty() && batch.len() <= MAX_BATCH);
            batch.iter().for_each(check);
        }
        Ok(Body::Single(envelope)) => check(&envelope),
        Err(error) => assert_eq!(error.to_json()["jsonrpc"], "2.0"),
    }
});
