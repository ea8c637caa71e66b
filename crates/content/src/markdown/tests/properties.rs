//! Property tests of cleaning with hostile and harmless text.

use std::borrow::Cow;

use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use pulldown_cmark::{CodeBlockKind, Event, Parser, Tag};

use super::super::survey::{Survey, options};
use super::super::*;

/// Fragments of hostile Markdown.
const FRAGMENTS: &[&str] = &[
    "<",
    ">",
    "/",
    "=",
    "\"",
    "'",
    "`",
    "``",
    "```",
    "~~~",
    "\n",
    "\n",
    "\n\n",
    "    ",
    "  ",
    " ",
    "\t",
    "- ",
    "1. ",
    "> ",
    "# ",
    "---\n",
    "|",
    "| a | b |\n|---|---|\n",
    "*",
    "_",
    "\\",
    "&",
    "&lt;",
    "&#x0A;",
    "&Tab;",
    "&colon;",
    "a",
    "word",
    "ü",
    "<b>",
    "</b>",
    "<br/>",
    "<br>",
    "<kbd>",
    "</kbd><kbd>",
    "<sub>",
    "<li>",
    "<td>",
    "<p>",
    "<summary>",
    "<div>",
    "</div>",
    "<script>",
    "</script>",
    "<style>",
    "<pre>",
    "</pre>",
    "<svg>",
    "<img src=x",
    "scr",
    "ipt>",
    "<port>",
    "</port>",
    "<api_key>",
    "<x a=\"`\">",
    "<!--",
    "-->",
    "<!DOCTYPE x>",
    "<![CDATA[",
    "]]>",
    "<?",
    "?>",
    "<https://x.y>",
    "<javascript:x>",
    "<a:b>",
    "<host:port>",
    "<me@x>",
    "[",
    "]",
    "(",
    ")",
    "![",
    "](",
    "](javascript:x)",
    "](JAVA&#10;SCRIPT:x)",
    "](data:x)",
    "](https://x.y)",
    "[r]",
    "[r]: ",
    "[r]: file:x\n",
    "[^f]",
    "[^f]: ",
    "javascript:",
    "data:",
    "%6a",
    " 't'",
    "](x 't')",
    "[r]: x\n",
    "[r]: x \"t\"\n",
    "[^f]: y\n",
    "```a b\n",
    "| a | b | c |\n",
    "&shy;",
    "\u{E0101}",
    "\u{200B}",
    "\u{200C}",
    "\u{200D}",
    "\u{202E}",
    "\u{2066}",
    "\u{2060}",
    "\u{FEFF}",
    "\u{1}",
    "\0",
    "\r",
    "\u{1F3F4}",
    "\u{E0067}",
    "\u{E0062}",
    "\u{E007F}",
    "\u{FE0F}",
    "👩",
    "💻",
    "क",
    "\u{94D}",
    "`code`",
    "`<b>`",
    "```\n<b>\n```\n",
    "\n\n    code\n\n",
];

/// Tags between two words.
const BETWEEN: &[&str] = &[
    "<br>",
    "<br/><br />",
    "</kbd><kbd>",
    "<kbd>",
    "</kbd>",
    "<sub>",
    "</sup>",
    "</li><li>",
    "</td><td>",
    "<th>",
    "<p>",
    "</p>",
    "<details><summary>",
    "</summary>",
    "</div></div>",
    "<hr>",
    "</b><i>",
    "<img src=x>",
    "<code>",
    "</h2>",
    "\n",
    " <br> ",
    "<br>\n",
    "\n<p>\n",
    "<svg></svg>",
    "<input type=text>",
];

fn hostile() -> impl Strategy<Value = String> {
    prop::collection::vec(prop::sample::select(FRAGMENTS), 0..40).prop_map(|parts| parts.concat())
}

/// Generates text that never contains offences.
fn harmless() -> impl Strategy<Value = String> {
    let parts: &[&str] = &[
        "word ",
        "a < b ",
        "c > d ",
        "x && y ",
        "`<b>` ",
        "\n\n```html\n<b>\n```\n\n",
        "\n",
        "\n\n",
        "- ",
        "1. ",
        "# ",
        "> ",
        "*",
        "_",
        "**bold** ",
        "[a](https://x.y) ",
        "<https://x.y> ",
        "\\<port> ",
        "| a | b |\n",
        "---\n",
        "ü ",
        "👩\u{200D}💻 ",
        "\t",
        "![i](i.png) ",
        "&lt;b> ",
    ];
    prop::collection::vec(prop::sample::select(parts), 0..30).prop_map(|parts| parts.concat())
}

/// Returns the offences in a text. Implemented independently of the cleaning.
fn offences(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for event in Parser::new_ext(text, options()) {
        match event {
            Event::Html(html) | Event::InlineHtml(html) => found.push(format!("HTML {html:?}")),
            Event::Start(Tag::CodeBlock(CodeBlockKind::Fenced(info))) if info.contains(' ') => {
                found.push(format!("info {info:?}"));
            }
            Event::Start(Tag::Link { dest_url, title, .. } | Tag::Image { dest_url, title, .. }) => {
                if !title.is_empty() {
                    found.push(format!("title {title:?}"));
                }
                let address: String = dest_url.chars().filter(char::is_ascii_graphic).collect();
                let address = address.to_ascii_lowercase();
                if ["javascript:", "vbscript:", "data:", "file:"].iter().any(|scheme| address.starts_with(scheme)) {
                    found.push(format!("link {dest_url:?}"));
                }
            }
            _ => {}
        }
    }
    let forbidden = |c: char| {
        matches!(c as u32, 0x202A..=0x202E | 0x2066..=0x2069 | 0x200B | 0x2060..=0x2064 | 0xFEFF | 0xAD | 0xE0100..=0xE01EF)
            || (c.is_control() && !matches!(c, '\t' | '\n'))
    };
    found.extend(text.chars().filter(|&c| forbidden(c)).map(|c| format!("{c:?}")));
    found
}

/// Returns the visible code lines of a text, without the spaces that replace removed text.
fn code(text: &str) -> Vec<String> {
    let lines = Survey::of(text).code_lines;
    lines.iter().map(|line| line.replace("&#32;", "").replace("` `", "``").trim().to_owned()).collect()
}

fn is_subsequence(few: &[String], many: &[String]) -> bool {
    let mut many = many.iter();
    few.iter().all(|one| many.any(|other| other == one))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn hostile_text_is_clean_afterwards(text in hostile()) {
        let clean = clean_markdown(&text);
        prop_assert_eq!(offences(&clean), Vec::<String>::new(), "in {:?}", &clean);
        let again = clean_markdown(&clean);
        prop_assert_eq!(&again, &clean);
        prop_assert!(matches!(again, Cow::Borrowed(_)));
    }

    #[test]
    fn words_between_tags_stay_words(
        start in prop::sample::select(vec!["", "> ", "- ", "# ", "text ", "<div>", "- <p>", "> <ul>\n> "]),
        parts in prop::collection::vec(("[a-z]{1,6}", prop::sample::select(BETWEEN)), 1..12),
    ) {
        let text: String = start.to_owned() + &parts.iter().map(|(word, tag)| format!("{word}{tag}")).collect::<String>();
        let clean = clean_markdown(&text);
        let expected = start.contains("text").then_some("text").into_iter().chain(parts.iter().map(|(word, _)| word.as_str()));
        let found = clean.split(|c: char| !c.is_ascii_lowercase()).filter(|word| !word.is_empty());
        prop_assert!(found.eq(expected), "{:?} became {:?}", text, clean);
    }

    #[test]
    fn harmless_text_is_unchanged(text in harmless()) {
        prop_assert!(matches!(clean_markdown(&text), Cow::Borrowed(same) if same == text), "{:?}", clean_markdown(&text));
    }

    #[test]
    fn plain_text_is_clean_afterwards(text in hostile()) {
        let clean = clean_plain(&text);
        prop_assert!(matches!(clean_plain(&clean), Cow::Borrowed(same) if same == clean));
        let line = clean_line(&text);
        prop_assert_eq!(clean_line(&line), line.as_str());
        prop_assert!(!line.contains('\n'));
    }
}

proptest! {
    // The seed is fixed, because in roughly one in several hundred thousand cases, the text can be made safe only by
    // changing code. When changing the cleaner, run more cases with other seeds.
    #![proptest_config(ProptestConfig {
        cases: 5_000, rng_seed: RngSeed::Fixed(20), failure_persistence: None, ..ProptestConfig::default()
    })]

    #[test]
    fn code_is_preserved_byte_for_byte(text in hostile()) {
        let clean = clean_markdown(&text);
        let (before, after) = (code(&prepare(&text)), code(&clean));
        prop_assert!(is_subsequence(&before, &after), "{:?} in {:?}: {:?}", before, &clean, after);
    }
}
