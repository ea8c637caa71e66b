//! The levels of log messages (2025-11-25, "Logging"), which are those of RFC 5424.

use crate::strict::text_of;

/// The level of a log message, from the least to the most severe.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogLevel {
    /// `debug`.
    Debug,
    /// `info`.
    Info,
    /// `notice`.
    Notice,
    /// `warning`.
    Warning,
    /// `error`.
    Error,
    /// `critical`.
    Critical,
    /// `alert`.
    Alert,
    /// `emergency`.
    Emergency,
}

impl LogLevel {
    const ALL: [Self; 8] = [
        Self::Debug,
        Self::Info,
        Self::Notice,
        Self::Warning,
        Self::Error,
        Self::Critical,
        Self::Alert,
        Self::Emergency,
    ];

    /// Parses the JSON text of a level. Returns `None` if it is missing or unknown.
    #[must_use]
    pub fn parse(raw: Option<&str>) -> Option<Self> {
        let text = text_of(raw)?;
        Self::ALL.into_iter().find(|level| level.as_str() == text)
    }

    /// Returns the name of the level in the protocol.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Notice => "notice",
            Self::Warning => "warning",
            Self::Error => "error",
            Self::Critical => "critical",
            Self::Alert => "alert",
            Self::Emergency => "emergency",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_read_as_the_protocol_writes_them() {
        for level in LogLevel::ALL {
            assert_eq!(LogLevel::parse(Some(&format!("\"{}\"", level.as_str()))), Some(level));
        }
        for unknown in [None, Some("\"Debug\""), Some("debug"), Some("7"), Some("null")] {
            assert_eq!(LogLevel::parse(unknown), None);
        }
        assert!(LogLevel::Debug < LogLevel::Emergency);
    }
}
