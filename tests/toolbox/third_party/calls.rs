//! The servers, and at least one call of each of their tools.

use serde_json::{Value, json};

/// A third-party server.
pub struct Server {
    pub slug: &'static str,
    /// Whether it runs in the Python image instead of the Node image.
    pub is_python: bool,
    /// The arguments of the interpreter.
    pub arguments: &'static [&'static str],
    pub calls: fn() -> Vec<Call>,
}

/// A call of a tool.
pub struct Call {
    pub tool: &'static str,
    pub arguments: Value,
    /// Whether the result has `isError`.
    pub fails: bool,
    /// Whether the texts in the result depend on the time or the container, so only the shape of the result is
    /// compared.
    pub varies: bool,
}

pub const SERVERS: &[Server] = &[
    Server {
        slug: "everything",
        is_python: false,
        arguments: &["/app/node_modules/@modelcontextprotocol/server-everything/dist/index.js"],
        calls: everything,
    },
    Server {
        slug: "filesystem",
        is_python: false,
        arguments: &["/app/node_modules/@modelcontextprotocol/server-filesystem/dist/index.js", "/tmp"],
        calls: filesystem,
    },
    Server {
        slug: "memory",
        is_python: false,
        arguments: &["/app/node_modules/@modelcontextprotocol/server-memory/dist/index.js"],
        calls: memory,
    },
    Server {
        slug: "git",
        is_python: true,
        // The repository of the image is read-only.
        arguments: &[
            "-c",
            "import shutil; from mcp_server_git import main; shutil.copytree('/repository', '/tmp/repository'); main()",
        ],
        calls: git,
    },
    Server { slug: "time", is_python: true, arguments: &["-m", "mcp_server_time"], calls: time },
];

fn call(tool: &'static str, arguments: Value) -> Call {
    Call { tool, arguments, fails: false, varies: false }
}

fn varying(tool: &'static str, arguments: Value) -> Call {
    Call { varies: true, ..call(tool, arguments) }
}

fn failing(tool: &'static str, arguments: Value) -> Call {
    Call { fails: true, ..call(tool, arguments) }
}

fn everything() -> Vec<Call> {
    vec![
        call("echo", json!({ "message": "ä \u{1f600} \" \\ \u{2028}" })),
        call("get-annotated-message", json!({ "messageType": "error", "includeImage": true })),
        varying("get-env", json!({})),
        call("get-resource-links", json!({ "count": 10 })),
        varying("get-resource-reference", json!({ "resourceType": "Blob", "resourceId": 2 })),
        call("get-structured-content", json!({ "location": "Chicago" })),
        call("get-sum", json!({ "a": 1.5, "b": -3 })),
        call("get-tiny-image", json!({})),
        call("gzip-file-as-resource", json!({ "name": "a.gz", "data": "data:text/plain,hello" })),
        call("toggle-simulated-logging", json!({})),
        call("toggle-subscriber-updates", json!({})),
        call("trigger-long-running-operation", json!({ "duration": 0.2, "steps": 2 })),
        failing("trigger-elicitation-request", json!({})),
        failing("trigger-sampling-request", json!({ "prompt": "Hello" })),
        failing("trigger-url-elicitation", json!({ "url": "https://example.com/" })),
        failing("simulate-research-query", json!({ "topic": "rust" })),
        failing("get-sum", json!({ "a": 1 })),
    ]
}

fn filesystem() -> Vec<Call> {
    let edit = json!([{ "oldText": "one", "newText": "two" }]);
    vec![
        call("list_allowed_directories", json!({})),
        call("create_directory", json!({ "path": "/tmp/a" })),
        call("write_file", json!({ "path": "/tmp/a/b.txt", "content": "one\n" })),
        call("edit_file", json!({ "path": "/tmp/a/b.txt", "edits": edit })),
        call("read_file", json!({ "path": "/tmp/a/b.txt" })),
        call("read_text_file", json!({ "path": "/tmp/a/b.txt", "head": 1 })),
        call("read_media_file", json!({ "path": "/tmp/a/b.txt" })),
        call("read_multiple_files", json!({ "paths": ["/tmp/a/b.txt", "/tmp/none"] })),
        call("list_directory", json!({ "path": "/tmp/a" })),
        call("list_directory_with_sizes", json!({ "path": "/tmp/a" })),
        call("directory_tree", json!({ "path": "/tmp" })),
        call("search_files", json!({ "path": "/tmp", "pattern": "**/*.txt" })),
        varying("get_file_info", json!({ "path": "/tmp/a/b.txt" })),
        call("move_file", json!({ "source": "/tmp/a/b.txt", "destination": "/tmp/c.txt" })),
        call("move_file", json!({ "source": "/tmp/c.txt", "destination": "/tmp/a/b.txt" })),
        failing("read_file", json!({ "path": "/etc/passwd" })),
    ]
}

fn memory() -> Vec<Call> {
    let entity = |name: &str| json!({ "name": name, "entityType": "person", "observations": ["likes tea"] });
    let relation = json!([{ "from": "Ada", "to": "Grace", "relationType": "knows" }]);
    vec![
        call("create_entities", json!({ "entities": [entity("Ada"), entity("Grace")] })),
        call("create_relations", json!({ "relations": relation })),
        call("add_observations", json!({ "observations": [{ "entityName": "Ada", "contents": ["writes programs"] }] })),
        call("read_graph", json!({})),
        call("search_nodes", json!({ "query": "tea" })),
        call("open_nodes", json!({ "names": ["Ada"] })),
        call("delete_observations", json!({ "deletions": [{ "entityName": "Ada", "observations": ["likes tea"] }] })),
        call("delete_relations", json!({ "relations": relation })),
        call("delete_entities", json!({ "entityNames": ["Ada", "Grace"] })),
        failing("add_observations", json!({ "observations": [{ "entityName": "Nobody", "contents": [] }] })),
    ]
}

fn git() -> Vec<Call> {
    let with = |members: Value| {
        let mut arguments = json!({ "repo_path": "/tmp/repository" });
        arguments.as_object_mut().unwrap().extend(members.as_object().unwrap().clone());
        arguments
    };
    vec![
        call("git_status", with(json!({}))),
        call("git_log", with(json!({ "max_count": 1 }))),
        call("git_show", with(json!({ "revision": "HEAD" }))),
        call("git_branch", with(json!({ "branch_type": "local" }))),
        call("git_diff_unstaged", with(json!({}))),
        call("git_diff_staged", with(json!({}))),
        call("git_diff", with(json!({ "target": "HEAD" }))),
        call("git_add", with(json!({ "files": ["file.txt"] }))),
        call("git_reset", with(json!({}))),
        call("git_checkout", with(json!({ "branch_name": "main" }))),
        call("git_create_branch", with(json!({ "branch_name": "feature" }))),
        failing("git_commit", with(json!({ "message": "Nothing is staged" }))),
        failing("git_show", with(json!({ "revision": "none" }))),
    ]
}

fn time() -> Vec<Call> {
    vec![
        varying("get_current_time", json!({ "timezone": "Europe/Berlin" })),
        varying(
            "convert_time",
            json!({ "source_timezone": "Asia/Tokyo", "time": "12:30", "target_timezone": "America/New_York" }),
        ),
        failing("get_current_time", json!({ "timezone": "Nowhere/None" })),
    ]
}
