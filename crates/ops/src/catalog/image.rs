//! References to container images, in the grammar of Docker and of the OCI distribution specification.

use std::fmt;
use std::str::FromStr;

/// The registry of a reference without a host.
const DEFAULT_HOST: &str = "docker.io";
/// The namespace in the default registry of a name without one.
const DEFAULT_NAMESPACE: &str = "library/";
/// The host that serves the API of the default registry.
const DEFAULT_API_HOST: &str = "registry-1.docker.io";
/// The tag of a reference without a tag or a digest.
const DEFAULT_TAG: &str = "latest";

/// The maximum length of a reference.
const MAX_REFERENCE: usize = 512;
/// The maximum length of a name, including the host.
const MAX_NAME: usize = 255;
/// The maximum length of a tag.
const MAX_TAG: usize = 128;

/// A reference to an image, in canonical form: with host and namespace, and with either a tag or a digest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageReference {
    host: String,
    name: String,
    version: ImageVersion,
}

/// The version of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ImageVersion {
    /// A tag, which the registry can move to another image at any time.
    Tag(String),
    /// The digest of the manifest, `sha256:…`.
    Digest(String),
}

impl ImageReference {
    /// Returns the name within the registry, such as `library/alpine`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the tag or the digest.
    #[must_use]
    pub fn version(&self) -> &ImageVersion {
        &self.version
    }

    /// Returns the host, with its port, that serves the API of the registry.
    #[must_use]
    pub fn api_host(&self) -> &str {
        if self.host == DEFAULT_HOST { DEFAULT_API_HOST } else { &self.host }
    }

    /// Returns the same image with a digest.
    #[must_use]
    pub fn with_digest(&self, digest: &str) -> Self {
        Self { version: ImageVersion::Digest(digest.to_owned()), ..self.clone() }
    }
}

impl fmt::Display for ImageReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.version {
            ImageVersion::Tag(tag) => write!(f, "{}/{}:{tag}", self.host, self.name),
            ImageVersion::Digest(digest) => write!(f, "{}/{}@{digest}", self.host, self.name),
        }
    }
}

impl FromStr for ImageReference {
    type Err = String;

    /// Parses a reference and adds what it omits: `alpine` is `docker.io/library/alpine:latest`. A digest replaces a
    /// tag. The error is the predicate of a sentence that begins with the field.
    fn from_str(text: &str) -> Result<Self, String> {
        if text.len() > MAX_REFERENCE {
            return Err(format!("has {} characters; the maximum is {MAX_REFERENCE}.", text.len()));
        }
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest)),
            None => (text, None),
        };
        // A colon after the last slash precedes the tag; one before it, the port of the host.
        let (path, tag) = match rest.rsplit_once(':') {
            Some((path, tag)) if !tag.contains('/') => (path, Some(tag)),
            _ => (rest, None),
        };
        let (host, name) = split_host(path);
        if !is_host(host) {
            return Err(invalid(text, "the host is invalid"));
        }
        if !name.split('/').all(is_component) || host.len() + 1 + name.len() > MAX_NAME {
            return Err(invalid(text, "names have lower-case letters, digits, and `.`, `_` or `-` between them"));
        }
        if let Some(tag) = tag.filter(|tag| !is_tag(tag)) {
            return Err(invalid(text, &format!("`{tag}` is not a tag")));
        }
        let version = match (digest, tag) {
            (Some(digest), _) if is_digest(digest) => ImageVersion::Digest(digest.to_owned()),
            (Some(_), _) => return Err(invalid(text, "a digest is `sha256:` and 64 hexadecimal digits")),
            (None, tag) => ImageVersion::Tag(tag.unwrap_or(DEFAULT_TAG).to_owned()),
        };
        let namespace = if host == DEFAULT_HOST && !name.contains('/') { DEFAULT_NAMESPACE } else { "" };
        Ok(Self { host: host.to_owned(), name: format!("{namespace}{name}"), version })
    }
}

fn invalid(text: &str, problem: &str) -> String {
    let shown: String = text.chars().filter(|letter| !letter.is_control()).take(100).collect();
    format!(
        "is `{shown}`, which is not a reference to an image: {problem}. Write `host/name@sha256:…` or `host/name:tag`."
    )
}

/// Splits off the host: the first component if it has a dot or a port, or is `localhost`.
fn split_host(path: &str) -> (&str, &str) {
    match path.split_once('/') {
        Some(("docker.io" | "index.docker.io" | DEFAULT_API_HOST, name)) => (DEFAULT_HOST, name),
        Some((host, name)) if host.contains(['.', ':']) || host == "localhost" => (host, name),
        _ => (DEFAULT_HOST, path),
    }
}

/// Whether `text` is a host name, an IPv4 address or an IPv6 address in brackets, with an optional port.
fn is_host(text: &str) -> bool {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (text, None),
    };
    let is_port = port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port != 0));
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let is_address = |text: &str| {
        let inner = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        inner.is_some_and(|inner| inner.parse::<std::net::Ipv6Addr>().is_ok())
    };
    is_port && (host.split('.').all(is_label) || is_address(host))
}

/// Whether `text` is a component of a name: `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`.
fn is_component(text: &str) -> bool {
    let is_alphanumeric = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let is_separator = |separator: &str| {
        matches!(separator, "." | "_" | "__") || (!separator.is_empty() && separator.bytes().all(|byte| byte == b'-'))
    };
    let ends =
        text.bytes().next().is_some_and(is_alphanumeric) && text.bytes().next_back().is_some_and(is_alphanumeric);
    let mut separators = text.split(|letter: char| letter.is_ascii_lowercase() || letter.is_ascii_digit());
    ends && separators.all(|separator| separator.is_empty() || is_separator(separator))
}

fn is_tag(text: &str) -> bool {
    (1..=MAX_TAG).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
        && !text.starts_with(['.', '-'])
}

/// Whether `text` is a digest, `sha256:` and 64 hexadecimal digits in lower case.
pub(super) fn is_digest(text: &str) -> bool {
    text.strip_prefix("sha256:").is_some_and(|digits| {
        digits.len() == 64 && digits.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn omitted_parts_of_references_are_added() {
        let digest = format!("sha256:{}", "0a".repeat(32));
        for (text, canonical, api_host) in [
            ("alpine", "docker.io/library/alpine:latest".to_owned(), "registry-1.docker.io"),
            ("alpine:3.20", "docker.io/library/alpine:3.20".to_owned(), "registry-1.docker.io"),
            ("grafana/mcp", "docker.io/grafana/mcp:latest".to_owned(), "registry-1.docker.io"),
            ("index.docker.io/a/b:1", "docker.io/a/b:1".to_owned(), "registry-1.docker.io"),
            ("ghcr.io/Org".to_lowercase().as_str(), "ghcr.io/org:latest".to_owned(), "ghcr.io"),
            ("localhost/x", "localhost/x:latest".to_owned(), "localhost"),
            ("127.0.0.1:5000/a/b__c.d--e:V1", "127.0.0.1:5000/a/b__c.d--e:V1".to_owned(), "127.0.0.1:5000"),
            ("[::1]:5000/x:1", "[::1]:5000/x:1".to_owned(), "[::1]:5000"),
            (&format!("alpine@{digest}"), format!("docker.io/library/alpine@{digest}"), "registry-1.docker.io"),
            (&format!("r.example:1/x:1.2@{digest}"), format!("r.example:1/x@{digest}"), "r.example:1"),
        ] {
            let image: ImageReference = text.parse().unwrap();
            assert_eq!((image.to_string(), image.api_host()), (canonical, api_host), "{text}");
            assert_eq!(image.to_string().parse::<ImageReference>().unwrap(), image, "{text}");
        }
    }

    #[test]
    fn invalid_references_are_rejected() {
        let long = "a".repeat(600);
        for text in [
            "",
            "Alpine",
            "a b",
            "https://ghcr.io/x",
            "ghcr.io/",
            "ghcr.io//x",
            "ghcr.io/x/",
            "ghcr.io/-x",
            "ghcr.io/x..y",
            "ghcr.io/x___y",
            "x:",
            "x:-1",
            "x:a/b:c",
            "x@sha256:12",
            "x@sha512:00",
            "x@",
            "h.example:0/x",
            "h.example:99999/x",
            "user@h.example/x",
            "../x",
            "ghcr.io/../x",
            "ghcr.io/x?y",
            "ghcr.io/x#y",
            "ghcr.io/%2e/x",
            &long,
        ] {
            assert!(text.parse::<ImageReference>().is_err(), "{text}");
        }
        let digest = format!("x@sha256:{}", "0A".repeat(32));
        assert!(digest.parse::<ImageReference>().is_err(), "digests are in lower case");
    }

    proptest! {
        /// A reference consists only of characters that need no escaping in a URL.
        #[test]
        fn any_text_is_parsed_or_rejected(text in "[a-zA-Z0-9.:/@_ -]{0,40}|.{0,20}") {
            if let Ok(image) = text.parse::<ImageReference>() {
                prop_assert_eq!(&image.to_string().parse::<ImageReference>().unwrap(), &image);
                prop_assert!(image.name().bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-/".contains(&byte)));
            }
        }
    }
}
