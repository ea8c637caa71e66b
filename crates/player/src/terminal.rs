//! The terminal that a walkthrough is played on.

use std::{
    env,
    io::{self, BufRead, BufReader, IsTerminal as _, Write},
    sync::Arc,
};

use terminal_size::{Width, terminal_size_of};
use tokio::sync::Notify;

use crate::{OutputStyle, PlayError, PlayOptions, Report, play};

/// Narrower than this no line reads well, and wider neither.
const WIDTHS: std::ops::RangeInclusive<u16> = 40..=100;

/// Where the player reads and writes.
pub struct Terminal<'t> {
    /// What the player shows.
    pub out: &'t mut (dyn Write + Send),
    /// Warnings.
    pub err: &'t mut (dyn Write + Send),
    /// Answers, a line each.
    pub input: Box<dyn BufRead + Send>,
    /// Whether what is typed is seen (a terminal), so that a line ends with the answer.
    pub echo: bool,
    /// Notified when the user interrupts.
    pub interrupt: Arc<Notify>,
    /// What the output can show.
    pub style: OutputStyle,
}

/// Plays on the standard streams. With `json` the end state is one JSON object on standard output, and everything
/// else goes to standard error.
///
/// # Errors
///
/// See [`play`].
pub async fn run(options: &PlayOptions, json: bool) -> Result<Report, PlayError> {
    let (mut stdout, mut stderr, mut warnings) = (io::stdout(), io::stderr(), io::stderr());
    let style = if json { style_of(&stderr) } else { style_of(&stdout) };
    let out: &mut (dyn Write + Send) = if json { &mut stderr } else { &mut stdout };
    let interrupt = Arc::new(Notify::new());
    let listener = tokio::spawn(listen(Arc::clone(&interrupt)));
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

async fn listen(interrupt: Arc<Notify>) {
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

/// Colour only on a terminal that knows it, and never against <https://no-color.org>.
fn style_of(stream: &impl Stream) -> OutputStyle {
    if !stream.is_terminal() {
        return OutputStyle::PLAIN;
    }
    let refused = env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let dumb = env::var_os("TERM").is_some_and(|value| value == "dumb");
    let width = terminal_size_of(stream).map_or(80, |(Width(width), _)| width.clamp(*WIDTHS.start(), *WIDTHS.end()));
    OutputStyle { ansi: !refused && !dumb, bar: true, width: usize::from(width) }
}
