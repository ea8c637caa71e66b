//! The acts on both databases.

mod access;
mod acts;
mod hosted;
mod joins;
mod stage;
