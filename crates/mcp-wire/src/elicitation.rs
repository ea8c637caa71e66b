//! Elicitations, which a server shows to the user of a client: the parameters of `elicitation/create`, also in
//! `inputRequests` (2026-07-28) and in the error that asks the user to open pages first (2025-11-25).

use std::borrow::Cow;

use crate::input_requests::MAX_INPUT_REQUESTS;
use crate::rewrite::{quote, rewrite_definition};
use crate::scan::{Names, Numbers, Scanner, unquote};
use crate::strict::split_array;

const PARAMS: Names<3> = Names::new(["mode", "message", "url"], &["requestedSchema", "elicitationId", "task", "_meta"]);
const DATA: Names<1> = Names::new(["elicitations"], &[]);

/// The parameters of `elicitation/create`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Elicitation<'a> {
    /// The parameters as received.
    pub raw: &'a str,
    /// The text for the user.
    pub message: Cow<'a, str>,
    /// The page that the user is asked to open. Clients may show it in every mode, so it is present whenever it was sent.
    pub url: Option<Cow<'a, str>>,
}

impl<'a> Elicitation<'a> {
    /// Parses the JSON text of the parameters. Returns `None` if they are not valid, or if clients could read them
    /// differently: if a member is repeated at any depth, or if a name is a case variant.
    #[must_use]
    pub fn parse(params: &'a str) -> Option<Self> {
        let mut scanner = Scanner::new(params);
        let (raw, values) = scanner.members(0, &PARAMS, |scanner, _| scanner.value(1, Numbers::Any)).ok()?;
        scanner.end().ok()?;
        let [mode, message, url] = values.map(|value| value.filter(|value| *value != "null"));
        let url = match url {
            Some(url) => Some(unquote(url)?),
            None => None,
        };
        let is_valid = match mode {
            None => true,
            Some(mode) => match unquote(mode)?.as_ref() {
                "form" => true,
                "url" => url.is_some(),
                _ => false,
            },
        };
        let message = unquote(message?)?;
        is_valid.then_some(Self { raw, message, url })
    }

    /// Parses `data` of the error [`URL_ELICITATION_REQUIRED`](crate::URL_ELICITATION_REQUIRED). Returns `None` if it
    /// does not consist of at most [`MAX_INPUT_REQUESTS`] valid elicitations with a page, or if clients could read it
    /// differently.
    #[must_use]
    pub fn parse_required(data: &'a str) -> Option<Vec<Self>> {
        let mut scanner = Scanner::new(data);
        let (_, [elicitations]) = scanner.members(0, &DATA, |scanner, _| scanner.value(1, Numbers::Any)).ok()?;
        scanner.end().ok()?;
        let items = split_array(elicitations?, MAX_INPUT_REQUESTS).ok().flatten()?;
        let all: Option<Vec<Self>> = items.into_iter().map(Self::parse).collect();
        all.filter(|all| all.iter().all(|elicitation| elicitation.url.is_some()))
    }

    /// Returns the parameters with another message and, if there is one, another page. All other members stay as received.
    #[must_use]
    pub fn rewritten(&self, message: &str, url: Option<&str>) -> String {
        let (message, url) = (quote(message), url.map(quote));
        let mut members = vec![("message", Some(message.as_str()))];
        members.extend(url.as_deref().map(|url| ("url", Some(url))));
        let mut params = String::with_capacity(self.raw.len() + message.len());
        rewrite_definition(self.raw, &members, &mut params);
        params
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn message_and_page_are_read_and_replaced() {
        for (params, message, url, rewritten) in [
            (
                r#"{"message":"M\u0041","requestedSchema":{"message":1.0}}"#,
                "MA",
                None,
                r#"{"message":"m","requestedSchema":{"message":1.0}}"#,
            ),
            (r#"{"mode":null,"url":null,"message":""}"#, "", None, r#"{"mode":null,"url":null,"message":"m"}"#),
            (
                r#"{ "mode":"\u0075rl", "u\u0072l" : "https:\/\/a.example", "x":[1.0],"message":"M" }"#,
                "M",
                Some("https://a.example"),
                r#"{ "mode":"\u0075rl", "u\u0072l" : "u", "x":[1.0],"message":"m" }"#,
            ),
            // A client could open the page although it is asked to show a form.
            (
                r#"{"mode":"form","message":"M","url":"x:"}"#,
                "M",
                Some("x:"),
                r#"{"mode":"form","message":"m","url":"u"}"#,
            ),
        ] {
            let elicitation = Elicitation::parse(params).unwrap();
            assert_eq!((elicitation.message.as_ref(), elicitation.url.as_deref()), (message, url), "{params}");
            assert_eq!(elicitation.rewritten("m", url.map(|_| "u")), rewritten);
        }
    }

    #[test]
    fn what_clients_could_read_differently_is_rejected() {
        for params in [
            "null",
            "[]",
            r#"["url","M","https://a.example"]"#,
            "{}",
            r#"{"message":null}"#,
            r#"{"message":7}"#,
            r#"{"message":"\ud800"}"#,
            r#"{"message":"M"} x"#,
            r#"{"message":"M","mode":7}"#,
            r#"{"message":"M","mode":"URL"}"#,
            r#"{"message":"M","mode":"url"}"#,
            r#"{"message":"M","mode":"url","url":null}"#,
            r#"{"message":"M","mode":"url","url":["https://a.example"]}"#,
            r#"{"message":"M","message":"M"}"#,
            r#"{"message":"M","m\u0065ssage":"M"}"#,
            r#"{"message":"M","Message":"M"}"#,
            r#"{"message":"M","mode":"url","url":"https://a.example","url":"https://b.example"}"#,
            r#"{"message":"M","mode":"url","url":"https://a.example","URL":"https://b.example"}"#,
            r#"{"message":"M","mode":"url","url":"https://a.example","url\u0000":"https://b.example"}"#,
            r#"{"message":"M","mode":"form","Mode":"url","url":"https://a.example"}"#,
            r#"{"message":"M","requestedSchema":{"a":1,"a":2}}"#,
        ] {
            assert_eq!(Elicitation::parse(params), None, "{params}");
        }
    }

    #[test]
    fn the_pages_of_an_error_are_read() {
        let one = r#"{"mode":"url","message":"M","url":"https://a.example"}"#;
        let read = |data: &str| {
            Elicitation::parse_required(data).map(|all| all.iter().map(|one| one.raw.to_owned()).collect::<Vec<_>>())
        };
        assert_eq!(read(&format!(r#"{{"x":1, "elicitations" : [ {one} , {one} ]}}"#)), Some(vec![one.to_owned(); 2]));
        assert_eq!(read(r#"{"elicitations":[]}"#), Some(Vec::new()));
        let many = vec![one; MAX_INPUT_REQUESTS + 1].join(",");
        for data in [
            "null".to_owned(),
            "{}".to_owned(),
            format!("[{one}]"),
            format!(r#"{{"elicitations":{one}}}"#),
            format!(r#"{{"elicitations":[{one}],"elicitations":[]}}"#),
            format!(r#"{{"elicitations":[],"Elicitations":[{one}]}}"#),
            r#"{"elicitations":[{"message":"M"}]}"#.to_owned(),
            format!(r#"{{"elicitations":[{many}]}}"#),
        ] {
            assert_eq!(read(&data), None, "{data}");
        }
    }
}
