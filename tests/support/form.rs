//! A minimal HTML form parser, sufficient for Waypost's pages, in which every attribute is quoted.

/// A form.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Form {
    /// The action as written in the page. Empty for the page's own URL.
    pub action: String,
    /// The fields in order, with their initial values.
    pub fields: Vec<Field>,
    /// Names and values of the buttons that have both.
    pub buttons: Vec<(String, String)>,
}

/// A field of a form.
#[derive(Debug, Clone, PartialEq)]
pub struct Field {
    /// The name.
    pub name: String,
    /// The initial value.
    pub value: String,
    /// The type, such as `hidden`.
    pub kind: String,
}

impl Form {
    /// Whether the form has a visible field with this name.
    pub fn has_visible_field(&self, name: &str) -> bool {
        self.fields.iter().any(|field| field.name == name && field.kind != "hidden")
    }
}

/// Returns the forms with method POST in a page.
pub fn parse_forms(page: &str) -> Vec<Form> {
    let mut forms = Vec::new();
    let mut current: Option<Form> = None;
    for tag in page.split('<').skip(1) {
        let name = tag.split(|c: char| c.is_whitespace() || c == '>').next().unwrap_or_default();
        match (name, &mut current) {
            ("form", _) if find_attribute(tag, "method").is_some_and(|method| method.eq_ignore_ascii_case("post")) => {
                let action = find_attribute(tag, "action").unwrap_or_default();
                current = Some(Form { action, ..Form::default() });
            }
            ("/form", _) => forms.extend(current.take()),
            ("input", Some(form)) => form.fields.extend(parse_field(tag)),
            ("button", Some(form)) => {
                form.buttons.extend(find_attribute(tag, "name").zip(find_attribute(tag, "value")));
            }
            _ => {}
        }
    }
    forms
}

fn parse_field(tag: &str) -> Option<Field> {
    let kind = find_attribute(tag, "type").unwrap_or_else(|| "text".to_owned());
    Some(Field { name: find_attribute(tag, "name")?, value: find_attribute(tag, "value").unwrap_or_default(), kind })
}

/// Returns the value of an attribute of a tag. `tag` also contains the text after the tag.
fn find_attribute(tag: &str, name: &str) -> Option<String> {
    let mut rest = tag.split_once(char::is_whitespace)?.1;
    loop {
        let (before, value) = rest.split_once("=\"")?;
        let (value, after) = value.split_once('"')?;
        let found = before.rsplit(char::is_whitespace).next() == Some(name);
        // The attribute is not part of the tag if the tag ended before it.
        if before.contains('>') {
            return None;
        }
        if found {
            return Some(unescape(value));
        }
        rest = after;
    }
}

fn unescape(text: &str) -> String {
    let named = [("&lt;", "<"), ("&gt;", ">"), ("&quot;", "\""), ("&#34;", "\""), ("&#x27;", "'"), ("&#39;", "'")];
    let numbers = [("&#60;", "<"), ("&#62;", ">"), ("&#38;", "&"), ("&amp;", "&")];
    named.iter().chain(&numbers).fold(text.to_owned(), |text, (escaped, plain)| text.replace(escaped, plain))
}

#[test]
fn forms_are_parsed() {
    let page = r#"<!doctype html><form method="get"><input name="q"></form>
        <form class="a" method="post" action="/s/a/oauth/x?request=1&amp;b=2">
          <input type="hidden" name="csrf" value="a&#34;b"><label>E-mail <input name="email" type="email" required></label>
          <button name="decision" value="allow">Allow</button><button>Other</button></form>"#;
    let [form] = &parse_forms(page)[..] else { panic!("exactly one form is submitted by POST") };
    assert_eq!(form.action, "/s/a/oauth/x?request=1&b=2");
    assert_eq!(form.fields[0], Field { name: "csrf".into(), value: "a\"b".into(), kind: "hidden".into() });
    assert!(form.has_visible_field("email") && !form.has_visible_field("csrf"));
    assert_eq!(form.buttons, [("decision".to_owned(), "allow".to_owned())]);
}
