//! Any text as a Markdown import, as one file and as a folder: it is refused or read.
#![no_main]

use libfuzzer_sys::fuzz_target;
use waypost_core::transfer::{folder, markdown};

fuzz_target!(|text: &str| {
    let _ = markdown::parse("fuzz.md", text);
    // Lines that look like paths name the files of a folder.
    let mut files: Vec<(&str, &str)> = Vec::new();
    for part in text.split('\u{1}') {
        let (path, body) = part.split_once('\n').unwrap_or((part, ""));
        files.push((path, body));
    }
    let _ = folder::parse("fuzz", files);
});
