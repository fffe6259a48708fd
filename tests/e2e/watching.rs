//! What a run shows while it goes on and at its end: as JSON, on a terminal, and in GitHub Actions.

use std::{collections::BTreeSet, io::Write as _, time::Duration};

use local_ecs::{Behaviour, Fault, LocalEcs, Settings, image, rule, service};
use serde_json::{Value, json};

use crate::support::{
    Gehen, LONG, NEW, OLD, Run, SHORT, ecs, ecs_with, gehen_yml, gehen_yml_with_url, gehen_yml_without_urls, kill,
    rude_server, steady,
};

const README: &str = include_str!("../../README.md");

/// The lines of a run that was asked for JSON: each is an object with the keys that every line has, nothing else was
/// printed, and the last is the summary, whose exit code is the run's.
#[track_caller]
fn lines(run: &Run) -> Vec<Value> {
    assert_eq!(run.stdout, "");
    let lines = run.stderr.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("no JSON: {line}")));
    let lines: Vec<Value> = lines.collect();
    for line in &lines {
        assert_documented(line);
        assert!(README.contains(&format!("`{}`", line["phase"].as_str().unwrap_or_default())), "{line}");
        for key in ["time", "level", "phase", "event", "message"] {
            assert!(line[key].is_string(), "{key} is missing: {line}");
        }
        let time = line["time"].as_str().unwrap_or_default();
        assert!(time.len() == "2026-01-01T00:00:00.000Z".len() && time.ends_with('Z'), "{line}");
        assert!(["info", "warn", "error"].map(Value::from).contains(&line["level"]), "{line}");
    }
    let summary = lines.last().expect("there is a summary");
    assert_eq!(summary["event"], "summary", "{summary}");
    assert_eq!(summary["exit_code"], json!(run.status.code()));
    lines
}

/// Asserts that the README names every key of `value`, but for the times.
#[track_caller]
fn assert_documented(value: &Value) {
    match value {
        Value::Array(values) => values.iter().for_each(assert_documented),
        Value::Object(entries) => {
            for (key, value) in entries {
                let is_known = key.ends_with("_seconds") || README.contains(&format!("`{key}`"));
                assert!(is_known, "the README doesn't name `{key}`");
                assert_documented(value);
            }
        }
        _ => {}
    }
    if let Some(outcome) = value["outcome"].as_str() {
        assert!(README.contains(&format!("`{outcome}`")), "the README doesn't name `{outcome}`");
    }
}

/// The last line, with what differs from run to run made equal.
fn summary(run: &Run) -> Value {
    fn equal(key: &str, value: Value) -> Value {
        match value {
            _ if key == "time" => "TIME".into(),
            _ if key.ends_with("seconds") => "SECONDS".into(),
            Value::String(text) => steady(&text).into(),
            Value::Array(values) => values.into_iter().map(|value| equal("", value)).collect(),
            Value::Object(entries) => {
                let entries = entries.into_iter().map(|(key, value)| (key.clone(), equal(&key, value)));
                Value::Object(entries.collect())
            }
            other => other,
        }
    }
    equal("", lines(run).pop().expect("there is a summary"))
}

/// The arguments of a run that is asked for JSON.
const JSON: [&str; 4] = ["-gitsha", NEW, "-log-format", "json"];

fn arn(revision: &str) -> String {
    format!("arn:aws:ecs:us-east-1:123456789012:task-definition/{revision}")
}

#[test]
fn json_tells_a_deploy_with_its_numbers() {
    let ecs = ecs([service("api").running(OLD)]);
    let run = gehen_yml(&ecs, "", &["api"]).run(&JSON);
    run.exits(0);
    let lines = lines(&run);
    let of =
        |event: &str| lines.iter().find(|line| line["event"] == event).unwrap_or_else(|| panic!("{event}? {run:?}"));
    let updated = of("updated");
    assert_eq!((&updated["service"], &updated["phase"]), (&json!("api"), &json!("update")));
    assert_eq!(updated["task_definition"], arn("api:2"));
    assert_eq!(of("runs")["version"], OLD);
    let images = json!([{"container": "api", "from": image("api", OLD), "to": image("api", NEW)}]);
    assert_eq!(of("registered")["images"], images);
    assert_eq!(of("deploy_check_begins")["timeout_seconds"], 300.0);
    let counts = of("counts");
    assert_eq!((&counts["deployment"], &counts["desired"]), (&updated["deployment"], &json!(2)), "{counts}");
    assert!(["running", "pending", "failed"].iter().all(|count| counts[count].is_u64()), "{counts}");
    assert_eq!(counts["before"][0]["task_definition"], arn("api:1"));
    assert!(lines.iter().any(|line| line["event"] == "url_answer" && line["url_version"] == NEW), "{run:?}");
    let phases: BTreeSet<_> = lines.iter().filter_map(|line| line["phase"].as_str()).collect();
    let expected = ["preflight", "register", "update", "deploy_check", "drain_check", "end"];
    assert_eq!(phases, BTreeSet::from(expected));
    // A message is the text that stands in the lines for people.
    assert_eq!(of("deploy_check_passed")["message"], format!("deploy check passed: the url shows {NEW}"));

    let took = "DEPLOYED ae30000 as api:2 in SECONDS s; now run 2 tasks of api:2 (ae30000)";
    let expected = json!({
        "time": "TIME", "level": "info", "phase": "end", "event": "summary", "message": "1 deployed",
        "exit_code": 0, "seconds": "SECONDS", "version": NEW,
        "services": [{
            "service": "api", "message": took, "outcome": "deployed", "version": NEW, "seconds": "SECONDS",
            "updated_to": arn("api:2"), "now": [{"task_definition": arn("api:2"), "version": NEW, "running": 2}],
        }],
    });
    let mut summary = summary(&run);
    // Old tasks may still be on their way out.
    let message = &mut summary["services"][0]["message"];
    if let Some((before, _)) = message.as_str().and_then(|said| said.split_once("; old tasks")) {
        *message = before.to_owned().into();
    }
    assert_eq!(summary, expected, "{summary:#}");
}

#[test]
fn json_says_at_the_end_what_was_rolled_back_and_why() {
    let ecs = ecs([service("api").running(OLD), service("web").running(OLD)]);
    ecs.version(NEW, Behaviour::ImageMissing);
    let run = gehen_yml(&ecs, "", &["api", "web"]).run(&JSON);
    run.exits(1);
    let lines = lines(&run);
    let back: Vec<_> = lines.iter().filter(|line| line["phase"] == "rollback").collect();
    assert_eq!(back[0]["event"], "rolling_back");
    assert!(back.iter().any(|line| line["event"] == "drain_check_passed"), "{run:?}");
    let failed = lines.iter().find(|line| line["event"] == "attempt_ended").expect("the attempt ended");
    assert_eq!((&failed["level"], &failed["phase"]), (&json!("error"), &json!("deploy_check")));

    let mut summary = summary(&run);
    let why = summary["services"][0]["why"].take();
    assert!(why.as_str().is_some_and(|why| why.contains("CannotPullContainerError")), "{why}");
    let back = "ROLLED BACK to api:1 (01d0000) in SECONDS s, proven live again; now run 2 tasks of api:1 (01d0000)";
    let untouched = "NOT TOUCHED: the run ended before its turn; now run 2 tasks of web:1 (01d0000)";
    let expected = json!({
        "time": "TIME", "level": "error", "phase": "end", "event": "summary",
        "message": "1 rolled back, 1 not touched",
        "exit_code": 1, "seconds": "SECONDS", "version": NEW,
        "services": [
            {
                "service": "api", "message": back, "outcome": "rolled_back", "version": NEW, "seconds": "SECONDS",
                "why": null, "updated_to": arn("api:2"), "returned_to": arn("api:1"),
                "now": [{"task_definition": arn("api:1"), "version": OLD, "running": 2}],
            },
            {
                "service": "web", "message": untouched, "outcome": "not_touched", "version": NEW, "seconds": "SECONDS",
                "why": "the run ended before its turn",
                "now": [{"task_definition": arn("web:1"), "version": OLD, "running": 2}],
            },
        ],
    });
    assert_eq!(summary, expected, "{summary:#}");
}

#[test]
fn json_lists_the_problems_of_preflight() {
    let ecs = ecs([service("api").running(OLD)]);
    ecs.fault(Fault::on("DescribeTaskDefinition").denied());
    let run = gehen_yml(&ecs, "", &["api"]).run(&JSON);
    run.exits(1);
    let lines = lines(&run);
    let problem = lines.iter().find(|line| line["event"] == "problem").expect("a line for the problem");
    assert_eq!((&problem["service"], &problem["phase"]), (&json!("api"), &json!("preflight")));
    assert!(problem["hint"].is_string(), "{problem}");
    let summary = summary(&run);
    let expected = json!({
        "time": "TIME", "level": "error", "phase": "end", "event": "summary", "message": "nothing has been changed",
        "exit_code": 1, "seconds": "SECONDS", "version": NEW,
        "services": [{"service": "api", "outcome": "not_touched"}],
        "problems": [{"service": "api", "message": problem["message"], "hint": problem["hint"]}],
    });
    assert_eq!(summary, expected, "{summary:#}");
}

#[test]
fn json_is_spoken_from_the_first_mistake_on() {
    let ecs = ecs([service("api").running(OLD)]);
    let gehen = gehen_yml(&ecs, "", &["api"]).with_file("bad.yml", "services: {api: {clutser: x}}\n");
    for (arguments, said) in [
        (&["-gitsha", NEW, "-log-format=json", "-path", "bad.yml"][..], "bad.yml:1: "),
        (&["-gitsha", NEW, "-log-format=json", "-path", "missing.yml"], "cannot read missing.yml"),
        (&["-log-format", "json"], "-gitsha is missing"),
        (&["--log-format=json", "-gitsha", "latest"], "won't do"),
        (&["-log-format", "json", "-sha", NEW], "unknown flag -sha"),
    ] {
        let run = gehen.run(arguments);
        run.exits(1);
        let lines = lines(&run);
        let [summary] = &lines[..] else { panic!("{arguments:?}: {run:?}") };
        assert!(summary["message"].as_str().is_some_and(|message| message.contains(said)), "{summary}");
        assert_eq!((&summary["level"], &summary["services"]), (&json!("error"), &json!([])));
        let version = json!(NEW);
        let known = said.contains(".yml").then_some(&version);
        assert_eq!(summary.get("version"), known, "what isn't known is left out");
    }
}

#[test]
fn json_tells_of_a_run_that_was_cancelled() {
    let cancelled = local("api");
    cancelled.fault(Fault::on("DescribeTaskDefinition").slow(Duration::from_secs(5)).always());
    let gehen = gehen_yml(&cancelled, "", &["api"]);
    let running = gehen.start(&JSON);
    assert!(cancelled.wait_until(LONG, |view| !view.requests().is_empty()));
    kill("TERM", running.child.id());
    let run = running.wait();
    run.exits(1);
    let before = summary(&run);
    assert_eq!(before["message"], "cancelled by SIGTERM; nothing has been changed");
    assert_eq!(before["cancelled_by"], "SIGTERM");
    assert_eq!(before["services"], json!([{"service": "api", "outcome": "not_touched"}]));

    let ecs = local("api");
    ecs.version(NEW, Behaviour::NeverStarts);
    let running = gehen_yml(&ecs, "", &["api"]).start(&JSON).until_it_says("\"updated\"");
    kill("TERM", running.child.id());
    let run = running.wait();
    run.exits(1);
    let after = summary(&run);
    assert_eq!(after["services"][0]["outcome"], "rollback_requested");
    assert_eq!(after["services"][0]["why"], "the run was cancelled by SIGTERM");
}

#[test]
#[cfg(target_os = "linux")]
fn json_says_what_a_second_ctrl_c_leaves_unknown() {
    let ecs = ecs([service("api").running(OLD), service("web").running(OLD)]);
    ecs.version(NEW, Behaviour::NeverStarts);
    let gehen = gehen_yml(&ecs, "", &["api", "web"]);
    let (running, _terminal) = gehen.start_at_terminal(&JSON);
    let running = running.until_it_says("\"updated\"");
    // ECS can't be asked, so the rollback can't be requested either.
    ecs.fault(Fault::on_any().server_error().always());
    kill("INT", running.child.id());
    let running = running.until_it_says("\"cancelled_by\":\"SIGINT\"");
    // What comes at once may be the same Ctrl-C, passed on by another process.
    std::thread::sleep(Duration::from_millis(600));
    kill("INT", running.child.id());
    let run = running.wait();
    run.exits(1);
    let services = json!([{"service": "api", "outcome": "unknown"}, {"service": "web", "outcome": "not_touched"}]);
    assert_eq!(summary(&run)["services"], services);
}

fn local(name: &str) -> LocalEcs {
    ecs([service(name).running(OLD)])
}

#[test]
fn json_to_nobody_changes_nothing() {
    let ecs = local("api");
    assert_eq!(gehen_yml(&ecs, "", &["api"]).run_unheard(&JSON).code(), Some(0));
    assert_eq!(ecs.runs("api"), NEW);
}

#[test]
fn json_escapes_what_comes_from_outside() {
    let url = rude_server(|_, stream| {
        stream.write_all(b"HTTP/1.1 200 OK\r\nServer: ##[error]\xe2\x80\xaeevil\r\nContent-Length: 0\r\n\r\n")
    });
    let ecs = local("api");
    let run = gehen_yml_with_url(&ecs, SHORT, "api", &url).run(&JSON);
    run.exits(1).never_says("##").never_says("\u{202e}").says("#\\\\u{23}[error]");
    lines(&run);
}

#[test]
fn a_wait_is_heard_of_every_thirty_seconds() {
    let ecs = local("api");
    ecs.version(NEW, Behaviour::NeverStarts);
    let running = gehen_yml(&ecs, "", &["api"]).start(&JSON).until_it_says("still_waits");
    kill("TERM", running.child.id());
    let run = running.wait();
    run.exits(1);
    let lines = lines(&run);
    let heartbeat = lines.iter().find(|line| line["event"] == "still_waits").expect("there is a heartbeat");
    assert_eq!(heartbeat["phase"], "deploy_check");
    let (gone, left) =
        (heartbeat["seconds"].as_f64().unwrap_or(0.0), heartbeat["left_seconds"].as_f64().unwrap_or(0.0));
    assert!(gone >= 30.0 && (gone + left - 300.0).abs() < 0.1, "{heartbeat}");
    assert_eq!((&heartbeat["running"], &heartbeat["url_version"]), (&json!(0), &json!(OLD)));
    let message = heartbeat["message"].as_str().unwrap_or_default();
    assert!(message.starts_with("still waiting, 30 s gone, up to 4 min "), "{message}");
    assert!(message.contains(&format!(" left: the url shows {OLD}; 0 of 2 tasks run api:2")), "{message}");
}

#[test]
fn what_waits_for_its_turn_to_write_says_so() {
    let names: Vec<_> = (0..12).map(|number| format!("api-{number}")).collect();
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    let ecs = ecs(names.iter().map(|name| service(name).running(OLD)));
    let run = gehen_yml_without_urls(&ecs, "parallel: 12", &names).run(&JSON);
    run.exits(0);
    let lines = lines(&run);
    let is_wait = |line: &&Value| line["event"] == "awaits_turn" && line["phase"] == "register";
    let waits: Vec<_> = lines.iter().filter(is_wait).collect();
    // Beyond ten registrations, each comes two seconds after the one before.
    assert!(waits.len() >= 2, "{waits:?}");
    for wait in waits {
        let said = (&wait["seconds"], &wait["message"]);
        assert_eq!(said, (&json!(1.0), &json!("waiting for its turn to register, 1 s gone")));
    }
}

/// A run in GitHub Actions: what it printed, and what it wrote into the step's summary.
fn in_github(gehen: Gehen, arguments: &[&str]) -> (Run, String) {
    let place = gehen.place_of("summary.md");
    let gehen = gehen.with_file("summary.md", "before\n").with("GITHUB_ACTIONS", "true");
    let gehen = gehen.with("GITHUB_STEP_SUMMARY", &place);
    let run = gehen.run(arguments);
    (run, std::fs::read_to_string(place).expect("the summary can be read"))
}

#[test]
fn github_folds_each_service_and_annotates_the_failure() {
    let ecs = ecs([service("api").running(OLD), service("web").running(OLD)]);
    ecs.version(NEW, Behaviour::ImageMissing);
    let (run, summary) = in_github(gehen_yml(&ecs, "", &["api", "web"]), &["-gitsha", NEW]);
    run.exits(1);
    let lines: Vec<_> = run.stderr.lines().collect();
    let at =
        |line: &str| lines.iter().position(|said| said.contains(line)).unwrap_or_else(|| panic!("{line}? {run:?}"));
    let order = [
        at("web: runs web:1"),
        at("::group::api"),
        at("api: registered api:2"),
        at("::endgroup::"),
        at("api: error: failed after"),
        at("api: warning: rolling back"),
        at("::error title=gehen%3A api::ROLLED BACK to api:1 (01d0000) in "),
        lines.len() - 3,
    ];
    assert!(order.is_sorted(), "{order:?}: {}", run.stderr);
    assert!(lines[lines.len() - 3].starts_with("api: ROLLED BACK"), "{}", run.stderr);
    let annotations: Vec<_> = lines.iter().filter(|line| line.starts_with("::error")).collect();
    let [annotation] = annotations[..] else { panic!("{annotations:?}") };
    assert!(annotation.contains("%0Awhy: ") && annotation.contains("CannotPullContainerError"), "{annotation}");
    assert!(!run.stderr.contains("::group::web"), "{}", run.stderr);

    let rows: Vec<_> = summary.lines().collect();
    assert_eq!(rows[..4], ["before", "### gehen ae30000: 1 rolled back, 1 not touched", "", rows[3]], "{summary}");
    assert_eq!(rows[3], "| service | outcome | version | what runs now | time | reason |");
    let api = "| api | rolled back | ae30000 | now run 2 tasks of api&#58;1 (01d0000) | ";
    assert!(rows[5].starts_with(api) && rows[5].contains("CannotPullContainerError&#58;"), "{summary}");
    let web = "| web | not touched | ae30000 | now run 2 tasks of web&#58;1 (01d0000) | 0 s | the run ended before its turn |";
    assert_eq!(rows[6], web);
}

#[test]
fn github_closes_the_group_of_each_service_that_succeeds() {
    let ecs = ecs([service("api").running(OLD), service("web").running(OLD)]);
    let (run, _) = in_github(gehen_yml(&ecs, "", &["api", "web"]), &["-gitsha", NEW]);
    run.exits(0);
    let commands: Vec<_> = run.stderr.lines().filter(|line| line.starts_with("::")).collect();
    assert_eq!(commands, ["::group::api", "::endgroup::", "::group::web", "::endgroup::"], "{}", run.stderr);
}

#[test]
fn github_folds_nothing_where_several_services_are_deployed_at_a_time() {
    let ecs = ecs([service("api").running(OLD), service("web").running(OLD)]);
    let (run, summary) = in_github(gehen_yml(&ecs, "parallel: 2", &["api", "web"]), &["-gitsha", NEW]);
    run.exits(0).never_says("\n::");
    assert!(summary.contains("| web | deployed |"), "{summary}");
}

#[test]
fn github_is_warned_of_a_version_that_was_not_drained() {
    let ecs = local("api");
    ecs.protect_tasks("api");
    // Six seconds: long enough to meet a new task behind the url while old ones answer there too.
    let (run, summary) = in_github(gehen_yml(&ecs, "timeoutMinutes: 0.1", &["api"]), &["-gitsha", NEW]);
    run.exits(2).says("\n::warning title=gehen%3A api::LIVE, BUT NOT DRAINED").never_says("::error");
    assert!(summary.contains("\n### gehen ae30000: 1 undetermined\n"), "{summary}");
}

#[test]
fn github_gets_the_plan_of_a_dry_run() {
    let ecs = ecs([service("api").running(OLD), service("web").running(NEW)]);
    ecs.schedule(rule("nightly").task("report", OLD));
    let gehen = gehen_yml(&ecs, "scheduledTasks: {nightly: }", &["api", "web"]);
    let (run, summary) = in_github(gehen, &["-gitsha", NEW, "-dry-run"]);
    run.exits(0);
    let rows: Vec<_> = summary.lines().collect();
    assert_eq!(rows[1], "### gehen ae30000: dry run, nothing has been changed", "{summary}");
    let api = "| api | dry run | ae30000 |  |  | would deploy a new revision of api&#58;1&#58; ";
    assert!(
        rows[5].starts_with(api) && rows[5].ends_with("<br>a rollback would go to api&#58;1 (01d0000) |"),
        "{summary}"
    );
    let web = "| web | dry run | ae30000 |  |  | would deploy web&#58;1, whose images are at this version already<br>";
    assert!(rows[6].starts_with(web), "{summary}");
    let nightly = "| nightly (scheduled task) | dry run | ae30000 |  |  | would run a new revision of ";
    assert!(rows[7].starts_with(nightly) && rows[7].contains("<br>a rollback would go to "), "{summary}");
}

#[test]
fn github_is_told_of_what_keeps_a_run_from_beginning() {
    let ecs = local("api");
    ecs.fault(Fault::on("DescribeTaskDefinition").denied());
    let (run, summary) = in_github(gehen_yml(&ecs, "", &["api"]), &["-gitsha", NEW]);
    run.exits(1).says("::error title=gehen%3A api::").says("%0Ahint: ");
    assert!(summary.contains("| api | not touched | ae30000 |  |  | "), "{summary}");
    let (run, summary) = in_github(gehen_yml(&ecs, "", &["api"]), &["-gitsha", NEW, "-path", "missing.yml"]);
    run.exits(1).says("::error title=gehen::cannot read missing.yml").says("\nerror: cannot read missing.yml");
    assert!(summary.contains("cannot read missing.yml"), "{summary}");
}

#[test]
fn github_gets_a_summary_but_no_commands_where_json_is_asked_for() {
    let ecs = local("api");
    ecs.version(NEW, Behaviour::ImageMissing);
    let (run, summary) = in_github(gehen_yml(&ecs, "", &["api"]), &JSON);
    run.exits(1).never_says("\n::");
    lines(&run);
    assert!(summary.contains("| api | rolled back |"), "{summary}");
}

#[test]
fn a_step_summary_that_cannot_be_written_is_a_warning() {
    let ecs = local("api");
    let gehen = gehen_yml(&ecs, "", &["api"]).with("GITHUB_ACTIONS", "true").with("GITHUB_STEP_SUMMARY", "/no/where");
    let run = gehen.deploy(NEW);
    run.exits(0).says("warning: cannot write the step summary to /no/where: ").ends("api", "DEPLOYED");
    run.says("::group::api\n").never_says("::error");
    let run = gehen.run(&JSON);
    run.exits(0);
    assert_eq!(lines(&run).iter().filter(|line| line["event"] == "step_summary_failed").count(), 1);
}

#[test]
fn elsewhere_there_are_no_commands_to_github() {
    let ecs = local("api");
    ecs.version(NEW, Behaviour::ImageMissing);
    for (value, expected) in [("TRUE", false), ("1", false), ("", false), ("true", true)] {
        let gehen = gehen_yml(&ecs, "", &["api"]);
        let place = gehen.place_of("summary.md");
        let gehen = gehen.with("GITHUB_ACTIONS", value).with("GITHUB_STEP_SUMMARY", &place);
        let run = gehen.deploy(NEW);
        run.exits(1);
        let found = run.stderr.contains("::error") || std::fs::exists(&place).unwrap_or(true);
        assert_eq!(found, expected, "{value}: {}", run.stderr);
    }
}

#[cfg(target_os = "linux")]
mod on_a_terminal {
    use super::*;
    use crate::terminal::InTerminal;

    const CTRL_C: &[u8] = b"\x03";

    /// gehen.yml for `api`, which never gets live, on a terminal that can do more than print.
    fn never_live(ecs: &LocalEcs) -> Gehen {
        ecs.version(NEW, Behaviour::NeverStarts);
        gehen_yml(ecs, "", &["api"]).with("TERM", "xterm-256color")
    }

    /// Whether `line` is whole: a line of the log, or one of the last ones.
    fn is_whole(line: &str) -> bool {
        line.starts_with("20")
            || ["ROLL", "why:", "DEPLOYED", "NOT KNOWN: before this run it ran api:1 (01d0000)"]
                .iter()
                .any(|end| line.starts_with(&format!("api: {end}")))
    }

    /// The live line, if the last row of the screen is one, no other row is, and it doesn't show the first second: it
    /// must have been drawn more than once.
    fn live_line(rows: &[String]) -> Option<&str> {
        let (last, log) = rows.split_last()?;
        let is_live = |row: &str| row.starts_with("api: deploy check") && !row.starts_with("api: deploy check 0 s");
        (is_live(last) && !log.iter().any(|row| row.starts_with("api: deploy ch"))).then_some(last)
    }

    /// Waits for the live line, presses Ctrl-C, and checks that nothing but whole lines is left.
    #[track_caller]
    fn cancels_cleanly(run: InTerminal) -> String {
        run.until(|rows| live_line(rows).is_some());
        run.types(CTRL_C);
        let (code, lines, bytes) = run.wait();
        assert_eq!(code, Some(1));
        assert!(lines.iter().all(|line| is_whole(line)), "{lines:#?}");
        assert!(lines.iter().any(|line| line.contains("Z api: error: cancelled by SIGINT after ")), "{lines:#?}");
        assert_eq!(lines.last().map(String::as_str), Some("api: why: the run was cancelled by SIGINT"), "{lines:#?}");
        bytes
    }

    #[test]
    fn a_live_line_below_the_log_says_how_far_a_service_is_and_goes_away() {
        let ecs = local("api");
        let run = InTerminal::start(never_live(&ecs), (50, 100), &["-gitsha", NEW]);
        // The line of the README, whatever the numbers.
        let numbers = |text: &str| text.split(|digit: char| digit.is_ascii_digit()).collect::<Vec<_>>().concat();
        let (_, told) = README.split_once("\napi: deploy check ").expect("the README has a live line");
        let told = told.lines().next().map(|rest| format!("api: deploy check {rest}")).unwrap_or_default();
        let seen = |row: &str| row.contains("; ae30000 0/") && row.ends_with("/2, others 2/0/2; url shows 01d0000");
        run.until(|rows| live_line(rows).is_some_and(|row| seen(row) && numbers(row) == numbers(&told)));
        let bytes = cancels_cleanly(run);
        assert!(bytes.contains("\x1b[1mapi\x1b[0m: deploy check "), "there is colour");
    }

    #[test]
    fn a_narrow_terminal_is_left_clean_and_without_colour_where_none_is_wanted() {
        let ecs = local("api");
        let gehen = never_live(&ecs).with("NO_COLOR", "1");
        // As many rows as all lines take up.
        let run = InTerminal::start(gehen, (200, 20), &["-gitsha", NEW]);
        let line = "api: deploy check …";
        run.until(|rows| live_line(rows) == Some(line) && run.times(line) > 3);
        let bytes = cancels_cleanly(run);
        let is_colour = |sequence: &str| sequence.split_once('m').is_some_and(|(codes, _)| codes.parse::<u8>().is_ok());
        assert!(!bytes.split("\x1b[").skip(1).any(is_colour), "{bytes}");
    }

    #[test]
    fn the_live_line_stands_for_the_heartbeat() {
        let ecs = local("api");
        let run = InTerminal::start(never_live(&ecs), (60, 200), &["-gitsha", NEW]);
        let seconds = |row: &str| row.strip_prefix("api: deploy check ")?.split(' ').next()?.parse::<u64>().ok();
        run.until(|rows| rows.last().and_then(|row| seconds(row)).is_some_and(|waited| waited > 30));
        assert!(!cancels_cleanly(run).contains("still waiting"));
    }

    #[test]
    fn many_services_at_once_leave_room_for_the_log() {
        let names: Vec<_> = (1..=14).map(|number| format!("api-{number}")).collect();
        let ecs = ecs(names.iter().map(|name| service(name).running(OLD)));
        ecs.version(NEW, Behaviour::NeverStarts);
        let names: Vec<_> = names.iter().map(String::as_str).collect();
        let gehen = gehen_yml(&ecs, "parallel: 14", &names).with("TERM", "xterm");
        let run = InTerminal::start(gehen, (10, 100), &["-gitsha", NEW]);
        run.until(|rows| rows.last().is_some_and(|row| row == "10 more: 10 deploy check"));
        let rows = run.rows();
        let live: Vec<_> = rows.iter().skip(rows.len() - 5).map(|row| row.split(": ").next().unwrap_or(row)).collect();
        assert_eq!(live, ["api-1", "api-2", "api-3", "api-4", "10 more"], "{rows:#?}");
        assert!(rows.len() > 5, "{rows:#?}");
        run.types(CTRL_C);
        let (code, lines, _) = run.wait();
        assert_eq!(code, Some(1));
        assert_eq!(
            lines.last().map(String::as_str),
            Some("api-14: why: the run was cancelled by SIGINT"),
            "{lines:#?}"
        );
        assert!(!lines.iter().any(|line| line.contains("others ") || line.contains(" more: ")), "{lines:#?}");
    }

    #[test]
    fn a_second_ctrl_c_leaves_the_terminal_clean_too() {
        let ecs = local("api");
        ecs.fault(Fault::on("UpdateService").after(1).server_error().always());
        let run = InTerminal::start(never_live(&ecs), (60, 200), &["-gitsha", NEW]);
        run.until(|rows| live_line(rows).is_some());
        run.types(CTRL_C);
        run.until(|rows| rows.last().is_some_and(|row| row.starts_with("api: rollback; 01d0000")));
        // What comes at once may be the same Ctrl-C, passed on by another process.
        std::thread::sleep(Duration::from_millis(600));
        run.types(CTRL_C);
        let (code, lines, _) = run.wait();
        assert_eq!(code, Some(1));
        let (last, log) = lines.split_last().expect("there are lines");
        assert!(last.starts_with("error: ended by a second Ctrl-C while services were going back"), "{lines:#?}");
        assert!(log.iter().all(|line| is_whole(line)), "{lines:#?}");
    }

    #[test]
    fn a_terminal_may_change_its_size_at_any_time() {
        let ecs = local("api");
        let run = InTerminal::start(never_live(&ecs), (60, 80), &["-gitsha", NEW]);
        for (rows, columns) in [(60, 80), (60, 200), (60, 30), (60, 2), (60, 120), (60, 80)] {
            run.resize(rows, columns);
            run.until(|rows| match columns {
                ..20 => rows.iter().all(|row| row.chars().count() <= usize::from(columns)),
                20..100 => live_line(rows).is_some_and(|row| row.chars().count() == usize::from(columns) - 1),
                _ => live_line(rows).is_some_and(|row| row.ends_with("; url shows 01d0000")),
            });
        }
        run.types(CTRL_C);
        let (code, lines, _) = run.wait();
        assert_eq!(code, Some(1));
        assert_eq!(lines.last().map(String::as_str), Some("api: why: the run was cancelled by SIGINT"), "{lines:#?}");
        assert!(!lines.iter().any(|line| line.starts_with("api: deploy")), "{lines:#?}");
    }

    #[test]
    fn a_deploy_leaves_the_lines_that_it_leaves_elsewhere() {
        let settings = Settings { pulling: Duration::from_secs(3), ..Settings::fast() };
        let ecs = ecs_with(settings, [service("api").running(OLD)]);
        let gehen = gehen_yml(&ecs, "", &["api"]).with("TERM", "xterm");
        let run = InTerminal::start(gehen, (60, 80), &["-gitsha", NEW]);
        run.until(|rows| live_line(rows).is_some());
        let (code, lines, _) = run.wait();
        assert_eq!(code, Some(0));
        assert!(lines.iter().all(|line| is_whole(line)), "{lines:#?}");
        assert!(lines.last().is_some_and(|line| line.starts_with("api: DEPLOYED ae30000 as api:2 in ")), "{lines:#?}");
    }

    #[test]
    fn a_terminal_that_goes_away_is_a_cancelled_run_and_no_crash() {
        let ecs = local("api");
        let run = InTerminal::start(never_live(&ecs), (24, 80), &["-gitsha", NEW]);
        run.until(|rows| live_line(rows).is_some());
        assert_eq!(run.hang_up().code(), Some(1));
        assert_eq!(ecs.task_definition_of("api"), "api:1");
    }

    #[test]
    fn a_terminal_that_only_prints_and_github_get_plain_lines() {
        let ecs = local("api");
        for (name, value) in [("TERM", "dumb"), ("TERM", ""), ("GITHUB_ACTIONS", "true")] {
            let gehen = gehen_yml(&ecs, "", &["api"]).with("TERM", "xterm").with(name, value);
            let (code, _, bytes) = InTerminal::start(gehen, (60, 200), &["-gitsha", NEW]).wait();
            assert_eq!(code, Some(0));
            assert!(!bytes.contains("\x1b[J") && !bytes.contains("others "), "{name}={value}: {bytes}");
        }
        let gehen = gehen_yml(&ecs, "", &["api"]).with("TERM", "xterm");
        let (code, lines, bytes) = InTerminal::start(gehen, (60, 2000), &JSON).wait();
        assert_eq!(code, Some(0));
        assert!(!bytes.contains('\x1b') && lines.iter().all(|line| line.starts_with('{')), "{bytes}");
    }
}
