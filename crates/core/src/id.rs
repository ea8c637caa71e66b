//! Prefixed identifiers: `prefix_` followed by 16 or more characters of lowercase Crockford base 32.

use std::fmt;
use std::str::FromStr;

use data_encoding::{Encoding, Specification};
use std::sync::LazyLock;

use crate::clock::Timestamp;
use crate::random::Random;

/// Crockford's alphabet, which omits `u` and the letters that resemble digits: `i`, `l` and `o`.
static BASE32: LazyLock<Encoding> = LazyLock::new(|| {
    let mut specification = Specification::new();
    specification.symbols.push_str("0123456789abcdefghjkmnpqrstvwxyz");
    #[expect(clippy::expect_used, reason = "a constant that is covered by the tests below")]
    specification.encoding().expect("32 distinct symbols")
});

/// Encodes `bytes` in lowercase Crockford base 32.
#[must_use]
pub fn base32(bytes: &[u8]) -> String {
    BASE32.encode(bytes)
}

/// Generates 80 random bits (16 characters), for low-volume objects whose age should not be revealed.
#[must_use]
pub fn random_part(random: &dyn Random) -> String {
    let mut bytes = [0_u8; 10];
    random.fill(&mut bytes);
    base32(&bytes)
}

/// Generates 48 bits of time and 72 random bits (24 characters that sort by time), for high-volume rows: ordered keys
/// reduce the number of index pages that are written.
fn ordered_part(now: Timestamp, random: &dyn Random) -> String {
    let mut bytes = [0_u8; 15];
    bytes[..6].copy_from_slice(&now.0.to_be_bytes()[2..]);
    random.fill(&mut bytes[6..]);
    base32(&bytes)
}

/// The text is not an identifier of the expected kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected an identifier that begins with `{prefix}`")]
pub struct InvalidId {
    /// The expected prefix, including the underscore.
    pub prefix: &'static str,
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $prefix:literal, $kind:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
        #[serde(transparent)]
        pub struct $name(String);

        impl $name {
            /// The prefix of every identifier of this kind.
            pub const PREFIX: &'static str = $prefix;

            id!(@new $kind);

            /// Returns the text, including the prefix.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }

            /// Wraps a text read from the store without validating it again.
            #[must_use]
            pub fn from_store(text: String) -> Self {
                Self(text)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;

            fn from_str(text: &str) -> Result<Self, InvalidId> {
                let rest = text.strip_prefix($prefix).ok_or(InvalidId { prefix: $prefix })?;
                let is_valid = (12..=40).contains(&rest.len()) && rest.bytes().all(|b| b.is_ascii_alphanumeric());
                if is_valid { Ok(Self(text.to_owned())) } else { Err(InvalidId { prefix: $prefix }) }
            }
        }
    };
    (@new random) => {
        /// Generates a new identifier.
        #[must_use]
        pub fn new(random: &dyn Random) -> Self {
            Self(format!("{}{}", Self::PREFIX, random_part(random)))
        }
    };
    (@new ordered) => {
        /// Generates a new identifier that sorts after those of earlier milliseconds.
        #[must_use]
        pub fn new(now: Timestamp, random: &dyn Random) -> Self {
            Self(format!("{}{}", Self::PREFIX, ordered_part(now, random)))
        }

        /// Returns the lower bound of all identifiers generated at `time` or later. Allows rows to be found by time
        /// through the index on their IDs.
        #[must_use]
        pub fn floor(time: Timestamp) -> Self {
            struct Zeros;
            impl Random for Zeros {
                fn fill(&self, bytes: &mut [u8]) {
                    bytes.fill(0);
                }
            }
            Self(format!("{}{}", Self::PREFIX, ordered_part(Timestamp(time.0.clamp(0, (1 << 48) - 1)), &Zeros)))
        }
    };
}

id!(/// An organisation: the tenant.
    OrganizationId, "org_", random);
id!(/// A user: a person who operates an organisation.
    UserId, "usr_", random);
id!(/// A hosted MCP server.
    ServerId, "srv_", random);
id!(/// An end user: a person who uses a server from their MCP client.
    EndUserId, "eu_", ordered);
id!(/// A client session: one handle of one end user on one server.
    SessionId, "ses_", ordered);
id!(/// A walkthrough.
    WalkthroughId, "wt_", random);
id!(/// A step of a walkthrough; the same in the draft and in every version.
    StepId, "ws_", random);
id!(/// A published, immutable version of a walkthrough.
    VersionId, "wv_", random);
id!(/// An assignment: a walkthrough on a server.
    AssignmentId, "msw_", random);
id!(/// One attempt of one end user at one walkthrough on one server.
    ProgressId, "wp_", ordered);
id!(/// A recorded tool call.
    ToolCallId, "tc_", ordered);
id!(/// An event of an attempt.
    EventId, "ev_", ordered);
id!(/// An API key.
    ApiKeyId, "key_", random);
id!(/// An entry of the audit log.
    AuditEventId, "aud_", ordered);
id!(/// An identity provider of an organisation.
    OauthConfigId, "oac_", random);
id!(/// An end user's identity: issuer and subject.
    IdentityId, "idn_", ordered);
id!(/// An end user's Waypost account.
    AccountId, "acc_", random);
id!(/// An authorization request whose user is signing in and consenting.
    AuthorizationRequestId, "arq_", ordered);
id!(/// A one-time code sent to an end user by email.
    EmailCodeId, "ecd_", ordered);
id!(/// An OAuth grant: an end user's consent for a client, with its tokens.
    OauthGrantId, "ogr_", ordered);
id!(/// A join: anonymous progress transferred to a signed-in user.
    JoinId, "joi_", ordered);
id!(/// A user's browser session.
    UserSessionId, "uss_", ordered);
id!(/// A one-time code or link sent to a user by email.
    UserCodeId, "uco_", ordered);
id!(/// An invitation to an organisation.
    InvitationId, "inv_", ordered);
id!(/// A support ticket.
    TicketId, "tkt_", ordered);
id!(/// A comment on a ticket.
    TicketCommentId, "tkc_", ordered);
id!(/// A queued email.
    EmailId, "eml_", ordered);
id!(/// A webhook.
    WebhookId, "whk_", random);
id!(/// A delivery to a webhook.
    WebhookDeliveryId, "whd_", ordered);
id!(/// A toolbox: a machine that runs tool servers.
    ToolboxId, "tbx_", random);
id!(/// A catalogue entry: a tool server that can be deployed.
    CatalogEntryId, "cat_", random);
id!(/// A version of a catalogue entry.
    CatalogVersionId, "ctv_", random);
id!(/// An instance: a deployed catalogue version.
    InstanceId, "ins_", random);
id!(/// A deployment of an instance.
    DeploymentId, "dep_", ordered);
id!(/// A secret of tool servers.
    ToolSecretId, "sec_", random);
id!(/// An event of an instance on its toolbox.
    InstanceEventId, "iev_", ordered);
id!(/// A definition of a tool server, with its approval.
    ToolApprovalId, "apr_", ordered);
id!(/// An agent: an AI client of an organisation.
    AgentId, "agt_", random);
id!(/// A token of an agent.
    AgentTokenId, "agk_", ordered);
id!(/// An agent's value for a personal secret.
    AgentSecretId, "ags_", random);
id!(/// A grant: an agent's access to an instance.
    GrantId, "grt_", ordered);
id!(/// A call through the gateway.
    CallId, "cal_", ordered);
id!(/// A tool set: a selection of tools with its own URL.
    ToolSetId, "set_", random);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::SeededRandom;

    #[test]
    fn ids_have_a_prefix_and_a_fixed_length() {
        let random = SeededRandom::new(1);
        let id = WalkthroughId::new(&random);
        assert!(id.as_str().starts_with("wt_") && id.as_str().len() == 19, "{id}");
        assert_eq!(id.as_str().parse::<WalkthroughId>(), Ok(id.clone()));
        assert_eq!(id.as_str().parse::<StepId>(), Err(InvalidId { prefix: "ws_" }));
        assert!("wt_short".parse::<WalkthroughId>().is_err());
        assert!("wt_0123456789ab/../x".parse::<WalkthroughId>().is_err());
    }

    #[test]
    fn ordered_ids_sort_by_time() {
        let random = SeededRandom::new(2);
        let ids: Vec<_> = (0..200).map(|n| EventId::new(Timestamp(1_700_000_000_000 + n), &random)).collect();
        let mut sorted = ids.clone();
        sorted.sort();
        assert_eq!(ids, sorted);
        for (n, id) in (0..).zip(&ids) {
            let at = |n: i64| EventId::floor(Timestamp(1_700_000_000_000 + n));
            assert!(at(n) <= *id && *id < at(n + 1), "{id}");
        }
        assert!(EventId::floor(Timestamp(i64::MIN)) < ids[0] && ids[199] < EventId::floor(Timestamp(i64::MAX)));
    }
}
