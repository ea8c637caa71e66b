//! The acts on both databases.

mod access;
mod accounts;
mod acts;
mod hosted;
mod identities;
mod joins;
mod logos;
mod people;
mod stage;
