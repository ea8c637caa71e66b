//! Imports arbitrary text as JSON. The text is either rejected or parsed. Exporting and importing a parsed walkthrough
//! preserves its steps.
#![no_main]

use libfuzzer_sys::fuzz_target;
use waypost_core::Timestamp;
use waypost_content::transfer::{export, json};
use waypost_core::walkthrough::WalkthroughState;

fuzz_target!(|text: &str| {
    let Ok(file) = json::parse("fuzz.json", text) else { return };
    let Ok(fields) = file.fields(Some("Title"), None) else { return };
    let keys: Vec<String> = (0..file.steps.len()).map(|index| format!("k{index}")).collect();
    let steps: Vec<_> = file
        .steps
        .iter()
        .zip(&keys)
        .map(|(step, key)| export::ExportStep { key, content: &step.content })
        .collect();
    let exported = export::export_json(&fields, steps, WalkthroughState::Draft, Timestamp(0));
    let reimported = json::parse("reimported.json", &exported.to_string()).expect("an export can be imported");
    assert_eq!(reimported.steps.len(), file.steps.len());
    for (a, b) in reimported.steps.iter().zip(&file.steps) {
        assert_eq!(a.content.title, b.content.title);
        assert_eq!(a.content.content, b.content.content);
    }
});
