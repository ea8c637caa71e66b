//! Attribution of requests from a server to calls, on a connection that calls share (stdio and SSE).
//!
//! No revision of the protocol has a member that identifies the call. In particular, `progressToken` in a request from
//! the server is a number that the server has chosen itself, and can be equal to the ID of any call.
//!
//! Invariant: no caller gets a request that was caused by a call of another caller. A request can only be caused by a
//! call that the server may be processing. It is attributed if exactly one call is running, and all calls that were
//! abandoned without a response are of the same caller: a server may ignore the cancellation of a call, and send a
//! request later.

use std::collections::HashMap;
use std::sync::Arc;

/// The maximum number of abandoned calls that are remembered individually.
const MAX_CALLS: usize = 1_024;

/// Calls that no caller waits for any more, although the server may still be processing them.
#[derive(Debug, Default)]
pub(super) struct AbandonedCalls {
    /// Whether different callers use the server.
    is_shared: bool,
    /// The callers of the calls by ID.
    callers: HashMap<u64, Option<Arc<str>>>,
    /// Whether there may be further abandoned calls, of any caller.
    has_unknown: bool,
}

impl AbandonedCalls {
    /// Creates the list for a connection. If the connection continues a session of an earlier process of the daemon,
    /// that process may have abandoned calls.
    pub(super) fn new(is_shared: bool, is_continued: bool) -> Self {
        Self { is_shared, callers: HashMap::new(), has_unknown: is_continued }
    }

    /// Adds a call.
    pub(super) fn add(&mut self, id: u64, caller: Option<Arc<str>>) {
        if !self.is_shared {
        } else if self.callers.len() < MAX_CALLS {
            self.callers.insert(id, caller);
        } else {
            self.has_unknown = true;
        }
    }

    /// Removes a call, because the server has responded to it.
    pub(super) fn remove(&mut self, id: u64) {
        self.callers.remove(&id);
    }

    /// Whether all abandoned calls are calls of this caller.
    pub(super) fn are_all_of(&self, caller: Option<&str>) -> bool {
        let is_same = |other: &Option<Arc<str>>| other.is_some() && other.as_deref() == caller;
        !self.is_shared || (!self.has_unknown && self.callers.values().all(is_same))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_of_another_caller_counts_until_the_server_has_responded_to_it() {
        let mut calls = AbandonedCalls::new(true, false);
        assert!(calls.are_all_of(Some("a")) && calls.are_all_of(None));
        calls.add(1, Some("a".into()));
        assert!(calls.are_all_of(Some("a")) && !calls.are_all_of(Some("b")) && !calls.are_all_of(None));
        calls.add(2, None);
        assert!(!calls.are_all_of(Some("a")) && !calls.are_all_of(None), "an unknown caller can be anybody");
        calls.remove(2);
        calls.remove(1);
        assert!(calls.are_all_of(Some("b")));
    }

    #[test]
    fn unknown_calls_count_forever_but_only_on_a_shared_server() {
        assert!(!AbandonedCalls::new(true, true).are_all_of(Some("a")));
        let mut own = AbandonedCalls::new(false, true);
        own.add(1, Some("b".into()));
        assert!(own.are_all_of(Some("a")));
        let mut calls = AbandonedCalls::new(true, false);
        let many = u64::try_from(MAX_CALLS).unwrap() + 1;
        (0..many).for_each(|id| calls.add(id, Some("a".into())));
        (0..many).for_each(|id| calls.remove(id));
        assert!(!calls.are_all_of(Some("a")), "one of them was not remembered");
    }
}
