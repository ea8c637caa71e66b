//! Tests of sign-in with an organisation's identity provider, which can be made to fail in every way.

#![expect(clippy::disallowed_methods, reason = "the tests start servers and clients")]

mod configs;
mod faults;
mod provider;
mod sign_in;
mod stage;
mod tokens;
