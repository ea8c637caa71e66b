//! The capabilities of a client that allow a server to ask it for something during a request.

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

/// What a server may ask a client for: roots, sampling (with or without tools) and elicitation (by form or URL). Other
/// capabilities of clients are ignored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct ClientCapabilities(u8);

const ROOTS: u8 = 1;
const SAMPLING: u8 = 1 << 1;
/// Sampling in which the model can use tools.
const SAMPLING_TOOLS: u8 = 1 << 2;
const FORM: u8 = 1 << 3;
const URL: u8 = 1 << 4;
const ALL: u8 = ROOTS | SAMPLING | SAMPLING_TOOLS | FORM | URL;

impl ClientCapabilities {
    /// Parses the JSON text of `capabilities`. A member that is missing or not an object counts as not declared.
    #[must_use]
    pub fn parse(capabilities: Option<&str>) -> Self {
        let declared: Map<String, Value> =
            capabilities.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
        let find = |name: &str| declared.get(name).and_then(Value::as_object);
        let mut bits = 0;
        if find("roots").is_some() {
            bits |= ROOTS;
        }
        if let Some(sampling) = find("sampling") {
            bits |= SAMPLING;
            if sampling.get("tools").is_some_and(Value::is_object) {
                bits |= SAMPLING_TOOLS;
            }
        }
        if let Some(elicitation) = find("elicitation") {
            let (form, url) = (elicitation.contains_key("form"), elicitation.contains_key("url"));
            // 2025-11-25, "Elicitation": an empty object means forms.
            if form || !url {
                bits |= FORM;
            }
            if url {
                bits |= URL;
            }
        }
        Self(bits)
    }

    /// Returns all capabilities.
    #[must_use]
    pub fn all() -> Self {
        Self(ALL)
    }

    /// Returns the capabilities with these [`bits`](Self::bits). Unknown bits are ignored.
    #[must_use]
    pub fn from_bits(bits: u8) -> Self {
        Self(bits & ALL)
    }

    /// Returns the capabilities as a number that [`Self::from_bits`] accepts.
    #[must_use]
    pub fn bits(self) -> u8 {
        self.0
    }

    /// Returns these capabilities except roots.
    #[must_use]
    pub fn without_roots(self) -> Self {
        Self(self.0 & !ROOTS)
    }

    /// Returns these capabilities except elicitation by URL.
    #[must_use]
    pub fn without_urls(self) -> Self {
        Self(self.0 & !URL)
    }

    /// Returns the capabilities that both contain.
    #[must_use]
    pub fn common(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Whether a server may not ask for anything.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Returns the JSON text of `capabilities` that declares exactly these capabilities.
    #[must_use]
    pub fn to_json(self) -> String {
        let mut all = json!({});
        if self.has(ROOTS) {
            all["roots"] = json!({});
        }
        if self.has(SAMPLING) {
            all["sampling"] = if self.has(SAMPLING_TOOLS) { json!({ "tools": {} }) } else { json!({}) };
        }
        match (self.has(FORM), self.has(URL)) {
            (false, false) => {}
            // Also understood by servers that do not know modes.
            (true, false) => all["elicitation"] = json!({}),
            (false, true) => all["elicitation"] = json!({ "url": {} }),
            (true, true) => all["elicitation"] = json!({ "form": {}, "url": {} }),
        }
        all.to_string()
    }

    /// Whether a server may send a request with this method and these parameters (JSON text).
    #[must_use]
    pub fn allow(self, method: &str, params: Option<&str>) -> bool {
        #[derive(Deserialize, Default)]
        #[serde(rename_all = "camelCase")]
        struct Params<'a> {
            mode: Option<String>,
            #[serde(borrow)]
            tools: Option<&'a RawValue>,
            #[serde(borrow)]
            tool_choice: Option<&'a RawValue>,
        }
        let params: Option<Params<'_>> =
            params.map_or_else(|| Some(Params::default()), |text| serde_json::from_str(text).ok());
        let Some(params) = params else { return false };
        match method {
            "roots/list" => self.has(ROOTS),
            "sampling/createMessage" if params.tools.is_some() || params.tool_choice.is_some() => {
                self.has(SAMPLING_TOOLS)
            }
            "sampling/createMessage" => self.has(SAMPLING),
            "elicitation/create" => match params.mode.as_deref() {
                None | Some("form") => self.has(FORM),
                Some("url") => self.has(URL),
                Some(_) => false,
            },
            _ => false,
        }
    }

    fn has(self, bit: u8) -> bool {
        self.0 & bit != 0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_what_servers_may_ask_for_is_read() {
        for (declared, expected) in [
            (r#"{}"#, "{}"),
            (r#"{"roots":{"listChanged":true},"experimental":{"x":{}}}"#, r#"{"roots":{}}"#),
            (r#"{"sampling":{"context":{}}}"#, r#"{"sampling":{}}"#),
            (r#"{"sampling":{"tools":{}}}"#, r#"{"sampling":{"tools":{}}}"#),
            (r#"{"elicitation":{}}"#, r#"{"elicitation":{}}"#),
            (r#"{"elicitation":{"url":{}}}"#, r#"{"elicitation":{"url":{}}}"#),
            (r#"{"elicitation":{"form":{},"url":{}}}"#, r#"{"elicitation":{"form":{},"url":{}}}"#),
            (r#"{"roots":null,"sampling":true,"elicitation":[]}"#, "{}"),
            ("[]", "{}"),
        ] {
            assert_eq!(ClientCapabilities::parse(Some(declared)).to_json(), expected, "{declared}");
        }
        assert!(ClientCapabilities::parse(None).is_empty());
    }

    #[test]
    fn a_server_may_ask_only_for_what_is_declared() {
        let declared = |text: &str| ClientCapabilities::parse(Some(text));
        let (form, url) = (declared(r#"{"elicitation":{}}"#), declared(r#"{"elicitation":{"url":{}}}"#));
        let (sampling, tools) = (declared(r#"{"sampling":{}}"#), declared(r#"{"sampling":{"tools":{}}}"#));
        for (capabilities, method, params, expected) in [
            (form, "elicitation/create", Some(r#"{"message":"m"}"#), true),
            (form, "elicitation/create", Some(r#"{"mode":"form"}"#), true),
            (form, "elicitation/create", Some(r#"{"mode":"url"}"#), false),
            (form, "elicitation/create", Some(r#"{"mode":7}"#), false),
            (url, "elicitation/create", Some(r#"{"mode":"url"}"#), true),
            (url, "elicitation/create", Some(r#"{"mode":"FORM"}"#), false),
            (url, "elicitation/create", None, false),
            (sampling, "sampling/createMessage", Some("{}"), true),
            (sampling, "sampling/createMessage", Some(r#"{"tools":[]}"#), false),
            (sampling, "sampling/createMessage", Some(r#"{"toolChoice":{}}"#), false),
            (tools, "sampling/createMessage", Some(r#"{"tools":[]}"#), true),
            (sampling, "roots/list", None, false),
            (declared(r#"{"roots":{}}"#), "roots/list", None, true),
            (declared(r#"{"roots":{}}"#), "tools/call", None, false),
        ] {
            assert_eq!(capabilities.allow(method, params), expected, "{method} {params:?}");
        }
    }

    proptest! {
        #[test]
        fn bits_and_text_have_the_same_content(bits in 0..=ALL) {
            // Tools require sampling.
            prop_assume!(bits & SAMPLING_TOOLS == 0 || bits & SAMPLING != 0);
            let capabilities = ClientCapabilities::from_bits(bits);
            prop_assert_eq!(ClientCapabilities::parse(Some(&capabilities.to_json())), capabilities);
            prop_assert_eq!(capabilities.bits(), bits);
            prop_assert_eq!(ClientCapabilities::all().common(capabilities), capabilities);
            let without = capabilities.without_roots();
            prop_assert!(!without.allow("roots/list", None));
            prop_assert_eq!(without.common(capabilities), without);
            let without = capabilities.without_urls();
            let opens_urls = without.allow("elicitation/create", Some(r#"{"mode":"url"}"#));
            prop_assert!(!opens_urls);
            prop_assert_eq!(without.common(capabilities), without);
            prop_assert_eq!(without.bits() | (bits & URL), bits);
        }
    }
}
