//! JSON Schemas of the tools' arguments and results (JSON Schema 2020-12, root `type: object`, valid in every
//! revision). Every member of a result is typed. Nothing is required at the root, because some SDKs validate error
//! results against the same schema.

use serde_json::{Value, json};
use waypost_content::search::MAX_QUERY;
use waypost_core::ticket::{MAX_TEXT, MAX_TITLE, TicketStatus};

use super::Audience;

fn string() -> Value {
    json!({ "type": "string" })
}

fn integer() -> Value {
    json!({ "type": "integer" })
}

fn nullable(kind: &str) -> Value {
    json!({ "type": [kind, "null"] })
}

/// Returns an object schema without required members.
fn object(properties: Value) -> Value {
    json!({ "type": "object", "properties": properties })
}

fn handle() -> Value {
    json!({ "type": "string", "description": "From a result or your notes" })
}

fn walkthrough_id() -> Value {
    json!({ "type": "string", "description": "ID or slug" })
}

/// Returns the schema of a tool's arguments: an object with `properties` and nothing else.
fn arguments(properties: Value, required: &[&str]) -> Value {
    json!({ "type": "object", "properties": properties, "required": required, "additionalProperties": false })
}

/// Returns the schema of a tool's result: its members, or an error.
fn result(mut properties: Value) -> Value {
    properties["error"] = json!({
        "type": "object",
        "properties": { "code": string(), "message": string() },
    });
    object(properties)
}

/// Returns the schema of a walkthrough tool's result: its members, the handle and the message.
fn walkthrough_result(mut properties: Value) -> Value {
    properties["progress_handle"] = nullable("string");
    properties["message"] = string();
    result(properties)
}

fn walkthrough_members() -> Value {
    json!({ "id": string(), "slug": string(), "title": string(), "version": integer(), "latest_version": integer() })
}

fn walkthrough() -> Value {
    object(walkthrough_members())
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

/// Returns the schema of a result that contains a step.
pub(super) fn step_result() -> Value {
    walkthrough_result(json!({
        "walkthrough": walkthrough(), "progress": progress(), "step": step(), "completed_step_id": nullable("string"),
        "notice": nullable("string"),
    }))
}

pub(super) fn list_arguments() -> Value {
    arguments(
        json!({
            "query": { "type": "string", "maxLength": MAX_QUERY, "description": "Search words" },
            "cursor": { "type": "string", "description": "next_cursor of the previous page" },
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
    walkthrough_result(json!({ "walkthroughs": { "type": "array", "items": row }, "next_cursor": nullable("string") }))
}

pub(super) fn select_arguments() -> Value {
    arguments(
        json!({
            "walkthrough_id": walkthrough_id(),
            "resume_if_exists": { "type": "boolean", "default": true, "description": "false replaces the attempt with a new one" },
            "confirm": { "type": "boolean",
                "description": "Required to replace an attempt that has progress" },
            "use_version": { "type": "string", "enum": ["started", "latest"], "default": "started",
                "description": "latest keeps completed steps" },
            "progress_handle": handle(),
        }),
        &["walkthrough_id"],
    )
}

/// The maximum length of an email (RFC 5321, section 4.5.3.1: 64 octets, `@` and 255 octets).
const MAX_EMAIL: usize = 320;

/// Returns the schema of the user's email.
pub(super) fn email() -> Value {
    json!({ "type": "string", "format": "email", "maxLength": MAX_EMAIL, "description": "The user's email address" })
}

/// Returns `arguments` as they are listed for an audience. `is_start` is whether the tool can start a walkthrough, for
/// which a `collect_email` server asks for an email.
pub(super) fn for_audience(mut arguments: Value, audience: Audience, is_start: bool) -> Value {
    if is_start && audience.asks_email {
        arguments["properties"]["email"] = email();
    }
    if !audience.by_handle {
        arguments["properties"]["progress_handle"]["description"] = "From before the user signed in, if any".into();
    }
    arguments
}

pub(super) fn next_arguments() -> Value {
    arguments(
        json!({
            "walkthrough_id": walkthrough_id(),
            "current_step_id": { "type": "string", "description": "The step that the user has completed" },
            "progress_handle": handle(),
        }),
        &[],
    )
}

/// Returns the schema of the arguments of tools that read one walkthrough.
pub(super) fn read_arguments() -> Value {
    arguments(json!({ "walkthrough_id": walkthrough_id(), "progress_handle": handle() }), &["walkthrough_id"])
}

pub(super) fn status_result() -> Value {
    walkthrough_result(json!({ "walkthrough": walkthrough(), "progress": progress(), "steps": steps() }))
}

pub(super) fn reset_arguments() -> Value {
    arguments(
        json!({
            "walkthrough_id": walkthrough_id(),
            "confirm": { "type": "boolean", "description": "true, after the user has agreed" },
            "progress_handle": handle(),
        }),
        &["walkthrough_id", "confirm"],
    )
}

pub(super) fn reset_result() -> Value {
    walkthrough_result(json!({ "walkthrough_id": string(), "reset": { "type": "boolean" } }))
}

pub(super) fn details_result() -> Value {
    let mut walkthrough = walkthrough_members();
    walkthrough["description"] = string();
    walkthrough["type"] = string();
    walkthrough["tags"] = json!({ "type": "array", "items": string() });
    walkthrough["step_count"] = integer();
    walkthrough["estimated_duration_minutes"] = nullable("integer");
    let current = json!({
        "type": ["object", "null"],
        "properties": {
            "id": string(), "position": integer(), "title": string(), "section_title": nullable("string"),
        },
    });
    walkthrough_result(json!({ "walkthrough": object(walkthrough), "progress": progress(), "current_step": current }))
}

pub(super) fn complete_arguments() -> Value {
    arguments(
        json!({
            "walkthrough_id": walkthrough_id(),
            "step_id": { "type": "string", "description": "The step that the user has completed" },
            "progress_handle": handle(),
        }),
        &["walkthrough_id", "step_id"],
    )
}

pub(super) fn steps_result() -> Value {
    walkthrough_result(json!({ "walkthrough": walkthrough(), "steps": steps() }))
}

pub(super) fn support_arguments() -> Value {
    arguments(
        json!({
            "title": { "type": "string", "minLength": 1, "maxLength": MAX_TITLE, "description": "The problem in one line. Required for a new ticket" },
            "problem": { "type": "string", "minLength": 1, "maxLength": MAX_TEXT,
                "description": "What the user is trying to do, and what happens instead. Required for a new ticket" },
            "context": { "type": "string", "maxLength": MAX_TEXT,
                "description": "What was tried, error messages, versions" },
            "email": email(),
            "ticket_id": { "type": "string", "maxLength": 64,
                "description": "Only to read the replies to a ticket that this user opened: its ID, without other arguments" },
            "progress_handle": handle(),
        }),
        &[],
    )
}

pub(super) fn support_result() -> Value {
    let status: Vec<_> = TicketStatus::ALL.iter().map(|status| status.as_str()).collect();
    result(json!({
        "ticket_id": string(), "status": { "type": "string", "enum": status }, "message": string(),
        "title": string(),
        "replies": { "type": "array", "items": object(json!({ "text": string(), "created_at": string() })) },
    }))
}
