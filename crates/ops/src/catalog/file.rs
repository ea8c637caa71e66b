//! The file format of entries: one entry with one version, in YAML or JSON. The fields are those of an entry and of a
//! version in the REST API.

use std::collections::BTreeSet;

use serde_json::{Map, Value};
use url::Url;
use waypost_content::invisible;
use waypost_content::transfer::source::SourceRef;
use waypost_core::catalog::{
    Destination, ResourceClass, SecretDelivery, SecretSpec, Sharing, Source, Transport, VersionDefinition, Volume,
};
use waypost_core::{Result, tool_secret};

use super::destination;
use super::image::{ImageReference, ImageVersion};
use super::members::{Members, UniqueValue};
use super::schema::check_schema;
use super::{remote, runtime};

/// The maximum size of a file in bytes.
pub const MAX_FILE_BYTES: usize = 256 * 1024;
/// The maximum size of a version's definition in bytes.
const MAX_DEFINITION_BYTES: usize = 64 * 1024;
/// The maximum length of a slug.
pub(super) const MAX_SLUG: usize = 60;
const MAX_NAME_CHARS: usize = 200;
const MAX_DESCRIPTION_CHARS: usize = 10_000;
const MAX_SECRET_DESCRIPTION_CHARS: usize = 1_000;
const MAX_CATEGORIES: usize = 20;
const MAX_CATEGORY_CHARS: usize = 50;
const MAX_LICENSE_CHARS: usize = 100;
const MAX_URL_CHARS: usize = 2_000;
const MAX_VERSION_CHARS: usize = 100;
const MAX_SECRETS: usize = 50;
const MAX_EGRESS: usize = 50;
const MAX_VOLUMES: usize = 10;

/// The keys with which other formats change the isolation of a container.
const ISOLATION_KEYS: [&str; 24] = [
    "binds",
    "cap_add",
    "cap_drop",
    "capabilities",
    "cgroup_parent",
    "devices",
    "dns",
    "extra_hosts",
    "gpus",
    "group_add",
    "ipc",
    "mounts",
    "network",
    "network_mode",
    "networks",
    "pid",
    "ports",
    "privileged",
    "read_only",
    "runtime",
    "security_opt",
    "sysctls",
    "ulimits",
    "user",
];

/// An entry with one version, as read from a file.
#[derive(Debug, Clone, PartialEq)]
pub struct EntryFile {
    pub(super) source: SourceRef,
    /// The slug of the entry.
    pub slug: String,
    /// The name of the entry.
    pub name: String,
    /// The description; may be empty.
    pub description: String,
    /// The categories.
    pub categories: Vec<String>,
    /// The licence.
    pub license: Option<String>,
    /// The URL of the documentation.
    pub documentation_url: Option<String>,
    /// The version.
    pub version: String,
    /// The definition of the version. Its source is an image with a tag or a digest, or the origin of a URL.
    pub definition: VersionDefinition,
    /// The complete source.
    pub reference: SourceReference,
}

/// The source of the server of an entry, as named in its file.
#[derive(Debug, Clone, PartialEq)]
pub enum SourceReference {
    /// An image, by tag or by digest.
    Image(ImageReference),
    /// The URL of a remote server.
    Remote(Url),
}

impl EntryFile {
    /// Parses a file. `name` is used in messages, and its extension (`.json`, `.yaml`, `.yml`) determines the format;
    /// otherwise the text does.
    ///
    /// # Errors
    /// `invalid_arguments` naming the file and the field.
    pub fn parse(name: &str, text: &str) -> Result<Self> {
        let source = SourceRef::file(name);
        if text.len() > MAX_FILE_BYTES {
            let problem = format!("has {} bytes; the maximum is {MAX_FILE_BYTES}. Shorten it.", text.len());
            return Err(source.reject("file", problem));
        }
        let map = read_object(&source, name, text.strip_prefix('\u{feff}').unwrap_or(text))?;
        let mut members = Members::new(&source, map);
        let slug = members.required_text("slug")?;
        if !is_slug(&slug) {
            let problem = format!(
                "is {slug:?}. A slug has 1 to {MAX_SLUG} characters from a to z, 0 to 9 and `-`, and begins and ends with a \
                 letter or a digit."
            );
            return Err(members.reject("slug", problem));
        }
        let name = required_line(&mut members, "name", MAX_NAME_CHARS)?;
        let description = multiline(&mut members, "description", MAX_DESCRIPTION_CHARS)?;
        let categories = categories(&mut members)?;
        let license = license(&mut members)?;
        let documentation_url = documentation_url(&mut members)?;
        let version = version(&mut members)?;
        let (reference, definition) = definition(&mut members)?;
        members.finish(|name| {
            let is_isolation = ISOLATION_KEYS.contains(&name);
            is_isolation.then_some("cannot be set: all containers are isolated in the same way. Remove it.")
        })?;
        Ok(Self {
            slug,
            name,
            description,
            categories,
            license,
            documentation_url,
            version,
            definition,
            reference,
            source,
        })
    }
}

/// Whether `text` is the slug of an entry.
pub(super) fn is_slug(text: &str) -> bool {
    let is_alphanumeric = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    (1..=MAX_SLUG).contains(&text.len())
        && text.bytes().all(|byte| is_alphanumeric(byte) || byte == b'-')
        && text.bytes().next().is_some_and(is_alphanumeric)
        && text.bytes().next_back().is_some_and(is_alphanumeric)
}

fn read_object(source: &SourceRef, name: &str, text: &str) -> Result<Map<String, Value>> {
    let extension = name.rsplit_once('.').map(|(_, extension)| extension.to_ascii_lowercase());
    let is_json = match extension.as_deref() {
        Some("json") => true,
        Some("yaml" | "yml") => false,
        _ => text.trim_start().starts_with('{'),
    };
    let parsed = if is_json { read_json(text) } else { read_yaml(text) };
    match parsed.map_err(|problem| source.reject("file", problem))? {
        Value::Object(map) => Ok(map),
        _ => Err(source.reject("file", "must be an object with the fields of an entry, such as `slug: search`.")),
    }
}

fn read_json(text: &str) -> std::result::Result<Value, String> {
    let parsed: std::result::Result<UniqueValue, _> = serde_json::from_str(text);
    parsed.map(|value| value.0).map_err(|error| {
        let reason = error.to_string();
        let reason = reason.split(" at line ").next().unwrap_or_default();
        format!("is not valid JSON at line {}, column {}: {reason}.", error.line(), error.column())
    })
}

fn read_yaml(text: &str) -> std::result::Result<Value, String> {
    // A file has no use for many aliases, which could expand to a large document.
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! { max_nodes: 20_000, max_aliases: 100, max_events: 50_000 },
        alias_limits: serde_saphyr::alias_limits! { max_total_replayed_events: 20_000 },
    };
    let parsed: std::result::Result<UniqueValue, _> = serde_saphyr::from_str_with_options(text, options);
    parsed.map(|value| value.0).map_err(|error| {
        let line = error.location().map_or(1, |at| at.line());
        let reason = error.without_snippet().to_string();
        let reason = reason.lines().next().unwrap_or_default();
        let reason = reason.split(" at line ").next().unwrap_or(reason).trim_end_matches('.');
        format!("is not valid YAML at line {line}: {reason}.")
    })
}

/// Takes a single line, cleaned.
fn required_line(members: &mut Members<'_>, name: &'static str, maximum: usize) -> Result<String> {
    let text = members.required_text(name)?;
    line(members, name, &text, maximum)
}

fn line(members: &Members<'_>, field: &str, text: &str, maximum: usize) -> Result<String> {
    let cleaned = waypost_content::name::clean(text);
    match cleaned.chars().count() {
        0 => Err(members.reject(field, "is empty. Write a text.")),
        count if count > maximum => {
            Err(members.reject(field, format!("has {count} characters; the maximum is {maximum}. Shorten it.")))
        }
        _ => Ok(cleaned),
    }
}

/// Takes a text that may have several lines, without invisible characters; empty if it is absent.
fn multiline(members: &mut Members<'_>, name: &'static str, maximum: usize) -> Result<String> {
    let text = members.text(name)?.unwrap_or_default().replace("\r\n", "\n");
    if text.chars().any(|letter| letter.is_control() && !matches!(letter, '\n' | '\t')) {
        return Err(members.reject(name, "contains control characters. Remove them."));
    }
    let text = invisible::remove(text.trim()).trim().to_owned();
    let count = text.chars().count();
    if count > maximum {
        return Err(members.reject(name, format!("has {count} characters; the maximum is {maximum}. Shorten it.")));
    }
    Ok(text)
}

fn categories(members: &mut Members<'_>) -> Result<Vec<String>> {
    let mut categories: Vec<String> = Vec::new();
    for (at, text) in members.texts("categories", MAX_CATEGORIES)?.unwrap_or_default().into_iter().enumerate() {
        let category = line(members, &format!("categories[{at}]"), &text, MAX_CATEGORY_CHARS)?;
        if !categories.contains(&category) {
            categories.push(category);
        }
    }
    Ok(categories)
}

fn license(members: &mut Members<'_>) -> Result<Option<String>> {
    let Some(text) = members.text("license")? else { return Ok(None) };
    let is_expression = (1..=MAX_LICENSE_CHARS).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b" .+-():".contains(&byte));
    if is_expression {
        Ok(Some(text))
    } else {
        Err(members.reject("license", "must be an SPDX expression, such as `Apache-2.0` or `MIT OR Apache-2.0`."))
    }
}

fn documentation_url(members: &mut Members<'_>) -> Result<Option<String>> {
    const FIELD: &str = "documentation_url";
    let Some(text) = members.text(FIELD)? else { return Ok(None) };
    let url = Url::parse(text.trim()).ok().filter(|url| matches!(url.scheme(), "https" | "http"));
    let url = url.filter(|url| url.has_host() && url.username().is_empty() && url.password().is_none());
    match url.map(String::from).filter(|url| url.len() <= MAX_URL_CHARS) {
        Some(url) => Ok(Some(url)),
        None => {
            Err(members
                .reject(FIELD, "must be an https or http URL without credentials, such as `https://docs.example`."))
        }
    }
}

fn version(members: &mut Members<'_>) -> Result<String> {
    let text = members.required_text("version")?;
    let is_version = (1..=MAX_VERSION_CHARS).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._+-".contains(&byte));
    if is_version {
        return Ok(text);
    }
    let problem = format!(
        "is {text:?}. A version has 1 to {MAX_VERSION_CHARS} characters from A to Z, a to z, 0 to 9, `.`, `_`, `+` and `-`, \
         such as `1.2.0`."
    );
    Err(members.reject("version", problem))
}

fn definition(members: &mut Members<'_>) -> Result<(SourceReference, VersionDefinition)> {
    let source = members.object("source")?.ok_or_else(|| {
        members.reject("source", "is missing. Add `source: {image: …}` or `source: {remote: {url: …, transport: …}}`.")
    })?;
    let mut source = members.nested("source", source);
    if source.take("package").is_some() {
        let problem = "is of the kind `package`, which is not supported yet. Build an image from the package, and use \
                       `source.image`.";
        return Err(members.reject("source", problem));
    }
    let (reference, definition) = match source.object("remote")? {
        Some(remote) => {
            let remote = source.nested("remote", remote);
            if source.take("image").is_some() {
                return Err(source.reject("image", "is set in addition to `source.remote`. Remove one of them."));
            }
            let (url, definition) = remote::definition(members, remote)?;
            (SourceReference::Remote(url), definition)
        }
        None => {
            let image = image(&mut source)?;
            (SourceReference::Image(image.clone()), container_definition(members, &image)?)
        }
    };
    source.finish(|_| None)?;
    let size = serde_json::to_string(&definition).map_or(usize::MAX, |text| text.len());
    if size > MAX_DEFINITION_BYTES {
        let problem = format!("has a version of {size} bytes; the maximum is {MAX_DEFINITION_BYTES}. Shorten it.");
        return Err(members.source.reject("file", problem));
    }
    Ok((reference, definition))
}

fn image(source: &mut Members<'_>) -> Result<ImageReference> {
    let image = source.required_text("image")?;
    image.trim().parse().map_err(|problem: String| source.reject("image", problem))
}

/// Takes the definition of a version whose server runs in containers.
fn container_definition(members: &mut Members<'_>, image: &ImageReference) -> Result<VersionDefinition> {
    let transport: Option<Transport> = members.name("transport")?;
    let transport = transport
        .ok_or_else(|| members.reject("transport", "is missing. Set it to `stdio`, `streamable_http` or `sse`."))?;
    let command = runtime::command(members)?;
    let (port, path) = runtime::endpoint(members, transport)?;
    let config_schema = config_schema(members)?;
    let args = runtime::args(members, &config_schema)?;
    let secrets = secrets(members, |item, name| container_delivery(item, name, &config_schema))?;
    Ok(VersionDefinition {
        source: Source::Image(image.to_string()),
        image_tag: match image.version() {
            ImageVersion::Tag(tag) => Some(tag.clone()),
            ImageVersion::Digest(_) => None,
        },
        transport,
        command,
        args,
        port,
        path,
        config_schema,
        secrets,
        registry_secret: registry_secret(members)?,
        resources: members.name("resources")?.unwrap_or(ResourceClass::Medium),
        egress: egress(members)?,
        volumes: volumes(members)?,
        sharing: members.name("sharing")?.unwrap_or(Sharing::Shared),
        lazy: members.flag("lazy")?.unwrap_or_default(),
        idle_seconds: members.number("idle_seconds", runtime::IDLE_SECONDS)?,
        max_lifetime_seconds: members.number("max_lifetime_seconds", runtime::MAX_LIFETIME_SECONDS)?,
    })
}

/// Takes the JSON Schema of the configuration.
pub(super) fn config_schema(members: &mut Members<'_>) -> Result<Map<String, Value>> {
    let schema = members.object("config_schema")?.unwrap_or_default();
    check_schema(&schema).map_err(|problem| members.reject(&format!("config_schema{}", problem.path), problem.text))?;
    Ok(schema)
}

/// Takes the secrets. `delivery` takes the delivery of a secret, and checks its name.
pub(super) fn secrets<'a>(
    members: &mut Members<'a>,
    mut delivery: impl FnMut(&mut Members<'a>, &str) -> Result<SecretDelivery>,
) -> Result<Vec<SecretSpec>> {
    let mut secrets: Vec<SecretSpec> = Vec::new();
    for mut item in members.objects("secrets", MAX_SECRETS)? {
        let name = item.required_text("name")?;
        if !tool_secret::is_name(&name) {
            let problem = "must have 1 to 64 characters from A to Z, a to z, 0 to 9, `_` and `-`.";
            return Err(item.reject("name", problem));
        }
        if secrets.iter().any(|secret| secret.name == name) {
            return Err(item.reject("name", format!("is `{name}`, like that of another secret. Rename one.")));
        }
        let secret = SecretSpec {
            description: multiline(&mut item, "description", MAX_SECRET_DESCRIPTION_CHARS)?,
            required: item.flag("required")?.unwrap_or(true),
            delivery: delivery(&mut item, &name)?,
            name,
        };
        item.finish(|_| None)?;
        secrets.push(secret);
    }
    Ok(secrets)
}

fn container_delivery(item: &mut Members<'_>, name: &str, schema: &Map<String, Value>) -> Result<SecretDelivery> {
    let delivery = item.name("as")?.unwrap_or(SecretDelivery::File);
    let problem = match delivery {
        SecretDelivery::File => None,
        SecretDelivery::Env => runtime::find_variable_problem(name, schema),
        SecretDelivery::Header => {
            return Err(item.reject("as", "is `header`, but only a remote server has headers. Use `file` or `env`."));
        }
    };
    problem.map_or(Ok(delivery), |problem| Err(item.reject("name", problem)))
}

fn registry_secret(members: &mut Members<'_>) -> Result<Option<String>> {
    match members.text("registry_secret")? {
        Some(name) if !tool_secret::is_name(&name) => Err(members.reject(
            "registry_secret",
            "must be the name of a secret, such as `REGISTRY`. Do not write the value here.",
        )),
        name => Ok(name),
    }
}

fn egress(members: &mut Members<'_>) -> Result<Vec<Destination>> {
    let mut destinations: Vec<Destination> = Vec::new();
    for (at, text) in members.texts("egress", MAX_EGRESS)?.unwrap_or_default().into_iter().enumerate() {
        let field = format!("egress[{at}]");
        let parsed: std::result::Result<Destination, String> = text.trim().parse();
        let parsed = parsed.map_err(|problem| members.reject(&field, format!("is invalid: {problem}.")))?;
        if let Some(problem) = destination::find_problem(&parsed) {
            return Err(members.reject(&field, format!("`{parsed}` {problem}")));
        }
        if !destinations.contains(&parsed) {
            destinations.push(parsed);
        }
    }
    Ok(destinations)
}

fn volumes(members: &mut Members<'_>) -> Result<Vec<Volume>> {
    let mut volumes: Vec<Volume> = Vec::new();
    let mut names = BTreeSet::new();
    for mut item in members.objects("volumes", MAX_VOLUMES)? {
        let volume = Volume { name: item.required_text("name")?, path: item.required_text("path")? };
        if !runtime::is_volume_name(&volume.name) {
            let problem =
                "must have 1 to 32 characters from a to z, 0 to 9, `_` and `-`, beginning with a letter or a digit.";
            return Err(item.reject("name", problem));
        }
        if !names.insert(volume.name.clone()) {
            return Err(item.reject("name", format!("is `{}`, like that of another volume. Rename one.", volume.name)));
        }
        if let Some(problem) = runtime::find_volume_path_problem(&volume.path) {
            return Err(item.reject("path", problem));
        }
        let other = volumes.iter().find(|other| runtime::is_nested(&other.path, &volume.path));
        if let Some(other) = other {
            let problem =
                format!("is `{}`, and `{}` contains or equals it. Use separate folders.", volume.path, other.path);
            return Err(item.reject("path", problem));
        }
        item.finish(|_| None)?;
        volumes.push(volume);
    }
    Ok(volumes)
}
