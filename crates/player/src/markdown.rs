//! Renders CommonMark with tables, task lists and strikethrough for a terminal.
//!
//! Parsing is done by `pulldown-cmark`, so numbered lists, code in list items, links and soft line breaks are handled
//! according to the specification.

use pulldown_cmark::{Alignment, BlockQuoteKind, Event, HeadingLevel, Options, Parser, Tag, TagEnd};

use crate::{
    screen::OutputStyle,
    table,
    text::{self, Span, TextStyle},
};

/// Maximum depth to which nested quotes and lists are indented.
const MAX_DEPTH: usize = 8;

/// Renders Markdown to lines without line terminators. The input must already be clean (`clean_text`).
pub(crate) fn render(markdown: &str, style: OutputStyle) -> Vec<String> {
    let options =
        Options::ENABLE_TABLES | Options::ENABLE_STRIKETHROUGH | Options::ENABLE_TASKLISTS | Options::ENABLE_GFM;
    let mut renderer = Renderer::new(style);
    for event in Parser::new_ext(markdown, options) {
        renderer.handle_event(event);
    }
    renderer.flush();
    renderer.lines
}

struct Prefix {
    /// Prefix of the first line only (the marker of a list item).
    first: Option<String>,
    rest: String,
}

struct Renderer {
    style: OutputStyle,
    lines: Vec<String>,
    prefixes: Vec<Prefix>,
    /// Whether a blank line is required before the next block.
    needs_blank_line: bool,
    spans: Vec<Span>,
    styles: Vec<TextStyle>,
    lists: Vec<Option<u64>>,
    code: Option<String>,
    links: Vec<(String, usize)>,
    table: Option<table::Table>,
}

impl Renderer {
    fn new(style: OutputStyle) -> Self {
        Self {
            style,
            lines: Vec::new(),
            prefixes: Vec::new(),
            needs_blank_line: false,
            spans: Vec::new(),
            styles: vec![TextStyle::PLAIN],
            lists: Vec::new(),
            code: None,
            links: Vec::new(),
            table: None,
        }
    }

    fn handle_event(&mut self, event: Event<'_>) {
        match event {
            Event::Start(tag) => self.start(tag),
            Event::End(tag) => self.end(tag),
            Event::Text(text) => match &mut self.code {
                Some(code) => code.push_str(&text),
                None => self.push_text(&text, self.current_style()),
            },
            Event::Code(code) => {
                let code = if self.style.ansi { code.to_string() } else { format!("`{code}`") };
                self.push_text(&code, TextStyle { colour: TextStyle::CODE.colour, ..self.current_style() });
            }
            Event::SoftBreak => self.push_text(" ", self.current_style()),
            Event::HardBreak => self.push_text("\n", self.current_style()),
            Event::Rule => {
                self.push_blank_line_if_needed();
                let rule = if self.style.ansi { "─" } else { "-" };
                self.push_line(&TextStyle::DIM.paint(&rule.repeat(self.available_width().min(40)), self.style.ansi));
                self.needs_blank_line = true;
            }
            Event::TaskListMarker(done) => self.push_text(if done { "[x] " } else { "[ ] " }, self.current_style()),
            Event::Html(html) | Event::InlineHtml(html) => self.push_html(&html),
            Event::FootnoteReference(text) | Event::InlineMath(text) | Event::DisplayMath(text) => {
                self.push_text(&text, self.current_style());
            }
        }
    }

    /// Shows tags, because `<your-name>` is usually a placeholder and not HTML. Hides comments.
    fn push_html(&mut self, html: &str) {
        let html = html.trim_end();
        if matches!(html, "<br>" | "<br/>" | "<br />") {
            self.push_text("\n", self.current_style());
        } else if !html.trim_start().starts_with("<!--") {
            self.push_text(html, self.current_style());
        }
    }

    fn start(&mut self, tag: Tag<'_>) {
        match tag {
            Tag::Paragraph | Tag::HtmlBlock => self.flush(),
            Tag::Heading { level, .. } => {
                self.flush();
                let top = level <= HeadingLevel::H2;
                self.styles.push(TextStyle { underline: top, ..TextStyle::BOLD });
                if !self.style.ansi {
                    self.push_text(&format!("{} ", "#".repeat(level as usize)), TextStyle::PLAIN);
                }
            }
            Tag::BlockQuote(kind) => {
                self.flush();
                self.push_blank_line_if_needed();
                let bar = if self.style.ansi { TextStyle::DIM.paint("│ ", true) } else { "> ".to_owned() };
                self.prefixes.push(Prefix { first: None, rest: bar });
                if let Some(kind) = kind {
                    self.push_line(&TextStyle::BOLD.paint(alert_title(kind), self.style.ansi));
                }
            }
            Tag::CodeBlock(_) => {
                self.flush();
                self.push_blank_line_if_needed();
                self.code = Some(String::new());
            }
            Tag::List(first) => {
                self.flush();
                self.lists.push(first);
            }
            Tag::Item => self.start_item(),
            Tag::Table(alignments) => {
                self.flush();
                self.table = Some(table::Table::new(alignments.iter().map(|side| *side == Alignment::Right).collect()));
            }
            Tag::TableHead | Tag::TableRow => self.table.iter_mut().for_each(table::Table::start_row),
            Tag::Emphasis => self.styles.push(TextStyle { italic: true, ..self.current_style() }),
            Tag::Strong => self.styles.push(TextStyle { bold: true, ..self.current_style() }),
            Tag::Strikethrough => self.styles.push(TextStyle { strike: true, ..self.current_style() }),
            Tag::Link { dest_url, .. } => self.start_link(&dest_url),
            Tag::Image { dest_url, .. } => {
                self.push_text("[image: ", self.current_style());
                self.start_link(&dest_url);
            }
            _ => {}
        }
    }

    fn end(&mut self, tag: TagEnd) {
        match tag {
            TagEnd::Paragraph | TagEnd::HtmlBlock => {
                self.flush();
                self.needs_blank_line = true;
            }
            TagEnd::Heading(_) => {
                self.flush();
                self.styles.pop();
                self.needs_blank_line = true;
            }
            TagEnd::BlockQuote(_) => {
                self.flush();
                self.prefixes.pop();
                self.needs_blank_line = true;
            }
            TagEnd::CodeBlock => self.end_code(),
            TagEnd::List(_) => {
                self.lists.pop();
                self.needs_blank_line = self.needs_blank_line || self.lists.is_empty();
            }
            TagEnd::Item => {
                self.flush();
                if self.prefixes.last().is_some_and(|prefix| prefix.first.is_some()) {
                    self.push_line("");
                }
                self.prefixes.pop();
            }
            TagEnd::TableCell => {
                let cell = std::mem::take(&mut self.spans);
                self.table.iter_mut().for_each(|table| table.add_cell(cell.clone()));
            }
            TagEnd::Table => self.end_table(),
            TagEnd::Emphasis | TagEnd::Strong | TagEnd::Strikethrough => {
                self.styles.pop();
            }
            TagEnd::Link => self.end_link(),
            TagEnd::Image => {
                self.end_link();
                self.push_text("]", self.current_style());
            }
            _ => {}
        }
    }

    fn start_item(&mut self) {
        self.flush();
        self.push_blank_line_if_needed();
        let mark = match self.lists.last_mut() {
            Some(Some(number)) => {
                let mark = format!("{number}. ");
                *number += 1;
                mark
            }
            _ if self.style.ansi => "• ".to_owned(),
            _ => "- ".to_owned(),
        };
        let rest = " ".repeat(mark.chars().count());
        self.prefixes.push(Prefix { first: Some(mark), rest });
    }

    fn end_code(&mut self) {
        let code = self.code.take().unwrap_or_default();
        for line in code.trim_end_matches('\n').split('\n') {
            let line = format!("    {}", TextStyle::CODE.paint(line, self.style.ansi));
            self.push_line(line.trim_end());
        }
        self.needs_blank_line = true;
    }

    fn end_table(&mut self) {
        if let Some(table) = self.table.take() {
            self.push_blank_line_if_needed();
            for line in table.render(self.available_width(), self.style.ansi) {
                self.push_line(&line);
            }
            self.needs_blank_line = true;
        }
    }

    fn start_link(&mut self, url: &str) {
        self.links.push((url.to_owned(), self.spans.len()));
        self.styles.push(TextStyle { underline: true, ..self.current_style() });
    }

    /// Appends the URL, unless the link text is the URL.
    fn end_link(&mut self) {
        self.styles.pop();
        let Some((url, from)) = self.links.pop() else { return };
        let text: String = self.spans.iter().skip(from).map(|span| span.text.as_str()).collect();
        if text != url && format!("mailto:{text}") != url && !url.is_empty() {
            self.push_text(&format!(" ({url})"), TextStyle { dim: true, ..self.current_style() });
        }
    }

    fn current_style(&self) -> TextStyle {
        self.styles.last().copied().unwrap_or_default()
    }

    fn push_text(&mut self, text: &str, style: TextStyle) {
        self.spans.push(Span { text: text.to_owned(), style });
    }

    fn available_width(&self) -> usize {
        let used: usize = self.visible_prefixes().map(|prefix| prefix_width(&prefix.rest)).sum();
        self.style.width.saturating_sub(used).max(20)
    }

    fn visible_prefixes(&self) -> impl Iterator<Item = &Prefix> {
        let deeper = self.prefixes.len().saturating_sub(MAX_DEPTH);
        self.prefixes.iter().skip(deeper)
    }

    /// Writes the collected inline text as a block. Does not request a blank line after it, because the items of a
    /// tight list have none; paragraphs request one themselves.
    fn flush(&mut self) {
        let spans = std::mem::take(&mut self.spans);
        if spans.iter().all(|span| span.text.trim().is_empty()) {
            return;
        }
        self.push_blank_line_if_needed();
        for line in text::wrap(&spans, self.available_width(), false) {
            self.push_line(&text::paint(&line, self.style.ansi));
        }
    }

    fn push_blank_line_if_needed(&mut self) {
        if std::mem::take(&mut self.needs_blank_line) && !self.lines.is_empty() {
            let prefix: String = self.visible_prefixes().map(|prefix| prefix.rest.as_str()).collect();
            self.lines.push(prefix.trim_end().to_owned());
        }
    }

    fn push_line(&mut self, line: &str) {
        let deeper = self.prefixes.len().saturating_sub(MAX_DEPTH);
        let mut whole = String::new();
        for (depth, prefix) in self.prefixes.iter_mut().enumerate() {
            let mark = prefix.first.take();
            if depth >= deeper {
                whole.push_str(mark.as_deref().unwrap_or(&prefix.rest));
            }
        }
        whole.push_str(line);
        self.lines.push(whole.trim_end().to_owned());
    }
}

/// Returns the width of a prefix in columns, ignoring the escape sequences of a styled bar.
fn prefix_width(prefix: &str) -> usize {
    if prefix.contains('│') { 2 } else { prefix.chars().count() }
}

fn alert_title(kind: BlockQuoteKind) -> &'static str {
    match kind {
        BlockQuoteKind::Note => "Note",
        BlockQuoteKind::Tip => "Tip",
        BlockQuoteKind::Important => "Important",
        BlockQuoteKind::Warning => "Warning",
        BlockQuoteKind::Caution => "Caution",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAMPLE: &str = "\
# Install the *tool*
First line of a paragraph
that goes on, with **bold**, `code`, a [link](https://example.com/docs) and <https://example.com>.

1. Download it:
   ```sh
   curl -fsSL https://example.com/install | sh

   tool --version
   ```
2. Check it
   - on Linux
   - on macOS, where the name of the file is longer than one line can hold

* [x] read
* [ ] done

> [!WARNING]
> Use `<your-name>`, ~~not~~ mine.

| Option | Meaning | Default |
|---|---|--:|
| `--port` | The port that the server listens on, if none is given in the file | 8080 |
| `-v` | Talk | off |

<!-- not shown -->
---
Line<br>break ![A picture](a.png)
";

    fn style(ansi: bool) -> OutputStyle {
        OutputStyle { ansi, bar: ansi, width: 50 }
    }

    #[test]
    fn renders_plain_text() {
        insta::assert_snapshot!(render(SAMPLE, style(false)).join("\n"), @r#"
    # Install the tool

    First line of a paragraph that goes on, with bold,
    `code`, a link (https://example.com/docs) and
    https://example.com.

    1. Download it:
           curl -fsSL https://example.com/install | sh

           tool --version

    2. Check it
       - on Linux
       - on macOS, where the name of the file is
         longer than one line can hold

    - [x] read
    - [ ] done

    > Warning
    > Use `<your-name>`, not mine.

    Option   | Meaning                       | Default
    ---------+-------------------------------+--------
    `--port` | The port that the server      |    8080
             | listens on, if none is given  |
             | in the file                   |
    `-v`     | Talk                          |     off

    ----------------------------------------

    Line
    break [image: A picture (a.png)]
    "#);
    }

    #[test]
    fn renders_with_escape_sequences() {
        insta::assert_snapshot!(render(SAMPLE, style(true)).join("\n").replace('\u{1b}', "^"), @r#"
    ^[1;4mInstall the ^[0m^[1;3;4mtool^[0m

    First line of a paragraph that goes on, with ^[1mbold^[0m,
    ^[36mcode^[0m, a ^[4mlink^[0m^[2m (https://example.com/docs)^[0m and
    ^[4mhttps://example.com^[0m.

    1. Download it:
           ^[36mcurl -fsSL https://example.com/install | sh^[0m

           ^[36mtool --version^[0m

    2. Check it
       • on Linux
       • on macOS, where the name of the file is
         longer than one line can hold

    • [x] read
    • [ ] done

    ^[2m│ ^[0m^[1mWarning^[0m
    ^[2m│ ^[0mUse ^[36m<your-name>^[0m, ^[9mnot^[0m mine.

    ^[1mOption^[0m^[2m │ ^[0m^[1mMeaning^[0m                        ^[2m │ ^[0m^[1mDefault^[0m
    ^[2m───────┼─────────────────────────────────┼────────^[0m
    ^[36m--port^[0m^[2m │ ^[0mThe port that the server       ^[2m │ ^[0m   8080
          ^[2m │ ^[0mlistens on, if none is given in^[2m │ ^[0m
          ^[2m │ ^[0mthe file                       ^[2m │ ^[0m
    ^[36m-v^[0m    ^[2m │ ^[0mTalk                           ^[2m │ ^[0m    off

    ^[2m────────────────────────────────────────^[0m

    Line
    break [image: ^[4mA picture^[0m^[2m (a.png)^[0m]
    "#);
    }

    #[test]
    fn the_indentation_of_deep_nesting_is_limited() {
        let deep = format!("{}deep", "> ".repeat(500));
        let lines = render(&deep, style(false));
        assert_eq!(lines, [format!("{}deep", "> ".repeat(MAX_DEPTH))]);
    }
}
