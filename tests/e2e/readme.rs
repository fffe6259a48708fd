//! What the README promises, held against what the binary does.

use std::{collections::BTreeSet, time::Duration};

use local_ecs::{Behaviour, Settings, View, service};
use serde_json::json;

use crate::support::{NEW, OLD, SHORT, ecs, ecs_with, gehen_file, gehen_yml, gehen_yml_without_urls};

/// The README, as it is shown.
const README: &str = include_str!("../../README.md");

/// Actions that no operation's name tells: what RegisterTaskDefinition's tags and roles imply.
const IMPLIED: [&str; 2] = ["ecs:TagResource", "iam:PassRole"];

#[test]
fn the_policy_allows_what_gehen_calls_and_nothing_else() {
    let settings =
        Settings { alarm_bake: Duration::from_secs(5), bake_minute: Duration::from_mins(1), ..Settings::fast() };
    let ecs = ecs_with(
        settings,
        [
            service("api").running(OLD).in_ecr("us-east-1", "cache/api").alarms(false),
            service("worker").running(OLD).without_load_balancer(),
            service("blue").running(OLD).blue_green(1),
        ],
    );
    // A deployment that has not completed has the history asked, and an image that isn't there the cache rules.
    ecs.pull_through_cache("123456789012", "us-east-1", "cache");
    let again = json!({"cluster": "staging", "service": "api", "forceNewDeployment": true});
    ecs.call("us-east-1", "UpdateService", again).expect("api can be deployed anew");
    let is_alone = |view: &View<'_>| view.described("api")["deployments"].as_array().is_some_and(|all| all.len() == 1);
    assert!(ecs.wait_until(Duration::from_secs(20), is_alone));
    ecs.version("bad0000", Behaviour::CrashesOnStart { exit_code: 1 });
    gehen_yml(&ecs, SHORT, &["api"]).deploy("bad0000").exits(1);
    gehen_yml(&ecs, SHORT, &["blue"]).deploy("bad0000").exits(1);
    gehen_yml_without_urls(&ecs, "", &["worker"]).deploy(NEW).exits(0);
    let called = ecs.requests().into_iter().map(|request| format!("{}:{}", request.service_name, request.operation));
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
fn a_mistake_in_gehen_yml_looks_as_the_readme_shows_it() {
    let ecs = ecs([]);
    let file = README.split("```yaml\n").nth(1).and_then(|rest| rest.split("```").next()).expect("a gehen.yml");
    let run = gehen_file(&ecs, &file.replace("url:", "urll:")).deploy(NEW);
    run.exits(1);
    let shown = README.split("```text\nerror: ").nth(1).and_then(|rest| rest.split("```").next()).expect("an error");
    let (before, after) = shown.split_once('…').expect("the keys are cut");
    assert!(run.stderr.starts_with(&format!("error: {before}")) && run.stderr.ends_with(after), "{}", run.stderr);
}

#[test]
fn every_flag_of_the_help_is_in_the_readme_and_the_reverse() {
    let ecs = ecs([]);
    let help = gehen_yml(&ecs, "", &[]).run(&["-help"]).stdout;
    let of_help: BTreeSet<&str> = help.lines().filter_map(|line| line.trim().strip_prefix('-')).map(word).collect();
    let of_readme: BTreeSet<&str> = README.lines().filter_map(|line| line.strip_prefix("| `-")).map(word).collect();
    assert!(of_help.len() >= 10, "{help}");
    assert_eq!(of_help, of_readme);
}

/// The stories of what goes wrong.
const STORIES: &str = include_str!("when_things_go_wrong.rs");

#[test]
fn each_row_of_what_goes_wrong_is_backed_by_a_story_of_its_name_that_ends_with_its_exit_code() {
    let table = README.split("| situation | what gehen does | exit code |").nth(1).expect("a table of situations");
    let rows = table.lines().skip(2).take_while(|line| line.starts_with('|')).map(|line| {
        let cells: Vec<_> = line.trim_matches('|').split('|').map(str::trim).collect();
        let [situation, _, code] = cells[..] else { panic!("a row has three cells: {line}") };
        (situation.to_lowercase().replace([' ', '/'], "_"), code)
    });
    let rows: Vec<_> = rows.collect();
    for (name, code) in &rows {
        let story = STORIES.split(&format!("#[test]\nfn {name}() {{\n")).nth(1);
        let story = story.unwrap_or_else(|| panic!("there is no story `{name}`")).split("\n}\n").next();
        assert!(
            story.is_some_and(|story| story.contains(&format!(".exits({code})"))),
            "`{name}` doesn't end with {code}"
        );
    }
    assert_eq!(rows.len(), STORIES.matches("#[test]").count(), "each story has a row");
}

/// The letters and dashes that `text` begins with.
fn word(text: &str) -> &str {
    let end = text.find(|character: char| !character.is_alphabetic() && character != '-').unwrap_or(text.len());
    &text[..end]
}
