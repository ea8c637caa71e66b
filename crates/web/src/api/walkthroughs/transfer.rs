//! `/walkthroughs/import` and `/walkthroughs/{id}/export`.

use axum::extract::{FromRequest, Multipart, Request, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::header::{CONTENT_DISPOSITION, CONTENT_TYPE};
use http::{HeaderValue, StatusCode};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use waypost_core::id::ServerId;
use waypost_core::transfer::file::WalkthroughFile;
use waypost_core::transfer::{self, folder};
use waypost_core::{Code, Error, Result};
use waypost_ops::servers;
use waypost_ops::walkthroughs::import::{self, ImportOptions, ImportReport};
use waypost_ops::walkthroughs::{self, export};

use super::{id, walkthrough_id};
use crate::Web;
use crate::api::extract::{Json, Path, Query, Scope};
use crate::problem::{ApiError, ApiResult, Problems};

/// Files of a folder at most.
const MAX_FILES: usize = 500;
/// Bytes of a file's path at most.
const MAX_PATH: usize = 512;
/// Folders within folders at most.
const MAX_DEPTH: usize = 8;

/// The operations on files.
pub(super) fn routes() -> OpenApiRouter<Web> {
    OpenApiRouter::new().routes(routes!(export_file)).routes(routes!(import_files))
}

/// How to import.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct ImportQuery {
    /// Says what would happen, and changes nothing.
    #[serde(default)]
    dry_run: bool,
    /// Publishes the draft afterwards.
    #[serde(default)]
    publish: bool,
    /// Publishes although code has characters that change the direction of text; it is served without them.
    #[serde(default)]
    confirm_bidi: bool,
    /// Lets a file through that matches under half of the existing steps.
    #[serde(default)]
    replace: bool,
    /// Places the walkthrough on this server.
    server_id: Option<String>,
    /// Overrides the title of the file.
    #[param(max_length = 200)]
    title: Option<String>,
    /// The walkthrough to update; found by its title when absent.
    id: Option<String>,
    /// The name of the file or folder, for messages and for the title of a folder.
    #[param(max_length = 512)]
    filename: Option<String>,
}

/// Files of a form: one file, or those of a folder with their paths below it as names.
#[derive(Debug, ToSchema)]
#[allow(dead_code, reason = "describes a form")]
struct ImportFiles {
    #[schema(value_type = Vec<String>, format = Binary)]
    file: Vec<Vec<u8>>,
}

/// What happens to a step.
#[derive(Debug, Serialize, ToSchema)]
struct ImportedStep {
    /// `added`, `updated`, `moved`, `unchanged` or `removed`.
    change: &'static str,
    title: String,
    /// The fields that change.
    fields: Vec<&'static str>,
}

/// What an import did, or would do.
#[derive(Debug, Serialize, ToSchema)]
struct ImportResult {
    /// The walkthrough; null when a dry run would make a new one.
    id: Option<String>,
    slug: String,
    title: String,
    /// Whether it is new.
    created: bool,
    /// Whether the draft changed.
    changed: bool,
    /// The draft's revision.
    revision: u32,
    /// One line about the steps.
    summary: String,
    /// What happens to each step.
    steps: Vec<ImportedStep>,
    /// The same for people, a line each, with the summary.
    plan: String,
    /// The version that is served, when it was to be published.
    published_version: Option<u32>,
    /// Whether that version is new.
    published_new: bool,
    /// Whether it was placed on the server; false when it was there before, or no server was named.
    assigned: bool,
    /// What was not refused but should be said.
    warnings: Vec<String>,
    /// Whether this only says what would happen.
    dry_run: bool,
}

impl From<ImportReport> for ImportResult {
    fn from(it: ImportReport) -> Self {
        let steps = it.steps.into_iter();
        Self {
            id: it.id.map(|id| id.to_string()),
            slug: it.slug,
            title: it.title,
            created: it.created,
            changed: it.changed,
            revision: it.revision,
            summary: it.summary,
            steps: steps.map(|it| ImportedStep { change: it.change, title: it.title, fields: it.fields }).collect(),
            plan: it.plan,
            published_version: it.published_version,
            published_new: it.published_new,
            assigned: it.assigned,
            warnings: it.warnings,
            dry_run: it.dry_run,
        }
    }
}

/// Makes or updates a draft from a file (JSON, Markdown, CodeTour) or from a folder (Markdown, Killercoda, CodeTour), sent as a
/// form with the paths of its files.
/// The same file a second time changes nothing. Refusals name `file`, `step` and `field`.
#[utoipa::path(post, path = "/walkthroughs/import", tag = "walkthroughs", operation_id = "import_walkthrough", params(ImportQuery),
    request_body(content((ImportFiles = "multipart/form-data"), (Value = "application/json"), (String = "text/markdown"))),
    responses((status = 200, body = ImportResult), Problems))]
async fn import_files(
    State(web): State<Web>,
    Scope { cx, organization_id }: Scope,
    Query(how): Query<ImportQuery>,
    request: Request,
) -> ApiResult<Json<ImportResult>> {
    let files = files(&web, how.filename.as_deref(), request).await?;
    let file = parse(how.filename.as_deref(), &files)?;
    let server = match &how.server_id {
        None => None,
        Some(text) => {
            let id: ServerId = id(text, "server")?;
            Some(servers::get(&cx, web.ops(), &organization_id, &id).await?.slug)
        }
    };
    let options = ImportOptions {
        id: how.id.as_deref().map(walkthrough_id).transpose()?,
        title: how.title,
        server,
        publish: how.publish,
        confirm_bidi: how.confirm_bidi,
        replace: how.replace,
        dry_run: how.dry_run,
    };
    let report = import::import(&cx, web.ops(), &organization_id, file, options).await.map_err(in_browser)?;
    Ok(Json(report.into()))
}

/// Refusals that name a flag of the command line name the parameter instead.
fn in_browser(mut error: Error) -> Error {
    for (flag, parameter) in [("Pass --replace", "Set `replace`"), ("pass `--title`", "give a `title`")] {
        error.message = error.message.replace(flag, parameter);
    }
    error
}

/// A file as it came: its path and its bytes.
type UploadedFile = (String, Bytes);

async fn files(web: &Web, filename: Option<&str>, request: Request) -> Result<Vec<UploadedFile>, ApiError> {
    let kind = request.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let name = match kind.as_str() {
        "multipart/form-data" => return form(web, request).await,
        "application/json" => filename.unwrap_or("import.json"),
        "text/markdown" | "text/plain" | "application/octet-stream" => filename.unwrap_or("import.md"),
        _ => {
            let message = "An import is a form with files (`multipart/form-data`), JSON or Markdown.";
            let error = Error::new(Code::InvalidArguments, message);
            return Err(ApiError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, error));
        }
    };
    let name = checked(name)?;
    let body = Bytes::from_request(request, web).await.map_err(|rejection| broken(rejection.status()))?;
    Ok(vec![(name, body)])
}

async fn form(web: &Web, request: Request) -> Result<Vec<UploadedFile>, ApiError> {
    let mut form = Multipart::from_request(request, web).await.map_err(|rejection| broken(rejection.status()))?;
    let mut files = Vec::new();
    while let Some(field) = form.next_field().await.map_err(|error| broken(error.status()))? {
        let Some(name) = field.file_name().map(checked).transpose()? else {
            let message = "The form holds a field that is no file. Options stand in the address.";
            return Err(Error::new(Code::InvalidArguments, message).into());
        };
        if files.len() >= MAX_FILES {
            let message = format!("The folder has more than {MAX_FILES} files. Is it the right one?");
            return Err(Error::invalid("file", message).into());
        }
        files.push((name, field.bytes().await.map_err(|error| broken(error.status()))?));
    }
    Ok(files)
}

fn broken(status: StatusCode) -> ApiError {
    let message = if status == StatusCode::PAYLOAD_TOO_LARGE {
        "The files are too large: 1 MiB together at most."
    } else {
        "The body broke off, or is not the form that its header says."
    };
    // Only what is documented: a body that cannot be read is a bad request.
    let status = if status == StatusCode::PAYLOAD_TOO_LARGE { status } else { StatusCode::BAD_REQUEST };
    ApiError::new(status, Error::new(Code::InvalidArguments, message))
}

/// The path of a file, which is only ever a name: nothing is opened or written by it. One that means to be more is refused.
fn checked(path: &str) -> Result<String> {
    let path = path.replace('\\', "/");
    let shown: String = path.chars().filter(|it| !it.is_control()).take(80).collect();
    let refuse = |why: &str| {
        let message = format!("`{shown}` is not the path of a file in a folder: {why}.");
        Err(Error::invalid("file", message).with("file", shown.as_str()))
    };
    if path.is_empty() || path.len() > MAX_PATH || path.chars().any(char::is_control) {
        return refuse("it is empty, too long, or holds control characters");
    }
    if path.starts_with('/') || path.split('/').any(|part| part == "..") {
        return refuse("it leads out of the folder");
    }
    if path.split('/').count() > MAX_DEPTH + 1 {
        return refuse("it is more than 8 folders deep");
    }
    Ok(path)
}

/// One file as such; several, or one with a path, as a folder.
fn parse(filename: Option<&str>, files: &[UploadedFile]) -> Result<WalkthroughFile> {
    match files {
        [] => Err(Error::invalid("file", "There is no file. Choose one, or a folder.")),
        [(name, bytes)] if !name.contains('/') => transfer::parse(name, text(name, bytes)?),
        _ => {
            // The folder that was chosen stands in front of every path.
            let top = files[0].0.split_once('/').map(|(top, _)| top);
            let top = top.filter(|top| files.iter().all(|(name, _)| name.starts_with(&format!("{top}/"))));
            let below = |name: &'_ str| top.map_or(0, |top| top.len() + 1).min(name.len());
            let mut pages = Vec::with_capacity(files.len());
            for (name, bytes) in files.iter().filter(|(name, _)| transfer::is_source(name)) {
                pages.push((&name[below(name)..], text(name, bytes)?));
            }
            folder::parse(filename.or(top).unwrap_or("Folder"), pages)
        }
    }
}

fn text<'a>(name: &str, bytes: &'a Bytes) -> Result<&'a str> {
    std::str::from_utf8(bytes).map_err(|error| {
        let message = format!("{name} is not UTF-8, from byte {} on: save it as UTF-8.", error.valid_up_to());
        Error::invalid("file", message).with("file", name)
    })
}

/// As what to export.
#[derive(Debug, Clone, Copy, Default, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum ExportFormat {
    /// The envelope of version 1.1, which holds everything.
    #[default]
    Json,
    /// One Markdown file.
    Markdown,
}

/// As what to export.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct ExportQuery {
    /// `json` when absent.
    #[serde(default)]
    #[param(inline)]
    format: ExportFormat,
}

/// The draft as a file that an import makes the same thing of.
#[utoipa::path(get, path = "/walkthroughs/{id}/export", tag = "walkthroughs", operation_id = "export_walkthrough",
    params(("id" = String, Path), ExportQuery),
    responses((status = 200, description = "The file", content((Value = "application/json"), (String = "text/markdown"))),
        Problems))]
async fn export_file(
    State(web): State<Web>,
    scope: Scope,
    Path(id): Path<String>,
    Query(ExportQuery { format }): Query<ExportQuery>,
) -> ApiResult<Response> {
    let (cx, org, id) = (&scope.cx, &scope.organization_id, walkthrough_id(&id)?);
    let slug = walkthroughs::get_draft(cx, web.ops(), org, &id).await?.walkthrough.slug;
    let (kind, extension, body) = match format {
        ExportFormat::Json => {
            let envelope = export::export(cx, web.ops(), org, &id).await?;
            let text = serde_json::to_string_pretty(&envelope).map_err(Error::internal)?;
            ("application/json", "json", text + "\n")
        }
        ExportFormat::Markdown => {
            ("text/markdown; charset=utf-8", "md", export::export_as_markdown(cx, web.ops(), org, &id).await?)
        }
    };
    let mut response = ([(CONTENT_TYPE, kind)], body).into_response();
    // A slug is small letters, digits and hyphens: nothing that could end the header.
    if let Ok(name) = HeaderValue::from_str(&format!("attachment; filename=\"{slug}.{extension}\"")) {
        response.headers_mut().insert(CONTENT_DISPOSITION, name);
    }
    Ok(response)
}
