//! Request parameters, each of which may occur only once (RFC 6749, sections 3.1 and 3.2).

use std::collections::HashMap;

use url::form_urlencoded;

/// The maximum length of a parameter, in bytes.
const MAX_VALUE: usize = 4_096;
/// The maximum number of parameters. The standards define about 20.
const MAX_PARAMETERS: usize = 64;

/// The parameters of a query string or a form.
#[derive(Default)]
pub struct Params {
    values: HashMap<String, String>,
    resources: Vec<String>,
    repeated: Option<String>,
    oversized: bool,
    too_many: bool,
}

impl Params {
    /// Parses `application/x-www-form-urlencoded`. A parameter without a value is treated as absent (RFC 6749, section
    /// 3.1); only `resource` may occur several times (RFC 8707, section 2).
    #[must_use]
    pub fn parse(text: &[u8]) -> Self {
        let mut params = Self::default();
        for (count, (name, value)) in form_urlencoded::parse(text).enumerate() {
            if count == MAX_PARAMETERS {
                params.too_many = true;
                break;
            }
            if value.len() > MAX_VALUE {
                params.oversized = true;
            } else if value.is_empty() {
            } else if name == "resource" {
                params.resources.push(value.into_owned());
            } else if params.values.insert(name.clone().into_owned(), value.into_owned()).is_some() {
                params.repeated = Some(name.into_owned());
            }
        }
        params
    }

    /// Returns the value of a parameter.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(String::as_str)
    }

    /// Returns the resource indicators.
    #[must_use]
    pub fn resources(&self) -> &[String] {
        &self.resources
    }

    /// Returns the reason why the parameters as a whole are invalid, if any.
    #[must_use]
    pub fn fault(&self) -> Option<String> {
        if self.too_many {
            return Some(format!("The request has more than {MAX_PARAMETERS} parameters."));
        }
        if self.oversized {
            return Some(format!("A parameter is longer than {MAX_VALUE} bytes."));
        }
        let name = self.repeated.as_ref()?;
        let shown: String = name.chars().take(40).collect();
        Some(format!("The parameter {shown} occurs more than once."))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_parameter_except_resource_occurs_once() {
        let params = Params::parse(b"a=1&b=%C3%A4&empty=&resource=x&resource=y");
        assert_eq!((params.get("a"), params.get("b"), params.get("empty")), (Some("1"), Some("ä"), None));
        assert_eq!(params.resources(), ["x", "y"]);
        assert_eq!(params.fault(), None);
        assert!(Params::parse(b"a=1&a=1").fault().unwrap().contains(" a "));
        assert_eq!(Params::parse("resource=x&".repeat(MAX_PARAMETERS).as_bytes()).fault(), None);
        let many = Params::parse("resource=x&".repeat(100_000).as_bytes());
        assert!(many.fault().is_some() && many.resources().len() == MAX_PARAMETERS);
        assert!(Params::parse(format!("a={}", "x".repeat(MAX_VALUE + 1)).as_bytes()).fault().is_some());
    }
}
