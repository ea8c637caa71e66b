//! Tests of cleaning with tables of inputs and outputs. `properties` contains the property tests.

mod properties;

use std::borrow::Cow;

use super::survey::Survey;
use super::*;

fn check(table: &[(&str, &str)]) {
    for (text, clean) in table {
        let cleaned = clean_markdown(text);
        assert_eq!(&cleaned, clean, "from {text:?}");
        assert_eq!(clean_markdown(clean), *clean, "again, from {text:?}");
        if text == clean {
            assert!(matches!(cleaned, Cow::Borrowed(_)), "unchanged but copied: {text:?}");
        }
    }
}

fn check_unchanged(texts: &[&str]) {
    for text in texts {
        check(&[(text, text)]);
    }
}

#[test]
fn known_tags_are_removed_and_their_text_is_kept() {
    check(&[
        ("a <b>bold</b> word", "a bold word"),
        ("line<br>break<BR/>", "line  \nbreak"),
        ("<a href=\"https://example.com\">site</a>", "site"),
        ("text <img src=x onerror=alert(1)> text", "text  text"),
        ("a <b\nclass=x>b</b>", "a b"),
        ("> a <b\n> class=x>b</b>\n> c", "> a b\n> c"),
        ("- <kbd>Ctrl</kbd>+<kbd>C</kbd>", "- Ctrl+C"),
        ("| a | b |\n|---|---|\n| <b>x</b> | y |", "| a | b |\n|---|---|\n| x | y |"),
        ("# <b>Title</b>\n", "# Title\n"),
        ("[go <b>on</b>](https://example.com)", "[go on](https://example.com)"),
        ("<div>\n\n**bold**\n\n</div>\n", "\n\n**bold**\n\n\n"),
        ("<details>\n<summary>More</summary>\n\ntext\n</details>", "\nMore\n\ntext\n"),
        ("<p align=\"center\">\n  <img src=\"a.png\">\n</p>\n\nx", "\n  \n\n\nx"),
        ("> <div>\n> inner\n> </div>\n\nouter", "> \n> inner\n> \n\nouter"),
        ("a\n<b><i>\nc", "a\nc"),
        ("x <!-- note --> y", "x  y"),
        ("<!-- one\n\ntwo -->\n\ntext", "\n\ntext"),
        ("<!DOCTYPE html>\ntext", "\ntext"),
        ("<pre>\n    x\n</pre>\n", "\nx\n\n"),
        ("<table>\n    <tr>\n        <td>    cell</td>\n    </tr>\n</table>\n", "\n\ncell\n\n\n"),
    ]);
}

#[test]
fn words_stay_separate() {
    check(&[
        ("fast<br>slow", "fast  \nslow"),
        ("fast<br/><br> slow", "fast  \nslow"),
        ("fast<br>\nslow<br>", "fast  \nslow"),
        ("a<br>\n\nb", "a\n\nb"),
        ("> a<br>b", "> a  \n> b"),
        ("1. a<br>b\n   - c<br>d", "1. a  \n   b\n   - c  \n     d"),
        ("# a<br>b", "# a b"),
        ("| a<br>b | c |\n|---|---|\n| d<br>**e** | f |", "| a b | c |\n|---|---|\n| d **e** | f |"),
        ("a<br># b", "a # b"),
        ("a<br>- b", "a - b"),
        ("a<br>---", "a ---"),
        ("a<br>1. b", "a 1. b"),
        ("a<br>```\nb", "a ```\nb"),
        ("a<br>**b** and `c`<br>`d`", "a  \n**b** and `c`  \n`d`"),
        ("`a<br>b`", "`a<br>b`"),
        ("a<br>    b", "a  \nb"),
        ("<kbd>Ctrl</kbd><kbd>C</kbd>", "Ctrl C"),
        ("Press<kbd>Ctrl</kbd>, then<kbd>C</kbd>.", "Press Ctrl, then C."),
        ("H<sub>2</sub>O and x<sup>2</sup>", "H 2 O and x 2"),
        ("un<b>believ</b>able <a href=x>widget</a>s", "unbelievable widgets"),
        ("<a href=x>One</a><a href=y>Two</a>", "One Two"),
        ("a<svg/>b and a<script>x</script>b", "a b and a b"),
        ("x<li>One</li><li>Two</li>", "x  \nOne  \nTwo"),
        ("<details><summary>More</summary>text</details>after", "More  \ntext  \nafter"),
        ("<details>\n<summary>More</summary>\ntext</details>", "\nMore  \ntext"),
        ("> <p>a</p><p>b</p>", "> a  \n> b"),
        ("<table><tr><td>a</td><td>**b**</td></tr><tr><td>c.</td><td>d</td></tr></table>", "a **b**  \nc. d"),
        ("<ul><li># a</li><li>- b</li></ul>", "# a - b"),
        ("<div>a<br>b `<br>` c</div>", "a  \nb `<br>` c"),
        ("<div>a<kbd>b</kbd> <i>c</i>d</div>", "a b cd"),
    ]);
}

#[test]
fn scripts_are_removed_with_their_content() {
    check(&[
        ("<script>alert(1)</script>", ""),
        ("a <script>alert(1)</script> b", "a  b"),
        ("a <SCRIPT src=x>alert(1)</ScRiPt> b", "a  b"),
        ("<style>\np { x: y }\n\nq {}\n</style>\n\ntext", "\n\ntext"),
        ("<iframe src=\"x\">no frames</iframe> text", "text"),
        ("text <svg><path d=\"M0 0\"/></svg> text", "text  text"),
        ("<script>never closed\n\n# text", "never closed\n\n# text"),
        ("a <script>`code`</script> b", "a `code` b"),
    ]);
}

#[test]
fn unknown_tags_and_placeholders_are_escaped() {
    check(&[
        ("open http://localhost:<port>/", "open http://localhost:\\<port>/"),
        ("<port>", "\\<port>"),
        ("<your-api-key>\n\nnext", "\\<your-api-key>\n\nnext"),
        ("set <API_KEY> and <your api_key>", "set \\<API_KEY> and \\<your api_key>"),
        ("a </foo> b <foo/> c", "a \\</foo> b \\<foo/> c"),
        ("ssh <user@host> -p <host:port>", "ssh \\<user@host> -p \\<host:port>"),
        ("a List<String> and a List<Object>", "a List\\<String> and a List\\<Object>"),
        ("<x a=\"`*[y](z)*`\"> `c`", "\\<x a=\"\\`\\*\\[y\\](z)\\*\\`\"> `c`"),
        ("<?php echo 1 ?> and <![CDATA[x]]>", "\\<?php echo 1 ?> and \\<![CDATA[x]]>"),
        ("a <?x?> <![CDATA[x]]> <!X y>", "a \\<?x?> \\<!\\[CDATA\\[x\\]\\]> \\<!X y>"),
        ("<!-- never closed\n\ntext", "\\<!-- never closed\n\ntext"),
        ("- <dir>\n- cd <path>", "- \\<dir>\n- cd \\<path>"),
        ("| Flag | Value |\n|---|---|\n| -p | <port> |", "| Flag | Value |\n|---|---|\n| -p | \\<port> |"),
        ("<div>Use `<port>` or <port></div>", "Use `<port>` or \\<port>"),
    ]);
}

#[test]
fn ordinary_text_is_unchanged() {
    check_unchanged(&[
        "",
        "a < b && c > d",
        "if x <= 3 or y<4 then $< and $<$ and <- or <-> or <3",
        "Map<String, Value> and 1<2>1",
        "\\<port> and \\\\\\<port> and &lt;port&gt; and \\<api_key>",
        "<https://example.com/a?b=c> and <mailto:a@example.com> and <me@example.com>",
        "[a](https://example.com \"\") ![i](img.png) [r][1]\n\n[1]: /x\n",
        "`<b>` ``<port> ` `` `javascript:x`",
        "```html\n<script>x</script>\n---\n[a](javascript:x)\n```\n",
        "~~~\n<div>\n\n<port>\n~~~\n",
        "text\n\n    <b>indented</b>\n",
        "1. Install\n\n   ```bash\n   docker run -p <port>:80 <image>\n   ```\n\n   - nested\n\n     ```yaml\n     ---\n     a: <b>\n     ```\n",
        "> ```\n> <b>\n> ```\n",
        "---\n\n***\n\ntext\n---\n",
        "- [ ] task ~~gone~~ [^1]\n\n[^1]: note\n",
        "üñí 日本語 Ελλ\u{a0}x \u{2028}",
        "data: see file: and javascript: in text",
    ]);
}

#[test]
fn only_offending_parts_of_a_guide_change() {
    let guide = "# Install the server\n\n<p align=\"center\"><img src=\"logo.png\"></p>\n\n1. Run it, with <port> free:\n\n   \
                 ```bash\n   docker run -p <port>:8080 -e KEY=<key> image && echo $< # a < b\n   ```\n\n2. Open \
                 <http://localhost:8080>.\n   Press <kbd>F5</kbd> if `a < b && c > d`.\n\n   | Key | Type |\n   |---|---|\n   \
                 | `a` | List<String> |\n\n<details><summary>Trouble?</summary>\n\n- See [the log](file:///var/log/x).\n\n\
                 </details>\n";
    let clean = guide
        .replace("<p align=\"center\"><img src=\"logo.png\"></p>", "")
        .replace("with <port>", "with \\<port>")
        .replace("<kbd>F5</kbd>", "F5")
        .replace("List<String>", "List\\<String>")
        .replace("<details><summary>Trouble?</summary>", "Trouble?")
        .replace("[the log](file:///var/log/x)", "the log")
        .replace("</details>", "");
    check(&[(guide, &clean)]);
}

#[test]
fn dangerous_links_are_replaced_with_their_text() {
    check(&[
        ("[a *b* `c`](javascript:alert(1)) d", "a *b* `c` d"),
        ("[a](JaVaScRiPt:x) [b](VBSCRIPT:x) [c](data:text/html,x) [d](file:///etc/passwd)", "a b c d"),
        ("[a](java&#x0A;script:x) [b](&#106;avascript:x) [c](javascript&colon;x) [d](java&Tab;script:x)", "a b c d"),
        ("[a](<java script:x>) [b](%6aavascript:x) [c](javascript%3Ax) [d](%256aavascript:x)", "a b c d"),
        ("[a](<\u{1}javascript:x>) [b](java\u{200B}script:x)", "a b"),
        ("![alt](data:image/png;base64,AAAA)", "alt"),
        ("<javascript:alert(1)> <DATA:x>", "javascript:alert(1) DATA:x"),
        ("[a][r] [r][] [r] ![i][r]\n\n[r]: javascript:x 'title'\n", "a r r i\n\n\n"),
        ("[r]: javascript:x\n[r]: javascript:y\n\n[t][r]", "\n\n\nt"),
        ("> [t][r]\n>\n> [r]: javascript:x\n", "> t\n>\n> \n"),
        ("[![i](data:x)](https://example.com)", "[i](https://example.com)"),
        ("[![i](i.png)](javascript:x)", "![i](i.png)"),
        ("[](javascript:x)", ""),
        ("[\\*a\\*](javascript:x) ![\\*i\\\\](javascript:x)", "\\*a\\* \\*i\\\\"),
    ]);
    check_unchanged(&[
        "[a](https://example.com/javascript:x) [b](./data:x) [c](#file:) [d](datafile:x) [e](C:/x) [f](mailto:a@b)",
    ]);
}

#[test]
fn a_removal_does_not_create_new_markup() {
    check(&[
        ("<scr<b>ipt>alert(1)</scr<b>ipt>", ""),
        ("<<b>script>x", "x"),
        ("[a]<b>(javascript:x)", "a"),
        ("<scr\u{200B}ipt>alert(1)</scr\u{200B}ipt>", ""),
        ("a ``<b>` c ``` d", "a `` ` c ``` d"),
        ("`x`<b>`y`", "`x` `y`"),
        ("`x`\u{200B}`y`", "`x` `y`"),
        ("<b>    text</b>", "text"),
        ("para\n\n<b><i>    text", "para\n\ntext"),
        ("<b>```\ntext\n\n# title", "\\<b>```\ntext\n\n# title"),
        ("a\n\u{200B}```\nb\n\n# title", "a\n&#32;```\nb\n\n# title"),
        ("<div>\n```\n</div>\n\ntext `c`", "\\<div>\n\\`\\`\\`\n\\</div>\n\ntext `c`"),
        ("a\n<b>\n    c", "a\n    c"),
        ("- <div>\n\n      code", "- &#32;\n  \n  \n\n\n      code"),
        ("- a\n\n<!-- -->\n\n    code\n", "- a\n\n\n&#32;\n\n\n\n\n    code\n"),
        ("[](<b>`code`)", "[]\\(\\<b>`code`)"),
        ("[r]: <b>`code`", "[r]\\: \\<b>`code`"),
        ("    one\n\n<!-- -->\n\n    two\n", "    one\n\n\n\n    two\n"),
    ]);
}

#[test]
fn invisible_characters_are_removed() {
    check(&[
        ("\u{FEFF}# Title", "# Title"),
        ("a\r\nb\rc\0d", "a\nb\ncd"),
        ("```\r\na\0\r\n```", "```\na\n```"),
        ("**\u{200D}a**", "**a**"),
        ("[a](https://example.com/\u{200B}x)", "[a](https://example.com/x)"),
        // Also in code.
        ("`a\u{202E}\u{200B}\u{1}b` c", "`ab` c"),
        ("```sh\ncurl\u{E0061}\u{E0062} x\u{FE01}\u{E0101}\u{AD}\u{3164}\n```", "```sh\ncurl x\n```"),
        ("x\n\n    a\u{2066}b\n", "x\n\n    ab\n"),
        ("```\na\n\u{200B}```\nb\n```", "```\na\n&#32;```\nb\n```"),
        // Written as entities.
        ("a&#x200B;&shy;b&ZeroWidthSpace; &zwj;&#917569; &nbsp; &amp;", "ab  &nbsp; &amp;"),
        ("`&shy;` and <scr&shy;ipt>x", "`&shy;` and x"),
    ]);
    check_unchanged(&["می\u{200C}خواهم 👩\u{200D}💻 `❤\u{FE0F}`"]);
}

#[test]
fn text_that_is_not_rendered_is_removed() {
    check(&[
        // Unreferenced definitions, which serve as comments.
        ("a\n\n[//]: # (hidden)\n\nb", "a\n\n\n\nb"),
        ("[//]: # \"hidden\"\n[comment]: <> (hidden)\n[x]: y\n'hidden'\ntext", "\n\n\ntext"),
        ("> - [x]: hidden\n>   text\n", "> - \n>   text\n"),
        ("[a]\n\n[a]: /x\n[a]: /hidden\n[A]: /hidden\n'over two lines'\n\ntext", "[a]\n\n[a]: /x\n\n\n\n\ntext"),
        ("> [a]\n>\n> [a]: /x\n> [a]: /hidden 'h'", "> [a]\n>\n> [a]: /x\n> "),
        ("- [a]\n- [a]: /x\n  [a]: /hidden\n", "- [a]\n- [a]: /x\n  \n"),
        ("<div>\n[t][a]\n</div>\n\n[a]: /x\n", "\n[t][a]\n\n\n[a]: /x\n"),
        // Link titles.
        ("[a](/x \"hidden\") ![b](<y z>   'hid\\'den' ) [c](z (hid\"den))", "[a](/x) ![b](<y z> ) [c](z)"),
        ("[a](/x\n\"hidden\nhidden\") b", "[a](/x\n) b"),
        ("[a](\"x\") [b](/x\"y\")", "[a](\"x\") [b](/x\"y\")"),
        ("[a]\n\n[a]: /x 'hidden'\n", "[a]\n\n[a]: /x \n"),
        ("[a]\n\n> [a]: /x\n> 'hidden'\n> text", "[a]\n\n> [a]: /x\n> \n> text"),
        ("[a]\n\n[a]: /x 'hidden'\n\"shown\"\n", "[a]\n\n[a]: /x \"\"\n\"shown\"\n"),
        // Text after the language of a fence.
        ("```sh hidden text\ncode\n```", "```sh\ncode\n```"),
        ("~~~ ignore.all,rules\ncode\n~~~", "~~~\ncode\n~~~"),
        ("- ```js {1} title=\"hidden\"\n  code\n  ```", "- ```js\n  code\n  ```"),
        ("```hidden&#32;text\ncode\n```", "```\ncode\n```"),
        ("> ``` aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\n> code", "> ```\n> code"),
        // Unreferenced footnotes.
        ("a[^1]\n\n[^1]: shown\n\n[^2]: hidden\n\n    `hidden`\n\nb", "a[^1]\n\n[^1]: shown\n\n\n\nb"),
        (
            "a[^1]\n\n[^1]: shown [^2]\n\n[^2]: shown\n\n[^3]: [^4]\n\n[^4]: [^3]",
            "a[^1]\n\n[^1]: shown [^2]\n\n[^2]: shown\n\n\n\n",
        ),
        ("a[^1]\n\n[^1]: shown\n[^1]: hidden", "a[^1]\n\n[^1]: shown\n"),
        ("[^1]: hidden [x]\n\n[x]: /hidden\n", "\n\n\n"),
        // Cells beyond the last column of a table.
        ("| a | b |\n|---|---|\n| 1 | 2 | hidden | x |\n| 3 |\n", "| a | b |\n|---|---|\n| 1 | 2 |\n| 3 |\n"),
        ("> a | b\n> --|--\n> 1 | 2 | hidden\n", "> a | b\n> --|--\n> 1 | 2 |\n"),
    ]);
    check_unchanged(&[
        "[x][A] [a] ![b][] [B c]\n\n[a]: /x\n[b]: <y>\n[b  C]: z\n",
        "a[^1] b[^Note]\n\n[^note]: one\n\n[^1]:\n    two\n\n    ```\n    code\n    ```\n",
        "```c++\n```\n\n~~~ .env\n~~~\n\n``` C#\n```\n",
        "| a | b |\n|---|---|\n| 1 |\n| `2` | 3 | |\n",
        "- \n- a\n-\n1.\n2. > \n\nTitle\n===\n\n- [a](\n  /x)\n- [ ] \n",
    ]);
}

#[test]
fn plain_text_keeps_its_tags() {
    for (text, clean) in [
        ("use <port> and <b>, `a\u{202E}b`", "use <port> and <b>, `ab`"),
        ("a\r\n\tb\0\u{200B}", "a\n\tb"),
        ("\u{FEFF}x 👩\u{200D}💻\u{200D}", "x 👩\u{200D}💻"),
        ("", ""),
    ] {
        assert_eq!(clean_plain(text), clean, "from {text:?}");
    }
    assert!(matches!(clean_plain("as it is\n"), Cow::Borrowed(_)), "unchanged but copied");
}

#[test]
fn a_title_is_one_line() {
    for (text, line) in [
        ("  Install\r\n the\u{200B}\t<port>\u{a0} ", "Install the <port>"),
        (" \u{200B} \u{2060} ", ""),
        ("a \u{200D} b", "a b"),
        ("a\u{2028}b\u{B}c", "a bc"),
    ] {
        assert_eq!(clean_line(text), line, "from {text:?}");
    }
}

#[test]
fn bidirectional_controls_in_code_are_found() {
    for (text, found) in [
        ("`a\u{202E}b`", Some('\u{202E}')),
        ("x\n\n```rust\u{2066}\ny\n```", Some('\u{2066}')),
        ("- x\n\n      a\u{2069}b\n", Some('\u{2069}')),
        ("> ~~~\n> \u{200F}\n> ~~~", Some('\u{200F}')),
        ("a\u{202E}b `c` \\`\u{202E}`", None),
        ("`a\u{200B}b`", None),
    ] {
        assert_eq!(find_bidi_in_code(text), found, "in {text:?}");
    }
}

#[test]
fn the_last_resort_leaves_nothing_to_clean() {
    let flat = flatten("`<b>` [a](javascript:x)\n\n[r]: data:x\n\n```\n\u{202E}<x>\n```");
    assert!(!Survey::of(&flat).has_offences(), "{flat:?}");
}

#[test]
fn hostile_text_is_cleaned_in_linear_time() {
    let fragments = [
        "<",
        "<<b>",
        "<scr<b>ipt>",
        "[a](",
        "[a](javascript:x)",
        "[a]: javascript:x\n",
        "``<b>",
        "\u{200D}",
        "a\u{200D}\u{200B}",
        "<div>\n```\n",
        "<script>",
        "<!--",
        "<?",
        "<a b='",
        "<b>```\n",
        "\u{200B}```\n",
        "- <div>\n\n      x\n",
        "<div>\n\n",
        "a<br>",
        "a<br> ",
        "<br> <b>",
        "a<kbd>",
        "<div><br>a",
    ];
    for fragment in fragments {
        let text = fragment.repeat(16 * 1024 / fragment.len());
        #[expect(clippy::disallowed_methods, reason = "measures real time")]
        let start = std::time::Instant::now();
        let clean = clean_markdown(&text);
        assert!(start.elapsed().as_secs() < 2, "{fragment:?} takes too long");
        assert_eq!(clean_markdown(&clean), clean, "{fragment:?}");
    }
}
