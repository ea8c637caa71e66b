//! Any text as a JSON import: it is refused or read, and what was read exports and reads back the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use waypost_core::Timestamp;
use waypost_core::transfer::{export, json};
use waypost_core::walkthrough::WalkthroughState;

fuzz_target!(|text: &str| {
    let Ok(file) = json::parse("fuzz.json", text) else { return };
    let Ok(fields) = file.fields(Some("Title"), None) else { return };
    let keys: Vec<String> = (0..file.steps.len()).map(|at| format!("k{at}")).collect();
    let steps: Vec<_> = file
        .steps
        .iter()
        .zip(&keys)
        .map(|(step, key)| export::ExportStep { key, content: &step.content })
        .collect();
    let exported = export::export_json(&fields, steps, WalkthroughState::Draft, Timestamp(0));
    let again = json::parse("again.json", &exported.to_string()).expect("an export reads back");
    assert_eq!(again.steps.len(), file.steps.len());
    for (a, b) in again.steps.iter().zip(&file.steps) {
        assert_eq!(a.content.title, b.content.title);
        assert_eq!(a.content.content, b.content.content);
    }
});
