//! The README's section "When things go wrong": one story for each row of its table, named after the row.

use std::time::Duration;

use local_ecs::{Behaviour, Fault, LocalEcs, Settings, ecr_image, rule, service};

use crate::support::{Gehen, NEW, OLD, Run, SHORT, colleague_deploys, ecs, ecs_with, gehen_file, gehen_yml};

/// What a deploy of `api` writes that goes back.
const UNDONE: [&str; 3] = ["RegisterTaskDefinition api", "UpdateService api -> api:2", "UpdateService api -> api:1"];
/// A deploy that is given up at its failed tasks ends long before a check of five minutes would.
const LONG_BEFORE: Duration = Duration::from_mins(2);

/// An ECS with one service, and the version to deploy behaving like this.
fn one_service(behaviour: Behaviour) -> LocalEcs {
    let ecs = ecs([service("api").running(OLD)]);
    ecs.version(NEW, behaviour);
    ecs
}

/// Asserts that `api` went back to the old version, by the words and in truth.
#[track_caller]
fn assert_rolled_back(ecs: &LocalEcs, run: &Run) {
    run.ends("api", &format!("ROLLED BACK to api:1 ({OLD})")).says("proven live again");
    assert_eq!(ecs.writes(), UNDONE);
    assert_eq!(ecs.runs("api"), OLD);
}

#[test]
fn the_image_is_not_in_amazon_ecr() {
    let ecs = ecs([service("api").running(OLD).in_ecr("us-east-1", "api")]);
    let run = gehen_yml(&ecs, "", &["api"]).deploy(NEW);
    let image = ecr_image("123456789012", "us-east-1", "api", NEW);
    run.exits(1).says(&format!("error: service `api`: there is no image {image} for container `api`"));
    assert_eq!(run.stderr.lines().last(), Some("nothing has been changed"));
    assert_eq!(ecs.writes(), [] as [&str; 0]);
}

#[test]
fn a_new_task_cannot_find_its_image() {
    let ecs = one_service(Behaviour::ImageMissing);
    let run = gehen_yml(&ecs, "", &["api"]).deploy(NEW);
    run.exits(1).says("the image of a new task can't be found").says("CannotPullContainerError");
    assert_rolled_back(&ecs, &run);
    assert!(run.took < LONG_BEFORE, "{:?}", run.took);
}

#[test]
fn new_tasks_crash_or_fail_their_health_checks() {
    for (behaviour, reason) in [
        (Behaviour::CrashesOnStart { exit_code: 3 }, "container `api` exited with 3"),
        (Behaviour::FailsContainerHealthCheck, "Task failed container health checks"),
        (Behaviour::FailsLoadBalancerHealthCheck, "Task failed ELB health checks"),
    ] {
        let ecs = one_service(behaviour);
        let run = gehen_yml(&ecs, "", &["api"]).deploy(NEW);
        run.exits(1).says("new tasks failed one after another").says(reason);
        assert_rolled_back(&ecs, &run);
        assert!(run.took < LONG_BEFORE, "{:?}", run.took);
    }
}

#[test]
fn there_is_no_room_for_new_tasks() {
    let ecs = one_service(Behaviour::NoCapacity);
    let run = gehen_yml(&ecs, SHORT, &["api"]).deploy(NEW);
    run.exits(1).says("api: ECS says: (service api) was unable to place a task");
    assert_rolled_back(&ecs, &run);
}

#[test]
fn the_url_does_not_show_the_new_version_in_time() {
    let ecs = one_service(Behaviour::Answers { status: 200, headers: Vec::new(), body: String::new() });
    let run = gehen_yml(&ecs, SHORT, &["api"]).deploy(NEW);
    run.exits(1).says(&format!("did not show {NEW} within 6 s")).says("the url shows no version");
    assert_rolled_back(&ecs, &run);
}

#[test]
fn a_service_fails_after_others_were_deployed() {
    let ecs = ecs([service("api").running(OLD).without_health_check(), service("web").running(OLD)]);
    // api has no container health check to fail.
    ecs.version(NEW, Behaviour::FailsContainerHealthCheck);
    let run = gehen_yml(&ecs, "", &["api", "web"]).deploy(NEW);
    run.exits(1).ends("api", "ROLLED BACK").ends("web", "ROLLED BACK").says("api: why: service `web` failed");
    assert_eq!((ecs.runs("api"), ecs.runs("web")), (OLD.into(), OLD.into()));
}

#[test]
fn ecs_rolls_back_by_itself() {
    let ecs = ecs([service("api").running(OLD).circuit_breaker(true)]);
    ecs.version(NEW, Behaviour::CrashesOnStart { exit_code: 1 });
    // gehen would give up at the same moment; while it can't look at the tasks, the circuit breaker is first.
    ecs.fault(Fault::on("ListTasks").throttled().always());
    let run = gehen_yml(&ecs, "timeoutMinutes: 1", &["api"]).deploy(NEW);
    run.exits(1).says("ECS rolls back to api:1 by itself").ends("api", &format!("ROLLED BACK to api:1 ({OLD})"));
    assert_eq!(ecs.writes(), UNDONE[..2]);
    assert_eq!(ecs.runs("api"), OLD);
}

#[test]
fn a_blue_green_deployment_fails_before_its_bake_time_is_over() {
    let settings = Settings { bake_minute: Duration::from_mins(1), ..Settings::fast() };
    let ecs = ecs_with(settings, [service("api").running(OLD).blue_green(1)]);
    let gehen = gehen_yml(&ecs, "timeoutMinutes: 1", &["api"]);
    let run = gehen.start(&["-gitsha", NEW]).until_it_says("at stage BAKE_TIME");
    ecs.version(NEW, Behaviour::CrashesOnStart { exit_code: 1 });
    ecs.crash_tasks("api", 2, 1);
    let run = run.wait();
    run.exits(1).ends("api", &format!("ROLLED BACK to api:1 ({OLD})"));
    assert_eq!(ecs.writes()[2..], ["StopServiceDeployment api"]);
    assert_eq!(ecs.runs("api"), OLD);
}

#[test]
fn somebody_else_deploys_the_service_meanwhile() {
    let ecs = ecs([service("api").running(OLD), service("web").running(OLD)]);
    ecs.version(NEW, Behaviour::NeverStarts);
    let gehen = gehen_yml(&ecs, "", &["api", "web"]);
    let run = gehen.start(&["-gitsha", NEW]).until_it_says("updated to api:2");
    colleague_deploys(&ecs, "api");
    let run = run.wait();
    run.exits(1).ends("api", "LEFT ALONE").ends("web", "NOT TOUCHED").says("somebody else deployed api:3 meanwhile");
    assert_eq!(ecs.writes(), UNDONE[..2]);
}

#[test]
fn the_job_is_cancelled() {
    let ecs = one_service(Behaviour::NeverStarts);
    let gehen = gehen_yml(&ecs, "", &["api"]);
    let run = gehen.start(&["-gitsha", NEW]).until_it_says("updated to api:2");
    let killed = std::process::Command::new("kill").args(["-s", "TERM", &run.child.id().to_string()]).status();
    assert!(killed.expect("kill can be started").success());
    let run = run.wait();
    run.exits(1).ends("api", "ROLLBACK REQUESTED").says("the run was cancelled by SIGTERM");
    assert_eq!(ecs.writes(), UNDONE);
}

#[test]
fn the_run_before_was_killed_halfway() {
    let ecs = one_service(Behaviour::NeverStarts);
    let gehen = gehen_yml(&ecs, "", &["api"]);
    let mut killed = gehen.start(&["-gitsha", NEW]).until_it_says("updated to api:2");
    killed.child.kill().expect("the run can be killed");
    killed.wait();
    ecs.version("bad0000", Behaviour::CrashesOnStart { exit_code: 1 });
    let run = gehen.deploy("bad0000");
    run.exits(1).says(&format!("if this run fails, the service returns to api:1 ({OLD}), which has"));
    run.ends("api", &format!("ROLLED BACK to api:1 ({OLD})"));
    assert_eq!(ecs.runs("api"), OLD);
}

#[test]
fn there_is_nothing_to_return_to() {
    // The very revision that runs is deployed anew, and begins to crash.
    let ecs = ecs([service("api").running(NEW)]);
    let gehen = gehen_yml(&ecs, "", &["api"]);
    ecs.version(NEW, Behaviour::CrashesOnStart { exit_code: 1 });
    let run = gehen.deploy(NEW);
    run.exits(1).says("warning: there is nothing to return to if this run fails").never_says("rolling back");
    run.says("WITH NOTHING TO RETURN TO").says("to deploy another revision, name it in: aws ecs update-service");
    assert_eq!(ecs.writes(), ["UpdateService api -> api:1"]);
}

#[test]
fn the_revision_to_return_to_has_been_deregistered() {
    let ecs = one_service(Behaviour::CrashesOnStart { exit_code: 1 });
    ecs.deregister("api:1");
    let run = gehen_yml(&ecs, "", &["api"]).deploy(NEW);
    run.exits(1).ends("api", &format!("ROLLED BACK to api:3, a copy of api:1 ({OLD})"));
    assert_eq!(ecs.runs("api"), OLD);
}

#[test]
fn the_rollback_fails_too() {
    let ecs = one_service(Behaviour::CrashesOnStart { exit_code: 1 });
    ecs.fault(Fault::on("UpdateService").denied().after(1).always());
    let run = gehen_yml(&ecs, "", &["api"]).deploy(NEW);
    run.exits(1).says(&format!("AND THE ROLLBACK to api:1 ({OLD}) FAILED TOO: UpdateService: AccessDenied"));
    run.says("api: to go back by hand: aws ecs update-service ");
}

#[test]
fn old_tasks_do_not_go_away_in_time() {
    let ecs = one_service(Behaviour::Healthy);
    ecs.protect_tasks("api");
    let run = gehen_yml(&ecs, "timeoutMinutes: 0.1", &["api"]).deploy(NEW);
    run.exits(2).ends("api", "LIVE, BUT NOT DRAINED").says("old tasks remain: ");
    assert_eq!(ecs.writes(), UNDONE[..2]);
}

#[test]
fn aws_stumbles_for_a_while() {
    let ecs = one_service(Behaviour::Healthy);
    ecs.fault(Fault::on_any().throttled().times(3));
    ecs.fault(Fault::on_any().server_error().times(3));
    ecs.fault(Fault::on_any().reset_before().times(3));
    let run = gehen_yml(&ecs, "", &["api"]).deploy(NEW);
    run.exits(0).ends("api", &format!("DEPLOYED {NEW}"));
    assert_eq!(ecs.runs("api"), NEW);
}

#[test]
fn the_answer_of_an_update_is_lost() {
    let ecs = one_service(Behaviour::Healthy);
    ecs.fault(Fault::on("UpdateService").reset_after());
    let run = gehen_yml(&ecs, "", &["api"]).deploy(NEW);
    run.exits(0).says("looking whether it happened").ends("api", &format!("DEPLOYED {NEW}"));
    assert_eq!(ecs.writes(), UNDONE[..2]);
}

#[test]
fn ecs_stays_away_until_the_deadline() {
    let ecs = one_service(Behaviour::NeverStarts);
    let gehen = gehen_yml(&ecs, "timeoutMinutes: 0.1", &["api"]);
    let run = gehen.start(&["-gitsha", NEW]).until_it_says("2 pending");
    ecs.fault(Fault::on_any().server_error().for_the_next(Duration::from_secs(10)));
    let run = run.wait();
    run.exits(1).says(" ago ECS showed: 0 of 2 tasks run api:2, 2 pending");
    assert_rolled_back(&ecs, &run);
}

#[test]
fn a_permission_is_missing() {
    let ecs = one_service(Behaviour::Healthy);
    ecs.fault(Fault::on("DescribeTaskDefinition").denied().always());
    let run = gehen_yml(&ecs, "", &["api"]).deploy(NEW);
    run.exits(1).says("hint: the role needs ecs:DescribeTaskDefinition");
    assert_eq!(run.stderr.lines().last(), Some("nothing has been changed"));
    assert_eq!(ecs.writes(), [] as [&str; 0]);
}

#[test]
fn a_service_cannot_be_deployed() {
    let ecs = ecs([service("api").running(OLD), service("blue").running(OLD).controller("CODE_DEPLOY")]);
    let cluster = ecs.cluster_arn("api");
    let file = format!(
        "services: {{api: {{cluster: \"{cluster}\"}}, blue: {{cluster: \"{cluster}\"}}, gone: {{cluster: \"{cluster}\"}}}}\n"
    );
    let run = gehen_file(&ecs, &file).deploy(NEW);
    run.exits(1).says("there is no service `gone`").says("the service's deployment controller is CODE_DEPLOY");
    assert_eq!(run.stderr.lines().last(), Some("nothing has been changed"));
    assert_eq!(ecs.writes(), [] as [&str; 0]);
}

#[test]
fn the_desired_count_is_0() {
    let ecs = ecs([service("api").running(OLD).desired(0)]);
    let run = gehen_yml(&ecs, "", &["api"]).deploy(NEW);
    run.exits(0).says("the desired count is 0, so there is nothing to verify").ends("api", &format!("DEPLOYED {NEW}"));
    assert_eq!(ecs.writes(), UNDONE[..2]);
}

/// An ECS with a service and two rules, and the gehen.yml with all of them.
fn a_service_and_two_rules() -> (LocalEcs, Gehen) {
    let ecs = one_service(Behaviour::Healthy);
    ecs.schedule(rule("hourly").task("clean", OLD));
    ecs.schedule(rule("nightly").task("report", OLD));
    let gehen = gehen_yml(&ecs, "scheduledTasks: {hourly: , nightly: }", &["api"]);
    (ecs, gehen)
}

#[test]
fn a_scheduled_task_cannot_be_updated() {
    let (ecs, gehen) = a_service_and_two_rules();
    ecs.fault(Fault::on("PutTargets").about("nightly").denied().always());
    let run = gehen.deploy(NEW);
    run.exits(1).ends("nightly", "NOT UPDATED").says("(the role needs events:PutTargets)");
    run.ends("hourly", &format!("ROLLED BACK to clean:1 ({OLD})"))
        .ends("api", &format!("ROLLED BACK to api:1 ({OLD})"));
    assert_eq!((ecs.schedules("hourly"), ecs.schedules("nightly")), (vec!["clean:1".into()], vec!["report:1".into()]));
    assert_eq!(ecs.runs("api"), OLD);
}

#[test]
fn somebody_else_changes_a_scheduled_task_meanwhile() {
    let (ecs, gehen) = a_service_and_two_rules();
    let running = gehen.start(&["-gitsha", NEW]).until_it_says("api: updated to api:2");
    let body = serde_json::json!({"Rule": "nightly", "Ids": ["report"]});
    ecs.call("us-east-1", "RemoveTargets", body).expect("the rule can be changed");
    let run = running.wait();
    run.exits(1).ends("nightly", "LEFT ALONE").says("; now runs nothing");
    run.ends("hourly", &format!("DEPLOYED {NEW}")).ends("api", &format!("DEPLOYED {NEW}"));
    assert_eq!((ecs.schedules("nightly").len(), ecs.runs("api")), (0, NEW.into()));
}
