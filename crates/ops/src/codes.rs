//! One-time codes: their format, their hashes, and the errors for unusable codes.

use std::fmt::Display;

use waypost_core::secret::SecretKey;
use waypost_core::{Error, Random, Result};

/// The lifetime of an emailed code.
pub(crate) const LIFETIME_MS: i64 = 10 * 60 * 1_000;
const DIGITS: usize = 8;
const COUNT: u64 = 100_000_000;

/// Generates a code of 8 digits.
pub(crate) fn generate(random: &dyn Random) -> String {
    let mut bytes = [0_u8; 8];
    random.fill(&mut bytes);
    // 2^64 is so much larger than the number of codes that their probabilities differ by less than one part in 10^11.
    format!("{:0width$}", u64::from_le_bytes(bytes) % COUNT, width = DIGITS)
}

/// Parses an entered code. Ignores spaces and hyphens, which users copy or insert.
pub(crate) fn parse(text: &str) -> Result<String> {
    let code: String = text.chars().filter(|c| !c.is_whitespace() && *c != '-').collect();
    if code.len() == DIGITS && code.bytes().all(|byte| byte.is_ascii_digit()) {
        return Ok(code);
    }
    Err(Error::invalid("code", format!("The code has {DIGITS} digits. Enter it as shown in the email.")))
}

/// Returns the hash under which the code of the row `id` is stored. It is keyed, because 8 digits could otherwise be
/// found by brute force, and bound to the row ID, so that it is not valid for another row.
pub(crate) fn hash(secret: &SecretKey, id: &impl Display, code: &str) -> String {
    data_encoding::HEXLOWER.encode(&secret.sign("code by mail", format!("{id} {code}").as_bytes()))
}

pub(crate) fn wrong_code(left: i64) -> Error {
    let message = match left {
        0 => "This code is incorrect, and this was the last attempt. Request a new code.".to_owned(),
        1 => "This code is incorrect. You have one more attempt.".to_owned(),
        _ => format!("This code is incorrect. You have {left} more attempts."),
    };
    Error::invalid("code", message)
}

pub(crate) fn unusable_code() -> Error {
    Error::invalid(
        "code",
        "This code is no longer valid: it was already used, is older than 10 minutes, or was entered incorrectly too \
         often. Request a new code.",
    )
}

#[cfg(test)]
mod tests {
    use waypost_core::random::SeededRandom;

    use super::*;

    #[test]
    fn entered_codes_are_parsed() {
        let random = SeededRandom::new(1);
        for _ in 0..1_000 {
            let code = generate(&random);
            assert_eq!(parse(&code).unwrap(), code);
        }
        assert_eq!(parse(" 1234 5678\n").unwrap(), "12345678");
        assert_eq!(parse("1234-5678").unwrap(), "12345678");
        for wrong in ["", "1234567", "123456789", "1234567a", "١٢٣٤٥٦٧٨"] {
            assert_eq!(parse(wrong).unwrap_err().details["field"], "code", "{wrong}");
        }
    }
}
