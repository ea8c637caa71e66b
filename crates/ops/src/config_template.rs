//! Expansion of templates in a catalogue version, in which `${config.NAME}` stands for a member of an instance's
//! configuration.

use serde_json::{Map, Value};

const START: &str = "${config.";

/// The reason why a template cannot be expanded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum TemplateError {
    /// It refers to a member that the configuration does not have.
    Missing(String),
    /// The expanded text is longer than the maximum.
    TooLarge,
}

/// Returns a member's value as text: a string as it is, any other value as JSON.
pub(crate) fn to_text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// Returns a text with `${config.NAME}` replaced by the values of the configuration. A value is never searched for
/// further references. The result has at most `max_bytes` bytes.
///
/// # Errors
/// Any [`TemplateError`].
pub(crate) fn expand(template: &str, config: &Map<String, Value>, max_bytes: usize) -> Result<String, TemplateError> {
    let mut result = String::new();
    // A small template can refer to a large value many times, so the size is checked before each part is appended.
    let mut append = |part: &str| {
        if result.len() + part.len() > max_bytes {
            return Err(TemplateError::TooLarge);
        }
        result.push_str(part);
        Ok(())
    };
    let mut rest = template;
    while let Some((before, after)) = rest.split_once(START) {
        append(before)?;
        let Some((member, after)) = after.split_once('}') else {
            // Not a reference.
            append(START)?;
            rest = after;
            continue;
        };
        let value = config.get(member).ok_or_else(|| TemplateError::Missing(member.to_owned()))?;
        append(&to_text(value))?;
        rest = after;
    }
    append(rest)?;
    Ok(result)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_size_of_the_result_is_limited() {
        let config = json!({ "a": "x".repeat(10) }).as_object().unwrap().clone();
        assert_eq!(expand("-${config.a}", &config, 11).map(|text| text.len()), Ok(11));
        assert_eq!(expand("-${config.a}", &config, 10), Err(TemplateError::TooLarge));
        assert_eq!(expand("${config.b}", &config, 10), Err(TemplateError::Missing("b".to_owned())));
    }
}
