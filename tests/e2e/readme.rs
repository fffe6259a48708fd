//! What the README promises, held against what the binary does.

use std::collections::BTreeSet;

use local_ecs::{Behaviour, service};

use crate::support::{NEW, OLD, SHORT, ecs, gehen_yml, gehen_yml_without_urls};

/// The README, as it is shown.
const README: &str = include_str!("../../README.md");

/// Actions that no operation's name tells: what RegisterTaskDefinition's tags and roles imply.
const IMPLIED: [&str; 2] = ["ecs:TagResource", "iam:PassRole"];

#[test]
fn the_policy_allows_what_gehen_calls_and_nothing_else() {
    let ecs = ecs([service("api").running(OLD), service("worker").running(OLD).without_load_balancer()]);
    gehen_yml_without_urls(&ecs, "", &["worker"]).deploy(NEW).exits(0);
    ecs.version("bad0000", Behaviour::CrashesOnStart { exit_code: 1 });
    gehen_yml(&ecs, SHORT, &["api"]).deploy("bad0000").exits(1);
    let called = ecs.requests().into_iter().map(|request| format!("ecs:{}", request.operation));
    let needed: BTreeSet<String> = called.chain(IMPLIED.map(str::to_owned)).collect();

    let policy = README.split("```json\n").nth(1).and_then(|rest| rest.split("```").next()).expect("a policy");
    let policy: serde_json::Value = serde_json::from_str(policy).expect("the policy is JSON");
    let allowed: BTreeSet<String> = policy["Statement"]
        .as_array()
        .expect("the policy has statements")
        .iter()
        .flat_map(|statement| match &statement["Action"] {
            serde_json::Value::Array(actions) => actions.clone(),
            action => vec![action.clone()],
        })
        .map(|action| action.as_str().expect("an action is a text").to_owned())
        .collect();
    assert_eq!(allowed, needed);
}

#[test]
fn every_flag_of_the_help_is_in_the_readme_and_the_reverse() {
    let ecs = ecs([]);
    let help = gehen_yml(&ecs, "", &[]).run(&["-help"]).stdout;
    let of_help: BTreeSet<&str> = help.lines().filter_map(|line| line.trim().strip_prefix('-')).map(word).collect();
    let of_readme: BTreeSet<&str> = README.lines().filter_map(|line| line.strip_prefix("| `-")).map(word).collect();
    assert_eq!(of_help.len(), 4, "{help}");
    assert_eq!(of_help, of_readme);
}

/// The letters that `text` begins with.
fn word(text: &str) -> &str {
    let end = text.find(|character: char| !character.is_alphabetic()).unwrap_or(text.len());
    &text[..end]
}
