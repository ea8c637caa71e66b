//! `waypost serve`: runs everything.

use super::App;
use crate::open;

/// Flags of `serve`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Address and port of MCP servers, console and API.
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<String>,
    /// Origin under which clients reach this installation.
    #[arg(long, value_name = "URL")]
    public_url: Option<String>,
    /// Address and port of metrics and health, or `off`.
    #[arg(long, value_name = "ADDRESS")]
    diagnostics_listen: Option<String>,
    /// Also makes the demo organisation, once.
    #[arg(long)]
    pub demo: bool,
}

impl Args {
    /// The flags that are settings.
    pub(super) fn settings(&self, flags: &mut Vec<(&'static str, String)>) {
        let given = [
            ("listen", &self.listen),
            ("public_url", &self.public_url),
            ("diagnostics_listen", &self.diagnostics_listen),
        ];
        flags.extend(given.into_iter().filter_map(|(name, value)| Some((name, value.clone()?))));
    }
}

/// Serves until it is told to stop.
///
/// # Errors
/// When it cannot start.
pub async fn run(app: App, _args: Args) -> anyhow::Result<()> {
    let _lock = open::serve_lock(&app.settings)?;
    let _opened = app.open().await?;
    anyhow::bail!("`serve` is not in this build")
}
