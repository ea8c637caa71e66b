//! The terminal in which a walkthrough is played.

use std::{
    env,
    io::{self, BufRead, BufReader, IsTerminal as _, Write},
    sync::Arc,
};

use terminal_size::{Width, terminal_size_of};
use tokio::sync::Notify;

use crate::{OutputStyle, PlayError, PlayOptions, Report, play};

/// Range of line widths that are comfortable to read.
const WIDTHS: std::ops::RangeInclusive<u16> = 40..=100;

/// The input and output of the player.
pub struct Terminal<'t> {
    /// Normal output.
    pub out: &'t mut (dyn Write + Send),
    /// Warnings.
    pub err: &'t mut (dyn Write + Send),
    /// User input, line by line.
    pub input: Box<dyn BufRead + Send>,
    /// Whether the input is echoed (a terminal), so that a prompt line ends with the user's input.
    pub echo: bool,
    /// Notified when the user interrupts.
    pub interrupt: Arc<Notify>,
    /// Capabilities of the output.
    pub style: OutputStyle,
}

/// Plays on the standard streams. With `json`, prints the final state as one JSON object to standard output and
/// everything else to standard error.
///
/// # Errors
///
/// See [`play()`].
pub async fn run(options: &PlayOptions, json: bool) -> Result<Report, PlayError> {
    let (mut stdout, mut stderr, mut warnings) = (io::stdout(), io::stderr(), io::stderr());
    let style = if json { style_of(&stderr) } else { style_of(&stdout) };
    let out: &mut (dyn Write + Send) = if json { &mut stderr } else { &mut stdout };
    let interrupt = Arc::new(Notify::new());
    #[expect(clippy::disallowed_methods, reason = "ends with the player, which has no background jobs")]
    let listener = tokio::spawn(notify_on_interrupt(Arc::clone(&interrupt)));
    let terminal = Terminal {
        out,
        err: &mut warnings,
        input: Box::new(BufReader::new(io::stdin())),
        echo: io::stdin().is_terminal(),
        interrupt,
        style,
    };
    let report = play(options, terminal).await;
    listener.abort();
    let report = report?;
    if json {
        let mut stdout = io::stdout();
        serde_json::to_writer(&mut stdout, &report).map_err(io::Error::from)?;
        writeln!(stdout)?;
    }
    Ok(report)
}

async fn notify_on_interrupt(interrupt: Arc<Notify>) {
    while tokio::signal::ctrl_c().await.is_ok() {
        interrupt.notify_one();
    }
}

#[cfg(unix)]
trait Stream: io::IsTerminal + std::os::fd::AsFd {}
#[cfg(unix)]
impl<S: io::IsTerminal + std::os::fd::AsFd> Stream for S {}
#[cfg(windows)]
trait Stream: io::IsTerminal + std::os::windows::io::AsHandle {}
#[cfg(windows)]
impl<S: io::IsTerminal + std::os::windows::io::AsHandle> Stream for S {}

/// Returns the capabilities of `stream`. Uses colour only in a terminal that supports it, and honours `NO_COLOR`
/// (<https://no-color.org>).
fn style_of(stream: &impl Stream) -> OutputStyle {
    if !stream.is_terminal() {
        return OutputStyle::PLAIN;
    }
    let no_color = env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let dumb = env::var_os("TERM").is_some_and(|value| value == "dumb");
    let width = terminal_size_of(stream).map_or(80, |(Width(width), _)| width.clamp(*WIDTHS.start(), *WIDTHS.end()));
    OutputStyle { ansi: !no_color && !dumb, bar: true, width: usize::from(width) }
}
