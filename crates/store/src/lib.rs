//! The store: one body per query for SQLite and PostgreSQL.
//!
//! Functions take the organisation first; finders that cannot know it yet stand in [`system`]. Times and random values
//! are arguments. A caller reads with [`Db::read`], writes in a [`db::Tx`], and changes progress through the
//! [`writer::Writer`], which commits many calls at once.

pub mod backup;
mod batch;
pub mod db;
pub mod error;
pub mod health;
pub mod migrate;
pub mod progress;
pub mod tool_call;
pub mod writer;

pub use db::{Conn, Db, Dialect, Tx};
pub use error::{Error, Result};
