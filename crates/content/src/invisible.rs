//! Invisible characters: their definition and removal, for authors' text, names and tickets.
//!
//! Agents read characters that users do not see. Such characters can therefore carry hidden instructions (Unicode tag
//! characters encode ASCII, 256 variation selectors encode bytes) or make a text look like a different one (Trojan
//! Source, CVE-2021-42574).
//!
//! The invisible characters are control characters except tab and line feed, all characters that Unicode allows a
//! renderer to ignore (`Default_Ignorable_Code_Point`), noncharacters, and blank characters that are not white space
//! ([`BLANKS`]). All of them are removed, including in code, except where they affect how adjacent visible text is
//! rendered:
//!
//! - a joiner or non-joiner in an emoji, next to a virama, or between letters of a joining script (cf. RFC 5892, A.1
//!   and A.2);
//! - one emoji or text style selector after a character that has both styles;
//! - the tag characters of a subdivision flag (UTS #51, section C.1);
//! - one directional mark next to a right-to-left letter;
//! - one Mongolian variation selector or vowel separator after a Mongolian letter.

use std::borrow::Cow;
use std::ops::{Range, RangeInclusive};

use icu_properties::props::{
    BidiClass, CanonicalCombiningClass, DefaultIgnorableCodePoint, Emoji, EmojiModifier, ExtendedPictographic,
    JoiningType, NoncharacterCodePoint, RegionalIndicator,
};
use icu_properties::{CodePointMapData, CodePointSetData};

/// Characters that are rendered as blank although they are not default-ignorable: the empty Braille pattern,
/// interlinear annotations, the object replacement character, two fillers, and the format characters of hieroglyphs.
const BLANKS: [RangeInclusive<char>; 5] = [
    '\u{2800}'..='\u{2800}',
    '\u{FFF9}'..='\u{FFFC}',
    '\u{13430}'..='\u{1343F}',
    '\u{16FE4}'..='\u{16FE4}',
    '\u{1D159}'..='\u{1D159}',
];
const NON_JOINER: char = '\u{200C}';
const JOINER: char = '\u{200D}';
const TEXT_STYLE: char = '\u{FE0E}';
const EMOJI_STYLE: char = '\u{FE0F}';
const KEYCAP: char = '\u{20E3}';
const BLACK_FLAG: char = '\u{1F3F4}';
const CANCEL_TAG: char = '\u{E007F}';
/// Length of the tag sequence in a subdivision flag: country and subdivision, as in `gbsct`. Limited, because a longer
/// sequence could carry a hidden message to an agent.
const FLAG_TAGS: RangeInclusive<usize> = 3..=6;

/// Whether the character is invisible. [`remove`] may still keep it because of the surrounding text.
#[must_use]
pub fn is_invisible(c: char) -> bool {
    match c {
        '\t' | '\n' | ' '..='~' => false,
        _ => {
            c.is_control()
                || CodePointSetData::new::<DefaultIgnorableCodePoint>().contains(c)
                || CodePointSetData::new::<NoncharacterCodePoint>().contains(c)
                || BLANKS.iter().any(|range| range.contains(&c))
        }
    }
}

/// Whether the character changes the direction of the surrounding text (Unicode property `Bidi_Control`).
#[must_use]
pub fn is_bidi_control(c: char) -> bool {
    is_directional_mark(c) || matches!(c, '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}')
}

/// Returns `text` without its invisible characters. Idempotent.
#[must_use]
pub fn remove(text: &str) -> Cow<'_, str> {
    let ranges = ranges(text);
    if ranges.is_empty() {
        return Cow::Borrowed(text);
    }
    let mut visible = String::with_capacity(text.len());
    let mut from = 0;
    for range in ranges {
        visible.push_str(&text[from..range.start]);
        from = range.end;
    }
    visible.push_str(&text[from..]);
    Cow::Owned(visible)
}

/// Returns `text` with every invisible character replaced with a JSON escape (RFC 8259, section 7), such as `\u200B`.
/// Line breaks and tabs are kept.
#[must_use]
pub fn escape(text: &str) -> Cow<'_, str> {
    if !text.contains(is_invisible) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len() * 2);
    for c in text.chars() {
        if is_invisible(c) {
            let mut units = [0; 2];
            escaped.extend(c.encode_utf16(&mut units).iter().map(|unit| format!("\\u{unit:04X}")));
        } else {
            escaped.push(c);
        }
    }
    Cow::Owned(escaped)
}

/// Returns the byte ranges of `text` to remove, in order. Takes linear time.
#[must_use]
pub fn ranges(text: &str) -> Vec<Range<usize>> {
    let mut ranges: Vec<Range<usize>> = Vec::new();
    // Most text contains no invisible characters. These are the bytes with which one can start.
    let can_start_invisible = |b| matches!(b, 0..=8 | 11..=31 | 127 | 0xC2 | 0xCD | 0xD8 | 0xE1..=0xE3 | 0xEF..=0xF4);
    if !text.bytes().any(can_start_invisible) {
        return ranges;
    }
    let mut before = KeptText::default();
    let mut ahead = Lookahead { text, visible: Lookup::default(), letter: Lookup::default() };
    let mut at = 0;
    while let Some(c) = text[at..].chars().next() {
        let mut end = at + c.len_utf8();
        let kept = if !is_invisible(c) {
            true
        } else if is_tag(c) {
            end = at + text[at..].find(|c| !is_tag(c)).unwrap_or(text.len() - at);
            before.last == Some(BLACK_FLAG) && is_flag_sequence(&text[at..end])
        } else {
            match c {
                JOINER | NON_JOINER => is_meaningful_joiner(c, before.last, ahead.visible(end)),
                TEXT_STYLE | EMOJI_STYLE => before.last.is_some_and(|c| CodePointSetData::new::<Emoji>().contains(c)),
                '\u{180B}'..='\u{180F}' => matches!(before.last, Some('\u{1820}'..='\u{18AA}')),
                _ if is_directional_mark(c) => {
                    !before.last.is_some_and(is_directional_mark)
                        && (before.right_to_left || ahead.is_right_to_left(end))
                }
                _ => false,
            }
        };
        if kept {
            before.update(&text[at..end]);
        } else if let Some(last) = ranges.last_mut().filter(|last| last.end == at) {
            last.end = end;
        } else {
            ranges.push(at..end);
        }
        at = end;
    }
    ranges
}

/// The text kept so far.
#[derive(Default)]
struct KeptText {
    /// The last character.
    last: Option<char>,
    /// Whether the last letter is written from right to left.
    right_to_left: bool,
}

impl KeptText {
    fn update(&mut self, kept: &str) {
        self.last = kept.chars().next_back();
        if let Some(direction) = self.last.and_then(direction) {
            self.right_to_left = direction == Direction::RightToLeft;
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Direction {
    LeftToRight,
    RightToLeft,
}

/// Returns the writing direction of a letter. Returns `None` for digits, symbols and marks.
fn direction(c: char) -> Option<Direction> {
    let class = CodePointMapData::<BidiClass>::new().get(c);
    match class {
        _ if is_invisible(c) => None,
        BidiClass::LeftToRight => Some(Direction::LeftToRight),
        BidiClass::RightToLeft | BidiClass::ArabicLetter => Some(Direction::RightToLeft),
        _ => None,
    }
}

/// Whether the character is a directional mark: left-to-right, right-to-left, or Arabic letter mark.
fn is_directional_mark(c: char) -> bool {
    matches!(c, '\u{061C}' | '\u{200E}' | '\u{200F}')
}

fn is_tag(c: char) -> bool {
    matches!(c, '\u{E0000}'..='\u{E007F}')
}

fn is_flag_sequence(tags: &str) -> bool {
    let Some(region) = tags.strip_suffix(CANCEL_TAG) else { return false };
    FLAG_TAGS.contains(&region.chars().count())
        && region.chars().all(|c| matches!(c, '\u{E0030}'..='\u{E0039}' | '\u{E0061}'..='\u{E007A}'))
}

/// Whether a joiner between these two characters changes how a word or an emoji is rendered.
fn is_meaningful_joiner(joiner: char, before: Option<char>, after: Option<char>) -> bool {
    let Some(before) = before else { return false };
    let is_virama = |c| CodePointMapData::<CanonicalCombiningClass>::new().get(c) == CanonicalCombiningClass::Virama;
    // A joiner after a virama is meaningful even at the end of a word.
    if is_virama(before) {
        return true;
    }
    let Some(after) = after else { return false };
    let is_joining = |c| !is_invisible(c) && CodePointMapData::<JoiningType>::new().get(c) != JoiningType::NonJoining;
    let in_word = (is_joining(before) && is_joining(after)) || (is_virama(after) && before.is_alphanumeric());
    let pictographic = CodePointSetData::new::<ExtendedPictographic>();
    let in_emoji = joiner == JOINER && pictographic.contains(after) && {
        pictographic.contains(before)
            || matches!(before, EMOJI_STYLE | KEYCAP | CANCEL_TAG)
            || CodePointSetData::new::<EmojiModifier>().contains(before)
            || CodePointSetData::new::<RegionalIndicator>().contains(before)
    };
    in_word || in_emoji
}

/// Finds the next visible character and the next letter. Caches them, because a long run of joiners repeats the same
/// lookup.
struct Lookahead<'a> {
    text: &'a str,
    visible: Lookup<char>,
    letter: Lookup<Direction>,
}

/// A cached lookup and the position up to which it is valid.
struct Lookup<T> {
    until: Option<usize>,
    value: Option<T>,
}

impl<T> Default for Lookup<T> {
    fn default() -> Self {
        Self { until: None, value: None }
    }
}

impl<T: Copy> Lookup<T> {
    fn find_from(&mut self, text: &str, at: usize, matcher: impl Fn(char) -> Option<T>) -> Option<T> {
        if self.until.is_none_or(|until| until < at) {
            let rest = &text[at..];
            let found = rest.char_indices().find_map(|(offset, c)| Some((offset, matcher(c)?)));
            self.until = Some(at + found.map_or(rest.len(), |(offset, _)| offset));
            self.value = found.map(|(_, value)| value);
        }
        self.value
    }
}

impl Lookahead<'_> {
    fn visible(&mut self, at: usize) -> Option<char> {
        self.visible.find_from(self.text, at, |c| (!is_invisible(c)).then_some(c))
    }

    fn is_right_to_left(&mut self, at: usize) -> bool {
        self.letter.find_from(self.text, at, direction) == Some(Direction::RightToLeft)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn invisible_characters_are_removed() {
        for hidden in [
            "\u{1}\u{7}\u{8}\u{B}\u{C}\u{1B}\u{7F}\u{80}\u{85}\u{9F}\0\r",
            "\u{AD}\u{34F}\u{115F}\u{1160}\u{17B4}\u{17B5}\u{180B}\u{180E}\u{2800}\u{3164}\u{FFA0}",
            "\u{200B}\u{200C}\u{200D}\u{200E}\u{200F}\u{61C}\u{2060}\u{2061}\u{2062}\u{2063}\u{2064}\u{2065}\u{206A}\u{FEFF}",
            "\u{202A}\u{202B}\u{202C}\u{202D}\u{202E}\u{2066}\u{2067}\u{2068}\u{2069}",
            "\u{FE00}\u{FE0E}\u{FE0F}\u{E0100}\u{E01EF}\u{E0FFF}\u{FFF0}\u{FFF9}\u{FFFA}\u{FFFB}\u{FFFC}\u{FFFE}\u{10FFFF}",
            "\u{E0001}\u{E0041}\u{E0042}\u{E007F}\u{1D159}\u{1D173}\u{1BCA0}\u{13430}\u{16FE4}",
        ] {
            for c in hidden.chars() {
                assert_eq!(remove(&format!("a{c}b")), "ab", "{c:?}");
            }
            assert_eq!(remove(&format!("a{hidden}b")), "ab");
            assert_eq!(remove(hidden), "");
        }
    }

    #[test]
    fn invisible_characters_are_escaped_for_reviewers() {
        assert!(matches!(escape("a\n\tü"), Cow::Borrowed(_)));
        assert_eq!(escape("a\u{200B}b\u{E0041}\n"), "a\\u200Bb\\uDB40\\uDC41\n");
        let quoted = format!("\"{}\"", escape("\u{202E}x\u{E007F}"));
        assert_eq!(serde_json::from_str::<String>(&quoted).unwrap(), "\u{202E}x\u{E007F}");
    }

    #[test]
    fn characters_that_affect_visible_text_are_kept() {
        for text in [
            "",
            "plain\ttext\n\u{a0}\u{2028}üñí 日本語 Ελλ",
            "می\u{200C}خواهم क्\u{200D}ष ന\u{D4D}\u{200D} x র\u{200D}\u{9CD}য",
            "👩\u{200D}💻 ❤\u{FE0F}\u{200D}🔥 🧑🏽\u{200D}🤝\u{200D}🧑🏻 🏳\u{FE0F}\u{200D}🌈 🏴\u{200D}☠\u{FE0F} 1\u{FE0F}\u{20E3} ☎\u{FE0E}",
            "\u{1F3F4}\u{E0067}\u{E0062}\u{E0073}\u{E0063}\u{E0074}\u{E007F} flag",
            "שלום!\u{200F} C++\u{200E} עברית",
            "ᠰᠠᠶᠢ\u{180B} ᠨ\u{180E}ᠠ",
        ] {
            assert!(matches!(remove(text), Cow::Borrowed(same) if same == text), "{text:?} became {:?}", remove(text));
        }
    }

    #[test]
    fn redundant_invisible_characters_are_removed() {
        for (text, visible) in [
            // A message in tag characters after a flag, in selectors after an emoji, in joiners and marks between
            // letters.
            ("\u{1F3F4}\u{E0069}\u{E0067}\u{E006E}\u{E006F}\u{E0072}\u{E0065}\u{E0020}\u{E007F}", "\u{1F3F4}"),
            ("😀\u{FE0F}\u{FE0E}\u{FE01}\u{E0100}\u{E0101}", "😀\u{FE0F}"),
            ("a\u{200C}b\u{200D}c \u{200D} d\u{200C}", "abc  d"),
            ("می\u{200C}\u{200C}\u{200D}خواهم", "می\u{200C}خواهم"),
            ("שלום\u{200F}\u{200E}\u{200F}", "שלום\u{200F}"),
            ("a\u{200F}b", "ab"),
            ("葛\u{E0100}城", "葛城"),
            ("ᠠ\u{180B}\u{180C}", "ᠠ\u{180B}"),
        ] {
            assert_eq!(remove(text), visible, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn removal_is_idempotent(text in "(\\PC|[a\u{5D0}\u{633}\u{915}\u{94D}\u{1F3F4}\u{1820}❤👩]|[\u{200C}-\u{200F}\u{61C}\u{FE0E}\u{FE0F}\u{E0061}\u{E007F}\u{180B}\u{AD}\u{202E}]){0,30}") {
            let visible = remove(&text);
            prop_assert!(matches!(remove(&visible), Cow::Borrowed(_)), "{:?} from {:?}", visible, text);
            let visible_chars = |text: &str| text.chars().filter(|&c| !is_invisible(c)).collect::<String>();
            prop_assert_eq!(visible_chars(&visible), visible_chars(&text));
        }
    }
}
