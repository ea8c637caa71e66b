//! A player of walkthroughs in the terminal. It is an MCP client and nothing else: what it knows of a server is what
//! the tools of the guided toolset say, so it plays the walkthroughs of any server that has them.
//!
//! [`run`] plays on the terminal of the process, [`play`] on any reader and writers.

mod clean;
mod client;
mod error;
mod input;
mod markdown;
mod model;
mod play;
mod screen;
mod state;
mod table;
mod terminal;
mod text;

pub use error::PlayError;
pub use model::{Progress, Walkthrough};
pub use play::{Outcome, PlayOptions, Report, StepSummary, play};
pub use screen::OutputStyle;
pub use state::default_folder;
pub use terminal::{Terminal, run};
