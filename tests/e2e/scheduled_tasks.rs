//! Scheduled tasks: rules of EventBridge, which follow once every service is proven, and go back with them.

use std::{
    collections::BTreeSet,
    fmt::Write as _,
    sync::Mutex,
    time::{Duration, Instant},
};

use local_ecs::{Answer, Behaviour, Fault, LocalEcs, RuleBuilder, Settings, ecr_image, image, rule, service};
use serde_json::{Value, json};

use crate::fault_table::faults;
use crate::support::{Gehen, NEW, OLD, SHORT, THEIRS, bodies, ecs, ecs_with, gehen_file, kill, updates};

const REGION: &str = "us-east-1";

/// gehen.yml with these services, without urls, and these rules, each with its keys in YAML's flow style.
fn gehen_yml(ecs: &LocalEcs, services: &[&str], rules: &[(&str, &str)]) -> Gehen {
    let mut file = "services:\n".to_owned();
    for name in services {
        let _ = writeln!(file, "  {name}: {{cluster: {}}}", ecs.cluster_arn(name));
    }
    if services.is_empty() {
        file.clear();
    }
    file += "scheduledTasks:\n";
    for (name, keys) in rules {
        let _ = writeln!(file, "  {name}: {{{keys}}}");
    }
    gehen_file(ecs, &file)
}

/// A local ECS with the service `api` and these rules.
fn ecs_with_rules(rules: impl IntoIterator<Item = RuleBuilder>) -> LocalEcs {
    let ecs = ecs([service("api").running(OLD)]);
    rules.into_iter().for_each(|rule| ecs.schedule(rule));
    ecs
}

/// A rule with one target, which runs the family of the same name.
fn simple(name: &str) -> RuleBuilder {
    rule(name).task(name, OLD)
}

/// A colleague has the rule's only target run another revision of its family.
fn colleague_changes(ecs: &LocalEcs, rule: &str) {
    let container = json!({"name": rule, "image": image(rule, THEIRS), "memory": 64});
    let definition = json!({"family": rule, "containerDefinitions": [container]});
    let registered = ecs.call(REGION, "RegisterTaskDefinition", definition).expect("a good task definition");
    let mut target = ecs.targets(rule).remove(0);
    target["EcsParameters"]["TaskDefinitionArn"] = registered["taskDefinition"]["taskDefinitionArn"].clone();
    ecs.call(REGION, "PutTargets", json!({"Rule": rule, "Targets": [target]})).expect("the rule can be changed");
}

/// The operations of EventBridge that were asked for, with their rules.
fn asked(ecs: &LocalEcs) -> Vec<String> {
    let requests = ecs.requests().into_iter().filter(|request| request.service_name == "events");
    let named = |rule: &Value| rule.as_str().unwrap_or_default().to_owned();
    requests.map(|request| format!("{} {}", request.operation, named(&request.body["Rule"]))).collect()
}

/// The image that a task definition's only container runs.
fn image_of(ecs: &LocalEcs, region: &str, task_definition: &str) -> String {
    let described = ecs.call(region, "DescribeTaskDefinition", json!({"taskDefinition": task_definition}));
    let described = described.expect("the task definition is there");
    described["taskDefinition"]["containerDefinitions"][0]["image"].as_str().unwrap_or_default().to_owned()
}

#[test]
fn a_rule_follows_once_the_services_are_proven_and_keeps_everything_else() {
    let queue = json!({"Id": "queue", "Arn": "arn:aws:sqs:us-east-1:123456789012:jobs", "Invented": [1]});
    let ecs = ecs_with_rules([simple("nightly")
        .with("Input", json!("{\"containerOverrides\":[{\"name\":\"nightly\",\"command\":[\"report\"]}]}"))
        .with("DeadLetterConfig", json!({"Arn": "arn:aws:sqs:us-east-1:123456789012:dead"}))
        .with("InventedIn2030", json!({"Deep": [0.1, null, 12_345_678_901_234_567_890_u64]}))
        .with_parameter("InventedToo", json!({"A": "b"}))
        .target(queue)]);
    let before = ecs.targets("nightly");
    let run = gehen_yml(&ecs, &["api"], &[("nightly", "")]).deploy(NEW);
    run.exits(0).ends("api", &format!("DEPLOYED {NEW} as api:2")).never_says("proves the version first");
    run.says("nightly: runs nightly:1 (01d0000)\n").says("nightly: registered nightly:2: ");
    run.says("s: runs nightly:2 from now on; what runs already is left alone");
    let end = run.end_of("nightly");
    assert!(end.starts_with(&format!("DEPLOYED {NEW} as nightly:2 in ")), "{end}");
    assert!(end.ends_with(&format!("; now runs nightly:2 ({NEW})")), "{end}");
    assert_eq!(
        ecs.writes(),
        [
            "RegisterTaskDefinition api",
            "UpdateService api -> api:2",
            "RegisterTaskDefinition nightly",
            "PutTargets nightly -> nightly:2"
        ]
    );
    let mut expected = before.clone();
    expected[0]["EcsParameters"]["TaskDefinitionArn"] =
        json!("arn:aws:ecs:us-east-1:123456789012:task-definition/nightly:2");
    assert_eq!(ecs.targets("nightly"), expected);
    assert_eq!(bodies(&ecs, "PutTargets"), [json!({"Rule": "nightly", "Targets": [expected[0]]})]);
    assert_eq!(image_of(&ecs, REGION, "nightly:2"), image("nightly", NEW));
    assert!(!run.stderr.contains("containerOverrides"), "what is passed to tasks is not shown:\n{}", run.stderr);
}

#[test]
fn every_target_of_a_rule_follows_on_whatever_page_it_is() {
    let ecs = ecs_with(Settings { targets_per_page: 2, ..Settings::fast() }, []);
    let queue = json!({"Id": "queue", "Arn": "arn:aws:sqs:us-east-1:123456789012:jobs"});
    ecs.schedule(
        rule("nightly")
            .task("report", OLD)
            .target(queue)
            .runs("report:1")
            .with("Id", json!("again"))
            .task("clean", OLD),
    );
    let run = gehen_yml(&ecs, &[], &[("nightly", "region: us-east-1")]).deploy(NEW);
    run.exits(0).ends("nightly", &format!("DEPLOYED {NEW} as report:2 and clean:2 in "));
    assert_eq!(
        ecs.writes(),
        [
            "RegisterTaskDefinition report",
            "RegisterTaskDefinition clean",
            "PutTargets nightly -> report:2, report:2, clean:2"
        ],
        "equal targets share a revision"
    );
    assert_eq!(ecs.schedules("nightly"), ["report:2", "report:2", "clean:2"]);
    assert!(bodies(&ecs, "ListTargetsByRule").iter().any(|body| body["NextToken"].is_string()));
}

#[test]
fn a_rule_of_another_bus_and_region_is_found_by_name_and_by_arn() {
    for keys in
        ["eventBus: audit, region: eu-west-1", "eventBus: 'arn:aws:events:eu-west-1:123456789012:event-bus/audit'"]
    {
        let ecs = ecs_with_rules([simple("nightly"), simple("nightly").bus("audit").region("eu-west-1")]);
        let run = gehen_yml(&ecs, &["api"], &[("nightly", keys)]).deploy(NEW);
        run.exits(0).ends("nightly", &format!("DEPLOYED {NEW} as nightly:2"));
        assert_eq!(ecs.schedules("eu-west-1/audit/nightly"), ["nightly:2"]);
        assert_eq!(ecs.schedules("us-east-1/default/nightly"), ["nightly:1"]);
        assert_eq!(image_of(&ecs, "eu-west-1", "nightly:2"), image("nightly", NEW));
        let events = ecs.requests().into_iter().filter(|request| request.service_name == "events");
        assert!(events.into_iter().all(|request| request.region == "eu-west-1"));
    }
}

#[test]
fn a_file_may_hold_rules_only_and_then_their_region_must_be_known() {
    let ecs = ecs_with(Settings::fast(), []);
    ecs.schedule(simple("nightly").region("eu-west-1"));
    let gehen = || gehen_yml(&ecs, &[], &[("nightly", "")]);
    gehen().deploy(NEW).exits(1).says(
        "error: scheduled task `nightly`: no region is known for its rule\nhint: write it under the key `region`, or set AWS_REGION\nnothing has been changed\n",
    );
    assert_eq!(ecs.requests().len(), 0);
    gehen().with("AWS_REGION", "eu-west-1").deploy(NEW).exits(0);
    assert_eq!(ecs.writes(), ["RegisterTaskDefinition nightly", "PutTargets nightly -> nightly:2"]);
    assert_eq!(asked(&ecs).len(), asked(&ecs).iter().filter(|asked| asked.ends_with(" nightly")).count());
}

#[test]
fn the_region_of_aws_settings_goes_before_that_of_the_services() {
    let ecs = ecs([service("api").running(OLD), service("web").running(OLD).region("eu-west-1")]);
    ecs.schedule(simple("nightly").region("ap-south-1"));
    let gehen = |services: &[&str]| gehen_yml(&ecs, services, &[("nightly", "")]);
    gehen(&["api", "web"]).run(&["-gitsha", NEW, "-dry-run"]).exits(1).says("no region is known for its rule");
    let run = gehen(&["web"]).run(&["-gitsha", NEW, "-dry-run"]);
    run.exits(1).says("events:ListTargetsByRule: ResourceNotFoundException");
    assert_eq!(
        ecs.requests().into_iter().rfind(|request| request.service_name == "events").map(|request| request.region),
        Some("eu-west-1".into())
    );
    gehen(&["api", "web"]).with("AWS_REGION", "ap-south-1").run(&["-gitsha", NEW, "-dry-run"]).exits(0);
}

#[test]
fn every_problem_of_a_rule_is_listed_before_anything_is_changed() {
    let ecs = ecs_with_rules([
        rule("queue-only").target(json!({"Id": "queue", "Arn": "arn:aws:sqs:us-east-1:123456789012:jobs"})),
        rule("dangling").runs("gone:7"),
        rule("unpushed").task_definition(json!({"family": "unpushed", "containerDefinitions": [
            {"name": "app", "image": ecr_image("123456789012", REGION, "team/app", OLD), "memory": 64}]})),
        rule("mixed").task_definition(json!({"family": "mixed", "containerDefinitions": [
            {"name": "app", "image": image("app", OLD), "memory": 64},
            {"name": "logs", "image": "log-router:stable", "memory": 64}]})),
        simple("picky"),
        simple("fine"),
    ]);
    ecs.repository("123456789012", REGION, "team/app", &[OLD]);
    ecs.fault(Fault::on("DescribeServices").denied());
    let rules = ["missing", "queue-only", "dangling", "unpushed", "mixed", "fine"].map(|name| (name, ""));
    let rules: Vec<_> = rules.into_iter().chain([("picky", "containers: [app]")]).collect();
    let run = gehen_yml(&ecs, &["api"], &rules).deploy(NEW);
    run.exits(1).says("error: service `api`: DescribeServices: AccessDeniedException");
    for (rule, problem) in [
        (
            "missing",
            "events:ListTargetsByRule: ResourceNotFoundException: Rule missing does not exist on EventBus default.\nhint: check the rule's name, its `eventBus` and its `region` in the file\n",
        ),
        ("queue-only", "its rule has no target that has ECS run a task\n"),
        ("dangling", "DescribeTaskDefinition: ClientException: "),
        (
            "unpushed",
            "there is no image 123456789012.dkr.ecr.us-east-1.amazonaws.com/team/app:ae30000 for container `app`\nhint: push the image first",
        ),
        ("mixed", "the images of mixed:1 are of several repositories"),
        ("picky", "picky:1 has no container `app`; it has `picky`\n"),
    ] {
        run.says(&format!("error: scheduled task `{rule}`: {problem}"));
    }
    run.never_says("`fine`").says("nothing has been changed");
    assert_eq!(ecs.writes(), [] as [&str; 0]);
}

#[test]
fn a_rule_is_updated_as_its_strategy_says() {
    let newer = json!({"family": "nightly", "cpu": "512", "memory": "1024", "containerDefinitions": [
        {"name": "nightly", "image": image("nightly", THEIRS), "memory": 64, "user": "newest"}]});
    for (strategy, writes, end) in [
        (
            "current",
            &["RegisterTaskDefinition nightly", "PutTargets nightly -> nightly:3"][..],
            "DEPLOYED ae30000 as nightly:3",
        ),
        (
            "latest",
            &["RegisterTaskDefinition nightly", "PutTargets nightly -> nightly:3"],
            "DEPLOYED ae30000 as nightly:3",
        ),
        ("redeploy", &[], "NOT TOUCHED, as `updateStrategy: redeploy` says; now runs nightly:1"),
        ("none", &[], "NOT TOUCHED, as `updateStrategy: none` says; now runs nightly:1"),
    ] {
        let ecs = ecs_with(Settings::fast(), []);
        ecs.schedule(simple("nightly"));
        ecs.call(REGION, "RegisterTaskDefinition", &newer).expect("a good task definition");
        let keys = format!("region: us-east-1, updateStrategy: {strategy}");
        let run = gehen_yml(&ecs, &[], &[("nightly", &keys)]).deploy(NEW);
        run.exits(0).ends("nightly", end);
        assert_eq!(ecs.writes(), writes, "{strategy}");
        if writes.is_empty() {
            run.says(&format!("nightly: stays as it is, as `updateStrategy: {strategy}` says"));
            continue;
        }
        let registered = &bodies(&ecs, "RegisterTaskDefinition")[0]["containerDefinitions"][0];
        assert_eq!(registered["user"] == "newest", strategy == "latest", "{registered}");
        assert_eq!(registered["image"], image("nightly", NEW));
    }
}

#[test]
fn what_runs_the_version_already_is_not_written_again() {
    let ecs = ecs_with_rules([simple("nightly"), rule("hourly").task("clean", NEW)]);
    let gehen = gehen_yml(&ecs, &["api"], &[("nightly", ""), ("hourly", "")]);
    gehen.deploy(NEW).exits(0).ends("hourly", &format!("UP TO DATE: it ran {NEW} already; now runs clean:1 ({NEW})"));
    let written = ecs.writes();
    assert!(!written.iter().any(|write| write.contains("clean") || write.contains("hourly")), "{written:?}");
    let again = gehen.deploy(NEW);
    again.exits(0).ends("nightly", "UP TO DATE");
    assert_eq!(ecs.writes()[written.len()..], ["UpdateService api -> api:2"]);
}

#[test]
fn a_service_and_a_rule_of_one_revision_share_the_new_one() {
    let ecs = ecs_with_rules([rule("nightly").runs("api:1")]);
    gehen_yml(&ecs, &["api"], &[("nightly", "")]).deploy(NEW).exits(0);
    assert_eq!(
        ecs.writes(),
        ["RegisterTaskDefinition api", "UpdateService api -> api:2", "PutTargets nightly -> api:2"]
    );
}

#[test]
fn a_rule_that_somebody_changes_before_its_turn_is_left_alone_and_nothing_follows() {
    let ecs = ecs_with_rules([simple("first"), simple("nightly"), simple("last")]);
    let running = gehen_yml(&ecs, &["api"], &[("first", ""), ("nightly", ""), ("last", "")])
        .start(&["-gitsha", NEW])
        .until_it_says("api: updated to api:2");
    colleague_changes(&ecs, "nightly");
    let run = running.wait();
    run.exits(1).says("nightly: error: somebody else has changed what the rule runs (nightly:2); leaving it alone");
    run.ends("api", &format!("DEPLOYED {NEW}")).ends("first", &format!("DEPLOYED {NEW}"));
    run.ends("nightly", "LEFT ALONE after ")
        .ends("last", "NOT TOUCHED: the run ended before its turn; now runs last:1");
    assert!(run.end_of("nightly").ends_with("somebody else has changed what it runs; now runs nightly:2"));
    assert_eq!(updates(&ecs), ["UpdateService api -> api:2", "PutTargets first -> first:2"]);
    assert_eq!((ecs.schedules("nightly"), ecs.runs("api")), (vec!["nightly:2".to_owned()], NEW.into()));
}

#[test]
fn a_target_that_somebody_adds_or_takes_away_is_a_change_too() {
    let queue = json!({"Id": "queue", "Arn": "arn:aws:sqs:us-east-1:123456789012:jobs"});
    for (operation, body) in [
        ("PutTargets", json!({"Rule": "nightly", "Targets": [queue]})),
        ("RemoveTargets", json!({"Rule": "nightly", "Ids": ["nightly"]})),
    ] {
        let ecs = ecs_with_rules([simple("nightly")]);
        let running = gehen_yml(&ecs, &["api"], &[("nightly", "")])
            .start(&["-gitsha", NEW])
            .until_it_says("api: updated to api:2");
        ecs.call(REGION, operation, body).expect("the rule can be changed");
        running.wait().exits(1).ends("nightly", "LEFT ALONE after ");
        assert_eq!(updates(&ecs), ["UpdateService api -> api:2"]);
    }
}

#[test]
fn a_lost_answer_is_looked_for_before_targets_are_put_again() {
    let put = || Fault::on("PutTargets");
    let faults = [
        (put().reset_after(), 1),
        (put().slow(Duration::from_secs(12)), 1),
        (put().reset_before(), 2),
        (put().server_error(), 2),
        (put().throttled().times(2), 3),
        (put().fails_entries("ConcurrentModificationException", "Busy."), 2),
    ];
    std::thread::scope(|scope| {
        for (fault, puts) in faults {
            scope.spawn(move || {
                let ecs = ecs_with(Settings::fast(), []);
                ecs.schedule(simple("nightly"));
                ecs.fault(fault.clone());
                let run = gehen_yml(&ecs, &[], &[("nightly", "region: us-east-1")]).deploy(NEW);
                run.exits(0).ends("nightly", &format!("DEPLOYED {NEW}")).says("; looking whether it happened");
                assert_eq!(bodies(&ecs, "PutTargets").len(), puts, "{fault:?}\n{}", run.stderr);
                assert_eq!(ecs.writes(), ["RegisterTaskDefinition nightly", "PutTargets nightly -> nightly:2"]);
            });
        }
    });
}

#[test]
fn requests_that_stumble_are_tried_again() {
    let ecs = ecs_with_rules([simple("nightly")]);
    for operation in ["ListTargetsByRule", "DescribeTaskDefinition"] {
        ecs.fault(Fault::on(operation).throttled().times(2));
        ecs.fault(Fault::on(operation).server_error().after(2));
    }
    ecs.fault(Fault::on("RegisterTaskDefinition").about("nightly").throttled().times(2));
    let run = gehen_yml(&ecs, &["api"], &[("nightly", "")]).deploy(NEW);
    run.exits(0).ends("nightly", &format!("DEPLOYED {NEW} as nightly:2"));
    run.says(
        "nightly: warning: events:ListTargetsByRule: ThrottlingException: Rate exceeded; trying again for up to 1 min",
    );
}

#[test]
fn an_entry_that_fails_takes_everything_back() {
    let ecs = ecs_with_rules([rule("nightly").task("report", OLD).task("clean", OLD)]);
    let before = ecs.targets("nightly");
    ecs.fault(Fault::on("PutTargets").fails_entry("clean", "AccessDenied", "No role for you."));
    let run = gehen_yml(&ecs, &["api"], &[("nightly", "")]).deploy(NEW);
    run.exits(1).ends("nightly", "ROLLED BACK to report:1 (01d0000) and clean:1 (01d0000) in ");
    run.says("nightly: why: events:PutTargets: target `clean`: AccessDenied: No role for you.");
    run.ends("api", "ROLLED BACK to api:1 (01d0000)").says("api: why: scheduled task `nightly` failed");
    let mut updates = updates(&ecs);
    assert_eq!(updates[..2], ["UpdateService api -> api:2", "PutTargets nightly -> report:2"]);
    // They go back side by side.
    updates[2..].sort();
    assert_eq!(updates[2..], ["PutTargets nightly -> report:1, clean:1", "UpdateService api -> api:1"]);
    assert_eq!((ecs.targets("nightly"), ecs.runs("api")), (before, OLD.into()));
}

#[test]
fn what_was_put_before_a_refusal_goes_back_also_where_looks_do_not_show_it_yet() {
    let lost = || Fault::on("PutTargets").reset_after();
    let refused = Fault::on("PutTargets").refused("ValidationException", "No.");
    let one_failed = Fault::on("PutTargets").fails_entry("clean", "AccessDenied", "No role for you.");
    std::thread::scope(|scope| {
        for (faults, stale) in [(vec![one_failed], 4), (vec![lost(), refused], 18)] {
            scope.spawn(move || {
                let ecs = ecs_with(Settings::fast(), []);
                ecs.schedule(rule("nightly").task("report", OLD).task("clean", OLD));
                let before = ecs.targets("nightly");
                ecs.settings_mut(|settings| settings.stale_reads = Duration::from_secs(stale));
                for fault in faults {
                    ecs.fault(fault);
                }
                let gehen = gehen_yml(&ecs, &[], &[("nightly", "region: us-east-1")]);
                let mut running = gehen.start(&["-gitsha", NEW]);
                if stale > 10 {
                    running = running.until_it_says("looking whether it happened");
                    ecs.settings_mut(|settings| settings.stale_reads = Duration::ZERO);
                }
                let run = running.wait();
                run.exits(1).ends("nightly", "ROLLED BACK to report:1 (01d0000) and clean:1 (01d0000) in ");
                assert_eq!(ecs.targets("nightly"), before, "{}", run.stderr);
            });
        }
    });
}

#[test]
fn a_rule_that_cannot_be_changed_takes_what_was_updated_before_it_back() {
    let ecs = ecs_with_rules([simple("first"), simple("second"), simple("third")]);
    let before = ecs.targets("first");
    ecs.fault(Fault::on("PutTargets").about("second").denied().always());
    let run = gehen_yml(&ecs, &["api"], &[("first", ""), ("second", ""), ("third", "")]).deploy(NEW);
    run.exits(1).ends("first", "ROLLED BACK to first:1 (01d0000) in ").ends("api", "ROLLED BACK to api:1 (01d0000)");
    run.says("first: why: scheduled task `second` failed");
    run.ends("second", "NOT UPDATED after ").ends("third", "NOT TOUCHED");
    run.says("second: why: events:PutTargets: AccessDeniedException: ").says("(the role needs events:PutTargets)");
    assert!(run.end_of("second").contains("; now runs second:1 (01d0000)\nwhy: "), "{}", run.end_of("second"));
    let mut undone = updates(&ecs).split_off(2);
    undone.sort();
    assert_eq!(undone, ["PutTargets first -> first:1", "UpdateService api -> api:1"]);
    assert_eq!((ecs.targets("first"), ecs.runs("api")), (before, OLD.into()));
    assert_eq!(bodies(&ecs, "PutTargets").iter().filter(|body| body["Rule"] == "second").count(), 1, "it was refused");
}

#[test]
fn a_service_that_fails_leaves_every_rule_untouched() {
    let ecs = ecs_with_rules([simple("nightly")]);
    ecs.version(NEW, Behaviour::ImageMissing);
    let run = gehen_yml(&ecs, &["api"], &[("nightly", "")]).deploy(NEW);
    run.exits(1)
        .ends("api", "ROLLED BACK")
        .ends("nightly", "NOT TOUCHED: the run ended before its turn; now runs nightly:1");
    assert_eq!(asked(&ecs), ["ListTargetsByRule nightly"; 2], "the first look and the last");
    assert!(!ecs.writes().contains(&"RegisterTaskDefinition nightly".to_owned()));
}

#[test]
fn a_service_that_does_not_drain_keeps_no_rule_back() {
    let ecs = ecs_with_rules([simple("nightly")]);
    ecs.protect_tasks("api");
    let file =
        format!("{SHORT}\nservices:\n  api: {{cluster: {}}}\nscheduledTasks:\n  nightly:\n", ecs.cluster_arn("api"));
    let run = gehen_file(&ecs, &file).deploy(NEW);
    run.exits(2).ends("api", "LIVE, BUT NOT DRAINED").ends("nightly", &format!("DEPLOYED {NEW}"));
    assert_eq!(ecs.schedules("nightly"), ["nightly:2"]);
}

#[test]
fn a_signal_while_rules_are_updated_takes_everything_back_at_once() {
    let ecs = ecs_with_rules([simple("first"), simple("second")]);
    let before = (ecs.targets("first"), ecs.targets("second"));
    // The second rule's targets are put a while after the signal: their answer is awaited.
    ecs.fault(Fault::on("PutTargets").about("second").slow(Duration::from_secs(2)));
    let running = gehen_yml(&ecs, &["api"], &[("first", ""), ("second", "")])
        .start(&["-gitsha", NEW])
        .until_it_says("second: registered second:2");
    assert!(ecs.wait_until(Duration::from_secs(20), |view| view.schedules("first") == ["first:2"]));
    std::thread::sleep(Duration::from_millis(300));
    let since = Instant::now();
    kill("TERM", running.child.id());
    let run = running.wait();
    run.exits(1).ends("api", "ROLLBACK REQUESTED").ends("first", "ROLLBACK REQUESTED");
    run.says("second: error: cancelled by SIGTERM").says("first: why: the run was cancelled by SIGTERM");
    for operation in ["UpdateService", "PutTargets"] {
        let back = ecs
            .requests()
            .into_iter()
            .find(|request| request.operation == operation && request.at > since && request.body["Rule"] != "second");
        let at = back.unwrap_or_else(|| panic!("no {operation}:\n{}", run.stderr)).at;
        assert!(at - since < Duration::from_secs(2), "{operation} after {:?}", at - since);
    }
    let is_back = || (ecs.targets("first"), ecs.targets("second")) == before;
    let deadline = Instant::now() + Duration::from_secs(10);
    while !is_back() {
        assert!(Instant::now() < deadline, "{:?}\n{}", ecs.writes(), run.stderr);
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn a_rule_that_somebody_changes_before_its_rollback_is_left_alone() {
    let ecs = ecs_with_rules([simple("first"), simple("second")]);
    let refused =
        Fault::on("PutTargets").about("second").slow(Duration::from_secs(2)).refused("ValidationException", "No.");
    ecs.fault(refused);
    let running = gehen_yml(&ecs, &["api"], &[("first", ""), ("second", "")])
        .start(&["-gitsha", NEW])
        .until_it_says("first: updated in ");
    colleague_changes(&ecs, "first");
    let run = running.wait();
    run.exits(1).ends("first", "FAILED after ").ends("api", "ROLLED BACK");
    run.says(" and left alone: somebody else has it run first:3 meanwhile; now runs first:3\n");
    assert_eq!(ecs.schedules("first"), ["first:3"]);
}

#[test]
fn the_command_to_type_spares_a_target_that_somebody_changed() {
    let ecs = ecs_with_rules([rule("first").task("report", OLD).task("clean", OLD), simple("second")]);
    let refused = |rule: &str| {
        let late = Fault::on("PutTargets").about(rule).slow(Duration::from_secs(2));
        late.refused("ValidationException", "No.").always()
    };
    ecs.fault(refused("second"));
    let running = gehen_yml(&ecs, &["api"], &[("first", ""), ("second", "")])
        .start(&["-gitsha", NEW])
        .until_it_says("first: updated in ");
    let theirs = ecs.targets("first");
    let (kept, mut changed) = (theirs[0].clone(), theirs[1].clone());
    changed["Input"] = json!("theirs");
    ecs.call(REGION, "PutTargets", json!({"Rule": "first", "Targets": [changed]})).expect("the rule can be changed");
    ecs.fault(refused("first"));
    let run = running.wait();
    let id = |target: &Value| format!("Targets[?Id=={}]", target["Id"].to_string().replace('"', "'"));
    run.exits(1).says(&id(&kept)).never_says(&id(&changed));
}

#[test]
fn a_target_that_somebody_changes_is_left_alone_and_the_others_of_its_rule_go_back() {
    let ecs = ecs_with_rules([rule("first").task("report", OLD).task("clean", OLD), simple("second")]);
    let refused =
        Fault::on("PutTargets").about("second").slow(Duration::from_secs(2)).refused("ValidationException", "No.");
    ecs.fault(refused);
    let running = gehen_yml(&ecs, &["api"], &[("first", ""), ("second", "")])
        .start(&["-gitsha", NEW])
        .until_it_says("first: updated in ");
    let mut theirs = ecs.targets("first").remove(1);
    theirs["Input"] = json!("theirs");
    ecs.call(REGION, "PutTargets", json!({"Rule": "first", "Targets": [theirs]})).expect("the rule can be changed");
    let run = running.wait();
    run.exits(1).ends("first", "ROLLED BACK IN PART in ").ends("api", "ROLLED BACK");
    run.says("first: warning: somebody else has target `clean` run clean:2 meanwhile; leaving it alone\n");
    run.says("first: warning: rolling back to report:1 (01d0000)\n");
    assert_eq!(ecs.schedules("first"), ["report:1", "clean:2"]);
    assert_eq!(ecs.targets("first")[1]["Input"], "theirs");
}

#[test]
fn a_registration_that_comes_late_is_waited_for_where_a_rule_follows_its_family() {
    let ecs = ecs_with(Settings::fast(), [service("api").running(OLD), service("web").running(OLD)]);
    ecs.schedule(rule("nightly").runs("api").without_revision());
    ecs.fault(Fault::on("RegisterTaskDefinition").about("api").slow(Duration::from_secs(7)));
    ecs.fault(Fault::on("RegisterTaskDefinition").about("web").slow(Duration::from_secs(3)).denied());
    ecs.fault(Fault::on("ListTargetsByRule").after(1).server_error());
    let cluster = ecs.cluster_arn("api");
    let file = format!(
        "parallel: 2\nservices:\n  api: {{cluster: {cluster}}}\n  web: {{cluster: {cluster}}}\nscheduledTasks:\n  nightly:\n"
    );
    let run = gehen_file(&ecs, &file).deploy(NEW);
    run.exits(1).ends("web", "NOT UPDATED").ends("nightly", "ROLLED BACK to api:1 (01d0000) in ");
    assert_eq!(ecs.schedules("nightly"), ["api:1"], "{}", run.stderr);
    run.says("nightly: warning: events:ListTargetsByRule: ").says("; trying again for up to 1 min\n");
}

#[test]
fn a_rollback_that_fails_says_what_to_type() {
    let ecs = ecs_with_rules([simple("first").with("Input", json!("secret")), simple("second")]);
    let echo = "1 validation error detected: Value '[{Input=secret}]' at 'targets' failed to satisfy constraint: no";
    ecs.fault(Fault::on("PutTargets").after(1).refused("ValidationException", echo));
    ecs.fault(Fault::on("PutTargets").after(1).denied().always());
    let run = gehen_yml(&ecs, &["api"], &[("first", ""), ("second", "")]).deploy(NEW);
    run.says(
        "second: why: events:PutTargets: ValidationException: 1 validation error detected: a value at 'targets' failed",
    );
    run.exits(1).ends("first", "FAILED after ").ends("api", "ROLLED BACK");
    run.says(", AND THE ROLLBACK to first:1 (01d0000) FAILED TOO: events:PutTargets: AccessDeniedException");
    run.says("; now runs first:2 (ae30000)\n").never_says("secret");
    run.says(
        "first: to go back by hand: aws events list-targets-by-rule --region us-east-1 --rule first --query \"Targets[?Id=='first']\" --output json | sed 's#\"TaskDefinitionArn\": \"[^\"]*\"#\"TaskDefinitionArn\": \"arn:aws:ecs:us-east-1:123456789012:task-definition/first:1\"#' > target.json && aws events put-targets --region us-east-1 --rule first --targets file://target.json\n",
    );
}

#[test]
fn a_rule_that_a_service_of_aws_keeps_is_told() {
    let ecs = ecs_with_rules([simple("nightly").managed_by("backup.amazonaws.com")]);
    let run = gehen_yml(&ecs, &["api"], &[("nightly", "")]).deploy(NEW);
    run.exits(1).ends("nightly", "NOT UPDATED").ends("api", "ROLLED BACK");
    run.says(
        "ManagedRuleException: nightly is a managed rule. (a service of AWS keeps this rule: take it out of the file)",
    );
}

#[test]
fn a_target_that_names_no_revision_gets_one_and_goes_back_to_what_it_ran() {
    let nightly = || simple("nightly").without_revision();
    let ecs = ecs_with_rules([nightly()]);
    let run = gehen_yml(&ecs, &["api"], &[("nightly", "")]).deploy(NEW);
    run.exits(0).ends("nightly", &format!("DEPLOYED {NEW} as nightly:2"));
    run.says("nightly: warning: a target names no revision of nightly, so it runs the newest from the moment");
    let is_odd = |body: &Value| body["taskDefinition"].as_str().is_some_and(|asked| asked.ends_with("/nightly"));
    assert!(!bodies(&ecs, "DescribeTaskDefinition").iter().any(is_odd), "a family goes by its name");
    assert_eq!(ecs.schedules("nightly"), ["nightly:2"]);

    // The newest revision of the family is the one that is taken back.
    let ecs = ecs_with_rules([nightly(), simple("second")]);
    ecs.fault(Fault::on("PutTargets").about("second").denied());
    let run = gehen_yml(&ecs, &["api"], &[("nightly", ""), ("second", "")]).deploy(NEW);
    run.exits(1).ends("nightly", "ROLLED BACK to nightly:1 (01d0000)");
    assert_eq!(ecs.schedules("nightly"), ["nightly:1"]);
}

#[test]
fn a_target_that_follows_the_family_of_a_service_goes_back_with_it() {
    let ecs = ecs_with_rules([rule("nightly").runs("api").without_revision()]);
    ecs.version(NEW, Behaviour::ImageMissing);
    let run = gehen_yml(&ecs, &["api"], &[("nightly", "")]).deploy(NEW);
    run.exits(1).ends("api", "ROLLED BACK").ends("nightly", "ROLLED BACK to api:1 (01d0000) in ");
    assert_eq!(ecs.schedules("nightly"), ["api:1"], "the newest is api:2, which failed");
    assert_eq!(bodies(&ecs, "PutTargets").len(), 1);
}

#[test]
fn a_target_that_follows_a_family_goes_back_also_where_the_run_only_stops() {
    // The service is not updated after all, but what was registered for it runs for the rule.
    let ecs = ecs_with_rules([rule("nightly").runs("api").without_revision()]);
    ecs.fault(Fault::on("DescribeServices").after(2).denied());
    let run = gehen_yml(&ecs, &["api"], &[("nightly", "")]).deploy(NEW);
    run.exits(1).ends("api", "NOT UPDATED").ends("nightly", "ROLLED BACK to api:1 (01d0000) in ");
    run.says("nightly: why: the run ended before its turn\n");
    assert_eq!(ecs.writes(), ["RegisterTaskDefinition api", "PutTargets nightly -> api:1"]);
    assert_eq!(ecs.schedules("nightly"), ["api:1"]);

    // What was proven may go on.
    let ecs = ecs_with(Settings::fast(), [service("api").running(OLD), service("web").running(OLD)]);
    ecs.schedule(rule("nightly").runs("api").without_revision());
    ecs.fault(Fault::on("DescribeServices").about("web").after(1).denied());
    let run = gehen_yml(&ecs, &["api", "web"], &[("nightly", "")]).deploy(NEW);
    run.exits(1).ends("api", &format!("DEPLOYED {NEW}")).ends("web", "NOT UPDATED");
    let end = run.end_of("nightly");
    let now = "NOT TOUCHED: the run ended before its turn; now runs api:2 (ae30000), the newest revision of its family";
    assert!(end.starts_with(now), "{end}");
    assert_eq!(ecs.schedules("nightly"), ["api"]);
}

#[test]
fn a_rule_that_stays_and_follows_a_family_is_warned_of_and_what_it_runs_now_is_told() {
    let ecs = ecs_with_rules([rule("nightly").runs("api").without_revision(), simple("hourly").without_revision()]);
    ecs.version(NEW, Behaviour::ImageMissing);
    let rules = [("nightly", "updateStrategy: none"), ("hourly", "updateStrategy: redeploy")];
    let run = gehen_yml(&ecs, &["api"], &rules).deploy(NEW);
    run.exits(1).ends("api", "ROLLED BACK");
    run.says("nightly: warning: a target names no revision of api, so it runs the newest from the moment");
    run.says("proven; gehen leaves it so, whatever becomes of that one\n");
    let end = run.end_of("nightly");
    let now = "LEFT AS IT IS, as `updateStrategy: none` says, but its family has got a new revision meanwhile; now runs \
               api:2 (ae30000), the newest revision of its family";
    assert!(end.starts_with(now), "{end}");
    run.ends("hourly", "NOT TOUCHED, as `updateStrategy: redeploy` says; now runs hourly:1 (01d0000), the newest");
    assert!(bodies(&ecs, "PutTargets").is_empty());
}

#[test]
fn a_newer_revision_that_somebody_registers_meanwhile_is_theirs() {
    let ecs = ecs_with_rules([simple("nightly").without_revision()]);
    let running =
        gehen_yml(&ecs, &["api"], &[("nightly", "")]).start(&["-gitsha", NEW]).until_it_says("api: updated to api:2");
    let container = json!({"name": "nightly", "image": image("nightly", THEIRS), "memory": 64});
    let definition = json!({"family": "nightly", "containerDefinitions": [container]});
    ecs.call(REGION, "RegisterTaskDefinition", definition).expect("a good task definition");
    let run = running.wait();
    run.exits(1).ends("nightly", "LEFT ALONE after ").ends("api", &format!("DEPLOYED {NEW}"));
    assert_eq!(updates(&ecs), ["UpdateService api -> api:2"]);
    assert_eq!(ecs.schedules("nightly"), ["nightly"]);
}

#[test]
fn a_dry_run_says_which_rules_would_follow() {
    let ecs = ecs_with_rules([simple("nightly"), simple("hourly")]);
    let gehen = gehen_yml(&ecs, &["api"], &[("nightly", ""), ("hourly", "updateStrategy: none")]);
    let run = gehen.run(&["-gitsha", NEW, "-dry-run"]);
    let images = format!("{} -> {}", image("nightly", OLD), image("nightly", NEW));
    run.exits(0).says(&format!("nightly: would run a new revision of nightly:1: {images}\n"));
    run.says("nightly: a rollback would go to nightly:1 (01d0000)\n");
    run.says("hourly: stays as it is, as `updateStrategy: none` says\n").never_says("hourly: would");
    assert_eq!(ecs.writes(), [] as [&str; 0]);
}

#[test]
fn a_rule_can_be_deployed_alone_and_is_left_out_where_it_is_not_named() {
    let ecs = ecs_with_rules([simple("nightly")]);
    // The region is that of the service, which is not deployed.
    let gehen = gehen_yml(&ecs, &["api"], &[("nightly", "")]);
    let run = gehen.run(&["-gitsha", NEW, "-only", "nightly"]);
    run.exits(0).never_says("api: ");
    run.says("nightly: warning: no service of this run proves the version first: the rule gets it unproven\n");
    assert_eq!(ecs.writes(), ["RegisterTaskDefinition nightly", "PutTargets nightly -> nightly:2"]);
    gehen.run(&["-gitsha", NEW, "-only", "api"]).exits(0).never_says("nightly: ");
}

#[test]
fn json_tells_of_rules_under_a_key_of_their_own() {
    let ecs = ecs_with_rules([simple("nightly"), simple("second")]);
    ecs.fault(Fault::on("PutTargets").about("second").denied());
    let run =
        gehen_yml(&ecs, &["api"], &[("nightly", ""), ("second", "")]).run(&["-gitsha", NEW, "-log-format", "json"]);
    run.exits(1);
    let lines: Vec<Value> = run
        .stderr
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("no JSON: {line}")))
        .collect();
    let arn = |revision: &str| format!("arn:aws:ecs:us-east-1:123456789012:task-definition/{revision}");
    let of = |event: &str| lines.iter().find(|line| line["event"] == event && line["scheduled_task"] == "nightly");
    let runs = of("runs").expect("what it runs is told");
    assert_eq!(runs["targets"], json!([{"task_definition": arn("nightly:1"), "version": OLD}]));
    assert!(runs.get("service").is_none() && runs["phase"] == "preflight", "{runs}");
    assert_eq!(of("attempt_ended").expect("its turn ended")["task_definitions"], json!([arn("nightly:2")]));
    assert_eq!(of("rolling_back").expect("it goes back")["phase"], "rollback");
    let summary = lines.last().expect("there is a summary");
    assert_eq!(summary["services"][0]["outcome"], "rolled_back");
    let rules = &summary["scheduled_tasks"];
    assert_eq!((&rules[0]["scheduled_task"], &rules[0]["outcome"]), (&json!("nightly"), &json!("rolled_back")));
    assert_eq!(rules[0]["now"], json!([{"task_definition": arn("nightly:1"), "version": OLD}]));
    assert_eq!(rules[1]["outcome"], "not_updated");
    assert_eq!(summary["message"], "2 rolled back, 1 not updated");
}

/// Deploys two rules, of which the second refuses to be changed where `is_refused`, under a fault that strikes from the
/// beginning, or then on the way back of the first. Gives what is wrong with how that ended, and whether the fault
/// struck.
fn mistakes_under(operation: &str, fault: Fault, is_refused: bool) -> (Vec<String>, bool) {
    let ecs = ecs_with(Settings::fast(), []);
    ecs.schedule(simple("first"));
    ecs.schedule(simple("second"));
    let before = ecs.targets("first");
    let gehen = gehen_yml(&ecs, &[], &[("first", "region: us-east-1"), ("second", "region: us-east-1")]);
    if is_refused {
        ecs.fault(Fault::on("PutTargets").about("second").refused("ValidationException", "No.").always());
        // The requests about the first rule on the way forth: looks in preflight, before and after the registration,
        // and after the targets were put; and that.
        let forth = if operation == "PutTargets" { 1 } else { 4 };
        ecs.fault(fault.about("first").after(forth));
    } else {
        ecs.fault(fault);
    }
    let run = gehen.deploy(NEW);
    let mut wrong = Vec::new();
    let mut expect = |what: &str, holds: bool| {
        if !holds {
            wrong.push(format!("{what}\n{:?}\n{}", ecs.writes(), run.stderr));
        }
    };
    // A registration whose answer is lost leaves a revision behind, and the next one is put.
    let puts = updates(&ecs).into_iter().map(|write| write.replace(":3", ":2")).collect::<Vec<_>>();
    if is_refused {
        expect("the exit code", run.status.code() == Some(1));
        expect("the rule didn't go back", ecs.targets("first") == before);
        expect("the last lines", run.end_of("first").starts_with("ROLLED BACK"));
        expect("the writes", puts == ["PutTargets first -> first:2", "PutTargets first -> first:1"]);
    } else {
        expect("the exit code", run.status.code() == Some(0));
        expect("the last lines", ["first", "second"].iter().all(|rule| run.end_of(rule).starts_with("DEPLOYED")));
        expect("the writes", puts == ["PutTargets first -> first:2", "PutTargets second -> second:2"]);
    }
    expect("it took too long", run.took < Duration::from_mins(2));
    let struck = ecs.requests().iter().any(|request| {
        // A slow answer is one that gehen stopped waiting for.
        let is_struck = request.answer != Answer::Ok || run.took > Duration::from_secs(10);
        request.operation == operation && is_struck && (!is_refused || request.body["Rule"] == "first")
    });
    (wrong, struck)
}

#[test]
fn every_run_of_rules_ends_as_it_would_without_the_fault() {
    let forth = ["ListTargetsByRule", "DescribeTaskDefinition", "RegisterTaskDefinition", "PutTargets"];
    let back = ["ListTargetsByRule", "PutTargets"];
    let stories = forth.map(|operation| (operation, false)).into_iter().chain(back.map(|operation| (operation, true)));
    let todo: Vec<_> = stories
        .flat_map(|(operation, is_refused)| faults(operation).map(|fault| (operation, is_refused, fault)))
        .collect();
    assert_eq!(todo.len(), 30, "the README says so");
    let wrong = Mutex::new(Vec::new());
    let struck = Mutex::new(BTreeSet::new());
    std::thread::scope(|scope| {
        for (operation, is_refused, (name, fault)) in &todo {
            let (wrong, struck) = (&wrong, &struck);
            scope.spawn(move || {
                let (found, has_struck) = mistakes_under(operation, fault.clone(), *is_refused);
                let told = found.into_iter().map(|found| format!("{operation}, {name}, refused {is_refused}: {found}"));
                wrong.lock().expect("no thread panics while it holds the lock").extend(told);
                if has_struck {
                    struck.lock().expect("as above").insert((*operation, *is_refused, *name));
                }
            });
        }
    });
    let (wrong, struck) = (wrong.into_inner().expect("no panic"), struck.into_inner().expect("no panic"));
    assert!(wrong.is_empty(), "{} runs ended wrong:\n{}", wrong.len(), wrong.join("\n\n"));
    let missed: Vec<_> = todo
        .iter()
        .map(|(operation, is_refused, (name, _))| (*operation, *is_refused, *name))
        .filter(|one| !struck.contains(one))
        .collect();
    assert!(missed.is_empty(), "these never struck: {missed:?}");
}

#[test]
fn github_folds_and_annotates_rules_like_services() {
    let ecs = ecs_with_rules([simple("nightly"), simple("second")]);
    ecs.fault(Fault::on("PutTargets").about("second").denied());
    let gehen = gehen_yml(&ecs, &["api"], &[("nightly", ""), ("second", "")]).with("GITHUB_ACTIONS", "true");
    let place = gehen.place_of("summary.md");
    let gehen = gehen.with("GITHUB_STEP_SUMMARY", &place);
    let run = gehen.deploy(NEW);
    run.exits(1).says("::group::nightly\n").says("::group::second\n");
    assert_eq!(run.stderr.matches("::group::").count(), run.stderr.matches("::endgroup::").count());
    run.says("::error title=gehen%3A second::NOT UPDATED after ");
    let summary = std::fs::read_to_string(&place).expect("the summary was written");
    assert!(summary.contains("| nightly (scheduled task) | rolled back |"), "{summary}");
    assert!(summary.contains("| second (scheduled task) | not updated |"), "{summary}");
}
