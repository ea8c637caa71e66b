//! `waypost doctor`: checks the installation without changing anything, and suggests fixes.

mod checks;

use std::process::ExitCode;

use serde_json::json;

use super::{App, output};

/// The status of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum CheckStatus {
    Ok,
    Warn,
    Fail,
}

impl CheckStatus {
    fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Fail => "fail",
        }
    }
}

/// A check, shown as one line of the report.
#[derive(Debug)]
struct Check {
    name: &'static str,
    status: CheckStatus,
    /// The finding.
    found: String,
    /// The suggested fix; empty if there is nothing to do.
    advice: String,
}

impl Check {
    fn ok(name: &'static str, found: impl Into<String>) -> Self {
        Self { name, status: CheckStatus::Ok, found: found.into(), advice: String::new() }
    }

    fn warn(name: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { name, status: CheckStatus::Warn, found: found.into(), advice: advice.into() }
    }

    fn fail(name: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { name, status: CheckStatus::Fail, found: found.into(), advice: advice.into() }
    }
}

/// Runs all checks. The exit code is 1 if a check failed.
///
/// # Errors
/// If the report cannot be printed.
pub async fn run(app: &App) -> anyhow::Result<ExitCode> {
    let settings = &app.settings;
    let mut checks = vec![checks::configuration(settings)];
    checks.extend(checks::files(settings));
    checks.extend(checks::database(settings).await);
    checks.extend(checks::ports(settings).await);
    let worst = checks.iter().map(|check| check.status).max().unwrap_or(CheckStatus::Ok);
    if app.json {
        let items: Vec<_> = checks
            .iter()
            .map(|check| {
                json!({"check": check.name, "status": check.status.as_str(), "found": check.found, "advice": check.advice})
            })
            .collect();
        output::json(&json!({"status": worst.as_str(), "items": items}))?;
    } else {
        let line = |check: &Check| {
            let advice = if check.advice.is_empty() { String::new() } else { format!(": {}", check.advice) };
            format!("{:4}  {:16}  {}{advice}\n", check.status.as_str(), check.name, check.found)
        };
        output::text(&checks.iter().map(line).collect::<String>())?;
    }
    Ok(if worst == CheckStatus::Fail { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}
