//! Diagnostics of a running daemon for the operator of the machine: counters and a snapshot of its state.
//!
//! Counters use the `metrics` facade. Without a recorder, counting does nothing and needs no memory. State that can be
//! looked up is not counted, but read on request ([`Diagnostics::snapshot`]).

use std::fmt;
use std::sync::{Arc, OnceLock};

use metrics::{describe_counter, describe_gauge};
use waypost_toolbox_proto::instance::InstanceState;
use waypost_toolbox_proto::message::InstanceReport;

use crate::link::Status;

/// The state of the daemon.
#[derive(Debug, Clone, PartialEq)]
pub struct Snapshot {
    /// The state of the link.
    pub link: Status,
    /// Whether the container engine answered when it was last used.
    pub is_engine_reachable: bool,
    /// The observed state of every instance.
    pub instances: Vec<InstanceReport>,
    /// The number of events that the control plane has not acknowledged.
    pub queued_events: usize,
}

impl Snapshot {
    /// Sets the gauges. States that no instance has are 0.
    pub fn record(&self) {
        metrics::gauge!("waypost_daemon_link_online").set(number(self.link == Status::Online));
        metrics::gauge!("waypost_daemon_engine_reachable").set(number(self.is_engine_reachable));
        metrics::gauge!("waypost_daemon_events_queued").set(self.queued_events as f64);
        for state in InstanceState::ALL {
            let count = self.instances.iter().filter(|report| report.state == *state).count();
            metrics::gauge!("waypost_daemon_instances", "state" => state.as_str()).set(count as f64);
        }
    }

    /// Returns the problems that prevent the daemon from working, each as one line.
    #[must_use]
    pub fn problems(&self) -> Vec<&'static str> {
        let link = match self.link {
            Status::Online => None,
            Status::Connecting => Some("there is no link to the control plane"),
            Status::Unauthorized(_) => Some("the control plane rejects this toolbox"),
        };
        let engine = (!self.is_engine_reachable).then_some("the container engine cannot be reached");
        link.into_iter().chain(engine).collect()
    }
}

fn number(is_true: bool) -> f64 {
    f64::from(u8::from(is_true))
}

type Source = Box<dyn Fn() -> Snapshot + Send + Sync>;

/// Gives access to the state of the daemon once it is running. Cheap to clone; clones share the same daemon.
#[derive(Clone, Default)]
pub struct Diagnostics(Arc<OnceLock<Source>>);

impl fmt::Debug for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Diagnostics").finish_non_exhaustive()
    }
}

impl Diagnostics {
    /// Returns the state of the daemon. `None` until it has started.
    #[must_use]
    pub fn snapshot(&self) -> Option<Snapshot> {
        self.0.get().map(|source| source())
    }

    /// Sets the source of the state. Called by the daemon when it starts; only the first call has an effect.
    pub fn set_source(&self, source: impl Fn() -> Snapshot + Send + Sync + 'static) {
        _ = self.0.set(Box::new(source));
    }
}

/// Describes the metrics of the daemon. Must be called after the recorder has been installed.
pub fn describe() {
    describe_gauge!("waypost_daemon_link_online", "1 while the link to the control plane is open");
    describe_gauge!("waypost_daemon_engine_reachable", "1 while the container engine can be reached");
    describe_gauge!("waypost_daemon_events_queued", "Events that the control plane has not acknowledged");
    describe_gauge!("waypost_daemon_instances", "Instances of this toolbox, by state");
    describe_counter!("waypost_daemon_links_opened_total", "Links to the control plane that were opened");
    describe_counter!("waypost_daemon_calls_total", "Messages to tool servers, by the status of the response");
    describe_counter!("waypost_daemon_crashes_total", "Tool servers that ended unexpectedly, and are started again");
    describe_counter!(
        "waypost_daemon_engine_operations_total",
        "Operations of the container engine, by operation and outcome (ok, or the code of the error)"
    );
}

#[cfg(test)]
mod tests {
    use metrics_exporter_prometheus::PrometheusBuilder;

    use super::*;

    fn report(state: InstanceState) -> InstanceReport {
        InstanceReport { id: "ins_1".to_owned(), generation: 1, state, health: None }
    }

    #[test]
    fn a_snapshot_is_read_when_it_is_requested() {
        let (diagnostics, events) = (Diagnostics::default(), Arc::new(std::sync::atomic::AtomicUsize::new(1)));
        assert_eq!(diagnostics.snapshot(), None, "the daemon has not started");
        let source = Arc::clone(&events);
        diagnostics.set_source(move || Snapshot {
            link: Status::Connecting,
            is_engine_reachable: false,
            instances: Vec::new(),
            queued_events: source.load(std::sync::atomic::Ordering::Relaxed),
        });
        assert_eq!(diagnostics.snapshot().unwrap().queued_events, 1);
        events.store(7, std::sync::atomic::Ordering::Relaxed);
        let snapshot = diagnostics.clone().snapshot().unwrap();
        assert_eq!(snapshot.queued_events, 7);
        assert_eq!(
            snapshot.problems(),
            ["there is no link to the control plane", "the container engine cannot be reached"]
        );
    }

    #[test]
    fn gauges_show_every_state() {
        let recorder = PrometheusBuilder::new().build_recorder();
        let instances =
            vec![report(InstanceState::Running), report(InstanceState::Running), report(InstanceState::CrashLoop)];
        let snapshot = Snapshot { link: Status::Online, is_engine_reachable: true, instances, queued_events: 3 };
        metrics::with_local_recorder(&recorder, || {
            describe();
            snapshot.record();
        });
        let text = recorder.handle().render();
        for line in [
            "waypost_daemon_link_online 1",
            "waypost_daemon_engine_reachable 1",
            "waypost_daemon_events_queued 3",
            "waypost_daemon_instances{state=\"running\"} 2",
            "waypost_daemon_instances{state=\"crash_loop\"} 1",
            "waypost_daemon_instances{state=\"failed\"} 0",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in:\n{text}");
        }
        assert!(snapshot.problems().is_empty());
        let rejected = Snapshot { link: Status::Unauthorized("no".to_owned()), ..snapshot };
        assert_eq!(rejected.problems(), ["the control plane rejects this toolbox"]);
    }
}
