//! Errors of requests to daemons.

use waypost_core::error::Code;

/// Why a request has no response. The message is for users.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LinkError {
    /// There is no link to the toolbox. Nothing was sent.
    #[error("The toolbox is not connected. Check that its machine is running and can reach this server.")]
    Offline,
    /// The link was lost while the request was in progress. The daemon may have received it.
    #[error("The connection to the toolbox was lost. Try again.")]
    Interrupted,
}

impl LinkError {
    /// Returns the stable name of the reason, for responses.
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            Self::Offline => "toolbox_offline",
            Self::Interrupted => "link_interrupted",
        }
    }
}

impl From<LinkError> for waypost_core::Error {
    fn from(error: LinkError) -> Self {
        Self::new(Code::Unavailable, error.to_string()).with("reason", error.reason())
    }
}
