//! The generated walkthroughs that all contestants serve, so that their steps have the same size.

use serde_json::{Value, json};

/// A walkthrough to generate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Spec {
    /// Title, unique on the server.
    pub title: &'static str,
    /// Number of steps.
    pub steps: u32,
}

/// The walkthrough used by most calls.
pub const LONG: Spec = Spec { title: "The long walkthrough", steps: 500 };
/// The short walkthrough used in comparisons.
pub const SHORT: Spec = Spec { title: "The short walkthrough", steps: 10 };

/// Returns the title of step `position` (starting at 1).
pub fn title(position: u32) -> String {
    format!("Step {position}: prepare and check part {position}")
}

/// Returns the content of step `position`: about 1,100 bytes of Markdown.
pub fn content(position: u32) -> String {
    let mut text = format!("Open the settings of part {position} and check that the service is healthy.\n\n");
    text.push_str("```sh\nexample service status --part ");
    text.push_str(&position.to_string());
    text.push_str(" --format table\n```\n");
    for line in 1..=7 {
        text.push_str(&format!(
            "\n{line}. Compare line {line} of the output with the expected value, write down what differs, and \
             repair it before you go on with the next line of this list."
        ));
    }
    text
}

/// Returns the three fields of a step for the agent: introduction, context and operations.
pub fn agent_texts(position: u32) -> [String; 3] {
    [
        format!("Tell the user in one sentence what part {position} is for before you show the content."),
        "The user has a shell on the machine and may need the exact command; never guess a value that the output shows."
            .to_owned(),
        "Run the status command when you can, read its output, and report only the lines that differ.".to_owned(),
    ]
}

/// Returns a JSON import file (version 1.1) for a walkthrough.
pub fn import_file(spec: Spec) -> Value {
    let steps: Vec<Value> = (1..=spec.steps)
        .map(|position| {
            let [introduction, context, operations] = agent_texts(position);
            json!({
                "key": format!("step-{position}"),
                "title": title(position),
                "sectionTitle": section(position),
                "contentFields": {
                    "version": "v1",
                    "contentForUser": content(position),
                    "introductionForAgent": introduction,
                    "contextForAgent": context,
                    "operationsForAgent": operations,
                },
                "displayOrder": position,
                "nextStepReference": (position < spec.steps).then_some(position),
            })
        })
        .collect();
    json!({
        "version": "1.1",
        "exportedAt": "2026-01-01T00:00:00Z",
        "walkthrough": {
            "title": spec.title,
            "description": "Generated for benchmarks.",
            "type": "quickstart",
            "status": "draft",
            "estimatedDurationMinutes": 30,
            "tags": ["bench"],
            "metadata": {},
        },
        "steps": steps,
        "metadata": {},
    })
}

/// Returns the title of a step's section.
pub fn section(position: u32) -> String {
    format!("Section {}", (position - 1) / 10 + 1)
}

/// Returns the text block for clients without structured content, as rendered by the floor and the peer.
pub fn text_block(position: u32, total: u32) -> String {
    let [introduction, context, operations] = agent_texts(position);
    format!(
        "# {}\nStep {position} of {total}\n\n{introduction}\n\n{}\n\n{context}\n\n{operations}\n\nWhen the user has done \
         it, call next_walkthrough_step.",
        title(position),
        content(position)
    )
}

/// Returns the constant step result of the floor, from the middle of the long walkthrough.
pub fn constant_step_result() -> Value {
    let [introduction, context, operations] = agent_texts(250);
    json!({
        "walkthrough": {
            "id": "wt_0123456789ab", "slug": "the-long-walkthrough", "title": LONG.title, "version": 1, "latest_version": 1,
        },
        "progress": {
            "status": "in_progress", "completed": 249, "total": LONG.steps, "percent": 49,
            "started_at": "2026-01-01T00:00:00.000Z", "completed_at": null,
        },
        "step": {
            "id": "ws_0123456789ab", "position": 250, "title": title(250), "section_title": section(250),
            "content": content(250), "introduction_for_agent": introduction, "context_for_agent": context,
            "operations_for_agent": operations,
        },
        "completed_step_id": "ws_ba9876543210",
        "progress_handle": null,
        "message": "Step 249 is completed. This is step 250 of 500.",
    })
}
