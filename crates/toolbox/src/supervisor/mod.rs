//! The supervisor.
pub mod servers;
