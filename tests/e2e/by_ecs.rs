//! Deployments that ECS itself ends: its circuit breaker, its alarms, and its own way back.

use std::time::Duration;

use local_ecs::{Behaviour, Fault, LocalEcs, Settings, What, service};

use crate::support::{
    LONG, NEW, OLD, Run, SHORT, THEIRS, colleague_deploys, ecs, ecs_with, gehen_yml, gehen_yml_without_urls, kill,
    moments, updates,
};

const CRASHES: Behaviour = Behaviour::CrashesOnStart { exit_code: 7 };
/// All that gehen updates where ECS goes back by itself.
const THERE: [&str; 1] = ["UpdateService api -> api:2"];

/// Keeps gehen from looking at its deployment for so long, from the first look after the update on.
fn looks_late(ecs: &LocalEcs, time: Duration) {
    // Preflight looks once, and there are two looks before the update.
    ecs.fault(Fault::on("DescribeServices").server_error().after(3).for_the_next(time));
}

#[test]
fn a_rollback_of_ecs_that_is_over_before_gehen_looks_is_recognised_by_the_service_deployment() {
    let ecs = ecs([service("api").running(OLD).circuit_breaker(true)]);
    ecs.version(NEW, CRASHES);
    looks_late(&ecs, Duration::from_secs(4));
    let run = gehen_yml(&ecs, "", &["api"]).deploy(NEW);
    run.exits(1)
        .says("ECS rolls back to api:1 by itself")
        .never_says("somebody else")
        .ends("api", &format!("ROLLED BACK to api:1 ({OLD})"));
    let end = run.end_of("api");
    assert!(end.contains("proven live again") && end.contains("circuit breaker: tasks failed to start."), "{end}");
    assert_eq!((updates(&ecs), ecs.runs("api")), (THERE.map(String::from).to_vec(), OLD.into()));
    assert_eq!(moments(&ecs, "api", "api:1", What::Completed).len(), 1);
}

#[test]
fn without_permission_to_ask_it_is_recognised_by_the_previous_task_definition() {
    let ecs = ecs([service("api").running(OLD).circuit_breaker(true)]);
    ecs.version(NEW, CRASHES);
    ecs.fault(Fault::on("DescribeServiceDeployments").denied().always());
    looks_late(&ecs, Duration::from_secs(4));
    let run = gehen_yml(&ecs, "", &["api"]).deploy(NEW);
    run.exits(1)
        .says("the service was put back to api:1 by deployment ecs-svc/")
        .ends("api", &format!("ROLLED BACK to api:1 ({OLD})"));
    assert_eq!((updates(&ecs), ecs.runs("api")), (THERE.map(String::from).to_vec(), OLD.into()));
}

/// A deploy to a service on which somebody's deployment of api:2 is under way when gehen's preflight looks, and
/// completes before gehen's update, so that ECS returns to api:2 while gehen would return to api:1. `late` is what goes
/// wrong after gehen has registered.
fn returns_elsewhere(late: Option<Fault>) -> (LocalEcs, Run) {
    // Long enough for preflight to begin meanwhile, on any machine.
    let settings = Settings { healthy_after: Duration::from_secs(10), ..Settings::fast() };
    let ecs = ecs_with(settings, [service("api").running(OLD).circuit_breaker(true)]);
    ecs.version(NEW, CRASHES);
    let gehen = gehen_yml(&ecs, "", &["api"]);
    ecs.fault(Fault::on("RegisterTaskDefinition").throttled().always());
    colleague_deploys(&ecs, "api");
    let running = gehen.start(&["-gitsha", NEW]);
    assert!(ecs.wait_until(LONG, |view| view.arrived("RegisterTaskDefinition") > 0));
    assert!(ecs.wait_until(LONG, |view| view.rollout_of("api") == "COMPLETED"));
    ecs.settings_mut(|settings| settings.healthy_after = Settings::fast().healthy_after);
    if let Some(late) = late {
        ecs.fault(late);
    }
    ecs.clear_fault("RegisterTaskDefinition");
    (ecs, running.wait())
}

#[test]
fn ecs_may_return_to_another_task_definition_than_gehen_would() {
    let (ecs, run) = returns_elsewhere(None);
    run.exits(1).says("if this run fails, the service returns to api:1").says("ECS rolls back to api:2 by itself");
    run.ends("api", &format!("ROLLED BACK to api:2 ({THEIRS})"));
    assert_eq!((updates(&ecs), ecs.runs("api")), (vec!["UpdateService api -> api:3".into()], THEIRS.into()));
}

#[test]
fn ecs_may_return_to_another_task_definition_and_be_done_before_gehen_looks() {
    // Of the looks before the update, one is still to come.
    let looks_fail = Fault::on("DescribeServices").server_error().after(1).for_the_next(Duration::from_secs(5));
    let (ecs, run) = returns_elsewhere(Some(looks_fail));
    run.exits(1).never_says("somebody else").ends("api", &format!("ROLLED BACK to api:2 ({THEIRS})"));
    assert_eq!((updates(&ecs), ecs.runs("api")), (vec!["UpdateService api -> api:3".into()], THEIRS.into()));
}

#[test]
fn the_services_before_it_go_back_too_when_ecs_rolls_one_back() {
    // The new version fails container health checks, and web has none.
    let ecs =
        ecs([service("web").running(OLD).without_health_check(), service("api").running(OLD).circuit_breaker(true)]);
    ecs.version(NEW, Behaviour::FailsContainerHealthCheck);
    ecs.fault(Fault::on("ListTasks").about("api").denied().always());
    let run = gehen_yml(&ecs, "", &["web", "api"]).deploy(NEW);
    run.exits(1)
        .says("api: warning: ECS rolls back to api:1 by itself")
        .ends("api", &format!("ROLLED BACK to api:1 ({OLD})"))
        .ends("web", &format!("ROLLED BACK to web:1 ({OLD})"));
    assert_eq!(
        updates(&ecs),
        ["UpdateService web -> web:2", "UpdateService api -> api:2", "UpdateService web -> web:1"]
    );
}

#[test]
fn a_rollback_of_ecs_that_fails_too_is_told_and_left_to_a_person() {
    let ecs = ecs([service("api").running(OLD).circuit_breaker(true)]);
    ecs.version(NEW, CRASHES);
    ecs.version(OLD, Behaviour::ImageMissing);
    looks_late(&ecs, Duration::from_millis(800));
    let run = gehen_yml(&ecs, "", &["api"]).deploy(NEW);
    run.exits(1).says("ECS rolls back to api:1 by itself").ends("api", "FAILED after ");
    let end = run.end_of("api");
    // Which of them gehen sees first is a matter of timing.
    let whys = ["the image of a new task can't be found", "ECS ended the deployment: ECS deployment circuit breaker"];
    assert!(whys.iter().any(|why| end.contains(&format!("FAILED TOO: {why}"))), "{end}");
    assert!(end.contains("CannotPullContainerError: "), "{end}");
    assert!(end.contains("to go back by hand: "), "{end}");
    assert_eq!(updates(&ecs), THERE);
}

#[test]
fn a_run_that_is_cancelled_while_ecs_rolls_back_updates_nothing() {
    // ECS's rollback goes on for as long as this story takes.
    let settings = Settings { healthy_after: 2 * LONG, ..Settings::fast() };
    let ecs = ecs_with(settings, [service("api").running(OLD).circuit_breaker(true)]);
    ecs.version(NEW, CRASHES);
    looks_late(&ecs, Duration::from_secs(1));
    let running = gehen_yml(&ecs, "", &["api"]).start(&["-gitsha", NEW]).until_it_says("updated to api:2");
    assert!(ecs.wait_until(LONG, |view| view.task_definition_of("api") == "api:1"));
    kill("TERM", running.child.id());
    let run = running.wait();
    run.exits(1).ends("api", "ROLLBACK REQUESTED");
    assert_eq!(updates(&ecs), THERE);
}

#[test]
fn with_alarms_a_deploy_is_done_when_ecs_says_completed() {
    let settings = Settings { alarm_bake: Duration::from_millis(1500), ..Settings::fast() };
    for rollback in [true, false] {
        let ecs = ecs_with(settings.clone(), [service("api").running(OLD).alarms(rollback)]);
        let run = gehen_yml(&ecs, "", &["api"]).deploy(NEW);
        run.exits(0).ends("api", &format!("DEPLOYED {NEW}"));
        assert_eq!(moments(&ecs, "api", "api:2", What::Completed).len(), 1);
        assert_eq!((updates(&ecs), ecs.runs("api")), (THERE.map(String::from).to_vec(), NEW.into()));
    }
}

#[test]
fn alarms_that_ecs_watches_for_longer_than_the_timeout_leave_the_new_version_live() {
    let settings = Settings { alarm_bake: Duration::from_mins(5), ..Settings::fast() };
    let ecs = ecs_with(settings, [service("api").running(OLD).alarms(true)]);
    let run = gehen_yml(&ecs, SHORT, &["api"]).deploy(NEW);
    run.exits(2).ends("api", "LIVE, BUT NOT DRAINED");
    let end = run.end_of("api");
    assert!(end.contains("ECS has not said COMPLETED (until then its alarms can end the deployment)"), "{end}");
    run.says("waiting until ECS says COMPLETED: until then its alarms can end the deployment");
    assert_eq!((updates(&ecs), ecs.runs("api")), (THERE.map(String::from).to_vec(), NEW.into()));
}

#[test]
fn an_alarm_that_rings_after_the_deploy_check_has_ecs_roll_back_by_itself() {
    let settings = Settings { alarm_bake: Duration::from_mins(5), ..Settings::fast() };
    let ecs = ecs_with(settings, [service("api").running(OLD).alarms(true)]);
    let running =
        gehen_yml(&ecs, "", &["api"]).start(&["-gitsha", NEW]).until_it_says("waiting until ECS says COMPLETED");
    ecs.set_alarm("api");
    let run = running.wait();
    run.exits(1).says("ECS rolls back to api:1 by itself").ends("api", &format!("ROLLED BACK to api:1 ({OLD})"));
    let end = run.end_of("api");
    assert!(end.contains("ECS deployment alarms: alarm detected."), "{end}");
    assert_eq!((updates(&ecs), ecs.runs("api")), (THERE.map(String::from).to_vec(), OLD.into()));
}

#[test]
fn an_alarm_that_only_fails_the_deployment_has_gehen_roll_back() {
    let settings = Settings { alarm_bake: Duration::from_mins(5), ..Settings::fast() };
    let ecs = ecs_with(settings, [service("api").running(OLD).alarms(false)]);
    let running =
        gehen_yml_without_urls(&ecs, "", &["api"]).start(&["-gitsha", NEW]).until_it_says("deploy check passed");
    ecs.settings_mut(|settings| settings.alarm_bake = Duration::from_secs(1));
    ecs.set_alarm("api");
    let run = running.wait();
    run.exits(1).ends("api", &format!("ROLLED BACK to api:1 ({OLD})"));
    let end = run.end_of("api");
    assert!(end.contains("ECS ended the deployment: ECS deployment alarms: alarm detected."), "{end}");
    assert_eq!(updates(&ecs), [THERE[0], "UpdateService api -> api:1"]);
    assert_eq!(ecs.runs("api"), OLD);
}

#[test]
fn a_colleague_who_deploys_over_the_rollback_of_ecs_is_left_alone() {
    let settings = Settings { healthy_after: Duration::from_secs(3), ..Settings::fast() };
    let ecs = ecs_with(settings, [service("api").running(OLD).circuit_breaker(true)]);
    ecs.version(NEW, CRASHES);
    ecs.fault(Fault::on("ListTasks").denied().always());
    ecs.protect_tasks("api");
    ecs.version(OLD, Behaviour::NeverStarts);
    let running =
        gehen_yml(&ecs, "", &["api"]).start(&["-gitsha", NEW]).until_it_says("ECS rolls back to api:1 by itself");
    colleague_deploys(&ecs, "api");
    let run = running.wait();
    run.exits(1).ends("api", "FAILED after ").says("left alone: somebody else deployed api:3 meanwhile");
    assert_eq!((updates(&ecs), ecs.task_definition_of("api")), (THERE.map(String::from).to_vec(), "api:3".into()));
}
