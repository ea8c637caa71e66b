//! Reads arbitrary text as a list of definitions and as definitions of each kind. A complete parser reads what is accepted,
//! and its notation does not matter.
#![no_main]

use libfuzzer_sys::fuzz_target;
use serde_json::Value;
use waypost_mcp_wire::definition::{Definition, DefinitionKind, split_list};

fn check(text: &str) {
    for kind in DefinitionKind::ALL.iter().copied() {
        match Definition::read(kind, text) {
            Ok(definition) => {
                let value: Value = serde_json::from_str(definition.raw).unwrap();
                let again = Definition::read(kind, &value.to_string()).unwrap().name;
                assert_eq!(again, definition.name);
            }
            Err(rejected) => assert!(!rejected.to_string().is_empty()),
        }
    }
}

fuzz_target!(|text: &str| {
    check(text);
    if let Ok(items) = split_list(text) {
        items.into_iter().for_each(check);
    }
});
