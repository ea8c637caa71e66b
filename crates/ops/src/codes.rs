//! One-time codes: what they look like, and what is said of wrong ones.

use std::fmt::Display;

use waypost_core::secret::SecretKey;
use waypost_core::{Error, Random, Result};

const DIGITS: usize = 8;
const COUNT: u64 = 100_000_000;

/// A new code: 8 digits.
pub(crate) fn new(random: &dyn Random) -> String {
    let mut bytes = [0_u8; 8];
    random.fill(&mut bytes);
    // 2^64 is so much larger that no code is likelier than another by more than one in 10^11.
    format!("{:0width$}", u64::from_le_bytes(bytes) % COUNT, width = DIGITS)
}

/// The digits of what was typed: people copy spaces along, and split long numbers.
pub(crate) fn read(typed: &str) -> Result<String> {
    let code: String = typed.chars().filter(|c| !c.is_whitespace() && *c != '-').collect();
    if code.len() == DIGITS && code.bytes().all(|byte| byte.is_ascii_digit()) {
        return Ok(code);
    }
    Err(Error::invalid("code", format!("The code has {DIGITS} digits. Type it as it stands in the mail.")))
}

/// How a code of the row `id` is stored. Its few digits would be found by trying without the installation's key; with the row's id in
/// it the hash is worth nothing in another row.
pub(crate) fn hash(secret: &SecretKey, id: &impl Display, code: &str) -> String {
    data_encoding::HEXLOWER.encode(&secret.sign("code by mail", format!("{id} {code}").as_bytes()))
}

pub(crate) fn wrong(left: i64) -> Error {
    let message = match left {
        0 => "This code is wrong, and it was the last try. Ask for a new code.".to_owned(),
        1 => "This code is wrong. You have one more try.".to_owned(),
        _ => format!("This code is wrong. You have {left} more tries."),
    };
    Error::invalid("code", message)
}

pub(crate) fn gone() -> Error {
    Error::invalid(
        "code",
        "This code cannot be used any more: it was used, is older than 10 minutes, or was entered wrongly too often. Ask for a new code.",
    )
}

#[cfg(test)]
mod tests {
    use waypost_core::random::SeededRandom;

    use super::*;

    #[test]
    fn reads_what_people_type() {
        let random = SeededRandom::new(1);
        for _ in 0..1_000 {
            let code = new(&random);
            assert_eq!(read(&code).unwrap(), code);
        }
        assert_eq!(read(" 1234 5678\n").unwrap(), "12345678");
        assert_eq!(read("1234-5678").unwrap(), "12345678");
        for wrong in ["", "1234567", "123456789", "1234567a", "١٢٣٤٥٦٧٨"] {
            assert_eq!(read(wrong).unwrap_err().details["field"], "code", "{wrong}");
        }
    }
}
