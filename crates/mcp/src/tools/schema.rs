//! JSON Schemas of the tools' arguments and results (JSON Schema 2020-12, root `type: object`, portable to every
//! revision). Every member of a result is typed; nothing is required at the root, because some SDKs validate error
//! results against the same schema.

use serde_json::{Value, json};
use waypost_core::ticket::{MAX_TEXT, MAX_TITLE, TicketStatus};

fn string() -> Value {
    json!({ "type": "string" })
}

fn integer() -> Value {
    json!({ "type": "integer" })
}

fn nullable(kind: &str) -> Value {
    json!({ "type": [kind, "null"] })
}

/// An object of which every member is there, unless the schema admits an error instead.
fn object(properties: Value) -> Value {
    json!({ "type": "object", "properties": properties })
}

fn handle() -> Value {
    json!({ "type": "string", "description": "Handle from an earlier result" })
}

fn walkthrough_id() -> Value {
    json!({ "type": "string", "description": "Id or slug from list_walkthroughs" })
}

/// The arguments of a tool: an object with `properties` and nothing else.
fn arguments(properties: Value, required: &[&str]) -> Value {
    json!({ "type": "object", "properties": properties, "required": required, "additionalProperties": false })
}

/// The result of a tool: its members, or an error.
fn result(mut properties: Value) -> Value {
    properties["error"] = json!({
        "type": "object",
        "properties": { "code": string(), "message": string() },
    });
    object(properties)
}

fn walkthrough() -> Value {
    object(json!({
        "id": string(), "slug": string(), "title": string(), "version": integer(), "latest_version": integer(),
    }))
}

fn progress() -> Value {
    object(json!({
        "status": { "type": "string", "enum": ["not_started", "in_progress", "completed"] },
        "completed": integer(), "total": integer(), "percent": integer(),
        "started_at": nullable("string"), "completed_at": nullable("string"),
    }))
}

fn step() -> Value {
    json!({
        "type": ["object", "null"],
        "properties": {
            "id": string(), "position": integer(), "title": string(), "section_title": nullable("string"),
            "content": string(), "introduction_for_agent": nullable("string"),
            "context_for_agent": nullable("string"), "operations_for_agent": nullable("string"),
        },
    })
}

fn steps() -> Value {
    json!({ "type": "array", "items": object(json!({
        "id": string(), "title": string(), "section_title": nullable("string"), "position": integer(),
        "state": { "type": "string", "enum": ["completed", "current", "pending"] },
    })) })
}

/// A step result (contract, section 4).
pub(super) fn step_result() -> Value {
    result(json!({
        "walkthrough": walkthrough(), "progress": progress(), "step": step(),
        "completed_step_id": nullable("string"), "progress_handle": nullable("string"), "message": string(),
    }))
}

pub(super) fn list_arguments() -> Value {
    arguments(
        json!({
            "query": { "type": "string", "description": "Words to look for in titles, descriptions and tags" },
            "cursor": { "type": "string", "description": "next_cursor of the page before" },
            "progress_handle": handle(),
        }),
        &[],
    )
}

pub(super) fn list_result() -> Value {
    let row = object(json!({
        "id": string(), "slug": string(), "title": string(), "description": string(), "type": string(),
        "step_count": integer(), "estimated_duration_minutes": nullable("integer"),
        "tags": { "type": "array", "items": string() }, "version": integer(), "status": string(),
        "progress_percent": integer(),
    }));
    result(json!({ "walkthroughs": { "type": "array", "items": row }, "next_cursor": nullable("string") }))
}

pub(super) fn select_arguments() -> Value {
    arguments(
        json!({
            "walkthrough_id": walkthrough_id(),
            "resume_if_exists": { "type": "boolean", "default": true, "description": "false begins a new attempt" },
            "use_version": { "type": "string", "enum": ["started", "latest"], "default": "started",
                "description": "latest moves to the newest version and keeps what is completed" },
            "progress_handle": handle(),
        }),
        &["walkthrough_id"],
    )
}

/// The longest address (RFC 5321, 4.5.3.1: 64 octets, `@` and 255).
const MAX_EMAIL: usize = 320;

/// The user's address, where the server asks for it.
pub(super) fn email() -> Value {
    json!({ "type": "string", "format": "email", "maxLength": MAX_EMAIL, "description": "The user's e-mail address" })
}

/// `arguments` of a tool that begins something, on a server that asks for an address.
pub(super) fn with_email(mut arguments: Value) -> Value {
    arguments["properties"]["email"] = email();
    arguments
}

pub(super) fn next_arguments() -> Value {
    arguments(
        json!({
            "walkthrough_id": walkthrough_id(),
            "current_step_id": { "type": "string", "description": "The step that the user has done; makes a repeated call safe" },
            "progress_handle": handle(),
        }),
        &[],
    )
}

/// The arguments of the tools that read one walkthrough.
pub(super) fn read_arguments() -> Value {
    arguments(json!({ "walkthrough_id": walkthrough_id(), "progress_handle": handle() }), &["walkthrough_id"])
}

pub(super) fn status_result() -> Value {
    result(json!({ "walkthrough": walkthrough(), "progress": progress(), "steps": steps() }))
}

pub(super) fn reset_arguments() -> Value {
    arguments(
        json!({
            "walkthrough_id": walkthrough_id(),
            "confirm": { "type": "boolean", "description": "true, after the user has agreed" },
            "progress_handle": handle(),
        }),
        &["walkthrough_id"],
    )
}

pub(super) fn reset_result() -> Value {
    result(json!({ "walkthrough_id": string(), "reset": { "type": "boolean" } }))
}

pub(super) fn details_result() -> Value {
    result(json!({ "walkthrough": walkthrough(), "progress": progress() }))
}

pub(super) fn complete_arguments() -> Value {
    arguments(
        json!({
            "walkthrough_id": walkthrough_id(),
            "step_id": { "type": "string", "description": "The step that the user has done" },
            "progress_handle": handle(),
        }),
        &["walkthrough_id", "step_id"],
    )
}

pub(super) fn steps_result() -> Value {
    result(json!({ "walkthrough": walkthrough(), "steps": steps() }))
}

pub(super) fn support_arguments() -> Value {
    arguments(
        json!({
            "title": { "type": "string", "minLength": 1, "maxLength": MAX_TITLE, "description": "The problem in a line" },
            "problem": { "type": "string", "minLength": 1, "maxLength": MAX_TEXT,
                "description": "What the user wants, what happens instead" },
            "context": { "type": "string", "maxLength": MAX_TEXT,
                "description": "What was tried, error messages, versions" },
            "email": email(),
            "progress_handle": handle(),
        }),
        &["title", "problem"],
    )
}

pub(super) fn support_result() -> Value {
    let status: Vec<_> = TicketStatus::ALL.iter().map(|status| status.as_str()).collect();
    result(json!({ "ticket_id": string(), "status": { "type": "string", "enum": status } }))
}
