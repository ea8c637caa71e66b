use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn excerpt(secrets: &[&str], text: &str) -> String {
    SecretMask::new(secrets.iter().copied()).excerpt(text, false).text
}

#[test]
fn secrets_are_masked_wherever_they_occur() {
    let text = json!({ "a": "x hunter2 y", "hunter2": [{ "b": "hunter2hunter2" }], "n": 12_345_678 }).to_string();
    let expected = r#"{"a":"x [secret] y","[secret]":[{"b":"[secret]"}],"n":[secret]}"#;
    let found: Value = serde_json::from_str(&excerpt(&["hunter2"], &text)).unwrap();
    assert_eq!(found["a"], "x [secret] y");
    let found = excerpt(&["hunter2", "12345678"], &text);
    assert_eq!(found.len(), expected.len(), "{found}");
    assert!(!found.contains("hunter2") && !found.contains("12345678"), "{found}");
    // Escaped in an unusual way, in JSON that is nested in a string, percent-encoded, and Base64-encoded.
    for text in [
        r#"{"a":"\u0068unter\u0032"}"#.to_owned(),
        json!({ "text": json!({ "a": "hunter2" }).to_string() }).to_string(),
        json!({ "text": json!({ "text": json!({ "a": "p\"ss/w\\rd" }).to_string() }).to_string() }).to_string(),
        json!({ "text": "result: p\\\"ss/w\\\\rd" }).to_string(),
        json!({ "url": "https://x.example/?k=p%22ss%2Fw%5Crd" }).to_string(),
        json!({ "a": "aHVudGVyMg==" }).to_string(),
    ] {
        let found = excerpt(&["hunter2", "p\"ss/w\\rd"], &text);
        assert!(found.contains(MASK), "{text}: {found}");
        for part in ["hunter", "nter", "ss/w", "ss%2Fw", "aHVu"] {
            assert!(!found.contains(part), "{text}: {found}");
        }
    }
    // Every line of a key, and the strings in a document.
    let key = "-----BEGIN KEY-----\nMIIEvQIBADANBg\nkqhkiG9w0BAQ==\n";
    assert_eq!(excerpt(&[key], r#"{"a":"kqhkiG9w0BAQ=="}"#), r#"{"a":"[secret]"}"#);
    let document = json!({ "type": "account", "private_key": "abcdefgh" }).to_string();
    assert_eq!(excerpt(&[&document], r#"{"a":"abcdefgh"}"#), r#"{"a":"[secret]"}"#);
    // Overlapping secrets, and a secret that overlaps itself.
    assert_eq!(excerpt(&["abcdef", "efghij"], r#"["xabcdefghijx"]"#), r#"["x[secret]x"]"#);
    assert_eq!(excerpt(&["abcdabcd"], r#"["abcdabcdabcd"]"#), r#"["[secret]"]"#);
    assert_eq!(excerpt(&["abc"], r#"["abc"]"#), r#"["abc"]"#, "too short");
}

#[test]
fn values_with_names_of_credentials_are_masked() {
    let text = r#"{"user":"ann","Password":"x1","nested":{"api_key":7,"access_token":{"a":["}",{"b":1}]},"ok":1},
        "secret":null,"is_secret":true,"cookie": [ "a" ] ,"headers":[{"name":"Authorization","value":"x2"},
        {"name":"Accept","value":"x3"}],"last":2}"#;
    let expected = r#"{"user":"ann","Password":"[secret]","nested":{"api_key":"[secret]","access_token":"[secret]","ok":1},
        "secret":null,"is_secret":true,"cookie": "[secret]" ,"headers":[{"name":"Authorization","value":"[secret]"},
        {"name":"Accept","value":"x3"}],"last":2}"#;
    assert_eq!(excerpt(&[], text), expected);
    let nested = json!({ "content": [{ "type": "text", "text": r#"{"password":"hunter2"}"# }] }).to_string();
    assert!(!excerpt(&[], &nested).contains("hunter2"));
    // Also if the text ends within the value.
    for end in 0..text.len() {
        let cut = SecretMask::new([]).excerpt(&text[..end], true);
        assert!(!cut.text.contains("x1") && !cut.text.contains("x2") && cut.is_truncated, "{}", cut.text);
    }
}

#[test]
fn base64_is_replaced_by_its_size() {
    let data = "iVBORw0KGgo".repeat(10);
    let text = json!({ "content": [{ "data": data, "mimeType": "image/png" }, { "text": "after" }] }).to_string();
    let found = excerpt(&[], &text);
    assert!(
        found.contains("[Base64, 110 characters]") && found.contains("after") && !found.contains("iVBO"),
        "{found}"
    );
    let long = json!({ "content": [{ "data": "iVBORw0KGgo".repeat(10_000) }] }).to_string();
    let found = SecretMask::new([]).excerpt(&long, false);
    assert!(found.is_truncated && found.text.contains("[Base64, at least 65"), "{found:?}");
    assert_eq!(excerpt(&[], r#"{"data":"short","text":"aaaa bbbb"}"#), r#"{"data":"short","text":"aaaa bbbb"}"#);
}

#[test]
fn an_excerpt_is_bounded_and_says_so() {
    let mask = SecretMask::new(["hunter2"]);
    let short = mask.excerpt(r#"{"a":1}"#, false);
    assert_eq!(short, Excerpt { text: r#"{"a":1}"#.to_owned(), is_truncated: false });
    for text in
        [json!({ "a": "é".repeat(MAX_READ) }), json!(vec!["hunter2"; 20_000]), json!({ "a": "\n".repeat(9_000) })]
    {
        let found = mask.excerpt(&text.to_string(), false);
        assert!(found.is_truncated && found.text.len() <= MAX_EXCERPT && !found.text.contains("hunter2"));
    }
    assert!(mask.excerpt("[1,2", true).is_truncated);
}

/// The end of a text can be the beginning of one secret and a part of an escape in another.
#[test]
fn the_beginnings_of_several_secrets_are_left_out() {
    let mask = SecretMask::new(["kkkk\\kk", "\\\"mmm"]);
    let text = json!(["a", "kkkk\\kk"]).to_string();
    for end in 0..text.len() - 2 {
        let found = mask.excerpt(&text[..end], true).text;
        assert!(!found.contains('k'), "{found}");
    }
}

/// Returns secrets of characters that no other part of the texts contains, so that every part that is left can be
/// found.
fn secret() -> impl Strategy<Value = String> {
    "[k-q\"\\\\/é\n {:,]{4,24}".prop_filter("short secrets are not masked", |text| text.trim().len() >= MIN_SECRET)
}

/// Returns the prefixes and suffixes of a secret that contain at least four letters.
fn ends(secret: &str) -> Vec<String> {
    let chars: Vec<char> = secret.chars().collect();
    let parts = (4..=chars.len()).flat_map(|n| [&chars[..n], &chars[chars.len() - n..]]);
    let letters = |part: &String| part.chars().filter(|c| ('k'..='q').contains(c)).count() >= 4;
    parts.map(|part| part.iter().collect()).filter(letters).collect()
}

proptest! {
    /// Wherever a text ends, and however deeply it is nested in strings, nothing of a secret is left.
    #[test]
    fn nothing_of_a_secret_is_left(
        secrets in prop::collection::vec(secret(), 1..4),
        before in "[A-J0-9]{0,20}",
        levels in 0_usize..3,
        is_name in any::<bool>(),
        cut in any::<prop::sample::Index>(),
    ) {
        let joined = secrets.join(&before);
        let mut value = if is_name { json!({ joined.as_str(): before }) } else { json!({ "A": [before, joined] }) };
        for _ in 0..levels {
            value = json!({ "A": value.to_string() });
        }
        let text = value.to_string();
        let end = text.floor_char_boundary(cut.index(text.len() + 1));
        let mask = SecretMask::new(secrets.iter().map(String::as_str));
        for (text, is_cut) in [(text.as_str(), false), (&text[..end], true)] {
            let found = mask.excerpt(text, is_cut);
            let plain = unwrap_all(&found.text);
            for part in secrets.iter().flat_map(|secret| ends(secret)) {
                prop_assert!(!plain.contains(&part), "{part:?} of {secrets:?} in {plain:?}");
                prop_assert!(!found.text.contains(&part), "{part:?} of {secrets:?} in {:?}", found.text);
            }
        }
    }

    /// Text that is not JSON is masked as well.
    #[test]
    fn text_is_masked(secret in "[k-q]{4,30}", before in "\\PC{0,50}", after in "\\PC{0,50}", end in any::<prop::sample::Index>()) {
        let text = format!("{before}{secret}{after}");
        let mask = SecretMask::new([secret.as_str()]);
        prop_assert!(!mask.excerpt(&text, false).text.contains(&secret));
        // A text that ends within the secret.
        let cut = &secret[..end.index(secret.len())];
        let found = mask.excerpt(&format!("A{cut}"), true);
        prop_assert!(!found.text.trim_end_matches(MASK).contains(|c: char| ('k'..='q').contains(&c)), "{found:?}");
    }

    /// Anything is accepted, and the result is bounded.
    #[test]
    fn any_text_is_accepted(bytes in prop::collection::vec(any::<u8>(), 0..300), repeat in 1_usize..600, is_cut in any::<bool>(),
        json in "[\\[\\]{}\",:\\\\a-f0-9u ]{0,100}") {
        let text = String::from_utf8_lossy(&bytes).repeat(repeat);
        for text in [text, json.clone(), format!("{{{json}")] {
            let found = SecretMask::new(["abcd", "a\"b\\c"]).excerpt(&text, is_cut);
            prop_assert!(found.text.len() <= MAX_EXCERPT);
            prop_assert!(found.is_truncated || !is_cut);
        }
    }
}

/// Resolves the escapes of all levels.
fn unwrap_all(text: &str) -> String {
    let mut text = text.to_owned();
    for _ in 0..4 {
        text = text.replace("\\\\", "\u{1}").replace("\\\"", "\"").replace("\\n", "\n").replace('\u{1}', "\\");
    }
    text
}
