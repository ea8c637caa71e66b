//! Characters that are not seen: which are removed, and which belong to a word or an emoji.

use std::ops::Range;

use icu_properties::props::{
    CanonicalCombiningClass, EmojiModifier, ExtendedPictographic, GeneralCategory, GeneralCategoryGroup,
    RegionalIndicator,
};
use icu_properties::{CodePointMapData, CodePointSetData};

const NON_JOINER: char = '\u{200C}';
const JOINER: char = '\u{200D}';
const EMOJI_STYLE: char = '\u{FE0F}';
const KEYCAP: char = '\u{20E3}';
const BLACK_FLAG: char = '\u{1F3F4}';
const CANCEL_TAG: char = '\u{E007F}';
/// Tag characters in the flag of a region: country and subdivision, as in `gbsct`. Not more, or a flag could carry a
/// hidden message to an agent.
const FLAG_TAGS: std::ops::RangeInclusive<usize> = 3..=6;

/// Whether the character changes the direction of the text around it: the property `Bidi_Control` of Unicode.
pub(super) fn is_bidi(c: char) -> bool {
    matches!(c, '\u{061C}' | '\u{200E}' | '\u{200F}' | '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}')
}

/// Whether the character is removed wherever it stands.
fn is_hidden(c: char) -> bool {
    match c {
        '\t' | '\n' => false,
        '\u{200B}' | '\u{202A}'..='\u{202E}' | '\u{2060}'..='\u{2064}' | '\u{2066}'..='\u{2069}' | '\u{FEFF}' => true,
        _ => c.is_control(),
    }
}

fn is_tag(c: char) -> bool {
    matches!(c, '\u{E0000}'..='\u{E007F}')
}

fn is_joiner(c: char) -> bool {
    matches!(c, JOINER | NON_JOINER)
}

/// The ranges of `text` to remove; what stands in `code` (sorted) stays.
pub(super) fn ranges(text: &str, code: &[Range<usize>]) -> Vec<Range<usize>> {
    let mut found: Vec<Range<usize>> = Vec::new();
    // Most text is free of them; the bytes of the candidates begin so.
    if !text.bytes().any(|b| matches!(b, 0..=8 | 11..=31 | 127 | 0xC2 | 0xE2 | 0xEF | 0xF3)) {
        return found;
    }
    let mut code = code.iter().peekable();
    let mut before = None;
    let mut ahead = Ahead { text, end: 0, next: None };
    let mut at = 0;
    while let Some(c) = text[at..].chars().next() {
        while code.next_if(|range| range.end <= at).is_some() {}
        let in_code = code.peek().is_some_and(|range| range.start <= at);
        let mut end = at + c.len_utf8();
        let mut removed = false;
        if in_code {
        } else if is_tag(c) {
            end = at + text[at..].find(|c| !is_tag(c)).unwrap_or(text.len() - at);
            removed = before != Some(BLACK_FLAG) || !is_region(&text[at..end]);
        } else if is_joiner(c) {
            removed = !belongs(c, before, ahead.after(end));
        } else {
            removed = is_hidden(c);
        }
        if !removed {
            before = text[at..end].chars().next_back();
        } else if let Some(last) = found.last_mut().filter(|last| last.end == at) {
            last.end = end;
        } else {
            found.push(at..end);
        }
        at = end;
    }
    found
}

/// Whether tag characters are those of a region's flag, Unicode Technical Standard 51, section C.1.
fn is_region(tags: &str) -> bool {
    let Some(region) = tags.strip_suffix(CANCEL_TAG) else { return false };
    FLAG_TAGS.contains(&region.chars().count())
        && region.chars().all(|c| matches!(c, '\u{E0030}'..='\u{E0039}' | '\u{E0061}'..='\u{E007A}'))
}

/// Whether a joiner between these two is part of a word or an emoji.
fn belongs(joiner: char, before: Option<char>, after: Option<char>) -> bool {
    let Some(before) = before else { return false };
    // After a virama a joiner decides how the consonant is written, also at the end of a word (RFC 5892, A.1 and A.2).
    if CodePointMapData::<CanonicalCombiningClass>::new().get(before) == CanonicalCombiningClass::Virama {
        return true;
    }
    let Some(after) = after else { return false };
    let pictographic = CodePointSetData::new::<ExtendedPictographic>();
    let in_word = is_word(before) && is_word(after);
    let in_emoji = joiner == JOINER && pictographic.contains(after) && {
        pictographic.contains(before)
            || matches!(before, EMOJI_STYLE | KEYCAP | CANCEL_TAG)
            || CodePointSetData::new::<EmojiModifier>().contains(before)
            || CodePointSetData::new::<RegionalIndicator>().contains(before)
    };
    in_word || in_emoji
}

fn is_word(c: char) -> bool {
    let category = CodePointMapData::<GeneralCategory>::new().get(c);
    GeneralCategoryGroup::Letter
        .union(GeneralCategoryGroup::Mark)
        .union(GeneralCategoryGroup::Number)
        .contains(category)
}

/// Looks for the next character that is seen. Remembers it: a long run of joiners asks again and again.
struct Ahead<'a> {
    text: &'a str,
    end: usize,
    next: Option<char>,
}

impl Ahead<'_> {
    fn after(&mut self, at: usize) -> Option<char> {
        if at > self.end || self.end == 0 {
            let rest = &self.text[at..];
            let seen = rest.char_indices().find(|&(_, c)| !is_hidden(c) && !is_tag(c) && !is_joiner(c));
            self.next = seen.map(|(_, c)| c);
            self.end = at + seen.map_or(rest.len(), |(offset, _)| offset);
        }
        self.next
    }
}
