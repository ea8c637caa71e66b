//! The acts on both databases.

mod access;
mod accounts;
mod acts;
mod hosted;
mod joins;
mod identities;
mod logos;
mod people;
mod stage;
