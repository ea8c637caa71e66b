//! Metrics of calls, per instance and tool.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use waypost_core::call::CallOutcome;
use waypost_core::id::InstanceId;

/// The maximum number of pairs of instance and tool that have their own time series. Each pair has up to 20 series.
const MAX_SERIES: usize = 200;
/// The label values of all further pairs.
const OTHER: &str = "other";
/// The label values of calls that were rejected before the gateway found an instance, so that agents cannot invent
/// labels.
const UNKNOWN: &str = "unknown";

/// The pairs of instance and tool that have their own series.
#[derive(Debug, Default)]
pub(crate) struct CallMetrics {
    series: Mutex<HashSet<(InstanceId, String)>>,
}

impl CallMetrics {
    /// Counts a call that has ended. `target` is the instance and the name of the tool; `None` if they are unknown.
    pub(crate) fn count(&self, target: Option<(&InstanceId, &str)>, outcome: CallOutcome, duration: Duration) {
        let (instance, tool) = self.labels(target);
        let labels = [("instance", instance), ("tool", tool)];
        metrics::histogram!("waypost_gateway_call_seconds", &labels).record(duration);
        let [instance, tool] = labels;
        metrics::counter!("waypost_gateway_calls_total", &[instance, tool, ("outcome", outcome.as_str().to_owned())])
            .increment(1);
    }

    fn labels(&self, target: Option<(&InstanceId, &str)>) -> (String, String) {
        let Some((instance, tool)) = target else { return (UNKNOWN.to_owned(), UNKNOWN.to_owned()) };
        let pair = (instance.clone(), tool.to_owned());
        let mut series = self.series.lock().unwrap_or_else(PoisonError::into_inner);
        if !series.contains(&pair) {
            if series.len() >= MAX_SERIES {
                return (OTHER.to_owned(), OTHER.to_owned());
            }
            series.insert(pair.clone());
        }
        (pair.0.to_string(), pair.1)
    }
}

#[cfg(test)]
mod tests {
    use metrics_exporter_prometheus::PrometheusBuilder;

    use super::*;

    #[test]
    fn calls_are_counted_by_instance_tool_and_outcome() {
        let recorder = PrometheusBuilder::new().build_recorder();
        let instance = InstanceId::from_store("ins_1".to_owned());
        metrics::with_local_recorder(&recorder, || {
            let metrics = CallMetrics::default();
            metrics.count(Some((&instance, "find")), CallOutcome::Ok, Duration::from_millis(3));
            metrics.count(Some((&instance, "find")), CallOutcome::TimedOut, Duration::from_secs(30));
            metrics.count(None, CallOutcome::Denied, Duration::ZERO);
        });
        let text = recorder.handle().render();
        for line in [
            r#"waypost_gateway_calls_total{instance="ins_1",tool="find",outcome="ok"} 1"#,
            r#"waypost_gateway_calls_total{instance="ins_1",tool="find",outcome="timed_out"} 1"#,
            r#"waypost_gateway_calls_total{instance="unknown",tool="unknown",outcome="denied"} 1"#,
            r#"waypost_gateway_call_seconds_count{instance="ins_1",tool="find"} 2"#,
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in:\n{text}");
        }
    }

    #[test]
    fn the_number_of_series_is_bounded() {
        let metrics = CallMetrics::default();
        let instance = InstanceId::from_store("ins_1".to_owned());
        let labels = |tool: &str| metrics.labels(Some((&instance, tool)));
        let own = |tool: &str| ("ins_1".to_owned(), tool.to_owned());
        for n in 0..MAX_SERIES {
            assert_eq!(labels(&n.to_string()), own(&n.to_string()));
        }
        assert_eq!(labels("further"), (OTHER.to_owned(), OTHER.to_owned()));
        assert_eq!(labels("0"), own("0"), "earlier pairs keep their series");
        assert_eq!(metrics.labels(None), (UNKNOWN.to_owned(), UNKNOWN.to_owned()));
        assert_eq!(metrics.series.lock().unwrap().len(), MAX_SERIES);
    }
}
