//! Deploys that fail: what goes back, what stays, and what the user is told.

use std::time::Duration;

use local_ecs::{Behaviour, Fault, LocalEcs, Settings, StopCode, service};
use serde_json::json;

use crate::support::{
    AMPLE, LONG, NEW, OLD, Run, SHORT, THEIRS, colleague_deploys, ecs, ecs_with, gehen_file, gehen_yml,
    gehen_yml_without_urls, tries,
};

/// What a deploy of `api` writes that is undone.
const UNDONE: [&str; 3] = ["RegisterTaskDefinition api", "UpdateService api -> api:2", "UpdateService api -> api:1"];

/// Asserts that `run` failed and that `api` went back and was proven.
#[track_caller]
fn assert_rolled_back(ecs: &LocalEcs, run: &Run) {
    run.exits(1).ends("api", &format!("ROLLED BACK to api:1 ({OLD})")).says("proven live again").says("api: why: ");
    assert_eq!(ecs.writes(), UNDONE, "{}", run.stderr);
    assert_eq!(ecs.runs("api"), OLD);
}

/// Deploys a version that behaves like this, of which the checks are to see within `head`'s timeout that it won't do.
#[track_caller]
fn rolls_back(head: &str, behaviour: Behaviour) -> Run {
    let ecs = ecs([service("api").running(OLD)]);
    ecs.version(NEW, behaviour);
    let run = gehen_yml(&ecs, head, &["api"]).deploy(NEW);
    assert_rolled_back(&ecs, &run);
    run
}

#[test]
fn rolls_back_when_the_url_goes_on_naming_the_old_version() {
    let same =
        Behaviour::Answers { status: 200, headers: vec![("Server".into(), format!("api-{OLD}"))], body: String::new() };
    rolls_back(SHORT, same).says(&format!("did not show {NEW} within 6 s; at last: the url shows {OLD}"));
}

#[test]
fn rolls_back_when_the_url_names_no_version() {
    let silent = Behaviour::Answers {
        status: 200,
        headers: vec![("Server".into(), "nginx".into())],
        body: format!("the version is {NEW}"),
    };
    rolls_back(SHORT, silent).says("the url shows no version (Server: nginx)");
}

#[test]
fn rolls_back_when_the_new_tasks_crash_on_start() {
    let run = rolls_back(SHORT, Behaviour::CrashesOnStart { exit_code: 3 });
    let end = run.end_of("api");
    assert!(end.contains("Essential container in task exited; container `api` exited with 3"), "{end}");
}

#[test]
fn rolls_back_when_the_image_is_missing() {
    let run = rolls_back(SHORT, Behaviour::ImageMissing);
    let end = run.end_of("api");
    assert!(end.contains("a new task stopped: CannotPullContainerError") && end.contains("not found"), "{end}");
}

#[test]
fn rolls_back_when_a_secret_cannot_be_read() {
    let run = rolls_back(SHORT, Behaviour::ResourceInitialization);
    let end = run.end_of("api");
    assert!(end.contains("a new task stopped: ResourceInitializationError"), "{end}");
}

#[test]
fn rolls_back_when_the_new_tasks_never_start() {
    let run = rolls_back(SHORT, Behaviour::NeverStarts);
    let end = run.end_of("api");
    assert!(end.contains("2 pending"), "{end}");
}

#[test]
fn rolls_back_when_there_is_no_room_for_new_tasks() {
    let run = rolls_back(SHORT, Behaviour::NoCapacity);
    let end = run.end_of("api");
    assert!(end.contains("was unable to place a task"), "{end}");
}

#[test]
fn rolls_back_when_the_new_version_answers_with_errors() {
    let errors = Behaviour::Answers { status: 500, headers: Vec::new(), body: String::new() };
    rolls_back(SHORT, errors).says("the url answers 500 Internal Server Error");
}

#[test]
fn errors_that_name_the_new_version_prove_nothing() {
    let errors =
        Behaviour::Answers { status: 503, headers: vec![("Server".into(), format!("api-{NEW}"))], body: NEW.into() };
    rolls_back(SHORT, errors).says("the url answers 503 Service Unavailable");
}

#[test]
fn rolls_back_when_the_new_version_never_answers() {
    rolls_back("timeoutMinutes: 0.2", Behaviour::Hangs).says("the url gives no answer within 3 s");
}

#[test]
fn rolls_back_when_the_url_redirects_for_ever() {
    rolls_back(SHORT, Behaviour::RedirectLoop).says("too many redirects");
}

#[test]
fn rolls_back_when_the_load_balancer_finds_the_new_tasks_unhealthy() {
    let run = rolls_back(SHORT, Behaviour::FailsLoadBalancerHealthCheck);
    let end = run.end_of("api");
    assert!(end.contains("Task failed ELB health checks in (target-group "), "{end}");
}

#[test]
fn rolls_back_without_a_url_when_container_health_checks_fail() {
    let ecs = ecs([service("api").running(OLD)]);
    ecs.version(NEW, Behaviour::FailsContainerHealthCheck);
    let run = gehen_yml_without_urls(&ecs, SHORT, &["api"]).deploy(NEW);
    assert_rolled_back(&ecs, &run);
    let end = run.end_of("api");
    assert!(end.contains("Task failed container health checks"), "{end}");
}

#[test]
fn rolls_back_without_a_load_balancer_when_the_new_tasks_crash() {
    let ecs = ecs([service("api").running(OLD).without_load_balancer()]);
    ecs.version(NEW, Behaviour::CrashesOnStart { exit_code: 1 });
    let run = gehen_yml_without_urls(&ecs, SHORT, &["api"]).deploy(NEW);
    assert_rolled_back(&ecs, &run);
}

#[test]
fn rolls_back_when_reads_lag_behind_the_updates() {
    let lagging = Settings { stale_reads: Duration::from_secs(2), ..Settings::fast() };
    let ecs = ecs_with(lagging, [service("api").running(OLD)]);
    ecs.version(NEW, Behaviour::CrashesOnStart { exit_code: 1 });
    let run = gehen_yml(&ecs, AMPLE, &["api"]).deploy(NEW);
    assert_rolled_back(&ecs, &run);
}

#[test]
fn rolls_back_when_the_new_tasks_crash_after_they_were_live() {
    let ecs = ecs([service("api").running(OLD).circuit_breaker(false)]);
    ecs.protect_tasks("api");
    let gehen = gehen_yml(&ecs, "timeoutMinutes: 1", &["api"]);
    let run = gehen.start(&["-gitsha", NEW]).until_it_says("drain check: ");
    ecs.version(NEW, Behaviour::CrashesOnStart { exit_code: 9 });
    ecs.interrupt_tasks("api", StopCode::InfrastructureHealth);
    let run = run.wait();
    run.says("deploy check passed").says("exited with 9");
    // Whichever is seen first: both come at the third failure.
    let ends = ["ECS ended the deployment", "new tasks failed one after another"];
    assert!(ends.iter().any(|end| run.stderr.contains(end)), "{}", run.stderr);
    assert_rolled_back(&ecs, &run);
}

#[test]
fn when_a_service_fails_the_ones_before_it_go_back_and_the_ones_after_it_are_not_touched() {
    // The new version fails container health checks, and api has none.
    let settings = Settings { healthy_after: Duration::from_secs(3), ..Settings::fast() };
    let services = [service("api").without_health_check(), service("web"), service("worker")];
    let ecs = ecs_with(settings, services.map(|service| service.running(OLD)));
    ecs.version(NEW, Behaviour::FailsContainerHealthCheck);
    let run = gehen_yml(&ecs, AMPLE, &["api", "web", "worker"]).deploy(NEW);
    run.exits(1)
        .ends("api", &format!("ROLLED BACK to api:1 ({OLD})"))
        .ends("web", &format!("ROLLED BACK to web:1 ({OLD})"))
        .ends("worker", "NOT TOUCHED")
        .says("api: why: service `web` failed")
        .says("web: why: ");
    let mut writes = ecs.writes();
    let mut rollbacks = writes.split_off(4);
    rollbacks.sort();
    assert_eq!(
        writes,
        [
            "RegisterTaskDefinition api",
            "UpdateService api -> api:2",
            "RegisterTaskDefinition web",
            "UpdateService web -> web:2",
        ]
    );
    assert_eq!(rollbacks, ["UpdateService api -> api:1", "UpdateService web -> web:1"]);
    let back: Vec<_> = run.stderr.lines().skip_while(|line| !line.contains(": updated back to ")).collect();
    let second = back.iter().rposition(|line| line.contains(": updated back to "));
    let proven = back.iter().position(|line| line.contains("drain check passed"));
    assert!(second < proven, "the second waited for the first: {}", run.stderr);
    for name in ["api", "web", "worker"] {
        assert_eq!(ecs.runs(name), OLD);
    }
}

#[test]
fn rollbacks_are_requested_newest_first_whichever_service_ecs_describes_faster() {
    let mut told = Vec::new();
    // A service waits for a newer one no longer than a second, and a look may take that long on a busy machine.
    for () in tries() {
        let ecs = ecs([service("api").running(OLD).without_health_check(), service("web").running(OLD)]);
        ecs.version(NEW, Behaviour::FailsContainerHealthCheck);
        ecs.fault(Fault::on("DescribeServices").about("web").slow(Duration::from_millis(300)).always());
        let run = gehen_yml(&ecs, AMPLE, &["api", "web"]).deploy(NEW);
        run.exits(1).ends("api", "ROLLED BACK").ends("web", "ROLLED BACK");
        if ecs.writes()[4..] == ["UpdateService web -> web:1", "UpdateService api -> api:1"] {
            return;
        }
        told.push(run.stderr);
    }
    panic!("never newest first:\n{}", told.join("\n"));
}

#[test]
fn goes_back_when_a_later_service_cannot_be_registered() {
    let ecs = ecs([service("api").running(OLD), service("web").running(OLD)]);
    ecs.fault(Fault::on("RegisterTaskDefinition").about("web").denied().always());
    let run = gehen_yml(&ecs, SHORT, &["api", "web"]).deploy(NEW);
    assert_rolled_back(&ecs, &run);
    run.ends("web", "NOT UPDATED").says("the role needs ecs:RegisterTaskDefinition").says("service `web` failed");
    assert_eq!(ecs.runs("web"), OLD);
}

#[test]
fn an_update_that_is_refused_leaves_nothing_to_undo() {
    let ecs = ecs([service("api").running(OLD)]);
    ecs.fault(Fault::on("UpdateService").denied().always());
    let run = gehen_yml(&ecs, SHORT, &["api"]).deploy(NEW);
    run.exits(1).ends("api", "NOT UPDATED").says("the role needs ecs:UpdateService").never_says("rolling back");
    assert_eq!(ecs.writes(), ["RegisterTaskDefinition api"]);
    assert_eq!(ecs.runs("api"), OLD);
}

#[test]
fn a_rollback_that_fails_is_told_loudly_with_the_command_that_goes_back_by_hand() {
    let ecs = ecs([service("api").running(OLD)]);
    ecs.version(NEW, Behaviour::CrashesOnStart { exit_code: 1 });
    ecs.fault(Fault::on("UpdateService").denied().after(1).always());
    let run = gehen_yml(&ecs, SHORT, &["api"]).deploy(NEW);
    run.exits(1).ends("api", "FAILED");
    let end = run.end_of("api");
    assert!(
        end.contains(&format!("AND THE ROLLBACK to api:1 ({OLD}) FAILED TOO: UpdateService: AccessDenied")),
        "{end}"
    );
    let definition = ecs.view(|view| view.described("api"))["deployments"][1]["taskDefinition"].clone();
    let way_back = format!(
        "to go back by hand: aws ecs update-service --region us-east-1 --cluster {} --service api --task-definition {} --force-new-deployment",
        ecs.cluster_arn("api"),
        definition.as_str().expect("the old deployment is still listed"),
    );
    assert_eq!(end.lines().last(), Some(way_back.as_str()));
    assert_eq!(ecs.writes(), ["RegisterTaskDefinition api", "UpdateService api -> api:2"]);
}

#[test]
fn rolls_back_as_soon_as_the_circuit_breaker_gives_the_deployment_up() {
    let ecs = ecs([service("api").running(OLD).circuit_breaker(false)]);
    ecs.version(NEW, Behaviour::CrashesOnStart { exit_code: 1 });
    let run = gehen_yml(&ecs, "timeoutMinutes: 5", &["api"]).deploy(NEW);
    run.says("ECS deployment circuit breaker: tasks failed to start.").says("exited with 1");
    assert_rolled_back(&ecs, &run);
    assert!(run.took < Duration::from_mins(2), "{:?}", run.took);
}

#[test]
fn watches_ecs_roll_back_by_itself_and_does_not_interfere() {
    let ecs = ecs([service("api").running(OLD).circuit_breaker(true)]);
    ecs.version(NEW, Behaviour::CrashesOnStart { exit_code: 1 });
    let run = gehen_yml(&ecs, "timeoutMinutes: 1", &["api"]).deploy(NEW);
    run.exits(1)
        .says("ECS rolls back to api:1 by itself")
        .ends("api", &format!("ROLLED BACK to api:1 ({OLD})"))
        .says("proven live again");
    let end = run.end_of("api");
    // Who looks later reads "Service deployment failed: …" first.
    let why = end.lines().find(|line| line.starts_with("why: ECS ended the deployment: "));
    assert!(why.is_some_and(|why| why.contains("ECS deployment circuit breaker: ")), "{end}");
    assert_eq!(ecs.writes(), ["RegisterTaskDefinition api", "UpdateService api -> api:2"]);
    assert_eq!(ecs.runs("api"), OLD);
}

#[test]
fn leaves_a_service_alone_that_a_colleague_deploys_meanwhile() {
    // The new version fails container health checks, and api has none.
    let ecs = ecs([
        service("api").running(OLD).without_health_check(),
        service("web").running(OLD),
        service("worker").running(OLD),
    ]);
    ecs.version(NEW, Behaviour::FailsContainerHealthCheck);
    let gehen = gehen_yml(&ecs, "timeoutMinutes: 1", &["api", "web", "worker"]);
    let run = gehen.start(&["-gitsha", NEW]).until_it_says("web: deploy check: ");
    colleague_deploys(&ecs, "web");
    let run = run.wait();
    run.exits(1)
        .ends("api", &format!("DEPLOYED {NEW}"))
        .ends("web", "LEFT ALONE")
        .ends("worker", "NOT TOUCHED")
        .says("somebody else deployed web:3 meanwhile");
    assert_eq!(
        ecs.writes(),
        [
            "RegisterTaskDefinition api",
            "UpdateService api -> api:2",
            "RegisterTaskDefinition web",
            "UpdateService web -> web:2",
        ]
    );
    assert!(ecs.wait_until(LONG, |view| view.runs("web") == THEIRS));
    assert_eq!((ecs.runs("api"), ecs.runs("worker")), (NEW.into(), OLD.into()));
}

#[test]
fn leaves_a_service_alone_that_a_colleague_deploys_while_it_is_rolled_back() {
    let ecs = ecs([service("api").running(OLD)]);
    ecs.version(NEW, Behaviour::CrashesOnStart { exit_code: 1 });
    ecs.version(OLD, Behaviour::NeverStarts);
    let gehen = gehen_yml(&ecs, AMPLE, &["api"]);
    ecs.protect_tasks("api");
    let run = gehen.start(&["-gitsha", NEW]).until_it_says("updated to api:2").until_it_says("rolling back to api:1");
    assert!(ecs.wait_until(LONG, |view| view.task_definition_of("api") == "api:1"));
    colleague_deploys(&ecs, "api");
    let run = run.wait();
    run.exits(1).ends("api", "FAILED").says("left alone: somebody else deployed api:3 meanwhile");
    assert_eq!(ecs.writes(), UNDONE);
    assert_eq!(ecs.task_definition_of("api"), "api:3");
}

#[test]
fn every_service_that_cannot_be_deployed_is_named_before_anything_is_changed() {
    let ecs = ecs([
        service("api").running(OLD),
        service("gone").running(OLD),
        service("blue").running(OLD).controller("CODE_DEPLOY"),
        service("foreign").running(OLD).controller("EXTERNAL"),
    ]);
    let cluster = ecs.cluster_arn("api");
    let delete = json!({"cluster": "staging", "service": "gone", "force": true});
    ecs.call("us-east-1", "DeleteService", delete).expect("the service can be deleted");
    assert!(ecs.wait_until(LONG, |view| view.described("gone")["status"] == "INACTIVE"));
    let file = format!(
        "services:
  api: {{cluster: {cluster}}}
  unknown: {{cluster: {cluster}}}
  lost: {{cluster: {cluster}-no-more}}
  gone: {{cluster: {cluster}}}
  blue: {{cluster: {cluster}}}
  foreign: {{cluster: {cluster}}}
"
    );
    let run = gehen_file(&ecs, &file).deploy(NEW);
    run.exits(1)
        .says(&format!(
            "error: service `unknown`: DescribeServices: there is no service `unknown` in cluster `{cluster}`"
        ))
        .says("error: service `lost`: DescribeServices: ClusterNotFoundException")
        .says("error: service `gone`: DescribeServices: the service is INACTIVE")
        .says("error: service `blue`: DescribeServices: the service's deployment controller is CODE_DEPLOY")
        .says("error: service `foreign`: DescribeServices: the service's deployment controller is EXTERNAL")
        .never_says("service `api`");
    assert_eq!(run.stderr.lines().last(), Some("nothing has been changed"));
    assert_eq!(ecs.writes(), [] as [&str; 0]);
    assert_eq!(ecs.runs("api"), OLD);
}

#[test]
fn a_service_that_cannot_be_looked_at_before_its_turn_ends_the_run_and_leaves_the_proven_ones() {
    let ecs = ecs([service("api").running(OLD), service("web").running(OLD)]);
    // The first look at web is preflight's.
    ecs.fault(Fault::on("DescribeServices").about("web").after(1).denied().always());
    let run = gehen_yml(&ecs, "", &["api", "web"]).deploy(NEW);
    run.exits(1).ends("api", &format!("DEPLOYED {NEW}")).ends("web", "NOT UPDATED").says("ecs:DescribeServices");
    assert_eq!(ecs.writes(), ["RegisterTaskDefinition api", "UpdateService api -> api:2"]);
    assert_eq!(ecs.runs("api"), NEW);
}

#[test]
fn a_deployment_that_begins_while_gehen_registers_is_not_displaced() {
    let ecs = ecs([service("api").running(OLD)]);
    ecs.fault(Fault::on("RegisterTaskDefinition").slow(Duration::from_secs(5)));
    let gehen = gehen_yml(&ecs, "", &["api"]);
    let running = gehen.start(&["-gitsha", NEW]);
    assert!(ecs.wait_until(LONG, |view| view.arrived("RegisterTaskDefinition") > 0));
    let theirs = json!({"cluster": "staging", "service": "api", "taskDefinition": "api:1", "forceNewDeployment": true});
    ecs.call("us-east-1", "UpdateService", theirs).expect("a colleague's deployment");
    let run = running.wait();
    run.exits(1).ends("api", "LEFT ALONE");
    assert!(!ecs.writes().iter().any(|write| write.starts_with("UpdateService")), "{:?}", ecs.writes());
    assert_eq!(ecs.runs("api"), OLD);
}
