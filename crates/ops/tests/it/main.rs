//! Tests of the operations on both databases.

#![expect(clippy::disallowed_methods, reason = "the tests spawn tasks")]

mod access;
mod access_matrix;
mod account_test;
mod accounts;
mod agents;
mod assignments;
mod catalog;
mod catalog_images;
mod fixture;
mod gateway_switch;
mod hosted;
mod identities;
mod invitations;
mod job_leases;
mod joins;
mod lists;
mod logos;
mod notifications;
mod offers;
mod operations;
mod retention;
mod support;
mod tool_secrets;
mod user_accounts;
