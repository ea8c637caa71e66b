//! The syntax of trace contexts (W3C Trace Context), which requests carry in `_meta` or in headers of the same names.

/// The header, and the member of `_meta`, that identifies the caller's span.
pub const TRACEPARENT: &str = "traceparent";
/// The header, and the member of `_meta`, with the data of tracing systems.
pub const TRACESTATE: &str = "tracestate";

/// The length of a `traceparent` of version 00.
const LENGTH: usize = 55;
/// The maximum length of a `traceparent` of a later version.
const MAX_TRACEPARENT: usize = 256;
/// The maximum length of a `tracestate`.
const MAX_TRACESTATE: usize = 512;
/// The maximum number of members of a `tracestate`.
const MAX_MEMBERS: usize = 32;
/// The maximum length of the key or value of a member.
const MAX_PART: usize = 256;

/// Whether `text` is a valid `traceparent` (section 3.2). Later versions can have additional fields.
#[must_use]
pub fn is_traceparent(text: &str) -> bool {
    let bytes = text.as_bytes();
    let Some((known, rest)) = bytes.split_at_checked(LENGTH) else { return false };
    let fields: Vec<&[u8]> = known.split(|byte| *byte == b'-').collect();
    let [version, trace_id, parent_id, flags] = fields.as_slice() else { return false };
    let is_hex = |field: &[u8], length: usize| {
        field.len() == length && field.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    };
    let is_zero = |field: &[u8]| field.iter().all(|byte| *byte == b'0');
    let is_end = rest.is_empty()
        || (*version != b"00"
            && rest[0] == b'-'
            && bytes.len() <= MAX_TRACEPARENT
            && rest.iter().all(u8::is_ascii_graphic));
    is_hex(version, 2)
        && *version != b"ff"
        && is_hex(trace_id, 32)
        && !is_zero(trace_id)
        && is_hex(parent_id, 16)
        && !is_zero(parent_id)
        && is_hex(flags, 2)
        && is_end
}

/// Whether `text` is a valid `tracestate` (section 3.3) of at most 512 characters, the length that every system must
/// forward.
#[must_use]
pub fn is_tracestate(text: &str) -> bool {
    let members: Vec<&str> = text.split(',').map(|member| member.trim_matches([' ', '\t'])).collect();
    let is_member = |member: &&str| {
        member.is_empty() || member.split_once('=').is_some_and(|(key, value)| is_key(key) && is_value(value))
    };
    let is_empty = members.iter().all(|member| member.is_empty());
    text.len() <= MAX_TRACESTATE && !is_empty && members.len() <= MAX_MEMBERS && members.iter().all(is_member)
}

fn is_key(key: &str) -> bool {
    let is_allowed = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-' | b'*' | b'/' | b'@');
    key.len() <= MAX_PART
        && key.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
        && key.bytes().all(is_allowed)
}

fn is_value(value: &str) -> bool {
    let is_allowed = |byte: u8| matches!(byte, b' '..=b'~') && !matches!(byte, b',' | b'=');
    (1..=MAX_PART).contains(&value.len()) && value.bytes().all(is_allowed)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const VALID: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn the_syntax_of_traceparent_is_checked() {
        let later = VALID.replacen("00", "cc", 1);
        for valid in [VALID, &VALID.replace("-01", "-00"), &later, &format!("{later}-x.1")] {
            assert!(is_traceparent(valid), "{valid}");
        }
        for invalid in [
            "",
            "00-0-0-00",
            &VALID[..54],
            &format!("{VALID}-"),
            &format!("{VALID} "),
            &VALID.to_uppercase(),
            &VALID.replacen("00", "ff", 1),
            &VALID.replacen("00", "0g", 1),
            &VALID.replacen('-', "_", 1),
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b716920333-011",
            &format!("{later}x"),
            &format!("{later}-x y"),
            &format!("{later}-{}", "x".repeat(MAX_TRACEPARENT)),
        ] {
            assert!(!is_traceparent(invalid), "{invalid}");
        }
    }

    #[test]
    fn the_syntax_of_tracestate_is_checked() {
        let many = |count: usize| vec!["a=b"; count].join(",");
        for valid in
            ["a=b", "rojo=00f067aa0ba902b7,congo=t61rcWkgMzE", "tenant@system=x y , b=1,", "0a_-*/=~", &many(32)]
        {
            assert!(is_tracestate(valid), "{valid}");
        }
        for invalid in [
            "",
            " , ",
            "a",
            "a=",
            "=b",
            "A=b",
            "@a=b",
            "a=b=c",
            "a=é",
            "a=\n",
            &many(33),
            &format!("a={}", "b".repeat(257)),
        ] {
            assert!(!is_tracestate(invalid), "{invalid}");
        }
    }

    proptest! {
        #[test]
        fn every_traceparent_of_version_00_is_accepted(trace in 1_u128.., parent in 1_u64.., flags in any::<u8>()) {
            let text = format!("00-{trace:032x}-{parent:016x}-{flags:02x}");
            prop_assert!(is_traceparent(&text));
        }

        #[test]
        fn no_other_text_is_accepted(text in any::<String>(), at in 0..LENGTH, byte in 0_u8..128) {
            prop_assert!(!is_traceparent(&text) && (text.is_ascii() || !is_tracestate(&text)));
            let mut bytes = VALID.as_bytes().to_vec();
            bytes[at] = byte;
            let changed = String::from_utf8(bytes).unwrap();
            let is_hex = matches!(byte, b'0'..=b'9' | b'a'..=b'f');
            let is_same = byte == VALID.as_bytes()[at];
            prop_assert!(is_same || is_hex || !is_traceparent(&changed), "{changed}");
        }
    }
}
