//! Tests of sign-in with an organisation's identity provider, which can be made to fail in every way.

mod configs;
mod faults;
mod provider;
mod sign_in;
mod stage;
mod tokens;
