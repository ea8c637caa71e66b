//! The changes that polls have detected, by organisation.
//!
//! Invariants, with the numbers of [`waypost_store::config_version`]:
//! 1. A value that was read after the number `n` had been polled contains every change up to `n`.
//! 2. It is current as long as no poll has detected a change of its organisation with a number above `n`.
//! 3. A change is signalled only after values from before it are no longer current.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError, RwLock, RwLockReadGuard};

use tokio::sync::watch;
use waypost_core::id::OrganizationId;
use waypost_store::config_version::ConfigVersion;

/// The maximum number of organisations whose last change is known. If there are more, everything is evicted once.
const ORGANIZATIONS: usize = 10_000;

/// The result of a poll.
pub(super) struct Poll {
    pub(super) version: ConfigVersion,
    /// The organisations that changed since the last poll, with the numbers of their changes.
    pub(super) changed: Vec<(OrganizationId, i64)>,
    /// Whether `changed` contains all of them.
    pub(super) is_complete: bool,
}

/// The changes that polls have detected.
#[derive(Default)]
pub(super) struct Changes {
    detected: RwLock<DetectedChanges>,
    /// Contains the organisations of open streams.
    signals: Mutex<HashMap<OrganizationId, watch::Sender<i64>>>,
}

#[derive(Default)]
struct DetectedChanges {
    newest: i64,
    /// The number of the last change that may concern every organisation.
    everything: i64,
    /// The number of changes that are not recorded for a single organisation.
    unrecorded: i64,
    organizations: HashMap<OrganizationId, i64>,
}

/// The organisations that are affected by a poll.
#[derive(Debug, PartialEq, Eq)]
enum AffectedOrganizations {
    All,
    Some(Vec<OrganizationId>),
}

impl DetectedChanges {
    fn last_change(&self, organization: &OrganizationId) -> i64 {
        self.organizations.get(organization).map_or(self.everything, |number| self.everything.max(*number))
    }

    /// Applies a poll. Polls can overlap, so an older one may come later: numbers never decrease.
    fn apply(&mut self, poll: Poll) -> AffectedOrganizations {
        let numbers = poll.changed.iter().map(|(_, number)| *number);
        let newest = numbers.chain([poll.version.version]).fold(self.newest, i64::max);
        // If the number has not increased, every change is already known.
        let is_unknown = !poll.is_complete && newest > self.newest;
        self.newest = newest;
        let unrecorded = poll.version.unrecorded_changes();
        if unrecorded > self.unrecorded || is_unknown {
            self.unrecorded = self.unrecorded.max(unrecorded);
            return self.affect_all();
        }
        let mut affected = Vec::new();
        for (organization, number) in poll.changed {
            if number > self.last_change(&organization) {
                affected.push(organization.clone());
                self.organizations.insert(organization, number);
            }
        }
        if self.organizations.len() > ORGANIZATIONS {
            return self.affect_all();
        }
        AffectedOrganizations::Some(affected)
    }

    fn affect_all(&mut self) -> AffectedOrganizations {
        self.everything = self.newest;
        self.organizations.clear();
        AffectedOrganizations::All
    }
}

impl Changes {
    fn detected(&self) -> RwLockReadGuard<'_, DetectedChanges> {
        self.detected.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the number of the last detected change; 0 before the first poll.
    pub(super) fn newest(&self) -> i64 {
        self.detected().newest
    }

    /// Whether a value of `organization` that was read after `number` had been polled is current.
    pub(super) fn is_current(&self, organization: &OrganizationId, number: i64) -> bool {
        number >= self.detected().last_change(organization)
    }

    /// Applies a poll and signals the organisations that changed.
    pub(super) fn apply(&self, poll: Poll) {
        let (affected, newest) = {
            let mut detected = self.detected.write().unwrap_or_else(PoisonError::into_inner);
            (detected.apply(poll), detected.newest)
        };
        let signals = self.signals.lock().unwrap_or_else(PoisonError::into_inner);
        let affected: Vec<_> = match &affected {
            AffectedOrganizations::All => signals.values().collect(),
            AffectedOrganizations::Some(organizations) => {
                organizations.iter().filter_map(|id| signals.get(id)).collect()
            }
        };
        for signal in affected {
            signal.send_replace(newest);
        }
    }

    /// Returns a receiver that is notified of every later change of an organisation.
    pub(super) fn subscribe(&self, organization: &OrganizationId) -> watch::Receiver<i64> {
        let mut signals = self.signals.lock().unwrap_or_else(PoisonError::into_inner);
        signals.retain(|_, signal| signal.receiver_count() > 0);
        signals.entry(organization.clone()).or_insert_with(|| watch::Sender::new(0)).subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn org(n: usize) -> OrganizationId {
        OrganizationId::from_store(format!("org_{n}"))
    }

    /// A poll that has found `changed`, with `version` changes of which one is not recorded for an organisation.
    fn poll(version: i64, changed: &[(usize, i64)]) -> Poll {
        Poll {
            version: ConfigVersion { version, recorded_changes: version - 1 },
            changed: changed.iter().map(|(n, number)| (org(*n), *number)).collect(),
            is_complete: true,
        }
    }

    #[test]
    fn only_values_from_before_the_change_of_their_organisation_are_outdated() {
        let changes = Changes::default();
        changes.apply(poll(5, &[]));
        assert!(
            changes.is_current(&org(1), 5) && !changes.is_current(&org(1), 4),
            "values from before the first poll are outdated"
        );
        changes.apply(poll(7, &[(1, 6), (2, 7)]));
        assert_eq!(changes.newest(), 7);
        assert!(!changes.is_current(&org(1), 5) && changes.is_current(&org(1), 6));
        assert!(!changes.is_current(&org(2), 6) && changes.is_current(&org(2), 7));
        assert!(changes.is_current(&org(3), 5), "organisation 3 did not change");
    }

    #[test]
    fn a_poll_that_is_applied_late_changes_nothing() {
        let changes = Changes::default();
        changes.apply(poll(5, &[]));
        changes.apply(poll(8, &[(1, 6), (2, 8)]));
        let signal = changes.subscribe(&org(2));
        changes.apply(poll(7, &[(1, 6), (2, 7)]));
        assert_eq!(changes.newest(), 8);
        assert!(changes.is_current(&org(2), 8) && !changes.is_current(&org(2), 7));
        assert!(!signal.has_changed().unwrap());
    }

    #[test]
    fn a_change_that_is_listed_before_its_number_is_polled_counts() {
        let changes = Changes::default();
        changes.apply(poll(5, &[]));
        changes.apply(poll(6, &[(1, 6), (2, 7)]));
        assert_eq!(changes.newest(), 7, "values that are read now contain it");
        assert!(changes.is_current(&org(2), 7) && !changes.is_current(&org(2), 6));
    }

    #[test]
    fn an_unrecorded_change_affects_every_organisation() {
        let changes = Changes::default();
        changes.apply(poll(5, &[]));
        let signals = [changes.subscribe(&org(1)), changes.subscribe(&org(2))];
        changes.apply(Poll { version: ConfigVersion { version: 7, recorded_changes: 5 }, ..poll(7, &[(1, 6)]) });
        for n in [1, 2, 3] {
            assert!(!changes.is_current(&org(n), 6) && changes.is_current(&org(n), 7));
        }
        assert!(signals.iter().all(|signal| signal.has_changed().unwrap()));
        changes.apply(Poll { version: ConfigVersion { version: 8, recorded_changes: 6 }, ..poll(8, &[(1, 8)]) });
        assert!(changes.is_current(&org(2), 7), "only once");
    }

    #[test]
    fn an_incomplete_poll_affects_every_organisation() {
        let changes = Changes::default();
        changes.apply(poll(5, &[]));
        changes.apply(Poll { is_complete: false, ..poll(9, &[(1, 6)]) });
        assert!(!changes.is_current(&org(2), 8) && changes.is_current(&org(2), 9));
    }

    #[test]
    fn the_number_of_known_organisations_is_bounded() {
        let changes = Changes::default();
        changes.apply(poll(1, &[]));
        let mut number = 1;
        for n in 0..=ORGANIZATIONS {
            number += 1;
            changes.apply(poll(number, &[(n, number)]));
        }
        assert_eq!(changes.detected().organizations.len(), 0);
        assert!(!changes.is_current(&org(0), number - 1) && changes.is_current(&org(0), number));
    }

    #[test]
    fn only_the_streams_of_the_changed_organisation_are_signalled() {
        let changes = Changes::default();
        changes.apply(poll(5, &[]));
        let (one, two) = (changes.subscribe(&org(1)), changes.subscribe(&org(2)));
        changes.apply(poll(6, &[(1, 6)]));
        assert!(one.has_changed().unwrap() && !two.has_changed().unwrap());
        drop(one);
        let _again = changes.subscribe(&org(2));
        assert_eq!(changes.signals.lock().unwrap().len(), 1, "organisations without streams are removed");
    }
}
