//! The acts on both databases.

mod access;
mod accounts;
mod acts;
mod identities;
mod logos;
mod people;
mod stage;
