//! Tests of sign-in with an organisation's identity provider, against a configurable provider.

#![expect(clippy::disallowed_methods, reason = "the tests start servers and clients")]

mod configs;
mod faults;
mod fixture;
mod provider;
mod sign_in;
mod tokens;
