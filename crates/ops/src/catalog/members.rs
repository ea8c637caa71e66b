//! Reads the members of an entry's file. Every rejection names the file and the field.

use std::str::FromStr;

use serde::Deserialize;
use serde::de::{Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};
use waypost_content::transfer::source::SourceRef;
use waypost_core::{Error, Result};

/// The members of an object, which are taken out by name. Those that are left are unknown.
pub(super) struct Members<'a> {
    pub(super) source: &'a SourceRef,
    /// The path of the object, with a trailing dot; empty for the file itself.
    prefix: String,
    map: Map<String, Value>,
    /// The names that were taken.
    known: Vec<&'static str>,
}

impl<'a> Members<'a> {
    pub(super) fn new(source: &'a SourceRef, map: Map<String, Value>) -> Self {
        Self { source, prefix: String::new(), map, known: Vec::new() }
    }

    /// Rejects the member `name`. `problem` is the predicate of a sentence, and says what to do.
    pub(super) fn reject(&self, name: &str, problem: impl std::fmt::Display) -> Error {
        self.source.reject(&format!("{}{name}", self.prefix), problem)
    }

    /// Takes a member; `null` counts as absent.
    pub(super) fn take(&mut self, name: &'static str) -> Option<Value> {
        self.known.push(name);
        self.map.shift_remove(name).filter(|value| !value.is_null())
    }

    pub(super) fn text(&mut self, name: &'static str) -> Result<Option<String>> {
        self.take(name).map(|value| self.to_text(name, value)).transpose()
    }

    pub(super) fn required_text(&mut self, name: &'static str) -> Result<String> {
        self.text(name)?.ok_or_else(|| self.reject(name, "is missing. Add it."))
    }

    /// Takes a member whose value is one of several names.
    pub(super) fn name<T: FromStr<Err = String>>(&mut self, name: &'static str) -> Result<Option<T>> {
        let Some(text) = self.text(name)? else { return Ok(None) };
        text.parse().map(Some).map_err(|expected| self.reject(name, format!("is {text:?}: {expected}.")))
    }

    pub(super) fn flag(&mut self, name: &'static str) -> Result<Option<bool>> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::Bool(value)) => Ok(Some(value)),
            Some(other) => Err(self.wrong_type(name, "`true` or `false`", &other)),
        }
    }

    /// Takes a whole number in `range`.
    pub(super) fn number(&mut self, name: &'static str, range: std::ops::RangeInclusive<u64>) -> Result<Option<u64>> {
        let Some(value) = self.take(name) else { return Ok(None) };
        match value.as_u64().filter(|number| range.contains(number)) {
            Some(number) => Ok(Some(number)),
            None => {
                let expected = format!("a whole number from {} to {}", range.start(), range.end());
                Err(self.wrong_type(name, &expected, &value))
            }
        }
    }

    pub(super) fn object(&mut self, name: &'static str) -> Result<Option<Map<String, Value>>> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::Object(map)) => Ok(Some(map)),
            Some(other) => Err(self.wrong_type(name, "an object", &other)),
        }
    }

    /// Takes a list with at most `maximum` items.
    pub(super) fn list(&mut self, name: &'static str, maximum: usize) -> Result<Option<Vec<Value>>> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::Array(items)) if items.len() > maximum => {
                let problem = format!("has {} items; the maximum is {maximum}. Remove some.", items.len());
                Err(self.reject(name, problem))
            }
            Some(Value::Array(items)) => Ok(Some(items)),
            Some(other) => Err(self.wrong_type(name, "a list", &other)),
        }
    }

    /// Takes a list of strings.
    pub(super) fn texts(&mut self, name: &'static str, maximum: usize) -> Result<Option<Vec<String>>> {
        let Some(items) = self.list(name, maximum)? else { return Ok(None) };
        let texts = items.into_iter().enumerate().map(|(at, item)| self.to_text(&format!("{name}[{at}]"), item));
        texts.collect::<Result<_>>().map(Some)
    }

    /// Takes a list of objects.
    pub(super) fn objects(&mut self, name: &'static str, maximum: usize) -> Result<Vec<Members<'a>>> {
        let items = self.list(name, maximum)?.unwrap_or_default();
        let objects = items.into_iter().enumerate().map(|(at, item)| match item {
            Value::Object(map) => Ok(self.nested(&format!("{name}[{at}]"), map)),
            other => Err(self.wrong_type(&format!("{name}[{at}]"), "an object", &other)),
        });
        objects.collect()
    }

    /// Returns the members of the object at `name`.
    pub(super) fn nested(&self, name: &str, map: Map<String, Value>) -> Members<'a> {
        Members { prefix: format!("{}{name}.", self.prefix), known: Vec::new(), source: self.source, map }
    }

    pub(super) fn to_text(&self, name: &str, value: Value) -> Result<String> {
        match value {
            Value::String(text) => Ok(text),
            Value::Number(_) | Value::Bool(_) => {
                Err(self.reject(name, format!("must be text, not {}. Put it in quotes.", noun(&value))))
            }
            other => Err(self.wrong_type(name, "text", &other)),
        }
    }

    fn wrong_type(&self, name: &str, expected: &str, found: &Value) -> Error {
        self.reject(name, format!("must be {expected}, not {}.", noun(found)))
    }

    /// Rejects the first unknown member. `problem` returns a more specific problem with a name, if there is one.
    pub(super) fn finish(self, problem: impl Fn(&str) -> Option<&'static str>) -> Result<()> {
        let Some(name) = self.map.keys().next() else { return Ok(()) };
        let shown: String = name.chars().filter(|letter| !letter.is_control()).take(60).collect();
        Err(match problem(name) {
            Some(problem) => self.reject(&shown, problem),
            None => self
                .reject(&shown, format!("is not a known field. Remove it, or use one of {}.", self.known.join(", "))),
        })
    }
}

fn noun(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(value) => format!("`{value}`"),
        Value::Number(number) => format!("the number {number}"),
        Value::String(_) => "text".to_owned(),
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "an object".to_owned(),
    }
}

/// A JSON value without repeated members.
pub(super) struct UniqueValue(pub Value);

impl<'de> Deserialize<'de> for UniqueValue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        deserializer.deserialize_any(UniqueVisitor)
    }
}

struct UniqueVisitor;

impl<'de> Visitor<'de> for UniqueVisitor {
    type Value = UniqueValue;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> std::result::Result<UniqueValue, E> {
        Ok(UniqueValue(Value::Null))
    }

    fn visit_bool<E>(self, value: bool) -> std::result::Result<UniqueValue, E> {
        Ok(UniqueValue(value.into()))
    }

    fn visit_i64<E>(self, value: i64) -> std::result::Result<UniqueValue, E> {
        Ok(UniqueValue(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> std::result::Result<UniqueValue, E> {
        Ok(UniqueValue(value.into()))
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> std::result::Result<UniqueValue, E> {
        let number = Number::from_f64(value).ok_or_else(|| E::custom("the number is not finite"))?;
        Ok(UniqueValue(Value::Number(number)))
    }

    fn visit_str<E>(self, value: &str) -> std::result::Result<UniqueValue, E> {
        Ok(UniqueValue(value.into()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> std::result::Result<UniqueValue, A::Error> {
        let mut list = Vec::new();
        while let Some(UniqueValue(item)) = items.next_element()? {
            list.push(item);
        }
        Ok(UniqueValue(Value::Array(list)))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> std::result::Result<UniqueValue, A::Error> {
        let mut map = Map::new();
        while let Some(name) = members.next_key::<String>()? {
            if map.contains_key(&name) {
                return Err(A::Error::custom(format_args!("the member {name:?} is repeated")));
            }
            let UniqueValue(value) = members.next_value()?;
            map.insert(name, value);
        }
        Ok(UniqueValue(Value::Object(map)))
    }
}
