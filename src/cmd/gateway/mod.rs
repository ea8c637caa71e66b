//! `waypost gateway`: the gateway on the machine of an agent.

mod event_stream;
mod incoming;
mod session;
#[cfg(test)]
mod session_tests;
mod stdio;
mod upload;

use std::path::PathBuf;

use anyhow::Context;
use url::Url;

use self::upload::Endpoint;
use super::UsageError;
use super::token_file::read_token;

/// The environment variable with the token, if `--token-file` is not used.
const TOKEN: &str = "WAYPOST_AGENT_TOKEN";
/// The environment variable for `--url`.
const URL: &str = "WAYPOST_URL";
/// The default of `--url`.
const DEFAULT_URL: &str = "http://localhost:8080";

/// Subcommands of `waypost gateway`.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Connect a client that supports only stdio with the gateway: messages on standard input are sent to it, and its
    /// messages are written to standard output.
    ///
    /// `--url` is the URL of the installation, or of the gateway, such as https://example.com/gateway/acme/mcp [default:
    /// http://localhost:8080].
    Stdio {
        /// File with the token of the agent. Without it, WAYPOST_AGENT_TOKEN contains the token.
        #[arg(long, value_name = "FILE")]
        token_file: Option<PathBuf>,
    },
}

/// Runs the command until standard input ends. `ca_pem` contains additional certificate authorities to trust.
///
/// # Errors
/// A usage error if the URL is invalid or the token is missing; if standard output is closed.
pub async fn run(command: Command, url: Option<String>, ca_pem: Option<&[u8]>) -> anyhow::Result<()> {
    let Command::Stdio { token_file } = command;
    if token_file.as_ref().is_some_and(|file| file.as_os_str() == "-") {
        return Err(UsageError("standard input contains the messages: write the token to a file".into()).into());
    }
    let token = read_token(token_file.as_deref(), TOKEN)?;
    let url = url.or_else(|| std::env::var(URL).ok()).unwrap_or_else(|| DEFAULT_URL.to_owned());
    let endpoint = Endpoint::new(gateway_url(&url)?, &token, ca_pem).context("cannot connect to the gateway")?;
    stdio::run(endpoint, tokio::io::stdin(), tokio::io::stdout()).await
}

/// Returns the URL of the gateway. Adds the default path if `text` contains only an origin.
fn gateway_url(text: &str) -> anyhow::Result<Url> {
    let invalid = || UsageError("the URL must begin with http:// or https://".to_owned());
    let mut url = Url::parse(text).map_err(|_| invalid())?;
    if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
        return Err(invalid().into());
    }
    if url.path() == "/" {
        url.set_path("/gateway/mcp");
    }
    Ok(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_of_the_gateway_can_be_omitted() {
        for (text, expected) in [
            ("http://localhost:8080", "http://localhost:8080/gateway/mcp"),
            ("https://a.example/", "https://a.example/gateway/mcp"),
            ("https://a.example/gateway/acme/mcp", "https://a.example/gateway/acme/mcp"),
        ] {
            assert_eq!(gateway_url(text).unwrap().as_str(), expected);
        }
        for text in ["", "a.example", "ftp://a.example"] {
            assert!(gateway_url(text).unwrap_err().is::<UsageError>(), "{text}");
        }
    }
}
