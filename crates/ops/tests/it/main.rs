//! Tests of the operations on both databases.

mod access;
mod accounts;
mod assignments;
mod hosted;
mod identities;
mod invitations;
mod job_leases;
mod joins;
mod lists;
mod logos;
mod notifications;
mod operations;
mod people;
mod retention;
mod stage;
mod support;
mod user_accounts;
