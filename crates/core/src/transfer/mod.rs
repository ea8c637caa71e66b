//! Import and export of walkthroughs as files.
//!
//! Reading is [`json`], [`markdown`] and [`folder`], all of which give a [`file::WalkthroughFile`]; [`plan`] compares it
//! with the draft that is there; [`export`] writes. Nothing here cleans texts: that happens between reading and
//! planning, on the [`file::WalkthroughFile`].

use crate::Result;

pub mod export;
pub mod export_markdown;
pub mod file;
pub mod folder;
mod front_matter;
pub mod identity;
pub mod json;
pub mod lint;
pub mod markdown;
mod order;
mod outline;
pub mod place;
pub mod plan;
pub mod unknown;

/// Reads one file: Markdown when its name ends so, JSON when its name ends so, else what the text looks like.
///
/// # Errors
/// `invalid_arguments` naming the file, the step and the field.
pub fn parse(name: &str, text: &str) -> Result<file::WalkthroughFile> {
    let extension = name.rsplit_once('.').map(|(_, extension)| extension.to_ascii_lowercase());
    match extension.as_deref() {
        Some("json") => json::parse(name, text),
        Some("md" | "markdown") => markdown::parse(name, text),
        _ if text.trim_start_matches('\u{feff}').trim_start().starts_with(['{', '[']) => json::parse(name, text),
        _ => markdown::parse(name, text),
    }
}

#[cfg(test)]
mod properties;
