//! `waypost walk URL`: plays a walkthrough of any MCP server in the terminal.

use std::{io::ErrorKind, process::ExitCode};

use url::Url;
use waypost_player::{PlayError, PlayOptions};

/// Plays a walkthrough in the terminal, from any MCP server that has the guided tools.
///
/// Your place is kept: run the same command again to go on.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// MCP address of the server, such as https://example.com/s/demo/mcp.
    #[arg(value_parser = http_url)]
    url: Url,
    /// Id or slug of the walkthrough; without it the first that is not completed.
    #[arg(long, value_name = "ID")]
    walkthrough: Option<String>,
    /// Goes through without asking; succeeds only when the walkthrough is completed.
    #[arg(long)]
    yes: bool,
    /// E-mail address, for a server that asks for one.
    #[arg(long, value_name = "ADDRESS")]
    email: Option<String>,
    /// Prints the end state as one JSON object on standard output, everything else on standard error.
    #[arg(long)]
    json: bool,
}

/// Plays it.
pub async fn run(args: Args) -> ExitCode {
    let options = PlayOptions {
        url: args.url,
        walkthrough: args.walkthrough,
        yes: args.yes,
        email: args.email,
        state_folder: waypost_player::default_folder(),
    };
    match waypost_player::run(&options, args.json).await {
        Ok(report) if report.is_success(options.yes) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        // Whoever closed the pipe has seen enough.
        Err(PlayError::Output(error)) if error.kind() == ErrorKind::BrokenPipe => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn http_url(text: &str) -> Result<Url, String> {
    match Url::parse(text) {
        Ok(url) if matches!(url.scheme(), "http" | "https") && url.has_host() => Ok(url),
        _ => Err("an address begins with http:// or https://".to_owned()),
    }
}
