//! The limits of the ports, from the settings.

use std::time::Duration;

use super::body::BodyRate;
use super::{ConnectionLimits, descriptors};
use crate::config::Settings;

/// Default maximum number of connections of the main port. Each takes about 20 KB.
const DEFAULT_TOTAL: usize = 10_000;
/// Maximum number of connections of the operator's socket.
const OPERATOR_TOTAL: usize = 64;
/// Maximum number of connections of the internal port.
const INTERNAL_TOTAL: usize = 1_024;
/// Maximum number of connections of the diagnostics socket of a toolbox's daemon.
const DAEMON_TOTAL: usize = 16;
/// Maximum share of all connections per client address, so that one address cannot use all of them.
const ADDRESS_SHARE: (usize, usize) = (3, 4);

impl ConnectionLimits {
    /// Returns the limits of the main port for a limit of `files` open files.
    #[must_use]
    pub fn main(settings: &Settings, files: u64) -> Self {
        let allowed = descriptors::max_connections(files);
        let total = match count(settings.connection_limit) {
            0 => allowed.min(DEFAULT_TOTAL),
            requested if requested > allowed => {
                tracing::warn!(
                    requested,
                    allowed,
                    "the limit on open files allows fewer connections than `connection_limit`"
                );
                allowed
            }
            requested => requested,
        };
        let share = (total * ADDRESS_SHARE.0 / ADDRESS_SHARE.1).max(1);
        let per_address = match count(settings.connection_limit_per_address) {
            0 => 0,
            requested => requested.min(share),
        };
        Self { port: "main", total, per_address, ..Self::common(settings) }
    }

    /// Returns the limits of the diagnostics port.
    #[must_use]
    pub fn diagnostics(settings: &Settings) -> Self {
        let total = count(settings.diagnostics_connection_limit);
        Self { port: "diagnostics", total, per_address: 0, ..Self::common(settings) }
    }

    /// Returns the limits of the operator's socket.
    #[must_use]
    pub fn operator(settings: &Settings) -> Self {
        Self { port: "operator", total: OPERATOR_TOTAL, per_address: 0, ..Self::common(settings) }
    }

    /// Returns the limits of the internal port, whose clients are other replicas and commands of the operator.
    #[must_use]
    pub fn internal(settings: &Settings) -> Self {
        Self { port: "internal", total: INTERNAL_TOTAL, per_address: 0, ..Self::common(settings) }
    }

    /// Returns the limits of the diagnostics socket of a toolbox's daemon.
    #[must_use]
    pub fn daemon() -> Self {
        Self { port: "daemon", total: DAEMON_TOTAL, per_address: 0, ..Self::common(&Settings::default()) }
    }

    fn common(settings: &Settings) -> Self {
        let seconds = |seconds: u32| Duration::from_secs(seconds.into());
        Self {
            port: "",
            total: 0,
            per_address: 0,
            trusted_proxies: settings.trusted_proxies.clone(),
            header_timeout: seconds(settings.header_timeout_seconds),
            keep_alive: seconds(settings.keep_alive_seconds),
            response_timeout: seconds(settings.response_timeout_seconds),
            body_rate: BodyRate {
                bytes_per_second: settings.body_bytes_per_second,
                grace: seconds(settings.body_timeout_seconds),
            },
            body_memory: settings.body_memory_bytes,
            header_bytes: settings.header_limit_bytes,
            http2_streams: settings.http2_stream_limit,
            http2_resets: settings.http2_reset_limit,
        }
    }
}

fn count(limit: u32) -> usize {
    usize::try_from(limit).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limits_depend_on_the_number_of_open_files() {
        let limits = |settings: &Settings, files| {
            let limits = ConnectionLimits::main(settings, files);
            (limits.total, limits.per_address)
        };
        let mut settings = Settings::default();
        assert_eq!([1_024, 65_536].map(|files| limits(&settings, files)), [(768, 500), (10_000, 500)]);
        assert_eq!(limits(&settings, 256), (192, 144));
        (settings.connection_limit, settings.connection_limit_per_address) = (20_000, 0);
        assert_eq!([1_024, 65_536].map(|files| limits(&settings, files)), [(768, 0), (20_000, 0)]);
    }
}
