//! Surveys a text with a Markdown parser: finds its code and its offences.

use std::collections::HashSet;
use std::ops::Range;

use pulldown_cmark::{CodeBlockKind, Event, LinkType, Options, Parser, Tag, TagEnd};

use super::gap::Inline;
use super::html::{self, Verdict};
use super::link;
use super::unrendered::{self, Footnotes, Lines, UnrenderedText};
use crate::invisible;

/// A construct that must be removed or escaped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Offence {
    /// A known tag or a comment within a paragraph.
    Tag(Inline),
    /// A line that contains only known tags, with the preceding line break; or an element with its content.
    Stretch(Range<usize>),
    /// An unknown tag, or an autolink that is actually a placeholder.
    Foreign(Range<usize>),
    /// The `<` of a placeholder that CommonMark treats as text but some renderers as a tag.
    Placeholder(usize),
    /// A dangerous link or image, with its text.
    Link { whole: Range<usize>, text: Range<usize> },
    /// A dangerous autolink.
    Autolink(Range<usize>),
    /// The definition of a dangerous reference.
    Definition(Range<usize>),
    /// An HTML block, by its lines without the markers of quotes and lists.
    Block(Vec<Range<usize>>),
}

/// The result of parsing a text.
#[derive(Debug, Default)]
pub(super) struct Survey {
    /// Code spans and code blocks, in order.
    pub code: Vec<Range<usize>>,
    /// The visible text of their non-blank lines, in order. Not grouped by span and block, because a comment between
    /// two indented blocks may be the only thing that separates them. Excludes footnotes that are not rendered.
    pub code_lines: Vec<String>,
    /// HTML blocks, in order.
    pub html: Vec<Range<usize>>,
    /// Invisible characters to remove, in order.
    pub hidden: Vec<Range<usize>>,
    /// Characters that could form a definition, link or tag once the following text changes: colons and parentheses
    /// after a closing bracket, and angle brackets.
    pub joints: Vec<usize>,
    /// All other offences, unordered.
    pub offences: Vec<Offence>,
    /// Text that is not rendered, each with its replacement, unordered. Only used if the text has no other offences,
    /// because HTML can contain references.
    pub unrendered: Vec<(UnrenderedText, &'static str)>,
}

impl Survey {
    pub(super) fn of(text: &str) -> Self {
        let mut events = Parser::new_ext(text, options()).into_offset_iter();
        let mut reader = Reader::new(text);
        for (_, definition) in events.reference_definitions().iter() {
            if link::is_dangerous(&definition.dest) {
                reader.survey.offences.push(Offence::Definition(definition.span.clone()));
            }
        }
        let mut used = HashSet::new();
        while let Some((event, range)) = events.next() {
            if let Event::Start(Tag::Link { link_type, id, .. } | Tag::Image { link_type, id, .. }) = &event
                && matches!(link_type, LinkType::Reference | LinkType::Collapsed | LinkType::Shortcut)
            {
                used.extend(events.reference_definitions().get(id).map(|definition| definition.span.start));
            }
            reader.read(event, range);
        }
        let definitions = events.reference_definitions().iter().map(|(_, definition)| definition);
        let definitions = definitions.map(|definition| Definition {
            is_used: used.contains(&definition.span.start),
            has_title: definition.title.as_deref().is_some_and(|title| !title.is_empty()),
            span: definition.span.clone(),
        });
        reader.finish(definitions.collect())
    }

    /// Whether the byte is in code.
    pub(super) fn is_code(&self, at: usize) -> bool {
        let next = self.code.partition_point(|range| range.start <= at);
        self.code[..next].last().is_some_and(|range| range.contains(&at))
    }

    pub(super) fn has_offences(&self) -> bool {
        !self.hidden.is_empty() || !self.offences.is_empty() || !self.unrendered.is_empty()
    }
}

/// A link reference definition.
struct Definition {
    span: Range<usize>,
    is_used: bool,
    has_title: bool,
}

/// Returns the options for GitHub's dialect, which authors use. Tables and footnotes affect what is code.
pub(super) fn options() -> Options {
    Options::ENABLE_TABLES | Options::ENABLE_FOOTNOTES | Options::ENABLE_STRIKETHROUGH | Options::ENABLE_TASKLISTS
}

/// A link or image that is being parsed.
struct OpenLink {
    /// The range reported by the parser.
    range: Range<usize>,
    /// The end of its last child.
    end: Option<usize>,
    collapsed: bool,
    dangerous: bool,
}

/// An element within a paragraph that is removed with its content.
struct OpenElement {
    start: usize,
    name: String,
    depth: usize,
}

struct Reader<'a> {
    text: &'a str,
    survey: Survey,
    depth: usize,
    links: Vec<OpenLink>,
    element: Option<OpenElement>,
    /// Whether everything so far in this line of the paragraph is removed.
    first: bool,
    /// Number of open headings and tables.
    one_line: usize,
    /// The line break and the tags after it. `None` if the line contains anything else.
    tags: Option<Range<usize>>,
    in_code: bool,
    /// The start of the current code block, and its text so far.
    code: (usize, String),
    /// [`Survey::code_lines`], each with the start of its code.
    code_lines: Vec<(usize, String)>,
    block: Vec<Range<usize>>,
    lines: Lines<'a>,
    footnotes: Footnotes,
    /// The end of the last cell of the row.
    last_cell: usize,
    /// Invisible characters written as entities.
    entities: Vec<Range<usize>>,
}

impl<'a> Reader<'a> {
    fn new(text: &'a str) -> Self {
        Self {
            text,
            survey: Survey::default(),
            depth: 0,
            links: Vec::new(),
            element: None,
            first: true,
            one_line: 0,
            tags: None,
            in_code: false,
            code: (0, String::new()),
            code_lines: Vec::new(),
            block: Vec::new(),
            lines: Lines::new(text),
            footnotes: Footnotes::default(),
            last_cell: 0,
            entities: Vec::new(),
        }
    }

    fn read(&mut self, event: Event<'_>, range: Range<usize>) {
        self.lines.read(&event, &range, !self.links.is_empty());
        if let Some(open) = self.links.last_mut().filter(|open| open.range != range) {
            open.end = open.end.max(Some(range.end));
        }
        match event {
            Event::Start(tag) => self.start(tag, range),
            Event::End(tag) => self.end(tag, range),
            Event::Code(code) => {
                self.code_lines(range.start, &code);
                self.survey.code.push(range);
                self.element = None;
                self.keep();
            }
            Event::Text(code) if self.in_code => self.code.1.push_str(&code),
            Event::Text(entity)
                if self.text[range.clone()].starts_with('&') && entity.chars().all(invisible::is_invisible) =>
            {
                self.entities.push(range);
            }
            Event::Text(_) => {
                let joints = self.text[range.clone()].match_indices([':', '(']).map(|(offset, _)| range.start + offset);
                self.survey.joints.extend(joints.filter(|&at| self.text[..at].ends_with(']')));
                if !self.text[range.clone()].trim().is_empty() {
                    self.keep();
                }
                self.placeholders(range);
            }
            Event::FootnoteReference(label) => {
                self.footnotes.reference(&label);
                self.keep();
            }
            Event::Html(_) => self.block.push(range),
            Event::InlineHtml(html) => self.inline_html(&html, range),
            Event::SoftBreak | Event::HardBreak => {
                self.end_line();
                self.tags = Some(range.start..range.start);
                self.first = true;
            }
            _ => self.keep(),
        }
    }

    fn start(&mut self, tag: Tag<'_>, range: Range<usize>) {
        self.depth += 1;
        match tag {
            Tag::CodeBlock(kind) => {
                self.in_code = true;
                self.code.0 = range.start;
                let is_fenced = matches!(kind, CodeBlockKind::Fenced(_));
                self.unrendered(is_fenced.then(|| unrendered::info(self.text, &range)).flatten());
                self.survey.code.push(range);
            }
            Tag::HtmlBlock => {}
            Tag::Link { link_type, dest_url, title, .. } | Tag::Image { link_type, dest_url, title, .. } => {
                self.keep();
                if link_type == LinkType::Inline && !title.is_empty() {
                    self.unrendered(unrendered::link_title(self.text, &range));
                }
                self.start_link(link_type, &dest_url, range);
            }
            Tag::Emphasis | Tag::Strong | Tag::Strikethrough => self.keep(),
            other => {
                if let Tag::FootnoteDefinition(label) = &other {
                    self.footnotes.start(label, range);
                }
                self.one_line += usize::from(matches!(other, Tag::Heading { .. } | Tag::Table(_)));
                self.first = true;
                self.tags = None;
            }
        }
    }

    fn start_link(&mut self, kind: LinkType, destination: &str, range: Range<usize>) {
        let mut dangerous = link::is_dangerous(destination);
        if matches!(kind, LinkType::Autolink | LinkType::Email) {
            if dangerous {
                self.survey.offences.push(Offence::Autolink(range.clone()));
            } else if !link::is_autolink(&self.text[range.start + 1..range.end - 1]) {
                self.survey.offences.push(Offence::Foreign(range.clone()));
            }
            dangerous = false;
        }
        self.links.push(OpenLink { range, end: None, collapsed: kind == LinkType::Collapsed, dangerous });
    }

    fn end(&mut self, tag: TagEnd, range: Range<usize>) {
        self.depth -= 1;
        self.element.take_if(|element| element.depth > self.depth);
        match tag {
            TagEnd::CodeBlock => {
                self.in_code = false;
                let (start, code) = std::mem::take(&mut self.code);
                self.code_lines(start, &code);
            }
            TagEnd::HtmlBlock => {
                self.survey.html.push(range);
                self.survey.offences.push(Offence::Block(std::mem::take(&mut self.block)));
            }
            TagEnd::Link | TagEnd::Image => self.end_link(),
            TagEnd::Emphasis | TagEnd::Strong | TagEnd::Strikethrough => {}
            other => {
                match other {
                    TagEnd::FootnoteDefinition => self.footnotes.end(),
                    TagEnd::TableCell => self.last_cell = range.end,
                    TagEnd::TableHead | TagEnd::TableRow => {
                        self.unrendered(unrendered::cells(self.text, &range, self.last_cell))
                    }
                    _ => {}
                }
                self.one_line -= usize::from(matches!(other, TagEnd::Heading(_) | TagEnd::Table));
                self.end_line();
                self.first = true;
            }
        }
    }

    fn unrendered(&mut self, found: Option<UnrenderedText>) {
        self.survey.unrendered.extend(found.map(|found| (found, "")));
    }

    fn code_lines(&mut self, start: usize, code: &str) {
        for line in code.lines() {
            let seen: String = line.chars().filter(|&c| !invisible::is_invisible(c)).collect();
            if !seen.trim().is_empty() {
                self.code_lines.push((start, seen));
            }
        }
    }

    /// Adds the results that require the whole text.
    fn finish(mut self, definitions: Vec<Definition>) -> Survey {
        let footnotes = self.footnotes.unused();
        let (mut before, mut unused_until) = (footnotes.iter().peekable(), 0);
        self.code_lines.retain(|(at, _)| {
            while let Some(footnote) = before.next_if(|footnote| footnote.start <= *at) {
                unused_until = unused_until.max(footnote.end);
            }
            *at >= unused_until
        });
        let mut survey = self.survey;
        survey.code_lines = self.code_lines.into_iter().map(|(_, line)| line).collect();
        survey.hidden = invisible::ranges(self.text);
        survey.hidden.append(&mut self.entities);
        survey.hidden.sort_by_key(|range| range.start);
        let content_end = |range: &Range<usize>| range.start + self.text[range.clone()].trim_end().len();
        let blocks =
            footnotes.iter().map(|range| UnrenderedText { range: range.start..content_end(range), is_block: true });
        survey.unrendered.extend(blocks.map(|block| (block, "")));
        for Definition { span, is_used, has_title } in definitions {
            self.lines.mark(&span);
            if !is_used {
                survey.unrendered.push((UnrenderedText { range: span, is_block: true }, ""));
            } else if has_title {
                survey.unrendered.extend(unrendered::definition_title(self.text, &span));
            }
        }
        survey.unrendered.extend(self.lines.unrendered().into_iter().map(|line| (line, "")));
        survey
    }

    fn end_link(&mut self) {
        let Some(OpenLink { range, end, collapsed, dangerous: true }) = self.links.pop() else { return };
        // The parser's range excludes the empty label of a collapsed reference.
        let label = if collapsed && self.text[range.end..].starts_with("[]") { 2 } else { 0 };
        let whole = range.start..range.end + label;
        // Not the start of the first child, which excludes the backslash of an escape.
        let start = whole.start + if self.text[whole.start..].starts_with('!') { 2 } else { 1 };
        let text = start..end.unwrap_or(start);
        self.survey.offences.push(Offence::Link { whole, text });
    }

    fn inline_html(&mut self, html: &str, range: Range<usize>) {
        if html::judge(html, self.text[..range.start].chars().next_back()) == Verdict::Escape {
            self.survey.offences.push(Offence::Foreign(range));
            return self.keep();
        }
        if let Some(tag) = html::scan(html) {
            if tag.is_opaque() && !html.ends_with("/>") && self.element.is_none() {
                self.element =
                    Some(OpenElement { start: range.start, name: tag.name.to_ascii_lowercase(), depth: self.depth });
            } else if tag.closing
                && let Some(element) = self
                    .element
                    .take_if(|element| element.depth == self.depth && element.name.eq_ignore_ascii_case(tag.name))
            {
                self.survey.offences.push(Offence::Stretch(element.start..range.end));
            }
        }
        if let Some(tags) = &mut self.tags {
            tags.end = range.end;
        }
        let (first, one_line) = (self.first, self.one_line > 0);
        self.survey.offences.push(Offence::Tag(Inline { range, first, one_line }));
    }

    /// Handles the end of a line of a paragraph. If the line contained only tags, its line break is removed as well,
    /// because an empty line would end the paragraph.
    fn end_line(&mut self) {
        if let Some(tags) = self.tags.take().filter(|tags| !tags.is_empty()) {
            self.survey.offences.push(Offence::Stretch(tags));
        }
    }

    /// Records that the line contains something that is kept.
    fn keep(&mut self) {
        self.first = false;
        self.tags = None;
    }

    /// Finds placeholders such as `<api_key>` in text. They are not tags in CommonMark, which does not allow
    /// underscores in names, but some renderers treat any `<name>` as a tag and drop it.
    fn placeholders(&mut self, range: Range<usize>) {
        for (offset, _) in self.text[range.clone()].match_indices('<') {
            let at = range.start + offset;
            let escapes = self.text[..at].bytes().rev().take_while(|&b| b == b'\\').count();
            let name = &self.text[at + 1..];
            let end = name.find(|c: char| !(c.is_alphanumeric() || "_-.:/@|#+".contains(c)));
            if escapes % 2 == 1 || !name.starts_with(|c: char| c.is_ascii_alphabetic() || "/!?".contains(c)) {
                continue;
            }
            let is_name = name.starts_with(|c: char| c.is_ascii_alphabetic());
            if is_name && end.is_some_and(|end| name[end..].starts_with('>')) {
                self.survey.offences.push(Offence::Placeholder(at));
            } else {
                self.survey.joints.push(at);
            }
        }
    }
}
