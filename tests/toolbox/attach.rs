//! Standard input and output of a container, and MCP over them.

use std::io::{BufReader, Read, Write};
use std::os::unix::net::UnixStream;

use serde_json::{Value, json};

/// A connection to the standard input, output and error of a container without a terminal.
pub struct Attached {
    stream: BufReader<UnixStream>,
    /// The standard output that has not been returned yet.
    output: Vec<u8>,
    /// The standard error so far.
    pub errors: Vec<u8>,
}

impl Attached {
    /// Uses a connection that the engine has upgraded.
    pub fn new(stream: BufReader<UnixStream>) -> Self {
        Self { stream, output: Vec::new(), errors: Vec::new() }
    }

    /// Sends an MCP request and returns the response.
    pub fn request(&mut self, id: u32, method: &str, params: Value) -> Value {
        let message = json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params });
        self.write(&format!("{message}\n"));
        serde_json::from_str(&self.line()).expect("the container writes JSON")
    }

    /// Writes to standard input.
    pub fn write(&mut self, text: &str) {
        self.stream.get_mut().write_all(text.as_bytes()).expect("the container reads");
    }

    /// Returns the next line of standard output.
    pub fn line(&mut self) -> String {
        loop {
            if let Some(end) = self.output.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.output.drain(..=end).collect();
                return String::from_utf8(line).expect("the container writes text");
            }
            self.read_frame();
        }
    }

    /// Reads a frame: one byte for the stream, three unused ones, four for the length, and the content.
    fn read_frame(&mut self) {
        let mut head = [0; 8];
        self.stream.read_exact(&mut head).expect("the container writes in time");
        let length = u32::from_be_bytes([head[4], head[5], head[6], head[7]]);
        let mut content = vec![0; usize::try_from(length).expect("a small number")];
        self.stream.read_exact(&mut content).expect("the container writes in time");
        if head[0] == 2 { &mut self.errors } else { &mut self.output }.extend(content);
    }
}
