//! What is typed on the command line, and what is printed where.

use local_ecs::{Fault, service};
use serde_json::json;

use crate::support::{NEW, OLD, ecs, gehen_yml};

#[test]
fn the_version_is_one_line_on_stdout() {
    let ecs = ecs([service("api").running(OLD)]);
    let gehen = gehen_yml(&ecs, "", &["api"]);
    for spelling in ["-version", "--version", "-version=true"] {
        let run = gehen.run(&[spelling]);
        run.exits(0);
        assert_eq!((run.stdout.as_str(), run.stderr.as_str()), ("gehen version 0.1.0\n", ""), "{spelling}");
    }
    assert_eq!(ecs.requests().len(), 0);
}

#[test]
fn the_help_is_on_stdout_and_spells_flags_as_they_are_typed() {
    let ecs = ecs([service("api").running(OLD)]);
    let gehen = gehen_yml(&ecs, "", &["api"]);
    for spelling in ["-help", "--help", "-h", "--h"] {
        let run = gehen.run(&[spelling]);
        run.exits(0);
        assert_eq!(run.stderr, "", "{spelling}");
        for said in ["gehen -gitsha <sha> [flags]", " -gitsha <sha> ", " -path <file> ", " -version ", " -help "] {
            assert!(run.stdout.contains(said), "`{said}` is not in:\n{}", run.stdout);
        }
        assert!(!run.stdout.contains("--"), "{}", run.stdout);
    }
    assert_eq!(ecs.requests().len(), 0);
}

#[test]
fn the_help_explains_its_flags_in_one_column() {
    let ecs = ecs([]);
    let help = gehen_yml(&ecs, "", &[]).run(&["-help"]).stdout;
    let column = |explanation: &str| {
        help.lines().find_map(|line| line.find(explanation)).unwrap_or_else(|| panic!("{explanation}? {help}"))
    };
    let columns = ["Git SHA of", "File that", "Print the version", "Print this help"].map(column);
    assert_eq!(columns, [columns[0]; 4], "{help}");
}

#[test]
fn the_files_of_an_installation_are_on_stdout() {
    let ecs = ecs([service("api").running(OLD)]);
    let gehen = gehen_yml(&ecs, "", &["api"]);
    for line in [&["-man"][..], &["-completions", "bash"], &["-completions", "zsh"], &["-completions", "fish"]] {
        let run = gehen.run(line);
        run.exits(0);
        assert_eq!(run.stderr, "", "{line:?}");
        assert!(run.stdout.contains("gitsha") && run.stdout.ends_with('\n'), "{line:?}:\n{}", run.stdout);
    }
    assert_eq!(ecs.requests().len(), 0);
}

#[test]
fn every_spelling_of_a_flag_deploys() {
    for spelling in [
        &["-gitsha", NEW][..],
        &["--gitsha", NEW],
        &["--gitsha=ae30000", "--path=gehen.yml"],
        &["-path", "gehen.yml", "-gitsha=ae30000"],
    ] {
        let ecs = ecs([service("api").running(OLD)]);
        gehen_yml(&ecs, "", &["api"]).run(spelling).exits(0);
        assert_eq!(ecs.runs("api"), NEW, "{spelling:?}");
    }
}

#[test]
fn every_mistake_on_the_command_line_is_one_line_and_nothing_is_requested() {
    let ecs = ecs([service("api").running(OLD)]);
    let gehen = gehen_yml(&ecs, "", &["api"]);
    let (short, long) = ("abcdef", "a".repeat(65));
    let no_sha = |text: &str| format!("error: -gitsha: `{text}` won't do: a Git SHA has 7 to 64 hexadecimal digits");
    let missing = "error: -gitsha is missing: give the Git SHA to deploy, as in `gehen -gitsha $(git rev-parse HEAD)`";
    let needs_value =
        |flag: &str| format!("error: {flag} needs a value, as in `{flag} <value>`; `gehen -help` explains it");
    let help = gehen.run(&["-help"]).stdout;
    let known = help.lines().filter_map(|line| line.trim().starts_with('-').then(|| line.split_whitespace().next())?);
    let known = known.collect::<Vec<_>>().join(", ");
    let unknown =
        |flag: &str| format!("error: unknown flag {flag}: the flags are {known}; `gehen -help` explains them");
    let stray = |argument: &str| format!("error: stray argument `{argument}`: gehen takes flags only ({known})");
    for (line, said) in [
        (&[][..], missing.to_owned()),
        (&["-path", "gehen.yml"], missing.to_owned()),
        (&["-gitsha"], needs_value("-gitsha")),
        (&["-gitsha", NEW, "-path"], needs_value("-path")),
        (&["-gitsha", NEW, "-path", ""], needs_value("-path")),
        (&["-gitsha", NEW, "-path="], needs_value("-path")),
        (&["-gitsha", ""], no_sha("")),
        (&["-gitsha="], no_sha("")),
        (&["-gitsha", "latest1"], no_sha("latest1")),
        (&["-gitsha", " ae30000"], no_sha(" ae30000")),
        (&["-gitsha", short], no_sha(short)),
        (&["-gitsha", &long], no_sha(&long)),
        (&["-gitsha", "\u{1b}[2Jae30000\n"], no_sha("\\u{1b}[2Jae30000\\u{a}")),
        (&["-gitsha", "ａｅ３００００"], no_sha("ａｅ３００００")),
        (&["-gitSHA", NEW], unknown("-gitSHA")),
        (&["-gitsha", NEW, "-timeout", "5"], unknown("-timeout")),
        (&["--gitsha", NEW, "--dry"], unknown("-dry")),
        (&["-gitsha", NEW, "api"], stray("api")),
        (&[NEW], stray(NEW)),
        (&["-gitsha", NEW, "--", "api"], stray("api")),
    ] {
        let run = gehen.run(line);
        run.exits(1).says_only(&said);
    }
    assert_eq!(ecs.requests().len(), 0);
    assert_eq!(ecs.lb_requests("api"), 0);
}

#[cfg(unix)]
#[test]
fn an_argument_that_is_not_utf_8_is_one_line_too() {
    use std::{ffi::OsStr, os::unix::ffi::OsStrExt as _, process::Command};
    let odd = OsStr::from_bytes(b"\xff\xfeabcdef1");
    for arguments in [[OsStr::new("-gitsha"), odd], [odd, OsStr::new("-gitsha")], [OsStr::new("-path"), odd]] {
        let run = Command::new(env!("CARGO_BIN_EXE_gehen")).args(arguments).output().expect("gehen can be started");
        let said = String::from_utf8(run.stderr).expect("stderr is UTF-8");
        assert_eq!(run.status.code(), Some(1), "{said}");
        assert!(said.starts_with("error: ") && said.lines().count() == 1, "{said}");
    }
}

#[test]
fn a_deploy_goes_on_when_nobody_listens() {
    let ecs = ecs([service("api").running(OLD)]);
    let status = gehen_yml(&ecs, "", &["api"]).run_unheard(&["-gitsha", NEW]);
    assert_eq!(status.code(), Some(0));
    assert_eq!(ecs.runs("api"), NEW);
}

#[test]
fn printing_to_nobody_is_no_crash() {
    let ecs = ecs([service("api").running(OLD)]);
    let gehen = gehen_yml(&ecs, "", &["api"]);
    assert_eq!(gehen.run_unheard(&["-version"]).code(), Some(0));
    assert_eq!(gehen.run_unheard(&["-help"]).code(), Some(0));
    assert_eq!(gehen.run_unheard(&["-gitsha", "latest"]).code(), Some(1));
    assert_eq!(gehen.run_unheard(&["-gitsha", NEW, "-path", "missing.yml"]).code(), Some(1));
}

#[test]
fn output_into_a_pipe_has_no_escape_sequences() {
    let ecs = ecs([service("api").running(OLD), service("web").running(OLD)]);
    let gehen = gehen_yml(&ecs, "", &["api", "web"]).with("TERM", "xterm-256color").with("COLORTERM", "truecolor");
    ecs.fault(Fault::on("RegisterTaskDefinition").about("web").denied().always());
    let run = gehen.deploy(NEW);
    run.exits(1).says("error: ");
    assert!(!run.stderr.contains('\u{1b}') && !run.stdout.contains('\u{1b}'), "{run:?}");
}

#[test]
fn no_level_of_logging_shows_what_a_task_definition_holds() {
    const VALUE: &str = "correct-horse-battery-staple";
    const SECRET: &str = "AKIDMARKERINASECRETNAME";
    let definition = json!({
        "family": "api", "memory": "512",
        "containerDefinitions": [{
            "name": "api", "image": "api:01d0000",
            "portMappings": [{"containerPort": 8080}],
            "environment": [{"name": "DATABASE_PASSWORD", "value": VALUE}],
            "secrets": [{"name": "TOKEN", "valueFrom": format!("arn:aws:ssm:us-east-1:123456789012:parameter/{SECRET}")}],
        }],
    });
    for levels in ["trace", "gehen=trace,aws_smithy_runtime=trace,aws_sdk_ecs=trace,hyper=trace,reqwest=trace"] {
        for fault in
            [None, Some(Fault::on("RegisterTaskDefinition").denied()), Some(Fault::on("UpdateService").denied())]
        {
            let ecs = ecs([service("api").task_definition(definition.clone())]);
            let fails = fault.is_some();
            if let Some(fault) = fault {
                ecs.fault(fault);
            }
            let run = gehen_yml(&ecs, "", &["api"]).with("RUST_LOG", levels).deploy(NEW);
            run.exits(i32::from(fails)).never_says(VALUE).never_says(SECRET).never_says("DATABASE_PASSWORD");
            assert_eq!(run.stdout, "");
        }
    }
}

#[test]
fn rust_log_quiets_all_but_the_end() {
    let ecs = ecs([service("api").running(OLD)]);
    let gehen = gehen_yml(&ecs, "", &["api"]);
    let run = gehen.with("RUST_LOG", "error").deploy(NEW);
    run.exits(0);
    let lines: Vec<_> = run.stderr.lines().collect();
    assert!(matches!(lines[..], [end] if end.starts_with("api: DEPLOYED ae30000 as api:2 in ")), "{}", run.stderr);
}

#[test]
fn a_rust_log_that_cannot_be_read_changes_nothing() {
    let ecs = ecs([service("api").running(OLD)]);
    let run = gehen_yml(&ecs, "", &["api"]).with("RUST_LOG", "gehen=loud").deploy(NEW);
    run.exits(0).says("api: deploy check passed: ").says("api: DEPLOYED ae30000 as api:2 in ");
}
