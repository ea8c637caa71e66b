//! Output, exits and statistics of containers.

use std::collections::HashMap;

use bollard::container::LogOutput;
use bollard::models::{ContainerStatsResponse, EventMessage};
use bollard::query_parameters::{AttachContainerOptions, EventsOptions, LogsOptions};
use futures::{Stream, StreamExt};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::super::{Attached, ContainerExit, EngineError, Exits, Output, OutputChunk, Usage};
use super::{DockerEngine, labels};

impl DockerEngine {
    /// Attaches to a container whose labels have been checked.
    pub(super) async fn attach_to(&self, container: &str) -> Result<Attached, EngineError> {
        let options = AttachContainerOptions {
            stream: true,
            stdin: true,
            stdout: true,
            stderr: true,
            logs: false,
            detach_keys: None,
        };
        let attached = self.docker().attach_container(container, Some(options)).await;
        let attached = attached.map_err(|error| self.error("attach to the container", &error))?;
        Ok(Attached { stdin: attached.input, output: self.output(attached.output) })
    }

    /// Follows the log of a container. The first time after this daemon has started the container, the output begins
    /// with the start of the log; later, it begins when the stream is first polled.
    pub(super) fn follow_logs(&self, container: &str) -> Output {
        let is_first = self.unread_logs().remove(container);
        let tail = if is_first { "all" } else { "0" };
        let options =
            LogsOptions { follow: true, stdout: true, stderr: true, tail: tail.into(), ..LogsOptions::default() };
        self.output(self.docker().logs(container, Some(options)))
    }

    fn output(&self, output: impl Stream<Item = Result<LogOutput, bollard::errors::Error>> + Send + 'static) -> Output {
        let engine = self.clone();
        Box::pin(output.filter_map(move |item| {
            std::future::ready(match item {
                Ok(LogOutput::StdErr { message }) => Some(Ok(OutputChunk::Stderr(message))),
                Ok(LogOutput::StdOut { message } | LogOutput::Console { message }) => {
                    Some(Ok(OutputChunk::Stdout(message)))
                }
                Ok(LogOutput::StdIn { .. }) => None,
                Err(error) => Some(Err(engine.error("read the output", &error))),
            })
        }))
    }

    pub(super) async fn follow_exits(&self) -> Result<Exits, EngineError> {
        // The request is sent when the stream is first polled. Because it contains the engine's current time, no exit
        // until then is missed.
        let info = self.docker().info().await.map_err(|error| self.error("answer", &error))?;
        let mut filters = labels::filter(self.toolbox_id(), None);
        filters.insert("type".into(), vec!["container".into()]);
        filters.insert("event".into(), vec!["die".into()]);
        let since = info.system_time.as_deref().and_then(event_time);
        let events = self.docker().events(Some(EventsOptions { since, until: None, filters: Some(filters) }));
        let toolbox_id = self.toolbox_id().to_owned();
        // An error means that the engine has stopped.
        let events = events.take_while(|event| std::future::ready(event.is_ok()));
        let exits =
            events.filter_map(move |event| std::future::ready(event.ok().and_then(|event| exit(&toolbox_id, event))));
        Ok(Box::pin(exits))
    }
}

/// Returns a time of the engine in the format of the events API.
fn event_time(text: &str) -> Option<String> {
    let time = OffsetDateTime::parse(text, &Rfc3339).ok()?;
    Some(format!("{}.{:09}", time.unix_timestamp(), time.nanosecond()))
}

fn exit(toolbox_id: &str, event: EventMessage) -> Option<ContainerExit> {
    let actor = event.actor?;
    // The attributes of the event contain the labels of the container.
    let attributes: HashMap<String, String> = actor.attributes?;
    let labels = labels::parse(toolbox_id, &attributes)?;
    Some(ContainerExit {
        container: actor.id?,
        instance_id: labels.instance_id,
        exit_code: attributes.get("exitCode").and_then(|code| code.parse().ok()).unwrap_or(-1),
    })
}

/// Returns the resource usage from the statistics of the engine.
pub fn usage(stats: &ContainerStatsResponse) -> Usage {
    let memory = stats.memory_stats.as_ref();
    // The names in control groups version 1 and version 2.
    let cache = memory
        .and_then(|memory| memory.stats.as_ref())
        .and_then(|stats| stats.get("total_inactive_file").or_else(|| stats.get("inactive_file")));
    let networks = || stats.networks.iter().flat_map(HashMap::values);
    Usage {
        cpu_nanoseconds: stats
            .cpu_stats
            .as_ref()
            .and_then(|cpu| cpu.cpu_usage.as_ref()?.total_usage)
            .unwrap_or_default(),
        memory_bytes: memory
            .and_then(|memory| memory.usage)
            .unwrap_or_default()
            .saturating_sub(cache.copied().unwrap_or_default()),
        network_received_bytes: networks().filter_map(|network| network.rx_bytes).sum(),
        network_sent_bytes: networks().filter_map(|network| network.tx_bytes).sum(),
        pids: stats.pids_stats.as_ref().and_then(|pids| pids.current).unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usage_is_without_the_page_cache() {
        let stats = |key: &str| -> ContainerStatsResponse {
            serde_json::from_value(serde_json::json!({
                "cpu_stats": {"cpu_usage": {"total_usage": 5}},
                "memory_stats": {"usage": 100, "stats": {key: 30}},
                "networks": {"eth0": {"rx_bytes": 1, "tx_bytes": 2}, "eth1": {"rx_bytes": 10, "tx_bytes": 20}},
                "pids_stats": {"current": 3},
            }))
            .unwrap()
        };
        let expected =
            Usage { cpu_nanoseconds: 5, memory_bytes: 70, network_received_bytes: 11, network_sent_bytes: 22, pids: 3 };
        assert_eq!(usage(&stats("total_inactive_file")), expected);
        assert_eq!(usage(&stats("inactive_file")), expected);
        assert_eq!(usage(&ContainerStatsResponse::default()), Usage::default());
    }

    #[test]
    fn times_of_events_have_nanoseconds() {
        assert_eq!(event_time("2026-11-24T20:10:00.000000001Z").as_deref(), Some("1795551000.000000001"));
    }
}
