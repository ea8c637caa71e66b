//! `/catalog`: the tool servers that an organisation can deploy.

use std::collections::BTreeMap;

use axum::extract::{Request, State};
use http::StatusCode;
use http::header::CONTENT_TYPE;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::{IntoParams, ToSchema};
use waypost_core::catalog::{
    self, CatalogEntryState, ResourceClass, SecretSpec, Sharing, Source, Transport, VersionDefinition, Volume,
};
use waypost_core::id::CatalogEntryId;
use waypost_core::{Code, Error};
use waypost_ops::catalog::{self as ops, ImportReport};

use crate::Web;
use crate::extract::{Json, Path, Query, Scope, parse_id, read_body};
use crate::page::{Page, Paging};
use crate::problem::{ApiError, ApiResult, Problems};
use crate::routes::{Routes, routes};

/// The maximum length of a file name in messages.
const MAX_FILENAME_CHARS: usize = 200;

/// The operations on the catalogue.
pub(super) fn routes() -> Routes {
    Routes::new().routes(routes!(list)).routes(routes!(import)).routes(routes!(get, delete))
}

/// A catalogue entry: a tool server that can be deployed.
#[derive(Debug, Serialize, ToSchema)]
struct CatalogEntry {
    #[schema(example = "cat_0123456789abcdef")]
    id: String,
    /// The slug, unique in the organisation.
    slug: String,
    /// The display name.
    name: String,
    /// The description.
    description: String,
    categories: Vec<String>,
    /// The licence, as an SPDX expression.
    license: Option<String>,
    /// The URL of the documentation.
    #[schema(format = "uri")]
    documentation_url: Option<String>,
    /// The state. Imported entries are `published`.
    state: CatalogEntryState,
    /// The versions, newest first. A version never changes.
    versions: Vec<CatalogVersion>,
    /// The average rating. Null if there are no ratings.
    rating: Option<f64>,
    /// The number of instances of all versions.
    deployments: u64,
    #[schema(format = DateTime)]
    created_at: String,
    #[schema(format = DateTime)]
    updated_at: String,
}

/// A version of a catalogue entry.
#[derive(Debug, Serialize, ToSchema)]
struct CatalogVersion {
    #[schema(example = "ctv_0123456789abcdef")]
    id: String,
    /// The version, unique within the entry.
    #[schema(example = "1.2.0")]
    version: String,
    source: CatalogSource,
    /// The tag that was resolved to the digest in `source` when the version was imported.
    #[serde(skip_serializing_if = "Option::is_none")]
    image_tag: Option<String>,
    /// The MCP transport of the server. For a remote server, the same as `source.remote.transport`.
    transport: Transport,
    /// The command, which replaces the entry point of the image.
    #[serde(skip_serializing_if = "Option::is_none")]
    command: Option<Vec<String>>,
    /// The arguments. `${config.NAME}` stands for a member of the configuration.
    #[serde(skip_serializing_if = "Option::is_none")]
    args: Option<Vec<String>>,
    /// The port of a server that is reached over HTTP.
    #[serde(skip_serializing_if = "Option::is_none")]
    port: Option<u16>,
    /// The path of a server that is reached over HTTP.
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<String>,
    /// The JSON Schema (2020-12) of the configuration. Each member of a configuration becomes an environment variable,
    /// unless the server is remote.
    #[schema(value_type = Object, additional_properties)]
    config_schema: Map<String, Value>,
    /// The secrets that the server needs.
    secrets: Vec<SecretSpec>,
    /// The name of the secret with the credentials of the registry.
    #[serde(skip_serializing_if = "Option::is_none")]
    registry_secret: Option<String>,
    /// The resources of a container. Not used if the server is remote. `light`: 512 MiB and half a CPU. `medium`: 1 GiB and
    /// one CPU. `heavy`: 2 GiB and two CPUs.
    resources: ResourceClass,
    /// The destinations that the server may connect to, as `host:port`.
    egress: Vec<String>,
    /// The volumes, which keep files when a container is replaced.
    volumes: Vec<Volume>,
    /// The callers that share a container.
    sharing: Sharing,
    /// Whether a container starts only when it is first called.
    lazy: bool,
    /// The time without a call after which a container is stopped, in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    idle_seconds: Option<u64>,
    /// The age at which a container is replaced, in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    max_lifetime_seconds: Option<u64>,
    #[schema(format = DateTime)]
    created_at: String,
}

/// The source of a tool server. Has exactly one member.
#[derive(Debug, Default, Serialize, ToSchema)]
struct CatalogSource {
    /// A container image by digest.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(
        nullable = false,
        example = "registry.example/search@sha256:00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"
    )]
    image: Option<String>,
    /// A package of a registry, from which an image is built. Not supported yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>, nullable = false)]
    package: Option<Value>,
    /// A server that is already running elsewhere.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    remote: Option<RemoteSource>,
}

/// A server that is already running elsewhere.
#[derive(Debug, Serialize, ToSchema)]
struct RemoteSource {
    /// The scheme, host and port of the URL. The rest of it is never returned, because it can contain credentials.
    #[schema(example = "https://mcp.example.com")]
    origin: String,
    /// The transport: `streamable_http` or `sse`.
    transport: Transport,
    /// The headers to send, by name. Their values are not secret. `${config.NAME}` stands for a member of the configuration.
    headers: BTreeMap<String, String>,
}

impl From<catalog::RemoteSource> for RemoteSource {
    fn from(source: catalog::RemoteSource) -> Self {
        Self { origin: source.origin, transport: source.transport, headers: source.headers }
    }
}

impl CatalogSource {
    fn new(source: Source) -> Result<Self, Error> {
        let to_value = |value: serde_json::Result<Value>| value.map(Some).map_err(Error::internal);
        Ok(match source {
            Source::Image(image) => Self { image: Some(image), ..Self::default() },
            Source::Package(package) => Self { package: to_value(serde_json::to_value(package))?, ..Self::default() },
            Source::Remote(remote) => Self { remote: Some(remote.into()), ..Self::default() },
        })
    }
}

impl CatalogVersion {
    fn new(version: catalog::CatalogVersion) -> Result<Self, Error> {
        let VersionDefinition {
            source,
            image_tag,
            transport,
            command,
            args,
            port,
            path,
            config_schema,
            secrets,
            registry_secret,
            resources,
            egress,
            volumes,
            sharing,
            lazy,
            idle_seconds,
            max_lifetime_seconds,
        } = version.definition;
        Ok(Self {
            id: version.id.to_string(),
            version: version.version,
            source: CatalogSource::new(source)?,
            image_tag,
            transport,
            command,
            args,
            port,
            path,
            config_schema,
            secrets,
            registry_secret,
            resources,
            egress: egress.iter().map(ToString::to_string).collect(),
            volumes,
            sharing,
            lazy,
            idle_seconds,
            max_lifetime_seconds,
            created_at: version.created_at.rfc3339(),
        })
    }
}

impl CatalogEntry {
    fn new(entry: catalog::CatalogEntry) -> Result<Self, Error> {
        Ok(Self {
            id: entry.id.to_string(),
            slug: entry.slug,
            name: entry.name,
            description: entry.description,
            categories: entry.categories,
            license: entry.license,
            documentation_url: entry.documentation_url,
            state: entry.state,
            versions: entry.versions.into_iter().map(CatalogVersion::new).collect::<Result<_, _>>()?,
            rating: None,
            deployments: entry.deployments,
            created_at: entry.created_at.rfc3339(),
            updated_at: entry.updated_at.rfc3339(),
        })
    }
}

/// The source of the tool server in a file. Requires exactly one member.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[allow(dead_code, reason = "describes a file, which is parsed by the operation")]
struct CatalogSourceFile {
    /// A container image by digest, or by a tag, which is resolved to the digest.
    #[schema(nullable = false, example = "registry.example/search:1.2.0")]
    image: Option<String>,
    /// A server that is already running elsewhere.
    #[schema(nullable = false)]
    remote: Option<RemoteSourceFile>,
}

/// A server that is already running elsewhere. Each secret of the version is the value of the header with its name. Members of
/// the version that concern containers are rejected.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[allow(dead_code, reason = "describes a file, which is parsed by the operation")]
struct RemoteSourceFile {
    /// The URL of the MCP endpoint. It is stored encrypted, and only its scheme, host and port are returned.
    #[schema(format = "uri", max_length = 2048, example = "https://mcp.example.com/mcp")]
    url: String,
    /// The transport: `streamable_http` or `sse`.
    transport: Transport,
    /// The headers to send, by name: with those of `secrets`, at most 20. Members of the organisation can read the values.
    /// `${config.NAME}` stands for a member of the configuration.
    #[schema(nullable = false)]
    headers: Option<BTreeMap<String, String>>,
}

/// A file that describes a catalogue entry and one of its versions.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[allow(dead_code, reason = "describes a file, which is parsed by the operation")]
struct CatalogEntryFile {
    /// The slug of the entry: 1 to 60 characters.
    #[schema(max_length = 60, pattern = "^[a-z0-9]([a-z0-9-]*[a-z0-9])?$", example = "search")]
    slug: String,
    /// The display name.
    #[schema(min_length = 1, max_length = 200, example = "Search")]
    name: String,
    #[schema(max_length = 10_000, nullable = false)]
    description: Option<String>,
    #[schema(max_items = 20, nullable = false)]
    categories: Option<Vec<String>>,
    /// The licence, as an SPDX expression.
    #[schema(max_length = 100, nullable = false)]
    license: Option<String>,
    #[schema(format = "uri", max_length = 2_000, nullable = false)]
    documentation_url: Option<String>,
    /// The version. It cannot be changed after its import.
    #[schema(max_length = 100, pattern = "^[A-Za-z0-9._+-]+$", example = "1.2.0")]
    version: String,
    source: CatalogSourceFile,
    /// Required for an image. For a remote server, it must equal `source.remote.transport`.
    #[schema(nullable = false)]
    transport: Option<Transport>,
    /// The command, which replaces the entry point of the image.
    #[schema(min_items = 1, max_items = 100, nullable = false)]
    command: Option<Vec<String>>,
    /// The arguments. `${config.NAME}` stands for a member of the configuration.
    #[schema(max_items = 100, nullable = false)]
    args: Option<Vec<String>>,
    /// The port of the server. Required unless the transport is `stdio`.
    #[schema(minimum = 1, maximum = 65535, nullable = false)]
    port: Option<u16>,
    /// The path of the server. Defaults to `/mcp`, or to `/sse` for the transport `sse`.
    #[schema(max_length = 200, pattern = "^/", nullable = false)]
    path: Option<String>,
    /// The JSON Schema (2020-12) of the configuration. `$ref` can only be `#/$defs/NAME`.
    #[schema(value_type = Option<Object>, additional_properties, nullable = false)]
    config_schema: Option<Map<String, Value>>,
    #[schema(max_items = 50, nullable = false)]
    secrets: Option<Vec<SecretSpec>>,
    /// The name of a secret with the value `USERNAME:PASSWORD`, for the registry of the image.
    #[schema(max_length = 64, pattern = "^[A-Za-z0-9_-]+$", nullable = false)]
    registry_secret: Option<String>,
    /// Defaults to `medium`.
    resources: Option<ResourceClass>,
    /// The destinations that the server may connect to, as `host:port`. Everything else is rejected.
    #[schema(max_items = 50, nullable = false)]
    egress: Option<Vec<String>>,
    #[schema(max_items = 10, nullable = false)]
    volumes: Option<Vec<Volume>>,
    /// Defaults to `shared`.
    sharing: Option<Sharing>,
    /// Whether a container starts only when it is first called.
    #[schema(nullable = false)]
    lazy: Option<bool>,
    /// The time without a call after which a container is stopped, in seconds.
    #[schema(minimum = 10, maximum = 2_592_000, nullable = false)]
    idle_seconds: Option<u64>,
    /// The age at which a container is replaced, in seconds.
    #[schema(minimum = 60, maximum = 31_536_000, nullable = false)]
    max_lifetime_seconds: Option<u64>,
}

/// The result of an import: the entry, and what changed.
#[derive(Debug, Serialize, ToSchema)]
struct CatalogImport {
    #[serde(flatten)]
    entry: CatalogEntry,
    /// The ID of the imported version.
    #[schema(example = "ctv_0123456789abcdef")]
    version_id: String,
    /// `created`: the entry is new. `version_added`: the version is new. `updated`: other fields of the entry changed.
    /// `unchanged`: nothing changed.
    change: &'static str,
}

impl CatalogImport {
    fn new(report: ImportReport) -> Result<Self, Error> {
        let (version_id, change) = (report.version_id.to_string(), report.change.as_str());
        Ok(Self { entry: CatalogEntry::new(report.entry)?, version_id, change })
    }
}

/// Lists the catalogue entries by slug, with their versions.
///
/// A page can have fewer entries than `limit`.
#[utoipa::path(get, path = "/catalog", tag = "catalog", operation_id = "list_catalog", params(Paging),
    responses((status = 200, body = Page<CatalogEntry>), Problems))]
async fn list(
    State(web): State<Web>,
    Scope { cx, organization_id }: Scope,
    Query(paging): Query<Paging>,
) -> ApiResult<Json<Page<CatalogEntry>>> {
    let page = ops::list(&cx, web.ops(), &organization_id, paging.limit()?, paging.cursor.as_deref()).await?;
    let items = page.items.into_iter().map(CatalogEntry::new).collect::<Result<_, _>>()?;
    Ok(Json(Page { items, next_cursor: page.next_cursor }))
}

/// Returns a catalogue entry.
#[utoipa::path(get, path = "/catalog/{id}", tag = "catalog", operation_id = "get_catalog_entry",
    params(("id" = String, Path, description = "The ID of the entry (`cat_…`).")),
    responses((status = 200, body = CatalogEntry), Problems))]
async fn get(
    State(web): State<Web>,
    Scope { cx, organization_id }: Scope,
    Path(text): Path<String>,
) -> ApiResult<Json<CatalogEntry>> {
    let id: CatalogEntryId = parse_id(&text, "catalogue entry")?;
    Ok(Json(CatalogEntry::new(ops::get(&cx, web.ops(), &organization_id, &id).await?)?))
}

/// The options of an import.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct ImportQuery {
    /// The name of the file. Used in messages.
    #[param(max_length = 200)]
    filename: Option<String>,
}

/// Imports a catalogue entry with one version, and publishes it.
///
/// The body is a file in JSON or YAML. If the entry exists, its fields are updated, and the version is added if it is new.
/// Importing the same file again changes nothing; an existing version with different content is rejected with
/// `conflict`. The tag of an image is resolved to a digest once. Errors contain `file` and `field`; the codes
/// `image_not_found` and `image_denied` come from the registry. Requires the role `admin`.
#[utoipa::path(post, path = "/catalog/import", tag = "catalog", operation_id = "import_catalog_entry",
    params(ImportQuery),
    request_body(content((CatalogEntryFile = "application/json"), (String = "application/yaml"))),
    responses((status = 200, body = CatalogImport), Problems))]
async fn import(
    State(web): State<Web>,
    Scope { cx, organization_id }: Scope,
    Query(query): Query<ImportQuery>,
    request: Request,
) -> ApiResult<Json<CatalogImport>> {
    let default_name = default_filename(&request)?;
    let name = match &query.filename {
        Some(name) => check_filename(name)?,
        None => default_name,
    };
    let body = read_body(request, &web).await?;
    let text = std::str::from_utf8(&body).map_err(|error| {
        let message = format!("{name} is not valid UTF-8 at byte {}. Save it as UTF-8.", error.valid_up_to());
        Error::invalid("file", message).with("file", name)
    })?;
    Ok(Json(CatalogImport::new(ops::import_text(&cx, web.ops(), &organization_id, name, text).await?)?))
}

/// Returns a file name for the media type of a request. Its extension determines the format of the file.
fn default_filename(request: &Request) -> Result<&'static str, ApiError> {
    let media_type = request.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let media_type = media_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    match media_type.as_str() {
        "application/json" => Ok("entry.json"),
        // RFC 9512 registers the first; the others are in use.
        "application/yaml" | "application/x-yaml" | "text/yaml" | "text/x-yaml" => Ok("entry.yaml"),
        "text/plain" | "application/octet-stream" => Ok("entry"),
        _ => {
            let message = "Unsupported `Content-Type`. Send JSON (`application/json`) or YAML (`application/yaml`).";
            let error = Error::new(Code::InvalidArguments, message);
            Err(ApiError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, error))
        }
    }
}

fn check_filename(name: &str) -> Result<&str, Error> {
    let is_valid = (1..=MAX_FILENAME_CHARS).contains(&name.chars().count()) && !name.chars().any(char::is_control);
    if is_valid {
        return Ok(name);
    }
    let message = format!("`filename` must have 1 to {MAX_FILENAME_CHARS} characters and no control characters.");
    Err(Error::invalid("filename", message))
}

/// Deletes a catalogue entry with its versions.
///
/// Fails with `conflict` while instances use it; `instances` lists their slugs. Requires the role `admin`.
#[utoipa::path(delete, path = "/catalog/{id}", tag = "catalog", operation_id = "delete_catalog_entry",
    params(("id" = String, Path, description = "The ID of the entry (`cat_…`).")),
    responses((status = 204), Problems))]
async fn delete(
    State(web): State<Web>,
    Scope { cx, organization_id }: Scope,
    Path(text): Path<String>,
) -> ApiResult<StatusCode> {
    ops::delete(&cx, web.ops(), &organization_id, &parse_id(&text, "catalogue entry")?).await?;
    Ok(StatusCode::NO_CONTENT)
}
