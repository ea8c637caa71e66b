//! Measurements other than throughput: other operations, sizes, memory, start-up time.

use anyhow::{Context, Result};
use serde_json::Value;

use crate::client::Connection;
use crate::content::{LONG, SHORT};
use crate::contestants::Kind;
use crate::harness::{Bench, print_progress};
use crate::leg::{Load, median};
use crate::mcp::{Client, Era};
use crate::plan::{Limit, Op};
use crate::process;
use crate::report::{Memory, Sizes, Start};

/// Measures `list`, `select` and `status` on one connection (`next` is part of the throughput rounds).
pub async fn measure_operations(bench: &mut Bench) -> Result<()> {
    let limit = Limit::Calls(bench.settings.single_calls);
    for op in [Op::List, Op::Select, Op::Status] {
        for index in 0..bench.contestants.len() {
            let kind = bench.contestants[index].kind;
            if kind == Kind::Floor {
                continue;
            }
            for era in kind.eras() {
                let load = Load { op, era: *era, connections: 1, limit, walkthrough: LONG };
                bench.run_leg(index, load, "single", 1).await?;
            }
        }
    }
    Ok(())
}

/// Measures the size of `tools/list`, untyped schema members, and the fixed text around a step.
pub async fn measure_sizes(bench: &mut Bench) -> Result<()> {
    for contestant in bench.contestants.iter().filter(|contestant| contestant.kind.is_waypost()) {
        let mut connection = Connection::open(contestant.server.addr).await?;
        let path = contestant.path.replace("{user}", &format!("{}-sizes", bench.driver.run));
        let mut client = Client::new(path, Era::Modern);
        let body = client.send_raw(&mut connection, "tools/list").await?;
        let list: Value = serde_json::from_slice(&body)?;
        let tools = list.pointer("/result/tools").and_then(Value::as_array).context("tools/list: no tools")?;
        let mut untyped = Vec::new();
        for tool in tools {
            let name = tool["name"].as_str().unwrap_or_default();
            for schema in ["inputSchema", "outputSchema"] {
                collect_untyped_members(&tool[schema], &format!("{name}.{schema}"), &mut untyped);
            }
        }
        let mut fixed = 0;
        for walkthrough in [LONG, SHORT] {
            let arguments = format!(r#"{{"walkthrough_id":"{}"}}"#, contestant.walkthrough(walkthrough)?);
            let mut responses = vec![client.call_raw(&mut connection, "select_walkthrough", &arguments).await?];
            responses.push(client.call_raw(&mut connection, "next_walkthrough_step", &arguments).await?);
            for response in responses {
                fixed = fixed.max(fixed_text_bytes(&serde_json::from_slice(&response)?)?);
            }
        }
        let tool_names = tools.iter().filter_map(|tool| Some(tool["name"].as_str()?.to_owned())).collect();
        bench.findings.sizes.push(Sizes {
            contestant: contestant.kind.name(),
            tools: tool_names,
            tools_list_bytes: serde_json::to_vec(&list["result"])?.len(),
            untyped_members: untyped,
            fixed_text_bytes: fixed,
        });
    }
    Ok(())
}

/// Traverses a schema and collects every property and array item without a type.
fn collect_untyped_members(schema: &Value, path: &str, untyped: &mut Vec<String>) {
    const TYPE_KEYWORDS: [&str; 7] = ["type", "$ref", "anyOf", "oneOf", "allOf", "enum", "const"];
    if !TYPE_KEYWORDS.iter().any(|keyword| schema.get(keyword).is_some()) {
        untyped.push(path.to_owned());
    }
    if schema["type"] == "array" && schema.get("items").is_none() {
        untyped.push(format!("{path}[]"));
    }
    for group in ["properties", "$defs"] {
        for (name, member) in schema[group].as_object().into_iter().flatten() {
            collect_untyped_members(member, &format!("{path}.{name}"), untyped);
        }
    }
    for group in ["anyOf", "oneOf", "allOf"] {
        for (index, member) in schema[group].as_array().into_iter().flatten().enumerate() {
            collect_untyped_members(member, &format!("{path}/{group}{index}"), untyped);
        }
    }
    if let Some(items) = schema.get("items").filter(|items| items.is_object()) {
        collect_untyped_members(items, &format!("{path}[]"), untyped);
    }
}

/// Returns the size of the text block in bytes without the author's text (the fields of the step and the title of the
/// walkthrough).
fn fixed_text_bytes(response: &Value) -> Result<usize> {
    let blocks = response.pointer("/result/content").and_then(Value::as_array).context("no content")?;
    let mut text: String = blocks.iter().filter_map(|block| block["text"].as_str()).collect();
    let result = response.pointer("/result/structuredContent").context("no structured content")?;
    let mut texts: Vec<&str> = ["content", "introduction_for_agent", "context_for_agent", "operations_for_agent"]
        .iter()
        .chain(&["title", "section_title"])
        .filter_map(|member| result["step"][member].as_str())
        .collect();
    texts.extend(result["walkthrough"]["title"].as_str());
    // The content may be escaped or indented in the block; in that case its lines are removed one by one.
    let lines: Vec<&str> = texts.iter().flat_map(|text| text.lines()).filter(|line| line.len() > 3).collect();
    for part in texts.iter().chain(&lines) {
        if let Some(start) = text.find(part) {
            text.replace_range(start..start + part.len(), "");
        }
    }
    Ok(text.len())
}

/// Measures resident memory; for Waypost, after a minimum number of calls.
pub async fn measure_memory(bench: &mut Bench) -> Result<()> {
    for index in 0..bench.contestants.len() {
        let kind = bench.contestants[index].kind;
        let missing = bench.settings.memory_calls.saturating_sub(bench.contestants[index].served);
        if kind.is_waypost() && missing > 0 {
            let limit = Limit::Calls(missing.div_ceil(64));
            bench.run_leg(index, Load::next(Era::Modern, 64, limit), "memory", 1).await?;
        }
        let contestant = &bench.contestants[index];
        bench.findings.memory.push(Memory {
            contestant: kind.name(),
            calls: contestant.served,
            resident_bytes: process::resident_bytes(contestant.server.pid())?,
        });
    }
    Ok(())
}

/// Measures the time from process start to `listening` with the databases that the run filled. Stops the contestants.
pub async fn measure_starts(bench: &mut Bench) -> Result<()> {
    for (kind, installation) in bench.installations.clone() {
        let index = bench.contestants.iter().position(|contestant| contestant.kind == kind).context("no contestant")?;
        bench.contestants.remove(index).server.stop().await?;
        let mut seconds = Vec::new();
        for _ in 0..bench.settings.starts {
            let (server, _) = installation.serve("start", &bench.logs).await?;
            seconds.push(server.startup.as_secs_f64());
            server.stop().await?;
        }
        print_progress(&format!("start of {}: {seconds:.3?} s", kind.name()));
        let median_seconds = median(seconds.clone()).unwrap_or_default();
        bench.findings.starts.push(Start { contestant: kind.name(), median_seconds, seconds });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn untyped_members_are_found() {
        let schema = json!({"type": "object", "properties": {
            "a": {"type": "string"}, "b": {}, "c": {"type": "array"}, "d": {"type": "array", "items": {"enum": [1]}},
            "e": {"anyOf": [{"type": "null"}, {"type": "object", "properties": {"f": {"description": "?"}}}]},
        }});
        let mut untyped = Vec::new();
        collect_untyped_members(&schema, "t", &mut untyped);
        assert_eq!(untyped, ["t.b", "t.c[]", "t.e/anyOf1.f"]);
    }

    #[test]
    fn fixed_text_excludes_author_supplied_text() {
        let response = json!({"result": {
            "content": [{"type": "text", "text": "# First\n1/3\n> Do this.\n> Then that.\nCall next."}],
            "structuredContent": {"walkthrough": {"title": "W"}, "step": {"title": "First", "content": "Do this.\nThen that."}},
        }});
        assert_eq!(fixed_text_bytes(&response).unwrap(), "# \n1/3\n> \n> \nCall next.".len());
    }
}
