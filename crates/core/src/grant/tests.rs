use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::argument_rule::Comparison;

const NOW: Timestamp = Timestamp(1_000);

fn grant(access: AccessLevel) -> Grant {
    Grant {
        id: GrantId::from_store("grt_1".to_owned()),
        organization_id: OrganizationId::from_store("org_1".to_owned()),
        agent_id: AgentId::from_store("agt_1".to_owned()),
        instance_id: InstanceId::from_store("ins_1".to_owned()),
        access,
        names: GrantedNames::default(),
        rules: Vec::new(),
        expires_at: None,
        created_at: Timestamp(0),
        created_by: "operator".to_owned(),
    }
}

fn custom(tools: &[&str], prompts: &[&str], resources: &[&str]) -> Grant {
    let list = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    let names = GrantedNames { tools: list(tools), prompts: list(prompts), resources: list(resources) };
    Grant { names, ..grant(AccessLevel::Custom) }
}

fn rule(tool: &str, field: &str, comparison: Comparison, value: Value) -> ArgumentRule {
    ArgumentRule { tool: tool.to_owned(), field: field.to_owned(), comparison, value }
}

fn target(kind: DefinitionKind, name: &str, class: Option<Class>) -> Target<'_> {
    Target { kind, name, class }
}

#[test]
fn read_only_covers_the_read_class_of_every_kind() {
    let grants = [grant(AccessLevel::ReadOnly)];
    for kind in DefinitionKind::ALL {
        for class in [None, Some(Class::Read), Some(Class::Write), Some(Class::Destructive)] {
            let expected = class == Some(Class::Read) || *kind == DefinitionKind::Instructions;
            assert_eq!(allows(&grants, NOW, target(*kind, "a", class), None), expected, "{kind} {class:?}");
            assert!(allows(&[grant(AccessLevel::FullAccess)], NOW, target(*kind, "a", class), None));
        }
    }
}

#[test]
fn custom_covers_the_names_listed_for_each_kind() {
    use DefinitionKind::*;
    let grants = [custom(&["search"], &["review"], &["notes://all", "notes://{id}/body"])];
    for (kind, name, expected) in [
        (Tool, "search", true),
        (Tool, "Search", false),
        (Tool, "review", false),
        (Tool, "notes://all", false),
        (Prompt, "review", true),
        (Prompt, "search", false),
        (Resource, "notes://all", true),
        (Resource, "notes://7/body", true),
        (Resource, "notes://7/8/body", false),
        (Resource, "notes://7", false),
        (ResourceTemplate, "notes://{id}/body", true),
        (ResourceTemplate, "notes://{other}/body", false),
        (ResourceTemplate, "notes://7/body", false),
        (Instructions, "", true),
    ] {
        // The class has no effect.
        for class in [None, Some(Class::Read), Some(Class::Destructive)] {
            assert_eq!(allows(&grants, NOW, target(kind, name, class), None), expected, "{kind} {name}");
        }
    }
}

#[test]
fn a_call_must_satisfy_all_rules_of_one_grant() {
    let small = rule("pay", "amount", Comparison::AtMost, json!(100));
    let euros = rule("pay", "currency", Comparison::Equals, json!("EUR"));
    let francs = rule("pay", "currency", Comparison::Equals, json!("CHF"));
    let one = Grant { rules: vec![small.clone(), euros], ..grant(AccessLevel::FullAccess) };
    let other = Grant { rules: vec![francs], ..grant(AccessLevel::FullAccess) };
    let pay = target(DefinitionKind::Tool, "pay", None);
    let may = |grants: &[Grant], amount: i64, currency: &str| {
        allows(grants, NOW, pay, Some(&json!({ "amount": amount, "currency": currency })))
    };
    assert!(may(std::slice::from_ref(&one), 100, "EUR") && !may(std::slice::from_ref(&one), 101, "EUR"));
    assert!(!may(std::slice::from_ref(&one), 100, "CHF"));
    let both = [one, other];
    assert!(may(&both, 100, "EUR") && may(&both, 101, "CHF") && !may(&both, 101, "EUR"));
    assert!(!allows(&both, NOW, pay, None) && !allows(&both, NOW, pay, Some(&json!({}))), "missing fields");
    assert!(covers(&both, NOW, pay), "listed");
    assert!(allows(&both, NOW, target(DefinitionKind::Tool, "refund", None), None), "another tool");
    assert!(allows(&both, NOW, target(DefinitionKind::Prompt, "pay", None), None), "a prompt with the same name");
}

#[test]
fn a_grant_expires_at_its_expiry() {
    let expiring = Grant { expires_at: Some(NOW), ..grant(AccessLevel::FullAccess) };
    let search = target(DefinitionKind::Tool, "search", None);
    assert!(allows(std::slice::from_ref(&expiring), NOW.plus(-1), search, None));
    assert!(!allows(std::slice::from_ref(&expiring), NOW, search, None));
    assert!(!covers(&[expiring], NOW, target(DefinitionKind::Instructions, "", None)));
}

#[test]
fn lists_and_rules_must_fit_the_access_level() {
    let field = |grant: &Grant| grant.check().unwrap_err().details["field"].as_str().unwrap().to_owned();
    for valid in [grant(AccessLevel::ReadOnly), grant(AccessLevel::FullAccess), custom(&["a"], &[], &[])] {
        assert!(valid.check().is_ok());
    }
    assert!(custom(&[], &["p"], &[]).check().is_ok() && custom(&[], &[], &["x://{y}"]).check().is_ok());
    assert_eq!(field(&custom(&[], &[], &[])), "tools");
    assert_eq!(field(&Grant { access: AccessLevel::FullAccess, ..custom(&["a"], &[], &[]) }), "access");
    assert_eq!(field(&Grant { access: AccessLevel::ReadOnly, ..custom(&[], &[], &["x://y"]) }), "access");
    assert_eq!(field(&custom(&["a", "b", "a"], &[], &[])), "tools");
    assert_eq!(field(&custom(&[], &[""], &[])), "prompts");
    assert_eq!(field(&custom(&[&"a".repeat(MAX_TOOL_NAME + 1)], &[], &[])), "tools");
    assert_eq!(field(&custom(&[], &[], &["x://{y"])), "resources");
    let many: Vec<_> = (0..=MAX_NAMES).map(|n| n.to_string()).collect();
    let many: Vec<_> = many.iter().map(String::as_str).collect();
    assert_eq!(field(&custom(&many, &[], &[])), "tools");
    assert!(custom(&many[1..], &[], &[]).check().is_ok());
    let equals = |tool| rule(tool, "x", Comparison::Equals, json!(1));
    assert!(Grant { rules: vec![equals("a"); MAX_RULES], ..custom(&["a"], &[], &[]) }.check().is_ok());
    assert_eq!(field(&Grant { rules: vec![equals("a"); MAX_RULES + 1], ..custom(&["a"], &[], &[]) }), "rules");
    assert_eq!(field(&Grant { rules: vec![equals("b")], ..custom(&["a"], &[], &[]) }), "rules");
    assert!(Grant { rules: vec![equals("b")], ..grant(AccessLevel::ReadOnly) }.check().is_ok());
    assert_eq!(field(&Grant { rules: vec![equals("")], ..grant(AccessLevel::ReadOnly) }), "rules");
}

fn any_rule() -> impl Strategy<Value = ArgumentRule> {
    let comparison = prop::sample::select(Comparison::ALL);
    ("[ab]", "[xy]", comparison, prop_oneof![Just(json!(1)), Just(json!("v")), Just(json!([1, "v"]))])
        .prop_map(|(tool, field, comparison, value)| rule(&tool, &field, comparison, value))
}

fn any_grant() -> impl Strategy<Value = Grant> {
    let names = || prop::sample::subsequence(vec!["a", "b"], 0..=2);
    let resources = prop::sample::subsequence(vec!["a", "{x}", "b/{x}"], 0..=3);
    let expiry = prop_oneof![Just(None), (0_i64..10).prop_map(|at| Some(Timestamp(at)))];
    let rules = prop::collection::vec(any_rule(), 0..3);
    (prop::sample::select(AccessLevel::ALL), names(), names(), resources, rules, expiry).prop_map(
        |(access, tools, prompts, resources, rules, expires_at)| Grant {
            access,
            rules,
            expires_at,
            ..custom(&tools, &prompts, &resources)
        },
    )
}

fn any_target() -> impl Strategy<Value = (DefinitionKind, &'static str, Option<Class>)> {
    let class = prop_oneof![Just(None), prop::sample::select(Class::ALL).prop_map(Some)];
    (prop::sample::select(DefinitionKind::ALL), prop::sample::select(vec!["a", "b", "c", "{x}", "b/a"]), class)
}

fn any_arguments() -> impl Strategy<Value = Option<Value>> {
    let value = || prop_oneof![Just(json!(1)), Just(json!(2)), Just(json!("v")), Just(json!("w")), Just(json!([1]))];
    let object = prop::collection::btree_map("[xy]", value(), 0..3).prop_map(|members| Some(json!(members)));
    prop_oneof![Just(None), object]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_024))]

    #[test]
    fn nothing_is_allowed_without_a_grant((kind, name, class) in any_target(), arguments in any_arguments(), now in 0_i64..10) {
        let target = target(kind, name, class);
        prop_assert!(!allows(&[], Timestamp(now), target, arguments.as_ref()) && !covers(&[], Timestamp(now), target));
    }

    /// Access is a monotonic union: the order of the grants has no effect.
    #[test]
    fn access_is_the_union_of_the_grants(
        grants in prop::collection::vec(any_grant(), 0..4), (kind, name, class) in any_target(),
        arguments in any_arguments(), now in 0_i64..10,
    ) {
        let (now, target) = (Timestamp(now), target(kind, name, class));
        let may = |grants: &[Grant]| allows(grants, now, target, arguments.as_ref());
        prop_assert_eq!(may(&grants), grants.iter().any(|grant| may(std::slice::from_ref(grant))));
        for end in 0..grants.len() {
            prop_assert!(!may(&grants[..end]) || may(&grants), "a further grant removed access");
        }
        let reversed: Vec<_> = grants.iter().rev().cloned().collect();
        prop_assert_eq!(may(&reversed), may(&grants));
        prop_assert!(!may(&grants) || covers(&grants, now, target), "allowed, but not listed");
    }

    #[test]
    fn expired_grants_have_no_effect(
        grants in prop::collection::vec(any_grant(), 0..4), (kind, name, class) in any_target(),
        arguments in any_arguments(), now in 0_i64..10,
    ) {
        let (now, target) = (Timestamp(now), target(kind, name, class));
        let valid: Vec<_> =
            grants.iter().filter(|grant| grant.expires_at.is_none_or(|at| now < at)).cloned().collect();
        prop_assert_eq!(
            allows(&grants, now, target, arguments.as_ref()),
            allows(&valid, now, target, arguments.as_ref())
        );
        prop_assert_eq!(covers(&grants, now, target), covers(&valid, now, target));
    }

    #[test]
    fn rules_restrict_only_calls_of_their_tool(
        grant in any_grant(), rule in any_rule(), (kind, name, class) in any_target(),
        arguments in any_arguments(), now in 0_i64..10,
    ) {
        let (now, target) = (Timestamp(now), target(kind, name, class));
        let mut restricted = grant.clone();
        restricted.rules.push(rule.clone());
        let before = allows(&[grant], now, target, arguments.as_ref());
        let after = allows(&[restricted], now, target, arguments.as_ref());
        let applies = kind == DefinitionKind::Tool && rule.tool == name;
        let matches = arguments.as_ref().is_some_and(|arguments| rule.matches(arguments));
        prop_assert_eq!(after, before && (!applies || matches));
    }

    #[test]
    fn a_custom_grant_covers_no_other_names((kind, _, class) in any_target(), grant in any_grant()) {
        let grant = Grant { access: AccessLevel::Custom, ..grant };
        let is_covered = covers(&[grant], Timestamp(0), target(kind, "other/name", class));
        prop_assert!(!is_covered || kind == DefinitionKind::Instructions);
    }
}
