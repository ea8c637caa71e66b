//! CommonMark with tables, task lists and strike-through, laid out for a terminal.
//!
//! `pulldown-cmark` reads it: numbered lists, code inside list items, links and soft line breaks come out as the
//! author meant them.

use pulldown_cmark::{Alignment, BlockQuoteKind, Event, HeadingLevel, Options, Parser, Tag, TagEnd};

use crate::{
    screen::OutputStyle,
    table,
    text::{self, Span, TextStyle},
};

/// Nested quotes and lists are indented up to here; deeper ones stay at this depth.
const DEEPEST: usize = 8;

/// Renders Markdown to lines without a line feed at their end. The text is expected to be clean (`clean::text`).
pub(crate) fn render(markdown: &str, style: OutputStyle) -> Vec<String> {
    let options =
        Options::ENABLE_TABLES | Options::ENABLE_STRIKETHROUGH | Options::ENABLE_TASKLISTS | Options::ENABLE_GFM;
    let mut page = Page::new(style);
    for event in Parser::new_ext(markdown, options) {
        page.event(event);
    }
    page.flush();
    page.lines
}

struct Prefix {
    /// Stands before the first line only (the mark of a list item).
    first: Option<String>,
    rest: String,
}

struct Page {
    style: OutputStyle,
    lines: Vec<String>,
    prefixes: Vec<Prefix>,
    /// A blank line is due before the next block.
    gap: bool,
    spans: Vec<Span>,
    looks: Vec<TextStyle>,
    lists: Vec<Option<u64>>,
    code: Option<String>,
    links: Vec<(String, usize)>,
    table: Option<table::Table>,
}

impl Page {
    fn new(style: OutputStyle) -> Self {
        Self {
            style,
            lines: Vec::new(),
            prefixes: Vec::new(),
            gap: false,
            spans: Vec::new(),
            looks: vec![TextStyle::PLAIN],
            lists: Vec::new(),
            code: None,
            links: Vec::new(),
            table: None,
        }
    }

    fn event(&mut self, event: Event<'_>) {
        match event {
            Event::Start(tag) => self.start(tag),
            Event::End(tag) => self.end(tag),
            Event::Text(text) => match &mut self.code {
                Some(code) => code.push_str(&text),
                None => self.say(&text, self.look()),
            },
            Event::Code(code) => {
                let code = if self.style.ansi { code.to_string() } else { format!("`{code}`") };
                self.say(&code, TextStyle { colour: TextStyle::CODE.colour, ..self.look() });
            }
            Event::SoftBreak => self.say(" ", self.look()),
            Event::HardBreak => self.say("\n", self.look()),
            Event::Rule => {
                self.separate();
                let rule = if self.style.ansi { "─" } else { "-" };
                self.put(&TextStyle::DIM.paint(&rule.repeat(self.room().min(40)), self.style.ansi));
                self.gap = true;
            }
            Event::TaskListMarker(done) => self.say(if done { "[x] " } else { "[ ] " }, self.look()),
            Event::Html(html) | Event::InlineHtml(html) => self.html(&html),
            Event::FootnoteReference(text) | Event::InlineMath(text) | Event::DisplayMath(text) => {
                self.say(&text, self.look());
            }
        }
    }

    /// `<your-name>` is a placeholder far more often than HTML, so tags are shown; comments are not.
    fn html(&mut self, html: &str) {
        let html = html.trim_end();
        if matches!(html, "<br>" | "<br/>" | "<br />") {
            self.say("\n", self.look());
        } else if !html.trim_start().starts_with("<!--") {
            self.say(html, self.look());
        }
    }

    fn start(&mut self, tag: Tag<'_>) {
        match tag {
            Tag::Paragraph | Tag::HtmlBlock => self.flush(),
            Tag::Heading { level, .. } => {
                self.flush();
                let top = level <= HeadingLevel::H2;
                self.looks.push(TextStyle { underline: top, ..TextStyle::BOLD });
                if !self.style.ansi {
                    self.say(&format!("{} ", "#".repeat(level as usize)), TextStyle::PLAIN);
                }
            }
            Tag::BlockQuote(kind) => {
                self.flush();
                self.separate();
                let bar = if self.style.ansi { TextStyle::DIM.paint("│ ", true) } else { "> ".to_owned() };
                self.prefixes.push(Prefix { first: None, rest: bar });
                if let Some(kind) = kind {
                    self.put(&TextStyle::BOLD.paint(alert(kind), self.style.ansi));
                }
            }
            Tag::CodeBlock(_) => {
                self.flush();
                self.separate();
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
            Tag::Emphasis => self.looks.push(TextStyle { italic: true, ..self.look() }),
            Tag::Strong => self.looks.push(TextStyle { bold: true, ..self.look() }),
            Tag::Strikethrough => self.looks.push(TextStyle { strike: true, ..self.look() }),
            Tag::Link { dest_url, .. } => self.start_link(&dest_url),
            Tag::Image { dest_url, .. } => {
                self.say("[image: ", self.look());
                self.start_link(&dest_url);
            }
            _ => {}
        }
    }

    fn end(&mut self, tag: TagEnd) {
        match tag {
            TagEnd::Paragraph | TagEnd::HtmlBlock => {
                self.flush();
                self.gap = true;
            }
            TagEnd::Heading(_) => {
                self.flush();
                self.looks.pop();
                self.gap = true;
            }
            TagEnd::BlockQuote(_) => {
                self.flush();
                self.prefixes.pop();
                self.gap = true;
            }
            TagEnd::CodeBlock => self.end_code(),
            TagEnd::List(_) => {
                self.lists.pop();
                self.gap = self.gap || self.lists.is_empty();
            }
            TagEnd::Item => {
                self.flush();
                if self.prefixes.last().is_some_and(|prefix| prefix.first.is_some()) {
                    self.put("");
                }
                self.prefixes.pop();
            }
            TagEnd::TableCell => {
                let cell = std::mem::take(&mut self.spans);
                self.table.iter_mut().for_each(|table| table.cell(cell.clone()));
            }
            TagEnd::Table => self.end_table(),
            TagEnd::Emphasis | TagEnd::Strong | TagEnd::Strikethrough => {
                self.looks.pop();
            }
            TagEnd::Link => self.end_link(),
            TagEnd::Image => {
                self.end_link();
                self.say("]", self.look());
            }
            _ => {}
        }
    }

    fn start_item(&mut self) {
        self.flush();
        self.separate();
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
            self.put(line.trim_end());
        }
        self.gap = true;
    }

    fn end_table(&mut self) {
        if let Some(table) = self.table.take() {
            self.separate();
            for line in table.lay_out(self.room(), self.style.ansi) {
                self.put(&line);
            }
            self.gap = true;
        }
    }

    fn start_link(&mut self, url: &str) {
        self.links.push((url.to_owned(), self.spans.len()));
        self.looks.push(TextStyle { underline: true, ..self.look() });
    }

    /// The address follows the text, unless the text is the address.
    fn end_link(&mut self) {
        self.looks.pop();
        let Some((url, from)) = self.links.pop() else { return };
        let shown: String = self.spans.iter().skip(from).map(|span| span.text.as_str()).collect();
        if shown != url && format!("mailto:{shown}") != url && !url.is_empty() {
            self.say(&format!(" ({url})"), TextStyle { dim: true, ..self.look() });
        }
    }

    fn look(&self) -> TextStyle {
        self.looks.last().copied().unwrap_or_default()
    }

    fn say(&mut self, text: &str, look: TextStyle) {
        self.spans.push(Span { text: text.to_owned(), look });
    }

    fn room(&self) -> usize {
        let taken: usize = self.shown().map(|prefix| visible(&prefix.rest)).sum();
        self.style.width.saturating_sub(taken).max(20)
    }

    fn shown(&self) -> impl Iterator<Item = &Prefix> {
        let deeper = self.prefixes.len().saturating_sub(DEEPEST);
        self.prefixes.iter().skip(deeper)
    }

    /// Writes the inline text that has gathered as a block of its own. A blank line follows only a paragraph, which
    /// says so itself: the items of a tight list stand together.
    fn flush(&mut self) {
        let spans = std::mem::take(&mut self.spans);
        if spans.iter().all(|span| span.text.trim().is_empty()) {
            return;
        }
        self.separate();
        for line in text::wrap(&spans, self.room(), false) {
            self.put(&text::paint(&line, self.style.ansi));
        }
    }

    fn separate(&mut self) {
        if std::mem::take(&mut self.gap) && !self.lines.is_empty() {
            let prefix: String = self.shown().map(|prefix| prefix.rest.as_str()).collect();
            self.lines.push(prefix.trim_end().to_owned());
        }
    }

    fn put(&mut self, line: &str) {
        let deeper = self.prefixes.len().saturating_sub(DEEPEST);
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

/// Columns of a prefix: its bar may be painted.
fn visible(prefix: &str) -> usize {
    if prefix.contains('│') { 2 } else { prefix.chars().count() }
}

fn alert(kind: BlockQuoteKind) -> &'static str {
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

    const EVERYTHING: &str = "\
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
    fn plain() {
        insta::assert_snapshot!(render(EVERYTHING, style(false)).join("\n"), @r#"
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
    fn painted() {
        insta::assert_snapshot!(render(EVERYTHING, style(true)).join("\n").replace('\u{1b}', "^"), @r#"
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
    fn plain_output_has_no_escape_and_deep_nesting_is_bounded() {
        let deep = format!("{}deep", "> ".repeat(500));
        let lines = render(&deep, style(false));
        assert_eq!(lines, [format!("{}deep", "> ".repeat(DEEPEST))]);
    }
}
