//! Old versions that go slowly, or not at all.

use std::time::Duration;

use local_ecs::{Behaviour, StopCode, service};

use crate::support::{NEW, OLD, ecs, gehen_yml, gehen_yml_without_urls};

/// `timeoutMinutes` of six seconds: long enough to meet a new task behind the url while old ones answer there too.
const ENOUGH: &str = "timeoutMinutes: 0.1";

#[test]
fn old_tasks_that_may_not_be_stopped_leave_the_run_undetermined_and_the_new_version_in_place() {
    let ecs = ecs([service("api").running(OLD), service("web").running(OLD)]);
    ecs.protect_tasks("api");
    let old_tasks = ecs.view(|view| view.tasks("api"));
    let run = gehen_yml(&ecs, ENOUGH, &["api", "web"]).deploy(NEW);
    run.exits(2).ends("api", "LIVE, BUT NOT DRAINED").ends("web", &format!("DEPLOYED {NEW}"));
    let end = run.end_of("api");
    assert_eq!(old_tasks.len(), 2);
    for task in old_tasks {
        let arn = task["taskArn"].as_str().expect("a task has an ARN");
        let id = arn.rsplit('/').next().expect("an ARN ends with the id");
        assert!(end.contains(&format!("{id} of api:1 (RUNNING)")), "{id} is not in:\n{end}");
    }
    assert!(end.contains("task scale-in protection or a slow drain may be why"), "{end}");
    assert!(end.contains("2 tasks of api:1 (01d0000)") && end.contains("2 tasks of api:2"), "{end}");
    run.never_says("rolling back");
    assert_eq!(
        ecs.writes(),
        [
            "RegisterTaskDefinition api",
            "UpdateService api -> api:2",
            "RegisterTaskDefinition web",
            "UpdateService web -> web:2",
        ]
    );
    assert_eq!(ecs.runs("api"), format!("{OLD}+{NEW}"));
    assert_eq!(ecs.runs("web"), NEW);
}

#[test]
fn old_tasks_that_may_not_be_stopped_are_noticed_without_a_url_too() {
    let ecs = ecs([service("api").running(OLD)]);
    ecs.protect_tasks("api");
    let run = gehen_yml_without_urls(&ecs, ENOUGH, &["api"]).deploy(NEW);
    run.exits(2).ends("api", "LIVE, BUT NOT DRAINED");
    assert_eq!(ecs.writes(), ["RegisterTaskDefinition api", "UpdateService api -> api:2"]);
    assert_eq!(ecs.runs("api"), format!("{OLD}+{NEW}"));
}

#[test]
fn old_tasks_that_only_sit_out_their_deregistration_delay_are_not_waited_for() {
    let delay = Duration::from_mins(4);
    let ecs = ecs([service("api").running(OLD).deregistration_delay(delay)]);
    let run = gehen_yml(&ecs, "", &["api"]).deploy(NEW);
    run.exits(0).ends("api", &format!("DEPLOYED {NEW}"));
    run.says("; old tasks are out of reach and still ending, for the load balancer's deregistration delay");
    assert!(run.took < delay, "{:?}", run.took);
    assert_eq!(ecs.writes(), ["RegisterTaskDefinition api", "UpdateService api -> api:2"]);
    assert_eq!(ecs.runs("api"), NEW);
    assert_eq!(ecs.view(|view| view.rollout_of("api")), "IN_PROGRESS");
}

#[test]
fn a_service_that_did_not_drain_goes_back_too_when_a_later_one_fails() {
    // The new version fails container health checks, and api has none.
    let ecs = ecs([service("api").running(OLD).without_health_check(), service("web").running(OLD)]);
    ecs.version(NEW, Behaviour::FailsContainerHealthCheck);
    ecs.protect_tasks("api");
    let run = gehen_yml(&ecs, ENOUGH, &["api", "web"]).deploy(NEW);
    run.exits(1)
        .says("live, but not drained")
        .ends("api", &format!("ROLLED BACK to api:1 ({OLD})"))
        .ends("web", &format!("ROLLED BACK to web:1 ({OLD})"));
    let mut rollbacks = ecs.writes().split_off(4);
    rollbacks.sort();
    assert_eq!(rollbacks, ["UpdateService api -> api:1", "UpdateService web -> web:1"]);
    assert_eq!((ecs.runs("api"), ecs.runs("web")), (OLD.into(), OLD.into()));
}

#[test]
fn a_version_whose_tasks_begin_to_fail_while_the_old_one_drains_is_rolled_back() {
    let ecs = ecs([service("api").running(OLD)]);
    ecs.protect_tasks("api");
    let gehen = gehen_yml(&ecs, ENOUGH, &["api"]);
    let run = gehen.start(&["-gitsha", NEW]).until_it_says("drain check: ");
    ecs.version(NEW, Behaviour::CrashesOnStart { exit_code: 7 });
    ecs.interrupt_tasks("api", StopCode::SpotInterruption);
    let run = run.wait();
    run.exits(1)
        .says("deploy check passed")
        .ends("api", &format!("ROLLED BACK to api:1 ({OLD})"))
        .says("did not stay live")
        .says("exited with 7");
    assert_eq!(
        ecs.writes(),
        ["RegisterTaskDefinition api", "UpdateService api -> api:2", "UpdateService api -> api:1"]
    );
    assert_eq!(ecs.runs("api"), OLD);
}

#[test]
fn a_version_that_begins_to_answer_with_errors_while_the_old_one_drains_is_rolled_back() {
    let ecs = ecs([service("api").running(OLD)]);
    ecs.protect_tasks("api");
    let gehen = gehen_yml(&ecs, ENOUGH, &["api"]);
    let run = gehen.start(&["-gitsha", NEW]).until_it_says("drain check: ");
    for version in [OLD, NEW] {
        ecs.version(version, Behaviour::Answers { status: 500, headers: Vec::new(), body: String::new() });
    }
    let run = run.until_it_says("rolling back");
    ecs.version(OLD, Behaviour::Healthy);
    run.wait().exits(1).says("answers 500").ends("api", &format!("ROLLED BACK to api:1 ({OLD})"));
    assert_eq!(
        ecs.writes(),
        ["RegisterTaskDefinition api", "UpdateService api -> api:2", "UpdateService api -> api:1"]
    );
    assert_eq!(ecs.runs("api"), OLD);
}
