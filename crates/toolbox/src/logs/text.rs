//! Log lines from the output of a server: without terminal escapes, with secrets masked, and limited in length.

use std::sync::Arc;

use waypost_toolbox_proto::http::LogStream;

use super::InstanceLog;
use super::mask::Masker;

/// The maximum length of the text of a line in bytes.
pub const MAX_TEXT_BYTES: usize = 16 * 1024;
/// The suffix of a truncated text.
const CUT: &str = "… [cut]";

/// Writes the output of a server to its log. Created by [`InstanceLog::writer`].
///
/// Escape sequences of terminals are removed, so that showing the log in a terminal cannot change the terminal. Secrets
/// are masked afterwards, because a sequence could split a secret. Other control characters are kept. Dropping the
/// writer writes the incomplete last line.
pub struct LogWriter {
    log: Arc<InstanceLog>,
    stream: LogStream,
    escapes: Escapes,
    masker: Masker,
    lines: Lines,
}

impl LogWriter {
    pub(super) fn new(log: Arc<InstanceLog>, stream: LogStream, secrets: &[String]) -> Self {
        let (escapes, masker, lines) = (Escapes::default(), Masker::new(secrets), Lines::default());
        Self { log, stream, escapes, masker, lines }
    }

    /// Adds a chunk of output, which need not end with a complete line.
    pub fn push(&mut self, chunk: &[u8]) {
        let (mut plain, mut masked) = (Vec::with_capacity(chunk.len()), Vec::with_capacity(chunk.len()));
        self.escapes.push(chunk, &mut plain);
        self.masker.push(&plain, &mut masked);
        self.log.append_all(self.stream, self.lines.push(&masked));
    }

    /// Adds a complete line.
    pub fn line(&mut self, text: &str) {
        self.push(text.as_bytes());
        self.push(b"\n");
    }
}

impl Drop for LogWriter {
    fn drop(&mut self) {
        let mut rest = Vec::new();
        self.masker.finish(&mut rest);
        let mut lines = self.lines.push(&rest);
        lines.extend(self.lines.finish());
        self.log.append_all(self.stream, lines);
    }
}

/// Removes escape sequences (ECMA-48) from a stream. A line break ends every sequence, so an incomplete sequence hides
/// at most the rest of its line.
#[derive(Default)]
struct Escapes(Escape);

#[derive(Default, Clone, Copy, PartialEq)]
enum Escape {
    #[default]
    None,
    /// After ESC.
    Begin,
    /// In a control sequence (CSI).
    Control,
    /// In a control string, such as a window title (OSC).
    Text,
    /// After ESC in a control string.
    TextEnd,
    /// After the first byte of a two-byte character, which may be an 8-bit control character (C1).
    TwoByte,
}

impl Escapes {
    fn push(&mut self, chunk: &[u8], output: &mut Vec<u8>) {
        for &byte in chunk {
            self.0 = match (self.0, byte) {
                (Escape::TwoByte, 0x80..=0x9f) => match byte {
                    0x9b => Escape::Control,
                    0x90 | 0x98 | 0x9d..=0x9f => Escape::Text,
                    _ => Escape::None,
                },
                (Escape::TwoByte, _) => {
                    output.push(0xc2);
                    Self::plain(byte, output)
                }
                (Escape::None, _) => Self::plain(byte, output),
                (_, b'\n') => {
                    output.push(byte);
                    Escape::None
                }
                (Escape::TextEnd, b'\\') => Escape::None,
                (Escape::Text, 0x1b) => Escape::TextEnd,
                (_, 0x1b) => Escape::Begin,
                (Escape::Begin | Escape::TextEnd, b'[') => Escape::Control,
                (Escape::Begin | Escape::TextEnd, b']' | b'P' | b'X' | b'^' | b'_') => Escape::Text,
                (Escape::Begin | Escape::TextEnd, 0x20..=0x2f) => Escape::Begin,
                (Escape::Begin | Escape::TextEnd, 0x30..=0x7e) => Escape::None,
                (Escape::Begin | Escape::TextEnd, _) => Self::plain(byte, output),
                (Escape::Control, 0x40..=0x7e) | (Escape::Text, 0x07) => Escape::None,
                (state @ (Escape::Control | Escape::Text), _) => state,
            };
        }
    }

    /// Processes a byte outside of a sequence.
    fn plain(byte: u8, output: &mut Vec<u8>) -> Escape {
        match byte {
            0x1b => Escape::Begin,
            0xc2 => Escape::TwoByte,
            _ => {
                output.push(byte);
                Escape::None
            }
        }
    }
}

/// Splits a stream into lines, and truncates those that are too long.
#[derive(Default)]
struct Lines {
    line: Vec<u8>,
    is_cut: bool,
}

impl Lines {
    fn push(&mut self, mut chunk: &[u8]) -> Vec<String> {
        let mut lines = Vec::new();
        while let Some(end) = chunk.iter().position(|byte| *byte == b'\n') {
            self.extend(&chunk[..end]);
            lines.push(self.take());
            chunk = &chunk[end + 1..];
        }
        self.extend(chunk);
        lines
    }

    fn finish(&mut self) -> Option<String> {
        (!self.line.is_empty()).then(|| self.take())
    }

    fn extend(&mut self, bytes: &[u8]) {
        let room = MAX_TEXT_BYTES - self.line.len();
        self.is_cut |= bytes.len() > room;
        self.line.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }

    fn take(&mut self) -> String {
        let is_cut = std::mem::take(&mut self.is_cut);
        let line = self.line.strip_suffix(b"\r").unwrap_or(&self.line);
        let text = String::from_utf8_lossy(line).into_owned();
        self.line.clear();
        if is_cut || text.len() > MAX_TEXT_BYTES { cut(text) } else { text }
    }
}

/// Truncates a text so that it is at most [`MAX_TEXT_BYTES`] long, including the suffix [`CUT`].
pub(super) fn cut(mut text: String) -> String {
    text.truncate(text.floor_char_boundary(MAX_TEXT_BYTES - CUT.len()));
    text.push_str(CUT);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strip(chunks: &[&[u8]]) -> String {
        let (mut escapes, mut output) = (Escapes::default(), Vec::new());
        for chunk in chunks {
            escapes.push(chunk, &mut output);
        }
        String::from_utf8(output).unwrap()
    }

    #[test]
    fn escape_sequences_are_removed() {
        let cases: &[(&str, &str)] = &[
            ("\u{1b}[31mred\u{1b}[0m", "red"),
            ("\u{1b}]0;title\u{7}a\u{1b}]8;;url\u{1b}\\link", "alink"),
            ("\u{9b}31mred \u{85}é\u{a0}", "red é\u{a0}"),
            ("\u{1b}(Ba\u{1b}7b\u{1b}\u{1b}[Ac", "abc"),
            ("\u{1b}Pdata\u{1b}[31mx", "x"),
            ("\u{1b}[31\nnext\u{1b}]0;never ends\nnext", "\nnext\nnext"),
            ("tab\tbell\u{7} \r\n", "tab\tbell\u{7} \r\n"),
        ];
        for (text, expected) in cases {
            assert_eq!(strip(&[text.as_bytes()]), *expected, "{text:?}");
            let bytes: Vec<&[u8]> = text.as_bytes().chunks(1).collect();
            assert_eq!(strip(&bytes), *expected, "{text:?} byte by byte");
        }
    }

    #[test]
    fn lines_are_cut_at_a_character() {
        let mut lines = Lines::default();
        let long = "é".repeat(MAX_TEXT_BYTES);
        let result = lines.push(format!("a\r\n\n{long}\nb").as_bytes());
        assert_eq!((&result[0][..], &result[1][..]), ("a", ""));
        assert!(result[2].len() <= MAX_TEXT_BYTES && result[2].ends_with(&format!("é{CUT}")), "{}", result[2].len());
        assert_eq!(lines.finish().as_deref(), Some("b"));
        let invalid = lines.push(&[vec![0xff; MAX_TEXT_BYTES], vec![b'\n']].concat());
        assert!(invalid[0].len() <= MAX_TEXT_BYTES, "a replacement is longer than the byte");
    }
}
