//! `waypost walkthrough import` and `lint`.

use std::path::{Path, PathBuf};

use anyhow::bail;
use serde_json::{Value, json};
use waypost_core::id::WalkthroughId;
use waypost_core::transfer::file::WalkthroughFile;
use waypost_core::transfer::lint::{Finding, Severity};
use waypost_ops::walkthroughs::import::{self, ImportOptions};

use super::files;
use crate::cmd::session::Session;
use crate::cmd::user::Org;
use crate::cmd::{App, UsageError, output};

/// Flags of `import`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// JSON or Markdown files, or folders.
    #[arg(required = true)]
    pub(crate) files: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) org: Org,
    /// Also places what is imported on this server.
    #[arg(long, value_name = "SLUG")]
    pub(crate) server: Option<String>,
    /// Also publishes it.
    #[arg(long)]
    pub(crate) publish: bool,
    /// Title, whatever the file says; for one file.
    #[arg(long)]
    pub(crate) title: Option<String>,
    /// The walkthrough to update, whatever its title is; for one file.
    #[arg(long, value_name = "WT_ID")]
    pub(crate) id: Option<WalkthroughId>,
    /// Lets a file through that matches under half of the existing steps.
    #[arg(long)]
    pub(crate) replace: bool,
    /// Publishes although code has characters that change the direction of text; it is served without them.
    #[arg(long)]
    pub(crate) confirm_bidi: bool,
    /// Says what would happen, and changes nothing.
    #[arg(long)]
    pub(crate) dry_run: bool,
}

impl Args {
    /// What the parser of the command line cannot see.
    ///
    /// # Errors
    /// Wrong usage.
    pub(crate) fn check(&self) -> Result<(), UsageError> {
        if self.files.len() > 1 && (self.title.is_some() || self.id.is_some()) {
            return Err(UsageError("--title and --id are for one file".to_owned()));
        }
        Ok(())
    }
}

/// What came of the files, one after the other.
pub(crate) struct Outcome {
    json: bool,
    files: usize,
    items: Vec<Value>,
    refusals: Vec<anyhow::Error>,
}

impl Outcome {
    /// Nothing yet, of so many files.
    pub(crate) fn new(json: bool, files: usize) -> Self {
        Self { json, files, items: Vec::new(), refusals: Vec::new() }
    }

    /// Says what came of the file `name`, or keeps it for the end.
    ///
    /// # Errors
    /// The refusal, when it is that of the only file.
    pub(crate) fn add(&mut self, name: &str, report: anyhow::Result<Value>) -> anyhow::Result<()> {
        let mut report = match report {
            Ok(report) => report,
            Err(error) if self.files == 1 => return Err(error),
            Err(error) => {
                self.refusals.push(error);
                return Ok(());
            }
        };
        let warnings = report["warnings"].as_array().into_iter().flatten().filter_map(Value::as_str);
        warnings.for_each(|warning| eprintln!("warning: {}", output::clean(warning)));
        if !self.json {
            output::text(&told(name, &report))?;
        }
        report["file"] = json!(name);
        self.items.push(report);
        Ok(())
    }

    /// Prints what is left to say, and fails when a file was refused.
    ///
    /// # Errors
    /// When one was, or standard output is closed.
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
        if self.refusals.is_empty() {
            return Ok(());
        }
        self.refusals.iter().for_each(|error| eprintln!("error: {}", output::clean(&error.to_string())));
        bail!("{} of {} files were not imported; the others were", self.refusals.len(), self.files)
    }
}

/// Reads every file first, so that a bad one is refused before anything is written; then imports one by one.
pub(super) async fn run(app: &App, args: Args) -> anyhow::Result<()> {
    args.check()?;
    let mut parsed = Vec::with_capacity(args.files.len());
    for path in &args.files {
        parsed.push(files::read(path)?);
    }
    Session::run(app, async |session| import(session, &args, parsed).await).await
}

async fn import(session: &Session, args: &Args, files: Vec<WalkthroughFile>) -> anyhow::Result<()> {
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
        let done = import::import(&session.cx, &session.ops, &organization, file, options.clone()).await;
        let report = done.map_err(anyhow::Error::from).and_then(|report| Ok(serde_json::to_value(&report)?));
        outcome.add(&name, report)?;
    }
    outcome.finish()
}

fn told(name: &str, report: &Value) -> String {
    let is = |member: &str| report[member] == true;
    let text = |member: &str| output::clean(report[member].as_str().unwrap_or_default());
    let (title, id) = (text("title"), report["id"].as_str().map_or_else(|| "new".to_owned(), output::clean));
    let did = match (is("dry_run"), is("created"), is("changed")) {
        (false, true, _) => "Made",
        (false, false, true) => "Updated",
        (true, true, _) => "Would make",
        (true, false, true) => "Would update",
        (_, false, false) => "Nothing to change in",
    };
    let mut said = format!("{did} {title} ({id}) from {}: {}\n", output::clean(name), text("summary"));
    if is("dry_run") {
        let lines = report["plan"].as_str().unwrap_or_default().lines().filter(|line| report["summary"] != **line);
        lines.for_each(|line| said.push_str(&format!("  {}\n", output::clean(line))));
    }
    if let Some(version) = report["published_version"].as_u64() {
        let state = match (is("published_new"), is("dry_run")) {
            (true, false) => "published",
            (true, true) => "would be published",
            (false, _) => "is published already",
        };
        said.push_str(&format!("  Version {version} {state}.\n"));
    }
    if is("assigned") {
        said.push_str(if is("dry_run") { "  Would be placed on the server.\n" } else { "  Placed on the server.\n" });
    }
    said
}

/// Prints the findings of each file, and fails when one of them would keep it from being published.
pub(super) fn lint(app: &App, paths: &[PathBuf]) -> anyhow::Result<()> {
    let mut items = Vec::with_capacity(paths.len());
    let mut bad = 0;
    for path in paths {
        let shown = path.display().to_string();
        let outcome = lint_one(path);
        let failed = outcome
            .as_ref()
            .map_or(true, |(findings, _)| findings.iter().any(|finding| finding.severity == Severity::Error));
        bad += usize::from(failed);
        if !app.json {
            output::text(&findings_text(&shown, &outcome))?;
        }
        items.push(match outcome {
            Ok((findings, warnings)) => {
                json!({"file": shown, "ok": !failed, "findings": findings, "warnings": warnings})
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
    match bad {
        0 => Ok(()),
        1 => bail!("1 file cannot be published as it is"),
        _ => bail!("{bad} files cannot be published as they are"),
    }
}

type LintResult = anyhow::Result<(Vec<Finding>, Vec<String>)>;

fn lint_one(path: &Path) -> LintResult {
    let file = files::read(path)?;
    Ok((import::lint_file(&file)?, file.warnings))
}

fn findings_text(name: &str, outcome: &LintResult) -> String {
    let name = output::clean(name);
    match outcome {
        // A refusal names the file itself.
        Err(error) => format!("{}\n", output::clean(&format!("error: {error}"))),
        Ok((findings, warnings)) if findings.is_empty() && warnings.is_empty() => format!("{name}: fine\n"),
        Ok((findings, warnings)) => {
            let findings = findings.iter().map(|finding| format!("{name}: {}\n", output::clean(&finding.to_string())));
            let warnings = warnings.iter().map(|warning| format!("warning: {}\n", output::clean(warning)));
            findings.chain(warnings).collect()
        }
    }
}
