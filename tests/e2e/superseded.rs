//! Services that somebody else deploys while gehen is at it: left alone, and told.

use std::time::Duration;

use local_ecs::{Behaviour, Fault, LocalEcs, Settings, service};
use serde_json::json;

use crate::support::{
    LONG, NEW, OLD, Run, THEIRS, colleague_deploys, ecs, ecs_with, gehen_yml, gehen_yml_without_urls, kill, updates,
};

/// Asserts that the run ended with 1 and updated exactly this, and that a colleague's version comes to run on
/// `service`.
#[track_caller]
fn assert_left_alone(ecs: &LocalEcs, run: &Run, service: &str, updated: &[&str]) {
    run.exits(1);
    assert_eq!(updates(ecs), updated, "{}", run.stderr);
    assert!(ecs.wait_until(LONG, |view| view.runs(service) == THEIRS), "{} runs\n{}", ecs.runs(service), run.stderr);
}

/// Somebody has the service deploy a task definition that exists.
fn redeploy(ecs: &LocalEcs, service: &str, task_definition: &str) {
    let update = json!({"cluster": "staging", "service": service, "taskDefinition": task_definition, "forceNewDeployment": true});
    ecs.call("us-east-1", "UpdateService", update).expect("the service can be updated");
}

#[test]
fn a_service_that_somebody_deploys_before_its_turn_is_not_touched() {
    let ecs = ecs([service("api").running(OLD), service("web").running(OLD), service("worker").running(OLD)]);
    let running =
        gehen_yml(&ecs, "", &["api", "web", "worker"]).start(&["-gitsha", NEW]).until_it_says("api: updated to api:2");
    colleague_deploys(&ecs, "web");
    let run = running.wait();
    assert_left_alone(&ecs, &run, "web", &["UpdateService api -> api:2"]);
    run.ends("api", &format!("DEPLOYED {NEW}")).ends("web", "LEFT ALONE after ").ends("worker", "NOT TOUCHED");
    run.says("web: error: somebody else deployed web:2 (ecs-svc/");
    assert!(!ecs.writes().iter().any(|write| write == "RegisterTaskDefinition web"), "nothing of it was begun");
    assert_eq!((ecs.runs("api"), ecs.runs("worker")), (NEW.into(), OLD.into()));
}

#[test]
fn a_service_that_somebody_deploys_while_the_old_version_drains_is_left_alone() {
    for gehen in [gehen_yml, gehen_yml_without_urls] {
        let ecs = ecs([service("api").running(OLD), service("worker").running(OLD)]);
        ecs.protect_tasks("api");
        let running = gehen(&ecs, "", &["api", "worker"]).start(&["-gitsha", NEW]).until_it_says("drain check: ");
        colleague_deploys(&ecs, "api");
        ecs.unprotect_tasks("api");
        let run = running.wait();
        assert_left_alone(&ecs, &run, "api", &["UpdateService api -> api:2"]);
        run.ends("api", "LEFT ALONE after ").ends("worker", "NOT TOUCHED");
        run.says("somebody else deployed api:3 meanwhile; ");
    }
}

#[test]
fn a_service_whose_deployment_of_ours_somebody_starts_anew_is_left_alone() {
    let settings = Settings { healthy_after: Duration::from_secs(1), ..Settings::fast() };
    let ecs = ecs_with(settings, [service("api").running(OLD), service("worker").running(OLD)]);
    let running = gehen_yml(&ecs, "", &["api", "worker"]).start(&["-gitsha", NEW]).until_it_says("updated to api:2");
    redeploy(&ecs, "api", "api:2");
    let run = running.wait();
    run.exits(1).ends("api", "LEFT ALONE after ").ends("worker", "NOT TOUCHED");
    run.says("somebody else deployed api:2 meanwhile; ");
    assert_eq!(updates(&ecs), ["UpdateService api -> api:2"]);
    assert!(ecs.wait_until(LONG, |view| view.is_steady("api") && view.runs("api") == NEW));
}

#[test]
fn a_service_that_somebody_puts_back_is_not_updated_again() {
    let ecs = ecs([service("api").running(OLD)]);
    ecs.version(NEW, Behaviour::NeverStarts);
    let running = gehen_yml(&ecs, "", &["api"]).start(&["-gitsha", NEW]).until_it_says("updated to api:2");
    redeploy(&ecs, "api", "api:1");
    let run = running.wait();
    run.exits(1);
    assert_eq!(updates(&ecs), ["UpdateService api -> api:2"], "{}", run.stderr);
    assert!(ecs.wait_until(LONG, |view| view.is_steady("api") && view.runs("api") == OLD));
}

#[test]
fn a_service_that_somebody_puts_back_leaves_the_proven_ones_as_they_are() {
    // The new version fails container health checks, and web has none.
    let settings = Settings { unhealthy_after: Duration::from_secs(30), ..Settings::fast() };
    let ecs = ecs_with(settings, [service("web").running(OLD).without_health_check(), service("api").running(OLD)]);
    ecs.version(NEW, Behaviour::FailsContainerHealthCheck);
    let gehen = gehen_yml(&ecs, "", &["web", "api"]);
    let running = gehen.start(&["-gitsha", NEW]).until_it_says("updated to api:2");
    redeploy(&ecs, "api", "api:1");
    let run = running.wait();
    run.exits(1).ends("web", &format!("DEPLOYED {NEW}")).ends("api", "LEFT ALONE");
    run.says("somebody else deployed api:1 meanwhile");
    assert_eq!(updates(&ecs), ["UpdateService web -> web:2", "UpdateService api -> api:2"], "{}", run.stderr);
    assert!(ecs.wait_until(LONG, |view| view.runs("api") == OLD && view.runs("web") == NEW));
}

#[test]
fn a_proven_service_that_somebody_deploys_is_left_alone_when_a_later_one_fails() {
    // The new version fails container health checks, and api has none.
    let settings = Settings { unhealthy_after: Duration::from_secs(4), ..Settings::fast() };
    let ecs = ecs_with(settings, [service("api").running(OLD).without_health_check(), service("web").running(OLD)]);
    ecs.version(NEW, Behaviour::FailsContainerHealthCheck);
    let running = gehen_yml(&ecs, "", &["api", "web"]).start(&["-gitsha", NEW]).until_it_says("updated to web:2");
    colleague_deploys(&ecs, "api");
    let run = running.wait();
    let written = ["UpdateService api -> api:2", "UpdateService web -> web:2", "UpdateService web -> web:1"];
    assert_left_alone(&ecs, &run, "api", &written);
    run.ends("web", &format!("ROLLED BACK to web:1 ({OLD})"));
    let end = run.end_of("api");
    assert!(end.contains("left alone: somebody else deployed api:3 meanwhile; "), "{end}");
    assert!(end.contains("why: service `web` failed"), "{end}");
}

#[test]
fn a_service_that_ecs_gave_up_and_somebody_deployed_since_is_left_alone() {
    let ecs = ecs([service("api").running(OLD).circuit_breaker(false)]);
    ecs.version(NEW, Behaviour::CrashesOnStart { exit_code: 7 });
    // Preflight looks once, and there are two looks before the update.
    ecs.fault(Fault::on("DescribeServices").server_error().after(3).for_the_next(Duration::from_secs(8)));
    let gehen = gehen_yml(&ecs, "", &["api"]);
    let running = gehen.start(&["-gitsha", NEW]);
    assert!(ecs.wait_until(LONG, |view| view.rollout_of("api") == "FAILED"));
    colleague_deploys(&ecs, "api");
    let run = running.wait();
    assert_left_alone(&ecs, &run, "api", &["UpdateService api -> api:2"]);
    run.ends("api", "LEFT ALONE after ").says("somebody else deployed api:3 meanwhile");
}

#[test]
fn a_cancelled_run_leaves_alone_what_somebody_deployed_a_moment_before() {
    let ecs = ecs([service("api").running(OLD)]);
    ecs.version(NEW, Behaviour::NeverStarts);
    let running = gehen_yml(&ecs, "", &["api"]).start(&["-gitsha", NEW]).until_it_says("updated to api:2");
    // No look shows the colleague's deployment before the signal has come.
    ecs.fault(Fault::on("DescribeServices").throttled().always());
    colleague_deploys(&ecs, "api");
    kill("TERM", running.child.id());
    let running = running.until_it_says("cancelled by SIGTERM");
    ecs.clear_fault("DescribeServices");
    let run = running.wait();
    assert_left_alone(&ecs, &run, "api", &["UpdateService api -> api:2"]);
    run.says("left alone").says("somebody else deployed api:3 meanwhile");
}

#[test]
fn an_update_that_did_not_happen_is_not_repeated_over_somebody_elses() {
    let ecs = ecs([service("api").running(OLD)]);
    ecs.fault(Fault::on("UpdateService").reset_before());
    let running = gehen_yml(&ecs, "", &["api"]).start(&["-gitsha", NEW]).until_it_says("looking whether it happened");
    colleague_deploys(&ecs, "api");
    let run = running.wait();
    assert_left_alone(&ecs, &run, "api", &[]);
    run.ends("api", "LEFT ALONE after ").says("somebody else deployed api:3 meanwhile");
}

#[test]
fn an_update_whose_answer_was_lost_and_that_somebody_replaced_is_left_alone() {
    let ecs = ecs([service("api").running(OLD)]);
    ecs.fault(Fault::on("UpdateService").reset_after());
    let running = gehen_yml(&ecs, "", &["api"]).start(&["-gitsha", NEW]).until_it_says("looking whether it happened");
    colleague_deploys(&ecs, "api");
    let run = running.wait();
    assert_left_alone(&ecs, &run, "api", &["UpdateService api -> api:2"]);
    run.ends("api", "LEFT ALONE after ").says("somebody else deployed api:3 meanwhile");
}

/// A service of which a deployment that was displaced stays listed for half a minute: gehen can only tell of one that a
/// look shows.
fn slow_to_drain() -> LocalEcs {
    ecs([service("api").running(OLD).deregistration_delay(Duration::from_secs(30))])
}

/// Deploys while the `nth` update, from 0, arrives at ECS late, so that somebody deploys between it and the look
/// before.
#[track_caller]
fn displaces(ecs: &LocalEcs, nth: u32, after: &str, update: impl Fn(Fault) -> Fault) -> Run {
    ecs.fault(update(Fault::on("UpdateService").after(nth).slow(Duration::from_secs(5))));
    let running = gehen_yml(ecs, "", &["api"]).start(&["-gitsha", NEW]).until_it_says(after);
    assert!(ecs.wait_until(LONG, |view| view.arrived("UpdateService") > nth as usize));
    colleague_deploys(ecs, "api");
    let run = running.wait();
    run.says("api: warning: this update displaced deployment ecs-svc/").says(" of api:3, which somebody else began");
    run
}

#[test]
fn a_deployment_that_the_update_displaced_in_the_gap_is_told() {
    for update in [|fault: Fault| fault, Fault::reset_after] {
        let ecs = slow_to_drain();
        let run = displaces(&ecs, 0, "registered api:2", update);
        run.exits(0).ends("api", &format!("DEPLOYED {NEW}"));
        let end = run.end_of("api");
        assert!(end.contains("\nwarning: this update displaced deployment ecs-svc/"), "{end}");
        assert_eq!((updates(&ecs), ecs.runs("api")), (vec!["UpdateService api -> api:2".into()], NEW.into()));
    }
}

#[test]
fn a_deployment_that_the_rollback_displaced_in_the_gap_is_told() {
    let ecs = slow_to_drain();
    ecs.version(NEW, Behaviour::ImageMissing);
    let run = displaces(&ecs, 1, "rolling back to api:1", |fault| fault);
    run.exits(1).ends("api", &format!("ROLLED BACK to api:1 ({OLD})"));
    assert_eq!(updates(&ecs), ["UpdateService api -> api:2", "UpdateService api -> api:1"]);
}
