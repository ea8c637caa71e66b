//! Cleaning of authors' text before it is served. Only offending spans change, and cleaning is idempotent. Text is
//! stored as typed, except for [`normalize_line_endings`].
//!
//! - [`clean_markdown`] is for a step's content: no HTML, no dangerous links, no text that is not rendered.
//! - [`clean_plain`] is for agent fields and descriptions, [`clean_line`] for titles: no invisible characters. These
//!   fields are plain text, so a `<port>` in them is kept.
//! - [`find_bidi_in_code`] is for linting and publishing: bidirectional controls make code look different from what is
//!   executed.
//!
//! Two changes apply everywhere, including code: every line ends in one line feed (`\r\n` and a lone `\r` are line
//! endings in Markdown, and the text must not depend on the system it was written on), and invisible characters are
//! removed ([`crate::invisible`]).

mod block;
mod fix;
mod gap;
mod html;
mod link;
mod survey;
#[cfg(test)]
mod tests;
mod unrendered;

use std::borrow::Cow;
use std::fmt::Write;

use survey::Survey;

use crate::invisible;

/// The number of rounds in which code is protected: an edit that would turn text into code, or code into text, is
/// replaced with another edit. Text that was not written to deceive needs two or three rounds.
const CAREFUL_ROUNDS: usize = 6;
/// Maximum number of rounds before [`flatten`]. Limited, because each round parses the whole text.
const ROUNDS: usize = 12;

/// Cleans Markdown.
///
/// - Known HTML tags and comments are removed; the text between them is kept. Words stay separate: tags such as `<br>`,
///   `<p>` and `<li>` become a line break, tags such as `<kbd>`, `<sub>` and `<td>` a space. Scripts, style sheets,
///   frames, drawings and embedded objects are removed with their content.
/// - Unknown tags, placeholders such as `<port>`, processing instructions and similar constructs are escaped: every
///   renderer shows `\<port>` as `<port>`, and it is readable as plain text, too.
/// - A link, image, reference or autolink to a `javascript:`, `vbscript:`, `data:` or `file:` URL is replaced with its
///   text.
/// - Text that is never rendered is removed: link titles, text after the language of a fenced block, cells beyond the
///   last column of a table, and unreferenced footnotes and definitions, such as `[//]: # (…)`.
/// - Invisible characters are removed as in [`clean_plain`], including those written as entities.
///
/// Except for invisible characters, code spans and code blocks are preserved byte for byte. A removal can produce a new
/// tag or link (`<scr<b>ipt>`), so the text is parsed again until nothing is left to change. Takes approximately linear
/// time.
#[must_use]
pub fn clean_markdown(text: &str) -> Cow<'_, str> {
    let mut text = prepare(text);
    let mut survey = Survey::of(&text);
    for round in 0..ROUNDS {
        if !survey.has_offences() {
            return text;
        }
        let (fixed, next) = fix::fix(&text, &survey, round < CAREFUL_ROUNDS);
        text = Cow::Owned(fixed);
        survey = next;
    }
    if survey.has_offences() { Cow::Owned(flatten(&text)) } else { text }
}

/// Cleans plain text: removes invisible characters (see [`crate::invisible`]).
#[must_use]
pub fn clean_plain(text: &str) -> Cow<'_, str> {
    match prepare(text) {
        Cow::Borrowed(text) => invisible::remove(text),
        Cow::Owned(text) => Cow::Owned(invisible::remove(&text).into_owned()),
    }
}

/// Cleans a title: like [`clean_plain`], with every run of white space collapsed to one space, and trimmed.
#[must_use]
pub fn clean_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for word in clean_plain(text).split_whitespace() {
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    line
}

/// Returns the first bidirectional control character in a code span or code block of the Markdown `text`. Such a
/// character makes code look different from what is executed.
#[must_use]
pub fn find_bidi_in_code(text: &str) -> Option<char> {
    Survey::of(text).code.iter().flat_map(|range| text[range.clone()].chars()).find(|&c| invisible::is_bidi_control(c))
}

/// Returns `text` in the form in which it is stored: every line ends in a line feed (`\r\n` and a lone `\r` are line
/// endings in Markdown, and the text must not depend on the system it was written on), and U+0000 is removed, because
/// PostgreSQL cannot store it.
#[must_use]
pub fn normalize_line_endings(text: &str) -> Cow<'_, str> {
    if !text.contains(['\r', '\0']) {
        return Cow::Borrowed(text);
    }
    Cow::Owned(text.replace('\0', "").replace("\r\n", "\n").replace('\r', "\n"))
}

/// Prepares a text for parsing: like [`normalize_line_endings`], and without a leading byte order mark, which would
/// prevent a heading or fence in the first line from being recognised.
fn prepare(text: &str) -> Cow<'_, str> {
    normalize_line_endings(text.trim_start_matches('\u{FEFF}'))
}

/// Escapes the characters that every tag, entity, link, definition, fence and table requires, including in code. This
/// is the last resort for text that was written to defeat the cleaner.
fn flatten(text: &str) -> String {
    let mut flat = String::with_capacity(text.len());
    for c in clean_plain(text).chars() {
        match c {
            '&' | '<' | '[' | '`' | '~' | '|' => {
                let _ = write!(flat, "&#{};", u32::from(c));
            }
            _ => flat.push(c),
        }
    }
    flat
}
