//! The filter of the page, as query parameters.

use serde::Deserialize;
use url::form_urlencoded::Serializer;
use waypost_core::analytics::{DAY_MS, TimeRange};
use waypost_core::{Error, Result, Timestamp};
use waypost_ops::analytics::{self, AnalyticsQuery};

use crate::form::parse_day;

/// The value and label of each range.
pub(super) const RANGES: [(&str, &str); 6] = [
    ("1", "Last 24 hours"),
    ("7", "Last 7 days"),
    ("30", "Last 30 days"),
    ("90", "Last 90 days"),
    ("365", "Last 365 days"),
    ("custom", "Custom range"),
];

/// The query parameters.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct AnalyticsFilter {
    pub(super) range: String,
    pub(super) from: String,
    pub(super) to: String,
    pub(super) server: String,
    pub(super) walkthrough: String,
    pub(super) version: String,
    pub(super) client: String,
    pub(super) format: String,
}

impl AnalyticsFilter {
    /// Returns the selected range: the parameter `range` if set, otherwise `custom` if a day is set, otherwise `30`.
    pub(super) fn range(&self) -> &str {
        match self.range.as_str() {
            "" if !self.from.is_empty() || !self.to.is_empty() => "custom",
            "" => "30",
            range => range,
        }
    }

    /// Converts the filter to a query. The time zone is UTC.
    ///
    /// # Errors
    /// `invalid_arguments` if the range or a day is invalid. `not_found` if an ID or the version is malformed.
    pub(super) fn to_query(&self, now: Timestamp) -> Result<AnalyticsQuery> {
        let range = match self.range() {
            "custom" => {
                // The last day is included.
                let to = parse_day("to", &self.to)?.map_or(now, |at| at.plus(DAY_MS));
                let from = parse_day("from", &self.from)?.unwrap_or(to.plus(-30 * DAY_MS));
                TimeRange { from, to }
            }
            preset if RANGES.iter().any(|(value, _)| *value == preset) => {
                analytics::last_days(now, preset.parse().unwrap_or(30))
            }
            _ => return Err(Error::invalid("range", "Select one of the periods.")),
        };
        let version = match (self.version.as_str(), self.walkthrough.is_empty()) {
            // Ignores a version without a walkthrough.
            ("", _) | (_, true) => None,
            (text, false) => Some(text.parse().map_err(|_| Error::not_found("version"))?),
        };
        let id = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        Ok(AnalyticsQuery {
            range,
            server_id: id(&self.server).map(|text| text.parse().map_err(|_| Error::not_found("server"))).transpose()?,
            walkthrough_id: id(&self.walkthrough)
                .map(|text| text.parse().map_err(|_| Error::not_found("walkthrough")))
                .transpose()?,
            version,
            client: id(&self.client),
        })
    }

    /// Returns the filter as a query string, with `format` unless it is empty.
    pub(super) fn query(&self, format: &str) -> String {
        let fields = [
            ("range", self.range()),
            ("from", &self.from),
            ("to", &self.to),
            ("server", &self.server),
            ("walkthrough", &self.walkthrough),
            ("version", &self.version),
            ("client", &self.client),
            ("format", format),
        ];
        Serializer::new(String::new()).extend_pairs(fields.into_iter().filter(|(_, value)| !value.is_empty())).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_custom_range_includes_its_last_day() {
        let fields =
            AnalyticsFilter { from: "2026-01-01".into(), to: "2026-01-01".into(), ..AnalyticsFilter::default() };
        let range = fields.to_query(Timestamp(0)).unwrap().range;
        assert_eq!(range.to.since(range.from), DAY_MS);
        assert!(AnalyticsFilter { range: "x".into(), ..AnalyticsFilter::default() }.to_query(Timestamp(0)).is_err());
        assert!(
            AnalyticsFilter { from: "yesterday".into(), ..AnalyticsFilter::default() }.to_query(Timestamp(0)).is_err()
        );
    }

    #[test]
    fn links_keep_the_filter() {
        let fields = AnalyticsFilter { client: "a & b".into(), ..AnalyticsFilter::default() };
        assert_eq!(fields.query("csv"), "range=30&client=a+%26+b&format=csv");
    }
}
