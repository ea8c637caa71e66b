//! The requests that a server sends to a client before it completes a request (2026-07-28, "Multi Round-Trip Requests").

use crate::scan::{Flaw, Names, Numbers, Scanner, unquote};

/// The maximum number of requests in one result.
pub const MAX_INPUT_REQUESTS: usize = 16;
/// The level of `inputRequests` in a message.
const LEVEL: usize = 2;
const REQUEST: Names<2> = Names::new(["method", "params"], &[]);

/// One of the `inputRequests` of a result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InputRequest<'a> {
    /// The name under which the client returns its response.
    pub key: String,
    /// The method, such as `elicitation/create`.
    pub method: String,
    /// The parameters as received. `None` if they are missing or null.
    pub params: Option<&'a str>,
}

impl<'a> InputRequest<'a> {
    /// Parses the JSON text of `inputRequests`. Returns `None` if it is not an object of at most [`MAX_INPUT_REQUESTS`]
    /// requests, or if parsers could read it differently.
    #[must_use]
    pub fn parse_all(text: &'a str) -> Option<Vec<Self>> {
        check(text).ok()?;
        let mut requests = Vec::new();
        Scanner::new(text).raw_members(LEVEL, |key, value| requests.push(Self::parse(key, value))).ok()?;
        let requests: Option<Vec<Self>> = requests.into_iter().collect();
        requests.filter(|requests| requests.len() <= MAX_INPUT_REQUESTS)
    }

    fn parse(key: &str, value: &'a str) -> Option<Self> {
        let mut scanner = Scanner::new(value);
        let (_, [method, params]) =
            scanner.members(LEVEL + 1, &REQUEST, |scanner, _| scanner.value(LEVEL + 2, Numbers::Any)).ok()?;
        let (key, method) = (unquote(key)?.into_owned(), unquote(method?)?.into_owned());
        Some(Self { key, method, params: params.filter(|params| *params != "null") })
    }
}

/// Checks that the text is a JSON value that repeats no member at any depth.
fn check(text: &str) -> Result<(), Flaw> {
    let mut scanner = Scanner::new(text);
    scanner.value(LEVEL, Numbers::Any)?;
    scanner.end()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_read_in_their_order() {
        let text = r#"{ "b": {"method":"roots/list"}, "a\u0031": {"params": {"message":1.0}, "method":"elicitation/create"} }"#;
        let requests = InputRequest::parse_all(text).unwrap();
        let found: Vec<_> = requests.iter().map(|one| (one.key.as_str(), one.method.as_str(), one.params)).collect();
        assert_eq!(found, [("b", "roots/list", None), ("a1", "elicitation/create", Some(r#"{"message":1.0}"#))]);
        assert_eq!(InputRequest::parse_all("{}"), Some(Vec::new()));
        let without = InputRequest::parse_all(r#"{"a":{"method":"m","params":null,"x":1}}"#).unwrap();
        assert_eq!(without, [InputRequest { key: "a".to_owned(), method: "m".to_owned(), params: None }]);
    }

    #[test]
    fn what_parsers_could_read_differently_is_rejected() {
        let many = (0..=MAX_INPUT_REQUESTS).map(|n| format!(r#""{n}":{{"method":"roots/list"}}"#)).collect::<Vec<_>>();
        for text in [
            "[]",
            "null",
            r#"{"a":{}}"#,
            r#"{"a":{"method":7}}"#,
            r#"{"a":[]}"#,
            r#"{"a":["roots/list"]}"#,
            r#"{"a":{"method":"roots/list","Method":"elicitation/create"}}"#,
            r#"{"a":{"method":"roots/list","PARAMS":{}}}"#,
            r#"{"a":{"method":"roots/list"},"a":{"method":"roots/list"}}"#,
            r#"{"a":{"method":"roots/list","method":"sampling/createMessage"}}"#,
            r#"{"a":{"method":"roots/list","params":{"x":{"y":1,"y":2}}}}"#,
            r#"{"a":{"method":"roots/list"}} x"#,
            &format!("{{{}}}", many.join(",")),
        ] {
            assert_eq!(InputRequest::parse_all(text), None, "{text}");
        }
    }
}
