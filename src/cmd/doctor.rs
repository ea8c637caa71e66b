//! `waypost doctor`: looks at everything that an installation needs, changes nothing, and says what to do.

mod checks;

use std::process::ExitCode;

use serde_json::json;

use super::{App, output};

/// How a check went.
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

/// One line of the report.
#[derive(Debug)]
struct Check {
    name: &'static str,
    grade: CheckStatus,
    /// What was found.
    found: String,
    /// What to do about it; empty when nothing is.
    advice: String,
}

impl Check {
    fn ok(name: &'static str, found: impl Into<String>) -> Self {
        Self { name, grade: CheckStatus::Ok, found: found.into(), advice: String::new() }
    }

    fn warn(name: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { name, grade: CheckStatus::Warn, found: found.into(), advice: advice.into() }
    }

    fn fail(name: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { name, grade: CheckStatus::Fail, found: found.into(), advice: advice.into() }
    }
}

/// Examines, and fails when a check does.
///
/// # Errors
/// Only when the report cannot be printed.
pub async fn run(app: &App) -> anyhow::Result<ExitCode> {
    let settings = &app.settings;
    let mut checks = vec![checks::configuration(settings)];
    checks.extend(checks::files(settings));
    checks.extend(checks::database(settings).await);
    checks.extend(checks::ports(settings).await);
    let worst = checks.iter().map(|check| check.grade).max().unwrap_or(CheckStatus::Ok);
    if app.json {
        let items: Vec<_> = checks
            .iter()
            .map(|check| {
                json!({"check": check.name, "status": check.grade.as_str(), "found": check.found, "advice": check.advice})
            })
            .collect();
        output::json(&json!({"status": worst.as_str(), "items": items}))?;
    } else {
        let line = |check: &Check| {
            let advice = if check.advice.is_empty() { String::new() } else { format!(": {}", check.advice) };
            format!("{:4}  {:16}  {}{advice}\n", check.grade.as_str(), check.name, check.found)
        };
        output::text(&checks.iter().map(line).collect::<String>())?;
    }
    Ok(if worst == CheckStatus::Fail { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}
