//! Checks of link destinations.

/// Schemes that run code, embed a document or access the user's machine.
const DANGEROUS: [&str; 6] = ["data", "file", "javascript", "livescript", "mocha", "vbscript"];
/// Schemes without `//` that are valid in an autolink. Anything else, such as `<host:port>`, is a placeholder.
const PLAIN: [&str; 8] = ["geo", "magnet", "mailto", "sip", "sms", "tel", "urn", "xmpp"];
/// Number of nested percent encodings to decode.
const PERCENT_DEPTH: usize = 3;

/// Whether a link destination (with entities decoded) is dangerous. Browsers skip white space and control characters in
/// a scheme (WHATWG URL, section 4.4). Percent encoding is decoded too, because some clients decode it early.
pub(super) fn is_dangerous(destination: &str) -> bool {
    let mut bytes: Vec<u8> = destination.bytes().collect();
    for _ in 0..PERCENT_DEPTH {
        if !bytes.contains(&b'%') {
            break;
        }
        bytes = percent_decoded(&bytes);
    }
    let mut scheme = String::new();
    for byte in bytes.into_iter().filter(u8::is_ascii_graphic) {
        match byte {
            b':' => return DANGEROUS.contains(&scheme.as_str()),
            b'/' | b'?' | b'#' => return false,
            _ if scheme.len() > 16 => return false,
            _ => scheme.push(char::from(byte.to_ascii_lowercase())),
        }
    }
    false
}

fn percent_decoded(bytes: &[u8]) -> Vec<u8> {
    let digit = |at: usize| bytes.get(at).and_then(|&b| char::from(b).to_digit(16));
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        match (bytes[at], digit(at + 1), digit(at + 2)) {
            (b'%', Some(high), Some(low)) => {
                decoded.push((high * 16 + low) as u8);
                at += 3;
            }
            (byte, ..) => {
                decoded.push(byte);
                at += 1;
            }
        }
    }
    decoded
}

/// Whether the text in angle brackets is a URL or an email address, not a placeholder that looks like one.
pub(super) fn is_autolink(text: &str) -> bool {
    match text.split_once(':') {
        Some((scheme, rest)) => {
            scheme.starts_with(|c: char| c.is_ascii_alphabetic())
                && scheme.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '.' | '-'))
                && (rest.starts_with("//") || PLAIN.iter().any(|plain| plain.eq_ignore_ascii_case(scheme)))
        }
        None => text.split_once('@').is_some_and(|(name, domain)| !name.is_empty() && domain.contains('.')),
    }
}
