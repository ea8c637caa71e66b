//! `waypost walkthrough import` and `lint`.

use std::path::{Path, PathBuf};

use anyhow::bail;
use serde_json::json;
use waypost_core::id::WalkthroughId;
use waypost_core::transfer::file::WalkthroughFile;
use waypost_core::transfer::lint::{Finding, Severity};
use waypost_ops::walkthroughs::import::{self, ImportOptions, ImportReport};

use super::files;
use crate::cmd::session::Session;
use crate::cmd::user::Org;
use crate::cmd::{App, Usage, output};

/// Flags of `import`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// JSON or Markdown files, or folders.
    #[arg(required = true)]
    files: Vec<PathBuf>,
    #[command(flatten)]
    org: Org,
    /// Also places what is imported on this server.
    #[arg(long, value_name = "SLUG")]
    server: Option<String>,
    /// Also publishes it.
    #[arg(long)]
    publish: bool,
    /// Title, whatever the file says; for one file.
    #[arg(long)]
    title: Option<String>,
    /// The walkthrough to update, whatever its title is; for one file.
    #[arg(long, value_name = "WT_ID")]
    id: Option<WalkthroughId>,
    /// Lets a file through that matches under half of the existing steps.
    #[arg(long)]
    replace: bool,
    /// Publishes in spite of characters in code that turn the direction of text around.
    #[arg(long)]
    confirm_bidi: bool,
    /// Says what would happen, and changes nothing.
    #[arg(long)]
    dry_run: bool,
}

/// Reads every file first, so that a bad one is refused before anything is written; then imports one by one.
pub(super) async fn run(app: &App, args: Args) -> anyhow::Result<()> {
    if args.files.len() > 1 && (args.title.is_some() || args.id.is_some()) {
        return Err(Usage("--title and --id are for one file".to_owned()).into());
    }
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
    let (mut items, mut refusals, alone) = (Vec::new(), Vec::new(), files.len() == 1);
    for file in files {
        let name = file.name.clone();
        match import::import(&session.cx, &session.ops, &organization, file, options.clone()).await {
            Ok(report) => {
                report.warnings.iter().for_each(|warning| eprintln!("warning: {}", output::clean(warning)));
                if !session.json {
                    output::text(&told(&name, &report))?;
                }
                let mut item = serde_json::to_value(&report)?;
                item["file"] = json!(name);
                items.push(item);
            }
            Err(error) if alone => return Err(error.into()),
            Err(error) => refusals.push(error),
        }
    }
    if session.json {
        match items.pop() {
            Some(item) if alone => output::json(&item)?,
            last => {
                items.extend(last);
                output::json(&json!({ "items": items }))?;
            }
        }
    }
    if refusals.is_empty() {
        return Ok(());
    }
    refusals.iter().for_each(|error| eprintln!("error: {}", output::clean(&error.to_string())));
    bail!("{} of {} files were not imported; the others were", refusals.len(), args.files.len())
}

fn told(name: &str, report: &ImportReport) -> String {
    let (title, id) = (output::clean(&report.title), report.id.as_ref().map_or("new", WalkthroughId::as_str));
    let did = match (report.dry_run, report.created, report.changed) {
        (false, true, _) => "Made",
        (false, false, true) => "Updated",
        (true, true, _) => "Would make",
        (true, false, true) => "Would update",
        (_, false, false) => "Nothing to change in",
    };
    let mut text = format!("{did} {title} ({id}) from {}: {}\n", output::clean(name), report.summary);
    if report.dry_run {
        let lines = report.plan.lines().filter(|line| *line != report.summary);
        lines.for_each(|line| text.push_str(&format!("  {}\n", output::clean(line))));
    }
    if let Some(version) = report.published_version {
        let state = match (report.published_new, report.dry_run) {
            (true, false) => "published",
            (true, true) => "would be published",
            (false, _) => "is published already",
        };
        text.push_str(&format!("  Version {version} {state}.\n"));
    }
    if report.assigned {
        text.push_str(if report.dry_run { "  Would be placed on the server.\n" } else { "  Placed on the server.\n" });
    }
    text
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

type Linted = anyhow::Result<(Vec<Finding>, Vec<String>)>;

fn lint_one(path: &Path) -> Linted {
    let file = files::read(path)?;
    Ok((import::lint_file(&file)?, file.warnings))
}

fn findings_text(name: &str, outcome: &Linted) -> String {
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
