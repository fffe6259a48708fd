//! Services that aren't typical: no tasks, DAEMON, lower minimum, Classic Load Balancer, blue/green, linear and canary.

use std::time::{Duration, Instant};

use local_ecs::{Behaviour, Fault, LocalEcs, ServiceBuilder, Settings, StopCode, What, service};
use serde_json::json;

use crate::support::{
    Gehen, LONG, NEW, OLD, Run, Running, SHORT, colleague_deploys, ecs, ecs_with, gehen_yml, gehen_yml_without_urls,
    kill, moments, updates,
};

const CRASHES: Behaviour = Behaviour::CrashesOnStart { exit_code: 7 };
const THERE: [&str; 1] = ["UpdateService api -> api:2"];
const THERE_AND_BACK: [&str; 2] = ["UpdateService api -> api:2", "UpdateService api -> api:1"];
const THERE_AND_STOPPED: [&str; 2] = ["UpdateService api -> api:2", "StopServiceDeployment api"];

/// Settings with which a minute of bake time takes so long.
fn minute(length: Duration) -> Settings {
    Settings { bake_minute: length, ..Settings::fast() }
}

/// A blue/green service that bakes for a minute, of so much time.
fn bakes(length: Duration) -> LocalEcs {
    ecs_with(minute(length), [service("api").running(OLD).blue_green(1)])
}

fn with_url(ecs: &LocalEcs) -> Gehen {
    gehen_yml(ecs, "", &["api"])
}

/// The deploy of a blue/green service in mid-bake.
fn in_mid_bake(ecs: &LocalEcs) -> (Gehen, Running) {
    let gehen = with_url(ecs);
    let running = gehen.start(&["-gitsha", NEW]).until_it_says("at stage BAKE_TIME");
    (gehen, running)
}

/// Has the new version's tasks crash from now on.
fn break_it(ecs: &LocalEcs) {
    ecs.version(NEW, CRASHES);
    ecs.interrupt_tasks("api", StopCode::InfrastructureHealth);
}

/// Asserts that the run deployed, and that it ended after ECS completed the deployment.
#[track_caller]
fn assert_completed(ecs: &LocalEcs, run: &Run, ended: Instant) {
    run.exits(0).ends("api", &format!("DEPLOYED {NEW}"));
    let completed = moments(ecs, "api", "api:2", What::Completed);
    assert!(completed.first().is_some_and(|completed| *completed < ended), "{}", run.stderr);
    assert_eq!((updates(ecs), ecs.runs("api")), (THERE.map(String::from).to_vec(), NEW.into()));
}

#[test]
fn a_service_that_is_scaled_to_nothing_in_mid_check_has_nothing_left_to_verify() {
    for gehen in [gehen_yml, gehen_yml_without_urls] {
        let ecs = ecs([service("api").running(OLD)]);
        ecs.version(NEW, Behaviour::NeverStarts);
        let running = gehen(&ecs, "", &["api"]).start(&["-gitsha", NEW]).until_it_says("updated to api:2");
        let update = json!({"cluster": "staging", "service": "api", "desiredCount": 0});
        ecs.call("us-east-1", "UpdateService", update).expect("the service can be scaled");
        let run = running.wait();
        run.exits(0).says("the desired count is 0, so there is nothing to verify").ends("api", "DEPLOYED");
    }
}

#[test]
fn a_daemon_service_runs_one_task_on_each_instance_and_must_complete() {
    for gehen in [gehen_yml, gehen_yml_without_urls] {
        let settings = Settings { container_instances: 3, ..Settings::fast() };
        let ecs = ecs_with(settings, [service("api").running(OLD).daemon()]);
        let run = gehen(&ecs, "", &["api"]).deploy(NEW);
        assert_completed(&ecs, &run, Instant::now());
        run.says("now run 3 tasks of api:2");
        assert!(ecs.requests().iter().all(|request| request.body.get("desiredCount").is_none()));
    }
}

#[test]
fn a_daemon_service_without_instances_has_nothing_to_verify() {
    let settings = Settings { container_instances: 0, ..Settings::fast() };
    let ecs = ecs_with(settings, [service("api").running(OLD).daemon().without_load_balancer()]);
    let run = gehen_yml_without_urls(&ecs, "", &["api"]).deploy(NEW);
    run.exits(0).says("the desired count is 0, so there is nothing to verify").ends("api", "DEPLOYED");
}

#[test]
fn a_daemon_service_whose_tasks_crash_goes_back() {
    let ecs = ecs([service("api").running(OLD).daemon().without_load_balancer()]);
    ecs.version(NEW, CRASHES);
    let run = gehen_yml_without_urls(&ecs, "", &["api"]).deploy(NEW);
    run.exits(1).ends("api", &format!("ROLLED BACK to api:1 ({OLD})"));
    assert_eq!((updates(&ecs), ecs.runs("api")), (THERE_AND_BACK.map(String::from).to_vec(), OLD.into()));
}

#[test]
fn where_half_of_the_tasks_may_be_missing_tasks_that_run_are_not_taken_for_healthy() {
    // All run and the old ones are gone long before the load balancer finds them unhealthy.
    let stories = [
        (
            ServiceBuilder::behind_load_balancer as fn(ServiceBuilder) -> _,
            gehen_yml_without_urls as fn(&LocalEcs, _, _) -> _,
        ),
        (ServiceBuilder::classic_load_balancer, gehen_yml),
    ];
    for (shape, gehen) in stories {
        let settings = Settings { unhealthy_after: Duration::from_secs(2), ..Settings::fast() };
        let api = service("api").running(OLD).minimum_healthy_percent(0).maximum_percent(100);
        let ecs = ecs_with(settings, [shape(api)]);
        ecs.version(NEW, Behaviour::FailsLoadBalancerHealthCheck);
        let run = gehen(&ecs, "", &["api"]).deploy(NEW);
        run.exits(1).ends("api", &format!("ROLLED BACK to api:1 ({OLD})")).says("Task failed ELB health checks");
        assert_eq!((updates(&ecs), ecs.runs("api")), (THERE_AND_BACK.map(String::from).to_vec(), OLD.into()));
    }
}

#[test]
fn behind_a_classic_load_balancer_somebody_elses_deployment_is_left_alone() {
    let ecs = ecs([service("api").running(OLD).classic_load_balancer()]);
    ecs.version(NEW, Behaviour::NeverStarts);
    let running = with_url(&ecs).start(&["-gitsha", NEW]).until_it_says("updated to api:2");
    colleague_deploys(&ecs, "api");
    let run = running.wait();
    run.exits(1).ends("api", "LEFT ALONE");
    assert_eq!(updates(&ecs), THERE);
}

#[test]
fn a_bake_that_is_longer_than_the_timeout_is_waited_for() {
    for gehen in [gehen_yml, gehen_yml_without_urls] {
        let ecs = bakes(Duration::from_secs(4));
        let run = gehen(&ecs, "timeoutMinutes: 0.05", &["api"]).deploy(NEW);
        assert_completed(&ecs, &run, Instant::now());
        run.says("this is a blue/green deployment: it is done when ECS says COMPLETED");
        run.says("at stage BAKE_TIME");
        assert!(run.took > Duration::from_secs(4), "{:?}", run.took);
    }
}

#[test]
fn linear_and_canary_deployments_are_done_after_their_last_step_and_bake() {
    let shapes = [
        ("linear", service("api").running(OLD).linear(25.0, 1, 2)),
        ("canary", service("api").running(OLD).canary(20.0, 2, 2)),
    ];
    for (name, shape) in shapes {
        let ecs = ecs_with(minute(Duration::from_secs(2)), [shape]);
        let run = gehen_yml(&ecs, SHORT, &["api"]).deploy(NEW);
        assert_completed(&ecs, &run, Instant::now());
        run.says(&format!("this is a {name} deployment")).says(&format!("the {name} deployment is at stage BAKE_TIME"));
        run.says("at stage PRODUCTION_TRAFFIC_SHIFT");
    }
}

#[test]
fn tasks_that_crash_during_the_bake_have_ecs_asked_to_roll_back() {
    let ecs = bakes(Duration::from_mins(1));
    let (_gehen, running) = in_mid_bake(&ecs);
    break_it(&ecs);
    let run = running.wait();
    run.exits(1).ends("api", &format!("ROLLED BACK to api:1 ({OLD})")).says("proven live again").says("exited with 7");
    run.says("ECS rolls back to api:1, as asked; ").never_says("by itself");
    assert_eq!((updates(&ecs), ecs.runs("api")), (THERE_AND_STOPPED.map(String::from).to_vec(), OLD.into()));
}

#[test]
fn an_image_that_is_missing_has_a_blue_green_deployment_stopped_before_any_traffic_moves() {
    let ecs = bakes(Duration::from_mins(1));
    ecs.version(NEW, Behaviour::ImageMissing);
    let run = with_url(&ecs).deploy(NEW);
    run.exits(1).ends("api", &format!("ROLLED BACK to api:1 ({OLD})")).says("can't be found");
    assert_eq!((updates(&ecs), ecs.runs("api")), (THERE_AND_STOPPED.map(String::from).to_vec(), OLD.into()));
    assert!(moments(&ecs, "api", "api:2", What::Proven).is_empty());
}

#[test]
fn where_the_role_may_not_stop_a_deployment_it_is_updated_and_that_is_told() {
    let ecs = bakes(Duration::from_secs(5));
    ecs.fault(Fault::on("StopServiceDeployment").denied().always());
    let (_gehen, running) = in_mid_bake(&ecs);
    break_it(&ecs);
    let run = running.wait();
    run.exits(1).ends("api", &format!("ROLLED BACK to api:1 ({OLD})"));
    run.says("the role needs ecs:StopServiceDeployment").says("updating the service instead");
    assert_eq!((updates(&ecs), ecs.runs("api")), (THERE_AND_BACK.map(String::from).to_vec(), OLD.into()));
}

#[test]
fn a_deployment_that_completed_before_it_could_be_stopped_is_updated() {
    let ecs = bakes(Duration::from_secs(6));
    ecs.fault(Fault::on("StopServiceDeployment").slow(Duration::from_secs(8)));
    let (_gehen, running) = in_mid_bake(&ecs);
    kill("TERM", running.child.id());
    let run = running.wait();
    run.exits(1).ends("api", "ROLLBACK REQUESTED").says("ConflictException").says("updating the service instead");
    assert_eq!(updates(&ecs), THERE_AND_BACK);
}

#[test]
fn a_blue_green_service_that_is_done_is_updated_back_when_a_later_one_fails() {
    // The new version fails container health checks, and api has none.
    let api = service("api").running(OLD).without_health_check().blue_green(1);
    let ecs = ecs([api, service("web").running(OLD)]);
    ecs.version(NEW, Behaviour::FailsContainerHealthCheck);
    let run = gehen_yml(&ecs, "", &["api", "web"]).deploy(NEW);
    run.exits(1).ends("api", &format!("ROLLED BACK to api:1 ({OLD})")).ends("web", "ROLLED BACK to web:1");
    let mut back = updates(&ecs).split_off(2);
    back.sort();
    assert_eq!(back, ["UpdateService api -> api:1", "UpdateService web -> web:1"], "{}", run.stderr);
    run.never_says("on request");
    assert_eq!(ecs.runs("api"), OLD);
}

#[test]
fn a_run_that_is_cancelled_during_the_bake_has_ecs_asked_to_roll_back() {
    let ecs = bakes(Duration::from_mins(1));
    let (_gehen, running) = in_mid_bake(&ecs);
    let since = Instant::now();
    kill("TERM", running.child.id());
    let run = running.wait();
    assert!(since.elapsed() < Duration::from_secs(30), "{:?}", since.elapsed());
    run.exits(1).ends("api", "ROLLBACK REQUESTED").says("ECS is putting api:1 (01d0000) back");
    assert_eq!(updates(&ecs), THERE_AND_STOPPED);
    assert!(ecs.wait_until(LONG, |view| view.is_steady("api") && view.runs("api") == OLD));
}

#[test]
fn without_permission_to_see_its_stages_a_blue_green_deployment_goes_on_and_says_so_once() {
    let ecs = bakes(Duration::from_secs(3));
    ecs.fault(Fault::on("DescribeServiceDeployments").denied().always());
    let run = with_url(&ecs).deploy(NEW);
    assert_completed(&ecs, &run, Instant::now());
    assert_eq!(run.stderr.matches("ecs:DescribeServiceDeployments").count(), 1, "{}", run.stderr);
    let asked = ecs.requests().iter().filter(|request| request.operation == "DescribeServiceDeployments").count();
    assert_eq!(asked, 1, "what is denied is not asked again");
}

#[test]
fn stages_that_cannot_be_asked_for_a_while_are_told_afterwards() {
    let ecs = bakes(Duration::from_secs(4));
    ecs.fault(Fault::on("DescribeServiceDeployments").throttled().times(2));
    let run = with_url(&ecs).deploy(NEW);
    assert_completed(&ecs, &run, Instant::now());
    run.says("at stage BAKE_TIME");
}

#[test]
fn a_lost_answer_to_the_request_to_stop_changes_nothing() {
    let faults = [Fault::reset_after as fn(Fault) -> Fault, Fault::reset_before, Fault::throttled];
    let stories =
        faults.into_iter().flat_map(|fault| [Duration::ZERO, Duration::from_secs(2)].map(|late| (fault, late)));
    let runs = stories.map(|(fault, late)| {
        let ecs = bakes(Duration::from_mins(1));
        ecs.fault(fault(Fault::on("StopServiceDeployment").slow(late)));
        let (gehen, running) = in_mid_bake(&ecs);
        break_it(&ecs);
        (ecs, gehen, running)
    });
    for (ecs, _gehen, running) in runs.collect::<Vec<_>>() {
        let run = running.wait();
        run.exits(1).ends("api", &format!("ROLLED BACK to api:1 ({OLD})")).says("; asking again");
        run.never_says("updating the service");
        assert!(!updates(&ecs).contains(&THERE_AND_BACK[1].to_owned()), "{:?}", updates(&ecs));
        assert_eq!(ecs.runs("api"), OLD);
    }
}

#[test]
fn what_somebody_deploys_while_the_stop_is_refused_is_left_alone() {
    let ecs = bakes(Duration::from_mins(1));
    ecs.fault(Fault::on("StopServiceDeployment").throttled().times(3));
    ecs.fault(Fault::on("StopServiceDeployment").denied().always());
    let (_gehen, running) = in_mid_bake(&ecs);
    break_it(&ecs);
    let running = running.until_it_says("StopServiceDeployment: ");
    colleague_deploys(&ecs, "api");
    let run = running.wait();
    run.exits(1).ends("api", "FAILED after ").says("left alone: somebody else deployed api:3 meanwhile");
    run.never_says("updating the service");
    assert_eq!(updates(&ecs), THERE, "{}", run.stderr);
}

#[test]
fn an_alarm_during_the_bake_has_ecs_roll_back_by_itself() {
    let api = service("api").running(OLD).blue_green(1).alarms(true);
    let ecs = ecs_with(minute(Duration::from_mins(1)), [api]);
    let (_gehen, running) = in_mid_bake(&ecs);
    ecs.set_alarm("api");
    let run = running.wait();
    run.exits(1).says("ECS rolls back to api:1 by itself").ends("api", &format!("ROLLED BACK to api:1 ({OLD})"));
    assert_eq!((updates(&ecs), ecs.runs("api")), (THERE.map(String::from).to_vec(), OLD.into()));
}

#[test]
fn a_blue_green_deployment_that_somebody_stops_is_recognised_as_a_rollback() {
    let ecs = bakes(Duration::from_mins(1));
    let (_gehen, running) = in_mid_bake(&ecs);
    let arn = ecs.view(|view| view.described("api"))["currentServiceDeployment"].clone();
    ecs.call("us-east-1", "StopServiceDeployment", json!({"serviceDeploymentArn": arn})).expect("it can be stopped");
    let run = running.wait();
    run.exits(1).ends("api", &format!("ROLLED BACK to api:1 ({OLD})"));
    assert_eq!((updates(&ecs), ecs.runs("api")), (THERE.map(String::from).to_vec(), OLD.into()));
}

#[test]
fn a_colleague_who_deploys_during_the_bake_is_left_alone() {
    let ecs = bakes(Duration::from_mins(1));
    let (_gehen, running) = in_mid_bake(&ecs);
    colleague_deploys(&ecs, "api");
    let run = running.wait();
    run.exits(1).ends("api", "LEFT ALONE").says("somebody else deployed api:3 meanwhile");
    assert_eq!(updates(&ecs), THERE);
}
