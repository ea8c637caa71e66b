//! Signing in at an organisation's identity provider, with a provider that can be made to fail in every way.

mod configs;
mod faults;
mod provider;
mod sign_in;
mod stage;
mod tokens;
