//! The list of all operations, read from the sources: the public async functions that take a `cx: &Ctx`.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// Returns the path of each operation of this crate, such as `walkthroughs::draft::add_step`, as callers write it: without
/// private modules, and with the type for methods.
pub fn list_operations() -> BTreeSet<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = BTreeSet::new();
    walk(&folder.join("lib.rs"), &folder, &[], &mut found);
    found
}

/// Reads the module in `file`, whose submodules are in `folder`.
fn walk(file: &Path, folder: &Path, path: &[Segment], found: &mut BTreeSet<String>) {
    let source = fs::read_to_string(file).unwrap();
    found.extend(parse_operations(&source, path));
    for submodule in parse_modules(&source) {
        let (nested, flat) = (folder.join(&submodule.name), folder.join(format!("{}.rs", submodule.name)));
        let is_nested = nested.is_dir();
        let file = if is_nested { nested.join("mod.rs") } else { flat };
        walk(&file, &nested, &[path, &[submodule]].concat(), found);
    }
}

/// A module in the path of an operation.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Segment {
    name: String,
    is_public: bool,
}

/// Returns the modules that `source` declares, without test modules, which have a body or follow an attribute.
fn parse_modules(source: &str) -> Vec<Segment> {
    let mut modules = Vec::new();
    let mut before = "";
    for line in source.lines() {
        let declared = line.strip_prefix("pub mod ").map(|rest| (rest, true));
        let declared = declared.or_else(|| line.strip_prefix("mod ").map(|rest| (rest, false)));
        if let Some((name, is_public)) =
            declared.and_then(|(rest, is_public)| Some((rest.strip_suffix(';')?, is_public)))
            && before != "#[cfg(test)]"
        {
            modules.push(Segment { name: name.to_owned(), is_public });
        }
        before = line;
    }
    modules
}

/// Returns the paths of the operations in `source`, the source of the module at `path`.
fn parse_operations(source: &str, path: &[Segment]) -> Vec<String> {
    let mut found = Vec::new();
    let mut type_name: Option<&str> = None;
    let mut lines = source.lines();
    while let Some(line) = lines.next() {
        if let Some(header) = line.strip_prefix("impl") {
            let generic = header.strip_prefix('<').and_then(|rest| rest.split_once("> "));
            let header = generic.map_or(header, |(_, header)| header);
            let header = header.split_once(" for ").map_or(header, |(_, header)| header).trim_start();
            type_name = header.split(|c: char| !c.is_alphanumeric()).next();
        } else if line == "}" {
            type_name = None;
        }
        let Some(rest) = line.trim_start().strip_prefix("pub async fn ") else { continue };
        let name = rest.split(|c: char| !(c.is_alphanumeric() || c == '_')).next().unwrap_or_default();
        let mut signature = rest.to_owned();
        while !signature.ends_with('{') && !signature.ends_with(';') && !signature.ends_with('}') {
            let Some(line) = lines.next() else { break };
            signature.push_str(line.trim());
        }
        if !signature.contains("cx: &Ctx") {
            continue;
        }
        let method_of = type_name.filter(|_| line.starts_with(' '));
        let modules = path.iter().enumerate().filter(|(index, module)| match method_of {
            Some(_) => *index == 0,
            None => module.is_public,
        });
        let mut parts: Vec<&str> = modules.map(|(_, module)| module.name.as_str()).collect();
        parts.extend(method_of);
        parts.push(name);
        found.push(parts.join("::"));
    }
    found
}

fn segment(name: &str, is_public: bool) -> Segment {
    Segment { name: name.to_owned(), is_public }
}

#[test]
fn functions_and_methods_with_a_context_are_operations() {
    let source = "\
//! pub async fn in_a_comment(cx: &Ctx) {
pub async fn short(cx: &Ctx, ops: &Ops) -> Result<()> {
    Ok(())
}

pub async fn long<'a>(
    cx: &Ctx,
    ops: &Ops,
) -> Result<()> {
    Ok(())
}

pub async fn without_a_context(ops: &Ops) -> Result<()> {}
pub(crate) async fn internal(cx: &Ctx) {}
async fn private(cx: &Ctx) {}
pub fn not_async(cx: &Ctx) {}

impl Accounts {
    pub async fn sign_in(
        &self,
        cx: &Ctx,
    ) -> Result<()> {
    }
}

impl<'a> Display for Other<'a> {
    pub async fn method(&self, cx: &Ctx) {}
}

pub async fn last(cx: &Ctx) {}
";
    let operations = |path: &[Segment]| parse_operations(source, path);
    let public = [segment("noun", true), segment("part", true)];
    let expected =
        ["noun::part::short", "noun::part::long", "noun::Accounts::sign_in", "noun::Other::method", "noun::part::last"];
    assert_eq!(operations(&public), expected);
    let private = [segment("noun", true), segment("part", false)];
    let expected = ["noun::short", "noun::long", "noun::Accounts::sign_in", "noun::Other::method", "noun::last"];
    assert_eq!(operations(&private), expected);
}

#[test]
fn test_modules_are_not_searched() {
    let source = "mod first;\npub mod second;\n#[cfg(test)]\nmod tests;\nmod inline {\n";
    assert_eq!(parse_modules(source), [segment("first", false), segment("second", true)]);
}

#[test]
fn the_list_has_operations_of_each_kind_of_module() {
    let operations = list_operations();
    for name in [
        "servers::create",
        "walkthroughs::draft::add_step",
        "walkthroughs::list",
        "analytics::export::export",
        "user_accounts::set_name",
        "user_accounts::UserAccounts::change_password",
    ] {
        assert!(operations.contains(name), "{name} is missing in {operations:#?}");
    }
}
