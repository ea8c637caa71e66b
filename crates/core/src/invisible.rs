//! Invisible text: the one list of characters that nobody sees, for authors' texts, names and tickets.
//!
//! An agent reads characters that its user is not shown, so they can carry instructions (Unicode tag characters spell
//! ASCII, 256 variation selectors spell bytes) or make a text look like another one (Trojan Source, CVE-2021-42574).
//!
//! Invisible are the control characters except tab and line feed, everything that Unicode lets a renderer ignore
//! (`Default_Ignorable_Code_Point`), noncharacters, and the blanks that are no white space ([`BLANKS`]). All of them are removed,
//! in code as well, but where one changes how the visible text beside it is written:
//!
//! - a joiner or non-joiner in an emoji, beside a virama, or between letters of a script that joins (after RFC 5892, A.1 and A.2);
//! - emoji or text style, once, after a character that has both;
//! - the tag characters of a region's flag (UTS #51, section C.1);
//! - a mark of direction, once, beside a letter that is written from right to left;
//! - a Mongolian variation selector or vowel separator, once, after a Mongolian letter.

use std::borrow::Cow;
use std::ops::{Range, RangeInclusive};

use icu_properties::props::{
    BidiClass, CanonicalCombiningClass, DefaultIgnorableCodePoint, Emoji, EmojiModifier, ExtendedPictographic,
    JoiningType, NoncharacterCodePoint, RegionalIndicator,
};
use icu_properties::{CodePointMapData, CodePointSetData};

/// Characters that are drawn as nothing, though Unicode gives them a glyph: the empty Braille pattern, annotations between lines,
/// the object replacement character, two fillers, and the format characters of hieroglyphs.
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
/// Tag characters in the flag of a region: country and subdivision, as in `gbsct`. Not more, or a flag could carry a
/// hidden message to an agent.
const FLAG_TAGS: RangeInclusive<usize> = 3..=6;

/// Whether nobody sees the character: it is on the list, though the text around it may be a reason to keep it.
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

/// Whether the character changes the direction of the text around it: the property `Bidi_Control` of Unicode.
#[must_use]
pub fn is_bidi_control(c: char) -> bool {
    is_mark(c) || matches!(c, '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}')
}

/// Returns `text` without its invisible characters. Doing so twice changes nothing more.
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

/// The ranges of bytes of `text` to remove, in order. Takes linear time.
#[must_use]
pub fn ranges(text: &str) -> Vec<Range<usize>> {
    let mut found: Vec<Range<usize>> = Vec::new();
    // Most text has none of them; the bytes of the candidates begin so.
    let may_hide = |b| matches!(b, 0..=8 | 11..=31 | 127 | 0xC2 | 0xCD | 0xD8 | 0xE1..=0xE3 | 0xEF..=0xF4);
    if !text.bytes().any(may_hide) {
        return found;
    }
    let mut before = Before::default();
    let mut ahead = Ahead { text, visible: Found::default(), letter: Found::default() };
    let mut at = 0;
    while let Some(c) = text[at..].chars().next() {
        let mut end = at + c.len_utf8();
        let kept = if !is_invisible(c) {
            true
        } else if is_tag(c) {
            end = at + text[at..].find(|c| !is_tag(c)).unwrap_or(text.len() - at);
            before.last == Some(BLACK_FLAG) && is_region(&text[at..end])
        } else {
            match c {
                JOINER | NON_JOINER => joins(c, before.last, ahead.visible(end)),
                TEXT_STYLE | EMOJI_STYLE => before.last.is_some_and(|c| CodePointSetData::new::<Emoji>().contains(c)),
                '\u{180B}'..='\u{180F}' => matches!(before.last, Some('\u{1820}'..='\u{18AA}')),
                _ if is_mark(c) => {
                    !before.last.is_some_and(is_mark) && (before.right_to_left || ahead.right_to_left(end))
                }
                _ => false,
            }
        };
        if kept {
            before.pass(&text[at..end]);
        } else if let Some(last) = found.last_mut().filter(|last| last.end == at) {
            last.end = end;
        } else {
            found.push(at..end);
        }
        at = end;
    }
    found
}

/// What was kept before a place in a text.
#[derive(Default)]
struct Before {
    /// The last character.
    last: Option<char>,
    /// Whether the last letter is written from right to left.
    right_to_left: bool,
}

impl Before {
    fn pass(&mut self, kept: &str) {
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

/// The direction in which a letter is written; none for a digit, sign or mark.
fn direction(c: char) -> Option<Direction> {
    let class = CodePointMapData::<BidiClass>::new().get(c);
    match class {
        _ if is_invisible(c) => None,
        BidiClass::LeftToRight => Some(Direction::LeftToRight),
        BidiClass::RightToLeft | BidiClass::ArabicLetter => Some(Direction::RightToLeft),
        _ => None,
    }
}

/// Marks of direction: left to right, right to left, and Arabic letter.
fn is_mark(c: char) -> bool {
    matches!(c, '\u{061C}' | '\u{200E}' | '\u{200F}')
}

fn is_tag(c: char) -> bool {
    matches!(c, '\u{E0000}'..='\u{E007F}')
}

fn is_region(tags: &str) -> bool {
    let Some(region) = tags.strip_suffix(CANCEL_TAG) else { return false };
    FLAG_TAGS.contains(&region.chars().count())
        && region.chars().all(|c| matches!(c, '\u{E0030}'..='\u{E0039}' | '\u{E0061}'..='\u{E007A}'))
}

/// Whether a joiner between these two changes how a word or an emoji is written.
fn joins(joiner: char, before: Option<char>, after: Option<char>) -> bool {
    let Some(before) = before else { return false };
    let is_virama = |c| CodePointMapData::<CanonicalCombiningClass>::new().get(c) == CanonicalCombiningClass::Virama;
    // After a virama also at the end of a word; before one it is no mark of its own.
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

/// Looks for the next character that is seen, and for the next letter. Remembers them: a long run of joiners asks again and again.
struct Ahead<'a> {
    text: &'a str,
    visible: Found<char>,
    letter: Found<Direction>,
}

/// What was found, and up to where it is the answer.
struct Found<T> {
    until: Option<usize>,
    value: Option<T>,
}

impl<T> Default for Found<T> {
    fn default() -> Self {
        Self { until: None, value: None }
    }
}

impl<T: Copy> Found<T> {
    fn from(&mut self, text: &str, at: usize, look: impl Fn(char) -> Option<T>) -> Option<T> {
        if self.until.is_none_or(|until| until < at) {
            let rest = &text[at..];
            let found = rest.char_indices().find_map(|(offset, c)| Some((offset, look(c)?)));
            self.until = Some(at + found.map_or(rest.len(), |(offset, _)| offset));
            self.value = found.map(|(_, value)| value);
        }
        self.value
    }
}

impl Ahead<'_> {
    fn visible(&mut self, at: usize) -> Option<char> {
        self.visible.from(self.text, at, |c| (!is_invisible(c)).then_some(c))
    }

    fn right_to_left(&mut self, at: usize) -> bool {
        self.letter.from(self.text, at, direction) == Some(Direction::RightToLeft)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_nobody_sees_goes() {
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
    fn what_is_written_differently_stays() {
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
    fn no_more_stays_than_is_seen() {
        for (text, visible) in [
            // A message in tag characters after a flag, in selectors after an emoji, in joiners and marks between letters.
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
        fn removing_twice_is_removing_once(text in "(\\PC|[a\u{5D0}\u{633}\u{915}\u{94D}\u{1F3F4}\u{1820}❤👩]|[\u{200C}-\u{200F}\u{61C}\u{FE0E}\u{FE0F}\u{E0061}\u{E007F}\u{180B}\u{AD}\u{202E}]){0,30}") {
            let visible = remove(&text);
            prop_assert!(matches!(remove(&visible), Cow::Borrowed(_)), "{:?} from {:?}", visible, text);
            let seen = |text: &str| text.chars().filter(|&c| !is_invisible(c)).collect::<String>();
            prop_assert_eq!(seen(&visible), seen(&text));
        }
    }
}
