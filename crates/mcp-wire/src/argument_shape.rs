//! The shape of arguments: the names and JSON types of the top-level members, for logs that must not contain values.

use serde_json::{Map, Value};

use crate::scan::{Scanner, unquote};

/// The maximum number of members of a shape.
pub const MAX_MEMBERS: usize = 32;
/// The maximum number of characters of a name. Longer names are truncated.
pub const MAX_NAME: usize = 64;
/// The maximum total size of the names in bytes.
pub const MAX_BYTES: usize = 2_048;

/// Returns the shape of arguments as a JSON object, such as `{"query":"string"}`. The object contains the first
/// [`MAX_MEMBERS`] members whose names fit into [`MAX_BYTES`] in total. It is empty if there are no arguments, or if
/// they are not an object.
#[must_use]
pub fn argument_shape(arguments: Option<&str>) -> String {
    let mut shape = Map::new();
    let mut bytes = 0;
    let is_read = Scanner::new(arguments.unwrap_or_default()).raw_members(0, |name, value| {
        let Some(name) = unquote(name).filter(|_| shape.len() < MAX_MEMBERS) else { return };
        let name: String = name.chars().filter(|c| !c.is_control()).take(MAX_NAME).collect();
        if bytes + name.len() <= MAX_BYTES {
            bytes += name.len();
            shape.insert(name, type_of(value).into());
        }
    });
    if is_read.is_err() {
        shape.clear();
    }
    Value::Object(shape).to_string()
}

/// Returns the type of a JSON value, which is determined by its first byte.
fn type_of(value: &str) -> &'static str {
    match value.as_bytes().first() {
        Some(b'"') => "string",
        Some(b'{') => "object",
        Some(b'[') => "array",
        Some(b't' | b'f') => "boolean",
        Some(b'n') => "null",
        _ => "number",
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn shape(arguments: &str) -> Value {
        serde_json::from_str(&argument_shape(Some(arguments))).unwrap()
    }

    #[test]
    fn a_shape_has_names_and_types() {
        let arguments = r#" { "a" : "x", "b": -1.5e3, "c":true,"d":null,"e":[1],"f":{"secret":"s"},"\u0067":false } "#;
        let expected = json!({ "a": "string", "b": "number", "c": "boolean", "d": "null", "e": "array", "f": "object",
            "g": "boolean" });
        assert_eq!(shape(arguments), expected);
        for none in ["{}", "[1]", "\"x\"", "7", "null", "{\"a\":", ""] {
            assert_eq!(shape(none), json!({}), "{none}");
        }
        assert_eq!(argument_shape(None), "{}");
        assert_eq!(shape(r#"{"a\u0000\nb":1}"#), json!({ "ab": "number" }));
    }

    #[test]
    fn a_shape_is_bounded() {
        let many: Map<String, Value> = (0..1_000).map(|n| (format!("argument {n}"), n.into())).collect();
        assert_eq!(shape(&Value::from(many).to_string()).as_object().unwrap().len(), MAX_MEMBERS);
        let long = shape(&json!({ "é".repeat(5_000): 1 }).to_string());
        assert_eq!(long, json!({ "é".repeat(MAX_NAME): "number" }));
    }

    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i32>().prop_map(Value::from),
            "\\PC{0,8}".prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 16, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::vec((".{0,8}", inner), 0..4)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    fn expected_type(value: &Value) -> &'static str {
        match value {
            Value::Null => "null",
            Value::Bool(_) => "boolean",
            Value::Number(_) => "number",
            Value::String(_) => "string",
            Value::Array(_) => "array",
            Value::Object(_) => "object",
        }
    }

    proptest! {
        /// Within the limits, the shape agrees with that of a parsed tree.
        #[test]
        fn a_shape_agrees_with_a_tree(
            members in prop::collection::btree_map("\\PC{0,20}", value(), 0..MAX_MEMBERS),
            is_indented in any::<bool>(),
        ) {
            let names = members.keys().map(String::len).sum::<usize>();
            prop_assume!(names <= MAX_BYTES);
            let expected: Map<String, Value> = members.iter().map(|(name, value)| {
                let name = name.chars().filter(|c| !c.is_control()).collect();
                (name, expected_type(value).into())
            }).collect();
            let arguments = Value::Object(members.into_iter().collect());
            let text = if is_indented { format!("{arguments:#}") } else { arguments.to_string() };
            prop_assert_eq!(shape(&text), Value::Object(expected));
        }

        /// Whatever the arguments are, the shape contains only names and types, and its size is bounded.
        #[test]
        fn a_shape_contains_no_values(
            members in prop::collection::vec((".{0,200}", value()), 0..100),
            text in any::<String>(),
        ) {
            let arguments = Value::Object(members.iter().cloned().collect()).to_string();
            for arguments in [arguments.as_str(), text.as_str()] {
                let shape = shape(arguments);
                let shape = shape.as_object().unwrap();
                prop_assert!(shape.len() <= MAX_MEMBERS);
                prop_assert!(shape.keys().map(String::len).sum::<usize>() <= MAX_BYTES);
                for (name, kind) in shape {
                    prop_assert!(name.chars().count() <= MAX_NAME && !name.chars().any(char::is_control));
                    let types = ["null", "boolean", "number", "string", "array", "object"];
                    prop_assert!(types.contains(&kind.as_str().unwrap()));
                }
            }
        }
    }
}
