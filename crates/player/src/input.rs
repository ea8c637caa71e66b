//! User input, line by line, from a terminal, a pipe or a test.

use std::{
    io::{self, BufRead},
    thread,
};

use tokio::sync::mpsc;

/// Reads lines in a separate thread, because a blocking read of standard input must not delay an interrupt or the end
/// of the program.
pub(crate) struct InputLines {
    state: ReaderState,
}

enum ReaderState {
    /// No line has been requested yet, so nothing is read.
    Idle(Option<Box<dyn BufRead + Send>>),
    Reading(mpsc::Receiver<String>),
}

impl InputLines {
    pub(crate) fn new(reader: Box<dyn BufRead + Send>) -> Self {
        Self { state: ReaderState::Idle(Some(reader)) }
    }

    /// Returns the next line, trimmed; `None` at the end of the input.
    pub(crate) async fn next(&mut self) -> io::Result<Option<String>> {
        if let ReaderState::Idle(reader) = &mut self.state {
            let Some(reader) = reader.take() else { return Ok(None) };
            let (sender, receiver) = mpsc::channel(1);
            thread::Builder::new().name("input".to_owned()).spawn(move || read(reader, &sender))?;
            self.state = ReaderState::Reading(receiver);
        }
        match &mut self.state {
            ReaderState::Reading(receiver) => Ok(receiver.recv().await),
            ReaderState::Idle(_) => Ok(None),
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
