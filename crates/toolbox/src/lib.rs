//! The toolbox daemon: runs MCP tool servers in hardened containers on one machine.
//!
//! [`daemon`] connects the parts: the daemon keeps one outbound connection to the control plane ([`link`]), reconciles
//! the running containers with the desired state ([`reconcile`], [`supervisor`]), and uses a container engine
//! ([`engine`]). The servers in the containers are reached through [`bridge`], and reach the outside only through
//! [`egress`].

pub mod bridge;
pub mod clock;
pub mod control;
pub mod daemon;
pub mod diagnostics;
pub mod egress;
pub mod engine;
pub mod files;
pub mod hosts;
pub mod identity;
pub mod join;
pub mod link;
pub mod logs;
pub mod queue;
pub mod reconcile;
pub mod stats;
pub mod supervisor;
pub mod tasks;
