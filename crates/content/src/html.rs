//! Renders Markdown written by authors and end users as HTML for pages.

use pulldown_cmark::{Event, LinkType, Options, Parser, Tag, TagEnd, html};

/// Renders Markdown as safe HTML that contains only the elements of Markdown itself. Embedded HTML is shown as text.
/// Links are relative or have the scheme `http:`, `https:` or `mailto:`; other destinations are replaced with `#`.
/// Images become links, because loading an image would reveal the reader to its host.
#[must_use]
pub fn render(text: &str) -> String {
    let options = Options::ENABLE_TABLES | Options::ENABLE_STRIKETHROUGH | Options::ENABLE_TASKLISTS;
    let events = Parser::new_ext(text, options).map(|event| match event {
        Event::Html(html) | Event::InlineHtml(html) => Event::Text(html),
        Event::Start(Tag::Link { link_type, dest_url, title, id }) if !is_safe(&dest_url) => {
            Event::Start(Tag::Link { link_type, dest_url: "#".into(), title, id })
        }
        Event::Start(Tag::Image { dest_url, title, id, .. }) => {
            let dest_url = if is_safe(&dest_url) { dest_url } else { "#".into() };
            Event::Start(Tag::Link { link_type: LinkType::Inline, dest_url, title, id })
        }
        Event::End(TagEnd::Image) => Event::End(TagEnd::Link),
        // Levels 1 and 2 are used by the page itself.
        Event::Start(Tag::Heading { level, .. }) => {
            Event::Start(Tag::Heading { level: lower(level), id: None, classes: Vec::new(), attrs: Vec::new() })
        }
        Event::End(TagEnd::Heading(level)) => Event::End(TagEnd::Heading(lower(level))),
        event => event,
    });
    let mut out = String::with_capacity(text.len() * 3 / 2);
    html::push_html(&mut out, events);
    out
}

fn lower(level: pulldown_cmark::HeadingLevel) -> pulldown_cmark::HeadingLevel {
    use pulldown_cmark::HeadingLevel::{H3, H4, H5, H6};
    match level as usize {
        1 => H3,
        2 => H4,
        3 => H5,
        _ => H6,
    }
}

/// Whether a link target is relative or has an allowed scheme.
fn is_safe(url: &str) -> bool {
    let scheme = url.split_once(':').map(|(scheme, _)| scheme.to_ascii_lowercase());
    match scheme.as_deref() {
        Some("http" | "https" | "mailto") => true,
        // A colon after a slash, a question mark or a hash does not end a scheme.
        Some(other) => other.contains(['/', '?', '#']),
        None => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_markdown_is_rendered() {
        assert_eq!(render("# A\n\n**b** `c`"), "<h3>A</h3>\n<p><strong>b</strong> <code>c</code></p>\n");
        assert_eq!(render("<script>alert(1)</script>"), "&lt;script&gt;alert(1)&lt;/script&gt;");
        assert_eq!(render("a <b onclick=x>b</b>"), "<p>a &lt;b onclick=x&gt;b&lt;/b&gt;</p>\n");
        for url in ["javascript:alert(1)", "JaVaScript:x", "data:text/html,x", "vbscript:x", " javascript:x"] {
            let html = render(&format!("[a](<{url}>) ![i](<{url}>)"));
            assert!(!html.to_lowercase().contains("script:") && !html.contains("data:"), "{html}");
        }
        assert_eq!(render("![i](https://a.example/x.png)"), "<p><a href=\"https://a.example/x.png\">i</a></p>\n");
        assert!(render("[a](/x?y=z:1)").contains("href=\"/x?y=z:1\""));
    }

    proptest::proptest! {
        /// For any text, the output contains only Markdown's elements and no attribute that runs a script.
        #[test]
        fn no_text_results_in_a_script(text in r#"[ -~\n]{0,200}|(<|>|/|script|javascript:|on|=|"|'|\(|\)|\[|\]|!|&|#|x| |\n){0,60}"#) {
            let html = render(&text);
            let tags = html.split('<').skip(1).map(|tag| tag.trim_start_matches('/'));
            for tag in tags {
                let name: String = tag.chars().take_while(char::is_ascii_alphanumeric).collect();
                let known = ["p", "h3", "h4", "h5", "h6", "strong", "em", "code", "pre", "ul", "ol", "li", "a", "br", "hr",
                    "blockquote", "table", "thead", "tbody", "tr", "th", "td", "del", "input"];
                proptest::prop_assert!(known.contains(&name.as_str()), "{html}");
            }
            proptest::prop_assert!(!html.contains("href=\"javascript:"), "{html}");
        }
    }
}
