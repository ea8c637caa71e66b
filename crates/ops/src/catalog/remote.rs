//! The parts of an entry's file that describe a remote server: a server that is already running elsewhere.

use std::collections::{BTreeMap, HashSet};

use http::HeaderValue;
use serde_json::{Map, Value};
use url::Url;
use waypost_core::Result;
use waypost_core::catalog::{
    RemoteSource, ResourceClass, SecretDelivery, SecretSpec, Sharing, Source, Transport, VersionDefinition,
};

use super::members::Members;
use super::{file, runtime};
use crate::remote_endpoint::{MAX_HEADER_VALUE, MAX_HEADERS, find_header_problem, is_credential_header, parse_url};

/// The members that apply only to containers, except `sharing`.
const CONTAINER_MEMBERS: [&str; 11] = [
    "command",
    "args",
    "port",
    "path",
    "resources",
    "egress",
    "volumes",
    "registry_secret",
    "lazy",
    "idle_seconds",
    "max_lifetime_seconds",
];

/// Takes the definition of a version whose server is remote. `source` has the members of `source.remote`. The definition
/// contains only the origin of the URL.
pub(super) fn definition<'a>(members: &mut Members<'a>, mut source: Members<'a>) -> Result<(Url, VersionDefinition)> {
    reject_container_members(members)?;
    let url = url(&mut source)?;
    let transport = transport(members, &mut source)?;
    let config_schema = file::config_schema(members)?;
    let headers = headers(&mut source, &config_schema)?;
    source.finish(|_| None)?;
    let secrets = secrets(members, &headers)?;
    let source = RemoteSource { origin: url.origin().ascii_serialization(), transport, headers };
    let definition = VersionDefinition {
        source: Source::Remote(source),
        image_tag: None,
        transport,
        command: None,
        args: None,
        port: None,
        path: None,
        config_schema,
        secrets,
        registry_secret: None,
        resources: ResourceClass::Medium,
        egress: Vec::new(),
        volumes: Vec::new(),
        sharing: Sharing::Shared,
        lazy: false,
        idle_seconds: None,
        max_lifetime_seconds: None,
    };
    Ok((url, definition))
}

fn reject_container_members(members: &mut Members<'_>) -> Result<()> {
    if let Some(name) = CONTAINER_MEMBERS.into_iter().find(|name| members.take(name).is_some()) {
        return Err(members.reject(name, "is set, but a remote server has no container. Remove it."));
    }
    match members.name::<Sharing>("sharing")? {
        Some(sharing) if sharing != Sharing::Shared => {
            let problem =
                format!("is `{sharing}`, but all callers share the connection to a remote server. Remove it.");
            Err(members.reject("sharing", problem))
        }
        _ => Ok(()),
    }
}

fn url(source: &mut Members<'_>) -> Result<Url> {
    let text = source.required_text("url")?;
    if text.contains("${") {
        let problem = "contains `${`, but a URL is the same for all instances. Use `headers`, or a secret.";
        return Err(source.reject("url", problem));
    }
    parse_url(&text).map_err(|problem| source.reject("url", format!("is rejected. {problem}")))
}

/// Takes the transport of the server. That of the version is optional, and must be equal.
fn transport(members: &mut Members<'_>, source: &mut Members<'_>) -> Result<Transport> {
    let transport = match source.name("transport")? {
        None => return Err(source.reject("transport", "is missing. Set it to `streamable_http` or `sse`.")),
        Some(Transport::Stdio) => {
            let problem = "is `stdio`, but a remote server is reached over HTTP. Set it to `streamable_http` or `sse`.";
            return Err(source.reject("transport", problem));
        }
        Some(transport) => transport,
    };
    match members.name::<Transport>("transport")? {
        Some(other) if other != transport => {
            let problem = format!("is `{other}`, but `source.remote.transport` is `{transport}`. Remove it.");
            Err(members.reject("transport", problem))
        }
        _ => Ok(transport),
    }
}

/// Takes the headers whose values are not secret. `${config.NAME}` must name a member that the schema allows.
fn headers(source: &mut Members<'_>, schema: &Map<String, Value>) -> Result<BTreeMap<String, String>> {
    let map = source.object("headers")?.unwrap_or_default();
    if map.len() > MAX_HEADERS {
        let problem = format!("has {} headers; the maximum is {MAX_HEADERS}. Remove some.", map.len());
        return Err(source.reject("headers", problem));
    }
    let (mut headers, mut names) = (BTreeMap::new(), HashSet::new());
    for (name, value) in map {
        if let Some(problem) = find_header_problem(&name) {
            return Err(source.reject("headers", format!("is invalid. {problem}")));
        }
        let field = format!("headers.{name}");
        if !names.insert(name.to_ascii_lowercase()) {
            return Err(source.reject(&field, "is set twice. Remove one."));
        }
        if is_credential_header(&name) {
            let problem = "has a credential as its value, and all members can read `headers`. Declare it in `secrets`.";
            return Err(source.reject(&field, problem));
        }
        let value = source.to_text(&field, value)?;
        if let Some(problem) = find_value_problem(&value).or_else(|| runtime::find_placeholder_problem(&value, schema))
        {
            return Err(source.reject(&field, problem));
        }
        headers.insert(name, value);
    }
    Ok(headers)
}

fn find_value_problem(value: &str) -> Option<String> {
    if value.len() > MAX_HEADER_VALUE {
        return Some(format!("has {} bytes; the maximum is {MAX_HEADER_VALUE}. Shorten it.", value.len()));
    }
    HeaderValue::try_from(value).is_err().then(|| "contains control characters. Remove them.".to_owned())
}

/// Takes the secrets, each of which is the value of the header with its name.
fn secrets(members: &mut Members<'_>, headers: &BTreeMap<String, String>) -> Result<Vec<SecretSpec>> {
    let mut names: HashSet<String> = headers.keys().map(|name| name.to_ascii_lowercase()).collect();
    let secrets = file::secrets(members, |item, name| {
        match item.name("as")? {
            None | Some(SecretDelivery::Header) => {}
            Some(other) => {
                let problem = format!("is `{other}`, but each secret of a remote server is a header. Remove it.");
                return Err(item.reject("as", problem));
            }
        }
        if let Some(problem) = find_header_problem(name) {
            return Err(item.reject("name", format!("is invalid. {problem}")));
        }
        if !names.insert(name.to_ascii_lowercase()) {
            return Err(item.reject("name", format!("is `{name}`, a header that is set twice. Remove one.")));
        }
        Ok(SecretDelivery::Header)
    })?;
    if headers.len() + secrets.len() > MAX_HEADERS {
        let problem =
            format!("and `source.remote.headers` have more than {MAX_HEADERS} headers together. Remove some.");
        return Err(members.reject("secrets", problem));
    }
    Ok(secrets)
}
