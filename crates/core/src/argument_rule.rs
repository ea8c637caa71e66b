//! Rules on the arguments of a tool, for people who do not write programs: field, comparison, value.

use std::cmp::Ordering;

use serde::{Deserialize, Serialize};
use serde_json::{Number, Value};

use crate::error::{Error, Result};
use crate::walkthrough::names;

/// The maximum length of the name of a tool or a prompt in characters.
pub const MAX_TOOL_NAME: usize = 256;
/// The maximum length of a field in characters.
pub const MAX_FIELD: usize = 200;
/// The maximum size of a value as JSON, in bytes.
pub const MAX_VALUE: usize = 4_096;
/// The maximum number of values of `one_of`.
pub const MAX_VALUES: usize = 100;

names! {
    /// The comparison of a rule.
    Comparison {
        /// The field is equal to the value.
        Equals = "equals",
        /// The field has the type of the value, and is not equal to it.
        NotEquals = "not_equals",
        /// The field is a number below the value.
        LessThan = "less_than",
        /// The field is a number that is not above the value.
        AtMost = "at_most",
        /// The field is a number above the value.
        GreaterThan = "greater_than",
        /// The field is a number that is not below the value.
        AtLeast = "at_least",
        /// The field is a text that begins with the value.
        StartsWith = "starts_with",
        /// The field is a text that contains the value.
        Contains = "contains",
        /// The field is equal to one of the values in the list.
        OneOf = "one_of",
    }
}

/// A rule on an argument of a tool.
///
/// A missing field never matches, nor does a field whose type differs from that of the value, not even with
/// `not_equals`. Texts are compared exactly. `contains` never searches a list, because a list that contains a harmless
/// element may also contain harmful ones.
///
/// Nothing is normalised. `starts_with` with the value `/data/` matches `/data/../etc/passwd`: to restrict paths,
/// restrict the server (its volumes or its configuration), and use `equals` or `one_of` for individual paths.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ArgumentRule {
    /// The original name of the tool.
    pub tool: String,
    /// The path of the field: names of object members, separated by dots (`a.b`). Elements of lists, and members whose
    /// name contains a dot, cannot be addressed.
    pub field: String,
    /// The comparison.
    pub comparison: Comparison,
    /// The value: a list for `one_of`, a number for `less_than`, `at_most`, `greater_than` and `at_least`, a text for
    /// `starts_with` and `contains`, and any value except a list or an object for `equals` and `not_equals`.
    pub value: Value,
}

impl ArgumentRule {
    /// Whether the arguments satisfy the rule.
    #[must_use]
    pub fn matches(&self, arguments: &Value) -> bool {
        let Some(found) = find(arguments, &self.field) else { return false };
        match self.comparison {
            Comparison::Equals => is_equal(found, &self.value) == Some(true),
            Comparison::NotEquals => is_equal(found, &self.value) == Some(false),
            Comparison::LessThan => self.is_ordered(found, Ordering::is_lt),
            Comparison::AtMost => self.is_ordered(found, Ordering::is_le),
            Comparison::GreaterThan => self.is_ordered(found, Ordering::is_gt),
            Comparison::AtLeast => self.is_ordered(found, Ordering::is_ge),
            Comparison::StartsWith => self.is_text(found, |text, value| text.starts_with(value)),
            Comparison::Contains => self.is_text(found, |text, value| text.contains(value)),
            Comparison::OneOf => {
                let values = self.value.as_array().map(Vec::as_slice).unwrap_or_default();
                values.iter().any(|value| is_equal(found, value) == Some(true))
            }
        }
    }

    fn is_ordered(&self, found: &Value, is_expected: impl Fn(Ordering) -> bool) -> bool {
        let (Value::Number(found), Value::Number(value)) = (found, &self.value) else { return false };
        compare(found, value).is_some_and(is_expected)
    }

    fn is_text(&self, found: &Value, is_expected: impl Fn(&str, &str) -> bool) -> bool {
        found.as_str().zip(self.value.as_str()).is_some_and(|(text, value)| is_expected(text, value))
    }

    /// Checks the tool, the field, and that the value fits the comparison.
    ///
    /// # Errors
    /// `invalid_arguments` for `rules`.
    pub fn check(&self) -> Result<()> {
        let (field, comparison) = (&self.field, self.comparison);
        let problem = if !(1..=MAX_TOOL_NAME).contains(&self.tool.chars().count()) {
            format!("`tool` of a rule must have 1 to {MAX_TOOL_NAME} characters.")
        } else if field.chars().count() > MAX_FIELD || field.split('.').any(str::is_empty) {
            format!(
                "`field` of a rule must be a path of at most {MAX_FIELD} characters, such as `path` or `options.limit`."
            )
        } else if self.value.to_string().len() > MAX_VALUE {
            format!("`value` of the rule for `{field}` is too large; the maximum is {MAX_VALUE} bytes of JSON.")
        } else if let Some(expected) = self.expected_value() {
            format!("`value` of the rule for `{field}` must be {expected} with `{comparison}`.")
        } else {
            return Ok(());
        };
        Err(Error::invalid("rules", problem))
    }

    /// Returns the description of the expected value. Returns `None` if the value fits the comparison.
    fn expected_value(&self) -> Option<&'static str> {
        let is_scalar = |value: &Value| !value.is_array() && !value.is_object();
        let (fits, expected) = match self.comparison {
            Comparison::Equals | Comparison::NotEquals => {
                (is_scalar(&self.value), "a text, a number, `true`, `false` or `null`")
            }
            Comparison::LessThan | Comparison::AtMost | Comparison::GreaterThan | Comparison::AtLeast => {
                (self.value.is_number(), "a number")
            }
            Comparison::StartsWith | Comparison::Contains => {
                (self.value.as_str().is_some_and(|text| !text.is_empty()), "a text that is not empty")
            }
            Comparison::OneOf => {
                let is_list = |list: &Vec<Value>| (1..=MAX_VALUES).contains(&list.len()) && list.iter().all(is_scalar);
                (
                    self.value.as_array().is_some_and(is_list),
                    "a list of 1 to 100 texts, numbers, `true`, `false` or `null`",
                )
            }
        };
        (!fits).then_some(expected)
    }
}

/// Returns the value at a path of object members.
fn find<'a>(arguments: &'a Value, field: &str) -> Option<&'a Value> {
    field.split('.').try_fold(arguments, |value, name| value.as_object()?.get(name))
}

/// Whether two values of the same type are equal. Returns `None` if the types differ, and for lists and objects.
fn is_equal(found: &Value, value: &Value) -> Option<bool> {
    match (found, value) {
        (Value::Null, Value::Null) => Some(true),
        (Value::Bool(found), Value::Bool(value)) => Some(found == value),
        (Value::String(found), Value::String(value)) => Some(found == value),
        (Value::Number(found), Value::Number(value)) => compare(found, value).map(Ordering::is_eq),
        _ => None,
    }
}

/// Compares two numbers by value: `1` and `1.0` are equal. Integers are compared exactly. An integer is compared with a
/// fraction as a 64-bit floating-point number, which is exact up to 2^53.
fn compare(one: &Number, other: &Number) -> Option<Ordering> {
    let integer = |number: &Number| number.as_i64().map(i128::from).or_else(|| number.as_u64().map(i128::from));
    match (integer(one), integer(other)) {
        (Some(one), Some(other)) => Some(one.cmp(&other)),
        _ => one.as_f64()?.partial_cmp(&other.as_f64()?),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn rule(field: &str, comparison: Comparison, value: Value) -> ArgumentRule {
        ArgumentRule { tool: "t".to_owned(), field: field.to_owned(), comparison, value }
    }

    #[test]
    fn fields_are_compared_with_the_value() {
        use Comparison::*;
        let arguments = json!({ "path": "/data/x", "n": 5, "f": 1.0, "on": true, "no": null, "list": ["a"],
            "o": { "a": { "b": "deep" }, "a.b": "dotted" } });
        for (field, comparison, value, expected) in [
            ("path", Equals, json!("/data/x"), true),
            ("path", Equals, json!("/DATA/x"), false),
            ("path", NotEquals, json!("/etc"), true),
            ("path", NotEquals, json!("/data/x"), false),
            ("path", NotEquals, json!(5), false),
            ("missing", NotEquals, json!("x"), false),
            ("list", NotEquals, json!("x"), false),
            ("no", Equals, json!(null), true),
            ("missing", Equals, json!(null), false),
            ("on", Equals, json!(true), true),
            ("on", Equals, json!("true"), false),
            ("n", Equals, json!(5.0), true),
            ("f", Equals, json!(1), true),
            ("n", LessThan, json!(5), false),
            ("n", LessThan, json!(5.5), true),
            ("n", AtMost, json!(5), true),
            ("n", GreaterThan, json!(5), false),
            ("n", GreaterThan, json!(-1), true),
            ("n", AtLeast, json!(5), true),
            ("path", LessThan, json!(9), false),
            ("path", StartsWith, json!("/data/"), true),
            ("path", StartsWith, json!("data"), false),
            ("path", Contains, json!("ata"), true),
            ("list", Contains, json!("a"), false),
            ("path", OneOf, json!(["/etc", "/data/x"]), true),
            ("path", OneOf, json!(["/etc", 5]), false),
            ("o.a.b", Equals, json!("deep"), true),
            ("o.a", Equals, json!("deep"), false),
            ("o.a.b.c", Equals, json!("deep"), false),
            ("list.0", Equals, json!("a"), false),
        ] {
            assert_eq!(
                rule(field, comparison, value.clone()).matches(&arguments),
                expected,
                "{field} {comparison} {value}"
            );
        }
        for arguments in [json!(null), json!("x"), json!([]), json!({})] {
            assert!(!rule("path", NotEquals, json!("x")).matches(&arguments), "{arguments}");
        }
    }

    /// The trap that the documentation describes: nothing is normalised.
    #[test]
    fn a_prefix_does_not_confine_a_path() {
        let rule = rule("path", Comparison::StartsWith, json!("/data/"));
        assert!(rule.matches(&json!({ "path": "/data/../etc/passwd" })));
    }

    #[test]
    fn large_integers_are_compared_exactly() {
        let rule = rule("n", Comparison::AtMost, json!(9_007_199_254_740_992_u64));
        assert!(rule.matches(&json!({ "n": 9_007_199_254_740_992_u64 })));
        assert!(!rule.matches(&json!({ "n": 9_007_199_254_740_993_u64 })));
        assert!(!rule.matches(&json!({ "n": u64::MAX })) && rule.matches(&json!({ "n": i64::MIN })));
    }

    #[test]
    fn values_must_fit_the_comparison() {
        use Comparison::*;
        for (comparison, value) in [
            (Equals, json!("")),
            (NotEquals, json!(null)),
            (LessThan, json!(-1.5)),
            (StartsWith, json!("a")),
            (OneOf, json!(["a", 1, true, null])),
        ] {
            assert!(rule("a.b", comparison, value).check().is_ok());
        }
        for (comparison, value) in [
            (Equals, json!([])),
            (NotEquals, json!({})),
            (LessThan, json!("1")),
            (AtMost, json!(null)),
            (GreaterThan, json!([1])),
            (AtLeast, json!(true)),
            (StartsWith, json!("")),
            (Contains, json!(1)),
            (OneOf, json!([])),
            (OneOf, json!("a")),
            (OneOf, json!([["a"]])),
            (OneOf, json!(vec![1; MAX_VALUES + 1])),
            (Equals, json!("x".repeat(MAX_VALUE))),
        ] {
            let error = rule("a", comparison, value).check().unwrap_err();
            assert_eq!(error.details["field"], "rules", "{comparison}");
        }
        for field in ["", ".", "a.", ".a", "a..b", &"x".repeat(MAX_FIELD + 1)] {
            assert!(rule(field, Equals, json!(1)).check().is_err(), "{field}");
        }
        assert!(ArgumentRule { tool: String::new(), ..rule("a", Equals, json!(1)) }.check().is_err());
    }

    #[test]
    fn tools_fields_and_values_may_have_the_maximum_size() {
        let largest = ArgumentRule {
            tool: "t".repeat(MAX_TOOL_NAME),
            // Together with the quotation marks, the value has the maximum size as JSON.
            ..rule(&"f".repeat(MAX_FIELD), Comparison::Equals, json!("x".repeat(MAX_VALUE - 2)))
        };
        assert!(largest.check().is_ok());
        for larger in [
            ArgumentRule { tool: "t".repeat(MAX_TOOL_NAME + 1), ..largest.clone() },
            ArgumentRule { field: "f".repeat(MAX_FIELD + 1), ..largest.clone() },
            ArgumentRule { value: json!("x".repeat(MAX_VALUE - 1)), ..largest.clone() },
        ] {
            assert!(larger.check().is_err());
        }
    }

    fn scalar() -> impl Strategy<Value = Value> {
        prop_oneof![
            Just(json!(null)),
            any::<bool>().prop_map(Value::from),
            (-3_i64..4).prop_map(Value::from),
            prop_oneof![Just(-1.5), Just(0.0), Just(1.0), Just(2.5)].prop_map(|number: f64| json!(number)),
            "[ab]{0,2}".prop_map(Value::from),
        ]
    }

    proptest! {
        /// The order of numbers is total, and `equals` and `not_equals` are opposites for values of the same type.
        #[test]
        fn comparisons_are_consistent(found in scalar(), value in scalar()) {
            let arguments = json!({ "x": found });
            let is = |comparison| rule("x", comparison, value.clone()).matches(&arguments);
            let (equals, less, greater) =
                (is(Comparison::Equals), is(Comparison::LessThan), is(Comparison::GreaterThan));
            let same_type = std::mem::discriminant(&found) == std::mem::discriminant(&value);
            prop_assert_eq!(same_type, equals != is(Comparison::NotEquals));
            let numbers = found.is_number() && value.is_number();
            prop_assert_eq!(u8::from(less) + u8::from(equals && numbers) + u8::from(greater), u8::from(numbers));
            prop_assert_eq!(is(Comparison::AtMost), numbers && !greater);
            prop_assert_eq!(is(Comparison::AtLeast), numbers && !less);
            prop_assert_eq!(rule("x", Comparison::OneOf, json!([value])).matches(&arguments), equals);
        }

        #[test]
        fn matching_never_panics(field in any::<String>(), value in scalar(), found in scalar()) {
            for comparison in Comparison::ALL {
                let rule = rule(&field, *comparison, value.clone());
                let _ = (rule.check().is_ok(), rule.matches(&json!({ field.as_str(): found })));
            }
        }
    }
}
