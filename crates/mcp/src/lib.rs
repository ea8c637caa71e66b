//! Hosted MCP servers: the endpoint for every protocol revision, and the tools, prompts and resources behind it.

pub mod bearer;
pub mod context;
pub mod endpoint;
pub mod handler;
pub mod known_clients;
pub mod limits;
pub mod listen;
mod message;
mod prompts;
mod resources;
pub mod tools;
pub mod transport;
