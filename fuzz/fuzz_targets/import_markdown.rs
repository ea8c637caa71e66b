//! Imports arbitrary text as a file and as a folder. The text is either rejected or parsed. Exporting and importing a
//! parsed walkthrough as Markdown preserves its steps.
#![no_main]

use libfuzzer_sys::fuzz_target;
use waypost_core::step::StepContent;
use waypost_content::transfer::export::ExportStep;
use waypost_content::transfer::export_markdown::export_markdown;
use waypost_content::transfer::file::WalkthroughFile;
use waypost_content::transfer::{self, folder, markdown};

fuzz_target!(|text: &str| {
    if let Ok(file) = markdown::parse("fuzz.md", text) {
        check_round_trip(&file);
    }
    let _ = transfer::parse("fuzz.tour", text);
    // The first line of each part is the path of a file in the folder.
    let mut files: Vec<(&str, &str)> = Vec::new();
    for part in text.split('\u{1}') {
        let (path, body) = part.split_once('\n').unwrap_or((part, ""));
        files.push((path, body));
    }
    let _ = folder::parse("fuzz", files);
});

fn check_round_trip(file: &WalkthroughFile) {
    let fields = file.fields(Some("T"), None).expect("the title is set");
    let keys: Vec<String> = (0..file.steps.len()).map(|index| format!("k{index}")).collect();
    // YAML can contain these two characters, but they are removed before storing.
    let is_storable = |content: &StepContent| !format!("{content:?}").contains("\\r") && !format!("{content:?}").contains("\\0");
    if !file.steps.iter().all(|step| is_storable(&step.content)) {
        return;
    }
    let steps = file.steps.iter().zip(&keys).map(|(step, key)| ExportStep { key, content: &step.content });
    let text = export_markdown(&fields, steps).expect("every walkthrough can be exported");
    let reimported = markdown::parse("export.md", &text).expect("an export can be imported");
    assert!(reimported.steps.iter().map(|step| &step.content).eq(file.steps.iter().map(|step| &step.content)));
}
