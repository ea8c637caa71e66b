//! Import and export of walkthroughs as files.
//!
//! The parsers are [`json`], [`markdown`], `tour` (CodeTour) and [`folder`], which also uses `scenario` (Killercoda);
//! all of them return a [`file::WalkthroughFile`]. [`plan`] compares it with the existing draft; [`export`] and
//! [`export_markdown`] write files. Texts are kept as typed; they are cleaned when they are served ([`crate::clean`]).

use waypost_core::Result;

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
pub mod plan;
mod scenario;
pub mod source;
mod tour;
pub mod unknown_members;
mod verbatim;

/// Parses one file: Markdown, JSON or CodeTour, determined by the file extension, otherwise by the text.
///
/// # Errors
/// `invalid_arguments` naming the file, the step and the field.
pub fn parse(name: &str, text: &str) -> Result<file::WalkthroughFile> {
    let extension = name.rsplit_once('.').map(|(_, extension)| extension.to_ascii_lowercase());
    match extension.as_deref() {
        Some("json") => json::parse(name, text),
        Some("tour") => tour::parse(name, text),
        Some("md" | "markdown") => markdown::parse(name, text),
        _ if text.trim_start_matches('\u{feff}').trim_start().starts_with(['{', '[']) => json::parse(name, text),
        _ => markdown::parse(name, text),
    }
}

/// Whether a file can be part of a walkthrough, based on its path in the folder: Markdown, a CodeTour, or the index of
/// a Killercoda scenario. Other files need not be loaded.
#[must_use]
pub fn is_source(path: &str) -> bool {
    folder::is_markdown(path) || tour::is_tour(path) || scenario::is_index_name(path)
}

/// Whether a folder is skipped, based on its name, because it belongs to version control or a package manager.
#[must_use]
pub fn is_ignored_folder(name: &str) -> bool {
    matches!(name, ".git" | ".hg" | ".svn" | "node_modules")
}

#[cfg(test)]
mod properties;
#[cfg(test)]
mod samples;
