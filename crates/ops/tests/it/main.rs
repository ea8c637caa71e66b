//! The acts on both databases.

mod access;
mod acts;
mod stage;
