//! Events of a `text/event-stream` body (HTML standard, "Server-sent events").

/// Reads the data of events from chunks of a stream. The caller limits the size of the stream.
#[derive(Debug, Default)]
pub(crate) struct EventParser {
    /// The incomplete last line.
    line: Vec<u8>,
    /// Whether the previous byte was a carriage return, so that a line feed belongs to it.
    after_cr: bool,
    is_first_line: bool,
    /// The data lines of the incomplete event. `None` if it has none.
    data: Option<String>,
}

impl EventParser {
    pub(crate) fn new() -> Self {
        Self { is_first_line: true, ..Self::default() }
    }

    /// Adds a chunk of the stream and returns the data of the events that it completes.
    pub(crate) fn push(&mut self, chunk: &[u8]) -> Vec<String> {
        let mut events = Vec::new();
        for &byte in chunk {
            let follows_cr = std::mem::replace(&mut self.after_cr, byte == b'\r');
            match byte {
                b'\n' if follows_cr => {}
                b'\n' | b'\r' => events.extend(self.end_line()),
                _ => self.line.push(byte),
            }
        }
        events
    }

    /// Processes a complete line. Returns the data of the event that an empty line completes.
    fn end_line(&mut self) -> Option<String> {
        let line = String::from_utf8_lossy(&std::mem::take(&mut self.line)).into_owned();
        let is_first = std::mem::take(&mut self.is_first_line);
        let line = if is_first { line.strip_prefix('\u{feff}').unwrap_or(&line) } else { &line };
        if line.is_empty() {
            return self.data.take();
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        if field == "data" {
            let value = value.strip_prefix(' ').unwrap_or(value);
            match &mut self.data {
                Some(data) => {
                    data.push('\n');
                    data.push_str(value);
                }
                None => self.data = Some(value.to_owned()),
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn events(text: &str) -> Vec<String> {
        EventParser::new().push(text.as_bytes())
    }

    #[test]
    fn data_is_read_and_everything_else_is_ignored() {
        let stream =
            "\u{feff}data: {\"a\":\ndata:1}\nid: 7\nevent: message\nretry: 5\n\n: comment\n\ndata\n\nother: x\n\n";
        assert_eq!(events(stream), ["{\"a\":\n1}", ""]);
        assert_eq!(events("data: a\r\n\r\ndata: b\r\rdata:  c\n\n"), ["a", "b", " c"]);
        assert_eq!(events("data: incomplete\n"), Vec::<String>::new());
    }

    proptest! {
        #[test]
        fn chunks_and_line_ends_do_not_matter(
            texts in prop::collection::vec("[^\r\n]{0,20}", 0..6),
            ends in prop::collection::vec(0_usize..3, 12),
            size in 1_usize..7,
        ) {
            let mut stream = String::new();
            let mut end = ends.iter().cycle().map(|end| ["\n", "\r\n", "\r"][*end]);
            for text in &texts {
                let first = end.next().unwrap();
                // A carriage return followed by a line feed would be one line end.
                let second = if first == "\r" { "\r" } else { end.next().unwrap() };
                stream.push_str(&format!("data: {text}{first}{second}"));
            }
            let mut parser = EventParser::new();
            let events: Vec<String> = stream.as_bytes().chunks(size).flat_map(|chunk| parser.push(chunk)).collect();
            prop_assert_eq!(events, texts);
        }
    }
}
