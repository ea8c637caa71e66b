//! Cleans arbitrary text. Cleaning is idempotent and removes every forbidden character.
#![no_main]

use libfuzzer_sys::fuzz_target;
use waypost_content::markdown::{find_bidi_in_code, clean_line, clean_markdown, clean_plain};
use waypost_content::clean;
use waypost_core::step::StepContent;

fuzz_target!(|text: &str| {
    let once = clean_markdown(text);
    assert_eq!(clean_markdown(&once), once, "cleaning is idempotent");
    assert!(!once.contains('\0'));
    let plain = clean_plain(text);
    assert_eq!(clean_plain(&plain), plain);
    assert!(!plain.chars().any(|c| matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{200b}' | '\u{feff}')));
    let line = clean_line(text);
    assert!(!line.contains('\n'));
    let _ = find_bidi_in_code(text);
    // Words on both sides of a line break stay separate.
    let with_break = format!("left<br>right {once}");
    assert!(!clean_markdown(&with_break).starts_with("leftright"));
    let original = StepContent { title: text.into(), content: text.into(), context_for_agent: Some(text.into()), ..StepContent::default() };
    let served = clean::step(&original);
    assert_eq!(clean::step(&served), served, "served content is clean");
    let _ = clean::changes(&original, &served);
});
