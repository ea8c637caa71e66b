//! The MCP server in the images of the toolbox tests: one static program that uses only the standard library, so that an
//! image needs no other file. `rustc -C target-feature=+crt-static` compiles it.
//!
//! `server stdio` speaks MCP on standard input and output, `server http PORT` over Streamable HTTP. Other first arguments
//! are servers with a fault: `stubborn`, `silent`, `exit`, `noise`, `flood`, `slow-start`, `gated`, `requires`.
//!
//! The JSON reader finds members by their names, which is sufficient for the messages of the tests.

use std::cell::RefCell;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream, ToSocketAddrs};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

unsafe extern "C" {
    /// signal(2) of the C library, which is part of the program.
    fn signal(number: i32, handler: extern "C" fn(i32)) -> usize;
    /// _exit(2).
    fn _exit(status: i32) -> !;
}

/// Ends the program at SIGTERM. The kernel ignores the signal for the first process of a container without a handler.
extern "C" fn exit_at_signal(_: i32) {
    // SAFETY: _exit(2) can be called in a handler (signal-safety(7)).
    unsafe { _exit(0) }
}

/// Whether SIGUSR1 was received.
static IS_OPEN: AtomicBool = AtomicBool::new(false);

/// Whether messages are exchanged on standard input and output.
static IS_STDIO: AtomicBool = AtomicBool::new(false);

/// The names of the tools whose schema was changed, one for each change.
static SCHEMA_CHANGES: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// The maximum length of the arguments in the schemas before the first change. It is not enforced.
const MAX_LENGTH: usize = 1_000_000;

thread_local! {
    /// The headers of the current HTTP request: names in lower case, and values.
    static HEADERS: RefCell<Vec<(String, String)>> = const { RefCell::new(Vec::new()) };
}

extern "C" fn open_gate(_: i32) {
    IS_OPEN.store(true, Ordering::Relaxed);
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.first().is_none_or(|mode| mode != "stubborn") {
        // SAFETY: the handler only calls _exit(2).
        unsafe { signal(15, exit_at_signal) };
    }
    match arguments.first().map(String::as_str) {
        // Ignores SIGTERM.
        Some("stubborn") => stdio(),
        Some("stdio") => stdio(),
        Some("http") => http(arguments.get(1).map_or("8080", String::as_str)),
        // Speaks no MCP and never answers.
        Some("silent") => wait(),
        // Exits at once.
        Some("exit") => {
            eprintln!("the configuration file is missing");
            std::process::exit(3);
        }
        // Writes lines that are not MCP, and then speaks it.
        Some("noise") => {
            println!("Starting…\n{{\"level\":\"info\"}}\n");
            stdio();
        }
        // Floods standard output without a line break.
        Some("flood") => {
            let block = [b'x'; 65_536];
            while std::io::stdout().write_all(&block).is_ok() {}
        }
        // Is ready after five seconds.
        Some("slow-start") => {
            std::thread::sleep(Duration::from_secs(5));
            stdio();
        }
        // Does nothing until SIGUSR1 is received. Then exits if there is a second argument.
        Some("gated") => {
            // SAFETY: the handler only stores a number.
            unsafe { signal(10, open_gate) };
            while !IS_OPEN.load(Ordering::Relaxed) {
                std::thread::sleep(Duration::from_millis(20));
            }
            if arguments.len() > 1 {
                std::process::exit(3);
            }
            stdio();
        }
        // Exits unless a file has a certain content.
        Some("requires") => {
            let [_, path, expected] = &arguments[..] else { panic!("usage: requires PATH CONTENT") };
            if std::fs::read_to_string(path).ok().as_ref() != Some(expected) {
                eprintln!("{path} does not have the expected content");
                std::process::exit(3);
            }
            stdio();
        }
        other => panic!("unknown mode {other:?}"),
    }
}

fn wait() -> ! {
    loop {
        std::thread::park();
    }
}

/// Serves one client on standard input and output.
fn stdio() {
    IS_STDIO.store(true, Ordering::Relaxed);
    while let Some(line) = read_line() {
        if let Some(response) = respond(&line) {
            let mut out = std::io::stdout().lock();
            if writeln!(out, "{response}").and_then(|()| out.flush()).is_err() {
                return;
            }
        }
    }
}

/// Reads a line of standard input, which is not locked meanwhile.
fn read_line() -> Option<String> {
    let mut line = String::new();
    (std::io::stdin().read_line(&mut line).ok()? > 0).then_some(line)
}

/// Serves Streamable HTTP with JSON responses on all interfaces.
fn http(port: &str) {
    let listener = TcpListener::bind(format!("0.0.0.0:{port}")).expect("the port is free");
    for stream in listener.incoming().flatten() {
        std::thread::spawn(move || serve_connection(stream));
    }
}

fn serve_connection(stream: TcpStream) -> Option<()> {
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    let mut writer = stream;
    loop {
        let mut first = String::new();
        if reader.read_line(&mut first).ok()? == 0 {
            return None;
        }
        let (mut length, mut headers) = (0, Vec::new());
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).ok()?;
            if line.trim().is_empty() {
                break;
            }
            let (name, value) = line.split_once(':')?;
            let (name, value) = (name.to_ascii_lowercase(), value.trim().to_owned());
            if name == "content-length" {
                length = value.parse().ok()?;
            }
            headers.push((name, value));
        }
        HEADERS.set(headers);
        let mut body = vec![0; length];
        reader.read_exact(&mut body).ok()?;
        let body = String::from_utf8(body).ok()?;
        let response = if first.starts_with("POST ") { respond(&body) } else { Some(String::new()) };
        let text = match response {
            None => "HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n".to_owned(),
            Some(body) if body.is_empty() => "HTTP/1.1 405 Method Not Allowed\r\ncontent-length: 0\r\n\r\n".to_owned(),
            Some(body) => {
                format!(
                    "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
                    body.len()
                )
            }
        };
        writer.write_all(text.as_bytes()).ok()?;
    }
}

/// Answers a message; `None` for notifications and responses.
fn respond(message: &str) -> Option<String> {
    let id = raw_member(message, "id")?;
    let method = member(message, "method")?;
    let result = match method.as_str() {
        "initialize" => {
            let version = member(message, "protocolVersion").unwrap_or_else(|| "2025-06-18".to_owned());
            format!(
                r#"{{"protocolVersion":{},"capabilities":{{"tools":{{}}}},"serverInfo":{{"name":"test","version":"1"}}}}"#,
                quoted(&version)
            )
        }
        "ping" => "{}".to_owned(),
        "tools/list" => format!(r#"{{"tools":[{}]}}"#, TOOLS.map(describe).join(",")),
        "tools/call" => {
            let name = member(message, "name").unwrap_or_default();
            let arguments = |name: &str| member(message, name).unwrap_or_default();
            match call(&name, arguments) {
                Ok(text) => format!(r#"{{"content":[{{"type":"text","text":{}}}],"isError":false}}"#, quoted(&text)),
                Err(text) => format!(r#"{{"content":[{{"type":"text","text":{}}}],"isError":true}}"#, quoted(&text)),
            }
        }
        _ => {
            return Some(format!(
                r#"{{"jsonrpc":"2.0","id":{id},"error":{{"code":-32601,"message":"Method not found"}}}}"#
            ));
        }
    };
    Some(format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{result}}}"#))
}

/// The tools: name and the name of the only argument.
const TOOLS: [(&str, &str); 15] = [
    ("echo", "text"),
    ("ask", "question"),
    ("log", "text"),
    ("environment", "variable"),
    ("headers", "header"),
    ("read", "path"),
    ("write", "path"),
    ("connect", "address"),
    ("tunnel", "address"),
    ("fork", "count"),
    ("allocate", "mebibytes"),
    ("exit", "code"),
    ("hang", "seconds"),
    ("escape", "attempt"),
    ("change_schema", "tool"),
];

fn describe((name, argument): (&str, &str)) -> String {
    let changes = SCHEMA_CHANGES.lock().expect("no thread panics").iter().filter(|changed| *changed == name).count();
    let schema = format!(r#"{{"type":"string","maxLength":{}}}"#, MAX_LENGTH + changes);
    format!(
        r#"{{"name":"{name}","description":"The test tool {name}.","inputSchema":{{"type":"object","properties":{{"{argument}":{schema}}}}}}}"#
    )
}

fn call(name: &str, argument: impl Fn(&str) -> String) -> Result<String, String> {
    match name {
        "echo" => Ok(argument("text")),
        "ask" => ask(&argument("question")),
        "log" => {
            eprintln!("{}", argument("text"));
            Ok("logged".to_owned())
        }
        "environment" => std::env::var(argument("variable")).map_err(|error| error.to_string()),
        "headers" => header(&argument("header")).ok_or_else(|| "the request has no such header".to_owned()),
        "read" => std::fs::read_to_string(argument("path")).map_err(|error| error.to_string()),
        "write" => std::fs::write(argument("path"), "written")
            .map(|()| "written".to_owned())
            .map_err(|error| error.to_string()),
        "connect" => connect(&argument("address")).map_err(|error| error.to_string()),
        "tunnel" => tunnel(&argument("address")).map_err(|error| error.to_string()),
        "fork" => Ok(fork(argument("count").parse().unwrap_or(1))),
        "allocate" => {
            let size = argument("mebibytes").parse::<usize>().unwrap_or(1) * 1024 * 1024;
            let memory = vec![1_u8; size];
            Ok(memory.iter().step_by(4096).map(|byte| usize::from(*byte)).sum::<usize>().to_string())
        }
        "exit" => std::process::exit(argument("code").parse().unwrap_or(1)),
        "hang" => {
            std::thread::sleep(Duration::from_secs(argument("seconds").parse().unwrap_or(60)));
            Ok("awake".to_owned())
        }
        "escape" => escape(&argument("attempt")),
        "change_schema" => change_schema(argument("tool")),
        other => Err(format!("unknown tool {other}")),
    }
}

/// Changes one nested member of the schema of a tool, from now on. Nobody is told.
fn change_schema(tool: String) -> Result<String, String> {
    if TOOLS.iter().all(|(name, _)| *name != tool) {
        return Err(format!("unknown tool {tool}"));
    }
    SCHEMA_CHANGES.lock().expect("no thread panics").push(tool);
    Ok("changed".to_owned())
}

/// Returns the values of a header of the HTTP request. `None` if it has none.
fn header(name: &str) -> Option<String> {
    let values: Vec<String> = HEADERS.with_borrow(|headers| {
        headers.iter().filter(|(found, _)| found == name).map(|(_, value)| value.clone()).collect()
    });
    (!values.is_empty()).then(|| values.join(", "))
}

/// Asks the user, and returns the response of the client. Other messages that arrive meanwhile are lost.
fn ask(question: &str) -> Result<String, String> {
    if !IS_STDIO.load(Ordering::Relaxed) {
        return Err("only on standard input and output".to_owned());
    }
    let schema = r#"{"type":"object","properties":{"name":{"type":"string"}}}"#;
    let params = format!(r#"{{"message":{},"requestedSchema":{schema}}}"#, quoted(question));
    println!(r#"{{"jsonrpc":"2.0","id":"ask","method":"elicitation/create","params":{params}}}"#);
    let response = std::iter::from_fn(read_line).find(|line| raw_member(line, "id").is_some_and(|id| id == "\"ask\""));
    response.map(|response| response.trim().to_owned()).ok_or_else(|| "the client has disconnected".to_owned())
}

/// Connects to `host:port`, and returns the first line that the other side sends.
fn connect(address: &str) -> std::io::Result<String> {
    let mut last = std::io::Error::other("the name has no address");
    for address in address.to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, Duration::from_secs(2)) {
            Ok(stream) => {
                stream.set_read_timeout(Some(Duration::from_secs(2)))?;
                let mut line = String::new();
                BufReader::new(stream).read_line(&mut line)?;
                return Ok(line.trim().to_owned());
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Connects to `host:port` through the proxy of the container, and returns the first line that the other side sends. The
/// error is the response of the proxy.
fn tunnel(address: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect("127.0.0.1:3128")?;
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    write!(stream, "CONNECT {address} HTTP/1.1\r\nHost: {address}\r\n\r\n")?;
    let mut reader = BufReader::new(stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head)? == 0 {
            return Err(std::io::Error::other(head));
        }
    }
    if !head.starts_with("HTTP/1.1 200") {
        return Err(std::io::Error::other(head));
    }
    let mut line = String::new();
    reader.read_line(&mut line)?;
    Ok(line.trim().to_owned())
}

/// Starts processes until the limit, and returns how many could be started.
fn fork(count: usize) -> String {
    let program = std::env::current_exe().expect("the path of this program");
    let mut children = Vec::new();
    while children.len() < count {
        match std::process::Command::new(&program).arg("silent").spawn() {
            Ok(child) => children.push(child),
            Err(_) => break,
        }
    }
    let started = children.len();
    for mut child in children {
        let _ = child.kill();
        let _ = child.wait();
    }
    started.to_string()
}

mod system {
    use std::ffi::{c_char, c_int, c_long, c_ulong, c_void};

    unsafe extern "C" {
        pub fn mount(
            source: *const c_char,
            target: *const c_char,
            kind: *const c_char,
            flags: c_ulong,
            data: *const c_void,
        ) -> c_int;
        pub fn socket(domain: c_int, kind: c_int, protocol: c_int) -> c_int;
        pub fn ptrace(request: c_int, pid: c_int, address: *mut c_void, data: *mut c_void) -> c_long;
        pub fn setuid(uid: u32) -> c_int;
        pub fn unshare(flags: c_int) -> c_int;
        pub fn mknod(path: *const c_char, mode: u32, device: u64) -> c_int;
    }
}

/// Tries to leave the container. `Err` means that the attempt was rejected.
fn escape(attempt: &str) -> Result<String, String> {
    // SAFETY: the arguments are constants of the types that the C library expects.
    let result = unsafe {
        match attempt {
            "mount" => system::mount(c"none".as_ptr(), c"/tmp".as_ptr(), c"tmpfs".as_ptr(), 0, std::ptr::null()),
            "raw-socket" => system::socket(2, 3, 1),
            "packet-socket" => system::socket(17, 3, 768),
            "ptrace" => i32::try_from(system::ptrace(16, 1, std::ptr::null_mut(), std::ptr::null_mut())).unwrap_or(-1),
            "root" => system::setuid(0),
            "namespace" => system::unshare(0x1000_0000),
            "device" => system::mknod(c"/tmp/device".as_ptr(), 0o060_600, 0x0801),
            other => return Err(format!("unknown attempt {other}")),
        }
    };
    if result < 0 { Err(std::io::Error::last_os_error().to_string()) } else { Ok(format!("{attempt} succeeded")) }
}

/// Returns the text of the first member with this name, for strings and numbers.
fn member(message: &str, name: &str) -> Option<String> {
    let raw = raw_member(message, name)?;
    match raw.strip_prefix('"') {
        Some(rest) => Some(unescaped(rest.strip_suffix('"')?)),
        None => Some(raw),
    }
}

/// Returns the JSON of the first member with this name that is a string or a number.
fn raw_member(message: &str, name: &str) -> Option<String> {
    let rest = message.split_once(&format!("\"{name}\""))?.1.trim_start().strip_prefix(':')?.trim_start();
    let end = if rest.starts_with('"') {
        let mut escaped = false;
        1 + rest[1..].find(|letter| {
            let is_end = letter == '"' && !escaped;
            escaped = letter == '\\' && !escaped;
            is_end
        })? + 1
    } else {
        rest.find([',', '}', ']', ' ']).unwrap_or(rest.len())
    };
    Some(rest[..end].to_owned())
}

fn unescaped(text: &str) -> String {
    let mut letters = text.chars();
    let mut result = String::new();
    while let Some(letter) = letters.next() {
        if letter != '\\' {
            result.push(letter);
            continue;
        }
        match letters.next() {
            Some('n') => result.push('\n'),
            Some('t') => result.push('\t'),
            Some('u') => {
                let code: String = letters.by_ref().take(4).collect();
                result.extend(u32::from_str_radix(&code, 16).ok().and_then(char::from_u32));
            }
            Some(other) => result.push(other),
            None => {}
        }
    }
    result
}

fn quoted(text: &str) -> String {
    let mut result = String::from('"');
    for letter in text.chars() {
        match letter {
            '"' | '\\' => result.extend(['\\', letter]),
            control if control < ' ' => result.push_str(&format!("\\u{:04x}", u32::from(control))),
            other => result.push(other),
        }
    }
    result.push('"');
    result
}
