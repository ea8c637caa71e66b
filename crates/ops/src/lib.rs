//! waypost-ops
