//! Answers, one line each, from a terminal, a pipe or a test.

use std::{
    io::{self, BufRead},
    thread,
};

use tokio::sync::mpsc;

/// Reads lines on a thread of its own: a blocked read of standard input must not hold up an interrupt, nor the end
/// of the program.
pub(crate) struct InputLines {
    source: Source,
}

enum Source {
    /// Nothing has been asked yet, so nothing is read.
    Waiting(Option<Box<dyn BufRead + Send>>),
    Reading(mpsc::Receiver<String>),
}

impl InputLines {
    pub(crate) fn new(reader: Box<dyn BufRead + Send>) -> Self {
        Self { source: Source::Waiting(Some(reader)) }
    }

    /// The next line without blanks around it; `None` at the end of the input.
    pub(crate) async fn next(&mut self) -> io::Result<Option<String>> {
        if let Source::Waiting(reader) = &mut self.source {
            let Some(reader) = reader.take() else { return Ok(None) };
            let (sender, receiver) = mpsc::channel(1);
            thread::Builder::new().name("answers".to_owned()).spawn(move || read(reader, &sender))?;
            self.source = Source::Reading(receiver);
        }
        match &mut self.source {
            Source::Reading(receiver) => Ok(receiver.recv().await),
            Source::Waiting(_) => Ok(None),
        }
    }
}

fn read(mut reader: Box<dyn BufRead + Send>, sender: &mpsc::Sender<String>) {
    let mut bytes = Vec::new();
    while matches!(reader.read_until(b'\n', &mut bytes), Ok(count) if count > 0) {
        let line = String::from_utf8_lossy(&bytes).trim().to_owned();
        if sender.blocking_send(line).is_err() {
            return;
        }
        bytes.clear();
    }
}
