//! Tests of toolboxes, instances and deployments, with simulated daemons, on both databases.

#![expect(clippy::disallowed_methods, reason = "the tests spawn tasks")]

mod authentication;
mod backup;
mod deployments;
mod events;
mod fixture;
mod initial_approvals;
mod instances;
mod leases;
mod off;
mod personal;
mod rotation;
mod sequences;
mod tool_definitions;
mod toolboxes;
