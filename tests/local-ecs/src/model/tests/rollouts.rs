//! Rolling updates, daemons and protection.

use serde_json::json;

use super::{Lab, text};
use crate::{behaviour::Behaviour, builder::service};

#[test]
fn a_rollout_goes_through_the_stages_of_the_table() {
    let mut lab = Lab::with(service("api"));
    assert_eq!(lab.deployments(), ["PRIMARY :1 COMPLETED 2/2 +0"]);
    lab.deploy("new");
    assert_eq!(lab.deployments(), ["PRIMARY :2 IN_PROGRESS 0/2 +0", "ACTIVE :1 COMPLETED 2/2 +0"]);
    lab.pass(20);
    assert_eq!(lab.deployments(), ["PRIMARY :2 IN_PROGRESS 0/2 +2", "ACTIVE :1 COMPLETED 2/2 +0"]);
    lab.pass(160);
    assert_eq!(lab.deployments(), ["PRIMARY :2 IN_PROGRESS 2/2 +0", "ACTIVE :1 COMPLETED 2/2 +0"], "not healthy yet");
    lab.pass(120);
    assert_eq!(lab.deployments(), ["PRIMARY :2 IN_PROGRESS 2/2 +0", "DRAINING :1 COMPLETED 0/0 +0"]);
    lab.pass(300);
    assert_eq!(lab.deployments().len(), 2, "the old one is listed until its tasks are STOPPED");
    lab.pass(100);
    assert_eq!(lab.deployments(), ["PRIMARY :2 COMPLETED 2/2 +0"]);
    let primary = lab.service()["deployments"][0].clone();
    assert_eq!(text(&primary["rolloutStateReason"]), format!("ECS deployment {} completed.", text(&primary["id"])));
    let events = lab.events();
    for line in [
        "has started 2 tasks: (task ",
        "registered 2 targets in (target-group arn:aws:elasticloadbalancing:",
        "has begun draining connections on 2 tasks.",
    ] {
        assert!(events.contains(line), "{line} is missing from\n{events}");
    }
    assert!(events.starts_with("(service api) has reached a steady state."), "{events}");
}

#[test]
fn draining_tasks_have_desired_status_stopped_and_get_no_requests() {
    let mut lab = Lab::with(service("api"));
    lab.deploy("new");
    lab.pass(310);
    let leaving = lab.tasks("STOPPED");
    assert_eq!(leaving.len(), 2);
    for task in &leaving {
        assert_eq!(task["lastStatus"], "DEACTIVATING");
        assert_eq!(task["stopCode"], "ServiceSchedulerInitiated");
        assert!(text(&task["stoppedReason"]).starts_with("Scaling activity initiated by (deployment ecs-svc/"));
    }
    assert_eq!(lab.service()["runningCount"], 2);
    for _ in 0..4 {
        let reply = crate::load_balancer::answer(&mut lab.0, "/lb/us-east-1/staging/api/ping");
        assert!(format!("{reply:?}").contains("api-new"), "{reply:?}");
    }
}

#[test]
fn old_and_new_answer_side_by_side_only_once_the_new_is_healthy() {
    let mut lab = Lab::with(service("api").desired(1));
    lab.version("new", Behaviour::Answers { status: 500, headers: Vec::new(), body: String::new() });
    lab.deploy("new");
    lab.pass(200);
    assert_eq!(lab.service()["runningCount"], 2);
    for _ in 0..4 {
        let reply = crate::load_balancer::answer(&mut lab.0, "/lb/us-east-1/staging/api/ping");
        assert!(format!("{reply:?}").contains("status: 200"), "{reply:?}");
    }
}

#[test]
fn a_low_minimum_has_old_tasks_stopped_before_new_ones_are_healthy() {
    let mut lab = Lab::with(service("api").minimum_healthy_percent(50).maximum_percent(100));
    lab.deploy("new");
    lab.pass(20);
    assert_eq!(lab.deployments(), ["PRIMARY :2 IN_PROGRESS 0/2 +1", "ACTIVE :1 COMPLETED 1/1 +0"]);
    lab.pass(2000);
    assert_eq!(lab.deployments(), ["PRIMARY :2 COMPLETED 2/2 +0"]);
}

#[test]
fn a_maximum_of_100_with_a_minimum_of_100_can_do_nothing_and_says_so() {
    let mut lab = Lab::with(service("api").maximum_percent(100));
    lab.deploy("new");
    lab.pass(2000);
    assert_eq!(lab.deployments(), ["PRIMARY :2 IN_PROGRESS 0/2 +0", "ACTIVE :1 COMPLETED 2/2 +0"]);
    assert!(lab.events().contains("was unable to stop or start tasks during a deployment"));
}

#[test]
fn percentages_are_rounded_towards_caution() {
    let mut lab = Lab::with(service("api").desired(3).minimum_healthy_percent(50).maximum_percent(150));
    lab.deploy("new");
    lab.pass(20);
    assert_eq!(lab.deployments(), ["PRIMARY :2 IN_PROGRESS 0/3 +2", "ACTIVE :1 COMPLETED 2/2 +0"]);
}

#[test]
fn a_forced_deployment_runs_the_same_task_definition_anew() {
    let mut lab = Lab::with(service("api"));
    assert_eq!(lab.update(&json!({"taskDefinition": "api:1"}))["deployments"].as_array().map(Vec::len), Some(1));
    assert_eq!(lab.update(&json!({"forceNewDeployment": true}))["deployments"].as_array().map(Vec::len), Some(2));
    lab.pass(2000);
    assert_eq!(lab.deployments(), ["PRIMARY :1 COMPLETED 2/2 +0"]);
}

#[test]
fn a_deployment_can_be_overtaken_by_another() {
    let mut lab = Lab::with(service("api"));
    lab.deploy("first");
    lab.pass(100);
    lab.deploy("second");
    lab.pass(20);
    assert_eq!(
        lab.deployments(),
        ["PRIMARY :3 IN_PROGRESS 0/2 +2", "DRAINING :2 IN_PROGRESS 0/0 +0", "ACTIVE :1 COMPLETED 2/2 +0"]
    );
    lab.pass(3000);
    assert_eq!(lab.deployments(), ["PRIMARY :3 COMPLETED 2/2 +0"]);
}

#[test]
fn scaling_makes_no_deployment() {
    let mut lab = Lab::with(service("api"));
    lab.update(&json!({"desiredCount": 4}));
    lab.pass(1000);
    assert_eq!(lab.deployments(), ["PRIMARY :1 COMPLETED 4/4 +0"]);
    lab.update(&json!({"desiredCount": 1}));
    lab.pass(1000);
    assert_eq!(lab.deployments(), ["PRIMARY :1 COMPLETED 1/1 +0"]);
}

#[test]
fn protected_tasks_stay_and_so_does_their_deployment() {
    let mut lab = Lab::with(service("api"));
    let arns: Vec<_> = lab.tasks("RUNNING").iter().map(|task| task["taskArn"].clone()).collect();
    lab.ask("UpdateTaskProtection", &json!({"cluster": "staging", "tasks": arns, "protectionEnabled": true}));
    lab.deploy("new");
    lab.pass(5000);
    assert_eq!(lab.deployments(), ["PRIMARY :2 IN_PROGRESS 2/2 +0", "ACTIVE :1 COMPLETED 2/2 +0"]);
    lab.ask("UpdateTaskProtection", &json!({"cluster": "staging", "tasks": arns, "protectionEnabled": false}));
    lab.pass(1000);
    assert_eq!(lab.deployments(), ["PRIMARY :2 COMPLETED 2/2 +0"]);
}

#[test]
fn a_daemon_stops_the_old_task_first_and_refuses_a_desired_count() {
    let mut lab = Lab::with(service("api").daemon());
    assert_eq!(lab.service()["desiredCount"], 2);
    lab.deploy("new");
    lab.pass(20);
    assert_eq!(lab.deployments(), ["PRIMARY :2 IN_PROGRESS 0/2 +2", "DRAINING :1 COMPLETED 0/0 +0"]);
    lab.pass(2000);
    assert_eq!(lab.deployments(), ["PRIMARY :2 COMPLETED 2/2 +0"]);
    let body = json!({"cluster": "staging", "service": "api", "desiredCount": 1});
    assert!(lab.refusal("UpdateService", &body).starts_with("InvalidParameterException"));
}

#[test]
fn a_classic_load_balancer_hides_the_rollout_state() {
    let mut lab = Lab::with(service("api").classic_load_balancer());
    lab.deploy("new");
    lab.pass(20);
    assert_eq!(lab.deployments(), ["PRIMARY :2 - 0/2 +2", "ACTIVE :1 - 2/2 +0"]);
    lab.pass(2000);
    assert_eq!(lab.deployments(), ["PRIMARY :2 - 2/2 +0"]);
    assert!(lab.events().starts_with("(service api) has reached a steady state."));
}

#[test]
fn without_a_load_balancer_nothing_drains() {
    let mut lab = Lab::with(service("api").without_load_balancer());
    lab.deploy("new");
    lab.pass(260);
    assert_eq!(lab.tasks("STOPPED")[0]["lastStatus"], "STOPPING");
    lab.pass(100);
    assert_eq!(lab.deployments(), ["PRIMARY :2 COMPLETED 2/2 +0"]);
}
