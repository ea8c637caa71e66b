//! Reads arbitrary bytes strictly. Whatever is accepted is read in the same way by a complete parser, and an edit changes
//! only its own member.
#![no_main]

use libfuzzer_sys::fuzz_target;
use serde_json::Value;
use waypost_mcp_wire::rewrite::{Member, Rewrite};
use waypost_mcp_wire::strict::{Message, Messages, text_of};

fn check(message: &Message) {
    let bytes = message.text.as_bytes();
    // Values that are not read can contain what this parser rejects: lone surrogates, and numbers beyond its range.
    let Ok(value) = serde_json::from_slice::<Value>(bytes) else {
        assert!(serde_json::from_slice::<&serde_json::value::RawValue>(bytes).is_ok());
        return;
    };
    assert_eq!(value["method"].as_str(), message.method.as_deref());
    assert_eq!(value["params"]["name"].as_str(), text_of(message.params.name).as_deref());
    let mut rewrite = Rewrite::new(message);
    rewrite.set(Member::RequestState, None);
    rewrite.set_meta("a", Some("1"));
    rewrite.set_id("7");
    let edited: Value = serde_json::from_slice(&rewrite.finish()).unwrap();
    assert_eq!(edited["id"], 7);
    let object = if message.result.is_some() { "result" } else { "params" };
    if message.error.is_none() {
        assert_eq!(edited[object]["_meta"]["a"], 1);
        assert!(edited[object].get("requestState").is_none());
    }
}

fuzz_target!(|bytes: &[u8]| {
    match Messages::read(bytes) {
        Ok(Messages::Single(message)) => check(&message),
        Ok(Messages::Batch(batch)) => batch.iter().for_each(check),
        Err(error) => assert_eq!(error.to_json()["jsonrpc"], "2.0"),
    }
});
