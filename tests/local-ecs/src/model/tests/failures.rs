//! Tasks that fail, the circuit breaker, alarms and rollbacks.

use std::time::Duration;

use serde_json::{Value, json};

use super::{Lab, text};
use crate::{behaviour::Behaviour, builder::service, model::events::What};

/// The oldest task of a deployment that is gone.
fn stopped(lab: &mut Lab, deployment: &str) -> Value {
    let tasks = lab.tasks("STOPPED").into_iter();
    let mut ours = tasks.filter(|task| task["startedBy"] == deployment && task["lastStatus"] == "STOPPED");
    ours.next().expect("a task of ours should have stopped")
}

#[test]
fn each_failure_has_its_code_and_reason() {
    for (behaviour, code, reason) in [
        (Behaviour::ImageMissing, "TaskFailedToStart", "CannotPullContainerError: "),
        (Behaviour::ResourceInitialization, "TaskFailedToStart", "ResourceInitializationError: "),
        (Behaviour::CrashesOnStart { exit_code: 3 }, "EssentialContainerExited", "Essential container in task exited"),
        (
            Behaviour::FailsLoadBalancerHealthCheck,
            "ServiceSchedulerInitiated",
            "Task failed ELB health checks in (target-group arn:aws:elasticloadbalancing:",
        ),
        (Behaviour::FailsContainerHealthCheck, "ServiceSchedulerInitiated", "Task failed container health checks"),
    ] {
        let mut lab = Lab::with(service("api"));
        lab.version("bad", behaviour.clone());
        let id = lab.deploy("bad");
        lab.pass(1000);
        let task = stopped(&mut lab, &id);
        assert_eq!(task["stopCode"], code, "{behaviour:?}");
        assert!(text(&task["stoppedReason"]).starts_with(reason), "{task}");
        assert_eq!(task["group"], "service:api");
        let container = &task["containers"][0];
        match &behaviour {
            Behaviour::ImageMissing => assert!(text(&container["reason"]).ends_with("not found")),
            Behaviour::CrashesOnStart { exit_code } => {
                assert_eq!(container["exitCode"], *exit_code);
            }
            _ => {}
        }
        assert_eq!(lab.deployments()[1], "ACTIVE :1 COMPLETED 2/2 +0", "{behaviour:?}");
    }
}

#[test]
fn the_truth_log_holds_every_failure() {
    let mut lab = Lab::with(service("api").desired(1));
    lab.version("flaky", Behaviour::FailsFirst { tasks: 2 });
    lab.deploy("flaky");
    lab.pass(2000);
    let happened = &lab.0.service("us-east-1", "staging", "api").expect("the service exists").happened;
    assert_eq!(happened.iter().filter(|happened| happened.what == What::TaskFailed).count(), 2);
}

#[test]
fn failed_tasks_count_in_a_row_and_fall_to_zero_when_one_runs_well() {
    let mut lab = Lab::with(service("api").desired(1));
    lab.version("flaky", Behaviour::FailsFirst { tasks: 2 });
    lab.deploy("flaky");
    lab.pass(320);
    assert_eq!(lab.service()["deployments"][0]["failedTasks"], 1);
    lab.pass(250);
    assert_eq!(lab.service()["deployments"][0]["failedTasks"], 2);
    lab.pass(2000);
    assert_eq!(lab.service()["deployments"][0]["failedTasks"], 0);
    assert_eq!(lab.deployments(), ["PRIMARY :2 COMPLETED 1/1 +0"]);
}

#[test]
fn start_failures_are_spaced_out_more_and_more() {
    let mut lab = Lab::with(service("api").desired(1));
    lab.version("bad", Behaviour::ImageMissing);
    lab.deploy("bad");
    lab.pass(10_000);
    let tasks = lab.tasks("STOPPED");
    let at = |index: usize| tasks[index]["createdAt"].as_f64().unwrap_or_default();
    assert!(at(2) - at(1) > at(1) - at(0));
    assert!(at(9) - at(8) < 0.5, "the delay has an upper bound");
    assert!(lab.events().contains("is unable to consistently start tasks successfully"));
}

#[test]
fn the_breaker_without_rollback_stops_starting_and_leaves_the_old_one_alone() {
    let mut lab = Lab::with(service("api").circuit_breaker(false));
    lab.version("bad", Behaviour::ImageMissing);
    let id = lab.deploy("bad");
    lab.pass(3000);
    assert_eq!(lab.deployments(), ["PRIMARY :2 FAILED 0/2 +0", "ACTIVE :1 COMPLETED 2/2 +0"]);
    let primary = lab.service()["deployments"][0].clone();
    assert_eq!(primary["id"], id);
    assert_eq!(primary["rolloutStateReason"], "ECS deployment circuit breaker: tasks failed to start.");
    let tasks = lab.tasks("STOPPED").len();
    lab.pass(60_000);
    assert_eq!(lab.tasks("STOPPED").len(), tasks);
}

#[test]
fn the_breaker_with_rollback_makes_a_new_primary_of_the_old_task_definition() {
    let mut lab = Lab::with(service("api").circuit_breaker(true));
    lab.version("bad", Behaviour::CrashesOnStart { exit_code: 1 });
    let old = text(&lab.service()["deployments"][0]["id"]);
    let ours = lab.deploy("bad");
    let mut seen = lab.service();
    for _ in 0..300 {
        lab.pass(10);
        seen = lab.service();
        if seen["deployments"][0]["id"] != ours {
            break;
        }
    }
    let primary = &seen["deployments"][0];
    assert_ne!(primary["id"], old);
    assert_eq!(primary["rolloutState"], "IN_PROGRESS");
    assert!(text(&primary["taskDefinition"]).ends_with("task-definition/api:1"));
    assert_eq!(
        text(&primary["rolloutStateReason"]),
        format!("ECS deployment circuit breaker: rolling back to deploymentId {old}.")
    );
    assert_eq!(seen["deployments"][1]["id"], ours);
    assert_eq!(seen["deployments"][1]["rolloutState"], "FAILED");
    lab.pass(3000);
    assert_eq!(lab.deployments(), ["PRIMARY :1 COMPLETED 2/2 +0"]);
    let listed = lab.ask("ListServiceDeployments", &json!({"cluster": "staging", "service": "api"}));
    assert_eq!(listed["serviceDeployments"][0]["status"], "ROLLBACK_SUCCESSFUL");
}

#[test]
fn the_threshold_is_half_the_desired_count_within_bounds() {
    use crate::model::deployment::Deployment;
    for (desired, threshold) in [(1, 3), (6, 3), (7, 4), (25, 13), (400, 200), (900, 200)] {
        assert_eq!(Deployment::threshold(desired), threshold, "{desired}");
    }
}

#[test]
fn a_rollback_that_fails_too_is_given_up() {
    let mut lab = Lab::with(service("api").running("old").circuit_breaker(true));
    lab.version("bad", Behaviour::ImageMissing);
    lab.version("old", Behaviour::ImageMissing);
    lab.deploy("bad");
    lab.pass(20_000);
    assert_eq!(lab.deployments()[0], "PRIMARY :1 FAILED 0/2 +0");
    let listed = lab.ask("ListServiceDeployments", &json!({"cluster": "staging", "service": "api"}));
    assert_eq!(listed["serviceDeployments"][0]["status"], "ROLLBACK_FAILED");
    assert_eq!(lab.service()["runningCount"], 2, "the tasks from before still serve");
}

#[test]
fn alarms_fail_a_deployment_and_delay_its_completion() {
    let mut lab = Lab::with(service("api").alarms(true));
    let ours = lab.deploy("new");
    lab.pass(700);
    assert_eq!(lab.deployments(), ["PRIMARY :2 IN_PROGRESS 2/2 +0"], "it bakes");
    lab.0.settings.alarm_bake = Duration::from_secs(10);
    let now = lab.0.now;
    if let Ok((service, _)) = lab.0.service_mut("us-east-1", "staging", "api") {
        service.alarm = true;
        service.rouse(now);
    }
    lab.pass(1);
    let service = lab.service();
    assert_eq!(service["deployments"][1]["id"], ours);
    assert!(text(&service["deployments"][0]["rolloutStateReason"]).starts_with("ECS deployment alarms: "));
    lab.pass(2000);
    assert_eq!(lab.deployments(), ["PRIMARY :1 COMPLETED 2/2 +0"]);
}

#[test]
fn tasks_that_pend_or_cannot_be_placed_say_so_in_the_events() {
    for (behaviour, pending) in [(Behaviour::NeverStarts, 2), (Behaviour::NoCapacity, 0)] {
        let mut lab = Lab::with(service("api"));
        lab.version("bad", behaviour);
        lab.deploy("bad");
        lab.pass(5000);
        assert_eq!(lab.service()["deployments"][0]["pendingCount"], pending);
        assert!(lab.events().contains("was unable to place a task because"));
    }
}

#[test]
fn a_version_may_crash_after_it_was_healthy() {
    let mut lab = Lab::with(service("api").desired(1));
    lab.version("new", Behaviour::CrashesAfter(Duration::from_secs(2)));
    lab.deploy("new");
    lab.pass(1000);
    assert_eq!(lab.deployments(), ["PRIMARY :2 COMPLETED 1/1 +0"]);
    lab.pass(1300);
    assert_eq!(lab.tasks("STOPPED").iter().filter(|task| task["stopCode"] == "EssentialContainerExited").count(), 1);
}

#[test]
fn stopped_tasks_are_forgotten_after_a_while() {
    let mut lab = Lab::with(service("api"));
    lab.deploy("new");
    lab.pass(2000);
    assert_eq!(lab.tasks("STOPPED").len(), 2);
    lab.pass(3_600_000);
    assert_eq!(lab.tasks("STOPPED").len(), 0);
}

#[test]
fn a_stopped_service_deployment_rolls_back() {
    let mut lab = Lab::with(service("api"));
    lab.deploy("new");
    lab.pass(50);
    let arn = lab.service()["currentServiceDeployment"].clone();
    lab.ask("StopServiceDeployment", &json!({"serviceDeploymentArn": arn, "stopType": "ROLLBACK"}));
    lab.pass(2000);
    assert_eq!(lab.deployments(), ["PRIMARY :1 COMPLETED 2/2 +0"]);
    let refusal = lab.refusal("StopServiceDeployment", &json!({"serviceDeploymentArn": arn}));
    assert!(refusal.starts_with("ConflictException"), "{refusal}");
}

#[test]
fn crashes_need_not_count_as_failures() {
    let mut lab = Lab::with(service("api").circuit_breaker(true));
    lab.0.settings.exits_count = false;
    lab.version("bad", Behaviour::CrashesOnStart { exit_code: 1 });
    lab.deploy("bad");
    lab.pass(10_000);
    let primary = lab.service()["deployments"][0].clone();
    assert_eq!((&primary["failedTasks"], &primary["rolloutState"]), (&json!(0), &json!("IN_PROGRESS")));
}
