use serde_json::Map;

use super::*;
use crate::transfer::file::StepIdentity;
use crate::transfer::source::SourceRef;
use waypost_core::walkthrough::WalkthroughType;

fn content(title: &str) -> StepContent {
    StepContent { title: title.to_owned(), content: "x".to_owned(), ..StepContent::default() }
}

/// `key=Title`, or `Title` alone.
fn named(text: &str) -> (Option<String>, StepContent) {
    match text.split_once('=') {
        Some((key, title)) => (Some(key.to_owned()), content(title)),
        None => (None, content(text)),
    }
}

fn id(index: usize) -> StepId {
    StepId::from_store(format!("ws_{index:012}"))
}

fn draft(names: &[&str]) -> Vec<Step> {
    let step = |(index, name): (usize, &&str)| {
        let (key, content) = named(name);
        let next_step_id = (index + 1 < names.len()).then(|| id(index + 1));
        Step { id: id(index), ordinal: u32::try_from(index).expect("few steps"), key, next_step_id, content }
    };
    names.iter().enumerate().map(step).collect()
}

fn file(names: &[&str]) -> Vec<ImportStep> {
    let step = |name: &&str| {
        let (key, content) = named(name);
        let identity = key.map_or(StepIdentity::Title, StepIdentity::Key);
        ImportStep { identity, source: SourceRef::file("a.json"), content }
    };
    names.iter().map(step).collect()
}

fn fields() -> WalkthroughFields {
    WalkthroughFields {
        title: "T".to_owned(),
        description: String::new(),
        kind: WalkthroughType::Quickstart,
        estimated_duration_minutes: None,
        tags: Vec::new(),
        metadata: Map::new(),
    }
}

fn run(before: &[&str], after: &[&str]) -> ImportPlan {
    plan(Some((&fields(), &draft(before))), &fields(), file(after))
}

/// Formats each planned step as the index of its existing step and a character for the change.
fn shape(plan: &ImportPlan) -> String {
    let one = |step: &PlannedStep| {
        let source = step
            .existing
            .as_ref()
            .map_or("".to_owned(), |id| id.as_str().trim_start_matches("ws_").trim_start_matches('0').to_owned());
        let source = if step.existing.is_some() && source.is_empty() { "0".to_owned() } else { source };
        let mark = match &step.change {
            StepChange::Unchanged => "=",
            StepChange::Moved => ">",
            StepChange::Updated { moved: false, .. } => "~",
            StepChange::Updated { moved: true, .. } => "~>",
            StepChange::Added => "+",
        };
        format!("{source}{mark}")
    };
    plan.steps.iter().map(one).collect::<Vec<_>>().join(" ")
}

#[test]
fn steps_are_matched() {
    type Row<'a> = (&'a str, &'a [&'a str], &'a [&'a str], &'a str, usize);
    let table: &[Row<'_>] = &[
        ("the same", &["A", "B"], &["A", "B"], "0= 1=", 0),
        ("a title is folded", &["Größe "], &["GRÖSSE"], "0~", 0),
        ("renamed without a key", &["A", "B"], &["A", "C"], "0= +", 1),
        ("renamed with a key", &["a=A", "b=B"], &["a=A", "b=C"], "0= 1~", 0),
        ("occurrences", &["A", "A", "B"], &["A", "B", "A"], "0= 2> 1=", 0),
        ("one of several", &["A", "A"], &["A"], "0=", 1),
        ("by id", &["A", "B"], &["ws_000000000001=New", "ws_000000000000=A"], "1~> 0=", 0),
        ("one in front", &["A", "B", "C"], &["C", "A", "B"], "2> 0= 1=", 0),
        ("inserted", &["A", "B"], &["A", "X", "B"], "0= + 1=", 0),
        ("keys come later", &["A", "B"], &["a=A", "b=B"], "0~ 1~", 0),
        ("keys are left out", &["a=A", "b=B"], &["A", "B"], "0= 1=", 0),
        ("another key is another step", &["a=A"], &["b=A"], "+", 1),
        ("key before title", &["A", "a=B"], &["a=A", "A"], "1~> 0=", 0),
        ("a key that imitates an id", &["ws_000000000001=A", "B"], &["ws_000000000001=A", "B"], "0= 1=", 0),
        ("all new", &[], &["A"], "+", 0),
        ("all gone", &["A"], &[], "", 1),
    ];
    for (name, before, after, expected, removed) in table {
        let plan = run(before, after);
        let moves = shape(&plan);
        // Either of two crossing steps can count as moved, but one of them must.
        let same = |text: &str| text.replace(['>', '='], "");
        assert_eq!((same(&moves), moves.contains('>')), (same(expected), expected.contains('>')), "{name}: {moves}");
        assert_eq!(plan.removed.len(), *removed, "{name}");
    }
}

#[test]
fn moving_one_step_to_the_front_is_one_move() {
    assert_eq!(shape(&run(&["A", "B", "C", "D"], &["D", "A", "B", "C"])), "3> 0= 1= 2=");
}

#[test]
fn existing_keys_are_kept_and_new_keys_are_added() {
    let keys = |plan: ImportPlan| plan.steps.into_iter().map(|step| step.key).collect::<Vec<_>>();
    assert_eq!(keys(run(&["a=A", "B"], &["A", "b=B"])), [Some("a".to_owned()), Some("b".to_owned())]);
    assert_eq!(keys(run(&["A"], &["ws_000000000000=A"])), [None], "the ID of a step is not stored as its key");
    assert_eq!(keys(run(&[], &["ws_000000000000=A"])), [Some("ws_000000000000".to_owned())]);
}

#[test]
fn matching_fewer_than_half_requires_replace() {
    let table: &[(&[&str], &[&str], bool)] = &[
        (&["A", "B"], &["A"], false),
        (&["A", "B", "C"], &["A"], true),
        (&["A"], &["B"], true),
        (&[], &["A"], false),
        (&["A", "B"], &["A", "X", "Y", "Z"], false),
    ];
    for (before, after, expected) in table {
        let plan = run(before, after);
        assert_eq!(plan.needs_replace(), *expected, "{before:?} {after:?}");
    }
}

#[test]
fn the_plan_is_displayed_step_by_step() {
    let mut after = fields();
    after.tags.push("x".to_owned());
    let draft = draft(&["a=A", "B", "C"]);
    let plan = plan(Some((&fields(), &draft)), &after, file(&["a=New\ntitle", "C", "D"]));
    assert_eq!(
        plan.to_string(),
        "~ step 1 \"New\\ntitle\": updated (title)\n  step 2 \"C\": unchanged\n+ step 3 \"D\": added\n\
         - \"B\" (ws_000000000001): removed\n~ walkthrough: updated (tags)\n\
         3 steps: 1 added, 1 updated, 1 removed, 1 unchanged, walkthrough: tags"
    );
    assert_eq!(run(&["A"], &["A"]).summary(), "1 step unchanged");
    assert!(run(&["A"], &["A"]).is_unchanged() && !plan.is_unchanged());
}
