//! Telemetry: log lines on standard error, and metrics.

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

/// The kind of command that writes the log, which determines the default level.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogProfile {
    /// A command. Logs only warnings by default, because its result is printed to standard output.
    Command,
    /// A command with `-v`.
    Verbose,
    /// `waypost serve`.
    Serve,
}

/// Libraries that log the contents of messages below `info`: bodies of requests to the container engine, frames of the
/// links to toolboxes, and requests and results of MCP. These contain secrets, so no setting enables those levels. `h2`
/// and `hyper` log neither bodies nor credentials.
const CAPPED: [&str; 4] = ["bollard", "rmcp", "tokio_tungstenite", "tungstenite"];

/// Initialises logging. Every line contains the fields of the enclosing spans, such as the request ID.
///
/// # Errors
/// If logging was already initialised.
pub fn start_log(settings: &Settings, profile: LogProfile) -> anyhow::Result<()> {
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
        .with(layer.with_filter(filter(settings, profile)))
        .try_init()
        .context("logging was initialised twice")
}

fn filter(settings: &Settings, profile: LogProfile) -> Targets {
    let level = match profile {
        LogProfile::Verbose => LevelFilter::DEBUG,
        LogProfile::Command if settings.origin("log_level").is_none() => LevelFilter::WARN,
        LogProfile::Command | LogProfile::Serve => settings.log_level.default,
    };
    // Limit libraries that log every request at `info` and every query at `debug`.
    let at_most = |limit: LevelFilter| if level < limit { level } else { limit };
    // The player reports its errors in one line; rmcp would log them again at length.
    let rmcp = if profile == LogProfile::Command { LevelFilter::OFF } else { at_most(LevelFilter::WARN) };
    // `rmcp::service` logs a warning for every invalid request, so clients could flood the log. Internal failures are
    // logged elsewhere.
    let rmcp_service = rmcp.min(LevelFilter::ERROR);
    let targets = settings.log_level.targets.iter().map(|(target, level)| (target.clone(), capped(target, *level)));
    Targets::new()
        .with_default(level)
        .with_targets(CAPPED.map(|library| (library, at_most(LevelFilter::INFO))))
        .with_target("rmcp", rmcp)
        .with_target("rmcp::service", rmcp_service)
        .with_target("sqlx::query", at_most(LevelFilter::WARN))
        .with_target("hyper", at_most(LevelFilter::INFO))
        .with_target("h2", at_most(LevelFilter::INFO))
        // Logs every query of a container at `info`, so a container could flood the log.
        .with_target("hickory_server", at_most(LevelFilter::ERROR))
        .with_targets(targets)
}

/// Returns the level for a target of the settings. [`Targets`] applies the longest target that a module path starts with,
/// even if it ends within a name: `bollard:` takes precedence over `bollard`, so it is capped as well.
fn capped(target: &str, level: LevelFilter) -> LevelFilter {
    let is_capped = CAPPED.iter().any(|library| target.starts_with(library));
    if is_capped { level.min(LevelFilter::INFO) } else { level }
}

/// The metrics of this process.
#[derive(Debug, Clone)]
pub struct Metrics(PrometheusHandle);

impl Metrics {
    /// Returns all metrics in the Prometheus text format.
    #[must_use]
    pub fn render(&self) -> String {
        self.0.render()
    }

    /// Performs maintenance. Must be called periodically, because the metrics may never be rendered.
    pub fn upkeep(&self) {
        self.0.run_upkeep();
    }
}

/// Histogram buckets for durations in seconds.
const DURATION_BUCKETS: [f64; 12] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0];
/// Histogram buckets for the durations of deployments in seconds.
const DEPLOYMENT_BUCKETS: [f64; 11] = [1.0, 2.5, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1_800.0];
/// Histogram buckets for the number of calls in a writer group.
const GROUP_SIZE_BUCKETS: [f64; 9] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0];

/// Initialises the metrics.
///
/// # Errors
/// If the metrics were already initialised.
pub fn start_metrics() -> anyhow::Result<Metrics> {
    let handle = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &DURATION_BUCKETS)?
        .set_buckets_for_metric(Matcher::Full("waypost_deployment_seconds".to_owned()), &DEPLOYMENT_BUCKETS)?
        .set_buckets_for_metric(Matcher::Full("waypost_writer_group_size".to_owned()), &GROUP_SIZE_BUCKETS)?
        .install_recorder()
        .context("the metrics were initialised twice")?;
    describe();
    Ok(Metrics(handle))
}

fn describe() {
    describe_counter!("waypost_writer_groups_total", "Groups of calls committed by the writer");
    describe_counter!("waypost_writer_groups_split_total", "Groups that failed and were retried call by call");
    describe_counter!(
        "waypost_writer_groups_outdated_total",
        "Groups that were decided again because a cached attempt was outdated or a call was rejected"
    );
    describe_counter!("waypost_writer_calls_total", "Progress calls committed by the writer");
    describe_counter!("waypost_writer_statements_total", "SQL statements of the writer, including BEGIN and COMMIT");
    describe_gauge!("waypost_writer_queue_depth", "Calls waiting for the writer");
    describe_histogram!("waypost_writer_group_size", "Calls per group");
    describe_counter!("waypost_tool_calls_total", "MCP tool calls, by tool and outcome");
    describe_histogram!("waypost_tool_call_seconds", Unit::Seconds, "Duration of MCP tool calls, by tool");
    describe_counter!("waypost_rejected_calls_total", "MCP calls rejected before they reached a tool, by reason");
    describe_counter!("waypost_logos_rejected_total", "Rejected logo uploads, by reason");
    describe_counter!("waypost_rate_limited_total", "Requests rejected by a rate limit, by limit");
    describe_counter!(
        "waypost_rejected_requests_total",
        "HTTP requests rejected before they reached a page, the API or a server, by reason"
    );
    describe_counter!(
        "waypost_sign_in_rejected_total",
        "Sign-in attempts rejected before credentials were checked, by limit: client, account or queue"
    );
    describe_counter!(
        "waypost_claims_rejected_total",
        "Personal URLs rejected as proof of a claim at sign-in, by reason: unsigned, invalid or spent"
    );
    describe_counter!("waypost_http_requests_total", "HTTP requests, by status");
    describe_histogram!("waypost_http_request_seconds", Unit::Seconds, "Duration of HTTP requests");
    describe_counter!(
        "waypost_records_lost_total",
        "Call records that could not be written, or for which there was no room in the queue"
    );
    describe_counter!(
        "waypost_call_contents_lost_total",
        "Calls through the gateway that were recorded without the contents that their instance records"
    );
    describe_counter!("waypost_tickets_rejected_total", "Support tickets rejected by a limit, by reason");
    describe_counter!("waypost_emails_total", "Emails, by kind and outcome (sent, failed, rejected, dropped)");
    describe_gauge!("waypost_connections", "Open connections, by port");
    describe_counter!(
        "waypost_connections_rejected_total",
        "Rejected connections, by port and limit (total, address, descriptors)"
    );
    describe_counter!(
        "waypost_connections_closed_total",
        "Connections closed because of client behaviour, by port and reason"
    );
    describe_counter!(
        "waypost_request_bodies_rejected_total",
        "Request bodies that were not read completely, by reason (timeout, memory)"
    );
    describe_counter!("waypost_requests_rejected_total", "Rejected HTTP/2 requests, by port and reason");
    describe_counter!("waypost_job_runs_total", "Runs of background jobs and items processed by workers, by job");
    describe_counter!("waypost_job_failures_total", "Failed runs of background jobs, including panics, by job");
    describe_counter!("waypost_job_panics_total", "Panics of background jobs, by job");
    describe_counter!("waypost_retention_deleted_total", "Rows deleted by retention, by log");
    describe_gauge!("waypost_job_age_seconds", Unit::Seconds, "Time since the last success, by job");
    describe_gauge!("waypost_job_late", "1 if the job is late, by job");
    describe_gauge!("waypost_job_active", "1 if this process runs the job, 0 if another one holds its lease");
    describe_counter!(
        "waypost_open_rows_replaced_total",
        "Unused registrations, open authorization requests and started console logins replaced by newer ones, by table"
    );
    describe_toolboxes();
    describe_gauge!("waypost_build_info", "1, with the version as a label");
    metrics::gauge!("waypost_build_info", "version" => env!("CARGO_PKG_VERSION")).set(1.0);
}

/// Describes the metrics of toolboxes and instances.
fn describe_toolboxes() {
    describe_gauge!("waypost_toolboxes", "Toolboxes of the installation, by state");
    describe_gauge!("waypost_instances", "Instances of the installation, by state");
    describe_gauge!("waypost_toolbox_links", "Open links to toolboxes");
    describe_counter!("waypost_toolbox_handshakes_rejected_total", "Links that were not opened, by reason");
    describe_counter!("waypost_toolbox_requests_total", "Requests to toolboxes, by outcome");
    describe_histogram!(
        "waypost_toolbox_request_seconds",
        Unit::Seconds,
        "Time until the response of a toolbox begins, by outcome"
    );
    describe_counter!("waypost_instance_calls_total", "Calls of tools of instances, by outcome");
    describe_histogram!("waypost_instance_call_seconds", Unit::Seconds, "Duration of these calls, by outcome");
    describe_counter!("waypost_gateway_calls_total", "Calls through the gateway, by instance, tool and outcome");
    describe_histogram!("waypost_gateway_call_seconds", Unit::Seconds, "Duration of these calls, by instance and tool");
    describe_counter!("waypost_deployments_total", "Deployments that ended, by outcome and error code");
    describe_histogram!("waypost_deployment_seconds", Unit::Seconds, "Duration of deployments, by outcome");
}

#[cfg(test)]
mod tests {
    use tracing::Level;

    use super::*;
    use crate::config::Sources;

    #[test]
    fn invalid_requests_are_not_logged_as_warnings() {
        let settings = Settings::load(&Sources::default()).unwrap();
        let serve = filter(&settings, LogProfile::Serve);
        assert!(!serve.would_enable("rmcp::service", &Level::WARN));
        assert!(serve.would_enable("rmcp::service", &Level::ERROR));
        assert!(serve.would_enable("rmcp::transport", &Level::WARN));
        assert!(!filter(&settings, LogProfile::Command).would_enable("rmcp::service", &Level::ERROR));
    }

    #[test]
    fn libraries_that_log_secrets_never_log_below_info() {
        let mut settings = Settings::load(&Sources::default()).unwrap();
        for level in [
            "trace",
            "info,bollard=debug,rmcp=trace,tungstenite=trace,tokio_tungstenite=trace",
            "info,bollard::docker=debug,rmcp::service=debug,tungstenite::protocol=trace,tokio_tungstenite::compat=trace",
            "info,bollard:=debug,bollard::dock=trace,rmcp::=debug,tungstenite::p=trace,tokio_tungstenite:=trace",
            "trace,b=trace,bollar=debug,rmc=trace,tungst=trace,tokio=trace,=trace",
        ] {
            settings.log_level = level.parse().unwrap();
            for profile in [LogProfile::Command, LogProfile::Verbose, LogProfile::Serve] {
                let log = filter(&settings, profile);
                for target in ["bollard::docker", "rmcp::service", "tungstenite::protocol", "tokio_tungstenite"] {
                    assert!(!log.would_enable(target, &Level::DEBUG), "{level}: {target}");
                    assert!(!log.would_enable(target, &Level::TRACE), "{level}: {target}");
                }
            }
        }
        settings.log_level = "trace,bollard=warn,tungstenite::protocol=off".parse().unwrap();
        let serve = filter(&settings, LogProfile::Serve);
        assert!(serve.would_enable("waypost::cmd::serve", &Level::TRACE));
        assert!(serve.would_enable("tokio_tungstenite", &Level::INFO));
        assert!(serve.would_enable("bollard::docker", &Level::WARN), "a lower level than the limit applies");
        assert!(!serve.would_enable("bollard::docker", &Level::INFO));
        assert!(!serve.would_enable("tungstenite::protocol", &Level::ERROR));
        settings.log_level = "info,waypost_toolbox=trace".parse().unwrap();
        assert!(filter(&settings, LogProfile::Serve).would_enable("waypost_toolbox::link", &Level::TRACE));
    }

    #[test]
    fn histograms_are_rendered_with_buckets() {
        let metrics = start_metrics().unwrap();
        metrics::histogram!("waypost_tool_call_seconds", "tool" => "x").record(0.003);
        metrics::counter!("waypost_tool_calls_total", "tool" => "x", "outcome" => "ok").increment(1);
        let text = metrics.render();
        assert!(text.contains(r#"waypost_tool_call_seconds_bucket{tool="x",le="0.005"} 1"#), "{text}");
        assert!(text.contains(r#"waypost_tool_calls_total{tool="x",outcome="ok"} 1"#), "{text}");
        assert!(text.contains("# HELP waypost_tool_calls_total MCP tool calls"), "{text}");
    }
}
