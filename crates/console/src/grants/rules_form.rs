//! The rules on arguments as form fields: one row for each rule, in words.

use serde_json::Value;
use waypost_core::argument_rule::{ArgumentRule, Comparison, MAX_FIELD};
use waypost_core::grant::MAX_RULES;
use waypost_core::{Error, Result};

use super::comparison_label;

/// The number of empty rows after the rules.
const EMPTY_ROWS: usize = 2;

/// The kinds of values, as values and labels of a field.
const VALUE_KINDS: [(&str, &str); 4] =
    [("text", "Text"), ("number", "Number"), ("boolean", "Yes or no"), ("json", "JSON")];

/// The fields of a rule. A row without tool, field and value is not a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RuleRow {
    /// The number of the row, from 1.
    pub(super) number: usize,
    pub(super) tool: String,
    pub(super) field: String,
    pub(super) comparison: String,
    pub(super) value_kind: String,
    pub(super) value: String,
}

impl RuleRow {
    fn empty(number: usize) -> Self {
        Self {
            number,
            tool: String::new(),
            field: String::new(),
            comparison: Comparison::Equals.as_str().to_owned(),
            value_kind: "text".to_owned(),
            value: String::new(),
        }
    }

    fn new(number: usize, rule: &ArgumentRule) -> Self {
        let (value_kind, value) = display(&rule.value);
        Self {
            number,
            tool: rule.tool.clone(),
            field: rule.field.clone(),
            comparison: rule.comparison.as_str().to_owned(),
            value_kind: value_kind.to_owned(),
            value,
        }
    }

    fn is_empty(&self) -> bool {
        self.tool.is_empty() && self.field.trim().is_empty() && self.value.is_empty()
    }

    /// Returns the name of a field of the row.
    pub(super) fn name(&self, part: &str) -> String {
        format!("rule-{}-{part}", self.number)
    }

    /// Returns the names of the fields whose errors are shown at the row.
    pub(super) fn parts(&self) -> [String; 4] {
        ["tool", "field", "comparison", "value"].map(|part| self.name(part))
    }

    fn set(&mut self, part: &str, value: &str) {
        let target = match part {
            "tool" => &mut self.tool,
            "field" => &mut self.field,
            "comparison" => &mut self.comparison,
            "kind" => &mut self.value_kind,
            "value" => &mut self.value,
            _ => return,
        };
        // Browsers send CR LF for the line breaks of text areas.
        *target = value.replace("\r\n", "\n");
    }

    fn parse(&self) -> Result<ArgumentRule> {
        let invalid = |part: &str, message: &str| Error::invalid(&self.name(part), message);
        let field = self.field.trim();
        if self.tool.is_empty() {
            return Err(invalid("tool", "Select the tool to which the rule applies."));
        }
        if field.is_empty() || field.chars().count() > MAX_FIELD || field.split('.').any(str::is_empty) {
            let message = "Enter the name of an argument, such as path, or of a part of it, such as options.limit.";
            return Err(invalid("field", message));
        }
        let comparison = self.comparison.parse();
        let comparison = comparison.map_err(|_| invalid("comparison", "Select one of the comparisons."))?;
        let value = self.parse_value(comparison).map_err(|message| invalid("value", message))?;
        Ok(ArgumentRule { tool: self.tool.clone(), field: field.to_owned(), comparison, value })
    }

    /// Returns the value of the rule, or an error message.
    fn parse_value(&self, comparison: Comparison) -> Result<Value, &'static str> {
        match comparison {
            Comparison::LessThan | Comparison::AtMost | Comparison::GreaterThan | Comparison::AtLeast => {
                parse_scalar("number", &self.value)
            }
            Comparison::StartsWith | Comparison::Contains if self.value.is_empty() => Err("Enter a text."),
            Comparison::StartsWith | Comparison::Contains => Ok(Value::from(self.value.as_str())),
            Comparison::Equals | Comparison::NotEquals => parse_scalar(&self.value_kind, &self.value),
            Comparison::OneOf => {
                let lines = self.value.lines().filter(|line| !line.is_empty());
                let values: Vec<Value> =
                    lines.map(|line| parse_scalar(&self.value_kind, line)).collect::<Result<_, _>>()?;
                if values.is_empty() {
                    Err("Enter at least one value, each on its own line.")
                } else {
                    Ok(values.into())
                }
            }
        }
    }
}

/// Parses a value of this kind. Returns an error message if it is invalid.
fn parse_scalar(kind: &str, text: &str) -> Result<Value, &'static str> {
    match kind {
        "text" => Ok(Value::from(text)),
        "number" => {
            let value: Option<Value> = serde_json::from_str(text.trim()).ok();
            value.filter(Value::is_number).ok_or("Enter a number, such as 10 or 2.5.")
        }
        "boolean" => match text.trim().to_ascii_lowercase().as_str() {
            "yes" | "true" => Ok(Value::Bool(true)),
            "no" | "false" => Ok(Value::Bool(false)),
            _ => Err("Enter yes or no."),
        },
        "json" => {
            let value: Option<Value> = serde_json::from_str(text).ok();
            let message = "Enter a text in quotation marks, a number, true, false or null.";
            value.filter(|value| !value.is_array() && !value.is_object()).ok_or(message)
        }
        _ => Err("Select the kind of the value."),
    }
}

/// Returns the kind and the text of a value in the form. The values of a list are on separate lines.
fn display(value: &Value) -> (&'static str, String) {
    let one = std::slice::from_ref(value);
    let values = value.as_array().map_or(one, Vec::as_slice);
    let is_line = |value: &Value| value.as_str().is_some_and(|text| !text.is_empty() && !text.contains(['\n', '\r']));
    let yes_or_no = |value: &Value| if value.as_bool() == Some(true) { "yes".to_owned() } else { "no".to_owned() };
    let lines = |line: &dyn Fn(&Value) -> String| values.iter().map(line).collect::<Vec<_>>().join("\n");
    match value {
        Value::String(text) if !text.contains('\r') => ("text", text.clone()),
        Value::Array(_) if values.iter().all(is_line) => {
            ("text", lines(&|value| value.as_str().unwrap_or_default().to_owned()))
        }
        _ if values.iter().all(Value::is_number) => ("number", lines(&Value::to_string)),
        _ if values.iter().all(Value::is_boolean) => ("boolean", lines(&yes_or_no)),
        _ => ("json", lines(&Value::to_string)),
    }
}

/// The rows of all rules of a grant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RulesForm {
    pub(super) rows: Vec<RuleRow>,
}

impl RulesForm {
    /// Creates the rows of `rules`, followed by empty ones.
    pub(super) fn new(rules: &[ArgumentRule]) -> Self {
        let rows = rules.iter().enumerate().map(|(index, rule)| RuleRow::new(index + 1, rule)).collect();
        Self { rows }.with_empty_rows()
    }

    /// Creates the rows of a submitted form. Empty rows are removed, and new ones are added at the end.
    pub(super) fn from_input(pairs: &[(String, String)]) -> Self {
        let mut rows: Vec<RuleRow> = Vec::new();
        for (name, value) in pairs {
            let Some((number, part)) = name.strip_prefix("rule-").and_then(|rest| rest.split_once('-')) else {
                continue;
            };
            let Some(number) = number.parse().ok().filter(|number| (1..=MAX_RULES + EMPTY_ROWS).contains(number))
            else {
                continue;
            };
            let position = rows.iter().position(|row| row.number == number).unwrap_or_else(|| {
                rows.push(RuleRow::empty(number));
                rows.len() - 1
            });
            rows[position].set(part, value);
        }
        rows.retain(|row| !row.is_empty());
        for (index, row) in rows.iter_mut().enumerate() {
            row.number = index + 1;
        }
        Self { rows }.with_empty_rows()
    }

    fn with_empty_rows(mut self) -> Self {
        let numbers = self.rows.len() + 1..=(self.rows.len() + EMPTY_ROWS).min(MAX_RULES);
        self.rows.extend(numbers.map(RuleRow::empty));
        self
    }

    /// Returns the rules.
    ///
    /// # Errors
    /// `invalid_arguments` with the name of the form field.
    pub(super) fn parse(&self) -> Result<Vec<ArgumentRule>> {
        self.rows.iter().filter(|row| !row.is_empty()).map(RuleRow::parse).collect()
    }

    pub(super) fn comparisons(&self) -> Vec<(&'static str, &'static str)> {
        Comparison::ALL.iter().map(|one| (one.as_str(), comparison_label(*one))).collect()
    }

    pub(super) fn value_kinds(&self) -> [(&'static str, &'static str); 4] {
        VALUE_KINDS
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn row(comparison: Comparison, kind: &str, value: &str) -> RuleRow {
        let input =
            [("tool", "find"), ("field", "q"), ("comparison", comparison.as_str()), ("kind", kind), ("value", value)];
        let pairs: Vec<_> = input.iter().map(|(part, text)| (format!("rule-7-{part}"), (*text).to_owned())).collect();
        RulesForm::from_input(&pairs).rows.remove(0)
    }

    #[test]
    fn rules_are_unchanged_after_they_are_shown_and_submitted() {
        for (comparison, value) in [
            (Comparison::Equals, json!("a\nb")),
            (Comparison::Equals, json!("")),
            (Comparison::Equals, json!("10")),
            (Comparison::NotEquals, json!(1.5)),
            (Comparison::Equals, json!(false)),
            (Comparison::Equals, json!(null)),
            (Comparison::Equals, json!("a\r\nb")),
            (Comparison::AtMost, json!(10)),
            (Comparison::StartsWith, json!("/data/")),
            (Comparison::OneOf, json!(["a", "b c"])),
            (Comparison::OneOf, json!([1, 2.5])),
            (Comparison::OneOf, json!([true])),
            (Comparison::OneOf, json!(["a", 1, null])),
            (Comparison::OneOf, json!(["", "a\nb"])),
        ] {
            let rule = ArgumentRule { tool: "find".to_owned(), field: "a.b".to_owned(), comparison, value };
            let shown = RulesForm::new(std::slice::from_ref(&rule));
            let row = &shown.rows[0];
            let pairs: Vec<_> = [("tool", &row.tool), ("field", &row.field), ("comparison", &row.comparison)]
                .into_iter()
                .chain([("kind", &row.value_kind), ("value", &row.value)])
                .map(|(part, text)| (row.name(part), text.replace('\n', "\r\n")))
                .collect();
            assert_eq!(RulesForm::from_input(&pairs).parse().unwrap(), [rule]);
        }
    }

    #[test]
    fn invalid_values_are_rejected_at_their_field() {
        for (comparison, kind, value) in [
            (Comparison::AtMost, "text", "ten"),
            (Comparison::Equals, "number", "1,5"),
            (Comparison::Equals, "boolean", "maybe"),
            (Comparison::Equals, "json", "[1]"),
            (Comparison::Equals, "other", "a"),
            (Comparison::Contains, "text", ""),
            (Comparison::OneOf, "text", "\n"),
            (Comparison::OneOf, "number", "1\nb"),
        ] {
            let error = row(comparison, kind, value).parse().unwrap_err();
            assert_eq!(error.details["field"], "rule-1-value", "{comparison} {kind} {value:?}");
        }
        let error = RuleRow { field: "a..b".to_owned(), ..row(Comparison::Equals, "text", "a") }.parse().unwrap_err();
        assert_eq!(error.details["field"], "rule-1-field");
    }

    #[test]
    fn empty_rows_are_not_rules() {
        let form = RulesForm::from_input(&[("rule-1-value".to_owned(), String::new())]);
        assert_eq!((form.rows.len(), form.parse().unwrap().len()), (EMPTY_ROWS, 0));
    }
}
