//! Native blue/green, linear and canary deployments, stage by stage.

use serde_json::{Value, json};

use super::{Lab, text};
use crate::{
    behaviour::Behaviour,
    builder::{ServiceBuilder, service},
};

/// The newest service deployment, described.
fn newest(lab: &mut Lab) -> Value {
    let arn = lab.service()["currentServiceDeployment"].clone();
    lab.ask("DescribeServiceDeployments", &json!({"serviceDeploymentArns": [arn]}))["serviceDeployments"][0].take()
}

fn stage(lab: &mut Lab) -> String {
    text(&newest(lab)["lifecycleStage"])
}

/// Goes on until a stage is reached.
fn reach(lab: &mut Lab, wanted: &str) {
    for _ in 0..20_000 {
        if stage(lab) == wanted {
            return;
        }
        lab.pass(5);
    }
    panic!("{wanted} is never reached");
}

/// How many of so many requests the new version answers.
fn answered_by_new(lab: &mut Lab, requests: usize) -> usize {
    let mut ask = || format!("{:?}", crate::load_balancer::answer(&mut lab.0, "/lb/us-east-1/staging/api/ping"));
    (0..requests).filter(|_| ask().contains("api-new")).count()
}

/// The shares of the new and of the old version, as they are described.
fn weights(lab: &mut Lab) -> (Value, Value) {
    let described = newest(lab);
    let weight = |summary: &Value| summary["requestedProductionTrafficWeight"].clone();
    (weight(&described["targetServiceRevision"]), weight(&described["sourceServiceRevisions"][0]))
}

/// Each stage and share of the traffic that a deployment goes through, with both versions at full count until the end.
fn stages(builder: ServiceBuilder) -> Vec<String> {
    let mut lab = Lab::with(builder);
    lab.deploy("new");
    let mut seen: Vec<String> = Vec::new();
    for _ in 0..20_000 {
        let now = format!("{} {}", stage(&mut lab), weights(&mut lab).0);
        if seen.last() != Some(&now) {
            seen.push(now);
        }
        let deployments = lab.deployments();
        if deployments[0].contains("COMPLETED") {
            assert_eq!(deployments, ["PRIMARY :2 COMPLETED 2/2 +0"]);
            return seen;
        }
        if stage(&mut lab) != "CLEAN_UP" {
            assert_eq!(deployments[1], "ACTIVE :1 COMPLETED 2/2 +0", "{seen:?}");
        }
        lab.pass(5);
    }
    panic!("it never completes: {seen:?}");
}

#[test]
fn blue_green_goes_through_every_stage_and_completes_only_after_the_bake() {
    assert_eq!(
        stages(service("api").blue_green(10)),
        [
            "PRE_SCALE_UP 0.0",
            "SCALE_UP 0.0",
            "POST_SCALE_UP 0.0",
            "TEST_TRAFFIC_SHIFT 0.0",
            "POST_TEST_TRAFFIC_SHIFT 0.0",
            "PRODUCTION_TRAFFIC_SHIFT 100.0",
            "POST_PRODUCTION_TRAFFIC_SHIFT 100.0",
            "BAKE_TIME 100.0",
            "CLEAN_UP 100.0",
            " 100.0",
        ]
    );
}

#[test]
fn linear_and_canary_move_the_traffic_in_steps() {
    let shares = |builder| -> Vec<String> {
        let shift = |seen: &String| Some(seen.strip_prefix("PRODUCTION_TRAFFIC_SHIFT ")?.to_owned());
        stages(builder).iter().filter_map(shift).collect()
    };
    assert_eq!(shares(service("api").linear(33.3, 2, 1)), ["33.3", "66.6", "99.9", "100.0"]);
    assert_eq!(shares(service("api").linear(50.0, 0, 0)), ["50.0", "100.0"]);
    assert_eq!(shares(service("api").canary(0.5, 3, 1)), ["0.5", "100.0"]);
}

#[test]
fn the_load_balancer_follows_the_shares() {
    let mut lab = Lab::with(service("api").canary(12.5, 5, 5));
    lab.deploy("new");
    reach(&mut lab, "POST_TEST_TRAFFIC_SHIFT");
    assert_eq!(lab.deployments()[0], "PRIMARY :2 IN_PROGRESS 2/2 +0");
    assert_eq!(answered_by_new(&mut lab, 1000), 0);
    reach(&mut lab, "PRODUCTION_TRAFFIC_SHIFT");
    assert_eq!(weights(&mut lab), (json!(12.5), json!(87.5)));
    assert_eq!(answered_by_new(&mut lab, 1000), 125);
    reach(&mut lab, "BAKE_TIME");
    assert_eq!(answered_by_new(&mut lab, 1000), 1000);
}

#[test]
fn bakes_for_as_long_as_it_was_told_to() {
    let mut lab = Lab::with(service("api").blue_green(30));
    lab.deploy("new");
    reach(&mut lab, "BAKE_TIME");
    lab.pass(2990);
    assert_eq!(stage(&mut lab), "BAKE_TIME");
    assert_eq!(lab.deployments(), ["PRIMARY :2 IN_PROGRESS 2/2 +0", "ACTIVE :1 COMPLETED 2/2 +0"]);
    lab.pass(20);
    assert_eq!(stage(&mut lab), "CLEAN_UP");
    assert_eq!(lab.deployments()[1], "DRAINING :1 COMPLETED 0/0 +0");
}

#[test]
fn rolls_back_on_request_at_any_stage_without_starting_old_tasks_anew() {
    for wanted in ["SCALE_UP", "TEST_TRAFFIC_SHIFT", "PRODUCTION_TRAFFIC_SHIFT", "BAKE_TIME"] {
        let mut lab = Lab::with(service("api").linear(50.0, 5, 10));
        let old: Vec<Value> = lab.tasks("RUNNING").iter().map(|task| task["taskArn"].clone()).collect();
        let ours = lab.deploy("new");
        reach(&mut lab, wanted);
        let arn = newest(&mut lab)["serviceDeploymentArn"].clone();
        lab.ask("StopServiceDeployment", &json!({"serviceDeploymentArn": arn}));
        lab.pass(10);
        assert_eq!(answered_by_new(&mut lab, 100), 0, "{wanted}: the traffic goes back at once");
        assert_eq!(newest(&mut lab)["status"], "ROLLBACK_IN_PROGRESS");
        let shown = lab.service();
        assert_ne!(shown["deployments"][0]["id"], ours);
        assert_eq!(shown["deployments"][0]["runningCount"], 2);
        assert_eq!(
            (&shown["deployments"][1]["id"], &shown["deployments"][1]["rolloutState"]),
            (&json!(ours), &json!("FAILED"))
        );
        lab.pass(2000);
        assert_eq!(lab.deployments(), ["PRIMARY :1 COMPLETED 2/2 +0"], "{wanted}");
        assert_eq!(newest(&mut lab)["status"], "ROLLBACK_SUCCESSFUL");
        let left: Vec<Value> = lab.tasks("RUNNING").iter().map(|task| task["taskArn"].clone()).collect();
        assert_eq!(left, old, "{wanted}");
    }
}

#[test]
fn alarms_roll_back_while_it_bakes() {
    let mut lab = Lab::with(service("api").blue_green(10).alarms(true));
    lab.deploy("new");
    reach(&mut lab, "BAKE_TIME");
    let now = lab.0.now;
    if let Ok((service, _)) = lab.0.service_mut("us-east-1", "staging", "api") {
        service.alarm = true;
        service.rouse(now);
    }
    lab.pass(5);
    assert_eq!(answered_by_new(&mut lab, 100), 0);
    let described = newest(&mut lab);
    assert_eq!(
        (&described["status"], &described["alarms"]["status"]),
        (&json!("ROLLBACK_IN_PROGRESS"), &json!("TRIGGERED"))
    );
    lab.pass(2000);
    assert_eq!(lab.deployments(), ["PRIMARY :1 COMPLETED 2/2 +0"]);
}

#[test]
fn the_circuit_breaker_is_for_rolling_updates_only() {
    let mut lab = Lab::with(service("api").blue_green(1).circuit_breaker(true));
    lab.version("bad", Behaviour::ImageMissing);
    lab.deploy("bad");
    lab.pass(20_000);
    assert_eq!(stage(&mut lab), "SCALE_UP");
    assert_eq!(newest(&mut lab)["deploymentCircuitBreaker"]["status"], "DISABLED");
    let deployments = lab.deployments();
    assert!(deployments[0].starts_with("PRIMARY :2 IN_PROGRESS 0/2"), "{deployments:?}");
    assert_eq!(deployments[1], "ACTIVE :1 COMPLETED 2/2 +0");
}

#[test]
fn going_back_by_an_update_is_a_whole_new_cycle() {
    let mut lab = Lab::with(service("api").blue_green(10));
    lab.deploy("new");
    reach(&mut lab, "BAKE_TIME");
    lab.update(&json!({"taskDefinition": "api:1"}));
    assert_eq!(stage(&mut lab), "RECONCILE_SERVICE");
    let listed = lab.ask("ListServiceDeployments", &json!({"cluster": "staging", "service": "api"}));
    assert_eq!(listed["serviceDeployments"][1]["status"], "STOPPED");
    assert_eq!(answered_by_new(&mut lab, 100), 100, "what served before goes on serving");
    reach(&mut lab, "BAKE_TIME");
    assert_eq!(answered_by_new(&mut lab, 100), 0);
    assert_eq!(lab.deployments().len(), 3);
    reach(&mut lab, "CLEAN_UP");
    lab.pass(2000);
    assert_eq!(lab.deployments(), ["PRIMARY :1 COMPLETED 2/2 +0"]);
}

#[test]
fn both_versions_are_kept_at_full_count_while_it_bakes() {
    let mut lab = Lab::with(service("api").blue_green(20));
    lab.deploy("new");
    reach(&mut lab, "BAKE_TIME");
    for arn in lab.tasks("RUNNING").iter().map(|task| task["taskArn"].clone()).collect::<Vec<_>>() {
        lab.ask("StopTask", &json!({"cluster": "staging", "task": arn}));
    }
    lab.pass(600);
    assert_eq!(lab.deployments(), ["PRIMARY :2 IN_PROGRESS 2/2 +0", "ACTIVE :1 COMPLETED 2/2 +0"]);
}

#[test]
fn without_a_load_balancer_no_traffic_is_moved() {
    let mut lab = Lab::with(service("api").blue_green(10).without_load_balancer());
    lab.deploy("new");
    reach(&mut lab, "BAKE_TIME");
    assert_eq!(answered_by_new(&mut lab, 100), 50);
}

#[test]
fn refuses_shares_and_waits_out_of_range() {
    let mut lab = Lab::with(service("api"));
    for configuration in [
        json!({"linearConfiguration": {"stepPercent": 2.9}}),
        json!({"canaryConfiguration": {"canaryPercent": 0.0}}),
        json!({"canaryConfiguration": {"canaryBakeTimeInMinutes": 1441}}),
        json!({"bakeTimeInMinutes": 1441}),
    ] {
        let body = json!({"cluster": "staging", "service": "api", "deploymentConfiguration": configuration});
        let refusal = lab.refusal("UpdateService", &body);
        assert!(refusal.starts_with("InvalidParameterException"), "{refusal}");
    }
}
