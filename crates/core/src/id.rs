//! Prefixed identifiers: `prefix_` and 16 or more characters of lower-case Crockford base 32.

use std::fmt;
use std::str::FromStr;

use data_encoding::{Encoding, Specification};
use std::sync::LazyLock;

use crate::clock::Timestamp;
use crate::random::Random;

/// Crockford's alphabet: no `i`, `l`, `o`, `u`, so that an identifier survives being read aloud.
static BASE32: LazyLock<Encoding> = LazyLock::new(|| {
    let mut specification = Specification::new();
    specification.symbols.push_str("0123456789abcdefghjkmnpqrstvwxyz");
    #[expect(clippy::expect_used, reason = "a constant that the tests below run through")]
    specification.encoding().expect("32 distinct symbols")
});

/// `bytes` in lower-case Crockford base 32.
#[must_use]
pub fn base32(bytes: &[u8]) -> String {
    BASE32.encode(bytes)
}

/// 80 random bits, 16 characters: for things that are few and whose age is nobody's business.
fn random_part(random: &dyn Random) -> String {
    let mut bytes = [0_u8; 10];
    random.fill(&mut bytes);
    base32(&bytes)
}

/// 48 bits of time and 72 random bits, 24 characters that sort by time: for rows that are many, because ordered keys
/// keep the index pages that are written few.
fn ordered_part(now: Timestamp, random: &dyn Random) -> String {
    let mut bytes = [0_u8; 15];
    bytes[..6].copy_from_slice(&now.0.to_be_bytes()[2..]);
    random.fill(&mut bytes[6..]);
    base32(&bytes)
}

/// Why a text is no identifier of the expected kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected an identifier that begins with `{prefix}`")]
pub struct InvalidId {
    /// The prefix that the kind has, with its underscore.
    pub prefix: &'static str,
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $prefix:literal, $kind:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
        #[serde(transparent)]
        pub struct $name(String);

        impl $name {
            /// What every identifier of this kind begins with.
            pub const PREFIX: &'static str = $prefix;

            id!(@new $kind);

            /// The text, prefix included.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }

            /// Takes a text that the store gave back, without checking it again.
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
                let fine = (12..=40).contains(&rest.len()) && rest.bytes().all(|b| b.is_ascii_alphanumeric());
                if fine { Ok(Self(text.to_owned())) } else { Err(InvalidId { prefix: $prefix }) }
            }
        }
    };
    (@new random) => {
        /// A new identifier.
        #[must_use]
        pub fn new(random: &dyn Random) -> Self {
            Self(format!("{}{}", Self::PREFIX, random_part(random)))
        }
    };
    (@new ordered) => {
        /// A new identifier that sorts after those of earlier milliseconds.
        #[must_use]
        pub fn new(now: Timestamp, random: &dyn Random) -> Self {
            Self(format!("{}{}", Self::PREFIX, ordered_part(now, random)))
        }

        /// What no identifier that was made at `time` or later sorts before, and every earlier one does: for finding
        /// rows by time through the index of their ids.
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
id!(/// A step of a walkthrough, the same in the draft and in every version.
    StepId, "ws_", random);
id!(/// A published, immutable version of a walkthrough.
    VersionId, "wv_", random);
id!(/// An assignment: a walkthrough on a server.
    AssignmentId, "msw_", random);
id!(/// One attempt of one end user at one walkthrough on one server.
    ProgressId, "wp_", ordered);
id!(/// A recorded tool call.
    ToolCallId, "tc_", ordered);
id!(/// An event in the life of an attempt.
    EventId, "ev_", ordered);
id!(/// An API key.
    ApiKeyId, "key_", random);
id!(/// An entry of the audit log.
    AuditEventId, "aud_", ordered);
id!(/// An identity provider of an organisation.
    OauthConfigId, "oac_", random);
id!(/// An identity of an end user: issuer and subject.
    IdentityId, "idn_", ordered);
id!(/// Waypost's own account of an end user.
    AccountId, "acc_", random);
id!(/// A request at the authorization endpoint, while its user signs in and consents.
    AuthorizationRequestId, "arq_", ordered);
id!(/// A one-time code by mail.
    EmailCodeId, "ecd_", ordered);
id!(/// What a user allowed a client, with the tokens that came of it.
    OauthGrantId, "ogr_", ordered);
id!(/// Anonymous progress that became that of a signed-in user.
    JoinId, "joi_", ordered);
id!(/// A signed-in browser of a user.
    UserSessionId, "uss_", ordered);
id!(/// A one-time code or link for a user, by mail.
    UserCodeId, "uco_", ordered);
id!(/// An invitation to an organisation.
    InvitationId, "inv_", ordered);
id!(/// A support ticket.
    TicketId, "tkt_", ordered);
id!(/// A comment on a ticket.
    TicketCommentId, "tkc_", ordered);
id!(/// An email that waits to be sent.
    EmailId, "eml_", ordered);
id!(/// A receiver of outgoing webhooks.
    WebhookId, "whk_", random);
id!(/// A message to such a receiver.
    WebhookDeliveryId, "whd_", ordered);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::SeededRandom;

    #[test]
    fn has_prefix_and_length() {
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
