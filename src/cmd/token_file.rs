//! Tokens that a command reads from a file, standard input or an environment variable, but never from an argument, which other
//! users of the machine can see.

use std::io::Read;
use std::path::Path;

use anyhow::Context;

use super::UsageError;

/// Maximum length of a token in bytes.
const MAX_TOKEN_BYTES: u64 = 1_024;

/// Returns the token in `file` (`-` is standard input). If `file` is `None`, returns the token in the environment
/// variable `variable`.
///
/// # Errors
/// If the file cannot be read; a usage error if there is no token.
pub(super) fn read_token(file: Option<&Path>, variable: &str) -> anyhow::Result<String> {
    let mut token = String::new();
    match file {
        Some(path) if path.as_os_str() == "-" => {
            let read = std::io::stdin().take(MAX_TOKEN_BYTES).read_to_string(&mut token);
            read.context("cannot read the token from standard input")?;
        }
        Some(path) => {
            let read = std::fs::File::open(path);
            let read = read.and_then(|file| file.take(MAX_TOKEN_BYTES).read_to_string(&mut token));
            read.with_context(|| format!("cannot read the token from {}", path.display()))?;
        }
        None => token = std::env::var(variable).unwrap_or_default(),
    }
    let token = token.trim();
    if token.is_empty() {
        let message = format!("a token is required: pass `--token-file FILE`, or set {variable}");
        return Err(UsageError(message).into());
    }
    Ok(token.to_owned())
}
