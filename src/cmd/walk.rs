//! `waypost walk URL`: plays a walkthrough from any MCP server in the terminal.

use std::{io::ErrorKind, process::ExitCode};

use url::Url;
use waypost_player::{PlayError, PlayOptions};

/// Play a walkthrough from any MCP server with the guided tools in the terminal.
///
/// Your progress is saved: run the same command again to continue.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// MCP URL of the server, such as https://example.com/s/demo/mcp.
    #[arg(value_parser = http_url)]
    url: Url,
    /// ID or slug of the walkthrough [default: the first one that is not completed].
    #[arg(long, value_name = "ID")]
    walkthrough: Option<String>,
    /// Play without prompts. Exits with 0 only if the walkthrough was completed.
    #[arg(long)]
    yes: bool,
    /// Email, for servers that require one.
    #[arg(long, value_name = "ADDRESS")]
    email: Option<String>,
    /// Print the final state as one JSON object to standard output, and everything else to standard error.
    #[arg(long)]
    json: bool,
}

/// Runs the command.
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
        // The reader closed the pipe.
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
        _ => Err("the URL must begin with http:// or https://".to_owned()),
    }
}
