//! The program `waypost`: its commands, and the wiring of its parts. It is a library so that tests can use it.

pub mod cmd;
pub mod config;
pub mod connections;
pub mod demo;
mod email_html;
pub mod jobs;
pub mod lock;
pub mod mail;
pub mod notifications;
pub mod operator_socket;
pub mod outbound;
pub mod providers;
pub mod replicas;
pub mod router;
pub mod storage;
pub mod telemetry;
pub mod unix_socket;
pub mod upgrade;
pub mod webhooks;
