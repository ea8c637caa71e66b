//! Waypost as OAuth authorization server: metadata, clients, authorization, tokens, and the pages on which end users sign in.

pub mod client;
