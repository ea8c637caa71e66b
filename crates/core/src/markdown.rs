//! Cleaning of what authors write, before it is served: only the offending spans change, and cleaning what is clean
//! changes nothing. What authors write is stored as they typed it, but for [`normalize_line_endings`].
//!
//! - [`clean_markdown`] for a step's content: no HTML, no dangerous links, nothing that is not shown.
//! - [`clean_plain`] for agent fields and descriptions, [`clean_line`] for titles: no invisible characters. These
//!   fields are plain text, so a `<port>` in them stays as it is.
//! - [`find_bidi_in_code`] for lint and publish: such characters make code look other than it is.
//!
//! Two things change everywhere, in code as well: a line ends in one line feed (`\r\n` and a lone `\r` are line
//! endings in Markdown, and the text must be the same whichever system it was written on), and invisible characters are
//! removed ([`crate::invisible`]).

mod block;
mod gap;
mod html;
mod link;
mod mend;
mod survey;
#[cfg(test)]
mod tests;
mod unseen;

use std::borrow::Cow;
use std::fmt::Write;

use survey::Survey;

use crate::invisible;

/// Rounds in which code is watched over: an edit that would turn text into code, or code into text, is done in
/// another way. Text that nobody wrote to deceive needs two or three.
const CAREFUL_ROUNDS: usize = 6;
/// Rounds at most before [`flatten`]. Bounded, since each costs a parse of the whole text.
const ROUNDS: usize = 12;

/// Cleans Markdown.
///
/// - Known HTML tags and comments are removed and the text between them stays. Words stay apart: a line break stands for
///   `<br>`, `<p>`, `<li>` and the like, a space for `<kbd>`, `<sub>`, `<td>` and the like. A script, style sheet, frame, drawing
///   or embedded object goes with what is in it.
/// - Unknown tags, placeholders such as `<port>`, processing instructions and the like are escaped: `\<port>` is shown
///   as `<port>` by every renderer, and reads well where nothing is rendered.
/// - A link, image, reference or autolink to a `javascript:`, `vbscript:`, `data:` or `file:` address becomes its text.
/// - Text that no renderer shows is removed: titles of links, what follows the language of a fenced block, cells beyond the
///   last column of a table, footnotes and definitions that nothing refers to. `[//]: # (…)` is such a definition.
/// - Invisible characters are removed as in [`clean_plain`], also those that are written as entities.
///
/// But for invisible characters, code spans and code blocks stay byte for byte. A removal can bring a new tag or link about (`<scr<b>ipt>`); so the
/// text is read again until there is nothing left to change. Takes about linear time.
#[must_use]
pub fn clean_markdown(text: &str) -> Cow<'_, str> {
    let mut text = line_feeds(text);
    let mut survey = Survey::of(&text);
    for round in 0..ROUNDS {
        if !survey.offends() {
            return text;
        }
        let (mended, next) = mend::mend(&text, &survey, round < CAREFUL_ROUNDS);
        text = Cow::Owned(mended);
        survey = next;
    }
    if survey.offends() { Cow::Owned(flatten(&text)) } else { text }
}

/// Cleans plain text: removes invisible characters, see [`crate::invisible`].
#[must_use]
pub fn clean_plain(text: &str) -> Cow<'_, str> {
    match line_feeds(text) {
        Cow::Borrowed(text) => invisible::remove(text),
        Cow::Owned(text) => Cow::Owned(invisible::remove(&text).into_owned()),
    }
}

/// Cleans a title: as [`clean_plain`], with every run of white space folded to one space and none at the ends.
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

/// The first bidirectional control inside a code span or code block of `text`, Markdown. Such a character makes code
/// read differently from what a machine runs.
#[must_use]
pub fn find_bidi_in_code(text: &str) -> Option<char> {
    Survey::of(text).code.iter().flat_map(|range| text[range.clone()].chars()).find(|&c| invisible::is_bidi_control(c))
}

/// Returns `text` as it is stored: every line ends in a line feed (`\r\n` and a lone `\r` are line endings in Markdown, and
/// the text must be the same whichever system it was written on), and there is no U+0000, which PostgreSQL cannot store.
#[must_use]
pub fn normalize_line_endings(text: &str) -> Cow<'_, str> {
    if !text.contains(['\r', '\0']) {
        return Cow::Borrowed(text);
    }
    Cow::Owned(text.replace('\0', "").replace("\r\n", "\n").replace('\r', "\n"))
}

/// As [`normalize_line_endings`], and without a byte order mark at the start, before anything is parsed: it would keep a heading or
/// fence in the first line from being one.
fn line_feeds(text: &str) -> Cow<'_, str> {
    normalize_line_endings(text.trim_start_matches('\u{FEFF}'))
}

/// The last resort for text that is written to defeat the cleaner: without these characters there is no tag, entity, link,
/// definition, fence or table, whatever else it says. Code is not spared.
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
