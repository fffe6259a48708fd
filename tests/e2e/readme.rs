//! What the README promises, held against what the binary does.

use std::{collections::BTreeSet, process::Command, time::Duration};

use local_ecs::{Behaviour, LocalEcs, Settings, View, rule, service};
use serde_json::json;

use crate::support::{
    Gehen, LONG, NEW, OLD, SHORT, ecs, ecs_with, gehen_file, gehen_yml, gehen_yml_without_urls, kill,
};

/// The README, as it is shown.
const README: &str = include_str!("../../README.md");

/// Actions that no operation's name tells: what RegisterTaskDefinition's tags and roles imply.
const IMPLIED: [&str; 2] = ["ecs:TagResource", "iam:PassRole"];

/// The README's examples: the language of each, and its text.
fn examples() -> impl Iterator<Item = (&'static str, &'static str)> {
    let fenced = README.split("\n```").skip(1).step_by(2);
    fenced.map(|example| example.split_once('\n').expect("an example begins with its language"))
}

/// The one example in this language of which this is so.
fn block(language: &str, is_it: impl Fn(&str) -> bool) -> &'static str {
    let found: Vec<_> = examples().filter(|(of, text)| *of == language && is_it(text)).map(|(_, text)| text).collect();
    let [text] = found[..] else { panic!("there is one such example, not {found:?}") };
    text
}

fn the_gehen_yml() -> String {
    block("yaml", |text| text.starts_with("services:")).to_owned() + "\n"
}

fn yaml(is_it: impl Fn(&str) -> bool) -> serde_yaml::Value {
    serde_yaml::from_str(block("yaml", is_it)).expect("the example is YAML")
}

fn text(value: &serde_yaml::Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("{value:?} is a text"))
}

#[test]
fn each_example_is_known_to_a_test() {
    let known = |(language, text): (&str, &str)| match language {
        // .ci/demo and .ci/release, which .ci/run runs, try the two commands.
        "sh" => {
            (text == "cargo run --example demo" && include_str!("../../.ci/demo").contains("\"--example\", \"demo\""))
                || (text == "cargo install --locked --path ."
                    && include_str!("../../.ci/release").contains("cargo install --quiet --locked --no-track --path ."))
                || text.starts_with("curl ")
        }
        "yaml" => ["services:", "jobs:", "deploy:"].iter().any(|known| text.starts_with(known)),
        // The end of the demo, which .ci/demo compares; an error; and a live line, which a test beside its source
        // writes.
        "text" => ["$ gehen", "error: ", "api: deploy check "].iter().any(|known| text.starts_with(known)),
        "json" => text.contains("\"Statement\""),
        _ => false,
    };
    for (language, text) in examples() {
        assert!(known((language, text)), "no test runs this {language}:\n{text}");
    }
    assert!(examples().count() >= 8);
}

#[test]
fn a_newcomer_reads_what_there_is_to_know_in_five_minutes() {
    let (first, _) = README.split_once("\n## Details\n").expect("details follow");
    let words = first.split_whitespace().count();
    // Adults read some 240 words of prose a minute, and what stands in code more slowly.
    assert!(words <= 5 * 200, "{words} words");
}

#[test]
fn the_gehen_yml_deploys() {
    let ecs = ecs([service("api-staging").running(OLD)]);
    let file = the_gehen_yml().replace("https://staging.example.com/ping", &ecs.url("api-staging"));
    gehen_file(&ecs, &file).deploy(NEW).exits(0).ends("api-staging", &format!("DEPLOYED {NEW}"));
    assert_eq!(ecs.runs("api-staging"), NEW);
}

/// What CI knows the version as.
const SHA: &str = "ae30000123456789012345678901234567890abc";

/// The checksum beside the archive, as `.ci/release` makes it.
const CHECKSUM: &str = "releases/gehen-0.1.0-any.tar.gz.sha256";

/// A folder with the README's gehen.yml, and what a job of CI finds in its environment: the archive at `$GEHEN`,
/// programs, and the version by the names that CI systems give it.
fn job(ecs: &LocalEcs) -> Gehen {
    let file = the_gehen_yml().replace("https://staging.example.com/ping", &ecs.url("api-staging"));
    let gehen = gehen_file(ecs, &file)
        .with_program("pack/gehen-0.1.0-any/gehen", &format!("exec '{}' \"$@\"", env!("CARGO_BIN_EXE_gehen")))
        .with_program("bin/git", &format!("[ \"$*\" = 'rev-parse HEAD' ] && echo {SHA}"))
        // Not every machine that runs the tests has one.
        .with_program(
            "bin/curl",
            r#"case "$1" in -fsSL) cat "${2#file://}" ;; -fsSLO) cp "${2#file://}" . ;; *) exit 2 ;; esac"#,
        )
        .with_file("releases/README", "");
    let archive = gehen.place_of("releases/gehen-0.1.0-any.tar.gz");
    let packed =
        Command::new("tar").args(["-czf", &archive, "-C", &gehen.place_of("pack"), "gehen-0.1.0-any"]).status();
    assert!(packed.expect("tar can be started").success());
    let sum = Command::new("sha256sum").arg("gehen-0.1.0-any.tar.gz").current_dir(gehen.place_of("releases")).output();
    let gehen = gehen.with_file(CHECKSUM, sum.expect("sha256sum can be started").stdout);
    let path = format!("{}:{}", gehen.place_of("bin"), std::env::var("PATH").expect("there is a PATH"));
    gehen
        .with("PATH", &path)
        .with("GEHEN", &format!("file://{archive}"))
        .with("GITHUB_SHA", SHA)
        .with("CI_COMMIT_SHA", SHA)
}

/// The script of the job for GitHub Actions.
fn github_step() -> String {
    let workflow = yaml(|text| text.starts_with("jobs:"));
    let job = &workflow["jobs"]["deploy"];
    assert!(text(&job["env"]["GEHEN"]).ends_with(".tar.gz"));
    let steps = job["steps"].as_sequence().expect("a job has steps");
    let scripts: Vec<_> = steps.iter().filter_map(|step| step["run"].as_str()).collect();
    let [script] = scripts[..] else { panic!("one step runs a script, not {scripts:?}") };
    script.to_owned()
}

#[test]
fn each_job_deploys() {
    let gitlab = yaml(|text| text.starts_with("deploy:"));
    assert!(text(&gitlab["deploy"]["variables"]["GEHEN"]).ends_with(".tar.gz"));
    let gitlab = gitlab["deploy"]["script"].as_sequence().expect("a job has a script").clone();
    let gitlab = gitlab.iter().map(text).collect::<Vec<_>>().join("\n");
    let shell = block("sh", |text| text.starts_with("curl ")).to_owned();
    // As GitHub Actions, GitLab and people start scripts.
    for (script, shell) in
        [(github_step(), "bash -e job.sh"), (gitlab, "bash -eo pipefail job.sh"), (shell, "sh job.sh")]
    {
        let ecs = ecs([service("api-staging").running(OLD)]);
        let run = job(&ecs).with_file("job.sh", &script).start_by(&format!("exec {shell}"), &[]).wait();
        run.exits(0).ends("api-staging", &format!("DEPLOYED {SHA}"));
        assert_eq!(ecs.runs("api-staging"), SHA, "{script}");
    }
}

#[test]
fn an_archive_of_another_checksum_is_not_even_unpacked() {
    let ecs = ecs([service("api-staging").running(OLD)]);
    let shell = block("sh", |text| text.starts_with("curl "));
    let other = format!("{}  gehen-0.1.0-any.tar.gz\n", "0".repeat(64));
    let job = job(&ecs).with_file("job.sh", shell).with_file(CHECKSUM, other);
    let run = job.start_by("exec sh job.sh", &[]).wait();
    run.exits(1).says("did NOT match");
    assert!(!std::fs::exists(job.place_of("gehen")).unwrap_or(true) && ecs.writes().is_empty());
}

#[cfg(unix)]
#[test]
fn a_cancelled_job_passes_its_signal_on() {
    let ecs = ecs([service("api-staging").running(OLD)]);
    ecs.version(SHA, Behaviour::NeverStarts);
    let job = job(&ecs).with_file("job.sh", github_step());
    let run = job.start_by("exec bash -e job.sh", &[]).until_it_says("deploy check: ");
    kill("INT", run.child.id());
    run.wait().exits(1).ends("api-staging", "ROLLBACK REQUESTED");
}

#[test]
fn the_policy_allows_what_gehen_calls_and_nothing_else() {
    let settings =
        Settings { alarm_bake: Duration::from_secs(20), bake_minute: Duration::from_mins(1), ..Settings::fast() };
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
    assert!(ecs.wait_until(LONG, is_alone));
    ecs.version("bad0000", Behaviour::CrashesOnStart { exit_code: 1 });
    gehen_yml(&ecs, SHORT, &["api"]).deploy("bad0000").exits(1);
    gehen_yml(&ecs, SHORT, &["blue"]).deploy("bad0000").exits(1);
    ecs.schedule(rule("nightly").task("report", OLD));
    gehen_yml_without_urls(&ecs, "scheduledTasks: {nightly: }", &["worker"]).deploy(NEW).exits(0);
    let called = ecs.requests().into_iter().map(|request| format!("{}:{}", request.service_name, request.operation));
    let needed: BTreeSet<String> = called.chain(IMPLIED.map(str::to_owned)).collect();

    let policy = block("json", |_| true);
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
    let run = gehen_file(&ecs, &the_gehen_yml().replace("url:", "urll:")).deploy(NEW);
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
