//! Finds the plain text at the start of a JSON string, which needs no further parsing.

/// Returns the number of bytes before the first quotation mark, backslash or control character, or of all bytes if
/// there is none.
pub(crate) fn plain_length(bytes: &[u8]) -> usize {
    const BLOCK: usize = 64;
    let length = plain_words(&bytes[..bytes.len().min(BLOCK)]);
    if length < BLOCK {
        return length;
    }
    // The string is long. The compiler turns the check of a block into vector instructions.
    let blocks = bytes[BLOCK..]
        .chunks_exact(BLOCK)
        .take_while(|block| block.iter().fold(true, |is_plain, byte| is_plain & is_plain_byte(*byte)))
        .count();
    let length = BLOCK * (1 + blocks);
    length + plain_words(&bytes[length..])
}

/// Like [`plain_length`], but reads eight bytes at a time.
fn plain_words(bytes: &[u8]) -> usize {
    const LOW: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = 0x8080_8080_8080_8080;
    let mut length = 0;
    // Bits of `hits` above the lowest set bit may be wrong, because of borrows.
    while let Some(word) = bytes[length..].first_chunk::<8>() {
        let word = u64::from_le_bytes(*word);
        let zero = |word: u64| word.wrapping_sub(LOW) & !word;
        let control = word.wrapping_sub(LOW * 0x20) & !word;
        let hits = (zero(word ^ (LOW * 0x22)) | zero(word ^ (LOW * 0x5c)) | control) & HIGH;
        if hits != 0 {
            return length + hits.trailing_zeros() as usize / 8;
        }
        length += 8;
    }
    length + bytes[length..].iter().take_while(|byte| is_plain_byte(**byte)).count()
}

fn is_plain_byte(byte: u8) -> bool {
    byte >= 0x20 && byte != b'"' && byte != b'\\'
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Plain bytes, including the neighbours of bytes that are not plain.
    const PLAIN: [u8; 7] = [b' ', b'!', b'#', b'[', b']', 0x7f, 0xff];

    proptest! {
        #[test]
        fn the_first_byte_that_is_not_plain_is_found(
            plain in prop::collection::vec(prop::sample::select(&PLAIN), 0..200),
            rest in prop::collection::vec(prop_oneof![prop::sample::select(&b"\"\\\0\x1f\n"[..]), any::<u8>()], 0..100),
        ) {
            let bytes = [plain, rest].concat();
            let is_other = |byte: &u8| *byte < 0x20 || matches!(byte, b'"' | b'\\');
            let expected = bytes.iter().position(is_other).unwrap_or(bytes.len());
            prop_assert_eq!(plain_length(&bytes), expected);
        }
    }
}
