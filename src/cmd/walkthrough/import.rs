//! `waypost walkthrough import` and `lint`.

use std::path::{Path, PathBuf};

use anyhow::bail;
use serde_json::{Value, json};
use waypost_content::transfer::file::WalkthroughFile;
use waypost_content::transfer::lint::{Finding, Severity};
use waypost_core::id::WalkthroughId;
use waypost_ops::walkthroughs::import::{self, ImportOptions};

use super::files;
use crate::cmd::session::Session;
use crate::cmd::user::Org;
use crate::cmd::{App, UsageError, output};

/// Arguments of `waypost walkthrough import`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// JSON, Markdown or CodeTour files, or folders.
    #[arg(required = true)]
    pub(crate) files: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) org: Org,
    /// Assign the walkthrough to this server.
    #[arg(long, value_name = "SLUG")]
    pub(crate) server: Option<String>,
    /// Publish the walkthrough.
    #[arg(long)]
    pub(crate) publish: bool,
    /// Title, instead of the title in the file. Only for a single file.
    #[arg(long)]
    pub(crate) title: Option<String>,
    /// ID of the walkthrough to update, instead of a match by title. Only for a single file.
    #[arg(long, value_name = "WT_ID")]
    pub(crate) id: Option<WalkthroughId>,
    /// Allow an import to delete more than half of the existing steps.
    #[arg(long)]
    pub(crate) replace: bool,
    /// Publish even if code contains characters that change the text direction. They are removed when served.
    #[arg(long)]
    pub(crate) confirm_bidi: bool,
    /// Show what would happen without changing anything.
    #[arg(long)]
    pub(crate) dry_run: bool,
}

impl Args {
    /// Checks combinations that the argument parser cannot check.
    ///
    /// # Errors
    /// Returns a usage error if options are combined that exclude each other.
    pub(crate) fn check(&self) -> Result<(), UsageError> {
        if self.files.len() > 1 && (self.title.is_some() || self.id.is_some()) {
            return Err(UsageError("--title and --id can only be used with a single file".to_owned()));
        }
        Ok(())
    }
}

/// Collects the results of several files.
pub(crate) struct Outcome {
    json: bool,
    files: usize,
    items: Vec<Value>,
    errors: Vec<anyhow::Error>,
}

impl Outcome {
    /// Creates an empty outcome for the given number of files.
    pub(crate) fn new(json: bool, files: usize) -> Self {
        Self { json, files, items: Vec::new(), errors: Vec::new() }
    }

    /// Prints the result of the file `name`, or stores it for [`Self::finish`].
    ///
    /// # Errors
    /// If the import failed and the file is the only one, or standard output is closed.
    pub(crate) fn add(&mut self, name: &str, report: anyhow::Result<Value>) -> anyhow::Result<()> {
        let mut report = match report {
            Ok(report) => report,
            Err(error) if self.files == 1 => return Err(error),
            Err(error) => {
                self.errors.push(error);
                return Ok(());
            }
        };
        let warnings = report["warnings"].as_array().into_iter().flatten().filter_map(Value::as_str);
        warnings.for_each(|warning| eprintln!("warning: {}", output::clean(warning)));
        if !self.json {
            output::text(&report_text(name, &report))?;
        }
        report["file"] = json!(name);
        self.items.push(report);
        Ok(())
    }

    /// Prints the stored results and errors.
    ///
    /// # Errors
    /// If a file was rejected, or standard output is closed.
    pub(crate) fn finish(mut self) -> anyhow::Result<()> {
        if self.json {
            match self.items.pop() {
                Some(item) if self.files == 1 => output::json(&item)?,
                last => {
                    self.items.extend(last);
                    output::json(&json!({ "items": self.items }))?;
                }
            }
        }
        if self.errors.is_empty() {
            return Ok(());
        }
        self.errors.iter().for_each(|error| eprintln!("error: {}", output::clean(&error.to_string())));
        bail!("{} of {} files were not imported", self.errors.len(), self.files)
    }
}

/// Reads and parses all files first, so that an invalid file is reported before anything is written, then imports them
/// one by one.
pub(super) async fn run(app: &App, args: Args) -> anyhow::Result<()> {
    args.check()?;
    let mut parsed = Vec::with_capacity(args.files.len());
    for path in &args.files {
        parsed.push(files::read(path)?);
    }
    Session::run(app, async |session| import_files(session, &args, parsed).await).await
}

async fn import_files(session: &Session, args: &Args, files: Vec<WalkthroughFile>) -> anyhow::Result<()> {
    let organization = session.organization(args.org.org.as_deref()).await?.id;
    let options = ImportOptions {
        id: args.id.clone(),
        title: args.title.clone(),
        server: args.server.clone(),
        publish: args.publish,
        confirm_bidi: args.confirm_bidi,
        replace: args.replace,
        dry_run: args.dry_run,
    };
    let mut outcome = Outcome::new(session.json, files.len());
    for file in files {
        let name = file.name.clone();
        let result = import::import(&session.cx, &session.ops, &organization, file, options.clone()).await;
        let report = result.map_err(anyhow::Error::from).and_then(|report| Ok(serde_json::to_value(&report)?));
        outcome.add(&name, report)?;
    }
    outcome.finish()
}

fn report_text(name: &str, report: &Value) -> String {
    let is = |member: &str| report[member] == true;
    let text = |member: &str| output::clean(report[member].as_str().unwrap_or_default());
    let (title, id) = (text("title"), report["id"].as_str().map_or_else(|| "new".to_owned(), output::clean));
    let action = match (is("dry_run"), is("created"), is("changed")) {
        (false, true, _) => "Created",
        (false, false, true) => "Updated",
        (true, true, _) => "Would create",
        (true, false, true) => "Would update",
        (_, false, false) => "No changes in",
    };
    let mut text_lines = format!("{action} {title} ({id}) from {}: {}\n", output::clean(name), text("summary"));
    if is("dry_run") {
        let lines = report["plan"].as_str().unwrap_or_default().lines().filter(|line| report["summary"] != **line);
        lines.for_each(|line| text_lines.push_str(&format!("  {}\n", output::clean(line))));
    }
    if let Some(version) = report["published_version"].as_u64() {
        let state = match (is("published_new"), is("dry_run")) {
            (true, false) => "published",
            (true, true) => "would be published",
            (false, _) => "is already published",
        };
        text_lines.push_str(&format!("  Version {version} {state}.\n"));
    }
    if is("assigned") {
        text_lines.push_str(if is("dry_run") {
            "  Would be assigned to the server.\n"
        } else {
            "  Assigned to the server.\n"
        });
    }
    text_lines
}

/// Prints the findings for each file. Fails if one of them prevents publishing.
pub(super) fn lint(app: &App, paths: &[PathBuf]) -> anyhow::Result<()> {
    let mut items = Vec::with_capacity(paths.len());
    let mut failed = 0;
    for path in paths {
        let shown = path.display().to_string();
        let outcome = lint_file(path);
        let has_errors = outcome
            .as_ref()
            .map_or(true, |(findings, _)| findings.iter().any(|finding| finding.severity == Severity::Error));
        failed += usize::from(has_errors);
        if !app.json {
            output::text(&findings_text(&shown, &outcome))?;
        }
        items.push(match outcome {
            Ok((findings, warnings)) => {
                json!({"file": shown, "ok": !has_errors, "findings": findings, "warnings": warnings})
            }
            Err(error) => {
                let finding = json!({"severity": "error", "step": null, "field": null, "message": error.to_string()});
                json!({"file": shown, "ok": false, "findings": [finding], "warnings": []})
            }
        });
    }
    if app.json {
        output::json(&json!({ "items": items }))?;
    }
    match failed {
        0 => Ok(()),
        1 => bail!("1 file has errors that prevent publishing"),
        _ => bail!("{failed} files have errors that prevent publishing"),
    }
}

type LintResult = anyhow::Result<(Vec<Finding>, Vec<String>)>;

fn lint_file(path: &Path) -> LintResult {
    let file = files::read(path)?;
    Ok((import::lint_file(&file)?, file.warnings))
}

fn findings_text(name: &str, outcome: &LintResult) -> String {
    let name = output::clean(name);
    match outcome {
        // The error message already contains the file name.
        Err(error) => format!("{}\n", output::clean(&format!("error: {error}"))),
        Ok((findings, warnings)) if findings.is_empty() && warnings.is_empty() => format!("{name}: no problems\n"),
        Ok((findings, warnings)) => {
            let findings = findings.iter().map(|finding| format!("{name}: {}\n", output::clean(&finding.to_string())));
            let warnings = warnings.iter().map(|warning| format!("warning: {}\n", output::clean(warning)));
            findings.chain(warnings).collect()
        }
    }
}
