//! Any text as an import, as one file and as a folder: it is refused or read; and what was read survives an export as Markdown.
#![no_main]

use libfuzzer_sys::fuzz_target;
use waypost_core::step::StepContent;
use waypost_core::transfer::export::ExportStep;
use waypost_core::transfer::export_markdown::export_markdown;
use waypost_core::transfer::file::WalkthroughFile;
use waypost_core::transfer::{self, folder, markdown};

fuzz_target!(|text: &str| {
    if let Ok(file) = markdown::parse("fuzz.md", text) {
        survives(&file);
    }
    let _ = transfer::parse("fuzz.tour", text);
    // Lines that look like paths name the files of a folder.
    let mut files: Vec<(&str, &str)> = Vec::new();
    for part in text.split('\u{1}') {
        let (path, body) = part.split_once('\n').unwrap_or((part, ""));
        files.push((path, body));
    }
    let _ = folder::parse("fuzz", files);
});

fn survives(file: &WalkthroughFile) {
    let fields = file.fields(Some("T"), None).expect("a title is given");
    let keys: Vec<String> = (0..file.steps.len()).map(|at| format!("k{at}")).collect();
    // Storing takes these two away; YAML can bring them in.
    let is_stored = |content: &StepContent| !format!("{content:?}").contains("\\r") && !format!("{content:?}").contains("\\0");
    if !file.steps.iter().all(|step| is_stored(&step.content)) {
        return;
    }
    let steps = file.steps.iter().zip(&keys).map(|(step, key)| ExportStep { key, content: &step.content });
    let text = export_markdown(&fields, steps).expect("every walkthrough fits");
    let read = markdown::parse("export.md", &text).expect("what is written is a fine file");
    assert!(read.steps.iter().map(|step| &step.content).eq(file.steps.iter().map(|step| &step.content)));
}
