//! `/walkthroughs/import` and `/walkthroughs/{id}/export`.

use axum::extract::{FromRequest, Multipart, Request, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::header::{CONTENT_DISPOSITION, CONTENT_TYPE};
use http::{HeaderValue, StatusCode};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use waypost_content::transfer::file::WalkthroughFile;
use waypost_content::transfer::{self, folder};
use waypost_core::id::ServerId;
use waypost_core::{Code, Error, Result};
use waypost_ops::servers;
use waypost_ops::walkthroughs::import::{self, ImportOptions, ImportReport};
use waypost_ops::walkthroughs::{self, export};

use super::{parse_id, walkthrough_id};
use crate::Web;
use crate::extract::{Json, Path, Query, Scope};
use crate::problem::{ApiError, ApiResult, Problems};
use crate::routes::{Routes, routes};

/// The maximum number of files in a folder.
const MAX_FILES: usize = 500;
/// The maximum length of a file's path in bytes.
const MAX_PATH: usize = 512;
/// The maximum depth of nested folders.
const MAX_DEPTH: usize = 8;

/// The operations that import and export walkthroughs.
pub(super) fn routes() -> Routes {
    Routes::new().routes(routes!(export_file)).routes(routes!(import_files))
}

/// The options of an import.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct ImportQuery {
    /// Returns what would happen, without changing anything.
    #[serde(default)]
    dry_run: bool,
    /// Publishes the draft after the import.
    #[serde(default)]
    publish: bool,
    /// Publishes even if code contains characters that change the text direction. They are removed when the code is
    /// served.
    #[serde(default)]
    confirm_bidi: bool,
    /// Allows the import to match fewer than half of the existing steps.
    #[serde(default)]
    replace: bool,
    /// Assigns the walkthrough to this server (`srv_…`).
    server_id: Option<String>,
    /// Overrides the title in the file.
    #[param(max_length = 200)]
    title: Option<String>,
    /// The ID of the walkthrough to update (`wt_…`). By default the walkthrough is found by its title.
    id: Option<String>,
    /// The name of the file or folder. Used in messages, and as the title of a folder.
    #[param(max_length = 512)]
    filename: Option<String>,
}

/// A form with one file, or with the files of a folder, whose file names are their paths in the folder.
#[derive(Debug, ToSchema)]
#[allow(dead_code, reason = "describes a form")]
struct ImportFiles {
    #[schema(value_type = Vec<String>, format = Binary)]
    file: Vec<Vec<u8>>,
}

/// The effect of an import on a step.
#[derive(Debug, Serialize, ToSchema)]
struct ImportedStep {
    /// `added`, `updated`, `moved`, `unchanged` or `removed`.
    change: &'static str,
    title: String,
    /// The fields that change.
    fields: Vec<&'static str>,
}

/// The result of an import or of a dry run.
#[derive(Debug, Serialize, ToSchema)]
struct ImportResult {
    /// The ID of the walkthrough. Null if a dry run would create a new one.
    id: Option<String>,
    slug: String,
    title: String,
    /// Whether the walkthrough is new.
    created: bool,
    /// Whether the draft changed.
    changed: bool,
    /// The revision of the draft.
    revision: u32,
    /// A one-line summary of the changes to the steps.
    summary: String,
    /// The effect on each step.
    steps: Vec<ImportedStep>,
    /// The changes as text: a line for each step, and the summary.
    plan: String,
    /// The number of the published version. Null if `publish` is false.
    published_version: Option<u32>,
    /// Whether the published version is new.
    published_new: bool,
    /// Whether the walkthrough was newly assigned to the server.
    assigned: bool,
    /// Warnings about the file.
    warnings: Vec<String>,
    /// Whether this was a dry run.
    dry_run: bool,
}

impl From<ImportReport> for ImportResult {
    fn from(report: ImportReport) -> Self {
        let steps = report.steps.into_iter();
        Self {
            id: report.id.map(|id| id.to_string()),
            slug: report.slug,
            title: report.title,
            created: report.created,
            changed: report.changed,
            revision: report.revision,
            summary: report.summary,
            steps: steps
                .map(|step| ImportedStep { change: step.change, title: step.title, fields: step.fields })
                .collect(),
            plan: report.plan,
            published_version: report.published_version,
            published_new: report.published_new,
            assigned: report.assigned,
            warnings: report.warnings,
            dry_run: report.dry_run,
        }
    }
}

/// Imports a walkthrough from a file or a folder.
///
/// Creates or updates a draft. A file is JSON, Markdown or CodeTour. A folder (Markdown, Killercoda or CodeTour) is
/// sent as a form with the paths of its files. Importing the same file again changes nothing. Errors contain `file`,
/// `step` and `field`.
#[utoipa::path(post, path = "/walkthroughs/import", tag = "walkthroughs", operation_id = "import_walkthrough",
    params(ImportQuery),
    request_body(content((ImportFiles = "multipart/form-data"), (Value = "application/json"), (String = "text/markdown"))),
    responses((status = 200, body = ImportResult), Problems))]
async fn import_files(
    State(web): State<Web>,
    Scope { cx, organization_id }: Scope,
    Query(options): Query<ImportQuery>,
    request: Request,
) -> ApiResult<Json<ImportResult>> {
    let files = files(&web, options.filename.as_deref(), request).await?;
    let file = parse(options.filename.as_deref(), &files)?;
    let server = match &options.server_id {
        None => None,
        Some(text) => {
            let id: ServerId = parse_id(text, "server")?;
            Some(servers::get(&cx, web.ops(), &organization_id, &id).await?.slug)
        }
    };
    let options = ImportOptions {
        id: options.id.as_deref().map(walkthrough_id).transpose()?,
        title: options.title,
        server,
        publish: options.publish,
        confirm_bidi: options.confirm_bidi,
        replace: options.replace,
        dry_run: options.dry_run,
    };
    let report = import::import(&cx, web.ops(), &organization_id, file, options).await.map_err(with_api_parameters)?;
    Ok(Json(report.into()))
}

/// Replaces command-line flags in an error message with the parameters of the API.
fn with_api_parameters(mut error: Error) -> Error {
    for (flag, parameter) in [("Pass --replace", "Set `replace`"), ("pass `--title`", "set `title`")] {
        error.message = error.message.replace(flag, parameter);
    }
    error
}

/// The path and content of an uploaded file.
type UploadedFile = (String, Bytes);

async fn files(web: &Web, filename: Option<&str>, request: Request) -> Result<Vec<UploadedFile>, ApiError> {
    let kind = request.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let name = match kind.as_str() {
        "multipart/form-data" => return form(web, request).await,
        "application/json" => filename.unwrap_or("import.json"),
        "text/markdown" | "text/plain" | "application/octet-stream" => filename.unwrap_or("import.md"),
        _ => {
            let message =
                "Unsupported `Content-Type`. Send a form with files (`multipart/form-data`), JSON or Markdown.";
            let error = Error::new(Code::InvalidArguments, message);
            return Err(ApiError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, error));
        }
    };
    let name = check_path(name)?;
    let body = Bytes::from_request(request, web).await.map_err(|rejection| unreadable(rejection.status()))?;
    Ok(vec![(name, body)])
}

async fn form(web: &Web, request: Request) -> Result<Vec<UploadedFile>, ApiError> {
    let mut form = Multipart::from_request(request, web).await.map_err(|rejection| unreadable(rejection.status()))?;
    let mut files = Vec::new();
    while let Some(field) = form.next_field().await.map_err(|error| unreadable(error.status()))? {
        let Some(name) = field.file_name().map(check_path).transpose()? else {
            let message = "The form has a field that is not a file. Send options as query parameters.";
            return Err(Error::new(Code::InvalidArguments, message).into());
        };
        if files.len() >= MAX_FILES {
            let message = format!("The folder has more than {MAX_FILES} files. Choose a smaller folder.");
            return Err(Error::invalid("file", message).into());
        }
        files.push((name, field.bytes().await.map_err(|error| unreadable(error.status()))?));
    }
    Ok(files)
}

fn unreadable(status: StatusCode) -> ApiError {
    let message = if status == StatusCode::PAYLOAD_TOO_LARGE {
        "The files are too large. The limit is 1 MiB in total."
    } else {
        "The body is incomplete, or does not match its `Content-Type`. Send the request again."
    };
    // Other statuses are not documented, so an unreadable body is a bad request.
    let status = if status == StatusCode::PAYLOAD_TOO_LARGE { status } else { StatusCode::BAD_REQUEST };
    ApiError::new(status, Error::new(Code::InvalidArguments, message))
}

/// Validates and normalises the path of a file. The path is used as a name only: no file is opened or written.
fn check_path(path: &str) -> Result<String> {
    let path = path.replace('\\', "/");
    let shown: String = path.chars().filter(|character| !character.is_control()).take(80).collect();
    let reject = |reason: &str| {
        let message = format!("`{shown}` is not the path of a file in a folder: {reason}. Rename the file.");
        Err(Error::invalid("file", message).with("file", shown.as_str()))
    };
    if path.is_empty() || path.len() > MAX_PATH || path.chars().any(char::is_control) {
        return reject("it is empty, too long, or contains control characters");
    }
    if path.starts_with('/') || path.split('/').any(|part| part == "..") {
        return reject("it is outside the folder");
    }
    if path.split('/').count() > MAX_DEPTH + 1 {
        return reject(&format!("it is nested more than {MAX_DEPTH} folders deep"));
    }
    Ok(path)
}

/// Parses the uploaded files: as a single file if there is one whose name contains no folder, otherwise as a folder.
fn parse(filename: Option<&str>, files: &[UploadedFile]) -> Result<WalkthroughFile> {
    match files {
        [] => Err(Error::invalid("file", "The form contains no file. Choose a file or a folder.")),
        [(name, bytes)] if !name.contains('/') => transfer::parse(name, text(name, bytes)?),
        _ => {
            // If every path starts with the same folder, that is the uploaded folder.
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
        let message = format!("{name} is not valid UTF-8 at byte {}. Save it as UTF-8.", error.valid_up_to());
        Error::invalid("file", message).with("file", name)
    })
}

/// The file format of an export. `json`: the complete envelope, version 1.1. `markdown`: one Markdown file.
#[derive(Debug, Clone, Copy, Default, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum ExportFormat {
    /// The complete envelope, version 1.1.
    #[default]
    Json,
    /// One Markdown file.
    Markdown,
}

/// The options of an export.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct ExportQuery {
    /// The file format. Defaults to `json`.
    #[serde(default)]
    #[param(inline)]
    format: ExportFormat,
}

/// Exports the draft as a file.
///
/// Importing the file restores the same draft.
#[utoipa::path(get, path = "/walkthroughs/{id}/export", tag = "walkthroughs", operation_id = "export_walkthrough",
    params(("id" = String, Path, description = "The ID of the walkthrough (`wt_…`)."), ExportQuery),
    responses((status = 200, description = "The exported file",
        content((Value = "application/json"), (String = "text/markdown"))),
        Problems))]
async fn export_file(
    State(web): State<Web>,
    scope: Scope,
    Path(id): Path<String>,
    Query(ExportQuery { format }): Query<ExportQuery>,
) -> ApiResult<Response> {
    let (cx, org, id) = (&scope.cx, &scope.organization_id, walkthrough_id(&id)?);
    let slug = walkthroughs::get(cx, web.ops(), org, &id).await?.slug;
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
    // A slug has only lowercase letters, digits and hyphens, so it is safe in a header.
    if let Ok(name) = HeaderValue::from_str(&format!("attachment; filename=\"{slug}.{extension}\"")) {
        response.headers_mut().insert(CONTENT_DISPOSITION, name);
    }
    Ok(response)
}
