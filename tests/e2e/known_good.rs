//! What a service returns to: the version that last completed a deployment, whatever it points at.

use std::time::Duration;

use local_ecs::{Behaviour, Fault, LocalEcs, ServiceBuilder, Settings, View, image, service};
use serde_json::json;

use crate::support::{
    AMPLE, Gehen, LONG, NEW, OLD, Run, SHORT, THEIRS, bodies, colleague_deploys, ecs, ecs_with, gehen_yml,
    gehen_yml_without_urls,
};

/// A version that won't do.
const BAD: &str = "bad0000";

/// Starts a deploy of `version` to `api` and kills it as soon as the update has been answered.
fn killed_in_mid_deploy(gehen: &Gehen, version: &str) {
    let mut running = gehen.start(&["-gitsha", version]).until_it_says("api: updated to ");
    running.child.kill().expect("the run can be killed");
    assert_eq!(running.wait().status.code(), None);
}

/// Says that [`BAD`] crashes and [`NEW`] never starts, so that its deployment stays open.
fn with_bad_versions(ecs: &LocalEcs) {
    ecs.version(BAD, Behaviour::CrashesOnStart { exit_code: 1 });
    ecs.version(NEW, Behaviour::NeverStarts);
}

/// A service whose tasks all stop before new ones start, so that an old deployment is gone from the list at once.
fn stops_first() -> ServiceBuilder {
    service("api").running(OLD).minimum_healthy_percent(0).maximum_percent(100)
}

/// Waits until only the PRIMARY deployment is listed.
#[track_caller]
fn until_alone(ecs: &LocalEcs) {
    let is_alone = |view: &View<'_>| view.described("api")["deployments"].as_array().is_some_and(|all| all.len() == 1);
    assert!(ecs.wait_until(LONG, is_alone));
}

/// Asserts that `run` failed, that `api` went back to [`OLD`] as api:1, and that this was announced before the update.
#[track_caller]
fn assert_back_to_old(ecs: &LocalEcs, run: &Run) {
    run.exits(1).ends("api", &format!("ROLLED BACK to api:1 ({OLD})")).says("proven live again");
    assert_eq!(ecs.writes().last().map(String::as_str), Some("UpdateService api -> api:1"));
    assert_eq!((ecs.runs("api").as_str(), ecs.task_definition_of("api").as_str()), (OLD, "api:1"), "{}", run.stderr);
    let announced = run.stderr.find("warning: what runs now has not completed a deployment; if this run fails, the service returns to api:1 (01d0000)");
    assert!(
        announced.is_some_and(|at| run.stderr.find("updated to").is_some_and(|updated| at < updated)),
        "{}",
        run.stderr
    );
}

/// Asserts that `run` failed and left `api` at `revision`, with the command that names another, and that this was
/// announced before the update.
#[track_caller]
fn assert_left_as_it_is(ecs: &LocalEcs, run: &Run, revision: &str, why: &str) {
    run.exits(1).ends("api", "FAILED after ").never_says("rolling back").never_says("ROLLED BACK");
    let end = run.end_of("api");
    assert!(end.contains(&format!(", WITH NOTHING TO RETURN TO: {why}; now ")), "{end}");
    let command = format!(
        "to deploy another revision, name it in: aws ecs update-service --region us-east-1 --cluster {} --service api --task-definition <family>:<revision> --force-new-deployment",
        ecs.cluster_arn("api")
    );
    assert_eq!(end.lines().last(), Some(command.as_str()));
    let announced = run.stderr.find(&format!(
        "warning: there is nothing to return to if this run fails: {why}; the service would be left as it is\n"
    ));
    assert!(
        announced.is_some_and(|at| run.stderr.find("updated to").is_some_and(|updated| at < updated)),
        "{}",
        run.stderr
    );
    assert_eq!(ecs.task_definition_of("api"), revision);
}

#[test]
fn after_a_killed_run_a_broken_version_ends_on_the_one_from_before_the_first_run() {
    for gehen in [gehen_yml, gehen_yml_without_urls] {
        let ecs = ecs([service("api").running(OLD)]);
        with_bad_versions(&ecs);
        let gehen = gehen(&ecs, AMPLE, &["api"]);
        killed_in_mid_deploy(&gehen, NEW);
        assert_eq!(ecs.task_definition_of("api"), "api:2");
        let run = gehen.deploy(BAD);
        assert_back_to_old(&ecs, &run);
        run.says("api: is to run api:2 (ae30000), of which no task runs\n");
        run.says("the service returns to api:1 (01d0000), which has\n");
        assert!(!ecs.requests().iter().any(|request| request.operation == "ListServiceDeployments"));
    }
}

#[test]
fn after_a_killed_run_of_a_good_version_a_broken_one_ends_on_what_has_completed_by_then() {
    // Long enough that the second run begins before ECS calls the first one's deployment completed, on any machine.
    let settings = Settings { deregistration_delay: Duration::from_secs(12), ..Settings::fast() };
    let ecs = ecs_with(settings, [service("api").running(OLD)]);
    ecs.version(BAD, Behaviour::CrashesOnStart { exit_code: 1 });
    let gehen = gehen_yml(&ecs, AMPLE, &["api"]);
    killed_in_mid_deploy(&gehen, NEW);
    let run = gehen.deploy(BAD);
    assert_back_to_old(&ecs, &run);
    killed_in_mid_deploy(&gehen, NEW);
    assert!(ecs.wait_until(LONG, |view| view.rollout_of("api") == "COMPLETED"));
    let run = gehen.deploy(BAD);
    run.exits(1).ends("api", &format!("ROLLED BACK to api:4 ({NEW})")).never_says("what runs now has not completed");
    assert_eq!((ecs.runs("api").as_str(), ecs.task_definition_of("api").as_str()), (NEW, "api:4"));
}

#[test]
fn after_two_killed_runs_the_way_back_is_still_the_one_from_before_the_first() {
    let ecs = ecs([service("api").running(OLD)]);
    with_bad_versions(&ecs);
    let gehen = gehen_yml(&ecs, SHORT, &["api"]);
    killed_in_mid_deploy(&gehen, NEW);
    killed_in_mid_deploy(&gehen, BAD);
    let run = gehen.deploy(NEW);
    assert_back_to_old(&ecs, &run);
}

#[test]
fn a_killed_run_may_be_repeated_with_the_same_version() {
    let settings = Settings { pulling: Duration::from_secs(1), ..Settings::fast() };
    let ecs = ecs_with(settings, [service("api").running(OLD)]);
    let gehen = gehen_yml(&ecs, "", &["api"]);
    killed_in_mid_deploy(&gehen, NEW);
    let run = gehen.deploy(NEW);
    run.exits(0).says("no new revision is needed").ends("api", &format!("DEPLOYED {NEW} as api:2"));
    assert_eq!(
        ecs.writes(),
        ["RegisterTaskDefinition api", "UpdateService api -> api:2", "UpdateService api -> api:2"]
    );
    assert_eq!(ecs.runs("api"), NEW);
}

#[test]
fn a_killed_run_of_a_broken_version_repeated_with_the_same_ends_on_the_one_before() {
    let ecs = ecs([service("api").running(OLD)]);
    with_bad_versions(&ecs);
    let gehen = gehen_yml(&ecs, AMPLE, &["api"]);
    killed_in_mid_deploy(&gehen, BAD);
    let run = gehen.deploy(BAD);
    assert_back_to_old(&ecs, &run);
    run.says("no new revision is needed");
}

#[test]
fn a_killed_run_repeated_with_the_version_from_before_ends_on_that_version() {
    let ecs = ecs([service("api").running(OLD)]);
    with_bad_versions(&ecs);
    let gehen = gehen_yml(&ecs, AMPLE, &["api"]);
    killed_in_mid_deploy(&gehen, NEW);
    let run = gehen.deploy(OLD);
    run.exits(0).ends("api", &format!("DEPLOYED {OLD} as api:3"));
    assert_eq!(ecs.runs("api"), OLD);
}

#[test]
fn where_the_old_deployment_is_gone_from_the_list_the_history_tells() {
    let ecs = ecs([stops_first()]);
    with_bad_versions(&ecs);
    let gehen = gehen_yml_without_urls(&ecs, AMPLE, &["api"]);
    killed_in_mid_deploy(&gehen, NEW);
    until_alone(&ecs);
    let run = gehen.deploy(BAD);
    assert_back_to_old(&ecs, &run);
    run.says("the service returns to api:1 (01d0000), which has\n");
}

#[test]
fn of_a_history_of_several_pages_the_newest_success_counts() {
    let ecs = ecs([stops_first()]);
    with_bad_versions(&ecs);
    colleague_deploys(&ecs, "api");
    assert!(ecs.wait_until(LONG, |view| view.rollout_of("api") == "COMPLETED"));
    let gehen = gehen_yml_without_urls(&ecs, AMPLE, &["api"]);
    killed_in_mid_deploy(&gehen, NEW);
    until_alone(&ecs);
    // A page may be empty and still not be the last.
    let empty = json!({"serviceDeployments": [], "nextToken": "from-0"});
    ecs.fault(Fault::on("ListServiceDeployments").answers(empty));
    let run = gehen.deploy(BAD);
    run.exits(1).ends("api", &format!("ROLLED BACK to api:2 ({THEIRS})"));
    assert_eq!(bodies(&ecs, "ListServiceDeployments").len(), 2);
    assert_eq!(ecs.runs("api"), THEIRS);
}

#[test]
fn where_the_history_stumbles_it_is_asked_again() {
    for operation in ["ListServiceDeployments", "DescribeServiceRevisions"] {
        let ecs = ecs([stops_first()]);
        with_bad_versions(&ecs);
        let gehen = gehen_yml_without_urls(&ecs, AMPLE, &["api"]);
        killed_in_mid_deploy(&gehen, NEW);
        until_alone(&ecs);
        ecs.fault(Fault::on(operation).throttled().times(2));
        assert_back_to_old(&ecs, &gehen.deploy(BAD));
    }
}

#[test]
fn where_the_history_is_denied_and_nothing_else_tells_there_is_nothing_to_return_to() {
    for operation in ["ListServiceDeployments", "DescribeServiceRevisions"] {
        let ecs = ecs([stops_first()]);
        with_bad_versions(&ecs);
        let gehen = gehen_yml_without_urls(&ecs, AMPLE, &["api"]);
        killed_in_mid_deploy(&gehen, NEW);
        until_alone(&ecs);
        ecs.fault(Fault::on(operation).denied().always());
        let run = gehen.deploy(BAD);
        let why = format!("none is known that completed: the role needs ecs:{operation}");
        assert_left_as_it_is(&ecs, &run, "api:3", &why);
    }
}

/// A service of which api:2 ([`THEIRS`]) runs with its alarms still watched, and api:3 ([`NEW`]) has been begun: no
/// deployment that is listed has completed.
fn with_two_open_deployments() -> LocalEcs {
    let settings = Settings { alarm_bake: Duration::from_hours(1), ..Settings::fast() };
    let ecs = ecs_with(settings, [service("api").running(OLD).alarms(false)]);
    with_bad_versions(&ecs);
    colleague_deploys(&ecs, "api");
    until_alone(&ecs);
    killed_in_mid_deploy(&gehen_yml(&ecs, AMPLE, &["api"]), NEW);
    ecs
}

#[test]
fn where_the_history_is_denied_the_older_deployment_is_returned_to_and_that_is_said() {
    let ecs = with_two_open_deployments();
    ecs.fault(Fault::on("ListServiceDeployments").denied().always());
    let run = gehen_yml(&ecs, AMPLE, &["api"]).deploy(BAD);
    run.says(&format!(
        "Z api: warning: what runs now has not completed a deployment; if this run fails, the service returns to api:2 ({THEIRS}), which ran before; whether that ever completed one can't be told: the role needs ecs:ListServiceDeployments\n"
    ));
    // The alarms are watched for an hour, so ECS doesn't say COMPLETED and the rollback is not seen to be over.
    run.exits(1).ends("api", &format!("ROLLED BACK to api:2 ({THEIRS})"));
    assert_eq!(ecs.task_definition_of("api"), "api:2");
}

#[test]
fn where_the_history_may_be_read_it_goes_before_an_older_deployment_that_never_completed() {
    let ecs = with_two_open_deployments();
    let run = gehen_yml(&ecs, AMPLE, &["api"]).deploy(BAD);
    run.says("the service returns to api:1 (01d0000), which has\n");
    run.exits(1).ends("api", &format!("ROLLED BACK to api:1 ({OLD})"));
    assert_eq!(ecs.task_definition_of("api"), "api:1");
}

/// A service that was just created with a version that never starts.
fn brand_new() -> LocalEcs {
    let ecs = ecs([service("other").running(OLD)]);
    with_bad_versions(&ecs);
    let definition = json!({
        "family": "api",
        "containerDefinitions": [{"name": "api", "image": image("api", NEW), "memory": 512}],
    });
    ecs.call("us-east-1", "RegisterTaskDefinition", definition).expect("a good task definition");
    let create = json!({"cluster": "staging", "serviceName": "api", "taskDefinition": "api:1", "desiredCount": 2});
    ecs.call("us-east-1", "CreateService", create).expect("the service can be created");
    ecs
}

#[test]
fn a_brand_new_service_has_nothing_to_return_to_and_is_left_as_it_is() {
    let ecs = brand_new();
    let run = gehen_yml_without_urls(&ecs, AMPLE, &["api"]).deploy(BAD);
    assert_left_as_it_is(&ecs, &run, "api:2", "no deployment of the service is known to have completed");
    assert_eq!(ecs.writes(), ["RegisterTaskDefinition api", "UpdateService api -> api:2"]);
}

#[test]
fn a_brand_new_service_is_deployed_all_the_same() {
    let ecs = brand_new();
    let run = gehen_yml_without_urls(&ecs, "", &["api"]).deploy(OLD);
    run.exits(0).says("there is nothing to return to if this run fails").ends("api", &format!("DEPLOYED {OLD}"));
    assert_eq!(ecs.runs("api"), OLD);
}

#[test]
fn the_very_task_definition_that_is_deployed_is_nothing_to_return_to() {
    let ecs = ecs([service("api").running(OLD)]);
    ecs.version(OLD, Behaviour::CrashesOnStart { exit_code: 1 });
    let run = gehen_yml(&ecs, AMPLE, &["api"]).deploy(OLD);
    assert_left_as_it_is(&ecs, &run, "api:1", "api:1 is what this run deploys, too");
    assert_eq!(ecs.writes(), ["UpdateService api -> api:1"]);
}

#[test]
fn behind_a_classic_load_balancer_a_killed_run_is_seen_by_its_old_tasks() {
    let ecs = ecs([service("api").running(OLD).classic_load_balancer()]);
    with_bad_versions(&ecs);
    let gehen = gehen_yml(&ecs, AMPLE, &["api"]);
    killed_in_mid_deploy(&gehen, NEW);
    assert_back_to_old(&ecs, &gehen.deploy(BAD));
}

#[test]
fn behind_a_classic_load_balancer_a_steady_service_returns_to_what_it_runs() {
    let ecs = ecs([service("api").running(OLD).classic_load_balancer()]);
    with_bad_versions(&ecs);
    let run = gehen_yml(&ecs, AMPLE, &["api"]).deploy(BAD);
    run.exits(1).never_says("what runs now has not completed").ends("api", &format!("ROLLED BACK to api:1 ({OLD})"));
    assert_eq!(ecs.runs("api"), OLD);
}

#[test]
fn after_the_circuit_breaker_gave_a_deployment_up_the_way_back_is_what_completed_before() {
    let ecs = ecs([service("api").running(OLD).circuit_breaker(false)]);
    with_bad_versions(&ecs);
    ecs.version(THEIRS, Behaviour::CrashesOnStart { exit_code: 2 });
    colleague_deploys(&ecs, "api");
    assert!(ecs.wait_until(LONG, |view| view.rollout_of("api") == "FAILED"));
    let run = gehen_yml(&ecs, AMPLE, &["api"]).deploy(BAD);
    assert_back_to_old(&ecs, &run);
    run.never_says("still in progress");
}

/// Asserts that an identical revision of api:1 was registered as `copy`, and that it is what `api` went back to.
#[track_caller]
fn assert_back_to_copy(ecs: &LocalEcs, run: &Run, copy: &str) {
    run.exits(1)
        .says(&format!("api: warning: api:1 has been deregistered; registered {copy}, which is identical\n"))
        .ends("api", &format!("ROLLED BACK to {copy}, a copy of api:1 ({OLD})"))
        .says("proven live again");
    assert_eq!((ecs.runs("api").as_str(), ecs.task_definition_of("api").as_str()), (OLD, copy));
    let mut original = bodies(ecs, "RegisterTaskDefinition").remove(0);
    let copied = bodies(ecs, "RegisterTaskDefinition").pop().expect("a copy is registered");
    original["containerDefinitions"][0]["image"] = json!(image("api", OLD));
    assert_eq!(copied, original);
}

#[test]
fn a_previous_revision_that_was_deregistered_before_the_run_is_registered_again() {
    let ecs = ecs([service("api").running(OLD)]);
    with_bad_versions(&ecs);
    ecs.deregister("api:1");
    let run = gehen_yml(&ecs, AMPLE, &["api"]).deploy(BAD);
    run.says(
        "Z api: api:1 has been deregistered; if this run fails, an identical revision is registered to return to\n",
    );
    assert_back_to_copy(&ecs, &run, "api:3");
}

#[test]
fn a_previous_revision_that_is_deregistered_during_the_run_is_registered_again() {
    let ecs = ecs([service("api").running(OLD)]);
    with_bad_versions(&ecs);
    let running = gehen_yml(&ecs, AMPLE, &["api"]).start(&["-gitsha", BAD]).until_it_says("updated to api:2");
    ecs.deregister("api:1");
    assert_back_to_copy(&ecs, &running.wait(), "api:3");
}

#[test]
fn a_deregistered_version_that_runs_already_gets_a_revision_of_its_own() {
    let ecs = ecs([service("api").running(OLD)]);
    ecs.deregister("api:1");
    let run = gehen_yml(&ecs, "", &["api"]).deploy(OLD);
    run.exits(0).ends("api", &format!("DEPLOYED {OLD} as api:2"));
    assert_eq!(ecs.writes(), ["RegisterTaskDefinition api", "UpdateService api -> api:2"]);
}

#[test]
fn a_killed_run_whose_way_back_was_deregistered_still_ends_on_the_version_from_before() {
    let ecs = ecs([service("api").running(OLD)]);
    with_bad_versions(&ecs);
    let gehen = gehen_yml(&ecs, AMPLE, &["api"]);
    killed_in_mid_deploy(&gehen, NEW);
    ecs.deregister("api:1");
    assert_back_to_copy(&ecs, &gehen.deploy(BAD), "api:4");
}

#[test]
fn a_deregistered_revision_is_registered_again_even_where_the_first_answer_was_lost() {
    let ecs = ecs([service("api").running(OLD)]);
    with_bad_versions(&ecs);
    ecs.fault(Fault::on("UpdateService").after(1).reset_before());
    let running =
        gehen_yml(&ecs, "timeoutMinutes: 1", &["api"]).start(&["-gitsha", BAD]).until_it_says("updated to api:2");
    ecs.deregister("api:1");
    assert_back_to_copy(&ecs, &running.wait(), "api:3");
}

#[test]
fn behind_a_classic_load_balancer_without_a_history_the_older_deployment_is_returned_to() {
    let ecs = ecs([service("api").running(OLD).classic_load_balancer()]);
    with_bad_versions(&ecs);
    let gehen = gehen_yml(&ecs, AMPLE, &["api"]);
    killed_in_mid_deploy(&gehen, NEW);
    // ECS keeps 90 days, and nothing from before October 2024.
    ecs.fault(Fault::on("ListServiceDeployments").answers(json!({"serviceDeployments": []})).always());
    let run = gehen.deploy(BAD);
    assert_back_to_old(&ecs, &run);
    run.says(
        "which ran before; whether that ever completed one can't be told: ECS's history doesn't reach back to it\n",
    );
}

#[test]
fn a_success_whose_revision_is_gone_is_not_called_none() {
    let ecs = ecs([stops_first()]);
    with_bad_versions(&ecs);
    let gehen = gehen_yml_without_urls(&ecs, AMPLE, &["api"]);
    killed_in_mid_deploy(&gehen, NEW);
    until_alone(&ecs);
    let missing = json!({"serviceRevisions": [], "failures": [{"arn": "x", "reason": "MISSING"}]});
    ecs.fault(Fault::on("DescribeServiceRevisions").answers(missing).always());
    let run = gehen.deploy(BAD);
    let why = "none is known that completed: DescribeServiceRevisions: the answer doesn't hold the service revision";
    assert_left_as_it_is(&ecs, &run, "api:3", why);
}

#[test]
fn a_service_that_is_live_is_not_called_failed_when_a_later_one_fails_and_it_has_nothing_to_return_to() {
    let ecs = ecs([service("api").running(NEW), service("web").running(OLD).without_load_balancer()]);
    ecs.fault(Fault::on("RegisterTaskDefinition").denied().always());
    let run = gehen_yml_without_urls(&ecs, "", &["api", "web"]).deploy(NEW);
    run.exits(1).ends("web", "NOT UPDATED").ends("api", "NOT ROLLED BACK after ").never_says("FAILED");
    let end = run.end_of("api");
    assert!(end.contains("ae30000 stays live as api:1: there is nothing to return to (api:1 is what this run deploys, too); now run 2 tasks of api:1 (ae30000)\nwhy: service `web` failed"), "{end}");
    assert_eq!(ecs.runs("api"), NEW);
}
