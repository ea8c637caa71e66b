//! A tolerant pass over JSON text that may be cut or not be JSON at all.

use std::borrow::Cow;

use super::{MASK, MAX_EXCERPT, Masked, SecretMask};

/// Parts of the names of members whose values are credentials, in lower case and with only letters and digits.
const CREDENTIALS: &[&str] = &[
    "password",
    "passwd",
    "passphrase",
    "secret",
    "token",
    "authorization",
    "apikey",
    "accesskey",
    "privatekey",
    "credential",
    "cookie",
    "sessionid",
    "jwt",
    "bearer",
];
/// Complete names of the same kind, which are too short to be searched for within other names.
const SHORT_CREDENTIALS: &[&str] = &["pwd", "auth", "pin", "otp", "sid"];
/// The names of members that contain Base64 in MCP (`data` of images and audio, `blob` of resources).
const BLOBS: &[&str] = &["data", "blob"];
/// The minimum size of a value with one of these names that is replaced.
const MIN_BLOB: usize = 32;
/// The minimum size of Base64 under other names that is replaced.
const MIN_BASE64: usize = 512;

/// Whether the name of a member suggests that its value is a credential.
pub(super) fn is_credential(name: &str) -> bool {
    let name: String = name.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect();
    SHORT_CREDENTIALS.contains(&name.as_str()) || CREDENTIALS.iter().any(|part| name.contains(part))
}

/// Masks the strings of a text, and leaves everything else unchanged. Stops early once there is enough output for an
/// excerpt.
pub(super) fn walk(mask: &SecretMask, text: &str, is_cut: bool, level: usize) -> Masked<'static> {
    let mut walk =
        Walk { mask, text, at: 0, is_cut, level, output: String::new(), name: String::new(), is_pair: false };
    while walk.at < text.len() && walk.output.len() <= MAX_EXCERPT {
        walk.step();
    }
    Masked { is_cut: is_cut || walk.at < text.len(), text: walk.output.into() }
}

struct Walk<'a> {
    mask: &'a SecretMask,
    text: &'a str,
    /// The position in bytes.
    at: usize,
    is_cut: bool,
    level: usize,
    output: String,
    /// The name of the member whose value follows.
    name: String,
    /// Whether the object names a credential, such as `{"name": "Authorization", "value": …}`, so that its `value` is a
    /// credential.
    is_pair: bool,
}

/// A string, without its quotation marks.
#[derive(Clone, Copy)]
struct Token<'a> {
    raw: &'a str,
    /// Whether it ends with a quotation mark.
    is_closed: bool,
}

impl<'a> Walk<'a> {
    /// Reads one string, or the text before the next one.
    fn step(&mut self) {
        if self.text.as_bytes()[self.at] != b'"' {
            let rest = &self.text[self.at..];
            let other = &rest[..rest.find('"').unwrap_or(rest.len())];
            if other.contains(['{', '}']) {
                self.is_pair = false;
            }
            if other.contains([',', '{', '}', ']']) {
                self.name.clear();
            }
            self.output.push_str(other);
            self.at += other.len();
            return;
        }
        let token = self.read_string();
        let value = unescape(token.raw);
        if token.is_closed && self.text[self.at..].trim_start().starts_with(':') {
            let masked = self.mask.replace(&value, false, |_| true);
            self.push(&masked, true);
            self.push_separator();
            if is_credential(&value) || (self.is_pair && value.eq_ignore_ascii_case("value")) {
                self.skip_value();
            } else {
                self.name = value.into_owned();
            }
            return;
        }
        let name = std::mem::take(&mut self.name);
        if ["name", "key", "header"].iter().any(|own| name.eq_ignore_ascii_case(own)) && is_credential(&value) {
            self.is_pair = true;
        }
        let minimum = if BLOBS.contains(&name.as_str()) { MIN_BLOB } else { MIN_BASE64 };
        let is_whole = token.is_closed || !self.is_cut;
        if value.len() >= minimum && is_base64(&value) {
            let prefix = if is_whole { "" } else { "at least " };
            self.push(&format!("[Base64, {prefix}{} characters]", value.len()), token.is_closed);
        } else {
            let masked = self.mask.mask(&value, !is_whole, self.level + 1);
            self.push(&masked.text, token.is_closed);
        }
    }

    /// Reads the string at the position.
    fn read_string(&mut self) -> Token<'a> {
        let rest = &self.text[self.at + 1..];
        let mut is_escaped = false;
        for (index, byte) in rest.bytes().enumerate() {
            match byte {
                _ if is_escaped => is_escaped = false,
                b'\\' => is_escaped = true,
                b'"' => {
                    self.at += index + 2;
                    return Token { raw: &rest[..index], is_closed: true };
                }
                _ => {}
            }
        }
        self.at = self.text.len();
        Token { raw: rest, is_closed: false }
    }

    /// Appends a string to the output.
    fn push(&mut self, value: &str, is_closed: bool) {
        let quoted = serde_json::Value::from(value).to_string();
        self.output.push_str(if is_closed { &quoted } else { &quoted[..quoted.len() - 1] });
    }

    /// Copies the colon and the white space after a name.
    fn push_separator(&mut self) {
        let rest = &self.text[self.at..];
        let value = rest.trim_start()[1..].trim_start();
        let separator = &rest[..rest.len() - value.len()];
        self.output.push_str(separator);
        self.at += separator.len();
    }

    /// Skips a value, and appends [`MASK`] instead, unless the value is `null`, `true` or `false`.
    fn skip_value(&mut self) {
        let (start, mut depth) = (self.at, 0_usize);
        while let Some(byte) = self.text.as_bytes().get(self.at) {
            match byte {
                b'"' => {
                    self.read_string();
                    if depth == 0 {
                        break;
                    }
                    continue;
                }
                b'{' | b'[' => depth += 1,
                b',' | b'}' | b']' if depth == 0 => break,
                b'}' | b']' => depth -= 1,
                _ => {}
            }
            self.at += 1;
            if depth == 0 && matches!(byte, b'}' | b']') {
                break;
            }
        }
        let value = self.text[start..self.at].trim();
        if matches!(value, "" | "null" | "true" | "false") {
            self.output.push_str(value);
        } else {
            self.push(MASK, true);
        }
    }
}

fn is_base64(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'-' | b'_' | b'='))
}

/// Resolves the escapes of a string. Invalid escapes stay as they are; an escape that is cut is left out.
fn unescape(raw: &str) -> Cow<'_, str> {
    if !raw.contains('\\') {
        return raw.into();
    }
    let (mut value, mut rest) = (String::with_capacity(raw.len()), raw);
    while let Some(start) = rest.find('\\') {
        value.push_str(&rest[..start]);
        rest = &rest[start..];
        let Some(escape) = rest[1..].chars().next() else { return value.into() };
        let plain = match escape {
            '"' | '\\' | '/' => Some(escape),
            'b' => Some('\u{8}'),
            'f' => Some('\u{c}'),
            'n' => Some('\n'),
            'r' => Some('\r'),
            't' => Some('\t'),
            'u' => match unicode_escape(rest) {
                Unicode::Char(c, length) => {
                    value.push(c);
                    rest = &rest[length..];
                    continue;
                }
                Unicode::Cut => return value.into(),
                Unicode::Invalid => None,
            },
            _ => None,
        };
        value.push(plain.unwrap_or('\\'));
        rest = &rest[1 + plain.map_or(0, |_| escape.len_utf8())..];
    }
    value.push_str(rest);
    value.into()
}

enum Unicode {
    /// A character, and the size of its escape or pair of escapes.
    Char(char, usize),
    Cut,
    Invalid,
}

/// Reads the escape `\uXXXX` at the start, or two of them that are a surrogate pair.
fn unicode_escape(text: &str) -> Unicode {
    let unit = |at: usize| -> Option<u16> {
        let digits = text.get(at..at + 6)?.strip_prefix("\\u")?;
        digits.bytes().all(|byte| byte.is_ascii_hexdigit()).then(|| u16::from_str_radix(digits, 16).ok())?
    };
    // Whether the text ends within an escape that begins at `at`.
    let is_cut = |at: usize| match text[at..].strip_prefix("\\u") {
        Some(digits) => digits.len() < 4 && digits.bytes().all(|byte| byte.is_ascii_hexdigit()),
        None => matches!(&text[at..], "" | "\\"),
    };
    let Some(first) = unit(0) else { return if is_cut(0) { Unicode::Cut } else { Unicode::Invalid } };
    if let Some(c) = char::from_u32(u32::from(first)) {
        return Unicode::Char(c, 6);
    }
    match unit(6).map(|second| char::decode_utf16([first, second]).next()) {
        Some(Some(Ok(c))) => Unicode::Char(c, 12),
        None if is_cut(6) => Unicode::Cut,
        _ => Unicode::Invalid,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_are_resolved_as_by_a_parser() {
        let escaped = "\"a\\n\\t\\\"\\\\\\/\\u0041\\u00e9\\ud83d\\ude00 \\b\\f\\r\"";
        let value: String = serde_json::from_str(escaped).unwrap();
        assert_eq!(unescape(&escaped[1..escaped.len() - 1]), value);
        for (raw, value) in
            [("a\\", "a"), ("a\\u00", "a"), ("a\\ud83d\\u", "a"), ("a\\x", "a\\x"), ("\\ud83dxx", "\\ud83dxx")]
        {
            assert_eq!(unescape(raw), value, "{raw}");
        }
    }

    #[test]
    fn names_of_credentials_are_recognised() {
        for name in ["password", "X-API-Key", "access_token", "clientSecret", "Set-Cookie", "AUTHORIZATION", "pwd"] {
            assert!(is_credential(name), "{name}");
        }
        for name in ["query", "name", "author", "opinion", "path", ""] {
            assert!(!is_credential(name), "{name}");
        }
    }
}
