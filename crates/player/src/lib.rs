//! A terminal player for walkthroughs. It is a pure MCP client that relies only on the tools of the guided toolset, so
//! it works with any server that has these tools.
//!
//! [`run`] uses the standard streams of the process; [`play()`] uses any [`Terminal`].

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
