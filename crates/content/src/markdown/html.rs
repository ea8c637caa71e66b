//! HTML as defined by CommonMark: scanning tags, and the list of known elements.

/// The elements of HTML, including obsolete ones. Omits `dir` and `param`, which are no longer used as tags but often
/// as placeholders.
#[rustfmt::skip]
const KNOWN: &[&str] = &[
    "a", "abbr", "acronym", "address", "applet", "area", "article", "aside", "audio", "b", "base", "basefont", "bdi",
    "bdo", "bgsound", "big", "blink", "blockquote", "body", "br", "button", "canvas", "caption", "center", "cite",
    "code", "col", "colgroup", "data", "datalist", "dd", "del", "details", "dfn", "dialog", "div", "dl", "dt", "em",
    "embed", "fieldset", "figcaption", "figure", "font", "footer", "form", "frame", "frameset", "h1", "h2", "h3", "h4",
    "h5", "h6", "head", "header", "hgroup", "hr", "html", "i", "iframe", "img", "input", "ins", "kbd", "keygen",
    "label", "legend", "li", "link", "listing", "main", "map", "mark", "marquee", "math", "menu", "meta", "meter",
    "nav", "nobr", "noembed", "noframes", "noscript", "object", "ol", "optgroup", "option", "output", "p", "picture",
    "plaintext", "pre", "progress", "q", "rb", "rp", "rt", "rtc", "ruby", "s", "samp", "script", "search", "section",
    "select", "slot", "small", "source", "span", "strike", "strong", "style", "sub", "summary", "sup", "svg", "table",
    "tbody", "td", "template", "textarea", "tfoot", "th", "thead", "time", "title", "tr", "track", "tt", "u", "ul",
    "var", "video", "wbr", "xmp",
];
/// Elements whose content is not text.
const OPAQUE: [&str; 10] =
    ["applet", "iframe", "math", "noembed", "noframes", "object", "script", "style", "svg", "template"];
/// Elements that are never treated as the name of a type.
const NEVER_TYPES: [&str; 3] = ["iframe", "script", "style"];

/// A complete tag at the start of a text.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Tag<'a> {
    pub name: &'a str,
    /// Length in bytes, from `<` to `>`.
    pub len: usize,
    pub closing: bool,
    /// Whether it consists only of its name.
    bare: bool,
}

/// The action to take for a piece of HTML.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Remove,
    Escape,
}

/// Returns the action for one complete piece of HTML. `before` is the preceding character.
pub(super) fn judge(html: &str, before: Option<char>) -> Verdict {
    let known = match scan(html) {
        Some(tag) => tag.is_known() && !tag.is_type_argument(before),
        None => html.starts_with("<!--") || is_doctype(html),
    };
    if known { Verdict::Remove } else { Verdict::Escape }
}

pub(super) fn is_doctype(html: &str) -> bool {
    html.as_bytes().get(..9).is_some_and(|start| start.eq_ignore_ascii_case(b"<!doctype"))
}

impl Tag<'_> {
    pub(super) fn is_known(&self) -> bool {
        KNOWN.binary_search(&self.name.to_ascii_lowercase().as_str()).is_ok()
    }

    /// Whether the content up to the closing tag is removed as well.
    pub(super) fn is_opaque(&self) -> bool {
        !self.closing && OPAQUE.iter().any(|name| name.eq_ignore_ascii_case(self.name))
    }

    /// Whether it is the argument of a generic type, as in `List<Object>`. Removing it would lose text.
    fn is_type_argument(&self, before: Option<char>) -> bool {
        self.bare
            && !self.closing
            && self.name.len() > 2
            && self.name.starts_with(|c: char| c.is_ascii_uppercase())
            && self.name.contains(|c: char| c.is_ascii_lowercase())
            && before.is_some_and(|c| c.is_alphanumeric() || c == '_')
            && !NEVER_TYPES.iter().any(|name| name.eq_ignore_ascii_case(self.name))
    }
}

/// Scans an open or closing tag at the start of `text` (CommonMark 0.31, section 6.6). Returns `None` if there is none.
pub(super) fn scan(text: &str) -> Option<Tag<'_>> {
    let bytes = text.as_bytes();
    let closing = bytes.get(1) == Some(&b'/');
    let name_start = if closing { 2 } else { 1 };
    if bytes.first() != Some(&b'<') || !bytes.get(name_start)?.is_ascii_alphabetic() {
        return None;
    }
    let name_end = name_start + run(&bytes[name_start..], |b| b.is_ascii_alphanumeric() || b == b'-');
    let mut at = name_end;
    if !closing {
        while let Some(len) = attribute(&bytes[at..]) {
            at += len;
        }
    }
    let bare = at == name_end;
    at += blank(&bytes[at..]);
    if !closing && bytes.get(at) == Some(&b'/') {
        at += 1;
    }
    (bytes.get(at) == Some(&b'>')).then(|| Tag { name: &text[name_start..name_end], len: at + 1, closing, bare })
}

/// Returns the length in bytes of an attribute, including the preceding white space.
fn attribute(bytes: &[u8]) -> Option<usize> {
    let mut at = blank(bytes);
    let first = *bytes.get(at)?;
    if at == 0 || !(first.is_ascii_alphabetic() || matches!(first, b'_' | b':')) {
        return None;
    }
    at += run(&bytes[at..], |b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b':' | b'-'));
    let equals = at + blank(&bytes[at..]);
    if bytes.get(equals) != Some(&b'=') {
        return Some(at);
    }
    let value = equals + 1 + blank(&bytes[equals + 1..]);
    match *bytes.get(value)? {
        quote @ (b'"' | b'\'') => {
            let len = bytes[value + 1..].iter().position(|&b| b == quote)?;
            Some(value + len + 2)
        }
        _ => {
            let len =
                run(&bytes[value..], |b| !matches!(b, b' ' | b'\t' | b'\n' | b'"' | b'\'' | b'=' | b'<' | b'>' | b'`'));
            (len > 0).then_some(value + len)
        }
    }
}

/// Returns the positions of characters that need a backslash once the tag becomes text. An underscore inside a word has
/// no meaning, and `<your api_key>` is more readable without a backslash.
pub(super) fn marks(tag: &str) -> impl Iterator<Item = usize> {
    let bytes = tag.as_bytes();
    let in_word = |at: usize| bytes.get(at).is_some_and(u8::is_ascii_alphanumeric);
    bytes.iter().enumerate().filter_map(move |(at, byte)| {
        let needs_escape = match byte {
            b'<' | b'`' | b'*' | b'[' | b']' | b'~' | b'\\' => true,
            b'_' => !(in_word(at - 1) && in_word(at + 1)),
            _ => false,
        };
        needs_escape.then_some(at)
    })
}

fn blank(bytes: &[u8]) -> usize {
    run(bytes, |b| matches!(b, b' ' | b'\t' | b'\n'))
}

fn run(bytes: &[u8], is_part: impl Fn(u8) -> bool) -> usize {
    bytes.iter().position(|&b| !is_part(b)).unwrap_or(bytes.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_elements_are_sorted() {
        assert!(KNOWN.is_sorted(), "required for binary search");
    }

    #[test]
    fn the_length_of_tags_is_correct() {
        for (text, len) in [
            ("<b>x", Some(3)),
            ("</b >x", Some(5)),
            ("<br/>", Some(5)),
            ("<a href='>' title=\"a\nb\" x y=z>", Some(30)),
            ("<your-api-key>", Some(14)),
            ("<your api_key>", Some(14)),
            ("<1>", None),
            ("<b", None),
            ("</b x>", None),
            ("<a \"b\">", None),
            ("<String, Value>", None),
            ("<a b='>", None),
        ] {
            assert_eq!(scan(text).map(|tag| tag.len), len, "{text}");
        }
    }
}
