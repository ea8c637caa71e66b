//! The text of walkthroughs: Markdown and its cleaning, rendering for agents, search, and import and export of files.
//! Every function is pure.

pub mod clean;
pub mod compare;
pub mod diff;
pub mod guidance;
pub mod html;
pub mod invisible;
pub mod markdown;
pub mod name;
pub mod render;
pub mod search;
pub mod slug;
pub mod template;
pub mod tool_result;
pub mod transfer;
