//! `/api/reference`: the API reference, generated from the OpenAPI document.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use askama::Template;
use axum::extract::State;
use axum::response::Response;
use serde_json::Value;

use crate::layout::Layout;
use crate::routes::{Access, Routes};
use crate::session::OptionalUser;
use crate::view;
use waypost_content::html;

use crate::Console;

/// Returns the routes of this page.
pub(super) fn routes() -> Routes {
    Routes::new().get("/api/reference", Access::Public, show)
}

/// The operations of one resource.
struct TagDoc {
    name: String,
    operations: Vec<OperationDoc>,
}

struct OperationDoc {
    id: String,
    method: String,
    path: String,
    /// Rendered HTML.
    description: String,
    parameters: Vec<FieldDoc>,
    body: Option<BodyDoc>,
    responses: Vec<ResponseDoc>,
    curl: String,
}

/// A parameter or a body member.
struct FieldDoc {
    name: String,
    /// The location of the parameter: `path`, `query` or `header`. Empty for a body member.
    location: String,
    kind: String,
    required: bool,
    /// Rendered HTML.
    description: String,
}

struct BodyDoc {
    kind: String,
    fields: Vec<FieldDoc>,
}

struct ResponseDoc {
    status: String,
    description: String,
    kind: String,
    fields: Vec<FieldDoc>,
}

/// Computed once, because the document is large and does not change.
static TAGS: OnceLock<Vec<TagDoc>> = OnceLock::new();

#[derive(Template)]
#[template(path = "reference.html")]
struct ReferencePage {
    layout: Layout,
    origin: String,
    tags: &'static [TagDoc],
}

async fn show(State(console): State<Console>, OptionalUser(viewer): OptionalUser) -> Response {
    let tags = TAGS.get_or_init(|| tags(console.api_document()));
    let layout = viewer.map_or_else(Layout::empty, |viewer| viewer.layout);
    view::page(&ReferencePage { layout, origin: console.public_url.origin(), tags })
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_default()
}

fn tags(document: &Value) -> Vec<TagDoc> {
    let mut tags: BTreeMap<String, Vec<OperationDoc>> = BTreeMap::new();
    let paths = document["paths"].as_object().into_iter().flatten();
    for (path, methods) in paths {
        for (method, operation) in methods.as_object().into_iter().flatten() {
            let tag = operation["tags"][0].as_str().unwrap_or("other").to_owned();
            tags.entry(tag).or_default().push(self::operation(document, method, path, operation));
        }
    }
    tags.into_iter().map(|(name, operations)| TagDoc { name, operations }).collect()
}

fn operation(document: &Value, method: &str, path: &str, operation: &Value) -> OperationDoc {
    let parameters = operation["parameters"].as_array().into_iter().flatten().map(|parameter| FieldDoc {
        name: text(parameter, "name").to_owned(),
        location: text(parameter, "in").to_owned(),
        kind: kind(&parameter["schema"]),
        required: parameter["required"].as_bool().unwrap_or_default(),
        description: html::render(text(parameter, "description")),
    });
    let content = operation["requestBody"]["content"].as_object().and_then(|content| content.iter().next());
    let body = content.map(|(media, body)| BodyDoc {
        kind: if media == "application/json" {
            kind(&body["schema"])
        } else {
            format!("{} ({media})", kind(&body["schema"]))
        },
        fields: fields(document, &body["schema"]),
    });
    let responses = operation["responses"].as_object().into_iter().flatten();
    let successful = responses.filter(|(status, _)| status.starts_with('2') || status.starts_with('3'));
    let responses = successful.map(|(status, response)| {
        let schema = response["content"]
            .as_object()
            .and_then(|content| content.values().next())
            .map(|media_type| &media_type["schema"]);
        ResponseDoc {
            status: status.clone(),
            description: text(response, "description").to_owned(),
            kind: schema.map(kind).unwrap_or_default(),
            fields: schema.map(|schema| fields(document, schema)).unwrap_or_default(),
        }
    });
    let description = [text(operation, "summary"), text(operation, "description")].join("\n\n");
    OperationDoc {
        id: text(operation, "operationId").to_owned(),
        method: method.to_uppercase(),
        path: path.to_owned(),
        description: html::render(description.trim()),
        parameters: parameters.collect(),
        curl: curl(method, path, body.as_ref()),
        body,
        responses: responses.collect(),
    }
}

/// Resolves the `$ref` of a schema, if any.
fn resolve<'a>(document: &'a Value, schema: &'a Value) -> &'a Value {
    match schema["$ref"].as_str().and_then(|reference| reference.rsplit('/').next()) {
        Some(name) => &document["components"]["schemas"][name],
        None => schema,
    }
}

/// Returns the members of an object schema, or of the item schema of an array.
fn fields(document: &Value, schema: &Value) -> Vec<FieldDoc> {
    let schema = resolve(document, schema);
    if let Some(items) = schema.get("items") {
        return fields(document, items);
    }
    let required =
        |name: &str| schema["required"].as_array().is_some_and(|all| all.iter().any(|required| required == name));
    let members = schema["properties"].as_object().into_iter().flatten();
    let own = members.map(|(name, member)| FieldDoc {
        name: name.clone(),
        location: String::new(),
        kind: kind(member),
        required: required(name),
        description: html::render(text(member, "description")),
    });
    let mut all: Vec<FieldDoc> = own.collect();
    for part in schema["allOf"].as_array().into_iter().flatten() {
        all.extend(fields(document, part));
    }
    all
}

/// Returns a short description of the schema's type.
fn kind(schema: &Value) -> String {
    if let Some(reference) = schema["$ref"].as_str() {
        return reference.rsplit('/').next().unwrap_or_default().to_owned();
    }
    if let Some(parts) = schema["oneOf"].as_array().or_else(|| schema["anyOf"].as_array()) {
        return parts.iter().map(kind).filter(|kind| !kind.is_empty()).collect::<Vec<_>>().join(" or ");
    }
    if let Some(values) = schema["enum"].as_array() {
        return values.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" | ");
    }
    let name = match &schema["type"] {
        Value::String(name) => name.clone(),
        Value::Array(names) => names.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" or "),
        _ => return String::new(),
    };
    if name.starts_with("array") {
        return format!("list of {}", kind(&schema["items"]));
    }
    match schema["format"].as_str() {
        Some(format) => format!("{name} ({format})"),
        None => name,
    }
}

/// Returns an example `curl` command with placeholders in capitals.
fn curl(method: &str, path: &str, body: Option<&BodyDoc>) -> String {
    let mut address = path.to_owned();
    while let (Some(open), Some(close)) = (address.find('{'), address.find('}')) {
        let name = address[open + 1..close].to_uppercase();
        address.replace_range(open..=close, &name);
    }
    let mut command = "curl -H \"Authorization: Bearer $WAYPOST_API_KEY\"".to_owned();
    if method != "get" {
        command.push_str(&format!(" -X {}", method.to_uppercase()));
    }
    if let Some(body) = body.filter(|body| !body.kind.contains('(')) {
        let required = body.fields.iter().filter(|field| field.required);
        let members: Vec<String> = required.map(|field| format!("\"{}\": …", field.name)).collect();
        command.push_str(&format!(" \\\n  -H \"Content-Type: application/json\" -d '{{{}}}'", members.join(", ")));
    }
    format!("{command} \\\n  ORIGIN/api/v1{address}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_operation_is_described() {
        let document = serde_json::from_str(include_str!("../../../docs/openapi.json")).unwrap();
        let tags = tags(&document);
        for tag in &tags {
            for operation in &tag.operations {
                assert!(!operation.id.is_empty() && !operation.description.is_empty(), "{}", operation.path);
                assert!(!operation.responses.is_empty(), "{} has no responses", operation.id);
            }
        }
        assert!(tags.iter().any(|tag| tag.name == "organizations"));
    }
}
