//! Masking of secrets in a byte stream.

/// The text that is written instead of a secret.
const MASK: &[u8] = b"[secret]";
/// The minimum length of a secret that is masked. Shorter values would mask parts of ordinary words.
const MIN_SECRET: usize = 4;

/// Replaces secrets in a stream, regardless of how the stream is divided into chunks.
///
/// Secrets are found in plain text only: an encoded secret, such as Base64, is not recognised. Every line of a
/// multi-line secret, such as a private key, is treated as a secret. If secrets overlap, all their bytes are masked.
pub(super) struct Masker {
    /// The secrets, none of which is empty.
    secrets: Vec<Vec<u8>>,
    /// Whether a secret begins with a byte.
    first: [bool; 256],
    /// Bytes that may be the beginning of a secret, and therefore cannot be written yet.
    held: Vec<u8>,
    /// The number of bytes at the start of `held` that belong to a secret.
    masked: usize,
}

impl Masker {
    pub(super) fn new(values: &[String]) -> Self {
        let mut secrets: Vec<Vec<u8>> = Vec::new();
        for value in values.iter().filter(|value| value.trim().len() >= MIN_SECRET) {
            let lines = value.lines().map(str::trim).filter(|line| line.len() >= MIN_SECRET);
            // A file often ends with a line break, which the program does not output.
            let whole = [value.as_str(), value.trim_end()].into_iter().filter(|text| text.len() >= MIN_SECRET);
            secrets.extend(whole.chain(lines).map(|text| text.as_bytes().to_vec()));
        }
        secrets.sort_unstable();
        secrets.dedup();
        let mut first = [false; 256];
        for secret in &secrets {
            first[usize::from(secret[0])] = true;
        }
        Self { secrets, first, held: Vec::new(), masked: 0 }
    }

    /// Adds a chunk and appends to `output` everything that is certain not to be part of a secret.
    pub(super) fn push(&mut self, chunk: &[u8], output: &mut Vec<u8>) {
        if self.secrets.is_empty() {
            output.extend_from_slice(chunk);
            return;
        }
        self.held.extend_from_slice(chunk);
        self.advance(false, output);
    }

    /// Appends the rest at the end of the stream. The beginning of a secret is written, because it is not a complete
    /// secret.
    pub(super) fn finish(&mut self, output: &mut Vec<u8>) {
        self.advance(true, output);
    }

    fn advance(&mut self, is_end: bool, output: &mut Vec<u8>) {
        let mut position = 0;
        while let Some(&byte) = self.held.get(position) {
            if self.first[usize::from(byte)] {
                let rest = &self.held[position..];
                let (mut length, mut is_certain) = (0, true);
                for secret in &self.secrets {
                    if rest.starts_with(secret) {
                        length = length.max(secret.len());
                    } else if !is_end && secret.starts_with(rest) {
                        is_certain = false;
                    }
                }
                if !is_certain {
                    break;
                }
                if length > 0 && self.masked == 0 {
                    output.extend_from_slice(MASK);
                }
                self.masked = self.masked.max(length);
            }
            if self.masked > 0 {
                self.masked -= 1;
            } else {
                output.push(byte);
            }
            position += 1;
        }
        self.held.drain(..position);
        if self.held.is_empty() {
            self.held.shrink_to(64 * 1024);
        }
    }
}

/// Returns a text with its secrets masked.
pub(crate) fn mask_text(secrets: &[String], text: &str) -> String {
    let (mut masker, mut output) = (Masker::new(secrets), Vec::with_capacity(text.len()));
    masker.push(text.as_bytes(), &mut output);
    masker.finish(&mut output);
    String::from_utf8_lossy(&output).into_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn mask(secrets: &[&str], chunks: &[&str]) -> String {
        let secrets: Vec<String> = secrets.iter().map(|secret| (*secret).to_owned()).collect();
        let (mut masker, mut output) = (Masker::new(&secrets), Vec::new());
        for chunk in chunks {
            masker.push(chunk.as_bytes(), &mut output);
        }
        masker.finish(&mut output);
        String::from_utf8(output).unwrap()
    }

    #[test]
    fn secrets_are_masked() {
        assert_eq!(mask(&["hunter2"], &["a hunter2 b"]), "a [secret] b");
        assert_eq!(mask(&["hunter2"], &["hun", "t", "er2hunter", "3"]), "[secret]hunter3");
        assert_eq!(mask(&["abc"], &["abc"]), "abc", "too short");
        assert_eq!(mask(&["abcdef", "efghij", "cdef"], &["xabcdefghijx"]), "x[secret]x", "overlapping");
        assert_eq!(mask(&["aaaa"], &["aaa", "aaab"]), "[secret]b");
        assert_eq!(mask(&["abcdabce"], &["abcdabcdabce"]), "abcd[secret]");
        let key = "-----BEGIN KEY-----\nMIIEvQIBADANBg\nkqhkiG9w0BAQ==\n";
        assert_eq!(mask(&[key], &[key]), "[secret]");
        assert_eq!(mask(&[key], &["x kqhkiG9w0BAQ== y"]), "x [secret] y");
        assert_eq!(mask(&["token\n"], &["a token b"]), "a [secret] b");
    }

    proptest! {
        #[test]
        fn no_chunking_of_output_reveals_a_secret(
            secrets in prop::collection::vec("[ab\n]{0,4}[ab]{4}[ab\n]{0,4}", 1..4),
            parts in prop::collection::vec((any::<prop::sample::Index>(), "[abc\n]{0,6}", 1_usize..5), 0..12),
            size in 1_usize..9,
        ) {
            let text: String = parts.iter().map(|(secret, other, length)| {
                let secret = &secrets[secret.index(secrets.len())];
                // The mask itself contains no character of a secret.
                format!("{other}{}", &secret[..secret.len() / *length])
            }).collect();
            let (mut masker, mut output) = (Masker::new(&secrets), Vec::new());
            for chunk in text.as_bytes().chunks(size) {
                masker.push(chunk, &mut output);
                prop_assert!(masker.held.len() < 12, "only the beginning of a secret is held");
            }
            masker.finish(&mut output);
            let output = String::from_utf8(output).unwrap();
            for secret in &secrets {
                prop_assert!(!output.contains(secret.as_str()), "{:?} in {:?}", secret, output);
            }
            let (mut masker, mut whole) = (Masker::new(&secrets), Vec::new());
            masker.push(text.as_bytes(), &mut whole);
            masker.finish(&mut whole);
            prop_assert_eq!(whole, output.into_bytes());
        }

        #[test]
        fn text_without_secrets_is_unchanged(text in "[c-f]{0,40}", size in 1_usize..9) {
            let (mut masker, mut output) = (Masker::new(&["cdeg".to_owned()]), Vec::new());
            for chunk in text.as_bytes().chunks(size) {
                masker.push(chunk, &mut output);
            }
            masker.finish(&mut output);
            prop_assert_eq!(String::from_utf8(output).unwrap(), text);
        }
    }
}
