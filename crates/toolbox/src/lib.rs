//! The toolbox daemon: runs MCP tool servers in hardened containers on one machine.
//!
//! The daemon keeps one outbound connection to the control plane (`link`), compares what should run with what runs
//! (`supervisor`), and uses a container engine ([`engine`]). The servers in the containers are reached through `bridge`,
//! and reach the outside only through `egress`.

pub mod bridge;
pub mod clock;
pub mod control;
pub mod engine;
pub mod files;
pub mod logs;
pub mod stats;
pub mod tasks;
