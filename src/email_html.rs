//! The HTML parts of emails about tickets.

use waypost_content::html;

/// Converts a plain text to an HTML part. Paragraphs are separated by empty lines; lines that start with `>` are
/// quotations. Only URLs of this installation, which start with `origin`, become links.
pub(crate) fn from_text(text: &str, origin: &str) -> String {
    let mut body = String::new();
    for paragraph in text.split("\n\n").filter(|paragraph| !paragraph.trim().is_empty()) {
        let (element, lines): (_, Vec<_>) = if paragraph.lines().all(|line| line.starts_with('>')) {
            ("blockquote", paragraph.lines().map(|line| escape(line.trim_start_matches('>').trim())).collect())
        } else {
            ("p", paragraph.lines().map(|line| link(line.trim(), origin)).collect())
        };
        body.push_str(&format!("<{element}>{}</{element}>\n", lines.join("<br>\n")));
    }
    document(&body)
}

/// Returns the HTML part of a reply: the rendered Markdown, followed by a note from this installation.
pub(crate) fn from_reply(markdown: &str, note: &str) -> String {
    document(&format!("{}<hr>\n<p>{}</p>\n", html::render(markdown), escape(note)))
}

fn document(body: &str) -> String {
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"></head>\n\
         <body style=\"font-family: system-ui, sans-serif; line-height: 1.5\">\n{body}</body></html>\n"
    )
}

/// Escapes a line, and turns its URLs of this installation into links.
fn link(line: &str, origin: &str) -> String {
    let word = |word: &str| {
        let escaped = escape(word);
        match word.strip_prefix(origin) {
            Some(path) if path.starts_with('/') => format!("<a href=\"{escaped}\">{escaped}</a>"),
            _ => escaped,
        }
    };
    line.split(' ').map(word).collect::<Vec<_>>().join(" ")
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_from_others_is_quoted_and_not_linked() {
        let text = "New ticket.\n\n> <b>Hi</b>\n>\n> https://way.example/x\n\nOpen it: https://way.example/o/acme\nhttps://way.example.evil/\n";
        let html = from_text(text, "https://way.example");
        for expected in [
            "<p>New ticket.</p>",
            "<blockquote>&lt;b&gt;Hi&lt;/b&gt;<br>\n<br>\nhttps://way.example/x</blockquote>",
            "<p>Open it: <a href=\"https://way.example/o/acme\">https://way.example/o/acme</a><br>\nhttps://way.example.evil/</p>",
        ] {
            assert!(html.contains(expected), "{expected} in {html}");
        }
    }

    #[test]
    fn a_reply_is_rendered_without_its_html() {
        let html = from_reply("Open **it** <img src=x>", "From “A & B”.");
        assert!(html.contains("<p>Open <strong>it</strong> &lt;img src=x&gt;</p>"), "{html}");
        assert!(html.contains("<p>From “A &amp; B”.</p>"), "{html}");
    }
}
