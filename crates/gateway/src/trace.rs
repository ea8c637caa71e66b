//! The trace context of a call (W3C Trace Context), which servers receive in `_meta` (2026-07-28, SEP-414).

use http::HeaderMap;
use waypost_mcp_wire::rewrite::{Rewrite, quote};
use waypost_mcp_wire::strict::{Message, text_of};
use waypost_mcp_wire::trace_context::{TRACEPARENT, TRACESTATE, is_traceparent, is_tracestate};

/// Sets the trace context of the message for the server: that of `_meta`, or that of the headers if `_meta` has none.
/// Invalid values are removed; if `traceparent` is invalid, `tracestate` is removed as well (section 3.3.1.2).
pub(crate) fn set_trace_context(rewrite: &mut Rewrite<'_, '_>, request: &Message<'_>, headers: &HeaderMap) {
    let meta = &request.params.meta;
    if meta.traceparent.is_none() && meta.tracestate.is_none() {
        let Some(parent) = header(headers, TRACEPARENT).filter(|parent| is_traceparent(parent)) else { return };
        rewrite.set_meta(TRACEPARENT, Some(&quote(&parent)));
        if let Some(state) = header(headers, TRACESTATE).filter(|state| is_tracestate(state)) {
            rewrite.set_meta(TRACESTATE, Some(&quote(&state)));
        }
        return;
    }
    let has_parent = text_of(meta.traceparent).is_some_and(|parent| is_traceparent(&parent));
    let has_state = has_parent && text_of(meta.tracestate).is_some_and(|state| is_tracestate(&state));
    if !has_parent {
        rewrite.set_meta(TRACEPARENT, None);
    }
    if !has_state {
        rewrite.set_meta(TRACESTATE, None);
    }
}

/// Returns the value of a header. Several `tracestate` headers are joined into one list (section 3.3.1); several
/// `traceparent` headers become an invalid value.
fn header(headers: &HeaderMap, name: &str) -> Option<String> {
    let values: Option<Vec<&str>> = headers.get_all(name).iter().map(|value| value.to_str().ok()).collect();
    values.filter(|values| !values.is_empty()).map(|values| values.join(","))
}
