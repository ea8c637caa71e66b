//! `waypost walkthrough import` through the API: the files are read here and sent as they are.

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

/// What is shown of an import.
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
/// Stands in front of the paths of a folder: the API takes away what all of them have in common.
const TOP: &str = "folder";

/// Reads every file first, so that a bad one is refused before anything is sent; then sends one after the other.
///
/// # Errors
/// When a file cannot be read, or it is refused.
pub async fn run(remote: &RemoteSession, args: Args) -> anyhow::Result<()> {
    args.check()?;
    let mut files = Vec::with_capacity(args.files.len());
    for path in &args.files {
        let file = files::raw(path)?;
        file.parse()?;
        files.push(file);
    }
    remote.organization(args.org.org.as_deref())?;
    let on = match &args.server {
        Some(slug) => Some(server::find(remote, slug).await?),
        None => None,
    };
    let mut outcome = Outcome::new(remote.json, files.len());
    for file in files {
        let name = file.name.clone();
        let report = send(remote, &args, on.as_ref(), file).await;
        outcome.add(name.trim_end_matches('/'), report)?;
    }
    outcome.finish()
}

async fn send(remote: &RemoteSession, args: &Args, on: Option<&Value>, file: SourceFile) -> anyhow::Result<Value> {
    let flags = [
        ("publish", args.publish),
        ("replace", args.replace),
        ("confirm_bidi", args.confirm_bidi),
        ("dry_run", args.dry_run),
    ];
    let mut query: Vec<_> = flags.into_iter().filter(|(_, on)| *on).map(|(name, _)| (name, "true")).collect();
    query.extend(on.map(|server| ("server_id", text(server, "id"))));
    query.extend(args.title.as_deref().map(|title| ("title", title)));
    query.extend(args.id.as_ref().map(|id| ("id", id.as_str())));
    let name = file.name.trim_end_matches('/').to_owned();
    // The API takes no path for a file: it knows it by its own name.
    let (sent, body) = match file.content {
        SourceContent::Folder(files) => (name.clone(), form(files)?),
        SourceContent::File(text) => {
            let own = Path::new(&name).file_name().map(|own| own.to_string_lossy().into_owned());
            (own.unwrap_or_else(|| name.clone()), Body::Bytes("application/octet-stream".to_owned(), text.into_bytes()))
        }
    };
    query.push(("filename", &sent));
    let answer = remote.client.send(Method::POST, (&["walkthroughs", "import"], &query), body).await;
    let here = |message: &str| as_here(message, &sent, &name);
    let mut report = answer.map_err(|error| match error.downcast::<ApiError>() {
        Ok(refused) => refused.reworded(here).into(),
        Err(error) => error,
    })?;
    for warning in report["warnings"].as_array_mut().into_iter().flatten() {
        *warning = here(warning.as_str().unwrap_or_default()).into();
    }
    Ok(remote.shape(&report, MEMBERS))
}

/// In the words of the command line: the file as it was named, and flags.
fn as_here(message: &str, sent: &str, name: &str) -> String {
    let message = match message.strip_prefix(sent) {
        Some(rest) => format!("{name}{rest}"),
        None => message.to_owned(),
    };
    message.replace("Set `replace`", "Pass --replace").replace("give a `title`", "pass `--title`")
}

/// The files of a folder as a form (RFC 7578).
fn form(files: Vec<(String, String)>) -> anyhow::Result<Body> {
    let mut random = [0; 16];
    SystemRandom.fill(&mut random);
    let boundary = HEXLOWER.encode(&random);
    let mut body = String::new();
    for (path, text) in files {
        if path.chars().any(|letter| letter.is_control() || letter == '"') {
            anyhow::bail!("the name of {} cannot be sent: rename it", crate::cmd::output::clean(&path));
        }
        body.push_str(&format!(
            "--{boundary}\r\nContent-Disposition: form-data; name=\"file\"; filename=\"{TOP}/{path}\"\r\nContent-Type: text/markdown\r\n\r\n{text}\r\n"
        ));
    }
    body.push_str(&format!("--{boundary}--\r\n"));
    Ok(Body::Bytes(format!("multipart/form-data; boundary={boundary}"), body.into_bytes()))
}
