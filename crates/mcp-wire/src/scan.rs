//! A scanner for JSON text that reports anything about which parsers disagree, without building a tree.

use std::borrow::Cow;
use std::fmt;

use crate::plain_text::plain_length;

/// The maximum number of levels of arrays and objects in a message, except in `result` and in `data` of `error`, and in
/// a definition (contract, section 8).
pub const MAX_LEVELS: usize = 64;
/// The maximum number of levels in text that is only skipped: the same as [`crate::MAX_DEPTH`].
const MAX_SKIPPED_LEVELS: usize = crate::MAX_DEPTH;
/// The largest integer that every JSON parser reads exactly (RFC 7493, section 2.2).
const MAX_INTEGER: u64 = (1 << 53) - 1;
/// The maximum number of characters of a member's name that are echoed.
const MAX_NAME: usize = 64;

/// A property of JSON text about which parsers disagree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ambiguity {
    /// A member is repeated, possibly with different escapes. Contains its name.
    RepeatedMember(String),
    /// The name of a member differs from a name of the protocol only in case, or in the text after a null character.
    /// Contains the name as received.
    CaseVariant(String),
    /// More than [`MAX_LEVELS`] levels of nesting.
    TooDeep,
    /// A number that parsers read differently: an integer beyond ±(2^53−1) (`1.0` is not an integer here), or a number
    /// that exceeds the range of IEEE 754 doubles, such as `1e400`.
    InexactNumber,
    /// A `\u` escape of half a surrogate pair.
    LoneSurrogate,
}

impl fmt::Display for Ambiguity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RepeatedMember(name) => write!(f, "the member `{}` is repeated", printable(name)),
            Self::CaseVariant(name) => {
                write!(f, "the name of the member `{}` is a variant of a name of the protocol", printable(name))
            }
            Self::TooDeep => write!(f, "more than {MAX_LEVELS} levels of nesting"),
            Self::InexactNumber => f.write_str("a number cannot be represented exactly by every parser"),
            Self::LoneSurrogate => f.write_str("a string contains half of a surrogate pair"),
        }
    }
}

/// Returns a name in a form that is safe to echo.
fn printable(name: &str) -> String {
    name.chars().filter(|c| !c.is_control()).take(MAX_NAME).collect()
}

/// The reason why text is rejected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Flaw {
    /// It is not JSON. Contains the position in bytes.
    Syntax(usize),
    /// It is ambiguous.
    Ambiguous(Ambiguity),
    /// It breaks a rule of the protocol. Contains a JSON-RPC error code and a message.
    Invalid(i64, &'static str),
}

impl From<Ambiguity> for Flaw {
    fn from(ambiguity: Ambiguity) -> Self {
        Self::Ambiguous(ambiguity)
    }
}

/// The names of the members of an object of the protocol.
pub(crate) struct Names<const N: usize> {
    /// The names of the members whose values are returned.
    pub(crate) read: [&'static str; N],
    /// Further names whose variants are rejected as well.
    pub(crate) other: &'static [&'static str],
    /// A prefix of names whose variants are rejected.
    pub(crate) prefix: Option<&'static str>,
}

impl<const N: usize> Names<N> {
    pub(crate) const fn new(read: [&'static str; N], other: &'static [&'static str]) -> Self {
        Self { read, other, prefix: None }
    }

    /// Returns the index of a name among those that are read; `None` if it is not one of them. Fails if it is a variant
    /// of a known name.
    pub(crate) fn find(&self, key: &str) -> Result<Option<usize>, Ambiguity> {
        if let Some(index) = self.read.iter().position(|name| *name == key) {
            return Ok(Some(index));
        }
        if self.other.contains(&key) {
            return Ok(None);
        }
        let is_variant = self.read.iter().chain(self.other).any(|name| is_variant(key, name))
            || self.prefix.is_some_and(|prefix| !key.starts_with(prefix) && has_variant_prefix(key, prefix));
        if is_variant { Err(Ambiguity::CaseVariant(key.to_owned())) } else { Ok(None) }
    }
}

/// Whether `key` is read as `name` by a parser that ignores case (as Go's does, with Unicode's simple case folding), or
/// that ends strings at a null character.
fn is_variant(key: &str, name: &str) -> bool {
    if key.len() == name.len() && key.eq_ignore_ascii_case(name) {
        return true;
    }
    let is_plain = key.bytes().all(|byte| byte.is_ascii() && byte != 0);
    !is_plain && folded(key).eq(folded(name))
}

fn has_variant_prefix(key: &str, prefix: &str) -> bool {
    let mut key = folded(key);
    folded(prefix).all(|c| key.next() == Some(c))
}

/// Returns the case-folded characters before the first null character. Only the long s and the Kelvin sign fold to
/// ASCII letters (Unicode, CaseFolding.txt).
fn folded(text: &str) -> impl Iterator<Item = char> {
    text.chars().take_while(|c| *c != '\0').map(|c| match c {
        '\u{17f}' => 's',
        '\u{212a}' => 'k',
        other => other.to_ascii_lowercase(),
    })
}

/// The numbers that are accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Numbers {
    /// All JSON numbers.
    Any,
    /// Numbers that every parser reads alike.
    Exact,
}

/// A position in JSON text.
pub(crate) struct Scanner<'a> {
    text: &'a str,
    at: usize,
    /// The names of the members of all open objects.
    keys: Vec<Cow<'a, str>>,
}

impl<'a> Scanner<'a> {
    pub(crate) fn new(text: &'a str) -> Self {
        Self { text, at: 0, keys: Vec::with_capacity(16) }
    }

    /// Returns the next byte that is not white space, without consuming it.
    #[inline]
    pub(crate) fn peek(&mut self) -> Option<u8> {
        let bytes = self.text.as_bytes();
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = bytes.get(self.at) {
            self.at += 1;
        }
        bytes.get(self.at).copied()
    }

    /// Returns a syntax error at the current position.
    pub(crate) fn syntax(&self) -> Flaw {
        Flaw::Syntax(self.at)
    }

    /// Consumes `byte` if it is the next byte after white space. Returns whether it was.
    pub(crate) fn take(&mut self, byte: u8) -> bool {
        let is_next = self.peek() == Some(byte);
        self.at += usize::from(is_next);
        is_next
    }

    fn expect(&mut self, byte: u8) -> Result<(), Flaw> {
        if self.take(byte) { Ok(()) } else { Err(self.syntax()) }
    }

    /// Checks that nothing but white space follows.
    pub(crate) fn end(&mut self) -> Result<(), Flaw> {
        if self.peek().is_none() { Ok(()) } else { Err(self.syntax()) }
    }

    /// Reads a value that repeats no member at any depth. `level` is the number of arrays and objects around it.
    pub(crate) fn value(&mut self, level: usize, numbers: Numbers) -> Result<&'a str, Flaw> {
        match self.peek() {
            Some(b'{') => self.object(level, |scanner, _| scanner.value(level + 1, numbers)),
            Some(b'[') => self.array(level, |scanner| scanner.value(level + 1, numbers)),
            Some(b'"') => self.string(true),
            _ => self.scalar(numbers),
        }
    }

    /// Reads an object that does not repeat a member. `value` reads its values.
    pub(crate) fn object(
        &mut self,
        level: usize,
        mut value: impl FnMut(&mut Self, &str) -> Result<&'a str, Flaw>,
    ) -> Result<&'a str, Flaw> {
        self.expect(b'{')?;
        let start = self.at - 1;
        check_level(level + 1, MAX_LEVELS)?;
        let first = self.keys.len();
        if !self.take(b'}') {
            loop {
                let key = self.key()?;
                self.keys.push(key.clone());
                self.expect(b':')?;
                value(self, &key)?;
                if !self.take(b',') {
                    self.expect(b'}')?;
                    break;
                }
            }
            let keys = &mut self.keys[first..];
            keys.sort_unstable();
            if let Some(pair) = keys.windows(2).find(|pair| pair[0] == pair[1]) {
                return Err(Ambiguity::RepeatedMember(pair[0].to_string()).into());
            }
            self.keys.truncate(first);
        }
        Ok(&self.text[start..self.at])
    }

    /// Reads an object of the protocol. `value` reads its values. Returns the text of the object, and the values of the
    /// members in [`Names::read`].
    pub(crate) fn members<const N: usize>(
        &mut self,
        level: usize,
        names: &Names<N>,
        mut value: impl FnMut(&mut Self, &str) -> Result<&'a str, Flaw>,
    ) -> Result<(&'a str, [Option<&'a str>; N]), Flaw> {
        let mut values = [None; N];
        let text = self.object(level, |scanner, key| {
            let index = names.find(key)?;
            let text = value(scanner, key)?;
            if let Some(index) = index {
                values[index] = Some(text);
            }
            Ok(text)
        })?;
        Ok((text, values))
    }

    /// Reads an array. `item` reads its items.
    pub(crate) fn array(
        &mut self,
        level: usize,
        mut item: impl FnMut(&mut Self) -> Result<&'a str, Flaw>,
    ) -> Result<&'a str, Flaw> {
        self.expect(b'[')?;
        let start = self.at - 1;
        check_level(level + 1, MAX_LEVELS)?;
        if !self.take(b']') {
            loop {
                item(self)?;
                if !self.take(b',') {
                    self.expect(b']')?;
                    break;
                }
            }
        }
        Ok(&self.text[start..self.at])
    }

    /// Reads an object, and passes the name (with its quotation marks) and value of each member to `member`. Checks
    /// only that the object is JSON.
    pub(crate) fn raw_members(&mut self, level: usize, mut member: impl FnMut(&'a str, &'a str)) -> Result<(), Flaw> {
        self.expect(b'{')?;
        if self.take(b'}') {
            return Ok(());
        }
        loop {
            let name = self.raw_name()?;
            let value = self.skip(level + 1)?;
            member(name, value);
            if !self.take(b',') {
                return self.expect(b'}');
            }
        }
    }

    /// Reads a value, and checks only that it is JSON with at most [`MAX_SKIPPED_LEVELS`] levels.
    pub(crate) fn skip(&mut self, level: usize) -> Result<&'a str, Flaw> {
        self.peek();
        let start = self.at;
        let mut open = Nesting::default();
        loop {
            let is_complete = match self.peek() {
                Some(bracket @ (b'{' | b'[')) => {
                    check_level(level + open.levels + 1, MAX_SKIPPED_LEVELS)?;
                    self.at += 1;
                    let is_object = bracket == b'{';
                    if self.take(if is_object { b'}' } else { b']' }) {
                        true
                    } else {
                        open.push(is_object);
                        self.skip_name(is_object)?;
                        false
                    }
                }
                Some(b'"') => self.string(false).map(|_| true)?,
                _ => self.scalar(Numbers::Any).map(|_| true)?,
            };
            if is_complete && self.close(&mut open)? {
                return Ok(&self.text[start..self.at]);
            }
        }
    }

    /// Continues after a value: closes arrays and objects until another value follows. Returns whether all are closed.
    fn close(&mut self, open: &mut Nesting) -> Result<bool, Flaw> {
        while open.levels > 0 {
            let is_object = open.is_object();
            if self.take(b',') {
                return self.skip_name(is_object).map(|()| false);
            }
            self.expect(if is_object { b'}' } else { b']' })?;
            open.pop();
        }
        Ok(true)
    }

    /// Skips the name of a member of an object.
    fn skip_name(&mut self, is_object: bool) -> Result<(), Flaw> {
        if is_object {
            self.raw_name()?;
        }
        Ok(())
    }

    /// Reads the name of a member and the colon, and returns the name as received. The name can contain a lone
    /// surrogate.
    fn raw_name(&mut self) -> Result<&'a str, Flaw> {
        let name = if self.peek() == Some(b'"') { self.string(false)? } else { return Err(self.syntax()) };
        self.expect(b':')?;
        Ok(name)
    }

    fn key(&mut self) -> Result<Cow<'a, str>, Flaw> {
        if self.peek() != Some(b'"') {
            return Err(self.syntax());
        }
        let raw = self.string(true)?;
        unquote(raw).ok_or_else(|| self.syntax())
    }

    /// Reads a string, and returns it with its quotation marks. Rejects lone surrogates if `is_strict`.
    fn string(&mut self, is_strict: bool) -> Result<&'a str, Flaw> {
        let start = self.at;
        self.at += 1;
        loop {
            self.at += plain_length(&self.text.as_bytes()[self.at..]);
            match self.text.as_bytes().get(self.at) {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(&self.text[start..self.at]);
                }
                Some(b'\\') => self.escape(is_strict)?,
                _ => return Err(self.syntax()),
            }
        }
    }

    fn escape(&mut self, is_strict: bool) -> Result<(), Flaw> {
        match self.text.as_bytes().get(self.at + 1) {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => self.at += 2,
            Some(b'u') => {
                let unit = self.hex().ok_or_else(|| self.syntax())?;
                self.at += 6;
                if is_strict && (0xd800..0xe000).contains(&unit) {
                    let is_pair = unit < 0xdc00 && self.hex().is_some_and(|low| (0xdc00..0xe000).contains(&low));
                    if !is_pair {
                        return Err(Ambiguity::LoneSurrogate.into());
                    }
                    self.at += 6;
                }
            }
            _ => return Err(self.syntax()),
        }
        Ok(())
    }

    /// Returns the code unit of the `\u` escape at the current position; `None` if there is none.
    fn hex(&self) -> Option<u32> {
        let digits = self.text.as_bytes().get(self.at..self.at + 6)?.strip_prefix(b"\\u")?;
        digits.iter().try_fold(0, |unit, digit| Some(unit * 16 + char::from(*digit).to_digit(16)?))
    }

    fn scalar(&mut self, numbers: Numbers) -> Result<&'a str, Flaw> {
        let start = self.at;
        let rest = &self.text.as_bytes()[start..];
        let literal = match rest.first() {
            Some(b't') => "true",
            Some(b'f') => "false",
            Some(b'n') => "null",
            _ => "",
        };
        if !literal.is_empty() && rest.starts_with(literal.as_bytes()) {
            self.at += literal.len();
            return Ok(&self.text[start..self.at]);
        }
        self.at += number_length(rest).map_err(|at| Flaw::Syntax(start + at))?;
        let number = &self.text[start..self.at];
        if numbers == Numbers::Exact && !is_exact(number) {
            return Err(Ambiguity::InexactNumber.into());
        }
        Ok(number)
    }
}

fn check_level(level: usize, limit: usize) -> Result<(), Flaw> {
    if level > limit { Err(Ambiguity::TooDeep.into()) } else { Ok(()) }
}

/// The open arrays and objects, of which there are at most 128.
#[derive(Default)]
struct Nesting {
    levels: usize,
    /// One bit per level, which is 1 for an object. The lowest bit is the innermost level.
    kinds: u128,
}

impl Nesting {
    fn push(&mut self, is_object: bool) {
        self.levels += 1;
        self.kinds = self.kinds << 1 | u128::from(is_object);
    }

    fn pop(&mut self) {
        self.levels -= 1;
        self.kinds >>= 1;
    }

    fn is_object(&self) -> bool {
        self.kinds & 1 == 1
    }
}

/// Returns the text of a string, without allocation if it contains no escapes. Returns `None` if `raw` is not a string
/// or contains a lone surrogate.
pub(crate) fn unquote(raw: &str) -> Option<Cow<'_, str>> {
    let inner = raw.strip_prefix('"')?.strip_suffix('"')?;
    if inner.contains('\\') { serde_json::from_str(raw).ok().map(Cow::Owned) } else { Some(Cow::Borrowed(inner)) }
}

/// Returns the length of the number at the start of `bytes` (RFC 8259, section 6), or the position of the error.
fn number_length(bytes: &[u8]) -> Result<usize, usize> {
    let some_digits = |at: usize| match bytes[at..].iter().take_while(|byte| byte.is_ascii_digit()).count() {
        0 => Err(at),
        digits => Ok(at + digits),
    };
    let mut at = usize::from(bytes.first() == Some(&b'-'));
    let start = at;
    at = some_digits(at)?;
    if bytes[start] == b'0' && at > start + 1 {
        return Err(start + 1);
    }
    if bytes.get(at) == Some(&b'.') {
        at = some_digits(at + 1)?;
    }
    if matches!(bytes.get(at), Some(b'e' | b'E')) {
        at += 1;
        at += usize::from(matches!(bytes.get(at), Some(b'+' | b'-')));
        at = some_digits(at)?;
    }
    Ok(at)
}

/// Whether every parser reads the number alike.
fn is_exact(number: &str) -> bool {
    if number.contains(['.', 'e', 'E']) {
        return number.parse::<f64>().is_ok_and(f64::is_finite);
    }
    number.trim_start_matches('-').parse::<u64>().is_ok_and(|magnitude| magnitude <= MAX_INTEGER)
}
