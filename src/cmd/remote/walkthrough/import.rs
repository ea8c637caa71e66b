//! `waypost walkthrough import` through the REST API. The files are read here and sent unchanged.

use std::path::Path;

use data_encoding::HEXLOWER;
use reqwest::Method;
use serde_json::Value;
use waypost_core::{Random, SystemRandom};

use crate::cmd::remote::client::Body;
use crate::cmd::remote::error::ApiError;
use crate::cmd::remote::{RemoteSession, server, text};
use crate::cmd::walkthrough::files::{self, SourceContent, SourceFile};
use crate::cmd::walkthrough::import::{Args, Outcome};

/// The members of an import result that are shown.
const MEMBERS: &[&str] = &[
    "id",
    "slug",
    "title",
    "created",
    "changed",
    "revision",
    "summary",
    "steps",
    "plan",
    "published_version",
    "published_new",
    "assigned",
    "warnings",
    "dry_run",
];
/// Prefix of all paths of a folder. The API strips the common prefix.
const ROOT_FOLDER: &str = "folder";

/// Reads and parses all files first, so that an invalid file is reported before anything is sent, then imports them one
/// by one.
///
/// # Errors
/// If a file cannot be read or an import is rejected.
pub async fn run(remote: &RemoteSession, args: Args) -> anyhow::Result<()> {
    args.check()?;
    let mut files = Vec::with_capacity(args.files.len());
    for path in &args.files {
        let file = files::read_source(path)?;
        file.parse()?;
        files.push(file);
    }
    remote.check_organization(args.org.org.as_deref())?;
    let server = match &args.server {
        Some(slug) => Some(server::find(remote, slug).await?),
        None => None,
    };
    let mut outcome = Outcome::new(remote.json, files.len());
    for file in files {
        let name = file.name.clone();
        let report = send(remote, &args, server.as_ref(), file).await;
        outcome.add(name.trim_end_matches('/'), report)?;
    }
    outcome.finish()
}

async fn send(remote: &RemoteSession, args: &Args, server: Option<&Value>, file: SourceFile) -> anyhow::Result<Value> {
    let flags = [
        ("publish", args.publish),
        ("replace", args.replace),
        ("confirm_bidi", args.confirm_bidi),
        ("dry_run", args.dry_run),
    ];
    let mut query: Vec<_> = flags.into_iter().filter(|(_, is_set)| *is_set).map(|(name, _)| (name, "true")).collect();
    query.extend(server.map(|server| ("server_id", text(server, "id"))));
    query.extend(args.title.as_deref().map(|title| ("title", title)));
    query.extend(args.id.as_ref().map(|id| ("id", id.as_str())));
    let name = file.name.trim_end_matches('/').to_owned();
    // The API accepts only file names, not paths.
    let (sent_name, body) = match file.content {
        SourceContent::Folder(files) => (name.clone(), multipart_form(files)?),
        SourceContent::File(text) => {
            let file_name = Path::new(&name).file_name().map(|name| name.to_string_lossy().into_owned());
            (
                file_name.unwrap_or_else(|| name.clone()),
                Body::Bytes("application/octet-stream".to_owned(), text.into_bytes()),
            )
        }
    };
    query.push(("filename", &sent_name));
    let result = remote.client.send(Method::POST, &["walkthroughs", "import"], &query, body).await;
    let localize = |message: &str| to_local_message(message, &sent_name, &name);
    let mut report = result.map_err(|error| match error.downcast::<ApiError>() {
        Ok(error) => error.map_message(localize).into(),
        Err(error) => error,
    })?;
    for warning in report["warnings"].as_array_mut().into_iter().flatten() {
        *warning = localize(warning.as_str().unwrap_or_default()).into();
    }
    Ok(remote.select(&report, MEMBERS))
}

/// Adapts a message of the API to the command line: the file name as it was given, and flags instead of parameters.
fn to_local_message(message: &str, sent_name: &str, name: &str) -> String {
    let message = match message.strip_prefix(sent_name) {
        Some(rest) => format!("{name}{rest}"),
        None => message.to_owned(),
    };
    message.replace("Set `replace`", "Pass --replace").replace("set `title`", "pass `--title`")
}

/// Encodes the files of a folder as a multipart form (RFC 7578).
fn multipart_form(files: Vec<(String, String)>) -> anyhow::Result<Body> {
    let mut random = [0; 16];
    SystemRandom.fill(&mut random);
    let boundary = HEXLOWER.encode(&random);
    let mut body = String::new();
    for (path, text) in files {
        if path.chars().any(|letter| letter.is_control() || letter == '"') {
            anyhow::bail!(
                "the file name {} contains invalid characters: rename the file",
                crate::cmd::output::clean(&path)
            );
        }
        body.push_str(&format!(
            "--{boundary}\r\nContent-Disposition: form-data; name=\"file\"; filename=\"{ROOT_FOLDER}/{path}\"\r\nContent-Type: text/markdown\r\n\r\n{text}\r\n"
        ));
    }
    body.push_str(&format!("--{boundary}--\r\n"));
    Ok(Body::Bytes(format!("multipart/form-data; boundary={boundary}"), body.into_bytes()))
}
