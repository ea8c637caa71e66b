//! Joining, and the handshake of the link.
//!
//! A machine joins once: `POST /toolbox/join` with the single-use token registers the public key of the daemon. After
//! that, the daemon opens the link: a WebSocket at `/toolbox/link`. The first messages are JSON in text frames:
//!
//! 1. the control plane sends a [`Challenge`] with a random nonce;
//! 2. the daemon answers with [`Hello`], which contains its signature of [`signed_text`];
//! 3. the control plane answers with [`Welcome`]: the version of the protocol, or the reason for a rejection.
//!
//! After an accepting [`Welcome`], both sides exchange binary frames only: the bytes of HTTP/2. The nonce makes a
//! signature valid for one connection only, so a recorded handshake cannot be replayed, even if the clocks of the two
//! sides differ. The origin in the signed text prevents another control plane from forwarding the challenge.

use serde::{Deserialize, Serialize};

/// The path at which a machine joins.
pub const JOIN_PATH: &str = "/toolbox/join";
/// The path of the link.
pub const LINK_PATH: &str = "/toolbox/link";
/// The prefix of a join token.
pub const TOKEN_PREFIX: &str = "wpt_";
/// The maximum size of a message of the handshake in bytes.
pub const MAX_HANDSHAKE_BYTES: usize = 4_096;
/// The time in seconds within which the handshake must be complete.
pub const HANDSHAKE_SECONDS: u64 = 10;
/// The interval between pings of the WebSocket in seconds. A side that receives nothing for three intervals closes the
/// connection.
pub const PING_SECONDS: u64 = 20;

/// The newest version of the protocol that this build speaks.
pub const NEWEST: u32 = 1;
/// The oldest version of the protocol that this build speaks: the one before [`NEWEST`], so that the control plane and
/// the daemons can be upgraded one after the other. There is no version before 1.
pub const OLDEST: u32 = 1;

/// The versions of the protocol that a side speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Versions {
    /// The oldest version.
    pub oldest: u32,
    /// The newest version.
    pub newest: u32,
}

impl Versions {
    /// The versions that this build speaks.
    pub const OWN: Self = Self { oldest: OLDEST, newest: NEWEST };

    /// Returns the newest version that both sides speak.
    ///
    /// # Errors
    /// Returns a sentence that says which side to upgrade if there is none. `self` is the control plane.
    pub fn negotiate(self, daemon: Self) -> Result<u32, String> {
        let common = self.newest.min(daemon.newest);
        if common >= self.oldest && common >= daemon.oldest {
            return Ok(common);
        }
        let outdated = if daemon.newest < self.oldest { "daemon" } else { "control plane" };
        Err(format!(
            "The control plane speaks versions {} to {} of the toolbox protocol, the daemon {} to {}. Upgrade the {outdated}.",
            self.oldest, self.newest, daemon.oldest, daemon.newest
        ))
    }
}

/// The body of `POST /toolbox/join`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinRequest {
    /// The single-use token (`wpt_…`).
    pub token: String,
    /// The daemon's Ed25519 public key: 32 bytes in base64url without padding.
    pub public_key: String,
    /// The versions of the protocol that the daemon speaks.
    pub protocol: Versions,
    /// The version of the daemon.
    pub version: String,
}

/// The successful response to [`JoinRequest`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinResponse {
    /// The ID of the toolbox (`tbx_…`).
    pub toolbox_id: String,
    /// The name of the toolbox.
    pub name: String,
}

/// The first message of the control plane.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Challenge {
    /// 32 random bytes in base64url without padding.
    pub nonce: String,
    /// The versions of the protocol that the control plane speaks.
    pub protocol: Versions,
}

/// The answer of the daemon to a [`Challenge`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// The ID of the toolbox.
    pub toolbox_id: String,
    /// The origin that the daemon connected to, such as `https://waypost.example.com`.
    pub origin: String,
    /// The signature of [`signed_text`]: 64 bytes in base64url without padding.
    pub signature: String,
    /// The versions of the protocol that the daemon speaks.
    pub protocol: Versions,
    /// The version of the daemon.
    pub version: String,
    /// A new public key that replaces the current one, after `rotate-key`; the same form as in [`JoinRequest`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_public_key: Option<String>,
}

/// The answer of the control plane to [`Hello`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "result", rename_all = "snake_case")]
pub enum Welcome {
    /// The link is open.
    Accepted {
        /// The version of the protocol that both sides use.
        version: u32,
    },
    /// The link is rejected, and the connection is closed.
    Rejected {
        /// The reason.
        reason: Rejection,
        /// A sentence for the log of the daemon.
        message: String,
    },
}

/// Why a link is rejected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rejection {
    /// The toolbox is unknown or revoked, or the signature is invalid. The response does not reveal which. Retrying is
    /// pointless.
    Unauthorized,
    /// There is no common version of the protocol.
    IncompatibleVersion,
    /// The control plane cannot accept a link at the moment. The daemon retries.
    Unavailable,
}

/// Returns the text that the daemon signs. `next_public_key` is empty if the key is not replaced.
#[must_use]
pub fn signed_text(nonce: &str, toolbox_id: &str, origin: &str, next_public_key: Option<&str>) -> String {
    format!("waypost toolbox link v1\n{nonce}\n{toolbox_id}\n{origin}\n{}", next_public_key.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn versions() -> impl Strategy<Value = Versions> {
        (0_u32..6, 0_u32..3).prop_map(|(oldest, more)| Versions { oldest, newest: oldest + more })
    }

    proptest! {
        /// The negotiated version is the newest one that both sides speak. Negotiation fails only if there is none.
        #[test]
        fn the_newest_common_version_is_used(control in versions(), daemon in versions()) {
            let common = (control.oldest..=control.newest).filter(|v| (daemon.oldest..=daemon.newest).contains(v)).max();
            prop_assert_eq!(control.negotiate(daemon).ok(), common);
        }
    }

    #[test]
    fn a_rejection_names_the_side_to_upgrade() {
        let control = Versions { oldest: 3, newest: 4 };
        let old = control.negotiate(Versions { oldest: 1, newest: 2 }).unwrap_err();
        assert!(old.ends_with("Upgrade the daemon."), "{old}");
        let new = control.negotiate(Versions { oldest: 5, newest: 6 }).unwrap_err();
        assert!(new.ends_with("Upgrade the control plane."), "{new}");
        assert_eq!(control.negotiate(Versions { oldest: 2, newest: 3 }), Ok(3));
    }

    #[test]
    fn one_version_behind_is_supported() {
        let Versions { oldest, newest } = Versions::OWN;
        assert_eq!(oldest, (newest - 1).max(1), "the version before the newest is supported, and none before it");
    }
}
