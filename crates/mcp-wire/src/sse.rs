//! Events of a `text/event-stream` body (HTML standard, "Server-sent events").

use std::mem;

use memchr::memchr2;

/// An event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// The type; `None` for the default, `message`.
    pub name: Option<String>,
    /// The data.
    pub data: String,
    /// Whether the event was not valid UTF-8, so that parts of it were replaced with U+FFFD.
    pub is_lossy: bool,
}

/// Parses events from the chunks of a stream. The caller must limit the size of an event with
/// [`EventParser::buffered`], or the size of the stream.
#[derive(Debug)]
pub struct EventParser {
    /// The incomplete last line.
    line: Vec<u8>,
    /// Whether the previous chunk ended with a carriage return, so that a line feed at the start of the next one
    /// belongs to it.
    after_cr: bool,
    is_first_line: bool,
    /// The type of the incomplete event.
    name: Option<String>,
    /// The data lines of the incomplete event. `None` if it has none.
    data: Option<String>,
    is_lossy: bool,
    last_id: Option<String>,
    retry: Option<u64>,
}

impl Default for EventParser {
    fn default() -> Self {
        Self::new()
    }
}

impl EventParser {
    /// Creates a parser for the start of a stream.
    #[must_use]
    pub fn new() -> Self {
        let (line, after_cr, is_first_line) = (Vec::new(), false, true);
        Self { line, after_cr, is_first_line, name: None, data: None, is_lossy: false, last_id: None, retry: None }
    }

    /// Adds a chunk of the stream and returns the events that it completes.
    pub fn push(&mut self, mut chunk: &[u8]) -> Vec<Event> {
        let mut events = Vec::new();
        if mem::take(&mut self.after_cr) && !chunk.is_empty() {
            chunk = chunk.strip_prefix(b"\n").unwrap_or(chunk);
        }
        while let Some(end) = memchr2(b'\n', b'\r', chunk) {
            self.line.extend_from_slice(&chunk[..end]);
            events.extend(self.end_line());
            let rest = &chunk[end + 1..];
            chunk = if chunk[end] == b'\r' {
                self.after_cr = rest.is_empty();
                rest.strip_prefix(b"\n").unwrap_or(rest)
            } else {
                rest
            };
        }
        self.line.extend_from_slice(chunk);
        events
    }

    /// Returns the number of bytes of the incomplete event that are kept in memory.
    #[must_use]
    pub fn buffered(&self) -> usize {
        self.line.len() + self.data.as_ref().map_or(0, String::len) + self.name.as_ref().map_or(0, String::len)
    }

    /// Returns the ID of the last event, with which a client resumes the stream.
    #[must_use]
    pub fn last_id(&self) -> Option<&str> {
        self.last_id.as_deref()
    }

    /// Returns the time in milliseconds for which the client must wait before it resumes the stream, if the server has
    /// set it.
    #[must_use]
    pub fn retry(&self) -> Option<u64> {
        self.retry
    }

    /// Processes a complete line. Returns an event if an empty line completes one.
    fn end_line(&mut self) -> Option<Event> {
        let mut text = String::from_utf8(mem::take(&mut self.line)).unwrap_or_else(|error| {
            self.is_lossy = true;
            String::from_utf8_lossy(error.as_bytes()).into_owned()
        });
        let is_first = mem::take(&mut self.is_first_line);
        let line = if is_first { text.strip_prefix('\u{feff}').unwrap_or(&text) } else { &text };
        if line.is_empty() {
            let (name, is_lossy) = (self.name.take(), mem::take(&mut self.is_lossy));
            return self.data.take().map(|data| Event { name, data, is_lossy });
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "data" => match &mut self.data {
                Some(data) => {
                    data.push('\n');
                    data.push_str(value);
                }
                None => {
                    // The value is the end of the line, so the memory of the line is reused.
                    let start = text.len() - value.len();
                    text.drain(..start);
                    self.data = Some(text);
                }
            },
            "event" => self.name = Some(value.to_owned()).filter(|name| !name.is_empty() && name != "message"),
            "id" if !value.contains('\0') => self.last_id = Some(value.to_owned()),
            "retry" if value.bytes().all(|byte| byte.is_ascii_digit()) => {
                self.retry = value.parse().ok().or(self.retry);
            }
            _ => {}
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn data(text: &str) -> Vec<String> {
        EventParser::new().push(text.as_bytes()).into_iter().map(|event| event.data).collect()
    }

    #[test]
    fn data_is_read_and_unknown_fields_are_ignored() {
        let stream =
            "\u{feff}data: {\"a\":\ndata:1}\nid: 7\nevent: message\nretry: 5\n\n: comment\n\ndata\n\nother: x\n\n";
        assert_eq!(data(stream), ["{\"a\":\n1}", ""]);
        assert_eq!(data("data: a\r\n\r\ndata: b\r\rdata:  c\n\n"), ["a", "b", " c"]);
        assert_eq!(data("data: incomplete\n"), Vec::<String>::new());
    }

    #[test]
    fn type_id_and_delay_are_read() {
        let mut parser = EventParser::new();
        let events =
            parser.push(b"event: endpoint\ndata: /x\n\nid: 3\nretry: 250\n\nevent: a\n\ndata: b\nretry: x\n\nid");
        let event = |name: Option<&str>, data: &str| Event {
            name: name.map(str::to_owned),
            data: data.to_owned(),
            is_lossy: false,
        };
        assert_eq!(events, [event(Some("endpoint"), "/x"), event(None, "b")]);
        assert_eq!((parser.last_id(), parser.retry(), parser.buffered()), (Some("3"), Some(250), 2));
    }

    #[test]
    fn invalid_text_is_marked() {
        let events = EventParser::new().push(b"data: a\xff\n\ndata: \xc3\xa9\n\n");
        let events: Vec<_> = events.iter().map(|event| (event.data.as_str(), event.is_lossy)).collect();
        assert_eq!(events, [("a\u{fffd}", true), ("é", false)]);
    }

    proptest! {
        #[test]
        fn events_do_not_depend_on_chunks_and_line_ends(
            texts in prop::collection::vec("[^\r\n]{0,20}", 0..6),
            ends in prop::collection::vec(0_usize..3, 12),
            size in 1_usize..7,
        ) {
            let mut stream = String::new();
            let mut end = ends.iter().cycle().map(|end| ["\n", "\r\n", "\r"][*end]);
            for text in &texts {
                let first = end.next().unwrap();
                // A carriage return followed by a line feed would be a single line end.
                let second = if first == "\r" { "\r" } else { end.next().unwrap() };
                stream.push_str(&format!("data: {text}{first}{second}"));
            }
            let mut parser = EventParser::new();
            let events = stream.as_bytes().chunks(size).flat_map(|chunk| parser.push(chunk));
            let events: Vec<String> = events.map(|event| event.data).collect();
            prop_assert_eq!(events, texts);
        }
    }
}
