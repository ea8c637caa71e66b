//! The output of the player, with and without colour.

use std::io::{self, Write};

use crate::{
    clean::clean_line,
    markdown,
    model::{Progress, Step, StepOutline, WalkthroughEntry},
    text::{self, GREEN, Span, TextStyle},
};

/// Capabilities of the output.
#[derive(Debug, Clone, Copy)]
pub struct OutputStyle {
    /// Whether colour and emphasis are shown with escape sequences.
    pub ansi: bool,
    /// Whether a progress bar is drawn; otherwise progress is shown as text.
    pub bar: bool,
    /// Width in columns.
    pub width: usize,
}

impl OutputStyle {
    /// Plain output for a file or a pipe.
    pub const PLAIN: Self = Self { ansi: false, bar: false, width: 80 };
}

const BAR_WIDTH: usize = 24;
const KEYS: &str = "[Enter] complete step · [b] show step again · [s] status · [q] quit";

/// Writes the output.
pub(crate) struct Screen<'t> {
    out: &'t mut (dyn Write + Send),
    style: OutputStyle,
}

impl<'t> Screen<'t> {
    pub(crate) fn new(out: &'t mut (dyn Write + Send), style: OutputStyle) -> Self {
        Self { out, style }
    }

    pub(crate) fn line(&mut self, line: &str) -> io::Result<()> {
        writeln!(self.out, "{line}")
    }

    /// Writes one wrapped paragraph in one style.
    pub(crate) fn paragraph(&mut self, text: &str, style: TextStyle) -> io::Result<()> {
        let spans = [Span { text: clean_line(text), style }];
        for line in text::wrap(&spans, self.style.width, false) {
            self.line(&text::paint(&line, self.style.ansi))?;
        }
        Ok(())
    }

    /// Writes title, description and size of a walkthrough.
    pub(crate) fn title(&mut self, entry: &WalkthroughEntry) -> io::Result<()> {
        self.heading(&entry.title, "=")?;
        if let Some(description) = entry.description.as_deref().filter(|text| !text.trim().is_empty()) {
            self.line("")?;
            self.markdown(description)?;
        }
        let steps = entry.step_count.map(|count| plural(count, "step"));
        let minutes = entry.estimated_duration_minutes.map(|count| format!("about {}", plural(count, "minute")));
        let facts: Vec<String> = steps.into_iter().chain(minutes).collect();
        if !facts.is_empty() {
            self.line("")?;
            self.paragraph(&facts.join(", "), TextStyle::DIM)?;
        }
        Ok(())
    }

    /// Writes a heading, underlined by style or, without escape sequences, by a rule.
    fn heading(&mut self, title: &str, rule: &str) -> io::Result<()> {
        self.paragraph(title, TextStyle { underline: true, ..TextStyle::BOLD })?;
        if self.style.ansi {
            return Ok(());
        }
        let columns = text::width(&[Span { text: clean_line(title), style: TextStyle::PLAIN }]);
        self.line(&rule.repeat(columns.min(self.style.width)))
    }

    /// Writes a step: position, section, title and content.
    pub(crate) fn step(&mut self, step: &Step, progress: &Progress) -> io::Result<()> {
        self.line("")?;
        self.progress(&format!("Step {} of {}", step.position, progress.total), progress)?;
        self.line("")?;
        if let Some(section) = step.section_title.as_deref().filter(|title| !title.trim().is_empty()) {
            self.paragraph(section, TextStyle::DIM)?;
        }
        self.heading(&step.title, "-")?;
        let content = step.content.as_deref().unwrap_or_default();
        let content = without_title(content, &step.title);
        if !content.trim().is_empty() {
            self.line("")?;
            self.markdown(content)?;
        }
        Ok(())
    }

    /// Writes `Step 3 of 12  [####--------------------]  16%`, or without a bar `Step 3 of 12 (16%)`.
    fn progress(&mut self, label: &str, progress: &Progress) -> io::Result<()> {
        let percent = progress.percent.min(100);
        if !self.style.bar {
            return self.line(&format!("{label} ({percent}%)"));
        }
        let done = usize::try_from(percent).unwrap_or(100) * BAR_WIDTH / 100;
        let ansi = self.style.ansi;
        let bar = TextStyle { colour: Some(GREEN), ..TextStyle::PLAIN }.paint(&"#".repeat(done), ansi)
            + &TextStyle::DIM.paint(&"-".repeat(BAR_WIDTH - done), ansi);
        self.line(&format!("{}  [{bar}] {percent:>3}%", TextStyle::BOLD.paint(label, ansi)))
    }

    fn markdown(&mut self, markdown: &str) -> io::Result<()> {
        for line in markdown::render(markdown, self.style) {
            self.line(&line)?;
        }
        Ok(())
    }

    /// Writes the list of steps with their states.
    pub(crate) fn status(&mut self, progress: &Progress, steps: &[StepOutline]) -> io::Result<()> {
        self.line("")?;
        self.progress(&format!("{} of {} completed", progress.completed, plural(progress.total, "step")), progress)?;
        let mut section = None;
        for step in steps {
            let title = step.section_title.as_deref().map(clean_line).filter(|title| !title.is_empty());
            if title != section {
                self.line("")?;
                self.line(&TextStyle::DIM.paint(title.as_deref().unwrap_or(""), self.style.ansi))?;
                section = title;
            }
            let (mark, style) = match step.state.as_str() {
                "completed" => ("[x]", TextStyle { colour: Some(GREEN), ..TextStyle::PLAIN }),
                "current" => ("[>]", TextStyle::BOLD),
                _ => ("[ ]", TextStyle::PLAIN),
            };
            let line = format!("{mark} {:>2}. {}", step.position, clean_line(&step.title));
            self.line(&style.paint(&line, self.style.ansi))?;
        }
        Ok(())
    }

    /// Writes the end of a walkthrough: its progress and title, and the time that it took if known.
    pub(crate) fn completed(&mut self, title: &str, progress: &Progress) -> io::Result<()> {
        self.line("")?;
        self.progress(&format!("{} of {} completed", progress.completed, plural(progress.total, "step")), progress)?;
        let style = TextStyle { colour: Some(GREEN), ..TextStyle::BOLD };
        self.paragraph(&format!("Completed: {title}"), style)?;
        match time_taken(progress) {
            Some(time) => self.line(&format!("Time taken: {time}.")),
            None => Ok(()),
        }
    }

    /// Writes the available keys and the prompt.
    pub(crate) fn keys(&mut self) -> io::Result<()> {
        self.line("")?;
        self.paragraph(KEYS, TextStyle::DIM)?;
        self.prompt("> ")
    }

    /// Writes the question and leaves the cursor after it.
    pub(crate) fn prompt(&mut self, question: &str) -> io::Result<()> {
        write!(self.out, "{question}")?;
        self.out.flush()
    }
}

/// Returns the count and the noun, such as `1 step` or `2 steps`.
pub(crate) fn plural(count: u64, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}

/// Returns the content without a first heading that repeats the title of the step.
fn without_title<'a>(content: &'a str, title: &str) -> &'a str {
    let trimmed = content.trim_start_matches('\n');
    let (first, rest) = trimmed.split_once('\n').unwrap_or((trimmed, ""));
    let is_title = first.starts_with('#') && first.trim_matches(['#', ' ', '\t']) == clean_line(title);
    if is_title { rest } else { content }
}

fn time_taken(progress: &Progress) -> Option<String> {
    let read = |text: &Option<String>| {
        time::OffsetDateTime::parse(text.as_deref()?, &time::format_description::well_known::Rfc3339).ok()
    };
    let seconds = (read(&progress.completed_at)? - read(&progress.started_at)?).whole_seconds();
    Some(format_duration(u64::try_from(seconds).ok()?))
}

/// Formats a duration with its two largest units: `45 s`, `12 min 5 s`, `3 h 10 min`, `2 days 4 h`.
fn format_duration(seconds: u64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    let combine = |large: String, small: u64, unit: &str| {
        if small == 0 { large } else { format!("{large} {small} {unit}") }
    };
    match (days, hours, minutes) {
        (0, 0, 0) if seconds == 0 => "less than a second".to_owned(),
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, _) => combine(format!("{minutes} min"), seconds % 60, "s"),
        (0, _, _) => combine(format!("{hours} h"), minutes % 60, "min"),
        _ => combine(plural(days, "day"), hours % 24, "h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_show_their_two_largest_units() {
        let all: Vec<String> = [0, 45, 60, 725, 3600, 11_400, 86_400, 187_200].map(format_duration).into();
        assert_eq!(
            all,
            ["less than a second", "45 s", "1 min", "12 min 5 s", "1 h", "3 h 10 min", "1 day", "2 days 4 h"]
        );
    }

    #[test]
    fn a_repeated_title_is_removed() {
        assert_eq!(without_title("# Install\n\nText", "Install"), "\nText");
        assert_eq!(without_title("# Other\nText", "Install"), "# Other\nText");
        assert_eq!(without_title("Install", "Install"), "Install");
    }
}
