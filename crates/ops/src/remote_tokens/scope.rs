//! Scopes (RFC 6749, section 3.3): words that are separated by spaces. They come from other servers, so their size is limited.

/// The maximum length of a scope in bytes.
pub(crate) const MAX_SCOPE: usize = 2_048;
/// The maximum number of words that are read from a scope.
const MAX_WORDS: usize = MAX_SCOPE / 2;

/// Returns the valid words of a scope.
pub(crate) fn words(scope: &str) -> impl Iterator<Item = &str> {
    scope.split(' ').filter(is_word).take(MAX_WORDS)
}

fn is_word(word: &&str) -> bool {
    !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\\'))
}

/// Returns the union of scopes. Words with which it would be longer than [`MAX_SCOPE`] are omitted. `None` if it is empty.
pub(crate) fn union(scopes: &[Option<&str>]) -> Option<String> {
    let (mut all, mut length) = (Vec::new(), 0);
    for word in scopes.iter().flatten().flat_map(|scope| words(scope)) {
        let added = word.len() + usize::from(length > 0);
        if length + added <= MAX_SCOPE && !all.contains(&word) {
            length += added;
            all.push(word);
        }
    }
    (!all.is_empty()).then(|| all.join(" "))
}

/// Whether a scope contains every word of another one.
pub(crate) fn contains(scope: &str, other: &str) -> bool {
    words(other).all(|word| words(scope).any(|own| own == word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_union_has_every_valid_word_once_and_is_limited() {
        let (big, long) = ("x".repeat(MAX_SCOPE), "y".repeat(MAX_SCOPE + 1));
        for (scopes, expected) in [
            (&[Some("a b"), None, Some("b  c a")][..], Some("a b c")),
            (&[Some("a\"b é c\\d"), Some("\n")], None),
            (&[None], None),
            (&[], None),
            (&[Some("a"), Some(big.as_str()), Some(long.as_str()), Some("b")], Some("a b")),
            (&[Some(big.as_str()), Some("a")], Some(big.as_str())),
        ] {
            assert_eq!(union(scopes).as_deref(), expected, "{scopes:?}");
        }
        let many: String = (0..3_000).map(|number| format!("{number} ")).collect();
        assert!(union(&[Some(many.as_str()), Some("a")]).is_some_and(|scope| scope.len() <= MAX_SCOPE));
    }

    #[test]
    fn a_scope_contains_another_one_in_any_order() {
        assert!(contains("a b c", "c a") && contains("a", "") && contains("", ""));
        assert!(!contains("a b", "a d") && !contains("", "a") && !contains("ab", "a"));
    }
}
