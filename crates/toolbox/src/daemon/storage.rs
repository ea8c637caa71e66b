//! The log and the statistics that the daemon stores for each instance, and the egress of its containers.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use waypost_toolbox_proto::InstanceSpec;
use waypost_toolbox_proto::http::{LogStream, StatsSample};

use super::egress::EgressTable;
use crate::clock::WallClock;
use crate::engine::{NetworkNamespace, ObservedContainer, Usage};
use crate::logs::{InstanceLog, LogOptions};
use crate::stats::StatsLog;
use crate::supervisor::Sink;
use crate::supervisor::servers::BoxFuture;

/// The logs, statistics and egress of all instances.
pub(super) struct Storage {
    data_dir: PathBuf,
    egress: EgressTable,
    clock: WallClock,
    instances: Mutex<HashMap<String, Files>>,
}

/// The open files of an instance.
struct Files {
    log: Arc<InstanceLog>,
    stats: Arc<StatsLog>,
    /// The last samples of the running containers.
    usage: BTreeMap<String, Sampled>,
}

/// The last sample of a container.
#[derive(Clone, Copy)]
struct Sampled {
    at: i64,
    usage: Usage,
    cpu_percent: f64,
}

impl Storage {
    pub(super) fn new(data_dir: &Path, egress: EgressTable, clock: WallClock) -> Self {
        Self { data_dir: data_dir.to_owned(), egress, clock, instances: Mutex::default() }
    }

    pub(super) fn egress(&self) -> &EgressTable {
        &self.egress
    }

    pub(super) fn clock(&self) -> WallClock {
        self.clock
    }

    /// Returns the log of an instance.
    pub(super) fn log(&self, instance_id: &str) -> std::io::Result<Arc<InstanceLog>> {
        self.with_files(instance_id, |files| Arc::clone(&files.log))
    }

    /// Returns the statistics of an instance.
    pub(super) fn stats(&self, instance_id: &str) -> std::io::Result<Arc<StatsLog>> {
        self.with_files(instance_id, |files| Arc::clone(&files.stats))
    }

    fn instances(&self) -> MutexGuard<'_, HashMap<String, Files>> {
        self.instances.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn with_files<T>(&self, instance_id: &str, work: impl FnOnce(&mut Files) -> T) -> std::io::Result<T> {
        let mut instances = self.instances();
        if let Some(files) = instances.get_mut(instance_id) {
            return Ok(work(files));
        }
        let folder = self.data_dir.join("instances").join(instance_id);
        crate::files::create_folder(&folder)?;
        let log = InstanceLog::open(&folder.join("log"), LogOptions::default(), self.clock)?;
        let stats = Arc::new(StatsLog::open(&folder.join("stats"))?);
        let files = Files { log, stats, usage: BTreeMap::new() };
        Ok(work(instances.entry(instance_id.to_owned()).or_insert(files)))
    }
}

impl Sink for Storage {
    fn opened<'a>(
        &'a self,
        container: &'a ObservedContainer,
        spec: &'a InstanceSpec,
        namespace: NetworkNamespace,
    ) -> BoxFuture<'a, Result<(), String>> {
        Box::pin(async move {
            let opened = self.egress.open(container, spec, namespace).await;
            opened.map_err(|error| format!("The egress of the container cannot be opened: {error}."))
        })
    }

    fn closed(&self, instance_id: &str, container_id: &str) {
        self.egress.close(container_id);
        if let Some(files) = self.instances().get_mut(instance_id) {
            files.usage.remove(container_id);
        }
    }

    fn usage(&self, instance_id: &str, container_id: &str, usage: Usage) {
        let at = (self.clock)();
        let stored = self.with_files(instance_id, |files| {
            let previous = files.usage.get(container_id).copied();
            files.usage.insert(container_id.to_owned(), sample(previous, at, usage));
            // The containers are sampled one after another. The sample of the first one stores the sum.
            let is_first = files.usage.keys().next().is_some_and(|first| first == container_id);
            if is_first { files.stats.append(&sum(at, files.usage.values())) } else { Ok(()) }
        });
        if let Err(error) = stored.and_then(|stored| stored) {
            tracing::warn!(instance = instance_id, %error, "failed to store the statistics of an instance");
        }
    }

    fn log(&self, instance_id: &str, _container_id: Option<&str>, stream: LogStream, text: &str) {
        match self.log(instance_id) {
            // The supervisor has masked the secrets.
            Ok(log) => log.writer(stream, &[]).line(text),
            Err(error) => tracing::warn!(instance = instance_id, %error, "failed to open the log of an instance"),
        }
    }

    fn removed(&self, instance_id: &str) {
        self.instances().remove(instance_id);
    }
}

/// Returns the sample of a container with its CPU time since the previous one.
fn sample(previous: Option<Sampled>, at: i64, usage: Usage) -> Sampled {
    let cpu_percent = previous.filter(|previous| at > previous.at).map_or(0.0, |previous| {
        let nanoseconds = usage.cpu_nanoseconds.saturating_sub(previous.usage.cpu_nanoseconds) as f64;
        let milliseconds = (at - previous.at) as f64;
        nanoseconds / (milliseconds * 1_000_000.0) * 100.0
    });
    Sampled { at, usage, cpu_percent }
}

/// Returns the sum over the containers of an instance.
fn sum<'a>(at: i64, samples: impl Iterator<Item = &'a Sampled>) -> StatsSample {
    let zero = StatsSample {
        at,
        cpu_percent: 0.0,
        memory_bytes: 0,
        network_received_bytes: 0,
        network_sent_bytes: 0,
        pids: 0,
    };
    samples.fold(zero, |total, Sampled { usage, cpu_percent, .. }| StatsSample {
        at,
        cpu_percent: total.cpu_percent + cpu_percent,
        memory_bytes: total.memory_bytes + usage.memory_bytes,
        network_received_bytes: total.network_received_bytes + usage.network_received_bytes,
        network_sent_bytes: total.network_sent_bytes + usage.network_sent_bytes,
        pids: total.pids + usage.pids,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_time_is_in_percent_of_one_cpu_since_the_previous_sample() {
        let usage = |cpu_nanoseconds| Usage { cpu_nanoseconds, memory_bytes: 10, pids: 1, ..Usage::default() };
        let first = sample(None, 1_000, usage(5_000_000_000));
        let second = sample(Some(first), 31_000, usage(20_000_000_000));
        assert!((first.cpu_percent, second.cpu_percent) == (0.0, 50.0), "{} {}", first.cpu_percent, second.cpu_percent);
        let total = sum(31_000, [second, second].iter());
        assert_eq!((total.cpu_percent, total.memory_bytes, total.pids), (100.0, 20, 2));
        // The counter of a replaced container starts again at zero.
        assert!(sample(Some(second), 61_000, usage(0)).cpu_percent.abs() < f64::EPSILON);
    }
}
