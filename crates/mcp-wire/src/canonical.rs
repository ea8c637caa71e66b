//! Canonical JSON (RFC 8785) and its digests.

use std::fmt;

use serde::Serialize;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

/// The largest integer that every JSON parser reads exactly (RFC 7493, section 2.2).
const MAX_INTEGER: u64 = (1 << 53) - 1;

/// The reason why a value has no canonical form.
#[derive(Debug, thiserror::Error)]
pub enum CanonicalError {
    /// An integer outside ±(2^53−1), which parsers round differently.
    #[error("an integer is beyond ±(2^53−1)")]
    IntegerRange,
    /// The value cannot be serialised.
    #[error("the value cannot be serialised: {0}")]
    Serialize(#[from] serde_json::Error),
}

/// The SHA-256 digest of a value's canonical JSON. It is equal for equal values, regardless of the order of their
/// members.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Digest([u8; 32]);

impl Digest {
    /// Returns the digest of `value`.
    ///
    /// # Errors
    /// The errors of [`to_vec`].
    pub fn of(value: &impl Serialize) -> Result<Self, CanonicalError> {
        Ok(Self(Sha256::digest(to_vec(value)?).into()))
    }

    /// Returns the digest in lowercase hexadecimal.
    #[must_use]
    pub fn to_hex(self) -> String {
        data_encoding::HEXLOWER.encode(&self.0)
    }

    /// Returns the 32 bytes of the digest.
    #[must_use]
    pub fn into_bytes(self) -> [u8; 32] {
        self.0
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({})", data_encoding::HEXLOWER.encode(&self.0))
    }
}

/// Returns the canonical JSON of `value`: members sorted by their UTF-16 code units, no white space, and numbers as in
/// ECMAScript.
///
/// # Errors
/// [`CanonicalError::IntegerRange`] if the value contains an integer beyond ±(2^53−1); [`CanonicalError::Serialize`] if
/// it cannot be serialised.
pub fn to_vec(value: &impl Serialize) -> Result<Vec<u8>, CanonicalError> {
    let value = serde_json::to_value(value)?;
    if has_inexact_integer(&value) {
        return Err(CanonicalError::IntegerRange);
    }
    Ok(serde_json_canonicalizer::to_vec(&value)?)
}

fn has_inexact_integer(value: &Value) -> bool {
    match value {
        Value::Number(number) => {
            let magnitude = number.as_u64().or_else(|| number.as_i64().map(i64::unsigned_abs));
            magnitude.is_some_and(|magnitude| magnitude > MAX_INTEGER)
        }
        Value::Array(items) => items.iter().any(has_inexact_integer),
        Value::Object(members) => members.values().any(has_inexact_integer),
        Value::Null | Value::Bool(_) | Value::String(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn canonical(text: &str) -> String {
        String::from_utf8(to_vec(&serde_json::from_str::<Value>(text).unwrap()).unwrap()).unwrap()
    }

    /// RFC 8785, sections 3.2.2 and 3.2.3, and appendix B.
    #[test]
    fn the_examples_of_the_rfc_are_canonical() {
        let example = r#"{
            "numbers": [333333333.33333329, 1E30, 4.50, 2e-3, 0.000000000000000000000000001],
            "string": "\u20ac$\u000F\u000aA'\u0042\u0022\u005c\\\"\/",
            "literals": [null, true, false]
        }"#;
        let expected = "{\"literals\":[null,true,false],\"numbers\":[333333333.3333333,1e+30,4.5,0.002,1e-27],\
                        \"string\":\"€$\\u000f\\nA'B\\\"\\\\\\\\\\\"/\"}";
        assert_eq!(canonical(example), expected);
        let members =
            "{\"\\u20ac\":1,\"\\r\":2,\"\\ufb33\":3,\"1\":4,\"\\ud83d\\ude00\":5,\"\\u0080\":6,\"\\u00f6\":7}";
        assert_eq!(canonical(members), "{\"\\r\":2,\"1\":4,\"\u{80}\":6,\"ö\":7,\"€\":1,\"😀\":5,\"\u{fb33}\":3}");
        assert_eq!(canonical("[-0.0, 1.0, 1e21, 9007199254740991, 5e-324]"), "[0,1,1e+21,9007199254740991,5e-324]");
    }

    #[test]
    fn integers_that_parsers_round_have_no_canonical_form() {
        for text in ["9007199254740992", "-9007199254740992", "{\"a\":[18446744073709551615]}"] {
            let value: Value = serde_json::from_str(text).unwrap();
            assert!(matches!(Digest::of(&value), Err(CanonicalError::IntegerRange)), "{text}");
        }
        assert!(Digest::of(&json!([9_007_199_254_740_991_i64, -9_007_199_254_740_991_i64])).is_ok());
    }

    fn json_values() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            (-(1_i64 << 53) + 1..1_i64 << 53).prop_map(Value::from),
            any::<String>().prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 40, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
                prop::collection::btree_map(any::<String>(), inner, 0..6)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    /// Reverses the members of every object.
    fn reversed(value: &Value) -> Value {
        match value {
            Value::Object(members) => {
                Value::Object(members.iter().rev().map(|(name, value)| (name.clone(), reversed(value))).collect())
            }
            Value::Array(items) => items.iter().map(reversed).collect(),
            other => other.clone(),
        }
    }

    proptest! {
        #[test]
        fn the_canonical_form_keeps_the_value_and_ignores_order_and_white_space(value in json_values()) {
            let bytes = to_vec(&value).unwrap();
            let parsed: Value = serde_json::from_slice(&bytes).unwrap();
            prop_assert_eq!(&parsed, &value);
            prop_assert_eq!(&to_vec(&reversed(&value)).unwrap(), &bytes);
            let pretty: Value = serde_json::from_str(&serde_json::to_string_pretty(&value).unwrap()).unwrap();
            prop_assert_eq!(to_vec(&pretty).unwrap(), bytes);
        }

        #[test]
        fn different_values_have_different_digests(one in json_values(), other in json_values()) {
            prop_assert_eq!(Digest::of(&one).unwrap() == Digest::of(&other).unwrap(), one == other);
        }
    }
}
