//! Claim links: personal URLs that an organisation signs, so that one end user can claim the progress recorded under a
//! label.
//!
//! A label (a tracking ID chosen by the organisation) is not a secret and can be guessed. On a server where users sign
//! in, a label alone therefore cannot claim progress; `claim~LABEL~ISSUED~EXPIRES~SIGNATURE` in its place can. The
//! signature covers the organisation, the server, the label and both times. Everywhere else, the segment identifies the
//! same user as the label alone.

use data_encoding::BASE64URL_NOPAD;

use crate::clock::Timestamp;
use crate::id::{OrganizationId, ServerId};
use crate::personal::PersonalId;
use crate::secret::{SecretKey, SecretKeys};
use crate::slug::is_tracking_id;

/// The prefix of the path segment of a claim link.
pub const PREFIX: &str = "claim~";
/// The longest lifetime of a claim link: 30 days, in milliseconds.
pub const MAX_LIFETIME_MS: i64 = 30 * 24 * 60 * 60 * 1_000;
/// The lifetime of a claim link if none is given: 7 days, in milliseconds.
pub const DEFAULT_LIFETIME_MS: i64 = 7 * 24 * 60 * 60 * 1_000;
/// The purpose of the signature.
const PURPOSE: &str = "claim link";
/// Characters of a signature: 32 bytes in base64url without padding.
const SIGNATURE_CHARS: usize = 43;
/// Maximum number of digits of a time in milliseconds.
const TIME_DIGITS: usize = 15;

/// A parsed path segment of a claim link. It proves nothing until [`Self::is_valid`] returns true.
#[derive(Clone, PartialEq, Eq)]
pub struct ClaimLink {
    /// The label whose progress can be claimed.
    pub label: String,
    /// When the link was signed.
    pub issued_at: Timestamp,
    /// The first moment at which the link no longer works.
    pub expires_at: Timestamp,
    signature: Vec<u8>,
}

impl ClaimLink {
    /// Signs a claim link for `label` on `server` that is valid for `lifetime_ms` milliseconds from `now`.
    #[must_use]
    pub fn sign(
        key: &SecretKey,
        organization: &OrganizationId,
        server: &ServerId,
        label: &str,
        now: Timestamp,
        lifetime_ms: i64,
    ) -> Self {
        let mut link =
            Self { label: label.to_owned(), issued_at: now, expires_at: now.plus(lifetime_ms), signature: Vec::new() };
        link.signature = key.sign(PURPOSE, &link.message(organization, server)).to_vec();
        link
    }

    /// Parses a path segment. Returns `None` if it does not have exactly the form of a claim link.
    #[must_use]
    pub fn parse(segment: &str) -> Option<Self> {
        let mut parts = segment.strip_prefix(PREFIX)?.rsplitn(4, '~');
        let (signature, expires_at, issued_at, label) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        if signature.len() != SIGNATURE_CHARS || !is_tracking_id(label) {
            return None;
        }
        let signature = BASE64URL_NOPAD.decode(signature.as_bytes()).ok()?;
        Some(Self { label: label.to_owned(), issued_at: time(issued_at)?, expires_at: time(expires_at)?, signature })
    }

    /// Returns the path segment.
    #[must_use]
    pub fn segment(&self) -> String {
        let signature = BASE64URL_NOPAD.encode(&self.signature);
        format!("{PREFIX}{}~{}~{}~{signature}", self.label, self.issued_at.0, self.expires_at.0)
    }

    /// Whether this installation signed the link for `server` and it has not expired. Compares in constant time.
    #[must_use]
    pub fn is_valid(
        &self,
        keys: &SecretKeys,
        organization: &OrganizationId,
        server: &ServerId,
        now: Timestamp,
    ) -> bool {
        keys.find_signing_key(PURPOSE, &self.message(organization, server), &self.signature).is_some()
            && now < self.expires_at
    }

    fn message(&self, organization: &OrganizationId, server: &ServerId) -> Vec<u8> {
        // None of the parts can contain a line break.
        format!("{organization}\n{server}\n{}\n{}\n{}", self.label, self.issued_at.0, self.expires_at.0).into_bytes()
    }
}

impl std::fmt::Debug for ClaimLink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ClaimLink(…)")
    }
}

/// Parses a time as [`ClaimLink::segment`] writes it: digits without a leading zero.
fn time(text: &str) -> Option<Timestamp> {
    let is_plain =
        text.len() <= TIME_DIGITS && text.bytes().all(|byte| byte.is_ascii_digit()) && !text.starts_with('0');
    is_plain.then(|| text.parse().ok().map(Timestamp))?
}

/// Whether `segment` is valid in a personal URL: a tracking ID or a (longer) claim link.
#[must_use]
pub fn is_personal_segment(segment: &str) -> bool {
    is_tracking_id(segment) || ClaimLink::parse(segment).is_some()
}

/// Returns the tracking ID in a segment of a personal URL: the label of a claim link (whether or not its signature is
/// valid), or any other segment unchanged.
#[must_use]
pub fn tracking_id(segment: &str) -> String {
    ClaimLink::parse(segment).map_or_else(|| segment.to_owned(), |link| link.label)
}

/// Whether a claim link can be created for `label`: a tracking ID that is neither a personal ID, which its holder can
/// claim without a link, nor a claim link itself.
#[must_use]
pub fn is_label(label: &str) -> bool {
    is_tracking_id(label) && !label.starts_with(PREFIX) && PersonalId::parse(label).is_none()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::random::SeededRandom;

    const NOW: Timestamp = Timestamp(1_800_000_000_000);

    fn keys(byte: u8) -> SecretKeys {
        SecretKey::new([byte; 32]).into()
    }

    fn of(organization: &str, server: &str) -> (OrganizationId, ServerId) {
        (OrganizationId::from_store(organization.to_owned()), ServerId::from_store(server.to_owned()))
    }

    fn signed(label: &str) -> ClaimLink {
        let (organization, server) = of("org_1", "srv_1");
        ClaimLink::sign(&keys(7).current, &organization, &server, label, NOW, 1_000)
    }

    #[test]
    fn a_link_is_valid_for_one_server_of_one_installation_until_it_expires() {
        let link = ClaimLink::parse(&signed("customer-4711").segment()).unwrap();
        assert_eq!((link.label.as_str(), link.issued_at, link.expires_at), ("customer-4711", NOW, NOW.plus(1_000)));
        let is_valid = |(organization, server): (&str, &str), byte: u8, now: Timestamp| {
            let (organization, server) = of(organization, server);
            link.is_valid(&keys(byte), &organization, &server, now)
        };
        assert!(is_valid(("org_1", "srv_1"), 7, NOW) && is_valid(("org_1", "srv_1"), 7, NOW.plus(999)));
        assert!(!is_valid(("org_1", "srv_1"), 7, NOW.plus(1_000)), "expired");
        assert!(!is_valid(("org_2", "srv_1"), 7, NOW), "another organisation");
        assert!(!is_valid(("org_1", "srv_2"), 7, NOW), "another server");
        assert!(!is_valid(("org_1", "srv_1"), 8, NOW), "another installation");
        let rotated = SecretKeys { current: SecretKey::new([8; 32]), previous: Some(SecretKey::new([7; 32])) };
        let (organization, server) = of("org_1", "srv_1");
        assert!(link.is_valid(&rotated, &organization, &server, NOW), "after a rotation");
    }

    #[test]
    fn every_modification_is_detected() {
        let (organization, server) = of("org_1", "srv_1");
        let segment = signed("a~b.c").segment();
        for at in 0..segment.len() {
            let mut changed = segment.clone().into_bytes();
            changed[at] = if changed[at] == b'1' { b'2' } else { b'1' };
            let changed = ClaimLink::parse(std::str::from_utf8(&changed).unwrap());
            assert!(
                !changed.is_some_and(|link| link.is_valid(&keys(7), &organization, &server, NOW)),
                "changed at {at}"
            );
            assert!(ClaimLink::parse(&segment[..at]).is_none(), "cut at {at}");
        }
        // Parts cannot be shifted into each other: the times are parsed from the end.
        let link = signed("a~1");
        assert_eq!(ClaimLink::parse(&link.segment()).map(|link| link.label).as_deref(), Some("a~1"));
    }

    #[test]
    fn only_labels_can_have_claim_links() {
        let longest = "x".repeat(128);
        let segment = signed(&longest).segment();
        assert!(is_personal_segment(&segment) && !is_tracking_id(&segment));
        assert_eq!(tracking_id(&segment), longest);
        assert_eq!((tracking_id("ann"), is_personal_segment("a b")), ("ann".to_owned(), false));
        assert_eq!(format!("{:?}", signed("ann")), "ClaimLink(…)");
        let personal = PersonalId::new(&SeededRandom::new(1));
        for wrong in ["", "a b", "a/b", &segment, personal.expose(), "claim~ann"] {
            assert!(!is_label(wrong), "{wrong}");
        }
        assert!(is_label("customer-4711") && is_label(&longest));
        assert!(ClaimLink::parse(&format!("claim~~1~2~{}", "A".repeat(43))).is_none(), "no label");
        assert!(ClaimLink::parse(&format!("claim~a~01~2~{}", "A".repeat(43))).is_none(), "no leading zeros");
    }

    proptest! {
        #[test]
        fn parsing_round_trips_and_never_panics(text in any::<String>(), label in "[A-Za-z0-9._~-]{1,128}") {
            let _ = ClaimLink::parse(&text);
            let link = signed(&label);
            prop_assert_eq!(ClaimLink::parse(&link.segment()), Some(link));
        }
    }
}
