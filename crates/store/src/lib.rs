//! waypost-store
