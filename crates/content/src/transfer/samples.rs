//! Round-trip tests of export and import with real files: the fixtures and, on request, third-party samples.

use std::path::{Path, PathBuf};

use super::export::ExportStep;
use super::export_markdown::export_markdown;
use super::file::WalkthroughFile;
use super::plan::{StepChange, plan};
use super::{folder, is_ignored_folder, is_source, markdown, parse};
use waypost_core::id::StepId;
use waypost_core::step::{Step, StepContent};

/// Returns the paths and contents of the files in a folder that an import reads.
fn sources(root: &Path) -> Vec<(String, String)> {
    let (mut found, mut folders) = (Vec::new(), vec![root.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("a folder of the fixtures") {
            let path = entry.expect("a folder entry").path();
            let name = path.file_name().and_then(|name| name.to_str()).expect("a name in UTF-8").to_owned();
            if path.is_dir() {
                folders.extend((!is_ignored_folder(&name)).then_some(path));
            } else if is_source(&name) {
                let below = path.strip_prefix(root).expect("below the root").to_str().expect("UTF-8").to_owned();
                found.push((below, std::fs::read_to_string(&path).expect("a text")));
            }
        }
    }
    found
}

fn read_folder(root: &Path) -> WalkthroughFile {
    let files = sources(root);
    let name = root.file_name().and_then(|name| name.to_str()).expect("a name");
    folder::parse(name, files.iter().map(|(path, text)| (path.as_str(), text.as_str()))).expect("a valid folder")
}

/// Returns every walkthrough in the fixtures: each folder and each single file.
fn walkthroughs(roots: &[PathBuf]) -> Vec<WalkthroughFile> {
    let mut files = Vec::new();
    for root in roots {
        files.push(read_folder(root));
        for (path, text) in sources(root) {
            // An index is invalid without its folder, and not every file in a folder is a walkthrough.
            files.extend(parse(&path, &text).ok());
        }
    }
    files
}

fn roots(parent: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(parent).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut roots: Vec<_> = entries.filter(|path| path.is_dir()).collect();
    roots.sort();
    roots
}

fn drafts(file: &WalkthroughFile) -> Vec<Step> {
    let step = |(index, step): (usize, &super::file::ImportStep)| Step {
        id: StepId::from_store(format!("ws_{index:012}")),
        ordinal: u32::try_from(index).unwrap_or_default(),
        key: step.identity.key().map(str::to_owned),
        next_step_id: None,
        content: step.content.clone(),
    };
    file.steps.iter().enumerate().map(step).collect()
}

/// Exports a walkthrough as Markdown, imports the result, and checks that nothing has changed.
fn check_round_trip(file: &WalkthroughFile) {
    let fields = file.fields(Some("Sample"), None).expect("it has a title");
    let draft = drafts(file);
    let text = export_markdown(&fields, &draft).unwrap_or_else(|error| panic!("{}: {error}", file.name));
    let read = markdown::parse("export.md", &text).unwrap_or_else(|error| panic!("{}: {error}", file.name));
    let again = read.fields(None, None).expect("an export has a title");
    let contents: Vec<StepContent> = read.steps.iter().map(|step| step.content.clone()).collect();
    assert_eq!(contents, draft.iter().map(|step| step.content.clone()).collect::<Vec<_>>(), "{}", file.name);
    let plan = plan(Some((&fields, &draft)), &again, read.steps);
    assert!(
        plan.is_unchanged() && plan.steps.iter().all(|step| step.change == StepChange::Unchanged),
        "{}: {plan}",
        file.name
    );
    // Importing the same file again changes nothing.
    let second = super::plan::plan(Some((&fields, &draft)), &fields, file.steps.clone());
    assert!(second.is_unchanged() && !second.needs_replace(), "{}: {second}", file.name);
}

#[test]
fn fixtures_survive_export_and_import() {
    let roots = roots(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/imports"));
    assert_eq!(roots.len(), 5, "one fixture per format: {roots:?}");
    let files = walkthroughs(&roots);
    assert!(files.len() >= 6);
    files.iter().for_each(check_round_trip);
    // A course of realistic length, built from the fixtures.
    let steps: Vec<_> = files.iter().flat_map(drafts).cycle().take(100).collect();
    let keys: Vec<_> = (0..steps.len()).map(|at| format!("k{at}")).collect();
    let steps: Vec<_> = keys.iter().zip(&steps).map(|(key, step)| ExportStep { key, content: &step.content }).collect();
    let fields = files[0].fields(Some("Long"), None).expect("it has a title");
    let read = markdown::parse("a.md", &export_markdown(&fields, steps.iter().copied()).expect("it can be exported"))
        .expect("a valid file");
    assert!(read.steps.iter().map(|step| &step.content).eq(steps.iter().map(|step| step.content)));
}

#[test]
#[ignore = "only with samples in WAYPOST_TEST_SAMPLES: run with --ignored"]
fn samples_survive_export_and_import() {
    let samples = std::env::var_os("WAYPOST_TEST_SAMPLES").expect("WAYPOST_TEST_SAMPLES is set");
    let roots = roots(Path::new(&samples));
    assert!(!roots.is_empty(), "the folder contains samples");
    walkthroughs(&roots).iter().for_each(check_round_trip);
}
