//! What the program says of itself: log lines on standard error, and metrics.

use std::io::IsTerminal;

use anyhow::Context;
use metrics::{Unit, describe_counter, describe_gauge, describe_histogram};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, fmt};

use crate::config::{LogFormat, Settings};

/// Who writes the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogProfile {
    /// A command: its answer is on standard output, so only warnings are logged unless the setting says otherwise.
    Command,
    /// A command that was asked to tell more (`-v`).
    Verbose,
    /// The server.
    Serve,
}

/// Starts the log. Fields of the surrounding spans, the request's id among them, stand on every line.
///
/// # Errors
/// When a log was started before.
pub fn start_log(settings: &Settings, program: LogProfile) -> anyhow::Result<()> {
    let text = match settings.log_format {
        LogFormat::Auto => std::io::stderr().is_terminal(),
        LogFormat::Text => true,
        LogFormat::Json => false,
    };
    let layer = if text {
        fmt::layer().with_writer(std::io::stderr).with_ansi(std::io::stderr().is_terminal()).boxed()
    } else {
        fmt::layer().json().flatten_event(true).with_span_list(false).with_writer(std::io::stderr).boxed()
    };
    tracing_subscriber::registry()
        .with(layer.with_filter(filter(settings, program)))
        .try_init()
        .context("the log was started twice")
}

fn filter(settings: &Settings, program: LogProfile) -> Targets {
    let level = match program {
        LogProfile::Verbose => LevelFilter::DEBUG,
        LogProfile::Command if settings.origin("log_level").is_none() => LevelFilter::WARN,
        LogProfile::Command | LogProfile::Serve => settings.log_level.default,
    };
    // Libraries that tell every request at `info`, and every query at `debug`, drown what is ours.
    let quiet = |least: LevelFilter| if level < least { level } else { least };
    // What the player cannot do it says itself, in one line; rmcp would say it once more, at length.
    let rmcp = if program == LogProfile::Command { LevelFilter::OFF } else { quiet(LevelFilter::WARN) };
    // It warns of each invalid request, so anybody could fill the log. Failures of ours are logged by us.
    let rmcp_service = rmcp.min(LevelFilter::ERROR);
    Targets::new()
        .with_default(level)
        .with_target("rmcp", rmcp)
        .with_target("rmcp::service", rmcp_service)
        .with_target("sqlx::query", quiet(LevelFilter::WARN))
        .with_target("hyper", quiet(LevelFilter::INFO))
        .with_target("h2", quiet(LevelFilter::INFO))
        .with_targets(settings.log_level.targets.iter().map(|(target, level)| (target.clone(), *level)))
}

/// The metrics of this process.
#[derive(Debug, Clone)]
pub struct Metrics(PrometheusHandle);

impl Metrics {
    /// Everything in the text format of Prometheus.
    #[must_use]
    pub fn render(&self) -> String {
        self.0.render()
    }

    /// Tidies up between renderings; call it every few seconds when nobody may be asking.
    pub fn upkeep(&self) {
        self.0.run_upkeep();
    }
}

/// Seconds, from a fast answer to one that is given up on.
const SECONDS: [f64; 12] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0];
/// Calls in a group of the writer.
const CALLS: [f64; 9] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0];

/// Starts the metrics.
///
/// # Errors
/// When they were started before.
pub fn start_metrics() -> anyhow::Result<Metrics> {
    let handle = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &SECONDS)?
        .set_buckets_for_metric(Matcher::Full("waypost_writer_group_size".to_owned()), &CALLS)?
        .install_recorder()
        .context("the metrics were started twice")?;
    describe();
    Ok(Metrics(handle))
}

fn describe() {
    describe_counter!("waypost_writer_groups_total", "Groups of calls that the writer committed");
    describe_counter!("waypost_writer_groups_split_total", "Groups that failed and were run again call by call");
    describe_counter!("waypost_writer_calls_total", "Calls on progress that the writer committed");
    describe_counter!("waypost_writer_statements_total", "SQL statements of the writer, BEGIN and COMMIT included");
    describe_gauge!("waypost_writer_queue_depth", "Calls that wait for the writer");
    describe_histogram!("waypost_writer_group_size", "Calls in a group");
    describe_counter!("waypost_tool_calls_total", "MCP tool calls, by tool and outcome");
    describe_histogram!("waypost_tool_call_seconds", Unit::Seconds, "How long MCP tool calls took, by tool");
    describe_counter!(
        "waypost_rejected_calls_total",
        "MCP calls that were rejected before they reached a tool, by reason"
    );
    describe_counter!("waypost_logos_rejected_total", "Uploaded logos that were rejected, by reason");
    describe_counter!("waypost_rate_limited_total", "Requests that were rejected by a rate limit, by limit");
    describe_counter!(
        "waypost_rejected_requests_total",
        "HTTP requests that were rejected before they reached a page, the API or a server, by reason"
    );
    describe_counter!(
        "waypost_sign_in_rejected_total",
        "Attempts to sign in that were rejected before they were checked, by limit: client, account or queue"
    );
    describe_counter!(
        "waypost_claims_rejected_total",
        "Personal URLs that did not entitle to a claim at sign-in, by reason: unsigned, invalid or spent"
    );
    describe_counter!("waypost_http_requests_total", "HTTP requests, by status");
    describe_histogram!("waypost_http_request_seconds", Unit::Seconds, "How long HTTP requests took");
    describe_counter!("waypost_records_lost_total", "Records of calls that could not be written");
    describe_counter!("waypost_tickets_rejected_total", "Support tickets beyond a limit, by reason");
    describe_counter!("waypost_emails_total", "Emails, by kind and outcome (sent, failed, rejected, dropped)");
    describe_gauge!("waypost_connections", "Open connections, by port");
    describe_counter!(
        "waypost_connections_rejected_total",
        "Connections that were refused, by port and limit (total, address, descriptors)"
    );
    describe_counter!(
        "waypost_connections_closed_total",
        "Connections that were closed because of their client, by port and reason"
    );
    describe_counter!(
        "waypost_request_bodies_rejected_total",
        "Request bodies that were not read to their end, by reason (timeout, memory)"
    );
    describe_counter!("waypost_requests_rejected_total", "Requests of HTTP/2 that were rejected, by port and reason");
    describe_counter!("waypost_job_runs_total", "Runs of background jobs, and items of workers, by job");
    describe_counter!("waypost_job_failures_total", "Runs of background jobs that failed, panics included, by job");
    describe_counter!("waypost_job_panics_total", "Panics of background jobs, by job");
    describe_counter!("waypost_retention_deleted_total", "Rows deleted because of their retention period, by log");
    describe_gauge!("waypost_job_age_seconds", Unit::Seconds, "Time since the last success, by job");
    describe_gauge!("waypost_job_late", "1 if the job is late, by job");
    describe_gauge!("waypost_job_active", "1 if this process runs the job, 0 if another one holds its lease");
    describe_counter!(
        "waypost_open_rows_replaced_total",
        "Unused registrations and open authorization requests that newer ones replaced, by table"
    );
    describe_gauge!("waypost_build_info", "1, with the version as a label");
    metrics::gauge!("waypost_build_info", "version" => env!("CARGO_PKG_VERSION")).set(1.0);
}

#[cfg(test)]
mod tests {
    use tracing::Level;

    use super::*;
    use crate::config::Sources;

    #[test]
    fn an_invalid_request_is_no_warning() {
        let settings = Settings::load(&Sources::default()).unwrap();
        let serve = filter(&settings, LogProfile::Serve);
        assert!(!serve.would_enable("rmcp::service", &Level::WARN));
        assert!(serve.would_enable("rmcp::service", &Level::ERROR));
        assert!(serve.would_enable("rmcp::transport", &Level::WARN));
        assert!(!filter(&settings, LogProfile::Command).would_enable("rmcp::service", &Level::ERROR));
    }

    #[test]
    fn renders_histograms_with_buckets() {
        let metrics = start_metrics().unwrap();
        metrics::histogram!("waypost_tool_call_seconds", "tool" => "x").record(0.003);
        metrics::counter!("waypost_tool_calls_total", "tool" => "x", "outcome" => "ok").increment(1);
        let text = metrics.render();
        assert!(text.contains(r#"waypost_tool_call_seconds_bucket{tool="x",le="0.005"} 1"#), "{text}");
        assert!(text.contains(r#"waypost_tool_calls_total{tool="x",outcome="ok"} 1"#), "{text}");
        assert!(text.contains("# HELP waypost_tool_calls_total MCP tool calls"), "{text}");
    }
}
